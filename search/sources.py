"""Data sets out of what holds them in memory: data frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.columns import fit_columns, fit_pixels, fit_scales, moments
from search.encoder import Encoder
from search.parts import Dataset, Part
from search.splitting import split
from search.table import listing, nearest
from search.target import Answered, Task, answers_of

if TYPE_CHECKING:
    import polars as pl


def from_frame(
    frame: pl.DataFrame,
    target: str,
    name: str = "table",
    seed: int = 0,
    *,
    task: Task | None = None,
    image: tuple[int, ...] = (),
    validation: float = 0.16,
    test: float = 0.2,
) -> Dataset:
    """The data set in a polars DataFrame: see `search.data.load`.

    With an ``image`` (channels, then the extent of each axis) the columns beside the target are its pixels in this
    order: each channel has one scale, and none is dropped.
    """
    if target not in frame.columns:
        raise ValueError(
            f"'{target}' is not a column of {name}{nearest(target, frame.columns)}: "
            f"the columns are {listing(frame.columns, 20)}"
        )
    _check(task, validation, test)
    answered = answers_of(frame[target], target, task)
    inputs = frame.drop(target)[answered.rows]
    rows = split(answered.strata, seed, validation, test)
    columns, told = fit_pixels(inputs, rows[0], image) if image else fit_columns(inputs, rows[0])
    mean, scale = fit_scales(columns, inputs[rows[0]], image)
    encoder = Encoder(
        columns, tuple(mean.tolist()), tuple(scale.tolist()), answered.task, target, answered.classes,
        *_unit(answered, rows[0]), image=image,
    )  # fmt: skip
    x = encoder.encode(inputs)
    train, held, last = (part(encoder, x[index], answered.values[index], answered.rows[index]) for index in rows)
    return Dataset(name, answered.task, train, held, last, encoder, (*answered.notes, *answered.rare(), *told))


def part(
    encoder: Encoder, x: NDArray[np.float32], answers: NDArray[np.float64] | NDArray[np.intp], rows: NDArray[np.intp]
) -> Part:
    """Rows with their answers: numbers of classes, or values that the encoder scales."""
    if encoder.task == "classification":
        return Part(x, answers.astype(np.int64), None, rows)
    return Part(x, encoder.scaled(answers.astype(np.float64)), answers.astype(np.float64), rows)


def _unit(answered: Answered, training: NDArray[np.intp]) -> tuple[float, float]:
    """Mean and scale of the answers over the training rows."""
    if answered.classes:
        return 0.0, 1.0
    mean, scale = moments(answered.values[training], None)
    return float(mean), float(scale)


def _check(task: Task | None, validation: float, test: float) -> None:
    if task not in (None, "classification", "regression"):
        raise ValueError(f"got task={task!r}: give 'classification' or 'regression', or leave it to be inferred")
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ValueError(f"got validation={validation}, test={test}: both must be above 0, their sum below 1")
