"""Where the study of a run is: in a file of its folder, or in a PostgreSQL database that all of its machines reach.

The address of a database has a password: it comes from the environment, never from a command line, and it is shown and
written without.
"""

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from search.run import RUN, STUDY

VARIABLE = "MACHGRAPH_DATABASE"  # the address, or the path of a file that has it
NAME = "search"  # of the study in a file


@dataclass(frozen=True)
class Place:
    """A study in a database.

    Parameters
    ----------
    url : of the database.
    study : its name there: in a file always the same, elsewhere that of the run's folder.
    """

    url: URL
    study: str

    @property
    def is_file(self) -> bool:
        """Whether it is in a file of the run's folder."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def told(self) -> dict[str, str] | None:
        """What ``run.json`` says of it; of a file nothing."""
        return None if self.is_file else {"database": self.shown, "study": self.study}

    @property
    def shown(self) -> str:
        """What may be shown of it."""
        return str(self.url.database) if self.is_file else masked(self.url)


def masked(url: URL) -> str:
    """The address without its password.

    >>> masked(make_url("postgresql+psycopg://ada:secret@db.lab/studies"))
    'postgresql://ada:***@db.lab/studies'
    """
    shown = URL.create(url.get_backend_name(), url.username, url.password, url.host, url.port, url.database)
    return shown.render_as_string(hide_password=True)  # without its query, which may hold one too


def place_of(folder: Path) -> Place:
    """Where the study of the run in a folder is.

    Raises
    ------
    ValueError : in a database, and the environment does not say at what address.
    """
    told = _told(folder)
    if told is None:
        return file_place(folder)
    if (url := database()) is None:
        raise ValueError(
            f"the study of {folder} is in the database {told['database']}: set {VARIABLE} to its address with the "
            "password, or to a file that holds it"
        )
    return Place(url, told["study"])


def new_place(folder: Path) -> Place:
    """Where a new run in a folder has its study: in the database that the environment names, or in a file.

    Raises
    ------
    ValueError, ImportError : as ``database``.
    """
    url = database()
    return file_place(folder) if url is None else Place(url, folder.resolve().name)


def database() -> URL | None:
    """The database that the environment names, if it does.

    Raises
    ------
    ValueError : it names no database of PostgreSQL's, or a file that holds no address.
    FileNotFoundError : it names a file that is not there.
    ImportError : psycopg, which connects to it, is missing.
    """
    wish = os.environ.get(VARIABLE, "").strip()
    if not wish:
        return None
    source = VARIABLE
    if "://" not in wish:
        source = f"the file {wish}, which {VARIABLE} names,"
        try:
            wish = Path(wish).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{VARIABLE} is neither an address nor a file that is there: give it as "
                "postgresql://USER:PASSWORD@HOST/DATABASE, or as the path of a file that holds that"
            ) from None
        except (OSError, UnicodeDecodeError):  # what it says may be an address of another form, with its password
            raise ValueError(
                f"what {VARIABLE} names can't be read: give it as postgresql://USER:PASSWORD@HOST/DATABASE, or as the "
                "path of a file that holds that"
            ) from None
    try:
        url = make_url(wish)
    except (ArgumentError, ValueError):  # whose messages hold parts of it
        url = None
    if url is None or url.get_backend_name() != "postgresql":
        raise ValueError(f"{source} holds no address of PostgreSQL's: give postgresql://USER:PASSWORD@HOST/DATABASE")
    if find_spec("psycopg") is None:
        raise ImportError("a study in PostgreSQL needs psycopg: pip install 'machgraph[postgres]'")
    return url.set(drivername="postgresql+psycopg")


def file_place(folder: Path) -> Place:
    """In a file of the run's folder."""
    return Place(URL.create("sqlite", database=str(folder / STUDY)), NAME)


def _told(folder: Path) -> dict[str, str] | None:
    """What ``run.json`` says of a database."""
    try:
        content = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # whoever reads the settings tells of these
        return None
    found: dict[str, str] | None = content.get("study") if isinstance(content, dict) else None
    return found
