"""The experiment on scale: it drives a real search with workers that train nothing."""

import json

import numpy as np
import pytest

from experiments import scale
from experiments.results import FOLDER
from search.recipe import Recipe
from search.space import Space
from search.work import Task


def test_simulated_workers_answer_by_the_point_alone():
    points = [Space().sample(np.random.default_rng(seed)) for seed in (0, 1, 0)]
    one, other, again = scale.Simulated(3).submit(Task(points, [(), (), ()], Recipe(), [None] * 3))(
        lambda *progress: None
    )
    assert one.loss == again.loss != other.loss
    assert len(one.curve) == Recipe().epochs
    assert scale.Simulated(3).ahead == 5


@pytest.mark.parametrize("workers", [1, 4])
def test_a_driven_search_has_a_cost_at_each_number(monkeypatch, workers):
    monkeypatch.setattr(scale, "TRIALS", (16, 24))
    found = scale.driven("evolution", workers, 24)
    assert found.keys() == {"16", "24", "memory"}
    assert min(found.values()) > 0


def test_what_trials_cost_after_many_random_ones():
    assert scale.later("tpe", 16) > 0


def test_the_committed_figures_are_of_all_settings():
    result = json.loads((FOLDER / "scale.json").read_text())["result"]
    assert result["workers"].keys() == scale.DATA.keys()
    assert result["driver"].keys() == {
        *(f"evolution, {number} workers" for number in scale.WORKERS),
        *(f"tpe, {number} workers" for number in scale.WORKERS[:2]),
    }
    evolution = result["driver"]["evolution, 1 workers"]
    assert evolution["10000"] < 100  # milliseconds a trial
    assert "100000" in evolution
    assert {"10000", "100000"} <= result["driver"]["tpe, 1 workers"].keys()
    assert evolution["memory"] < 2000  # megabytes
