"""The stored study of a run: whole finished trials in Optuna's SQLite format, one commit each, and one writer.

The sampler works on a study in memory. A trial reaches the file when it is finished, never before, so that whatever
interrupts a search no trial in the file is running or half there.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from search.run import STUDY, Record, resuming

NAME = "search"


@dataclass(frozen=True)
class Generation:
    """Trials ``first ... first + size - 1``, trained together; at its end, ``elapsed`` seconds had been searched."""

    first: int
    size: int
    elapsed: float


@dataclass(frozen=True)
class Stored:
    """A finished trial as the file holds it: for Optuna, as a record, and the generation that it belongs to."""

    trial: FrozenTrial
    record: Record
    generation: Generation


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
            Stored(trial, Record.from_dict(trial.user_attrs["record"]), Generation(**trial.user_attrs["generation"]))
            for trial in trials
        ]

    def append(self, trials: Sequence[FrozenTrial], records: Sequence[Record], generation: Generation) -> None:
        """Add finished trials; those that the file holds already are left as they are.

        Raises
        ------
        OSError : the disk is full, or the file can't be written; what was added before is there.
        """
        then = f"; all trials before are kept: put it right, and go on with: {resuming(self._folder)}"
        with _told(f"write {self._folder / STUDY}", then):
            held = len(self._study.get_trials(deepcopy=False))
            for trial, record in zip(trials, records, strict=True):
                if record.number >= held:
                    self._study.add_trial(finished(trial, record, generation))


def finished(trial: FrozenTrial, record: Record, generation: Generation) -> FrozenTrial:
    """A trial as the study in memory was told it, with its record."""
    attributes: dict[str, Any] = {"record": record.to_dict(), "generation": asdict(generation)}
    return create_trial(
        state=trial.state,
        values=trial.values,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=attributes,
        system_attrs=trial.system_attrs,  # NSGA-II keeps its generations there
    )


def load_study(folder: Path) -> optuna.Study:
    """Optuna's study of the run in a folder.

    Raises
    ------
    FileNotFoundError : it is not there.
    """
    if not (folder / STUDY).is_file():
        raise FileNotFoundError(f"{folder / STUDY} is not there: the folder of the run was moved or removed")
    with _told(f"read {folder / STUDY}"):
        url = URL.create("sqlite", database=str(folder / STUDY)).render_as_string(hide_password=False)
        return optuna.load_study(storage=url, study_name=NAME)
