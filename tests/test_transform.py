"""Transforms of the target: what they compute, that answers and scores are in the target's own unit."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, mean_squared_error, r2_score
from sklearn.preprocessing import PowerTransformer

from search.data import Part, from_frame, load
from search.data.encoder import Encoder
from search.data.transform import TRANSFORMS, Transform, fit_transform
from search.recipe import Recipe
from search.training.lessons import Lessons

TRANSFORMED = TRANSFORMS[1:]
COUNTS = np.array([0, 0, 1, 3, 12, 0, 2, 30, 1, 0] * 6)


@pytest.fixture
def prices():
    """Numbers above 0 whose logarithm is linear in a column; 300 rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    return pl.DataFrame({"x": x, "price": np.exp(3 + x + 0.3 * rng.normal(size=300))})


@given(
    name=st.sampled_from(TRANSFORMS),
    values=st.lists(st.floats(0, 1e4), min_size=5, max_size=40, unique=True).filter(lambda v: max(v) - min(v) > 1e-2),
)
def test_the_inverse_undoes_a_rising_function(name, values):
    values = np.array(sorted(values))
    transform = fit_transform(name, values)
    forward = transform.forward(values)
    assert (np.diff(forward) >= 0).all()
    np.testing.assert_allclose(transform.inverse(forward), values, rtol=1e-6, atol=1e-6 * values.max())
    np.testing.assert_allclose(transform.answers(forward), values, rtol=1e-6, atol=1e-6 * values.max())


@pytest.mark.parametrize("power", [-0.7, 0.0, 0.4, 1.0, 2.0, 3.1])
def test_yeo_johnson_is_scikit_learns(power):
    values = np.concatenate([np.linspace(-3, 4, 41), [-1e-9, 0.0, 1e-9]])
    oracle = PowerTransformer(standardize=False)
    oracle.fit(values[:, None])
    oracle.lambdas_ = np.array([power])
    transform = Transform("yeo-johnson", power)
    forward = oracle.transform(values[:, None])[:, 0]
    np.testing.assert_allclose(transform.forward(values), forward, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(transform.inverse(forward), values, rtol=1e-9, atol=1e-12)


def test_the_exponent_is_scikit_learns(prices):
    values = prices["price"].to_numpy()
    oracle = PowerTransformer(standardize=False).fit(values[:, None])
    assert fit_transform("yeo-johnson", values).parameter == pytest.approx(oracle.lambdas_[0])
    mixed = values - 30
    assert fit_transform("yeo-johnson", mixed).forward(mixed) == pytest.approx(
        PowerTransformer(standardize=False).fit_transform(mixed[:, None])[:, 0]
    )


def test_the_logarithm_takes_zeros():
    values = np.array([0.0, 0.5, 8.0])
    transform = fit_transform("log", values)
    np.testing.assert_allclose(transform.forward(values), np.log(values + 0.25))
    assert fit_transform("log", np.zeros(3)).forward(np.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", TRANSFORMED)
def test_answers_stay_near_the_training_rows(name, prices):
    """As far as they are wide; what a network says may be anything."""
    values = prices["price"].to_numpy()
    transform = fit_transform(name, values)
    answers = transform.answers(np.array([-1e30, -1e3, 1e3, 1e30]))
    wide = np.ptp(values)
    assert np.isfinite(answers).all()
    assert answers.min() == pytest.approx(max(0, values.min() - wide) if name != "yeo-johnson" else values.min() - wide)
    assert answers.max() == pytest.approx(values.max() + wide)


@pytest.mark.parametrize("noise", [0.1, 0.8])
def test_noisy_answers_are_means(noise):
    """Where they are known: of a square, of an exponential, and of a power of 1/3 by many draws."""
    z, far = np.array([1.5, 2.5]), {"low": -1e6, "high": 1e6}
    root = Transform("sqrt", high=1e6).noisy(noise)
    np.testing.assert_allclose(root.answers(z + 4), (z + 4) ** 2 + noise**2, rtol=1e-9)
    logarithm = Transform("log", 0.25, high=1e6).noisy(noise)
    np.testing.assert_allclose(logarithm.answers(z), np.exp(z + noise**2 / 2) - 0.25, rtol=1e-5)
    power = Transform("yeo-johnson", 1 / 3, **far).noisy(noise)
    draws = z[:, None] + noise * np.random.default_rng(0).standard_normal((2, 400_000))
    np.testing.assert_allclose(power.answers(z), power.inverse(draws).mean(axis=1), rtol=2e-3)
    assert power.noisy(0.0).answers(z) == pytest.approx(power.inverse(z))


def test_what_is_not_transformed_has_no_noise(prices):
    plain = from_frame(prices, "price")
    assert plain.encoder.noisy(0.3) == plain.encoder
    scale = plain.transformed("log").encoder.target_scale
    noisy = plain.transformed("log").encoder.noisy(0.3)
    assert noisy.transform.noise == pytest.approx(0.3 * scale)
    assert type(noisy).from_json(noisy.to_json()) == noisy


# ---- data sets


@pytest.mark.parametrize("name", TRANSFORMED)
def test_a_transformed_data_set(name, prices):
    plain = from_frame(prices, "price", seed=1)
    data = plain.transformed(name)
    y = fit_transform(name, plain.train.values).forward
    center, spread = y(plain.train.values).mean(), y(plain.train.values).std()  # of the training rows alone
    for which in ("train", "validation", "test"):
        part, before = getattr(data, which), getattr(plain, which)
        assert part.y.dtype == np.float32
        np.testing.assert_allclose(part.y, (y(before.values) - center) / spread, rtol=1e-5, atol=1e-5)
        assert part.x is before.x
        assert part.values is before.values
        np.testing.assert_allclose(data.encoder.decode(part.y[:, None]).values, part.values, rtol=1e-4)
    back = data.transformed("none")
    assert back.encoder == plain.encoder
    assert np.array_equal(back.test.y, plain.test.y)
    assert np.array_equal(data.transformed(name).train.y, data.train.y)


def test_a_transform_sees_the_training_rows_alone(prices):
    data = from_frame(prices, "price")
    wild = prices.with_columns(
        pl.when(pl.Series(np.isin(np.arange(300), data.train.rows))).then(pl.col("price")).otherwise(1e6)
    )
    for name in TRANSFORMED:
        assert from_frame(wild, "price").transformed(name).encoder == data.transformed(name).encoder


@pytest.mark.parametrize("name", TRANSFORMS)
def test_json_holds_the_transform_exactly(name, prices):
    encoder = from_frame(prices, "price").transformed(name).encoder
    again = Encoder.from_json(encoder.to_json())
    assert again == encoder
    outputs = np.linspace(-3, 3, 7)[:, None]
    assert np.array_equal(again.decode(outputs).values, encoder.decode(outputs).values)


def test_an_encoder_from_before_there_were_transforms(prices):
    """Files that hold no transform, image or layout stay readable."""
    encoder = from_frame(prices, "price").encoder
    fields = json.loads(encoder.to_json())
    for name in ("transform", "image", "layout"):
        del fields[name]
    assert Encoder.from_json(json.dumps(fields)) == encoder


# ---- scores


@pytest.mark.parametrize("name", TRANSFORMS)
def test_scores_are_in_the_targets_own_unit(name, prices):
    data = from_frame(prices, "price").transformed(name)
    outputs = data.test.y[:, None] + 0.3 * np.random.default_rng(1).normal(size=(len(data.test), 1))
    answers = data.encoder.decode(outputs).values
    truth = prices["price"].to_numpy()[data.test.rows]
    assert data.score(data.test, outputs) == pytest.approx(r2_score(truth, answers))
    assert data.error(data.test, outputs) == pytest.approx(mean_squared_error(truth, answers) ** 0.5)
    assert data.score(data.test, data.test.y[:, None]) == pytest.approx(1, abs=1e-6)
    bare = Part(data.test.x, data.test.y)  # put together by hand: the answers are those of y
    assert data.score(bare, outputs) == pytest.approx(data.score(data.test, outputs), rel=1e-4)


def test_without_a_transform_r2_is_that_of_the_scaled_answers():
    data = load("diabetes")
    outputs = data.validation.y[:, None] * 0.5
    loss = np.mean((outputs[:, 0] - data.validation.y) ** 2)
    assert data.score(data.validation, outputs) == pytest.approx(1 - loss / data.validation.y.var(), rel=1e-5)


def test_scores_of_classes():
    data = load("breast_cancer")
    outputs = np.random.default_rng(0).normal(size=(len(data.test), 2))
    expected = accuracy_score(data.test.y, outputs.argmax(axis=1))
    assert data.score(data.test, outputs) == pytest.approx(expected)
    assert data.error(data.test, outputs) == pytest.approx(1 - expected)


def test_scores_that_are_none():
    data = load("diabetes")
    assert np.isnan(data.score(data.whole().validation, np.zeros((0, 1))))
    assert np.isnan(data.error(data.whole().validation, np.zeros((0, 1))))
    assert np.isnan(data.score(data.test.take(np.array([3])), np.zeros((1, 1))))
    with pytest.raises(ValueError, match=r"got outputs of shape \(3, 2\): \(rows, 1\) was expected"):
        data.score(data.test, np.zeros((3, 2)))


# ---- together with folds, and what can't be


@pytest.mark.parametrize("name", TRANSFORMED)
def test_folds_have_one_unit(name, prices):
    data = from_frame(prices, "price").transformed(name)
    values = np.concatenate([fold.validation.values for fold in data.folds(3)])
    y = np.concatenate([fold.validation.y for fold in data.folds(3)])
    np.testing.assert_array_equal(y, data.encoder.scaled(values))
    assert all(fold.encoder is data.encoder for fold in data.folds(3))


def test_the_transform_is_told(prices):
    data = from_frame(prices, "price")
    told = [data.transformed(name).describe()[1] for name in TRANSFORMS]
    words = ("", ", whose square root is learned", ", whose logarithm is learned", ", whose power is learned")
    assert told == [f"regression of 'price'{word}" for word in words]


def test_what_can_not_be_transformed(prices):
    data = from_frame(prices.with_columns(pl.col("price") - 10), "price")
    for name, word in (("sqrt", "square root"), ("log", "logarithm")):
        with pytest.raises(
            ValueError, match=rf"the target has -\d.*, which has no {word}: take the transform 'yeo-joh"
        ):
            data.transformed(name)
    assert data.transformed("yeo-johnson").encoder.transform.low < 0
    with pytest.raises(
        ValueError, match=r"no transform is called 'sqr' \(did you mean 'sqrt'\?\): give none, sqrt, log"
    ):
        data.transformed("sqr")
    with pytest.raises(ValueError, match="got the transform 'log' for classes"):
        load("digits").transformed("log")
    assert load("digits").transformed("none").classes


@pytest.mark.parametrize("given", ["sqrt", "log"])
@pytest.mark.parametrize("own", ["none", "yeo-johnson"])
def test_answers_of_another_transform_are_kept_within_what_the_given_one_has(given, own):
    """What a network says may be below 0, of which there is no root."""
    data = from_frame({"x": np.arange(60), "y": COUNTS}, "y", task="regression").transformed(given)
    lessons = Lessons(data, Recipe(epochs=2, rungs=()), 0, own)
    said = lessons.in_the_given_unit(np.array([[-50.0], [0.0], [50.0]]), 0.0)
    low, high = data.encoder.transform.low, data.encoder.transform.high
    values = data.encoder.unscaled(said[:, 0])
    assert np.isfinite(said).all()
    assert (np.diff(values) >= 0).all()
    assert low - 1e-3 <= values.min() <= values.max() <= high * (1 + 1e-5)
