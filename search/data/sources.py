"""Data sets out of what holds them in memory: data frames, arrays, and data sets of torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.data.channels import fit_channels, image_of
from search.data.columns import Column, Floats, fit_columns, fit_pixels, fit_scales, moments
from search.data.encoder import Encoder, Layout
from search.data.frames import array_of, column_of, frame_of, is_frame, is_made_by, table_of
from search.data.parts import Dataset, Part
from search.data.splitting import Rows, split
from search.data.table import listing, nearest, shown
from search.data.target import Answered, Task, answers_of, numbered

if TYPE_CHECKING:
    import polars as pl

TARGET = "y"  # what the answers of arrays are called


class Fitted(NamedTuple):
    """How inputs become features, as the training rows have it, and sentences on what was done."""

    columns: tuple[Column, ...]
    mean: Floats
    scale: Floats
    image: tuple[int, ...]
    layout: Layout
    notes: list[str]


def from_frame(
    frame: Any,
    target: str,
    name: str = "table",
    seed: int = 0,
    *,
    task: Task | None = None,
    image: Sequence[int] | None = None,
    validation: float = 0.16,
    test: float = 0.2,
    held_out: Any = None,
) -> Dataset:
    """The data set in a frame of polars or pandas, or in a mapping from names to columns: see `search.data.dataset`.

    With an ``image`` (channels, then the extent of each axis) the columns beside the target are its pixels in this
    order: each channel has one scale, and none is dropped.
    """
    grid = tuple(image or ())

    def parted(table: Any, which: str) -> tuple[pl.Series, pl.DataFrame]:
        table = frame_of(table)
        if target not in table.columns:
            raise ValueError(
                f"'{target}' is not a column of {which}{nearest(target, table.columns)}: "
                f"the columns are {listing(map(repr, table.columns), 20)}"
            )
        if table.width < 2:
            raise ValueError(
                f"{which} has the column '{target}' alone: there is nothing to answer it from; of a series say "
                "how many lags"
            )
        return table[target], table.drop(target)

    def fit(inputs: pl.DataFrame, training: Rows) -> Fitted:
        columns, told = fit_pixels(inputs, training, grid) if grid else fit_columns(inputs, training)
        return Fitted(columns, *fit_scales(columns, inputs[training], grid), grid, "table", told)

    column, inputs = parted(frame, name)
    other = None if held_out is None else parted(held_out, "the held-out part")
    dataset = _assembled(name, target, column, inputs, fit, other, seed, task, validation, test)
    if other is not None and (more := [column for column in other[1].columns if column not in inputs.columns]):
        dataset = dataset.noting(f"Columns of the held-out part alone are left out: {listing(map(shown, more))}.")
    return dataset


def from_arrays(
    x: Any,
    y: Any,
    *,
    name: str = "arrays",
    seed: int = 0,
    task: Task | None = None,
    image: Sequence[int] | None = None,
    validation: float = 0.16,
    test: float = 0.2,
    held_out: tuple[Any, Any] | None = None,
    features: Sequence[str] | None = None,
) -> Dataset:
    """The data set in two arrays, tensors or lists: what is known of each row, and what is to be answered.

    Parameters
    ----------
    x : ``(rows, features)``; or ``(rows, height, width)``, ``(rows, channels, height, width)`` or ``(rows, channels,
        depth, height, width)``, which are images: each channel has one scale, and a gap the median of its channel.
    y : of each row a class (numbers or texts) or a value; a row without one is left out.
    image : channels, then the extent of each axis, where the axes of ``x`` don't say it; as ``(9, 24)`` for an ``x`` of
        ``(rows, 9, 24)`` that holds 9 channels of 24 steps rather than images.
    features : names of the columns of an ``x`` of two axes.
    name, seed, task, validation, test, held_out : see `search.data.dataset`.

    Raises
    ------
    ValueError : axes, lengths, names or answers that can't be a data set.
    """
    held = None if held_out is None else _pair(held_out)
    if is_frame(x) or ((array := array_of(x)).ndim == 2 and not image):
        target = _name(y)
        found = from_frame(
            _tabled(x, y, target, features), target, name, seed,
            task=task, image=image, validation=validation, test=test,
            held_out=None if held is None else _tabled(*held, target, features, "the held-out x"),
        )  # fmt: skip
        if features is None or is_frame(x):
            return found
        return replace(found, encoder=replace(found.encoder, names=tuple(map(str, features))))
    if array.dtype.kind not in "biuf":
        raise ValueError(f"got x of {array.dtype}: an image is of numbers, so convert it")
    answers = _matched(array, y, "x")
    grid, axes = image_of(array, tuple(image or ()))
    other = None
    if held is not None:
        others = array_of(held[0], "the held-out x")
        if others.shape[1:] != array.shape[1:]:
            raise ValueError(
                f"got a held-out x of shape {others.shape} beside an x of {array.shape}: "
                "all but the number of rows must be the same"
            )
        other = _matched(others, held[1], "the held-out x"), others

    def fit(inputs: NDArray[Any], training: Rows) -> Fitted:
        columns, mean, scale, told = fit_channels(inputs, training, grid)
        return Fitted(columns, mean, scale, grid, "pixels", [axes, *told] if axes else told)

    return _assembled(name, TARGET, answers, array, fit, other, seed, task, validation, test)


def from_torch(dataset: Any, held_out: Any = None, **options: Any) -> Dataset:
    """The data set in a ``torch.utils.data.Dataset`` of pairs (x, y), read once: see `from_arrays` for the options.

    Raises
    ------
    ValueError : what it gives are no pairs, or the x of one has another shape than that of the first.
    """
    others = None if held_out is None else _pairs(held_out)
    return from_arrays(*_pairs(dataset), held_out=others, **options)


def part(encoder: Encoder, x: NDArray[np.float32], answers: NDArray[Any], rows: Rows) -> Part:
    """Rows with their answers: numbers of classes, or values that the encoder scales."""
    if encoder.task == "classification":
        return Part(x, answers.astype(np.int64), None, rows)
    return Part(x, encoder.scaled(answers.astype(np.float64)), answers.astype(np.float64), rows)


def _assembled(
    name: str,
    target: str,
    column: pl.Series,
    inputs: Any,
    fit: Callable[[Any, Rows], Fitted],
    held_out: tuple[pl.Series, Any] | None,
    seed: int,
    task: Task | None,
    validation: float,
    test: float,
) -> Dataset:
    """Split, fit on the training rows, encode; ``inputs`` are a frame or an array, whose rows an index picks."""
    if task not in (None, "classification", "regression"):
        raise ValueError(f"got task={task!r}: give 'classification' or 'regression', or leave it to be inferred")
    if held_out is not None:
        test = 0.0
        if not 0 < validation < 1:
            raise ValueError(f"got validation={validation}: it must be above 0 and below 1")
    elif not (validation >= 0 and test >= 0 and validation + test < 1):
        raise ValueError(f"got validation={validation}, test={test}: give shares of 0 or more, their sum below 1")
    answered = answers_of(column, target, task)
    inputs = inputs[answered.rows]
    cuts = split(answered.strata, seed, validation, test)
    columns, mean, scale, image, layout, told = fit(inputs, cuts[0])
    encoder = Encoder(
        columns, tuple(mean.tolist()), tuple(scale.tolist()), answered.task, target, answered.classes,
        *_unit(answered, cuts[0]), image=image, layout=layout,
    )  # fmt: skip
    x = encoder.encode(inputs)
    train, held, last = (part(encoder, x[cut], answered.values[cut], answered.rows[cut]) for cut in cuts)
    notes = [*answered.notes, *answered.rare(), *told]
    if held_out is not None:
        last, more = _held_out(encoder, *held_out)
        notes += more
    return Dataset(name, answered.task, train, held, last, encoder, tuple(notes))


def _held_out(encoder: Encoder, column: pl.Series, inputs: Any) -> tuple[Part, list[str]]:
    """The caller's own test part, encoded as new rows are."""
    try:
        answered = numbered(column, encoder.target, encoder.classes)
        x = encoder.encode(inputs[answered.rows])
    except ValueError as error:
        raise ValueError(f"in the held-out part, {error}") from None
    told = [f"In the held-out part: {note}" for note in answered.notes]
    return part(encoder, x, answered.values, answered.rows), ["The test part is the held-out part as given.", *told]


def _unit(answered: Answered, training: Rows) -> tuple[float, float]:
    """Mean and scale of the answers over the training rows."""
    if answered.classes:
        return 0.0, 1.0
    mean, scale = moments(answered.values[training], None)
    return float(mean), float(scale)


def _name(y: Any) -> str:
    """What the answers are called: a column may know it."""
    named = any(is_made_by(module, "Series", y) for module in ("polars", "pandas"))
    return str(y.name) if named and y.name not in (None, "") else TARGET


def _tabled(x: Any, y: Any, target: str, features: Sequence[str] | None, which: str = "x") -> pl.DataFrame:
    """A frame of the columns of ``x``, and ``y`` beside them."""
    frame = frame_of(x) if is_frame(x) else table_of(array_of(x, which), features)
    if target in frame.columns:
        raise ValueError(f"got a column of x called '{target}', as the answers are: give it another name")
    return frame.with_columns(_matched(frame, y, which, target))


def _matched(x: Any, y: Any, which: str, target: str = TARGET) -> pl.Series:
    """The answers as a column, which is as long as the rows of ``x`` are many."""
    column = column_of(target, y)
    if len(x) != len(column):
        raise ValueError(f"got {which} of {len(x)} rows and {len(column)} answers: give one answer a row")
    if not len(x) or 0 in x.shape:
        raise ValueError(f"got {which} of shape {x.shape}: at least one row and one number in it were expected")
    return column


def _pair(held_out: Any) -> tuple[Any, Any]:
    if not isinstance(held_out, tuple | list) or len(held_out) != 2:
        raise ValueError(f"got held_out as {type(held_out).__name__}: a pair (x, y) was expected")
    return held_out[0], held_out[1]


def _described(sample: Any) -> str:
    size = f" of {len(sample)}" if isinstance(sample, tuple | list) else ""
    return f"a {type(sample).__name__}{size}"


def _pairs(dataset: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """All that a data set of torch gives, as two arrays."""
    if is_made_by("torch", "utils.data.TensorDataset", dataset) and len(dataset.tensors) == 2:
        return array_of(dataset.tensors[0]), array_of(dataset.tensors[1], "y")
    samples = [dataset[i] for i in range(len(dataset))] if hasattr(dataset, "__len__") else list(dataset)
    for i, sample in enumerate(samples):
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise ValueError(f"sample {i} of the torch data set is no pair (x, y): {_described(sample)} was given")
    xs = [array_of(x) for x, _ in samples]
    for i, x in enumerate(xs):
        if x.shape != xs[0].shape:
            raise ValueError(f"sample {i} has an x of shape {x.shape}, the first of {xs[0].shape}: give all the same")
    return np.array(xs), array_of([y for _, y in samples], "y")
