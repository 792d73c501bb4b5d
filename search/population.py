"""Many candidates trained side by side: with early stopping, and halved at each rung.

A candidate sees the same batches and begins from the same weights as when it is trained alone.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from machgraph.parametric import DenseMachine
from machgraph.population import Candidate, Population
from machgraph.training import Batches, Objective, Optimizer, batches
from search.data import Dataset, Part
from search.point import Point
from search.recipe import Recipe

CHUNK = 1024  # samples that are measured at once

Status = Literal["complete", "stopped", "halved", "diverged"]


@dataclass(frozen=True)
class Outcome:
    """What training one candidate gave.

    Parameters
    ----------
    status : ``complete`` (the whole schedule), ``stopped`` (no lower validation loss for ``patience`` epochs),
        ``halved`` (not among the best at a rung) or ``diverged`` (a loss that is not finite).
    epochs : that it was trained for.
    loss, score : on the validation part after its best epoch: cross-entropy and accuracy, or mean squared error (the
        training part's variance is 1) and R². Not a number if it diverged at once.
    curve : validation loss after each epoch.
    seconds : that a thread took for it.
    weight, bias : of its machine after its best epoch.
    """

    status: Status
    epochs: int
    loss: float
    score: float
    curve: tuple[float, ...]
    seconds: float
    weight: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)


def build(point: Point, dataset: Dataset, seed: int) -> DenseMachine:
    """The machine of a point, with the initial weights that the seed draws."""
    return DenseMachine(
        (dataset.n_inputs, *point.widths, dataset.n_outputs),
        activation=("identity", *point.activations, "identity"),
        shortcuts=point.mask,
        generator=torch.Generator().manual_seed(seed),
    )


def trained(point: Point, dataset: Dataset, outcome: Outcome) -> DenseMachine:
    """The machine of a point, with the weights of its best epoch."""
    machine = build(point, dataset, seed=0)
    with torch.no_grad():
        machine.weight.copy_(outcome.weight)
        _bias(machine).copy_(outcome.bias)
    return machine


def evaluate(machine: DenseMachine, dataset: Dataset, part: Part) -> tuple[float, float]:
    """Loss and score of one machine on a part of the data, as in ``Outcome``."""
    population = Population(_objective(dataset), threads=1)
    population.enter(machine, Optimizer())
    (result,) = population.measure(_parts(part, dataset))
    return _scored(*result, part, dataset)


def train(
    points: Sequence[Point],
    dataset: Dataset,
    recipe: Recipe,
    seed: int,
    progress: Callable[[int, int], None] = lambda epoch, running: None,
) -> list[Outcome]:
    """Train all candidates together; the same candidates, data, recipe and seed give the same outcomes.

    Parameters
    ----------
    points : candidates; equal ones are trained twice, so leave those out.
    dataset : trained on ``train``, measured after each epoch on ``validation``; ``test`` is not looked at.
    recipe : schedule, regularization, early stopping and halving.
    seed : of the initial weights and of the order of the batches.
    progress : told the epoch and how many candidates are still running.

    Returns
    -------
    One outcome a candidate, in their order.
    """
    population = Population(_objective(dataset, recipe.label_smoothing), threads=cores())
    runners = []
    for point in points:
        machine = build(point, dataset, seed)
        settings = Optimizer("adamw", learning_rate=point.learning_rate, weight_decay=recipe.weight_decay)
        runners.append(_Runner(machine, population.enter(machine, settings)))
    running, validation = runners, _parts(dataset.validation, dataset)
    x, y = _tensors(dataset.train, dataset)
    order = torch.Generator().manual_seed(seed)
    size, steps = min(recipe.batch_size, len(y)), recipe.steps(len(y))
    for epoch in range(recipe.epochs if points else 0):
        shuffled = torch.randperm(len(y), generator=order)
        (data,) = batches(x, y, size, shuffled[: steps * size])
        population.descend(data, [recipe.rate((epoch * steps + k) / (recipe.epochs * steps)) for k in range(steps)])
        for runner, result in zip(running, population.measure(validation), strict=True):
            runner.record(*_scored(*result, dataset.validation, dataset))
        leavers = _leavers(running, epoch + 1, recipe)
        population.leave([runner.candidate for runner in leavers])
        running = [runner for runner in running if runner not in leavers]
        progress(epoch + 1, len(running))
        if not running:
            break
    return [runner.outcome() for runner in runners]


@dataclass(eq=False)
class _Runner:
    """How a candidate fares; its machine holds the weights of its best epoch."""

    machine: DenseMachine
    candidate: Candidate
    status: Status = "complete"
    loss: float = float("nan")
    score: float = float("nan")
    best_epoch: int = 0
    curve: list[float] = field(default_factory=list)

    def record(self, loss: float, score: float) -> None:
        """Take down an epoch's result, and the weights if it was never better."""
        self.curve.append(loss)
        if loss < self.loss or (np.isnan(self.loss) and np.isfinite(loss)):
            self.loss, self.score, self.best_epoch = loss, score, len(self.curve)
            self.candidate.store()

    def outcome(self) -> Outcome:
        weight, bias = self.machine.weight.detach(), _bias(self.machine).detach()
        curve, seconds = tuple(self.curve), self.candidate.seconds
        return Outcome(self.status, len(curve), self.loss, self.score, curve, seconds, weight, bias)


def _leavers(running: Sequence[_Runner], epoch: int, recipe: Recipe) -> list[_Runner]:
    """Mark and return those who go no further: diverged, stopped early, or not among the best of a rung."""
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
        staying = sorted((runner for runner in running if runner not in leaving), key=lambda runner: runner.loss)
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


def _tensors(part: Part, dataset: Dataset) -> tuple[Tensor, Tensor]:
    x, y = torch.from_numpy(part.x), torch.from_numpy(part.y)
    return x, y[:, None] if dataset.task == "regression" else y


def _parts(part: Part, dataset: Dataset) -> tuple[Batches, ...]:
    return batches(*_tensors(part, dataset), CHUNK)


def _scored(loss: float, hits: float, part: Part, dataset: Dataset) -> tuple[float, float]:
    """Loss and accuracy, or mean squared error and R²."""
    return loss, 1 - loss / float(part.y.var()) if dataset.task == "regression" else hits


def _bias(machine: DenseMachine) -> Tensor:
    """Every candidate has one."""
    assert machine.bias is not None
    return machine.bias
