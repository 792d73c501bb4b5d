"""Every shortcut mask of a machine of five blocks, trained; and how soon each strategy of the search finds the best.

Input, three hidden blocks of 16 units, output: ten pairs of blocks, so 1,024 masks. All are trained on the bundled
digits, each for 60 epochs of the default recipe, unhalved, with three seeds (of the split, the first weights and the
batches, as ``machgraph search --seed``). Width, activation and learning rate have one choice each, so that the mask
alone decides: 16 units, for which digits are hard enough that shortcuts show; relu; and 0.008, which suits blocks so
narrow best.

Several masks are one network: blocks without a way from input to output count for nothing, two with the same sources
and readers are one wider block, and the order of the blocks is free. The table is of masks all the same: each is
trained as it stands, so that it shows the noise between equal networks too (where the search itself would train their
one canonical form).

Then the strategies search the table in place of training. They are driven as ``search.study`` drives them: in
generations, told together, and whatever is the same network as an earlier proposal is a duplicate, which is told the
loss of that earlier one; the search ends when it knows every network. A search sees the validation loss of one seed,
as a real one does, and its choice is the mask of the lowest loss that it was told.

regret : the loss of the choice minus the lowest loss in the table of that seed. The lowest of 1,024 is in part luck,
    and so is what a search is rewarded for.
held-out regret : what no search sees, and with less luck in it: the highest test accuracy of any mask minus that of
    the choice, both as means over the seeds.
duplicates : trials that needed no training.

Four strategies, and one that is none: random search whose duplicates are not counted as trials. What a strategy is
better than that, it is by knowing where good masks are; the rest is not repeating itself.

The errors given are over the searches, 20 on each table; the tables are only as many as the seeds, and the best masks
equally good up to noise, so small differences in held-out regret say nothing.

    python -m experiments.regret            about a minute for the table, and one for the searches
    python -m experiments.regret --score    the searches alone, on the table that is there

What ``regret.csv`` holds already is not trained again, so it can be interrupted at any time. Its ``mask`` has a digit
for each pair of blocks, 0 being the input and 4 the output: 0>1, 0>2, 1>2, 0>3, 1>3, 2>3, 0>4, 1>4, 2>4, 3>4.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, partial
from itertools import product
from math import isfinite
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from experiments.results import FOLDER, write
from search.data import Dataset, load
from search.defaults import default_recipe
from search.isomorphism.canonical import canonical
from search.point import Point
from search.population import evaluate, train
from search.recipe import Recipe
from search.run import write_csv
from search.space import Space
from search.suggest import STRATEGIES, sampler, suggest

Values = NDArray[np.float64]

SPACE = Space(
    max_blocks=3, widths=(16,), activations=("relu",), learning_rates=(8e-3,), weight_decays=(0.261,), min_blocks=3
)
PAIRS = tuple(name for name in SPACE.parameters if name.startswith("shortcut"))
MASKS = tuple(map("".join, product("01", repeat=len(PAIRS))))
EPOCHS = 60
GENERATION = 8  # trials proposed and told together, as by `machgraph search`
FRESH = "random, none twice"
TOGETHER = 64  # masks trained as one population; no result depends on it but by rounding


@dataclass(frozen=True)
class Row:
    """A line of the table: what one mask came to with one seed."""

    mask: str
    seed: int
    epochs: int
    validation_loss: float
    validation_score: float
    test_loss: float
    test_score: float
    seconds: float


def point_of(mask: str) -> Point:
    """The point with these shortcuts.

    >>> point_of("1010010001").describe(64, 10)
    '64-16-16-16-10 · relu · no shortcuts'
    """
    fixed = {name: choices[0] for name, choices in SPACE.parameters.items()}
    return SPACE.decode({**fixed, **{pair: digit == "1" for pair, digit in zip(PAIRS, mask, strict=True)}})


def mask_of(point: Point) -> str:
    """The mask that ``point_of`` made the point from."""
    code = SPACE.encode(point)
    return "".join(str(int(code[pair])) for pair in PAIRS)


@cache
def network_of(mask: str) -> Point:
    """What equal networks have in common."""
    return canonical(point_of(mask))


# ---- the table -------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[Row]:
    """The table as far as it has been trained; nothing if there is none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        _, *lines = csv.reader(file)
    return [Row(mask, int(seed), int(epochs), *map(float, rest)) for mask, seed, epochs, *rest in lines]


def complete(
    path: Path,
    *,
    seeds: int,
    epochs: int | None = None,
    masks: Sequence[str] = MASKS,
    on_rows: Callable[[list[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Train what the table lacks, and write it after each population.

    Parameters
    ----------
    path : of the CSV file.
    seeds : 0, 1, ... up to this many.
    epochs : of the schedule; 60 if not given.
    masks : trained in this order.
    on_rows : told the rows that were added.

    Raises
    ------
    ValueError : the file holds rows of another number of epochs, or a loss is not finite.
    """
    rows = read(path)
    for seed in range(seeds):
        dataset = load("digits", seed=seed)
        recipe = recipe_of(dataset, epochs)
        if other := {row.epochs for row in rows} - {recipe.epochs}:
            raise ValueError(f"got {recipe.epochs} epochs, but {path} has rows of {min(other)}: choose another --out")
        known = {row.mask for row in rows if row.seed == seed}
        for start in range(0, len(masks), TOGETHER):
            missing = [mask for mask in masks[start : start + TOGETHER] if mask not in known]
            if missing:
                added = results(missing, dataset, recipe, seed)
                rows += added
                write_csv(path, [asdict(row) for row in rows])
                on_rows(added)
    return rows


def recipe_of(dataset: Dataset, epochs: int | None = None) -> Recipe:
    """The default recipe, so many epochs for everyone: no halving and no early stopping."""
    return replace(default_recipe(len(dataset.train)), epochs=epochs or EPOCHS, rungs=(), patience=None)


def results(masks: Sequence[str], dataset: Dataset, recipe: Recipe, seed: int) -> list[Row]:
    """The rows of these masks, trained together.

    Raises
    ------
    ValueError : a loss is not finite, and the table would have a hole.
    """
    points = [point_of(mask) for mask in masks]
    rows = []
    for mask, outcome in zip(masks, train(points, (dataset,), recipe, seed), strict=True):
        if not isfinite(outcome.loss):
            raise ValueError(f"mask {mask} diverged with seed {seed}: a table needs a lower learning rate")
        test = evaluate(outcome.machine, dataset, dataset.test)
        numbers = (round(value, 6) for value in (outcome.loss, outcome.score, *test, outcome.seconds))
        rows.append(Row(mask, seed, outcome.epochs, *numbers))
    return rows


# ---- the searches ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """A mask proposed; the mask whose loss was told, the first proposed that is the same network; whether that is
    another trial's."""

    mask: str
    told: str
    duplicate: bool


def search(
    strategy: str, seed: int, losses: Mapping[str, float], trials: int, first_points: Sequence[Point] = ()
) -> list[Trial]:
    """What a strategy proposes, after these points, where the loss of every mask is known; fewer trials if all networks
    are seen before."""
    study = optuna.create_study(sampler=sampler(strategy, seed=seed, space=SPACE))
    for point in first_points:
        study.enqueue_trial(SPACE.encode(point))
    networks = SPACE.count_classes()
    first: dict[Point, str] = {}  # mask of each network
    done: list[Trial] = []
    while len(done) < trials and len(first) < networks:
        asked = [study.ask() for _ in range(min(GENERATION, trials - len(done)))]
        for trial, point in zip(asked, [suggest(trial, SPACE) for trial in asked], strict=True):
            mask = mask_of(point)
            duplicate = (network := network_of(mask)) in first
            done.append(Trial(mask, first.setdefault(network, mask), duplicate))
            study.tell(trial, losses[done[-1].told])
    return done


def fresh(seed: int, losses: Mapping[str, float], trials: int) -> list[Trial]:
    """What random search proposes where duplicates do not count: masks in a random order, of each network the first."""
    first: dict[Point, str] = {}
    for place in np.random.default_rng(seed).permutation(len(MASKS)):
        first.setdefault(network_of(MASKS[place]), MASKS[place])
    return [Trial(mask, mask, False) for mask in first.values()][:trials]


@dataclass(frozen=True)
class Curves:
    """After each trial, constant from where the search ended: regret, held-out regret, number of duplicates."""

    regret: Values
    test_regret: Values
    duplicates: Values


def curves(done: Sequence[Trial], losses: Mapping[str, float], scores: Mapping[str, float], trials: int) -> Curves:
    """How a search went, by the losses that it saw and the test scores that it did not."""
    lowest, highest = min(losses.values()), max(scores.values())
    chosen, regret, test_regret = done[0].told, [], []
    for trial in done:
        chosen = min(chosen, trial.told, key=losses.__getitem__)
        regret.append(losses[chosen] - lowest)
        test_regret.append(highest - scores[chosen])
    repeated = np.cumsum([trial.duplicate for trial in done])
    more = (0, trials - len(done))
    return Curves(*(np.pad(np.array(values, float), more, "edge") for values in (regret, test_regret, repeated)))


def score(
    rows: Sequence[Row], *, searches: int = 20, trials: int = 256, strategies: Sequence[str] = (*STRATEGIES, FRESH)
) -> dict[str, Any]:
    """Regret and duplicates of each strategy, over so many searches of each seed's table; and what the tables hold.

    Raises
    ------
    ValueError : a mask is missing in the table of a seed.
    """
    tables: dict[int, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        tables[row.seed][row.mask] = row
    for seed, table in tables.items():
        if missing := len(MASKS) - len(table):
            raise ValueError(f"got a table without {missing} of {len(MASKS)} masks of seed {seed}: train them first")
    every = range(GENERATION - 1, trials, GENERATION)
    scores = {mask: fmean(table[mask].test_score for table in tables.values()) for mask in MASKS}
    best = max(MASKS, key=scores.__getitem__)
    told = {}
    for strategy in strategies:
        began, ends, found = perf_counter(), [], []
        for table in tables.values():
            losses = {mask: row.validation_loss for mask, row in table.items()}
            for seed in range(searches):
                done = (fresh if strategy == FRESH else partial(search, strategy))(seed, losses, trials)
                ends.append(len(done))
                found.append(curves(done, losses, scores, trials))
        seconds = perf_counter() - began
        regret, test_regret, duplicates = (
            np.array([getattr(one, field.name) for one in found])[:, every] for field in fields(Curves)
        )
        told[strategy] = {
            "regret": _band(regret),
            "test_regret": _band(test_regret),
            "duplicates": _rounded(duplicates.mean(axis=0)),
            "ended": round(fmean(ends), 1),
            "seconds_a_trial": round(seconds / sum(ends), 5),
        }
    return {
        "masks": len(MASKS),
        "networks": SPACE.count_classes(),
        "epochs": rows[0].epochs,
        "generation": GENERATION,
        "searches": searches * len(tables),
        "tables": [_summary(table) for table in tables.values()],
        "highest_test_score": {"mask": best, "mean": round(scores[best], 4)},
        "noise": noise(tables),
        "trials": [trial + 1 for trial in every],
        "strategies": told,
    }


def noise(tables: Mapping[int, Mapping[str, Row]]) -> dict[str, float]:
    """How far equal networks are apart, beside how far different ones are; constant networks are left out.

    ``equal``: standard deviation of the validation loss among masks of one network and seed, pooled. ``different``:
    standard deviation of the mean loss of a network over its masks, one seed. ``correlation``: of those means between
    two seeds, in ranks. All are means over the seeds.
    """
    masks: dict[Point, list[str]] = defaultdict(list)
    for mask in MASKS:
        masks[network_of(mask)].append(mask)
    networks = [group for point, group in masks.items() if point.depth > 1]
    losses = [[np.array([t[mask].validation_loss for mask in group]) for group in networks] for t in tables.values()]
    means = np.array([[group.mean() for group in of_seed] for of_seed in losses])
    squares = [sum(((group - group.mean()) ** 2).sum() for group in of_seed) for of_seed in losses]
    freedom = sum(len(group) - 1 for group in networks)
    ranks = np.atleast_2d(np.corrcoef(means.argsort(axis=1).argsort(axis=1)))
    others = ranks[np.triu_indices(len(means), 1)]
    return {
        "equal": round(fmean(float(total / freedom) ** 0.5 for total in squares), 4),
        "different": round(float(means.std(axis=1, ddof=1).mean()), 4),
        "correlation": round(float(others.mean()), 3) if len(others) else 1.0,
    }


def _summary(table: Mapping[str, Row]) -> dict[str, Any]:
    """The best by validation loss, and the middle one."""
    by_loss = sorted(table.values(), key=lambda row: row.validation_loss)
    told = {"best": by_loss[0], "median": by_loss[len(by_loss) // 2]}
    return {
        "seed": by_loss[0].seed,
        "seconds": round(sum(row.seconds for row in by_loss), 1),
        **{
            name: {key: getattr(row, key) for key in ("mask", "validation_loss", "validation_score", "test_score")}
            for name, row in told.items()
        },
    }


def _band(values: Values) -> dict[str, list[float]]:
    """Mean over the searches, its standard error, and between which values eight of ten searches are."""
    low, high = np.quantile(values, (0.1, 0.9), axis=0)
    told = {"mean": values.mean(axis=0), "error": values.std(axis=0, ddof=1) / len(values) ** 0.5}
    return {name: _rounded(of_each) for name, of_each in {**told, "low": low, "high": high}.items()}


def _rounded(values: Values) -> list[float]:
    return [round(float(value), 5) for value in values]


# ---- all of it -------------------------------------------------------------------------------------------------------


def main(
    *,
    out: Path = FOLDER,
    seeds: int = 3,
    epochs: int | None = None,
    retrain: bool = True,
    searches: int = 20,
    trials: int = 256,
) -> dict[str, Any]:
    """Complete ``regret.csv`` in the folder ``out``, or take it as it is, and let the strategies search it."""
    path = out / "regret.csv"
    if not retrain:
        return score(read(path), searches=searches, trials=trials)
    out.mkdir(parents=True, exist_ok=True)
    began, before = perf_counter(), len([row for row in read(path) if row.seed < seeds])
    done = 0

    def tell(added: list[Row]) -> None:
        nonlocal done
        done += len(added)
        left = seeds * len(MASKS) - before - done
        minutes = (perf_counter() - began) / done * left / 60
        print(f"{before + done} of {seeds * len(MASKS)} trained, {minutes:.0f} minutes left", flush=True)

    rows = complete(path, seeds=seeds, epochs=epochs, on_rows=tell)
    return score([row for row in rows if row.seed < seeds], searches=searches, trials=trials)


if __name__ == "__main__":
    import torch

    parser = argparse.ArgumentParser(prog="python -m experiments.regret", description="Regret on a table of all masks.")
    parser.add_argument("--seeds", type=int, default=3, help="of training (default 3)")
    parser.add_argument("--epochs", type=int, help=f"of training (default: {EPOCHS}); needs --out")
    parser.add_argument("--searches", type=int, default=20, help="of each strategy on each seed's table (default 20)")
    parser.add_argument("--trials", type=int, default=256, help="of a search (default 256)")
    parser.add_argument("--score", action="store_true", help="train nothing: search the table that is there")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of regret.csv and regret.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    result = main(
        out=arguments.out,
        seeds=arguments.seeds,
        epochs=arguments.epochs,
        retrain=not arguments.score,
        searches=arguments.searches,
        trials=arguments.trials,
    )
    for trials in (64, 256):
        if trials in result["trials"]:
            place = result["trials"].index(trials)
            print(f"after {trials} trials:")
            for strategy, told in result["strategies"].items():
                print(
                    f"  {strategy:18} regret {told['regret']['mean'][place]:.4f} ± {told['regret']['error'][place]:.4f}"
                    f", held-out {told['test_regret']['mean'][place]:.4f} ± {told['test_regret']['error'][place]:.4f}"
                    f", {told['duplicates'][place]:.0f} duplicates"
                )
    print(write("regret", "python -m experiments.regret", result, arguments.out))
