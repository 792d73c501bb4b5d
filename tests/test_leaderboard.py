"""Which architectures are the best, and what their rows say."""

import math
from dataclasses import replace
from statistics import fmean, stdev

import pytest

from machgraph.partition import shortcut_mask
from search.comparison.leaderboard import NAMES, best, found, ranking, row
from search.point import Point
from search.recipe import Recipe
from search.run import Facts, Record, Settings
from search.shape import Shape
from search.space import Space

FACTS = Facts("images", "classification", Shape(64, 3, (1, 8, 8)), ("a", "b", "c"), (), "f00", 10, None)
DENSE = Point((8,), ("relu",), shortcut_mask(None, 3), 1e-3)
SETTINGS = Settings("digits", None, None, 0, "random", 1, None, 1, Space(), Recipe())
WIDE = replace(DENSE, widths=(9,))
CONVOLUTION = replace(DENSE, kind="convolution", scales=(0, 1), kernel=3)


def record(number, point, loss, status="complete", duplicate_of=None):
    return Record(number, f"k{number}", point, point, status, 1, loss, 1 - loss, 0.5, duplicate_of, (loss,))


def test_each_architecture_is_ranked_once_by_its_best_record():
    records = [
        record(0, DENSE, 0.5),
        record(1, replace(DENSE, learning_rate=2e-3), 0.3),
        record(2, replace(DENSE, weight_decay=1.0, batch_size=32), 0.4),
        record(3, CONVOLUTION, 0.3),
        record(4, replace(CONVOLUTION, kernel=5), 0.6),
        record(5, replace(CONVOLUTION, scales=(1, 1)), 0.2),
        record(6, WIDE, math.nan),
        record(7, WIDE, 0.1, status="diverged"),
        record(8, replace(CONVOLUTION, scales=(1, 1)), 0.2, status="duplicate", duplicate_of=5),
    ]
    assert [r.number for r in ranking(records, SETTINGS)] == [5, 1, 3, 4]
    assert best(records, SETTINGS) == records[5]
    rows = found(records, FACTS, SETTINGS)
    assert [(r.name, r.trial, r.loss) for r in rows] == list(
        zip(NAMES[:4], (5, 1, 3, 4), (0.2, 0.3, 0.3, 0.6), strict=True)
    )
    assert all(r.test_loss is r.test_score is r.loss_sd is r.test_sd is None for r in rows)
    assert best([], SETTINGS) is None
    assert found([], FACTS, SETTINGS) == []


def test_a_row_is_the_mean_over_its_results():
    results = [record(i, CONVOLUTION, loss) for i, loss in enumerate((0.2, 0.5, 0.3))]
    told = row("second", CONVOLUTION, results, FACTS, {}, trial=4)
    losses = [result.loss for result in results]
    assert (told.loss, told.loss_sd) == pytest.approx((fmean(losses), stdev(losses)))
    assert told.score == pytest.approx(1 - fmean(losses))
    assert (told.depth, told.parameters, told.flops) == (
        CONVOLUTION.depth, CONVOLUTION.parameters(FACTS.shape), CONVOLUTION.flops(FACTS.shape),
    )  # fmt: skip
    assert (told.name, told.trial, told.seconds) == ("second", 4, 0.5)


@pytest.mark.parametrize("wild", [math.nan, math.inf])
def test_a_row_of_results_that_are_not_finite_has_no_deviation(wild):
    told = row("plain MLP", DENSE, [record(0, DENSE, 0.5), record(1, DENSE, wild, status="diverged")], FACTS, {})
    assert not math.isfinite(told.loss)
    assert told.loss_sd is None
