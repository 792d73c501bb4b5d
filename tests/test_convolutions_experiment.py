"""The experiment behind the default convolutions, on one epoch, and what its results say of the defaults."""

import json
from statistics import fmean

import pytest

from experiments import convolutions
from experiments.quality import data
from experiments.results import FOLDER
from search.defaults import default_recipe, space_of_kind
from search.population import train
from search.recipe import Recipe
from search.shape import Shape


def test_a_way_is_the_mean_over_wirings_folds_and_splits(monkeypatch):
    seen = []

    def told(points, folds, recipe, seed):
        seen.append((points, folds, recipe, seed, train(points, folds, recipe, seed)))
        return seen[-1][-1]

    monkeypatch.setattr(convolutions, "train", told)
    row = convolutions.trained("narrow", 1, 0.01, (200, 201))
    scores = [[outcome.score for outcome in outcomes] for *_, outcomes in seen]
    assert row["accuracy"] == pytest.approx(fmean(map(fmean, scores)))
    assert row["error"] == pytest.approx(abs(fmean(scores[0]) - fmean(scores[1])) / 2)
    for (points, folds, recipe, seed, _), split in zip(seen, (200, 201), strict=True):
        assert (seed, recipe) == (split, Recipe(1, rungs=()))
        assert {point.learning_rate for point in points} == {0.01}
        inside = data("digits", split)
        assert sum(len(fold.validation) for fold in folds) == len(inside.train) + len(inside.validation)


def test_draws_are_told_by_the_scale_of_their_first_block(monkeypatch):
    monkeypatch.setattr(convolutions, "default_recipe", lambda rows: Recipe(1, rungs=()))
    found = convolutions.by_first_scale(200, 6)
    assert sum(told["points"] for told in found.values()) == 6
    assert {*found} <= {"0", "1", "2", "no block"}
    assert all(0 <= told["lowest"] <= told["accuracy"] <= 1 for told in found.values())


def test_the_defaults_are_what_the_results_like():
    found = json.loads((FOLDER / "convolutions.json").read_text())["result"]
    rows = {(row["widths"], row["epochs"], row["rate"]): row for row in found["trained"]}
    space, recipe = space_of_kind("convolution", Shape(64, 10, (1, 8, 8)), 1150), default_recipe(1150)
    chosen = [rows["wide", recipe.epochs, rate] for rate in space.learning_rates]
    assert min(row["loss"] for row in rows.values()) in [row["loss"] for row in chosen]
    before = rows["narrow", 60, 4e-3]
    assert all(row["loss"] < before["loss"] and row["seconds"] < before["seconds"] for row in chosen)
    assert space.first_scale == 0
    assert found["drawn"]["0"]["lowest"] > found["drawn"]["1"]["accuracy"] > found["drawn"]["2"]["accuracy"]
