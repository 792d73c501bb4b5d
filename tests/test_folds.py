"""Cross-validation: folds, and all rows but the test part."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.data import Part, from_frame, load
from search.data.splitting import folds


@given(
    counts=st.lists(st.integers(2, 40), min_size=1, max_size=5).filter(lambda counts: sum(counts) >= 8),
    number=st.integers(2, 8),
    seed=st.integers(0, 1000),
)
def test_folds_are_a_partition_and_spread_every_class(counts, number, seed):
    strata = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    cuts = folds(strata, number, seed)
    assert sorted(np.concatenate([inside for _, inside in cuts]).tolist()) == list(range(len(strata)))
    for outside, inside in cuts:
        assert sorted([*outside, *inside]) == list(range(len(strata)))
        assert abs(len(inside) - len(strata) / number) < 1
        for i, count in enumerate(counts):
            assert abs(np.sum(strata[inside] == i) - count / number) <= 2


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_the_whole_is_every_row_outside_the_test_part(name):
    dataset = load(name, seed=2)
    whole = dataset.whole()
    assert len(whole.validation) == 0
    assert whole.validation.x.shape == (0, dataset.n_inputs)
    assert whole.test is dataset.test
    assert whole.encoder is dataset.encoder
    everything = sorted([*whole.train.rows, *whole.test.rows])
    assert everything == list(range(len(everything)))
    assert (np.diff(whole.train.rows) > 0).all()
    for part in (dataset.train, dataset.validation):  # each row with its own features and answer
        place = np.searchsorted(whole.train.rows, part.rows)
        assert np.array_equal(whole.train.x[place], part.x)
        assert np.array_equal(whole.train.y[place], part.y)
        if name == "diabetes":
            assert np.array_equal(whole.train.values[place], part.values)


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes"])
def test_folds_of_a_data_set(name):
    dataset = load(name)
    whole = dataset.whole().train
    found = dataset.folds(4, seed=5)
    assert len(found) == 4
    seen = np.concatenate([fold.validation.rows for fold in found])
    assert sorted(seen.tolist()) == whole.rows.tolist()
    for fold in found:
        assert fold.test is dataset.test
        assert fold.encoder is dataset.encoder
        assert np.intersect1d(fold.train.rows, fold.validation.rows).size == 0
        place = np.searchsorted(whole.rows, fold.validation.rows)
        assert np.array_equal(fold.validation.x, whole.x[place])
        assert np.array_equal(fold.validation.y, whole.y[place])
        if dataset.classes:
            share = (whole.y == 0).mean()
            assert abs((fold.validation.y == 0).sum() - share * len(fold.validation)) <= 1.5


def test_folds_are_reproducible_and_depend_on_the_seed():
    dataset = load("diabetes")
    first, again, other = (dataset.folds(3, seed)[0].validation.rows for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_folds_do_not_depend_on_which_rows_were_in_training():
    """Only on which are not in the test part."""
    dataset = load("diabetes")
    whole = dataset.whole()
    for one, other in zip(dataset.folds(3, 1), whole.folds(3, 1), strict=True):
        assert np.array_equal(one.validation.x, other.validation.x)


def test_parts_that_know_no_rows_are_put_one_after_the_other():
    dataset = load("diabetes")
    bare = [Part(part.x[:5], part.y[:5]) for part in (dataset.train, dataset.validation)]
    both = bare[0].joined(bare[1])
    assert np.array_equal(both.x, np.concatenate([dataset.train.x[:5], dataset.validation.x[:5]]))
    assert both.values is None
    assert both.rows is None


def test_rows_are_those_of_the_file_and_values_its_numbers():
    frame = pl.DataFrame({"x": np.arange(50.0), "y": [None, *np.linspace(0, 7, 48).tolist(), None]})
    dataset = from_frame(frame, "y")
    for part in (dataset.train, dataset.validation, dataset.test):
        assert np.array_equal(part.values, frame["y"].to_numpy()[part.rows])
        x = part.x[:, 0] * dataset.encoder.scale[0] + dataset.encoder.mean[0]
        np.testing.assert_allclose(x, part.rows, atol=1e-5)


@pytest.mark.parametrize("number", [1, 0, 400])
def test_a_number_of_folds_that_rows_do_not_give(number):
    with pytest.raises(ValueError, match=f"got {number} folds of 354 rows: at least 2, and a row for each, are needed"):
        load("diabetes").folds(number)
