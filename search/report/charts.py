"""The charts of a report: the history of a search, its learning curves, and what a lower loss costs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from search.facts import Facts
from search.numbers import counted, grouped, loss_text
from search.objectives import UNITS, fronts, sizes
from search.record import Record, Row, Settings
from search.report.colours import STATUSES
from search.report.scales import Scale, bends, cost_scale, count_scale, dots, loss_scale, polyline, stairs
from search.report.wording import loss_name
from search.strategies.evolution import POPULATION

CURVES = 10  # that have a name
CHARACTER = 20  # of 1000, the width of a digit on the narrowest page
FAINT, BENDS = 200, 40  # of the others, and points of each: so that a page of many trials stays small
BEGINNINGS: Mapping[str, int] = {"evolution": POPULATION, "tpe": 10, "nsga2": 16}  # until a strategy goes by earlier


def scale_data(field: str, scale: Scale) -> dict[str, Any]:
    """What the page's script needs to find a trial's place by a field of it."""
    return {"field": field, **asdict(scale)}


def ticks(scale: Scale) -> list[tuple[float, str]]:
    """Places and labels."""
    return [(scale(tick), _number(tick)) for tick in scale.ticks]


def _number(value: float) -> str:
    """
    >>> _number(0.05), _number(2000), _number(1_500_000), _number(1e-7)
    ('0.05', '2,000', '1.5M', '1e-07')
    """
    for unit, size, least in (("G", 1e9, 1e9), ("M", 1e6, 1e6), ("k", 1e3, 1e4)):
        if abs(value) >= least:
            return f"{value / size:g}{unit}"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def thinned(places: Sequence[tuple[float, str]], apart: float = 75.0) -> list[tuple[float, str]]:
    """The labels that have room beside each other on a narrow page, the first of those that have not.

    >>> thinned([(0, "a"), (50, "b"), (100, "c")])
    [(0, 'a'), (100, 'c')]
    >>> thinned([(0, "1,000"), (100, "2,000"), (220, "5,000")])
    [(0, '1,000'), (220, '5,000')]
    """
    kept: list[tuple[float, str]] = []
    for place, label in sorted(places):
        if not kept or place - kept[-1][0] >= max(apart, 20 + CHARACTER / 2 * len(kept[-1][1] + label)):
            kept.append((place, label))
    return kept


# --- history ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """The loss of every trial by its number, the best so far, and what chance alone finds."""

    x: Scale
    y: Scale
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    dots: list[tuple[int, str]]
    best: str
    chance: float | None
    chance_name: str
    says: str


def chance(settings: Settings, records: Sequence[Record], random: Row | None) -> tuple[float, str, str] | None:
    """A loss that no search is needed for, what it is called, and where it comes from.

    It is the random architecture's of the leaderboard, which is trained and validated as a finalist is; before there is
    one, the middle one of the run's own beginnings, which its strategy had drawn before it knew any result.
    """
    if random is not None and random.loss is not None:
        said = "drawn at random from the space and trained like a finalist: what no search at all comes to"
        return random.loss, random.name, said
    first = BEGINNINGS.get(settings.strategy, len(records) if settings.strategy == "random" else 0)
    losses = sorted(record.loss for record in records[:first] if record.is_valid and record.duplicate_of is None)
    if len(losses) < 3:
        return None
    said = "which were drawn before any result was known; some of them ended early"
    return losses[len(losses) // 2], f"median of the first {min(first, len(records))} trials", said


def history(settings: Settings, facts: Facts, records: Sequence[Record], random: Row | None) -> History:
    """The chart of all trials."""
    known = chance(settings, records, random)
    x = count_scale(0, max((record.number for record in records), default=0))
    y = loss_scale([record.loss for record in records if record.is_valid] + ([known[0]] if known else []))
    steps: list[tuple[float, float]] = []
    best, improved = math.inf, 0
    for record in records:
        if record.is_valid and record.loss < best:
            best, improved = record.loss, record.number
            steps.append((x(record.number), y(best)))
    name, number = loss_name(settings, facts), grouped(len(records))
    says = f"The best {name}, {loss_text(best)}, was found in trial {improved} of {number}."
    if known:
        says += f" Dashed: {known[1]}, {loss_text(known[0])}, {known[2]}."
    groups = [
        (i, dots((x(record.number), y(shown(record))) for record in records if record.status == status))
        for i, status in enumerate(STATUSES)
    ]
    return History(
        x=x,
        y=y,
        x_ticks=thinned(ticks(x)),
        y_ticks=ticks(y),
        dots=groups,
        best=stairs([*steps, (1000.0, steps[-1][1])]) if steps else "",
        chance=y(known[0]) if known else None,
        chance_name=known[1] if known else "",
        says=says if steps else "No trial has ended well yet.",
    )


def shown(record: Record) -> float:
    """Its loss; infinite, which is the upper edge, where it has none."""
    return record.loss if record.is_valid else math.inf


# --- learning curves -------------------------------------------------------------------------------------------------


def curves(facts: Facts, records: Sequence[Record], winner: Record | None) -> dict[str, Any]:
    """The curves of the winner and the best by name, and those of the others, faint."""
    trained = [record for record in records if record.is_valid and len(record.curve) > 1]
    ranked = sorted(trained, key=lambda record: (record is not winner, record.loss, record.number))
    best, others = ranked[:CURVES], ranked[CURVES:]
    faint = [others[i * len(others) // min(FAINT, len(others))] for i in range(min(FAINT, len(others)))]
    x = count_scale(1, max((len(record.curve) for record in best), default=1))
    y = loss_scale((loss for record in best for loss in record.curve), share=1.0)
    lines = []
    for record in best:
        path = polyline((x(epoch), y(loss)) for epoch, loss in enumerate(record.curve, 1))
        network = record.canonical.describe(facts.shape)
        label = f"Trial {record.number}{' (winner)' * (record is winner)}: {loss_text(record.loss)} · {network}"
        lines.append({"trial": record.number, "path": path, "label": label, "winner": record is winner})
    rest = [_within(record.curve, x, y) for record in faint]
    says = f"Named: {'the best ' + str(len(lines)) if len(lines) > 1 else 'the only one'}."
    if faint:
        some = "" if len(faint) == len(others) else f" of {grouped(len(others))}, evenly by their loss"
        says += f" Faint: {counted(len(faint), 'other')}{some}."
    return {
        "lines": lines,
        "faint": "".join(rest),
        "x_ticks": thinned(ticks(x)),
        "y_ticks": ticks(y),
        "says": says,
    }


def _within(curve: Sequence[float], x: Scale, y: Scale) -> str:
    """The stretches of a curve that are on the scale."""
    stretches: list[list[tuple[float, float]]] = [[]]
    for epoch, loss in enumerate(curve, 1):
        if y.low <= loss <= y.high and epoch <= x.high:
            stretches[-1].append((x(epoch), y(loss)))
        elif stretches[-1]:
            stretches.append([])
    return "".join(bends(stretch, BENDS) for stretch in stretches if len(stretch) > 1)


# --- loss against cost -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tradeoff:
    """Two numbers of every trial against each other, and the front: what none surpasses in both.

    Parameters
    ----------
    points, best : the numbers of each trial that was trained, as they are; those on the front.
    chain : numbers along the line of the front, where there are two objectives, or one and its cost.
    dots, front, line : the same as SVG paths.
    """

    points: tuple[tuple[float, float], ...]
    best: tuple[tuple[float, float], ...]
    chain: tuple[tuple[float, float], ...]
    field: str
    y_field: str
    title: str
    y_title: str
    x: Scale
    y: Scale
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    dots: str
    front: str
    line: str
    says: str


def tradeoffs(settings: Settings, facts: Facts, records: Sequence[Record]) -> list[Tradeoff]:
    """The first objective against each of the others; of a single one, the loss against parameters and FLOPs."""
    y_name, *others = settings.objectives
    if "loss" in others:
        y_name, others = "loss", [name for name in settings.objectives if name != "loss"]
    single = not others
    valid = [record for record in records if record.is_valid and record.duplicate_of is None]
    get = {name: _getter(name, facts) for name in (y_name, *(others or ("parameters", "flops")))}
    best: set[int] = set()
    if not single and valid:
        places = fronts([record.values(settings.objectives, settings.maximize) for record in valid])
        best = {record.number for record, place in zip(valid, places, strict=True) if place == 0}
    charts = []
    for name in others or ("parameters", "flops"):
        signs = [-1 if one in settings.maximize else 1 for one in (name, y_name)]
        pairs = {record.number: (get[name](record), get[y_name](record)) for record in valid}
        pairs = {number: pair for number, pair in pairs.items() if all(map(math.isfinite, pair))}
        if not pairs:
            continue
        flat = surpassed_by_none(pairs, signs)
        front = set(flat) if len(settings.objectives) < 3 else best & set(pairs)
        charts.append(_tradeoff(settings, facts, name, y_name, pairs, front, flat))
    return charts


def _tradeoff(
    settings: Settings,
    facts: Facts,
    name: str,
    y_name: str,
    pairs: Mapping[int, tuple[float, float]],
    front: set[int],
    flat: Sequence[int],
) -> Tradeoff:
    share = 1.0 if y_name in settings.maximize else 0.97  # what may be off the scale is what is bad
    x, y = cost_scale(a for a, _ in pairs.values()), loss_scale((b for _, b in pairs.values()), share)
    points = {number: (x(a), y(b)) for number, (a, b) in pairs.items()}
    # of more objectives the front is no line; and what is off the scale would be a false step
    along = [] if len(settings.objectives) > 2 else [number for number in flat if points[number][1] > 0]
    end = 0.0 if name in settings.maximize else 1000.0
    line = [points[number] for number in along]
    sets = f"of {counted(len(pairs), 'network')}, {grouped(len(front))} on the front"
    if len(settings.objectives) > 2:
        why = f"no other is as good in all of {', '.join(settings.objectives)} and better in one"
    else:
        why = "no other is as good in both and better in one"
    return Tradeoff(
        points=tuple(pairs.values()),
        best=tuple(pair for number, pair in pairs.items() if number in front),
        chain=tuple(pairs[number] for number in along),
        field=name,
        y_field=y_name,
        title=axis_title(name, settings, facts),
        y_title=axis_title(y_name, settings, facts),
        x=x,
        y=y,
        x_ticks=thinned(ticks(x), 90.0),
        y_ticks=ticks(y),
        dots=dots(point for number, point in points.items() if number not in front),
        front=dots(points[number] for number in front),
        line=stairs([*line, (end, line[-1][1])]) if line else "",
        says=f"{sets[0].upper()}{sets[1:]}: {why}.",
    )


def axis_title(name: str, settings: Settings, facts: Facts) -> str:
    """What an axis shows, and which end is the good one."""
    unit = f" in {UNITS[name]}" if UNITS.get(name) else ""
    word = {"loss": "validation loss", "flops": "FLOPs a sample"}.get(name, name)
    return f"{word}{unit} ({'larger' if name in settings.maximize else 'smaller'} is better)"


def surpassed_by_none(pairs: Mapping[int, tuple[float, float]], signs: Sequence[int]) -> list[int]:
    """Of points by number those on the front of both coordinates, from the best of the first to its worst.

    Parameters
    ----------
    signs : 1 for a coordinate that is to be small, -1 for one that is to be large.

    Examples
    --------
    >>> surpassed_by_none({0: (1, 5), 1: (2, 2), 2: (3, 3), 3: (5, 1)}, (1, 1))
    [0, 1, 3]
    >>> surpassed_by_none({0: (1, 5), 1: (2, 2), 2: (3, 3), 3: (5, 1)}, (-1, 1))
    [3]
    """
    found, least = [], math.inf
    for (a, b), number in sorted(((signs[0] * a, signs[1] * b), number) for number, (a, b) in pairs.items()):
        if b < least:
            found.append(number)
            least, last = b, (a, b)
        elif (a, b) == last:
            found.append(number)
    return found


def _getter(name: str, facts: Facts) -> Callable[[Record], float]:
    """A number of a record by the name of the objective."""
    if name == "loss":
        return lambda record: record.loss
    exact: Mapping[str, Callable[[Record], float]] = {
        name: lambda record, name=name: sizes(record.canonical, facts.shape, record.measures)[name]  # type: ignore[misc]
        for name in ("parameters", "flops", "depth")
    }
    return lambda record: record.measures[name] if name in record.measures else exact[name](record)
