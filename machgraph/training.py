"""What training is told: how a machine descends, on what, and the samples in batches."""

from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from machgraph.plan import Plan

Loss = Literal["cross_entropy", "squared_error"]
Reading = Literal["each", "mean", "last"]


@dataclass(frozen=True)
class Optimizer:
    """How one machine of a population descends; the steps are those of ``torch.optim``.

    Parameters
    ----------
    kind : ``sgd`` (with momentum; decay added to the gradient), ``adam`` (decay added to the gradient) or ``adamw``
        (decay apart, times the learning rate).
    learning_rate : its peak; a schedule multiplies it.
    weight_decay, momentum, betas, epsilon : as in ``torch.optim``.

    Raises
    ------
    ValueError : another kind, or a number out of its range.
    """

    kind: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if self.kind not in ("sgd", "adam", "adamw"):
            raise ValueError(f'got optimizer {self.kind!r}: give "sgd", "adam" or "adamw"')
        for name in ("learning_rate", "weight_decay", "epsilon"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"got {name}={getattr(self, name)!r}: it must be 0 or more, and finite")
        for name, values in (("momentum", (self.momentum,)), ("betas", self.betas)):
            if not all(0 <= value < 1 for value in values):
                raise ValueError(f"got {name}={getattr(self, name)!r}: from 0 to below 1")


@dataclass(frozen=True)
class Objective:
    """What the machines of a population descend on.

    Parameters
    ----------
    loss : ``cross_entropy`` of classes, the outputs being logits; or ``squared_error``, the mean over all outputs.
    reading : where the output block is read: at ``each`` position, its ``mean`` over all of them, or at the ``last``
        one. A dense machine has but one.
    label_smoothing : of the cross-entropy, in training only.

    Raises
    ------
    ValueError : another loss or reading, or a smoothing out of its range, or of another loss than the cross-entropy.
    """

    loss: Loss
    reading: Reading = "mean"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.loss not in ("cross_entropy", "squared_error"):
            raise ValueError(f'got loss {self.loss!r}: give "cross_entropy" or "squared_error"')
        if self.reading not in ("each", "mean", "last"):
            raise ValueError(f'got reading {self.reading!r}: give "each", "mean" or "last"')
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"got label_smoothing={self.label_smoothing!r}: from 0 to below 1")
        if self.label_smoothing and self.loss != "cross_entropy":
            raise ValueError(
                f"got label_smoothing={self.label_smoothing!r} for the loss {self.loss}: only classes are smoothed, so "
                "give 0"
            )


@dataclass(frozen=True)
class Batches:
    """Samples in batches of one size, laid out as machines read them: the samples of a batch innermost.

    Both are kept without their history, contiguous; targets that are classes as 64-bit numbers, values in the type of
    the inputs.

    Parameters
    ----------
    inputs : ``[batch, channel, position, sample]``.
    targets : classes ``[batch, position * sample]`` or values ``[batch, output, position * sample]``, where outputs are
        read at one position or at each.
    size : of the axes of positions.

    Raises
    ------
    TypeError : something else than tensors.
    ValueError : other axes than these, no batch or sample, targets of other batches, inputs that are not real numbers.
    """

    inputs: Tensor
    targets: Tensor
    size: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_tensors(inputs=self.inputs, targets=self.targets)
        inputs, targets = self.inputs.detach().contiguous(), self.targets.detach().contiguous()
        values = targets.is_floating_point()
        if not inputs.is_floating_point() or targets.is_complex():
            raise ValueError(f"got inputs of {inputs.dtype} and targets of {targets.dtype}: give real numbers")
        if inputs.dim() != 4 or inputs.shape[2] != prod(self.size) or 0 in inputs.shape:
            raise ValueError(
                f"got inputs of shape {tuple(inputs.shape)} for positions of size {tuple(self.size)}: "
                f"give [batch, channel, position, sample] with {prod(self.size)} positions"
            )
        if targets.dim() != 2 + values or targets.shape[0] != inputs.shape[0] or targets.device != inputs.device:
            axes = "values [batch, output, position * sample]" if values else "classes [batch, position * sample]"
            raise ValueError(
                f"got targets of shape {tuple(targets.shape)} on {targets.device} for {inputs.shape[0]} batches "
                f"on {inputs.device}: give {axes}"
            )
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "targets", targets.to(inputs.dtype) if values else targets.long())

    def __len__(self) -> int:
        return self.inputs.shape[0]

    @property
    def samples(self) -> int:
        """Number of samples in all."""
        return self.inputs.shape[0] * self.inputs.shape[-1]


def batches(x: Tensor, y: Tensor, size: int, order: Tensor | None = None) -> tuple[Batches, ...]:
    """Samples in batches: those of full size, and a last one with what is left, if any.

    Parameters
    ----------
    x : ``(sample, channel, *size)``.
    y : classes ``(sample,)`` or ``(sample, *size)``; values ``(sample, output)`` or ``(sample, output, *size)``.
    size : samples of a batch.
    order : which samples, in which order; all as they come if left out.

    Raises
    ------
    TypeError : something else than tensors.
    ValueError : a size below 1, ``x`` or ``y`` of other axes, or not as many targets as samples.

    Examples
    --------
    >>> import torch
    >>> full, rest = batches(torch.zeros(10, 3), torch.zeros(10, dtype=torch.long), size=4)
    >>> full.inputs.shape, rest.inputs.shape
    (torch.Size([2, 3, 1, 4]), torch.Size([1, 3, 1, 2]))
    """
    _check_tensors(x=x, y=y)
    if not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"got size={size!r}: give the number of samples of a batch, at least 1")
    if x.dim() < 2 or y.dim() < 1 + y.is_floating_point():
        raise ValueError(
            f"got x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}: x is (sample, channel, *size), "
            "and y (sample,) for classes or (sample, output) for values, for example y[:, None]"
        )
    if len(x) != len(y):
        raise ValueError(f"got {len(x)} samples and {len(y)} targets: give one for each")
    if order is not None:
        x, y = x[order], y[order]
    number, axes = len(x) // size, tuple(x.shape[2:])
    parts = [(0, number, size), (number * size, 1, len(x) - number * size)]
    return tuple(
        Batches(_by_batch(x, start, count, of, 1), _targets(y, start, count, of), axes)
        for start, count, of in parts
        if count * of
    )


def read_positions(plan: Plan, reading: Reading) -> NDArray[np.int64]:
    """The positions of a plan where outputs are read, padding counted; all of them or the last.

    Raises
    ------
    ValueError : the last of several axes.
    """
    grid = plan.answering
    if reading == "last" and len(grid.extents) > 1:
        raise ValueError(f'got reading "last" for {len(grid.extents)} axes of positions: a last one has only a series')
    positions = grid.inside.ravel()
    return positions[-1:] if reading == "last" else positions


def _check_tensors(**given: object) -> None:
    for name, x in given.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"got {name} of type {type(x).__name__}: give a torch tensor")


def _by_batch(x: Tensor, start: int, count: int, of: int, kept: int) -> Tensor:
    """``[batch, *kept axes, position, sample]``."""
    part = x[start : start + count * of]
    shape = (count, of, *part.shape[1 : 1 + kept], prod(part.shape[1 + kept :]))
    return part.reshape(shape).movedim(1, -1).contiguous()


def _targets(y: Tensor, start: int, count: int, of: int) -> Tensor:
    return _by_batch(y, start, count, of, int(y.is_floating_point())).flatten(-2)
