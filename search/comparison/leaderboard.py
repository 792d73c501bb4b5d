"""The leaderboard: the best architectures that a search found, a row for each."""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from statistics import fmean, stdev

from search.facts import Facts
from search.objectives import order, sizes
from search.point import AnyPoint, architecture
from search.population import Outcome
from search.record import Record, Row, Settings

NAMES = ("winner", "second", "third", "fourth", "fifth")


def ranking(records: Iterable[Record], settings: Settings) -> list[Record]:
    """The best record of each architecture, by validation loss; the earlier where two are equal.

    With several objectives the first are those of the front, then those of the front without them, and so on; each
    front is sorted by the first objective.
    """
    valid = [record for record in records if record.is_valid and record.duplicate_of is None]
    if not valid:
        return []
    first: dict[tuple[object, ...], Record] = {}
    for i in order([record.values(settings.objectives, settings.maximize) for record in valid]):
        first.setdefault(architecture(valid[i].canonical), valid[i])
    return list(first.values())


def best(records: Sequence[Record], settings: Settings) -> Record | None:
    """The record of the winner so far."""
    return next(iter(ranking(records, settings)), None)


def places(number: int) -> list[str]:
    """What the first so many are called.

    >>> places(7)
    ['winner', 'second', 'third', 'fourth', 'fifth', '6th', '7th']
    """
    return [*NAMES, *(f"{place}th" for place in range(len(NAMES) + 1, number + 1))][:number]


def found(records: Iterable[Record], facts: Facts, settings: Settings) -> list[Row]:
    """The rows of the best architectures so far; the held-out part is not looked at."""
    return [
        row(name, record.canonical, [record], facts, record.measures, trial=record.number, folds=settings.folds)
        for name, record in zip(NAMES, ranking(records, settings), strict=False)
    ]


def row(
    name: str,
    point: AnyPoint,
    results: Sequence[Record | Outcome],
    facts: Facts,
    measures: Mapping[str, float],
    trial: int | None = None,
    folds: int = 1,
) -> Row:
    """The row of one architecture, without the held-out part: means over its results, each on so many folds."""
    losses, size = [result.loss for result in results], sizes(point, facts.shape, measures)
    return Row(
        name, trial, point, fmean(losses), fmean(result.score for result in results), None, None,
        size["depth"], size["parameters"], size["flops"],
        fmean(result.seconds for result in results) / folds, loss_sd=spread(losses), measures=measures,
    )  # fmt: skip


def spread(values: Sequence[float]) -> float | None:
    """Their standard deviation; ``None`` of a single one, or where one of them is not finite."""
    return stdev(values) if len(values) > 1 and all(map(isfinite, values)) else None
