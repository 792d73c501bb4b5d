"""One page about a run, that opens from disk and asks the network for nothing, and its pictures."""

import base64
import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from machgraph.graph import order
from machgraph.partition import Mask
from search.graph.point import GraphPoint
from search.numbers import grouped, loss_text, time_text
from search.objectives import MEASURES, fronts, sizes
from search.point import AnyPoint
from search.report import wording
from search.report.charts import curves, history, scale_data, tradeoffs
from search.report.colours import STATUSES
from search.report.importance import importance
from search.report.network import network
from search.report.wording import score_text
from search.run import (
    BEST,
    Facts,
    Record,
    Row,
    Settings,
    read_facts,
    read_leaderboard,
    read_records,
    read_settings,
    replace_text,
    resuming,
)

USUAL = 5  # statuses that any search may have: a report tells of the others only where there are some
SCRIPTS = ("page.js", "steps.js", "charts.js", "trials.js")
SECTIONS = (
    ("network", "Network"),
    ("resolvent", "Step by step"),
    ("leaderboard", "Leaderboard"),
    ("tradeoff", "Trade-off"),
    ("history", "History"),
    ("curves", "Curves"),
    ("importance", "Importance"),
    ("trials", "Trials"),
    ("made", "How it was made"),
)
OF_A_NETWORK = ("network", "resolvent")
COLUMNS = (  # of the table of trials: field, title, whether it holds numbers
    ("number", "Trial", True),
    ("network", "Network", False),
    ("status", "Status", False),
    ("score", "Score", True),
    ("loss", "Loss", True),
    ("depth", "Depth", True),
    ("parameters", "Parameters", True),
    ("flops", "FLOPs", True),
    ("epochs", "Epochs", True),
    ("learning_rate", "Learning rate", True),
    ("seconds", "Time", True),
)
TITLES = {"front": "Front", "memory": "Memory, bytes", "latency": "Latency, ms"}  # of columns that some runs have


def write(folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` and ``pictures/`` of the run in a folder, also of one that has not ended.

    Raises
    ------
    FileNotFoundError : no run is there, or the best machine of one is gone.
    ValueError : no trial of it has ended, so that there is nothing to report on.
    """
    folder = Path(folder)
    settings, facts = read_settings(folder), read_facts(folder)
    records, rows = read_records(folder), read_leaderboard(folder)
    if not records:
        raise ValueError(f"no trial of {folder} has ended yet: go on with {resuming(folder)}")
    machine = None
    if any(record.is_valid for record in records):
        if not (folder / BEST).exists():
            raise FileNotFoundError(f"{folder} has lost its {BEST}: put it back, or search in another folder")
        from search.show import read_machine  # here, for torch takes seconds to import

        machine = read_machine(folder)
    from search.report.pictures import draw  # matplotlib takes its time too

    draw(folder / "pictures", machine, records, rival(rows), tradeoffs(settings, facts, records))
    path = folder / "report.html"
    replace_text(path, render(settings, facts, records, rows, machine, folder))
    return path


def rival(rows: Iterable[Row], word: str = "random") -> Row | None:
    """The row of the random architecture, or of another rival whose name holds the word."""
    return next((row for row in rows if row.trial is None and word in row.name), None)


def render(
    settings: Settings, facts: Facts, records: Sequence[Record], rows: Sequence[Row], machine: Any, folder: Path
) -> str:
    """The page, from what ``search.run`` reads and the best machine; ``None`` where no trial has ended well."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, Template

    from machgraph.draw import level_colour
    from machgraph.draw.page import asset

    environment = Environment(
        loader=PackageLoader("search.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "ensure_ascii": False}
    style, *scripts = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", *SCRIPTS))
    style, script = asset("theme.css") + style, "".join([asset("theme.js"), *scripts])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template: Template = environment.get_template("page.html.jinja")
    winner = next((row.trial for row in rows if row.trial is not None), None)
    best = min(
        (record for record in records if record.is_valid),
        key=lambda r: (r.number != winner, r.loss, r.number),
        default=None,
    )
    net = None if machine is None else network(machine) | {"says": wording.network(machine, facts, best)}
    counts = Counter(record.status for record in records)
    past, costs = history(settings, facts, records, rival(rows)), tradeoffs(settings, facts, records)
    charts = {"trial-chart": (scale_data("number", past.x), scale_data("loss", past.y))}
    for i, chart in enumerate(costs):
        charts[f"cost-{i}"] = (scale_data(chart.field, chart.x), scale_data(chart.y_field, chart.y))
    extra = _extra_columns(settings, records)
    # an objective of one's own is the score already
    columns = [*COLUMNS, *((name, TITLES.get(name, name), True) for name in extra if name != facts.objective)]
    measured = [name for name in extra if name not in ("front", facts.objective)]
    front = _front(settings, records)
    return template.render(
        facts=facts,
        style=style,
        script=script,
        script_hash=f"'sha256-{digest}'",
        sections=[(name, title) for name, title in SECTIONS if net or name not in OF_A_NETWORK],
        headline=wording.headline(facts, rows, best),
        cards=wording.cards(facts, rows, best) if best else [],
        sentence=wording.counts(settings, facts, records),
        net=net,
        colour=level_colour,
        leaderboard=[_line(facts, row, measured) for row in rows],
        leader_titles=_leader_titles(facts, measured),
        loss=wording.loss_name(settings, facts),
        tradeoffs=costs,
        several=len(settings.objectives) > 1,
        history=past,
        curves=curves(facts, records, best),
        importance=importance(records),
        colours=list(STATUSES.values()),
        statuses=[
            (i, status, grouped(counts[status])) for i, status in enumerate(STATUSES) if counts[status] or i < USUAL
        ],
        columns=[(name, {"score": facts.score.capitalize()}.get(name, title), right) for name, title, right in columns],
        commands=wording.commands(settings, folder),
        tables=wording.tables(settings, facts),
        data={
            "fields": [*(name for name, _, _ in COLUMNS), *extra, "duplicate_of", "widths", "edges", "past"],
            "columns": [name for name, _, _ in columns],
            "statuses": list(STATUSES),
            "score": facts.score,
            "percent": facts.task == "classification",
            "winner": best.number if best else None,
            "charts": charts,
            "steps": net["steps"] if net else None,
            "trials": [_trial(facts, record, extra, front) for record in records],
        },
    )


# --- the leaderboard -------------------------------------------------------------------------------------------------


def _glyph(facts: Facts, point: AnyPoint) -> tuple[list[int], str, str]:
    """Widths, and who hears whom, at the same time and of the past: what the page draws in small."""
    if isinstance(point, GraphPoint):  # its machines, all of one width
        names = order(point.graph)
        edges = [point.graph.has_edge(a, b) for i, b in enumerate(names) for a in names[:i]]
        return [1] * len(names), packed(np.array(edges, dtype=bool)), ""
    now, past = point.mask, np.asarray(point.masks[1:].any(axis=0))
    return list(point.partition(facts.shape).widths), packed(now[np.tri(len(now), k=-1, dtype=bool)]), packed(past)


def packed(bits: Mask) -> str:
    """Bits as hexadecimal digits, the first bit the lowest of the first digit; none where all are off.

    >>> packed(np.array([True, False, False, False, False, True]))
    '12'
    """
    flat = bits.ravel()
    if not flat.any():
        return ""
    padded = np.pad(flat, (0, -flat.size % 4)).reshape(-1, 4)
    return "".join(f"{digit:x}" for digit in padded @ (1, 2, 4, 8))


def _leader_titles(facts: Facts, measured: Sequence[str]) -> list[str]:
    score = facts.score
    known = [score] if facts.objective else [f"Validation {score}", f"Test {score}", "Validation loss"]
    return [*known, "Depth", "Parameters", "FLOPs", *(TITLES.get(name, name) for name in measured), "Time"]


def _line(facts: Facts, row: Row, measured: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "name": row.name,
        "trial": None if row.name == "ensemble" else row.trial,
        "kind": "winner" if row.name == "winner" else "rival" if row.trial is None else "",
        "glyph": _glyph(facts, row.point) if row.point else None,
        "network": row.point.describe(facts.shape) if row.point else "–",
        "numbers": [
            score_text(facts, row.score),
            # there are no data to hold out for an objective of one's own, and its loss is the score
            *([] if facts.objective else [score_text(facts, row.test_score), loss_text(row.loss)]),
            *(grouped(number) if number else "–" for number in (row.depth, row.parameters, row.flops)),
            *(loss_text(row.measures.get(name)) for name in measured),
            time_text(row.seconds),
        ],
    }


# --- trials ----------------------------------------------------------------------------------------------------------


def _extra_columns(settings: Settings, records: Sequence[Record]) -> list[str]:
    """What only this run's trials have: the front where there are several objectives, and measures of its own."""
    known = {name for name, _, _ in COLUMNS}
    measured = dict.fromkeys(name for record in records for name in record.measures if name not in known)
    named = sorted(measured, key=lambda name: (name in MEASURES, name))
    return [*(["front"] if len(settings.objectives) > 1 else []), *named]


def _front(settings: Settings, records: Sequence[Record]) -> dict[int, int]:
    """For each trial that has one the number of its front, from 0; none of a single objective."""
    if len(settings.objectives) < 2:
        return {}
    valid = [record for record in records if record.is_valid]
    places = fronts([record.values(settings.objectives, settings.maximize) for record in valid])
    return {record.number: int(place) for record, place in zip(valid, places, strict=True)}


def _trial(facts: Facts, record: Record, extra: Sequence[str], front: dict[int, int]) -> list[Any]:
    point = record.canonical
    return [
        record.number,
        point.describe(facts.shape),
        list(STATUSES).index(record.status),
        _finite(record.score),
        _finite(record.loss if record.is_valid else math.nan),
        *sizes(point, facts.shape, record.measures).values(),
        record.epochs,
        point.learning_rate,
        _finite(record.seconds),
        *(front.get(record.number) if name == "front" else _finite(record.measures.get(name)) for name in extra),
        record.duplicate_of,
        *_glyph(facts, point),
    ]


def _finite(value: float | None) -> float | None:
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
