"""The numbers, sentences and commands of a report."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.config import is_written
from search.graph.candidate import Candidate
from search.graph.point import GraphPoint
from search.graph.space import GraphSpace
from search.numbers import counted, grouped, loss_text, time_text
from search.objectives import sizes
from search.point import Point
from search.run import CONFIG, Facts, Record, Row, Settings, resuming


def score_text(facts: Facts, score: float | None) -> str:
    """Accuracy in percent, R² as it is; a dash for what is not there."""
    if score is None or not math.isfinite(score):
        return "–"
    return (
        f"{100 * score:.2f}\N{NO-BREAK SPACE}%" if facts.task == "classification" else f"{score:.4f}".replace("-", "−")
    )


def headline(facts: Facts, rows: Sequence[Row], best: Record | None) -> str:
    """What the search came to, on the held-out part."""
    if best is None:
        return "No trial has ended well so far: below is what became of each."
    winner = next((row for row in rows if row.trial is not None), None)
    if winner is not None and facts.objective:
        return f"The best network found has {facts.objective} {score_text(facts, winner.score)}."
    if winner is None or winner.test_score is None:
        return "The search has not come to its end: below is the best network so far."
    score = score_text(facts, winner.test_score)
    if facts.task == "classification":
        said = f"The network found answers {score} of the held-out rows right."
    else:
        said = f"The network found reaches an R² of {score} on the held-out rows."
    rivals = [f"{row.name} {score_text(facts, row.test_score)}" for row in rows if row.trial is None]
    return f"{said} Its rivals: {', '.join(rivals)}." if rivals else said


def cards(facts: Facts, rows: Sequence[Row], best: Record | None) -> list[dict[str, str]]:
    """Title, number and note of each figure at the head: the winner's, or the best so far, and its rivals'."""
    winner = next((row for row in rows if row.trial is not None), None)
    if winner is None or facts.objective:
        title = "Best" if facts.objective else "Best so far, validation"
        score = score_text(facts, best.score if best else None)
        return [{"title": title, "number": score, "note": facts.score}]
    figures = [
        ("Winner, held-out test", winner.test_score, f"{facts.score}; loss {loss_text(winner.test_loss)}"),
        ("Winner, validation", winner.score, f"{facts.score}; loss {loss_text(winner.loss)}"),
    ]
    rivals = [row for row in rows if row.trial is None]
    figures += [(f"{r.name[:1].upper()}{r.name[1:]}, test", r.test_score, _gap(facts, winner, r)) for r in rivals]
    return [{"title": title, "number": score_text(facts, score), "note": note} for title, score, note in figures]


def loss_name(settings: Settings, facts: Facts) -> str:
    """What is small where a trial is good: of an objective of one's own that is to be large, its negative."""
    if not facts.objective:
        return "validation loss"
    return f"minus {facts.objective}" if facts.objective in settings.maximize else facts.objective


def _gap(facts: Facts, winner: Row, row: Row) -> str:
    if winner.test_score is None or row.test_score is None:
        return ""
    gap = row.test_score - winner.test_score
    size = f"{100 * abs(gap):.2f} points" if facts.task == "classification" else f"{abs(gap):.4f}"
    return f"{size} {'above' if gap > 0 else 'below'} the winner" if float(size.split()[0]) else "as good as the winner"


def counts(settings: Settings, facts: Facts, records: Sequence[Record]) -> str:
    """How much was tried, of how much."""
    again = sum(record.duplicate_of is not None for record in records)
    spent = time_text(sum(record.seconds for record in records))
    were = "was" if again == 1 else "were"
    repeated = f"; {grouped(again)} {were} proposed again and not trained twice" if again else ""
    different = "" if facts.architectures is None else f", which are {grouped(facts.architectures)} different networks"
    held = "It is not known how many points the space holds."
    if facts.points is not None:
        held = f"The space holds {grouped(facts.points)} points{different}."
    return (
        f"{counted(len(records), 'trial')}, {grouped(len(records) - again)} trained in {spent}{repeated}. "
        f"{held} "
        f"Strategy {settings.strategy}, seed {settings.seed}."
    )


def network(machine: Any, facts: Facts, best: Record | None) -> str:
    """The size of the network found."""
    if best and isinstance(best.canonical, GraphPoint):
        size = sizes(best.canonical, facts.shape, best.measures)
        told = [f"depth {size['depth']}"]
        told += [counted(size["parameters"], "parameter")] if "parameters" in best.measures else []
        told += [counted(size["flops"], "FLOP") + " a sample"] if "flops" in best.measures else []
        said = f"{best.canonical.describe()}; {', '.join(told)}."
        return f"{said} Trial {best.number}, learning rate {best.point.learning_rate:g}."
    widths, lagged = machine.partition.widths, machine.shortcuts.ndim == 3
    edges = (machine.shortcuts[0] if lagged else machine.shortcuts).nonzero()
    flops = best.canonical.flops(facts.shape) if best and isinstance(best.canonical, Point) else machine.flops()
    skips = sum(int(i) > int(j) + 1 for i, j in zip(*edges, strict=True))
    past = f", {counted(int(machine.shortcuts[1:].sum()), 'recurrence')}" if lagged else ""
    said = (
        f"{counted(widths[0], 'input')}, {counted(len(widths) - 2, 'hidden block')}, "
        f"{counted(widths[-1], 'output')}, {counted(skips, 'shortcut')}{past}; depth {machine.architecture.depth}"
        f"{' in one turn of the loop over time' * lagged}, "
        f"{counted(machine.parameter_count(), 'parameter')}, {counted(flops, 'FLOP')} a sample."
    )
    return f"{said} Trial {best.number}, learning rate {best.point.learning_rate:g}." if best else said


def commands(settings: Settings, folder: Path) -> dict[str, str]:
    """What to type to get the same run, and to go on with this one: in Python, where that can't be typed in a shell."""
    if settings.target is None and ":" in settings.source:
        shape = "" if isinstance(settings.space, GraphSpace) else " shape,"
        again = f"optimize({settings.source.partition(':')[2]}, space,{shape} out={str(folder)!r}"
        note = f"The objective is {settings.source}. All settings are in run.json."
        return {"search": f"{again})", "resume": f"{again}, resume=True)", "note": note}
    if isinstance(settings.space, GraphSpace) and not is_written(settings):
        again = f"study.run(settings, dataset, {str(folder)!r})"
        go_on = f"study.resume({str(folder)!r}, dataset=dataset, space=space)"
        note = "All settings are in run.json, but for the factories, which it tells by name."
        return {"search": again, "resume": go_on, "note": note}
    note = "Results repeat exactly on the same machine, with the same versions and number of threads."
    if settings.seconds is not None:
        note += " A search that ends by time may get further, or less far, on another day."
    again = shlex.join(["machgraph", "search", "--config", str(folder / CONFIG)])
    if not is_written(settings):
        again = f"study.run(settings, dataset, {str(folder)!r})"
        note = f"It was begun from Python, with {settings.source}. {note}"
    return {"search": again, "resume": resuming(folder), "note": f"{note} All settings are in run.json."}


def tables(settings: Settings, facts: Facts) -> list[tuple[str, list[tuple[str, str]]]]:
    """Settings and versions, by title."""
    content = settings.to_dict()
    space, recipe, loading = (content.pop(name) for name in ("space", "recipe", "loading"))
    if not facts.objective:  # "time" is the column that tells it
        content |= {"time column" if name == "time" else name: value for name, value in loading.items()}
    if isinstance(settings.space, GraphSpace):
        space |= {"candidates": [_candidate(one) for one in settings.space.candidates]}
        space |= {"shapes": [f"{name} {shape}" for name, shape in settings.space.known] or None}
    return [
        ("Settings", _said(content)),
        *(
            (f"Space: {one['kind']}" if "spaces" in space else "Space", _said(one))
            for one in space.get("spaces", [space])
        ),
        ("Recipe of the training", _said(recipe)),
        ("Versions", _said(facts.versions)),
    ]


def _candidate(candidate: Candidate) -> str:
    """
    >>> _candidate(Candidate("f", dict, ("x", "h"), ("y",), required=True, described="builtins:dict"))
    'f(x | h) → y, required, builtins:dict'
    """
    arguments = ", ".join(" | ".join(port) for port in candidate.ports)
    most = [("up to {} copies", candidate.copies if candidate.copies > 1 else None)]
    most += [("at most {} read", candidate.max_reads), ("at most {} written", candidate.max_writes)]
    notes = ["required"] * candidate.required + [note.format(number) for note, number in most if number is not None]
    return ", ".join([f"{candidate.name}({arguments}) → {' | '.join(candidate.writes)}", *notes, candidate.described])


def _said(entries: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), _value(value)) for name, value in entries.items()]


def _value(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, tuple | list) and value and all(isinstance(row, tuple | list) for row in value):
        return " ".join("".join(str(int(heard)) for heard in row) for row in value)  # a mask, which alone is nested
    if isinstance(value, tuple | list):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} at most {_value(most)}" for name, most in value.items()) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
