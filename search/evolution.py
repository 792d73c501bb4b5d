"""Regularized evolution (Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search")."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from search.space import Space

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
        self._known = _Known(space, "")

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole code, whatever the trials so far."""
        return distributions(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The code of the child."""
        rng = np.random.default_rng((self._seed, trial.number))
        spaces = self._space.spaces if isinstance(self._space, OneOf) else (self._space,)
        space = spaces[int(rng.integers(len(spaces)))]
        earlier = study.get_trials(deepcopy=False)[: trial.number]
        known = self._points_of(study, earlier)
        alive = self._alive(earlier, space.kind, known)

        def is_new(point: AnyPoint) -> bool:
            return known.first.get(canonical(point), trial.number) >= trial.number

        if len(alive) < self._population:

            def drawn() -> AnyPoint:
                return accepted(lambda: begun(space, rng), self._accepts)

            child = self._new(Descent(drawn()), lambda _: Descent(drawn()), is_new).point
        else:
            ranked = _ranked(np.array([trial.values for trial in alive]) * _signs(study))
            parent = alive[min(rng.choice(self._population, size=self._tournament, replace=False), key=ranked.index)]

            def child_of(before: Descent) -> Descent:
                return before.then(*mutated(before.point, space, rng))

            first = child_of(Descent.unchanged(known.points[parent.number], parent.number))
            descent = self._new(first, child_of, is_new)
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
        trials = study.get_trials(deepcopy=False)
        known = self._points_of(study, trials)
        spaces = self._space.spaces if isinstance(self._space, OneOf) else (self._space,)
        return sorted(trial.number for space in spaces for trial in self._alive(trials, space.kind, known))

    def _points_of(self, study: Study, trials: Sequence[FrozenTrial]) -> "_Known":
        if self._known.study != study.study_name:
            self._known = _Known(self._space, study.study_name)
        self._known.look_at(trials)
        return self._known

    def _alive(self, trials: Sequence[FrozenTrial], kind: str, known: "_Known") -> list[FrozenTrial]:
        """Of the trials of one kind, by number."""
        found: list[FrozenTrial] = []
        for trial in reversed(trials):
            if len(found) == self._population:
                break
            point = known.points.get(trial.number)
            if point is None or point.kind != kind or trial.state != TrialState.COMPLETE:
                continue
            if all(map(math.isfinite, trial.values)):
                found.append(trial)
        return found[::-1]

    def _new(self, child: Descent, change: Callable[[Descent], Descent], is_new: Callable[[AnyPoint], bool]) -> Descent:
        """The child, changed until the study has not seen it, or for so many times."""
        for _ in range(ATTEMPTS - 1):
            if is_new(child.point) and self._accepts(child.point):
                break
            child = change(child)
        return child


class _Known:
    """The points of a study's trials, each looked at once: a study that grows costs no more a trial for that.

    Attributes
    ----------
    points : by the number of the trial, of those that have the whole code.
    first : the first trial of each canonical form.
    """

    def __init__(self, space: AnySpace, study: str) -> None:
        self.study = study
        self.points: dict[int, AnyPoint] = {}
        self.first: dict[AnyPoint, int] = {}
        self._space, self._names = space, tuple(space.parameters)
        self._met, self._incomplete = 0, list[int]()

    def look_at(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in what is new among the trials, which are in the order of their numbers."""
        waiting = [*(n for n in self._incomplete if n < len(trials)), *range(self._met, len(trials))]
        later = [n for n in self._incomplete if n >= len(trials)]
        self._met, self._incomplete = max(self._met, len(trials)), later
        for number in waiting:
            params = trials[number].params
            if not all(name in params for name in self._names):
                self._incomplete.append(number)
                continue
            point = self._space.decode({name: params[name] for name in self._names})
            self.points[number] = point
            form = canonical(point)
            self.first[form] = min(number, self.first.get(form, number))


def _signs(study: Study) -> NDArray[np.int64]:
    return np.array([1 if direction == StudyDirection.MINIMIZE else -1 for direction in study.directions])


def _ranked(values: NDArray[np.float64]) -> list[int]:
    """Rows from the best to the worst: by front and loneliness in it; of one value by this; earlier rows first."""
    places = fronts(values)
    alone = np.empty(len(values))
    for front in set(places.tolist()):
        alone[places == front] = crowding(values[places == front])
    return sorted(range(len(values)), key=lambda i: (places[i], -alone[i] if values.shape[1] > 1 else 0, i))
