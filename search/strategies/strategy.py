"""How a search chooses what to try next: told of each trial in the order of their numbers, asked for the next."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from search.one_of import AnySpace
from search.point import AnyPoint
from search.record import EVOLVING
from search.strategies.evolution import Evolution, accepted
from search.strategies.inheritance import PARENT
from search.suggest import sampler, suggest

Accepts = Callable[[AnyPoint], bool]


@dataclass(frozen=True)
class Proposal:
    """What a trial tries.

    Parameters
    ----------
    point : of the space.
    code : of each parameter of the space the value that was chosen, those of unused blocks too.
    attributes : what the strategy wants to be told again when the search goes on, of values that JSON can hold.
    """

    point: AnyPoint
    code: Mapping[str, Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Strategy(Protocol):
    """What it proposes depends on its settings, the number of the trial, and what it was told of those before."""

    def propose(self, number: int) -> Proposal:
        """What the trial of this number tries; its values are told later."""

    def take(self, number: int, proposal: Proposal) -> None:
        """A trial tries what others have proposed, or what was proposed before the search was cut off."""

    def tell(self, number: int, values: Sequence[float] | None) -> None:
        """What became of a trial, each value to be small; ``None``: nothing."""

    def living(self) -> list[int]:
        """The trials that proposals may be children of."""


def strategy(name: str, *, seed: int, space: AnySpace, objectives: int = 1, accepts: Accepts) -> Strategy:
    """The strategy of a name, as ``search.suggest.sampler`` has them.

    Raises
    ------
    ValueError : another name, or a negative seed.
    """
    made = sampler(name, seed=seed, space=space, accepts=accepts)  # refuses what it does not know
    if name in EVOLVING:
        return _Evolving(space, seed, accepts)
    if name == "random":
        return _Random(space, seed, accepts)
    return _OfOptuna(made, space, objectives)


class _Evolving:
    def __init__(self, space: AnySpace, seed: int, accepts: Accepts) -> None:
        self._space, self._evolution = space, Evolution(space, seed=seed, accepts=accepts)

    def propose(self, number: int) -> Proposal:
        descent = self._evolution.propose(number)
        self._evolution.take(number, descent.point)
        attributes = {} if descent.parent is None else {PARENT: descent.to_dict()}
        return Proposal(descent.point, self._space.encode(descent.point), attributes)

    def take(self, number: int, proposal: Proposal) -> None:
        self._evolution.take(number, proposal.point)

    def tell(self, number: int, values: Sequence[float] | None) -> None:
        if values is not None:
            self._evolution.tell(number, values)

    def living(self) -> list[int]:
        return self._evolution.living()


class _Random:
    def __init__(self, space: AnySpace, seed: int, accepts: Accepts) -> None:
        self._space, self._seed, self._accepts = space, seed, accepts

    def propose(self, number: int) -> Proposal:
        rng = np.random.default_rng((self._seed, number))
        point = accepted(lambda: self._space.sample(rng), self._accepts)
        return Proposal(point, self._space.encode(point))

    def take(self, number: int, proposal: Proposal) -> None:
        """No trial matters to another."""

    def tell(self, number: int, values: Sequence[float] | None) -> None:
        """No trial matters to another."""

    def living(self) -> list[int]:
        return []


class _OfOptuna:
    """A sampler, and a study in memory, which is all that it sees."""

    def __init__(self, sampler: BaseSampler, space: AnySpace, objectives: int) -> None:
        self._space = space
        self._distributions = {name: CategoricalDistribution(choices) for name, choices in space.parameters.items()}
        self._study = optuna.create_study(sampler=sampler, directions=["minimize"] * objectives)

    def propose(self, number: int) -> Proposal:
        trial = self._study.ask()
        point = suggest(trial, self._space)
        known = self._study.get_trials(deepcopy=False)[trial.number]
        return Proposal(point, known.params, known.system_attrs)

    def take(self, number: int, proposal: Proposal) -> None:
        self._study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=dict(proposal.code),
                distributions=dict(self._distributions),
                system_attrs=dict(proposal.attributes),
            )
        )

    def tell(self, number: int, values: Sequence[float] | None) -> None:
        state = TrialState.FAIL if values is None else TrialState.COMPLETE
        self._study.tell(number, None if values is None else list(values), state=state)

    def living(self) -> list[int]:
        return []
