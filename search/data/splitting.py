"""Which rows go into which part: drawn by a seed and spread over classes, or cut in the order of time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]


def split(strata: NDArray[Any], seed: int, validation: float, test: float) -> tuple[Rows, ...]:
    """Row numbers of the training, validation and test part, each stratum spread evenly over the three.

    The rows in the order of `spread` are cut in three: so a part's share of a stratum is off by about one row at most,
    and a stratum of two rows has one in training. A share of 0 gives an empty part, any other at least one row.

    Raises
    ------
    ValueError : no row is left for training.

    Examples
    --------
    >>> strata = np.array([0] * 50 + [1] * 25)
    >>> [np.bincount(strata[part]).tolist() for part in split(strata, 0, 0.16, 0.2)]
    [[32, 16], [8, 4], [10, 5]]
    """
    order = spread(strata, seed)
    n_test, n_validation = (max(1, round(share * len(strata))) if share else 0 for share in (test, validation))
    n_train = len(strata) - n_test - n_validation
    if n_train < 1:
        raise ValueError(
            f"got {len(strata)} rows, of which validation={validation} and test={test} leave none to train on"
        )
    return tuple(np.sort(part) for part in np.split(order, (n_train, n_train + n_validation)))


def spread(strata: NDArray[Any], seed: int) -> Rows:
    """The rows in a random order in which each stratum is spread evenly.

    The members of a stratum are shuffled and take evenly spaced ranks in [0, 1), shifted at random; the rows come in
    the order of their ranks.
    """
    rng = np.random.default_rng(seed)
    rank = np.empty(len(strata))
    for stratum in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == stratum))
        rank[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(rank, kind="stable")


def folds(strata: NDArray[Any], number: int, seed: int) -> list[tuple[Rows, Rows]]:
    """For each fold the rows outside and inside of it, each stratum spread evenly over all folds.

    Raises
    ------
    ValueError : fewer than two folds, or more than there are rows.

    Examples
    --------
    >>> strata = np.array([0] * 50 + [1] * 25)
    >>> [np.bincount(strata[inside]).tolist() for _, inside in folds(strata, 5, 0)]
    [[10, 5], [10, 5], [10, 5], [10, 5], [10, 5]]
    """
    if not 2 <= number <= len(strata):
        raise ValueError(f"got {number} folds of {len(strata)} rows: at least 2, and a row for each, are needed")
    cuts = np.array_split(spread(strata, seed), number)
    return [(np.sort(np.concatenate(cuts[:k] + cuts[k + 1 :])), np.sort(inside)) for k, inside in enumerate(cuts)]


def rolling(rows: int, number: int) -> list[tuple[Rows, Rows]]:
    """For each fold of rows in the order of time those before it, and its own: the folds are the last half of the rows.

    Raises
    ------
    ValueError : fewer than two folds, or rows that are not enough for one each.

    Examples
    --------
    >>> [(len(before), inside.tolist()) for before, inside in rolling(9, 2)]
    [(5, [5, 6]), (7, [7, 8])]
    """
    size = rows // (2 * number) if number > 0 else 0
    if number < 2 or size < 1:
        raise ValueError(f"got {number} folds of {rows} rows in time: at least 2, and two rows for each, are needed")
    starts = [rows - (number - k) * size for k in range(number)]
    return [(np.arange(start), np.arange(start, start + size)) for start in starts]
