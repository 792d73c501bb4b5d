"""The resolvent by the compiled loop, on the CPU: one call forward, and one back for the dual and all gradients.

For machines of a few units the cost of a solution is what surrounds it, so this is an ``autograd.Function`` of the old
kind around two calls. All else (transforms of ``torch.func``, forward mode, derivatives of derivatives, other devices
and types, nonlinearities of one's own) goes by ``resolvent.py``, the reference that this is held to.
"""

import os
import sys
import warnings
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad

from machgraph.activation import Activation
from machgraph.lower import plain_is_wanted
from machgraph.plan import Plan

if TYPE_CHECKING:
    from machgraph.parametric import ParametricMachine

Codes = NDArray[np.int64]
Strides = tuple[int, int, int, int, int]

LIKE = {torch.float32: np.float32(0), torch.float64: np.float64(0)}
NO_TENSOR = (0, 0, (0, 0, 0, 0, 0))
PLAIN = (Tensor, torch.nn.Parameter)
LARGE = 10**8  # operations from which on torch's threads, if there are more than two, are faster than one of these


AVAILABLE = os.environ.get("MACHGRAPH_COMPILED", "1") != "0" and find_spec("numba") is not None


def available() -> bool:
    """Whether the loop can be compiled: numba is there, and ``MACHGRAPH_COMPILED=0`` does not forbid it."""
    return AVAILABLE and _numba_works()


@cache
def _numba_works() -> bool:
    """Whether numba, which is slow to import, can be imported at all; tried at first use, and told once."""
    try:
        import numba  # noqa: F401
    except Exception as error:  # of a numpy too new for it, say, or of a library that is missing
        warnings.warn(
            f"numba is installed, but its import fails ({type(error).__name__}: {error}), so machines run in torch: "
            "install another version of it, or set MACHGRAPH_COMPILED=0",
            stacklevel=2,
        )
        return False
    return True


def codes(activations: tuple[Activation, ...]) -> Codes | None:
    """The numbers of nonlinearities in compiled code; ``None`` if one of them is not there."""
    from machgraph.kernels.pointwise import CODES

    if not all(activation.is_named for activation in activations):
        return None
    return np.array([CODES[activation.name] for activation in activations], dtype=np.int64)


def serves(machine: "ParametricMachine", y0: Tensor, z0: Tensor | None) -> bool:
    """Whether ``resolvent`` can solve the machine for this input, which is as it should be, and is the faster way."""
    if plain_is_wanted() or not available() or not isinstance(y0, Tensor) or y0.dtype not in LIKE:
        return False
    weight, bias, dtype = machine.weight, machine.bias, y0.dtype
    shape, channels = y0.shape, weight.shape[0]
    return (
        _has_memory(y0, dtype)
        and _has_memory(weight, dtype)
        and weight.is_contiguous()
        and len(shape) == weight.dim()
        and 1 <= shape[1] <= channels
        and 0 not in shape
        and (bias is None or (_has_memory(bias, dtype) and bias.is_contiguous() and bias.shape == (channels,)))
        and (z0 is None or (isinstance(z0, Tensor) and _has_memory(z0, dtype) and fits(z0.shape, shape, channels)))
        and (torch.get_num_threads() <= 2 or weight.numel() * y0.numel() < LARGE * shape[1])
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and not _is_observed()
        and _codes(machine) is not None
    )


def _has_memory(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether the numbers of a tensor are in its memory as they are: subclasses may have none, views may be negated."""
    return type(x) in PLAIN and x.dtype == dtype and x.is_cpu and not x.is_neg()


def fits(z0: torch.Size, y0: torch.Size, channels: int) -> bool:
    """Whether tensors of these shapes go together: they may differ in the number of channels alone."""
    return len(z0) == len(y0) and z0[0] == y0[0] and z0[2:] == y0[2:] and 1 <= z0[1] <= channels


def _is_observed() -> bool:
    """Whether forward mode or a mode of ``__torch_dispatch__`` (fake tensors, counters) has to see each operation."""
    return forward_ad._current_level >= 0 or torch._C._len_torch_dispatch_stack() > 0


def resolvent(machine: "ParametricMachine", y0: Tensor, z0: Tensor | None) -> tuple[Tensor, Tensor]:
    """``(y, z)`` of ``machine.solve(y0, z0)``, for tensors ``(sample, channel, *size)`` of some of the channels."""
    y, z = _CompiledResolvent.apply(machine, machine.weight, machine.bias, y0, z0)  # type: ignore[no-untyped-call]
    return y, z


class _CompiledResolvent(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, machine: "ParametricMachine", weight: Tensor, bias: Tensor | None, y0: Tensor, z0: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        plan, codes = program(machine, weight, y0)
        y, z = forward(plan, codes, weight, bias, y0, z0)
        ctx.machine, ctx.plan, ctx.codes, ctx.activation = machine, plan, codes, machine.activation
        ctx.shape, ctx.layout = weight.shape, _layout(z)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weight, bias, y0, z0, y, z)
        return y, z

    @staticmethod
    def backward(ctx: Any, v0: Tensor | None, u0: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, bias, y0, z0, y, z = ctx.saved_tensors
        if v0 is None and u0 is None:
            return (None,) * 5
        if weight.shape != ctx.shape:
            raise RuntimeError(f"got weight of shape {tuple(weight.shape)} after a solution with another: solve again")
        if (
            torch.is_grad_enabled()
            or _is_wrapped(v0)
            or _is_wrapped(u0)
            or _is_observed()
            or not (_layout(y) == _layout(z) == ctx.layout and weight.is_contiguous())
        ):
            return (None, *_differentiable(ctx, (weight, bias, y0, z0), (v0, u0)))
        Q, b, u, v = backward(ctx.plan, ctx.codes, weight, y, z, v0, u0, ctx.needs_input_grad[1:3])
        return None, Q, b, _channels(v, y0), None if z0 is None else _channels(u, z0)


def program(machine: "ParametricMachine", weight: Tensor, like: Tensor) -> tuple[Plan, Codes]:
    """What solves a machine with these weights for tensors of this size: a plan, and codes of activations it knows.

    Raises
    ------
    ValueError : weights of another shape, or another number of activations than of blocks.
    """
    plan, known = machine.plan(tuple(like.shape[2:])), _codes(machine)
    if weight.shape != (plan.channels, plan.channels, *machine.kernel):
        raise ValueError(
            f"got weight of shape {tuple(weight.shape)} for {plan.channels} channels and a kernel of "
            f"{machine.kernel or 1}: give it the shape {(plan.channels, plan.channels, *machine.kernel)}"
        )
    assert known is not None
    if len(known) != len(plan.blocks):
        raise ValueError(f"got {len(known)} activations for {len(plan.blocks)} blocks: give one for each block")
    return plan, known


def forward(
    plan: Plan, codes: Codes, weight: Tensor, bias: Tensor | None, y0: Tensor, z0: Tensor | None
) -> tuple[Tensor, Tensor]:
    """``y`` and ``z``, each ``(sample, channels, *size)``, of the machine of a plan with these weights."""
    y = _solution(plan, y0)
    z = _another(plan, y)
    bias_address = 0 if bias is None else bias.data_ptr()
    memory = _memory(plan, y), _memory(plan, z)
    _entry().forward(*_call(plan, codes, y0), _matrices(weight), bias_address, _tensor(y0), _tensor(z0), memory)
    return y, z


def backward(
    plan: Plan,
    codes: Codes,
    weight: Tensor,
    y: Tensor,
    z: Tensor,
    v0: Tensor | None,
    u0: Tensor | None,
    needed: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
    """The gradients of weight and bias, if needed, and ``u`` and ``v``, each ``(sample, channels, *size)``."""
    v0, u0 = v0 if v0 is None else v0.resolve_neg(), u0 if u0 is None else u0.resolve_neg()
    u, v = _another(plan, y), _another(plan, y)
    Q = torch.empty((plan.taps, plan.channels, plan.channels), dtype=y.dtype, device="cpu") if needed[0] else None
    b = torch.empty(plan.channels, dtype=y.dtype, device="cpu") if needed[1] else None
    memory = _memory(plan, y), _memory(plan, z), _memory(plan, u), _memory(plan, v)
    gradients = 0 if Q is None else Q.data_ptr(), 0 if b is None else b.data_ptr()
    _entry().backward(*_call(plan, codes, y), _matrices(weight), _tensor(v0), _tensor(u0), memory, gradients)
    if Q is not None:
        Q = Q[0] if weight.dim() == 2 else Q.permute(1, 2, 0).reshape(weight.shape)
    return Q, b, u, v


def _differentiable(
    ctx: Any, inputs: tuple[Tensor | None, ...], cotangents: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    """The gradients as functions that can be differentiated again: those of the reference, solved anew."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = tuple(None if x is None else x.view_as(x) for x in inputs)  # each apart: one may depend on another
        solution = ctx.machine.reference(*inputs, planned=(ctx.plan, ctx.activation))
    pairs = [(x, cotangent) for x, cotangent in zip(solution, cotangents, strict=True) if cotangent is not None]
    wanted = [i for i, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
    outputs, given = zip(*pairs, strict=True)
    roots = [x for i in wanted if (x := inputs[i]) is not None]
    found = torch.autograd.grad(outputs, roots, given, create_graph=create_graph)
    gradients: list[Tensor | None] = [None] * len(inputs)
    for i, gradient in zip(wanted, found, strict=True):
        gradients[i] = gradient
    return gradients


def _is_wrapped(x: Tensor | None) -> bool:
    """Whether a transform runs over the backward pass, as for batches of cotangents; such a tensor has no memory."""
    functorch = torch._C._functorch
    return x is not None and (functorch.is_functorch_wrapped_tensor(x) or functorch.is_legacy_batchedtensor(x))


# ---- tensors as addresses ------------------------------------------------------------------------------------


def _call(plan: Plan, codes: Codes, like: Tensor) -> tuple[Any, ...]:
    """What both calls begin with: a number of the type, the tables, and channels, taps and samples."""
    return LIKE[like.dtype], plan.program.resolvent, codes, (plan.channels, plan.taps, like.shape[0])


def _solution(plan: Plan, like: Tensor) -> Tensor:
    """Memory for ``[channel, position]``, padding included, seen as ``(sample, channel, *size)``.

    Not a view for autograd: what changes it in place is found, and told, when the gradient is taken.
    """
    samples, _, *size = like.shape
    row = plan.positions * samples
    shape, strides = (samples, plan.channels, *size), (1, row, *(samples * stride for stride in plan.strides))
    if not plan.margins:
        return torch.empty_strided(shape, strides, dtype=like.dtype, device="cpu")
    memory = torch.empty(plan.channels * row, dtype=like.dtype, device="cpu").untyped_storage()
    return torch.empty(0, dtype=like.dtype, device="cpu").set_(memory, samples * plan.first, shape, strides)


def _another(plan: Plan, x: Tensor) -> Tensor:
    """Memory for one more solution of this size."""
    return _solution(plan, x) if plan.margins else torch.empty_like(x)


def memory(x: Tensor, channels: int) -> Tensor:
    """All of the memory of a solution, ``[channel, position]``, padding included."""
    whole = x.untyped_storage()
    row = whole.nbytes() // (channels * x.element_size())
    return torch.empty(0, dtype=x.dtype, device="cpu").set_(whole, 0, (channels, row), (row, 1))


def solution(machine: "ParametricMachine", X: Tensor, like: Tensor) -> Tensor:
    """Memory ``[channel, position]`` as ``(sample, channel, *size)``, of the size of a tensor of that form."""
    samples, _, *size = like.shape
    plan = machine.plan(tuple(size))
    strides = 1, plan.positions * samples, *(samples * stride for stride in plan.strides)
    return X.as_strided((samples, plan.channels, *size), strides, X.storage_offset() + samples * plan.first)


def _layout(x: Tensor) -> tuple[Any, ...]:
    """Where a solution lies in its memory; hooks on saved tensors may give back a copy, with no padding around it."""
    return x.stride(), x.storage_offset(), x.untyped_storage().nbytes()


def _memory(plan: Plan, x: Tensor) -> int:
    """Where the memory of a solution begins."""
    return x.data_ptr() - x.element_size() * plan.first * x.shape[0]


def _matrices(weight: Tensor) -> tuple[int, tuple[int, int, int]]:
    taps = weight.numel() // weight.shape[0] ** 2  # it is contiguous
    return weight.data_ptr(), (weight.shape[0] * taps, taps, 1)


def _tensor(x: Tensor | None) -> tuple[int, int, Strides]:
    """Address, channels, and strides of sample, channel and three axes."""
    if x is None:
        return NO_TENSOR
    sample, channel, *axes = x.stride()
    return x.data_ptr(), x.shape[1], (sample, channel, *(0, 0, 0)[len(axes) :], *axes)  # type: ignore[return-value]


def _channels(x: Tensor, like: Tensor) -> Tensor:
    return x if x.shape[1] == like.shape[1] else x[:, : like.shape[1]]


def _codes(machine: "ParametricMachine") -> Codes | None:
    """The codes of a machine's activations, looked up once."""
    known: tuple[tuple[Activation, ...], Codes | None] | None = machine.__dict__.get("_activation_codes")
    if known is None or known[0] is not machine.activation:
        known = machine.activation, codes(machine.activation)
        machine.__dict__["_activation_codes"] = known
    return known[1]


@cache
def _entry() -> Any:
    """The compiled functions."""
    announce()
    from machgraph.kernels import entry

    return entry


@cache
def announce() -> None:
    """Have it told on stderr, once, when something is compiled."""
    from machgraph.kernels import keep

    keep.announce(lambda text: print(text, file=sys.stderr))
