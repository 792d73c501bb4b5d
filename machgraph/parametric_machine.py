"""What dense, convolutional and recurrent machines share: the machine equation over blocks, and its solution."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from machgraph import compiled
from machgraph.activation import Activation, Pointwise, per_block
from machgraph.architecture import Architecture, Machine
from machgraph.boxes import halved
from machgraph.lower import lowered, plain_is_wanted
from machgraph.mipmap import beside, cut, finest, pooled
from machgraph.partition import Mask, Partition
from machgraph.plan import Plan, Span
from machgraph.resolvent import biased, linear_resolvent, resolvent


class ParametricMachine(nn.Module, ABC):
    """``y = w z + y0 + bias``, ``z = σ(y) + z0`` over an index set in blocks (eqs. 10 and 11).

    Dense, convolutional and recurrent machines give it the shape of a kernel, a mask and a plan, and nothing else.
    Tensors are ``(*batch, channel, *size)``; ``size`` are the positions: none, pixels, or steps of time. Where blocks
    have several scales, those of ``z`` are side by side: see ``ConvMachine``.

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
    scales: tuple[int, ...]  # of each block, how often its grid is halved; see ConvMachine
    pooling: str = "max"

    def _set(
        self,
        widths: Sequence[int],
        activation: str | Pointwise | Sequence[str | Pointwise],
        shortcuts: Any,
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
        self.scales = (0,) * len(self.partition)
        self.shortcuts = shortcuts
        self.activation = per_block(activation, len(self.partition))
        channels = self.partition.size
        self.weight = nn.Parameter(torch.empty(channels, channels, *kernel, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters(generator)

    @property
    def shortcuts(self) -> Mask:
        """Which block hears which, ``[block_out, block_in]``, or for a recurrence ``[lag, block_out, block_in]``.

        Others may be given, as to a new machine, and ValueError is raised as there.
        """
        return self._shortcuts

    @shortcuts.setter
    def shortcuts(self, shortcuts: Any) -> None:
        mask = self.mask_of(shortcuts)
        self._shortcuts = mask.copy()
        self._shortcuts.setflags(write=False)  # a change in place would go unseen
        self._heard = _nested(mask.tolist())  # the same in tuples: compilers can't look into an array

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._shortcuts.setflags(write=False)  # which numpy's copies forget

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        kind: Any = type(self)
        if parametrize.is_parametrized(self):  # torch has made a class for this one alone, and changes it with it
            own = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "_abc_impl")}
            kind = type(kind)(kind.__name__, kind.__bases__, own)
        memo[id(self)] = twin = kind.__new__(kind)
        twin.__setstate__(copy.deepcopy(self.__dict__, memo))
        return twin  # type: ignore[no-any-return]

    def plan(self, size: tuple[int, ...] = ()) -> Plan:
        """The instructions that solve this machine on positions of this size."""
        return self.plan_of(self.partition, self.shortcuts, size)

    @abstractmethod
    def plan_of(self, partition: Partition, shortcuts: Mask, size: tuple[int, ...]) -> Plan:
        """The plan of a machine of this kind, with this one's kernel, but another partition and mask."""

    @abstractmethod
    def mask_of(self, shortcuts: Any) -> Mask:
        """Shortcuts, as a new machine is given them, as a mask; ValueError: they can't be those of this machine."""

    @property
    @abstractmethod
    def kernel(self) -> tuple[int, ...]:
        """Number of taps along each axis of positions: what ``weight`` has after its channels."""

    @property
    @abstractmethod
    def margins(self) -> tuple[Span, ...]:
        """Padding before and after, along each axis of positions."""

    @property
    @abstractmethod
    def weight_mask(self) -> Mask:
        """Which weights there are, a boolean array of the shape of ``weight``."""

    @property
    def is_named(self) -> bool:
        """Whether all activations have names, so that the machine can be described in words."""
        return all(activation.is_named for activation in self.activation)

    @property
    def dimensions(self) -> int:
        """Number of axes of positions, after the channels."""
        return self.weight.dim() - 2

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights and bias of each block uniformly in ± 1/sqrt(fan-in), as torch's own layers do.

        The fan-in counts the inputs that the mask leaves, over all taps; a block that hears nothing begins at 0.
        """
        there = self.weight_mask
        mask = torch.from_numpy(there).to(self.weight.device)
        with torch.no_grad():
            for i in range(len(self.partition)):
                rows = self.partition.block(i)
                inputs = int(there[rows.start].sum())
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
        slopes : an array ``s`` in place of σ, ``(*batch, channels, *size)``: ``z = s ⊙ y + z0``, the bias being a part
            of ``y0`` as ever. Without a bias, and where ``s = σ'(y)``, it is the tangent machine (Theorem 3).
            Differentiable in ``s`` too. Not for blocks of several scales.

        Returns
        -------
        ``y`` and ``z``, each ``(*batch, channels, *size)``: all of machine space.

        Raises
        ------
        ValueError : too many channels or too few axes, sizes that differ, another dtype or device than the weights';
            slopes for blocks of several scales.

        Notes
        -----
        One solution, four ways: the compiled loop, on a CPU; the same as an operator, for ``torch.compile``; blocks one
        by one, where operations are recorded, as by ``torch.export``; and ``reference`` everywhere else.
        """
        is_plain = slopes is None and not self.is_scaled
        if is_plain and compiled.serves(self, y0, z0):
            return compiled.resolvent(self, y0, z0)
        if is_plain and torch.compiler.is_compiling():
            from machgraph import operator  # to define operators, torch loads its compiler

            if operator.is_wanted(self, y0, z0):
                return operator.resolvent(self, y0, z0)
        if slopes is not None and self.is_scaled:
            raise ValueError(
                "got slopes for a machine of several scales, whose pooling chooses by a solution and not by slopes: "
                "take the tangent by torch.func.jvp"
            )
        y0 = self._checked(y0, "y0")
        batch, size = self._batch_and_size(y0)
        if z0 is not None:
            z0 = self._checked(z0, "z0")
            if self._batch_and_size(z0) != (batch, size):
                raise ValueError(
                    f"got y0 of shape {tuple(y0.shape)} and z0 of shape {tuple(z0.shape)}: "
                    "they may differ in the number of channels alone"
                )
        if slopes is None and plain_is_wanted():
            return lowered(self, self._filled(y0), None if z0 is None else self._filled(z0))
        if slopes is not None:
            slopes = self._checked(slopes, "slopes")
            wanted = (*batch, self.partition.size, *size)
            if slopes.shape != wanted:
                raise ValueError(f"got slopes of shape {tuple(slopes.shape)}: give one for each entry of y, {wanted}")
        return self.reference(self.weight, self.bias, y0, z0, slopes)

    def reference(
        self,
        weight: Tensor,
        bias: Tensor | None,
        y0: Tensor,
        z0: Tensor | None = None,
        slopes: Tensor | None = None,
        planned: tuple[Plan, tuple[Activation, ...]] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``solve`` in plain torch, with the weights given: on any device, and differentiable to every order.

        The plan and the activations may be those that the machine had before.
        """
        batch, size = self._batch_and_size(y0)
        plan, activation = planned or (self.plan(size), self.activation)
        z0 = None if z0 is None else self._to_positions(self._filled(z0), plan)
        bias = None if bias is None else bias[None].to(y0.dtype)  # another dtype under autocast
        matrices = self.matrices(weight)[None].to(y0.dtype)
        if slopes is None:
            y, z = resolvent(plan, activation, matrices, bias, self._to_positions(y0, plan), z0)
        else:
            y0, s = self._to_positions(self._filled(y0), plan), self._to_positions(slopes, plan)
            y, z = linear_resolvent(plan, matrices, s, y0 if bias is None else y0 + biased(plan, bias, y0.shape), z0)
        return self._from_positions(y, plan, batch, size), self._from_positions(z, plan, batch, size)

    def matrices(self, weight: Tensor) -> Tensor:
        """A weight as one matrix for each tap of the plan, ``[tap, channel_out, channel_in]``."""
        return weight.flatten(2).movedim(-1, 0) if self.dimensions else weight[None]

    def forward(self, y0: Tensor) -> Tensor:
        """``z`` of ``solve``: all of machine space, ``(*batch, channels, *size)``."""
        return self.solve(y0)[1]

    def output(self, z: Tensor) -> Tensor:
        """The last block of ``z``, on its own grid."""
        width = self.partition.widths[-1]
        last = z.narrow(self._axis, self.partition.size - width, width)
        return self._on_grid(last, self.scales[-1]) if self.is_scaled else last

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """``x`` of ``(*batch, channels, *size)`` by block, each on its own grid."""
        blocks = torch.split(x, list(self.partition.widths), dim=self._axis)
        if not self.is_scaled:
            return blocks
        return tuple(self._on_grid(block, scale) for block, scale in zip(blocks, self.scales, strict=True))

    @property
    def is_scaled(self) -> bool:
        """Whether some block has another grid than the input."""
        return any(self.scales)

    @property
    def given(self) -> int:
        """Number of channels that an input may have: up to the first block on a coarser grid."""
        starts = zip(self.partition.bounds, self.scales, strict=False)
        return next((start for start, scale in starts if scale), self.partition.size)

    def _on_grid(self, x: Tensor, scale: int) -> Tensor:
        size = finest(tuple(x.shape[x.dim() - self.dimensions :]), max(self.scales) + 1)
        return cut(x, size, scale)

    @property
    def architecture(self) -> Architecture:
        """The same machine as a sum: ``w_i`` reads blocks of ``z`` and writes ``y_i``; ``σ_i`` takes that to ``z_i``.

        Where a block is heard on a coarser grid, ``pool_i`` takes ``z_i`` there, to ``z_i@1`` and so on, once for each
        scale. The bias belongs to the input and not to the sum, so ``architecture.resolvent(machine.components(y0))``
        holds the same values as ``machine.solve(y0)``.
        """

        def named(half: str, i: int, scale: int) -> str:
            return f"{half}_{i}" if scale == self.scales[i] else f"{half}_{i}@{scale}"

        machines = []
        for i, sigma in enumerate(self.activation):
            sources = [int(j) for j in self.shortcuts[i].nonzero()[0]]
            if sources:
                reads = tuple(named("z", j, self.scales[i]) for j in sources)
                machines.append(Machine(self._linear_map(i, sources), reads=reads, writes=(f"y_{i}",), name=f"w_{i}"))
            machines.append(Machine(sigma.function, reads=(f"y_{i}",), writes=(f"z_{i}",), name=f"σ_{i}"))
            for scale in range(self.scales[i] + 1, self._coarsest(i) + 1):
                reads, writes = (named("z", i, scale - 1),), (named("z", i, scale),)
                machines.append(Machine(self._pool, reads=reads, writes=writes, name=f"pool_{i}@{scale}"))
        return Architecture(machines)

    def _coarsest(self, i: int) -> int:
        """The coarsest scale at which a block is or is heard."""
        return max(
            [self.scales[i], *(scale for scale, heard in zip(self.scales, self._heard, strict=True) if heard[i])]
        )

    def _pool(self, z: Tensor) -> Tensor:
        return pooled(z, self.dimensions, self.pooling == "mean")

    def components(self, y0: Tensor, z0: Tensor | None = None) -> dict[str, Tensor]:
        """The input function ``g`` of the machine equation, by component: ``y0`` with the bias, and ``z0``."""
        y0 = self._filled(self._checked(y0, "y0"))
        z0 = torch.zeros_like(y0) if z0 is None else self._filled(self._checked(z0, "z0"))
        bias = None if self.bias is None else self.bias.to(y0.dtype)  # another dtype under autocast
        halves = {"y": self._blocks(y0, bias), "z": self._blocks(z0)}
        return {f"{half}_{i}": block for half, blocks in halves.items() for i, block in enumerate(blocks)}

    def parameter_count(self) -> int:
        """Number of weights that the mask leaves, and of biases."""
        return int(self.weight_mask.sum()) + (0 if self.bias is None else self.bias.numel())

    def flops(self, size: tuple[int, ...] | None = None) -> int:
        """Floating-point operations of a forward pass: two a weight, one a bias, none a σ.

        Parameters
        ----------
        size : of the positions of a sample, on each of which a block of that scale is computed; if left out, the
            operations per position.

        Raises
        ------
        ValueError : no size, where blocks have several scales.
        """
        if size is None and self.is_scaled:
            raise ValueError("got no size, but blocks of several scales: give the size of the input, as in (28, 28)")
        weights, total = self.weight_mask, 0
        for i, scale in enumerate(self.scales):
            rows = self.partition.block(i)
            per_position = 2 * int(weights[rows].sum()) + (0 if self.bias is None else self.partition.widths[i])
            total += per_position * (1 if size is None else prod(halved(size, scale)))
        return total

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

    def _blocks(self, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
        """Input ``(*batch, channels, *size)`` by block, each on its own grid, and with the bias there."""
        blocks = list(torch.split(x, list(self.partition.widths), dim=self._axis))
        for i, scale in enumerate(self.scales):
            if scale:  # nothing is given on a coarser grid
                batch, size = self._batch_and_size(x)
                blocks[i] = x.new_zeros((*batch, self.partition.widths[i], *halved(size, scale)))
            if bias is not None:
                blocks[i] = blocks[i] + bias[self.partition.block(i)].view(-1, *[1] * self.dimensions)
        return tuple(blocks)

    def _to_positions(self, x: Tensor, plan: Plan) -> Tensor:
        """``(*batch, channel, *size)`` to ``[1, channel, position]``: padded, the samples of the batch innermost.

        ``x`` is on the finest grid, and the others are 0.
        """
        channels, size = x.shape[self._axis], x.shape[self._axis + 1 :] if self.dimensions else ()
        samples = int(np.prod(x.shape[: self._axis])) if x.dim() > 1 + self.dimensions else 1
        x = x.reshape(samples, channels, *size).movedim(0, -1)
        if any(sum(margin) for margin in plan.margins):
            x = nn.functional.pad(x, (0, 0, *[side for margin in reversed(plan.margins) for side in margin]))
        x = x.reshape(1, channels, prod(x.shape[1:]))
        return nn.functional.pad(x, (0, plan.positions * samples - x.shape[-1])) if plan.coarser else x

    def _from_positions(self, x: Tensor, plan: Plan, batch: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
        channels, samples = self.partition.size, prod(batch)
        grids = []
        for grid in plan.grids:
            part = x[0].narrow(-1, samples * grid.start, samples * grid.positions) if plan.coarser else x
            part = part.reshape(channels, *grid.extents, samples)
            for axis, ((before, _), extent) in enumerate(zip(grid.margins, grid.size, strict=True), start=1):
                part = part.narrow(axis, before, extent)
            grids.append(part.movedim(-1, 0))
        whole = beside(grids, size) if plan.coarser else grids[0]
        return whole.reshape(*batch, *whole.shape[1:])

    def _checked(self, x: Tensor, name: str) -> Tensor:
        channels, layout = self.partition.size, ", ".join(["...", "channel", *["size"] * self.dimensions])
        if not isinstance(x, Tensor):
            raise TypeError(f"got {name} of type {type(x).__name__}: give a torch tensor of shape ({layout})")
        if x.dim() < 1 + self.dimensions or not 1 <= x.shape[self._axis] <= channels:
            raise ValueError(
                f"got {name} of shape {tuple(x.shape)}: it must be ({layout}) with 1 to {channels} channels "
                f"(the machine's input block has {self.partition.widths[0]})"
            )
        if x.shape[self._axis] > self.given:
            raise ValueError(
                f"got {name} of {x.shape[self._axis]} channels on the finest grid: the first {self.given} are there, "
                "others are on coarser ones and take no input"
            )
        if 0 in x.shape[x.dim() - self.dimensions :]:
            raise ValueError(f"got {name} of shape {tuple(x.shape)}: it has no positions; give at least one")
        if self.weight.is_complex():
            raise ValueError(
                f"got a machine of {self.weight.dtype}: a machine holds real floating-point numbers, so convert it "
                "back, for example by machine.to(torch.float64)"
            )
        device = self.weight.device.type
        autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        if autocast and x.dtype != torch.float64:
            x = x.to(torch.get_autocast_dtype(device))
        elif x.dtype != self.weight.dtype or x.device != self.weight.device:
            raise ValueError(
                f"got {name} of {x.dtype} on {x.device} for a machine of {self.weight.dtype} on {self.weight.device}: "
                f"convert one of them, for example {name}.to(machine.weight)"
            )
        return x


def _nested(rows: Any) -> Any:
    return tuple(_nested(row) for row in rows) if isinstance(rows, list) else rows
