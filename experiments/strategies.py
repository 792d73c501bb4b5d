"""What each strategy of the search makes of the same time on real data, beside random search.

Searches with default settings but for the strategy, of 10 s each, on splits that no other results are reported on; the
data sets' rows are those of others. On a split the strategies take turns at being first.

trained : how many networks there was time for; proposals that repeat others are no more.
loss : the lowest validation loss that was met, of folds where there are few rows, which is what a strategy is asked
    for. It is in part luck.
winner, together : what users have of it: the score (accuracy or R²) on a quarter of the rows that no search has seen.

Of each the mean over splits, with what it is ahead of random search by and the standard error of that, of splits; a
loss is ahead where it is larger.

    python -m experiments.strategies       about 45 minutes

What ``strategies.csv`` holds already, of searches as long, is not searched again, so it can be interrupted at any time.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from experiments import quality
from experiments.results import FOLDER, write
from experiments.tables import ahead, split_of
from search.run import write_csv
from search.suggest import DIFFERENTIABLE
from search.suggest import STRATEGIES as FROM_TRIALS

DIGITS = "digits, dense"
DATA = ("breast_cancer", "diabetes", "star98", DIGITS)
STRATEGIES = (*FROM_TRIALS, DIFFERENTIABLE)
BESIDE = "random"
FIRST, SPLITS = 400, 8
SECONDS = 10.0
WHAT = ("trained", "loss", "winner", "together")


@dataclass(frozen=True)
class Search:
    """What came of a search."""

    data: str
    split: int
    strategy: str
    seconds: float
    trained: int
    loss: float
    winner: float
    together: float


def main(
    *,
    names: Sequence[str] = DATA,
    splits: Sequence[int] = range(FIRST, FIRST + SPLITS),
    seconds: float = SECONDS,
    path: Path = FOLDER / "strategies.csv",
) -> dict[str, Any]:
    """The figures by data set and strategy."""
    known = read(path)
    for name in names:
        for split in splits:
            turn = split % len(STRATEGIES)
            for strategy in (*STRATEGIES[turn:], *STRATEGIES[:turn]):
                if (name, split, strategy, seconds) not in known:
                    found = known[name, split, strategy, seconds] = searched(name, split, strategy, seconds)
                    write_csv(path, [asdict(one) for one in known.values()])
                    print(found, flush=True)
    return {
        "seconds": seconds,
        **{
            name: {
                strategy: figures(
                    *([known[name, split, one, seconds] for split in splits] for one in (strategy, BESIDE))
                )
                for strategy in STRATEGIES
            }
            for name in names
        },
    }


def searched(name: str, split: int, strategy: str, seconds: float) -> Search:
    """A search with default settings, but for the strategy."""
    dataset = quality.data(name, split) if name == DIGITS else split_of(name, split)
    result = quality.searched(name, dataset, split, strategy, seconds)
    rows = {row.name.split(" (")[0]: row.test_score for row in result.rows}
    winner = rows["winner"]
    together = rows.get("ensemble", winner)  # of one finalist, where there was time for no more
    assert winner is not None
    assert together is not None
    loss = min(record.loss for record in result.records if record.is_valid)
    trained = sum(record.epochs > 0 for record in result.records)
    return Search(name, split, strategy, seconds, trained, round(loss, 6), round(winner, 6), round(together, 6))


def figures(ours: Sequence[Search], theirs: Sequence[Search]) -> dict[str, Any]:
    """Means, and how far ahead of the others, split by split."""
    return {
        what: {
            "mean": fmean(getattr(one, what) for one in ours),
            **ahead([getattr(one, what) - getattr(other, what) for one, other in zip(ours, theirs, strict=True)]),
        }
        for what in WHAT
    }


def read(path: Path) -> dict[tuple[str, int, str, float], Search]:
    """The searches in the file; none if there is none."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        found = [
            Search(
                line["data"], int(line["split"]), line["strategy"], float(line["seconds"]), int(line["trained"]),
                *(float(line[what]) for what in WHAT[1:]),
            )
            for line in csv.DictReader(file)
        ]  # fmt: skip
    return {(one.data, one.split, one.strategy, one.seconds): one for one in found}


def table(results: Mapping[str, Any]) -> str:
    """The means as lines of text."""
    told = []
    for name in DATA:
        told.append(name)
        for strategy, found in results[name].items():
            line = f"  {strategy:15} {found['trained']['mean']:6.0f} trained"
            for what in WHAT[1:]:
                one = found[what]
                error = "" if strategy == BESIDE else f" ({one['ahead']:+.4f} ± {one['error']:.4f})"
                line += f"   {what} {one['mean']:.4f}{error}"
            told.append(line)
    return "\n".join(told)


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = main()
    print(table(result))
    print(write("strategies", "python -m experiments.strategies", result))
