"""Which architectures the end of a search compares, and how thoroughly: as there is time for."""

from collections import Counter
from collections.abc import Hashable, Sequence
from statistics import fmean
from typing import NamedTuple

from search.objectives import along, fronts
from search.point import Point
from search.population import cores
from search.record import Record, Settings

FOLDS = 5  # at least, where there is time
DRAWS = 5  # an odd number: the median is one of them
SHARE = 0.5  # of the time of the search, that its end may take


class Effort(NamedTuple):
    """So many finalists, trained from so many initial weights on so many folds, beside so many random draws."""

    finalists: int
    seeds: int
    folds: int
    draws: int


STEPS = (  # from thorough to quick
    Effort(5, 3, FOLDS, DRAWS), Effort(4, 2, FOLDS, DRAWS), Effort(4, 1, FOLDS, DRAWS), Effort(3, 1, FOLDS, DRAWS),
    Effort(3, 1, FOLDS, 1), Effort(2, 1, FOLDS, 1), Effort(2, 1, 3, 1), Effort(1, 1, 1, 1),
)  # fmt: skip


def front(best: Sequence[Record], settings: Settings) -> Sequence[Record]:
    """With several objectives some of the front that are spread over it, in place of all records."""
    if len(settings.objectives) == 1:
        return best
    values = [record.values(settings.objectives, settings.maximize) for record in best]
    first = [record for record, place in zip(best, fronts(values), strict=True) if place == 0]
    return [first[i] for i in along(settings.finalists, len(first))]


def chosen(best: Sequence[Record], number: int) -> list[Record]:
    """The finalists, best first: of each kind of machine as many, and with other widths each, while there are.

    The best of a search are often one network with a shortcut more or less. Others make a comparison of more worth,
    and an ensemble that errs less.
    """
    points = [record.canonical for record in best]
    again = _earlier([(p.kind, p.widths if isinstance(p, Point) else p) for p in points])
    places = sorted(range(len(best)), key=lambda i: (again[i], i))
    turns = dict(zip(places, _earlier([points[i].kind for i in places]), strict=True))
    first = sorted(places, key=lambda i: (turns[i], i))[:number]
    return [best[i] for i in sorted(first)]


def affordable(best: Sequence[Record], settings: Settings) -> Effort:
    """As much as the settings want, or as there is time for.

    A search without a limit of time does all, so that it gives the same each time.
    """
    wish = Effort(min(settings.finalists, len(best)), settings.seeds, max(settings.folds, FOLDS), DRAWS)
    if settings.seconds is None:
        return wish

    def seconds(effort: Effort) -> float:
        """Of training: finalists on all folds, a plain network and random draws on one; then all rows."""
        records, seeds = chosen(best, effort.finalists), effort.seeds
        whole = [settings.recipe.epochs * r.seconds / max(1, r.epochs) / settings.folds for r in records]
        validated = effort.folds * seeds * sum(whole) + seeds * max(whole) + effort.draws * fmean(whole)
        return (validated + 3 * seeds * max(whole) + sum(whole)) / cores()

    steps = [wish, *(Effort(min(e.finalists, wish.finalists), min(e.seeds, wish.seeds), *e[2:]) for e in STEPS)]
    return next((step for step in steps if seconds(step) <= SHARE * settings.seconds), steps[-1])


def _earlier(names: Sequence[Hashable]) -> list[int]:
    """Of each, how many before it are the same."""
    seen: Counter[Hashable] = Counter()
    found = []
    for name in names:
        found.append(seen[name])
        seen[name] += 1
    return found
