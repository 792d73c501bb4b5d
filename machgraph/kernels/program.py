"""Plans as tables of whole numbers, which the compiled loop reads: one row an instruction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from machgraph.plan import Accumulate, Activate, Clear, Instruction, Plan, Repeat, Wrap

Table = NDArray[np.int64]

ACCUMULATE, ACTIVATE, CLEAR, WRAP, FOLD, REPEAT = range(6)
# The columns of a table. A REPEAT has the length of its body, the turns and the stride in the first three after KIND.
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
    border : runs of padding, ``[run, (first position, length, first position of what it repeats)]``.
    frame : of a grid with three axes: how many positions are not padding, how many come before them, how many in all.
    """

    forward: Table
    dual: Table
    products: Table
    weights: Table
    training_dual: Table
    border: Table
    frame: Table

    @cached_property
    def resolvent(self) -> tuple[Table, ...]:
        """What ``entry`` asks for."""
        return self.forward, self.dual, self.products, self.border, self.frame

    @cached_property
    def training(self) -> tuple[Table, ...]:
        """What ``training`` asks for, but the codes of the activations."""
        return self.forward, self.training_dual, self.products, self.weights, self.border, self.frame


def program(plan: Plan) -> Program:
    """The tables of a plan."""
    return Program(
        forward=_table(plan.instructions),
        dual=_table(plan.dual.instructions),
        products=_table(plan.products),
        weights=_table(_weights(plan)),
        training_dual=_table(_heard_dual(plan)),
        border=_border(plan),
        frame=_frame(plan),
    )


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


def _table(instructions: Sequence[Instruction]) -> Table:
    rows: list[list[int]] = []
    for step in instructions:
        if isinstance(step, Repeat):
            rows.append([REPEAT, len(step.body), step.times, step.stride])
            rows += [_row(turn) for turn in step.body]
        else:
            rows.append(_row(step))
    table = np.zeros((len(rows), 11), dtype=np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table


def _row(step: Accumulate | Activate | Clear | Wrap) -> list[int]:
    if isinstance(step, Accumulate):
        return [ACCUMULATE, *step.rows, *step.columns, *step.inputs, step.tap, step.offset]
    if isinstance(step, Activate):
        return [ACTIVATE, *step.rows, *step.columns, 0, 0, 0, 0, step.block]
    kind = CLEAR if isinstance(step, Clear) else FOLD if step.dual else WRAP
    return [kind, *step.rows, 0, 0, 0, 0, 0, 0, 0, int(step.dual)]


def _border(plan: Plan) -> Table:
    """The padding in runs of positions whose sources are neighbours too; along circles, where each value comes from."""
    places = np.arange(plan.positions).reshape(plan.grid)
    index = [
        (np.arange(extent) - before) % (extent - before - after) + before
        for extent, (before, after) in zip(plan.grid, plan.margins, strict=True)
    ]
    sources = places[np.ix_(*index)].ravel() if plan.grid else places.ravel()
    padding = np.flatnonzero(sources != places.ravel())
    breaks = np.flatnonzero((np.diff(padding) != 1) | (np.diff(sources[padding]) != 1)) + 1
    runs = [run for run in np.split(padding, breaks) if len(run)]
    return np.array([[run[0], len(run), sources[run[0]]] for run in runs], dtype=np.int64).reshape(-1, 3)


def _frame(plan: Plan) -> Table:
    missing = 3 - len(plan.grid)
    grid = (1,) * missing + plan.grid
    margins = ((0, 0),) * missing + plan.margins
    extents = [all_ - before - after for all_, (before, after) in zip(grid, margins, strict=True)]
    return np.array([*extents, *[before for before, _ in margins], *grid], dtype=np.int64)
