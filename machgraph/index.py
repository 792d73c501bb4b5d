"""The index space: positions × channels, cut into boxes, and the cofiltration that the cut gives (section 3).

A partition ``I_0 ⊔ ... ⊔ I_n`` of the index set decides what a linear operator with shared weights becomes,
``w = Σ (π_i - π_{i-1}) l π_{i-1}``: a convolution with shortcuts, a recurrence, or something between. Here it is given
by hand, box by box; and read back from any plan, as the step at which each index becomes final.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from machgraph.partition import Mask, runs
from machgraph.plan import Accumulate, Activate, Instruction, Plan, Repeat, Span

IndexSets = tuple[Mask, Mask]  # the indices of Y and of Z that a subspace holds, each ``[channel, *size]``


@dataclass(frozen=True, slots=True)
class Box:
    """A range of channels crossed with a range of positions: one part of a partition of the index set.

    Parameters
    ----------
    channels, positions : half-open ranges; a dense machine has the one position ``(0, 1)``.
    reads : numbers of the boxes that it hears, all of them earlier ones; ``None`` for every earlier box.

    Raises
    ------
    ValueError : a range that is empty or begins below 0.
    """

    channels: Span
    positions: Span = (0, 1)
    reads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, span in (("channels", self.channels), ("positions", self.positions)):
            if not 0 <= span[0] < span[1]:
                raise ValueError(f"got a box with {name}={span}: give a range (start, stop) with 0 <= start < stop")

    def __str__(self) -> str:
        return f"(channels {_words(self.channels)}, positions {_words(self.positions)})"


def plan(boxes: Iterable[Box], offsets: Sequence[int] = (0,)) -> Plan:
    """The plan of a partition that is given box by box, in the order in which they are solved.

    Box ``i`` hears position ``t + offset`` through the tap of each offset, wherever an earlier box holds it; what a
    later box holds, the box itself, or nobody, counts as 0. So the mask may differ from position to position.

    Parameters
    ----------
    boxes : ``I_0, ..., I_n``; together they cover channels × positions once.
    offsets : for each tap, the position that it reads, relative to the one that it writes: ``0, -1, -2`` are the lags
        of a recurrence, ``-1, 0, 1`` the taps of a convolution of kernel size 3.

    Returns
    -------
    A plan for ``machgraph.resolvent.resolvent``. Its activations are one for each of ``plan.blocks``, the ranges of
    channels that no box cuts.

    Raises
    ------
    ValueError : no box, two boxes that overlap, indices in no box, or a box that reads one which is not before it.

    Examples
    --------
    Two blocks of channels, time by time, with lags 0 and 1: a recurrence.

    >>> made = plan([Box((c, c + 1), (t, t + 1)) for t in range(2) for c in range(2)], offsets=(0, -1))
    >>> steps(made)
    array([[0, 2],
           [1, 3]])
    >>> plan([Box((0, 2), (0, 3)), Box((1, 3), (2, 4))])
    Traceback (most recent call last):
    ...
    ValueError: box 1 (channels 1 to 2, positions 2 to 3) overlaps box 0 (channels 0 to 1, positions 0 to 2): ...
    """
    boxes = tuple(boxes)
    number = _numbers(boxes)
    channels, positions = number.shape
    cuts = sorted({end for box in boxes for end in box.channels})
    instructions: list[Instruction] = []
    for i, box in enumerate(boxes):
        instructions += _products(boxes, i, offsets)
        instructions += [
            Activate(rows, block, box.positions)
            for block, rows in enumerate(pairwise(cuts))
            if box.channels[0] <= rows[0] < box.channels[1]
        ]
    return Plan(tuple(instructions), channels, (positions,), ((0, 0),), len(offsets))


def steps(plan: Plan) -> NDArray[np.int64]:
    """The partition that a plan solves: for each index the step, from 0, at which it becomes final.

    Neighbouring activations of the same positions, with no product between them, are one step.

    Returns
    -------
    An array ``[channel, *size]`` of 0 ... n, without the padding.

    Raises
    ------
    ValueError : a plan of several grids.

    Examples
    --------
    >>> from machgraph.boxes import dense_plan
    >>> from machgraph.partition import Partition, shortcut_mask
    >>> steps(dense_plan(Partition((3, 1, 2)), shortcut_mask(None, 3)))
    array([0, 0, 0, 1, 2, 2])
    """
    if plan.coarser:
        raise ValueError(
            f"got a plan of {len(plan.grids)} grids, as of a machine with scales: an index space has one grid of "
            "positions, so give a machine whose blocks all have scale 0"
        )
    number = np.zeros((plan.channels, plan.positions), dtype=np.int64)
    step, last = -1, None  # the positions of the activation just before, None after a product
    for instruction in plan.instructions:
        turns = range(instruction.times) if isinstance(instruction, Repeat) else range(1)
        for turn in turns:
            for one in instruction.at(turn) if isinstance(instruction, Repeat) else (instruction,):
                if isinstance(one, Accumulate):
                    last = None
                elif isinstance(one, Activate):
                    step += one.columns != last
                    last = one.columns
                    number[slice(*one.rows), slice(*one.columns)] = step
    around = zip(plan.grid, plan.margins, strict=True)
    inside = tuple(slice(before, extent - after) for extent, (before, after) in around)
    return number.reshape(plan.channels, *plan.grid)[:, *inside]


def cofiltration(steps: NDArray[np.int64]) -> list[IndexSets]:
    """The chain of section 3, ``V_0 ⊇ V_1 ⊇ ... ⊇ V_{2n+1} = 0``, as sets of indices.

    ``V_{2i} = ker π_i^Y + ker π_{i-1}^Z`` and ``V_{2i+1} = ker π_i^Y + ker π_i^Z``, beginning with ``ker π_0^Y + Z``:
    each step of the loop settles ``y`` on one part of the index set, and then ``z``.

    Parameters
    ----------
    steps : the part that each index belongs to, as the function ``steps`` gives it.

    Returns
    -------
    ``2n + 2`` pairs of boolean arrays of the shape of ``steps``: the indices of Y and those of Z in ``V_k``.

    Examples
    --------
    >>> for y, z in cofiltration(np.array([0, 1])):
    ...     print(y.astype(int), z.astype(int))
    [0 1] [1 1]
    [0 1] [0 1]
    [0 0] [0 1]
    [0 0] [0 0]
    """
    return [(steps > k // 2, steps > (k - 1) // 2) for k in range(2 * int(steps.max()) + 2)]


# ---- from boxes to products --------------------------------------------------------------------------------------


def _numbers(boxes: Sequence[Box]) -> NDArray[np.int64]:
    """The number of each index's box, ``[channel, position]``, after every check."""
    if not boxes:
        raise ValueError("got no boxes: a partition has at least one part")
    extent = max(box.channels[1] for box in boxes), max(box.positions[1] for box in boxes)
    number = np.full(extent, -1, dtype=np.int64)
    for i, box in enumerate(boxes):
        part = number[slice(*box.channels), slice(*box.positions)]
        taken = part[part >= 0]
        if taken.size:
            j = int(taken[0])
            raise ValueError(
                f"box {i} {box} overlaps box {j} {boxes[j]}: each index belongs to one box, so shrink one of them"
            )
        part[:] = i
        wrong = [j for j in box.reads or () if not 0 <= j < i]
        if wrong:
            j = wrong[0]
            what = f"box {j} {boxes[j]}, which is not before it" if 0 <= j < len(boxes) else f"box {j}, which is none"
            raise ValueError(f"box {i} {box} reads {what}: a box may read earlier boxes alone, so reorder them")
    missing = np.argwhere(number < 0)
    if len(missing):
        channel, position = (int(k) for k in missing[0])
        raise ValueError(
            f"channel {channel} at position {position} is in no box: the {len(boxes)} boxes must cover "
            f"{extent[0]} channels × {extent[1]} positions"
        )
    return number


def _products(boxes: Sequence[Box], i: int, offsets: Sequence[int]) -> list[Accumulate]:
    """What box ``i`` hears: for each tap and range of positions, neighbouring channels are one product."""
    box = boxes[i]
    heard: dict[tuple[int, Span], list[Span]] = {}
    for j in range(i) if box.reads is None else sorted(set(box.reads)):
        source = boxes[j]
        for tap, offset in enumerate(offsets):
            start = max(box.positions[0], source.positions[0] - offset)
            stop = min(box.positions[1], source.positions[1] - offset)
            if start < stop:
                heard.setdefault((tap, (start, stop)), []).append(source.channels)
    products = []
    for (tap, columns), spans in sorted(heard.items()):
        flags = np.zeros(max(stop for _, stop in spans), dtype=bool)
        for start, stop in spans:
            flags[start:stop] = True
        products += [Accumulate(box.channels, inputs, columns, tap, offsets[tap]) for inputs in runs(flags.tolist())]
    return products


def _words(span: Span) -> str:
    return str(span[0]) if span[1] == span[0] + 1 else f"{span[0]} to {span[1] - 1}"
