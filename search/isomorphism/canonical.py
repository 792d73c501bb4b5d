"""Which points are the same network: the one that stands for all of them, and what names its training."""

import hashlib
import json
from dataclasses import replace
from functools import lru_cache
from operator import index
from typing import TypeVar, cast

import numpy as np

from machgraph.partition import Mask
from search.graph.point import GraphPoint, canonical_graph
from search.isomorphism.order import canonical_order
from search.point import REGULARIZERS, AnyPoint, Point, architecture_names, edges_of, hyperparameters, reached

P = TypeVar("P", bound=AnyPoint)


def canonical(point: P) -> P:
    """The one point that stands for all points which are the same set of networks.

    Dropped: blocks that hear no input, directly or through others (a constant, which the biases of their readers hold
    as well; in a recurrence they could only tell the time), and blocks that reach no output. Twins, blocks with the
    same sources, readers, activation and scale (at each lag, and with no edge between them at lag 0), become one block
    of their total width. What is left is put in an order that does not depend on the order it came in. An output that
    hears nothing gives the constant network: no block and no shortcut. A recurrence has the fewest lags and the largest
    time block that its edges allow, whatever the order; without a cycle in time it needs none.

    Examples
    --------
    Two halves of a block, and one more that nothing reads:

    >>> from search.shape import Shape
    >>> mask = [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0]]
    >>> canonical(Point((8, 24, 16), ("relu", "relu", "tanh"), mask, 1e-3)).describe(Shape(64, 10))
    '64-32-10 · relu · no shortcuts'

    That of a graph space is `search.graph.point.canonical_graph`.
    """
    return cast(P, canonical_graph(point) if isinstance(point, GraphPoint) else _canonical(point)[0])


def members(point: Point) -> tuple[tuple[int, ...], ...]:
    """For each hidden block of ``canonical(point)`` the blocks of the point, counted from 1, that it is made of.

    Examples
    --------
    >>> mask = [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0]]
    >>> members(Point((8, 24, 16), ("relu", "relu", "tanh"), mask, 1e-3))
    ((1, 2),)
    """
    return _canonical(point)[1]


@lru_cache(maxsize=1 << 16)
def _canonical(point: Point) -> tuple[Point, tuple[tuple[int, ...], ...]]:
    masks, output = point.masks, point.blocks + 1
    union, scales = masks.max(axis=0), (0, *(point.scales or (0,) * output))
    live = sorted(reached(0, union.T.tolist()) & reached(output, union.tolist()))
    masks = masks[:, live][:, :, live] if live else np.zeros((1, 2, 2), dtype=bool)
    masks = masks[: 1 + max(np.flatnonzero(masks.any(axis=(1, 2))), default=0)]

    twins: dict[tuple[bytes, bytes, str, int], list[int]] = {}
    for place, block in enumerate(live[1:-1], start=1):
        sources, readers = masks[:, place].tobytes(), masks[:, :, place].tobytes()
        twins.setdefault((sources, readers, point.activations[block - 1], scales[block]), []).append(place)
    widths = [sum(point.widths[live[place] - 1] for place in places) for places in twins.values()]
    kept = [0, *(places[0] for places in twins.values()), -1]
    masks = masks[:, kept][:, :, kept]

    timeblock, level = 1, _levels(masks[0])
    while timeblock < len(masks) and (longer := _levels(masks[: timeblock + 1].max(axis=0))):
        timeblock, level = timeblock + 1, longer

    # Scale and level first: they grow along every edge of one turn, so that the order by colours is a topological one.
    lags = np.tensordot(2 ** np.arange(len(masks)), masks, axes=1).tolist()  # of each pair, as the bits of one number
    colours = [
        (scale, level[i], activation, width, lags[i][0], lags[-1][i])
        for i, (width, (*_, activation, scale)) in enumerate(zip(widths, twins, strict=True), start=1)
    ]
    hears = [{j: label for j, label in enumerate(row[1:-1]) if label} for row in lags[1:-1]]
    order = canonical_order(colours, hears).order
    placed = [0, *(group + 1 for group in order), -1]
    masks = masks[:, placed][:, :, placed]
    form = replace(
        point,
        widths=tuple(widths[group] for group in order),
        activations=tuple(colours[group][2] for group in order),
        shortcuts=edges_of(masks[0]),
        scales=(*(colours[group][0] for group in order), scales[-1]) if point.scales else (),
        dilation=point.dilation if point.kernel > 1 else 1,
        recurrences=tuple(map(edges_of, masks[1:])),
        timeblock=timeblock if timeblock < len(masks) else 1,  # without a cycle there is no loop over time
    )
    blocks = [tuple(live[place] for place in places) for places in twins.values()]
    return form, tuple(blocks[group] for group in order)


def _levels(heard: Mask) -> list[int]:
    """Edges on the longest way to each block; nothing if they go in a cycle, or on from the last block."""
    level = np.zeros(len(heard), dtype=int)
    for _ in heard:
        longer = np.where(heard, level + 1, 0).max(axis=1)
        if (longer == level).all():
            return [] if heard[:, -1].any() else level.tolist()
        level = longer
    return []


def key(point: AnyPoint, *, seed: int, budget: int) -> str:
    """What names a training run: SHA-256 over canonical form, hyperparameters, seed and budget, as 64 hex digits.

    Parameters
    ----------
    seed, budget : of the training, whole numbers; the budget in the trainer's unit.

    Examples
    --------
    >>> from machgraph.partition import shortcut_mask
    >>> point = Point((16,), ("relu",), shortcut_mask(None, 3), learning_rate=1e-3)
    >>> key(point, seed=0, budget=30)[:16]
    '7f8303486c5e2f93'
    """
    record = canonical(point).to_dict()
    content = {
        "architecture": {name: record[name] for name in architecture_names(point)},
        "hyperparameters": {
            name: value
            for name, value in hyperparameters(point).items()
            if name not in REGULARIZERS or value != REGULARIZERS[name]
        },
        "seed": index(seed),
        "budget": index(budget),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
