"""A data set that is ready to learn from, in three parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.encoder import Encoder
from search.numbers import counted
from search.shape import Shape
from search.table import listing
from search.target import Label, Task


@dataclass(frozen=True)
class Part:
    """Some rows of a data set, encoded.

    ``x`` is float32 of shape ``(rows, features)``; ``y`` of shape ``(rows,)`` holds class numbers (int64), or for
    regression float32 in units of the training part's standard deviation, its mean at 0. ``values`` are, for
    regression, the answers as they were given, and ``rows`` are the numbers of the rows in what was read, from 0 on and
    rising; neither is there in a part that was put together by hand.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64] | NDArray[np.float32]
    values: NDArray[np.float64] | None = None
    rows: NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Dataset:
    """A data set that is ready to learn from, and sentences about all that was inferred and handled."""

    name: str
    task: Task
    train: Part
    validation: Part
    test: Part
    encoder: Encoder
    notes: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        """The sizes of inputs and outputs, and the grid that the features lie on."""
        return Shape(self.n_inputs, self.n_outputs, self.encoder.image)

    @property
    def n_inputs(self) -> int:
        """Number of features."""
        return self.encoder.n_inputs

    @property
    def n_outputs(self) -> int:
        """Number of classes, or 1."""
        return len(self.encoder.classes) or 1

    @property
    def features(self) -> tuple[str, ...]:
        """A name for each feature."""
        return self.encoder.features

    @property
    def classes(self) -> tuple[Label, ...]:
        """The labels, in the order of their numbers; none for regression."""
        return self.encoder.classes

    @property
    def target(self) -> str:
        """The name of what is to be answered."""
        return self.encoder.target

    def describe(self) -> list[str]:
        """Lines that tell a person what was read: size, task, split and what was handled."""
        parts = (self.train, self.validation, self.test)
        rows, columns = counted(sum(map(len, parts)), "row"), counted(len(self.encoder.columns), "column")
        features = counted(self.n_inputs, "feature")
        counts = np.bincount([label for part in parts for label in part.y]) if self.classes else ()
        sizes = [f"{label} ({count})" for label, count in zip(self.classes, counts, strict=True)]
        task = f"{self.n_outputs} classes of '{self.target}': {listing(sizes, 12)}"
        grid = f", an image of {' × '.join(map(str, self.shape.size))}" if self.shape.image else ""
        return [
            f"{self.name}: {rows}, {columns} used, {features}{grid}",
            f"{self.task}, {task}" if self.classes else f"{self.task} of '{self.target}'",
            f"split: {len(self.train)} training, {len(self.validation)} validation, {len(self.test)} held-out test",
            *self.notes,
        ]
