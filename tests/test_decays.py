"""The weight decay of few rows, and what the experiment on it says."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments import decays
from experiments.results import FOLDER
from experiments.tables import split_of
from search.defaults import default_space, space_of_kind
from search.shape import Shape


@pytest.mark.parametrize(("n_samples", "decay"), [(50, 3.0), (160, 2.5), (320, 1.2), (600, 1.0), (999, 1.0)])
def test_few_rows_of_a_table_have_one_decay_which_falls_as_rows_come_in(n_samples, decay):
    assert default_space(Shape(10, 1), n_samples).weight_decays == (decay,)


@pytest.mark.parametrize(
    ("kind", "shape", "n_samples", "decays"),
    [
        ("dense", Shape(10, 1), 1000, (0.13, 0.4)),
        ("dense", Shape(11, 1, (1, 11)), 200, (0.2, 0.67)),
        ("dense", Shape(64, 10, (1, 8, 8)), 500, (0.27, 0.8)),
        ("convolution", Shape(64, 10, (1, 8, 8)), 500, (0.27, 0.8)),
    ],
)
def test_other_data_choose_among_two(kind, shape, n_samples, decays):
    assert space_of_kind(kind, shape, n_samples).weight_decays == decays


@pytest.mark.parametrize("n_samples", [300, 3000])
def test_learning_rates_are_of_the_kind(n_samples):
    image = Shape(64, 10, (1, 8, 8))
    assert default_space(Shape(10, 1), n_samples).learning_rates == (0.004, 0.008, 0.016)
    assert space_of_kind("dense", image, n_samples).learning_rates == (0.004, 0.008, 0.016)
    assert space_of_kind("convolution", image, n_samples).learning_rates == (0.008, 0.016, 0.032)


def test_the_space_of_before_differs_in_decays_and_rates_alone():
    space = default_space(Shape(10, 1), 200)
    before = decays.as_before(space, 200)
    assert (before.weight_decays, before.learning_rates) == ((2.0, 6.0), (0.002, 0.004, 0.008))
    assert replace(before, weight_decays=space.weight_decays, learning_rates=space.learning_rates) == space
    assert decays.as_before(space, 100).weight_decays == (3.0, 9.0)


def test_it_compares_pairs_of_splits(monkeypatch):
    monkeypatch.setattr(
        decays, "scores", lambda space, data, split: (split, len(space.weight_decays), -len(space.weight_decays))
    )
    found = decays.of("wine", (1, 3))
    assert found["one"] == {"before": 2.0, "ahead": 0.0, "error": 0.0}
    assert found["best"] == {"before": 2.0, "ahead": -1.0, "error": 0.0}
    assert found["together"] == {"before": -2.0, "ahead": 1.0, "error": 0.0}


def test_the_best_have_the_lowest_loss(monkeypatch):
    dataset = split_of("wine", 0)
    losses = np.arange(decays.NETWORKS)[::-1]
    held_out = dataset.test.y
    others = (held_out + 1) % 3

    def train(points, folds, recipe, seed, seeds):
        assert len(folds) == 5
        assert not recipe.rungs
        return [type("Outcome", (), {"loss": loss}) for loss in losses]

    def said_by(machines, whole):
        return [np.eye(3)[held_out if loss in (0, 8) else others] * 9 for loss in losses]

    monkeypatch.setattr(decays, "train", train)
    monkeypatch.setattr(decays, "refit", lambda points, *_, **__: points)
    monkeypatch.setattr(decays, "said_by", said_by)
    one, best, together = decays.scores(default_space(dataset.shape, 100), dataset, 0)
    assert (one, best, together) == (2 / decays.NETWORKS, 1.0, 0.0)


def test_a_real_split_is_scored(monkeypatch):
    monkeypatch.setattr(decays, "NETWORKS", 2)
    monkeypatch.setattr(decays, "SHORT", 2)
    dataset = split_of("wine", 0)
    space = default_space(dataset.shape, len(dataset.train))
    assert all(0.8 < score <= 1 for score in decays.scores(space, dataset, 0))


def test_the_default_is_what_the_results_like():
    found = json.loads((FOLDER / "decays.json").read_text())["result"]
    for what in decays.WHAT:
        assert np.mean([told[what]["ahead"] for told in found.values()]) > 0
    sure = [told["one"]["ahead"] / told["one"]["error"] for told in found.values()]
    assert sum(error > 2 for error in sure) > len(sure) / 2
    assert min(sure) > -2
