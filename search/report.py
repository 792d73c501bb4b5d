"""One page about a run, that opens from disk and asks the network for nothing, and its pictures."""

import base64
import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machgraph.partition import Mask, lag_words
from search import wording
from search.diagrams import (
    Scale,
    block_diagram,
    block_name,
    count_scale,
    dots,
    indexed,
    loss_scale,
    machine_diagram,
    polyline,
    stairs,
)
from search.numbers import grouped, loss_text, time_text
from search.point import Point
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
from search.wording import score_text

STATUSES = (
    "complete",
    "stopped",
    "halved",
    "diverged",
    "duplicate",
    "infeasible",
    "failed",
)  # as their colours are
USUAL = 5  # of these, that any search may have: a report tells of the others only where there are some
CURVES = 10
SECTIONS = (
    ("network", "Network"),
    ("leaderboard", "Leaderboard"),
    ("history", "History"),
    ("curves", "Curves"),
    ("trials", "Trials"),
    ("made", "How it was made"),
)
COLUMNS = (  # of the table of trials: field, title, whether it holds numbers
    ("number", "Trial", True),
    ("network", "Network", False),
    ("status", "Status", False),
    ("score", "Score", True),
    ("loss", "Loss", True),
    ("depth", "Depth", True),
    ("parameters", "Parameters", True),
    ("epochs", "Epochs", True),
    ("learning_rate", "Learning rate", True),
    ("seconds", "Time", True),
)
FIELDS = (*(name for name, _, _ in COLUMNS), "duplicate_of", "widths", "edges", "x", "y")


def write(folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` and ``pictures/`` of the run in a folder, also of one that has not ended.

    Raises
    ------
    FileNotFoundError : no run is there.
    ValueError : no trial of it has ended well, so that there is no network to report on.
    """
    folder = Path(folder)
    settings, facts = read_settings(folder), read_facts(folder)
    records, rows = read_records(folder), read_leaderboard(folder)
    if not (folder / BEST).exists():
        raise ValueError(
            f"{folder} has no {BEST} yet: a report needs one trial that ended well; go on with {resuming(folder)}"
        )
    from machgraph.io import load  # here, for torch takes seconds to import
    from search.pictures import draw

    machine = load(folder / BEST)
    draw(folder / "pictures", machine, records, rival(rows))
    path = folder / "report.html"
    replace_text(path, render(settings, facts, records, rows, machine, folder))
    return path


def rival(rows: Iterable[Row], word: str = "random") -> Row | None:
    """The row of the random architecture, or of another rival whose name holds the word."""
    return next((row for row in rows if row.trial is None and word in row.name), None)


def render(
    settings: Settings, facts: Facts, records: Sequence[Record], rows: Sequence[Row], machine: Any, folder: Path
) -> str:
    """The page, from what ``search.run`` reads and the best machine."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, Template

    from machgraph.draw import level_colour

    environment = Environment(
        loader=PackageLoader("search", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "ensure_ascii": False}
    style, script = (Path(__file__).with_name(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template: Template = environment.get_template("report.html.jinja")
    architecture, widths = machine.architecture, machine.partition.widths
    lagged = machine.shortcuts.ndim == 3
    graph = architecture.turn if lagged else architecture.graph
    activations = [activation.name for activation in machine.activation]
    winner = next((row.trial for row in rows if row.trial is not None), None)
    best = min(
        (record for record in records if record.is_valid),
        key=lambda r: (r.number != winner, r.loss, r.number),
        default=None,
    )
    last = _last_writers(architecture)
    counts = Counter(record.status for record in records)
    history = _history(records, rival(rows))
    blocks = {form: block_diagram(widths, activations, machine.shortcuts, down=form == "tall") for form in FORMS}
    return template.render(
        facts=facts,
        style=style,
        script=script,
        script_hash=f"'sha256-{digest}'",
        sections=SECTIONS,
        headline=wording.headline(facts, rows),
        cards=wording.cards(facts, rows, best),
        sentence=wording.counts(settings, facts, records),
        winner={"says": wording.network(machine, facts, best)},
        blocks=blocks,
        machines={form: machine_diagram(graph, down=form == "tall") for form in FORMS},
        machine_count=len(graph),
        lagged=lagged,
        levels=[[indexed(name) for name in level] for level in architecture.levels],
        stairs=[(indexed(component), level) for component, level in last],
        mask=_mask(machine.shortcuts),
        colour=level_colour,
        leaderboard=[_line(facts, row) for row in rows],
        history=history,
        curves=_curves(facts, records, best),
        statuses=[
            (i, status, grouped(counts[status])) for i, status in enumerate(STATUSES) if counts[status] or i < USUAL
        ],
        columns=[(name, {"score": facts.score.capitalize()}.get(name, title), right) for name, title, right in COLUMNS],
        commands=wording.commands(settings, folder),
        tables=wording.tables(settings, facts),
        data={
            "fields": FIELDS,
            "columns": [name for name, _, _ in COLUMNS],
            "statuses": STATUSES,
            "score": facts.score,
            "percent": facts.task == "classification",
            "winner": best.number if best else None,
            "trials": [_trial(facts, record, history) for record in records],
        },
    )


FORMS = ("wide", "tall")


# --- the network -----------------------------------------------------------------------------------------------------


def _mask(mask: Mask) -> dict[str, Any]:
    lagged = mask if mask.ndim == 3 else mask[None]
    mask = lagged.max(axis=0)
    names = [block_name(i, len(mask)) for i in range(len(mask))]

    def cell(i: int, j: int) -> tuple[str, str]:
        if not mask[i, j] and (i <= j if len(lagged) == 1 else i == 0 or j == len(mask) - 1):
            return "never", f"{names[i]} comes no later than {names[j]}"
        lags = lagged[:, i, j]
        kind = "off" if not mask[i, j] else "next" if i == j + 1 and lags[0] else "on"
        at = f" at {lag_words(lags)}" if lags[1:].any() else ""
        return kind, f"{names[i]} {'hears' if mask[i, j] else 'does not hear'} {names[j]}{at}"

    short = [{"input": "in", "output": "out"}.get(name, str(i)) for i, name in enumerate(names)]
    rows = [(name, [cell(i, j) for j in range(len(mask))]) for i, name in enumerate(names)]
    return {"columns": list(zip(names, short, strict=True)), "rows": rows}


def _last_writers(architecture: Any) -> list[tuple[str, int]]:
    """The components, and the level of the last machine that writes each: it is in ``V_i`` for all lower ``i``."""
    last = {component: sum(component in v for v in architecture.cofiltration) for component in architecture.components}
    return sorted(last.items(), key=lambda item: item[1])


def _glyph(widths: Sequence[int], point: Point) -> tuple[list[int], list[tuple[int, int]]]:
    edges = [(j, i) for i, row in enumerate(point.masks.max(axis=0).tolist()) for j in range(i) if row[j]]
    return list(widths), edges


def _line(facts: Facts, row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "trial": row.trial,
        "kind": "winner" if row.name == "winner" else "rival" if row.trial is None else "",
        "glyph": _glyph(row.point.partition(facts.shape).widths, row.point) if row.point else None,
        "network": row.point.describe(facts.shape) if row.point else "–",
        "numbers": [
            score_text(facts, row.score),
            score_text(facts, row.test_score),
            loss_text(row.loss),
            *(grouped(number) if number else "–" for number in (row.depth, row.parameters, row.flops)),
            time_text(row.seconds),
        ],
    }


# --- charts and trials -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _History:
    x: Scale
    y: Scale
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    dots: list[tuple[str, str]]
    best: str
    rival: float | None
    rival_name: str
    says: str


def _ticks(scale: Scale) -> list[tuple[float, str]]:
    return [(scale(tick), f"{tick:,}" if isinstance(tick, int) else f"{tick:g}") for tick in scale.ticks]


def _history(records: Sequence[Record], random: Row | None) -> _History:
    x = count_scale(0, max((record.number for record in records), default=0))
    known = [random.loss] if random and random.loss is not None else []
    y = loss_scale([record.loss for record in records if record.is_valid] + known)
    steps: list[tuple[float, float]] = []
    best = math.inf
    improved = 0
    for record in records:
        if record.is_valid and record.loss < best:
            best, improved = record.loss, record.number
            steps.append((x(record.number), y(best)))
    says = f"The best loss, {loss_text(best)}, was found in trial {improved} of {grouped(len(records))}."
    if random and random.loss is not None:
        says += f" Dashed: {random.name}, {loss_text(random.loss)}."
    groups = [
        (status, dots((x(record.number), y(_shown(record))) for record in records if record.status == status))
        for status in STATUSES
    ]
    return _History(
        x=x,
        y=y,
        x_ticks=_ticks(x),
        y_ticks=_ticks(y),
        dots=groups,
        best=stairs([*steps, (1000.0, steps[-1][1])]) if steps else "",
        rival=y(random.loss) if random and random.loss is not None else None,
        rival_name=random.name if random else "",
        says=says if steps else "No trial has ended well yet.",
    )


def _shown(record: Record) -> float:
    return record.loss if record.is_valid else math.inf


def _curves(facts: Facts, records: Sequence[Record], winner: Record | None) -> dict[str, Any]:
    trained = [record for record in records if record.is_valid and record.curve]
    best = sorted(trained, key=lambda record: (record is not winner, record.loss, record.number))[:CURVES]
    x = count_scale(1, max((len(record.curve) for record in best), default=1))
    y = loss_scale((loss for record in best for loss in record.curve), share=1.0)
    lines = []
    for i, record in enumerate(best):
        path = polyline((x(epoch), y(loss)) for epoch, loss in enumerate(record.curve, 1))
        network = record.canonical.describe(facts.shape)
        label = f"Trial {record.number}{' (winner)' * (i == 0)}: {loss_text(record.loss)} · {network}"
        lines.append({"trial": record.number, "path": path, "label": label})
    return {"lines": lines, "x_ticks": _ticks(x), "y_ticks": _ticks(y)}


def _trial(facts: Facts, record: Record, history: _History) -> list[Any]:
    point = record.canonical
    widths, edges = _glyph(point.partition(facts.shape).widths, point)
    values = {
        "number": record.number,
        "network": point.describe(facts.shape),
        "status": STATUSES.index(record.status),
        "score": _finite(record.score),
        "loss": _finite(record.loss),
        "depth": point.depth,
        "parameters": point.parameters(facts.shape),
        "epochs": record.epochs,
        "learning_rate": point.learning_rate,
        "seconds": _finite(record.seconds),
        "duplicate_of": record.duplicate_of,
        "widths": widths,
        "edges": edges,
        "x": history.x(record.number),
        "y": history.y(_shown(record)),
    }
    return [values[name] for name in FIELDS]


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
