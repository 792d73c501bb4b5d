"""The end of a series, from which a forecaster goes on: plain columns, the gaps before it filled, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from search.data.frames import array_of, is_frame
from search.data.table import plain

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray


def plain_column(series: pl.Series) -> pl.Series:
    """A column as it is kept: numbers, nothing where there is none; dates; or text.

    Raises
    ------
    ValueError : a column of something else.
    """
    found = plain(series)
    if found is None:
        raise ValueError(f"column '{series.name}' holds {series.dtype}: numbers, texts or dates were expected")
    return found.fill_nan(None) if found.dtype.is_float() else found


def ending(frame: pl.DataFrame, lags: int) -> pl.DataFrame:
    """The last steps of a series, so many as are looked at, and before them one whose gaps are what came before.

    So a missing number is the last one before it, however far back that is, as it would be with the whole series.

    >>> import polars as pl
    >>> ending(pl.DataFrame({"y": [1.0, 2.0, None, None, 5.0]}), lags=2)["y"].to_list()
    [2.0, None, 5.0]
    """
    import polars as pl

    if frame.height <= lags:
        return frame
    carried = frame.select(pl.all().fill_null(strategy="forward"))
    return pl.concat([carried[-lags - 1 :][:1], frame[-lags:]])


def like(known: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Further steps, whose columns are made those of the steps that are known.

    Raises
    ------
    ValueError : a column holds something else now.
    """
    import polars as pl

    for series in known:
        other = new[series.name]
        if other.dtype != series.dtype != pl.String and other.count():
            raise ValueError(f"column '{series.name}' holds {other.dtype} now: {series.dtype} was expected, as before")
    return new.cast(known.schema)


def written(frame: pl.DataFrame) -> dict[str, Any]:
    """The steps as values that JSON can hold, which `restored` reads back: dates as microseconds since 1970."""
    return {
        series.name: {
            "kind": "date" if series.dtype.is_temporal() else "number" if series.dtype.is_float() else "text",
            "values": (series.dt.epoch("us") if series.dtype.is_temporal() else series).to_list(),
        }
        for series in frame
    }


def restored(columns: Mapping[str, Any]) -> pl.DataFrame:
    """The steps that `written` wrote.

    >>> import polars as pl
    >>> from datetime import datetime
    >>> frame = pl.DataFrame({"y": [None, 0.1], "day": [datetime(2020, 1, 1), None], "word": ["a", None]})
    >>> restored(written(frame)).equals(frame)
    True
    """
    import polars as pl

    kinds = {"number": pl.Float64(), "date": pl.Int64(), "text": pl.String()}
    frame = pl.DataFrame([pl.Series(n, column["values"], kinds[column["kind"]]) for n, column in columns.items()])
    dates = [name for name, column in columns.items() if column["kind"] == "date"]
    return frame.with_columns(pl.from_epoch(name, "us") for name in dates)


def two_axes(x: NDArray[Any]) -> NDArray[Any]:
    """One number a step as a table of one column."""
    return x[:, None] if x.ndim == 1 else x


def one_row(x: Any) -> Any:
    """What is known of a single step, as a table or an array of one row."""
    return x if x is None or is_frame(x) else array_of(x, "X").reshape(1, -1)
