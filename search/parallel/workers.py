"""Generations trained by others, several at once: by processes of this machine, or by the nodes of a cluster.

A worker is told points and recipe, and answers with outcomes; what it trains depends on these alone, so that one that
dies can be replaced by any other. The study, the proposals and the files belong to the process that searches.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from search.objectives import MEASURES
from search.parallel.cluster import Cluster, size
from search.parallel.pool import Pool
from search.parallel.processes import Workers
from search.point import AnyPoint
from search.population import NEWS, Outcome, Progress, usable
from search.record import Record, Row, Settings
from search.run import resuming
from search.work import Pending, Task, Work

QUEUED = 2  # generations a worker: one that it trains, and the next, so that it waits for nobody


class Divisible(Work, Protocol):
    """Work whose training can be done elsewhere, by a copy of it."""

    settings: Settings
    folder: Path

    def train(self, task: Task, progress: Progress) -> list[Outcome]:
        """The outcomes of a generation, in the order of its points."""


class OnWorkers:
    """The work of a search with candidates trained by workers.

    Its end, which compares the best, is done in this process, on all cores.

    Parameters
    ----------
    work : which they share.
    pool : of the workers.
    number : of generations in training at once.
    """

    def __init__(self, work: Divisible, pool: Pool, number: int) -> None:
        self._work, self._pool, self.ahead = work, pool, QUEUED * number - 1

    @property
    def lost(self) -> int:
        """How many workers have died."""
        return self._pool.lost

    def begin(self, number: int) -> Sequence[AnyPoint]:
        """As the work does."""
        return self._work.begin(number)

    def submit(self, task: Task) -> Pending:
        """A worker trains them, as soon as one is free."""
        future = self._pool.submit(_train, task)

        def outcomes(progress: Progress) -> list[Outcome]:
            while not wait([future], timeout=NEWS).done:
                progress(0, len(task.points))
            try:
                found: list[Outcome] = future.result()
            except OSError as error:
                if error.errno is None:  # ours: it says so already
                    raise
                raise OSError(f"a worker can't go on: {error}") from error  # it is not the folder that is at fault
            return found

        return outcomes

    def keep(self, record: Record, outcome: Outcome) -> None:
        """As the work does."""
        self._work.keep(record, outcome)

    def end(self, ranked: Sequence[Record], settings: Settings) -> list[Row]:
        """As the work does, without the workers."""
        self.close()
        return self._work.end(ranked, settings)

    def close(self) -> None:
        """End the workers."""
        self._pool.close()


def _train(work: Divisible, task: Task) -> list[Outcome]:
    """What a worker does. Where the loss alone decides, only the machine comes back that may be the best of all."""
    found = work.train(task, lambda epoch, running: None)
    first, *others = work.settings.objectives
    if others or first in MEASURES:
        return found
    losses = [one.loss if one.status not in ("diverged", "failed") else math.nan for one in found]
    best = min((i for i, loss in enumerate(losses) if math.isfinite(loss)), key=lambda i: losses[i], default=None)
    return [one if i == best else replace(one, machine=None, machines=()) for i, one in enumerate(found)]


def manned(settings: Settings, ray: str | None) -> Settings:
    """The settings, on a cluster with workers: as many as it has room for, if they have none.

    Raises
    ------
    ValueError : GPUs without a cluster, or a cluster with room for nobody.
    ImportError, OSError : as of ``search.parallel.cluster.Cluster``.
    """
    refuse_alone(settings, ray)
    if ray is None or settings.workers is not None:
        return settings
    return replace(settings, workers=size(ray, settings.gpus))


def refuse_alone(settings: Settings, ray: str | None) -> None:
    """ValueError: GPUs without a cluster."""
    if settings.gpus and ray is None:
        raise ValueError(
            f"got gpus={settings.gpus:g} without a Ray cluster, which shares GPUs out: give its address by ray "
            "(--ray local: this machine alone), or leave gpus out"
        )


@contextmanager
def employed(work: Divisible, ray: str | None = None) -> Iterator[Work]:
    """The work as it is wanted: done here, or by so many workers, which end with the context.

    Parameters
    ----------
    work : whose settings say how many workers there are, and what each has.
    ray : the address of a cluster whose nodes they are on; ``None``: they are processes of this machine, no more than
        it has cores for.

    Raises
    ------
    ValueError : work that can't be sent to them, a cluster without workers, GPUs without a cluster, or what
        ``search.parallel.cluster.Cluster`` refuses.
    ImportError, OSError : as of ``Cluster``.
    """
    number, share = work.settings.workers, work.settings.gpus
    refuse_alone(work.settings, ray)
    if number is None:
        if ray is not None:
            raise ValueError(
                f"got the cluster {ray!r} for a search that was begun without workers, one generation after the other: "
                "leave it out, or begin a search with workers"
            )
        yield work
        return
    pool: Pool
    if ray is None:
        pool = Workers(min(number, usable()), work)
    else:
        pool = Cluster(ray, number, work, share=share, again=resuming(work.folder, ray))
    workers = OnWorkers(work, pool, number)
    try:
        yield workers
    finally:
        workers.close()
