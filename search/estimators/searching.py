"""What all estimators that search do: run a search on a data set, and tell of it."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Not inside of a function: optuna keeps the frames that import it first, and all that they hold, to the very end.
from optuna import Study
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from search.data import Dataset
from search.defaults import default_folds, default_recipe, space_for
from search.recipe import rungs_of

if TYPE_CHECKING:
    import polars as pl

    from machgraph.architecture import Architecture
    from machgraph.parametric_machine import ParametricMachine
    from search.driver import Listener, Result
    from search.graph.network import Network
    from search.one_of import AnySpace
    from search.point import AnyPoint
    from search.record import Settings
    from search.trained import Trained

FIXED = ("strategy", "population", "space", "folds", "finalists", "seeds", "objectives", "constraints", "recipe")


class Searching(BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn has no types
    """An estimator that searches for its architecture: see its subclasses for the parameters.

    Attributes
    ----------
    best_point_ : the architecture as a point of the space, and what it was trained with.
    best_machine_ : the machine, trained on all rows; its ``partition`` and ``shortcuts`` are the architecture as data.
        Of a graph space a module from rows of features to answers.
    best_architecture_ : the machine as a sum of machines, which has a graph, an order, levels and a depth.
    leaderboard_ : a polars data frame of the best architectures, best first.
    run_ : the folder of the run: ``out``, or a temporary one that ends with the estimator.
    study_ : Optuna's study of all trials, read from there.
    notes_ : sentences about what was inferred from the data, and what was done with them.
    """

    n_trials: int | None
    time: float | None
    strategy: str
    space: AnySpace | None
    objectives: Sequence[str]
    constraints: Mapping[str, float] | None
    folds: int | None
    population: int
    epochs: int | None
    finalists: int
    seeds: int
    ensemble: bool
    random_state: Any
    out: str | os.PathLike[str] | None
    resume: bool
    verbose: int

    _members: tuple[Trained, ...]
    best_point_: AnyPoint

    def _search(self, dataset: Dataset, seed: int) -> None:
        """Search on the data, and take over what was found."""
        from search.graph.space import GraphSpace
        from search.run import BEST, ENSEMBLE, free_folder
        from search.trained import read

        if self.resume and self.out is None:
            raise ValueError("got resume=True and out=None: give the folder of the run to go on with as out")
        settings = self._settings(dataset, seed)
        if self.out is None:
            folder = Path(tempfile.mkdtemp(prefix="machgraph-"))
            removal = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        else:
            folder, removal = Path(self.out) if self.resume else free_folder(Path(self.out)), None
        try:
            result = _run(settings, dataset, folder, self.verbose, in_folder=self.out is None)
            if not result.rows or result.rows[0].point is None:
                why = next((f", the first as {one.reason}" for one in result.records if one.reason), "")
                raise ValueError(
                    f"not one of {len(result.records)} trials ended with a finite loss{why}: give more of them, or a "
                    f"space of {'machines that fit' if why else 'lower learning rates'}"
                )
            files = [folder / BEST]
            if self.ensemble:
                files = sorted((folder / ENSEMBLE).glob("*.machgraph"), key=lambda file: int(file.stem))
            space = settings.space if isinstance(settings.space, GraphSpace) else None
            members = tuple(map(partial(read, space=space), files))
        except BaseException:
            if removal is not None:
                removal()
            raise
        if (last := vars(self).get("_removal")) is not None:
            last()
        self._removal, self.run_ = removal, folder
        self._members, self._rows, self.best_point_ = members, result.rows, result.rows[0].point

    def _settings(self, dataset: Dataset, seed: int) -> Settings:
        """What the parameters say; the rest follows from the data, as on the command line."""
        from search.record import Settings
        from search.training.pace import paced

        if self.n_trials is None and self.time is None:
            raise ValueError("got n_trials=None and time=None: give at least one, or the search would not end")
        rows = len(dataset.train)
        recipe = default_recipe(rows)
        if self.epochs is not None:
            recipe = replace(recipe, epochs=self.epochs, rungs=rungs_of(self.epochs))
        space = space_for(dataset) if self.space is None else deepcopy(self.space)  # it remembers what it has counted
        settings = Settings(
            dataset.name, None, dataset.task, seed, self.strategy, self.n_trials, self.time, self.population, space,
            recipe, min(default_folds(rows), dataset.most_folds) if self.folds is None else self.folds,
            self.finalists, self.seeds,
            self.objectives, constraints=self.constraints or {},  # type: ignore[arg-type]  # told there
        )  # fmt: skip
        with one_thread():
            return paced(settings, dataset)

    @property
    def best_machine_(self) -> ParametricMachine | Network:
        """The machine that was found, trained on all rows."""
        check_is_fitted(self)
        return self._members[0].machine

    @property
    def best_architecture_(self) -> Architecture:
        """What was found, as a sum of machines."""
        return self.best_machine_.architecture

    @property
    def leaderboard_(self) -> pl.DataFrame:
        """The best architectures, best first: losses and scores on validation, and sizes."""
        import polars as pl

        self._check_searched()
        shape = self._members[0].shape
        left_out = ("point", "test_loss", "test_score", "test_sd", "measures")
        return pl.DataFrame(
            [
                {
                    **{field.name: getattr(row, field.name) for field in fields(row) if field.name not in left_out},
                    **row.measures,
                    "architecture": row.point.describe(shape),
                }
                for row in self._rows
                if row.point is not None
            ]
        )

    @property
    def study_(self) -> Study:
        """Optuna's study of all trials, whose folder may be gone where the estimator is a copy."""
        self._check_searched()
        from search.storage.store import load_study

        return load_study(self.run_)

    def _check_searched(self) -> None:
        check_is_fitted(self)
        if not hasattr(self, "run_"):
            raise AttributeError("a loaded estimator knows nothing of its search: look at the one that was fitted")

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_members")

    def __getstate__(self) -> dict[str, Any]:
        """A copy does not own the run's folder."""
        return {name: value for name, value in super().__getstate__().items() if name != "_removal"}


def _run(settings: Settings, dataset: Dataset, folder: Path, verbose: int, *, in_folder: bool) -> Result:
    """The search, begun or gone on with, silent or before the user's eyes; a temporary folder has its study itself."""
    from search import study
    from search.run import RUN
    from search.storage.store import restore

    if not in_folder:
        restore(folder)
    search = _go_on if (folder / RUN).exists() else partial(study.run, in_folder=in_folder)
    with one_thread():
        if not verbose:
            return search(settings, dataset, folder, lambda event: None)
        from search.facts import facts_of
        from search.terminal.progress import heading, leaderboard, shown, terminal

        console, facts = terminal(), facts_of(dataset, settings)
        console.print(heading(settings, facts))
        with shown(console, facts, settings.recipe.epochs) as listen:
            result = search(settings, dataset, folder, listen)
        console.print(leaderboard(result.rows, facts, console.width))
        return result


def _go_on(settings: Settings, dataset: Dataset, folder: Path, on_event: Listener) -> Result:
    """Go on with the search in a folder, whose limits are these, counted from its beginning.

    Raises
    ------
    ValueError : it was begun with other rows, or with other settings.
    """
    from search.driver import go_on
    from search.facts import fingerprint
    from search.graph.io import difference
    from search.graph.space import GraphSpace
    from search.parallel.workers import employed
    from search.run import read_facts, read_settings
    from search.work import OnData

    begun, facts = read_settings(folder), read_facts(folder)
    if fingerprint(dataset) != facts.fingerprint:
        raise ValueError(
            f"{folder} was begun with other rows, or another random_state: give the same again, or another out"
        )
    before, now = begun.space, settings.space
    if isinstance(before, GraphSpace) and isinstance(now, GraphSpace) and before != now:
        raise ValueError(f"{folder} was begun with another graph space: {difference(before, now)}")
    for name in FIXED if settings.seconds is None else FIXED[:-1]:  # in a limit of time the recipe was fitted to it
        if getattr(begun, name) != getattr(settings, name):
            raise ValueError(
                f"{folder} was begun with {name}={getattr(begun, name)!r}, and not {getattr(settings, name)!r}: "
                "a search goes on with what it was begun with"
            )
    # the same space, but of a graph space no folder holds the modules
    settings = replace(begun, trials=settings.trials, seconds=settings.seconds, space=settings.space)
    with employed(OnData(settings, facts, dataset, folder)) as work:
        return go_on(settings, facts, work, folder, on_event)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, which for small machines is fastest, and by which results can be had again."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
