"""Data sets for the search: bundled ones and tables, split into three parts and encoded by what the first one holds."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.parts import Dataset, Part
from search.sources import from_frame
from search.splitting import split
from search.table import listing, nearest, read, require
from search.target import Task

if TYPE_CHECKING:
    import polars as pl

__all__ = ["BUNDLED", "Dataset", "Part", "from_frame", "load", "split"]

BUNDLED = ("digits", "breast_cancer", "diabetes")
IMAGES = {"digits": (1, 8, 8)}


def load(
    source: str | os.PathLike[str],
    target: str | None = None,
    seed: int = 0,
    *,
    task: Task | None = None,
    image: tuple[int, ...] = (),
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
    image : channels, then the extent of each of 1 to 3 axes, where the columns beside the target are pixels in this
        order; digits are known to be ``(1, 8, 8)``.
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
        image = image or IMAGES.get(name, ())
        return from_frame(frame, target, name, seed, task=task, image=image, validation=validation, test=test)
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
    dataset = from_frame(frame, target, Path(name).stem, seed, task=task, image=image, validation=validation, test=test)
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
