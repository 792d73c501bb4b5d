"""A forecaster with scikit-learn's parameters: it searches for its architecture, and goes on from a history."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
from sklearn.utils.validation import check_is_fitted

from search.data.columns import Floats
from search.data.frames import array_of, column_of, frame_of, is_frame, table_of
from search.data.series import from_series
from search.data.sources import TARGET
from search.data.table import listing
from search.estimators.history import ending, like, one_row, plain_column, restored, two_axes, written
from search.estimators.saved import load_estimator, save_estimator
from search.estimators.searching import Searching
from search.estimators.tabular import seed_of
from search.numbers import counted

if TYPE_CHECKING:
    from typing import Self

    import polars as pl

    from search.graph.space import GraphSpace
    from search.one_of import AnySpace


@final
class ArchitectureSearchForecaster(Searching):
    """A forecaster of a series that searches for its own architecture, and goes on from where the series ends.

    Dense machines are searched, which read the last steps as features. Recurrences, which read them one after the
    other, are searched where ``space`` asks for them: of twelve lags of one channel it is then
    ``search.defaults.space_of_kind("recurrence", search.shape.Shape(12, 1, (1, 12)), len(y))``. A step is answered from
    the ``lags`` steps before it; for further steps the answers take the place of what is not known yet.

    Parameters
    ----------
    lags : how many steps back a step is answered from; reach over the longest cycle.
    transform : of the series, which is learned: ``none``, ``sqrt``, ``log`` or ``yeo-johnson``.
    n_trials, time, strategy, space, objectives, constraints, population, epochs, finalists, seeds, ensemble,
    random_state, out, resume, verbose : see `search.ArchitectureSearchClassifier`.
    folds : of the last half of the steps, each answered from what lies before it; ``None``: 5 below 1,000 steps.

    Attributes
    ----------
    best_point_, best_machine_, best_architecture_, leaderboard_, run_, study_, notes_ : see
        `search.ArchitectureSearchClassifier`.

    Examples
    --------
    >>> y = np.sin(np.arange(80) / 3)
    >>> model = ArchitectureSearchForecaster(lags=8, n_trials=2, epochs=20, finalists=1, seeds=1, random_state=0).fit(y)
    >>> model.predict(5).shape
    (5,)
    """

    _history: pl.DataFrame  # the last lags steps, and before them one without gaps

    def __init__(
        self,
        lags: int = 12,
        n_trials: int | None = 40,
        time: float | None = None,
        *,
        transform: str = "none",
        strategy: str = "evolution",
        space: AnySpace | None = None,
        objectives: Sequence[str] = ("loss",),
        constraints: Mapping[str, float] | None = None,
        folds: int | None = None,
        population: int = 8,
        epochs: int | None = None,
        finalists: int = 5,
        seeds: int = 5,
        ensemble: bool = False,
        random_state: Any = None,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
        verbose: int = 0,
    ) -> None:
        self.lags = lags
        self.n_trials = n_trials
        self.time = time
        self.transform = transform
        self.strategy = strategy
        self.space = space
        self.objectives = objectives
        self.constraints = constraints
        self.folds = folds
        self.population = population
        self.epochs = epochs
        self.finalists = finalists
        self.seeds = seeds
        self.ensemble = ensemble
        self.random_state = random_state
        self.out = out
        self.resume = resume
        self.verbose = verbose

    def fit(self, y: Any, X: Any = None) -> Self:
        """Search on a series, and keep its last steps to go on from.

        Parameters
        ----------
        y : a number for each step, in the order of time; a gap is the last number before it.
        X : what else was measured at the same steps, ``(steps, channels)``, an array or a data frame: known of the
            steps before the one that is answered, not of this.

        Raises
        ------
        ValueError : what can't be learned from, each in a sentence of its own.
        """
        seed = seed_of(self.random_state)
        name = getattr(y, "name", None)
        self._target = name if isinstance(name, str) and name else TARGET
        self._others: list[str] | None = None
        frame = self._frame(y, X)
        dataset = from_series(
            frame, self._target, lags=self.lags, name=type(self).__name__, time="", transform=self.transform, test=0.0
        )
        self.notes_ = dataset.notes
        self._search(dataset, seed)
        self._others = frame.columns[1:]
        self._history = ending(frame, self.lags)
        return self

    def predict(self, steps: int = 1, X: Any = None, *, history: Any = None) -> Floats:
        """The next steps of the series.

        Parameters
        ----------
        steps : how many to answer.
        X : with further channels, what is known of them at these steps but the last.
        history : another series to go on from, in place of the one that was fitted and updated: numbers, with further
            channels a pair ``(y, X)``; at least ``lags`` steps.

        Returns
        -------
        A number for each step, shape ``(steps,)``.

        Raises
        ------
        ValueError : too short a history, or channels that nobody knows.
        """
        check_is_fitted(self)
        if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
            raise ValueError(f"got steps={steps!r}: a whole number of at least 1 was expected")
        known = self._history
        if history is not None:
            pair = history if self._others else (history, None)
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise ValueError(
                    f"got a history of {type(history).__name__}: give a pair (y, X), for there are further channels"
                )
            known = ending(self._frame(*pair), self.lags)
        if known.height < self.lags:
            raise ValueError(f"got a history of {counted(known.height, 'step')}: {self.lags} are needed")
        return self._answers(known, int(steps), self._future(X, int(steps)))

    def update(self, y: Any, X: Any = None) -> Self:
        """Add steps that have come to be known to the history, without learning anew.

        Parameters
        ----------
        y, X : as `fit` takes them, of the steps after the last; a single number, and a row, are one step.
        """
        check_is_fitted(self)
        import polars as pl

        new = self._frame([y], one_row(X)) if np.ndim(y) == 0 else self._frame(y, X)
        self._history = ending(pl.concat([self._history, like(self._history, new)]), self.lags)
        return self

    def step(self, y: Any, X: Any = None) -> float:
        """The next step, once another one has come to be known: ``update(y, X).predict(1)[0]``, for streams.

        No more than the last ``lags`` steps are looked at, however long the series is.
        """
        return float(self.update(y, X).predict(1)[0])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted forecaster and the end of its history without pickle: `load` gives it back.

        Parameters
        ----------
        path : of a file, by custom ``NAME.machgraph``; of an ensemble a folder, with a file for each of its machines.

        Raises
        ------
        ValueError : parameters that JSON can't hold.
        """
        check_is_fitted(self)
        fitted = {
            "target": self._target,
            "others": self._others,
            "history": written(self._history),
            "notes": list(self.notes_),
            "point": self.best_point_.to_dict(),
        }
        save_estimator(self, self._members, path, fitted)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, space: GraphSpace | None = None) -> Self:
        """The fitted forecaster that `save` wrote.

        Parameters
        ----------
        space : of a graph space, that which was searched, for no file holds its modules or says where they are.

        Raises
        ------
        FileNotFoundError : nothing is there.
        ValueError : another kind of file, or one of another estimator; a graph space that is missing or another.
        """
        from search.point import point_of

        found: Self
        found, members, fitted = load_estimator(cls, path, space)
        found._members = members
        found._target, found._others = fitted["target"], fitted["others"]
        found.notes_, found.best_point_ = tuple(fitted["notes"]), point_of(fitted["point"])
        found._history = restored(fitted["history"])
        return found

    # ---- what is given ----

    def _frame(self, y: Any, X: Any) -> pl.DataFrame:
        """The target, then the further channels, each as numbers, dates or text."""
        index: Any = getattr(y, "index", None)
        if getattr(getattr(index, "dtype", None), "kind", "") == "M" and not index.is_monotonic_increasing:
            raise ValueError("got dates of y that do not rise: sort the series by its dates")
        if is_frame(y):
            raise ValueError("got a table as y: give one of its columns, and the others as X")
        target = column_of(self._target, y)
        if self._others is not None and (X is None) == bool(self._others):
            which = listing(map(repr, self._others))
            known = f"with the further channels {which}" if self._others else "without further channels"
            raise ValueError(f"got {'no X' if X is None else 'an X'} for a forecaster that was fitted {known}")
        frame = target.to_frame()
        if X is not None:
            others = self._channels(X)
            if others.height != len(target):
                raise ValueError(
                    f"got y of {counted(len(target), 'step')} and X of {others.height}: give one row a step"
                )
            if self._target in others.columns:
                raise ValueError(f"got a column of X called '{self._target}', as the series is: give it another name")
            frame = frame.hstack(others)
        return frame.with_columns([plain_column(series) for series in frame])

    def _channels(self, X: Any) -> pl.DataFrame:
        """The further channels, as those that were fitted are called."""
        frame = frame_of(X) if is_frame(X) else table_of(two_axes(array_of(X, "X")))
        if self._others is None:
            return frame
        if is_frame(X):
            if missing := [name for name in self._others if name not in frame.columns]:
                raise ValueError(
                    f"got an X without {listing(map(repr, missing))}: "
                    f"the columns are {listing(map(repr, frame.columns))}"
                )
            return frame.select(self._others)
        if frame.width != len(self._others):
            raise ValueError(f"got an X of {counted(frame.width, 'column')}: {len(self._others)} were fitted")
        return frame.rename(dict(zip(frame.columns, self._others, strict=True)))

    def _future(self, X: Any, steps: int) -> pl.DataFrame | None:
        """The further channels at the steps to come but the last; nothing where none is needed."""
        import polars as pl

        if X is not None and not self._others:
            raise ValueError("got an X for a forecaster that was fitted without further channels: leave it out")
        if not self._others or steps == 1:
            return None
        if X is None:
            raise ValueError(
                f"the steps after the first also need {listing(map(repr, self._others))} of the ones before: "
                "give them as X"
            )
        others = self._channels(X)[: steps - 1]
        if others.height < steps - 1:
            raise ValueError(
                f"got an X of {counted(others.height, 'step')} for {steps} to answer: {steps - 1} are needed"
            )
        frame = others.with_columns(pl.lit(None, dtype=pl.Float64).alias(self._target))
        return frame.select(self._target, *[plain_column(frame[name]) for name in self._others])

    def _answers(self, known: pl.DataFrame, steps: int, future: pl.DataFrame | None) -> Floats:
        """Each step from those before it, of which the machines together have said the last."""
        import polars as pl

        frame = known if future is None else pl.concat([known, like(known, future)])
        windows, others = [], []
        for member in self._members:
            channels = member.encoder.channels(frame)
            end, own = known.height, len(member.encoder.columns[0].features)
            windows.append(channels[end - self.lags : end].T)
            others.append(channels[end:, own:])
        said = np.empty(steps)
        for k in range(steps):
            values = []
            for member, window in zip(self._members, windows, strict=True):
                x = member.encoder.clipped(window.reshape(1, -1))
                values.append(member.encoder.decode(member.outputs(x)).values[0])
            said[k] = np.mean(values)
            if k + 1 == steps:
                break
            for i, member in enumerate(self._members):
                own = len(member.encoder.columns[0].features)
                more = others[i][k] if len(others[i]) else ()
                mean = member.encoder.transform.within(said[k : k + 1])  # of all, of other transforms perhaps
                new = np.concatenate([member.encoder.scaled(mean), np.zeros(own - 1), more])
                windows[i] = np.hstack([windows[i][:, 1:], new[:, None]])
        return said
