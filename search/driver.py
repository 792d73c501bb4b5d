"""One driver of a search: it asks for a generation of trials, trains them together, and tells the results.

A generation is stored when it is finished, and all before it are. A search that was cut off asks for the last again:
samplers depend on (seed, trial number) and the trials before, so it is the same one, and only what the file lacks is
added.

Where several are trained at once, a generation is proposed when so many before it are still in training, and they are
told in their order, whoever is done first: what is proposed depends on no worker's speed.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from search.canonical import canonical, key
from search.evolution import RegularizedEvolution
from search.facts import Facts
from search.graph.point import GraphPoint
from search.graph.space import GraphSpace
from search.heirs import Inheritance, Parents
from search.inheritance import PARENT, Descent
from search.leaderboard import best, ranking
from search.leaderboard import found as found_rows
from search.objectives import accepting, asked, excess, measures
from search.point import AnyPoint, Point
from search.population import Outcome
from search.run import (
    Record,
    Row,
    Settings,
    refuse_used,
    resuming,
    write_leaderboard,
    write_ledger,
    write_run,
)
from search.store import Generation, Store, Stored, only_writer, quiet
from search.suggest import sampler, suggest
from search.work import Pending, Task, Work

WORSE = 1e9  # than any loss
SHARE = 0.05  # of the time, that is taken for the ledger and the leaderboard of a long search
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
    size : of the generations that are proposed, trained or stored.
    running, epoch : candidates that are still trained, and the epoch that they finished; 0 where nobody says.
    lost : workers that have died, and whose candidates others trained.
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
    lost: int = 0


@dataclass(frozen=True)
class Result:
    """What a search found: every trial, the leaderboard, how long was searched, and why it ended before its limits."""

    folder: Path
    settings: Settings
    facts: Facts
    records: tuple[Record, ...]
    rows: tuple[Row, ...]
    elapsed: float
    reason: str = ""


Listener = Callable[[Event], None]


def start(settings: Settings, facts: Facts, work: Work, folder: Path, on_event: Listener) -> Result:
    """Search in a new folder.

    Raises
    ------
    ValueError : there is something in the folder, or an unknown strategy.
    BlockingIOError : another process searches there.
    OSError : the folder can't be written, or the disk is full; finished generations are kept.
    """
    refuse_used(folder)
    sampler(settings.strategy, seed=settings.seed, space=settings.space)  # an unknown one leaves no folder behind
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"can't make the folder {folder} ({error.strerror}): choose another with --out") from None
    with only_writer(folder), quiet():
        refuse_used(folder)
        write_run(folder, settings, facts)
        with Store(folder, len(settings.objectives)) as store:
            return _told(_Driver(settings, facts, work, folder, store, on_event))


def go_on(
    settings: Settings, facts: Facts, work: Work, folder: Path, on_event: Listener, *, more: bool = False
) -> Result:
    """Go on with the search in a folder, which was begun with these settings, apart from the limits.

    Parameters
    ----------
    more : whether the limits count from now on, and not from the beginning.

    Raises
    ------
    ValueError : this version proposes other trials than the one that began the search.
    BlockingIOError : another process searches there.
    OSError : the folder can't be written, or the disk is full; finished generations are kept.
    """
    with only_writer(folder), quiet(), Store(folder, len(settings.objectives)) as store:
        stored = store.read() if more else []
        trials, elapsed = len(stored), stored[-1].generation.elapsed if stored else 0.0
        settings = replace(
            settings,
            trials=None if settings.trials is None else settings.trials + trials,
            seconds=None if settings.seconds is None else settings.seconds + elapsed,
        )
        write_run(folder, settings, facts)
        return _told(_Driver(settings, facts, work, folder, store, on_event))


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


@dataclass(frozen=True)
class _Proposed:
    """A generation that has been proposed and not yet told: trials from ``first`` on.

    ``found`` are the measures of the points that no trial before has, by number; ``allowed`` those of them that are
    trained. ``stored``: it was finished before the search was cut off, so nothing is trained, and all is known.
    """

    first: int
    trials: tuple[int, ...]  # of the study in memory
    points: tuple[AnyPoint, ...] = ()
    keys: tuple[str, ...] = ()
    found: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    allowed: tuple[int, ...] = ()
    pending: Pending | None = None
    began: float = 0.0  # when it was proposed, in seconds of searching
    stored: tuple[Stored, ...] = ()

    @property
    def size(self) -> int:
        return len(self.trials)


class _Driver:
    """The study in memory, which the sampler sees, beside the stored one."""

    def __init__(
        self, settings: Settings, facts: Facts, work: Work, folder: Path, store: Store, on_event: Listener
    ) -> None:
        self.settings, self.facts, self.work = settings, facts, work
        self.folder, self.store, self.on_event = folder, store, on_event
        stored = store.read()
        whole = [s for s in stored if s.generation.first + s.generation.size <= len(stored)]
        self.cut = stored[len(whole) :]  # of a generation that was not stored to its end
        self.generations = list({s.generation.first: s.generation for s in whole}.values())
        ahead = self.generations[max(0, len(self.generations) - work.ahead) :]  # were proposed before the last was told
        told = whole[: ahead[0].first] if ahead else whole
        self.records = [s.record for s in told]
        self.best = best([s.record for s in whole], settings)
        self.study = optuna.create_study(
            sampler=_sampler(settings, facts), directions=["minimize"] * len(settings.objectives)
        )
        self.study.add_trials([s.with_parameters(settings.space) for s in told])
        self.waiting = deque(self.proposed_before(whole[g.first : g.first + g.size]) for g in ahead)
        self.parents = Parents(folder) if settings.recipe.inherit else None
        self.began = perf_counter() - self.elapsed
        ends = [0.0, *(generation.elapsed for generation in self.generations)]
        self.lasted = deque([end - start for start, end in pairwise(ends)][-3:], maxlen=3)  # from proposed to told
        self.reason = ""  # to end before the limits
        self.is_over = False
        self.tables = 0.0, 0.0  # when they were written last, and how long that took

    @property
    def elapsed(self) -> float:
        """Seconds of searching up to the end of the last generation."""
        return self.generations[-1].elapsed if self.generations else 0.0

    @property
    def refused(self) -> int:
        """Number of points that are no network of a graph space: some strategies propose such."""
        space = self.settings.space
        if not isinstance(space, GraphSpace):
            return 0
        return len({r.key for r in self.records if isinstance(r.point, GraphPoint) and space.refusal(r.point)})

    def search(self) -> Result:
        self.leave_parents()  # a search that was cut off may have left some
        self.began = perf_counter() - self.elapsed
        try:
            while True:
                while len(self.waiting) <= self.work.ahead and (size := self.next_size()):
                    self.waiting.append(self.propose(size))
                if not self.waiting:
                    return self.finish()
                self.settle()
                self.tell("storing")
        except KeyboardInterrupt:
            if not any(generation.stored for generation in self.waiting):  # else the tables have more already
                self.write_tables(now=True)
            raise

    def tell(self, stage: Stage, size: int = 0, running: int = 0, epoch: int = 0) -> None:
        limits = self.settings.trials, self.settings.seconds
        elapsed = self.elapsed if stage in ("storing", "rivals") else perf_counter() - self.began
        size += sum(generation.size for generation in self.waiting if not generation.stored)
        done = len(self.records) + sum(len(generation.stored) for generation in self.waiting)
        self.on_event(Event(stage, done, self.best, elapsed, *limits, size, running, epoch, self.work.lost))

    def next_size(self) -> int:
        """Number of trials of the next generation; 0: nothing more is proposed."""
        if self.cut:
            return self.cut[0].generation.size
        limit, seconds, done = self.settings.trials, self.settings.seconds, len(self.records)
        known = len({record.key for record in self.records})
        networks = self.facts.points if self.facts.architectures is None else self.facts.architectures
        if networks is not None and known - self.refused >= networks:
            self.reason = "all networks of the space are known"
        elif len(self.records) - known > AGAIN and not any(r.duplicate_of is None for r in self.records[-AGAIN:]):
            self.reason = f"the last {AGAIN} trials were known already"
        elif done >= AGAIN and all(record.status == "infeasible" for record in self.records[-AGAIN:]):
            self.reason = f"the last {AGAIN} trials exceed the constraints"
        if self.reason:
            return 0
        if seconds is not None and self.elapsed + max(self.lasted, default=0.0) > seconds:
            self.is_over = True
        if self.is_over:  # or what is proposed would depend on how fast the others end
            return 0
        size = max(1, round(self.settings.population * self.settings.recipe.share(self.number)))
        return size if limit is None else max(0, min(size, limit - len(self.study.get_trials(deepcopy=False))))

    @property
    def number(self) -> int:
        """Of the generation that is proposed next."""
        return len(self.generations) + sum(not generation.stored for generation in self.waiting)

    def propose(self, size: int) -> _Proposed:
        """Ask the strategy for a generation, and have it trained."""
        settings, first = self.settings, len(self.study.get_trials(deepcopy=False))
        began = self.elapsed if not self.waiting else perf_counter() - self.began  # storing counts too
        self.tell("proposing", size=size)
        for point in self.work.begin(size) if first == 0 else ():
            self.study.enqueue_trial(dict(settings.space.encode(point)))
        trials = [self.study.ask() for _ in range(size)]
        points = tuple(suggest(trial, settings.space) for trial in trials)
        keys = tuple(key(point, seed=settings.seed, budget=settings.recipe.epochs) for point in points)
        for keyed, stored in zip(keys, self.cut, strict=False):
            if keyed != stored.record.key:
                raise ValueError(
                    f"trial {stored.record.number} of {self.folder} is proposed otherwise than before: "
                    "it was begun by other versions (see run.json); install those, or start a new search"
                )
        self.cut = []
        known = {record.key for record in self.records} | {k for before in self.waiting for k in before.keys}
        fresh = [first + i for i, keyed in enumerate(keys) if keyed not in known and keyed not in keys[:i]]
        found = {n: self.measured(canonical(points[n - first])) for n in fresh}
        allowed = tuple(n for n in fresh if not excess(found[n], settings.constraints))
        costs = [tuple(found[n][name] for name in settings.objectives if name in found[n]) for n in allowed]
        born = self.study.get_trials(deepcopy=False)[first:]
        heirs = [self.inheritance(n, points[n - first], born[n - first]) for n in allowed]
        recipe = settings.recipe.bracket(self.number)
        pending = self.work.submit(Task([canonical(points[n - first]) for n in allowed], costs, recipe, heirs))
        numbers = tuple(trial.number for trial in trials)
        return _Proposed(first, numbers, points, keys, found, allowed, pending, began)

    def proposed_before(self, stored: Sequence[Stored]) -> _Proposed:
        """A generation that was proposed and finished before the search was cut off, and is to be told again."""
        self.study.add_trials([s.with_parameters(self.settings.space, is_running=True) for s in stored])
        first, numbers = stored[0].generation.first, tuple(s.record.number for s in stored)
        return _Proposed(first, numbers, keys=tuple(s.record.key for s in stored), stored=tuple(stored))

    def settle(self) -> None:
        """Wait for the generation that was proposed first, tell the strategy what became of it, and store it."""
        settings, one = self.settings, self.waiting[0]
        if one.stored:
            self.told(one, [s.record for s in one.stored])
            self.waiting.popleft()
            return

        def progress(epoch: int, running: int) -> None:
            self.tell("training", running=running, epoch=epoch)

        assert one.pending is not None
        progress(0, len(one.allowed))
        outcomes = dict(zip(one.allowed, one.pending(progress), strict=True))
        self.waiting.popleft()
        born = self.study.get_trials(deepcopy=False)[one.first : one.first + one.size]
        owner = {record.key: record.number for record in self.records if record.duplicate_of is None}
        records = list(self.records)
        for i, (point, keyed) in enumerate(zip(one.points, one.keys, strict=True)):
            number = one.first + i
            if number in outcomes:
                records.append(_record(number, keyed, point, outcomes[number], one.found[number]))
            elif number in one.found:
                records.append(_infeasible(number, keyed, point, one.found[number]))
            else:
                records.append(_duplicate(number, point, records[owner[keyed]]))
            owner.setdefault(keyed, number)
            records[-1] = replace(records[-1], parent=_parent(born[i]))

        self.best = best(records, settings)
        if self.best is not None and self.best.number in outcomes:
            # Before the records: a machine without its record is found again, a record without its machine is not.
            self.work.keep(self.best, outcomes[self.best.number])
        if self.parents:
            for number in (n for n in outcomes if records[n].is_valid):
                self.parents.write(number, outcomes[number].machines)
        own = records[one.first :]
        generation = Generation(one.first, one.size, perf_counter() - self.began)
        self.told(one, own)
        done = self.study.get_trials(deepcopy=False)[one.first : one.first + one.size]
        self.store.append(done, own, generation, settings.space.parameters)
        self.generations.append(generation)
        self.lasted.append(generation.elapsed - one.began)
        self.leave_parents()
        self.write_tables()

    def write_tables(self, *, now: bool = False) -> None:
        """The ledger and the leaderboard so far, as often as that takes a small share of the time.

        Nothing is lost where they lag behind: the study is written already.
        """
        last, took = self.tables
        began = perf_counter()
        if now or began - last >= took / SHARE:
            write_ledger(self.folder, self.records, self.facts, self.settings)
            write_leaderboard(self.folder, found_rows(self.records, self.facts, self.settings), self.facts)
            self.tables = perf_counter(), perf_counter() - began

    def told(self, one: _Proposed, records: Sequence[Record]) -> None:
        """The strategy knows of a generation."""
        for number, record in zip(one.trials, records, strict=True):
            values = _told_values(record, self.settings)
            self.study.tell(number, values, state=TrialState.FAIL if values is None else TrialState.COMPLETE)
        self.records = [*self.records, *records]

    def leave_parents(self) -> None:
        """Take away the weights of those who can't be parents any more."""
        if self.parents and isinstance(self.study.sampler, RegularizedEvolution):
            self.parents.leave({self.trained(number) for number in self.study.sampler.living(self.study)})

    def inheritance(self, number: int, point: AnyPoint, trial: FrozenTrial) -> Inheritance | None:
        """What a trial begins with, if it has a parent that was trained."""
        parent = _parent(trial)
        if self.parents is None or parent is None or not self.records[self.trained(parent)].is_valid:
            return None
        trained = self.trained(parent)
        if trained != parent and not self.parents.has(trained):
            return None  # the parent is like one that had died before it
        before = self.records[parent].point
        assert isinstance(point, Point)  # settings refuse to let others inherit
        assert isinstance(before, Point)
        alignment = Descent.from_dict(point, trial.system_attrs[PARENT]).alignment(before)
        seed = int(np.random.SeedSequence((self.settings.seed, number)).generate_state(1)[0])
        return Inheritance(alignment, seed, self.parents.read(trained))

    def trained(self, number: int) -> int:
        """The trial with the same key that was trained."""
        first = self.records[number].duplicate_of
        return number if first is None else first

    def measured(self, point: AnyPoint) -> dict[str, float]:
        """What else is to be small or limited, of a canonical point."""
        names = asked(self.settings.objectives, self.settings.constraints)
        return measures(point, self.facts.shape, names, self.settings.space)

    def finish(self) -> Result:
        """Find the winner among the best, and write the leaderboard."""
        ranked, rows = ranking(self.records, self.settings), found_rows(self.records, self.facts, self.settings)
        if self.records:
            self.write_tables(now=True)
        if ranked:
            self.tell("rivals")
            rows = self.work.end(ranked, self.settings) or rows
            write_leaderboard(self.folder, rows, self.facts)
        return Result(
            self.folder, self.settings, self.facts, tuple(self.records), tuple(rows), self.elapsed, self.reason
        )


def _parent(trial: FrozenTrial) -> int | None:
    """The trial that the strategy has changed to get this one."""
    descent = trial.system_attrs.get(PARENT)
    return None if descent is None else int(descent["trial"])


def _sampler(settings: Settings, facts: Facts) -> BaseSampler:
    """That of the strategy, which proposes nothing that is known to exceed a constraint, if it can help it."""

    accepts = accepting(facts.shape, settings.constraints, settings.space)
    return sampler(settings.strategy, seed=settings.seed, space=settings.space, accepts=accepts)


def _told_values(record: Record, settings: Settings) -> list[float] | None:
    """What the sampler is told of a trial: of one that exceeds a constraint, that it is worse than all that do not."""
    if record.is_valid:
        return list(record.values(settings.objectives, settings.maximize))
    over = excess(record.measures, settings.constraints)
    return [WORSE * (1 + over)] * len(settings.objectives) if over else None


def _record(number: int, keyed: str, point: AnyPoint, outcome: Outcome, found: Mapping[str, float]) -> Record:
    return Record(
        number, keyed, point, canonical(point), outcome.status, outcome.epochs, outcome.loss, outcome.score,
        outcome.seconds, None, outcome.curve, {**found, **outcome.measures}, outcome.reason,
    )  # fmt: skip


def _infeasible(number: int, keyed: str, point: AnyPoint, found: Mapping[str, float]) -> Record:
    return Record(number, keyed, point, canonical(point), "infeasible", 0, math.nan, math.nan, 0.0, None, (), found)


def _duplicate(number: int, point: AnyPoint, known: Record) -> Record:
    """What is known of a point that has been trained: a result, unless it diverged."""
    if not known.is_valid:
        known = replace(known, loss=math.nan, score=math.nan)
    same = {"duplicate_of": known.number, "status": "duplicate", "epochs": 0, "seconds": 0.0, "curve": ()}
    return replace(known, number=number, point=point, canonical=canonical(point), **same)  # type: ignore[arg-type]
