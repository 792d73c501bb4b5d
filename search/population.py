"""Many candidates trained side by side: with early stopping, and halved at each rung.

A candidate sees the same batches and begins from the same weights as when it is trained alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from machgraph.parametric import DenseMachine
from search.data import Dataset, Part
from search.point import Point
from search.recipe import Recipe
from search.stack import Candidate, Stack, Status, bias_of

SMALL_BATCH = 64  # with larger ones the arithmetic counts, not the steps: then padding costs more than stacking saves


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
    seconds : its share of the population's time.
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
        bias_of(machine).copy_(outcome.bias)
    return machine


def evaluate(machine: DenseMachine, dataset: Dataset, part: Part) -> tuple[float, float]:
    """Loss and score of one machine on a part of the data, as in ``Outcome``."""
    with torch.no_grad():
        outputs = machine.output(machine(torch.from_numpy(part.x)))
    losses, scores = _losses_and_scores(outputs.T[None], torch.from_numpy(part.y), dataset)
    return losses[0], scores[0]


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
    if not points:
        return []
    machines = [build(point, dataset, seed) for point in points]
    together = len(points) if recipe.batch_size <= SMALL_BATCH else 1
    groups = [slice(i, i + together) for i in range(0, len(points), together)]
    stacks = [Stack(points[group], machines[group]) for group in groups]
    candidates = [candidate for stack in stacks for candidate in stack.candidates]
    x, y = torch.from_numpy(dataset.train.x).T.contiguous(), torch.from_numpy(dataset.train.y)
    x_validation, y_validation = torch.from_numpy(dataset.validation.x).T, torch.from_numpy(dataset.validation.y)
    order = torch.Generator().manual_seed(seed)
    size, steps = min(recipe.batch_size, len(y)), recipe.steps(len(y))
    for epoch in range(recipe.epochs):
        shuffled = torch.randperm(len(y), generator=order)
        batches = shuffled[: steps * size].view(steps, size)
        rates = [recipe.rate((epoch * steps + step) / (recipe.epochs * steps)) for step in range(steps)]
        for stack in stacks:
            began = perf_counter()
            for batch, rate in zip(batches, rates, strict=True):
                losses = _training_losses(stack.outputs(x[:, batch]), y[batch], dataset, recipe)
                stack.descend(losses, rate, recipe.weight_decay)
            with torch.no_grad():
                results = _losses_and_scores(stack.outputs(x_validation), y_validation, dataset)
            stack.record(*results, perf_counter() - began)
        leavers = _leavers([candidate for stack in stacks for candidate in stack.running], epoch + 1, recipe)
        for stack in stacks:
            stack.drop(leavers)
        stacks = [stack for stack in stacks if stack.running]
        progress(epoch + 1, sum(len(stack.running) for stack in stacks))
        if not stacks:
            break
    return [_outcome(candidate) for candidate in candidates]


def _outcome(candidate: Candidate) -> Outcome:
    machine, curve = candidate.machine, tuple(candidate.curve)
    return Outcome(
        candidate.status, len(curve), candidate.loss, candidate.score, curve, candidate.seconds,
        machine.weight.detach(), bias_of(machine).detach(),
    )  # fmt: skip


# ---- who leaves --------------------------------------------------------------------------------------------


def _leavers(running: Sequence[Candidate], epoch: int, recipe: Recipe) -> list[Candidate]:
    """Mark and return those who go no further: diverged, stopped early, or not among the best of a rung."""
    leaving = []
    for candidate in running:
        if not np.isfinite(candidate.curve[-1]):
            candidate.status = "diverged"
        elif recipe.patience is not None and epoch - candidate.best_epoch >= recipe.patience and epoch < recipe.epochs:
            candidate.status = "stopped"
        else:
            continue
        leaving.append(candidate)
    if epoch in recipe.rungs:
        staying = sorted((c for c in running if c not in leaving), key=lambda candidate: candidate.loss)
        for candidate in staying[-(-len(staying) // recipe.reduction) :]:
            candidate.status = "halved"
            leaving.append(candidate)
    return leaving


# ---- losses ------------------------------------------------------------------------------------------------


def _training_losses(outputs: Tensor, y: Tensor, dataset: Dataset, recipe: Recipe) -> Tensor:
    """What each candidate descends on: ``[population]`` from outputs ``[population, n_outputs, samples]``."""
    if dataset.task == "regression":
        return (outputs[:, 0] - y).square().mean(-1)
    return _cross_entropies(outputs, y, recipe.label_smoothing)


def _losses_and_scores(outputs: Tensor, y: Tensor, dataset: Dataset) -> tuple[list[float], list[float]]:
    if dataset.task == "regression":
        losses = (outputs[:, 0] - y).square().mean(-1)
        scores = 1 - losses / (y - y.mean()).square().mean()
    else:
        losses = _cross_entropies(outputs, y, 0.0)
        scores = (outputs.argmax(1) == y).float().mean(-1)
    return losses.tolist(), scores.tolist()


def _cross_entropies(outputs: Tensor, y: Tensor, label_smoothing: float) -> Tensor:
    population, classes, samples = outputs.shape
    logits = outputs.transpose(1, 2).reshape(-1, classes)
    losses = F.cross_entropy(logits, y.repeat(population), reduction="none", label_smoothing=label_smoothing)
    return losses.view(population, samples).mean(-1)
