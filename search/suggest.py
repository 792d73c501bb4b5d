"""From a trial to a point of the space, and the strategies that choose it."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from search.one_of import AnySpace
from search.point import AnyPoint
from search.record import EVOLVING
from search.strategies.evolution import POPULATION, TOURNAMENT, Evolution, accepted
from search.strategies.inheritance import PARENT

STRATEGIES = ("random", "tpe", "nsga2", "evolution")
DIFFERENTIABLE = "differentiable"  # of what is trained, not of earlier trials: it begins a search on data


def suggest(trial: Trial, space: AnySpace) -> AnyPoint:
    """The point of a trial: the same parameters for every trial, those of unused blocks too.

    A space of varying size would make Optuna's TPE fall back, silently, to one parameter at a time.
    """
    code: dict[str, Any] = {name: trial.suggest_categorical(name, c) for name, c in space.parameters.items()}
    return space.decode(code)


def distributions(space: AnySpace) -> dict[str, BaseDistribution]:
    """The code of the space for Optuna, which itself fills in a parameter of one choice.

    All are categorical: on yes-or-no parameters TPE does better so than with whole numbers 0 and 1.
    """
    return {name: CategoricalDistribution(choices) for name, choices in space.parameters.items() if len(choices) > 1}


def sampler(
    strategy: str, *, seed: int, space: AnySpace, accepts: Callable[[AnyPoint], bool] = lambda point: True
) -> BaseSampler:
    """The sampler of a strategy. Asked for the same trial of the same study it answers the same, restarted or not.

    Parameters
    ----------
    strategy : ``"random"`` (uniform over the points of the space), ``"tpe"`` (multivariate, running trials counted as
        bad), ``"nsga2"`` (16 a generation), ``"evolution"`` (``RegularizedEvolution``), or ``"differentiable"``, which
        is evolution too, after a first generation that ``search.strategies.differentiable`` proposes.
    seed : 0 or more.
    space : the space that every trial's ``suggest`` will be given.
    accepts : whether a point is worth a trial. Others are drawn again, or mutated further, as long as there is hope;
        what TPE and NSGA-II make of earlier trials is proposed as it is.

    Raises
    ------
    ValueError : another strategy, or a negative seed.

    Examples
    --------
    >>> from search.space import Space
    >>> sampler("evolve", seed=0, space=Space())
    Traceback (most recent call last):
    ValueError: got strategy 'evolve', did you mean 'evolution'? The strategies are random, tpe, nsga2, evolution, ...
    """
    if seed < 0:
        raise ValueError(f"got seed={seed}: it must be 0 or more")
    if strategy in EVOLVING:
        return RegularizedEvolution(space, seed=seed, accepts=accepts)
    if strategy in _OPTUNA:
        return _Restartable(_OPTUNA[strategy], seed=seed, space=space, accepts=accepts)
    names = (*STRATEGIES, DIFFERENTIABLE)
    near = get_close_matches(strategy, names, n=1, cutoff=0)
    raise ValueError(f"got strategy {strategy!r}, did you mean {near[0]!r}? The strategies are {', '.join(names)}")


class RegularizedEvolution(BaseSampler):
    """The strategy ``search.strategies.evolution`` for a study of Optuna's, whose trials have the space's code.

    Trials that failed, were pruned or have no finite value are no parents. The trial of a child names its parent, under
    ``PARENT``: ``Descent.to_dict``.

    Parameters
    ----------
    space, seed, population, tournament, accepts : as of ``Evolution``.

    Raises
    ------
    ValueError : not ``1 <= tournament <= population``.
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
        self._begin = partial(
            Evolution, space, seed=seed, population=population, tournament=tournament, accepts=accepts
        )
        self._space, self._study, self._evolution = space, "", self._begin()
        self._met, self._open = 0, list[int]()  # trials that were seen, and those of them that were not at their end

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole code, whatever the trials so far."""
        return distributions(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The code of the child."""
        self._look_at(study)
        descent = self._evolution.propose(trial.number)
        if descent.parent is not None:
            study._storage.set_trial_system_attr(trial._trial_id, PARENT, descent.to_dict())
        return {name: value for name, value in self._space.encode(descent.point).items() if name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never needed: a parameter that is not in the code is an error."""
        raise ValueError(f"got parameter {param_name!r}: the space has {', '.join(self._space.parameters)}")

    def _look_at(self, study: Study) -> None:
        """Take in what is new in the study, each trial once while it runs and once at its end."""
        if self._study != study.study_name:
            self._study, self._evolution, self._met, self._open = study.study_name, self._begin(), 0, []
        signs = [1 if direction == StudyDirection.MINIMIZE else -1 for direction in study.directions]
        trials, names = study.get_trials(deepcopy=False), tuple(self._space.parameters)
        looked_at, self._open = [*self._open, *range(self._met, len(trials))], []
        self._met = len(trials)
        for trial in (trials[number] for number in looked_at):
            if all(name in trial.params for name in names):
                self._evolution.take(trial.number, self._space.decode({name: trial.params[name] for name in names}))
            elif not trial.state.is_finished():
                self._open.append(trial.number)
                continue
            if trial.state == TrialState.COMPLETE:
                self._evolution.tell(trial.number, [v * sign for v, sign in zip(trial.values, signs, strict=True)])
            elif not trial.state.is_finished():
                self._open.append(trial.number)


class _Restartable(BaseSampler):
    """A sampler of Optuna's, made anew for each trial from (seed, number of the trial).

    Optuna's own keep a stream of random numbers, which a restart begins again from the start. With no state but the
    study there is nothing to lose. The space is told, not inferred from the trials so far, so that TPE never samples
    one parameter at a time.
    """

    def __init__(
        self, build: Callable[..., BaseSampler], *, seed: int, space: AnySpace, accepts: Callable[[AnyPoint], bool]
    ) -> None:
        self._build, self._seed, self._space, self._accepts = build, seed, space, accepts

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return distributions(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        seeds = np.random.SeedSequence((self._seed, trial.number))
        chosen = self._build(seed=int(seeds.generate_state(1)[0])).sample_relative(study, trial, search_space)
        rng = np.random.default_rng(seeds)
        # Optuna's samplers choose nothing until they know enough, and NSGA-II leaves out what mutates.
        rest = (
            self._space.draw(rng)
            if chosen
            else self._space.encode(accepted(lambda: self._space.sample(rng), self._accepts))
        )
        return {name: chosen.get(name, rest[name]) for name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"got parameter {param_name!r}: the space has {', '.join(self._space.parameters)}")


class _NSGAII(NSGAIISampler):
    """NSGA-II with parents in the order of their numbers: Optuna's are so once stored, but not when first chosen."""

    def select_parent(self, study: Study, generation: int) -> list[FrozenTrial]:
        return sorted(super().select_parent(study, generation), key=lambda trial: trial.number)


_OPTUNA: Mapping[str, Callable[..., BaseSampler]] = MappingProxyType(
    {
        "random": RandomSampler,
        "tpe": partial(TPESampler, multivariate=True, constant_liar=True),
        "nsga2": partial(_NSGAII, population_size=16),
    }
)
