"""Small random changes of a point, natural for partitions and shortcuts, that stay in its space."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.random import Generator

from machgraph.partition import Mask
from search.point import Point, hyperparameters
from search.space import Space

T = TypeVar("T")


def mutate(point: Point, space: Space, rng: Generator) -> Point:
    """One random mutation, of a kind drawn uniformly from those that this point and space allow.

    The kinds: add or drop a shortcut, move one, widen or narrow a block, change an activation, step the learning rate,
    add a block, remove one, split one in two, merge two. In a space of one point the point itself comes back.

    Examples
    --------
    >>> space = Space(max_blocks=0, learning_rates=(1e-3, 1e-2))
    >>> linear = Point((), (), ((False, False), (True, False)), learning_rate=1e-3)
    >>> mutate(linear, space, np.random.default_rng(0)).learning_rate
    0.01
    """
    for kind in rng.permutation(len(_MUTATIONS)):
        draft = _Draft(list(point.widths), list(point.activations), point.mask, hyperparameters(point))
        if _MUTATIONS[kind](draft, space, rng):
            return Point(
                tuple(draft.widths),
                tuple(draft.activations),
                tuple(map(tuple, draft.mask.tolist())),
                **draft.hyperparameters,
            )
    return point


@dataclass
class _Draft:
    """A point that may be changed."""

    widths: list[int]
    activations: list[str]
    mask: Mask
    hyperparameters: dict[str, Any]

    def keep(self, blocks: Sequence[int]) -> None:
        """Have these blocks, from the input to the output, with the shortcuts between them; one may come twice."""
        self.mask = self.mask[np.ix_(blocks, blocks)]
        self.widths = [self.widths[block - 1] for block in blocks[1:-1]]
        self.activations = [self.activations[block - 1] for block in blocks[1:-1]]


# Each mutation changes the draft, or returns False where there is nothing to change.


def _toggle_shortcut(draft: _Draft, space: Space, rng: Generator) -> bool:
    out, source = _pick(np.argwhere(np.tri(len(draft.mask), k=-1, dtype=bool)), rng)
    draft.mask[out, source] ^= True
    return True


def _move_shortcut(draft: _Draft, space: Space, rng: Generator) -> bool:
    present = np.argwhere(draft.mask)
    absent = np.argwhere(~draft.mask & np.tri(len(draft.mask), k=-1, dtype=bool))
    if not (len(present) and len(absent)):
        return False
    draft.mask[tuple(_pick(present, rng))] = False
    draft.mask[tuple(_pick(absent, rng))] = True
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


def _step_learning_rate(draft: _Draft, space: Space, rng: Generator) -> bool:
    if len(space.learning_rates) == 1:
        return False
    draft.hyperparameters["learning_rate"] = _step(draft.hyperparameters["learning_rate"], space.learning_rates, rng)
    return True


def _add_block(draft: _Draft, space: Space, rng: Generator) -> bool:
    """A new block beside a shortcut, which stays; beside the way from input to output where there is none."""
    if len(draft.widths) == space.max_blocks:
        return False
    edges = np.argwhere(draft.mask)
    out, source = _pick(edges, rng) if len(edges) else (len(draft.mask) - 1, 0)
    new = int(rng.integers(source + 1, out + 1))
    draft.mask = np.insert(np.insert(draft.mask, new, False, axis=0), new, False, axis=1)
    draft.mask[new, source] = draft.mask[out + 1, new] = True
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
    """One block with the sources and readers of two neighbours in the order, between which no other can stand."""
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
    blocks.remove(second)
    draft.keep(blocks)
    return True


_MUTATIONS: tuple[Callable[[_Draft, Space, Generator], bool], ...] = (
    _toggle_shortcut,
    _move_shortcut,
    _resize_block,
    _change_activation,
    _step_learning_rate,
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
