import builtins
import json
import subprocess
import sys
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.data import BUNDLED, dataset, from_frame, load, split
from search.data.columns import MOST_LEVELS, moments
from search.data.encoder import Encoder
from search.data.table import infer, parse, plain
from search.shape import Shape


@pytest.fixture
def people():
    """A table with one column of each sort, without gaps; 200 rows."""
    rng = np.random.default_rng(0)
    n = 200
    age = rng.integers(18, 90, n)
    return pl.DataFrame(
        {
            "age": age,
            "height": rng.normal(170, 10, n),
            "city": rng.choice(["Bonn", "Oslo", "Rome"], n, p=[0.2, 0.5, 0.3]),
            "member": rng.random(n) < 0.5,
            "joined": [date(2020, 1, 1) + timedelta(days=int(day)) for day in rng.integers(0, 900, n)],
            "bought": np.where(age > 50, "yes", "no"),
        }
    )


def parts(dataset):
    return dataset.train, dataset.validation, dataset.test


# ---- images in tables


@pytest.fixture
def pixels():
    """Two channels of 2 × 3 pixels, the second a hundred times as bright; one pixel is always dark. 60 rows."""
    rng = np.random.default_rng(2)
    bright = rng.random((60, 2, 2, 3)) * np.array([1.0, 100.0])[:, None, None]
    bright[:, 0, 0, 0] = 0.0
    frame = pl.DataFrame(bright.reshape(60, 12), schema=[f"p{i}" for i in range(12)])
    return bright, frame.with_columns(pl.Series("kind", rng.choice(["a", "b"], 60)))


def test_an_image_in_a_table_has_one_scale_a_channel(tmp_path, pixels):
    bright, frame = pixels
    frame.write_csv(tmp_path / "pixels.csv")
    dataset = load(tmp_path / "pixels.csv", "kind", image=(2, 2, 3))
    assert dataset.shape == Shape(12, 2, (2, 2, 3))
    known = bright[dataset.train.rows]
    mean, scale = known.mean(axis=(0, 2, 3), keepdims=True), known.std(axis=(0, 2, 3), keepdims=True)
    expected = ((bright - mean) / scale)[dataset.test.rows].reshape(-1, 12)
    np.testing.assert_allclose(dataset.test.x, expected, rtol=1e-5, atol=1e-5)


def test_a_gap_in_an_image_becomes_its_pixels_median(pixels):
    bright, frame = pixels
    gaps = frame.with_columns(pl.when(pl.int_range(60) < 6).then(None).otherwise(pl.col("p7")).alias("p7"))
    dataset = from_frame(gaps, "kind", image=(2, 2, 3))
    assert dataset.n_inputs == 12
    assert "Missing values become the training median of their pixel (6)." in dataset.notes
    known = [row for row in dataset.train.rows if row >= 6]
    assert dataset.encoder.columns[7].fill == np.median(bright.reshape(60, 12)[known, 7])


def test_errors_about_images_in_tables(pixels):
    _, frame = pixels
    with pytest.raises(ValueError, match=r"got 12 columns for an image of \(1, 3, 3\): 9 were expected"):
        from_frame(frame, "kind", image=(1, 3, 3))
    with pytest.raises(ValueError, match="column 'p3' holds other than numbers: the columns of an image are its pix"):
        from_frame(frame.with_columns(pl.lit("x").alias("p3")), "kind", image=(2, 2, 3))
    with pytest.raises(ValueError, match=r"got an image of \(12,\) for 12 features"):
        from_frame(frame, "kind", image=(12,))


# ---- the split


@given(
    counts=st.lists(st.integers(2, 60), min_size=1, max_size=6).filter(lambda counts: sum(counts) >= 20),
    seed=st.integers(0, 1000),
)
def test_the_split_is_a_partition_and_spreads_every_class(counts, seed):
    strata = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = split(strata, seed, 0.16, 0.2)
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(strata)))
    assert all(np.array_equal(a, b) for a, b in zip(rows, split(strata, seed, 0.16, 0.2), strict=True))
    for part in rows:
        share = len(part) / len(strata)
        assert all(abs(np.sum(strata[part] == i) - share * count) <= 2 for i, count in enumerate(counts))
    assert set(strata[rows[0]]) == set(range(len(counts)))


def test_the_order_of_the_rows_does_not_decide_the_split():
    for strata in (np.zeros(1000), np.repeat([0, 1], 500)):
        one, other = (split(strata, seed, 0.16, 0.2) for seed in (0, 1))
        for part in one:
            assert abs(part.mean() - 499.5) < 80  # the mean row number of a random fifth has a deviation of about 20
        assert 10 < len(np.intersect1d(one[2], other[2])) < 80  # two random fifths share about 40 rows of 1000


def test_the_seed_decides_the_split(people):
    first, again, other = (from_frame(people, "bought", seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.train.x, again.train.x)
    assert not np.array_equal(first.train.x, other.train.x)


def test_shares_of_the_split(people):
    dataset = from_frame(people, "bought", validation=0.3, test=0.4)
    assert [len(part) for part in parts(dataset)] == [60, 60, 80]
    for validation, test in ((0.2, -0.1), (0.5, 0.5), (-0.1, 0.2)):
        with pytest.raises(ValueError, match="sum below 1"):
            from_frame(people, "bought", validation=validation, test=test)


def test_rare_classes_are_told(people):
    frame = people.with_columns(pl.Series("bought", ["rare"] * 3 + people["bought"].to_list()[3:]))
    dataset = from_frame(frame, "bought")
    assert "Too few rows for every part to hold one: rare." in dataset.notes
    assert dataset.classes.index("rare") in dataset.train.y


# ---- nothing is learned from validation and test rows


def test_statistics_see_the_training_rows_alone(people):
    frame = people.with_columns(pl.when(pl.col("age") > 80).then(None).otherwise(pl.col("age")).alias("age"))
    codes = (frame["bought"] == "yes").to_numpy().astype(int)
    train, *others = split(codes, 0, 0.16, 0.2)
    hidden = pl.Series(np.isin(np.arange(len(frame)), np.concatenate(others)))
    wild = frame.with_columns(
        pl.when(hidden).then(pl.lit(10**9)).otherwise(pl.col("age")).alias("age"),
        pl.when(hidden).then(None).otherwise(pl.col("height")).alias("height"),
        pl.when(hidden).then(pl.lit("Mars")).otherwise(pl.col("city")).alias("city"),
        pl.when(hidden).then(pl.lit(date(1900, 1, 1))).otherwise(pl.col("joined")).alias("joined"),
    )
    tame_set, wild_set = from_frame(frame, "bought"), from_frame(wild, "bought")
    assert tame_set.encoder == wild_set.encoder
    assert np.array_equal(tame_set.train.x, wild_set.train.x)
    assert not np.array_equal(tame_set.test.x, wild_set.test.x)
    levels = [i for i, name in enumerate(wild_set.features) if name.startswith("city")]
    assert not wild_set.test.x[:, levels].any()  # a level not seen in training is none of the levels
    assert len(train) == len(wild_set.train)


# ---- columns


def test_features_of_each_kind(people):
    encoder = from_frame(people, "bought").encoder
    assert encoder.features[:7] == (
        "age", "height", "city = Bonn", "city = Oslo", "city = Rome", "member = false", "member = true"
    )  # fmt: skip
    assert encoder.features[7:] == (
        "joined", "joined, sine of 365.243 days", "joined, cosine of 365.243 days",
        "joined, sine of 7 days", "joined, cosine of 7 days",
    )  # fmt: skip
    x = encoder.encode(people)
    one_hot = np.stack([(people["city"] == city).to_numpy() for city in ("Bonn", "Oslo", "Rome")], axis=1)
    assert np.array_equal(x[:, 2:5], one_hot)
    days = np.array([(day - date(1970, 1, 1)).days for day in people["joined"]])
    np.testing.assert_allclose(x[:, 7] * encoder.scale[7] + encoder.mean[7], days, rtol=1e-6)
    np.testing.assert_allclose(x[:, 10] * encoder.scale[10] + encoder.mean[10], np.sin(2 * np.pi * days / 7), atol=1e-5)


def test_missing_numbers_become_the_training_median_and_an_indicator(people):
    gaps = np.arange(len(people)) % 7 == 0
    frame = people.with_columns(pl.when(pl.Series(gaps)).then(None).otherwise(pl.col("height")).alias("height"))
    dataset = from_frame(frame, "bought")
    train = split((frame["bought"] == "yes").to_numpy().astype(int), 0, 0.16, 0.2)[0]
    height = dataset.encoder.columns[1]
    assert height.fill == frame["height"][train].median()
    x = dataset.encoder.encode(frame)
    value, flag = (dataset.features.index(name) for name in ("height", "height is missing"))
    assert np.array_equal(x[:, flag], gaps)
    np.testing.assert_allclose(
        x[gaps, value], (height.fill - dataset.encoder.mean[value]) / dataset.encoder.scale[value], rtol=1e-5
    )
    assert f"Missing values become the training median, which a feature marks: height ({gaps.sum()})." in dataset.notes


def test_infinite_values_are_missing_and_told(people):
    frame = people.with_columns(pl.Series("height", [np.inf, -np.inf, np.nan, *people["height"].to_list()[3:]]))
    dataset = from_frame(frame, "bought")
    assert "Infinite values count as missing: height (2)." in dataset.notes
    assert all(np.isfinite(part.x).all() for part in parts(dataset))


def test_a_category_has_a_level_for_missing_and_one_for_the_rarest():
    rng = np.random.default_rng(1)
    towns = [None if i % 10 == 0 else f"town {rng.integers(MOST_LEVELS + 20)}" for i in range(600)]
    frame = pl.DataFrame({"town": towns, "x": rng.normal(size=600), "y": rng.normal(size=600)})
    column = from_frame(frame, "y").encoder.columns[0]
    assert len(column.levels) == MOST_LEVELS + 1
    assert column.levels[-1] is None
    assert column.features[-2:] == ("town = missing", "town = (other)")
    known = column.levels[0]
    coded = column.encode(pl.Series("town", [known, None, "elsewhere", " " + known]))
    assert coded.argmax(axis=1).tolist() == [0, MOST_LEVELS, MOST_LEVELS + 1, 0]
    assert coded.sum(axis=1).tolist() == [1, 1, 1, 1]


def test_columns_that_say_nothing_are_dropped_and_told(people):
    n = len(people)
    frame = people.with_columns(
        pl.Series("customer_id", range(n)),
        pl.Series("name", [f"person {i}" for i in range(n)]),
        pl.lit("x").alias("same"),
        pl.lit(None).alias("empty"),
        pl.Series("pair", [[1, 2]] * n),
    )
    dataset = from_frame(frame, "bought")
    assert [column.name for column in dataset.encoder.columns] == ["age", "height", "city", "member", "joined"]
    dropped = [note for note in dataset.notes if note.startswith("Dropped")]
    assert dropped == [
        "Dropped, as they name rows (nearly every training row has its own): customer_id, name.",
        "Dropped, as the same in every training row: same, empty.",
        "Dropped, as neither numbers, texts nor dates: pair (List(Int64)).",
    ]
    with pytest.raises(ValueError, match=r"no column is left to learn from\. Dropped, as the same"):
        from_frame(frame.select("same", "bought"), "bought")


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", " 2.5", "-3e2", "NA"], "number", [1, 2.5, -300, None]),
        (["1970-01-02", "1969-12-31", "?"], "date", [1, -1, None]),
        (["1970-01-02T12:00:00", "1970-01-02 06:00", "1970-01-02T02:00:00+02:00"], "date", [1.5, 1.25, 1]),
        (["True", "false", "TRUE", ""], "category", ["true", "false", "true", None]),
        (["a", "b ", "12", "N/A"], "category", ["a", "b", "12", None]),
        ([True, False, None], "category", ["true", "false", None]),
        ([datetime(1970, 1, 2, 18), None], "date", [1.75, None]),
        ([3, 4, None], "number", [3, 4, None]),
    ],
)
def test_what_cells_are_taken_for(cells, kind, values):
    column = plain(pl.Series("column", cells))
    assert infer(column) == (kind, ())
    assert parse(column, kind).to_list() == values


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=30))
def test_scales_are_finite_and_positive_for_any_numbers(values):
    values = np.array(values)
    mean, scale = moments(values, None)
    assert np.isfinite(mean)
    assert np.isfinite(scale)
    assert scale > 0
    if np.abs(values).max() < 1e100 and values.std() > 1e-9 * np.abs(values).max():
        assert mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-9 * np.abs(values).max())
        assert scale == pytest.approx(values.std(), rel=1e-6)


def test_numbers_far_from_the_training_rows_stay_finite(people):
    encoder = from_frame(people, "bought").encoder
    x = encoder.encode(people.with_columns(pl.lit(1.7e308).alias("height")))
    assert np.isfinite(x).all()


# ---- the task


@pytest.mark.parametrize(
    ("answers", "task", "classes"),
    [
        (["a", "b"] * 50, "classification", ("a", "b")),
        ([True, False] * 50, "classification", ("false", "true")),
        ([3, 1, 2, 1] * 25, "classification", (1, 2, 3)),
        ([0.0, 1.0] * 50, "classification", (0, 1)),
        (["1", "2", "2", "3+"] * 25, "classification", ("1", "2", "3+")),
        (list(range(100)), "regression", ()),
        ([0.5, 1.5] * 50, "regression", ()),
    ],
)
def test_the_task_is_inferred_and_told(answers, task, classes):
    frame = pl.DataFrame({"x": np.arange(100.0), "y": answers})
    dataset = from_frame(frame, "y")
    assert (dataset.task, dataset.classes) == (task, classes)
    assert dataset.notes[0].startswith(f"Taken as {task}: 'y' holds {len(set(answers))} different ")


def test_the_task_can_be_forced():
    frame = pl.DataFrame({"x": np.arange(100.0), "y": [1, 2] * 50})
    assert from_frame(frame, "y", task="regression").n_outputs == 1
    forced = from_frame(frame.with_columns(pl.col("y") / 4), "y", task="classification")
    assert forced.classes == (0.25, 0.5)
    assert not any("Taken as" in note for note in forced.notes)
    with pytest.raises(ValueError, match="got task='ranking': give 'classification' or 'regression'"):
        from_frame(frame, "y", task="ranking")
    with pytest.raises(ValueError, match="target 'y' has 'b' in row 2: regression needs numbers"):
        from_frame(frame.with_columns(pl.Series("y", ["1", "b"] * 50)), "y", task="regression")


def test_rows_without_an_answer_are_dropped_and_told(people):
    frame = people.with_columns(pl.Series("bought", [None, "NA", *people["bought"].to_list()[2:]]))
    dataset = from_frame(frame, "bought")
    assert sum(map(len, parts(dataset))) == len(people) - 2
    assert "Dropped 2 rows without a value of 'bought'." in dataset.notes
    assert np.array_equal(from_frame(people[2:], "bought").train.x, dataset.train.x)


# ---- the encoder


def test_json_holds_the_encoder_exactly(people):
    frame = people.with_columns(pl.when(pl.col("age") > 70).then(None).otherwise(pl.col("city")).alias("city"))
    for target in ("bought", "height", "member"):
        encoder = from_frame(frame, target).encoder
        text = encoder.to_json()
        again = Encoder.from_json(text)
        assert again == encoder
        assert again.to_json() == text
        assert json.loads(text)["target"] == target
        assert np.array_equal(again.encode(frame), encoder.encode(frame))


def test_encoding_finds_columns_by_name(people):
    dataset = from_frame(people, "bought")
    shuffled = people.select(reversed(people.columns)).with_columns(pl.lit(1).alias("extra")).drop("bought")
    assert np.array_equal(dataset.encoder.encode(shuffled), dataset.encoder.encode(people))
    as_mapping = {name: people[name].to_list() for name in people.columns}
    assert np.array_equal(dataset.encoder.encode(as_mapping), dataset.encoder.encode(people))


def test_encoding_names_what_is_wrong(people):
    encoder = from_frame(people, "bought").encoder
    with pytest.raises(ValueError, match=r"column 'height' is missing \(did you mean 'Heigth'\?\): the columns are"):
        encoder.encode(people.rename({"height": "Heigth"}))
    with pytest.raises(ValueError, match=r"columns 'age', 'height' are missing: the columns are '"):
        encoder.encode(people.drop("age", "height"))
    near = people.with_columns(pl.col("age").alias("ages"))  # that is needed itself, so it can't be meant
    with pytest.raises(ValueError, match="column 'age' is missing: the columns are '"):
        from_frame(near, "bought").encoder.encode(near.drop("age"))
    with pytest.raises(ValueError, match="column 'age' has 'old' in row 3: a number was expected"):
        encoder.encode(people.with_columns(pl.Series("age", ["1", None, "old"] + ["4"] * 197)))
    with pytest.raises(ValueError, match="column 'joined' has 5 in row 1: a date was expected"):
        encoder.encode(people.with_columns(pl.lit(5).alias("joined")))
    with pytest.raises(ValueError, match=r"column 'city' holds List\(Int64\)"):
        encoder.encode(people.with_columns(pl.Series("city", [[1]] * 200)))


def test_decoding_classes():
    dataset = load("breast_cancer")
    logits = np.array([[0.0, 1000.0], [np.log(3.0), 0.0]])
    answers = dataset.encoder.decode(logits)
    assert answers.values.tolist() == ["malignant", "benign"]
    np.testing.assert_allclose(answers.probabilities, [[0, 1], [0.75, 0.25]], atol=1e-12)
    with pytest.raises(ValueError, match=r"got outputs of shape \(2, 1\): \(rows, 2\) was expected"):
        dataset.encoder.decode(logits[:, :1])


# ---- errors


def test_errors_about_names_and_files(tmp_path, people):
    good, empty, header, other = (tmp_path / name for name in ("good.csv", "empty.csv", "header.csv", "table.xlsx"))
    people.write_csv(good)
    empty.write_text("")
    header.write_text("a,b\n")
    other.write_text("a,b\n1,2\n")
    (tmp_path / "latin.csv").write_bytes(b"a,b\n\xe9,2\n")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
    (tmp_path / "twins.csv").write_text("a,b,a\n1,2,3\n")
    (tmp_path / "bad.parquet").write_text("a,b\n1,2\n")
    cases = [
        (
            "digit",
            None,
            r"no bundled data set is called 'digit' \(did you mean 'digits'\?\): give one of digits, breast",
        ),
        ("digits", "bought", "'digits' brings its own target, 'digit'"),
        (good, None, "needs a target: name one of its columns with --target, of 'age', 'height'"),
        (good, "brought", r"'brought' is not a column of good \(did you mean 'bought'\?\)"),
        (good, "joined", "target 'joined' holds dates"),
        (empty, "a", "empty.csv is empty"),
        (header, "a", "header.csv has no rows"),
        (other, "a", "table.xlsx ends in .xlsx: give a .csv or a .parquet file"),
        (tmp_path, "a", "is a folder"),
        (
            tmp_path / "latin.csv",
            "a",
            "latin.csv can't be read as a CSV file in UTF-8: invalid utf-8 sequence; save it as UTF-8",
        ),
        (
            tmp_path / "ragged.csv",
            "a",
            "ragged.csv can't be read as a CSV file in UTF-8: a row has more cells than the header",
        ),
        (tmp_path / "twins.csv", "a", "twins.csv has two columns called 'a': give each its own name"),
        (tmp_path / "bad.parquet", "a", "bad.parquet can't be read as a Parquet file"),
    ]
    for source, target, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            load(source, target)
        assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"file not found: .*none.csv"):
        load(tmp_path / "none.csv", "a")


def test_errors_about_the_target(people):
    n = len(people)
    cases = [
        (["a"] * (n - 1) + ["b"], r"classes of one row \('b'; 2 classes in 200 rows\)"),
        ([5.0] * n, "target 'bought' is 5.0 in every row: there is nothing to learn"),
        (["a"] * n, "target 'bought' is 'a' in every row: there is nothing to learn"),
        (["a", "b"] * 4 + [None] * (n - 8), "got 8 rows with a value of 'bought': at least 10 are needed"),
        ([*map(str, range(n - 1)), "many"], "target 'bought' has 'many' in row 200: regression needs numbers"),
        ([[1]] * n, r"target 'bought' holds List\(Int64\)"),
        ([""] * n, "got no row with a value of 'bought': at least 10 are needed"),
    ]
    with pytest.raises(ValueError, match="has the column 'age' alone: there is nothing to answer it from; of a series"):
        from_frame(people.select("age"), "age")
    for answers, message in cases:
        with pytest.raises(ValueError, match=message):
            from_frame(people.with_columns(pl.Series("bought", answers)), "bought")


@pytest.mark.parametrize(("module", "package"), [("polars", "polars"), ("sklearn", "scikit-learn")])
def test_a_missing_package_is_named_with_its_command(monkeypatch, module, package):
    for name in [loaded for loaded in sys.modules if loaded.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] == module:
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr("search.data.table.import_module", without)
    with pytest.raises(ImportError, match=rf"need {package}, which is not installed: pip install 'machgraph\[data\]'"):
        load(BUNDLED[0])


def test_importing_loads_neither_torch_nor_the_extra():
    code = "import sys, search.data; print(sorted({'torch', 'polars', 'sklearn', 'scipy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("validation", [0, 0.25])
def test_all_rows_are_to_be_learned_from_where_none_is_held_out(validation):
    data = dataset(np.arange(40.0).reshape(20, 2), np.arange(20.0), validation=validation, test=0)
    assert (len(data.train), len(data.validation), len(data.test)) == (20 * (1 - validation), 20 * validation, 0)
    assert data.transformed("sqrt").test.x.shape == (0, 2)
    assert len(data.whole().train) == 20
