"""Parametric machines: one linear map, one pointwise nonlinearity and a partition of the index set (section 3)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from machgraph.activation import Activation, Pointwise, per_block
from machgraph.architecture import Architecture, Machine
from machgraph.boxes import Padding, convolution_plan, dense_plan, margins, recurrent_plan
from machgraph.lower import lowered
from machgraph.partition import Mask, Partition, channel_mask, lag_mask, shortcut_mask
from machgraph.plan import Plan
from machgraph.recurrence import Recurrence
from machgraph.resolvent import linear_resolvent, resolvent


class ParametricMachine(nn.Module, ABC):
    """``y = w z + y0 + bias``, ``z = σ(y) + z0`` over an index set in blocks (eqs. 10 and 11).

    Dense, convolutional and recurrent machines give it the shape of a kernel, a mask and a plan, and nothing else.
    Tensors are ``(*batch, channel, *size)``; ``size`` are the positions: none, pixels, or steps of time.

    Attributes
    ----------
    weight : ``w``, shape ``(channels, channels, *kernel)``, ``[channel_out, channel_in, *tap]``. What the mask leaves
        out is stored as 0, is never read and gets a gradient of exactly 0.
    bias : a learned part of ``y0``, shape ``(channels,)``, the same at every position; or ``None``.
    partition, shortcuts, activation : the architecture, as values.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    partition: Partition
    activation: tuple[Activation, ...]

    def _set(
        self,
        widths: Sequence[int],
        activation: str | Pointwise | Sequence[str | Pointwise],
        shortcuts: Callable[[int], Mask],
        kernel: tuple[int, ...],
        bias: bool,
        generator: torch.Generator | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        if not isinstance(widths, Iterable):
            raise ValueError(f"got widths={widths!r}: give the width of each block, as in (64, 32, 10)")
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"got dtype={dtype}: a machine holds real floating-point numbers")
        self.partition = Partition(tuple(widths))
        if len(self.partition) < 2:
            raise ValueError(
                f"got {len(self.partition)} block: a machine needs at least an input and an output, as in (64, 10)"
            )
        self.shortcuts = shortcuts(len(self.partition))
        self.activation = per_block(activation, len(self.partition))
        channels = self.partition.size
        self.weight = nn.Parameter(torch.empty(channels, channels, *kernel, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters(generator)

    @property
    def shortcuts(self) -> Mask:
        """Which block hears which, ``[block_out, block_in]``, or for a recurrence ``[lag, block_out, block_in]``."""
        return self._shortcuts

    @shortcuts.setter
    def shortcuts(self, mask: Mask) -> None:
        self._shortcuts = mask.copy()
        self._shortcuts.setflags(write=False)  # a change in place would go unseen
        self._heard = _nested(mask.tolist())  # the same in tuples: compilers can't look into an array

    @abstractmethod
    def plan(self, size: tuple[int, ...]) -> Plan:
        """The instructions that solve this machine on positions of this size."""

    @property
    @abstractmethod
    def weight_mask(self) -> Mask:
        """Which weights there are, a boolean array of the shape of ``weight``."""

    @property
    def dimensions(self) -> int:
        """Number of axes of positions, after the channels."""
        return self.weight.dim() - 2

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights and bias of each block uniformly in ± 1/sqrt(fan-in), as torch's own layers do.

        The fan-in counts the inputs that the mask leaves, over all taps; a block that hears nothing begins at 0.
        """
        mask = torch.from_numpy(self.weight_mask).to(self.weight.device)
        with torch.no_grad():
            for i in range(len(self.partition)):
                rows = self.partition.block(i)
                inputs = int(mask[rows.start].sum())
                bound = inputs**-0.5 if inputs else 0.0
                self.weight[rows].uniform_(-bound, bound, generator=generator)
                if self.bias is not None:
                    self.bias[rows].uniform_(-bound, bound, generator=generator)
            self.weight.mul_(mask)

    def solve(self, y0: Tensor, z0: Tensor | None = None, *, slopes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Both halves ``(y, z)`` of the solution of the machine equation.

        Parameters
        ----------
        y0, z0 : ``(*batch, channel, *size)``; they may hold only the first channels, and the rest is zero.
        slopes : an array ``s`` in place of σ, ``(*batch, channels, *size)``: the linear machine ``z = s ⊙ y + z0``,
            which is the tangent machine where ``s = σ'(y)`` (Theorem 3). Differentiable in ``s`` too.

        Returns
        -------
        ``y`` and ``z``, each ``(*batch, channels, *size)``: all of machine space.

        Raises
        ------
        ValueError : too many channels or too few axes, sizes that differ, another dtype or device than the weights'.
        """
        y0 = self._checked(y0, "y0")
        batch, size = self._batch_and_size(y0)
        if slopes is None and torch.compiler.is_compiling():  # a program is wanted that knows no plans
            return lowered(self, self._filled(y0), None if z0 is None else self._filled(self._checked(z0, "z0")))
        plan = self.plan(size)
        if z0 is not None:
            z0 = self._checked(z0, "z0")
            if self._batch_and_size(z0) != (batch, size):
                raise ValueError(
                    f"got y0 of shape {tuple(y0.shape)} and z0 of shape {tuple(z0.shape)}: "
                    "they may differ in the number of channels alone"
                )
            z0 = self._to_positions(self._filled(z0), plan)
        bias = None if self.bias is None else self.bias[None].to(y0.dtype)  # another dtype under autocast
        matrices = self.weight.flatten(2).movedim(-1, 0) if self.dimensions else self.weight[None]
        matrices = matrices[None].to(y0.dtype)
        if slopes is None:
            y, z = resolvent(plan, self.activation, matrices, bias, self._to_positions(y0, plan), z0)
        else:
            slopes = self._checked(slopes, "slopes")
            if slopes.shape != (*batch, self.partition.size, *size):
                raise ValueError(
                    f"got slopes of shape {tuple(slopes.shape)}: give one for each entry of y, "
                    f"{(*batch, self.partition.size, *size)}"
                )
            y0, s = self._to_positions(self._filled(y0), plan), self._to_positions(slopes, plan)
            y, z = linear_resolvent(plan, matrices, s, y0 if bias is None else y0 + bias[..., None], z0)
        return self._from_positions(y, plan, batch, size), self._from_positions(z, plan, batch, size)

    def forward(self, y0: Tensor) -> Tensor:
        """``z`` of ``solve``: all of machine space, ``(*batch, channels, *size)``."""
        return self.solve(y0)[1]

    def output(self, z: Tensor) -> Tensor:
        """The last block of ``z``."""
        return self.split(z)[-1]

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """``x`` of ``(*batch, channels, *size)`` by block."""
        return torch.split(x, list(self.partition.widths), dim=self._axis)

    @property
    def architecture(self) -> Architecture:
        """The same machine as a sum: ``w_i`` reads blocks of ``z`` and writes ``y_i``; ``σ_i`` takes that to ``z_i``.

        The bias belongs to the input and not to the sum, so ``architecture.resolvent(machine.components(y0))`` holds
        the same values as ``machine.solve(y0)``.
        """
        machines = []
        for i, sigma in enumerate(self.activation):
            sources = [int(j) for j in self.shortcuts[i].nonzero()[0]]
            if sources:
                reads = tuple(f"z_{j}" for j in sources)
                machines.append(Machine(self._linear_map(i, sources), reads=reads, writes=(f"y_{i}",), name=f"w_{i}"))
            machines.append(Machine(sigma.function, reads=(f"y_{i}",), writes=(f"z_{i}",), name=f"σ_{i}"))
        return Architecture(machines)

    def components(self, y0: Tensor, z0: Tensor | None = None) -> dict[str, Tensor]:
        """The input function ``g`` of the machine equation, by component: ``y0`` with the bias, and ``z0``."""
        y0 = self._filled(self._checked(y0, "y0"))
        if self.bias is not None:
            y0 = y0 + self.bias.view(-1, *[1] * self.dimensions)
        z0 = torch.zeros_like(y0) if z0 is None else self._filled(self._checked(z0, "z0"))
        halves = {"y": self.split(y0), "z": self.split(z0)}
        return {f"{half}_{i}": block for half, blocks in halves.items() for i, block in enumerate(blocks)}

    def parameter_count(self) -> int:
        """Number of weights that the mask leaves, and of biases."""
        return int(self.weight_mask.sum()) + (0 if self.bias is None else self.bias.numel())

    def flops(self) -> int:
        """Floating-point operations of a forward pass per sample and position: two a weight, one a bias, none a σ."""
        return 2 * int(self.weight_mask.sum()) + (0 if self.bias is None else self.bias.numel())

    def extra_repr(self) -> str:
        """What ``print`` shows of the machine."""
        names = ", ".join(activation.name for activation in self.activation)
        edges, parameters = int(self.shortcuts.sum()), self.parameter_count()
        return f"{self.partition.widths}, activation=({names}), {edges} edges between blocks, {parameters} parameters"

    def _linear_map(self, i: int, sources: Sequence[int]) -> Callable[..., Tensor]:
        def w(*z: Tensor) -> Tensor:
            rows = self.weight[self.partition.block(i)]
            columns = [rows[:, self.partition.block(j)] for j in sources]
            return self._linear(torch.cat(columns, dim=1), torch.cat(z, dim=self._axis))

        return w

    @abstractmethod
    def _linear(self, weight: Tensor, z: Tensor) -> Tensor:
        """What a part of the weights makes of a part of ``z``, by torch's own layers."""

    @property
    def _axis(self) -> int:
        return -1 - self.dimensions

    def _batch_and_size(self, x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        axis = x.dim() + self._axis
        return tuple(x.shape[:axis]), tuple(x.shape[axis + 1 :])

    def _filled(self, x: Tensor) -> Tensor:
        """With the channels that it does not hold, as zeros."""
        missing = self.partition.size - x.shape[self._axis]
        return nn.functional.pad(x, (0, 0) * self.dimensions + (0, missing)) if missing else x

    def _to_positions(self, x: Tensor, plan: Plan) -> Tensor:
        """``(*batch, channel, *size)`` to ``[1, channel, position]``: padded, the samples of the batch innermost."""
        channels, size = x.shape[self._axis], x.shape[self._axis + 1 :] if self.dimensions else ()
        samples = int(np.prod(x.shape[: self._axis])) if x.dim() > 1 + self.dimensions else 1
        x = x.reshape(samples, channels, *size).movedim(0, -1)
        if any(sum(margin) for margin in plan.margins):
            x = nn.functional.pad(x, (0, 0, *[side for margin in reversed(plan.margins) for side in margin]))
        return x.reshape(1, channels, plan.positions * samples)

    def _from_positions(self, x: Tensor, plan: Plan, batch: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
        channels = self.partition.size
        x = x.view(channels, *plan.grid, -1) if x.numel() else x.new_empty((channels, *plan.grid, 0))
        for axis, ((before, _), extent) in enumerate(zip(plan.margins, size, strict=True), start=1):
            x = x.narrow(axis, before, extent)
        return x.movedim(-1, 0).reshape(*batch, channels, *size)

    def _checked(self, x: Tensor, name: str) -> Tensor:
        channels, layout = self.partition.size, ", ".join(["...", "channel", *["size"] * self.dimensions])
        if not isinstance(x, Tensor):
            raise TypeError(f"got {name} of type {type(x).__name__}: give a torch tensor of shape ({layout})")
        if x.dim() < 1 + self.dimensions or not 1 <= x.shape[self._axis] <= channels:
            raise ValueError(
                f"got {name} of shape {tuple(x.shape)}: it must be ({layout}) with 1 to {channels} channels "
                f"(the machine's input block has {self.partition.widths[0]})"
            )
        if 0 in x.shape[x.dim() - self.dimensions :]:
            raise ValueError(f"got {name} of shape {tuple(x.shape)}: it has no positions; give at least one")
        device = self.weight.device.type
        if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
            x = x.to(torch.get_autocast_dtype(device))
        elif x.dtype != self.weight.dtype or x.device != self.weight.device:
            raise ValueError(
                f"got {name} of {x.dtype} on {x.device} for a machine of {self.weight.dtype} on {self.weight.device}: "
                f"convert one of them, for example {name}.to(machine.weight)"
            )
        return x


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
        self._set(widths, activation, lambda n: shortcut_mask(shortcuts, n), (), bias, generator, device, dtype)

    def plan(self, size: tuple[int, ...] = ()) -> Plan:
        """The instructions of algorithm 1."""
        return dense_plan(self.partition, self.shortcuts)

    @property
    def weight_mask(self) -> Mask:
        """Which weights there are, ``(channels, channels)``."""
        return channel_mask(self.shortcuts, self.partition)

    def _linear(self, weight: Tensor, z: Tensor) -> Tensor:
        return nn.functional.linear(z, weight)


class ConvMachine(ParametricMachine):
    """A convolutional machine with shortcuts: ``I_i = positions × J_i``, in 1, 2 or 3 dimensions (section 3).

    Tensors are ``(..., channel, *size)``; every block has the size of the input.

    Parameters
    ----------
    widths, activation, shortcuts, bias, generator : as for ``DenseMachine``.
    kernel_size : taps along each axis; a number alone for one dimension. ``weight`` is ``(out, in, *kernel_size)``.
    padding : what is beyond the border: ``"same"`` (zeros on both sides, for an even kernel one more after, as torch
        does), ``"causal"`` (zeros, all of them before), ``"circular"`` (the other side).
    dilation : distance between taps, for all axes or for each.

    Raises
    ------
    ValueError : as for ``DenseMachine``; a kernel of 0 or more than 3 axes; another padding.

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
        kernel = self.kernel_size
        self._set(widths, activation, lambda n: shortcut_mask(shortcuts, n), kernel, bias, generator, device, dtype)

    def plan(self, size: tuple[int, ...]) -> Plan:
        """One box a block, over all positions."""
        if self.padding == "circular":
            for extent, sides in zip(size, margins(self.kernel_size, self.dilation, self.padding), strict=True):
                if max(sides) > extent:
                    raise ValueError(
                        f"got {extent} positions for a circular kernel that reaches {max(sides)} beyond: "
                        "give more positions, or a smaller kernel_size or dilation"
                    )
        return convolution_plan(self.partition, self.shortcuts, size, self.kernel_size, self.dilation, self.padding)

    @property
    def weight_mask(self) -> Mask:
        """Which weights there are, ``(channels, channels, *kernel_size)``: all taps of a pair of blocks, or none."""
        mask = channel_mask(self.shortcuts, self.partition)
        return np.broadcast_to(mask.reshape(*mask.shape, *[1] * self.dimensions), self.weight.shape).copy()

    def _linear(self, weight: Tensor, z: Tensor) -> Tensor:
        sides = margins(self.kernel_size, self.dilation, self.padding)
        pad = [side for margin in reversed(sides) for side in margin]
        convolution = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[self.dimensions - 1]
        flat = z.reshape(-1, *z.shape[self._axis :])
        padded = nn.functional.pad(flat, pad, mode="circular" if self.padding == "circular" else "constant")
        y = convolution(padded, weight, dilation=self.dilation)
        return y.reshape(*z.shape[: self._axis], *y.shape[1:])


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
    ValueError : as for ``DenseMachine``; negative lags, a time block below 1, an entry that is not legal.

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
        if lags < 0 or timeblock < 1:
            raise ValueError(f"got lags={lags} and timeblock={timeblock}: lags are 0 or more, a time block 1 or more")
        self.lags, self.timeblock = int(lags), int(timeblock)

        def mask(blocks: int) -> Mask:
            return lag_mask(shortcuts, blocks, self.lags, self.timeblock)

        self._set(widths, activation, mask, (self.lags + 1,), bias, generator, device, dtype)

    def plan(self, size: tuple[int, ...]) -> Plan:
        """Loops over time where a block hears its own past, all of time at once elsewhere."""
        return recurrent_plan(self.partition, self.shortcuts, size[0], self.timeblock)

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
    def weight_mask(self) -> Mask:
        """Which weights there are, ``(channels, channels, lags + 1)``."""
        return np.stack([channel_mask(mask, self.partition) for mask in self.shortcuts], axis=-1)

    def _linear(self, weight: Tensor, z: Tensor) -> Tensor:
        padded = nn.functional.pad(z.reshape(-1, *z.shape[-2:]), (self.lags, 0))
        y = nn.functional.conv1d(padded, weight.flip(-1))  # tap k of a convolution is lag lags - k
        return y.reshape(*z.shape[:-2], *y.shape[1:])


def _nested(rows: Any) -> Any:
    return tuple(_nested(row) for row in rows) if isinstance(rows, list) else rows


def _extents(name: str, value: int | Sequence[int], axes: int | None = None) -> tuple[int, ...]:
    """One positive number for each axis."""
    extents = (value,) * (axes or 1) if isinstance(value, int) else tuple(int(extent) for extent in value)
    if not 1 <= len(extents) <= 3 or axes not in (None, len(extents)) or min(extents) < 1:
        count = "one, two or three numbers" if axes is None else f"one number, or {axes}"
        raise ValueError(f"got {name}={value!r}: give {count} of at least 1")
    return extents
