"""The end of a search: the best are trained again with other initial weights, the winner on all that is not held out.

The lowest of many validation losses is in part luck. So the finalists are compared with other initial weights, and on
other folds of the rows, as far as there is time; a series has one order, and no other folds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from statistics import fmean
from typing import Any

import numpy as np

from search.comparison.finalists import SHARE, affordable, chosen, front
from search.comparison.leaderboard import places, row, spread
from search.comparison.rivals import draws, plain, reference
from search.data import Dataset
from search.data.encoder import Encoder
from search.data.transform import GIVEN
from search.facts import Facts
from search.graph.space import GraphSpace
from search.graph.training import refit_graphs, train_graphs
from search.objectives import asked, measures
from search.one_of import AnySpace, transforms
from search.point import AnyPoint, Point
from search.population import Outcome, refit, scores, train
from search.recipe import Recipe
from search.record import Record, Row, Settings
from search.training.lessons import Lessons, Outputs

ACRONYMS = {"dense": "MLP", "convolution": "CNN", "recurrence": "RNN"}


@dataclass(frozen=True)
class Entrant:
    """An architecture that is compared with others, and what it did.

    Parameters
    ----------
    name : in the leaderboard.
    point : the architecture.
    outcomes : of its trainings on the folds, one for each of the initial weights.
    encoder : of what its machines read and answer, with the noise that they leave.
    record : of the trial that found it; rivals have none.
    machines : trained on all that is not held out, from each of the initial weights or from the first alone.
    said : by each machine of the held-out part, in the data set's own unit; nothing where none is held out.
    """

    name: str
    point: AnyPoint
    outcomes: Sequence[Outcome]
    encoder: Encoder
    record: Record | None = None
    machines: Sequence[Any] = ()
    said: Sequence[Outputs] = ()

    @property
    def loss(self) -> float:
        """On the folds, the mean over the initial weights; infinite if one diverged."""
        mean = fmean(outcome.loss for outcome in self.outcomes)
        return mean if math.isfinite(mean) else math.inf

    @property
    def sharpness(self) -> float:
        """Of the machines' outputs, as the validation parts have it: see ``search.population.Outcome``."""
        return fmean(outcome.sharpness for outcome in self.outcomes)

    @property
    def noise(self) -> float:
        """That the machines leave in what they learned, as the validation parts have it: see there."""
        return fmean(outcome.noise for outcome in self.outcomes)

    @property
    def epochs(self) -> int:
        """That were best before, at least one."""
        return max(1, round(fmean(outcome.best_epoch for outcome in self.outcomes)))


@dataclass(frozen=True)
class Final:
    """What the end of a search gave.

    Parameters
    ----------
    rows : finalists, best first; where there is a held-out part their ensemble and the rivals.
    finalists : best first; the winner with a machine for each of the initial weights, the others with one.
    """

    rows: tuple[Row, ...]
    finalists: tuple[Entrant, ...]


def final(best: Sequence[Record], settings: Settings, dataset: Dataset, facts: Facts) -> Final:
    """Train finalists, winner and rivals as they are to be compared, and look at the held-out part.

    Parameters
    ----------
    best : one record an architecture, best first; at least one.

    Notes
    -----
    All are trained by the recipe of the search without its halving, which is a choice among candidates; early stopping
    stays. The winner has the lowest loss with initial weights, and over folds, that no candidate was chosen by; where
    time allows one fold alone, and of series, these are those of the search. For the held-out part each is
    trained on training and validation rows together, with each of the initial weights, on a schedule as long as was
    best before. The ensemble is of the finalists, which differ more than one architecture's trainings do. Data without
    a held-out part have no rivals, for these are compared there.
    """
    best = front(best, settings)
    effort = affordable(best, settings)
    parts = min(effort.folds if len(dataset.validation) else max(2, effort.folds), dataset.most_folds)
    folds = dataset.folds(parts, settings.seed + 1) if parts > 1 else (dataset,)
    seeds = range(settings.seed + 1, settings.seed + 1 + effort.seeds)
    comparison = _Comparison(settings, dataset, facts, folds, seeds)
    winner, *others = comparison.ranked(chosen(best, effort.finalists))
    rivals = comparison.rivals(winner.point, effort.draws) if len(dataset.test) else []
    winner, *rivals = comparison.refitted([winner, *rivals], comparison.seeds)
    finalists = [winner, *comparison.refitted(others, comparison.seeds[:1])]

    rows = [comparison.row(entrant) for entrant in finalists]
    if len(dataset.test):
        ensemble = together(
            [entrant.said[0] for entrant in finalists], rows, [comparison.answered(entrant) for entrant in finalists]
        )
        rows[0] = comparison.looked_at(winner)  # of the others their part in the ensemble alone
        rows += [ensemble] if others else []
        rows += [comparison.looked_at(rival) for rival in rivals]
        limit = math.inf if settings.seconds is None else SHARE * settings.seconds
        rows += [row for row in [reference(dataset, limit)] if row]
    return Final(tuple(rows), tuple(finalists))


@dataclass(frozen=True)
class _Comparison:
    """What is the same for all that are compared.

    Parameters
    ----------
    settings, dataset, facts : of the search.
    folds : of the rows that are not held out, to validate on.
    seeds : of initial weights.
    """

    settings: Settings
    dataset: Dataset
    facts: Facts
    folds: Sequence[Dataset]
    seeds: Sequence[int]

    @cached_property
    def recipe(self) -> Recipe:
        """The search's, without what is a choice among candidates."""
        return replace(self.settings.recipe, rungs=(), inherit=False)

    @cached_property
    def lessons(self) -> Mapping[str, Lessons]:
        """Of all that is not held out, by transform."""
        whole, seed = self.dataset.whole(), self.settings.seed
        return {name: Lessons(whole, self.recipe, seed, name) for name in transforms(self.settings.space)}

    def ranked(self, records: Sequence[Record]) -> list[Entrant]:
        """The finalists of these records, by their mean loss on the folds."""
        entrants = self.validated([record.canonical for record in records], self.seeds, self.folds)
        found = sorted(zip(entrants, records, strict=True), key=lambda pair: pair[0].loss)
        names = places(len(records))
        if len(self.settings.objectives) > 1:
            names[1:] = ["front"] * (len(records) - 1)
        return [
            replace(entrant, name=name, record=record) for name, (entrant, record) in zip(names, found, strict=True)
        ]

    def rivals(self, winner: AnyPoint, number: int) -> list[Entrant]:
        """The middle one of so many random draws, and a plain network as large as the winner; validated on one fold."""
        drawn = self.validated(draws(self.settings, self.dataset.shape, number), self.seeds[:1], self.folds[:1])
        drawn = sorted((e for e in drawn if e.outcomes[0].status != "failed"), key=lambda entrant: entrant.loss)
        name = f"random (median of {len(drawn)})" if len(drawn) > 1 else "random"
        found = [replace(entrant, name=name) for entrant in drawn[len(drawn) // 2 :][:1]]
        if isinstance(winner, Point):  # which wiring of one's own machines is plain?
            stack = plain(winner, self.dataset.shape)
            (entrant,) = self.validated([stack], self.seeds, self.folds[:1])
            found.append(replace(entrant, name=f"plain {ACRONYMS[stack.kind]}"))
        return found

    def validated(self, points: Sequence[AnyPoint], seeds: Sequence[int], folds: Sequence[Dataset]) -> list[Entrant]:
        """Each point trained on the folds from each of the initial weights."""
        train_all, _ = trainers(self.settings.space)
        pairs = [(point, seed) for point in points for seed in seeds]
        outcomes = train_all(
            [point for point, _ in pairs],
            folds,
            self.recipe,
            self.settings.seed,
            seeds=[seed for _, seed in pairs],
        )
        found = [
            Entrant("", point, some, self.lessons[point.transform].dataset.encoder)
            for point, some in zip(points, _by(len(seeds), outcomes), strict=True)
        ]
        return [replace(entrant, encoder=entrant.encoder.noisy(entrant.noise)) for entrant in found]

    def refitted(self, entrants: Sequence[Entrant], seeds: Sequence[int]) -> list[Entrant]:
        """Each with machines trained on all that is not held out, from each of the initial weights."""
        _, refit_all = trainers(self.settings.space)
        pairs = [(entrant, seed) for entrant in entrants for seed in seeds]
        machines = refit_all(
            [entrant.point for entrant, _ in pairs],
            self.dataset.whole(),
            self.recipe,
            [entrant.epochs for entrant, _ in pairs],
            seed=self.settings.seed,
            seeds=[seed for _, seed in pairs],
        )
        return [
            replace(entrant, machines=some, said=self._said(entrant, some))
            for entrant, some in zip(entrants, _by(len(seeds), machines), strict=True)
        ]

    def _said(self, entrant: Entrant, machines: Sequence[Any]) -> list[Outputs]:
        if not len(self.dataset.test):
            return []
        lessons = self.lessons[entrant.point.transform]
        outputs = [entrant.sharpness * lessons.outputs(machine, "test") for machine in machines]
        return [lessons.in_the_given_unit(one, entrant.noise) for one in outputs]

    def row(self, entrant: Entrant) -> Row:
        """What it did on the folds."""
        record, wish = entrant.record, asked(self.settings.objectives, self.settings.constraints)
        costs = record.measures if record else measures(entrant.point, self.facts.shape, wish, self.settings.space)
        number = record.number if record else None
        folds = max(1, len(entrant.outcomes[0].by_fold))
        return row(entrant.name, entrant.point, entrant.outcomes, self.facts, costs, number, folds)

    def looked_at(self, entrant: Entrant) -> Row:
        """The same, and what its machines do on the held-out part."""
        return held_out(self.row(entrant), entrant.said, self.answered(entrant))

    def answered(self, entrant: Entrant) -> Dataset:
        """The data set for answers in its own unit: where that is the one that was learned, they leave noise."""
        return replace(self.dataset, encoder=entrant.encoder) if entrant.point.transform == GIVEN else self.dataset


def _by(number: int, some: Sequence[Any]) -> list[Sequence[Any]]:
    """So many at a time."""
    return [some[i : i + number] for i in range(0, len(some), number)]


def trainers(space: AnySpace) -> tuple[Callable[..., list[Outcome]], Callable[..., Sequence[Any]]]:
    """What trains the points of a space: ``train`` and ``refit``, as ``search.population`` has them."""
    if isinstance(space, GraphSpace):
        return partial(train_graphs, space), partial(refit_graphs, space)
    return train, refit


def folds_of(dataset: Dataset, settings: Settings) -> tuple[Dataset, ...]:
    """What candidates are trained and validated on.

    Raises
    ------
    ValueError : a single fold of data without a validation part.
    """
    if settings.folds == 1 and not len(dataset.validation):
        raise ValueError("got folds=1 for data without validation rows: take more folds, or a share for validation")
    return (dataset,) if settings.folds == 1 else dataset.folds(settings.folds, settings.seed)


def held_out(row: Row, said: Sequence[Outputs], dataset: Dataset) -> Row:
    """The row of machines with what they do on the held-out part, on average, from what they say of it, if anything."""
    if not said:
        return row
    losses, found = zip(*(scores(dataset, dataset.test, outputs) for outputs in said), strict=True)
    return replace(row, test_loss=fmean(losses), test_score=fmean(found), test_sd=spread(found))


@np.errstate(invalid="ignore")  # of a machine that diverged
def together(outputs: Sequence[Outputs], rows: Sequence[Row], told: Sequence[Dataset]) -> Row:
    """The row of machines that answer together: by the mean of their probabilities, or of their values.

    ``told`` is the data set as each of them answers it; values are decoded before their mean is taken.
    """
    dataset = told[0]
    if dataset.task == "classification":
        said = np.stack(outputs)
        logarithms = said - np.logaddexp.reduce(said, axis=2, keepdims=True)
        mean = np.logaddexp.reduce(logarithms, axis=0) - math.log(len(outputs))
    else:
        values = [one.encoder.decode(said).values for one, said in zip(told, outputs, strict=True)]
        encoder = dataset.encoder.noisy(0.0)  # they have been corrected for what they leave
        dataset, mean = replace(dataset, encoder=encoder), encoder.scaled(np.mean(values, axis=0))[:, None]
    loss, score = scores(dataset, dataset.test, mean)
    parameters, flops, seconds = (
        sum(getattr(row, name) for row in rows) for name in ("parameters", "flops", "seconds")
    )
    depth = max(row.depth for row in rows)
    return Row("ensemble", rows[0].trial, None, None, None, loss, score, depth, parameters, flops, seconds)
