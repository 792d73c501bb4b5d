"""Many candidates trained side by side: with early stopping, and halved at each rung.

A candidate sees the same batches and begins from the same weights as when it is trained alone. Where each has its own
compiled loop, nobody waits for another but at the rungs; what is stacked to one tensor program goes in step.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from machgraph.compiled_training import trains
from machgraph.parametric_machine import ParametricMachine
from machgraph.population import Candidate, Population
from machgraph.regularize import shrink_blocks
from machgraph.training import Optimizer
from search.data import Dataset, Part
from search.data.transform import NONE
from search.objectives import order
from search.point import AnyPoint, Kind, Point
from search.recipe import Recipe
from search.training.lessons import Course, Lessons, current
from search.training.machine import answers, build

NEWS = 0.1  # seconds between two looks at how far the threads have come

Measured = tuple[float, float, float, float]  # loss, score, sharpness, noise
Progress = Callable[[int, int], None]  # told an epoch, and how many candidates are still running

ByTransform = Mapping[str, Sequence[Lessons]]  # of each fold

Status = Literal["complete", "stopped", "halved", "diverged", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What training one candidate gave; where it was trained on several folds, means over them.

    Parameters
    ----------
    status : ``complete`` (the whole schedule), ``stopped`` (no lower validation loss for ``patience`` epochs),
        ``halved`` (not among the best at a rung), ``diverged`` (a loss that is not finite), or ``failed`` (an objective
        of one's own raised an exception that it may).
    epochs : that it was trained for.
    best_epoch : whose weights and losses these are, from 1: the last with a finite loss, or, with a ``patience``, the
        one of the lowest; 0 if it diverged at once.
    loss, score : on the validation part after its best epoch: cross-entropy, calibrated, and accuracy; or mean squared
        error (the training part's variance is 1) and R². Not a number if it diverged at once.
    curve : validation loss after each epoch.
    seconds : that a thread took for it.
    sharpness : what outputs are multiplied with, so that classes are as probable as they are frequent: see
        ``machgraph.Population.calibrate``; 1 for values.
    noise : of values that are learned under a transform, the standard deviation of what is left unexplained of what is
        learned, so that answers are right on average: see ``Encoder.noisy``; 0 for others.
    machine : with the weights of its best epoch, of the first fold: a parametric machine, or of a graph space a
        ``search.graph.network.Network``.
    machines : of each fold, where children may inherit from them.
    measures : what else was measured, by name.
    reason : why it failed, where it did.
    by_fold : the loss on each fold, after the epoch that was the best on average.
    """

    status: Status
    epochs: int
    best_epoch: int
    loss: float
    score: float
    curve: tuple[float, ...]
    seconds: float
    sharpness: float
    machine: Any = field(repr=False, compare=False)
    measures: Mapping[str, float] = field(default_factory=dict)
    by_fold: tuple[float, ...] = ()
    reason: str = ""
    machines: tuple[ParametricMachine, ...] = field(default=(), repr=False, compare=False)
    noise: float = 0.0


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
    progress: Progress = lambda epoch, running: None,
    *,
    seeds: Sequence[int] | None = None,
    costs: Sequence[Sequence[float]] | None = None,
    machines: Sequence[Sequence[ParametricMachine]] | None = None,
    device: str = "cpu",
) -> list[Outcome]:
    """Train all candidates together; the same candidates, data, recipe and seed give the same outcomes.

    Parameters
    ----------
    points : candidates; equal ones are trained twice, so leave those out.
    folds : data sets, on each of which every candidate is trained: on ``train``, measured after each epoch on
        ``validation``; ``test`` is not looked at. Early stopping and halving go by the means over the folds.
    recipe : schedule, regularization, early stopping and halving.
    seed : of the order of the batches, and of the initial weights.
    progress : told now and then the epoch that all running candidates have done, and how many these are.
    seeds : of the initial weights, one for each candidate, in place of ``seed``.
    costs : of each candidate, what else is to be small: at a rung those of the better fronts go on.
    machines : of each candidate, with the weights that it begins with, one for each fold; they are trained in place.
    device : of torch, where they are trained; they begin, and come back, on the CPU.

    Returns
    -------
    One outcome a candidate, in their order.
    """
    lessons = {
        transform: [Lessons(dataset, recipe, seed, transform, device) for dataset in folds]
        for transform in {point.transform for point in points}
    }
    if machines is None:
        initial = seeds or [seed] * len(points)
        machines = [
            [build(point, one.shape, start) for one in folds] for point, start in zip(points, initial, strict=True)
        ]
    for machine in (machine for some in machines for machine in some):
        machine.to(device)
    kept = len(folds) if recipe.inherit else 1
    runners = [
        _Runner(point, list(some), recipe.epochs, tuple(others), kept)
        for point, some, others in zip(points, machines, costs or [()] * len(points), strict=True)
    ]
    groups = _groups(runners, lessons)
    running = runners
    for end in (*recipe.rungs, recipe.epochs):
        if not running:
            break
        _side_by_side(groups, end, recipe.patience, progress)
        running = [runner for runner in running if runner.status is None]
        if end < recipe.epochs:
            told = [(runner.loss, *runner.costs) for runner in running]
            for i in slow([runner.point for runner in running], told, recipe.reduction):
                running[i].status = "halved"
            running = [runner for runner in running if runner.status is None]
        for group in groups:
            group.dismiss()
    return [runner.outcome() for runner in runners]


def refit(
    points: Sequence[Point],
    dataset: Dataset,
    recipe: Recipe,
    epochs: Sequence[int],
    *,
    seed: int,
    seeds: Sequence[int],
    device: str = "cpu",
) -> list[ParametricMachine]:
    """Train machines on ``dataset.train`` without looking at any other part, each for so many epochs.

    Parameters
    ----------
    points, epochs, seeds : of each machine: what it is, for how long, and with which initial weights.
    dataset : as a rule ``whole()`` of the one that was searched on.
    recipe : its schedule, which is as long as each machine's epochs; nothing is stopped or halved.
    seed : of the order of the batches.
    device : as in ``train``.
    """
    lessons = {
        transform: [Lessons(dataset, recipe, seed, transform, device)]
        for transform in {point.transform for point in points}
    }
    runners = [
        _Runner(point, [build(point, dataset.shape, initial).to(device)], length, is_measured=False)
        for point, length, initial in zip(points, epochs, seeds, strict=True)
    ]
    _side_by_side(_groups(runners, lessons), max(epochs, default=0), None)
    return [runner.machines[0].cpu() for runner in runners]


@dataclass(eq=False)
class _Runner:
    """How a candidate fares, on each of the folds; its first ``kept`` machines hold the weights of its best epoch.

    ``length`` is that of its schedule; one that is not measured holds the weights of its last epoch.
    """

    point: Point
    machines: list[ParametricMachine]
    length: int
    costs: tuple[float, ...] = ()
    kept: int = 1
    is_measured: bool = True
    candidates: list[Candidate] = field(default_factory=list)
    status: Status | None = None
    loss: float = float("nan")
    score: float = float("nan")
    sharpness: float = 1.0
    noise: float = 0.0
    best_epoch: int = 0
    curve: list[float] = field(default_factory=list)
    by_fold: tuple[float, ...] = ()
    weights: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)  # of the best epoch

    def record(self, results: Sequence[Measured], patience: int | None) -> None:
        """Take down an epoch's results; see whether to go on.

        The last epoch counts, whose loss is no choice from many; where training may stop early, the best one. What is
        not finite never counts.
        """
        loss, score, sharpness, noise = map(float, np.mean(results, axis=0))
        self.curve.append(loss)
        if np.isfinite(loss) and (patience is None or not loss >= self.loss):
            self.loss, self.score, self.best_epoch = loss, score, len(self.curve)
            self.sharpness, self.noise = sharpness, noise
            self.by_fold = tuple(float(result[0]) for result in results)
            self.weights = [candidate.weights() for candidate in self.candidates[: self.kept]]
        if not np.isfinite(loss):
            self.status = "diverged"
        elif len(self.curve) == self.length:
            self.status = "complete"
        elif patience is not None and len(self.curve) - self.best_epoch >= patience:
            self.status = "stopped"

    def outcome(self) -> Outcome:
        seconds = sum(candidate.seconds for candidate in self.candidates)
        assert self.status is not None  # it has run to an end
        for machine, weights in zip(self.machines, self.weights, strict=False):
            _load(machine, *weights)
        for machine in self.machines:
            machine.cpu()
        return Outcome(
            self.status, len(self.curve), self.best_epoch, self.loss, self.score, tuple(self.curve), seconds,
            self.sharpness, self.machines[0], by_fold=self.by_fold,
            machines=tuple(self.machines) if self.kept == len(self.machines) else (), noise=self.noise,
        )  # fmt: skip


def _load(machine: ParametricMachine, weight: Tensor, bias: Tensor | None) -> None:
    with torch.no_grad():
        machine.weight.copy_(weight)
        if machine.bias is not None and bias is not None:
            machine.bias.copy_(bias)


class _Group:
    """Runners that go in step, whatever the other groups do: a population for each fold, kind and size of batches."""

    def __init__(self, runners: Sequence[_Runner], lessons: ByTransform) -> None:
        self.running, self.done = list(runners), 0
        self.device = next(iter(lessons.values()))[0].device
        made: dict[tuple[Lessons, Course], Population] = {}
        for runner in runners:
            point = runner.point
            settings = Optimizer("adamw", learning_rate=point.learning_rate, weight_decay=point.weight_decay)
            for machine, one in zip(runner.machines, lessons[point.transform], strict=True):
                taken = one, one.course(point)
                if taken not in made:
                    made[taken] = Population(one.objective(taken[1]), threads=1)
                runner.candidates.append(made[taken].enter(machine, settings))
        self.populations = [(*taken, population) for taken, population in made.items()]

    def run(self, end: int, patience: int | None, stopped: Event) -> None:
        """Train up to an epoch, those who do not end before."""
        with current(self.device):
            while self.running and self.done < end and not stopped.is_set():
                self._epoch(patience)

    def _epoch(self, patience: int | None) -> None:
        measured: dict[Candidate, Measured] = {}
        owners = {candidate: runner for runner in self.running for candidate in runner.candidates}
        for lessons, course, population in self.populations:
            if not population.candidates:
                continue
            lengths = [owners[c].length for c in population.candidates]
            steps = lessons.steps(course.batch_size)
            rates = {n: [lessons.recipe.rate((self.done + k / steps) / n) for k in range(steps)] for n in set(lengths)}
            population.descend(lessons.epoch(self.done, course), [rates[n] for n in lengths])
            for candidate, n in zip(population.candidates, lengths, strict=True):
                _shrink(candidate, owners[candidate].point, sum(rates[n]))
            if any(owners[candidate].is_measured for candidate in population.candidates):
                measured |= _measured(population, lessons, course.kind)
        self.done += 1
        for runner in self.running:
            if runner.is_measured:
                runner.record([measured[candidate] for candidate in runner.candidates], patience)
            elif self.done == runner.length:
                runner.candidates[0].store()
                runner.status = "complete"
        self.dismiss()

    def dismiss(self) -> None:
        """Go on without those who have ended."""
        leaving = {c for runner in self.running if runner.status is not None for c in runner.candidates}
        if leaving:
            for *_, population in self.populations:
                population.leave([candidate for candidate in population.candidates if candidate in leaving])
            self.running = [runner for runner in self.running if runner.status is None]


def _shrink(candidate: Candidate, point: Point, way: float) -> None:
    """The proximal step of the point's penalty for blocks, after so many steps at the peak of the learning rate."""
    if point.block_penalty:
        candidate.store()
        shrink_blocks(candidate.machine, point.block_penalty * point.learning_rate * way)
        candidate.take()


def _measured(population: Population, lessons: Lessons, kind: Kind) -> dict[Candidate, Measured]:
    """Loss, score, sharpness and noise on the validation part."""
    data = lessons.validation(kind)
    if lessons.dataset.task == "classification":
        found = zip(population.candidates, population.calibrate(data), strict=True)
        return {candidate: (*calibrated, 0.0) for candidate, calibrated in found}
    if lessons.dataset.encoder.transform != NONE or lessons.dataset is not lessons.given:
        return {candidate: _in_the_given_unit(candidate, lessons) for candidate in population.candidates}
    variance = float(lessons.dataset.validation.y.var())
    return {
        candidate: (loss, 1 - loss / variance if variance else float("nan"), 1.0, 0.0)
        for candidate, (loss, _) in zip(population.candidates, population.measure(data), strict=True)
    }


def _in_the_given_unit(candidate: Candidate, lessons: Lessons) -> Measured:
    candidate.store()
    said, noise = lessons.measured(lessons.outputs(candidate.machine, "validation"))
    given = lessons.given
    if lessons.dataset is given:  # else the noise is in what is said
        given = replace(given, encoder=given.encoder.noisy(noise))
    return (*scores(given, given.validation, said), 1.0, noise)


def _groups(runners: Sequence[_Runner], lessons: ByTransform) -> list[_Group]:
    """Each of the compiled loop alone, the most work first; all others, which are stacked, together."""
    apart = [runner for runner in runners if all(map(trains, runner.machines))]
    stacked = [runner for runner in runners if runner not in apart]
    shape = next(iter(lessons.values()))[0].dataset.shape if lessons else None
    if shape is not None:
        apart.sort(key=lambda runner: -runner.point.flops(shape) * runner.length)
    return [_Group(some, lessons) for some in (*([runner] for runner in apart), stacked) if some]


def _side_by_side(
    groups: Iterable[_Group], end: int, patience: int | None, progress: Progress = lambda epoch, running: None
) -> None:
    """Run all groups up to an epoch, on as many threads as there are cores; an interrupt lets none begin another."""
    groups = [group for group in groups if group.running]
    stopped = Event()
    with ThreadPoolExecutor(cores()) as pool:
        try:
            waiting = {pool.submit(group.run, end, patience, stopped) for group in groups}
            while waiting:
                ended, waiting = wait(waiting, timeout=NEWS)
                for future in ended:
                    future.result()
                running = [group for group in groups if group.running]
                progress(min((group.done for group in running), default=end), sum(len(g.running) for g in running))
        finally:
            stopped.set()


def slow(points: Sequence[AnyPoint], losses: Sequence[tuple[float, ...]], reduction: int) -> list[int]:
    """Those who are not among the best of their kind and transform, which learn at different speeds."""
    alike: dict[tuple[str, str], list[int]] = {}
    for i in order(losses) if losses else ():
        alike.setdefault((points[i].kind, points[i].transform), []).append(i)
    return [i for some in alike.values() for i in some[-(-len(some) // reduction) :]]


def cores() -> int:
    """How many cores candidates are spread over: those that this process may use, or ``OMP_NUM_THREADS`` if fewer.

    What a candidate learns does not depend on it.
    """
    wish = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable(), int(wish)) if wish.isdigit() and int(wish) else usable()


def usable() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
