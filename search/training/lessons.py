"""What candidates learn from a data set and are measured on, the same for all of them."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from machgraph.parametric_machine import ParametricMachine
from machgraph.training import Batches, Objective, batches
from search.data import Dataset, Part
from search.data.transform import GIVEN, NONE
from search.graph.network import Network
from search.point import Kind, Point
from search.recipe import Recipe
from search.training.machine import answers, laid_out, reading

Features = NDArray[np.float32]
Outputs = NDArray[np.float64]  # (row, output)

CHUNK = 1024  # samples that are measured at once
KEPT = 2**28  # bytes of shuffled samples that are kept for those who come to an epoch later


@dataclass(frozen=True)
class Course:
    """What of a point decides on its batches: the fields of ``Point``; those with equal courses read the same ones."""

    kind: Kind
    batch_size: int
    smoothing: float | None = None
    input_noise: float = 0.0
    input_dropout: float = 0.0


class Lessons:
    """The epochs of a data set: in each its samples come in another order, which the seed and the epoch tell.

    Several threads may ask at once.

    Parameters
    ----------
    given : whose training part is learned, and whose validation part is measured on.
    recipe : the steps of an epoch, and the smoothing of classes.
    seed : of the orders.
    transform : of the answers, which is learned; ``given``: that of the data set.
    device : of torch, where the machines are that learn.
    """

    def __init__(self, given: Dataset, recipe: Recipe, seed: int, transform: str = GIVEN, device: str = "cpu") -> None:
        self.given, self.recipe, self._seed, self.device = given, recipe, seed, device
        self.dataset = dataset = given if transform == GIVEN else given.transformed(transform)
        self._lock = Lock()
        self._kept: dict[tuple[int, Kind, int], Batches] = {}
        self._validation: dict[Kind, tuple[Batches, ...]] = {}
        self._keeps = dataset.train.x.nbytes * recipe.epochs <= KEPT

    def course(self, point: Point) -> Course:
        """That of a point; no batch has more samples than there are."""
        size = min(point.batch_size, len(self.dataset.train))
        return Course(point.kind, size, point.smoothing, point.input_noise, point.input_dropout)

    def objective(self, course: Course) -> Objective:
        """What a machine descends on."""
        if self.dataset.task == "regression":
            return Objective("squared_error", reading(course.kind))
        smoothing = self.recipe.label_smoothing if course.smoothing is None else course.smoothing
        return Objective("cross_entropy", reading(course.kind), label_smoothing=smoothing)

    def steps(self, size: int) -> int:
        """Of an epoch, in batches of this size."""
        return self.recipe.steps(len(self.dataset.train), size)

    def order(self, number: int, size: int) -> NDArray[np.int64]:
        """The rows of the training part that an epoch, counted from 0, goes through, in batches of this size."""
        rows = np.random.default_rng((self._seed, number)).permutation(len(self.dataset.train))
        return rows[: self.steps(size) * size]

    def epoch(self, number: int, course: Course) -> Batches:
        """The batches of an epoch, counted from 0, as a machine reads them."""
        kind, size = course.kind, course.batch_size
        is_plain = not course.input_noise and not course.input_dropout
        with self._lock:
            found = self._kept.get((number, kind, size)) if is_plain else None
        if found is not None:
            return found
        train = self.dataset.train
        order = self.order(number, size)
        if not is_plain:  # not kept, for each strength has its own
            train = train.take(order)
            train, order = replace(train, x=self._disturbed(train.x, number, course)), np.arange(len(train))
        inputs, answers = self._inputs(train, kind), targets(train).to(self.device)
        (data,) = batches(inputs, answers, size, torch.from_numpy(order).to(self.device))
        if self._keeps and is_plain:
            with self._lock:
                self._kept[number, kind, size] = data
        return data

    def validation(self, kind: Kind) -> tuple[Batches, ...]:
        """The validation part, as a machine of this kind reads it."""
        with self._lock:
            if kind not in self._validation:
                part = self.dataset.validation
                self._validation[kind] = batches(self._inputs(part, kind), targets(part).to(self.device), CHUNK)
            return self._validation[kind]

    def outputs(self, machine: ParametricMachine | Network, name: Literal["validation", "test"]) -> Outputs:
        """What a machine says of a part."""
        part: Part = getattr(self.dataset, name)
        with torch.no_grad():
            x = torch.from_numpy(part.x).to(self.device)
            said: Outputs = answers(machine, x, self.dataset.shape).double().cpu().numpy()
        return said

    def in_the_given_unit(self, outputs: Outputs, noise: float) -> Outputs:
        """The same in the unit of the data set that was given; ``noise`` as of ``Encoder.noisy``."""
        if self.dataset is self.given:
            return outputs
        values = self.dataset.encoder.noisy(noise).decode(outputs).values
        values = self.given.encoder.transform.within(values)
        return self.given.encoder.scaled(values)[:, None].astype(np.float64)

    def measured(self, outputs: Outputs) -> tuple[Outputs, float]:
        """What a machine says of the validation part in the given unit, and how much it leaves unexplained of it.

        The second is 0 where nothing is transformed.
        """
        noise = 0.0
        if self.dataset.encoder.transform != NONE:
            noise = float(np.sqrt(np.mean((outputs[:, 0] - self.dataset.validation.y) ** 2)))
        return self.in_the_given_unit(outputs, noise), noise

    def _disturbed(self, x: Features, number: int, course: Course) -> Features:
        """With noise, and some features left out: the same ones for all, as far as their strengths are the same."""
        if course.input_noise:
            noise = np.random.default_rng((self._seed, number, 1)).standard_normal(x.shape, dtype=np.float32)
            x = x + np.float32(course.input_noise) * noise
        if course.input_dropout:
            left = np.random.default_rng((self._seed, number, 2)).random(x.shape, dtype=np.float32)
            x = np.where(left >= course.input_dropout, x / np.float32(1 - course.input_dropout), np.float32(0))
        return x

    def _inputs(self, part: Part, kind: Kind) -> Tensor:
        return laid_out(torch.from_numpy(part.x).to(self.device), self.dataset.shape, kind)


def refuse_missing(device: str) -> None:
    """ValueError: torch has no such device here."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"got a GPU to train on, where torch {torch.__version__} finds none: install a torch with CUDA and its "
            "driver on the nodes that have GPUs, or leave gpus out"
        )


def current(device: str) -> AbstractContextManager[Any]:
    """In it a thread makes what is new, such as streams, on that GPU, if it is one."""
    return torch.cuda.device(device) if device.startswith("cuda") else nullcontext()


def targets(part: Part) -> Tensor:
    """The answers of a part: classes, or values ``(row, 1)``."""
    y = torch.from_numpy(part.y)
    return y[:, None] if y.is_floating_point() else y
