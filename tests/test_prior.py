"""The experiment on what choices are worth: what is compared with what."""

from statistics import fmean

import pytest

from experiments import prior
from machgraph.partition import shortcut_mask
from search.data import load
from search.point import Point
from search.population import evaluate, refit
from search.recipe import Recipe


def tried(split, width, rate, loss, test):
    point = Point((width,), ("relu",), shortcut_mask(None, 3), rate)
    return prior.Tried(split, point, loss, 1 - loss, test)


def test_a_choice_is_worth_what_its_points_differ_by_from_their_split():
    found = prior.effects(
        [
            tried(0, 4, 0.01, 0.3, 0.9),
            tried(0, 4, 0.02, 0.5, 0.8),
            tried(1, 8, 0.01, 0.1, 0.6),
            tried(1, 8, 0.02, 0.1, 0.4),
        ]
    )
    rates = found["learning rate"]
    assert {rate: (told["points"], told["test"], told["loss"]) for rate, told in rates.items()} == {
        "0.01": (2, 0.075, -0.05),
        "0.02": (2, -0.075, 0.05),
    }
    assert rates["0.01"]["error"] == pytest.approx(0.025 / 2**0.5, abs=1e-5)
    assert found["blocks"] == {
        "1": {"points": 4, "test": 0.0, "error": pytest.approx(0.0791 / 2, abs=1e-4), "loss": 0.0}
    }


def test_the_selected_are_the_lowest_of_each_split():
    some = [tried(split, 4, 0.01 * (k + 1), k / 10, 0.9 - k / 10 - split / 4) for split in range(2) for k in range(6)]
    found = prior.selected(some[::-1])
    assert found["all"]["mean"] == pytest.approx(fmean(one.test for one in some), abs=1e-5)
    assert found["loss"] == found["score"] == {"best": 0.775, "best five": 0.575, "correlation": 1.0}


def test_points_are_looked_at_as_trained_on_all_that_is_not_held_out():
    dataset = load("diabetes", seed=1)
    found = prior.of_split(dataset, 7, 2, epochs=2)
    assert len({one.point for one in found}) == 2
    whole, recipe = dataset.whole(), Recipe(epochs=2, rungs=())
    for i, one in enumerate(found):
        machines = [refit([one.point], whole, recipe, [2], seed=7, seeds=[k + i])[0] for k in (0, 2)]
        assert one.test == pytest.approx(fmean(evaluate(m, whole, whole.test)[1] for m in machines), rel=1e-4)
