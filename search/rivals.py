"""The leaderboard: the best architectures that a search found, and rivals of the winner, trained as it was."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count

import numpy as np

from machgraph.parametric import DenseMachine
from search.data import Dataset
from search.point import Point, canonical
from search.population import Outcome, evaluate, train, trained
from search.run import Facts, Record, Row, Settings

NAMES = ("winner", "second", "third", "fourth", "fifth")
DRAWS = 5  # an odd number: the median is one of them
STREAM = 2**32  # of random numbers; the proposals of trial n come from stream n


def ranking(records: Iterable[Record]) -> list[Record]:
    """The best record of each architecture, by validation loss; the earlier where two are equal."""
    valid = [record for record in records if record.is_valid and record.duplicate_of is None]
    best: dict[tuple[object, ...], Record] = {}
    for record in sorted(valid, key=lambda record: (record.loss, record.number)):
        point = record.canonical
        best.setdefault((point.widths, point.activations, point.shortcuts), record)
    return list(best.values())


def found(records: Iterable[Record], facts: Facts) -> list[Row]:
    """The rows of the best architectures; the held-out part is not looked at."""
    return [
        row(name, record.canonical, record, facts, trial=record.number)
        for name, record in zip(NAMES, ranking(records), strict=False)
    ]


def held_out(row: Row, machine: DenseMachine, dataset: Dataset) -> Row:
    """The row of a machine with what it does on the held-out part."""
    test_loss, test_score = evaluate(machine, dataset, dataset.test)
    return replace(row, test_loss=test_loss, test_score=test_score)


def row(name: str, point: Point, result: Record | Outcome, facts: Facts, trial: int | None = None) -> Row:
    """The row of one architecture, without the held-out part."""
    sizes = facts.n_inputs, facts.n_outputs
    return Row(
        name, trial, point, result.loss, result.score, None, None,
        point.depth, point.parameters(*sizes), point.flops(*sizes), result.seconds,
    )  # fmt: skip


def rivals(winner: Record, settings: Settings, dataset: Dataset, facts: Facts) -> list[Row]:
    """What the search is measured against: architectures drawn at random, and a plain multi-layer perceptron.

    All are trained with the recipe of the search without its halving, which is a choice among candidates; early
    stopping stays. The random architecture is the median, by validation loss, of five uniform draws from the space,
    each with its own learning rate. The perceptron has the winner's learning rate and, as near as a common width
    allows, its number of parameters.
    """
    rng = np.random.default_rng((settings.seed, STREAM))
    draws = [canonical(settings.space.sample(rng)) for _ in range(DRAWS)]
    points = [*draws, plain(winner.canonical, facts.n_inputs, facts.n_outputs)]
    outcomes = train(points, dataset, replace(settings.recipe, rungs=()), settings.seed)
    results = list(zip(points, outcomes, strict=True))
    middle = sorted(results[:DRAWS], key=lambda result: _comparable(result[1].loss))[DRAWS // 2]
    named = [(f"random (median of {DRAWS})", *middle), ("plain MLP", *results[-1])]
    return [
        held_out(row(name, point, outcome, facts), trained(point, dataset, outcome), dataset)
        for name, point, outcome in named
    ]


def plain(point: Point, n_inputs: int, n_outputs: int) -> Point:
    """A multi-layer perceptron as large as a point's machine.

    It has the same number of hidden blocks (at least one), all of the width that brings its number of parameters
    nearest to the machine's, the activation that most of its blocks have (or relu), and its learning rate.

    Examples
    --------
    >>> plain(Point((), (), ((False, False), (True, False)), 1e-3), 64, 10).describe(64, 10)
    '64-9-10 · relu · no shortcuts'
    """
    blocks = max(1, point.blocks)
    activation = Counter(point.activations).most_common(1)[0][0] if point.activations else "relu"
    mask = tuple(map(tuple, np.eye(blocks + 2, k=-1, dtype=bool).tolist()))
    wish = point.parameters(n_inputs, n_outputs)

    def of(width: int) -> Point:
        return Point((width,) * blocks, (activation,) * blocks, mask, point.learning_rate)

    width = next(width for width in count(1) if of(width + 1).parameters(n_inputs, n_outputs) > wish)
    return min((of(width), of(width + 1)), key=lambda mlp: abs(mlp.parameters(n_inputs, n_outputs) - wish))


def best(records: Sequence[Record]) -> Record | None:
    """The record of the winner so far."""
    return next(iter(ranking(records)), None)


def _comparable(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf
