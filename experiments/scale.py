"""How far one search goes: what a second worker adds, and what the process that searches costs a trial.

workers : seconds until so many trials (drawn at random, so that they depend on no one's results) are stored by one
    worker, by two, and by two threads of one process, in a search that goes on; each the better of two. ``gain``: how
    many times the trials a minute that one worker has. Trials of small data are so short that the process that searches
    takes a part of a core.
driver : milliseconds a trial of proposing, telling and storing, while the search comes by that many trials, with
    workers that are simulated: they answer at once, and train nothing. Two generations a worker are proposed before the
    first is told; these are of 8 trials, and of 1 with 10,000 workers. ``memory``: of the process at its end, in
    megabytes. TPE looks at all trials for each, so that a search by it never gets far: what it costs later is that of
    the 24 trials after so many that were drawn at random.

    python -m experiments.scale            about 40 minutes
    python -m experiments.scale --trials 1000
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from experiments.quality import data
from experiments.results import write
from search.data import Dataset, load
from search.defaults import default_folds, default_recipe, space_for
from search.driver import Event, go_on, start
from search.facts import facts_of
from search.parallel.workers import QUEUED, employed
from search.point import AnyPoint
from search.population import Outcome
from search.record import Record, Row, Settings
from search.work import OnData, Pending, Task

DATA = {"breast_cancer": 1024, "digits": 192}  # trials
TRIALS = (100, 1000, 10_000, 100_000)
WORKERS = (1, 10, 100, 1000, 10_000)
STRATEGIES = ("evolution", "tpe")
FEW = {"evolution": 1000, "tpe": 1000}  # trials with many workers; of TPE always
LATER = 24  # trials that TPE proposes after many
POPULATION, MANY = 8, 10_000  # trials of a generation; workers from which on it is one
WIDE = 0.2  # of the trials up to a number, the share over which its cost is a mean


class Enough(Exception):
    """So many trials have been told."""


class Simulated:
    """Workers that answer at once, with losses that depend on the point alone."""

    lost = 0

    def __init__(self, workers: int) -> None:
        self.ahead = QUEUED * workers - 1

    def begin(self, number: int) -> list[AnyPoint]:
        """Nothing."""
        return []

    def submit(self, task: Task) -> Pending:
        """Curves as long as real ones."""
        n = task.recipe.epochs
        losses = [int(hashlib.sha256(repr(point).encode()).hexdigest()[:8], 16) / 2**32 for point in task.points]
        return lambda progress: [
            Outcome("complete", n, n, loss, 1 - loss, tuple(loss * (n / k) for k in range(1, n + 1)), 1.0, 1.0, None)
            for loss in losses
        ]

    def keep(self, record: Record, outcome: Outcome) -> None:
        """Nothing."""

    def end(self, ranked: Sequence[Record], settings: Settings) -> list[Row]:
        """Nothing."""
        return []


def settings_of(dataset: Dataset, strategy: str, trials: int, workers: int | None = None) -> Settings:
    """A search with default settings."""
    rows = len(dataset.train)
    return Settings(
        dataset.name, None, None, 0, strategy, trials, None, POPULATION, space_for(dataset), default_recipe(rows),
        default_folds(rows), workers=workers,
    )  # fmt: skip


def trained(name: str, workers: int | None, trials: int) -> float:
    """Seconds until so many trials are stored, of a search that goes on; workers have begun before."""
    dataset = data(name, 0)
    more = POPULATION * (2 if workers is None else QUEUED * workers + 1)  # that nobody is idle before that
    settings = settings_of(dataset, "random", trials + more, workers)
    facts, ended = facts_of(dataset, settings), list[float]()

    def on_event(event: Event) -> None:
        if event.stage == "storing" and event.done >= trials:
            ended.append(perf_counter())
            raise Enough

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        here = OnData(settings, facts, dataset, run)
        with suppress(Enough), employed(here) as work:
            for _ in range(workers or 0):  # all have imported what they need
                work.submit(Task([], [], settings.recipe, []))(lambda epoch, running: None)
            began = perf_counter()
            start(settings, facts, work, run, on_event)
    return ended[0] - began


def gains(name: str, trials: int, times: int = 2) -> dict[str, float]:
    """What a second worker adds on a data set."""
    ways: dict[str, int | None] = {"one worker": 1, "two workers": 2, "threads": None}
    seconds = {way: [0.0] * times for way in ways}
    for k in range(times):  # one after the other, so that what else goes on meets all alike
        for way, workers in ways.items():
            seconds[way][k] = trained(name, workers, trials)
    best = {way: round(min(some), 2) for way, some in seconds.items()}
    return {**best, "gain": round(best["one worker"] / best["two workers"], 2)}


def driven(strategy: str, workers: int, trials: int) -> dict[str, float]:
    """Milliseconds a trial as a search comes by the numbers of TRIALS, and megabytes at its end."""
    dataset = load("digits")
    population = 1 if workers >= MANY else POPULATION
    ahead = QUEUED * workers * population  # so that as many are proposed as are told, to the end
    settings = replace(settings_of(dataset, strategy, trials + ahead), population=population)
    facts, told = facts_of(dataset, settings), [(0, perf_counter())]

    def on_event(event: Event) -> None:
        if event.stage == "storing":
            told.append((event.done, perf_counter()))
            if event.done >= trials:
                raise Enough

    with tempfile.TemporaryDirectory() as folder, suppress(Enough):
        start(settings, facts, Simulated(workers), Path(folder, "run"), on_event)
    found = {}
    for number in (n for n in TRIALS if n <= trials):
        first, begun = [one for one in told if one[0] <= (1 - WIDE) * number][-1]
        last, ended = [one for one in told if one[0] <= number][-1]
        found[str(number)] = round(1000 * (ended - begun) / (last - first), 1)
    return {**found, "memory": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}


def later(strategy: str, trials: int) -> float:
    """Milliseconds a trial after so many that were drawn at random."""
    dataset = load("digits")
    settings = settings_of(dataset, "random", trials)
    facts, told = facts_of(dataset, settings), list[tuple[int, float]]()

    def on_event(event: Event) -> None:
        if event.stage == "storing" and event.done >= trials:
            told.append((event.done, perf_counter()))

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        start(settings, facts, Simulated(1), run, lambda event: None)
        go_on(replace(settings, strategy=strategy, trials=LATER), facts, Simulated(1), run, on_event, more=True)
    (first, begun), (last, ended) = told[0], told[-1]
    return round(1000 * (ended - begun) / (last - first), 1)


def main(*, trials: int = TRIALS[-1], workers: Sequence[int] = WORKERS) -> dict[str, Any]:
    """Each setting in a process of its own, so that its memory is its own too."""
    driver: dict[str, dict[str, Any]] = {}
    for strategy in STRATEGIES:
        wish = min(trials, FEW[strategy]) if strategy == "tpe" else trials
        for number in workers if strategy == "evolution" else workers[:2]:
            some = wish if number == workers[0] else min(wish, FEW[strategy])
            command = [sys.executable, "-m", "experiments.scale", "--one", strategy, str(number), str(some)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            driver[f"{strategy}, {number} workers"] = json.loads(told)
            print(f"{strategy}, {number} workers", driver[f"{strategy}, {number} workers"], flush=True)
    for number in (n for n in TRIALS if FEW["tpe"] < n <= trials):
        command = [sys.executable, "-m", "experiments.scale", "--later", "tpe", str(number)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        driver["tpe, 1 workers"][str(number)] = json.loads(told)
        print("tpe, 1 workers", number, told.strip(), flush=True)
    found = {"workers": {name: gains(name, few) for name, few in DATA.items()}, "driver": driver}
    print(found["workers"])
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=TRIALS[-1], help="of the largest search")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--later", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        strategy, workers, trials = chosen.one
        print(json.dumps(driven(strategy, int(workers), int(trials))))
    elif chosen.later:
        strategy, trials = chosen.later
        print(later(strategy, int(trials)))
    else:
        result = main(trials=chosen.trials)
        if chosen.trials == TRIALS[-1]:
            print(write("scale", "python -m experiments.scale", result))
