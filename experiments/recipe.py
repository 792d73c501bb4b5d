"""How weight decay and batch size decide the held-out score: the figures behind ``search.defaults``.

Twelve networks with all shortcuts are trained with each recipe on each bundled data set; the one with the lowest
validation loss is looked at on the held-out test part; means over the seeds.

    python -m experiments.recipe            about 12 minutes
"""

from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import numpy as np

from experiments.results import write
from machgraph.partition import shortcut_mask
from search.data import Dataset, load
from search.defaults import default_recipe, default_space
from search.one_of import OneOf
from search.point import Point
from search.population import evaluate, train
from search.recipe import Recipe

NETWORKS = [
    Point(widths, (activation,) * len(widths), shortcut_mask(None, len(widths) + 2), rate)
    for widths, activation in (((64, 64, 64), "relu"), ((32, 32), "relu"), ((16, 16), "tanh"), ((64, 64), "gelu"))
    for rate in (2e-3, 4e-3, 8e-3)
]


def main(
    *,
    datasets: tuple[str, ...] = ("digits", "breast_cancer", "diabetes"),
    seeds: int = 5,
    decays: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0),
    batch_sizes: tuple[int, ...] = (32, 64, 128),
) -> list[dict[str, Any]]:
    """Held-out score of each decay and batch size with the whole schedule, and of the defaults."""
    rows = []
    for name in datasets:
        data = [load(name, seed=seed) for seed in range(seeds)]
        plain = Recipe(rungs=(), patience=None)
        tried = {f"decay {decay:g}, batch {size}": (plain, decay, size) for decay in decays for size in batch_sizes}
        samples = len(data[0].train)
        space = default_space(data[0].shape, samples)
        dense = space.of("dense") if isinstance(space, OneOf) else space
        whole = replace(default_recipe(samples), rungs=(), patience=None)
        tried["default"] = (whole, dense.weight_decays[1], dense.batch_sizes[0])
        for label, (recipe, decay, size) in tried.items():
            scores = [held_out(dataset, recipe, decay, size, seed) for seed, dataset in enumerate(data)]
            rows.append({"data": name, "recipe": label, "test": fmean(scores), "sd": stdev(scores), "seeds": seeds})
            print(f"{name:14} {label:24} {fmean(scores):.4f} ± {stdev(scores):.4f}", flush=True)
    return rows


def held_out(dataset: Dataset, recipe: Recipe, decay: float, batch_size: int, seed: int) -> float:
    """The test score of the network with the lowest validation loss."""
    networks = [replace(network, weight_decay=decay, batch_size=batch_size) for network in NETWORKS]
    outcomes = train(networks, (dataset,), recipe, seed)
    best = int(np.argmin([outcome.loss for outcome in outcomes]))
    return evaluate(outcomes[best].machine, dataset, dataset.test)[1]


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    print(write("recipe", "python -m experiments.recipe", main()))
