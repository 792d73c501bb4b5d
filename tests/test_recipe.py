"""The experiment on recipes: what is trained, chosen and told."""

from dataclasses import replace

import pytest

from experiments import recipe
from search.data import load
from search.defaults import default_space
from search.population import evaluate, train
from search.recipe import Recipe
from search.shape import Shape


def test_a_recipe_is_judged_by_the_network_that_validation_chooses():
    dataset, few = load("diabetes", seed=1), Recipe(epochs=2, rungs=(), patience=None)
    points = [replace(point, weight_decay=1.0, batch_size=32) for point in recipe.NETWORKS]
    outcomes = [train([point], (dataset,), few, 3)[0] for point in points]
    best = min(outcomes, key=lambda outcome: outcome.loss)
    expected = evaluate(best.machine, dataset, dataset.test)[1]
    assert recipe.held_out(dataset, few, 1.0, 32, seed=3) == pytest.approx(expected, rel=1e-4)


def test_every_recipe_is_a_row_of_mean_and_deviation(monkeypatch):
    tried = []

    def held_out(dataset, schedule, decay, batch_size, seed):
        tried.append((dataset.name, schedule.rungs, schedule.patience, decay, batch_size, seed))
        return decay + seed

    monkeypatch.setattr(recipe, "held_out", held_out)
    rows = recipe.main(datasets=("digits",), seeds=2, decays=(0.1, 1.0), batch_sizes=(32,))
    assert [row["recipe"] for row in rows] == ["decay 0.1, batch 32", "decay 1, batch 32", "default"]
    assert [row["test"] for row in rows][:2] == pytest.approx([0.6, 1.5])
    assert [row["sd"] for row in rows] == pytest.approx([0.5**0.5] * 3)
    space = default_space(Shape(64, 10, (1, 8, 8)), len(load("digits").train)).of("dense")
    assert tried[-1] == ("digits", (), None, space.weight_decays[1], space.batch_sizes[0], 1)
