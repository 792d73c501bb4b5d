"""Small tables, a quarter of their rows held out: of most of them no other results are reported."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from search.data import Dataset, dataset
from search.training.machine import answers

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
    "diabetes": lambda: bundled("diabetes"),
    "wine": lambda: bundled("wine"),
    "anes96": lambda: surveyed("anes96", "vote", ("PID", "logpopul")),  # of these one tells the vote
    "fair": affairs,
    "randhie": lambda: surveyed("randhie", "mdvis"),
    "star98": passed,
}


def split_of(name: str, split: int) -> Dataset:
    """The table with a quarter of its rows held out."""
    from sklearn.model_selection import train_test_split

    x, y = DATA[name]()
    inside, outside, known, asked = train_test_split(x, y, test_size=0.25, random_state=split)
    return dataset((inside, known), held_out=(outside, asked), name=name, seed=split)


def said_by(machines: Sequence[Any], dataset: Dataset) -> list[NDArray[np.float64]]:
    """What each says of the held-out part, ``(row, output)``."""
    x = torch.from_numpy(dataset.test.x)
    with torch.no_grad():
        return [answers(machine, x, dataset.shape).double().numpy() for machine in machines]


def mean(said: Sequence[NDArray[np.float64]], dataset: Dataset) -> NDArray[np.float64]:
    """Of numbers; of classes the mean probabilities, as logarithms."""
    if not dataset.classes:
        return np.mean(said, axis=0)  # type: ignore[no-any-return]
    logarithms = np.array([one - np.logaddexp.reduce(one, axis=1, keepdims=True) for one in said])
    return np.log(np.exp(logarithms).mean(axis=0))  # type: ignore[no-any-return]


def ahead(differences: Sequence[float]) -> dict[str, float | None]:
    """The mean of paired differences, and its standard error."""
    error = stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else None
    return {"ahead": fmean(differences), "error": error}
