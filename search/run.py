"""The folder of a run: what was asked for, what was found, and how both are read back.

``run.json`` holds the settings and what is known of the data; ``search.toml`` the settings again, for
``machgraph search --config``, if the data can be loaded anew; ``study.db`` every finished trial, the one source of
truth; ``ledger.csv`` and ``leaderboard.csv`` are written from it for people and other programs.
"""

import csv
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from itertools import chain, count
from pathlib import Path
from typing import Any

from search.config import is_written, to_toml
from search.facts import Facts as Facts
from search.graph.point import GraphPoint
from search.objectives import TOLD, fronts, sizes
from search.point import AnyPoint, hyperparameters, point_of
from search.record import Record as Record
from search.record import Row as Row
from search.record import Settings as Settings
from search.record import known
from search.shape import Shape

FIGURES = ("loss", "score", "test_loss", "test_score", "loss_sd", "test_sd")  # of a row that may have none of it
CONFIG = "search.toml"
RUN, STUDY, LEDGER, BEST, LEADERBOARD = "run.json", "study.db", "ledger.csv", "best.machgraph", "leaderboard.csv"
ENSEMBLE = "ensemble"  # the folder of the finalists, best first


def free_folder(folder: Path) -> Path:
    """The folder itself, or the first of ``folder-2``, ``folder-3`` ... where nothing is."""
    others = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return next(path for path in chain([folder], others) if not path.exists())


def resuming(folder: str | os.PathLike[str], ray: str | None = None) -> str:
    """What to type to go on with the run in a folder, with the name of its graph space and an address, if it has them.

    >>> resuming("runs/my data"), resuming("runs/digits", "auto")
    ("machgraph resume 'runs/my data'", 'machgraph resume runs/digits --ray auto')
    """
    try:
        graph = read_settings(folder).graph
    except (FileNotFoundError, ValueError):  # that is not what is to be told now
        graph = None
    words = ["machgraph", "resume", str(folder)]
    for name, value in (("--space", graph), ("--ray", ray)):
        words += [] if value is None else [name, value]
    return shlex.join(words)


def refuse_used(folder: Path) -> None:
    """ValueError: there is something in the folder that a new run would mix with."""
    if (folder / CONFIG).exists():
        raise ValueError(
            f"{folder} already holds a run: go on with it by {resuming(folder)}, or give another folder with --out"
        )
    if (folder / RUN).exists():  # of data, modules or an objective that no folder holds
        raise ValueError(
            f"{folder} already holds a run that was begun from Python: go on with it there, by search.study.resume or "
            "with resume=True, or give another folder"
        )
    if folder.exists() and (not folder.is_dir() or any(not path.name.startswith("lock") for path in folder.iterdir())):
        raise ValueError(f"{folder} is there already and is no run: give another folder with --out")
    if (above := next(path for path in (folder, *folder.parents) if path.exists())) and not above.is_dir():
        raise ValueError(f"can't make the folder {folder}: {above} is a file; choose another with --out")


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
        shape = Shape(**known(Shape, record["shape"]))
        lists = {"classes": record["classes"], "lines": record["lines"], "looked": record.get("looked", ())}
        return Facts(**{**record, "shape": shape, **{name: tuple(some) for name, some in lists.items()}})


def write_run(
    folder: str | os.PathLike[str], settings: Settings, facts: Facts, study: Mapping[str, str] | None = None
) -> None:
    """Write ``run.json``, and ``search.toml`` of data that can be loaded again.

    ``study`` tells where the study is, if not in the folder: see ``search.storage.database.Place``.
    """
    content = {"settings": settings.to_dict(), "facts": asdict(facts), **({"study": study} if study else {})}
    replace_text(Path(folder, RUN), json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    if is_written(settings):
        replace_text(Path(folder, CONFIG), to_toml(settings))


def read_records(folder: str | os.PathLike[str]) -> list[Record]:
    """Every finished trial of the run in a folder, by number; none if it has not got so far.

    Raises
    ------
    FileNotFoundError : no run is there.
    """
    from search.storage.database import place_of
    from search.storage.store import Store

    read_settings(folder)
    if place_of(Path(folder)).is_file and not Path(folder, STUDY).exists():
        return []
    with Store(Path(folder)) as store:
        return [stored.record for stored in store.read()]


def write_ledger(folder: str | os.PathLike[str], records: Sequence[Record], facts: Facts, settings: Settings) -> None:
    """Write ``ledger.csv``: a line for every trial, with the architecture in its canonical form.

    With several objectives, ``front`` is 0 for those that no other trial surpasses.
    """
    places: dict[int, int] = {}
    if len(settings.objectives) > 1:
        valid = [record for record in records if record.is_valid]
        found = fronts([record.values(settings.objectives, settings.maximize) for record in valid])
        places = {record.number: int(place) for record, place in zip(valid, found, strict=True)}
    own = sorted({name for record in records for name in record.measures} - {*TOLD})
    reasons = any(record.reason for record in records)
    lines = [
        {
            **{
                name: getattr(record, name)
                for name in ("number", "status", "duplicate_of", "parent", "epochs", "loss", "score")
            },
            **({"front": places.get(record.number, "")} if len(settings.objectives) > 1 else {}),
            **{name: record.measures.get(name, "") for name in own},
            **sizes(point, facts.shape, record.measures),
            **_architecture(point),
            **hyperparameters(point),
            "seconds": round(record.seconds, 3),
            "key": record.key,
            **({"reason": record.reason} if reasons else {}),
        }
        for record in records
        for point in (record.canonical,)
    ]
    write_csv(Path(folder, LEDGER), lines)


def _architecture(point: AnyPoint) -> dict[str, Any]:
    """The columns of the ledger that tell it."""
    if isinstance(point, GraphPoint):
        return {"kind": point.kind, "machines": point.describe()}
    return {
        "kind": point.kind,
        "widths": "-".join(map(str, point.widths)),
        "activations": " ".join(point.activations),
        "edges": " ".join(f"{i}>{o}" for o, row in enumerate(point.shortcuts) for i in range(o) if row[i]),
        "scales": "-".join(map(str, point.scales)),
        "kernel": point.kernel,
        "dilation": point.dilation,
        "recurrences": " ".join(f"{i}>{o}@{lag}" for lag, o, i in zip(*point.masks.nonzero(), strict=True) if lag),
        "timeblock": point.timeblock,
    }


def write_leaderboard(folder: str | os.PathLike[str], rows: Sequence[Row], facts: Facts) -> None:
    """Write ``leaderboard.csv``; the architecture is there twice, in words and as JSON."""
    lines = [
        {
            **{f.name: getattr(row, f.name) for f in fields(row)},
            "measures": json.dumps(dict(row.measures)) if row.measures else "",
            "architecture": row.point.describe(facts.shape) if row.point else "",
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
                point=point_of(json.loads(line["point"])) if line["point"] else None,
                depth=int(line["depth"]),
                parameters=int(line["parameters"]),
                flops=int(line["flops"]),
                seconds=float(line["seconds"]),
                measures=json.loads(line["measures"]) if line["measures"] else {},
                **{name: float(line[name]) if line[name] else None for name in FIGURES},
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
