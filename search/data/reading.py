"""Data sets for the search, split into three parts and encoded by what the first one holds: `dataset` takes any."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.data.frames import frame_of, is_frame, is_made_by
from search.data.parts import Dataset
from search.data.series import SERIES, from_series, load_series
from search.data.sources import from_arrays, from_frame, from_torch
from search.data.table import listing, nearest, read, require
from search.data.target import Task

if TYPE_CHECKING:
    import polars as pl

BUNDLED = ("digits", "breast_cancer", "diabetes", *SERIES)
IMAGES = {"digits": (1, 8, 8)}


def dataset(
    data: Any,
    target: Any = None,
    *,
    held_out: Any = None,
    name: str | None = None,
    seed: int = 0,
    task: Task | None = None,
    transform: str = "none",
    image: Sequence[int] | None = None,
    features: Sequence[str] | None = None,
    lags: int | None = None,
    time: str | None = None,
    exogenous: Sequence[str] | None = None,
    validation: float = 0.16,
    test: float = 0.2,
) -> Dataset:
    """A data set of anything that holds one, split by the seed and encoded by what its training rows hold.

    Parameters
    ----------
    data : the name of a bundled set; a CSV or Parquet file; a frame of polars or pandas, or a mapping from names to
        columns; an array, tensor or list of the inputs; a pair (inputs, answers); a ``torch.utils.data.Dataset`` of
        such pairs; or a `Dataset`, which is given back.
    target : the name of the column to answer, or, beside inputs without answers, the answers.
    held_out : rows to keep for the test, of the same kind as ``data`` (beside inputs a pair), in place of a share.
    name : of the data set.
    seed : of the split; the same seed gives the same parts.
    task : ``"classification"`` or ``"regression"``, inferred from the answers when not given.
    transform : of numbers to answer: see `Dataset.transformed`.
    image, features : see `from_arrays`.
    lags : makes a series of a table, or of values alone: each step is answered from so many before it.
    time, exogenous : see `from_series`.
    validation, test : shares of the rows; the rest is for training. Classes are spread evenly. Without a test (0) a
        search looks at no held-out part, and trains no rivals that would be compared there.

    Raises
    ------
    ValueError : data that can't be learned from, each in a sentence of its own.
    TypeError : anything else.

    Examples
    --------
    >>> x = [[k, k % 3] for k in range(20)]
    >>> found = dataset(x, ["low"] * 10 + ["high"] * 10)
    >>> found.task, found.classes, len(found.train), len(found.validation), len(found.test)
    ('classification', ('high', 'low'), 13, 3, 4)
    """
    shares: Any = {"validation": validation, "test": test}
    rows: Any = {"held_out": held_out, "task": task, "image": image}
    steps: Any = {"lags": lags, "time": time, "exogenous": exogenous, "transform": transform}
    if features is not None and (isinstance(data, str | os.PathLike | Dataset) or is_frame(data)):
        raise ValueError("got features beside a table: its columns have names already, so leave features out")
    if isinstance(data, Dataset):
        if any(value is not None for value in (target, lags, *rows.values())):
            raise ValueError("got a target, held-out part, task, image or lags beside a ready data set: leave them out")
        return data if transform == "none" else data.transformed(transform)
    if isinstance(data, str | os.PathLike):
        found = load(data, target, seed, **shares, **rows, **steps)
        return found if name is None else replace(found, name=name)
    _check(lags, time, exogenous, **rows)
    if lags is not None:
        if not (target is None or isinstance(target, str)):
            raise ValueError("got answers beside a series, whose own next steps are the answers: leave them out")
        return from_series(data, target, name=name or "series", **shares, **steps)
    options: Any = {"seed": seed, **shares, **rows}
    if is_frame(data) and (target is None or isinstance(target, str)):
        if target is None:
            columns = listing(map(repr, frame_of(data).columns), 20)
            raise ValueError(f"got a table without a target: name one of its columns, of {columns}")
        found = from_frame(data, target, name or "table", **options)
    else:
        found = _of_arrays(data, target, {"name": name or "arrays", "features": features, **options})
    return found if transform == "none" else found.transformed(transform)


def _of_arrays(data: Any, target: Any, options: dict[str, Any]) -> Dataset:
    if is_made_by("torch", "utils.data.Dataset", data):
        if target is not None:
            raise ValueError("got a target beside a torch data set, whose pairs (x, y) have the answers: leave it out")
        return from_torch(data, **options)
    if target is None and isinstance(data, tuple) and len(data) == 2:
        return from_arrays(*data, **options)
    if target is None or isinstance(target, str) or not (is_frame(data) or hasattr(data, "__len__")):
        kinds = f"data of {type(data).__name__} and a target of {type(target).__name__}"
        raise TypeError(
            f"got {kinds}: give a bundled name, a .csv or .parquet file, a frame with the name of its target, "
            "inputs with their answers as arrays, or a torch data set of pairs"
        )
    return from_arrays(data, target, **options)


def load(
    source: str | os.PathLike[str],
    target: str | None = None,
    seed: int = 0,
    *,
    task: Task | None = None,
    transform: str = "none",
    image: Sequence[int] | None = None,
    lags: int | None = None,
    time: str | None = None,
    exogenous: Sequence[str] | None = None,
    validation: float = 0.16,
    test: float = 0.2,
    held_out: str | os.PathLike[str] | None = None,
) -> Dataset:
    """A data set, split by the seed (stratified for classes) and encoded by what its training rows hold.

    Parameters
    ----------
    source : ``"digits"``, ``"breast_cancer"``, ``"diabetes"`` or ``"sunspots"``, or a CSV or Parquet file.
    target : the file's column to answer; a bundled set brings its own.
    seed : of the split; the same seed gives the same parts. A series is split in the order of time, whatever the seed.
    task : inferred from the target when not given.
    transform : of numbers to answer: see `Dataset.transformed`.
    image : channels, then the extent of each of 1 to 3 axes, where the columns beside the target are pixels in this
        order; digits are known to be ``(1, 8, 8)``.
    lags, time, exogenous : make a series of a file: see `from_series`. Sunspots are one, of 9 lags.
    validation, test : shares of the rows; the rest is for training.
    held_out : a file of the rows to keep for the test, in place of a share.

    Raises
    ------
    ValueError : an unknown name, an unreadable file, no such column, or a target that can't be learned.
    FileNotFoundError : no such file.
    ImportError : scikit-learn, polars or, for sunspots, statsmodels is not installed.
    """
    name = os.fspath(source)
    if name in SERIES or lags is not None:
        if name in BUNDLED and name not in SERIES:
            raise ValueError(f"got lags={lags} beside '{name}', which is no series: leave them out")
        _check(SERIES[name][2] if lags is None else lags, time, exogenous, task, image, held_out)
        options: Any = {} if time is None else {"time": time}
        return load_series(
            source, target, lags=lags, exogenous=exogenous,
            transform=transform, validation=validation, test=test, **options,
        )  # fmt: skip
    _check(lags, time, exogenous, task, image, held_out)
    shares: Any = {"task": task, "validation": validation, "test": test}
    if name in BUNDLED:
        if held_out is not None:
            raise ValueError(f"got a held-out file beside '{name}', whose test part the seed draws: leave it out")
        frame, target = _bundled(name, target)
        found = from_frame(frame, target, name, seed, image=image or IMAGES.get(name), **shares)
        return found if transform == "none" else found.transformed(transform)
    if not Path(name).suffix and os.sep not in name and not Path(name).exists():
        raise ValueError(
            f"no bundled data set is called '{name}'{nearest(name, BUNDLED)}: "
            f"give one of {', '.join(BUNDLED)}, or a .csv or .parquet file"
        )
    frame, told = read(source)
    if target is None:
        raise ValueError(
            f"{name} needs a target: name one of its columns with --target, of {listing(map(repr, frame.columns), 20)}"
        )
    others = None if held_out is None else read(held_out)[0]
    found = from_frame(frame, target, Path(name).stem, seed, image=image, held_out=others, **shares)
    found = replace(found, notes=(*told, *found.notes))
    return found if transform == "none" else found.transformed(transform)


def _check(lags: int | None, time: Any, exogenous: Any, task: Any, image: Any, held_out: Any) -> None:
    """Refuse what is only for a series beside a table, and the other way round."""
    if lags is None and (time is not None or exogenous is not None):
        raise ValueError("got time or exogenous columns without lags: give lags to make a series, or leave them out")
    if lags is not None and (task == "classification" or image is not None or held_out is not None):
        raise ValueError(
            "got classification, an image or a held-out part beside a series, which answers numbers and "
            "whose last steps are the test: leave it out"
        )


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
