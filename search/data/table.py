"""Tables from CSV and Parquet files, and their columns made plain: numbers, dates or text."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # polars belongs to the extra [data]: it is imported when a table is read, not before
    import polars as pl

Kind = Literal["number", "date", "category"]

MISSING = ("", "na", "n/a", "nan", "null", "?", "-")  # texts that mean "no value", whatever their case
ISO_DATES = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y/%m/%d")
DATE_FORMATS = (*ISO_DATES, "%d.%m.%Y", "%d.%m.%Y %H:%M:%S%.f", "%d.%m.%Y %H:%M")  # with dots the day is always first
MONTH = r"^(\d{4})[-/](\d{2})$"  # which is its first day
ZONED_DATE = "%+"  # ISO 8601 with an offset from UTC
THOUSANDS = r"^[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?$"
DECIMAL_COMMA = r"^[+-]?(\d+|[1-9]\d{0,2}(\.\d{3})+),\d+([eE][+-]?\d+)?$"
APOSTROPHES = r"^[+-]?[1-9]\d{0,2}(['’]\d{3})+(\.\d*)?$"
DOTTED = r"^[+-]?[1-9]\d{0,2}(\.\d{3})+$"  # a number whose dots may be marks between thousands
ALIKE = {  # how to write what such texts are meant to be
    "dates are written as 2024-12-31 or 31.12.2024": (r"^\d{1,2}[/-]\d{1,2}[/-]\d{2,4}\b|^\d{1,2}\.\d{1,2}\.\d\d$"),
    "numbers are written without units, as 1234.5": (
        r"^([$€£¥]|[A-Z]{2,3}\.?\s)\s?[+-]?\d[\d.,'’]*$|^[+-]?\d[\d.,'’]*(\s?[%°$€£¥]|\s[[:alpha:]][[:alpha:]²³/]{0,5})$"
    ),
    "numbers are written as 1234567.5, for a comma is decimal where semicolons separate the columns, and else a mark "
    "between thousands": r"^[+-]?\d+([.,]\d{3})*,\d+([.,]\d+)*$",
}
MARKED = r"^[+-]?[1-9]\d{0,2}(m\d{3})+([^\dm]|$)"  # a number with marks m between thousands
ONE_WORD = re.compile(r"[\w.-]+")
DUPLICATE = re.compile(r"_duplicated_\d+$")
NEARLY_ALL = 0.9  # a column of text is numbers (or dates) when at least this share of its texts is
MICROSECONDS_A_DAY = 86_400_000_000


def read(path: str | os.PathLike[str]) -> tuple[pl.DataFrame, list[str]]:
    """The table in a CSV or Parquet file, and sentences about what was done with it.

    Every cell of a CSV file stays text, so that nothing is guessed from a part; but commas in numbers become what they
    mean: decimal points where semicolons separate the columns, else marks between thousands, which are left out.

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : another extension, an unreadable or an empty file.
    ImportError : polars is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.exists():
        raise FileNotFoundError(f"file not found: {path}")
    if path.is_dir() or suffix not in (".csv", ".parquet"):
        got = "is a folder" if path.is_dir() else f"ends in {suffix or 'no extension'}"
        raise ValueError(f"{path} {got}: give a .csv or a .parquet file")
    require("polars", "polars")
    import polars as pl

    try:
        if suffix == ".csv":
            separator = _separator(path)
            frame = pl.read_csv(path, infer_schema=False, separator=separator, glob=False)
        else:
            frame = pl.read_parquet(path, glob=False)
    except pl.exceptions.NoDataError:
        raise ValueError(f"{path} is empty: a header and rows were expected") from None
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        reason = shorten(str(error).split("\n\n")[0], 120, placeholder=" ...") or type(error).__name__
        kind = "a CSV file in UTF-8" if suffix == ".csv" else "a Parquet file"
        advice = "; save it as UTF-8" if "utf-8" in reason else ""
        if "more fields" in reason:
            reason, advice = "a row has more cells than the header", "; quote the cells that hold commas"
        raise ValueError(f"{path} can't be read as {kind}: {reason}{advice}") from None
    if not frame.height or not frame.width:
        raise ValueError(f"{path} has no rows: a header and rows were expected")
    double = [name for name in frame.columns if DUPLICATE.sub("", name) in set(frame.columns) - {name}]
    if double:  # polars has renamed the second
        raise ValueError(f"{path} has two columns called '{DUPLICATE.sub('', double[0])}': give each its own name")
    if suffix != ".csv":
        return frame, []
    frame, told = _without_commas(frame, separator == ";")
    frame, more = _without_apostrophes(frame)
    return frame, [*told, *more, *_of_dots(frame, separator == ";")]


def _without_commas(frame: pl.DataFrame, decimal: bool) -> tuple[pl.DataFrame, list[str]]:
    """The table with the commas out of columns in which each cell that has one is a number; and a sentence on that."""
    import polars as pl

    form, (mark, point) = (DECIMAL_COMMA, (".", ",")) if decimal else (THOUSANDS, (",", "."))
    changed = []
    for series in frame:
        text = series.str.strip_chars()
        having = text.filter(text.str.contains(",", literal=True))
        if len(having) and having.str.contains(form).all():
            marked = text.str.contains(MARKED.replace("m", re.escape(mark)))
            bare = pl.select(pl.when(marked).then(text.str.replace_all(mark, "", literal=True)).otherwise(text))
            changed.append(bare.to_series().str.replace(point, ".", literal=True).alias(series.name))
    meaning = "decimal commas" if decimal else "marks between thousands"
    told = [f"Commas in numbers are taken for {meaning}: {listing(shown(s.name) for s in changed)}."] if changed else []
    return frame.with_columns(changed), told


def _without_apostrophes(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """The same of apostrophes, as in 1'234'567.5."""
    changed = []
    for series in frame:
        text = series.str.strip_chars()
        having = text.filter(text.str.contains("['’]"))
        if len(having) and having.str.contains(APOSTROPHES).all():
            changed.append(text.str.replace_all("['’]", ""))
    names = listing(shown(s.name) for s in changed)
    told = [f"Apostrophes in numbers are taken for marks between thousands: {names}."] if changed else []
    return frame.with_columns(changed), told


def _of_dots(frame: pl.DataFrame, decimal: bool) -> list[str]:
    """A sentence on dots that may be meant as marks between thousands where commas are decimal."""
    if not decimal:
        return []
    doubtful = []
    for series in frame:
        text = series.str.strip_chars()
        having = text.filter(text.str.contains(".", literal=True))
        if len(having) and having.str.contains(DOTTED).all():
            doubtful.append(shown(series.name))
    said = "Dots in numbers are taken for decimal points; where they stand between thousands, take them out"
    return [f"{said}: {listing(doubtful)}."] if doubtful else []


def alike(texts: pl.Series) -> str:
    """How to write what texts are meant to be that are neither numbers nor dates but look so; empty if they don't.

    >>> import polars as pl
    >>> alike(pl.Series(["12/31/2024", "1/5/2023"]))
    'dates are written as 2024-12-31 or 31.12.2024'
    """
    texts = texts.drop_nulls()
    least = max(1, NEARLY_ALL * len(texts))
    return next((how for how, form in ALIKE.items() if texts.str.contains(form).sum() >= least), "")


def require(module: str, package: str, who: str = "data sets") -> None:
    """Import a module of the extra [data], or say in one sentence how to get it."""
    try:
        import_module(module)
    except ImportError:
        raise ImportError(f"{who} need {package}, which is not installed: pip install 'machgraph[data]'") from None


def _separator(path: Path) -> str:
    """The separator that the header uses most, outside of quotes: a comma, semicolons or tabs."""
    with path.open(encoding="utf-8", errors="replace") as file:
        header = re.sub('"[^"]*"', "", file.readline())
    return max(",;\t", key=header.count)


def plain(series: pl.Series) -> pl.Series | None:
    """The column as Float64, Datetime (UTC) or stripped String with nulls; ``None`` for lists, structs and the like."""
    import polars as pl

    dtype = series.dtype
    if dtype.is_numeric():
        return series.cast(pl.Float64)
    if dtype == pl.Datetime and getattr(dtype, "time_zone", None) is not None:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if dtype in (pl.Date, pl.Datetime):
        return series.cast(pl.Datetime("us"))
    if dtype not in (pl.String, pl.Boolean, pl.Categorical, pl.Enum, pl.Null):
        return None
    text = series.cast(pl.String).str.strip_chars()
    lower = text.str.to_lowercase()
    frame = pl.DataFrame({"text": text, "lower": lower}).select(
        pl.when(pl.col("lower").is_in(MISSING)).then(None)
        .when(pl.col("lower").is_in(("true", "false"))).then(pl.col("lower"))  # True, TRUE and true are one
        .otherwise(pl.col("text"))
    )  # fmt: skip
    return frame.to_series().alias(series.name)


def is_category(series: pl.Series) -> bool:
    """Whether a column was declared to hold categories, whatever these look like."""
    import polars as pl

    return series.dtype in (pl.Categorical, pl.Enum)


def parse(series: pl.Series, kind: Kind) -> pl.Series:
    """A plain column as numbers (a date: days since 1970), null where a cell is none; as text for a category."""
    import polars as pl

    if kind == "category":
        if series.dtype != pl.Float64:
            return series.cast(pl.String)
        known = series.fill_nan(None)
        whole = known.cast(pl.Int64, strict=False)  # "1", as where others of the column were texts, and not "1.0"
        told = pl.when(whole == known).then(whole.cast(pl.String)).otherwise(known.cast(pl.String))
        return pl.select(told).to_series().alias(series.name)
    if kind == "number":
        numeric = series.dtype in (pl.String, pl.Float64)
        return series.cast(pl.Float64, strict=False) if numeric else pl.Series([None] * len(series), dtype=pl.Float64)
    if series.dtype == pl.String:
        series = series.str.replace(MONTH, "$1-$2-01")
        zoned = series.str.to_datetime(ZONED_DATE, strict=False, time_unit="us").dt.replace_time_zone(None)
        dates = [series.str.to_datetime(form, strict=False, time_unit="us") for form in DATE_FORMATS]
        series = pl.select(pl.coalesce(*dates, zoned)).to_series()
    if series.dtype != pl.Datetime:
        return pl.Series([None] * len(series), dtype=pl.Float64)
    return series.dt.epoch("us").cast(pl.Float64) / MICROSECONDS_A_DAY


def infer(series: pl.Series) -> tuple[Kind, tuple[str, ...]]:
    """What a plain column holds, and the texts in it that are none of that (they count as missing).

    >>> import polars as pl
    >>> infer(pl.Series(["1", "2.5", "x"] + ["3"] * 20))
    ('number', ('x',))
    """
    import polars as pl

    if series.dtype != pl.String:
        return ("number" if series.dtype == pl.Float64 else "date"), ()
    kinds: tuple[Kind, ...] = ("number", "date")
    for kind in kinds:
        parsed = parse(series, kind)
        if parsed.count() and parsed.count() >= NEARLY_ALL * series.count():
            return kind, tuple(series.filter(parsed.is_null()).drop_nulls().unique().sort().to_list())
    return "category", ()


def nearest(word: str, choices: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest of the choices, or nothing.

    >>> nearest("digit", ["digits", "diabetes"])
    " (did you mean 'digits'?)"
    """
    by_lower = {choice.lower(): choice for choice in choices}
    close = get_close_matches(word.lower(), by_lower, 1)
    return f" (did you mean '{by_lower[close[0]]}'?)" if close else ""


def twins(levels: Iterable[str]) -> list[str]:
    """Those that differ from another in case alone, sorted.

    >>> twins(["no", "yes", "Yes"])
    ['Yes', 'yes']
    """
    levels = sorted(levels)
    folded = Counter(level.casefold() for level in levels)
    return [level for level in levels if folded[level.casefold()] > 1]


def shown(name: str) -> str:
    """The name of a column as it stands in a sentence: in quotes where it is not one word.

    >>> shown("area"), shown("rent, monthly")
    ('area', "'rent, monthly'")
    """
    return name if ONE_WORD.fullmatch(name) else repr(name) if name else "the one without a name"


def listing(items: Iterable[object], most: int = 8) -> str:
    """The items in a row, cut after ``most`` of them.

    >>> listing(range(20), 3)
    '0, 1, 2 and 17 more'
    """
    items = list(items)
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + rest
