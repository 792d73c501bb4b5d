"""The forecaster: it goes on as `search.data.series.forecast` does, step by step the same, and from its files."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from search import ArchitectureSearchForecaster
from search.data.series import forecast
from search.space import Space

SPACE = Space(max_blocks=1, min_blocks=1, widths=(8,), activations=("tanh",), learning_rates=(0.02,))
QUICK = {"n_trials": 3, "population": 3, "epochs": 15, "finalists": 2, "seeds": 1, "folds": 2, "random_state": 0}


@pytest.fixture(autouse=True, scope="module")
def _in_memory(tmp_path_factory):
    """Temporary runs where a commit waits for no disk; finalists on few folds."""
    tmp_path_factory.getbasetemp()  # it stays where it is
    with pytest.MonkeyPatch.context() as patch:
        if Path("/dev/shm").is_dir():
            patch.setattr("tempfile.tempdir", "/dev/shm")
        patch.setattr("search.comparison.finalists.FOLDS", 2)
        yield


WAVE = 5 + np.sin(np.arange(130) / 3)


@pytest.fixture(scope="module")
def waved():
    """Of the first 100 steps of a wave."""
    return ArchitectureSearchForecaster(lags=8, **{**QUICK, "epochs": 30}).fit(WAVE[:100])


def weather(steps=100):
    """Sales that follow the heat of the day before, with gaps in both; the day of the week; dates."""
    rng = np.random.default_rng(0)
    heat = rng.normal(size=steps)
    sales = pl.Series("sales", [None if i in (50, 96) else 2 * heat[i - 1] for i in range(steps)])
    week = [("mo", "tu", "we", "th", "fr")[i % 5] for i in range(steps)]
    days = pl.Series([pd.Timestamp("2020-01-01") + pd.Timedelta(days=i) for i in range(steps)])
    measured = pl.Series([None if i in (40, 95) else h for i, h in enumerate(heat)])
    return sales, pl.DataFrame({"heat": measured, "week": week, "day": days})


@pytest.fixture(scope="module")
def sold():
    """An ensemble, of two that have learned 90 steps of sales."""
    sales, others = weather()
    return ArchitectureSearchForecaster(lags=3, **QUICK, space=SPACE, ensemble=True).fit(sales[:90], others[:90])


def together(model, history, steps, future=None):
    """What ``forecast`` says for each member; for one step ahead their mean is what they say together."""
    return np.array([forecast(m.encoder, m.outputs, history, steps, future) for m in model._members])


def test_a_wave_goes_on(waved):
    said = waved.predict(30)
    assert said.shape == (30,)
    np.testing.assert_allclose(said[:5], WAVE[100:105], atol=0.3)
    np.testing.assert_allclose(said, together(waved, {"y": WAVE[:100]}, 30)[0], rtol=1e-6)
    assert waved.leaderboard_["name"][0] == "winner"
    assert len(waved.study_.trials) == 3
    assert waved.best_machine_.partition.widths[-1] == 1


@pytest.mark.parametrize("kind", [np.asarray, list, pl.Series, lambda y: pd.Series(y, name="y")])
def test_another_history(waved, kind):
    history = WAVE[:57]
    np.testing.assert_array_equal(waved.predict(4, history=kind(history)), waved.predict(4, history=history))
    np.testing.assert_allclose(waved.predict(4, history=history), together(waved, {"y": history}, 4)[0], rtol=1e-6)
    np.testing.assert_array_equal(waved.predict(3, history=WAVE[:100]), waved.predict(3))


def test_step_by_step_is_the_same_as_from_the_whole_history(waved):
    stream = copy.deepcopy(waved)
    for t in range(100, 110):
        assert stream.step(WAVE[t]) == waved.predict(1, history=WAVE[: t + 1])[0]
    np.testing.assert_array_equal(stream.predict(5), waved.predict(5, history=WAVE[:110]))
    several = copy.deepcopy(waved).update(WAVE[100:110])
    np.testing.assert_array_equal(several.predict(5), stream.predict(5))
    assert stream._history.height == 8 + 1  # however long it goes on


def test_further_channels_with_gaps_categories_and_dates(sold):
    sales, others = weather()
    history = others[:90].with_columns(sales[:90])
    assert len(sold._members) == 2
    np.testing.assert_allclose(sold.predict(1), together(sold, history, 1).mean(axis=0), rtol=1e-6)
    alone = copy.copy(sold)
    alone._members = sold._members[1:]
    future = others[90:95]
    np.testing.assert_allclose(alone.predict(6, future), together(alone, history, 6, future)[0], rtol=1e-6)
    stream = copy.deepcopy(sold)
    for t in range(90, 99):  # over gaps of both
        said = stream.step(sales[t], others[t : t + 1])
        assert said == sold.predict(1, history=(sales[: t + 1], others[: t + 1]))[0]
        whole = others[: t + 1].with_columns(sales[: t + 1])
        np.testing.assert_allclose(said, together(sold, whole, 1).mean(), rtol=1e-6)


def test_an_ensemble_feeds_its_mean_to_all(sold):
    _, others = weather()
    first = sold.predict(1)[0]
    stream = copy.deepcopy(sold).update([first], others[90:91])
    np.testing.assert_allclose(sold.predict(2, others[90:91])[1], stream.predict(1)[0], rtol=1e-6)


def test_a_saved_forecaster_goes_on_the_same_to_the_last_bit(waved, sold, tmp_path):
    waved.save(tmp_path / "wave.machgraph")
    loaded = ArchitectureSearchForecaster.load(tmp_path / "wave.machgraph")
    np.testing.assert_array_equal(loaded.predict(20), waved.predict(20))
    assert loaded.get_params() == waved.get_params()
    assert loaded.best_point_ == waved.best_point_
    sales, others = weather()
    stream = copy.deepcopy(sold).update(sales[90:98], others[90:98])  # gaps are in what is kept
    stream.save(tmp_path / "sales")
    loaded = ArchitectureSearchForecaster.load(tmp_path / "sales")
    assert loaded._history.equals(stream._history)
    assert loaded.step(sales[98], others[98:99]) == stream.step(sales[98], others[98:99])
    np.testing.assert_array_equal(loaded.predict(2, others[99:]), stream.predict(2, others[99:]))
    again = pickle.loads(pickle.dumps(stream))
    np.testing.assert_array_equal(again.predict(1), stream.predict(1))


def test_the_transform_is_undone():
    y = np.exp(np.sin(np.arange(80) / 2))
    model = ArchitectureSearchForecaster(lags=4, transform="log", space=SPACE, **QUICK).fit(y)
    assert model._members[0].encoder.transform.name == "log"
    said = model.predict(3)
    assert (said > 0).all()
    np.testing.assert_allclose(said, together(model, {"y": y}, 3)[0], rtol=1e-6)


def test_parameters_are_scikit_learns():
    model = ArchitectureSearchForecaster(lags=5, n_trials=3)
    assert clone(model).get_params() == model.get_params()
    assert clone(model).set_params(lags=7).lags == 7
    for ask in (model.predict, lambda: model.step(1.0), lambda: model.save("x"), lambda: model.best_machine_):
        with pytest.raises(NotFittedError):
            ask()


@pytest.mark.parametrize(
    ("y", "more", "message"),
    [
        (WAVE[:15], {}, "got 15 steps with lags=8"),
        (WAVE, {"lags": 0}, "got lags=0"),
        (["a"] * 50, {}, "the steps of a series are numbers"),
        (np.ones(50), {}, "nothing to learn"),
        (WAVE[:40] - 5, {"transform": "sqrt"}, "has no square root"),
        ({"y": WAVE}, {}, "got a table as y"),
        (pd.Series(WAVE[:2], index=pd.to_datetime(["2020-02-01", "2020-01-01"])), {}, "dates of y that do not rise"),
    ],
)
def test_a_series_that_cannot_be_learned_is_told(y, more, message):
    with pytest.raises(ValueError, match=message):
        ArchitectureSearchForecaster(**{"lags": 8, **QUICK, **more}).fit(y)


def test_an_ensemble_of_several_transforms_feeds_its_mean_to_all(tmp_path):
    """Under a root nothing is below 0, whatever a member that answers without one says."""
    steps = np.arange(120)
    y = np.round(20 * np.maximum(0, np.sin(steps / 5)) ** 3)
    space = Space(
        max_blocks=1, min_blocks=1, widths=(8,), activations=("tanh",), learning_rates=(0.02,),
        transforms=("given", "none"),
    )  # fmt: skip
    found = ArchitectureSearchForecaster(lags=6, space=space, transform="sqrt", **{**QUICK, "n_trials": 6}).fit(y)
    assert {member.encoder.transform.name for member in found._members} <= {"sqrt", "none"}
    assert np.isfinite(found.predict(12)).all()


def test_what_does_not_fit_the_series_is_told(waved, sold):
    sales, others = weather()
    for ask, message in [
        (lambda: waved.predict(0), "got steps=0: a whole number of at least 1"),
        (lambda: waved.predict(history=WAVE[:7]), "got a history of 7 steps: 8 are needed"),
        (lambda: waved.predict(2, others), "got an X for a forecaster that was fitted without further channels"),
        (lambda: waved.update([1.0], others[:1]), "got an X for a forecaster that was fitted without further channels"),
        (lambda: sold.predict(3), "also need 'heat', 'week', 'day' of the ones before: give them as X"),
        (lambda: sold.predict(3, others[:1]), "got an X of 1 step for 3 to answer: 2 are needed"),
        (lambda: sold.update([1.0]), "got no X for a forecaster that was fitted with the further channels 'heat'"),
        (lambda: sold.update([1.0, 2.0], others[:1]), "got y of 2 steps and X of 1: give one row a step"),
        (lambda: sold.update([1.0], others[:1].drop("week")), "got an X without 'week'"),
        (lambda: sold.update([1.0], np.ones((1, 2))), "got an X of 2 columns: 3 were fitted"),
        (lambda: sold.update(["much"], others[:1]), "column 'sales' holds String now: Float64 was expected"),
        (lambda: sold.fit(sales, others.rename({"heat": "sales"})), "got a column of X called 'sales'"),
    ]:
        with pytest.raises(ValueError, match=message):
            ask()
