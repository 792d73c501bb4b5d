"""Machines of a population one by one in the compiled loop, on the CPU: epochs without any Python in them."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from itertools import starmap
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from machgraph import compiled
from machgraph.parametric_machine import ParametricMachine
from machgraph.training import Batches, Objective, Optimizer, read_positions

if TYPE_CHECKING:
    from machgraph.population import Candidate, Rates


Values = NDArray[np.float64]
Measured = tuple[float, float, Values]

NO_RATES = np.empty(0)


def trains(machine: ParametricMachine) -> bool:
    """Whether the compiled loop can train the machine: on the CPU, with nonlinearities that it knows."""
    weight = machine.weight
    known = compiled.available() and compiled.codes(machine.activation) is not None
    return known and weight.device.type == "cpu" and weight.dtype in compiled.LIKE


class CompiledTrainer:
    """Each machine has its own plan, weights and memory, and a thread for the length of a call."""

    def __init__(self, objective: Objective, threads: int) -> None:
        self.objective, self.threads = objective, threads
        self.members: dict[Candidate, _Member] = {}

    def enter(self, candidate: "Candidate") -> None:
        """Begin with the machine's present weights."""
        self.members[candidate] = _Member(candidate, self.objective)

    def leave(self, candidates: "Sequence[Candidate]") -> None:
        """Forget these."""
        for candidate in candidates:
            self.members.pop(candidate, None)

    def descend(self, data: Batches, rates: "Rates") -> "dict[Candidate, float]":
        """One step on each batch; the mean losses."""
        return self._each(lambda member: member.descend(data, rates[member.candidate]))

    def measure(self, parts: Sequence[Batches], sharpness: Values) -> "dict[Candidate, Measured]":
        """Mean losses, fractions of hits, and the losses of outputs that are multiplied with each sharpness."""
        return self._each(lambda member: member.measure(parts, sharpness))

    def weights(self, candidate: "Candidate") -> tuple[Tensor, Tensor | None]:
        """Copies, in the shapes of the machine."""
        return self.members[candidate].weights()

    def take(self, candidate: "Candidate") -> None:
        """Go on from the machine's present weights."""
        self.members[candidate].take()

    def _each(self, do: Callable[["_Member"], Any]) -> "dict[Candidate, Any]":
        """What it gives for each candidate; every thread takes the next one as soon as it is free."""
        results: dict[Candidate, Any] = {}
        waiting = iter(list(self.members.values()))
        futures: list[Future[None]] = []

        def work() -> None:
            try:
                for member in waiting:
                    results[member.candidate] = do(member)
            finally:
                deque(waiting, maxlen=0)  # after an error or an interrupt nobody begins another

        try:
            pool, others = _pool(os.getpid(), self.threads), min(self.threads, len(self.members)) - 1
            futures.extend(pool.submit(work) for _ in range(others))
            work()
        finally:
            begun = [future for future in futures if not future.cancel()]
            wait(begun)
        for future in begun:
            future.result()
        return results


@cache
def _pool(_process: int, threads: int) -> ThreadPoolExecutor:
    """Threads for all populations of a process; a forked one does not inherit those of its parent."""
    return ThreadPoolExecutor(threads)


class _Member:
    """The arrays of one machine: its weights as the loop reads them, and the optimizer's running means."""

    def __init__(self, candidate: "Candidate", objective: Objective) -> None:
        self.candidate, self.objective = candidate, objective
        machine = candidate.machine
        matrices = machine.matrices(machine.weight.detach()).clone(memory_format=torch.contiguous_format)
        bias = torch.zeros_like(matrices[0, 0]) if machine.bias is None else machine.bias.detach().clone()
        self.state = tuple(
            array.numpy() for array in (matrices, bias, *(torch.zeros_like(x) for x in (matrices,) * 2 + (bias,) * 2))
        )
        self.settings = _settings(candidate.optimizer)
        self.layouts: dict[tuple[int, ...], Any] = {}

    def descend(self, data: Batches, factors: NDArray[np.float64]) -> float:
        rates = self.candidate.optimizer.learning_rate * factors
        return self._pass(data, self.objective.label_smoothing, rates)[0]

    def measure(self, parts: Sequence[Batches], sharpness: Values) -> Measured:
        loss, right, samples = 0.0, 0.0, 0
        losses = np.zeros(len(sharpness))
        for data in parts:
            one = np.zeros(len(sharpness))
            one_loss, one_right = self._pass(data, 0.0, NO_RATES, sharpness, one)
            loss, right = loss + data.samples * one_loss, right + data.samples * one_right
            losses += data.samples * one
            samples += data.samples
        return loss / samples, right / samples, losses / samples

    def _pass(
        self, data: Batches, smoothing: float, rates: Values, sharpness: Values = NO_RATES, losses: Values = NO_RATES
    ) -> tuple[float, float]:
        began = perf_counter()
        machine, read = self._layout(data.size)
        inputs, targets = data.inputs.numpy(), _targets(data, self.state[0].dtype)
        told = smoothing, self.settings, rates, self.candidate.steps
        epoch, done = _training().epoch, list[tuple[float, float]]()
        try:
            # what is called by C can't be interrupted between the last step and the note of it
            done.extend(starmap(epoch, [(machine, self.state, inputs, targets, read, *told, sharpness, losses)]))
        finally:
            self.candidate.seconds += perf_counter() - began
            self.candidate.steps += len(rates) * len(done)
        return done[0]

    def weights(self) -> tuple[Tensor, Tensor | None]:
        machine = self.candidate.machine
        matrices, bias = (torch.from_numpy(array) for array in self.state[:2])
        weight = matrices.movedim(0, -1).reshape(machine.weight.shape).clone()
        return weight, None if machine.bias is None else bias.clone()

    def take(self) -> None:
        machine = self.candidate.machine
        self.state[0][:] = machine.matrices(machine.weight.detach()).numpy()
        if machine.bias is not None:
            self.state[1][:] = machine.bias.detach().numpy()

    def _layout(self, size: tuple[int, ...]) -> Any:
        """What the loop is told of the machine, and where its outputs are read, for positions of this size."""
        if size not in self.layouts:
            machine, reading = self.candidate.machine, self.objective.reading
            plan = machine.plan(size)
            trained = machine.partition.size if machine.bias is None else plan.first_trained
            read = machine.partition.bounds[-2], read_positions(plan, reading), reading != "each"
            self.layouts[size] = (*plan.program.training, compiled.codes(machine.activation), trained), read
        return self.layouts[size]


def _targets(data: Batches, dtype: Any) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Classes and values, one of them empty."""
    targets: NDArray[Any] = data.targets.numpy()
    if data.targets.is_floating_point():
        return np.empty((len(data), 0), dtype=np.int64), targets
    return targets, np.empty((len(data), 0, 0), dtype=dtype)


def _settings(optimizer: Optimizer) -> NDArray[np.float64]:
    kind = ("sgd", "adam", "adamw").index(optimizer.kind)
    first, second = (optimizer.momentum, 0.0) if optimizer.kind == "sgd" else optimizer.betas
    return np.array([kind, optimizer.weight_decay, first, second, optimizer.epsilon])


def _training() -> Any:
    """The compiled functions."""
    compiled.announce()
    from machgraph.kernels import training

    return training
