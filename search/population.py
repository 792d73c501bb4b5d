"""Many candidates trained side by side: with early stopping, and halved at each rung.

A candidate sees the same batches and begins from the same weights as when it is trained alone.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from machgraph.parametric_machine import ParametricMachine
from machgraph.population import Candidate, Population
from machgraph.training import Batches, Objective, Optimizer, batches
from search.data import Dataset, Part
from search.machine import answers, build, laid_out
from search.point import Kind, Point
from search.recipe import Recipe

CHUNK = 1024  # samples that are measured at once

Measured = tuple[float, float, float]  # loss, score, sharpness

Status = Literal["complete", "stopped", "halved", "diverged"]


@dataclass(frozen=True)
class Outcome:
    """What training one candidate gave; where it was trained on several folds, means over them.

    Parameters
    ----------
    status : ``complete`` (the whole schedule), ``stopped`` (no lower validation loss for ``patience`` epochs),
        ``halved`` (not among the best at a rung) or ``diverged`` (a loss that is not finite).
    epochs : that it was trained for.
    best_epoch : after which its validation loss was the lowest, from 1; 0 if it diverged at once.
    loss, score : on the validation part after its best epoch: cross-entropy, calibrated, and accuracy; or mean squared
        error (the training part's variance is 1) and R². Not a number if it diverged at once.
    curve : validation loss after each epoch.
    seconds : that a thread took for it.
    sharpness : what outputs are multiplied with, so that classes are as probable as they are frequent: see
        ``machgraph.Population.calibrate``; 1 for values.
    machine : with the weights of its best epoch, of the first fold.
    """

    status: Status
    epochs: int
    best_epoch: int
    loss: float
    score: float
    curve: tuple[float, ...]
    seconds: float
    sharpness: float
    machine: ParametricMachine = field(repr=False, compare=False)


def evaluate(machine: ParametricMachine, dataset: Dataset, part: Part, sharpness: float = 1.0) -> tuple[float, float]:
    """Loss and score of one machine on a part of the data, as in ``Outcome``."""
    return scores(dataset, part, sharpness * outputs(machine, dataset, part))


def outputs(machine: ParametricMachine, dataset: Dataset, part: Part) -> NDArray[np.float64]:
    """What a machine says of a part of the data, ``(row, output)``."""
    with torch.no_grad():
        said: NDArray[np.float64] = answers(machine, torch.from_numpy(part.x), dataset.shape).double().numpy()
    return said


@np.errstate(invalid="ignore")  # of a machine that diverged
def scores(dataset: Dataset, part: Part, outputs: NDArray[np.float64]) -> tuple[float, float]:
    """Loss and score, as in ``Outcome``, of outputs ``(row, output)`` on a part of the data."""
    if dataset.task == "regression":
        return float(np.mean((outputs[:, 0] - part.y) ** 2)), dataset.score(part, outputs)
    logarithms = outputs - np.logaddexp.reduce(outputs, axis=1, keepdims=True)
    return -float(np.mean(logarithms[np.arange(len(part)), part.y])), dataset.score(part, outputs)


def train(
    points: Sequence[Point],
    folds: Sequence[Dataset],
    recipe: Recipe,
    seed: int,
    progress: Callable[[int, int], None] = lambda epoch, running: None,
    *,
    seeds: Sequence[int] | None = None,
) -> list[Outcome]:
    """Train all candidates together; the same candidates, data, recipe and seed give the same outcomes.

    Parameters
    ----------
    points : candidates; equal ones are trained twice, so leave those out.
    folds : data sets, on each of which every candidate is trained: on ``train``, measured after each epoch on
        ``validation``; ``test`` is not looked at. Early stopping and halving go by the means over the folds.
    recipe : schedule, regularization, early stopping and halving.
    seed : of the order of the batches, and of the initial weights.
    progress : told the epoch and how many candidates are still running.
    seeds : of the initial weights, one for each candidate, in place of ``seed``.

    Returns
    -------
    One outcome a candidate, in their order.
    """
    cohorts = [_Cohort(dataset, recipe, seed) for dataset in folds]
    runners = [
        _Runner([cohort.enter(point, initial) for cohort in cohorts])
        for point, initial in zip(points, seeds or [seed] * len(points), strict=True)
    ]
    running = runners
    for epoch in range(recipe.epochs if points else 0):
        measured: dict[Candidate, Measured] = {}
        for cohort in cohorts:
            cohort.descend(epoch)
            measured |= cohort.measure()
        for runner in running:
            runner.record([measured[candidate] for candidate in runner.candidates])
        leavers = _leavers(running, epoch + 1, recipe)
        for i, cohort in enumerate(cohorts):
            cohort.leave([runner.candidates[i] for runner in leavers])
        running = [runner for runner in running if runner not in leavers]
        progress(epoch + 1, len(running))
        if not running:
            break
    return [runner.outcome() for runner in runners]


def refit(
    points: Sequence[Point],
    dataset: Dataset,
    recipe: Recipe,
    epochs: Sequence[int],
    *,
    seed: int,
    seeds: Sequence[int],
) -> list[ParametricMachine]:
    """Train machines on ``dataset.train`` without looking at any other part, each for so many epochs.

    Parameters
    ----------
    points, epochs, seeds : of each machine: what it is, for how long, and with which initial weights.
    dataset : as a rule ``whole()`` of the one that was searched on.
    recipe : its schedule, which is as long as each machine's epochs; nothing is stopped or halved.
    seed : of the order of the batches.
    """
    cohort = _Cohort(dataset, recipe, seed)
    candidates = [cohort.enter(point, initial) for point, initial in zip(points, seeds, strict=True)]
    lengths = dict(zip(candidates, epochs, strict=True))
    for epoch in range(max(epochs, default=0)):
        cohort.descend(epoch, lengths)
        done = [candidate for candidate, last in zip(candidates, epochs, strict=True) if last == epoch + 1]
        for candidate in done:
            candidate.store()
        cohort.leave(done)
    return [candidate.machine for candidate in candidates]


class _Cohort:
    """All candidates on one data set: a population for each kind of input and size of batches."""

    def __init__(self, dataset: Dataset, recipe: Recipe, seed: int) -> None:
        self.dataset, self.recipe = dataset, recipe
        self.order = torch.Generator().manual_seed(seed)
        self.objective = _objective(dataset, recipe.label_smoothing)
        self.populations: dict[tuple[Kind, int], Population] = {}
        self.validation: dict[Kind, tuple[Batches, ...]] = {}

    def enter(self, point: Point, seed: int) -> Candidate:
        kind = point.kind, min(point.batch_size, len(self.dataset.train))
        if kind not in self.populations:
            self.populations[kind] = Population(self.objective, threads=cores())
        machine = build(point, self.dataset.shape, seed)
        settings = Optimizer("adamw", learning_rate=point.learning_rate, weight_decay=point.weight_decay)
        return self.populations[kind].enter(machine, settings)

    def descend(self, epoch: int, lengths: Mapping[Candidate, int] | None = None) -> None:
        """An epoch of everybody: the samples come in one order for all, the schedules may have lengths of their own."""
        y, recipe = _targets(self.dataset.train, self.dataset), self.recipe
        shuffled = torch.randperm(len(y), generator=self.order)
        for (kind, size), population in self.populations.items():
            if not population.candidates:
                continue
            steps = recipe.steps(len(y), size)
            (data,) = batches(_inputs(self.dataset.train, self.dataset, kind), y, size, shuffled[: steps * size])
            ends = [lengths[candidate] if lengths else recipe.epochs for candidate in population.candidates]
            rates = {end: [recipe.rate((epoch + k / steps) / end) for k in range(steps)] for end in set(ends)}
            population.descend(data, [rates[end] for end in ends])

    def measure(self) -> dict[Candidate, Measured]:
        """Loss, score and sharpness on the validation part, of each candidate that has not left."""
        part, results = self.dataset.validation, dict[Candidate, Measured]()
        for (kind, _), population in self.populations.items():
            if kind not in self.validation:
                self.validation[kind] = _parts(part, self.dataset, kind)
            data = self.validation[kind]
            if self.dataset.task == "classification":
                results |= dict(zip(population.candidates, population.calibrate(data), strict=True))
                continue
            variance = float(part.y.var())
            for candidate, (loss, _) in zip(population.candidates, population.measure(data), strict=True):
                results[candidate] = loss, 1 - loss / variance, 1.0
        return results

    def leave(self, candidates: Sequence[Candidate]) -> None:
        for population in self.populations.values():
            population.leave(candidates)


@dataclass(eq=False)
class _Runner:
    """How a candidate fares, on each of the folds; its machines hold the weights of its best epoch."""

    candidates: list[Candidate]
    status: Status = "complete"
    loss: float = float("nan")
    score: float = float("nan")
    sharpness: float = 1.0
    best_epoch: int = 0
    curve: list[float] = field(default_factory=list)

    def record(self, results: Sequence[Measured]) -> None:
        """Take down an epoch's results, and the weights if it was never better."""
        loss, score, sharpness = map(float, np.mean(results, axis=0))
        self.curve.append(loss)
        if loss < self.loss or (np.isnan(self.loss) and np.isfinite(loss)):
            self.loss, self.score, self.sharpness, self.best_epoch = loss, score, sharpness, len(self.curve)
            self.candidates[0].store()

    def outcome(self) -> Outcome:
        seconds = sum(candidate.seconds for candidate in self.candidates)
        return Outcome(
            self.status, len(self.curve), self.best_epoch, self.loss, self.score, tuple(self.curve), seconds,
            self.sharpness, self.candidates[0].machine,
        )  # fmt: skip


def _leavers(running: Sequence[_Runner], epoch: int, recipe: Recipe) -> list[_Runner]:
    """Mark and return those who go no further: diverged, stopped early, or not among the best of its kind at a rung."""
    leaving = []
    for runner in running:
        if not np.isfinite(runner.curve[-1]):
            runner.status = "diverged"
        elif recipe.patience is not None and epoch - runner.best_epoch >= recipe.patience and epoch < recipe.epochs:
            runner.status = "stopped"
        else:
            continue
        leaving.append(runner)
    if epoch in recipe.rungs:
        kinds: dict[type[ParametricMachine], list[_Runner]] = {}  # which learn at different speeds
        for runner in sorted(running, key=lambda runner: runner.loss):
            if runner not in leaving:
                kinds.setdefault(type(runner.candidates[0].machine), []).append(runner)
        for staying in kinds.values():
            for runner in staying[-(-len(staying) // recipe.reduction) :]:
                runner.status = "halved"
                leaving.append(runner)
    return leaving


def cores() -> int:
    """How many cores candidates are spread over: those that this process may use, or ``OMP_NUM_THREADS`` if fewer.

    What a candidate learns does not depend on it.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wish = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable, int(wish)) if wish.isdigit() and int(wish) else usable


# ---- data ------------------------------------------------------------------------------------------------------


def _objective(dataset: Dataset, label_smoothing: float = 0.0) -> Objective:
    if dataset.task == "regression":
        return Objective("squared_error")
    return Objective("cross_entropy", label_smoothing=label_smoothing)


def _inputs(part: Part, dataset: Dataset, kind: Kind) -> Tensor:
    return laid_out(torch.from_numpy(part.x), dataset.shape, kind)


def _targets(part: Part, dataset: Dataset) -> Tensor:
    y = torch.from_numpy(part.y)
    return y[:, None] if dataset.task == "regression" else y


def _parts(part: Part, dataset: Dataset, kind: Kind) -> tuple[Batches, ...]:
    return batches(_inputs(part, dataset, kind), _targets(part, dataset), CHUNK)
