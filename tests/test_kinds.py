"""The experiment on kinds of machines for series: what it looks at, and what is committed."""

import json

import numpy as np
import pytest

from experiments import kinds
from experiments.results import FOLDER
from search.data import from_series


def test_figures_are_of_the_points_that_are_liked_best():
    data = from_series(5 + np.sin(np.arange(80) / 3), lags=4)
    for kind in kinds.SPACES:
        few, all_of_them = kinds.figures(data, kind, 6, epochs=2), kinds.figures(data, kind, kinds.BEST, epochs=2)
        assert few["validation, best"] <= few["validation"]
        assert all_of_them["seconds"] > 0
        assert 0 < few["held out, best"] < 10
    assert kinds.figures(data, "dense", 6, epochs=2)["held out"] == pytest.approx(
        kinds.figures(data, "dense", 6, epochs=2)["held out"]
    )


def test_the_sunspots_end_before_the_years_that_are_reported_on():
    for last in (1928, 1958):
        data = kinds._sunspots(last)
        assert len(data.history) == last - 1699
        assert len(data.test) in (49, 50)


def test_recurrences_tell_most_series_worse():
    """What the default space says of them."""
    found = json.loads((FOLDER / "kinds.json").read_text())["result"]
    assert found.keys() == kinds.SERIES.keys()
    worse = [told["recurrence"]["held out, best"] > told["dense"]["held out, best"] for told in found.values()]
    liked = [told["recurrence"]["validation, best"] < told["dense"]["validation, best"] for told in found.values()]
    assert sum(worse) > len(found) / 2
    assert sum(liked) > len(found) / 2
