"""A point of a space: one architecture and its hyperparameters; which points are the same network; and their keys."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from itertools import pairwise
from operator import index
from typing import Any, Literal

import numpy as np

from machgraph.partition import Mask, Partition, shortcut_mask
from search.canonical import canonical_order
from search.shape import Shape

Kind = Literal["dense", "convolution"]
KINDS: tuple[Kind, ...] = ("dense", "convolution")
ARCHITECTURE = ("kind", "widths", "activations", "shortcuts", "scales", "kernel", "dilation")


@dataclass(frozen=True)
class Point:
    """One architecture, without its first and last widths (the data give those), and what it is trained with.

    Parameters
    ----------
    widths : units, or channels, of each hidden block.
    activations : name of the activation of each hidden block.
    shortcuts : ``[block_out][block_in]`` over all ``n + 2`` blocks, input and output among them; true only below the
        diagonal. Whatever ``machgraph.partition.shortcut_mask`` takes is turned into nested tuples.
    learning_rate : of the optimizer, positive.
    weight_decay : decoupled, times the learning rate, on weights and biases alike.
    batch_size : samples a step.
    kind : of the machine; a convolution reads its input on a grid.
    scales : of a convolution, for each hidden block and the output: how often the grid is halved before it.
    kernel, dilation : of a convolution, along each axis.

    Raises
    ------
    ValueError : any of these does not hold.

    Examples
    --------
    >>> point = Point((32, 16), ("tanh", "relu"), shortcut_mask("sequential", 4), learning_rate=1e-3)
    >>> table = Shape(64, 10)
    >>> point.describe(table), point.depth, point.parameters(table)
    ('64-32-16-10 · tanh, relu · no shortcuts', 7, 2842)
    >>> halved = {"kind": "convolution", "scales": (0, 1, 2), "kernel": 3}
    >>> Point((8, 8), ("relu", "relu"), shortcut_mask(None, 4), 1e-3, **halved).describe(Shape(64, 10, (1, 8, 8)))
    '1-8↓8↓10 · relu · 3×3 · 3 shortcuts'
    """

    widths: tuple[int, ...]
    activations: tuple[str, ...]
    shortcuts: tuple[tuple[bool, ...], ...]
    learning_rate: float
    weight_decay: float = 0.3
    batch_size: int = 64
    kind: Kind = "dense"
    scales: tuple[int, ...] = ()
    kernel: int = 1
    dilation: int = 1

    def __post_init__(self) -> None:
        """Check, and turn lists and arrays into tuples."""
        widths = Partition((1, *self.widths, 1)).widths[1:-1]
        activations = tuple(self.activations)
        if isinstance(self.activations, str) or not all(isinstance(name, str) and name for name in activations):
            raise ValueError(f"got activations={self.activations!r}: give a tuple with one name for each hidden block")
        if len(activations) != len(widths):
            raise ValueError(
                f"got {len(activations)} activations for {len(widths)} hidden blocks: give one name for each"
            )
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"got learning_rate={self.learning_rate!r}: it must be positive and finite")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"got weight_decay={self.weight_decay!r}: it must be 0 or more, and finite")
        for name in ("batch_size", "kernel", "dilation"):
            if getattr(self, name) < 1:
                raise ValueError(f"got {name}={getattr(self, name)!r}: it must be at least 1")
        mask = shortcut_mask(self.shortcuts, len(widths) + 2)
        object.__setattr__(self, "widths", widths)
        object.__setattr__(self, "activations", activations)
        object.__setattr__(self, "shortcuts", tuple(map(tuple, mask.tolist())))
        object.__setattr__(self, "learning_rate", float(self.learning_rate))
        object.__setattr__(self, "weight_decay", float(self.weight_decay))
        object.__setattr__(self, "scales", tuple(self.scales))
        self._check_kind()

    def _check_kind(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"got kind={self.kind!r}: it is one of {', '.join(KINDS)}")
        if self.kind == "dense":
            if self.scales or (self.kernel, self.dilation) != (1, 1):
                raise ValueError("got scales, a kernel or a dilation for a dense machine: a convolution has these")
        elif len(self.scales) != self.blocks + 1 or any(a > b for a, b in pairwise((0, *self.scales))):
            raise ValueError(
                f"got scales={self.scales} for {self.blocks} hidden blocks: give one for each and one for the output, "
                "none smaller than the one before"
            )

    @property
    def blocks(self) -> int:
        """Number of hidden blocks."""
        return len(self.widths)

    @property
    def mask(self) -> Mask:
        """The shortcuts as a boolean array ``[block_out, block_in]``."""
        return np.array(self.shortcuts)

    @property
    def depth(self) -> int:
        """Levels of the machine graph (``σ_0, w_1, σ_1, ...``) on the longest way from input to output.

        A way of ``k`` edges has ``2k + 1``, and one more for each time that it is pooled. Blocks on no such way do not
        count: it is the depth of the canonical form.
        """
        scales = (0, *(self.scales or (0,) * (self.blocks + 1)))
        depth = {0: 1}
        for block, heard in enumerate(self.shortcuts):
            reached = [depth[source] + 2 + scales[block] - scales[source] for source in depth if heard[source]]
            if reached:
                depth[block] = max(reached)
        return depth.get(self.blocks + 1, 1)

    def partition(self, shape: Shape) -> Partition:
        """All blocks: the input, the hidden ones, the output."""
        return Partition((self._first(shape), *self.widths, shape.outputs))

    def parameters(self, shape: Shape) -> int:
        """Weights that the mask leaves, and a bias for each unit or channel, of the input block too."""
        return sum(self._weights(shape)) + self.partition(shape).size

    def flops(self, shape: Shape) -> int:
        """Of one forward pass on one sample: 2 a weight and position, 1 a bias; activations, pooling: not counted."""
        per_position = (
            2 * weights + width
            for weights, width in zip(self._weights(shape), self.partition(shape).widths, strict=True)
        )
        return sum(flops * count for flops, count in zip(per_position, self._positions(shape), strict=True))

    def activities(self, shape: Shape) -> int:
        """Number of units, of a convolution at each position of its block's grid: what a pass on one sample fills."""
        widths = self.partition(shape).widths
        return sum(width * count for width, count in zip(widths, self._positions(shape), strict=True))

    def describe(self, shape: Shape) -> str:
        """Widths, activations, kernel, and the number of shortcuts: the edges other than from a block to the next.

        An arrow stands before a block for each time that the grid is halved.
        """
        scales = (0, *(self.scales or (0,) * (self.blocks + 1)))
        arrows = ["↓" * (b - a) or "-" for a, b in pairwise(scales)]
        first, *widths = map(str, self.partition(shape).widths)
        blocks = first + "".join(arrow + width for arrow, width in zip(arrows, widths, strict=True))
        names = self.activations[:1] if len(set(self.activations)) == 1 else self.activations
        if not names:
            names = ("linear",) if self.shortcuts[1][0] else ("constant",)
        edges = int((self.mask & ~np.eye(self.blocks + 2, k=-1, dtype=bool)).sum())
        parts = [blocks, ", ".join(names)]
        if self.kind == "convolution":
            apart = f", dilation {self.dilation}" if self.dilation > 1 else ""
            parts.append("×".join([str(self.kernel)] * len(shape.size)) + apart)
        return " · ".join([*parts, f"{edges or 'no'} shortcut{'' if edges == 1 else 's'}"])

    def to_dict(self) -> dict[str, Any]:
        """As lists and plain values that JSON can hold; ``Point.from_dict`` reads it back."""
        return {
            **asdict(self),
            "widths": list(self.widths),
            "activations": list(self.activations),
            "shortcuts": [[int(edge) for edge in row] for row in self.shortcuts],
            "scales": list(self.scales),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Point":
        """The point that ``to_dict`` wrote; ValueError: other names than the fields of a point."""
        names = [field.name for field in fields(cls)]
        if set(record) != set(names):
            raise ValueError(f"got a record with {', '.join(record) or 'nothing'}: a point has {', '.join(names)}")
        return cls(**record)

    def _positions(self, shape: Shape) -> list[int]:
        """Of each block's grid."""
        scales = (0, *(self.scales or (0,) * (self.blocks + 1)))
        axes = shape.size if self.kind == "convolution" else ()
        return [math.prod(max(1, extent >> scale) for extent in axes) for scale in scales]

    def _first(self, shape: Shape) -> int:
        if self.kind == "dense":
            return shape.inputs
        if not shape.image:
            raise ValueError(f"got a convolution for {shape.inputs} features on no grid: it needs an image or a series")
        return shape.channels

    def _weights(self, shape: Shape) -> list[int]:
        """Number of weights into each block."""
        widths = np.array(self.partition(shape).widths)
        taps = self.kernel ** len(shape.size) if self.kind == "convolution" else 1
        return (self.mask @ widths * widths * taps).tolist()  # type: ignore[no-any-return]


@lru_cache(maxsize=1 << 16)
def canonical(point: Point) -> Point:
    """The one point that stands for all points which are the same set of networks.

    Dropped: blocks that hear no input, directly or through others (a constant, which the biases of their readers hold
    as well), and blocks that reach no output. Twins, blocks with the same sources, readers, activation and scale (so
    with no edge between them), become one block of their total width. What is left is put in an order that does not
    depend on the order it came in. An output that hears nothing gives the constant network: no block and no shortcut.

    Examples
    --------
    Two halves of a block, and one more that nothing reads:

    >>> mask = [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0]]
    >>> canonical(Point((8, 24, 16), ("relu", "relu", "tanh"), mask, 1e-3)).describe(Shape(64, 10))
    '64-32-10 · relu · no shortcuts'
    """
    output = point.blocks + 1
    sources = [{source for source, edge in enumerate(row) if edge} for row in point.shortcuts]
    heard = {0}  # blocks that hear the input, somehow
    for block in range(1, output + 1):
        if sources[block] & heard:
            heard.add(block)
    live = {output}  # of these, blocks that reach the output, somehow; readers come before sources
    for block in range(output, 0, -1):
        if block in live:
            live |= sources[block] & heard
    hidden = sorted(live - {0, output})

    scales = (0, *(point.scales or (0,) * output))
    twins: dict[tuple[frozenset[int], frozenset[int], str, int], list[int]] = {}
    for block in hidden:
        readers = frozenset(reader for reader in live if block in sources[reader])
        kind = (frozenset(sources[block] & (live | {0})), readers, point.activations[block - 1], scales[block])
        twins.setdefault(kind, []).append(block)
    kinds = list(twins)
    place = {block: i for i, blocks in enumerate(twins.values()) for block in blocks}
    widths = [sum(point.widths[block - 1] for block in blocks) for blocks in twins.values()]

    # Scale and level first: they grow along every edge, so that the order by colours is a topological one.
    level = {0: 0}
    for block in hidden:
        level[block] = 1 + max(level[source] for source in sources[block] if source in level)
    colours = [
        (kind[3], level[blocks[0]], kind[2], widths[i], 0 in kind[0], output in kind[1])
        for i, (kind, blocks) in enumerate(twins.items())
    ]
    hears = [{place[source] for source in kind[0] if source} for kind in kinds]
    order, edges, _ = canonical_order(colours, hears)

    blocks = len(order)
    mask = np.zeros((blocks + 2, blocks + 2), dtype=bool)
    mask[-1, 0] = 0 in sources[output]
    for i, (group, heard_places) in enumerate(zip(order, edges, strict=True)):
        *_, hears_input, feeds_output = colours[group]
        mask[i + 1, 0] = hears_input
        mask[-1, i + 1] = feeds_output
        mask[i + 1, [source + 1 for source in heard_places]] = True
    return replace(
        point,
        widths=tuple(widths[group] for group in order),
        activations=tuple(kinds[group][2] for group in order),
        shortcuts=tuple(map(tuple, mask.tolist())),
        scales=(*(kinds[group][3] for group in order), scales[-1]) if point.scales else (),
        dilation=point.dilation if point.kernel > 1 else 1,
    )


def hyperparameters(point: Point) -> dict[str, Any]:
    """What a point says beside its architecture.

    >>> hyperparameters(Point((), (), ((False, False), (True, False)), 0.01))
    {'learning_rate': 0.01, 'weight_decay': 0.3, 'batch_size': 64}
    """
    return {field.name: getattr(point, field.name) for field in fields(point) if field.name not in ARCHITECTURE}


def key(point: Point, *, seed: int, budget: int) -> str:
    """What names a training run: SHA-256 over canonical form, hyperparameters, seed and budget, as 64 hex digits.

    Parameters
    ----------
    seed, budget : of the training, whole numbers; the budget in the trainer's unit.

    Examples
    --------
    >>> point = Point((16,), ("relu",), shortcut_mask(None, 3), learning_rate=1e-3)
    >>> key(point, seed=0, budget=30)[:16]
    'dd65225bb69baace'
    """
    record = canonical(point).to_dict()
    content = {
        "architecture": {name: record[name] for name in ARCHITECTURE},
        "hyperparameters": hyperparameters(point),
        "seed": index(seed),
        "budget": index(budget),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
