"""Small random changes of a point, natural for partitions and shortcuts, that stay in its space."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.random import Generator

from machgraph.partition import Mask
from search.point import Kind, Point, hyperparameters
from search.space import Space

T = TypeVar("T")


def mutate(point: Point, space: Space, rng: Generator) -> Point:
    """One random mutation, of a kind drawn uniformly from those that this point and space allow.

    The kinds: add or drop a shortcut, move one, widen or narrow a block, change an activation, step what the point is
    trained with, add a block, remove one, split one in two, merge two; of a convolution also: step its kernel, its
    dilation or the output's scale, pool before a block or no longer. In a space of one point the point itself comes
    back.

    Examples
    --------
    >>> space = Space(max_blocks=0, learning_rates=(1e-3, 1e-2))
    >>> linear = Point((), (), ((False, False), (True, False)), learning_rate=1e-3)
    >>> mutate(linear, space, np.random.default_rng(1)).learning_rate
    0.01
    """
    for kind in rng.permutation(len(_MUTATIONS)):
        draft = _Draft.of(point)
        if _MUTATIONS[kind](draft, space, rng):
            return draft.point(space)
    return point


@dataclass
class _Draft:
    """A point that may be changed; ``scales`` has the input's too, ``numbers`` what is stepped among its choices."""

    kind: Kind
    widths: list[int]
    activations: list[str]
    mask: Mask
    scales: list[int]
    numbers: dict[str, Any]

    @classmethod
    def of(cls, point: Point) -> "_Draft":
        numbers = hyperparameters(point) | {"kernel": point.kernel, "dilation": point.dilation}
        scales = [0, *(point.scales or (0,) * (point.blocks + 1))]
        return cls(point.kind, list(point.widths), list(point.activations), point.mask, scales, numbers)

    def point(self, space: Space) -> Point:
        """In the space: shortcuts that it does not leave free are as it has them."""
        mask = self.mask
        if space.shortcuts != "free" or space.max_span is not None:
            fixed = np.zeros_like(mask)
            for out, source in space.pairs(len(self.widths)):
                fixed[out, source] = mask[out, source] if space.shortcuts == "free" else space.is_fixed(out, source)
            mask = fixed
        return Point(
            tuple(self.widths),
            tuple(self.activations),
            tuple(map(tuple, mask.tolist())),
            kind=self.kind,
            scales=tuple(self.scales[1:]) if self.kind == "convolution" else (),
            **self.numbers,
        )

    def keep(self, blocks: Sequence[int]) -> None:
        """Have these blocks, from the input to the output, with the shortcuts between them; one may come twice."""
        self.mask = self.mask[np.ix_(blocks, blocks)]
        self.widths = [self.widths[block - 1] for block in blocks[1:-1]]
        self.activations = [self.activations[block - 1] for block in blocks[1:-1]]
        self.scales = [self.scales[block] for block in blocks]


# Each mutation changes the draft, or returns False where there is nothing to change.


def _toggle_shortcut(draft: _Draft, space: Space, rng: Generator) -> bool:
    if space.shortcuts != "free":
        return False
    out, source = _pick(space.pairs(len(draft.widths)), rng)
    draft.mask[out, source] ^= True
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


def _resize_block(draft: _Draft, space: Space, rng: Generator) -> bool:
    if not draft.widths or len(space.widths) == 1:
        return False
    i = int(rng.integers(len(draft.widths)))
    draft.widths[i] = _step(draft.widths[i], space.widths, rng)
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


def _step_head(draft: _Draft, space: Space, rng: Generator) -> bool:
    if len(space.heads) == 1:
        return False
    draft.scales[-1] = _step(draft.scales[-1], space.heads, rng)
    return True


def _step_scale(draft: _Draft, space: Space, rng: Generator) -> bool:
    """Halve the grid once more before a block, or once less; blocks after it, or before it, go along if they must."""
    if not draft.widths or not space.max_scale:
        return False
    block = int(rng.integers(1, len(draft.widths) + 1))
    scale = _step(draft.scales[block], range(space.max_scale + 1), rng)
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
    draft.mask = np.insert(np.insert(draft.mask, new, False, axis=0), new, False, axis=1)
    draft.mask[new, source] = draft.mask[out + 1, new] = True
    draft.scales.insert(new, min(draft.scales[int(rng.integers(new - 1, new + 1))], space.max_scale))
    draft.widths.insert(new - 1, _pick(space.widths, rng))
    draft.activations.insert(new - 1, _pick(space.activations, rng))
    return True


def _remove_block(draft: _Draft, space: Space, rng: Generator) -> bool:
    """Its readers hear its sources instead, so that the output still hears what it heard."""
    if len(draft.widths) == space.min_blocks:
        return False
    blocks = list(range(len(draft.mask)))
    block = _pick(blocks[1:-1], rng)
    draft.mask |= np.outer(draft.mask[:, block], draft.mask[block])
    blocks.remove(block)
    draft.keep(blocks)
    return True


def _split_block(draft: _Draft, space: Space, rng: Generator) -> bool:
    """Two halves with the same sources and readers; the second hears the first too, or they were the same block."""
    if not draft.widths or len(draft.widths) == space.max_blocks:
        return False
    blocks = list(range(len(draft.mask)))
    block = _pick(blocks[1:-1], rng)
    draft.keep([*blocks[: block + 1], *blocks[block:]])
    draft.mask[block + 1, block] = True
    draft.widths[block - 1] = draft.widths[block] = _nearest(draft.widths[block] / 2, space.widths)
    return True


def _merge_blocks(draft: _Draft, space: Space, rng: Generator) -> bool:
    """One block with the sources and readers of two neighbours in the order, between which no other can stand.

    It has the scale of either.
    """
    if len(draft.widths) < max(2, space.min_blocks + 1):
        return False
    blocks = list(range(len(draft.mask)))
    first = _pick(blocks[1:-2], rng)
    second = first + 1
    draft.mask[first] |= draft.mask[second]
    draft.mask[:, first] |= draft.mask[:, second]
    draft.mask[first, first] = False
    draft.widths[first - 1] = _nearest(draft.widths[first - 1] + draft.widths[second - 1], space.widths)
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
    _stepper("kernel", lambda space: space.kernels),
    _stepper("dilation", lambda space: space.dilations),
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
