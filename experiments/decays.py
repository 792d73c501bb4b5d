"""What a single weight decay and larger learning rates are worth for few rows, beside the choices of before.

Points are drawn from the default space, and from the same space with the choices of before: decays of
``400 / n_samples``, at most 3, and of three times that, and rates half as large. Each is cross-validated on three
quarters of the rows and then trained on all of them; the last quarter is looked at. The splits are none that other
results are reported on, nor that the choices of now were made by; the rows of breast_cancer and diabetes are.

one : the score (accuracy or R²) of a network on the last quarter.
best : of the network with the lowest cross-validated loss of eight, as a short search has it.
together : of the five best of sixteen together.

Of each the mean over splits with the choices of before, what it differs by with those of now, and the standard error of
that, of splits.

    python -m experiments.decays           about 10 minutes
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
import torch

from experiments.results import write
from experiments.tables import DATA, ahead, mean, said_by, split_of
from search.data import Dataset
from search.defaults import default_folds, default_recipe, default_space
from search.isomorphism.canonical import canonical
from search.population import refit, train
from search.space import Space

FIRST, SPLITS = 300, 20
NETWORKS, SHORT, TOGETHER = 16, 8, 5
RATES = (2e-3, 4e-3, 8e-3)
WHAT = ("one", "best", "together")


def main(*, names: Sequence[str] = tuple(DATA), splits: Sequence[int] = range(FIRST, FIRST + SPLITS)) -> dict[str, Any]:
    """The figures by data set."""
    return {name: of(name, splits) for name in names}


def of(name: str, splits: Sequence[int]) -> dict[str, Any]:
    """What the choices of now are worth for a data set."""
    both = []
    for split in splits:
        dataset = split_of(name, split)
        space = default_space(dataset.shape, len(dataset.train))
        assert isinstance(space, Space)  # of a table
        both.append([scores(one, dataset, split) for one in (as_before(space, len(dataset.train)), space)])
    return {
        "splits": len(splits),
        **{
            what: {"before": fmean(old[i] for old, _ in both), **ahead([new[i] - old[i] for old, new in both])}
            for i, what in enumerate(WHAT)
        },
    }


def as_before(space: Space, n_samples: int) -> Space:
    """With the decays and rates of before."""
    decay = min(400 / n_samples, 3.0)
    return replace(space, learning_rates=RATES, weight_decays=tuple(float(f"{k * decay:.2g}") for k in (1, 3)))


def scores(space: Space, dataset: Dataset, split: int) -> tuple[float, float, float]:
    """Of single networks, of the best of few, and of the best together, on the held-out part."""
    rng, samples = np.random.default_rng(split), len(dataset.train)
    points = [canonical(space.sample(rng)) for _ in range(NETWORKS)]
    seeds = [NETWORKS * split + i for i in range(NETWORKS)]
    recipe, whole = replace(default_recipe(samples), rungs=()), dataset.whole()
    losses = [o.loss for o in train(points, dataset.folds(default_folds(samples), split), recipe, split, seeds=seeds)]
    said = said_by(refit(points, whole, recipe, [recipe.epochs] * NETWORKS, seed=split, seeds=seeds), whole)
    single = [dataset.score(whole.test, one) for one in said]
    best = [single[min(range(k, k + SHORT), key=losses.__getitem__)] for k in range(0, NETWORKS - SHORT + 1, SHORT)]
    first = sorted(range(NETWORKS), key=losses.__getitem__)[:TOGETHER]
    return fmean(single), fmean(best), dataset.score(whole.test, mean([said[i] for i in first], dataset))


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = main()
    for name, told in result.items():
        figures = [f"{w} {told[w]['before']:.4f} {told[w]['ahead']:+.4f} ± {told[w]['error']:.4f}" for w in WHAT]
        print(f"{name:14}", "  ".join(figures))
    print(write("decays", "python -m experiments.decays", result))
