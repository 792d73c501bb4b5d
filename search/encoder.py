"""From the columns of a table to scaled numbers, and from a network's outputs back to answers.

Everything in an `Encoder` is fitted on the training rows alone; it is a value, and JSON holds it exactly.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.columns import Column, Floats
from search.table import listing, nearest, read, require
from search.target import Label, Task

if TYPE_CHECKING:
    import polars as pl

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

    @property
    def features(self) -> tuple[str, ...]:
        """A name for each input of the network."""
        return tuple(name for column in self.columns for name in column.features)

    @property
    def n_inputs(self) -> int:
        """Number of features."""
        return len(self.mean)

    def encode(self, table: str | os.PathLike[str] | pl.DataFrame | Mapping[str, Any]) -> NDArray[np.float32]:
        """The inputs of a network, shape ``(rows, features)``; columns are found by name, others are ignored.

        Parameters
        ----------
        table : a CSV or Parquet file, a polars DataFrame, or anything from names to columns.

        Raises
        ------
        ValueError : a column is missing, or a cell is not what its column holds (with its row, counted from 1).
        """
        require("polars", "polars")
        import polars as pl

        if isinstance(table, str | os.PathLike):
            table, _ = read(table)
        frame = table if isinstance(table, pl.DataFrame) else pl.DataFrame(table)
        for column in self.columns:
            if column.name not in frame.columns:
                raise ValueError(
                    f"column '{column.name}' is missing{nearest(column.name, frame.columns)}: "
                    f"the columns are {listing(frame.columns)}"
                )
        raw = np.hstack([column.encode(frame[column.name]) for column in self.columns])
        with np.errstate(over="ignore"):
            scaled = (raw - self.mean) / self.scale
        return np.clip(scaled, -FARTHEST, FARTHEST).astype(np.float32)

    def scaled(self, values: Floats) -> NDArray[np.float32]:
        """Numbers to answer in the unit that a network learns: that of the training rows' standard deviation."""
        return ((values - self.target_mean) / self.target_scale).astype(np.float32)

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
            return Answers(scores[:, 0] * self.target_scale + self.target_mean, None)
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        return Answers(np.array(self.classes)[scores.argmax(axis=1)], odds / odds.sum(axis=1, keepdims=True))

    def to_json(self) -> str:
        """The encoder as JSON; `from_json` gives back an equal one."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Encoder:
        """The encoder that `to_json` wrote."""
        fields = json.loads(text, object_hook=_frozen)
        return cls(**{**fields, "columns": tuple(Column(**column) for column in fields["columns"])})


def _frozen(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
