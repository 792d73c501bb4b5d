"""How the study of a run is reached, in a file or in a database, and held for one process."""

import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy import Connection, create_engine, text

from search.storage.database import Place

READERS = 60.0  # seconds that whoever reads a file, as a dashboard does, is waited for
CONNECTION = {  # a connection that was cut is noticed on both sides within a minute, and not after hours
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "options": "-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
}


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


def storage_of(place: Place) -> optuna.storages.RDBStorage:
    """Optuna's storage of a place.

    Raises
    ------
    ValueError : another version of Optuna made the tables there, and this one can't use them.
    """
    connection: dict[str, Any] = {"timeout": READERS} if place.is_file else CONNECTION
    options = {"pool_pre_ping": not place.is_file, "connect_args": connection}
    try:
        return optuna.storages.RDBStorage(place.url.render_as_string(hide_password=False), engine_kwargs=options)
    except RuntimeError as error:
        said = str(error).split(". ")[0]  # the two versions
        address = shlex.quote(place.url.render_as_string(hide_password=True))
        raise ValueError(
            f"can't use the tables of {place.shown}: {said}: install that version, or, where it is an older one, bring "
            f"the tables up to date with: optuna storage upgrade --storage {address}"
        ) from None


def held(place: Place) -> Connection:
    """A connection that holds a study in a database for this process; BlockingIOError: another one does."""
    connection = create_engine(place.url, isolation_level="AUTOCOMMIT", connect_args=CONNECTION).connect()
    lock = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
    if not connection.execute(lock, {"name": f"machgraph {place.study}"}).scalar():
        connection.close()
        connection.engine.dispose()
        raise BlockingIOError(
            f"the study '{place.study}' in {place.shown} is being searched by another process: let it end, or stop it"
        )
    return connection
