"""Many machines trained at once: different partitions, shortcuts, activations and settings, one program.

On the CPU each machine keeps its own plan inside the one compiled loop, and they share the threads; elsewhere they are
stacked along the first axis of the global tensor, so that each product of the loop is one batched product for all. In
both, each machine's result is the one that it gets when it is trained alone, whoever enters or leaves meanwhile.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.utils import parametrize

from machgraph.boxes import halved
from machgraph.compiled_training import CompiledTrainer, Measured, Values, trains
from machgraph.parametric_machine import ParametricMachine
from machgraph.stack import StackedTrainer
from machgraph.training import Batches, Objective, Optimizer

EXPONENTS = np.arange(-2, 2.25, 0.5)  # of 2, of the sharpness that is tried


def calibrated(losses: NDArray[np.float64]) -> tuple[float, float]:
    """The lowest loss, and the sharpness that has it, from the losses at the sharpness ``2**EXPONENTS``."""
    k = int(np.argmin(losses))
    best, exponent = losses[k], EXPONENTS[k]
    if 0 < k < len(losses) - 1:  # the lowest point of the parabola through three
        left, middle, after = losses[k - 1 : k + 2]
        bend = left - 2 * middle + after
        away = (left - after) / (2 * bend) if bend > 0 else 0.0
        best, exponent = middle - (left - after) * away / 4, exponent + away * (EXPONENTS[1] - EXPONENTS[0])
    return float(best), float(2.0**exponent)


class Candidate:
    """A machine in a population: its settings, and how far it has come.

    Attributes
    ----------
    machine : whose weights it began with; ``store`` gives it the present ones.
    optimizer : its settings.
    steps : that it has done.
    seconds : of a thread that it has taken, its share where several were one program.
    """

    def __init__(self, machine: ParametricMachine, optimizer: Optimizer, trainer: "Trainer") -> None:
        self.machine, self.optimizer = machine, optimizer
        self._trainer: Trainer | None = trainer  # None once it has left
        self.steps, self.seconds = 0, 0.0

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """A copy of the present weight and bias, in the shapes of the machine's own.

        Raises
        ------
        ValueError : it has left the population.
        """
        return self._present().weights(self)

    def store(self) -> None:
        """Write the present weights into the machine.

        Raises
        ------
        ValueError : it has left the population.
        """
        weight, bias = self.weights()
        with torch.no_grad():
            self.machine.weight.copy_(weight)
            if self.machine.bias is not None and bias is not None:
                self.machine.bias.copy_(bias)

    def take(self) -> None:
        """Go on from the machine's weights, which were changed after ``store``; the running means stay.

        Raises
        ------
        ValueError : it has left the population.
        """
        self._present().take(self)

    def _present(self) -> "Trainer":
        if self._trainer is None:
            raise ValueError("got a candidate that has left, whose weights are gone: store it before it leaves")
        return self._trainer


Rates = Mapping[Candidate, NDArray[np.float64]]


class Trainer(Protocol):
    """How the machines of a population are trained: one by one in the compiled loop, or stacked."""

    def enter(self, candidate: Candidate) -> None:
        """Begin with the machine's present weights."""

    def leave(self, candidates: Sequence[Candidate]) -> None:
        """Forget these."""

    def descend(self, data: Batches, rates: Rates) -> dict[Candidate, float]:
        """One step on each batch; the mean losses."""

    def measure(self, parts: Sequence[Batches], sharpness: Values) -> dict[Candidate, Measured]:
        """Mean losses, fractions of hits, and the losses of outputs that are multiplied with each sharpness."""

    def weights(self, candidate: Candidate) -> tuple[Tensor, Tensor | None]:
        """Copies, in the shapes of the machine."""

    def take(self, candidate: Candidate) -> None:
        """Go on from the machine's present weights."""


class Population:
    """Machines that are trained together, each as if it were alone.

    Parameters
    ----------
    objective : what they descend on.
    threads : of the CPU, that the machines share; as many as torch uses if left out.

    Notes
    -----
    The bias of an input that hears nothing is not trained: whoever hears the input has one.

    Examples
    --------
    >>> from machgraph import DenseMachine, batches
    >>> x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    >>> population = Population(Objective("squared_error"))
    >>> for width in (4, 8):
    ...     machine = DenseMachine((3, width, 1), activation=("identity", "tanh", "identity"))
    ...     _ = population.enter(machine, Optimizer("adam", learning_rate=0.02))
    >>> (data,) = batches(x, x.sum(1, keepdim=True), size=16)
    >>> before = population.measure([data])
    >>> for _ in range(50):
    ...     _ = population.descend(data, rates=[1.0] * len(data))
    >>> [after < loss / 10 for (loss, _), (after, _) in zip(before, population.measure([data]))]
    [True, True]
    """

    def __init__(self, objective: Objective, *, threads: int | None = None) -> None:
        self.objective, self.candidates = objective, list[Candidate]()
        self._compiled = CompiledTrainer(objective, threads or torch.get_num_threads())
        self._stacked = StackedTrainer(objective)

    def enter(self, machine: ParametricMachine, optimizer: Optimizer) -> Candidate:
        """Take a machine in, with its present weights; the others do not notice.

        Raises
        ------
        TypeError : something else than a dense, convolutional or recurrent machine.
        ValueError : a machine of half precision, or a parametrized one, such as a ticket of ``prune_weights``.
        """
        if not isinstance(machine, ParametricMachine):
            raise TypeError(
                f"got {type(machine).__name__}: a population trains dense, convolutional, recurrent machines"
            )
        if machine.weight.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"got a machine of {machine.weight.dtype}: running means of training need torch.float32 or more, so "
                "convert it with machine.float()"
            )
        if parametrize.is_parametrized(machine):
            raise ValueError(
                "got a parametrized machine, such as a ticket of prune_weights, whose zeros a population would train: "
                "train it with torch.optim"
            )
        trainer: Trainer = self._compiled if trains(machine) else self._stacked
        candidate = Candidate(machine, optimizer, trainer)
        trainer.enter(candidate)
        self.candidates.append(candidate)
        return candidate

    def leave(self, candidates: Iterable[Candidate]) -> None:
        """Go on without these; the others do not notice."""
        leaving = set(candidates)
        for trainer in (self._compiled, self._stacked):
            trainer.leave([candidate for candidate in self.candidates if candidate in leaving])
        for candidate in leaving.intersection(self.candidates):
            candidate._trainer = None
        self.candidates = [candidate for candidate in self.candidates if candidate not in leaving]

    def descend(self, data: Batches, rates: ArrayLike) -> list[float]:
        """One step of each machine on each batch, in order.

        Parameters
        ----------
        data : batches; all machines see the same.
        rates : ``[batch]``, what each machine's own learning rate is multiplied with; or ``[candidate, batch]``, a
            schedule for each.

        Returns
        -------
        The mean of the batches' losses, for each candidate in order; a loss that is not finite is told as it is.

        Raises
        ------
        ValueError : data that do not fit the machines, or another number of rates than of batches.
        """
        self._check(data)
        factors = np.asarray(rates, dtype=np.float64)
        shapes = (len(data),), (len(self.candidates), len(data))
        if factors.shape not in shapes:
            raise ValueError(
                f"got rates of shape {factors.shape} for {len(data)} batches and {len(self.candidates)} candidates: "
                "give one for each batch, or a row of them for each candidate"
            )
        by_candidate = dict(zip(self.candidates, np.broadcast_to(factors, shapes[1]), strict=True))
        losses = self._compiled.descend(data, by_candidate) | self._stacked.descend(data, by_candidate)
        return [losses[candidate] for candidate in self.candidates]

    def measure(self, parts: Iterable[Batches]) -> list[tuple[float, float]]:
        """For each candidate in order: the mean loss, without smoothing, and the fraction of classes that are right.

        Raises
        ------
        ValueError : no data, or such that do not fit the machines.
        """
        return [(loss, right) for loss, right, _ in self._measured(parts, np.empty(0))]

    def calibrate(self, parts: Iterable[Batches]) -> list[tuple[float, float, float]]:
        """For each candidate in order: the loss with the best sharpness, the fraction of classes that are right, and
        that sharpness.

        A sharpness is one number, from 1/4 to 4, which all outputs are multiplied with: the inverse of a temperature
        (Guo et al. 2017, "On Calibration of Modern Neural Networks"). How sure a network is depends on its decay and
        on smoothing more than on how good it is; so compared, they differ by what they know.

        Raises
        ------
        ValueError : no data, or such that do not fit the machines; an objective other than the cross-entropy.
        """
        if self.objective.loss != "cross_entropy":
            raise ValueError(f"got the loss {self.objective.loss}: only the cross-entropy of classes has a sharpness")
        found = []
        for _, right, losses in self._measured(parts, 2.0**EXPONENTS):
            best, sharpness = calibrated(losses)
            found.append((best, right, sharpness))
        return found

    def _measured(self, parts: Iterable[Batches], sharpness: Values) -> list[Measured]:
        parts = tuple(parts)
        if not parts:
            raise ValueError("got no batches to measure on: give at least one part")
        for data in parts:
            self._check(data)
        results = self._compiled.measure(parts, sharpness) | self._stacked.measure(parts, sharpness)
        return [results[candidate] for candidate in self.candidates]

    def _check(self, data: Batches) -> None:
        if not isinstance(data, Batches):
            raise TypeError(f"got {type(data).__name__}: give one mg.Batches, as mg.batches makes them")
        classes = not data.targets.is_floating_point()
        if classes != (self.objective.loss == "cross_entropy"):
            kind = "classes (whole numbers)" if self.objective.loss == "cross_entropy" else "values (real numbers)"
            raise ValueError(f"got targets of {data.targets.dtype} for the loss {self.objective.loss}: give {kind}")
        least, most = (int(data.targets.min()), int(data.targets.max())) if classes and data.targets.numel() else (0, 0)
        for machine in (candidate.machine for candidate in self.candidates):
            outputs = machine.partition.widths[-1]
            if not 0 <= least <= most < outputs:
                raise ValueError(
                    f"got classes from {least} to {most} for a machine of {outputs} outputs: they count from 0"
                )
            if not classes and data.targets.shape[1] != outputs:
                raise ValueError(f"got {data.targets.shape[1]} values a target for a machine of {outputs} outputs")
            if len(data.size) != machine.dimensions or data.inputs.shape[1] > machine.given:
                raise ValueError(
                    f"got inputs of {data.inputs.shape[1]} channels and {len(data.size)} axes of positions for "
                    f"{type(machine).__name__}({machine.extra_repr()})"
                )
            read = prod(halved(data.size, machine.scales[-1])) if self.objective.reading == "each" else 1
            if data.targets.shape[-1] != data.inputs.shape[-1] * read:
                raise ValueError(
                    f"got targets for {data.targets.shape[-1] // data.inputs.shape[-1]} positions a sample, where "
                    f"outputs are read at {read}: give one target for each, or another reading than "
                    f'"{self.objective.reading}"'
                )
            if data.inputs.dtype != machine.weight.dtype or data.inputs.device != machine.weight.device:
                raise ValueError(
                    f"got inputs of {data.inputs.dtype} on {data.inputs.device} for a machine of "
                    f"{machine.weight.dtype} on {machine.weight.device}: convert one of them"
                )
