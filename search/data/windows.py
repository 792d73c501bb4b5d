"""Series in time: the order of their steps, their channels, and windows of the past."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.data.columns import Column, Floats, finite
from search.data.table import infer, listing, nearest, parse, plain
from search.data.transform import Transform
from search.numbers import counted

if TYPE_CHECKING:
    import polars as pl

INDEX = "index"
UNEVEN = 1.5  # steps whose longest is at most so many times the shortest are even: months are


def channels_of(frame: pl.DataFrame, columns: Sequence[Column], transform: Transform) -> Floats:
    """The channels of each step, ``(steps, channels)``, before scaling; the target's column is the first.

    The target is transformed. A missing number is the last one before it, and the training median where none is.
    """
    channels = []
    for i, column in enumerate(columns):
        features = column.encode(frame[column.name])
        if column.kind != "category":
            features[:, 0] = _carried(features[:, 0], np.isnan(_numbers(frame[column.name], column)))
        if i == 0:
            features[:, 0] = transform.forward(features[:, 0])
        channels.append(features)
    return np.hstack(channels)


def windows(channels: Floats, lags: int) -> Floats:
    """The last steps up to each, ``(steps - lags + 1, channels * lags)``: time runs along the last axis, oldest first.

    Raises
    ------
    ValueError : fewer steps than that.

    Examples
    --------
    >>> windows(np.array([[1, 10], [2, 20], [3, 30], [4, 40]]), 3).tolist()
    [[1, 2, 3, 10, 20, 30], [2, 3, 4, 20, 30, 40]]
    """
    if len(channels) < lags:
        raise ValueError(f"got {counted(len(channels), 'step')} of a series: {lags} are needed to answer the next")
    found = np.lib.stride_tricks.sliding_window_view(channels, lags, axis=0)
    return found.reshape(len(found), -1)


def with_index(frame: pl.DataFrame) -> pl.DataFrame:
    """The steps, with a name for the column that has none: the index of a frame of pandas is written so."""
    return frame.rename({"": INDEX}) if "" in frame.columns and INDEX not in frame.columns else frame


def time_of(frame: pl.DataFrame, target: str) -> str:
    """The column that tells the time: the only one of different dates, else of numbers in even steps; or ``""``."""
    dates, counters = [], []
    for series in frame.drop(target):
        cells = plain(series)
        if cells is None or cells.null_count():
            continue
        kind, words = infer(cells)
        values = parse(cells, kind)
        if words or kind == "category" or values.null_count() or values.n_unique() < len(values):
            continue
        steps = np.diff(values.to_numpy())
        if kind == "date":
            dates.append(series.name)
        elif len(steps) and np.isclose(steps, steps[0]).all():
            counters.append(series.name)
    return next((found[0] for found in (dates, counters) if len(found) == 1), "")


def times_of(frame: pl.DataFrame, time: str) -> list[str]:
    """The cells of a column of dates or numbers in the order of the steps, which ``ordered`` accepts."""
    cells = plain(frame[time])
    assert cells is not None  # it would not be accepted
    order = np.argsort(finite(parse(cells, infer(cells)[0])), kind="stable")
    return [str(frame[time][int(place)]) for place in order]


def ordered(frame: pl.DataFrame, time: str) -> tuple[pl.DataFrame, str]:
    """The steps in the order of a column of dates or numbers, without this column; and a sentence if they are uneven.

    Raises
    ------
    ValueError : no such column, a cell that is neither, or one value twice.
    """
    if time not in frame.columns:
        raise ValueError(
            f"'{time}' is not a column{nearest(time, frame.columns)}: "
            f"the columns are {listing(map(repr, frame.columns), 20)}"
        )
    cells = plain(frame[time])
    kind, words = ("category", ()) if cells is None else infer(cells)
    if cells is None or kind == "category" or words:
        raise ValueError(f"column '{time}' holds other than dates or numbers: it can't tell the order of the steps")
    values = finite(parse(cells, kind))
    if np.isnan(values).any():
        row = int(np.flatnonzero(np.isnan(values))[0])
        raise ValueError(f"column '{time}' is empty in row {row + 1}: every step of a series needs its time")
    order = np.argsort(values, kind="stable")
    steps = np.diff(values[order])
    if (steps == 0).any():
        row = int(order[1:][steps == 0][0])
        raise ValueError(
            f"column '{time}' has {frame[time][row]!r} twice: a series has one row at a time, so keep one of each"
        )
    uneven = len(steps) > 0 and steps.max() > UNEVEN * steps.min()
    told = f"The steps of '{time}' are not even: each row is taken for one step." if uneven else ""
    return frame[order].drop(time), told


def _numbers(series: pl.Series, column: Column) -> Floats:
    cells = plain(series)
    assert cells is not None  # `Column.encode` has refused it
    return finite(parse(cells, column.kind))


def _carried(values: Floats, missing: NDArray[np.bool_]) -> Floats:
    """Each missing value as the last one before it that is not; as it is where all before are."""
    last = np.maximum.accumulate(np.where(missing, -1, np.arange(len(values))))
    return np.where(last < 0, values, values[last])
