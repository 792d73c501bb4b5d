"""The driver where trials are of several kinds of machines, on images, and where they go over several folds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_study import RECIPE, SPACE, STRATEGIES, Cut, cut_at, dataset, ledger, quiet, same, settings, source, untimed

from machgraph.io import load as load_machine
from machgraph.io import load_metadata
from search import report, study
from search.comparison.leaderboard import NAMES
from search.data import load
from search.isomorphism.canonical import canonical, key
from search.one_of import OneOf
from search.population import scores, train
from search.recipe import Recipe
from search.run import BEST, Settings, read_facts, read_leaderboard, read_records, read_settings
from search.shape import Shape
from search.show import describe, read_machine
from search.space import Space
from search.training.machine import answers

__all__ = ["dataset", "quiet", "source"]  # fixtures

SMALL = Space(max_blocks=1, widths=(2, 4), activations=("tanh",), learning_rates=(1e4, 3e4), batch_sizes=(16, 32))
GRID = Space(
    1, (2, 4), ("tanh",), learning_rates=(1e-2, 3e-2), batch_sizes=(16, 32), min_blocks=1, shortcuts="all",
    kind="convolution", kernels=(2, 3), max_scale=1, heads=(2, 3),
)  # fmt: skip
SETTINGS = Settings(
    "digits", None, None, 1, "evolution", 27, None, 6, OneOf((SMALL, GRID)),
    Recipe(epochs=2, batches=2, rungs=(1,)), finalists=3, seeds=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=1)


@pytest.fixture(scope="module")
def kinds(digits, tmp_path_factory):
    """For each strategy a search over both kinds that nothing interrupted."""
    folders = {}
    for strategy in STRATEGIES:
        folders[strategy] = tmp_path_factory.mktemp("kinds") / strategy
        study.run(replace(SETTINGS, strategy=strategy), digits, folders[strategy])
    return folders


# ---- several kinds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_trials_are_of_both_kinds_and_all_are_kept(kinds, strategy):
    folder = kinds[strategy]
    records, settings = read_records(folder), read_settings(folder)
    assert settings == replace(SETTINGS, strategy=strategy)
    assert read_facts(folder).shape == Shape(64, 10, (1, 8, 8))
    assert read_facts(folder).architectures is None
    assert {record.point.kind for record in records} == {"dense", "convolution"}
    assert {record.point.batch_size for record in records} == {16, 32}
    assert [record.number for record in records] == list(range(27))
    for record in records:
        assert settings.space.decode(settings.space.encode(record.point)) == record.point
        assert record.canonical == canonical(record.point)
        assert record.key == key(record.point, seed=1, budget=2)
    lines = ledger(folder)
    place = lines[0].index("kind")
    assert [line[place] for line in lines[1:]] == [record.point.kind for record in records]


def test_a_trial_is_what_training_it_alone_gives(kinds, digits):
    for record in read_records(kinds["random"])[:6]:  # the first generation
        if record.duplicate_of is None:
            (alone,) = train([record.canonical], (digits,), replace(SETTINGS.recipe, rungs=()), 1)
            np.testing.assert_allclose(record.curve, alone.curve[: record.epochs], rtol=1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_leaderboard_and_machine_of_a_convolution_that_has_won(kinds, digits, strategy):
    rows = read_leaderboard(kinds[strategy])
    assert rows[0].point.kind == "convolution"  # for dense machines have wild learning rates
    others = ["ensemble", "random (median of 5)", "plain CNN", "scikit-learn (linear)"]
    assert [row.name for row in rows] == [*NAMES[:3], *others]
    machine, metadata = load_machine(kinds[strategy] / BEST), load_metadata(kinds[strategy] / BEST)
    assert Shape(**metadata["shape"]) == digits.shape
    assert metadata["batch_size"] == rows[0].point.batch_size
    assert machine.parameter_count() == rows[0].parameters
    assert machine.architecture.depth == rows[0].depth
    with torch.no_grad():
        outputs = answers(machine, torch.from_numpy(digits.test.x), digits.shape).double().numpy()
    seed = scores(digits, digits.test, outputs)[1]  # of the first of two
    assert abs(seed - rows[0].test_score) * np.sqrt(2) == pytest.approx(rows[0].test_sd, abs=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resumed_search_of_both_kinds_is_the_uninterrupted_one(kinds, digits, tmp_path, strategy):
    with pytest.raises(Cut):
        study.run(replace(SETTINGS, strategy=strategy), digits, tmp_path, cut_at("training", 18, 1))
    study.resume(tmp_path)
    same(tmp_path, kinds[strategy])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_of_both_kinds_is_reported_and_shown(kinds, strategy):
    folder = kinds[strategy]
    row = read_leaderboard(folder)[0]
    page = " ".join(report.write(folder).read_text().split())
    assert row.point.describe(Shape(64, 10, (1, 8, 8))) in page
    assert f"{row.parameters:,} parameters, {row.flops:,} FLOPs a sample." in page
    assert "None" not in page
    told = dict(describe(read_machine(folder)))
    assert told["depth"] == str(row.depth)
    assert f"{row.parameters:,} parameters" in told["machine"]


# ---- several folds -----------------------------------------------------------------------------------------------


def test_a_search_on_folds_goes_by_means_and_is_resumed(source, dataset, tmp_path):
    wish = settings(source, trials=12, folds=3, finalists=2, space=replace(SPACE, batch_sizes=(8, 16)))
    result = study.run(wish, dataset, tmp_path / "whole")
    folds, recipe = dataset.folds(3, 0), replace(RECIPE, rungs=(), patience=None)
    for record in result.records[:6]:
        if record.duplicate_of is None:
            alone = [train([record.canonical], (fold,), recipe, 0)[0].curve for fold in folds]
            np.testing.assert_allclose(record.curve, np.mean(alone, axis=0)[: record.epochs], rtol=1e-4)
    one = study.run(replace(wish, folds=1), dataset, tmp_path / "one")
    assert [record.loss for record in one.records[:6]] != [record.loss for record in result.records[:6]]
    with pytest.raises(Cut):
        study.run(wish, dataset, tmp_path / "cut", cut_at("training", 6, 1))
    study.resume(tmp_path / "cut")
    same(tmp_path / "cut", tmp_path / "whole")
    assert read_settings(tmp_path / "cut").folds == 3


def test_ensemble_and_deviations_come_with_more_than_one_seed(source, dataset, tmp_path):
    one = study.run(settings(source, trials=6, finalists=1, seeds=1), dataset, tmp_path / "one")
    assert [row.name for row in one.rows] == ["winner", "random (median of 5)", "plain MLP", "scikit-learn (linear)"]
    assert untimed(one.rows) == untimed(read_leaderboard(tmp_path / "one"))
    assert all(row.loss_sd is row.test_sd is None for row in one.rows)
    metadata = load_metadata(tmp_path / "one" / BEST)
    assert (metadata["test_loss"], metadata["test_score"]) == (one.rows[0].test_loss, one.rows[0].test_score)
