"""Small random changes of a point, natural for partitions and shortcuts, that stay in its space."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from machgraph.partition import Mask
from search.point import Kind, Point, hyperparameters
from search.space import Space

T = TypeVar("T")
Origin = NDArray[np.int64]  # of each hidden channel, in order: its number among the parent's hidden channels, or NEW
NEW = -1
NOBODY: Origin = np.empty(0, dtype=np.int64)


def mutate(point: Point, space: Space, rng: Generator) -> Point:
    """One random mutation, of a kind drawn uniformly from those that this point and space allow.

    The kinds: add or drop a shortcut, move one, widen or narrow a block, change an activation, step what the point is
    trained with, add a block, remove one, split one in two, merge two; of a convolution also: step its kernel, its
    dilation or the output's scale, pool before a block or no longer; of a recurrence: add or drop a recurrence, move
    one, step its lags or its time block. In a space of one point the point itself comes back.

    Examples
    --------
    >>> space = Space(max_blocks=0, learning_rates=(1e-3, 1e-2))
    >>> linear = Point((), (), ((False, False), (True, False)), learning_rate=1e-3)
    >>> mutate(linear, space, np.random.default_rng(1)).learning_rate
    0.01
    """
    return mutant(point, space, rng)[0]


def mutant(point: Point, space: Space, rng: Generator) -> tuple[Point, Origin]:
    """What ``mutate`` gives, and where its channels come from.

    Examples
    --------
    >>> space = Space(min_blocks=1, max_blocks=1, widths=(2, 3), activations=("relu",), learning_rates=(1e-3,))
    >>> narrow = Point((2,), ("relu",), ((False,) * 3, (True, False, False), (False, True, False)), 1e-3)
    >>> mutant(narrow, space, np.random.default_rng(0))[1]  # it has been widened
    array([ 0,  1, -1])
    """
    mutations = (*_MUTATIONS, *(_stepper(name, _strengths(name)) for name in space.regularizers))
    for kind in rng.permutation(len(mutations)):
        draft = _Draft.of(point)
        if mutations[kind](draft, space, rng):
            return draft.point(space), np.array([channel for origin in draft.origins for channel in origin], dtype=int)
    return point, np.arange(sum(point.widths))


@dataclass
class _Draft:
    """A point that may be changed.

    ``masks`` are those of each lag, ``scales`` has the input's too, ``numbers`` what is stepped among its choices.
    ``origins`` are, for each hidden block, where its channels come from.
    """

    kind: Kind
    widths: list[int]
    activations: list[str]
    masks: Mask
    scales: list[int]
    numbers: dict[str, Any]
    origins: list[list[int]]

    @classmethod
    def of(cls, point: Point) -> "_Draft":
        others = ("kernel", "dilation", "timeblock")
        numbers = hyperparameters(point) | {name: getattr(point, name) for name in others}
        scales = [0, *(point.scales or (0,) * (point.blocks + 1))]
        origins = [
            list(range(end - width, end)) for end, width in zip(accumulate(point.widths), point.widths, strict=True)
        ]
        return cls(point.kind, list(point.widths), list(point.activations), point.masks, scales, numbers, origins)

    @property
    def mask(self) -> Mask:
        """That of lag 0, which changes when it is written to."""
        lag_0: Mask = self.masks[0]
        return lag_0

    @property
    def blocks(self) -> list[int]:
        """All, the input and the output too."""
        return list(range(len(self.mask)))

    def point(self, space: Space) -> Point:
        """In the space: shortcuts and recurrences that it does not leave free, and scales, are as it has them."""
        if self.widths:  # another block may be the first now
            self.scales[1] = min(self.scales[1], space.coarsest(1))
        lagged = space.recurring(self.masks[1:], self.numbers["timeblock"])
        return Point(
            tuple(self.widths),
            tuple(self.activations),
            tuple(map(tuple, space.wired(self.mask).tolist())),
            kind=self.kind,
            scales=tuple(self.scales[1:]) if self.kind == "convolution" else (),
            recurrences=tuple(tuple(map(tuple, mask)) for mask in lagged.tolist()),
            **self.numbers,
        )

    def keep(self, blocks: Sequence[int]) -> None:
        """Have these blocks, from the input to the output, with the shortcuts between them; one may come twice."""
        self.masks = self.masks[:, blocks][:, :, blocks]
        self.widths = [self.widths[block - 1] for block in blocks[1:-1]]
        self.activations = [self.activations[block - 1] for block in blocks[1:-1]]
        self.origins = [self.origins[block - 1] for block in blocks[1:-1]]
        self.scales = [self.scales[block] for block in blocks]

    def resize(self, block: int, width: int, origin: list[int]) -> None:
        """Have a hidden block of so many channels: those of the origin first, as far as there is room for them."""
        self.widths[block - 1] = width
        self.origins[block - 1] = origin[:width] + [NEW] * (width - len(origin))


# Each mutation changes the draft, or returns False where there is nothing to change.


def _toggle_shortcut(draft: _Draft, space: Space, rng: Generator) -> bool:
    (least, most), number = space.shortcut_range(len(draft.widths)), int(draft.mask.sum())
    pairs = [pair for pair in space.pairs(len(draft.widths)) if (number > least if draft.mask[pair] else number < most)]
    if space.shortcuts != "free" or not pairs:
        return False
    draft.mask[_pick(pairs, rng)] ^= True
    return True


def _move_shortcut(draft: _Draft, space: Space, rng: Generator) -> bool:
    pairs = space.pairs(len(draft.widths))
    present = [pair for pair in pairs if draft.mask[pair]]
    absent = [pair for pair in pairs if not draft.mask[pair]]
    if not (present and absent) or space.shortcuts != "free":
        return False
    draft.mask[_pick(present, rng)] = False
    draft.mask[_pick(absent, rng)] = True
    return True


def _toggle_recurrence(draft: _Draft, space: Space, rng: Generator) -> bool:
    if not (triples := _free_triples(draft, space)):
        return False
    draft.masks[_pick(triples, rng)] ^= True
    return True


def _move_recurrence(draft: _Draft, space: Space, rng: Generator) -> bool:
    triples = _free_triples(draft, space)
    present = [triple for triple in triples if draft.masks[triple]]
    absent = [triple for triple in triples if not draft.masks[triple]]
    if not (present and absent):
        return False
    draft.masks[_pick(present, rng)] = False
    draft.masks[_pick(absent, rng)] = True
    return True


def _free_triples(draft: _Draft, space: Space) -> list[tuple[int, int, int]]:
    if space.recurrences != "free":
        return []
    return space.triples(len(draft.widths), len(draft.masks) - 1, draft.numbers["timeblock"])


def _step_lags(draft: _Draft, space: Space, rng: Generator) -> bool:
    """One choice of lags more, at which nobody hears anything yet, or less."""
    if len(space.lags) == 1:
        return False
    lags = _step(len(draft.masks) - 1, space.lags, rng)
    new = np.zeros((lags + 1, *draft.mask.shape), dtype=bool)
    both = min(len(new), len(draft.masks))
    new[:both] = draft.masks[:both]
    draft.masks = new
    return True


def _resize_block(draft: _Draft, space: Space, rng: Generator) -> bool:
    if not draft.widths or len(space.widths) == 1:
        return False
    i = int(rng.integers(len(draft.widths)))
    draft.resize(i + 1, _step(draft.widths[i], space.widths, rng), draft.origins[i])
    return True


def _change_activation(draft: _Draft, space: Space, rng: Generator) -> bool:
    if not draft.activations or len(space.activations) == 1:
        return False
    i = int(rng.integers(len(draft.activations)))
    draft.activations[i] = _pick([name for name in space.activations if name != draft.activations[i]], rng)
    return True


def _stepper(name: str, choices: Callable[[Space], Sequence[Any]]) -> Callable[[_Draft, Space, Generator], bool]:
    """The mutation of a number to the choice before or after it."""

    def step(draft: _Draft, space: Space, rng: Generator) -> bool:
        if len(choices(space)) == 1:
            return False
        draft.numbers[name] = _step(draft.numbers[name], choices(space), rng)
        return True

    return step


def _strengths(name: str) -> Callable[[Space], Sequence[Any]]:
    return lambda space: space.regularizers[name]


def _step_head(draft: _Draft, space: Space, rng: Generator) -> bool:
    if len(space.heads) == 1:
        return False
    draft.scales[-1] = _step(draft.scales[-1], space.heads, rng)
    return True


def _step_scale(draft: _Draft, space: Space, rng: Generator) -> bool:
    """Halve the grid once more before a block, or once less; blocks after it, or before it, go along if they must."""
    blocks = [block for block in draft.blocks[1:-1] if space.coarsest(block)]
    if not blocks:
        return False
    block = _pick(blocks, rng)
    scale = _step(draft.scales[block], range(space.coarsest(block) + 1), rng)
    before, after = draft.scales[1:block], draft.scales[block + 1 : -1]
    draft.scales[1:-1] = [*(min(s, scale) for s in before), scale, *(max(s, scale) for s in after)]
    return True


def _add_block(draft: _Draft, space: Space, rng: Generator) -> bool:
    """A new block beside a shortcut, which stays; beside the way from input to output where there is none."""
    if len(draft.widths) == space.max_blocks:
        return False
    edges = np.argwhere(draft.mask)
    out, source = map(int, _pick(edges, rng)) if len(edges) else (len(draft.mask) - 1, 0)
    new = int(rng.integers(source + 1, out + 1))
    draft.masks = np.insert(np.insert(draft.masks, new, False, axis=1), new, False, axis=2)
    draft.mask[new, source] = draft.mask[out + 1, new] = True
    draft.scales.insert(new, min(draft.scales[int(rng.integers(new - 1, new + 1))], space.max_scale))
    draft.widths.insert(new - 1, _pick(space.widths, rng))
    draft.origins.insert(new - 1, [NEW] * draft.widths[new - 1])
    draft.activations.insert(new - 1, _pick(space.activations, rng))
    return True


def _remove_block(draft: _Draft, space: Space, rng: Generator) -> bool:
    """Its readers hear its sources instead, their lags added, so that the output still hears what it heard."""
    if len(draft.widths) == space.min_blocks:
        return False
    blocks = draft.blocks
    block = _pick(blocks[1:-1], rng)
    before = draft.masks.copy()
    for out, source in np.ndindex(len(before), len(before)):
        if out + source < len(before):
            draft.masks[out + source] |= np.outer(before[out][:, block], before[source][block])
    blocks.remove(block)
    draft.keep(blocks)
    return True


def _split_block(draft: _Draft, space: Space, rng: Generator) -> bool:
    """Two halves with the same sources and readers; the second hears the first too, or they were the same block."""
    if not draft.widths or len(draft.widths) == space.max_blocks:
        return False
    blocks = draft.blocks
    block = _pick(blocks[1:-1], rng)
    draft.keep([*blocks[: block + 1], *blocks[block:]])
    draft.mask[block + 1, block] = True
    whole, origin = draft.widths[block], draft.origins[block]
    width, half = _nearest(whole / 2, space.widths), (whole + 1) // 2
    draft.resize(block, width, origin[:half])
    draft.resize(block + 1, width, origin[half:])
    return True


def _merge_blocks(draft: _Draft, space: Space, rng: Generator) -> bool:
    """One block with the sources and readers of two neighbours in the order, between which no other can stand.

    It has the scale of either.
    """
    if len(draft.widths) < max(2, space.min_blocks + 1):
        return False
    blocks = draft.blocks
    first = _pick(blocks[1:-2], rng)
    second = first + 1
    draft.masks[:, first] |= draft.masks[:, second]
    draft.masks[:, :, first] |= draft.masks[:, :, second]
    draft.mask[first, first] = False
    width = _nearest(draft.widths[first - 1] + draft.widths[second - 1], space.widths)
    draft.resize(first, width, draft.origins[first - 1] + draft.origins[second - 1])
    draft.activations[first - 1] = _pick(draft.activations[first - 1 : second], rng)
    draft.scales[first] = _pick(draft.scales[first : second + 1], rng)
    blocks.remove(second)
    draft.keep(blocks)
    return True


_MUTATIONS: tuple[Callable[[_Draft, Space, Generator], bool], ...] = (
    _toggle_shortcut,
    _move_shortcut,
    _resize_block,
    _change_activation,
    _stepper("learning_rate", lambda space: space.learning_rates),
    _stepper("weight_decay", lambda space: space.weight_decays),
    _stepper("batch_size", lambda space: space.batch_sizes),
    _stepper("transform", lambda space: space.transforms),
    _stepper("kernel", lambda space: space.kernels),
    _stepper("dilation", lambda space: space.dilations),
    _stepper("timeblock", lambda space: space.timeblocks),
    _step_lags,
    _toggle_recurrence,
    _move_recurrence,
    _step_head,
    _step_scale,
    _add_block,
    _remove_block,
    _split_block,
    _merge_blocks,
)


def _pick(choices: Any, rng: Generator) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _step(value: T, choices: Sequence[T], rng: Generator) -> T:
    """The choice before or after ``value``; at an end the one neighbour there is."""
    i = choices.index(value)
    j: int = _pick([j for j in (i - 1, i + 1) if 0 <= j < len(choices)], rng)
    return choices[j]


def _nearest(wish: float, widths: Sequence[int]) -> int:
    return min(widths, key=lambda width: abs(width - wish))
