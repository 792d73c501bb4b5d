"""Columns of a table as numbers: what each holds, how it becomes features, and what is fitted on the training rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.data.power import Power, likeliest, skewness
from search.data.table import Kind, alike, infer, is_category, listing, parse, plain, shown, twins
from search.numbers import counted
from search.shape import Shape

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]

MOST_LEVELS = 32  # levels of a category that get a feature of their own; the rarer ones share one
SKEWED = 1.0  # numbers whose skewness is more than this, to one side or the other, are also read straightened
MOST_FITTED = 100_000  # rows that the power of a column is fitted on
ID_SHARE = 0.5  # text with more levels than this share of the rows names rows, it says nothing of others
ID_NAME = re.compile(r"|id|index|unnamed: 0|(.*[_ ])?(id|uuid)|row([_ ]?(id|number|nr))?", re.IGNORECASE)
YEAR, WEEK, DAY = 365.2425, 7.0, 1.0  # periods of a date's waves, in days


@dataclass(frozen=True)
class Column:
    """How one column of a table becomes features.

    A number or a date (days since 1970) is its value, ``fill`` where it has none, then a sine and a cosine for each of
    its ``periods``, then a number's ``power``, where one straightens it, then, with ``gaps``, whether it was missing. A
    category is one feature a level (``None``: missing) and, with ``other``, one that all further levels share; without
    it a level not seen in training is none of them. ``words`` are the texts that count as missing in a column of
    numbers or dates.
    """

    name: str
    kind: Kind
    words: tuple[str, ...] = ()
    fill: float = 0.0
    gaps: bool = False
    periods: tuple[float, ...] = ()
    levels: tuple[str | None, ...] = ()
    other: bool = False
    power: Power | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """A name for each feature."""
        if self.kind == "category":
            levels = ["missing" if level is None else level for level in self.levels] + ["(other)"] * self.other
            return tuple(f"{self.name} = {level}" for level in levels)
        waves = [f"{self.name}, {wave} of {period:g} days" for period in self.periods for wave in ("sine", "cosine")]
        powers = [f"{self.name}, straightened"] if self.power else []
        return (self.name, *waves, *powers, *[f"{self.name} is missing"] * self.gaps)

    @property
    def is_scaled(self) -> tuple[bool, ...]:
        """Whether each feature is scaled: those that are 0 or 1 stay as they are, lest a rare level become huge."""
        values = 0 if self.kind == "category" else 1 + 2 * len(self.periods) + (self.power is not None)
        return tuple(i < values for i in range(len(self.features)))

    def encode(self, series: pl.Series) -> Floats:
        """The features of a column, shape ``(rows, features)``, before scaling.

        Raises
        ------
        ValueError : a cell of another kind than the column's.
        """
        cells = plain(series)
        if cells is None:
            raise ValueError(f"column '{self.name}' holds {series.dtype}: numbers, texts or dates were expected")
        parsed = parse(cells, self.kind)
        if self.kind == "category":
            codes = {level: code for code, level in enumerate(self.levels)}
            unseen = len(self.levels) if self.other else -1
            picked = [codes.get(text, -1 if text is None else unseen) for text in parsed.to_list()]
            return np.equal.outer(picked, np.arange(len(self.features))).astype(np.float64)
        wrong = cells.is_not_null() & parsed.is_null()
        wrong &= ~parse(cells, "category").is_in(self.words)
        if wrong.any():
            row = wrong.arg_true()[0]
            raise ValueError(
                f"column '{self.name}' has {series[row]!r} in row {row + 1}: "
                f"a {self.kind} was expected, so correct it or leave the cell empty"
            )
        values = finite(parsed)
        missing = np.isnan(values)
        values = np.where(missing, self.fill, values)
        # of the part of a period that has passed: a week's waves are exactly the same on every Monday
        angles = [2 * np.pi * (values % period) / period for period in self.periods]
        waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
        powers = [self.power.of(values)] if self.power else []
        return np.stack([values, *waves, *powers, *[missing] * self.gaps], axis=1, dtype=float)


def finite(series: pl.Series) -> Floats:
    """The numbers of a column, nan where there is none or it is infinite."""
    values = series.to_numpy().astype(float)
    return np.where(np.isfinite(values), values, np.nan)


Tell = Callable[[str, str], None]  # (what was done, to which column)


def fit_columns(
    frame: pl.DataFrame, training: NDArray[np.intp], *, answered: str | None = None
) -> tuple[tuple[Column, ...], list[str]]:
    """The columns worth keeping, as the training rows have them, and sentences about what was done with which.

    Whether a column holds numbers, dates or text is read off all rows; every statistic off the training rows. Skewed
    numbers are read as they are and straightened: on average networks are better so (``experiments.straightened``).
    Not so the steps of a series, among whose columns is the target, ``answered``, which has a transform of its own.

    Raises
    ------
    ValueError : no column is worth keeping.
    """
    told: dict[str, list[str]] = {}

    def tell(what: str, which: str) -> None:
        told.setdefault(what, []).append(which)

    fitted = [_fit_column(series, training, tell, answered) for series in frame]
    columns = tuple(column for column in fitted if column is not None)
    notes = [f"{what}: {listing(which)}." for what, which in told.items()]
    if not columns:
        raise ValueError(" ".join(["no column is left to learn from.", *notes]))
    return columns, notes


def fit_pixels(
    frame: pl.DataFrame, training: NDArray[np.intp], image: tuple[int, ...]
) -> tuple[tuple[Column, ...], list[str]]:
    """The columns of an image, every one a number and none dropped, and sentences about what was done.

    Raises
    ------
    ValueError : other columns than the image has pixels, or one that holds no numbers.
    """
    if prod(image) != frame.width:
        raise ValueError(f"got {counted(frame.width, 'column')} for an image of {image}: {prod(image)} were expected")
    Shape(frame.width, 1, image)  # refuses what is no image
    columns, gaps = [], 0
    for series in frame:
        cells = plain(series)
        if cells is None or infer(cells) != ("number", ()):
            raise ValueError(f"column '{series.name}' holds other than numbers: the columns of an image are its pixels")
        values = finite(parse(cells, "number"))
        gaps += int(np.isnan(values).sum())
        present = values[training][~np.isnan(values[training])]
        columns.append(Column(series.name, "number", fill=float(np.median(present)) if len(present) else 0.0))
    return tuple(columns), [f"Missing values become the training median of their pixel ({gaps})."] if gaps else []


def _fit_column(series: pl.Series, training: NDArray[np.intp], tell: Tell, answered: str | None) -> Column | None:
    name, cells, called = series.name, plain(series), shown(series.name)
    if cells is None:
        tell("Dropped, as neither numbers, texts nor dates", f"{called} ({series.dtype})")
        return None
    kind, words = ("category", ()) if is_category(series) else infer(cells)
    parsed = parse(cells, kind)
    seen = parsed[training]
    if kind == "category" and (how := alike(seen)):
        tell(f"Read as text, since {how}", called)
    if reason := _why_dropped(kind, seen, is_id=ID_NAME.fullmatch(name) is not None and name != answered):
        tell(f"Dropped, {reason}", called)
        return None
    if kind == "category":
        return _fit_category(name, seen.to_list(), tell)
    if words:
        tell(f"Texts among {kind}s count as missing", f"{called} ({listing(map(repr, words), 3)})")
    if infinite := int(parsed.is_infinite().sum()):
        tell("Infinite values count as missing", f"{called} ({infinite})")
    values, missing = finite(seen), int(np.isnan(finite(parsed)).sum())
    present = values[~np.isnan(values)]
    gaps = len(present) < len(values)
    if missing:
        marked = ", which a feature marks" if gaps else ""
        tell(f"Missing values become the training median{marked}", f"{called} ({missing})")
    periods: tuple[float, ...] = ()
    if kind == "date":
        hours = bool((present % 1).any())
        periods = (YEAR, WEEK, DAY) if hours else (YEAR, WEEK)
        tell(f"Dates became days since 1970 and waves of {'year, week and day' if hours else 'year and week'}", called)
    power = _fit_power(present, tell, called) if answered is None and kind == "number" else None
    return Column(name, kind, words, float(np.median(present)), gaps, periods, power=power)


def _fit_power(values: Floats, tell: Tell, called: str) -> Power | None:
    """What straightens the numbers, where they are skewed and it halves that at least."""
    some = values[:: -(-len(values) // MOST_FITTED)]
    center, spread = map(float, moments(some))
    with np.errstate(all="ignore"):  # of the largest numbers there are
        before = abs(skewness((some - center) / spread))
        if not SKEWED < before < np.inf:
            return None
        if find_spec("sklearn") is None:
            tell("Skewed numbers are not straightened, which needs scikit-learn", called)
            return None
        exponent = round(likeliest((some - center) / spread), 3)
        power = Power(exponent, center, spread, float(values.min()), float(values.max()))
        if not abs(skewness(power.of(some))) < before / 2:
            return None
    tell("Skewed numbers are read as they are, and straightened", called)
    return power


def _why_dropped(kind: Kind, seen: pl.Series, *, is_id: bool) -> str | None:
    present, rows = seen.drop_nulls(), len(seen)
    distinct = present.n_unique()
    if seen.n_unique() < 2:
        return "as the same in every training row"
    if kind == "category":
        names_rows = distinct > MOST_LEVELS // 2 and distinct > ID_SHARE * rows
    else:
        if not np.isfinite(present.to_numpy()).any():
            return "as no training row has a finite value"
        whole = kind == "number" and bool((present % 1 == 0).all())
        names_rows = whole and distinct == rows and is_id
    return "as they name rows (nearly every training row has its own)" if names_rows else None


def _fit_category(name: str, texts: Sequence[str | None], tell: Tell) -> Column:
    counts = Counter(text for text in texts if text is not None)
    ranked = sorted(counts, key=lambda level: (-counts[level], level))
    levels: list[str | None] = [*sorted(ranked[:MOST_LEVELS]), *[None] * (None in texts)]
    rarer = len(ranked[MOST_LEVELS:])
    what = "Categories, one feature a level, none for a level not seen in training"
    tell(what, f"{shown(name)} ({len(levels)}{f', and one that {rarer} rarer levels share' if rarer else ''})")
    if same := twins(counts):
        told = f"{shown(name)} ({listing(map(repr, same), 3)})"
        tell("Levels that differ in case alone are kept apart", told)
    return Column(name, "category", levels=tuple(levels), other=rarer > 0)


def moments(values: Floats, axis: int | None = 0) -> tuple[Floats, Floats]:
    """Mean and scale of values, along an axis or of all; a scale of 1 where they are all the same."""
    largest = np.maximum(np.abs(values).max(axis=axis), np.finfo(float).tiny)  # squares of 1e300 would overflow
    shares = values / largest
    mean, scale = shares.mean(axis=axis) * largest, shares.std(axis=axis) * largest
    constant = (values.max(axis=axis) == values.min(axis=axis)) | (scale == 0)
    return mean, np.where(constant, 1.0, scale)


def fit_scales(columns: Sequence[Column], frame: pl.DataFrame, image: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Mean and scale of each feature over the rows given; those of an image's channel are the same."""
    raw = np.hstack([column.encode(frame[column.name]) for column in columns])
    if image:
        channels = [moments(channel, None) for channel in np.split(raw, image[0], axis=1)]
        each = raw.shape[1] // image[0]
        return np.repeat([mean for mean, _ in channels], each), np.repeat([scale for _, scale in channels], each)
    mean, scale = moments(raw)
    scaled = np.array([flag for column in columns for flag in column.is_scaled])
    return np.where(scaled, mean, 0.0), np.where(scaled, scale, 1.0)
