"""The cofiltration, the shortcuts, and how a solution builds up."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from matplotlib.path import Path
from numpy.typing import NDArray

from machgraph.draw.canvas import (
    FONT,
    GREY,
    PALE,
    SMALL,
    Line,
    canvas,
    graph_of,
    last_writers,
    level_colour,
    levels_of,
    spelled,
    text,
    width,
)
from machgraph.partition import Partition, lag_mask, lag_words, shortcut_mask

COMPACT = 24  # more rows than this are set smaller
SHORTCUT, SEQUENTIAL, LEGAL = "#0072B2", "#5A5A5A", "#C9C9C9"


def cofiltration(architecture: Any, ax: Axes | None = None) -> Axes:
    """Draw the depth cofiltration ``V_0 ⊇ V_1 ⊇ ... ⊇ V_d = 0`` by component, a staircase.

    A row is a component, a column ``V_i``; the cell is filled when the component is in ``V_i``, that is when a machine
    on a level after ``i`` still writes it. Between two columns stands the level that leads from one to the other.

    Parameters
    ----------
    architecture : an architecture, or its graph: nodes with ``reads`` and ``writes``.

    Raises
    ------
    TypeError : neither an architecture nor a graph.
    """
    graph = graph_of(architecture)
    depth = max(levels_of(graph).values())
    last = last_writers(graph)
    rows = sorted(last, key=last.__getitem__)  # stable: within a level in order of first use
    font, high = (FONT, 14.0) if len(rows) <= COMPACT else (SMALL, 9.5)
    cell = (26.0 if depth <= COMPACT // 2 else 17.0, high)
    pitch, top, foot = cell[0] + 10.0, 16.0, 14.0
    bottom = top + cell[1] * len(rows)
    left = max([width(name, font) for name in rows] + [width("level", SMALL)]) + 7
    ax = canvas(ax, left + pitch * depth + cell[0], bottom + foot)
    for i in range(depth + 1):
        text(ax, left + pitch * i + cell[0] / 2, top / 2 - 1, f"$V_{{{i}}}$")
    for i in range(1, depth + 1):
        x = left + pitch * i - 5.0
        text(ax, x, bottom + foot / 2 + 1, str(i), colour=level_colour(i))
        ax.add_patch(Line(Path([(x, top), (x, bottom + 1)]), 0.6, edgecolor=LEGAL, zorder=0))
    text(ax, left - 7, bottom + foot / 2 + 1, "level", SMALL, colour=GREY, align="right")
    for k, name in enumerate(rows):
        y = top + cell[1] * k
        text(ax, left - 7, y + cell[1] / 2, name, font, align="right")
        for i in range(depth + 1):
            colour = level_colour(last[name]) if last[name] > i else PALE
            ax.add_patch(Rectangle((left + pitch * i, y + 1), cell[0], cell[1] - 2, facecolor=colour, edgecolor="none"))
    return ax


def shortcuts(machine: Any, ax: Axes | None = None, *, names: Sequence[str] | None = None) -> Axes:
    """Draw which block hears which: a row for each block that hears, a column for each that is heard.

    Of a recurrence the lags stand in the squares.

    Parameters
    ----------
    machine : a parametric machine, or a boolean mask ``[block_out, block_in]`` or ``[lag, block_out, block_in]``.
    names : of the blocks; by default ``I_0``, ``I_1``, ... The widths of a machine's blocks stand to the right.

    Raises
    ------
    ValueError : the mask is not square, is true where no block may hear another, or the names are too few or many.
    """
    given = np.asarray(getattr(machine, "shortcuts", machine))
    if given.ndim not in (2, 3) or given.shape[-2] != given.shape[-1]:
        raise ValueError(f"got a mask of shape {given.shape}: give a square one, [block_out, block_in]")
    n = given.shape[-1]
    lags, timeblock = (len(given) - 1 if given.ndim == 3 else 0), getattr(machine, "timeblock", 1)
    over_time = lag_mask(given, n, lags, timeblock) if given.ndim == 3 else shortcut_mask(given, n)[None]
    mask, possible = np.any(over_time, axis=0), np.any(lag_mask(None, n, lags, timeblock), axis=0)
    inside = {(i, j): lag_words(over_time[:, i, j]).split(maxsplit=1)[1] for i, j in np.argwhere(mask)} if lags else {}
    partition = getattr(machine, "partition", None)
    widths = [str(w) for w in partition.widths] if isinstance(partition, Partition) else []  # arrays have one too
    labels = [f"$I_{{{i}}}$" for i in range(n)] if names is None else list(names)
    if len(labels) != n:
        raise ValueError(f"got {len(labels)} names for {n} blocks: give one for each block")

    font, cell = (FONT, 16.0) if n <= COMPACT else (SMALL, 10.0)
    cell = max([cell, *(width(words, SMALL) + 4 for words in inside.values())])
    lengths = [width(label, font) for label in labels]
    upright = max(lengths) > cell - 2
    left = max(lengths) + 6 + SMALL + 5
    top = (max(lengths) if upright else font) + 6 + SMALL + 5
    key = [("from the block before", SEQUENTIAL), ("shortcut", SHORTCUT), ("off", None), ("not possible", PALE)]
    beside = max([width(w, SMALL) for w in widths] + [width("width", SMALL)]) + 6 if widths else 0.0
    legend = left + cell * n + beside + 14
    ax = canvas(ax, legend + 13 + max(width(word, SMALL) for word, _ in key), top + max(cell * n, 12.0 * len(key)))
    text(ax, left + cell * n / 2, SMALL / 2, "from, at lags" if inside else "from", SMALL, colour=GREY)
    text(ax, SMALL / 2, top + cell * n / 2, "to", SMALL, colour=GREY, rotation=90)
    for k, label in enumerate(labels):
        middle = cell * (k + 0.5)
        text(ax, left - 5, top + middle, label, font, align="right")
        if upright:
            text(ax, left + middle, top - 5, label, font, align="left", rotation=90)
        else:
            text(ax, left + middle, top - 5 - font / 2, label, font)
    for k, label in enumerate(widths):
        text(ax, left + cell * n + beside, top + cell * (k + 0.5), label, SMALL, colour=GREY, align="right")
    if widths:
        text(ax, left + cell * n + beside, top - 5 - SMALL / 2, "width", SMALL, colour=GREY, align="right")
    for i, j in np.ndindex(n, n):
        colour = (SEQUENTIAL if i == j + 1 else SHORTCUT) if mask[i, j] else (None if possible[i, j] else PALE)
        _square(ax, left + cell * j, top + cell * i, cell, colour)
    for (i, j), words in inside.items():
        text(ax, left + cell * (j + 0.5), top + cell * (i + 0.5), words, SMALL, colour="white")
    for k, (word, colour) in enumerate(key):
        _square(ax, legend, top + 12.0 * k, 9.0, colour)
        text(ax, legend + 13, top + 12.0 * k + 4.5, word, SMALL, align="left")
    return ax


def _square(ax: Axes, x: float, y: float, side: float, colour: str | None) -> None:
    edge = LEGAL if colour is None else "none"
    face = "white" if colour is None else colour
    ax.add_patch(Rectangle((x + 0.7, y + 0.7), side - 1.4, side - 1.4, facecolor=face, edgecolor=edge, linewidth=0.6))


def depth_sequence(values: Iterable[Any], ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Draw how the states ``h_0, h_1, ..., h_d`` of a depth sequence build up: a bar each, the increments stacked.

    Increments above zero are stacked upwards, those below zero downwards; where there are both, a line marks the end.

    Parameters
    ----------
    values : the states, each an array or a mapping from component to array or number. Each entry is one bar.
    legend : say above the axes which colour is which step.

    Raises
    ------
    ValueError : no state, or states of different size.
    """
    states = [_entries(state) for state in values]
    if not states:
        raise ValueError("got no states: give the depth sequence h_0, ..., h_d")
    names = list(states[-1])
    for i, state in enumerate(states):
        if not state.keys() <= states[-1].keys():
            extra = next(name for name in state if name not in states[-1])
            raise ValueError(f"state {i} has an entry {extra} that the last state has not: all must be of one size")
    heights = np.array([[state.get(name, 0.0) for name in names] for state in states])  # [step, bar]
    increments = np.diff(heights, axis=0, prepend=0.0)
    if ax is None:
        from matplotlib import pyplot as plt  # only here: axes that are given need no state of pyplot

        size = (min(max(0.34 * len(names) + 0.9, 3.0), 12.0), 2.6)
        ax = plt.figure(figsize=size, layout="constrained", facecolor="white").add_subplot()
    up, down = np.zeros(len(names)), np.zeros(len(names))
    places = np.arange(len(names))
    for i, step in enumerate(increments):
        moved = step != 0
        base = np.where(step >= 0, up, down)
        ax.bar(places[moved], step[moved], 0.68, base[moved], color=level_colour(i), edgecolor="white", linewidth=0.5)
        up, down = up + np.maximum(step, 0), down + np.minimum(step, 0)
    if (down < 0).any():
        ax.hlines(heights[-1], places - 0.42, places + 0.42, color="black", linewidth=1.2)
        ax.axhline(0, color="black", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    every = max(1, len(names) // COMPACT)
    ax.set_xticks(places[::every], [spelled(name)[0] for name in names[::every]])
    ax.tick_params(axis="x", length=0)
    ax.tick_params(labelsize=FONT)
    if legend:
        steps = [Patch(facecolor=level_colour(i), label=str(i)) for i in range(len(states))]
        style: dict[str, Any] = {"frameon": False, "fontsize": SMALL + 1, "handlelength": 0.9, "handletextpad": 0.4}
        style |= {"columnspacing": 1.0, "borderaxespad": 0.2, "ncols": min(len(steps) + 1, 10)}
        ax.legend(handles=[Patch(alpha=0, label="step"), *steps], loc="lower left", bbox_to_anchor=(-0.05, 1), **style)
    return ax


def _entries(state: Any) -> dict[str, float]:
    """The numbers of a state by name: a component that is one number by its own name, others by name and place."""
    if not isinstance(state, Mapping):
        return {str(k): float(value) for k, value in enumerate(_flat(state))}
    entries: dict[str, float] = {}
    for name, value in state.items():
        flat = _flat(value)
        entries |= {name if len(flat) == 1 else f"{name}[{k}]": float(number) for k, number in enumerate(flat)}
    return entries


def _flat(value: Any) -> NDArray[np.float64]:
    if hasattr(value, "detach"):  # a tensor, which may require a gradient
        value = value.detach().cpu()
    return np.asarray(value, dtype=float).ravel()
