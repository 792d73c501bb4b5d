"""What gates tell of shortcuts, on the table of all masks of ``experiments.regret``.

``orders``: machines with all ten shortcuts are trained on digits, with gates of several prices or with the group lasso
of several strengths, and cut along the order of their gates or norms.

agreement : of that order with the effect of each shortcut in the table, in ranks: see ``effects``.
open : gates, or norms as a share of the largest, that are at least a half.
regret_of_path, regret_of_one : of the best network on the path of cuts, and of the one next to the open gates; the
    regret is the validation loss minus the lowest in the table.

``searches``: evolution that begins with a generation of proposals, beside plain evolution and random search without
repetition. The latter two are told once more with the time of the gates to use: with as many more trials as there are
trainings of one point in it.

    python -m experiments.differentiable            about a minute on one core
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean
from time import perf_counter
from typing import Any

import numpy as np
import optuna
import torch

from experiments import regret
from experiments.results import FOLDER, write
from machgraph.population import Population
from machgraph.regularize import block_norms, shrink_blocks
from machgraph.training import Objective, Optimizer, batches
from search.data import Dataset, load
from search.point import Point
from search.population import train
from search.recipe import Recipe
from search.strategies.differentiable import PRICES, Gates, cuts, gated, proposals
from search.training.machine import build

FULL = regret.point_of("1" * len(regret.PAIRS))
LIVE = [mask for mask in regret.MASKS if regret.network_of(mask).depth > 1]
BEGUN, LONGER = "gates, then evolution", ", longer by the gates"


def main(*, starts: int = 4, searches: int = 20, numbers: Sequence[int] = (8, 16, 24, 32, 64, 128)) -> dict[str, Any]:
    """Both, on the tables of all seeds of ``regret.csv``."""
    tables: dict[int, dict[str, regret.Row]] = defaultdict(dict)
    for row in regret.read(FOLDER / "regret.csv"):
        tables[row.seed][row.mask] = row
    return {"orders": orders(tables, starts), "searches": compared(tables, searches, numbers)}


# ---- orders ------------------------------------------------------------------------------------------------------


def lasso(dataset: Dataset, recipe: Recipe, seed: int, *, strength: float) -> Gates:
    """The group lasso by its proximal step after each epoch; the values are root mean squares, the largest 1.

    ``strength`` is in units of the longest step of Adam: with 1, no weight could grow faster than it shrinks.
    """
    machine, n = build(FULL, dataset.shape, seed), len(dataset.train)
    x, y = torch.from_numpy(dataset.train.x), torch.from_numpy(dataset.train.y)
    steps, order = recipe.steps(n, FULL.batch_size), torch.Generator().manual_seed(seed)
    population = Population(Objective("cross_entropy", label_smoothing=recipe.label_smoothing))
    settings = Optimizer("adamw", learning_rate=FULL.learning_rate, weight_decay=FULL.weight_decay)
    for epoch in range(recipe.epochs):
        shuffled = torch.randperm(n, generator=order)[: steps * FULL.batch_size]
        (data,) = batches(x, y, FULL.batch_size, shuffled)
        rates = [recipe.rate((epoch + k / steps) / recipe.epochs) for k in range(steps)]
        candidate = population.enter(machine, settings)
        population.descend(data, rates)
        candidate.store()
        population.leave([candidate])
        shrink_blocks(machine, strength * FULL.learning_rate * sum(rates))
    widths = np.array(machine.partition.widths)
    values = block_norms(machine).detach().double().numpy() / np.sqrt(np.outer(widths, widths))
    return Gates(FULL, tuple(map(tuple, (values / max(values.max(), 1e-12)).tolist())), strength, float("nan"))


METHODS: Mapping[str, Callable[..., Gates]] = {
    **{f"gates, price {price}": partial(gated, FULL, price=price) for price in (0.0, *PRICES, 0.04)},
    **{f"group lasso, strength {strength}": partial(lasso, strength=strength) for strength in (0.0, 0.03, 0.1, 0.2)},
}

COLUMNS = ("agreement", "open", "regret_of_path", "regret_of_one", "seconds")


def orders(tables: Mapping[int, Mapping[str, regret.Row]], starts: int) -> list[dict[str, Any]]:
    """A row for each method and strength: means over the tables, and so many first weights for each."""
    rows = []
    for name, method in METHODS.items():
        found = []
        for seed, table in tables.items():
            dataset = load("digits", seed=seed)
            losses = {mask: row.validation_loss for mask, row in table.items()}
            lowest, effect = min(losses.values()), _ranks(effects(losses))
            for start in range(starts):
                began = perf_counter()
                gates = method(dataset, regret.recipe_of(dataset), seed=len(tables) * start + seed)
                seconds = perf_counter() - began
                values = [gates.values[out][source] for out, source in regret.SPACE.pairs(FULL.blocks)]
                path, one = (_losses(cuts(gates, regret.SPACE, number), losses) for number in (len(values), 1))
                agreement = float(np.corrcoef(_ranks(values), effect)[0, 1])
                open_gates = sum(value >= 0.5 for value in values)
                found.append((agreement, open_gates, min(path) - lowest, one[0] - lowest, seconds))
        means = (round(fmean(column), 4) for column in zip(*found, strict=True))
        rows.append({"method": name, **dict(zip(COLUMNS, means, strict=True))})
        print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    return rows


def effects(losses: Mapping[str, float]) -> list[float]:
    """Of each shortcut: the median loss of the masks without it minus that of the masks with it, constants left out."""
    return [
        float(np.subtract(*(np.median([losses[mask] for mask in LIVE if mask[place] == digit]) for digit in "01")))
        for place in range(len(regret.PAIRS))
    ]


def _ranks(values: Sequence[float]) -> regret.Values:
    return np.argsort(np.argsort(values, kind="stable")).astype(float)


def _losses(points: Sequence[Point], losses: Mapping[str, float]) -> list[float]:
    return [losses[regret.mask_of(point)] for point in points]


# ---- searches ----------------------------------------------------------------------------------------------------


def compared(
    tables: Mapping[int, Mapping[str, regret.Row]], searches: int, numbers: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Regret and held-out regret after so many trials: means over all searches, and their standard errors."""
    scores = {mask: fmean(table[mask].test_score for table in tables.values()) for mask in regret.MASKS}
    found, charges = defaultdict(list), []
    for table_seed, table in tables.items():
        dataset = load("digits", seed=table_seed)
        recipe, losses = regret.recipe_of(dataset), {mask: row.validation_loss for mask, row in table.items()}
        for seed in range(searches):
            began = perf_counter()
            first = proposals(regret.SPACE, dataset, recipe, (table_seed, seed), regret.GENERATION)
            seconds = perf_counter() - began
            charge = round(seconds / fmean(outcome.seconds for outcome in train(first, (dataset,), recipe, seed)))
            charges.append(charge)
            most = max(numbers) + charge
            plain, fresh = regret.search("evolution", seed, losses, most), regret.fresh(seed, losses, most)
            for strategy, more, done in (
                (BEGUN, 0, regret.search("evolution", seed, losses, most, first)),
                ("evolution", 0, plain),
                (f"evolution{LONGER}", charge, plain),
                (regret.FRESH, 0, fresh),
                (f"{regret.FRESH}{LONGER}", charge, fresh),
            ):
                curves = regret.curves(done, losses, scores, most)
                places = np.array(numbers) + more - 1
                found[strategy].append((curves.regret[places], curves.test_regret[places]))
    told = {}
    for strategy, values in found.items():
        mean, error = np.mean(values, axis=0).round(5), (np.std(values, axis=0, ddof=1) / len(values) ** 0.5).round(5)
        told[strategy] = {
            name: {"mean": mean[i].tolist(), "error": error[i].tolist()}
            for i, name in enumerate(("regret", "test_regret"))
        }
        print(f"{strategy}: {told[strategy]['regret']['mean']}", flush=True)
    return {"trials": list(numbers), "trainings_of_the_gates": round(fmean(charges), 1), "strategies": told}


if __name__ == "__main__":
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(write("differentiable", "python -m experiments.differentiable", main()))
