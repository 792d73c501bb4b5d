"""A finished trial as the study of a run holds it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.one_of import AnySpace
from search.record import Record

TRIAL = "machgraph"  # the attribute of a trial that holds all of it
OTHERWISE = (
    "the run was begun by another version of machgraph, which stored its trials otherwise: go on with that version, or "
    "start a new search"
)


@dataclass(frozen=True)
class Generation:
    """Trials ``first ... first + size - 1``, trained together; at its end, ``elapsed`` seconds had been searched."""

    first: int
    size: int
    elapsed: float


@dataclass(frozen=True)
class Stored:
    """A finished trial as the database holds it.

    Parameters
    ----------
    record, generation : what was found, and which trials it was trained with.
    code : of each parameter of the space the place of its value among its choices.
    values : what the strategy was told, each to be small; ``None``: that it came to nothing.
    attributes : of the strategy.
    finished : when.
    """

    record: Record
    generation: Generation
    code: tuple[int, ...]
    values: tuple[float, ...] | None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    finished: datetime | None = None

    @property
    def state(self) -> TrialState:
        """As Optuna calls it."""
        return TrialState.FAIL if self.values is None else TrialState.COMPLETE

    def parameters(self, space: AnySpace) -> dict[str, Any]:
        """The value of each parameter of the space."""
        parameters = space.parameters
        if len(self.code) != len(parameters):
            raise ValueError(OTHERWISE)
        return {name: choices[i] for (name, choices), i in zip(parameters.items(), self.code, strict=True)}


def attribute_of(stored: Stored) -> dict[str, Any]:
    """All of a trial but what Optuna has a column for."""
    return {
        "record": stored.record.to_dict(),
        "generation": asdict(stored.generation),
        "code": stored.code,
        "attributes": dict(stored.attributes),
    }


def stored_of(trial: FrozenTrial) -> Stored:
    """A trial that Optuna has read; ValueError: another version has stored it."""
    if TRIAL not in trial.user_attrs:
        raise ValueError(OTHERWISE)
    found = trial.user_attrs[TRIAL]
    return Stored(
        Record.from_dict(found["record"]),
        Generation(**found["generation"]),
        tuple(found["code"]),
        None if trial.values is None else tuple(trial.values),
        found["attributes"],
        trial.datetime_complete,
    )
