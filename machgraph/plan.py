"""Plans: the flat list of instructions that solves a machine, and the dual list that solves its adjoint.

State is two tensors ``Y`` and ``Z`` of shape ``[population, channel, position]``; the weights are one tensor ``W``,
``[population, tap, channel_out, channel_in]``. A position is a time or pixel, padding among them, in one flat order. A
plan counts positions for one sample, and the samples of a batch lie side by side within each position, so that a plan
serves every batch size. The two main instructions are the two lines of algorithm 1, on a box (a range of rows crossed
with a range of columns):

    Accumulate    Y[rows, columns] += W[tap][rows, inputs] @ Z[inputs, columns + offset]      (eq. 11)
    Activate      Z[rows, columns] += σ(Y[rows, columns])                                     (eq. 10)

A lag in time or a tap of a kernel is an offset along the flat axis. A range of columns that crosses padding leaves σ
there, so a border follows the box: ``Clear`` (zeros around) or ``Wrap`` (the other side's values around). ``Pool``
takes rows from one grid of positions to the next, which is half as fine; the grids lie one after the other in the flat
order. ``Repeat`` is a loop over time. Dense, convolutional and recurrent machines differ in these lists alone.

The dual machine ``u = W* v + u0``, ``v = σ'(y) ⊙ u + v0`` (eqs. 12 and 13) is the same program on ``(u, v)``: the list
reversed and each instruction replaced by its adjoint, ``W`` transposed. A plan is immutable and knows nothing of
tensors: executors do.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from machgraph.kernels.program import Program

Span = tuple[int, int]  # a half-open range


@dataclass(frozen=True, slots=True)
class Accumulate:
    """Add a product to the rows of ``Y``: one tap, one contiguous range of inputs."""

    rows: Span
    inputs: Span
    columns: Span = (0, 1)
    tap: int = 0
    offset: int = 0

    def adjoint(self) -> "Accumulate":
        """The transposed product, from rows back to inputs."""
        columns = _moved(self.columns, self.offset)
        return Accumulate(self.inputs, self.rows, columns, self.tap, -self.offset)


@dataclass(frozen=True, slots=True)
class Activate:
    """Apply the nonlinearity of ``block`` to the rows of ``Y`` and add the result to ``Z``."""

    rows: Span
    block: int
    columns: Span = (0, 1)

    def adjoint(self) -> "Activate":
        """Itself: a pointwise product is its own adjoint."""
        return self


@dataclass(frozen=True, slots=True)
class Clear:
    """Set the padding of ``Z`` (in a dual, of ``Y``) to 0 in these rows of a grid."""

    rows: Span
    dual: bool = False
    grid: int = 0

    def adjoint(self) -> "Clear":
        """The same of the other half: what was overwritten has no influence."""
        return replace(self, dual=not self.dual)


@dataclass(frozen=True, slots=True)
class Wrap:
    """Copy the far side of ``Z`` into its padding; in a dual, add the padding of ``Y`` to the far side and clear it."""

    rows: Span
    dual: bool = False
    grid: int = 0

    def adjoint(self) -> "Wrap":
        """The transposed copy."""
        return replace(self, dual=not self.dual)


@dataclass(frozen=True, slots=True)
class Pool:
    """Add ``Z`` on a grid, pooled over windows of two along each axis, to ``Z`` of these rows on the next grid.

    Linearized at a solution, a maximum is the choice of the first largest. In a dual ``Y`` on the next grid goes back:
    evenly, or to what was chosen.
    """

    rows: Span
    grid: int
    mean: bool = False
    dual: bool = False

    def adjoint(self) -> "Pool":
        """The transposed map."""
        return replace(self, dual=not self.dual)


Simple = Accumulate | Activate | Clear | Wrap | Pool


@dataclass(frozen=True, slots=True)
class Repeat:
    """Do the body so many times, its columns moved by ``stride`` more each time."""

    body: tuple[Accumulate | Activate, ...]
    times: int
    stride: int

    def at(self, turn: int) -> Iterator[Accumulate | Activate]:
        """The body of one turn, with the columns where they are then."""
        for step in self.body:
            yield replace(step, columns=_moved(step.columns, turn * self.stride))

    def adjoint(self) -> "Repeat":
        """The adjoint of the body, backward in time, beginning with the last turn."""
        body = tuple(step.adjoint() for step in reversed(tuple(self.at(self.times - 1))))
        return Repeat(body, self.times, -self.stride)


Instruction = Simple | Repeat


@dataclass(frozen=True)
class Grid:
    """Positions along axes, in a flat order.

    Parameters
    ----------
    extents : of each axis, padding included; none for a dense machine.
    margins : padding before and after, along each axis.
    start : its first position among those of all grids.
    """

    extents: tuple[int, ...] = ()
    margins: tuple[Span, ...] = ()
    start: int = 0

    @property
    def positions(self) -> int:
        """How many there are, padding included."""
        return prod(self.extents)

    @cached_property
    def size(self) -> tuple[int, ...]:
        """Extent of each axis without padding."""
        return tuple(
            extent - before - after for extent, (before, after) in zip(self.extents, self.margins, strict=True)
        )

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Positions from one place of each axis to the next."""
        return tuple(prod(self.extents[axis + 1 :]) for axis in range(len(self.extents)))

    @cached_property
    def inside(self) -> NDArray[np.int64]:
        """The positions that are not padding, of the shape of ``size``."""
        places = self.start + np.arange(self.positions).reshape(self.extents)
        kept = zip(self.extents, self.margins, strict=True)
        return places[tuple(slice(before, extent - after) for extent, (before, after) in kept)]

    @cached_property
    def columns(self) -> Span:
        """From the first position that is not padding to the last."""
        ends = zip(self.size, self.margins, self.strides, strict=True)
        first, last = self.start, self.start
        for extent, (before, _), stride in ends:
            first, last = first + before * stride, last + (before + extent - 1) * stride
        return first, last + 1


@dataclass(frozen=True)
class Plan:
    """An immutable program for one machine.

    Parameters
    ----------
    instructions : in order.
    channels : rows of the state.
    grid : extent of each axis of positions, padding included; none for a dense machine.
    margins : padding before and after, along each axis.
    taps : number of matrices in ``W``.
    coarser : grids after the first, each half as fine as the one before.
    """

    instructions: tuple[Instruction, ...]
    channels: int
    grid: tuple[int, ...] = ()
    margins: tuple[Span, ...] = ()
    taps: int = 1
    coarser: tuple[Grid, ...] = ()

    @cached_property
    def grids(self) -> tuple[Grid, ...]:
        """All grids, the finest first."""
        return (Grid(self.grid, self.margins), *self.coarser)

    @cached_property
    def positions(self) -> int:
        """Columns of the state for one sample."""
        return sum(grid.positions for grid in self.grids)

    @cached_property
    def is_inside(self) -> tuple[bool, ...]:
        """Of each position, whether it is no padding."""
        inside = np.zeros(self.positions, dtype=bool)
        for grid in self.grids:
            inside[grid.inside] = True
        return tuple(inside.tolist())

    @property
    def strides(self) -> tuple[int, ...]:
        """Positions from one place of each axis of the finest grid to the next."""
        return self.grids[0].strides

    @property
    def first(self) -> int:
        """The first position that is not padding."""
        return self.grids[0].columns[0]

    @cached_property
    def answering(self) -> Grid:
        """The grid of the last block."""
        if not self.coarser:
            return self.grids[0]
        *_, last = (step for step in self.instructions if isinstance(step, Activate))
        return next(grid for grid in reversed(self.grids) if grid.start <= last.columns[0])

    @cached_property
    def unpooled(self) -> "Plan":
        """The linear part and what keeps the padding: all but what takes ``Z`` from grid to grid."""
        return replace(self, instructions=tuple(step for step in self.instructions if not isinstance(step, Pool)))

    @cached_property
    def dual(self) -> "Plan":
        """The program of the dual machine, to be run with ``W`` transposed (Theorem 3)."""
        return replace(self, instructions=tuple(step.adjoint() for step in reversed(self.instructions)))

    @cached_property
    def program(self) -> "Program":
        """The plan as tables, which the compiled loop reads."""
        from machgraph.kernels.program import program  # which knows plans

        return program(self)

    @cached_property
    def products(self) -> tuple[Accumulate, ...]:
        """The linear part alone: what the gradient of ``W`` is summed over, each loop over time as one product."""
        return tuple(product for step in self.instructions for product in _products(step))

    @cached_property
    def first_trained(self) -> int:
        """The first channel whose bias is worth training: past the input, unless that hears something.

        Whoever hears the input has a bias of its own.
        """
        end = self.blocks[0][1]
        return 0 if any(step.rows[0] < end for step in self.products) else end

    @cached_property
    def blocks(self) -> tuple[Span, ...]:
        """The rows of each block, by its number."""
        found: dict[int, Span] = {}
        for instruction in self.instructions:
            for step in instruction.body if isinstance(instruction, Repeat) else (instruction,):
                if isinstance(step, Activate):
                    found[step.block] = step.rows
        return tuple(found[block] for block in sorted(found))


def _moved(span: Span, by: int) -> Span:
    return span[0] + by, span[1] + by


def _products(step: Instruction) -> Iterator[Accumulate]:
    if isinstance(step, Accumulate):
        yield step
    elif isinstance(step, Repeat):
        for turn in step.body:
            if isinstance(turn, Accumulate):
                last = _moved(turn.columns, (step.times - 1) * step.stride)
                columns = min(turn.columns[0], last[0]), max(turn.columns[1], last[1])
                if columns[1] - columns[0] != step.times * (turn.columns[1] - turn.columns[0]):
                    raise ValueError(f"the turns of {step} leave gaps or overlap, so they are not one product")
                yield replace(turn, columns=columns)
