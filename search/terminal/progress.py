"""What a search shows on the terminal: its data and space, how it stands, the leaderboard."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.graph.point import GraphPoint
from search.graph.space import GraphSpace
from search.numbers import counted
from search.objectives import UNITS
from search.one_of import OneOf
from search.run import BEST, LEDGER, Facts, Row, Settings, resuming
from search.space import Space

if TYPE_CHECKING:
    from search.study import Event, Result

WIDTH = 80  # nothing is wider, however wide the terminal
BLOCKS = 16  # nor are the widths of a network's blocks, which go on in the next line
LABEL = "cyan"
GONE = "waiting for the database, which can not be reached; nothing is lost, and up to 10 minutes are fine"


def terminal(*, stderr: bool = False, quiet: bool = False) -> Console:
    """The standard output, or that of errors, at most 80 columns wide; numbers are not coloured. Quiet: nothing."""
    console = Console(highlight=False, stderr=stderr, quiet=quiet)
    console.width = min(console.width, WIDTH)
    return console


def labelled(lines: Iterable[tuple[str, RenderableType]]) -> Table:
    """Lines with a label in front; strings are shown as they are, brackets and all."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style=LABEL, min_width=9)
    table.add_column(overflow="fold")
    for label, content in lines:
        table.add_row(label, Text(content) if isinstance(content, str) else content)
    return table


def heading(settings: Settings, facts: Facts, note: str = "") -> Group:
    """What the data are, what is searched, and for how long; and a note on that."""
    return Group(known(settings, facts), planned(settings, note))


def known(settings: Settings, facts: Facts) -> Table:
    """What the data are and what is searched: what can be said before anything takes its time."""
    spaces = settings.space.spaces if isinstance(settings.space, OneOf) else (settings.space,)
    return labelled(
        [
            *zip(("data", *[""] * len(facts.lines)), facts.lines, strict=False),
            *zip(("space", *[""] * len(spaces)), map(_said, spaces), strict=False),
            ("", _counted(facts)),
        ]
    )


def planned(settings: Settings, note: str = "") -> Table:
    """How it is searched, and for how long; and a note on that."""
    limits = [counted(settings.trials, "trial")] if settings.trials is not None else []
    limits += [f"{settings.seconds:g} s"] if settings.seconds is not None else []
    return labelled(
        [
            (
                "search",
                f"{settings.strategy}, {' or '.join(limits)}, {settings.population} candidates at a time"
                f"{_by(settings)}, seed {settings.seed}",
            ),
            *[("", wish) for wish in (_limited(settings), _trained(settings), note) if wish],
        ]
    )


def _by(settings: Settings) -> str:
    """Who trains them, if others do."""
    return "" if settings.workers is None else f" by each of {counted(settings.workers, 'worker')}"


def _limited(settings: Settings) -> str:
    """What is made small beside the loss, and the constraints."""
    large = [f"large: {', '.join(settings.maximize)}"] if settings.maximize else []
    names = ", ".join(name for name in settings.objectives if name not in settings.maximize)
    small = [f"small: {names}"] if names not in ("loss", "") else []
    return "; ".join([*small, *large, *(f"{name} at most {most:,.10g}" for name, most in settings.constraints.items())])


def _trained(settings: Settings) -> str:
    """How long a candidate is trained."""
    recipe = settings.recipe
    halved = f", halved after {', '.join(map(str, recipe.rungs))}" if recipe.rungs else ""
    folds = f", on {counted(settings.folds, 'fold')}" if settings.folds > 1 else ""
    return f"each trained for {counted(recipe.epochs, 'epoch')}{halved}{folds}"


@contextmanager
def shown(console: Console, facts: Facts, epochs: int) -> Iterator[Callable[[Event], None]]:
    """A listener for a search: a few lines that stay in place, or on anything but a terminal a line a generation."""
    if not console.is_terminal:
        yield lambda event: _print_generation(console, event, facts)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda event: live.update(_status(event, facts, epochs))


def _then(result: Result) -> str:
    """What to type next: of rows of one's own there are more to be answered."""
    if Path(result.settings.source).suffix and not result.facts.objective:
        space = [] if result.settings.graph is None else ["--space", result.settings.graph]
        return shlex.join(["machgraph", "predict", str(result.folder), "NEW.csv", *space])
    return shlex.join(["machgraph", "show", str(result.folder)])


def ending(result: Result, width: int = WIDTH) -> RenderableType:
    """What was found, where it is, and what to type next, in so many columns."""
    folder, winner = result.folder, next(iter(result.rows), None)
    known = sum(record.duplicate_of is not None for record in result.records)
    failed = sum(record.status == "diverged" for record in result.records)
    counts = f"{len(result.records)} in {_duration(result.elapsed)}"
    counts += f", {known} of them known from an earlier one" if known else ""
    counts += f", {failed} diverged" if failed else ""
    counts += f"; {result.reason}, so the search is at its end" if result.reason else ""
    if winner is None or winner.point is None:
        reason = next((f"; the first had failed: {one.reason}" for one in result.records if one.reason), "")
        none = f"none: not one trial ended with a finite loss{reason}"
        told = labelled([("trials", counts), ("best", none), ("report", str(folder / "report.html"))])
        return Group(told, Text(f"\nnext: {resuming(folder)} --trials 50"))
    words = winner.point.describe(result.facts.shape)
    return Group(
        labelled([("trials", counts), ("winner", Text(words, style="bold"))]),
        Text(),
        leaderboard(result.rows, result.facts, width),
        *([] if result.facts.objective else [Text(), footnotes(result.rows, result.facts.looks)]),
        Text(),
        labelled(
            [("report", str(folder / "report.html")), ("machine", str(folder / BEST)), ("ledger", str(folder / LEDGER))]
        ),
        Text(f"\nnext: {_then(result)}"),
    )


def stopped(folder: Path, event: Event | None) -> str:
    """What Ctrl-C left, and how to go on."""
    go_on = f"Go on with: {resuming(folder)}"
    if event is None:
        return f"Stopped before the first trial.\n{go_on}"
    are = "is" if event.done == 1 else "are"
    if event.stage == "rivals":
        return (
            f"Stopped: all {counted(event.done, 'trial')} {are} kept in {folder}, the leaderboard is not done.\n{go_on}"
        )
    lost = f"the {event.size} in training are lost" if event.size else "none was in training"
    return f"Stopped: {counted(event.done, 'trial')} {are} kept in {folder}, {lost}.\n{go_on}"


def leaderboard(rows: Sequence[Row], facts: Facts, width: int = WIDTH) -> RenderableType:
    """The rows as a table; what is least needed is left out where the width has no room for it."""
    score = "acc." if facts.task == "classification" else facts.score
    columns = {
        "name": "",
        "blocks": "\nmachines" if any(isinstance(row.point, GraphPoint) for row in rows) else "hidden\nblocks",
        "cuts": "short-\ncuts",
        "loss": "valid.\nloss",
        "score": f"\n{score}" if facts.objective else f"valid.\n{score}",
        "test": f"test\n{score}",
        "sd": "\n±",
        "depth": "\ndepth",
        "parameters": "para-\nmeters",
        "flops": "\nFLOPs",
        "seconds": "train\ns",
    }
    lines = [dict(zip(columns, _cells(row), strict=True)) for row in rows]
    if not any(line["cuts"] for line in lines):  # machines of a graph have none
        columns.pop("cuts")
    if facts.objective:  # there are no data
        columns = {name: title for name, title in columns.items() if name not in ("loss", "test", "sd")}
    others = {name for row in rows for name in row.measures} - {*columns, facts.objective}
    for name in sorted(others):
        columns[name] = f"{UNITS.get(name, '')}\n{name}"
        lines = [{**line, name: _figure(row.measures.get(name))} for line, row in zip(lines, rows, strict=True)]
    sizes = {
        name: max(len(text) for cell in (title, *(line[name] for line in lines)) for text in cell.split("\n"))
        for name, title in columns.items()
    }
    sizes["blocks"] = min(sizes["blocks"], BLOCKS)
    for name in ("seconds", "flops", "cuts", "depth", "sd", "loss", "parameters"):
        if name in sizes and sum(sizes.values()) + len(sizes) - 1 > width:
            del sizes[name]
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0, header_style=LABEL)
    for name in sizes:
        if name == "blocks":
            table.add_column(columns[name], overflow="fold", max_width=BLOCKS)
        else:
            table.add_column(columns[name], justify="left" if name == "name" else "right", no_wrap=True)
    for i, (row, line) in enumerate(zip(rows, lines, strict=True)):
        after = i + 1 < len(rows) and row.trial is not None and rows[i + 1].trial is None
        table.add_row(*(line[name] for name in sizes), style="bold" if i == 0 else "", end_section=after)
    return table


def footnotes(rows: Sequence[Row], looks: str = "") -> Text:
    """What the rivals are, and how often the held-out part was looked at, if more than once."""
    several = "mean ± standard deviation over initial weights"
    together = any(row.name == "ensemble" for row in rows)
    lines = [
        "test: held-out data, looked at for the winner and its rivals alone; trained on all the rest, "
        f"{several if any(row.test_sd is not None for row in rows) else 'once each'}."
        f"{' ensemble: the winner and those below it together.' if together else ''}"
        f"{f' The held-out data were {looks}.' if looks else ''}"
    ]
    if any(row.trial is None for row in rows):
        kinds = {row.name.partition(" ")[0]: row.name for row in rows if row.trial is None}
        number = re.search(r"median of (\d+)", kinds.get("random", ""))
        drawn = f"the middle one, by validation loss, of {number[1]} uniform draws" if number else "a uniform draw"
        few = re.search(r"of ([\d,]+) rows", kinds.get("scikit-learn", ""))
        fitted = f", fitted to {few[1]} rows, for which there was time" if few else ""
        plain = (
            "plain: blocks in a row, as near as can be to the winner in number of parameters. "
            if any(row.name.startswith("plain") for row in rows)
            else ""
        )
        lines.append(
            f"random: {drawn} from the space. {plain}"
            "Trained by the same recipe, unhalved. scikit-learn: the best, on validation, of a linear model, trees and "
            f"an SVM{fitted}. Their validation is on one fold alone."
        )
    return Text("\n".join(lines), style="dim")


def _cells(row: Row) -> list[str]:
    point = row.point
    if isinstance(point, GraphPoint):
        blocks, cuts = str(len(point.machines)), ""
    elif point:
        blocks = "-".join(map(str, point.widths)) or "none"
        cuts = str(sum(edge for o, heard in enumerate(point.shortcuts) for edge in heard[: max(0, o - 1)]))
    else:
        blocks = cuts = ""
    numbers = row.depth, row.parameters, row.flops  # none of which a rival from elsewhere has
    return [
        row.name.split(" (")[0], blocks, cuts, *map(_number, (row.loss, row.score, row.test_score)),
        _number(row.test_sd).removeprefix("0"), *(_short(n) if n else "" for n in numbers),
        f"{row.seconds:.{1 if row.seconds >= 1 else 2}f}",
    ]  # fmt: skip


def _status(event: Event, facts: Facts, epochs: int) -> RenderableType:
    share, left = _share(event)
    bar = Table.grid(padding=(0, 2, 0, 0))
    count = f"{event.done} of {event.trials}" if event.trials is not None else f"{event.done} done"
    bar.add_row(count, ProgressBar(1.0, share, width=34, complete_style=LABEL, finished_style=LABEL), left)
    epoch = f", epoch {event.epoch} of {epochs}" if event.epoch else ""
    now = {
        "proposing": "choosing what to try next",
        "training": f"training {counted(event.running, 'candidate')}{epoch}",
        "storing": "storing",
        "waiting": GONE,
        "rivals": "training the winner's rivals",
    }[event.stage]
    lost = [("lost", _lost(event))] if event.lost else []
    return Group(labelled([("trials", bar), ("best", _best(event, facts)), ("now", Text(now, style="dim")), *lost]))


def _lost(event: Event) -> str:
    return f"{counted(event.lost, 'worker')} died; others train what was theirs"


def _share(event: Event) -> tuple[float, str]:
    """How much is done, and how long the rest may take."""
    if event.stage == "rivals":
        return 1.0, ""
    shares = [event.done / event.trials] if event.trials is not None else []
    left = [event.elapsed / share - event.elapsed for share in shares if share]
    if event.seconds is not None:
        shares.append(event.elapsed / event.seconds)
        left.append(event.seconds - event.elapsed)
    return min(1.0, max(shares)), f"{_duration(max(0.0, min(left)))} left" if left else ""


def _best(event: Event, facts: Facts) -> Text:
    if event.best is None:
        return Text("none yet", style="dim")
    words = event.best.canonical.describe(facts.shape)
    score = f"{facts.score} {event.best.score:.4f}"
    loss = "" if facts.objective else f" · loss {event.best.loss:.4f}"
    return Text.assemble((score, "bold green"), f"{loss} · trial {event.best.number}\n", words)


def _print_generation(console: Console, event: Event, facts: Facts) -> None:
    if event.stage == "storing":
        best = _best(event, facts).plain.replace("\n", " · ")
        lost = f" ({_lost(event)})" if event.lost else ""
        console.print(
            f"{counted(event.done, 'trial')}, {event.elapsed:.1f} s, best so far: {best}{lost}", soft_wrap=True
        )
    elif event.stage == "waiting":
        console.print(GONE)
    elif event.stage == "rivals":
        console.print("training the winner's rivals")


def _said(space: Space | GraphSpace) -> str:
    """
    >>> _said(Space(activations=("relu",)))
    'up to 4 hidden blocks of 16, 32 or 64 units, relu, any shortcuts'
    >>> _said(Space(2, (8,), ("tanh",), kind="recurrence", lags=(1, 2), density=(0, 0.5)))
    'up to 2 hidden blocks of 8 units, tanh, any shortcuts, 0% to 50% of these, any recurrences up to lag 1 or 2'
    >>> _said(Space(1, (8,), ("tanh",), min_blocks=1, shortcuts=((0, 0, 0), (1, 0, 0), (1, 1, 0))))
    '1 hidden block of 8 units, tanh, shortcuts as given'
    """
    if isinstance(space, GraphSpace):
        return space.describe()
    unit, kernel = "units", ""
    if space.kind == "convolution":
        unit, kernel = "channels", f"kernels of {_either(space.kernels)}, "
        kernel += f"pooled up to {counted(space.heads[-1], 'time')}, " if space.heads[-1] else ""
    shortcuts = {"free": "any shortcuts", "all": "all shortcuts", "sequential": "no shortcuts"}.get(
        space.shortcuts if isinstance(space.shortcuts, str) else "", "shortcuts as given"
    )
    if space.max_span:
        shortcuts = f"shortcuts over up to {counted(space.max_span, 'block')}"
    if space.density:
        shortcuts += ", {:.0%} to {:.0%} of these".format(*space.density)
    if space.kind == "recurrence":
        past = {"free": "any recurrences", "all": "all recurrences", "own": "each with its own past"}[space.recurrences]
        shortcuts += f", {past} up to lag {_either(space.lags)}"
    return f"{_hidden(space)} of {_either(space.widths)} {unit}, {_either(space.activations)}, {kernel}{shortcuts}"


def _counted(facts: Facts) -> str:
    different = f", of which {facts.architectures:,} are different" if facts.architectures is not None else ""
    return "points that can't be counted" if facts.points is None else f"{facts.points:,} points{different}"


def _hidden(space: Space) -> str:
    """How many hidden blocks a point has.

    >>> _hidden(Space(4)), _hidden(Space(4, min_blocks=2)), _hidden(Space(1, min_blocks=1)), _hidden(Space(1))
    ('up to 4 hidden blocks', '2 to 4 hidden blocks', '1 hidden block', 'up to 1 hidden block')
    """
    most = counted(space.max_blocks, "hidden block")
    if space.min_blocks == space.max_blocks:
        return most
    return f"{space.min_blocks} to {most}" if space.min_blocks else f"up to {most}"


def _either(choices: Sequence[object]) -> str:
    *some, last = map(str, choices)
    return f"{', '.join(some)} or {last}" if some else last


def _number(value: float | None) -> str:
    """
    >>> _number(-0.25), _number(-1490250112.0), _number(None)
    ('-0.2500', '-1.5e+09', '')
    """
    return "" if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:.1e}"


def _figure(value: float | None) -> str:
    """In three digits.

    >>> _figure(0.01234), _figure(1234.0), _figure(None)
    ('0.0123', '1.23e+03', '')
    """
    return "" if value is None else f"{value:.3g}"


def _short(value: int) -> str:
    """In at most five characters.

    >>> _short(999), _short(15898), _short(2_500_000)
    ('999', '15.9k', '2.5M')
    """
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return str(value)


def _duration(seconds: float) -> str:
    """
    >>> _duration(8.4), _duration(75), _duration(7200)
    ('8 s', '1 min 15 s', '2 h 0 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
