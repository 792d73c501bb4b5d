"""A point of a space: one architecture and its hyperparameters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from machgraph.partition import Mask, Partition, lag_mask, shortcut_mask
from search.data.transform import GIVEN, TRANSFORMS
from search.graph import point as graph_point
from search.graph.point import GraphPoint
from search.numbers import counted
from search.shape import Shape

Kind = Literal["dense", "convolution", "recurrence"]
KINDS: tuple[Kind, ...] = ("dense", "convolution", "recurrence")
OWNERS: Mapping[str, Kind] = {  # fields that a single kind has
    **dict.fromkeys(("scales", "kernel", "dilation"), "convolution"),
    **dict.fromkeys(("recurrences", "timeblock"), "recurrence"),
}
ARCHITECTURE = ("kind", "widths", "activations", "shortcuts", *OWNERS)
REGULARIZERS: Mapping[str, float | None] = {  # and which value of each does nothing
    "block_penalty": 0.0,
    "smoothing": None,
    "input_noise": 0.0,
    "input_dropout": 0.0,
}
Edges = tuple[tuple[bool, ...], ...]  # [block_out][block_in]


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
    transform : of numbers to answer: ``given`` as the data set has it, or another of ``search.data.transform``.
    kind : of the machine; a convolution reads its input on a grid.
    scales : of a convolution, for each hidden block and the output: how often the grid is halved before it.
    kernel, dilation : of a convolution, along each axis.
    recurrences : of a recurrence, for each lag from 1 on which block hears which, ``[block_out][block_in]``; the input
        hears nothing, and no hidden block hears the output. ``shortcuts`` are those at lag 0.
    timeblock : of a recurrence: steps of time that are updated at once; blocks that do not come before are heard at
        this lag at least.
    block_penalty : the group lasso over the weights of each pair of blocks, in a recurrence at each lag, as a proximal
        step after each epoch: see ``machgraph.regularize.shrink_blocks``. In units of the longest way of AdamW: with 1
        no weight could grow faster than it shrinks.
    smoothing : of the classes that are trained on, in place of the recipe's; ``None``: the recipe's.
    input_noise : standard deviation of the noise that is added to the features in training, in the unit in which they
        are read: for numbers, their standard deviation.
    input_dropout : share of the features that are 0 in training, drawn anew for each sample and epoch; the others are
        as much larger.

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
    >>> own = ((False,) * 3, (False, True, False), (False,) * 3)
    >>> plain = Point((8,), ("tanh",), shortcut_mask("sequential", 3), 1e-3, kind="recurrence", recurrences=(own,))
    >>> plain.describe(Shape(11, 1, (1, 11)))
    '1-8-1 · tanh · no shortcuts · 1 recurrence'
    """

    widths: tuple[int, ...]
    activations: tuple[str, ...]
    shortcuts: Edges
    learning_rate: float
    weight_decay: float = 0.3
    batch_size: int = 64
    transform: str = GIVEN
    kind: Kind = "dense"
    scales: tuple[int, ...] = ()
    kernel: int = 1
    dilation: int = 1
    recurrences: tuple[Edges, ...] = ()
    timeblock: int = 1
    block_penalty: float = 0.0
    smoothing: float | None = None
    input_noise: float = 0.0
    input_dropout: float = 0.0

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
        for name in ("batch_size", "kernel", "dilation", "timeblock"):
            if getattr(self, name) < 1:
                raise ValueError(f"got {name}={getattr(self, name)!r}: it must be at least 1")
        for name in REGULARIZERS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, regular(name, getattr(self, name)))
        if self.transform not in (GIVEN, *TRANSFORMS):
            raise ValueError(f"got transform={self.transform!r}: it is one of {', '.join((GIVEN, *TRANSFORMS))}")
        mask = shortcut_mask(self.shortcuts, len(widths) + 2)
        object.__setattr__(self, "widths", widths)
        object.__setattr__(self, "activations", activations)
        object.__setattr__(self, "shortcuts", tuple(map(tuple, mask.tolist())))
        object.__setattr__(self, "learning_rate", float(self.learning_rate))
        object.__setattr__(self, "weight_decay", float(self.weight_decay))
        object.__setattr__(self, "scales", tuple(self.scales))
        lagged = tuple(tuple(tuple(map(bool, row)) for row in edges) for edges in self.recurrences)
        object.__setattr__(self, "recurrences", lagged)
        self._check_kind()

    def _check_kind(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"got kind={self.kind!r}: it is one of {', '.join(KINDS)}")
        for field in fields(self):
            if OWNERS.get(field.name, self.kind) != self.kind and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"got {field.name} for a point of kind {self.kind!r}: only a {OWNERS[field.name]} has these"
                )
        if self.kind == "recurrence":
            lag_mask(self.masks, self.blocks + 2, len(self.recurrences), self.timeblock)
            if self.masks[:, 0].any() or self.masks[:, :-1, -1].any():
                raise ValueError(
                    "got recurrences of the input, or of a block that hears the output: give none of these"
                )
        if self.kind == "convolution" and (
            len(self.scales) != self.blocks + 1 or any(a > b for a, b in pairwise((0, *self.scales)))
        ):
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
    def masks(self) -> Mask:
        """The shortcuts, and those at further lags, as a boolean array ``[lag, block_out, block_in]``."""
        return np.array([self.shortcuts, *self.recurrences])

    @property
    def is_constant(self) -> bool:
        """Whether the output does not hear the input, directly or through others."""
        return self.blocks + 1 not in reached(0, self.masks.max(axis=0).T.tolist())

    @property
    def depth(self) -> int:
        """Levels of the machine graph (``σ_0, w_1, σ_1, ...``) on the longest way from input to output.

        A way of ``k`` edges has ``2k + 1``, and one more for each time that it is pooled. Blocks on no such way do not
        count: it is the depth of the canonical form. Of a recurrence it is the depth of one turn, ``timeblock`` steps
        of time with their past given, and all blocks count.
        """
        if self.kind == "recurrence":
            now, ends = self.masks[: self.timeblock].max(axis=0), [1]
            for block in range(1, self.blocks + 2):
                reached = [ends[source] + 2 for source in np.flatnonzero(now[block, :block])]
                ends.append(max(reached, default=2 if self.masks[:, block].any() else 1))
            return max(ends)
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
        """Weights that the masks leave, and a bias for each unit or channel, of the input block too."""
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
            names = ("constant",) if self.is_constant else ("linear",)
        edges = int((self.mask & ~np.eye(self.blocks + 2, k=-1, dtype=bool)).sum())
        parts = [blocks, ", ".join(names)]
        if self.kind == "convolution":
            apart = f", dilation {self.dilation}" if self.dilation > 1 else ""
            parts.append("×".join([str(self.kernel)] * len(shape.size)) + apart)
        parts.append(counted(edges, "shortcut"))
        if self.kind == "recurrence":
            block = f" in blocks of {self.timeblock} steps" if self.timeblock > 1 else ""
            parts.append(counted(int(self.masks[1:].sum()), "recurrence") + block)
        return " · ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """As lists and plain values that JSON can hold; ``Point.from_dict`` reads it back."""
        return {
            **asdict(self),
            "widths": list(self.widths),
            "activations": list(self.activations),
            "shortcuts": _written(self.shortcuts),
            "recurrences": [_written(edges) for edges in self.recurrences],
            "scales": list(self.scales),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Point":
        """The point that ``to_dict`` wrote; ValueError: other names than the fields of a point.

        Regularizers that are not named do nothing.
        """
        names = [field.name for field in fields(cls)]
        if set(record) | set(REGULARIZERS) != set(names):
            raise ValueError(f"got a record with {', '.join(record) or 'nothing'}: a point has {', '.join(names)}")
        return cls(**record)

    def _positions(self, shape: Shape) -> list[int]:
        """Of each block's grid."""
        scales = (0, *(self.scales or (0,) * (self.blocks + 1)))
        axes = () if self.kind == "dense" else shape.size
        return [math.prod(max(1, extent >> scale) for extent in axes) for scale in scales]

    def _first(self, shape: Shape) -> int:
        if self.kind == "dense":
            return shape.inputs
        if not shape.image:
            raise ValueError(f"got a {self.kind} for {shape.inputs} features on no grid: it needs an image or a series")
        if self.kind == "recurrence" and len(shape.size) > 1:
            raise ValueError(f"got a recurrence for an image of {shape.size}: it needs a series, of one axis")
        return shape.channels

    def _weights(self, shape: Shape) -> list[int]:
        """Number of weights into each block."""
        widths = np.array(self.partition(shape).widths)
        taps = self.kernel ** len(shape.size) if self.kind == "convolution" else 1
        return (self.masks.sum(axis=0) @ widths * widths * taps).tolist()  # type: ignore[no-any-return]


AnyPoint = Point | GraphPoint


def reached(start: int, edges: Sequence[Sequence[bool]]) -> set[int]:
    """The block itself, and what can be reached from it along the rows of a mask."""
    found, new = {start}, [start]
    while new:
        for block, edge in enumerate(edges[new.pop()]):
            if edge and block not in found:
                found.add(block)
                new.append(block)
    return found


def edges_of(mask: Mask) -> Edges:
    """The rows of a mask as nested tuples."""
    return tuple(map(tuple, mask.tolist()))


def _written(edges: Edges) -> list[list[int]]:
    return [[int(edge) for edge in row] for row in edges]


def hyperparameters(point: AnyPoint) -> dict[str, Any]:
    """What a point says beside its architecture.

    >>> hyperparameters(Point((), (), ((False, False), (True, False)), 0.01))
    {'learning_rate': 0.01, 'weight_decay': 0.3, 'batch_size': 64, 'transform': 'given', 'block_penalty': 0.0, ...}
    """
    return {f.name: getattr(point, f.name) for f in fields(point) if f.name not in architecture_names(point)}


def architecture(point: AnyPoint) -> tuple[Any, ...]:
    """What a point says of its architecture, as it is written, and nothing of what it is trained with."""
    return tuple(getattr(point, name) for name in architecture_names(point))


def architecture_names(point: AnyPoint) -> tuple[str, ...]:
    """The names of the fields that say what the architecture is."""
    return graph_point.ARCHITECTURE if isinstance(point, GraphPoint) else ARCHITECTURE


def point_of(record: Mapping[str, Any]) -> AnyPoint:
    """The point, of whatever kind, that ``to_dict`` wrote; ValueError: other names than its fields."""
    return GraphPoint.from_dict(record) if record.get("kind") == "graph" else Point.from_dict(record)


def regular(name: str, value: float) -> float:
    """How strong a regularizer is, as a float.

    Raises
    ------
    ValueError : it is below 0 or not finite, or a share or a smoothing not below 1.

    Examples
    --------
    >>> regular("smoothing", 1)
    Traceback (most recent call last):
    ValueError: got smoothing=1: it must be a number from 0 to below 1
    """
    most, said = (1.0, " to below 1") if name in ("smoothing", "input_dropout") else (math.inf, " on, and finite")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < most:
        raise ValueError(f"got {name}={value!r}: it must be a number from 0{said}")
    return float(value)
