"""Regularized evolution (Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search")."""

import math
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from search.graph.mutation import mutate_graph
from search.graph.point import GraphPoint
from search.graph.space import GraphSpace
from search.isomorphism.canonical import canonical
from search.objectives import crowding, fronts
from search.one_of import AnySpace, OneOf
from search.point import AnyPoint, Point
from search.space import Space
from search.strategies.inheritance import Descent
from search.strategies.mutation import NOBODY, Origin, mutant

ATTEMPTS = 20  # draws, or mutations one on top of the other, to get a point that has not been tried
DRAWS = 1000  # to get one that is accepted
POPULATION, TOURNAMENT = 16, 6


def beginning(space: Space, rng: np.random.Generator) -> Point:
    """A point to begin with: drawn uniformly, but of three one is plain, block after block, and one has all shortcuts.

    Examples
    --------
    >>> space = Space(max_blocks=3, min_blocks=3)
    >>> masks = [beginning(space, np.random.default_rng(seed)).mask.sum() for seed in range(60)]
    >>> [masks.count(edges) >= 10 for edges in (4, 10)]
    [True, True]
    """
    point, wiring = space.sample(rng), int(rng.integers(3))
    if wiring == 2:
        return point
    blocks, lags, timeblock = point.blocks, len(point.recurrences), point.timeblock
    masks = np.zeros_like(point.masks)
    edges = [(0, *pair) for pair in space.pairs(blocks)] + space.triples(blocks, lags, timeblock)
    for lag, out, source in edges:
        masks[lag, out, source] = wiring or ((out == source + 1) if lag == 0 else out == source and lag == timeblock)
    return replace(
        point,
        shortcuts=tuple(map(tuple, space.wired(masks[0]).tolist())),
        recurrences=tuple(tuple(map(tuple, mask)) for mask in space.recurring(masks[1:], timeblock).tolist()),
    )


def begun(space: Space | GraphSpace, rng: np.random.Generator) -> AnyPoint:
    """A point to begin with, of a space of any kind."""
    return space.sample(rng) if isinstance(space, GraphSpace) else beginning(space, rng)


def mutated(point: AnyPoint, space: Space | GraphSpace, rng: np.random.Generator) -> tuple[AnyPoint, Origin]:
    """One random mutation of a point, in a space of its kind, and where its channels come from, if it has blocks."""
    if isinstance(space, GraphSpace):
        assert isinstance(point, GraphPoint)  # all points of the space are
        return mutate_graph(point, space, rng), NOBODY
    assert isinstance(point, Point)
    return mutant(point, space, rng)


def accepted(draw: Callable[[], AnyPoint], accepts: Callable[[AnyPoint], bool]) -> AnyPoint:
    """What is drawn, again until it is accepted; the last if none is."""
    return next((point for point in (draw() for _ in range(DRAWS)) if accepts(point)), None) or draw()


class Evolution:
    """Proposes a mutation of the best of a random tournament among the youngest completed trials.

    Where the space has several kinds of machines, each evolves by itself, and a proposal is of any kind as likely as of
    the others: kinds learn at different speeds, and what is the best of one is known when all is done.

    A proposal depends on the seed, the trial's number and the earlier trials alone, so that a search goes on after a
    restart as it would have gone on without. It costs the same after many trials as after few.

    Parameters
    ----------
    space : where the points are from.
    seed : 0 or more.
    population : how many of the last completed trials, of each kind, can be parents: older ones have died. Until there
        are so many, points are drawn by ``beginning``, again where one has been tried.
    tournament : how many of these, drawn at random, compete to be the parent. With several objectives those of the
        better front win, and of one front the lonelier.
    accepts : whether a point is worth a trial: another is drawn, or mutated further, where not.

    Raises
    ------
    ValueError : not ``1 <= tournament <= population``.

    Examples
    --------
    >>> evolution = Evolution(Space(max_blocks=2), seed=0, population=2, tournament=2)
    >>> for number in range(2):
    ...     evolution.take(number, evolution.propose(number).point)
    ...     evolution.tell(number, [float(number)])
    >>> evolution.propose(2).parent
    0
    """

    def __init__(
        self,
        space: AnySpace,
        *,
        seed: int,
        population: int = POPULATION,
        tournament: int = TOURNAMENT,
        accepts: Callable[[AnyPoint], bool] = lambda point: True,
    ) -> None:
        """See the class."""
        if not 1 <= tournament <= population:
            raise ValueError(
                f"got tournament={tournament}, population={population}: 1 <= tournament <= population must hold"
            )
        self._space, self._seed, self._population, self._tournament = space, seed, population, tournament
        self._accepts = accepts
        self._points: dict[int, AnyPoint] = {}
        self._first: dict[AnyPoint, int] = {}  # trial of each canonical form
        self._told: dict[str, list[tuple[int, tuple[float, ...]]]] = {}  # of each kind, by number

    def propose(self, number: int) -> Descent:
        """What the trial of this number is to try."""
        rng = np.random.default_rng((self._seed, number))
        spaces = self._space.spaces if isinstance(self._space, OneOf) else (self._space,)
        space = spaces[int(rng.integers(len(spaces)))]
        alive = self._alive(space.kind, before=number)

        def is_new(point: AnyPoint) -> bool:
            return self._first.get(canonical(point), number) >= number

        if len(alive) < self._population:

            def drawn() -> AnyPoint:
                return accepted(lambda: begun(space, rng), self._accepts)

            return self._new(Descent(drawn()), lambda _: Descent(drawn()), is_new)
        ranked = _ranked(np.array([values for _, values in alive]))
        parent = min(rng.choice(self._population, size=self._tournament, replace=False), key=ranked.index)

        def child_of(before: Descent) -> Descent:
            return before.then(*mutated(before.point, space, rng))

        number_of_parent = alive[parent][0]
        first = child_of(Descent.unchanged(self._points[number_of_parent], number_of_parent))
        return self._new(first, child_of, is_new)

    def take(self, number: int, point: AnyPoint) -> None:
        """A trial tries a point, whoever proposed it."""
        self._points[number], form = point, canonical(point)
        self._first[form] = min(number, self._first.get(form, number))

    def tell(self, number: int, values: Sequence[float]) -> None:
        """A trial is completed; each value is to be small. One that is not finite makes it no parent."""
        if all(map(math.isfinite, values)):
            insort(self._told.setdefault(self._points[number].kind, []), (number, tuple(values)))

    def living(self) -> list[int]:
        """The numbers of the trials that may be parents, of any kind."""
        return sorted(number for kind in self._told for number, _ in self._alive(kind))

    def _alive(self, kind: str, before: float = math.inf) -> list[tuple[int, tuple[float, ...]]]:
        """Of the trials of one kind, by number."""
        told = self._told.get(kind, [])
        end = len(told)
        while end and told[end - 1][0] >= before:
            end -= 1
        return told[max(0, end - self._population) : end]

    def _new(self, child: Descent, change: Callable[[Descent], Descent], is_new: Callable[[AnyPoint], bool]) -> Descent:
        """The child, changed until it has not been tried, or for so many times."""
        for _ in range(ATTEMPTS - 1):
            if is_new(child.point) and self._accepts(child.point):
                break
            child = change(child)
        return child


def _ranked(values: NDArray[np.float64]) -> list[int]:
    """Rows from the best to the worst: by front and loneliness in it; of one value by this; earlier rows first."""
    places = fronts(values)
    alone = np.empty(len(values))
    for front in set(places.tolist()):
        alone[places == front] = crowding(values[places == front])
    return sorted(range(len(values)), key=lambda i: (places[i], -alone[i] if values.shape[1] > 1 else 0, i))
