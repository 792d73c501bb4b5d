"""What it is worth to read skewed numbers twice: as they are, and straightened by a power.

Networks are drawn from the default space, trained on three quarters of the rows and looked at on the last quarter, with
and without the straightened features. The splits are none that results are reported on, but the rows of breast_cancer
are; of the others nothing else is reported but ``experiments.decays``. Of large tables some rows are taken.

one, together : the score (accuracy or R²) of a network on the last quarter, and of five of them together: the mean
    over splits without straightened features, what it differs by with them, and the standard error of that, of pairs.
skewed : how many of the columns are read twice, on average.

    python -m experiments.straightened     some minutes
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
import torch

from experiments.results import write
from experiments.tables import ahead, mean, said_by, split_of
from search.data import Dataset, Part
from search.defaults import default_recipe, default_space
from search.isomorphism.canonical import canonical
from search.population import refit
from search.space import Space

FIRST, SPLITS = 100, 40
NETWORKS, TOGETHER = 10, 5
NAMES = ("breast_cancer", "wine", "anes96", "fair", "randhie", "star98")


def main(*, names: Sequence[str] = NAMES, splits: Sequence[int] = range(FIRST, FIRST + SPLITS)) -> dict[str, Any]:
    """The figures by data set."""
    return {name: of(name, splits) for name in names}


def of(name: str, splits: Sequence[int]) -> dict[str, Any]:
    """What straightened features are worth for a data set."""
    both = []
    for split in splits:
        twice = split_of(name, split)
        both.append((scores(as_given(twice), split), scores(twice, split), skewed(twice)))
    found: dict[str, Any] = {"splits": len(splits), "skewed": fmean(number for *_, number in both)}
    for i, what in enumerate(("one", "together")):
        found[what] = {"without": fmean(old[i] for old, *_ in both), **ahead([new[i] - old[i] for old, new, _ in both])}
    return found


def skewed(dataset: Dataset) -> int:
    """How many columns are read twice."""
    return sum(column.power is not None for column in dataset.encoder.columns)


def as_given(dataset: Dataset) -> Dataset:
    """The same without the straightened features."""
    encoder = dataset.encoder
    columns = tuple(replace(column, power=None) for column in encoder.columns)
    kept = np.array([name != f"{c.name}, straightened" for c in encoder.columns for name in c.features])

    def some(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(np.array(values)[kept].tolist())

    def part(given: Part) -> Part:
        return replace(given, x=given.x[:, kept])

    encoder = replace(encoder, columns=columns, mean=some(encoder.mean), scale=some(encoder.scale))
    train, validation, test = part(dataset.train), part(dataset.validation), part(dataset.test)
    return replace(dataset, train=train, validation=validation, test=test, encoder=encoder)


def scores(dataset: Dataset, split: int) -> tuple[float, float]:
    """Mean scores of single networks, and of so many together, on the held-out part."""
    space, rng = default_space(dataset.shape, len(dataset.train)), np.random.default_rng(split)
    assert isinstance(space, Space)  # of a table
    points = [canonical(space.sample(rng)) for _ in range(NETWORKS)]
    recipe, whole = default_recipe(len(dataset.train)), dataset.whole()
    seeds = [NETWORKS * split + i for i in range(NETWORKS)]
    machines = refit(points, whole, recipe, [recipe.epochs] * NETWORKS, seed=split, seeds=seeds)
    said = said_by(machines, whole)
    means = [mean(said[k : k + TOGETHER], dataset) for k in range(0, NETWORKS, TOGETHER)]
    return fmean(dataset.score(whole.test, one) for one in said), fmean(dataset.score(whole.test, one) for one in means)


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = main()
    for name, told in result.items():
        one, together = told["one"], told["together"]
        print(
            f"{name:14} {told['skewed']:4.1f} skewed  one {one['without']:.4f} {one['ahead']:+.4f} ± {one['error']:.4f}"
            f"  together {together['without']:.4f} {together['ahead']:+.4f} ± {together['error']:.4f}"
        )
    print(write("straightened", "python -m experiments.straightened", result))
