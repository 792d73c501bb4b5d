"""From the columns of a table to scaled numbers, and from a network's outputs back to answers.

Everything in an `Encoder` is fitted on the training rows alone; it is a value, and JSON holds it exactly.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.data.channels import encode_channels
from search.data.columns import Column, Floats, moments
from search.data.frames import array_of, frame_of, is_frame, table_of
from search.data.power import Power
from search.data.table import listing, nearest, parse, plain, read
from search.data.target import Label, Task
from search.data.transform import NONE, Transform, fit_transform
from search.data.windows import channels_of, ordered, windows, with_index

if TYPE_CHECKING:
    import polars as pl

Layout = Literal["table", "pixels", "series"]

FARTHEST = 1e6  # scaled values are kept within this, so that no cell of a new file overflows float32


@dataclass(frozen=True)
class Answers:
    """What a network answered: labels or numbers in the target's unit, and the probability of each class."""

    values: NDArray[Any]
    probabilities: Floats | None  # (rows, classes), for classification


@dataclass(frozen=True)
class Encoder:
    """Columns, scales and target as the training rows had them.

    ``image`` tells that the features lie on a grid: channels, then the extent of each axis; it is empty for a table.
    A column of a ``table`` has features of its own, each with a mean and a scale; a column of ``pixels``, which come as
    an array, is a channel, of which all features have the same. For regression, ``target_mean`` and ``target_scale``
    are of the answers under ``transform``. A ``series`` is a table whose rows are steps in the order of ``time``: each
    feature of a column is a channel, with a mean and a scale, and the image is channels and lags. The ``names`` are
    those of all columns of an array, where it was given with names.
    """

    columns: tuple[Column, ...]
    mean: tuple[float, ...]  # of each feature
    scale: tuple[float, ...]
    task: Task
    target: str
    classes: tuple[Label, ...] = ()
    target_mean: float = 0.0
    target_scale: float = 1.0
    image: tuple[int, ...] = ()
    layout: Layout = "table"
    transform: Transform = NONE
    time: str = ""
    names: tuple[str, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """A name for each input of the network."""
        names = tuple(name for column in self.columns for name in column.features)
        if self.layout == "table":
            return names
        if self.layout == "series":
            return tuple(f"{name}, {lag} before" for name in names for lag in range(self.lags, 0, -1))
        return tuple(f"{name} {list(place)}" for name in names for place in np.ndindex(self.image[1:]))

    @property
    def n_inputs(self) -> int:
        """Number of features."""
        return len(self.mean) if self.layout == "table" else prod(self.image)

    @property
    def lags(self) -> int:
        """How many steps of a series a row looks back; 0 for others."""
        return self.image[-1] if self.layout == "series" else 0

    def encode(self, table: Any) -> NDArray[np.float32]:
        """The inputs of a network, shape ``(rows, features)``; columns are found by name, others are ignored.

        Parameters
        ----------
        table : a CSV or Parquet file, a frame of polars or pandas, or anything from names to columns; where the data
            came as arrays, an array or tensor of the same shape beside its rows. Of a series, steps that follow one
            another: there is a row for each that has enough before it, and one more for the step after the last.

        Raises
        ------
        ValueError : a column is missing, or a cell is not what its column holds (with its row, counted from 1).
        """
        if isinstance(table, str | os.PathLike):
            table, _ = read(table)
        if self.layout == "series":
            scaled = windows(self.channels(table), self.lags)
        else:
            with np.errstate(over="ignore"):
                scaled = self._pixels(table) if self.layout == "pixels" else self._features(table)
        return self.clipped(scaled)

    def unseen(self, table: Any) -> dict[str, list[str]]:
        """Of a frame, the levels of each category that no training row had, where nothing tells them.

        Examples
        --------
        >>> encoder = Encoder((Column("city", "category", levels=("Bonn", "Oslo")),), (0, 0), (1, 1), "regression", "y")
        >>> encoder.unseen({"city": ["Rome", "Bonn", None]})
        {'city': ['Rome']}
        """
        frame, found = self._frame(table), {}
        for column in self.columns:
            if column.kind == "category" and not column.other and (cells := plain(frame[column.name])) is not None:
                levels = set(parse(cells, "category").drop_nulls()) - set(column.levels)
                found[column.name] = sorted(levels)
        return {name: levels for name, levels in found.items() if levels}

    def channels(self, table: Any) -> Floats:
        """The scaled channels of each step of a series, ``(steps, channels)``, in the order of time."""
        frame = self._frame(read(table)[0] if isinstance(table, str | os.PathLike) else table)
        if self.time and self.time in frame.columns:
            frame, _ = ordered(frame, self.time)
        raw = channels_of(frame, self.columns, self.transform)
        with np.errstate(over="ignore"):
            scaled: Floats = (raw - self.mean) / self.scale
        return scaled

    def clipped(self, scaled: Floats) -> NDArray[np.float32]:
        """Scaled values as a network reads them."""
        return np.clip(scaled, -FARTHEST, FARTHEST).astype(np.float32)

    def _pixels(self, table: Any) -> Floats:
        """Of an array; of a table, whose columns are the pixels in their order, the target perhaps among them."""
        x = array_of(table) if not is_frame(table) else self._of_cells(frame_of(table))
        return encode_channels(x, self.image, self.columns, np.array(self.mean), np.array(self.scale))

    def _of_cells(self, frame: pl.DataFrame) -> Floats:
        """Pixels as numbers, nan where a cell has none."""
        if frame.width == prod(self.image) + 1 and self.target in frame.columns:
            frame = frame.drop(self.target)
        return np.hstack([Column(name, "number", fill=np.nan).encode(frame[name]) for name in frame.columns])

    def _features(self, table: Any) -> Floats:
        """Of a table; of an array, whose columns are called as `table_of` calls them."""
        frame = self._frame(table)
        raw = np.hstack([column.encode(frame[column.name]) for column in self.columns])
        scaled: Floats = (raw - self.mean) / self.scale
        return scaled

    def _frame(self, table: Any) -> pl.DataFrame:
        """A frame with all of the columns."""
        if not is_frame(table):
            frame = table_of(array_of(table), self.names or None)
        elif self.layout == "series":
            frame = with_index(frame_of(table, index=True))
        else:
            frame = frame_of(table)
        needed = [column.name for column in self.columns]
        if missing := [name for name in needed if name not in frame.columns]:
            which = f"column {missing[0]!r} is" if len(missing) == 1 else f"columns {listing(map(repr, missing))} are"
            close = nearest(missing[0], set(frame.columns).difference(needed)) if len(missing) == 1 else ""
            raise ValueError(f"{which} missing{close}: the columns are {listing(map(repr, frame.columns), 20)}")
        return frame

    def scaled(self, values: Floats) -> NDArray[np.float32]:
        """Numbers to answer in the unit that a network learns: transformed, then that of the training rows' spread."""
        return ((self.transform.forward(values) - self.target_mean) / self.target_scale).astype(np.float32)

    def unscaled(self, y: ArrayLike) -> Floats:
        """The numbers of which these are the scaled ones."""
        return self.transform.inverse(np.asarray(y, dtype=float) * self.target_scale + self.target_mean)

    def decode(self, outputs: ArrayLike) -> Answers:
        """Answers from a network's outputs: logits of shape ``(rows, classes)``, or ``(rows, 1)`` scaled numbers.

        Raises
        ------
        ValueError : outputs of another shape.

        Examples
        --------
        >>> encoder = Encoder((), (), (), "classification", "kind", classes=("cat", "dog"))
        >>> encoder.decode([[0.0, 1.0], [2.0, 0.0]]).values.tolist()
        ['dog', 'cat']
        """
        scores = np.asarray(outputs, dtype=float)
        width = len(self.classes) or 1
        if scores.ndim != 2 or scores.shape[1] != width:
            raise ValueError(f"got outputs of shape {scores.shape}: (rows, {width}) was expected")
        if self.task == "regression":
            return Answers(self.transform.answers(scores[:, 0] * self.target_scale + self.target_mean), None)
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        return Answers(np.array(self.classes)[scores.argmax(axis=1)], odds / odds.sum(axis=1, keepdims=True))

    def refitted(self, transform: str, values: Floats) -> Encoder:
        """The encoder with another transform, fitted on the training rows' values."""
        fitted = fit_transform(transform, values)
        mean, scale = moments(fitted.forward(values), None)
        means, scales = self.mean, self.scale
        if self.layout == "series":  # the target's own past has the unit of the answers
            means, scales = (float(mean), *means[1:]), (float(scale), *scales[1:])
        return replace(
            self, mean=means, scale=scales, transform=fitted, target_mean=float(mean), target_scale=float(scale)
        )

    def noisy(self, noise: float) -> Encoder:
        """The encoder for a network that leaves so much unexplained: a standard deviation, in the unit of its outputs.

        Its answers in the target's unit are means over that: see ``search.data.transform.Transform``.
        """
        return replace(self, transform=self.transform.noisy(noise * self.target_scale))

    def to_json(self) -> str:
        """The encoder as JSON; `from_json` gives back an equal one."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Encoder:
        """The encoder that `to_json` wrote."""
        fields = json.loads(text, object_hook=_frozen)
        columns, transform = fields["columns"], fields.get("transform", {})
        for column in columns:
            column["power"] = Power(**column["power"]) if column.get("power") else None
        return cls(
            **{**fields, "columns": tuple(Column(**column) for column in columns), "transform": Transform(**transform)}
        )


def _frozen(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
