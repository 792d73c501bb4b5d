"""How good the networks are that a search finds, on data that it never sees, beside its rivals.

The search has its default settings, whatever the data. The test part is the one that most publications use: a quarter
of the rows, by scikit-learn's ``train_test_split(test_size=0.25, random_state=seed)``, not stratified; from the rest
the search cuts its validation itself. For every seed there is a second search of the same length, by random draws.

winner, ensemble : the mean test score of the winner's five trainings, and the score of the five best together: accuracy
    or R², and of series the root of the mean squared error, which is to be small.
random search : the same of the second search.
random, plain, scikit-learn : the rivals of the first search; see the footnotes of its leaderboard.

``±`` is the standard deviation over the seeds; p is of Wilcoxon's signed rank test of the winner against each, and of
the ensemble against that of the random search, two sides, paired by seed.

    python -m experiments.quality --out quality                      all, about an hour
    python -m experiments.quality diabetes --seeds 3 --out quality   some

What ``quality.csv`` of that folder holds already, by searches as long, is not searched again, so it can be interrupted
at any time. Without ``--out`` the folder is that of the results that are published, which are then told again.
"""

import argparse
import csv
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from time import perf_counter
from typing import Any

import numpy as np

from experiments.results import FOLDER, write
from search import study
from search.config import SECONDS
from search.data import dataset, load
from search.data.parts import Dataset
from search.defaults import default_folds, default_recipe, space_for
from search.one_of import OneOf
from search.record import Row, Settings
from search.run import write_csv
from search.training.pace import paced

DATA = {"digits": 10, "digits, dense": 10, "breast_cancer": 10, "diabetes": 10, "sunspots": 5}  # seeds of each
STRATEGY = "evolution"
COLUMNS = ("data", "seed", "name", "score")
Known = dict[tuple[str, int], dict[str, float]]  # scores by name, of a data set and a seed


def data(name: str, seed: int) -> Dataset:
    """A bundled data set, a quarter of it held out."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    kind = name.split(",")[0]
    if kind == "sunspots":  # in the order of time: the seed is of the search alone
        return load(kind)
    x, y = getattr(datasets, f"load_{kind}")(return_X_y=True)
    if kind == "digits":
        x = x.reshape(-1, 8, 8)
    inside, outside, known, asked = train_test_split(x, y, test_size=0.25, random_state=seed)
    return dataset((inside, known), held_out=(outside, asked), name=kind, seed=seed)


def searched(name: str, dataset: Dataset, seed: int, strategy: str, seconds: float) -> study.Result:
    """A search with default settings, in a folder that nobody needs."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space, samples = space_for(dataset), len(dataset.train)
    if name == "digits, dense" and isinstance(space, OneOf):
        space = space.of("dense")
    wish = Settings(
        name, None, None, seed, strategy, None, seconds, 8, space, default_recipe(samples), default_folds(samples)
    )
    with tempfile.TemporaryDirectory() as folder:
        return study.run(paced(wish, dataset), dataset, Path(folder, "run"))


def scores_of(dataset: Dataset, rows: Sequence[Row], others: Sequence[Row]) -> dict[str, float]:
    """Test scores by name, of a search and of the random one beside it."""
    found: dict[str, float] = {}
    for prefix, some in (("", rows), ("random search", others)):
        for row in some:
            name = row.name.split(" (")[0]
            if row.test_score is None or (prefix and row.trial is None):
                continue
            name = {"winner": prefix, "ensemble": f"{prefix}, ensemble"}[name] if prefix else name
            found["plain" if name.startswith("plain") else name] = row.test_score
    if dataset.history is None:
        return found
    spread = float(dataset.values(dataset.test).std())
    return {name: spread * (1 - score) ** 0.5 for name, score in found.items()}


def main(
    *, datasets: Mapping[str, int] = DATA, seconds: float = SECONDS, path: Path = FOLDER / "quality.csv"
) -> dict[str, Any]:
    """Scores of every search, means, and p-values.

    Parameters
    ----------
    datasets : how many seeds of each.
    seconds : of each search, not counting its end: as the command line has it when no limit is given.
    path : of the scores that are known already, which those that are found are added to.
    """
    known = read(path)
    for name, seeds in datasets.items():
        for seed in range(seeds):
            if known.get((name, seed), {}).get("limit") == seconds:
                continue
            dataset, began = data(name, seed), perf_counter()
            rows = searched(name, dataset, seed, STRATEGY, seconds).rows
            took = round(perf_counter() - began, 1)
            others = searched(name, dataset, seed, "random", seconds).rows
            known[name, seed] = {"limit": seconds, "seconds": took, **scores_of(dataset, rows, others)}
            write_csv(path, [dict(zip(COLUMNS, line, strict=True)) for line in lines(known)])
            print(name, seed, {k: round(v, 4) for k, v in known[name, seed].items()}, flush=True)
    results: dict[str, Any] = {"seconds": seconds}
    for name, seeds in datasets.items():
        runs = [known[name, seed] for seed in range(seeds)]
        results[name] = {"slowest": max(run["seconds"] for run in runs), "summary": summary(runs)}
    return results


def read(path: Path) -> Known:
    """The scores in the file; none if there is none."""
    known: Known = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                known.setdefault((line["data"], int(line["seed"])), {})[line["name"]] = float(line["score"])
    return known


def lines(known: Known) -> list[tuple[str, int, str, float]]:
    """A line for each score."""
    return [(*of, name, round(score, 6)) for of, scores in known.items() for name, score in scores.items()]


def summary(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """Mean, standard deviation and the p-value against the winner, by name."""
    from scipy.stats import wilcoxon

    names = [name for name in runs[0] if name not in ("limit", "seconds") and all(name in run for run in runs)]
    scores = {name: np.array([run[name] for run in runs]) for name in names}
    told: dict[str, dict[str, float | None]] = {}
    for name, values in scores.items():
        ours = scores.get("ensemble" if name.endswith(", ensemble") else "winner", scores["winner"])
        ahead = np.round(ours - values, 5)  # the file's digits; equal differences are ties
        p = float(wilcoxon(ahead).pvalue) if ahead.any() else None
        told[name] = {"mean": fmean(values), "sd": stdev(values) if len(runs) > 1 else None, "p": p}
    return told


def table(results: Mapping[str, Any], datasets: Mapping[str, int]) -> str:
    """The means as lines of text."""
    told = []
    for name, seeds in datasets.items():
        told.append(f"{name}, {seeds} seeds, at most {results[name]['slowest']:.0f} s a search")
        for rival, figures in results[name]["summary"].items():
            sd = "" if figures["sd"] is None else f" ± {figures['sd']:.4f}"
            p = "" if figures["p"] is None else f"  p = {figures['p']:.3f}"
            told.append(f"  {rival:24} {figures['mean']:.4f}{sd}{p}")
    return "\n".join(told)


if __name__ == "__main__":
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", default=list(DATA), help=f"some of {', '.join(DATA)}")
    parser.add_argument("--seeds", type=int, help="splits of each, from seed 0 on")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each search")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of quality.csv and quality.json")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    wanted = {name: DATA[name] if chosen.seeds is None else chosen.seeds for name in chosen.datasets}
    chosen.out.mkdir(parents=True, exist_ok=True)
    found = main(datasets=wanted, seconds=chosen.seconds, path=chosen.out / "quality.csv")
    print(table(found, wanted))
    if wanted == DATA:
        print(write("quality", "python -m experiments.quality", found, chosen.out))
    else:
        print(f"a part alone: {chosen.out}/quality.json stays as it was")
