"""What people hold their data in, made plain: frames of polars, columns of polars, and arrays of numpy.

Of pandas and torch nothing is imported: their objects are known by the modules that made them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from search.data.table import listing, require

if TYPE_CHECKING:
    import polars as pl

NUMBERS, CELLS = "biuf", "biufOUSMT"  # kinds of dtypes: of numbers, and of all that a table may hold


def is_made_by(module: str, path: str, value: object) -> bool:
    """Whether a value is of a class of a module, which is not imported for this.

    >>> is_made_by("pandas", "DataFrame", {})
    False
    """
    kind: Any = sys.modules.get(module)
    for name in path.split("."):
        kind = getattr(kind, name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def is_frame(data: object) -> bool:
    """Whether it is a table with named columns: of polars, of pandas, or a mapping."""
    frames = (("polars", "DataFrame"), ("polars", "LazyFrame"), ("pandas", "DataFrame"))
    return isinstance(data, Mapping) or any(is_made_by(module, name, data) for module, name in frames)


def frame_of(data: Any, *, index: bool = False) -> pl.DataFrame:
    """A polars DataFrame of what `is_frame`; with ``index``, dates that index a pandas frame are its first column.

    Raises
    ------
    ValueError : columns of one name, or of different lengths.
    """
    require("polars", "polars")
    import polars as pl

    if isinstance(data, pl.LazyFrame):
        return data.collect()
    if isinstance(data, pl.DataFrame):
        return data
    if isinstance(data, Mapping):
        columns = {str(name): column_of(str(name), values) for name, values in data.items()}
    else:
        names = [str(name) for name in data.columns]
        if twins := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"got several columns called {listing(map(repr, twins))}: give each its own name")
        columns = {name: column_of(name, data.iloc[:, i]) for i, name in enumerate(names)}
        times = data.index.to_timestamp() if hasattr(data.index, "to_timestamp") else data.index  # of periods
        if index and getattr(times.dtype, "kind", "") == "M":
            name = str(times.name or "time")
            columns = {name: column_of(name, times.to_series()), **columns}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"got columns of {listing(sorted(lengths))} rows: give all of them the same number")
    return pl.DataFrame(columns)


def column_of(name: str, values: Any) -> pl.Series:
    """A polars column of anything with one axis: a list, an array, a tensor, a column of pandas or polars.

    Raises
    ------
    ValueError : more axes than one (but for a second of extent 1), or numbers of a kind that no column holds.
    """
    require("polars", "polars")
    import polars as pl

    if isinstance(values, pl.Series):
        return values.alias(name)
    if is_made_by("pandas", "Series", values):
        if is_made_by("pandas", "CategoricalDtype", values.dtype):
            levels = [None if _is_gap(cell) else _level(cell) for cell in values]
            return pl.Series(name, levels, dtype=pl.Categorical)
        return pl.Series(name, _of_pandas(values), strict=False)
    several = isinstance(values, list | tuple)
    if several and not (values and (np.ndim(values[0]) or is_made_by("torch", "Tensor", values[0]))):
        return _mixed(name, list(values))
    array = array_of(values, name)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"got {name} of shape {array.shape}: one value a row was expected; for one answer in several columns "
            "give the number of the class, as from argmax(axis=1)"
        )
    if array.dtype.kind not in CELLS:
        raise ValueError(f"got {name} of {array.dtype}: numbers, texts or dates were expected")
    if array.dtype.kind in "OUST":
        return _mixed(name, (array.astype(str) if array.dtype.kind == "S" else array).tolist())
    if array.dtype.kind == "M":  # of months and the like
        array = array.astype("datetime64[us]")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    return pl.Series(name, array)


def table_of(x: NDArray[Any], features: Sequence[str] | None = None) -> pl.DataFrame:
    """The columns of an array, called x0, x1 and so on where they are given no names.

    Raises
    ------
    ValueError : an array with other axes than rows and features, another number of names, or one name twice.
    """
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"got x of shape {x.shape}: (rows, features) was expected, with at least one of each")
    names = [f"x{i}" for i in range(x.shape[1])] if features is None else [str(name) for name in features]
    if len(names) != x.shape[1] or len(set(names)) < len(names):
        raise ValueError(
            f"got {len(names)} names for the {x.shape[1]} columns of x, {len(set(names))} of them different: "
            "give each column its own"
        )
    return frame_of({name: column_of(name, x[:, i]) for i, name in enumerate(names)})


def array_of(values: Any, name: str = "x") -> NDArray[Any]:
    """A numpy array of a list, a tensor, a frame or anything that numpy takes.

    Raises
    ------
    ValueError : rows of different shapes.
    """
    if is_made_by("torch", "Tensor", values):
        return np.asarray(values.detach().cpu().resolve_conj().resolve_neg().numpy())
    if isinstance(values, list | tuple) and values and is_made_by("torch", "Tensor", values[0]):
        values = [array_of(value) for value in values]
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(f"got rows of {name} that differ in shape: give all of them the same") from None


def _mixed(name: str, cells: list[Any]) -> pl.Series:
    """A column of one kind where the cells are of one, else of numbers, else of texts; nothing where a cell is none."""
    import polars as pl

    present = [None if _is_gap(cell) else cell for cell in cells]
    known = [cell for cell in present if cell is not None]
    if known and all(isinstance(cell, int | float | np.number) and not isinstance(cell, bool) for cell in known):
        return pl.Series(name, [None if cell is None else float(cell) for cell in present], dtype=pl.Float64)
    try:
        return pl.Series(name, present)
    except (TypeError, pl.exceptions.PolarsError):
        return pl.Series(name, [None if cell is None else str(cell) for cell in present])


def _level(cell: object) -> str:
    """A category as text, a whole number without a point."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _is_gap(cell: object) -> bool:
    """Nothing, not a number, or what pandas writes where a value is missing."""
    if isinstance(cell, float | np.floating):
        return bool(np.isnan(cell))
    return cell is None or type(cell).__name__ in ("NAType", "NaTType")


def _of_pandas(column: Any) -> Any:
    """The cells of a column of pandas, without pyarrow, which polars would read them by."""
    kind, missing = column.dtype, column.isna().to_numpy()
    if getattr(kind, "tz", None) is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if column.dtype.kind == "M":
        return column.to_numpy().astype("datetime64[us]")
    if kind.kind in "iuf":
        return column.to_numpy(dtype=float, na_value=np.nan)
    if kind.kind == "b":
        return [None if gap else bool(cell) for cell, gap in zip(column, missing, strict=True)]
    return _mixed(str(column.name), [None if gap else cell for cell, gap in zip(column, missing, strict=True)])
