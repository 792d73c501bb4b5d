"""The table of all masks, and the searches on it: driven as the real driver drives them, and measured by hand."""

import csv
import json
from dataclasses import replace

import matplotlib
import numpy as np
import optuna
import pytest
import torch

from experiments import regret
from experiments.results import FOLDER
from figures import regret as regret_figure
from search import study, work
from search.comparison import final
from search.config import USUAL
from search.data import load
from search.isomorphism.canonical import canonical
from search.population import Outcome, evaluate, train
from search.recipe import Recipe
from search.run import Settings
from search.suggest import STRATEGIES
from search.training.machine import build

matplotlib.use("Agg")

FULL, LINEAR, NOTHING = "1" * 10, "0000001000", "0" * 10


@pytest.fixture(autouse=True, scope="module")
def quiet():
    threads, verbosity = torch.get_num_threads(), optuna.logging.get_verbosity()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    torch.set_num_threads(threads)
    optuna.logging.set_verbosity(verbosity)


def loss(point):
    """The same for equal networks; lowest for all shortcuts but one."""
    form = canonical(point)
    wish = regret.point_of("1111101111").mask
    size = len(form.mask)
    return (
        0.1 + 0.01 * float((wish[:size, :size] ^ form.mask).sum()) + 0.05 * (5 - size) + 0.001 * sum(form.widths) / 48
    )


@pytest.fixture(scope="module")
def losses():
    return {mask: loss(regret.point_of(mask)) for mask in regret.MASKS}


def rows_of(losses, seeds=(0, 1)):
    return [
        regret.Row(mask, seed, 1, value + 0.01 * seed, 1 - value, value, 0.9 - value, 0.1)
        for seed in seeds
        for mask, value in losses.items()
    ]


# ---- masks -------------------------------------------------------------------------------------------------------


def test_masks_are_all_points_of_the_space_by_the_pairs_that_the_docstring_names():
    points = [regret.point_of(mask) for mask in regret.MASKS]
    assert len(set(points)) == regret.SPACE.count() == 1024
    assert [regret.mask_of(point) for point in points] == list(regret.MASKS)
    pairs = regret.__doc__.split("output: ")[-1].rstrip(".\n ").split(", ")[-10:]
    for place, pair in enumerate(pairs):
        ((out, source),) = np.argwhere(regret.point_of("0" * place + "1" + "0" * (9 - place)).mask)
        assert pair.split()[-1] == f"{source}>{out}"


# ---- the table ---------------------------------------------------------------------------------------------------


def test_a_row_is_what_training_the_mask_alone_gives():
    dataset = load("digits", seed=1)
    recipe = replace(regret.recipe_of(dataset), epochs=2)
    for row in regret.results([FULL, LINEAR, NOTHING, "0110000000"], dataset, recipe, seed=1):
        point = regret.point_of(row.mask)
        assert point.blocks == 3  # as it stands
        (alone,) = train([point], (dataset,), recipe, 1)
        test = evaluate(alone.machine, dataset, dataset.test)
        expected = (alone.loss, alone.score, *test)
        got = (row.validation_loss, row.validation_score, row.test_loss, row.test_score)
        np.testing.assert_allclose(got, expected, atol=2e-3)
        assert (row.seed, row.epochs) == (1, 2)


def test_every_mask_gets_the_whole_schedule_of_the_table_that_is_published():
    recipe = regret.recipe_of(load("digits"))
    assert (recipe.rungs, recipe.patience) == ((), None)
    assert {row.epochs for row in regret.read(regret.FOLDER / "regret.csv")} == {recipe.epochs}


def test_a_table_that_was_cut_off_is_completed_and_nothing_is_trained_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(regret, "TOGETHER", 2)
    masks, options = [FULL, LINEAR, NOTHING, "1" * 9 + "0", "0" * 9 + "1"], {"seeds": 2, "epochs": 1}
    whole = regret.complete(tmp_path / "whole.csv", masks=masks, **options)

    class Killed(Exception):
        pass

    def kill(rows):
        killed.extend(rows)
        if len(killed) == 4:
            raise Killed

    killed, path = [], tmp_path / "cut.csv"
    with pytest.raises(Killed):
        regret.complete(path, masks=masks, on_rows=kill, **options)
    assert regret.read(path) == killed
    more = []
    rows = regret.complete(path, masks=masks, on_rows=more.extend, **options)
    assert rows == killed + more == regret.read(path)
    assert [replace(row, seconds=0) for row in rows] == [replace(row, seconds=0) for row in whole]
    assert [(row.seed, row.mask) for row in rows] == [(seed, mask) for seed in (0, 1) for mask in masks]
    with pytest.raises(ValueError, match=r"got 2 epochs, but .*cut.csv has rows of 1: choose another --out"):
        regret.complete(path, masks=masks, seeds=1, epochs=2)


def test_a_network_that_diverges_is_no_row():
    dataset = load("digits")
    dataset = replace(dataset, train=replace(dataset.train, x=dataset.train.x * np.float32(np.nan)))
    with pytest.raises(ValueError, match=f"mask {FULL} diverged with seed 3"):
        regret.results([FULL], dataset, replace(regret.recipe_of(dataset), epochs=1), seed=3)


# ---- the searches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategies_are_driven_as_the_real_driver_drives_them(strategy, losses, tmp_path, monkeypatch):
    def table(points, folds, recipe, seed, progress=None, **options):
        return [
            Outcome("complete", 1, 1, loss(point), 0.5, (), 0.0, 1.0, build(point, folds[0].shape, seed))
            for point in points
        ]

    for module in (work, final):
        monkeypatch.setattr(module, "train", table)
    settings = Settings(
        "digits", None, None, 5, strategy, 100, None, regret.GENERATION, regret.SPACE, Recipe(1, rungs=()), seeds=1
    )
    monkeypatch.setattr(final, "reference", lambda dataset, seconds: None)
    real = study.run(settings, load("digits", seed=5), tmp_path / "run").records
    done = regret.search(strategy, 5, losses, 100)
    assert [trial.mask for trial in done] == [regret.mask_of(record.point) for record in real]
    assert [trial.duplicate for trial in done] == [record.duplicate_of is not None for record in real]
    assert [losses[trial.told] for trial in done] == [record.loss for record in real]
    assert len(done) == 100


def test_a_duplicate_is_told_what_the_first_was():
    rng = np.random.default_rng(0)
    losses = dict(zip(regret.MASKS, rng.random(1024), strict=True))
    first = {}
    for trial in regret.search("random", 0, losses, 60):
        network = regret.network_of(trial.mask)
        assert trial.duplicate == (network in first)
        assert trial.told == first.setdefault(network, trial.mask)
    assert len(first) < 60


def test_a_search_ends_when_it_knows_every_network(losses):
    done = regret.search("evolution", 0, losses, 1024)
    assert len({regret.network_of(trial.mask) for trial in done}) == regret.SPACE.count_classes()
    assert len(done) < 1024


def test_random_search_without_duplicates_meets_networks_in_the_order_of_random_search(losses):
    # The first network is one of the two that 183 masks are, in 366 of 1024 cases.
    trivial = {regret.network_of(mask) for mask in (NOTHING, LINEAR)}
    first = [regret.network_of(regret.fresh(seed, losses, 1)[0].told) in trivial for seed in range(300)]
    assert abs(np.mean(first) - 366 / 1024) < 4 * np.sqrt(0.36 * 0.64 / 300)
    done = regret.fresh(0, losses, 256)
    assert len({regret.network_of(trial.told) for trial in done}) == len(done) == 112


def test_curves_by_hand():
    losses, scores = {"a": 0.5, "b": 0.2, "c": 0.3, "d": 0.1}, {"a": 0.7, "b": 0.9, "c": 0.95, "d": 0.92}
    done = [regret.Trial(*of) for of in (("a", "a", 0), ("c", "c", 0), ("b", "c", 1), ("b", "b", 0), ("a", "a", 1))]
    found = regret.curves(done, losses, scores, trials=7)
    np.testing.assert_allclose(found.regret, [0.4, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1])
    np.testing.assert_allclose(found.test_regret, [0.25, 0, 0, 0.05, 0.05, 0.05, 0.05])
    assert found.duplicates.tolist() == [0, 0, 1, 1, 2, 2, 2]


def test_scores_are_means_over_the_searches_of_every_table(losses):
    result = regret.score(rows_of(losses), searches=2, trials=32, strategies=("random", "evolution"))
    assert result["trials"] == [8, 16, 24, 32]
    assert result["searches"] == 4
    for strategy in ("random", "evolution"):
        every = [regret.search(strategy, seed, losses, 32) for seed in (0, 1)]  # a constant more changes no proposal
        expected = np.mean([min(losses[t.told] for t in done) for done in every]) - min(losses.values())
        told = result["strategies"][strategy]
        assert told["regret"]["mean"][-1] == pytest.approx(expected, abs=1e-5)
        assert told["test_regret"]["mean"][-1] == pytest.approx(expected, abs=1e-5)  # the score is 0.9 minus the loss
        assert told["duplicates"][-1] == np.mean([sum(t.duplicate for t in done) for done in every])
        assert np.less_equal(told["regret"]["low"], told["regret"]["high"]).all()
        assert told["ended"] == 32
    assert result["tables"][0]["best"]["mask"] == min(losses, key=losses.get)


def test_a_table_with_holes_is_not_scored(losses):
    with pytest.raises(ValueError, match="without 1 of 1024 masks of seed 1"):
        regret.score(rows_of(losses)[:-1])


def test_noise_is_that_which_was_put_in(losses):
    rng = np.random.default_rng(0)
    rows = [replace(row, validation_loss=row.validation_loss + 0.02 * rng.normal()) for row in rows_of(losses)]
    told = regret.score(rows, searches=2, trials=8, strategies=("random",))["noise"]
    assert told["equal"] == pytest.approx(0.02, rel=0.1)
    clean = regret.score(rows_of(losses), searches=2, trials=8, strategies=("random",))["noise"]
    assert clean["equal"] == 0
    assert clean["correlation"] == 1
    assert told["different"] == pytest.approx(np.hypot(clean["different"], 0.02), rel=0.2)


# ---- what is committed -------------------------------------------------------------------------------------------


def test_the_committed_table_is_whole_and_its_scores_are_the_files():
    rows, file = regret.read(FOLDER / "regret.csv"), json.loads((FOLDER / "regret.json").read_text())["result"]
    assert [(row.seed, row.mask) for row in rows] == [(seed, mask) for seed in range(3) for mask in regret.MASKS]
    result = regret.score(rows, searches=20, trials=32, strategies=("random", "evolution", regret.FRESH))
    known = file["trials"].index(32) + 1
    for strategy, told in result["strategies"].items():  # who changes a strategy: python -m experiments.regret --score
        there = file["strategies"][strategy]
        np.testing.assert_allclose(told["duplicates"], there["duplicates"][:known])
        for name in ("regret", "test_regret"):
            for kind, values in told[name].items():
                np.testing.assert_allclose(values, there[name][kind][:known], atol=2e-5)
    for name in ("tables", "noise", "highest_test_score"):
        assert result[name] == file[name]
    with (FOLDER / "regret.csv").open() as lines:
        assert next(csv.reader(lines)) == [
            *("mask", "seed", "epochs", "validation_loss", "validation_score", "test_loss", "test_score", "seconds")
        ]


def test_at_64_trials_evolution_has_at_most_half_the_regret_of_random_search():
    told = json.loads((FOLDER / "regret.json").read_text())["result"]
    place = told["trials"].index(64)
    regrets = {strategy: row["regret"]["mean"][place] for strategy, row in told["strategies"].items()}
    assert set(regrets) == {*STRATEGIES, regret.FRESH}
    assert regrets["evolution"] <= regrets["random"] / 2
    assert min(regrets, key=regrets.__getitem__) == USUAL["strategy"]


def test_the_figure_is_written_twice_with_the_same_bytes(tmp_path):
    first, second = regret_figure.main(out=tmp_path / "a"), regret_figure.main(out=tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert one.stat().st_size > 10_000
