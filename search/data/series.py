"""Series in time as data sets: each step is answered from the steps before it.

The parts follow one another in time: training first, then validation, and the test last. A row's inputs are the steps
before its own, which may lie in an earlier part: that is history, known when the step is to be answered, and no leak.
Nothing of a later part is in an earlier one, and nothing but training is in the encoder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.data.columns import Floats, fit_columns, moments
from search.data.encoder import Encoder
from search.data.frames import array_of, column_of, frame_of, is_frame, is_made_by, table_of
from search.data.parts import Dataset
from search.data.sources import part
from search.data.table import infer, listing, nearest, plain, read, require
from search.data.target import FEWEST_ROWS, answers_of
from search.data.transform import NONE
from search.data.windows import channels_of, ordered, time_of, with_index
from search.numbers import counted

if TYPE_CHECKING:
    import polars as pl

# target, time, and lags: the order of an autoregression, by Akaike's criterion on the years that are not held out
SERIES = {"sunspots": ("sunspots", "year", 9)}


def load_series(
    source: str | os.PathLike[str], target: str | None = None, *, lags: int | None = None, **options: Any
) -> Dataset:
    """The series in a CSV or Parquet file, or ``"sunspots"``, yearly from 1700 to 2008: see `from_series`.

    Raises
    ------
    ValueError : as `from_series`; an unreadable file; no target or no lags for a file.
    FileNotFoundError : no such file.
    ImportError : statsmodels, which has the sunspots, or polars is not installed.
    """
    name, told = os.fspath(source), list[str]()
    if name in SERIES:
        answer, time, usual = SERIES[name]
        if target not in (None, answer):
            raise ValueError(f"'{name}' brings its own target, '{answer}': leave out --target {target}")
        lags = usual if lags is None else lags
        return from_series(_sunspots(), answer, name=name, **{"lags": lags, "time": time, **options})
    frame, told = read(source)
    if target is None or lags is None:
        raise ValueError(
            f"{name} needs a target and lags to be a series: name a column of {listing(map(repr, frame.columns), 20)}, "
            "and say how many steps back a step is answered from"
        )
    return from_series(frame, target, **{"lags": lags, "name": Path(name).stem, **options}).noting(*told)


def _sunspots() -> pl.DataFrame:
    require("statsmodels", "statsmodels")
    require("polars", "polars")
    import polars as pl
    from statsmodels.datasets import sunspots

    table = sunspots.load().data
    return pl.DataFrame({"year": table["YEAR"].to_numpy(int), "sunspots": table["SUNACTIVITY"].to_numpy(float)})


def from_series(
    data: Any,
    target: str | None = None,
    *,
    lags: int,
    name: str = "series",
    time: str | None = None,
    exogenous: Sequence[str] | None = None,
    transform: str = "none",
    validation: float = 0.16,
    test: float = 0.2,
) -> Dataset:
    """The data set whose rows ask for each step of a series, one step ahead, from the ``lags`` steps before it.

    Its ``x`` is ``(rows, channels * lags)`` and its image ``(channels, lags)``: time runs along the last axis, oldest
    first. The first channel is the target in the unit of the answers, so that a network's output can be put behind it;
    the others are what else was measured at these steps. A missing number is the last one before it. ``rows`` of a part
    are the steps that it asks for, in the order of time.

    Parameters
    ----------
    data : a frame of polars or pandas, or a mapping from names to columns; or the values alone, an array or a list.
    target : the column to answer; not needed for values alone.
    lags : how many steps a row looks back.
    time : the column of dates or numbers by whose order the steps follow one another; the only one of dates, or else of
        numbers in even steps, is taken when not given, and the order of the rows where there is none.
    exogenous : the columns to be further channels; all others when not given.
    transform : of the target, as inputs and as answers: ``none``, ``sqrt``, ``log`` or ``yeo-johnson``.
    validation, test : shares of the steps: the last ones are the test, those before them validation. Without a test
        all steps are to be learned from.

    Raises
    ------
    ValueError : too few steps, no such column, a target that holds no numbers, or steps without an order.
    """
    frame, target = _table(data, target)
    if not isinstance(lags, Integral) or isinstance(lags, bool) or lags < 1:
        raise ValueError(f"got lags={lags!r}: a whole number of at least 1 was expected")
    lags = int(lags)
    if not (validation > 0 and test >= 0 and validation + test < 1):
        raise ValueError(
            f"got validation={validation}, test={test}: the first must be above 0, the second not below 0, "
            "their sum below 1"
        )
    time = time_of(frame, target) if time is None else time
    notes = [f"The steps are in the order of {repr(time) if time else 'the rows'}."]
    frame, uneven = ordered(frame, time) if time else (frame, "")
    frame = _chosen(frame, target, exogenous)
    cells = plain(frame[target])
    if cells is not None and cells.count() and infer(cells)[0] == "category":
        raise ValueError(
            f"target '{target}' holds texts, as {cells.drop_nulls()[0]!r}: the steps of a series are numbers, "
            "so name another target, or leave out the lags to learn classes of rows"
        )
    answered = answers_of(frame[target], target, "regression")
    steps = int(answered.rows[-1]) + 1
    ends = steps - np.array([_share(validation, steps) + _share(test, steps), _share(test, steps), 0])
    asked = answered.rows[answered.rows >= lags]
    cuts = np.split(asked, np.searchsorted(asked, ends[:2]))
    if sum(map(len, cuts)) < FEWEST_ROWS or not all(map(len, cuts[: 3 if test else 2])):
        sizes = ", ".join(str(len(cut)) for cut in cuts)
        raise ValueError(
            f"got {counted(steps, 'step')} with lags={lags}, of which training, validation and test answer {sizes}: at "
            f"least {FEWEST_ROWS} in all and one in each are needed, so give more steps or fewer lags"
        )
    columns, told = fit_columns(frame, np.arange(int(ends[0])), answered=target)
    if columns[0].name != target:
        raise ValueError(f"target '{target}' is the same in every step of training: there is nothing to learn")
    if gaps := steps - len(answered.rows):
        told.append(f"Nothing is asked of {counted(gaps, 'step')} without a value of '{target}'.")
    carried = "the last one before them or, where none is, the training median"
    told = [note.replace("the training median", carried) for note in told]
    encoder = Encoder(
        columns, (), (), "regression", target,
        image=(1, lags), layout="series", time=time,
    )  # fmt: skip
    encoder = _fitted(encoder, frame[: int(ends[0])])
    values = np.full(steps, np.nan)
    values[answered.rows] = answered.values
    encoder = encoder.refitted(transform, values[cuts[0]])
    x = encoder.encode(frame[:steps])
    train, held, last = (part(encoder, x[cut - lags], values[cut], cut) for cut in cuts)
    notes += [note for note in (uneven, *told) if note]
    return Dataset(name, "regression", train, held, last, encoder, tuple(notes), history=frame[:steps])


def forecast(
    encoder: Encoder,
    outputs: Callable[[NDArray[np.float32]], ArrayLike],
    history: Any,
    steps: int,
    future: Any = None,
) -> Floats:
    """What a network says of the next steps, each from those before it, of which it has said the last itself.

    Parameters
    ----------
    encoder : of the series.
    outputs : the network: inputs ``(1, features)`` to outputs ``(1, 1)``.
    history : a file or table that ends with the last known step.
    steps : how many to answer.
    future : a file or table with the other channels at these steps but the last; not needed where the target is alone.

    Returns
    -------
    The answers in the target's own unit, shape ``(steps,)``.

    Raises
    ------
    ValueError : an encoder of no series, or channels that nobody knows.
    """
    if encoder.layout != "series":
        raise ValueError("got an encoder of a table: only a series has next steps, so load the data with lags")
    window = encoder.encode(history)[-1].reshape(encoder.image)
    own = len(encoder.columns[0].features)
    others = np.zeros((max(0, steps - 1), len(window) - own))
    if others.size:
        if future is None:
            names = listing(repr(column.name) for column in encoder.columns[1:])
            raise ValueError(f"the steps after the first also need {names} of the ones before: give them as future")
        others = encoder.channels(_without_target(future, encoder.target))[:, own:]
        if len(others) < steps - 1:
            raise ValueError(f"got {counted(len(others), 'future step')} for {steps} to answer: {steps - 1} are needed")
    said = np.empty(steps)
    for k in range(steps):
        said[k] = encoder.decode(outputs(window.reshape(1, -1))).values[0]
        if k + 1 < steps:
            step = np.concatenate([encoder.scaled(said[k : k + 1]), np.zeros(own - 1), others[k]])
            window = np.hstack([window[:, 1:], step[:, None].astype(np.float32)])
    return said


def _share(share: float, steps: int) -> int:
    """So many of the steps, rounded down; but not because a product fell short of a whole number."""
    return int(share * steps + 1e-9)


def _without_target(future: Any, target: str) -> pl.DataFrame:
    import polars as pl

    frame = read(future)[0] if isinstance(future, str | os.PathLike) else frame_of(future)
    return frame.with_columns(pl.lit(None, dtype=pl.Float64).alias(target))


def _table(data: Any, target: str | None) -> tuple[pl.DataFrame, str]:
    """The frame, and the name of the target in it."""
    if is_made_by("pandas", "Series", data):
        data, target = data.to_frame(target or data.name or "value"), str(target or data.name or "value")
    if not is_frame(data):
        array = array_of(data)
        if array.ndim == 2 and array.shape[1] > 1:
            data = table_of(array)
        else:
            target = target or "value"
            data = {target: column_of(target, data)}
    frame = with_index(frame_of(data, index=True))
    if target is None:
        raise ValueError(
            f"got a series without a target: name one of its columns, of {listing(map(repr, frame.columns), 20)}"
        )
    if target not in frame.columns:
        raise ValueError(
            f"'{target}' is not a column of the series{nearest(target, frame.columns)}: "
            f"the columns are {listing(map(repr, frame.columns), 20)}"
        )
    return frame, target


def _chosen(frame: pl.DataFrame, target: str, exogenous: Sequence[str] | None) -> pl.DataFrame:
    """The target, then the columns that are further channels."""
    if exogenous is None:
        return frame.select(target, *[name for name in frame.columns if name != target])
    for name in exogenous:
        if name not in frame.columns or name == target:
            raise ValueError(
                f"'{name}' can't be a further channel{nearest(name, frame.columns)}: "
                f"the others beside '{target}' are {listing(map(repr, frame.drop(target).columns), 20)}"
            )
    return frame.select(target, *exogenous)


def _fitted(encoder: Encoder, known: pl.DataFrame) -> Encoder:
    """The encoder with a mean and a scale for each channel, of the steps that are known."""
    raw = channels_of(known, encoder.columns, NONE)
    mean, scale = moments(raw)
    scaled = np.array([flag for column in encoder.columns for flag in column.is_scaled])
    return replace(
        encoder,
        mean=tuple(np.where(scaled, mean, 0.0).tolist()),
        scale=tuple(np.where(scaled, scale, 1.0).tolist()),
        image=(raw.shape[1], encoder.lags),
    )
