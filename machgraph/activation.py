"""Pointwise nonlinearities σ, each with its derivative as a scalar rule on (input, output)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import pi, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pointwise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Activation:
    """A pointwise nonlinearity and its derivative.

    Parameters
    ----------
    name : what a user types, and what is saved.
    function : ``y -> σ(y)``.
    derivative : ``(y, σ(y)) -> σ'(y)``, of the same shape; differentiable itself, so that second derivatives work.
    """

    name: str
    function: Pointwise
    derivative: Callable[[Tensor, Tensor], Tensor]


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
        Activation("leaky_relu", F.leaky_relu, lambda y, _: torch.where(y > 0, 1.0, 0.01).to(y.dtype)),
        Activation("elu", F.elu, lambda y, a: torch.where(y > 0, torch.ones_like(y), a + 1)),
        Activation("gelu", F.gelu, _gelu_derivative),
        Activation("silu", F.silu, _silu_derivative),
        Activation("softplus", F.softplus, lambda y, _: torch.sigmoid(y)),
        Activation("sine", torch.sin, lambda y, _: torch.cos(y)),
    )
}


def _differentiated(function: Pointwise) -> Callable[[Tensor, Tensor], Tensor]:
    """σ' of any pointwise function: its Jacobian is diagonal, so its product with ones is the derivative.

    A vjp and not a jvp, because torch does not nest forward mode, and a tangent machine may be asking.
    """

    def derivative(y: Tensor, _: Tensor) -> Tensor:
        (slope,) = torch.func.vjp(function, y)[1](torch.ones_like(y))
        return slope  # type: ignore[no-any-return]

    return derivative


def as_activation(value: str | Pointwise | Activation) -> Activation:
    """The activation that a name or a pointwise callable stands for.

    Raises
    ------
    ValueError : an unknown name, or a module with parameters of its own (only ``W`` and the bias are learned here).
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
    if isinstance(value, nn.Module) and next(value.parameters(), None) is not None:
        raise ValueError(
            f"got activation {type(value).__name__} with parameters of its own, which would not be trained: "
            "use a pointwise function without parameters, or write the network as a sum of mg.Machine"
        )
    name = getattr(value, "__name__", type(value).__name__)
    return Activation(name, value, _differentiated(value))


def per_block(activation: str | Pointwise | Sequence[str | Pointwise], blocks: int) -> tuple[Activation, ...]:
    """One activation for each block: the one given for all, or the list checked for its length."""
    if isinstance(activation, str | Activation) or callable(activation):
        return (as_activation(activation),) * blocks
    activations = tuple(as_activation(value) for value in activation)
    if len(activations) != blocks:
        raise ValueError(
            f"got {len(activations)} activations for {blocks} blocks: give one for all, or one for each block"
        )
    return activations
