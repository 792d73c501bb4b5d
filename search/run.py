"""The folder of a run: what was asked for, what was found, and how both are read back.

``run.json`` holds the settings and what is known of the data; ``study.db`` every finished trial, the one source of
truth; ``ledger.csv`` and ``leaderboard.csv`` are written from it for people and other programs.
"""

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

from search.facts import Facts as Facts
from search.point import Point
from search.recipe import Recipe
from search.space import Space

T = TypeVar("T")

RUN, STUDY, LEDGER, BEST, LEADERBOARD = "run.json", "study.db", "ledger.csv", "best.machgraph", "leaderboard.csv"


@dataclass(frozen=True)
class Settings:
    """All that a search depends on, beside the data.

    Parameters
    ----------
    source, target, task : what ``search.data.load`` is given.
    seed : of the split, the proposals, the initial weights and the batches.
    strategy : of ``search.suggest.sampler``.
    trials, seconds : the search ends after so many trials, or when the next generation would take it past so many
        seconds of searching, whichever comes first; ``None``: no such limit, but one must be given.
    population : trials that are proposed and trained together.
    space, recipe : what is searched, and how a candidate is trained.
    threads : of torch; results are the same only for the same number.

    Raises
    ------
    ValueError : no limit, or a number out of its range.
    """

    source: str
    target: str | None
    task: str | None
    seed: int
    strategy: str
    trials: int | None
    seconds: float | None
    population: int
    space: Space
    recipe: Recipe
    threads: int = 1

    def __post_init__(self) -> None:
        if self.trials is None and self.seconds is None:
            raise ValueError("got neither trials nor seconds: give at least one, or the search would not end")
        for name, value in (("trials", self.trials), ("population", self.population), ("threads", self.threads)):
            if value is not None and value < 1:
                raise ValueError(f"got {name}={value}: it must be at least 1")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ValueError(f"got seconds={self.seconds}: the time must be positive and finite")
        if self.seed < 0:
            raise ValueError(f"got seed={self.seed}: it must be 0 or more")

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON can hold; ``Settings.from_dict`` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Settings":
        """The settings that ``to_dict`` wrote; ValueError: a name that settings do not have."""
        record = known(cls, record)
        parts = {"space": Space(**known(Space, record["space"])), "recipe": Recipe(**known(Recipe, record["recipe"]))}
        return cls(**{**record, **parts})


@dataclass(frozen=True)
class Record:
    """A finished trial.

    Parameters
    ----------
    number : of the trial, from 0.
    key : names what was trained: ``search.point.key`` of the canonical form.
    point, canonical : as proposed, and the form that was trained.
    status : ``complete``, ``stopped``, ``halved``, ``diverged`` (see ``search.population.Outcome``), or ``duplicate``:
        not trained, for ``duplicate_of`` has the same key; then loss and score are that trial's.
    epochs, seconds, curve : of training; 0 and empty for a duplicate. ``curve`` is the validation loss by epoch.
    loss, score : on the validation part after the best epoch; not a number if it diverged at once.
    """

    number: int
    key: str
    point: Point
    canonical: Point
    status: str
    epochs: int
    loss: float
    score: float
    seconds: float
    duplicate_of: int | None
    curve: tuple[float, ...] = field(repr=False)

    @property
    def is_valid(self) -> bool:
        """Whether the loss can be compared: a candidate that diverged has none, nor has a duplicate of it."""
        return self.status != "diverged" and math.isfinite(self.loss)

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON can hold, ``None`` for a number that is not finite."""
        return {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "point": self.point.to_dict(),
            "canonical": self.canonical.to_dict(),
            "loss": _finite(self.loss),
            "score": _finite(self.score),
            "curve": [_finite(loss) for loss in self.curve],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Record":
        """The record that ``to_dict`` wrote; ValueError: a name that records do not have."""
        record = known(cls, record)
        numbers = {name: _number(record[name]) for name in ("loss", "score")}
        points = {name: Point.from_dict(record[name]) for name in ("point", "canonical")}
        return cls(**{**record, **numbers, **points, "curve": tuple(map(_number, record["curve"]))})


@dataclass(frozen=True)
class Row:
    """A line of the leaderboard: one of the best architectures found, or a rival of the winner.

    Parameters
    ----------
    name : ``"winner"``, ``"second"`` ... ``"fifth"``, or the rival's.
    trial : its number; ``None`` for a rival.
    point : canonical; ``None`` where the row stands for several.
    loss, score : on the validation part.
    test_loss, test_score : on the held-out part; ``None`` where it was not looked at.
    depth, parameters, flops : of the machine; FLOPs of one forward pass on one sample.
    seconds : of training.
    """

    name: str
    trial: int | None
    point: Point | None
    loss: float
    score: float
    test_loss: float | None
    test_score: float | None
    depth: int
    parameters: int
    flops: int
    seconds: float


def free_folder(folder: Path) -> Path:
    """The folder itself, or the first of ``folder-2``, ``folder-3`` ... where nothing is."""
    others = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return next(path for path in chain([folder], others) if not path.exists())


def refuse_used(folder: Path) -> None:
    """ValueError: there is something in the folder that a new run would mix with."""
    if (folder / RUN).exists():
        raise ValueError(
            f"{folder} already holds a run: go on with it by machgraph resume {folder}, "
            "or give another folder with --out"
        )
    if folder.exists() and (not folder.is_dir() or any(not path.name.startswith("lock") for path in folder.iterdir())):
        raise ValueError(f"{folder} is there already and is no run: give another folder with --out")


def read_settings(folder: str | os.PathLike[str]) -> Settings:
    """The settings of the run in a folder.

    Raises
    ------
    FileNotFoundError : no run is there.
    ValueError : ``run.json`` is damaged.
    """
    with _run_file(folder) as content:
        return Settings.from_dict(content["settings"])


def read_facts(folder: str | os.PathLike[str]) -> Facts:
    """What the run in a folder knows of its data; raises what ``read_settings`` raises."""
    with _run_file(folder) as content:
        record = known(Facts, content["facts"])
        return Facts(**{**record, "classes": tuple(record["classes"]), "lines": tuple(record["lines"])})


def write_run(folder: str | os.PathLike[str], settings: Settings, facts: Facts) -> None:
    """Write ``run.json``."""
    content = {"settings": settings.to_dict(), "facts": asdict(facts)}
    replace_text(Path(folder, RUN), json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_records(folder: str | os.PathLike[str]) -> list[Record]:
    """Every finished trial of the run in a folder, by number; none if it has not got so far.

    Raises
    ------
    FileNotFoundError : no run is there.
    """
    from search.store import Store

    read_settings(folder)
    if not Path(folder, STUDY).exists():
        return []
    with Store(Path(folder)) as store:
        return [stored.record for stored in store.read()]


def write_ledger(folder: str | os.PathLike[str], records: Iterable[Record], facts: Facts) -> None:
    """Write ``ledger.csv``: a line for every trial, with the architecture in its canonical form."""
    sizes = facts.n_inputs, facts.n_outputs
    lines = [
        {
            **{name: getattr(record, name) for name in ("number", "status", "duplicate_of", "epochs", "loss", "score")},
            "depth": point.depth,
            "parameters": point.parameters(*sizes),
            "flops": point.flops(*sizes),
            "widths": "-".join(map(str, point.widths)),
            "activations": " ".join(point.activations),
            "edges": " ".join(f"{i}>{o}" for o, row in enumerate(point.shortcuts) for i in range(o) if row[i]),
            "learning_rate": point.learning_rate,
            "seconds": round(record.seconds, 3),
            "key": record.key,
        }
        for record in records
        for point in (record.canonical,)
    ]
    write_csv(Path(folder, LEDGER), lines)


def write_leaderboard(folder: str | os.PathLike[str], rows: Sequence[Row], facts: Facts) -> None:
    """Write ``leaderboard.csv``; the architecture is there twice, in words and as JSON."""
    lines = [
        {
            **{f.name: getattr(row, f.name) for f in fields(row)},
            "architecture": row.point.describe(facts.n_inputs, facts.n_outputs) if row.point else "",
            "point": json.dumps(row.point.to_dict()) if row.point else "",
        }
        for row in rows
    ]
    write_csv(Path(folder, LEADERBOARD), lines)


def read_leaderboard(folder: str | os.PathLike[str]) -> list[Row]:
    """The rows of ``leaderboard.csv``, best first, then the rivals; none if it has not been written yet."""
    path = Path(folder, LEADERBOARD)
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(
                name=line["name"],
                trial=int(line["trial"]) if line["trial"] else None,
                point=Point.from_dict(json.loads(line["point"])) if line["point"] else None,
                loss=float(line["loss"]),
                score=float(line["score"]),
                test_loss=float(line["test_loss"]) if line["test_loss"] else None,
                test_score=float(line["test_score"]) if line["test_score"] else None,
                depth=int(line["depth"]),
                parameters=int(line["parameters"]),
                flops=int(line["flops"]),
                seconds=float(line["seconds"]),
            )
            for line in csv.DictReader(file)
        ]


def write_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write lines of one and the same form as a CSV file; whoever reads it sees the old file or the new one."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]) if lines else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    temporary.replace(path)


def replace_text(path: Path, text: str) -> None:
    """Write a file so that whoever reads it sees the old text or the new one, never half of it."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def known(cls: type[Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as it is; ValueError: a name that is no field of ``cls``, with the nearest that is.

    >>> known(Recipe, {"epoch": 3})
    Traceback (most recent call last):
    ValueError: got 'epoch' in the recipe, did you mean 'epochs'?
    """
    names = [f.name for f in fields(cls)]
    for name in record:
        if name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0)[0]
            raise ValueError(f"got {name!r} in the {cls.__name__.lower()}, did you mean {near!r}?")
    return dict(record)


@contextmanager
def _run_file(folder: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """What ``run.json`` holds; whatever is wrong with that is told in one sentence."""
    path = Path(folder, RUN)
    try:
        yield json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"no run is in {folder}: it has no {RUN}; give the folder of a run, as runs/digits"
        ) from None
    except (ValueError, TypeError, KeyError) as error:  # not JSON, not of this form, or with values out of range
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is damaged ({what}): put it right, or start the search anew") from None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
