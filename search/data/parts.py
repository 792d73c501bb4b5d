"""A data set that is ready to learn from, in three parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.data.encoder import Encoder
from search.data.splitting import folds, rolling
from search.data.table import listing
from search.data.target import Label, Task
from search.data.transform import WORDS
from search.numbers import counted
from search.shape import Shape

if TYPE_CHECKING:
    import polars as pl


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

    def take(self, index: NDArray[np.intp]) -> Part:
        """Those of the rows, in this order."""
        values = None if self.values is None else self.values[index]
        rows = None if self.rows is None else self.rows[index]
        return Part(self.x[index], self.y[index], values, rows)

    def joined(self, other: Part) -> Part:
        """The rows of both, in the order in which they were read where both parts know it."""
        together = Part(np.concatenate([self.x, other.x]), np.concatenate([self.y, other.y]))
        if self.values is not None and other.values is not None:
            together = replace(together, values=np.concatenate([self.values, other.values]))
        if self.rows is None or other.rows is None:
            return together
        rows = np.concatenate([self.rows, other.rows])
        return replace(together, rows=rows).take(np.argsort(rows, kind="stable"))


@dataclass(frozen=True)
class Dataset:
    """A data set that is ready to learn from, and sentences about all that was inferred and handled.

    ``history`` are the steps of a series as they were given, in the order of time.
    """

    name: str
    task: Task
    train: Part
    validation: Part
    test: Part
    encoder: Encoder
    notes: tuple[str, ...]
    history: pl.DataFrame | None = None

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

    def noting(self, *notes: str) -> Dataset:
        """The same, with more to tell."""
        return replace(self, notes=(*self.notes, *notes))

    def transformed(self, name: str) -> Dataset:
        """The same rows with another transform of the numbers to answer, fitted on the training rows.

        Parameters
        ----------
        name : ``none``, ``sqrt``, ``log`` or ``yeo-johnson``.

        Raises
        ------
        ValueError : classes, another name, or numbers below 0 for a square root or a logarithm.
        """
        if self.classes and name == "none":
            return self
        if self.classes:
            raise ValueError(f"got the transform {name!r} for classes: it is for regression, so leave it at 'none'")
        encoder = self.encoder.refitted(name, self.values(self.train))
        inputs = None if self.history is None else encoder.encode(self.history)

        def learned(part: Part) -> Part:
            y = encoder.scaled(self.values(part))
            if inputs is None or part.rows is None:
                return replace(part, y=y)
            return replace(part, x=inputs[part.rows - encoder.lags], y=y)  # the past is in the unit of the answers

        train, validation, test = learned(self.train), learned(self.validation), learned(self.test)
        return replace(self, train=train, validation=validation, test=test, encoder=encoder)

    def values(self, part: Part) -> NDArray[np.float64]:
        """For regression, the answers of a part in the unit in which they were given."""
        return self.encoder.unscaled(part.y) if part.values is None else part.values

    def score(self, part: Part, outputs: ArrayLike) -> float:
        """How good a network's outputs on a part are, better when higher: accuracy, or R².

        Both the outputs and the answers of the part are taken in the target's own unit, whatever its transform. The R²
        of a part whose answers are all the same, and any score of no rows, is not a number.
        """
        found = self.encoder.decode(outputs).values
        if not len(part):
            return float("nan")
        if self.classes:
            return float(np.mean(np.asarray(outputs).argmax(axis=1) == part.y))
        values = self.values(part)
        if np.ptp(values) == 0:
            return float("nan")
        return 1 - float(np.mean((values - found) ** 2) / np.mean((values - values.mean()) ** 2))

    def error(self, part: Part, outputs: ArrayLike) -> float:
        """How bad they are: the share of wrong classes, or the root of the mean squared error in the target's unit."""
        if self.classes:
            return 1 - self.score(part, outputs)
        found = self.encoder.decode(outputs).values
        return float(np.sqrt(np.mean((self.values(part) - found) ** 2))) if len(part) else float("nan")

    def whole(self) -> Dataset:
        """Training and validation rows together as ``train``, in the order in which they were read, and no validation.

        The encoder stays as it was fitted: features and answers keep their units.
        """
        nobody = self.validation.take(np.arange(0))
        return replace(self, train=self.train.joined(self.validation), validation=nobody)

    @property
    def most_folds(self) -> int:
        """How many folds there are rows for: in time two rows each."""
        rows = len(self.train) + len(self.validation)
        return rows // 2 if self.history is not None else rows

    def folds(self, number: int, seed: int = 0) -> tuple[Dataset, ...]:
        """Data sets, each with another share of the training and validation rows as validation, the rest as training.

        Each class is spread evenly over the folds. The same number and seed give the same folds, whichever of the rows
        were in training before; ``test`` is the same in all.

        The encoder stays, so that losses are in one unit over all folds, and a machine of any fold reads new rows by
        the same encoder. It has seen some of a fold's validation rows: what it holds of them is a share in means,
        scales, powers and levels, no row's answer, and it is the same for all candidates that are compared.

        The folds of a series roll on: each is answered from what lies before it in time, and together they are the last
        half of the steps; the seed makes no difference.

        Raises
        ------
        ValueError : fewer than two folds, or more than the rows are enough for.
        """
        rows = self.whole().train
        if self.history is not None:
            cuts = rolling(len(rows), number)
        else:
            cuts = folds(rows.y if self.classes else np.zeros(len(rows)), number, seed)
        return tuple(replace(self, train=rows.take(outside), validation=rows.take(inside)) for outside, inside in cuts)

    def describe(self) -> list[str]:
        """Lines that tell a person what was read: size, task, split and what was handled."""
        parts = (self.train, self.validation, self.test)
        sizes = [len(part) for part in parts]
        time = ", in the order of time" if self.history is not None else ""
        rows, columns = counted(sum(sizes), "row"), f"{counted(len(self.encoder.columns), 'column')} used"
        features = counted(self.n_inputs, "feature")
        counts = np.bincount([label for part in parts for label in part.y]) if self.classes else ()
        each = [f"{label} ({count})" for label, count in zip(self.classes, counts, strict=True)]
        task = f"{self.n_outputs} classes of '{self.target}': {listing(each, 12)}"
        size = " × ".join(map(str, self.shape.size))
        if self.encoder.layout != "table":
            lags = " lags" * (self.encoder.layout == "series")
            columns = f"{counted(self.shape.channels, 'channel')} of {size}{lags}"
        grid = f", an image of {size}" if size and self.encoder.layout == "table" else ""
        word = WORDS.get(self.encoder.transform.name)
        learned = f", whose {word} is learned" if word else ""
        return [
            f"{self.name}: {rows}, {columns}, {features}{grid}",
            f"{self.task}, {task}" if self.classes else f"{self.task} of '{self.target}'{learned}",
            f"split: {sizes[0]} training, {sizes[1]} validation, {sizes[2]} held-out test{time}",
            *self.notes,
        ]
