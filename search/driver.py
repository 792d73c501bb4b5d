"""One driver of a search: it asks for a generation of trials, trains them together, and tells the results.

A generation is stored when it is finished, and all before it are: whole, or not at all. A search that was cut off asks
for the next again: strategies depend on (seed, trial number) and the trials before, so it is the same one.

Where several are trained at once, a generation is proposed when so many before it are still in training, and they are
told in their order, whoever is done first: what is proposed depends on no worker's speed.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np

from search import verdict
from search.comparison.leaderboard import best, ranking
from search.comparison.leaderboard import found as found_rows
from search.facts import Facts
from search.graph.point import GraphPoint
from search.graph.space import GraphSpace
from search.isomorphism.canonical import canonical, key
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
from search.storage.connection import only_writer
from search.storage.database import file_place, new_place, place_of
from search.storage.store import Store, beginning, quiet, refuse_known
from search.storage.stored_trial import Generation, Stored
from search.strategies.heirs import Inheritance, Parents
from search.strategies.inheritance import PARENT, Descent
from search.strategies.strategy import Proposal, Strategy, strategy
from search.work import Pending, Task, Work

SHARE = 0.05  # of the time, that is taken for the ledger and the leaderboard of a long search
AGAIN = 200  # trials in a row that are known already, after which a search is at its end

Stage = Literal["proposing", "training", "storing", "waiting", "rivals"]


@dataclass(frozen=True)
class Event:
    """How a search stands.

    Parameters
    ----------
    stage : what is being done now; ``waiting`` is for a database that has gone.
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


def start(
    settings: Settings, facts: Facts, work: Work, folder: Path, on_event: Listener, *, in_folder: bool = False
) -> Result:
    """Search in a new folder.

    Parameters
    ----------
    in_folder : whether the study is in the folder, even if the environment names a database.

    Raises
    ------
    ValueError : there is something in the folder, a database has a study of its name, or an unknown strategy.
    BlockingIOError : another process searches there.
    OSError : the folder can't be written, or the disk is full; finished generations are kept.
    """
    refuse_used(folder)
    chosen = _strategy(settings, facts)  # an unknown one leaves no folder behind
    place = file_place(folder) if in_folder else new_place(folder)
    refuse_known(folder, place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"can't make the folder {folder} ({error.strerror}): choose another with --out") from None
    with only_writer(folder), quiet():
        refuse_used(folder)
        with beginning(folder, place):
            write_run(folder, settings, facts, place.told)
            store = Store(folder, len(settings.objectives), place)
            store.keep_settings()
        with store:
            store.hold()
            return _searched(_Driver(settings, facts, work, chosen, folder, store, on_event))


def go_on(
    settings: Settings, facts: Facts, work: Work, folder: Path, on_event: Listener, *, more: bool = False
) -> Result:
    """Go on with the search in a folder, which was begun with these settings, apart from the limits.

    Parameters
    ----------
    more : whether the limits count from now on, and not from the beginning.

    Raises
    ------
    ValueError : another version of machgraph has stored the trials.
    BlockingIOError : another process searches there.
    OSError : the folder can't be written, or the disk is full; finished generations are kept.
    """
    place = place_of(folder)
    made = len(settings.objectives) if place.is_file else None  # a search may have been killed before it was
    with only_writer(folder), quiet(), Store(folder, made, place) as store:
        store.hold()
        stored = store.read() if more else []
        trials, elapsed = len(stored), stored[-1].generation.elapsed if stored else 0.0
        settings = replace(
            settings,
            trials=None if settings.trials is None else settings.trials + trials,
            seconds=None if settings.seconds is None else settings.seconds + elapsed,
        )
        write_run(folder, settings, facts, place.told)
        store.keep_settings()
        return _searched(_Driver(settings, facts, work, _strategy(settings, facts), folder, store, on_event))


def _searched(driver: "_Driver") -> Result:
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
    proposals: tuple[Proposal, ...]
    keys: tuple[str, ...] = ()
    found: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    allowed: tuple[int, ...] = ()
    pending: Pending | None = None
    began: float = 0.0  # when it was proposed, in seconds of searching
    stored: tuple[Stored, ...] = ()

    @property
    def size(self) -> int:
        return len(self.proposals)


class _Driver:
    """All that is known of a search while it goes on.

    What a generation costs does not grow with those before it, apart from the tables, which are written the less often.
    """

    def __init__(
        self,
        settings: Settings,
        facts: Facts,
        work: Work,
        strategy: Strategy,
        folder: Path,
        store: Store,
        on_event: Listener,
    ) -> None:
        self.settings, self.facts, self.work, self.strategy = settings, facts, work, strategy
        self.folder, self.store, self.on_event = folder, store, on_event
        stored = store.read()
        self.generations = list({s.generation.first: s.generation for s in stored}.values())
        ahead = self.generations[max(0, len(self.generations) - work.ahead) :]  # were proposed before the last was told
        finished = stored[: ahead[0].first] if ahead else stored
        self.best = best([s.record for s in stored], settings)
        self.records = list[Record]()
        self.owners = dict[str, int]()  # the trial that was trained, of each key
        self.refused = set[str]()  # keys of points that are no network of a graph space: some strategies propose such
        self.keys = set[str]()  # of all that was proposed
        self.proposed = 0  # trials
        self.again = 0, 0  # generations that are told again, and trials of these
        for s in finished:
            (proposal,) = self.proposed_before([s]).proposals
            self.learn(proposal, s.record)
        self.waiting = deque(self.proposed_before(stored[g.first : g.first + g.size]) for g in ahead)
        self.again = len(ahead), sum(g.size for g in ahead)
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
                self.announce("storing")
        except KeyboardInterrupt:
            if not any(self.again):  # else the tables have more already
                self.write_tables(now=True)
            raise

    def announce(self, stage: Stage, size: int = 0, running: int = 0, epoch: int = 0) -> None:
        limits = self.settings.trials, self.settings.seconds
        elapsed = self.elapsed if stage in ("storing", "rivals") else perf_counter() - self.began
        done = len(self.records) + self.again[1]
        size += self.proposed - done
        self.on_event(Event(stage, done, self.best, elapsed, *limits, size, running, epoch, self.work.lost))

    def next_size(self) -> int:
        """Number of trials of the next generation; 0: nothing more is proposed."""
        limit, seconds, done = self.settings.trials, self.settings.seconds, len(self.records)
        known = len(self.owners)
        networks = self.facts.points if self.facts.architectures is None else self.facts.architectures
        if networks is not None and known - len(self.refused) >= networks:
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
        return size if limit is None else max(0, min(size, limit - self.proposed))

    @property
    def number(self) -> int:
        """Of the generation that is proposed next."""
        return len(self.generations) + len(self.waiting) - self.again[0]

    def propose(self, size: int) -> _Proposed:
        """Ask the strategy for a generation, and have it trained."""
        settings, first = self.settings, self.proposed
        began = self.elapsed if not self.waiting else perf_counter() - self.began  # storing counts too
        self.announce("proposing", size=size)
        given = list(self.work.begin(size)) if first == 0 else []
        proposals = [Proposal(point, settings.space.encode(point)) for point in given[:size]]
        for number, proposal in enumerate(proposals, first):
            self.strategy.take(number, proposal)
        proposals += [self.strategy.propose(number) for number in range(first + len(proposals), first + size)]
        self.proposed += size
        points = [proposal.point for proposal in proposals]
        keys = tuple(key(point, seed=settings.seed, budget=settings.recipe.epochs) for point in points)
        fresh = [first + i for i, keyed in enumerate(keys) if keyed not in self.keys and keyed not in keys[:i]]
        self.keys.update(keys)
        found = {n: self.measured(canonical(points[n - first])) for n in fresh}
        allowed = tuple(n for n in fresh if not excess(found[n], settings.constraints))
        costs = [verdict.costs(found[n], settings) for n in allowed]
        heirs = [self.inheritance(n, proposals[n - first]) for n in allowed]
        recipe = settings.recipe.bracket(self.number)
        pending = self.work.submit(Task([canonical(points[n - first]) for n in allowed], costs, recipe, heirs))
        return _Proposed(first, tuple(proposals), keys, found, allowed, pending, began)

    def proposed_before(self, stored: Sequence[Stored]) -> _Proposed:
        """A generation that was proposed and finished before the search was cut off, and is to be told again."""
        space = self.settings.space
        proposals = tuple(Proposal(s.record.point, s.parameters(space), s.attributes) for s in stored)
        for s, proposal in zip(stored, proposals, strict=True):
            self.strategy.take(s.record.number, proposal)
        self.proposed += len(stored)
        keys = tuple(s.record.key for s in stored)
        self.keys.update(keys)
        return _Proposed(stored[0].record.number, proposals, keys, stored=tuple(stored))

    def settle(self) -> None:
        """Wait for the generation that was proposed first, tell the strategy what became of it, and store it."""
        one = self.waiting[0]
        if one.stored:
            for proposal, s in zip(one.proposals, one.stored, strict=True):
                self.learn(proposal, s.record)
            self.waiting.popleft()
            self.again = self.again[0] - 1, self.again[1] - one.size
            return

        def progress(epoch: int, running: int) -> None:
            self.announce("training", running=running, epoch=epoch)

        assert one.pending is not None
        progress(0, len(one.allowed))
        outcomes = dict(zip(one.allowed, one.pending(progress), strict=True))
        self.waiting.popleft()
        own = self.records_of(one, outcomes)
        self.best = best([*([self.best] if self.best else []), *own], self.settings)
        if self.best is not None and self.best.number in outcomes:
            # Before the records: a machine without its record is found again, a record without its machine is not.
            self.work.keep(self.best, outcomes[self.best.number])
        if self.parents:
            for record in (record for record in own if record.number in outcomes and record.is_valid):
                self.parents.write(record.number, outcomes[record.number].machines)
        generation = Generation(one.first, one.size, perf_counter() - self.began)
        self.store.append(
            [
                Stored(record, generation, self.places(p.code), verdict.value(record, self.settings), p.attributes)
                for record, p in zip(own, one.proposals, strict=True)
            ],
            lambda: self.announce("waiting"),
        )
        for proposal, record in zip(one.proposals, own, strict=True):
            self.learn(proposal, record)
        self.generations.append(generation)
        self.lasted.append(generation.elapsed - one.began)
        self.leave_parents()
        self.write_tables()

    def records_of(self, one: _Proposed, outcomes: Mapping[int, Outcome]) -> list[Record]:
        """What became of each trial of a generation whose outcomes are there, by the number of the trial."""
        own, wish = list[Record](), asked(self.settings.objectives, self.settings.constraints)
        for number, (proposal, keyed) in enumerate(zip(one.proposals, one.keys, strict=True), one.first):
            point = proposal.point
            if number in outcomes:
                record = verdict.trained(number, keyed, point, outcomes[number], one.found[number], wish)
            elif number in one.found:
                record = verdict.infeasible(number, keyed, point, one.found[number])
            else:
                known = self.owners.get(keyed)
                first = next(r for r in own if r.key == keyed) if known is None else self.records[known]
                record = verdict.duplicate(number, point, first)
            own.append(replace(record, parent=_parent(proposal)))
        return own

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

    def learn(self, proposal: Proposal, record: Record) -> None:
        """A trial is finished, and the strategy knows."""
        self.strategy.tell(record.number, verdict.value(record, self.settings))
        self.records.append(record)
        self.owners.setdefault(record.key, record.number)
        space = self.settings.space
        if isinstance(space, GraphSpace) and isinstance(proposal.point, GraphPoint) and space.refusal(proposal.point):
            self.refused.add(record.key)

    def places(self, code: Mapping[str, Any]) -> tuple[int, ...]:
        """Of each parameter of the space, the place of its value among its choices."""
        return tuple(choices.index(code[name]) for name, choices in self.settings.space.parameters.items())

    def leave_parents(self) -> None:
        """Take away the weights of those who can't be parents any more."""
        if self.parents:
            self.parents.leave({self.trained(number) for number in self.strategy.living()})

    def inheritance(self, number: int, proposal: Proposal) -> Inheritance | None:
        """What a trial begins with, if it has a parent that was trained."""
        point, parent = proposal.point, _parent(proposal)
        if self.parents is None or parent is None or not self.records[self.trained(parent)].is_valid:
            return None
        trained = self.trained(parent)
        if trained != parent and not self.parents.has(trained):
            return None  # the parent is like one that had died before it
        before = self.records[parent].point
        assert isinstance(point, Point)  # settings refuse to let others inherit
        assert isinstance(before, Point)
        alignment = Descent.from_dict(point, proposal.attributes[PARENT]).alignment(before)
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
            self.announce("rivals")
            rows = self.work.end(ranked, self.settings) or rows
            self.count_look(rows)  # before anybody can see what it showed
            write_leaderboard(self.folder, rows, self.facts)
        return Result(
            self.folder, self.settings, self.facts, tuple(self.records), tuple(rows), self.elapsed, self.reason
        )

    def count_look(self, rows: Sequence[Row]) -> None:
        """Keep with the run that the held-out part was looked at after so many trials, if these rows tell of it."""
        trials = len(self.records)
        if trials in self.facts.looked or all(row.test_score is None for row in rows):
            return
        self.facts = replace(self.facts, looked=(*self.facts.looked, trials))
        write_run(self.folder, self.settings, self.facts, place_of(self.folder).told)
        with suppress(OSError):  # of a database that has gone: the folder has it
            self.store.keep_settings()


def _parent(proposal: Proposal) -> int | None:
    """The trial that the strategy has changed to get this one."""
    descent = proposal.attributes.get(PARENT)
    return None if descent is None else int(descent["trial"])


def _strategy(settings: Settings, facts: Facts) -> Strategy:
    """That of the settings, which proposes nothing that is known to exceed a constraint, if it can help it."""
    space, objectives = settings.space, len(settings.objectives)
    accepts = accepting(facts.shape, settings.constraints, space)
    with quiet():
        return strategy(settings.strategy, seed=settings.seed, space=space, objectives=objectives, accepts=accepts)
