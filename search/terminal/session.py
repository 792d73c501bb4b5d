"""A search before the user's eyes: how it stands, and what was found, in words or as JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from search.run import Facts, Row, Settings
from search.terminal import progress

if TYPE_CHECKING:
    from search.study import Event, Result


def told(*, quiet: bool, as_json: bool) -> Console:
    """Where progress is told: to whom reads the results as they come, else beside them, on the standard error."""
    return progress.terminal(stderr=as_json or not sys.stdout.isatty(), quiet=quiet)


def sit(
    folder: Path,
    settings: Settings,
    facts: Facts,
    search: Callable[[Callable[[Event], None]], Result],
    *,
    quiet: bool = False,
    as_json: bool = False,
) -> None:
    """Search, write the report, and say what was found on the standard output, where nothing else is if it is piped.

    Parameters
    ----------
    folder, settings, facts : of the run.
    search : is given a listener, and gives the result.
    quiet : whether nothing is said of how the search stands.
    as_json : whether the result is one JSON document.

    Raises
    ------
    typer.Exit : on Ctrl-C, after a word on what is kept.
    """
    import optuna
    import torch

    from search.report import write

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(settings.threads)
    console, last = told(quiet=quiet, as_json=as_json), list["Event"]()
    try:
        with progress.shown(console, facts, settings.recipe.epochs) as listen:

            def on_event(event: Event) -> None:
                last[:] = [event]
                listen(event)

            result = search(on_event)
        if result.records:
            write(folder)
    except KeyboardInterrupt:
        print(progress.stopped(folder, last[-1] if last else None), file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print_json(document(result))
    else:
        results = progress.terminal()
        results.print(progress.ending(result, results.width))


def document(result: Result) -> dict[str, Any]:
    """What was found, as values that JSON can hold: ``null`` for a number that is not there.

    ``winner`` is the first row of the leaderboard, and ``null`` where not one trial ended with a finite loss.
    """
    rows = [_row(row, result.facts) for row in result.rows]
    return {
        "folder": str(result.folder),
        "data": result.facts.name,
        "task": result.facts.task,
        "score": result.facts.score,
        "objectives": list(result.settings.objectives),
        "trials": len(result.records),
        "seconds": result.elapsed,
        "winner": rows[0] if rows else None,
        "leaderboard": rows,
    }


def print_json(content: Any) -> None:
    """Print one JSON document on the standard output."""
    print(json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False))


def _row(row: Row, facts: Facts) -> dict[str, Any]:
    architecture = None if row.point is None else row.point.describe(facts.shape)
    point = None if row.point is None else row.point.to_dict()
    return {**asdict(row), "point": point, "architecture": architecture}


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
