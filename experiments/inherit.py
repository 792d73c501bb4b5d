"""What it gives that children begin with their parents' weights: evolution with and without, for the same epochs.

Each search has so many trained epochs, over all candidates and folds; one that inherits has more and shorter trials in
them. Both begin with the same networks. Then, as at the end of every search, the best few are trained from scratch with
several initial weights, and the one that is best on average is chosen.

found : the lowest validation loss of a trial. What inherits has been trained by its ancestors too, so that this is no
    fair comparison.
validation, test, score : of the chosen network's trainings from scratch, on validation and on held-out rows.

Differences are those of pairs, with and without on the same split, with the standard error of their mean.

    python -m experiments.inherit            about two minutes on two cores
"""

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import optuna
import torch

from experiments.results import write
from search.comparison.leaderboard import ranking
from search.data import Dataset, load
from search.defaults import default_recipe, default_space
from search.driver import start
from search.facts import facts_of
from search.one_of import OneOf
from search.point import Point
from search.population import Outcome, Progress, evaluate, train
from search.recipe import Recipe, rungs_of
from search.record import Record, Settings
from search.run import read_records
from search.work import OnData, Pending, Task

PLAIN = "from scratch"
SHARES = (0.25, 0.5)
EPOCHS: Mapping[str, int] = {"digits": 500, "breast_cancer": 500}  # of one search: about fifty-five trials from scratch
FINALISTS, WEIGHTS = 3, 2
Row = dict[str, float]
MEASURES = ("found", "validation", "test", "score", "trials")


class Enough(Exception):
    """The epochs are used up."""


class Rationed:
    """The work of a search until so many epochs have been trained, and without its end."""

    ahead = lost = 0

    def __init__(self, work: OnData, epochs: int) -> None:
        self.work, self.left = work, epochs

    def begin(self, number: int) -> list[Point]:
        """As the work does."""
        return self.work.begin(number)

    def submit(self, task: Task) -> Pending:
        """As the work does; Enough: there are no epochs left."""
        if self.left <= 0:
            raise Enough

        def outcomes(progress: Progress) -> list[Outcome]:
            found = self.work.train(task, progress)
            self.left -= sum(outcome.epochs for outcome in found)
            return found

        return outcomes

    def keep(self, record: Record, outcome: Outcome) -> None:
        """Nothing."""

    def end(self, ranked: Sequence[Record], settings: Settings) -> list[Any]:
        """Nothing."""
        return []


def main(
    *,
    epochs: Mapping[str, int] = EPOCHS,
    seeds: int = 5,
    shares: Sequence[float] = SHARES,
    shorter: int = 3,
    workers: int = 2,
) -> dict[str, Any]:
    """For each data set and way a row of means; and the differences from training from scratch.

    Parameters
    ----------
    epochs : of a search, by data set.
    seeds : splits, each with a search of its own.
    shares : of the schedule, that a child trains for.
    shorter : what the default schedules are divided by.
    workers : processes.
    """
    jobs = [(name, seed) for name in epochs for seed in range(seeds)]
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_alone) as pool:
        futures = {job: pool.submit(compared, *job, epochs[job[0]], tuple(shares), shorter) for job in jobs}
        found = {job: future.result() for job, future in futures.items()}
    data = summaries(found, epochs)
    return {"seeds": seeds, "shorter": shorter, "finalists": FINALISTS, "initial_weights": WEIGHTS, "data": data}


def summaries(found: Mapping[tuple[str, int], Mapping[str, Row]], epochs: Mapping[str, int]) -> dict[str, Any]:
    """By data set and way, from what ``compared`` gives for each data set and seed."""
    told: dict[str, Any] = {}
    for name, most in epochs.items():
        pairs = [ways for (data, _), ways in sorted(found.items()) if data == name]
        rows = {way: [ways[way] for ways in pairs] for way in pairs[0]}
        told[name] = {"epochs": most, "ways": {way: summary(some, rows[PLAIN]) for way, some in rows.items()}}
        for way, means in told[name]["ways"].items():
            print(f"{name:14} {way:22} {means}", flush=True)
    return told


def compared(name: str, seed: int, epochs: int, shares: Sequence[float], shorter: int) -> dict[str, Row]:
    """One split, searched in each of the ways."""
    dataset = load(name, seed=seed)  # type: ignore[arg-type]
    recipe = default_recipe(len(dataset.train))
    length = recipe.epochs // shorter
    recipe = replace(recipe, epochs=length, rungs=rungs_of(length))
    tried = {PLAIN: recipe}
    tried |= {f"inherited, share {share}": replace(recipe, inherit=True, child_share=share) for share in shares}
    found = {}
    for way, one in tried.items():
        found[way] = searched(dataset, one, epochs, seed)
        print(f"{name:14} {seed} {way:22} {found[way]}", flush=True)
    return found


def _alone() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def searched(dataset: Dataset, recipe: Recipe, epochs: int, seed: int) -> Row:
    """What one search finds, and what that is worth."""
    space = default_space(dataset.shape, len(dataset.train))
    space = space.of("dense") if isinstance(space, OneOf) else space
    settings = Settings(dataset.name, None, None, seed, "evolution", 10_000, None, 8, space, recipe)
    facts = facts_of(dataset, settings)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "run")
        work = Rationed(OnData(settings, facts, dataset, folder), epochs)
        with suppress(Enough):
            start(settings, facts, work, folder, lambda event: None)
        records = read_records(folder)
    ranked = ranking(records, settings)[:FINALISTS]
    whole = replace(recipe, rungs=(), inherit=False)
    pairs = [(record.canonical, seed + 1 + i) for record in ranked for i in range(WEIGHTS)]
    outcomes = train([point for point, _ in pairs], (dataset,), whole, seed, seeds=[start for _, start in pairs])
    groups = [outcomes[i : i + WEIGHTS] for i in range(0, len(outcomes), WEIGHTS)]
    chosen = min(groups, key=lambda group: fmean(outcome.loss for outcome in group))
    losses, scores = zip(
        *(evaluate(outcome.machine, dataset, dataset.test, outcome.sharpness) for outcome in chosen), strict=True
    )
    values = ranked[0].loss, fmean(outcome.loss for outcome in chosen), fmean(losses), fmean(scores), len(records)
    return dict(zip(MEASURES, map(float, values), strict=True))


def summary(rows: Sequence[Row], plain: Sequence[Row]) -> dict[str, Any]:
    """Means over the splits, and their differences from those of the searches from scratch."""
    means = {name: round(fmean(row[name] for row in rows), 4) for name in MEASURES}
    if rows is plain:
        return {"mean": means}
    found = {}
    for name in MEASURES[:-1]:
        differences = [row[name] - other[name] for row, other in zip(rows, plain, strict=True)]
        error = stdev(differences) / len(differences) ** 0.5
        found[name] = {"mean": round(fmean(differences), 4), "error": round(error, 4)}
    return {"mean": means, "difference": found}


if __name__ == "__main__":
    print(write("inherit", "python -m experiments.inherit", main()))
