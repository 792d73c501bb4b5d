"""A run in optuna-dashboard: a copy of its trials in memory, in words that people use, with pictures of the networks.

The dashboard has no passwords and serves what it is given: so it listens on this machine alone, answers no page of
another site, takes nothing, and its pictures are PNG, in which no script can be.
"""

import io
import json
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from socketserver import ThreadingMixIn
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, BinaryIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX, ArtifactMeta
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.graph.point import GraphPoint
from search.point import AnyPoint
from search.record import Record, Settings
from search.report.importance import NAMES, traits
from search.run import STUDY, read_facts, read_settings
from search.shape import Shape
from search.storage.database import file_place, place_of
from search.storage.store import Store
from search.storage.stored_trial import Stored

HOST = "127.0.0.1"
PICTURE = "architecture.png"

Traits = Mapping[str, str | float]
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]  # of WSGI


class Pictures:
    """A store of artifacts, as Optuna has them, in which each is drawn when it is asked for.

    Parameters
    ----------
    points : what is drawn, by the name of the artifact.
    shape : of the data.
    """

    def __init__(self, points: Mapping[str, AnyPoint], shape: Shape) -> None:
        self._points, self._shape = points, shape
        self._drawn: dict[AnyPoint, bytes] = {}
        self._lock = Lock()  # Matplotlib is not made for several threads

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The picture."""
        point = self._points[artifact_id]
        with self._lock:
            if point not in self._drawn:
                self._drawn[point] = picture(point, self._shape)
        return io.BytesIO(self._drawn[point])

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Refused: the dashboard is looked at only."""
        raise PermissionError("the pictures of a run are drawn, and no others are taken")

    def remove(self, artifact_id: str) -> None:
        """Refused, as writing is."""
        self.write(artifact_id, io.BytesIO())


def picture(point: AnyPoint, shape: Shape) -> bytes:
    """A network as PNG: its dependency graph, and below it which block hears which."""
    from search.graph.network import sketch
    from search.show import draw
    from search.training.machine import build

    machine: Any = sketch(point) if isinstance(point, GraphPoint) else build(point, shape, 0)
    with TemporaryDirectory() as folder:
        file = Path(folder, PICTURE)
        draw(machine, file)
        return file.read_bytes()


def snapshot(folder: Path) -> list[Stored]:
    """The trials of a run as they are now; its file is only read, whoever else may be writing to it.

    Raises
    ------
    FileNotFoundError : no study is there.
    OSError : it can't be read.
    """
    if not place_of(folder).is_file:
        with Store(folder) as store:
            return store.read()
    path = folder / STUDY
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: the folder of the run was moved or removed")
    with TemporaryDirectory() as copied:
        try:
            with (
                closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as source,
                closing(sqlite3.connect(Path(copied, STUDY))) as target,
            ):
                source.backup(target)
        except sqlite3.Error as error:
            raise OSError(f"can't read {path}: {error}") from None
        with Store(Path(copied), place=file_place(Path(copied))) as store:
            return store.read()


def readable(folder: Path) -> tuple[optuna.Study, Pictures]:
    """A study in memory that holds the trials of a run: what each network is like, what it reached, and a picture.

    Raises
    ------
    FileNotFoundError : no run is there.
    OSError : its study can't be read.
    """
    settings, shape, stored = read_settings(folder), read_facts(folder).shape, snapshot(folder)
    directions = [
        StudyDirection.MAXIMIZE if name in settings.maximize else StudyDirection.MINIMIZE
        for name in settings.objectives
    ]
    study = optuna.create_study(study_name=folder.resolve().name, directions=directions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(list(settings.objectives))
    table = [traits(one.record.canonical) for one in stored]
    known = distributions(table)
    study.add_trials([_trial(one, row, known, settings, shape) for one, row in zip(stored, table, strict=True)])
    return study, Pictures({_artifact(one.record): one.record.canonical for one in stored}, shape)


def distributions(table: Sequence[Traits]) -> dict[str, BaseDistribution]:
    """From the least to the largest value of each trait that varied.

    >>> distributions([{"blocks": 1, "kind": "dense"}, {"blocks": 3, "kind": "dense"}])
    {'blocks': IntDistribution(high=3, log=False, low=1, step=1)}
    """
    found: dict[str, BaseDistribution] = {}
    for name in dict.fromkeys(name for row in table for name in row):
        values = sorted({row[name] for row in table if name in row})  # all words, or all numbers
        if len(values) < 2:
            continue
        if isinstance(values[0], str):
            found[name] = CategoricalDistribution(values)
        elif all(isinstance(value, int) for value in values):
            found[name] = IntDistribution(int(values[0]), int(values[-1]))
        else:
            low, high = float(values[0]), float(values[-1])
            found[name] = FloatDistribution(low, high, log=low > 0 and high > 5 * low)
    return found


def _trial(
    stored: Stored, row: Traits, known: Mapping[str, BaseDistribution], settings: Settings, shape: Shape
) -> FrozenTrial:
    record, state = stored.record, stored.state
    names = [name for name in known if name in row]
    values = None
    if stored.values is not None:  # of what is to be large, the sign was turned
        signs = [-1.0 if name in settings.maximize else 1.0 for name in settings.objectives]
        values = [sign * value for sign, value in zip(signs, stored.values, strict=True)]
    meta = ArtifactMeta(artifact_id=_artifact(record), filename=PICTURE, mimetype="image/png", encoding=None)
    trial = create_trial(
        state=state,
        values=values if state is TrialState.COMPLETE else None,
        params={NAMES.get(name, name): row[name] for name in names},
        distributions={NAMES.get(name, name): known[name] for name in names},
        user_attrs=_told(record, shape),
        # What `upload_artifact` writes of an artifact, which takes no finished trials.
        system_attrs={f"{ARTIFACTS_ATTR_PREFIX}{meta.artifact_id}": json.dumps(asdict(meta))},
        intermediate_values={epoch: loss for epoch, loss in enumerate(record.curve, start=1) if loss == loss},
    )
    if end := stored.finished:
        trial.datetime_start, trial.datetime_complete = end - timedelta(seconds=record.seconds), end
    return trial


def _artifact(record: Record) -> str:
    """The name of a trial's picture: the dashboard wants digits."""
    return f"{record.number:08x}"


def _told(record: Record, shape: Shape) -> dict[str, Any]:
    """What else there is to say of a trial."""
    numbers = {"score": record.score, "training seconds": record.seconds, **record.measures}
    told: dict[str, Any] = {"architecture": record.canonical.describe(shape), "status": record.status}
    told |= {name: round(float(value), 6) for name, value in numbers.items() if value == value}
    if record.duplicate_of is not None:
        told["the same as trial"] = record.duplicate_of
    return told


# ---- the server --------------------------------------------------------------------------------------------------


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def serving(folder: Path, port: int = 8080) -> Iterator[WSGIServer]:
    """A server of the run's dashboard, which ``serve_forever`` starts; leaving the context closes its port.

    Parameters
    ----------
    port : of this machine; 0 for any that is free, which ``server_port`` then tells.

    Raises
    ------
    ImportError : optuna-dashboard is missing.
    ValueError : a port that there can't be.
    OSError : no run is there, it can't be read, or the port is taken.
    """
    if find_spec("optuna_dashboard") is None:
        raise ImportError("the dashboard needs optuna-dashboard: pip install 'machgraph[dashboard]'")
    if not 0 <= port < 2**16:
        raise ValueError(f"got port {port}: give one from 1 to 65535, or 0 for any that is free")
    study, pictures = readable(folder)
    from optuna_dashboard import wsgi

    application: Application = wsgi(study._storage, artifact_store=pictures)
    try:
        server = make_server(HOST, port, guarded(application), server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise OSError(
            f"can't listen on port {port} ({error.strerror}): give another with --port, or 0 for any"
        ) from None
    with server:
        yield server


def guarded(application: Application) -> Application:
    """An application that is only read, and by this machine's own browser at its own address.

    A page of another site, under a name of its own that leads here, can't have it say what it knows.
    """

    def guard(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "").rsplit(":", 1)[0]
        if host in (HOST, "localhost") and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return application(environ, start)
        start("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"This dashboard is a copy of a run: it is looked at, and not changed.\n"]

    return guard
