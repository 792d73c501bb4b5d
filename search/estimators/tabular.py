"""What all estimators of tables do: check what they are given, answer, and keep themselves in files.

Arrays hold numbers, and gaps where they have none. Data frames of pandas and polars hold anything that a table may:
numbers, categories, dates and gaps. Nothing here knows torch before something is fitted.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils import assert_all_finite, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from search.data import Dataset, from_frame
from search.data.frames import frame_of, is_frame, is_made_by, table_of
from search.data.sources import TARGET
from search.data.table import listing
from search.data.target import FEWEST_ROWS, Task
from search.estimators.saved import load_estimator, save_estimator

if TYPE_CHECKING:
    from typing import Self

    import polars as pl

    from search.data.encoder import Answers
    from search.graph.space import GraphSpace
    from search.trained import Trained

ARRAY: Mapping[str, Any] = {"dtype": "numeric", "ensure_all_finite": "allow-nan"}  # what an array may hold


class Tabular(BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn has no types
    """An estimator of the rows of a table: see its subclasses."""

    _members: tuple[Trained, ...]

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from all rows.

        Parameters
        ----------
        X : ``(rows, features)``: an array of numbers, or a data frame, whose columns may hold numbers, categories,
            dates and gaps. What was inferred and handled is told by ``notes_``.
        y : of each row a class, or a number.

        Raises
        ------
        ValueError : what can't be learned from, each in a sentence of its own.
        """
        seed = seed_of(self.random_state)
        dataset = self._dataset(X, y, seed)
        self.notes_ = dataset.notes
        self._learn(dataset, seed)
        return self

    @abstractmethod
    def _learn(self, dataset: Dataset, seed: int) -> None:
        """Set ``_members``, one machine or several that answer together."""

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """What ``search.data.from_frame`` is told beside the rows."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator without pickle: `load` gives it back, and it answers the same to the last bit.

        Parameters
        ----------
        path : of a file, by custom ``NAME.machgraph``, which ``machgraph predict`` and ``machgraph.load`` read too, or
            of a graph space `search.load_graph`. An ensemble becomes a folder of this name, with a file for each of its
            machines.

        Raises
        ------
        ValueError : parameters or classes that JSON can't hold.
        """
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        fitted = {
            "n_features_in": self.n_features_in_,
            "feature_names_in": None if names is None else list(names),
            "columns": self._columns,
            "notes": list(self.notes_),
            **self._more_fitted(),
        }
        save_estimator(self, self._members, path, fitted)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, space: GraphSpace | None = None) -> Self:
        """The fitted estimator that `save` wrote.

        Parameters
        ----------
        space : of a graph space, that which was searched, for no file holds its modules or says where they are.

        Raises
        ------
        FileNotFoundError : nothing is there.
        ValueError : another kind of file, or one of another estimator; a graph space that is missing or another.
        """
        estimator, members, fitted = load_estimator(cls, path, space)
        estimator._members, estimator.n_features_in_ = members, fitted["n_features_in"]
        estimator._columns, estimator.notes_ = fitted["columns"], tuple(fitted["notes"])
        if fitted["feature_names_in"] is not None:
            estimator.feature_names_in_ = np.array(fitted["feature_names_in"], dtype=object)
        estimator._restore(fitted)
        found: Self = estimator
        return found

    def _more_fitted(self) -> dict[str, Any]:
        """What else is to be kept, of values that JSON can hold."""
        if not is_classifier(self):
            return {}
        return {"classes": self.classes_.tolist(), "dtype": self.classes_.dtype.str}

    def _restore(self, fitted: Mapping[str, Any]) -> None:
        """Undo `_more_fitted`."""
        if is_classifier(self):
            self.classes_ = np.array(fitted["classes"], dtype=fitted["dtype"])

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_members")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True  # a gap becomes the median, which a feature marks
        return tags

    # ---- what is given ----

    def _dataset(self, X: Any, y: Any, seed: int) -> Dataset:
        """Checked, and encoded by what the rows hold; sets what scikit-learn knows of the inputs, and the classes."""
        called = getattr(y, "name", None)
        if is_frame(X) and not issparse(X):  # some of scipy's matrices are mappings
            X = X if is_made_by("pandas", "DataFrame", X) else frame_of(X)
            X, y = validate_data(self, X, y, skip_check_array=True)
            frame, y = frame_of(X), column_or_1d(y, warn=True)
            check_consistent_length(frame, y)
            if len(y) < FEWEST_ROWS:
                raise ValueError(f"got n_samples={len(y)}: at least {FEWEST_ROWS} rows are needed")
            assert_all_finite(y, input_name="y")
        else:
            X, y = validate_data(self, X, y, ensure_min_samples=FEWEST_ROWS, y_numeric=not is_classifier(self), **ARRAY)
            frame = table_of(X)
        target, self._columns = _free(called if isinstance(called, str) and called else TARGET, frame), frame.columns
        task: Task = "classification" if is_classifier(self) else "regression"
        answers = self._numbered(y) if is_classifier(self) else np.asarray(y, dtype=float)
        whole, name = _beside(frame, target, answers), type(self).__name__
        dataset = from_frame(whole, target, name, seed, task=task, **self._options())
        if not is_classifier(self):
            return dataset
        labels = tuple(self.classes_.tolist())
        return replace(dataset, encoder=replace(dataset.encoder, classes=labels))

    def _numbered(self, y: Any) -> Any:
        """The numbers of the classes of ``y``, which are set."""
        check_classification_targets(y)
        self.classes_, numbers, counts = np.unique(y, return_inverse=True, return_counts=True)
        if len(self.classes_) < 2:
            raise ValueError(f"got one class alone, {self.classes_.tolist()[0]!r}: there is nothing to learn")
        if (single := self.classes_[counts == 1]).size:
            raise ValueError(
                f"got classes of a single row ({listing(map(repr, single.tolist()), 3)}; {len(self.classes_)} classes "
                f"in {len(y)} rows): each class needs two, so drop or merge them"
            )
        return numbers

    def _answers(self, X: Any) -> Answers:
        """What the machines say of new rows."""
        from search.trained import answered

        check_is_fitted(self)
        if is_frame(X) and not issparse(X):  # some of scipy's matrices are mappings
            X = X if is_made_by("pandas", "DataFrame", X) else frame_of(X)
            validate_data(self, X, reset=False, skip_check_array=True)
            frame = frame_of(X)
        else:
            frame = table_of(validate_data(self, X, reset=False, **ARRAY))
        return answered(self._members, frame.rename(dict(zip(frame.columns, self._columns, strict=True))))


def classes_of(estimator: Any, X: Any) -> Any:
    """The likeliest class of each row."""
    likeliest = estimator.predict_proba(X).argmax(axis=1)  # refuses an estimator that is not fitted
    return estimator.classes_[likeliest]


def seed_of(random_state: Any) -> int:
    """The seed that scikit-learn's ``random_state`` stands for: a whole number itself, else one that is drawn."""
    drawn = check_random_state(random_state)
    return int(random_state) if isinstance(random_state, int | np.integer) else int(drawn.randint(2**31 - 1))


def _free(name: str, frame: pl.DataFrame) -> str:
    """The name, and underscores behind it, that no column has."""
    while name in frame.columns:
        name += "_"
    return name


def _beside(frame: pl.DataFrame, name: str, values: Any) -> pl.DataFrame:
    import polars as pl

    return frame.with_columns(pl.Series(name, values))
