"""Skewed numbers are read twice, as they are and straightened: when, how, and what the experiment on it says."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.preprocessing import PowerTransformer, StandardScaler

from experiments import straightened, tables
from experiments.results import FOLDER
from search.data import from_arrays, from_frame, load
from search.data.columns import fit_columns
from search.data.encoder import Encoder
from search.data.series import from_series

ROWS = 300
RNG = np.random.default_rng(0)
PRICES = np.exp(RNG.normal(5, 1, ROWS))
FRAME = pl.DataFrame(
    {
        "price": PRICES,
        "age": RNG.normal(40, 9, ROWS),
        "rarely": (np.arange(ROWS) % 50 == 0).astype(int),
        "sold": np.where(PRICES > 150, "yes", "no"),
    }
)
EVERY = np.arange(ROWS)


def power_of(values, rows=EVERY):
    (column,), _ = fit_columns(pl.DataFrame({"v": values}), rows)
    return column.power


def test_a_skewed_column_is_read_as_it_is_and_straightened_as_scikit_learn_does():
    dataset = from_frame(FRAME, "sold")
    assert dataset.features == ("price", "price, straightened", "age", "rarely")
    assert "Skewed numbers are read as they are, and straightened: price." in dataset.notes
    training = FRAME["price"].to_numpy()[dataset.train.rows, None]
    scaled = StandardScaler().fit(training)
    oracle = PowerTransformer().fit(scaled.transform(training))
    for part in (dataset.train, dataset.validation, dataset.test):
        known = FRAME["price"].to_numpy()[part.rows, None]
        bounded = np.clip(known, training.min(), training.max())
        np.testing.assert_allclose(part.x[:, :1], scaled.transform(known), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(part.x[:, 1:2], oracle.transform(scaled.transform(bounded)), atol=3e-3)


@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_straightened_is_no_longer_skewed(sign):
    power = power_of(sign * PRICES)
    before, after = (
        abs(np.mean(StandardScaler().fit_transform(values[:, None]) ** 3))
        for values in (PRICES, power.of(sign * PRICES))
    )
    assert after < before / 8


@pytest.mark.parametrize("unit", [1e-9, 1e6])
def test_the_unit_of_a_column_makes_no_difference(unit):
    one, other = power_of(PRICES), power_of(unit * PRICES)
    np.testing.assert_allclose(other.of(unit * PRICES), one.of(PRICES), rtol=1e-6, atol=1e-9)


def test_even_numbers_and_those_with_two_values_are_read_once():
    assert power_of(FRAME["age"].to_numpy()) is None
    assert power_of(FRAME["rarely"].to_numpy()) is None
    assert power_of(RNG.random(ROWS)) is None
    assert power_of(np.where(EVERY % 50 == 0, 20.0, EVERY % 2)) is not None


def test_it_goes_no_further_than_the_training_rows_which_alone_decide():
    rows = EVERY[:200]
    power = power_of(PRICES, rows)
    wild = np.where(EVERY < 200, PRICES, 1e12)
    assert power_of(wild, rows) == power
    least, most = power.of(np.array([PRICES[:200].min(), PRICES[:200].max()]))
    assert power.of(np.array([-1e300, 1e300])).tolist() == [least, most]


def test_a_gap_is_straightened_as_what_stands_for_it():
    gaps = FRAME.with_columns(pl.when(pl.col("age") > 50).then(None).otherwise(pl.col("price")).alias("price"))
    dataset = from_frame(gaps, "sold")
    assert dataset.features[:3] == ("price", "price, straightened", "price is missing")
    column = dataset.encoder.columns[0]
    x = dataset.encoder.encode(gaps)
    missing = x[:, 2] == 1
    scaled = (column.power.of(np.array([column.fill])) - dataset.encoder.mean[1]) / dataset.encoder.scale[1]
    np.testing.assert_allclose(x[missing, 1], np.repeat(scaled, missing.sum()), rtol=1e-5)
    assert missing.any()


def test_json_holds_it_and_files_of_before_are_read():
    encoder = from_frame(FRAME, "sold").encoder
    again = Encoder.from_json(encoder.to_json())
    assert again == encoder
    assert np.array_equal(again.encode(FRAME), encoder.encode(FRAME))
    told = json.loads(encoder.to_json())
    for column in told["columns"]:
        del column["power"]
    assert [column.power for column in Encoder.from_json(json.dumps(told)).columns] == [None] * 3


def test_pixels_series_and_dates_are_read_once():
    image = from_frame(FRAME.drop("rarely"), "sold", image=(1, 2))
    assert image.n_inputs == 2
    assert from_arrays(PRICES.reshape(-1, 2, 2)[:75], np.arange(75) % 2).n_inputs == 4
    assert from_series(FRAME.select("price", "age"), "price", lags=3, time="").n_inputs == 6
    days = pl.Series("day", np.datetime64("2020-01-01") + PRICES.astype(int))
    assert not any("straightened" in name for name in from_frame(FRAME.select("sold", days), "sold").features)


def test_without_scikit_learn_nothing_is_straightened(monkeypatch):
    monkeypatch.setattr("search.data.columns.find_spec", lambda name: None)
    assert power_of(PRICES) is None
    notes = from_frame(FRAME.drop("rarely"), "sold").notes
    assert "Skewed numbers are not straightened, which needs scikit-learn: price." in notes


@pytest.mark.parametrize(
    "values",
    [
        np.where(EVERY == 0, 1e12, RNG.random(ROWS)),
        np.where(EVERY < 2, EVERY + 1.0, 0.0),
        np.where(EVERY == 0, 1 + 2.3e-15, 1 + 1e-15 * (EVERY % 2)),
        np.where(EVERY < 6, -999.0, RNG.normal(size=ROWS)),
    ],
)
def test_what_a_power_does_not_mend_is_read_once(values):
    assert power_of(values) is None


def test_of_many_rows_some_are_enough(monkeypatch):
    whole = power_of(PRICES)
    monkeypatch.setattr("search.data.columns.MOST_FITTED", ROWS // 2)
    half = power_of(PRICES)
    assert half.exponent != whole.exponent
    assert half.exponent == pytest.approx(whole.exponent, abs=0.5)
    assert (half.low, half.high) == (whole.low, whole.high)


LARGEST = [1.7e308] * 5 + [-1.7e308] * 11 + [0.1 * i for i in range(25)]


@given(st.lists(st.floats(-1e300, 1e300) | st.sampled_from([np.nan, np.inf, -np.inf]), min_size=12, max_size=40))
@example(LARGEST)
def test_features_are_finite_for_any_numbers(values):
    table = pl.DataFrame({"v": values, "w": np.arange(len(values)) % 3})
    dataset = from_frame(table.with_columns(y=pl.Series([i % 2 for i in range(len(values))]).cast(pl.String)), "y")
    far = table.with_columns(v=pl.Series([1e308, -1e308] * len(values))[: len(values)])
    for x in (dataset.train.x, dataset.test.x, dataset.encoder.encode(far)):
        assert np.isfinite(x).all()


# ---- the experiment


def test_without_straightened_features_all_else_is_the_same():
    twice = load("breast_cancer")
    once = straightened.as_given(twice)
    assert once.n_inputs == 30
    assert twice.n_inputs == 30 + straightened.skewed(twice)
    kept = [twice.features.index(name) for name in once.features]
    assert np.array_equal(once.test.x, twice.test.x[:, kept])
    bare = replace(once.encoder, columns=tuple(replace(c, power=None) for c in twice.encoder.columns))
    assert bare == once.encoder


def test_it_compares_pairs_of_splits(monkeypatch):
    monkeypatch.setattr(straightened, "scores", lambda data, split: (0.1 * split + 0.01 * data.n_inputs, 0.5))
    found = straightened.of("wine", (1, 3))
    assert found["one"]["without"] == pytest.approx(0.2 + 0.13)
    assert found["one"]["ahead"] == pytest.approx(0.01 * found["skewed"])
    assert found["together"] == {"without": 0.5, "ahead": 0.0, "error": 0.0}


def test_together_is_by_mean_probabilities(monkeypatch):
    monkeypatch.setattr(straightened, "NETWORKS", 2)
    monkeypatch.setattr(straightened, "TOGETHER", 2)
    one, together = straightened.scores(load("breast_cancer"), 0)
    assert 0.8 < one <= 1
    assert 0.8 < together <= 1
    said = np.log([[[0.9, 0.1]], [[0.2, 0.8]]]) + np.array([3.0, -2.0])[:, None, None]
    np.testing.assert_allclose(np.exp(tables.mean(list(said), load("breast_cancer"))), [[0.55, 0.45]])


def test_the_default_is_what_the_results_like():
    found = json.loads((FOLDER / "straightened.json").read_text())["result"]
    for what in ("one", "together"):
        told = [figures[what] for figures in found.values() if figures["skewed"]]
        sure = [figures["ahead"] / figures["error"] for figures in told]
        assert np.mean([figures["ahead"] for figures in told]) > 0
        assert sum(error > 2 for error in sure) > sum(error < -2 for error in sure)
