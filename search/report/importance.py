"""What decided the loss: the share of each thing that varied in a search, by functional ANOVA over its trials."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from search.graph.point import GraphPoint
from search.numbers import grouped
from search.point import AnyPoint, hyperparameters
from search.record import Record

FEWEST = 20  # trials: of fewer, shares are mostly luck
MOST = 400  # trials: the time grows with their square
TREES, SPLITS = 16, 6  # of the forest: its depth; shares of made-up trials are right to some percent

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "kind": "kind of machine",
        "blocks": "number of hidden blocks",
        "machines": "number of machines",
        "depth": "depth",
        "width": "units in all hidden blocks",
        "activation": "activation of most blocks",
        "shortcuts": "shortcuts, their share",
        "recurrences": "number of recurrences",
        "timeblock": "time block",
        "kernel": "kernel",
        "dilation": "dilation",
        "scale": "pooling",
        "learning_rate": "learning rate",
        "weight_decay": "weight decay",
        "batch_size": "batch size",
        "transform": "transform of the target",
        "block_penalty": "group lasso over shortcuts",
        "smoothing": "label smoothing",
        "input_noise": "noise added to inputs",
        "input_dropout": "inputs left out",
    }
)


@dataclass(frozen=True)
class Importance:
    """Shares of what varied, the largest first, which add up to 1; and a sentence of what they are from.

    Parameters
    ----------
    shares : by the name of the trait, as people call it; none where there are too few trials, which ``says`` tells.
    """

    shares: tuple[tuple[str, float], ...]
    says: str


def traits(point: AnyPoint) -> dict[str, str | float]:
    """What a network is like, in a few words and numbers: a code has a parameter for each block and pair of blocks.

    >>> mask = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]
    >>> from search.point import Point
    >>> few = traits(Point((8, 8), ("relu", "tanh"), mask, 1e-3))
    >>> few["blocks"], few["width"], few["activation"], round(few["shortcuts"], 2)
    (2, 16, 'relu', 0.33)
    """
    if isinstance(point, GraphPoint):
        return {"machines": len(point.machines), "depth": point.depth, **hyperparameters(point)}
    blocks = point.blocks + 2
    possible = (blocks - 1) * (blocks - 2) // 2
    return {
        "kind": point.kind,
        "blocks": point.blocks,
        "width": sum(point.widths),
        "activation": Counter(point.activations).most_common(1)[0][0] if point.activations else "none",
        "shortcuts": float(np.tril(point.mask, -2).sum()) / possible if possible else 0.0,
        "recurrences": int(point.masks[1:].sum()),
        "timeblock": point.timeblock,
        "kernel": point.kernel,
        "dilation": point.dilation,
        "scale": max(point.scales, default=0),
        **{name: value for name, value in hyperparameters(point).items() if value is not None},
    }


def importance(records: Sequence[Record]) -> Importance:
    """Which trait of the networks tells most about the order of their losses.

    Functional ANOVA (Hutter, Hoos and Leyton-Brown 2014, as Optuna has it): a forest learns the rank of the loss from
    the traits, and of the variance of what it says each trait has a share. Ranks, since one loss far off would be most
    of the variance. Trials that were stopped early count with the loss that they had.
    """
    trained = [record for record in records if record.is_valid and record.duplicate_of is None]
    if len(trained) < FEWEST:
        return Importance((), f"Told from {FEWEST} trained trials on; this search has {len(trained)}.")
    some = [trained[i * len(trained) // MOST] for i in range(MOST)] if len(trained) > MOST else trained
    table = [traits(record.canonical) for record in some]
    varied = [n for n in NAMES if all(n in row for row in table) and len({row[n] for row in table}) > 1]
    ranks = np.unique([record.loss for record in some], return_inverse=True)[1] / len(some)
    if len(varied) < 2 or not ranks.any():
        return Importance((), "Nothing to compare: the trials differ in one thing at most, or have all the same loss.")
    try:
        shares = _shares([{name: row[name] for name in varied} for row in table], ranks.tolist())
    except ImportError:
        return Importance((), "Not told, for it needs scikit-learn: pip install machgraph[data].")
    number = grouped(len(some)) + (f", evenly from {grouped(len(trained))}" if len(some) < len(trained) else "")
    says = (
        f"Of how a forest explains the order of the losses of {number} trials (functional ANOVA), the share of each "
        "thing that varied. The shares add up to 100 %, whether much can be explained or little, and a small one may "
        "be luck; a search that tries the promising more often than the rest tells less of the rest."
    )
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return Importance(tuple((NAMES[name], share) for name, share in ordered), says)


def _shares(table: Sequence[Mapping[str, str | float]], values: Sequence[float]) -> dict[str, float]:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    distributions: dict[str, BaseDistribution] = {}
    for name in table[0]:
        found = sorted({row[name] for row in table})  # all words, or all numbers
        if isinstance(found[0], str):
            distributions[name] = CategoricalDistribution(found)
        else:
            low, high = float(found[0]), float(found[-1])
            distributions[name] = FloatDistribution(low, high, log=low > 0 and high > 5 * low)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        study = optuna.create_study()
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials(
        optuna.trial.create_trial(
            value=value,
            params={n: v if isinstance(v, str) else float(v) for n, v in row.items()},
            distributions=distributions,
        )
        for row, value in zip(table, values, strict=True)
    )
    evaluator = FanovaImportanceEvaluator(n_trees=TREES, max_depth=SPLITS, seed=0)
    found_shares = get_param_importances(study, evaluator=evaluator)
    return {name: float(share) if math.isfinite(share) else 0.0 for name, share in found_shares.items()}
