"""One driver of a search: it asks for a generation of trials, trains them together, and tells the results.

A generation is stored when it is finished. A search that was cut off asks for the last generation again: samplers
depend on (seed, trial number) and the trials before, so it is the same one, and only what the file lacks is added.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Literal

import optuna
from optuna.trial import TrialState

from machgraph.io import save
from machgraph.parametric_machine import ParametricMachine
from search.data import Dataset, load
from search.facts import Facts, facts_of, fingerprint
from search.final import final, folds_of
from search.leaderboard import best, found, ranking
from search.point import Point, canonical, hyperparameters, key
from search.population import Outcome, train
from search.run import (
    BEST,
    Record,
    Row,
    Settings,
    read_facts,
    read_settings,
    refuse_used,
    resuming,
    write_leaderboard,
    write_ledger,
    write_run,
)
from search.store import Generation, Store, only_writer
from search.suggest import sampler, suggest

AGAIN = 200  # trials in a row that are known already, after which a search is at its end

Stage = Literal["proposing", "training", "storing", "rivals"]


@dataclass(frozen=True)
class Event:
    """How a search stands.

    Parameters
    ----------
    stage : what is being done now.
    done : number of finished trials.
    best : the winner so far.
    elapsed : seconds of searching, those of earlier sittings too.
    trials, seconds : the limits of the search.
    size : of the generation that is proposed, trained or stored.
    running, epoch : candidates that are still trained, and the epoch that they finished.
    """

    stage: Stage
    done: int
    best: Record | None
    elapsed: float
    trials: int | None
    seconds: float | None
    size: int = 0
    running: int = 0
    epoch: int = 0


@dataclass(frozen=True)
class Result:
    """What a search found: every trial, the leaderboard, and how long was searched."""

    folder: Path
    settings: Settings
    facts: Facts
    records: tuple[Record, ...]
    rows: tuple[Row, ...]
    elapsed: float


Listener = Callable[[Event], None]


def run(
    settings: Settings, dataset: Dataset, folder: str | os.PathLike[str], on_event: Listener = lambda event: None
) -> Result:
    """Search, and write everything into a new folder.

    Parameters
    ----------
    settings : what is searched, how, and for how long.
    dataset : ``load(settings.source, settings.target, settings.seed, task=settings.task)``.
    folder : that does not exist, or is empty.
    on_event : told of every step, in the same thread.

    Raises
    ------
    ValueError : there is something in the folder.
    BlockingIOError : another process searches there.
    OSError : the folder can't be written, or the disk is full; finished generations are kept.
    """
    folder = Path(folder)
    refuse_used(folder)
    sampler(settings.strategy, seed=settings.seed, space=settings.space)  # an unknown strategy leaves no folder behind
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"can't make the folder {folder} ({error.strerror}): choose another with --out") from None
    with only_writer(folder):
        refuse_used(folder)
        facts = facts_of(dataset, settings)
        write_run(folder, settings, facts)
        with Store(folder) as store:
            return _told(_Driver(settings, facts, dataset, folder, store, on_event))


def resume(
    folder: str | os.PathLike[str],
    on_event: Listener = lambda event: None,
    *,
    trials: int | None = None,
    seconds: float | None = None,
) -> Result:
    """Go on with a search, as it would have gone on if nothing had stopped it.

    Parameters
    ----------
    folder : of the run.
    on_event : told of every step, in the same thread.
    trials, seconds : how many more, from now on, in place of the limits that the search was begun with.

    Raises
    ------
    FileNotFoundError : no run is there, or its data are gone.
    ValueError : ``trials`` or ``seconds`` is not positive, the data have changed, or this version proposes other trials
        than the one that began the search.
    BlockingIOError : another process searches there.
    OSError : the folder can't be written, or the disk is full; finished generations are kept.
    """
    folder = Path(folder)
    settings, facts = read_settings(folder), read_facts(folder)
    if trials is not None or seconds is not None:
        replace(settings, trials=trials, seconds=seconds)  # refuses what is not positive
    dataset = load(settings.source, settings.target, settings.seed, task=settings.task)  # type: ignore[arg-type]
    if fingerprint(dataset) != facts.fingerprint:
        raise ValueError(f"{settings.source} has changed since {folder} was begun: put it back, or start a new search")
    with only_writer(folder), Store(folder) as store:
        if trials is not None or seconds is not None:
            stored = store.read()
            elapsed = stored[-1].generation.elapsed if stored else 0.0
            settings = replace(
                settings,
                trials=None if trials is None else len(stored) + trials,
                seconds=None if seconds is None else elapsed + seconds,
            )
            write_run(folder, settings, facts)
        return _told(_Driver(settings, facts, dataset, folder, store, on_event))


# ---- the driver ------------------------------------------------------------------------------------------------------


def _told(driver: "_Driver") -> Result:
    """Search; what the operating system refuses meanwhile is told with the way to go on."""
    try:
        return driver.search()
    except OSError as error:
        if error.errno is None:  # ours: it says so already
            raise
        raise OSError(
            f"can't write in {driver.folder} ({error.strerror}); all generations before are kept: "
            f"put it right, and go on with: {resuming(driver.folder)}"
        ) from None


class _Driver:
    """The study in memory, which the sampler sees, beside the stored one."""

    def __init__(
        self, settings: Settings, facts: Facts, dataset: Dataset, folder: Path, store: Store, on_event: Listener
    ) -> None:
        self.settings, self.facts, self.dataset = settings, facts, dataset
        self.folds = folds_of(dataset, settings)
        self.folder, self.store, self.on_event = folder, store, on_event
        stored = store.read()
        whole = [s for s in stored if s.generation.first + s.generation.size <= len(stored)]
        self.cut = stored[len(whole) :]  # of a generation that was not stored to its end
        self.records = [s.record for s in whole]
        self.generations = list(dict.fromkeys(s.generation for s in whole))
        self.study = optuna.create_study(sampler=sampler(settings.strategy, seed=settings.seed, space=settings.space))
        self.study.add_trials([s.trial for s in whole])
        self.stored_from: float | None = None  # when the storing of the last generation began

    @property
    def elapsed(self) -> float:
        return self.generations[-1].elapsed if self.generations else 0.0

    def search(self) -> Result:
        while size := self.next_size():
            self.generation(size)
            self.tell("storing")
        return self.finish()

    def tell(self, stage: Stage, seconds: float = 0.0, size: int = 0, running: int = 0, epoch: int = 0) -> None:
        limits = self.settings.trials, self.settings.seconds
        winner, elapsed = best(self.records), self.elapsed + seconds
        self.on_event(Event(stage, len(self.records), winner, elapsed, *limits, size, running, epoch))

    def next_size(self) -> int:
        """Number of trials of the next generation; 0: the search is at its end."""
        if self.cut:
            return self.cut[0].generation.size
        limit, seconds, done = self.settings.trials, self.settings.seconds, len(self.records)
        known = len({record.key for record in self.records})
        if self.facts.architectures is not None and known >= self.facts.architectures:
            return 0  # all are known
        if len(self.records) - known > AGAIN and not any(r.duplicate_of is None for r in self.records[-AGAIN:]):
            return 0  # nothing new is found any more
        ends = [0.0, *(generation.elapsed for generation in self.generations)]
        slowest = max([end - start for start, end in pairwise(ends)][-3:], default=0.0)
        if done and seconds is not None and self.elapsed + slowest > seconds:
            return 0
        return self.settings.population if limit is None else max(0, min(self.settings.population, limit - done))

    def generation(self, size: int) -> None:
        """Propose, train, tell and store one generation."""
        began, settings = self.stored_from or perf_counter(), self.settings  # the storing of the last one counts too
        self.tell("proposing", size=size)
        first = len(self.records)
        trials = [self.study.ask() for _ in range(size)]
        points = [suggest(trial, settings.space) for trial in trials]
        keys = [key(point, seed=settings.seed, budget=settings.recipe.epochs) for point in points]
        for keyed, stored in zip(keys, self.cut, strict=False):
            if keyed != stored.record.key:
                raise ValueError(
                    f"trial {stored.record.number} of {self.folder} is proposed otherwise than before: "
                    "it was begun by other versions (see run.json); install those, or start a new search"
                )

        owner = {record.key: record.number for record in self.records if record.duplicate_of is None}
        fresh = [first + i for i, keyed in enumerate(keys) if owner.setdefault(keyed, first + i) == first + i]
        outcomes = dict(zip(fresh, self.train([canonical(points[n - first]) for n in fresh], size, began), strict=True))
        records = list(self.records)
        for number, point, keyed in zip(range(first, first + size), points, keys, strict=True):
            if number in outcomes:
                records.append(_record(number, keyed, point, outcomes[number]))
            else:
                records.append(_duplicate(number, point, records[owner[keyed]]))

        winner = best(records)
        if winner is not None and winner.number in outcomes:
            # Before the records: a machine without its record is found again, a record without its machine is not.
            outcome = outcomes[winner.number]
            self.save(winner, outcome.machine, sharpness=outcome.sharpness)
        self.stored_from = perf_counter()
        generation = Generation(first, size, self.elapsed + self.stored_from - began)
        for trial, record in zip(trials, records[first:], strict=True):
            state = TrialState.COMPLETE if record.is_valid else TrialState.FAIL
            self.study.tell(trial, record.loss if record.is_valid else None, state=state)
        self.store.append(self.study.get_trials(deepcopy=False)[first:], records[first:], generation)
        self.records, self.cut = records, []
        self.generations.append(generation)
        write_ledger(self.folder, self.records, self.facts)
        write_leaderboard(self.folder, found(self.records, self.facts), self.facts)

    def train(self, points: Sequence[Point], size: int, began: float) -> list[Outcome]:
        def progress(epoch: int, running: int) -> None:
            self.tell("training", perf_counter() - began, size, running, epoch)

        progress(0, len(points))
        return train(points, self.folds, self.settings.recipe, self.settings.seed, progress)

    def finish(self) -> Result:
        """Find the winner among the best, train its rivals, look at the held-out part, and write the leaderboard."""
        best, rows = ranking(self.records), found(self.records, self.facts)
        if best:
            self.tell("rivals")
            ended = final(best, self.settings, self.dataset, self.facts)
            rows = list(ended.rows)
            row = rows[0]
            told = {"test_loss": row.test_loss, "test_score": row.test_score, "sharpness": ended.sharpness}
            self.save(ended.winner, ended.machines[0], **told)
            write_leaderboard(self.folder, rows, self.facts)
        return Result(self.folder, self.settings, self.facts, tuple(self.records), tuple(rows), self.elapsed)

    def save(self, winner: Record, machine: ParametricMachine, **more: float | None) -> None:
        """Write the best machine, with all that ``predict`` needs."""
        metadata = {
            "dataset": self.dataset.name,
            "task": self.dataset.task,
            "encoder": self.dataset.encoder.to_json(),
            "shape": asdict(self.dataset.shape),
            "trial": winner.number,
            "key": winner.key,
            **hyperparameters(winner.canonical),
            "loss": winner.loss,
            "score": winner.score,
            **more,
        }
        save(machine, self.folder / BEST, metadata)


def _record(number: int, keyed: str, point: Point, outcome: Outcome) -> Record:
    return Record(
        number, keyed, point, canonical(point), outcome.status, outcome.epochs, outcome.loss, outcome.score,
        outcome.seconds, None, outcome.curve,
    )  # fmt: skip


def _duplicate(number: int, point: Point, known: Record) -> Record:
    """What is known of a point that has been trained: a result, unless it diverged."""
    if not known.is_valid:
        known = replace(known, loss=math.nan, score=math.nan)
    same = {"duplicate_of": known.number, "status": "duplicate", "epochs": 0, "seconds": 0.0, "curve": ()}
    return replace(known, number=number, point=point, canonical=canonical(point), **same)  # type: ignore[arg-type]
