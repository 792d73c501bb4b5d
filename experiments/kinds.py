"""Dense machines with any shortcuts, with all, and recurrences, as what a search of a series chooses from.

Of each points are drawn as evolution begins with. Each is validated on five folds that roll on through the steps
before the held-out ones, then trained on all of these and looked at on the held-out steps. The sunspots end in 1928 or
1958 here, so that the years that other results are reported on are not among the held-out ones.

validation : the middle loss of the points, and the mean of the five that a search would like best.
held out : the root of the mean squared error, in standard deviations of the training part, of the same.
seconds : of validating a point.

    python -m experiments.kinds            about 5 minutes
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import fmean, median
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from experiments.results import write
from search.data import Dataset, from_series, load
from search.defaults import default_recipe, space_of_kind, transforms_for
from search.isomorphism.canonical import canonical
from search.point import Kind, Point
from search.population import refit, scores, train
from search.strategies.evolution import beginning
from search.training.lessons import Lessons

SPACES: Mapping[str, tuple[Kind, Mapping[str, Any]]] = {  # kinds, and what is changed in their default spaces
    "dense": ("dense", {}),
    "dense, all shortcuts": ("dense", {"shortcuts": "all"}),
    "recurrence": ("recurrence", {}),
}
BEST = 5


def _statsmodels(name: str, column: str) -> NDArray[np.float64]:
    from statsmodels import datasets

    return cast("NDArray[np.float64]", getattr(datasets, name).load().data[column].to_numpy(float))


def _el_nino() -> NDArray[np.float64]:
    """Temperatures of the sea, month after month."""
    from statsmodels.datasets import elnino

    return cast("NDArray[np.float64]", elnino.load().data.to_numpy(float)[:, 1:].ravel())


def _sunspots(last: int) -> Dataset:
    values = load("sunspots").history["sunspots"].to_numpy()[: last - 1699]
    return from_series(values, lags=11, test=50 / len(values))


SERIES: Mapping[str, Callable[[], Dataset]] = {
    "sunspots to 1928": lambda: _sunspots(1928),
    "sunspots to 1958": lambda: _sunspots(1958),
    "Nile": lambda: from_series(_statsmodels("nile", "volume"), lags=8),
    "El Niño": lambda: from_series(_el_nino(), lags=12),
    "unemployment": lambda: from_series(_statsmodels("macrodata", "unemp"), lags=8),
    "inflation": lambda: from_series(_statsmodels("macrodata", "infl"), lags=8),
}


def main(
    *, series: Mapping[str, Callable[[], Dataset]] = SERIES, points: int = 24, epochs: int | None = None
) -> dict[str, Any]:
    """Figures of each series and space."""
    return {
        name: {space: figures(one(), space, points, epochs) for space in SPACES} for name, one in series.items()
    }  # fmt: skip


def figures(dataset: Dataset, name: str, number: int, epochs: int | None = None) -> dict[str, float]:
    """Of so many points of a space."""
    rows, (kind, changes), rng = len(dataset.train), SPACES[name], np.random.default_rng(0)
    space = replace(space_of_kind(kind, dataset.shape, rows, transforms_for(dataset)), **changes)
    drawn: list[Point] = []
    while len(drawn) < number:
        if (point := canonical(beginning(space, rng))) not in drawn:
            drawn.append(point)
    recipe = replace(default_recipe(rows), rungs=())
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    validated = train(drawn, dataset.folds(5), recipe, 0)
    whole = dataset.whole()
    machines = refit(drawn, whole, recipe, [recipe.epochs] * number, seed=0, seeds=range(number))
    lessons = {name: Lessons(whole, recipe, 0, name) for name in {point.transform for point in drawn}}
    errors = []
    for point, machine, outcome in zip(drawn, machines, validated, strict=True):
        one = lessons[point.transform]
        said = one.in_the_given_unit(one.outputs(machine, "test"), outcome.noise)
        errors.append(scores(whole, whole.test, said)[0] ** 0.5)
    best = sorted(range(number), key=lambda i: validated[i].loss)[:BEST]
    return {
        "validation": round(median(outcome.loss for outcome in validated), 4),
        "validation, best": round(fmean(validated[i].loss for i in best), 4),
        "held out": round(median(errors), 4),
        "held out, best": round(fmean(errors[i] for i in best), 4),
        "seconds": float(f"{fmean(outcome.seconds for outcome in validated):.3g}"),
    }


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    result = main()
    for name, kinds in result.items():
        for kind, told in kinds.items():
            print(f"{name:17} {kind:11}", "  ".join(f"{what} {value:.4g}" for what, value in told.items()))
    print(write("kinds", "python -m experiments.kinds", result))
