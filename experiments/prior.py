"""What the choices of a space are worth whatever the wiring: the figures behind ``search.defaults``.

Points are drawn from a wide space of dense machines. Each is cross-validated on three quarters of the rows, on five
folds (on one where there are many rows), then trained on all of these and looked at on the last quarter. The splits,
seeds 200 to 219, are none that any other result of this project is reported on.

test, loss : of each choice, what the points that have it differ by from all points of their split, on average, in the
    held-out score (accuracy or R²) and in the cross-validated loss that a search goes by; ``error``: of the former.
selected : the mean held-out score of the point of a split that each criterion likes best, and of its five best, beside
    that of all; and the rank correlation of criterion and held-out score.

    python -m experiments.prior            about 10 minutes
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Any

import numpy as np

from experiments.quality import data
from experiments.results import write
from search.data import Dataset
from search.defaults import default_folds, default_recipe, space_for
from search.isomorphism.canonical import canonical
from search.one_of import OneOf
from search.point import Point
from search.population import evaluate, refit, train

DATA = {"breast_cancer": 30, "diabetes": 30, "digits": 15}  # points a split
FIRST = 200  # seed of the first split
SEEDS = 2  # of initial weights, that the held-out score is a mean over

CHOICES: Mapping[str, Callable[[Point], object]] = {
    "activation": lambda point: "/".join(sorted(set(point.activations))),
    "blocks": lambda point: point.blocks,
    "learning rate": lambda point: point.learning_rate,
    "weight decay": lambda point: point.weight_decay,
    "batch size": lambda point: point.batch_size,
}


@dataclass(frozen=True)
class Tried:
    """A point, its cross-validated loss and score, and its held-out score."""

    split: int
    point: Point
    loss: float
    score: float
    test: float


def main(
    *, points: Mapping[str, int] = DATA, splits: Sequence[int] = range(FIRST, FIRST + 20), epochs: int | None = None
) -> dict[str, Any]:
    """Effects and selections, by data set."""
    found = {}
    for name, number in points.items():
        tried = [one for split in splits for one in of_split(data(name, split), split, number, epochs)]
        found[name] = {"points": len(tried), "effects": effects(tried), "selected": selected(tried)}
    return found


def of_split(dataset: Dataset, split: int, number: int, epochs: int | None = None) -> list[Tried]:
    """Points drawn, validated, trained on all that is not held out, and looked at on the rest."""
    space, samples = space_for(dataset), len(dataset.train)
    dense = space.of("dense") if isinstance(space, OneOf) else space
    decays = tuple(float(f"{factor * 400 / samples:.2g}") for factor in (1 / 3, 1, 3, 9))
    sizes = tuple(n * dense.batch_sizes[0] // 2 for n in (1, 2, 4))
    wide = replace(dense, max_blocks=4, activations=("relu", "gelu", "tanh"), weight_decays=decays, batch_sizes=sizes)
    rng, drawn = np.random.default_rng(split), list[Point]()
    while len(drawn) < number:
        drawn.append(canonical(wide.sample(rng)))
    recipe = replace(default_recipe(samples), rungs=())
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    parts = default_folds(samples)
    validated = train(drawn, dataset.folds(parts, split) if parts > 1 else (dataset,), recipe, split)
    whole, lengths = dataset.whole(), [recipe.epochs] * number
    scores = [
        [
            evaluate(machine, whole, whole.test)[1]
            for machine in refit(drawn, whole, recipe, lengths, seed=split, seeds=[k + i for i in range(number)])
        ]
        for k in range(0, SEEDS * number, number)
    ]
    return [
        Tried(split, point, outcome.loss, outcome.score, fmean(of_one))
        for point, outcome, of_one in zip(drawn, validated, zip(*scores, strict=True), strict=True)
    ]


def effects(tried: Sequence[Tried]) -> dict[str, dict[str, dict[str, float]]]:
    """What each choice is worth, beside the mean of its split."""
    splits = {one.split for one in tried}
    means = {
        split: tuple(fmean(getattr(one, name) for one in tried if one.split == split) for name in ("test", "loss"))
        for split in splits
    }
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, choice_of in CHOICES.items():
        by_choice: dict[object, list[Tried]] = {}
        for one in tried:
            by_choice.setdefault(choice_of(one.point), []).append(one)
        found[name] = {
            str(choice): {
                "points": len(some),
                "test": round(fmean(differences := [one.test - means[one.split][0] for one in some]), 5),
                "error": round(pstdev(differences) / len(some) ** 0.5, 5),
                "loss": round(fmean(one.loss - means[one.split][1] for one in some), 5),
            }
            for choice, some in sorted(by_choice.items(), key=lambda item: (str(type(item[0])), item[0]))
        }
    return found


def selected(tried: Sequence[Tried]) -> dict[str, dict[str, float]]:
    """What a choice by the loss, and by the score, gives."""
    from scipy.stats import spearmanr

    splits = [[one for one in tried if one.split == split] for split in sorted({one.split for one in tried})]
    found = {"all": {"mean": round(fmean(one.test for one in tried), 5)}}
    for name, badness in (("loss", lambda one: one.loss), ("score", lambda one: -one.score)):
        ranked = [sorted(some, key=badness) for some in splits]
        ranks = [spearmanr([badness(one) for one in some], [-one.test for one in some]).statistic for some in splits]
        found[name] = {
            "best": round(fmean(some[0].test for some in ranked), 5),
            "best five": round(fmean(one.test for some in ranked for one in some[:5]), 5),
            "correlation": round(float(np.nanmean(ranks)), 3),
        }
    return found


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    result = main()
    for name, told in result.items():
        print(name, told["selected"])
        for what, choices in told["effects"].items():
            print(" ", what, {k: f"{v['test']:+.4f} ± {v['error']:.4f}" for k, v in choices.items()})
    print(write("prior", "python -m experiments.prior", result))
