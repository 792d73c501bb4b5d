"""The column to answer: classes or numbers, which rows have an answer, and what was inferred."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from search.data.columns import finite
from search.data.table import alike, infer, listing, parse, plain, twins
from search.numbers import counted

if TYPE_CHECKING:
    import polars as pl

Task = Literal["classification", "regression"]
Label = str | int | float

FEWEST_ROWS = 10
MOST_CLASSES = 20  # whole numbers with at most this many values (and ten rows for each) are classes


@dataclass(frozen=True)
class Answered:
    """What the rows have to answer.

    Parameters
    ----------
    rows : numbers of those that have an answer.
    values : of those rows, the number of the class, or the number to answer.
    classes : the labels in the order of their numbers; none for regression.
    notes : sentences about what was inferred and left out.
    """

    rows: NDArray[np.intp]
    values: NDArray[Any]
    classes: tuple[Label, ...]
    notes: tuple[str, ...]

    @property
    def task(self) -> Task:
        """What is to be learned."""
        return "classification" if self.classes else "regression"

    @property
    def strata(self) -> NDArray[Any]:
        """What a split spreads evenly: the classes, or nothing."""
        return self.values if self.classes else np.zeros(len(self.values))

    def rare(self) -> list[str]:
        """A sentence about classes of fewer than five rows, if there are any."""
        few = (
            [label for label, count in zip(self.classes, np.bincount(self.values), strict=True) if count < 5]
            if self.classes
            else []
        )
        return [f"Too few rows for every part to hold one: {listing(few)}."] if few else []


def answers_of(column: pl.Series, target: str, task: Task | None) -> Answered:
    """What a column has to answer; the task is inferred where it is not given.

    Raises
    ------
    ValueError : what can't be learned: dates, lists, too few rows, one answer in all of them, a class of one row.
    """
    cells = plain(column)
    if cells is None:
        raise ValueError(f"target '{target}' holds {column.dtype}: numbers or classes were expected")
    if not cells.count():
        raise ValueError(f"got no row with a value of '{target}': at least {FEWEST_ROWS} are needed")
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
        return Answered(np.flatnonzero(known), values, (), tuple(notes))
    classes = tuple(distinct.astype(int).tolist() if whole else distinct.tolist())
    if single := [repr(label) for label, count in zip(classes, counts, strict=True) if count == 1]:
        if how := "" if numeric else alike(cells):
            raise ValueError(f"target '{target}' has {single[0]}, but {how}: correct it")
        raise ValueError(
            f"target '{target}' has classes of one row ({listing(single, 3)}; {len(classes)} classes in {rows} rows): "
            "each class needs two, so drop or merge them, or ask for regression if they are numbers"
        )
    if not numeric and (same := twins(classes)):
        notes.append(f"Classes that differ in case alone are kept apart: {listing(map(repr, same))}.")
    return Answered(np.flatnonzero(known), codes, classes, tuple(notes))


def numbered(column: pl.Series, target: str, classes: tuple[Label, ...]) -> Answered:
    """What the rows of a held-out part have to answer: classes that the training part knows too, or numbers.

    Raises
    ------
    ValueError : a class that is not among them, a cell that is no number, or no row with an answer.
    """
    cells = plain(column)
    if cells is None:
        raise ValueError(f"target '{target}' holds {column.dtype}: numbers or classes were expected")
    texts = bool(classes) and isinstance(classes[0], str)
    parsed = parse(cells, "category" if texts else "number")
    known = (cells if texts else cells.fill_nan(None) if cells.dtype.is_float() else cells).is_not_null().to_numpy()
    values = np.array(parsed.to_list(), dtype=object) if texts else finite(parsed)
    codes = {label: code for code, label in enumerate(classes)}
    right = np.array([value in codes for value in values]) if classes else np.isfinite(values)
    if (known & ~right).any():
        row = int(np.flatnonzero(known & ~right)[0])
        wish = f"one of the classes in training ({listing(classes)})" if classes else "a number"
        raise ValueError(f"target '{target}' has {column[row]!r} in row {row + 1}: {wish} was expected")
    if not known.any():
        raise ValueError(f"no row has a value of '{target}': at least one is needed")
    rows = np.flatnonzero(known)
    notes = [f"Dropped {counted(len(known) - len(rows), 'row')} without a value of '{target}'."]
    numbers = np.array([codes[value] for value in values[rows]]) if classes else values[rows]
    return Answered(rows, numbers, classes, tuple(notes) if len(rows) < len(known) else ())
