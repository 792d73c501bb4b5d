"""Data sets for the search, split into three parts and encoded by what the first one holds: `dataset` takes any."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.frames import frame_of, is_frame, is_made_by
from search.parts import Dataset, Part
from search.sources import from_arrays, from_frame, from_torch
from search.splitting import split
from search.table import listing, nearest, read, require
from search.target import Task

if TYPE_CHECKING:
    import polars as pl

__all__ = ["BUNDLED", "Dataset", "Part", "dataset", "from_arrays", "from_frame", "from_torch", "load", "split"]

BUNDLED = ("digits", "breast_cancer", "diabetes")
IMAGES = {"digits": (1, 8, 8)}


def dataset(
    data: Any,
    target: Any = None,
    *,
    held_out: Any = None,
    name: str | None = None,
    seed: int = 0,
    task: Task | None = None,
    image: Sequence[int] | None = None,
    features: Sequence[str] | None = None,
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
    image, features : see `from_arrays`.
    validation, test : shares of the rows; the rest is for training. Classes are spread evenly.

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
    shares: Any = {"seed": seed, "task": task, "image": image, "validation": validation, "test": test}
    if features is not None and (isinstance(data, str | os.PathLike | Dataset) or is_frame(data)):
        raise ValueError("got features beside a table: its columns have names already, so leave features out")
    if isinstance(data, Dataset):
        if any(value is not None for value in (target, held_out, task, image)):
            raise ValueError("got a data set that is ready beside a target, held-out part, task or image: leave it out")
        return data
    if isinstance(data, str | os.PathLike):
        found = load(data, target, held_out=held_out, **shares)
        return found if name is None else replace(found, name=name)
    if is_frame(data) and (target is None or isinstance(target, str)):
        if target is None:
            columns = listing(frame_of(data).columns, 20)
            raise ValueError(f"got a table without a target: name one of its columns, of {columns}")
        return from_frame(data, target, name or "table", held_out=held_out, **shares)
    shares = {"name": name or "arrays", "held_out": held_out, "features": features, **shares}
    if is_made_by("torch", "utils.data.Dataset", data):
        if target is not None:
            raise ValueError("got a target beside a torch data set, whose pairs (x, y) have the answers: leave it out")
        return from_torch(data, **shares)
    if target is None and isinstance(data, tuple) and len(data) == 2:
        return from_arrays(*data, **shares)
    if target is None or isinstance(target, str) or not (is_frame(data) or hasattr(data, "__len__")):
        raise TypeError(
            f"got data of {_kind(data)} and a target of {_kind(target)}: give a bundled name, a .csv or .parquet file, "
            "a frame with the name of its target, inputs with their answers as arrays, or a torch data set of pairs"
        )
    return from_arrays(data, target, **shares)


def _kind(value: object) -> str:
    return type(value).__name__


def load(
    source: str | os.PathLike[str],
    target: str | None = None,
    seed: int = 0,
    *,
    task: Task | None = None,
    image: Sequence[int] | None = None,
    validation: float = 0.16,
    test: float = 0.2,
    held_out: str | os.PathLike[str] | None = None,
) -> Dataset:
    """A data set, split by the seed (stratified for classes) and encoded by what its training rows hold.

    Parameters
    ----------
    source : ``"digits"``, ``"breast_cancer"`` or ``"diabetes"``, or a CSV or Parquet file.
    target : the file's column to answer; a bundled set brings its own.
    seed : of the split; the same seed gives the same parts.
    task : inferred from the target when not given.
    image : channels, then the extent of each of 1 to 3 axes, where the columns beside the target are pixels in this
        order; digits are known to be ``(1, 8, 8)``.
    validation, test : shares of the rows; the rest is for training.
    held_out : a file of the rows to keep for the test, in place of a share.

    Raises
    ------
    ValueError : an unknown name, an unreadable file, no such column, or a target that can't be learned.
    FileNotFoundError : no such file.
    ImportError : scikit-learn or polars is not installed.
    """
    name = os.fspath(source)
    shares: Any = {"task": task, "image": image, "validation": validation, "test": test}
    if name in BUNDLED:
        if held_out is not None:
            raise ValueError(f"got a held-out file beside '{name}', whose test part the seed draws: leave it out")
        frame, target = _bundled(name, target)
        return from_frame(frame, target, name, seed, **{**shares, "image": image or IMAGES.get(name)})
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
    others = None if held_out is None else read(held_out)[0]
    found = from_frame(frame, target, Path(name).stem, seed, held_out=others, **shares)
    return replace(found, notes=(*told, *found.notes))


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
