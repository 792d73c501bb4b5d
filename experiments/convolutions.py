"""What the default convolutions rest on: their widths, rates, length of schedule, and what is pooled before the first.

All is cross-validated on five folds of three quarters of the digits; nothing is looked at on the last quarter. The
splits, seeds 200 and up, are none that results are reported on, but the rows are: there are no other digits, so that
``experiments.quality`` shows what was chosen for them, and flatters.

trained : three wirings with all shortcuts, narrow (8 to 24 channels) and wide (16 to 32), for so many epochs at such a
    rate; means over wirings, folds and splits, ``error`` that of the mean over splits, ``seconds`` of one training.
drawn : uniform draws from the default space with any scale for the first block, by that scale: how many they are, and
    the mean and the lowest accuracy.

    python -m experiments.convolutions     some minutes
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import numpy as np

from experiments.quality import data
from experiments.results import write
from machgraph.partition import shortcut_mask
from search.defaults import default_recipe, space_for
from search.isomorphism.canonical import canonical
from search.one_of import OneOf
from search.point import Point
from search.population import train
from search.recipe import Recipe

FIRST, SPLITS, DRAWN = 200, 4, 24
WIRINGS = {
    "narrow": (((8, 24, 16), (0, 1, 2, 2)), ((16, 16, 16), (0, 1, 2, 2)), ((24, 16), (0, 1, 2))),
    "wide": (((16, 32, 24), (0, 1, 2, 2)), ((24, 24, 24), (0, 1, 2, 2)), ((32, 24), (0, 1, 2))),
}
WAYS = (
    ("narrow", 60, 4e-3), ("wide", 60, 4e-3), ("narrow", 32, 1.6e-2),
    ("wide", 32, 4e-3), ("wide", 32, 8e-3), ("wide", 32, 1.6e-2), ("wide", 32, 3.2e-2),
)  # fmt: skip


def main(*, splits: Sequence[int] = range(FIRST, FIRST + SPLITS), drawn: int = DRAWN) -> dict[str, Any]:
    """Both tables."""
    return {"trained": [trained(*way, splits) for way in WAYS], "drawn": by_first_scale(splits[0], drawn)}


def trained(name: str, epochs: int, rate: float, splits: Sequence[int]) -> dict[str, Any]:
    """How three wirings of these widths do."""
    points = [
        Point(
            widths, ("relu",) * len(widths), shortcut_mask(None, len(widths) + 2), rate, weight_decay=0.12,
            batch_size=64, kind="convolution", kernel=3, scales=scales,
        )
        for widths, scales in WIRINGS[name]
    ]  # fmt: skip
    recipe = Recipe(epochs, rungs=())
    outcomes = [train(points, data("digits", split).folds(5, split), recipe, split) for split in splits]
    accuracies = [fmean(outcome.score for outcome in some) for some in outcomes]
    return {
        "widths": name, "epochs": epochs, "rate": rate, "accuracy": fmean(accuracies),
        "error": stdev(accuracies) / len(splits) ** 0.5 if len(splits) > 1 else None,
        "loss": fmean(outcome.loss for some in outcomes for outcome in some),
        "seconds": fmean(outcome.seconds / 5 for some in outcomes for outcome in some),
    }  # fmt: skip


def by_first_scale(split: int, number: int) -> dict[str, Any]:
    """How uniform draws do, by how often the image is pooled before the first block hears it."""
    dataset = data("digits", split)
    spaces = space_for(dataset)
    assert isinstance(spaces, OneOf)  # of images
    space, rng = replace(spaces.of("convolution"), first_scale=None), np.random.default_rng(split)
    points = [canonical(space.sample(rng)) for _ in range(number)]
    recipe = replace(default_recipe(len(dataset.train)), rungs=())
    found: dict[str, list[float]] = {}
    for point, outcome in zip(points, train(points, dataset.folds(5, split), recipe, split), strict=True):
        found.setdefault(str(point.scales[0]) if point.blocks else "no block", []).append(outcome.score)
    return {
        scale: {"points": len(scores), "accuracy": fmean(scores), "lowest": min(scores)}
        for scale, scores in sorted(found.items())
    }


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    result = main()
    for row in result["trained"]:
        print(*(f"{name} {value:.4g}" if isinstance(value, float) else value for name, value in row.items()))
    print(result["drawn"])
    print(write("convolutions", "python -m experiments.convolutions", result))
