"""Estimators with scikit-learn's interface: machines of a given architecture, and searches for one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from search.data import Dataset
from search.defaults import default_recipe, default_space
from search.estimators.searching import Searching, one_thread
from search.estimators.tabular import Tabular, classes_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from machgraph.parametric_machine import ParametricMachine
    from search.one_of import AnySpace


class _Machine(Tabular):
    """A dense machine of a given architecture."""

    def __init__(
        self,
        hidden: Sequence[int] = (64, 64),
        activation: str | Sequence[str] = "relu",
        shortcuts: Any = None,
        *,
        learning_rate: float = 4e-3,
        weight_decay: float | None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.shortcuts = shortcuts
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.random_state = random_state

    @property
    def machine_(self) -> ParametricMachine:
        """The trained machine."""
        from machgraph.parametric_machine import ParametricMachine

        check_is_fitted(self)
        machine = self._members[0].machine
        assert isinstance(machine, ParametricMachine)  # of a given architecture it is
        return machine

    def _options(self) -> dict[str, Any]:
        return {"validation": 0.0, "test": 0.0}

    def _learn(self, dataset: Dataset, seed: int) -> None:
        import torch

        from machgraph.partition import shortcut_mask
        from search.point import Point
        from search.population import refit
        from search.space import Space
        from search.trained import Trained

        hidden, rows = tuple(self.hidden), len(dataset.train)
        usual, recipe = default_space(dataset.shape, rows), default_recipe(rows)
        assert isinstance(usual, Space)  # of a table
        epochs = recipe.epochs if self.epochs is None else self.epochs
        names = (self.activation,) * len(hidden) if isinstance(self.activation, str) else tuple(self.activation)
        point = Point(
            hidden,
            names,
            shortcut_mask(self.shortcuts, len(hidden) + 2).tolist(),
            self.learning_rate,
            usual.weight_decays[0] if self.weight_decay is None else self.weight_decay,
            usual.batch_sizes[0] if self.batch_size is None else self.batch_size,
        )
        recipe = replace(recipe, epochs=epochs, rungs=())
        with one_thread():
            (machine,) = refit([point], dataset, recipe, [epochs], seed=seed, seeds=[seed])
        if not torch.isfinite(machine.weight).all():
            raise ValueError(
                f"got learning_rate={self.learning_rate!r}, at which the training diverged: take a lower one"
            )
        self._members = (Trained(machine, dataset.encoder, dataset.shape),)


@final
class MachineClassifier(ClassifierMixin, _Machine):  # type: ignore[misc]
    """A classifier by a dense machine of a given architecture: a network with any shortcuts between its blocks.

    Parameters
    ----------
    hidden : widths of the hidden blocks, none for a linear model.
    activation : a name, or one for each hidden block.
    shortcuts : which block hears which, input and output among them: ``None`` (each hears all before it),
        ``"sequential"`` (a plain multi-layer perceptron), or a boolean array ``[block_out, block_in]``.
    learning_rate : peak of its one cycle, for AdamW.
    weight_decay, batch_size, epochs : ``None``: as a search would begin with, for so many rows.
    random_state : of the initial weights and the order of the rows.

    Attributes
    ----------
    classes_, n_features_in_, feature_names_in_ : as everywhere in scikit-learn.
    machine_ : the trained machine.
    notes_ : sentences about what was inferred from the data, and what was done with them.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MachineClassifier(hidden=(8, 8), epochs=30, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.9, model.machine_.architecture.depth
    (True, 7)
    """

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class of each row."""
        found: NDArray[Any] = classes_of(self, X)
        return found

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """The probability of each class, ``(rows, classes)``, in the order of ``classes_``."""
        return _probabilities(self, X)


@final
class MachineRegressor(RegressorMixin, _Machine):  # type: ignore[misc]
    """A regressor by a dense machine of a given architecture: see `MachineClassifier` for the parameters.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 60)[:, None]
    >>> model = MachineRegressor(activation="tanh", random_state=0).fit(X, X[:, 0] ** 2)
    >>> model.score(X, X[:, 0] ** 2) > 0.6
    True
    """

    def predict(self, X: Any) -> NDArray[Any]:
        """The value of each row, in the unit of those learned from."""
        return self._answers(X).values


class _ArchitectureSearch(Searching, Tabular):
    """A search for the architecture, on the rows of a table."""

    def __init__(
        self,
        n_trials: int | None = 40,
        time: float | None = None,
        *,
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
        image: Sequence[int] | None = None,
        random_state: Any = None,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
        verbose: int = 0,
    ) -> None:
        self.n_trials = n_trials
        self.time = time
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
        self.image = image
        self.random_state = random_state
        self.out = out
        self.resume = resume
        self.verbose = verbose

    def _options(self) -> dict[str, Any]:
        return {"test": 0.0, "image": self.image}

    def _learn(self, dataset: Dataset, seed: int) -> None:
        self._search(dataset, seed)

    def _more_fitted(self) -> dict[str, Any]:
        return {**super()._more_fitted(), "point": self.best_point_.to_dict()}

    def _restore(self, fitted: Mapping[str, Any]) -> None:
        from search.point import point_of

        super()._restore(fitted)
        self.best_point_ = point_of(fitted["point"])


@final
class ArchitectureSearchClassifier(ClassifierMixin, _ArchitectureSearch):  # type: ignore[misc]
    """A classifier that searches for its own architecture, and trains the best one on all rows.

    Candidates are compared on parts of the rows that they have not learned; the finalists again, on other parts and
    with other initial weights. Rows to judge the result by are the caller's to hold out, as with any estimator.

    Parameters
    ----------
    n_trials : end after so many candidates; ``None``: no such limit.
    time : end when the next generation would take it past so many seconds of searching; the comparison of the finalists
        comes after that, and takes half as long at most. With a limit of time the result depends on the machine.
    strategy : ``evolution``, ``tpe``, ``nsga2``, ``random``, or ``differentiable``.
    space : a `search.space.Space`, or `search.one_of.OneOf` several; a `search.GraphSpace` of modules of one's own,
        with one input and one output; ``None``: one that suits the data.
    objectives : what is made small: ``loss``, and ``parameters``, ``flops``, ``depth``, ``memory`` or ``latency``. With
        several the finalists are of their front, and the winner is the one of least loss.
    constraints : the most that ``parameters`` and so on may be, as in ``{"parameters": 20_000}``.
    folds : parts of the rows that take turns in validation; 1: a share of 0.16; ``None``: 5 below 1,000 rows.
    population : candidates that are trained together.
    epochs : of the training of a candidate; ``None``: as suits the number of rows.
    finalists, seeds : how many of the best are trained again, and with how many initial weights each.
    ensemble : whether all finalists answer together, or the winner alone.
    image : channels, then the extent of each axis, where the columns are pixels in this order: as ``(1, 8, 8)``.
        Of two axes or more, convolutions are searched too then.
    random_state : of all that is drawn.
    out : the run's folder, or this name and ``-2`` and so on if something is there; ``None``: a temporary one.
    resume : go on with the run in ``out``, if there is one, that was stopped, or begun with a lower ``n_trials``; the
        rows, ``random_state`` and settings must be the same.
    verbose : whether the search is shown.

    Attributes
    ----------
    classes_, n_features_in_, feature_names_in_ : as everywhere in scikit-learn.
    best_point_ : the architecture as a point of the space, and what it was trained with.
    best_machine_ : the machine; its ``partition`` and ``shortcuts`` are the architecture as data. Of a graph space a
        module from rows of features to answers.
    best_architecture_ : the machine as a sum of machines, which has a graph, an order, levels and a depth.
    leaderboard_ : a polars data frame of the best architectures, best first.
    run_, study_ : the run's folder, and Optuna's study of all trials, which is read from there.
    notes_ : sentences about what was inferred from the data, and what was done with them.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ArchitectureSearchClassifier(n_trials=4, epochs=10, seeds=1, random_state=0).fit(X, y)
    >>> model.predict_proba(X[:2]).shape, len(model.study_.trials), model.leaderboard_["name"][0]
    ((2, 3), 4, 'winner')
    """

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class of each row."""
        found: NDArray[Any] = classes_of(self, X)
        return found

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """The probability of each class, ``(rows, classes)``, in the order of ``classes_``."""
        return _probabilities(self, X)


@final
class ArchitectureSearchRegressor(RegressorMixin, _ArchitectureSearch):  # type: ignore[misc]
    """A regressor that searches for its own architecture: see `ArchitectureSearchClassifier` for the parameters."""

    def predict(self, X: Any) -> NDArray[Any]:
        """The value of each row, in the unit of those learned from."""
        return self._answers(X).values


def _probabilities(estimator: Tabular, X: Any) -> NDArray[Any]:
    found = estimator._answers(X).probabilities
    assert found is not None  # of a classifier
    return found
