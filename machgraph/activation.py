"""Pointwise nonlinearities σ, each with its derivative as a scalar rule on (input, output)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import pi, sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Pointwise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Activation:
    """A pointwise nonlinearity and its derivative.

    Parameters
    ----------
    name : what a user types, and what is saved.
    function : ``y -> σ(y)``.
    derivative : ``(y, σ(y)) -> σ'(y)``, of the same shape; differentiable itself, so that second derivatives work. A
        machine's own loop takes it. ``machine.architecture``, ``torch.compile`` and ``torch.export`` differentiate
        ``function``, so one whose derivative is not its own, for them too, is a ``torch.autograd.Function``.
    """

    name: str
    function: Pointwise
    derivative: Callable[[Tensor, Tensor], Tensor]

    @property
    def is_named(self) -> bool:
        """Whether its name alone says what it is."""
        return ACTIVATIONS.get(self.name) is self

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled by its name, or with both of its functions."""
        if self.is_named:
            return as_activation, (self.name,)
        return Activation, (self.name, self.function, self.derivative)


def _gelu_derivative(y: Tensor, _: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(y / sqrt(2))) + y * torch.exp(-0.5 * y * y) / sqrt(2 * pi)  # Φ(y) + y φ(y)


def _silu_derivative(y: Tensor, a: Tensor) -> Tensor:
    return a + torch.sigmoid(y) * (1 - a)


ACTIVATIONS = {
    activation.name: activation
    for activation in (
        Activation("identity", lambda y: y, lambda y, _: torch.ones_like(y)),
        Activation("tanh", torch.tanh, lambda _, a: 1 - a * a),
        Activation("sigmoid", torch.sigmoid, lambda _, a: a * (1 - a)),
        Activation("relu", torch.relu, lambda y, _: (y > 0).to(y.dtype)),
        Activation("leaky_relu", F.leaky_relu, lambda y, _: torch.where(y > 0, torch.ones_like(y), 0.01)),
        Activation("elu", F.elu, lambda y, a: torch.where(y > 0, torch.ones_like(y), a + 1)),
        Activation("gelu", F.gelu, _gelu_derivative),
        Activation("silu", F.silu, _silu_derivative),
        Activation("softplus", F.softplus, lambda y, _: torch.sigmoid(y)),
        Activation("sine", torch.sin, lambda y, _: torch.cos(y)),
    )
}


@dataclass(frozen=True, eq=False)
class _Differentiated:
    """σ' of any pointwise function: its Jacobian is diagonal, so its product with ones is the derivative.

    A vjp and not a jvp, because torch does not nest forward mode, and a tangent machine may be asking.
    """

    function: Pointwise

    def __call__(self, y: Tensor, _: Tensor) -> Tensor:
        (slope,) = torch.func.vjp(self.function, y)[1](torch.ones_like(y))
        return slope  # type: ignore[no-any-return]


def as_activation(value: str | Pointwise | Activation) -> Activation:
    """The activation that a name or a pointwise callable stands for.

    A callable is tried on a few numbers, since one that is not pointwise, or draws at random, or learns, would get a
    wrong gradient and say nothing.

    Raises
    ------
    ValueError : an unknown name; or a callable that is not pointwise, returns another shape or dtype, changes its
        argument, gives another value each time, or holds something that is learned (only ``W`` and the bias are here).
    TypeError : neither a name nor a callable.

    Examples
    --------
    >>> square = as_activation(lambda y: y * y)
    >>> square.derivative(torch.tensor([3.0]), torch.tensor([9.0]))
    tensor([6.])
    """
    if isinstance(value, Activation):
        return value
    if isinstance(value, str):
        if value not in ACTIVATIONS:
            near = get_close_matches(value, ACTIVATIONS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"got activation {value!r}: {hint}the names are {', '.join(ACTIVATIONS)}; or give a callable"
            )
        return ACTIVATIONS[value]
    if not callable(value):
        raise TypeError(
            f"got an activation of type {type(value).__name__}: give a name ({', '.join(ACTIVATIONS)}) or a callable"
        )
    name = getattr(value, "__name__", type(value).__name__)
    with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):  # whatever is set around this
        fault = _fault(value)
    if fault:
        raise ValueError(
            f"got activation {name}, which {fault}: use a pointwise function without parameters and without chance, "
            "or write the network as a sum of mg.Machine"
        )
    return Activation(name, value, _Differentiated(value))


def _fault(function: Pointwise) -> str | None:
    """What keeps a callable from being a pointwise nonlinearity, found by trying it."""
    y = torch.linspace(-2.1, 2.3, 24).view(6, 4)
    given = y.clone()
    try:
        a, again, part = function(given), function(y.clone()), function(y[:4, :3].clone())
    except Exception as error:  # whatever it is, it is the user's function that fails
        return f"fails on a tensor of shape (6, 4) ({type(error).__name__}: {error})"
    if not isinstance(a, Tensor):
        return f"returns {type(a).__name__}, not a tensor"
    if a.shape != y.shape or a.dtype != y.dtype:
        return f"returns {tuple(a.shape)} of {a.dtype} for {tuple(y.shape)} of {y.dtype}"
    if not torch.equal(given, y):
        return "changes its argument in place"
    if a.requires_grad:
        return "holds a parameter of its own"
    if not torch.allclose(a, again, rtol=0, atol=0, equal_nan=True):
        return "gives another value each time"
    if not torch.allclose(a[:4, :3], part, equal_nan=True):
        return "is not pointwise"
    return None


def per_block(activation: str | Pointwise | Sequence[str | Pointwise], blocks: int) -> tuple[Activation, ...]:
    """One activation for each block: the one given for all, or the list checked for its length."""
    if not isinstance(activation, list | tuple):
        return (as_activation(activation),) * blocks  # type: ignore[arg-type]  # what else it is, is refused there
    activations = tuple(as_activation(value) for value in activation)
    if len(activations) != blocks:
        raise ValueError(
            f"got {len(activations)} activations for {blocks} blocks: give one for all, or one for each block"
        )
    return activations
