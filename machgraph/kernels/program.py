"""Plans as tables of whole numbers, which the compiled loop reads: one row an instruction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from machgraph.plan import Accumulate, Activate, Clear, Grid, Instruction, Plan, Pool, Repeat, Simple, Span

Table = NDArray[np.int64]

ACCUMULATE, ACTIVATE, CLEAR, WRAP, FOLD, POOL, REPEAT = range(7)
# The columns of a table. A REPEAT has the length of its body, the turns and the stride in the first three after KIND.
# CLEAR, WRAP and FOLD have rows of the border in COLUMN and COLUMN_END, POOL has rows of the windows there and in TAP
# whether it takes the mean.
KIND, ROW, ROW_END, COLUMN, COLUMN_END, INPUT, INPUT_END, TAP, OFFSET, BLOCK, DUAL = range(11)


@dataclass(frozen=True)
class Program:
    """A plan as tables.

    Parameters
    ----------
    forward, dual : instructions, ``[instruction, column]``.
    products : the linear part alone, for the gradient of W.
    weights : where in W it reads weights, each once, by row.
    training_dual : the dual as far as these need it: nothing is carried back into a block 0 that hears nothing.
    border : runs of padding, ``[run, (first position, length, first position of what it repeats)]``, grid by grid.
    windows : what is pooled, ``[window, (position on the next grid, positions on the grid ...)]``, grid by grid; a
        window of fewer positions than others is filled up with -1.
    frame : of the finest grid, with three axes: how many positions are not padding, how many come before them, how many
        in all; then the number of positions of all grids.
    """

    forward: Table
    dual: Table
    products: Table
    weights: Table
    training_dual: Table
    border: Table
    windows: Table
    frame: Table

    @cached_property
    def resolvent(self) -> tuple[Table, ...]:
        """What ``entry`` asks for."""
        return self.forward, self.dual, self.products, self.border, self.windows, self.frame

    @cached_property
    def training(self) -> tuple[Table, ...]:
        """What ``training`` asks for, but the codes of the activations."""
        return self.forward, self.training_dual, self.products, self.weights, self.border, self.windows, self.frame


def program(plan: Plan) -> Program:
    """The tables of a plan."""
    borders = [_border(grid) for grid in plan.grids]
    windows = [_windows(fine, coarse) for fine, coarse in pairwise(plan.grids)]
    ranges = _ranges(borders), _ranges(windows)
    return Program(
        forward=_table(plan.instructions, *ranges),
        dual=_table(plan.dual.instructions, *ranges),
        products=_table(plan.products),
        weights=_table(_weights(plan)),
        training_dual=_table(_heard_dual(plan), *ranges),
        border=np.concatenate(borders),
        windows=np.concatenate([np.empty((0, 9), dtype=np.int64), *windows]),
        frame=_frame(plan),
    )


def _ranges(tables: Sequence[Table]) -> list[Span]:
    """Where each table lies in all of them, one after the other."""
    return list(pairwise(np.cumsum([0, *map(len, tables)]).tolist()))


def _weights(plan: Plan) -> list[Accumulate]:
    regions = {(step.rows, step.inputs, step.tap): step for step in plan.products}
    return sorted(regions.values(), key=lambda step: (step.rows, step.tap, step.inputs))


def _heard_dual(plan: Plan) -> list[Instruction]:
    """The dual without what it carries into the input, if that hears nothing."""
    first = plan.first_trained

    def cut(step: Instruction) -> Instruction | None:
        if isinstance(step, Repeat):
            body = tuple(turn for turn in map(cut, step.body) if isinstance(turn, Accumulate | Activate))
            return replace(step, body=body)
        rows = max(step.rows[0], first), step.rows[1]
        return replace(step, rows=rows) if rows[0] < rows[1] else None

    return [step for step in map(cut, plan.dual.instructions) if step is not None]


def _table(instructions: Sequence[Instruction], border: Sequence[Span] = (), windows: Sequence[Span] = ()) -> Table:
    rows: list[list[int]] = []
    for step in instructions:
        if isinstance(step, Repeat):
            rows.append([REPEAT, len(step.body), step.times, step.stride])
            rows += [_row(turn, border, windows) for turn in step.body]
        else:
            rows.append(_row(step, border, windows))
    table = np.zeros((len(rows), 11), dtype=np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table


def _row(step: Simple, border: Sequence[Span], windows: Sequence[Span]) -> list[int]:
    if isinstance(step, Accumulate):
        return [ACCUMULATE, *step.rows, *step.columns, *step.inputs, step.tap, step.offset]
    if isinstance(step, Activate):
        return [ACTIVATE, *step.rows, *step.columns, 0, 0, 0, 0, step.block]
    if isinstance(step, Pool):
        return [POOL, *step.rows, *windows[step.grid], 0, 0, int(step.mean), 0, 0, int(step.dual)]
    kind = CLEAR if isinstance(step, Clear) else FOLD if step.dual else WRAP
    return [kind, *step.rows, *border[step.grid], 0, 0, 0, 0, 0, int(step.dual)]


def _border(grid: Grid) -> Table:
    """The padding in runs of positions whose sources are neighbours too; along circles, where each value comes from."""
    places = np.arange(grid.positions).reshape(grid.extents)
    index = [
        (np.arange(extent) - before) % (extent - before - after) + before
        for extent, (before, after) in zip(grid.extents, grid.margins, strict=True)
    ]
    sources = places[np.ix_(*index)].ravel() if grid.extents else places.ravel()
    padding = np.flatnonzero(sources != places.ravel())
    breaks = np.flatnonzero((np.diff(padding) != 1) | (np.diff(sources[padding]) != 1)) + 1
    runs = [run for run in np.split(padding, breaks) if len(run)]
    table = np.array([[run[0], len(run), sources[run[0]]] for run in runs], dtype=np.int64).reshape(-1, 3)
    table += np.array([grid.start, 0, grid.start])
    return table


def _windows(fine: Grid, coarse: Grid) -> Table:
    """For each position of a grid the positions of the one before that are pooled there: up to eight."""
    places, targets = fine.inside, coarse.inside
    for axis, (extent, half) in enumerate(zip(fine.size, coarse.size, strict=True)):
        places = np.lib.stride_tricks.sliding_window_view(places, min(2, extent), axis=axis)
        places = np.take(places, np.arange(half) * min(2, extent), axis=axis)
    table: Table = np.full((targets.size, 9), -1, dtype=np.int64)
    window = places.reshape(targets.size, -1)
    table[:, 0], table[:, 1 : 1 + window.shape[1]] = targets.ravel(), window
    return table


def _frame(plan: Plan) -> Table:
    missing = 3 - len(plan.grid)
    grid = (1,) * missing + plan.grid
    margins = ((0, 0),) * missing + plan.margins
    extents = [all_ - before - after for all_, (before, after) in zip(grid, margins, strict=True)]
    return np.array([*extents, *[before for before, _ in margins], *grid, plan.positions], dtype=np.int64)
