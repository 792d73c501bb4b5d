"""Regularized evolution (Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search")."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.canonical import canonical
from search.graph.mutation import mutate_graph
from search.graph.point import GraphPoint
from search.graph.space import GraphSpace
from search.inheritance import PARENT, Descent
from search.mutation import NOBODY, Origin, mutant
from search.objectives import crowding, fronts
from search.one_of import AnySpace, OneOf
from search.point import AnyPoint, Point
from search.space import Choice, Space

ATTEMPTS = 20  # draws, or mutations one on top of the other, to get a point that the study has not seen
DRAWS = 1000  # to get one that is accepted


def distributions(space: AnySpace) -> dict[str, BaseDistribution]:
    """The code of the space for Optuna, which itself fills in a parameter of one choice.

    All are categorical: on yes-or-no parameters TPE does better so than with whole numbers 0 and 1.
    """
    return {name: CategoricalDistribution(choices) for name, choices in space.parameters.items() if len(choices) > 1}


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


class RegularizedEvolution(BaseSampler):
    """Proposes a mutation of the best of a random tournament among the youngest completed trials.

    Where the space has several kinds of machines, each evolves by itself, and a proposal is of any kind as likely as of
    the others: kinds learn at different speeds, and what is the best of one is known when all is done.

    A proposal depends on the seed, the trial's number and the earlier trials alone, so that a search goes on after a
    restart as it would have gone on without. Trials that failed, were pruned or have no finite value are no parents.
    The trial of a child names its parent, under ``PARENT``: ``Descent.to_dict``.

    Parameters
    ----------
    space : where the points are from; the parameters of every trial are its code.
    seed : 0 or more.
    population : how many of the last completed trials, of each kind, can be parents: older ones have died. Until there
        are so many, points are drawn by ``beginning``, again where the study has seen one.
    tournament : how many of these, drawn at random, compete to be the parent. With several objectives those of the
        better front win, and of one front the lonelier.
    accepts : whether a point is worth a trial: another is drawn, or mutated further, where not.

    Raises
    ------
    ValueError : not ``1 <= tournament <= population``.
    """

    def __init__(
        self,
        space: AnySpace,
        *,
        seed: int,
        population: int = 16,
        tournament: int = 6,
        accepts: Callable[[AnyPoint], bool] = lambda point: True,
    ) -> None:
        """See the class."""
        if not 1 <= tournament <= population:
            raise ValueError(
                f"got tournament={tournament}, population={population}: 1 <= tournament <= population must hold"
            )
        self._space, self._seed, self._population, self._tournament = space, seed, population, tournament
        self._accepts = accepts

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole code, whatever the trials so far."""
        return distributions(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The code of the child."""
        rng = np.random.default_rng((self._seed, trial.number))
        names = self._space.parameters.keys()
        spaces = self._space.spaces if isinstance(self._space, OneOf) else (self._space,)
        space = spaces[int(rng.integers(len(spaces)))]
        earlier = [t for t in study.get_trials(deepcopy=False) if t.number < trial.number and names <= t.params.keys()]
        earlier = [t for t in earlier if self._point(t).kind == space.kind]
        seen = {canonical(self._point(t)) for t in earlier}
        alive = self._alive(earlier)
        if len(alive) < self._population:

            def drawn() -> AnyPoint:
                return accepted(lambda: begun(space, rng), self._accepts)

            child = self._new(Descent(drawn()), lambda _: Descent(drawn()), seen).point
        else:
            ranked = _ranked(np.array([trial.values for trial in alive]) * _signs(study))
            parent = alive[min(rng.choice(self._population, size=self._tournament, replace=False), key=ranked.index)]

            def child_of(before: Descent) -> Descent:
                return before.then(*mutated(before.point, space, rng))

            first = child_of(Descent.unchanged(self._point(parent), parent.number))
            descent = self._new(first, child_of, seen)
            study._storage.set_trial_system_attr(trial._trial_id, PARENT, descent.to_dict())
            child = descent.point
        return {name: value for name, value in self._space.encode(child).items() if name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never needed: a parameter that is not in the code is an error."""
        raise ValueError(f"got parameter {param_name!r}: the space has {', '.join(self._space.parameters)}")

    def living(self, study: Study) -> list[int]:
        """The numbers of the trials that may be parents, of any kind, as the study stands."""
        names, kinds = self._space.parameters.keys(), dict[str, list[FrozenTrial]]()
        for trial in study.get_trials(deepcopy=False):
            if names <= trial.params.keys():
                kinds.setdefault(self._point(trial).kind, []).append(trial)
        return sorted(trial.number for trials in kinds.values() for trial in self._alive(trials))

    def _alive(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Of the trials of one kind."""
        finite = [t for t in trials if t.state == TrialState.COMPLETE and all(map(math.isfinite, t.values))]
        return finite[-self._population :]

    def _new(self, child: Descent, change: Callable[[Descent], Descent], seen: set[AnyPoint]) -> Descent:
        """The child, changed until the study has not seen it, or for so many times."""
        for _ in range(ATTEMPTS - 1):
            if canonical(child.point) not in seen and self._accepts(child.point):
                break
            child = change(child)
        return child

    def _point(self, trial: FrozenTrial) -> AnyPoint:
        return _decode(self._space, tuple(trial.params[name] for name in self._space.parameters))


def _signs(study: Study) -> NDArray[np.int64]:
    return np.array([1 if direction == StudyDirection.MINIMIZE else -1 for direction in study.directions])


def _ranked(values: NDArray[np.float64]) -> list[int]:
    """Rows from the best to the worst: by front and loneliness in it; of one value by this; earlier rows first."""
    places = fronts(values)
    alone = np.empty(len(values))
    for front in set(places.tolist()):
        alone[places == front] = crowding(values[places == front])
    return sorted(range(len(values)), key=lambda i: (places[i], -alone[i] if values.shape[1] > 1 else 0, i))


@lru_cache(maxsize=1 << 16)
def _decode(space: AnySpace, values: tuple[Choice, ...]) -> AnyPoint:
    """One trial is looked at again by every later proposal."""
    return space.decode(dict(zip(space.parameters, values, strict=True)))
