"""What becomes of a trial: its record, and what the strategy is told of it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from search.isomorphism.canonical import canonical
from search.objectives import excess
from search.point import AnyPoint
from search.population import Outcome
from search.record import Record, Settings

WORSE = 1e9  # than any loss


def value(record: Record, settings: Settings) -> tuple[float, ...] | None:
    """What the strategy is told of a trial: of one that exceeds a constraint, that it is worse than all that do not."""
    if record.is_valid:
        return record.values(settings.objectives, settings.maximize)
    over = excess(record.measures, settings.constraints)
    return (WORSE * (1 + over),) * len(settings.objectives) if over else None


def costs(found: Mapping[str, float], settings: Settings) -> tuple[float, ...]:
    """What halving makes small beside the loss: the measures among the objectives, those to be large negated."""
    known = [name for name in settings.objectives if name in found]
    return tuple(-found[name] if name in settings.maximize else found[name] for name in known)


def trained(
    number: int, keyed: str, point: AnyPoint, outcome: Outcome, found: Mapping[str, float], wish: Iterable[str]
) -> Record:
    """Of a point that was trained, with what else was ``found`` of it; one that lacks a measure of the wish failed."""
    if outcome.status != "failed" and (lacking := [name for name in wish if name not in found]):
        reason = f"no {' and '.join(lacking)} could be measured, as its machines do not fit each other or the inputs"
        outcome = replace(outcome, status="failed", loss=math.nan, score=math.nan, reason=reason)
    return Record(
        number, keyed, point, canonical(point), outcome.status, outcome.epochs, outcome.loss, outcome.score,
        outcome.seconds, None, outcome.curve, {**found, **outcome.measures}, outcome.reason,
    )  # fmt: skip


def infeasible(number: int, keyed: str, point: AnyPoint, found: Mapping[str, float]) -> Record:
    """Of a point that exceeds a constraint, and was not trained."""
    return Record(number, keyed, point, canonical(point), "infeasible", 0, math.nan, math.nan, 0.0, None, (), found)


def duplicate(number: int, point: AnyPoint, known: Record) -> Record:
    """What is known of a point that has been trained: a result, unless it diverged."""
    if not known.is_valid:
        known = replace(known, loss=math.nan, score=math.nan)
    same = {"duplicate_of": known.number, "status": "duplicate", "epochs": 0, "seconds": 0.0, "curve": ()}
    return replace(known, number=number, point=point, canonical=canonical(point), **same)  # type: ignore[arg-type]
