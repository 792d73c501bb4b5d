"""The stored study of a run: whole finished trials in Optuna's SQLite format, one commit each, and one writer.

The sampler works on a study in memory. A trial reaches the file when it is finished, never before, so that whatever
interrupts a search no trial in the file is running or half there. It is written with its code as one attribute: as
parameters, each of which is a few queries, it would take several times as long.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from search.one_of import AnySpace
from search.run import STUDY, Record, read_settings, resuming

NAME = "search"


@dataclass(frozen=True)
class Generation:
    """Trials ``first ... first + size - 1``, trained together; at its end, ``elapsed`` seconds had been searched."""

    first: int
    size: int
    elapsed: float


@dataclass(frozen=True)
class Stored:
    """A finished trial as the file holds it: for Optuna, as a record, and the generation that it belongs to.

    ``code`` has of each parameter of the space the place of its value among its choices.
    """

    trial: FrozenTrial
    record: Record
    generation: Generation
    code: tuple[int, ...]

    def with_parameters(self, space: AnySpace, *, is_running: bool = False) -> FrozenTrial:
        """The trial with its parameters, as a sampler has to see it: finished, or as it was when it was proposed."""
        parameters = space.parameters
        if len(self.code) != len(parameters):
            raise ValueError(
                "the run was begun by another version of machgraph, which stored its trials otherwise: go on with that "
                "version, or start a new search"
            )
        chosen = {name: choices[i] for (name, choices), i in zip(parameters.items(), self.code, strict=True)}
        return create_trial(
            state=TrialState.RUNNING if is_running else self.trial.state,
            values=None if is_running else self.trial.values,
            params=chosen,
            distributions={name: CategoricalDistribution(choices) for name, choices in parameters.items()},
            user_attrs=self.trial.user_attrs,
            system_attrs=self.trial.system_attrs,  # NSGA-II keeps its generations there
        )


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the run in a folder for this process. The lock is the operating system's: it ends with the process.

    Raises
    ------
    BlockingIOError : another process holds it.
    """
    connection = sqlite3.connect(folder / "lock", timeout=0, isolation_level=None)
    try:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise BlockingIOError(
                    f"{folder} is being searched by another process: let it end, or stop it"
                ) from None
            raise OSError(
                f"can't write in {folder} ({error}): make it writable, or choose another with --out"
            ) from None
        yield
    finally:
        connection.close()


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's news of every study that is made."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


@contextmanager
def _told(what: str, then: str = "") -> Iterator[None]:
    """What goes wrong in the database, in one sentence."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        raise OSError(f"can't {what}: {getattr(cause, 'orig', cause)}{then}") from None


class Store:
    """The file ``study.db`` of a run, which is made when it is missing; leaving its context closes it.

    Parameters
    ----------
    folder : of the run.
    objectives : number of values of a trial, where the file is made.

    Raises
    ------
    OSError : the file can't be read or written.
    """

    def __init__(self, folder: Path, objectives: int = 1) -> None:
        self._folder = folder
        url = URL.create("sqlite", database=str(folder / STUDY)).render_as_string(hide_password=False)
        with _told(f"open {folder / STUDY}", ": put a copy back, or delete it to begin the same search anew"):
            self._storage = optuna.storages.RDBStorage(url)
            try:
                self._study = optuna.load_study(storage=self._storage, study_name=NAME)
            except KeyError:
                directions = [StudyDirection.MINIMIZE] * objectives
                self._study = optuna.create_study(storage=self._storage, study_name=NAME, directions=directions)
            self._held = len(self._study.get_trials(deepcopy=False))

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def read(self) -> list[Stored]:
        """All finished trials, by number."""
        with _told(f"read {self._folder / STUDY}"):
            trials = self._study.get_trials(deepcopy=False)
        return [
            Stored(
                trial,
                Record.from_dict(trial.user_attrs["record"]),
                Generation(**trial.user_attrs["generation"]),
                tuple(trial.user_attrs.get("code", ())),
            )
            for trial in trials
        ]

    def append(
        self,
        trials: Sequence[FrozenTrial],
        records: Sequence[Record],
        generation: Generation,
        parameters: Mapping[str, Sequence[Any]],
    ) -> None:
        """Add finished trials; those that the file holds already are left as they are.

        ``parameters`` are the space's, of which each trial has a value.

        Raises
        ------
        OSError : the disk is full, or the file can't be written; what was added before is there.
        """
        then = f"; all trials before are kept: put it right, and go on with: {resuming(self._folder)}"
        with _told(f"write {self._folder / STUDY}", then):
            for trial, record in zip(trials, records, strict=True):
                if record.number >= self._held:
                    self._study.add_trial(finished(trial, record, generation, parameters))
                    self._held += 1


def finished(
    trial: FrozenTrial, record: Record, generation: Generation, parameters: Mapping[str, Sequence[Any]]
) -> FrozenTrial:
    """A trial as the study in memory was told it, with its record, and its code in place of parameters."""
    code = [choices.index(trial.params[name]) for name, choices in parameters.items()]
    attributes: dict[str, Any] = {"record": record.to_dict(), "generation": asdict(generation), "code": code}
    return create_trial(state=trial.state, values=trial.values, user_attrs=attributes, system_attrs=trial.system_attrs)


def load_study(folder: Path) -> optuna.Study:
    """Optuna's study of the run in a folder, in memory, with the parameters of its trials.

    Raises
    ------
    FileNotFoundError : it is not there.
    """
    if not (folder / STUDY).is_file():
        raise FileNotFoundError(f"{folder / STUDY} is not there: the folder of the run was moved or removed")
    settings = read_settings(folder)
    with Store(folder) as store:
        stored = store.read()
    with quiet():
        directions = [StudyDirection.MINIMIZE] * len(settings.objectives)
        study = optuna.create_study(study_name=NAME, directions=directions)
    study.add_trials([one.with_parameters(settings.space) for one in stored])
    return study
