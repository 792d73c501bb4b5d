"""The stored study of a run: whole finished generations in Optuna's format, one commit each, and one writer.

A generation reaches the database when it is finished, never before, so that whatever interrupts a search no trial there
is running, and no generation half there. Optuna makes the tables and reads them; it would write each trial by some ten
queries and a commit, which costs more than training a small network takes, so that rows are inserted here. All of a
trial is one attribute: each parameter would be a row more.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from optuna.trial import create_trial
from sqlalchemy import Connection, MetaData, insert, select, text
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from search.run import RUN, STUDY, read_settings, refuse_used, replace_text, resuming
from search.storage.connection import held, storage_of
from search.storage.database import NAME, Place, new_place, place_of
from search.storage.stored_trial import OTHERWISE, TRIAL, Stored, attribute_of, stored_of

TABLES = ("studies", "trials", "trial_values", "trial_user_attributes")  # of Optuna's, that a trial has rows in
SETTINGS = "run"  # the attribute of a study that holds the settings, where they have to be found without the folder
PATIENCE = 600.0  # seconds that a database which has gone is waited for
PAUSE = 2.0  # between two tries


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


def _is_gone(error: Exception) -> bool:
    """Whether it is the way to the database that failed, and not what was asked of it."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return isinstance(cause, OperationalError | InterfaceError)


class Store:
    """The study of a run; leaving its context closes it.

    Parameters
    ----------
    folder : of the run.
    objectives : number of values of a trial, where the study is made if it is missing; ``None``: it must be there.
    place : where it is; that of the run in the folder if not given.

    Raises
    ------
    OSError : the database can't be read or written.
    FileNotFoundError : the study is not there.
    ValueError : nobody says where it is, or its tables are of a version of Optuna that this one can't use.
    """

    def __init__(self, folder: Path, objectives: int | None = None, place: Place | None = None) -> None:
        self._folder = folder
        self._place = place_of(folder) if place is None else place
        self._writer: Connection | None = None
        with _told(f"open {self._place.shown}", self._mending):
            self._open(objectives)

    def _mending(self) -> str:
        return ": put a copy back, or delete it to begin the same search anew" if self._place.is_file else ""

    def _going_on(self) -> str:
        return f"; all trials before are kept: put it right, and go on with: {resuming(self._folder)}"

    def _open(self, objectives: int | None = None) -> None:
        self._storage = storage_of(self._place)
        try:
            self._load(objectives)
        except BaseException:
            self._storage.engine.dispose()
            raise

    def _load(self, objectives: int | None) -> None:
        try:
            self._study = self._storage.get_study_id_from_name(self._place.study)
        except KeyError:
            if objectives is None:
                raise FileNotFoundError(
                    f"there is no study '{self._place.study}' in {self._place.shown}: put it back, or begin a new "
                    "search in another folder"
                ) from None
            self._study = self._storage.create_new_study([StudyDirection.MINIMIZE] * objectives, self._place.study)
        tables = MetaData()
        tables.reflect(self._storage.engine, only=TABLES)
        self._studies, self._trials, self._values, self._attributes = (tables.tables[name] for name in TABLES)

    def _count(self, connection: Connection) -> int:
        """How many trials are there: they are numbered from 0 on without a gap."""
        numbers = select(self._trials.c.number).where(self._trials.c.study_id == self._study)
        last: int | None = connection.execute(numbers.order_by(self._trials.c.trial_id.desc()).limit(1)).scalar()
        return 0 if last is None else last + 1

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        with ExitStack() as ends:  # each, whatever becomes of the others
            ends.callback(self._storage.engine.dispose)
            ends.callback(self._storage.remove_session)
            if self._writer is not None:
                ends.callback(self._writer.engine.dispose)
                ends.callback(self._writer.invalidate)  # with its lock

    def read(self) -> list[Stored]:
        """All finished trials, by number.

        Raises
        ------
        ValueError : another version of machgraph has stored them.
        """
        with _told(f"read {self._place.shown}"):
            stored = [stored_of(trial) for trial in self._storage.get_all_trials(self._study)]
        ends = stored[-1].generation.first + stored[-1].generation.size if stored else 0
        if [one.record.number for one in stored] != list(range(ends)):
            raise ValueError(OTHERWISE)
        return stored

    def append(self, trials: Sequence[Stored], waiting: Callable[[], None] = lambda: None) -> None:
        """Add finished trials, all or none; those that are there already are left as they are.

        A database that has gone is waited for; what it has taken meanwhile is not written again.

        Parameters
        ----------
        waiting : called when the database has to be waited for.

        Raises
        ------
        OSError : the disk is full, or the database can't be written or has lost trials; what was added before is there.
        BlockingIOError : another process has taken the run over, while the database was gone.
        """
        if not trials:
            return
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
                except BlockingIOError:  # the lock of a connection that was cut, which the database has yet to notice
                    if not is_gone or time.monotonic() > until:
                        raise
                except (StorageInternalError, SQLAlchemyError) as error:
                    if time.monotonic() > until or not _is_gone(error):
                        raise
                    if not is_gone:
                        waiting()
                    is_gone = True
                time.sleep(PAUSE)

    def _add(self, trials: Sequence[Stored]) -> None:
        first, end = trials[0].record.number, trials[-1].record.number + 1
        with self._storage.engine.begin() as connection:
            # Waits for a commit of before, whose answer was lost and which the database is still making.
            connection.execute(select(self._studies).where(self._studies.c.study_id == self._study).with_for_update())
            held = self._count(connection)
            if held > end:
                raise OSError(
                    f"another process has gone on with the study '{self._place.study}' in {self._place.shown}, which "
                    f"has {held} trials: look at it there"
                )
            if held < first:
                raise OSError(
                    f"{self._place.shown} has lost the trials from {held} on, as if it had been put back to an "
                    f"earlier state: go on from there with: {resuming(self._folder)}"
                )
            if added := trials[held - first :]:
                self._insert(connection, added)

    def _insert(self, connection: Connection, trials: Sequence[Stored]) -> None:
        """The rows that Optuna would write, with its times, which are UTC's and say so nowhere."""
        now = datetime.now(UTC).replace(tzinfo=None)
        rows = [
            {
                "number": one.record.number,
                "study_id": self._study,
                "state": one.state.name,
                "datetime_start": now - timedelta(seconds=one.record.seconds),
                "datetime_complete": now,
            }
            for one in trials
        ]
        numbered = insert(self._trials).returning(self._trials.c.trial_id, sort_by_parameter_order=True)
        ids = connection.execute(numbered, rows).scalars().all()
        values = [
            {"trial_id": i, "objective": objective, "value": value, "value_type": "FINITE"}
            for i, one in zip(ids, trials, strict=True)
            for objective, value in enumerate(one.values or ())
        ]
        if values:
            connection.execute(insert(self._values), values)
        attributes = [
            {"trial_id": i, "key": TRIAL, "value_json": json.dumps(attribute_of(one))}
            for i, one in zip(ids, trials, strict=True)
        ]
        connection.execute(insert(self._attributes), attributes)

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
        self._writer = held(self._place)

    def keep_settings(self) -> None:
        """Where the study is not in a file: beside it ``run.json``, so that the search can go on without the folder."""
        if not self._place.is_file:
            with _told(f"write {self._place.shown}"):
                content = (self._folder / RUN).read_text(encoding="utf-8")
                self._storage.set_study_user_attr(self._study, SETTINGS, content)


@contextmanager
def beginning(folder: Path, place: Place) -> Iterator[None]:
    """While a new run is written down: nobody else begins one whose study has this name.

    Raises
    ------
    ValueError : the database has a study of that name.
    BlockingIOError : another process searches it.
    """
    if place.is_file:
        yield
        return
    with _told(f"open {place.shown}"):
        connection = held(place)
        try:
            refuse_known(folder, place)
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock_all()"))  # before the connection ends, some time later
            connection.close()
            connection.engine.dispose()


@contextmanager
def _looked_into(place: Place) -> Iterator[optuna.storages.RDBStorage]:
    with _told(f"open {place.shown}"), quiet():
        storage = storage_of(place)
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


def refuse_known(folder: Path, place: Place) -> None:
    """ValueError: the database has a study of that name already."""
    if place.is_file:
        return
    with _looked_into(place) as storage:
        names = optuna.study.get_all_study_names(storage)
    if place.study in names:
        raise ValueError(
            f"the database {place.shown} has a study '{place.study}' already: go on with it by {resuming(folder)}, or "
            "give another folder with --out"
        )


def restore(folder: Path) -> None:
    """Write the ``run.json`` of a run whose folder is not here, if its study is in the database.

    Raises
    ------
    ValueError : there is something else in the folder, or the search needs more of its folder than that.
    """
    if (folder / RUN).exists() or (place := new_place(folder)).is_file:
        return
    with _looked_into(place) as storage:
        try:
            content = optuna.load_study(storage=storage, study_name=place.study).user_attrs[SETTINGS]
        except KeyError:  # no such study, or nothing of ours
            return
    refuse_used(folder)
    if json.loads(content)["settings"]["recipe"]["inherit"]:
        raise ValueError(
            f"the study '{place.study}' in {place.shown} was begun with inherit, and the weights of parents are in its "
            "folder alone: go on there"
        )
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
