"""Data sets for the search: bundled ones and tables, split into three parts and encoded by what the first one holds."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from search.encoder import Column, Encoder, Label, Task, finite, fit_columns, fit_scales, moments
from search.numbers import counted
from search.table import infer, listing, nearest, parse, plain, read, require

if TYPE_CHECKING:
    import polars as pl

BUNDLED = ("digits", "breast_cancer", "diabetes")
FEWEST_ROWS = 10
MOST_CLASSES = 20  # whole numbers with at most this many values (and ten rows for each) are classes


@dataclass(frozen=True)
class Part:
    """Some rows of a data set, encoded.

    ``x`` is float32 of shape ``(rows, features)``; ``y`` of shape ``(rows,)`` holds class numbers (int64), or for
    regression float32 in units of the training part's standard deviation, its mean at 0.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64] | NDArray[np.float32]

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
    def n_inputs(self) -> int:
        """Number of features."""
        return len(self.encoder.features)

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
        return [
            f"{self.name}: {rows}, {columns} used, {features}",
            f"{self.task}, {task}" if self.classes else f"{self.task} of '{self.target}'",
            f"split: {len(self.train)} training, {len(self.validation)} validation, {len(self.test)} held-out test",
            *self.notes,
        ]


def load(
    source: str | os.PathLike[str],
    target: str | None = None,
    seed: int = 0,
    *,
    task: Task | None = None,
    validation: float = 0.16,
    test: float = 0.2,
) -> Dataset:
    """A data set, split by the seed (stratified for classes) and encoded by what its training rows hold.

    Parameters
    ----------
    source : ``"digits"``, ``"breast_cancer"`` or ``"diabetes"``, or a CSV or Parquet file.
    target : the file's column to answer; a bundled set brings its own.
    seed : of the split; the same seed gives the same parts.
    task : inferred from the target when not given.
    validation, test : shares of the rows; the rest is for training.

    Raises
    ------
    ValueError : an unknown name, an unreadable file, no such column, or a target that can't be learned.
    FileNotFoundError : no such file.
    ImportError : scikit-learn or polars is not installed.
    """
    name = os.fspath(source)
    if name in BUNDLED:
        frame, target = _bundled(name, target)
        pixels = name == "digits"
        return from_frame(frame, target, name, seed, task=task, validation=validation, test=test, one_unit=pixels)
    if not Path(name).suffix and os.sep not in name and not Path(name).exists():
        raise ValueError(
            f"no bundled data set is called '{name}'{nearest(name, BUNDLED)}: "
            f"give one of {', '.join(BUNDLED)}, or a .csv or .parquet file"
        )
    frame, told = read(source)
    if target is None:
        raise ValueError(
            f"{name} needs a target: name one of its columns with --target, of {listing(frame.columns, 20)}"
        )
    dataset = from_frame(frame, target, Path(name).stem, seed, task=task, validation=validation, test=test)
    return replace(dataset, notes=(*told, *dataset.notes))


def _bundled(name: str, target: str | None) -> tuple[pl.DataFrame, str]:
    require("sklearn", "scikit-learn")
    require("polars", "polars")
    import polars as pl
    from sklearn import datasets

    bunch: Any = getattr(datasets, f"load_{name}")()
    answer = {"digits": "digit", "breast_cancer": "diagnosis", "diabetes": "progression"}[name]
    if target not in (None, answer):
        raise ValueError(f"'{name}' brings its own target, '{answer}': leave out --target {target}")
    frame = pl.DataFrame(bunch.data, schema=[str(feature) for feature in bunch.feature_names])
    values = bunch.target_names[bunch.target].astype(str) if name == "breast_cancer" else bunch.target
    return frame.with_columns(pl.Series(answer, values)), answer


def from_frame(
    frame: pl.DataFrame,
    target: str,
    name: str = "table",
    seed: int = 0,
    *,
    task: Task | None = None,
    validation: float = 0.16,
    test: float = 0.2,
    one_unit: bool = False,
) -> Dataset:
    """The data set in a polars DataFrame: see `load`.

    With ``one_unit`` all columns are numbers in one unit, as pixels are: one scale serves all and none is dropped.
    """
    if target not in frame.columns:
        raise ValueError(
            f"'{target}' is not a column of {name}{nearest(target, frame.columns)}: "
            f"the columns are {listing(frame.columns, 20)}"
        )
    if task not in (None, "classification", "regression"):
        raise ValueError(f"got task={task!r}: give 'classification' or 'regression', or leave it to be inferred")
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ValueError(f"got validation={validation}, test={test}: both must be above 0, their sum below 1")
    frame, answers, classes, notes = _answers(frame, target, task)
    rows = split(answers if classes else np.zeros_like(answers), seed, validation, test)
    if classes and (rare := [classes[i] for i, count in enumerate(np.bincount(answers.astype(int))) if count < 5]):
        notes.append(f"Too few rows for every part to hold one: {listing(rare)}.")

    inputs, training = frame.drop(target), rows[0]
    if one_unit:
        medians = np.median(inputs[training].to_numpy(), axis=0).tolist()
        columns = tuple(
            Column(column, "number", fill=fill) for column, fill in zip(inputs.columns, medians, strict=True)
        )
    else:
        columns, told = fit_columns(inputs, training)
        notes += told
    mean, scale = fit_scales(columns, inputs[training], one_unit)
    center, spread = (0.0, 1.0) if classes else map(float, moments(answers[training], None))
    kind: Task = "classification" if classes else "regression"
    encoder = Encoder(columns, tuple(mean.tolist()), tuple(scale.tolist()), kind, target, classes, center, spread)
    y = answers.astype(np.int64) if classes else ((answers - center) / spread).astype(np.float32)
    x = encoder.encode(inputs)
    train, held, last = (Part(x[part], y[part]) for part in rows)
    return Dataset(name, kind, train, held, last, encoder, tuple(notes))


def split(strata: NDArray[Any], seed: int, validation: float, test: float) -> tuple[NDArray[np.intp], ...]:
    """Row numbers of the training, validation and test part, each stratum spread evenly over the three.

    The members of a stratum are shuffled and take evenly spaced ranks in [0, 1), shifted at random; the rows in the
    order of their ranks are cut in three. So a part's share of a stratum is off by about one row at most, and a stratum
    of two rows has one in training.

    Raises
    ------
    ValueError : no row is left for training.

    Examples
    --------
    >>> strata = np.array([0] * 50 + [1] * 25)
    >>> [np.bincount(strata[part]).tolist() for part in split(strata, 0, 0.16, 0.2)]
    [[32, 16], [8, 4], [10, 5]]
    """
    rng = np.random.default_rng(seed)
    rank = np.empty(len(strata))
    for stratum in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == stratum))
        rank[members] = (np.arange(len(members)) + rng.random()) / len(members)
    order = np.argsort(rank, kind="stable")
    n_test, n_validation = (max(1, round(share * len(strata))) for share in (test, validation))
    n_train = len(strata) - n_test - n_validation
    if n_train < 1:
        raise ValueError(
            f"got {len(strata)} rows, of which validation={validation} and test={test} leave none to train on"
        )
    return tuple(np.sort(part) for part in np.split(order, (n_train, n_train + n_validation)))


def _answers(
    frame: pl.DataFrame, target: str, task: Task | None
) -> tuple[pl.DataFrame, NDArray[Any], tuple[Label, ...], list[str]]:
    """The rows that have an answer, the answers (with classes: their numbers), the classes, and what was done."""
    cells = plain(frame[target])
    if cells is None:
        raise ValueError(f"target '{target}' holds {frame[target].dtype}: numbers or classes were expected")
    kind, words = infer(cells)
    if kind == "date":
        raise ValueError(f"target '{target}' holds dates: numbers or classes were expected")
    if words and task is None:  # numbers beside a few texts: labels like 1, 2, 3+, or numbers with bad cells
        task = "classification" if cells.n_unique() <= MOST_CLASSES else "regression"
    numbers = parse(cells, "number")
    numeric = kind == "number" and not words
    if task == "regression" and not numeric:
        row = (cells.is_not_null() & numbers.is_null()).arg_true()[0]
        raise ValueError(
            f"target '{target}' has {cells[row]!r} in row {row + 1}: regression needs numbers, "
            "so correct it or leave the cell empty"
        )
    values = finite(numbers) if numeric else np.array(cells.to_list(), dtype=object)
    known = np.isfinite(values) if numeric else cells.is_not_null().to_numpy()
    values, rows = values[known], int(known.sum())
    if rows < FEWEST_ROWS:
        raise ValueError(f"got {counted(rows, 'row')} with a value of '{target}': at least {FEWEST_ROWS} are needed")
    notes = [f"Dropped {counted(len(known) - rows, 'row')} without a value of '{target}'."] if rows < len(known) else []

    distinct, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    whole = numeric and not (distinct % 1).any()
    if task is None:
        few = whole and len(distinct) <= max(2, min(MOST_CLASSES, rows // 10))
        task = "classification" if few or not numeric else "regression"
        what = "texts" if not numeric else "whole numbers" if whole else "numbers"
        notes.insert(0, f"Taken as {task}: '{target}' holds {len(distinct)} different {what}.")
    if len(distinct) < 2:
        raise ValueError(f"target '{target}' is {distinct.tolist()[0]!r} in every row: there is nothing to learn")
    if task == "regression":
        return frame.filter(known), values, (), notes
    classes = tuple(distinct.astype(int).tolist() if whole else distinct.tolist())
    if single := [repr(label) for label, count in zip(classes, counts, strict=True) if count == 1]:
        raise ValueError(
            f"target '{target}' has classes of one row ({listing(single, 3)}; {len(classes)} classes in {rows} rows): "
            "each class needs two, so drop or merge them, or ask for regression if they are numbers"
        )
    return frame.filter(known), codes, classes, notes
