"""The index space, time × channel: at which step each index becomes final, and the values that arrive there."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgb
from numpy.typing import NDArray

from machgraph import index
from machgraph.draw.canvas import FONT, GREY, INK, PALE, SMALL, canvas, text, width
from machgraph.plan import Plan

SIDE = 15.0  # of a cell, in points
PAGE = 520.0  # what small multiples may take of its width, in points
LONG = 60.0  # the scale of values
ORDER: Colormap = LinearSegmentedColormap.from_list("order", colormaps["viridis"](np.linspace(0.12, 0.95, 256)))
VALUES: Colormap = colormaps["RdBu_r"]
Steps = NDArray[np.int64]


def index_cofiltration(machine: Any, ax: Axes | None = None, *, size: Sequence[int] | int = ()) -> Axes:
    """Draw the partition of the index space that a machine solves: each index coloured by the step that settles it.

    A row is a channel, from the input at the bottom to the output; a column is a position, such as a step of time;
    more than one axis of positions is laid out flat. Step ``i`` settles ``y`` on its indices and then ``z``, which is
    the chain ``V_{2i} ⊇ V_{2i+1}`` of section 3. What is solved at once has one number.

    Parameters
    ----------
    machine : a parametric machine, or a plan (``machgraph.index.plan`` makes one of boxes).
    size : for a machine, the extent of each axis of positions, a number alone for one; a dense machine has none.

    Raises
    ------
    TypeError : neither a machine nor a plan. ValueError : a size with too many or too few axes.
    """
    grid = _flat(index.steps(_plan(machine, size)))
    blocks = _boundaries(machine, grid)
    last = int(grid.max())
    left, top = _left(grid, machine), 2 * SMALL
    high, wide = SIDE * grid.shape[0], SIDE * grid.shape[1]
    key = f"{last + 1} steps: a chain of length {2 * last + 1}"
    ax = canvas(ax, max(left + wide, left + width(key, SMALL)), top + high + 2.2 * SMALL)
    text(ax, left, SMALL / 2, key, SMALL, colour=GREY, align="left")
    colours = np.array([ORDER(step / max(last, 1))[:3] for step in grid.ravel()]).reshape(*grid.shape, 3)
    _cells(ax, left, top, colours)
    _edges(ax, left, top, grid)
    _axes_labels(ax, left, top, grid, blocks, _kind(machine))
    for step in range(last + 1):
        bright = float(np.dot(ORDER(step / max(last, 1))[:3], (0.299, 0.587, 0.114)))
        for channel, position in _labels(grid == step):
            x, y = left + SIDE * position, top + high - SIDE * channel
            text(ax, x, y, str(step), SMALL, colour="white" if bright < 0.55 else INK)
    return ax


def filling(values: Any, machine: Any, ax: Axes | None = None, *, panels: int = 6, columns: int | None = None) -> Axes:
    """Draw how the resolvent fills machine space: small multiples, one picture after each of some steps.

    Settled indices show their value, blue below zero and red above; the others are still pale. A black line is round
    what the last steps have settled.

    Parameters
    ----------
    values : the solution for one sample, ``(channel, *size)``: ``z`` of ``machine.solve(y0)``, or an array like it.
    machine : the parametric machine, or its plan.
    panels : the largest number of pictures; of more steps than that, some are left out, never the first or the last.
    columns : pictures in a row; by default all where they fit, else about as many as fit a page.

    Raises
    ------
    TypeError : neither a machine nor a plan. ValueError : values of another shape, or no panel.
    """
    solution = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=float)
    if panels < 1:
        raise ValueError(f"got panels={panels}: give at least 1")
    plan = _plan(machine, solution.shape[1:])
    grid = _flat(index.steps(plan))
    if solution.size != grid.size or len(solution) != len(grid):
        expected = f"{len(grid)} channels and {grid.shape[1]} positions"
        raise ValueError(f"got values of shape {solution.shape}: give one sample of {expected}")
    solution = solution.reshape(grid.shape)
    limit = float(np.abs(solution).max()) or 1.0
    blocks = _boundaries(machine, grid)
    shown = np.unique(np.linspace(0, grid.max(), min(panels, int(grid.max()) + 1)).round().astype(int))
    left, top, gap = _left(grid, machine), 1.6 * FONT, 14.0
    wide, high = SIDE * grid.shape[1], SIDE * grid.shape[0]
    if columns is None:
        fitting = max(1, int(PAGE // (wide + gap)))
        columns = -(-len(shown) // -(-len(shown) // fitting))  # as many rows as it takes, all about as long
    rows = -(-len(shown) // columns)
    pitch = max(wide, width(f"step {grid.max()}", SMALL)) + gap, high + top + 2 * SMALL + 4
    scale = LONG + 8 + width(f"{-limit:.2g}", SMALL) + width(_meaning(limit), SMALL)
    ax = canvas(ax, left + max(columns * pitch[0] - gap, scale), rows * pitch[1] + 2 * SMALL)
    before = -1
    for k, step in enumerate(shown):
        x, y = left + pitch[0] * (k % columns), top + pitch[1] * (k // columns)
        settled = grid <= step
        colours = VALUES(0.5 + 0.5 * solution / limit)[..., :3]
        colours[~settled] = to_rgb(PALE)
        text(ax, x, y - FONT * 0.8, f"step {step}", SMALL, align="left")
        _cells(ax, x, y, colours)
        _edges(ax, x, y, np.where(settled & (grid > before), 1, 0), colour=INK, border=False)
        _axes_labels(
            ax, x, y, grid, blocks if k % columns == 0 else [], _kind(machine) if k + columns >= len(shown) else ""
        )
        before = int(step)
    _scale(ax, left, rows * pitch[1] + 0.8 * SMALL, limit)
    return ax


# --- what is drawn ---------------------------------------------------------------------------------------------------


def _plan(machine: Any, size: Sequence[int] | int) -> Plan:
    if isinstance(machine, Plan):
        return machine
    if not hasattr(machine, "plan") or not hasattr(machine, "dimensions"):
        raise TypeError(f"got a {type(machine).__name__}: give a parametric machine, or a plan")
    extents = (size,) if isinstance(size, int) else tuple(size)
    if len(extents) != machine.dimensions:
        raise ValueError(
            f"got size={size!r} for a machine with {machine.dimensions} axes of positions: give one extent for each"
        )
    plan: Plan = machine.plan(extents)
    return plan


def _flat(steps: Steps) -> Steps:
    return steps.reshape(len(steps), -1)


def _boundaries(machine: Any, grid: Steps) -> list[tuple[str, int, int]]:
    """The blocks as name and range of channels; without a partition the channels in steps that can be read."""
    if hasattr(machine, "partition"):
        bounds = machine.partition.bounds
        return [(f"$I_{{{i}}}$", bounds[i], bounds[i + 1]) for i in range(len(bounds) - 1)]
    every = max(1, len(grid) // 12)
    return [(str(channel), channel, channel + 1) for channel in range(0, len(grid), every)]


def _kind(machine: Any) -> str:
    return "time" if hasattr(machine, "lags") else "position"


def _left(grid: Steps, machine: Any) -> float:
    return max(width(name, FONT) for name, _, _ in _boundaries(machine, grid)) + 11 + SMALL + 1


def _labels(part: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Where a step's number stands, the middle of each of its rectangles, as (channel, position)."""
    places, rest = [], part.copy()
    while rest.any():
        channel, position = (int(k) for k in np.argwhere(rest)[0])
        many = next((k for k in range(position, rest.shape[1]) if not rest[channel, k]), rest.shape[1]) - position
        tall = 1
        while channel + tall < len(rest) and rest[channel + tall, position : position + many].all():
            tall += 1
        rest[channel : channel + tall, position : position + many] = False
        places.append((channel + tall / 2, position + many / 2))
    return places


# --- artists ---------------------------------------------------------------------------------------------------------


def _cells(ax: Axes, left: float, top: float, colours: NDArray[np.float64]) -> None:
    """One square for each index, channel 0 at the bottom."""
    x = left + SIDE * np.arange(colours.shape[1] + 1)
    y = top + SIDE * np.arange(colours.shape[0], -1, -1)
    ax.pcolormesh(x, y, colours, edgecolors=(1, 1, 1, 0.3), linewidth=0.4, zorder=1)


def _edges(ax: Axes, left: float, top: float, grid: Steps, colour: str = "white", border: bool = True) -> None:
    """Lines between indices of different steps."""
    channels = len(grid)
    padded = np.pad(grid, 1, constant_values=grid.min() - 1 if border else 0)
    lines = []
    for i, j in np.argwhere(np.diff(padded[1:-1], axis=1)):
        y = top + SIDE * (channels - i)
        lines.append([(left + SIDE * j, y), (left + SIDE * j, y - SIDE)])
    for i, j in np.argwhere(np.diff(padded[:, 1:-1], axis=0)):
        y = top + SIDE * (channels - i)
        lines.append([(left + SIDE * j, y), (left + SIDE * (j + 1), y)])
    ax.add_collection(LineCollection(lines, colors=colour, linewidths=1.6, capstyle="projecting", zorder=2))


def _axes_labels(
    ax: Axes, left: float, top: float, grid: Steps, blocks: list[tuple[str, int, int]], positions: str = "position"
) -> None:
    channels, extent = grid.shape
    bottom = top + SIDE * channels
    for name, start, stop in blocks:
        text(ax, left - 6, bottom - SIDE * (start + stop) / 2, name, FONT, align="right")
    if blocks:
        x = left - 11 - max(width(name, FONT) for name, _, _ in blocks) - SMALL / 2
        text(ax, x, top + SIDE * channels / 2, "channel", SMALL, colour=GREY, rotation=90)
    if positions and extent > 1:
        text(ax, left + SIDE * extent / 2, bottom + 1.2 * SMALL, positions, SMALL, colour=GREY)


def _scale(ax: Axes, left: float, top: float, limit: float) -> None:
    """What the colours of values mean."""
    steps, low = 21, f"{-limit:.2g}"
    x = left + width(low, SMALL) + 4
    edges = x + np.linspace(0, LONG, steps + 1)
    colours = VALUES(np.linspace(0, 1, steps))[None, :, :3]
    ax.pcolormesh(edges, np.array([top, top + SMALL]), colours, zorder=1)
    text(ax, x - 4, top + SMALL / 2, low, SMALL, colour=GREY, align="right")
    text(ax, x + LONG + 4, top + SMALL / 2, _meaning(limit), SMALL, colour=GREY, align="left")


def _meaning(limit: float) -> str:
    return f"{limit:.2g}; pale: not settled yet"
