"""Dense, convolutional and recurrent machines: a kernel, a mask and a plan each, and nothing else (section 3)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from machgraph.activation import Pointwise
from machgraph.architecture import Architecture
from machgraph.boxes import Padding, convolution_plan, dense_plan, halved, margins, recurrent_plan
from machgraph.parametric_machine import ParametricMachine as ParametricMachine
from machgraph.partition import Mask, Partition, channel_mask, lag_mask, shortcut_mask
from machgraph.plan import Plan, Span
from machgraph.recurrence import Recurrence

COARSEST = 62  # scale: an axis of any length has one position long before


class DenseMachine(ParametricMachine):
    """A generalized multi-layer perceptron: ``y = W z + y0 + bias``, ``z = σ(y) + z0`` (eqs. 10 and 11).

    Tensors are ``(..., channel)``.

    Parameters
    ----------
    widths : number of channels of each block; block 0 is the input, the last block the output.
    activation : σ, for all blocks or one for each: a pointwise callable or a name (``identity, tanh, sigmoid, relu,
        leaky_relu, elu, gelu, silu, softplus, sine``).
    shortcuts : which block hears which: ``None`` (every later block hears every earlier one), ``"sequential"`` (a
        multi-layer perceptron), or a boolean array ``[block_out, block_in]``.
    bias : whether to learn a part of ``y0``, one number for each channel.
    generator : source of the initial weights.

    Raises
    ------
    ValueError : fewer than two blocks, a width below 1, an unknown activation, a shortcut to an earlier block.

    Examples
    --------
    >>> machine = DenseMachine((1, 1, 1), activation="identity", bias=False)
    >>> _ = machine.weight.data.copy_(torch.tensor([[0.0, 0, 0], [2, 0, 0], [5, 3, 0]]))
    >>> machine(torch.tensor([[1.0]]))  # z1 = 2, z2 = 5 + 3 * 2
    tensor([[ 1.,  2., 11.]], grad_fn=...)
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        activation: str | Pointwise | Sequence[str | Pointwise] = "relu",
        shortcuts: Any = None,
        bias: bool = True,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._set(widths, activation, shortcuts, (), bias, generator, device, dtype)

    def mask_of(self, shortcuts: Any) -> Mask:
        """Shortcuts, as a new machine is given them, as a mask."""
        return shortcut_mask(shortcuts, len(self.partition))

    def plan_of(self, partition: Partition, shortcuts: Mask, size: tuple[int, ...] = ()) -> Plan:
        """The instructions of algorithm 1."""
        return dense_plan(partition, shortcuts)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Number of taps along each axis of positions: what ``weight`` has after its channels."""
        return ()

    @property
    def margins(self) -> tuple[Span, ...]:
        """Padding before and after, along each axis of positions."""
        return ()

    @property
    def weight_mask(self) -> Mask:
        """Which weights there are, ``(channels, channels)``."""
        return channel_mask(self.shortcuts, self.partition)

    def _linear(self, weight: Tensor, z: Tensor) -> Tensor:
        return nn.functional.linear(z, weight)


class ConvMachine(ParametricMachine):
    """A convolutional machine with shortcuts: ``I_i = positions × J_i``, in 1, 2 or 3 dimensions (section 3).

    Tensors are ``(..., channel, *size)``; every block has the size of the input, or a coarser one of its own: what it
    hears is pooled to its scale, block by block, by windows of two along each axis. So pooling is one more kind of
    machine in the sum. Then ``z`` has all grids side by side along the last axis, each in the upper left corner of its
    part and 0 where no grid is; ``output`` and ``split`` give blocks on their own grids.

    Parameters
    ----------
    widths, activation, shortcuts, bias, generator : as for ``DenseMachine``.
    kernel_size : taps along each axis; a number alone for one dimension. ``weight`` is ``(out, in, *kernel_size)``.
    padding : what is beyond the border: ``"same"`` (zeros on both sides, for an even kernel one more after, as torch
        does), ``"causal"`` (zeros, all of them before), ``"circular"`` (the other side).
    dilation : distance between taps, for all axes or for each.
    scales : of each block, how often its grid is halved, 0 for the input; ``None``: all 0. A block hears none coarser
        than itself.
    pooling : ``"max"`` or ``"mean"``.

    Raises
    ------
    ValueError : as for ``DenseMachine``; a kernel of 0 or more than 3 axes; numbers that are not whole; another padding
        or pooling; scales of another number than of blocks, or of a block that hears a coarser one, or with causal
        padding, for a window looks ahead.

    Examples
    --------
    >>> machine = ConvMachine((1, 1), kernel_size=3, activation="identity", bias=False)
    >>> _ = machine.weight.data.zero_()[1, 0].copy_(torch.tensor([1.0, 0.0, 2.0]))
    >>> machine.output(machine(torch.tensor([[[1.0, 2.0, 3.0]]])))
    tensor([[[4., 7., 2.]]], grad_fn=...)
    """

    def __init__(
        self,
        widths: Sequence[int],
        kernel_size: int | Sequence[int],
        *,
        activation: str | Pointwise | Sequence[str | Pointwise] = "relu",
        shortcuts: Any = None,
        padding: Padding = "same",
        dilation: int | Sequence[int] = 1,
        scales: Sequence[int] | None = None,
        pooling: str = "max",
        bias: bool = True,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = _extents("kernel_size", kernel_size)
        self.dilation = _extents("dilation", dilation, len(self.kernel_size))
        if padding not in ("same", "causal", "circular"):
            raise ValueError(f'got padding={padding!r}: give "same", "causal" or "circular"')
        self.padding = padding
        self._set(widths, activation, shortcuts, self.kernel_size, bias, generator, device, dtype)
        if pooling not in ("max", "mean"):
            raise ValueError(f'got pooling={pooling!r}: give "max" or "mean"')
        self.pooling = pooling
        if scales is not None:
            self.scales = self._scales(scales)

    def mask_of(self, shortcuts: Any) -> Mask:
        """Shortcuts, as a new machine is given them, as a mask."""
        mask = shortcut_mask(shortcuts, len(self.partition))
        _refuse_coarser(mask, self.scales)
        return mask

    def _scales(self, given: Any) -> tuple[int, ...]:
        """As they are, if they can be."""
        blocks, scales = len(self.partition), _whole(given) or ()
        if len(scales) != blocks or scales[0] != 0 or not 0 <= min(scales) <= max(scales) <= COARSEST:
            raise ValueError(
                f"got scales={given!r} for {blocks} blocks: give 0 for the input, and from 0 to {COARSEST} for each "
                "other, all whole"
            )
        _refuse_coarser(self.shortcuts, scales)
        if any(scales) and self.padding == "causal":
            raise ValueError('got scales with padding="causal": a window of pooling looks ahead, so give all scales 0')
        return scales

    def plan_of(self, partition: Partition, shortcuts: Mask, size: tuple[int, ...]) -> Plan:
        """One box a block, over all positions."""
        if self.padding == "circular":
            for extent, sides in zip(halved(size, max(self.scales)), self.margins, strict=True):
                if max(sides) > extent:
                    raise ValueError(
                        f"got {extent} positions for a circular kernel that reaches {max(sides)} beyond: "
                        "give more positions, or a smaller kernel_size or dilation"
                    )
        kernel = self.kernel_size, self.dilation, self.padding
        return convolution_plan(partition, shortcuts, size, *kernel, self.scales, self.pooling == "mean")

    @property
    def kernel(self) -> tuple[int, ...]:
        """Number of taps along each axis of positions: what ``weight`` has after its channels."""
        return self.kernel_size

    @property
    def margins(self) -> tuple[Span, ...]:
        """Padding before and after, along each axis of positions."""
        return margins(self.kernel_size, self.dilation, self.padding)

    @property
    def weight_mask(self) -> Mask:
        """Which weights there are, ``(channels, channels, *kernel_size)``: all taps of a pair of blocks, or none."""
        mask = channel_mask(self.shortcuts, self.partition)
        return np.broadcast_to(mask.reshape(*mask.shape, *[1] * self.dimensions), self.weight.shape).copy()

    def _linear(self, weight: Tensor, z: Tensor) -> Tensor:
        pad = [side for margin in reversed(self.margins) for side in margin]
        convolution = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[self.dimensions - 1]
        flat = z.reshape(-1, *z.shape[self._axis :])
        padded = nn.functional.pad(flat, pad, mode="circular" if self.padding == "circular" else "constant")
        y = convolution(padded, weight, dilation=self.dilation)
        return y.reshape(*z.shape[: self._axis], *y.shape[1:])


def _refuse_coarser(mask: Mask, scales: tuple[int, ...]) -> None:
    """ValueError: a block hears one on a coarser grid."""
    for i, j in np.argwhere(mask):
        if scales[j] > scales[i]:
            raise ValueError(
                f"got scales={scales}, where block {i} hears block {j}, which is coarser: give block {i} at least "
                f"the scale {scales[j]}, or leave out the shortcut"
            )


class RecurrentMachine(ParametricMachine):
    """A recurrent machine with shortcuts in depth and in time: ``I_t,i = {t} × J_i`` (section 3).

    Tensors are ``(..., channel, time)``. ``weight[:, :, τ]`` multiplies ``z[t - τ]``; before the series all is 0. A
    mask entry is legal when its source box comes before its target box at every time: lags below ``timeblock`` from
    earlier blocks, other lags from every block.

    Parameters
    ----------
    widths, activation, bias, generator : as for ``DenseMachine``.
    lags : the longest lag; there are ``lags + 1`` with lag 0.
    timeblock : steps of time that are updated at once.
    shortcuts : ``None`` (all that is legal), ``"sequential"`` (lag 0 from the block before, and each block but the
        input its own past), a boolean array ``[block_out, block_in]`` (all legal lags of these pairs), or
        ``[lag, block_out, block_in]``.

    Raises
    ------
    ValueError : as for ``DenseMachine``; negative lags, a time block below 1, numbers that are not whole, an entry that
        is not legal.

    Examples
    --------
    >>> machine = RecurrentMachine((1, 1), lags=1, shortcuts="sequential", activation="identity", bias=False)
    >>> _ = machine.weight.data.zero_()[1].copy_(torch.tensor([[1.0, 0.0], [0.0, 0.5]]))
    >>> machine.output(machine(torch.tensor([[[1.0, 0.0, 2.0]]])))  # z[t] = x[t] + z[t - 1] / 2
    tensor([[[1.0000, 0.5000, 2.2500]]], grad_fn=...)
    """

    def __init__(
        self,
        widths: Sequence[int],
        lags: int,
        *,
        activation: str | Pointwise | Sequence[str | Pointwise] = "tanh",
        timeblock: int = 1,
        shortcuts: Any = None,
        bias: bool = True,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        numbers = _whole((lags, timeblock))
        if numbers is None or numbers[0] < 0 or numbers[1] < 1:
            raise ValueError(
                f"got lags={lags!r} and timeblock={timeblock!r}: lags are 0 or more, a time block 1 or more, both whole"
            )
        self.lags, self.timeblock = numbers

        self._set(widths, activation, shortcuts, (self.lags + 1,), bias, generator, device, dtype)

    def mask_of(self, shortcuts: Any) -> Mask:
        """Shortcuts, as a new machine is given them, as a mask."""
        return lag_mask(shortcuts, len(self.partition), self.lags, self.timeblock)

    def plan_of(self, partition: Partition, shortcuts: Mask, size: tuple[int, ...]) -> Plan:
        """Loops over time where a block hears its own past, all of time at once elsewhere."""
        return recurrent_plan(partition, shortcuts, size[0], self.timeblock)

    @property
    def architecture(self) -> Recurrence:  # type: ignore[override]  # the words of a sum, of one turn of the loop
        """The same machine as a sum, folded over time: machines ``w_i`` and ``σ_i``, edges labelled by lag."""
        return Recurrence(self)

    def unroll(self, steps: int) -> Architecture:
        """The same machine as a sum over a series of so many steps: one ``w`` and one ``σ`` for each block and turn.

        Raises
        ------
        ValueError : less than one step.

        Examples
        --------
        >>> machine = RecurrentMachine((1, 1), lags=1, shortcuts="sequential")
        >>> machine.unroll(2).order
        ['σ_0[t=0]', 'w_1[t=0]', 'σ_1[t=0]', 'σ_0[t=1]', 'w_1[t=1]', 'σ_1[t=1]']
        """
        return Recurrence(self).unroll(steps)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Number of taps along each axis of positions: what ``weight`` has after its channels."""
        return (len(self.shortcuts),)

    @property
    def margins(self) -> tuple[Span, ...]:
        """Padding before and after, along each axis of positions."""
        return ((self.lags, 0),)

    @property
    def weight_mask(self) -> Mask:
        """Which weights there are, ``(channels, channels, lags + 1)``."""
        return np.stack([channel_mask(mask, self.partition) for mask in self.shortcuts], axis=-1)

    def _linear(self, weight: Tensor, z: Tensor) -> Tensor:
        padded = nn.functional.pad(z.reshape(-1, *z.shape[-2:]), (self.lags, 0))
        y = nn.functional.conv1d(padded, weight.flip(-1))  # tap k of a convolution is lag lags - k
        return y.reshape(*z.shape[:-2], *y.shape[1:])


def _whole(values: Any) -> tuple[int, ...] | None:
    """Whole numbers, numpy's too, as Python's; ``None`` if they are anything else."""
    numbers = tuple(values) if isinstance(values, Iterable) else (values,)
    if any(isinstance(n, bool) or not isinstance(n, int | np.integer) for n in numbers):
        return None
    return tuple(int(n) for n in numbers)


def _extents(name: str, value: Any, axes: int | None = None) -> tuple[int, ...]:
    """One positive number for each axis."""
    extents = _whole(value) or ()
    if not isinstance(value, Iterable):
        extents *= axes or 1
    if not 1 <= len(extents) <= 3 or axes not in (None, len(extents)) or min(extents) < 1:
        count = "one, two or three numbers" if axes is None else f"one number, or {axes}"
        raise ValueError(f"got {name}={value!r}: give {count} of at least 1, and whole")
    return extents
