"""What it is worth to read skewed numbers twice: as they are, and straightened by a power.

Networks are drawn from the default space, trained on three quarters of the rows and looked at on the last quarter, with
and without the straightened features. The splits are none that results are reported on, but the rows of breast_cancer
are; of the others nothing else is reported. Of large tables some rows are taken.

one, together : the score (accuracy or R²) of a network on the last quarter, and of five of them together: the mean
    over splits without straightened features, what it differs by with them, and the standard error of that, of pairs.
skewed : how many of the columns are read twice, on average.

    python -m experiments.straightened     some minutes
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.results import write
from search.data import Dataset, Part, dataset
from search.defaults import default_recipe, default_space
from search.isomorphism.canonical import canonical
from search.population import refit
from search.space import Space
from search.training.machine import answers

FIRST, SPLITS = 100, 40
NETWORKS, TOGETHER = 10, 5
ROWS = 1200  # of a table, at most
Table = tuple[Any, Any]  # columns, answers


def bundled(name: str) -> Table:
    """Of scikit-learn."""
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return x, y


def surveyed(name: str, target: str, without: Sequence[str] = ()) -> Table:
    """Of statsmodels; a target of names has few classes, one of numbers is regression."""
    from statsmodels import datasets

    frame = getattr(datasets, name).load_pandas().data
    frame = frame.sample(min(ROWS, len(frame)), random_state=0)
    return frame.drop(columns=[target, *without]), frame[target]


def affairs() -> Table:
    """Whether there was any."""
    x, y = surveyed("fair", "affairs")
    return x, np.where(y > 0, "some", "none")


def passed() -> Table:
    """The share of pupils above the median in mathematics, of school districts."""
    x, above = surveyed("star98", "NABOVE")
    return x.drop(columns="NBELOW"), above / (above + x["NBELOW"])


DATA: Mapping[str, Callable[[], Table]] = {
    "breast_cancer": lambda: bundled("breast_cancer"),
    "wine": lambda: bundled("wine"),
    "anes96": lambda: surveyed("anes96", "vote", ("PID", "logpopul")),  # of these one tells the vote
    "fair": affairs,
    "randhie": lambda: surveyed("randhie", "mdvis"),
    "star98": passed,
}


def main(*, names: Sequence[str] = tuple(DATA), splits: Sequence[int] = range(FIRST, FIRST + SPLITS)) -> dict[str, Any]:
    """The figures by data set."""
    return {name: of(name, splits) for name in names}


def of(name: str, splits: Sequence[int]) -> dict[str, Any]:
    """What straightened features are worth for a data set."""
    from sklearn.model_selection import train_test_split

    x, y = DATA[name]()
    both = []
    for split in splits:
        inside, outside, known, asked = train_test_split(x, y, test_size=0.25, random_state=split)
        twice = dataset((inside, known), held_out=(outside, asked), name=name, seed=split)
        both.append((scores(as_given(twice), split), scores(twice, split), skewed(twice)))
    found: dict[str, Any] = {"splits": len(splits), "skewed": fmean(number for *_, number in both)}
    for i, what in enumerate(("one", "together")):
        ahead = [new[i] - old[i] for old, new, _ in both]
        found[what] = {
            "without": fmean(old[i] for old, *_ in both),
            "ahead": fmean(ahead),
            "error": stdev(ahead) / len(ahead) ** 0.5 if len(ahead) > 1 else None,
        }
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
    x = torch.from_numpy(whole.test.x)
    with torch.no_grad():
        said = [answers(machine, x, whole.shape).double().numpy() for machine in machines]
    means = [mean(said[k : k + TOGETHER], dataset) for k in range(0, NETWORKS, TOGETHER)]
    return fmean(dataset.score(whole.test, one) for one in said), fmean(dataset.score(whole.test, one) for one in means)


def mean(said: Sequence[NDArray[np.float64]], dataset: Dataset) -> NDArray[np.float64]:
    """Of numbers; of classes the mean probabilities, as logarithms."""
    if not dataset.classes:
        return np.mean(said, axis=0)  # type: ignore[no-any-return]
    logarithms = np.array([one - np.logaddexp.reduce(one, axis=1, keepdims=True) for one in said])
    return np.log(np.exp(logarithms).mean(axis=0))  # type: ignore[no-any-return]


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
