"""The stored study of a run: whole finished trials in Optuna's format, one commit each, and one writer.

The sampler works on a study in memory. A trial reaches the database when it is finished, never before, so that whatever
interrupts a search no trial there is running or half there. It is written as one attribute: each parameter would be a
few queries more.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from search.database import NAME, Place, new_place, place_of
from search.one_of import AnySpace
from search.run import RUN, STUDY, Record, read_settings, replace_text, resuming

TRIAL = "machgraph"  # the attribute of a trial that holds all of it
SETTINGS = "run"  # the attribute of a study that holds the settings, where they have to be found without the folder
PATIENCE = 600.0  # seconds that a database which has gone is waited for
PAUSE = 2.0  # between two tries


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
            raise ValueError(
                "the run was begun by another version of machgraph, which stored its trials otherwise: go on with that "
                "version, or start a new search"
            )
        return {name: choices[i] for (name, choices), i in zip(parameters.items(), self.code, strict=True)}


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
def _told(what: str, then: Callable[[], str] = str) -> Iterator[None]:
    """What goes wrong in the database, in one sentence."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        said = " ".join(str(getattr(cause, "orig", cause)).split())
        raise OSError(f"can't {what}: {said}{then()}") from None


class Store:
    """The study of a run, which is made when it is missing; leaving its context closes it.

    Parameters
    ----------
    folder : of the run.
    objectives : number of values of a trial, where the study is made.
    place : where it is; that of the run in the folder if not given.

    Raises
    ------
    OSError : the database can't be read or written.
    ValueError : nobody says where it is.
    """

    def __init__(self, folder: Path, objectives: int = 1, place: Place | None = None) -> None:
        self._folder, self._objectives = folder, objectives
        self._place = place_of(folder) if place is None else place
        self._writer: Connection | None = None
        with _told(f"open {self._place.shown}", self._mending):
            self._open()

    def _mending(self) -> str:
        return ": put a copy back, or delete it to begin the same search anew" if self._place.is_file else ""

    def _going_on(self) -> str:
        return f"; all trials before are kept: put it right, and go on with: {resuming(self._folder)}"

    def _open(self) -> None:
        self._storage = optuna.storages.RDBStorage(
            self._place.url.render_as_string(hide_password=False),
            engine_kwargs={} if self._place.is_file else {"pool_pre_ping": True},
        )
        try:
            self._study = optuna.load_study(storage=self._storage, study_name=self._place.study)
        except KeyError:
            directions = [StudyDirection.MINIMIZE] * self._objectives
            self._study = optuna.create_study(
                storage=self._storage, study_name=self._place.study, directions=directions
            )
        self._held = len(self._study.get_trials(deepcopy=False))

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        if self._writer is not None:
            self._writer.invalidate()  # with its lock
            self._writer.engine.dispose()
        self._storage.remove_session()
        self._storage.engine.dispose()

    def read(self) -> list[Stored]:
        """All finished trials, by number.

        Raises
        ------
        ValueError : another version of machgraph has stored them.
        """
        with _told(f"read {self._place.shown}"):
            trials = self._study.get_trials(deepcopy=False)
        return [_stored(trial) for trial in trials]

    def append(self, trials: Sequence[Stored], waiting: Callable[[], None] = lambda: None) -> None:
        """Add finished trials; those that are there already are left as they are.

        A database that has gone is waited for; what it has taken meanwhile is not written again.

        Parameters
        ----------
        waiting : called when the database has to be waited for.

        Raises
        ------
        OSError : the disk is full, or the database can't be written; what was added before is there.
        BlockingIOError : another process has taken the run over, while the database was gone.
        """
        with _told(f"write {self._place.shown}", self._going_on):
            if self._place.is_file:
                self._add(trials)
                return
            until, is_gone = time.monotonic() + PATIENCE, False
            while True:
                try:
                    if is_gone:
                        self._reopen()
                    self.hold()
                    self._add(trials)
                    return
                except (StorageInternalError, SQLAlchemyError):
                    if time.monotonic() > until:
                        raise
                    if not is_gone:
                        waiting()
                    is_gone = True
                time.sleep(PAUSE)

    def _add(self, trials: Sequence[Stored]) -> None:
        for one in trials:
            if one.record.number >= self._held:
                self._study.add_trial(_trial(one))
                self._held += 1

    def _reopen(self) -> None:
        """Connect anew, and see what is there."""
        with suppress(StorageInternalError, SQLAlchemyError):  # of a connection that is lost
            self.close()
        self._writer = None
        self._open()

    def hold(self) -> None:
        """Hold a study that is not in a file for this process, as ``only_writer`` holds a folder.

        The lock is the database's, and ends with the connection; one that was lost is taken again.

        Raises
        ------
        BlockingIOError : another process holds it.
        """
        if self._place.is_file:
            return
        if self._writer is not None:
            self._writer.execute(text("SELECT 1"))  # fails if the connection, and the lock with it, was lost
            return
        connection = create_engine(self._place.url, isolation_level="AUTOCOMMIT").connect()
        lock = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
        if not connection.execute(lock, {"name": f"machgraph {self._place.study}"}).scalar():
            connection.close()
            connection.engine.dispose()
            raise BlockingIOError(
                f"the study '{self._place.study}' in {self._place.shown} is being searched by another process: let it "
                "end, or stop it"
            )
        self._writer = connection

    def keep_settings(self) -> None:
        """Where the study is not in a file: beside it ``run.json``, so that the search can go on without the folder."""
        if not self._place.is_file:
            with _told(f"write {self._place.shown}"):
                self._study.set_user_attr(SETTINGS, (self._folder / RUN).read_text(encoding="utf-8"))


def refuse_known(folder: Path) -> None:
    """ValueError: the database that the environment names has a study of the folder's name already."""
    place = new_place(folder)
    if place.is_file:
        return
    with _told(f"open {place.shown}"), quiet():
        storage = optuna.storages.RDBStorage(place.url.render_as_string(hide_password=False))
        try:
            names = optuna.study.get_all_study_names(storage)
        finally:
            storage.remove_session()
            storage.engine.dispose()
    if place.study in names:
        raise ValueError(
            f"the database {place.shown} has a study '{place.study}' already: go on with it by {resuming(folder)}, or "
            "give another folder with --out"
        )


def restore(folder: Path) -> None:
    """Write the ``run.json`` of a run whose folder is not here, if its study is in the database."""
    if (folder / RUN).exists() or (place := new_place(folder)).is_file:
        return
    with _told(f"open {place.shown}"), quiet():
        storage = optuna.storages.RDBStorage(place.url.render_as_string(hide_password=False))
        try:
            content = optuna.load_study(storage=storage, study_name=place.study).user_attrs[SETTINGS]
        except KeyError:  # no such study, or nothing of ours
            return
        finally:
            storage.remove_session()
            storage.engine.dispose()
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / RUN, content)


def load_study(folder: Path) -> optuna.Study:
    """Optuna's study of the run in a folder, in memory, with the parameters of its trials.

    Raises
    ------
    FileNotFoundError : it is not there.
    """
    if place_of(folder).is_file and not (folder / STUDY).is_file():
        raise FileNotFoundError(f"{folder / STUDY} is not there: the folder of the run was moved or removed")
    settings = read_settings(folder)
    with Store(folder) as store:
        stored = store.read()
    with quiet():
        directions = [StudyDirection.MINIMIZE] * len(settings.objectives)
        study = optuna.create_study(study_name=NAME, directions=directions)
    distributions: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(choices) for name, choices in settings.space.parameters.items()
    }
    study.add_trials(
        [
            create_trial(
                state=one.state,
                values=one.values,
                params=one.parameters(settings.space),
                distributions=distributions,
                user_attrs={"record": one.record.to_dict(), "generation": asdict(one.generation)},
            )
            for one in stored
        ]
    )
    return study


def _trial(stored: Stored) -> FrozenTrial:
    """As Optuna stores it."""
    attribute = {
        "record": stored.record.to_dict(),
        "generation": asdict(stored.generation),
        "code": stored.code,
        "attributes": dict(stored.attributes),
    }
    return create_trial(state=stored.state, values=stored.values, user_attrs={TRIAL: attribute})


def _stored(trial: FrozenTrial) -> Stored:
    """What was stored so."""
    if TRIAL not in trial.user_attrs:
        raise ValueError(
            "the run was begun by another version of machgraph, which stored its trials otherwise: read it with that "
            "version, or start a new search"
        )
    found = trial.user_attrs[TRIAL]
    return Stored(
        Record.from_dict(found["record"]),
        Generation(**found["generation"]),
        tuple(found["code"]),
        None if trial.values is None else tuple(trial.values),
        found["attributes"],
        trial.datetime_complete,
    )
