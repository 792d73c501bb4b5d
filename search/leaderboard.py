"""The leaderboard: the best architectures that a search found, a row for each."""

from collections.abc import Iterable, Sequence
from math import isfinite
from statistics import fmean, stdev

from search.facts import Facts
from search.point import ARCHITECTURE, Point
from search.population import Outcome
from search.record import Record, Row

NAMES = ("winner", "second", "third", "fourth", "fifth")


def ranking(records: Iterable[Record]) -> list[Record]:
    """The best record of each architecture, by validation loss; the earlier where two are equal."""
    valid = [record for record in records if record.is_valid and record.duplicate_of is None]
    first: dict[tuple[object, ...], Record] = {}
    for record in sorted(valid, key=lambda record: (record.loss, record.number)):
        first.setdefault(tuple(getattr(record.canonical, name) for name in ARCHITECTURE), record)
    return list(first.values())


def best(records: Sequence[Record]) -> Record | None:
    """The record of the winner so far."""
    return next(iter(ranking(records)), None)


def found(records: Iterable[Record], facts: Facts) -> list[Row]:
    """The rows of the best architectures so far; the held-out part is not looked at."""
    return [
        row(name, record.canonical, [record], facts, trial=record.number)
        for name, record in zip(NAMES, ranking(records), strict=False)
    ]


def row(name: str, point: Point, results: Sequence[Record | Outcome], facts: Facts, trial: int | None = None) -> Row:
    """The row of one architecture, without the held-out part: means over its results."""
    losses = [result.loss for result in results]
    return Row(
        name, trial, point, fmean(losses), fmean(result.score for result in results), None, None,
        point.depth, point.parameters(facts.shape), point.flops(facts.shape),
        fmean(result.seconds for result in results), loss_sd=spread(losses),
    )  # fmt: skip


def spread(values: Sequence[float]) -> float | None:
    """Their standard deviation; ``None`` of a single one, or where one of them is not finite."""
    return stdev(values) if len(values) > 1 and all(map(isfinite, values)) else None
