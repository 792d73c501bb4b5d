"""Series: windows of the past, parts in the order of time, nothing known too early, and forecasts step by step."""

import io
import subprocess
import sys
from datetime import date, datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.datasets import sunspots
from statsmodels.tsa.ar_model import AutoReg, ar_select_order

import machgraph as mg
from search.data import dataset, load
from search.data.encoder import Encoder
from search.data.series import forecast, from_series, load_series
from search.data.splitting import rolling
from search.data.transform import TRANSFORMS, fit_transform
from search.predict import answer
from search.shape import Shape
from search.trained import Trained, write

LAGS = 4


def parts(data):
    return data.train, data.validation, data.test


@pytest.fixture
def wave():
    """Two columns and dates, 120 steps in the order of time."""
    rng = np.random.default_rng(0)
    t = np.arange(120)
    days = pl.date_range(date(2020, 1, 1), date(2020, 4, 29), eager=True)
    heat = 10 + 3 * np.sin(t / 5)
    return pl.DataFrame({"day": days, "heat": heat, "sales": 50 + 4 * heat + rng.normal(size=120)})


def linear(data):
    """The least-squares fit of all rows before the test, as a network's outputs."""
    rows = data.whole().train
    ones = np.ones((len(rows), 1))
    weights = np.linalg.lstsq(np.hstack([rows.x, ones]).astype(float), rows.y.astype(float), rcond=None)[0]
    return lambda x: x @ weights[:-1, None] + weights[-1]


def test_a_series_without_a_test_is_all_to_be_learned_from(wave):
    data = from_series(wave, "sales", lags=LAGS, test=0)
    assert (len(data.train), len(data.validation), len(data.test)) == (120 - 19 - LAGS, 19, 0)
    assert data.validation.rows[-1] == 119


def test_answers_to_a_series_tell_what_time_each_is_of(wave, tmp_path):
    data = from_series(wave, "sales", lags=LAGS)
    machine = mg.DenseMachine((data.n_inputs, 1), activation="identity")
    file = write(Trained(machine, data.encoder, data.shape), tmp_path / "sales.machgraph", {})
    told = []
    for name, table in (("new", wave.sample(fraction=1.0, shuffle=True, seed=1)), ("bare", wave.drop("day"))):
        table.write_csv(tmp_path / f"{name}.csv")
        out = io.StringIO()
        answer(file, tmp_path / f"{name}.csv", out)
        told.append([line.split(",") for line in out.getvalue().splitlines()])
    new, bare = told
    assert [row[0] for row in new] == ["day", *map(str, wave["day"][LAGS:]), ""]
    assert [row[1:] for row in new] == bare
    assert len(bare) == 1 + 120 - LAGS + 1


# ---- sunspots


def test_sunspots():
    data = load("sunspots")
    x = sunspots.load().data["SUNACTIVITY"].to_numpy(dtype=float)
    assert data.describe() == [
        "sunspots: 300 rows, 1 channel of 9 lags, 9 features",
        "regression of 'sunspots'",
        "split: 190 training, 49 validation, 61 held-out test, in the order of time",
        "The steps are in the order of 'year'.",
    ]
    assert data.shape == Shape(9, 1, (1, 9))
    assert np.array_equal(np.concatenate([part.rows for part in parts(data)]), np.arange(9, 309))
    for part in parts(data):
        assert np.array_equal(part.values, x[part.rows])
        back = part.x * data.encoder.target_scale + data.encoder.target_mean
        np.testing.assert_allclose(back, [x[t - 9 : t] for t in part.rows], atol=1e-4)  # the oldest first
    assert data.train.y.mean() == pytest.approx(0, abs=1e-5)
    assert data.train.y.std() == pytest.approx(1, abs=1e-5)


def test_sunspots_look_as_far_back_as_akaikes_criterion_says_without_the_held_out_years():
    data = load("sunspots")
    before = sunspots.load().data["SUNACTIVITY"].to_numpy(dtype=float)[: data.test.rows[0]]
    for values in (before, np.sqrt(before)):
        assert max(ar_select_order(values, 20, ic="aic").ar_lags) == data.encoder.lags


def test_a_linear_fit_of_sunspots_is_the_autoregression():
    """Of statsmodels, fitted on the years before the test: RMSE 19.17; and 16.69 on square roots."""
    x = sunspots.load().data["SUNACTIVITY"].to_numpy(dtype=float)
    for name, rmse in (("none", 19.17), ("sqrt", 16.69)):
        data = load("sunspots", transform=name)
        z = fit_transform(name, x).forward(x)
        weights = AutoReg(z[:248], 9).fit().params
        said = weights[0] + np.array([z[t - 9 : t][::-1] @ weights[1:] for t in range(248, 309)])
        expected = np.sqrt(np.mean((x[248:] - (np.maximum(said, 0) ** 2 if name == "sqrt" else said)) ** 2))
        found = data.error(data.test, linear(data)(data.test.x))
        assert found == pytest.approx(expected, rel=1e-4)
        assert found == pytest.approx(rmse, abs=0.005)


# ---- nothing is known too early


@pytest.mark.parametrize("name", TRANSFORMS)
def test_no_value_leaks_into_an_earlier_part(wave, name):
    data = from_series(wave, "sales", lags=LAGS, transform=name)
    for which, first in (("validation", data.validation.rows[0]), ("test", data.test.rows[0])):
        later = pl.int_range(len(wave), eager=True) >= first
        wild = wave.with_columns(
            [pl.when(later).then(pl.lit(1e5)).otherwise(pl.col(column)).alias(column) for column in ("heat", "sales")]
        )
        other = from_series(wild, "sales", lags=LAGS, transform=name)
        assert other.encoder == data.encoder  # statistics are of the training steps alone
        earlier = {"validation": [data.train], "test": [data.train, data.validation]}[which]
        for one, same in zip(earlier, parts(other), strict=False):
            assert np.array_equal(one.x, same.x)
            assert np.array_equal(one.y, same.y)
        changed = getattr(other, which)
        assert np.array_equal(changed.x[0], getattr(data, which).x[0])  # its first row sees but what came before
        assert not np.array_equal(changed.y, getattr(data, which).y)
        assert not np.array_equal(changed.x[1], getattr(data, which).x[1])


@given(rows=st.integers(4, 300), number=st.integers(2, 8))
def test_folds_roll_on(rows, number):
    if rows < 2 * number:
        with pytest.raises(
            ValueError, match=f"got {number} folds of {rows} rows in time: at least 2, and two rows for"
        ):
            rolling(rows, number)
        return
    cuts = rolling(rows, number)
    for before, inside in cuts:
        assert np.array_equal(before, np.arange(inside[0]))
        assert len(before) >= rows / 2
        assert len(inside) == len(cuts[0][1])
    together = np.concatenate([inside for _, inside in cuts])
    assert np.array_equal(together, np.arange(rows - len(together), rows))
    assert len(together) > rows / 2 - number


def test_folds_of_a_series_are_answered_from_the_past():
    data = load("sunspots", transform="sqrt")
    folds = data.folds(4, seed=7)
    assert [(fold.train.rows[-1] + 1, fold.validation.rows[-1] + 1) for fold in folds] == [
        (132, 161), (161, 190), (190, 219), (219, 248),
    ]  # fmt: skip
    for fold in folds:
        assert fold.test is data.test
        assert fold.encoder is data.encoder
        assert np.array_equal(fold.train.rows, np.arange(9, fold.validation.rows[0]))
        assert np.array_equal(fold.validation.y, data.encoder.scaled(fold.validation.values))
    assert np.array_equal(data.whole().train.rows, np.arange(9, 248))


# ---- transforms and channels


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_past_is_in_the_unit_of_the_answers(wave, name):
    """So that an output can be put behind the inputs; whichever way the transform is asked for."""
    data = from_series(wave, "sales", lags=LAGS, transform=name)
    again = from_series(wave, "sales", lags=LAGS).transformed(name)
    assert again.encoder == data.encoder
    for one, other in zip(parts(data), parts(again), strict=True):
        assert np.array_equal(one.x, other.x)
        assert np.array_equal(one.y, other.y)
    past = data.test.x.reshape(-1, *data.shape.image)[:, 0]
    for lag in range(1, LAGS):
        np.testing.assert_allclose(past[lag:, -lag], data.test.y[:-lag], atol=1e-6)
    fitted = fit_transform(name, data.train.values)
    assert data.encoder.transform == fitted
    assert data.encoder.target_mean == pytest.approx(fitted.forward(data.train.values).mean())
    assert Encoder.from_json(data.encoder.to_json()) == data.encoder


def test_other_columns_are_further_channels(wave):
    data = from_series(wave, "sales", lags=LAGS)
    assert data.shape == Shape(8, 1, (2, LAGS))
    assert data.features[:2] == ("sales, 4 before", "sales, 3 before")
    assert data.features[-1] == "heat, 1 before"
    heat = wave["heat"].to_numpy()
    known = heat[: data.validation.rows[0]]
    found = data.test.x.reshape(-1, 2, LAGS)[:, 1]
    expected = [(heat[t - LAGS : t] - known.mean()) / known.std() for t in data.test.rows]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert from_series(wave, "sales", lags=LAGS, exogenous=[]).shape == Shape(4, 1, (1, LAGS))
    texts = wave.with_columns(pl.Series("kind", [f"k{i % 3}" for i in range(120)]))
    assert from_series(texts, "sales", lags=LAGS).shape.channels == 5
    assert from_series(texts, "sales", lags=LAGS, exogenous=["kind"]).shape.channels == 4


def test_a_gap_is_the_value_before_it(wave):
    holes = [0, 20, 21, 90]
    sales = [None if i in holes else value for i, value in enumerate(wave["sales"])]
    data = from_series(wave.with_columns(pl.Series("sales", sales)), "sales", lags=LAGS, exogenous=[])
    asked = np.concatenate([part.rows for part in parts(data)])
    assert sorted(set(range(LAGS, 120)) - set(asked.tolist())) == [20, 21, 90]
    assert "Nothing is asked of 4 steps without a value of 'sales'." in data.notes
    become = (
        "Missing values become the last one before them or, where none is, the training median, which a feature marks"
    )
    assert f"{become}: sales (4)." in data.notes
    channels = data.encoder.channels(wave.with_columns(pl.Series("sales", sales)))
    value, missing = channels.T
    assert np.flatnonzero(missing).tolist() == holes
    assert value[20] == value[21] == value[19]
    assert value[90] == value[89]
    assert value[0] * data.encoder.scale[0] + data.encoder.mean[0] == pytest.approx(data.encoder.columns[0].fill)


def test_the_last_steps_may_have_no_answer_yet(wave):
    more = pl.concat([wave, pl.DataFrame({"day": [date(2020, 5, 1)], "heat": [9.0], "sales": [None]})], how="vertical")
    data, plain = (from_series(frame, "sales", lags=LAGS) for frame in (more, wave))
    assert len(data.history) == 120
    assert np.array_equal(data.test.x, plain.test.x)


# ---- the order of time


def test_the_order_of_the_rows_makes_no_difference_where_there_is_a_time(wave):
    data = from_series(wave, "sales", lags=LAGS)
    shuffled = wave.sample(fraction=1, shuffle=True, seed=1)
    other = from_series(shuffled, "sales", lags=LAGS)
    for one, same in zip(parts(data), parts(other), strict=True):
        assert np.array_equal(one.x, same.x)
        assert np.array_equal(one.y, same.y)
    assert data.encoder.time == "day"
    assert np.array_equal(data.encoder.encode(shuffled), data.encoder.encode(wave))
    years = wave.with_columns(pl.Series("day", range(1900, 2020)))
    for frame, time in (
        (years, None),
        (years.reverse(), None),
        (years.sample(fraction=1, shuffle=True, seed=2), "day"),
    ):
        assert np.array_equal(from_series(frame, "sales", lags=LAGS, time=time).test.x, data.test.x)
    bare = from_series(wave.drop("day"), "sales", lags=LAGS)
    assert bare.notes[0] == "The steps are in the order of the rows."
    assert np.array_equal(bare.test.x, data.test.x)


def test_the_time_can_be_named(wave):
    two = wave.with_columns(pl.col("day").reverse().alias("back"))
    assert from_series(two, "sales", lags=LAGS).notes[0] == "The steps are in the order of the rows."
    data = from_series(two, "sales", lags=LAGS, time="back", exogenous=["heat"])
    assert data.train.values[0] == wave["sales"][119 - LAGS]
    holes = wave.filter(pl.int_range(120) % 7 != 3)
    assert (
        "The steps of 'day' are not even: each row is taken for one step." in from_series(holes, "sales", lags=2).notes
    )


def test_series_of_every_kind(tmp_path, wave):
    expected = from_series(wave, "sales", lags=LAGS)
    wave.write_csv(tmp_path / "shop.csv")
    pandas = pd.DataFrame({"heat": wave["heat"].to_numpy(), "sales": wave["sales"].to_numpy()})
    pandas.index = pd.DatetimeIndex([datetime(day.year, day.month, day.day) for day in wave["day"]])
    for data in (
        dataset(wave, "sales", lags=LAGS),
        dataset(tmp_path / "shop.csv", "sales", lags=LAGS),
        load_series(tmp_path / "shop.csv", "sales", lags=LAGS),
        load(tmp_path / "shop.csv", "sales", lags=LAGS, time="day"),
        dataset(pandas[::-1], "sales", lags=LAGS),
    ):
        for one, other in zip(parts(data), parts(expected), strict=True):
            np.testing.assert_allclose(one.x, other.x, atol=1e-6)
            np.testing.assert_allclose(one.y, other.y, atol=1e-6)
    alone = from_series(wave.select("day", "sales"), "sales", lags=LAGS)
    values = wave["sales"].to_numpy()
    for data in (
        dataset(values, lags=LAGS),
        dataset(values.tolist(), lags=LAGS),
        dataset(values[:, None], lags=LAGS),
        dataset(pandas["sales"][::-1], lags=LAGS),
    ):
        assert np.array_equal(data.test.x, alone.test.x)
    assert dataset(values, "price", lags=LAGS, name="shop").describe()[:2] == [
        "shop: 116 rows, 1 channel of 4 lags, 4 features",
        "regression of 'price'",
    ]
    assert dataset(np.stack([values, values**2], axis=1), "x0", lags=LAGS).shape == Shape(8, 1, (2, LAGS))


# ---- forecasts


def test_an_encoder_has_a_row_for_the_next_step(wave):
    data = from_series(wave, "sales", lags=LAGS)
    x = data.encoder.encode(wave)
    assert len(x) == len(wave) - LAGS + 1
    assert np.array_equal(x[data.test.rows - LAGS], data.test.x)
    latest = np.array([wave["sales"][-LAGS:], wave["heat"][-LAGS:]])
    scale, mean = np.array(data.encoder.scale)[:, None], np.array(data.encoder.mean)[:, None]
    np.testing.assert_allclose(x[-1].reshape(2, LAGS), (latest - mean) / scale, atol=1e-5)
    with pytest.raises(ValueError, match="got 3 steps of a series: 4 are needed to answer the next"):
        data.encoder.encode(wave[:3])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_forecast_is_each_step_from_those_before(name):
    """As if every answer had been measured, and the series been encoded anew."""
    data = load("sunspots", transform=name)
    outputs = linear(data)
    said = forecast(data.encoder, outputs, data.history, 6)
    history = data.history.drop("year", strict=False)
    for value in said:
        (expected,) = data.encoder.decode(outputs(data.encoder.encode(history)[-1:])).values
        assert value == pytest.approx(expected, rel=1e-4)
        history = pl.concat([history, pl.DataFrame({"sunspots": [expected]})])
    if name == "none":
        x = data.history["sunspots"].to_numpy()
        oracle = AutoReg(x[:248], 9).fit()
        np.testing.assert_allclose(
            forecast(data.encoder, outputs, data.history[:248], 9), oracle.forecast(9), rtol=1e-3
        )


def test_a_forecast_with_further_channels(wave):
    data = from_series(wave[:100], "sales", lags=LAGS)
    outputs = linear(data)
    said = forecast(data.encoder, outputs, wave[:100], 5, future=wave[100:104].drop("sales"))
    assert np.array_equal(said, forecast(data.encoder, outputs, wave[:100], 5, future=wave[100:110]))
    known = wave[:104].with_columns(pl.Series("sales", [*wave["sales"][:100], *said[:4]]))
    (last,) = data.encoder.decode(outputs(data.encoder.encode(known)[-1:])).values
    assert said[4] == pytest.approx(last, rel=1e-5)
    assert len(forecast(data.encoder, outputs, wave[:100], 1)) == 1
    with pytest.raises(
        ValueError, match="the steps after the first also need 'heat' of the ones before: give them as fut"
    ):
        forecast(data.encoder, outputs, wave[:100], 5)
    with pytest.raises(ValueError, match="got 3 future steps for 5 to answer: 4 are needed"):
        forecast(data.encoder, outputs, wave[:100], 5, future=wave[100:103])
    with pytest.raises(ValueError, match="got an encoder of a table: only a series has next steps"):
        forecast(load("diabetes").encoder, outputs, wave, 5)


# ---- errors


def test_what_is_wrong_with_a_series(tmp_path, wave):
    wave.write_csv(tmp_path / "shop.csv")
    twice = pl.concat([wave, wave[5:6]])
    cases = [
        (
            lambda: from_series(wave, "sails", lags=2),
            r"'sails' is not a column of the series \(did you mean",
        ),
        (
            lambda: from_series(wave, lags=2),
            "got a series without a target: name one of its columns, of 'day', 'heat', 'sale",
        ),
        (lambda: from_series(wave, "sales", lags=0), "got lags=0: a whole number of at least 1 was expected"),
        (
            lambda: from_series(wave, "sales", lags=90),
            r"got 120 steps with lags=90, of which .* answer 0, 6, 24: at least",
        ),
        (lambda: from_series(wave, "sales", lags=2, test=0.9), "got validation=0.16, test=0.9: the first must be"),
        (lambda: from_series(wave, "sales", lags=2, time="dai"), r"'dai' is not a column \(did you mean 'day'\?\)"),
        (
            lambda: from_series(twice, "sales", lags=2, time="day"),
            r"column 'day' has datetime.date\(2020, 1, 6\) twice",
        ),
        (lambda: from_series(wave, "day", lags=2), "target 'day' holds dates"),
        (
            lambda: from_series(wave, "sales", lags=2, exogenous=["head"]),
            r"'head' can't be a further channel \(did you m",
        ),
        (lambda: from_series(wave, "sales", lags=2, exogenous=["sales"]), "the others beside 'sales' are 'heat'"),
        (lambda: from_series([1.0] * 50, lags=2), "target 'value' is 1.0 in every row"),
        (
            lambda: from_series(["a", "b"] * 50, lags=2),
            "target 'value' holds texts, as 'a': the steps of a series are numb",
        ),
        (lambda: from_series(wave["sales"] - 100, lags=2, transform="sqrt"), "which has no square root"),
        (lambda: load(tmp_path / "shop.csv", lags=2), "shop.csv needs a target and lags to be a series"),
        (lambda: load("sunspots", "year"), "'sunspots' brings its own target, 'sunspots': leave out --target year"),
        (
            lambda: load("sunspots", task="classification"),
            "got classification, an image or a held-out part beside a ser",
        ),
        (lambda: load("diabetes", time="day"), "got time or exogenous columns without lags"),
        (lambda: dataset(wave, wave["sales"], lags=2), "got answers beside a series"),
        (lambda: dataset(wave, "sales", lags=2, held_out=wave), "got classification, an image or a held-out part"),
    ]
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            wrong()
        assert "\n" not in str(error.value)
    gap = wave.with_columns(pl.when(pl.int_range(120) == 7).then(None).otherwise(pl.col("day")).alias("day"))
    with pytest.raises(ValueError, match="column 'day' is empty in row 8: every step of a series needs its time"):
        from_series(gap, "sales", lags=2, time="day")
    with pytest.raises(ValueError, match="column 'kind' holds other than dates or numbers"):
        from_series(wave.with_columns(pl.lit("x").alias("kind")), "sales", lags=2, time="kind")


def test_a_series_imports_no_torch():
    code = (
        "import sys; from search.data import dataset; dataset([1.0, 2.0, 4.0] * 20, lags=3); "
        "print(sorted({'torch', 'pandas', 'statsmodels', 'sklearn'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_column_without_a_name_is_the_index_of_pandas(tmp_path):
    """As `to_csv` writes it: of dates it is the time, of whole numbers in any order nothing."""
    values = pd.Series(np.arange(60.0) ** 1.5, index=pd.date_range("2024-01-01", periods=60), name="y")
    values.sample(frac=1, random_state=0).to_csv(tmp_path / "dated.csv")
    data = load(tmp_path / "dated.csv", "y", lags=LAGS)
    assert data.encoder.time == "index"
    assert np.array_equal(data.history["y"].cast(pl.Float64), values)
    shuffled = pd.DataFrame({"y": values.to_numpy()}).sample(frac=1, random_state=0)
    shuffled.to_csv(tmp_path / "numbered.csv")
    data = load(tmp_path / "numbered.csv", "y", lags=LAGS)
    assert data.encoder.time == ""
    assert [column.name for column in data.encoder.columns] == ["y"]
    past = data.encoder.unscaled(data.train.x[:, -1])
    assert past[1:] == pytest.approx(data.values(data.train)[:-1], rel=1e-5)  # the step before


def test_a_target_may_be_called_as_rows_are():
    data = from_series({"index": np.arange(60) ** 2, "x": np.sin(np.arange(60))}, "index", lags=LAGS)
    assert [column.name for column in data.encoder.columns] == ["index", "x"]


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_the_index_of_pandas_tells_the_time_in_any_zone(zone):
    frame = pd.DataFrame({"y": np.arange(60.0)}, index=pd.date_range("2024-01-01", periods=60, tz=zone)[::-1])
    data = dataset(frame, "y", lags=LAGS)
    assert data.history["y"].to_list() == np.arange(60.0)[::-1].tolist()
    assert data.encoder.time == "time"


def test_months_are_dates(tmp_path):
    months = pd.period_range("2000-01", periods=60, freq="M")
    y = np.arange(60.0)
    frame = pd.DataFrame({"month": months.astype(str), "y": y})[::-1]
    frame.to_csv(tmp_path / "months.csv", index=False)
    by_period = pd.DataFrame({"y": y}, index=months)[::-1]
    by_numpy = {"month": np.arange("2000-01", "2005-01", dtype="datetime64[M]")[::-1], "y": y[::-1]}
    read = load(tmp_path / "months.csv", "y", lags=LAGS, time="month")
    assert read.history["y"].cast(pl.Float64).to_list() == y.tolist()
    for months_of in (by_period, by_numpy):
        assert dataset(months_of, "y", lags=LAGS).history["y"].to_list() == y.tolist()


def test_whole_numbers_of_numpy_are_lags():
    assert from_series(np.arange(60.0) ** 2, lags=np.int64(3)).encoder.lags == 3


def test_a_short_series_has_as_many_folds_as_it_has_room_for():
    short = from_series(np.arange(24.0) ** 2, lags=12)
    assert short.most_folds == (len(short.train) + len(short.validation)) // 2 < 5
    assert len(short.folds(short.most_folds)) == short.most_folds
    table = dataset(np.eye(20), np.arange(20) / 3)
    assert table.most_folds == len(table.train) + len(table.validation)
