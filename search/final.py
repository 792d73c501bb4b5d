"""The end of a search: the best are trained again with other initial weights, the winner on all that is not held out.

The lowest of many validation losses is in part luck. So the finalists are compared on other folds of the rows, with
other initial weights.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.data import Dataset
from search.data.encoder import Encoder
from search.data.transform import GIVEN
from search.facts import Facts
from search.graph.space import GraphSpace
from search.graph.training import refit_graphs, train_graphs
from search.leaderboard import NAMES, row, spread
from search.lessons import Lessons
from search.objectives import along, asked, fronts, measures
from search.one_of import AnySpace
from search.point import AnyPoint, Point
from search.population import Outcome, cores, refit, scores, train
from search.record import Record, Row, Settings
from search.rivals import draws, plain, reference

FOLDS = 5  # at least, where there is time
STEPS = ((5, 3, 5), (4, 2, 5), (4, 2, 3), (4, 1, 3), (2, 1, 3), (2, 1, 1), (1, 1, 1))  # from thorough to quick
ACRONYMS = {"dense": "MLP", "convolution": "CNN", "recurrence": "RNN"}
SHARE = 0.5  # of the time of the search, that its end may take


@dataclass(frozen=True)
class Final:
    """What the end of a search gave.

    Parameters
    ----------
    rows : finalists, best first; where there is a held-out part their ensemble and the rivals.
    winner : the record of the winner.
    machines : the winner's, one for each initial weights, trained on all that is not held out.
    sharpness : of their outputs, as the validation parts have it: see ``search.population.Outcome``.
    encoder : of what they read and answer.
    ensemble : the finalists, best first: one machine of each, with its sharpness and its encoder.
    """

    rows: tuple[Row, ...]
    winner: Record
    machines: tuple[Any, ...]
    sharpness: float
    encoder: Encoder
    ensemble: tuple[tuple[Record, Any, float, Encoder], ...]


def final(best: Sequence[Record], settings: Settings, dataset: Dataset, facts: Facts) -> Final:
    """Train finalists, winner and rivals as they are to be compared, and look at the held-out part.

    Parameters
    ----------
    best : one record an architecture, best first; at least one.

    Notes
    -----
    All are trained by the recipe of the search without its halving, which is a choice among candidates; early stopping
    stays. The winner has the lowest loss over folds that no candidate was chosen by. For the held-out part each is
    trained on training and validation rows together, with each of the initial weights, on a schedule as long as was
    best before. The ensemble is of the finalists, which differ more than one architecture's trainings do. Data without
    a held-out part have no rivals, for these are compared there.
    """
    best = front(best, settings)
    finalists, seeds, parts = affordable(best, settings)
    best, initial = chosen(best, finalists), [settings.seed + i for i in range(seeds)]
    folds = dataset.folds(parts, settings.seed + 1) if parts > 1 else (dataset,)
    recipe = replace(settings.recipe, rungs=(), inherit=False)

    def costs(point: AnyPoint) -> dict[str, float]:
        return measures(point, facts.shape, asked(settings.objectives, settings.constraints), settings.space)

    def trained(points: Sequence[AnyPoint], weights: Sequence[int], some: Sequence[Dataset]) -> list[list[Outcome]]:
        pairs = [(point, seed) for point in points for seed in weights]
        outcomes = train_all([p for p, _ in pairs], some, recipe, settings.seed, seeds=[s for _, s in pairs])
        return [outcomes[i : i + len(weights)] for i in range(0, len(outcomes), len(weights))]

    train_all, refit_all = trainers(settings.space)
    results = trained([record.canonical for record in best], initial, folds)
    order = sorted(range(len(best)), key=lambda i: (_comparable(fmean(o.loss for o in results[i])), i))
    winner = best[order[0]]
    named: list[tuple[str, AnyPoint, list[Outcome]]] = [("winner", winner.canonical, results[order[0]])]
    if len(dataset.test):
        drawn = draws(settings, dataset.shape)
        random = [
            (point, outcome)
            for point, (outcome,) in zip(drawn, trained(drawn, initial[:1], folds[:1]), strict=True)
            if outcome.status != "failed"
        ]
        if random:
            point, outcome = sorted(random, key=lambda pair: _comparable(pair[1].loss))[len(random) // 2]
            named.append((f"random (median of {len(random)})", point, [outcome]))
    if len(dataset.test) and isinstance(winner.canonical, Point):  # which wiring of one's own machines is plain?
        mlp = plain(winner.canonical, dataset.shape)
        named.append((f"plain {ACRONYMS[mlp.kind]}", mlp, trained([mlp], initial, folds)[0]))

    members = [(best[i].canonical, results[i]) for i in order]  # each once: the winner is the first of both
    wanted = [(point, outcomes, seed) for _, point, outcomes in named for seed in initial]
    wanted += [(point, outcomes, initial[0]) for point, outcomes in members[1:]]
    whole = dataset.whole()
    refitted = refit_all(
        [point for point, _, _ in wanted],
        whole,
        recipe,
        [max(1, round(fmean(outcome.best_epoch for outcome in outcomes))) for _, outcomes, _ in wanted],
        seed=settings.seed,
        seeds=[seed for _, _, seed in wanted],
    )
    lessons = {
        name: Lessons(whole, recipe, settings.seed, name) for name in {point.transform for point, _, _ in wanted}
    }
    looked = zip(refitted, wanted, strict=True) if len(dataset.test) else ()
    said = []
    for machine, (point, outcomes, _) in looked:
        one = lessons[point.transform]
        outputs = _sharpness(outcomes) * one.outputs(machine, "test")
        said.append(one.in_the_given_unit(outputs, _noise(outcomes)))

    def given(point: AnyPoint, outcomes: Sequence[Outcome]) -> Dataset:
        """The data set, for outputs in its own unit: where that is the one that was learned, they leave noise."""
        noise = _noise(outcomes) if point.transform == GIVEN else 0.0
        return replace(dataset, encoder=dataset.encoder.noisy(noise))

    def encoder(i: int) -> Encoder:
        return lessons[best[i].canonical.transform].dataset.encoder.noisy(_noise(results[i]))

    (first, *rivals) = [
        held_out(
            row(name, point, outcomes, facts, costs(point)), said[i * seeds : (i + 1) * seeds], given(point, outcomes)
        )
        for i, (name, point, outcomes) in enumerate(named)
    ]
    rows = [replace(first, trial=winner.number)]
    rows += [
        row(name, best[i].canonical, results[i], facts, best[i].measures, trial=best[i].number)
        for name, i in zip(
            NAMES[1:] if len(settings.objectives) == 1 else ("front",) * len(best), order[1:], strict=False
        )
    ]
    if len(best) > 1 and said:
        rows.append(together([said[0], *said[len(named) * seeds :]], rows[: len(best)], given(*members[0])))
    others = [*rivals, reference(dataset) if said else None]
    return Final(
        (*rows, *(rival for rival in others if rival)),
        winner,
        tuple(refitted[:seeds]),
        _sharpness(results[order[0]]),
        encoder(order[0]),
        tuple(
            (best[i], machine, _sharpness(results[i]), encoder(i))
            for i, machine in zip(order, [refitted[0], *refitted[len(named) * seeds :]], strict=True)
        ),
    )


def trainers(space: AnySpace) -> tuple[Callable[..., list[Outcome]], Callable[..., Sequence[Any]]]:
    """What trains the points of a space: ``train`` and ``refit``, as ``search.population`` has them."""
    if isinstance(space, GraphSpace):
        return partial(train_graphs, space), partial(refit_graphs, space)
    return train, refit


def _sharpness(outcomes: Sequence[Outcome]) -> float:
    return fmean(outcome.sharpness for outcome in outcomes)


def _noise(outcomes: Sequence[Outcome]) -> float:
    return fmean(outcome.noise for outcome in outcomes)


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


def _earlier(names: Sequence[Hashable]) -> list[int]:
    """Of each, how many before it are the same."""
    seen: Counter[Hashable] = Counter()
    found = []
    for name in names:
        found.append(seen[name])
        seen[name] += 1
    return found


def affordable(best: Sequence[Record], settings: Settings) -> tuple[int, int, int]:
    """How many finalists, initial weights and folds: as many as the settings want, or as there is time for.

    A search without a limit of time does all, so that it gives the same each time.
    """
    wish = min(settings.finalists, len(best)), settings.seeds, max(settings.folds, FOLDS)
    if settings.seconds is None:
        return wish

    def seconds(finalists: int, seeds: int, folds: int) -> float:
        """Of training: finalists and a plain network on all folds, random draws; then the winner and its rivals."""
        records = chosen(best, finalists)
        whole = [settings.recipe.epochs * r.seconds / max(1, r.epochs) / settings.folds for r in records]
        validated = folds * seeds * (sum(whole) + max(whole)) + 5 * fmean(whole)
        return (validated + 3 * seeds * max(whole) + sum(whole)) / cores()

    steps = [wish, *((min(f, wish[0]), min(s, wish[1]), k) for f, s, k in STEPS)]
    return next((step for step in steps if seconds(*step) <= SHARE * settings.seconds), steps[-1])


def folds_of(dataset: Dataset, settings: Settings) -> tuple[Dataset, ...]:
    """What candidates are trained and validated on.

    Raises
    ------
    ValueError : a single fold of data without a validation part.
    """
    if settings.folds == 1 and not len(dataset.validation):
        raise ValueError("got folds=1 for data without validation rows: take more folds, or a share for validation")
    return (dataset,) if settings.folds == 1 else dataset.folds(settings.folds, settings.seed)


def held_out(row: Row, said: Sequence[NDArray[np.float64]], dataset: Dataset) -> Row:
    """The row of machines with what they do on the held-out part, on average, from what they say of it, if anything."""
    if not said:
        return row
    losses, found = zip(*(scores(dataset, dataset.test, outputs) for outputs in said), strict=True)
    return replace(row, test_loss=fmean(losses), test_score=fmean(found), test_sd=spread(found))


@np.errstate(invalid="ignore")  # of a machine that diverged
def together(outputs: Sequence[NDArray[np.float64]], rows: Sequence[Row], dataset: Dataset) -> Row:
    """The row of machines that answer together: by the mean of their probabilities, or of their values."""
    said = np.stack(outputs)
    if dataset.task == "classification":
        logarithms = said - np.logaddexp.reduce(said, axis=2, keepdims=True)
        mean = np.logaddexp.reduce(logarithms, axis=0) - math.log(len(outputs))
    else:
        mean = said.mean(axis=0)
    loss, score = scores(dataset, dataset.test, mean)
    parameters, flops, seconds = (
        sum(getattr(row, name) for row in rows) for name in ("parameters", "flops", "seconds")
    )
    depth = max(row.depth for row in rows)
    return Row("ensemble", rows[0].trial, None, None, None, loss, score, depth, parameters, flops, seconds)


def _comparable(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf
