"""Many candidates trained as one tensor program: the first axis of the global tensor.

Candidates of different partitions, shortcuts and activations share one index space. Hidden block ``i`` of a candidate
lies in slot ``i``, which is as wide as the widest such block; what a candidate lacks is zero and stays zero. The plan
is that of the union of all masks, so that each product of the loop is one batched product for all candidates. A
candidate sees the same batches and begins from the same weights as when it is trained alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from machgraph.activation import ACTIVATIONS, Activation
from machgraph.boxes import dense_plan
from machgraph.parametric import DenseMachine
from machgraph.partition import Partition, channel_mask
from machgraph.resolvent import resolvent
from search.data import Dataset, Part
from search.point import Point
from search.recipe import Recipe

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
        _bias(machine).copy_(outcome.bias)
    return machine


def _bias(machine: DenseMachine) -> Tensor:
    """Every candidate has one."""
    assert machine.bias is not None
    return machine.bias


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
    population = _Population(points, dataset, seed)
    x, y = torch.from_numpy(dataset.train.x).T.contiguous(), torch.from_numpy(dataset.train.y)
    x_validation, y_validation = torch.from_numpy(dataset.validation.x).T, torch.from_numpy(dataset.validation.y)
    order = torch.Generator().manual_seed(seed)
    size = min(recipe.batch_size, len(y))
    steps = len(y) // size
    for epoch in range(recipe.epochs):
        began = perf_counter()
        shuffled = torch.randperm(len(y), generator=order)
        for step, batch in enumerate(shuffled[: steps * size].view(steps, size)):
            rate = recipe.rate((epoch * steps + step) / (recipe.epochs * steps))
            outputs = population.outputs(x[:, batch])
            population.descend(_training_losses(outputs, y[batch], dataset, recipe), rate, recipe.weight_decay)
        with torch.no_grad():
            losses, scores = _losses_and_scores(population.outputs(x_validation), y_validation, dataset)
        population.record(losses, scores, perf_counter() - began)
        population.drop(_leavers(population.running, epoch + 1, recipe))
        progress(epoch + 1, len(population.running))
        if not population.running:
            break
    return [candidate.outcome() for candidate in population.candidates]


# ---- who leaves --------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Candidate:
    """Where a candidate lies in the population's index space, and how it fares."""

    point: Point
    machine: DenseMachine  # holds the weights of the best epoch
    slots: tuple[int, ...]  # its blocks in the population's partition
    index: Tensor  # its channels in the population's index space
    status: Status = "complete"
    loss: float = float("nan")
    score: float = float("nan")
    best_epoch: int = 0
    curve: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def outcome(self) -> Outcome:
        epochs, curve = len(self.curve), tuple(self.curve)
        weight, bias = self.machine.weight.detach(), _bias(self.machine).detach()
        return Outcome(self.status, epochs, self.loss, self.score, curve, self.seconds, weight, bias)


def _leavers(running: Sequence[_Candidate], epoch: int, recipe: Recipe) -> list[_Candidate]:
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


# ---- the tensor program ------------------------------------------------------------------------------------


class _Population:
    """The stacked weights of the candidates that are still running, and the optimizer that holds views of them."""

    def __init__(self, points: Sequence[Point], dataset: Dataset, seed: int) -> None:
        hidden = max(point.blocks for point in points)
        slots = [max((p.widths[i] for p in points if i < p.blocks), default=0) for i in range(hidden)]
        self.partition = Partition((dataset.n_inputs, *slots, dataset.n_outputs))
        self.candidates = [self._place(point, build(point, dataset, seed)) for point in points]
        self.running = list(self.candidates)
        channels = self.partition.size
        self.weight = torch.zeros(len(points), 1, channels, channels)
        self.bias = torch.zeros(len(points), channels)
        self.mask = torch.zeros_like(self.weight)
        for p, candidate in enumerate(self.running):
            rows, columns = candidate.index[:, None], candidate.index
            machine = candidate.machine
            self.weight[p, 0, rows, columns] = machine.weight.detach()
            self.mask[p, 0, rows, columns] = torch.from_numpy(
                channel_mask(machine.shortcuts, machine.partition)
            ).float()
            self.bias[p, columns] = _bias(machine).detach()
        self.optimizer = torch.optim.AdamW(
            [{"params": [w, b], "lr": 0.0} for w, b in zip(self.weight, self.bias, strict=True)], fused=True
        )
        self._renew(range(len(points)))

    def outputs(self, x: Tensor) -> Tensor:
        """Last blocks of all candidates, ``[population, n_outputs, samples]``, for inputs ``[n_inputs, samples]``."""
        y0 = x.expand(len(self.running), *x.shape)
        _, z = resolvent(self.plan, self.activations, self.weight, self.bias, y0)
        return z[:, self.partition.block(-1)]

    def descend(self, losses: Tensor, rate: float, weight_decay: float) -> None:
        """One step of each candidate on its own loss, at ``rate`` times its own learning rate."""
        weight_gradient, bias_gradient = torch.autograd.grad(losses.sum(), (self.weight, self.bias))
        weight_gradient.mul_(self.mask)  # the plan is the union's
        for p, (candidate, group) in enumerate(zip(self.running, self.optimizer.param_groups, strict=True)):
            weight, bias = group["params"]
            weight.grad, bias.grad = weight_gradient[p], bias_gradient[p]
            group["lr"], group["weight_decay"] = rate * candidate.point.learning_rate, weight_decay
        self.optimizer.step()

    def record(self, losses: Sequence[float], scores: Sequence[float], seconds: float) -> None:
        """Take down an epoch's results, and the weights of those that have never been better."""
        for p, (candidate, loss, score) in enumerate(zip(self.running, losses, scores, strict=True)):
            candidate.curve.append(loss)
            candidate.seconds += seconds / len(self.running)
            if loss < candidate.loss or (np.isnan(candidate.loss) and np.isfinite(loss)):
                candidate.loss, candidate.score, candidate.best_epoch = loss, score, len(candidate.curve)
                with torch.no_grad():
                    candidate.machine.weight.copy_(self.weight[p, 0, candidate.index[:, None], candidate.index])
                    _bias(candidate.machine).copy_(self.bias[p, candidate.index])

    def drop(self, leavers: Sequence[_Candidate]) -> None:
        """Go on without these; the others do not notice."""
        if leavers:
            self._renew([p for p, candidate in enumerate(self.running) if candidate not in leavers])

    def _renew(self, staying: Sequence[int]) -> None:
        """Keep the candidates at these places: their weights, their optimizer's state, the union of their plans."""
        self.running = [self.running[p] for p in staying]
        if not self.running:
            return
        members = torch.tensor(list(staying))
        self.weight, self.bias = (t.detach()[members].requires_grad_() for t in (self.weight, self.bias))
        self.mask = self.mask[members]
        self.optimizer.param_groups = [self.optimizer.param_groups[p] for p in staying]
        for p, group in enumerate(self.optimizer.param_groups):  # its state stays with the parameter, whose data moves
            group["params"][0].data, group["params"][1].data = self.weight.data[p], self.bias.data[p]
        blocks = len(self.partition)
        union = np.zeros((blocks, blocks), dtype=bool)
        for candidate in self.running:
            union[np.ix_(candidate.slots, candidate.slots)] |= candidate.point.mask
        self.plan = dense_plan(self.partition, union)
        names = [("identity",) * len(self.running)] * blocks
        for i in range(blocks - 2):
            names[i + 1] = tuple((*c.point.activations, *["identity"] * blocks)[i] for c in self.running)
        self.activations = tuple(_mixed(row) for row in names)

    def _place(self, point: Point, machine: DenseMachine) -> _Candidate:
        slots = (*range(point.blocks + 1), len(self.partition) - 1)
        starts = [self.partition.bounds[slot] for slot in slots]
        spans = [torch.arange(start, start + w) for start, w in zip(starts, machine.partition.widths, strict=True)]
        return _Candidate(point, machine, slots, torch.cat(spans))


def _mixed(names: Sequence[str]) -> Activation:
    """One activation for a block of the whole population, where each candidate has its own."""
    if len(set(names)) == 1:
        return ACTIVATIONS[names[0]]
    members = {name: torch.tensor([p for p, other in enumerate(names) if other == name]) for name in set(names)}

    def function(y: Tensor) -> Tensor:
        z = torch.empty_like(y)
        for name, group in members.items():
            z[group] = ACTIVATIONS[name].function(y[group])
        return z

    def derivative(y: Tensor, a: Tensor) -> Tensor:
        s = torch.empty_like(y)
        for name, group in members.items():
            s[group] = ACTIVATIONS[name].derivative(y[group], a[group])
        return s

    return Activation("mixed", function, derivative)


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
