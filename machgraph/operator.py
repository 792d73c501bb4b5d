"""The compiled loop as operators of torch, which ``torch.compile`` takes whole instead of looking into them.

A compiler that looks into a machine of many blocks takes minutes to write a program that is no faster than the loop.
The operators are told the architecture in words, so that programs which torch keeps on disk stay right, and serve any
size of input. ``torch.export`` still looks inside: what it writes must run without machgraph.
"""

import json
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from machgraph import compiled
from machgraph.resolvent import dual_resolvent

if TYPE_CHECKING:
    from machgraph.parametric import ParametricMachine

TYPES = tuple(compiled.LIKE)
SETTINGS = ("kernel_size", "dilation", "padding", "lags", "timeblock")  # that some kind of machine has


def is_wanted(machine: "ParametricMachine", y0: Tensor, z0: Tensor | None) -> bool:
    """For a compiler at work: whether the operators can serve this input, real numbers on the CPU.

    Machines whose nonlinearities have no names are looked into.
    """
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    if exporting() or not isinstance(y0, Tensor) or _is_hindered():
        return False
    weight, bias = machine.weight, machine.bias
    shape, channels = y0.shape, weight.shape[0]
    return (
        machine.is_named
        and y0.dtype in TYPES
        and _is_alike(weight, y0)
        and y0.device.type == "cpu"
        and len(shape) == weight.dim()
        and 1 <= shape[1] <= channels
        and 0 not in shape
        and (bias is None or (_is_alike(bias, y0) and bias.shape == (channels,)))
        and (z0 is None or (_is_alike(z0, y0) and compiled.fits(z0.shape, shape, channels)))
    )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_hindered() -> bool:
    """Without the compiled loop; or where operators would be in the way: of ``torch.func``, of autocast's types."""
    return not compiled.available() or torch._C._are_functorch_transforms_active() or torch.is_autocast_enabled("cpu")


def _is_alike(x: Tensor, y0: Tensor) -> bool:
    return isinstance(x, Tensor) and x.dtype == y0.dtype and x.device == y0.device


def resolvent(machine: "ParametricMachine", y0: Tensor, z0: Tensor | None) -> tuple[Tensor, Tensor]:
    """``(y, z)`` of ``machine.solve(y0, z0)``, for tensors ``(sample, channel, *size)`` of some of the channels."""
    settings = [getattr(machine, name, None) for name in SETTINGS]
    words = described(machine, machine.partition.widths, machine._heard, *settings)
    Y, Z = torch.ops.machgraph.resolvent(machine.weight, machine.bias, y0, z0, words)
    return _inner(machine, Y, y0), _inner(machine, Z, y0)


def _inner(machine: "ParametricMachine", X: Tensor, like: Tensor) -> Tensor:
    """``[channel, position]`` as ``(sample, channel, *size)``, without the padding."""
    samples, _, *size = like.shape
    grid = [extent + before + after for extent, (before, after) in zip(size, machine.margins, strict=True)]
    x = X.view(machine.weight.shape[0], *grid, samples)
    for axis, (extent, (before, _)) in enumerate(zip(size, machine.margins, strict=True), start=1):
        x = x.narrow(axis, before, extent)
    return x.movedim(-1, 0)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def described(machine: "ParametricMachine", *_: Any) -> str:
    """The architecture in words, which to a compiler are a constant: it watches what else is given for changes."""
    from machgraph.io import specification

    description = json.dumps(specification(machine))
    _machine(description)  # now, among real tensors
    return description


@lru_cache(maxsize=1024)
def _machine(description: str) -> "ParametricMachine":
    """A machine of this architecture, without weights."""
    from machgraph.io import from_specification

    return from_specification(json.loads(description), device="meta")


def _positions(description: str, like: Tensor) -> Any:
    """Positions of all samples, padding among them."""
    margins = _machine(description).margins
    sides = zip(like.shape[2:], margins, strict=True)
    return like.shape[0] * prod(extent + before + after for extent, (before, after) in sides)


@torch.library.custom_op("machgraph::resolvent", mutates_args=())
def _resolvent(
    weight: Tensor, bias: Tensor | None, y0: Tensor, z0: Tensor | None, description: str
) -> tuple[Tensor, Tensor]:
    """``Y`` and ``Z``, each ``[channel, position]``."""
    machine = _machine(description)
    bias = None if bias is None else bias.contiguous()
    y, z = compiled.forward(*compiled.program(machine, weight, y0), weight.contiguous(), bias, y0, z0)
    return compiled.memory(y, len(weight)), compiled.memory(z, len(weight))


@_resolvent.register_fake
def _(weight: Tensor, bias: Tensor | None, y0: Tensor, z0: Tensor | None, description: str) -> tuple[Tensor, Tensor]:
    shape = weight.shape[0], _positions(description, y0)
    return weight.new_empty(shape), weight.new_empty(shape)


@torch.library.custom_op("machgraph::dual_resolvent", mutates_args=())
def _dual(
    weight: Tensor, Y: Tensor, Z: Tensor, V0: Tensor, U0: Tensor, y0: Tensor, description: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the weight and of the bias, and ``U`` and ``V``; all but the first ``[channel, position]``."""
    machine = _machine(description)
    y, z, v0, u0 = (compiled.solution(machine, X.contiguous(), y0) for X in (Y, Z, V0, U0))
    program = compiled.program(machine, weight, y0)
    Q, b, u, v = compiled.backward(*program, weight.contiguous(), y, z, v0, u0, (True, True))
    assert Q is not None
    assert b is not None
    return Q.contiguous(), b, compiled.memory(u, len(weight)), compiled.memory(v, len(weight))


@_dual.register_fake
def _(
    weight: Tensor, Y: Tensor, Z: Tensor, V0: Tensor, U0: Tensor, y0: Tensor, description: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    Q = torch.empty_like(weight, memory_format=torch.contiguous_format)
    return Q, weight.new_empty(weight.shape[0]), torch.empty_like(Y), torch.empty_like(Y)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    weight, bias, y0, z0, ctx.description = inputs
    ctx.has_bias, ctx.has_z0 = bias is not None, z0 is not None
    ctx.save_for_backward(weight, y0, y0 if z0 is None else z0, *output)


def _gradients(ctx: Any, V0: Tensor, U0: Tensor) -> tuple[Tensor | None, ...]:
    weight, y0, z0, Y, Z = ctx.saved_tensors
    machine = _machine(ctx.description)
    if torch.is_grad_enabled():  # somebody will differentiate again
        plan, W = machine.plan(tuple(y0.shape[2:])), machine.matrices(weight)[None]
        halves = (X[None] for X in (Y, Z, V0, U0))
        Q, b, U, V = (x[0] for x in dual_resolvent(plan, machine.activation, W, *halves))
        Q = Q.movedim(0, -1).reshape(weight.shape)
    else:
        Q, b, U, V = torch.ops.machgraph.dual_resolvent(weight, Y, Z, V0, U0, y0, ctx.description)
    v, u = _inner(machine, V, y0)[:, : y0.shape[1]], _inner(machine, U, y0)[:, : z0.shape[1]]
    return Q, b if ctx.has_bias else None, v, u if ctx.has_z0 else None, None


_resolvent.register_autograd(_gradients, setup_context=_keep)
