"""Candidates that are trained as one tensor program: the first axis of the global tensor.

Candidates of different partitions, shortcuts and activations share one index space. Hidden block ``i`` of a candidate
lies in slot ``i``, which is as wide as the widest such block; what a candidate lacks is zero and stays zero. The plan
is that of the union of all masks, so that each product of the loop is one batched product for all candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from machgraph.activation import ACTIVATIONS, Activation
from machgraph.boxes import dense_plan
from machgraph.parametric import DenseMachine
from machgraph.partition import Partition, channel_mask
from machgraph.resolvent import resolvent
from search.point import Point

Status = Literal["complete", "stopped", "halved", "diverged"]


def bias_of(machine: DenseMachine) -> Tensor:
    """Every candidate has one."""
    assert machine.bias is not None
    return machine.bias


@dataclass(eq=False)
class Candidate:
    """Where a candidate lies in the index space of its stack, and how it fares."""

    point: Point
    machine: DenseMachine  # holds the weights of the best epoch
    slots: tuple[int, ...]  # its blocks in the partition of the stack
    index: Tensor  # its channels in the index space of the stack
    status: Status = "complete"
    loss: float = float("nan")
    score: float = float("nan")
    best_epoch: int = 0
    curve: list[float] = field(default_factory=list)
    seconds: float = 0.0


class Stack:
    """The stacked weights of the candidates that are still running, and the optimizer that holds views of them.

    Parameters
    ----------
    points, machines : of the candidates, at least one; the machines hold the weights to begin with, and get those of
        the best epoch.
    """

    def __init__(self, points: Sequence[Point], machines: Sequence[DenseMachine]) -> None:
        """See the class."""
        hidden = max(point.blocks for point in points)
        slots = [max((p.widths[i] for p in points if i < p.blocks), default=0) for i in range(hidden)]
        first, *_, last = machines[0].partition.widths
        self.partition = Partition((first, *slots, last))
        self.candidates = [self._place(point, machine) for point, machine in zip(points, machines, strict=True)]
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
            self.bias[p, columns] = bias_of(machine).detach()
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
                    bias_of(candidate.machine).copy_(self.bias[p, candidate.index])

    def drop(self, leavers: Sequence[Candidate]) -> None:
        """Go on without these; the others do not notice."""
        staying = [p for p, candidate in enumerate(self.running) if candidate not in leavers]
        if len(staying) < len(self.running):
            self._renew(staying)

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

    def _place(self, point: Point, machine: DenseMachine) -> Candidate:
        slots = (*range(point.blocks + 1), len(self.partition) - 1)
        starts = [self.partition.bounds[slot] for slot in slots]
        spans = [torch.arange(start, start + w) for start, w in zip(starts, machine.partition.widths, strict=True)]
        return Candidate(point, machine, slots, torch.cat(spans))


def _mixed(names: Sequence[str]) -> Activation:
    """One activation for a block of the whole stack, where each candidate has its own."""
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
