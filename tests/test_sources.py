"""Arrays, tensors, frames of pandas and polars, and data sets of torch: all become the same data set."""

import subprocess
import sys
from datetime import date

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from torch.utils.data import IterableDataset, Subset, TensorDataset

from search.data import dataset, from_arrays, from_frame, from_torch, load
from search.data.encoder import Encoder
from search.shape import Shape


def parts(data):
    return data.train, data.validation, data.test


def assert_same(one, other):
    assert one.classes == other.classes
    for a, b in zip(parts(one), parts(other), strict=True):
        np.testing.assert_array_equal(a.x, b.x)
        np.testing.assert_array_equal(a.y, b.y)
        np.testing.assert_array_equal(a.rows, b.rows)


@pytest.fixture
def xy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    return x, np.where(x[:, 0] + x[:, 1] > 0, 1, 0)


@pytest.fixture
def images():
    """100 images of 2 channels of 4 × 5, the second channel far from the first; and three classes."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(100, 2, 4, 5)) * np.array([1.0, 30.0])[:, None, None] + np.array([5.0, -80.0])[:, None, None]
    return x, rng.integers(0, 3, 100)


# ---- one data set, whatever holds it


def test_every_way_to_give_a_table_gives_the_same(tmp_path, xy):
    x, y = xy
    table = pl.DataFrame({"x0": x[:, 0], "x1": x[:, 1], "x2": x[:, 2], "y": y})
    table.write_csv(tmp_path / "table.csv")
    table.write_parquet(tmp_path / "table.parquet")
    expected = from_frame(table, "y", seed=3)
    ways = [
        ((x, y), {}),
        (((x, y),), {}),
        ((x.tolist(), y.tolist()), {}),
        ((torch.tensor(x), torch.tensor(y)), {}),
        ((torch.tensor(x, requires_grad=True), torch.tensor(y)[:, None]), {}),
        ((list(torch.tensor(x)), list(torch.tensor(y))), {}),
        ((TensorDataset(torch.tensor(x), torch.tensor(y)),), {}),
        ((Subset(TensorDataset(torch.tensor(x), torch.tensor(y)), range(80)),), {}),
        ((table, "y"), {}),
        ((table.lazy(), "y"), {}),
        ((pd.DataFrame(x, columns=["x0", "x1", "x2"]).assign(y=y), "y"), {}),
        ((pd.DataFrame(x, columns=["x0", "x1", "x2"]), pd.Series(y)), {}),
        ((table.drop("y"), table["y"]), {}),
        ((table.to_dict(as_series=False), "y"), {}),
        ((str(tmp_path / "table.csv"), "y"), {}),
        ((tmp_path / "table.parquet", "y"), {}),
        ((x, y), {"features": ["x0", "x1", "x2"]}),
    ]
    for arguments, options in ways:
        assert_same(dataset(*arguments, seed=3, **options), expected)
    assert dataset(expected) is expected
    assert_same(dataset("diabetes", seed=3), load("diabetes", seed=3))


def test_an_encoder_of_arrays_reads_arrays(xy):
    x, y = xy
    data = dataset(x, y)
    again = Encoder.from_json(data.encoder.to_json())
    for rows in (x[data.test.rows], torch.tensor(x[data.test.rows]), x[data.test.rows].tolist()):
        assert np.array_equal(again.encode(rows), data.test.x)


def test_an_encoder_of_arrays_with_names_reads_arrays():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=60), np.zeros(60), rng.normal(size=60)])  # of which one says nothing
    data = dataset(x, rng.normal(size=60), features=("a", "b", "c"))
    assert [column.name for column in data.encoder.columns] == ["a", "c"]
    assert np.array_equal(data.encoder.encode(x[data.test.rows]), data.test.x)
    again = Encoder.from_json(data.encoder.to_json())
    assert np.array_equal(again.encode(x[data.test.rows]), data.test.x)


def test_categories_are_what_they_are_declared_to_be_and_whole_numbers_among_texts_are_theirs():
    rng = np.random.default_rng(0)
    codes = rng.integers(3, size=90)
    frame = pd.DataFrame({"size": codes, "kind": [[1, 2, "A"][code] for code in codes], "y": rng.normal(size=90)})
    frame["size"] = frame["size"].astype("category")
    data = dataset(frame, "y")
    assert [(column.kind, column.levels) for column in data.encoder.columns] == [
        ("category", ("0", "1", "2")), ("category", ("1", "2", "A")),
    ]  # fmt: skip
    rows = frame[frame["kind"] != "A"]  # whole numbers alone
    assert np.array_equal(data.encoder.encode(rows), data.encoder.encode(frame)[(frame["kind"] != "A").to_numpy()])
    assert data.encoder.encode(rows)[:, 3:5].sum() == len(rows)
    plain = rows.assign(size=rows["size"].astype(int), kind=rows["kind"].astype(float))
    assert np.array_equal(data.encoder.encode(plain), data.encoder.encode(rows))
    enum = pl.DataFrame({"size": pl.Series(list("0123" * 20), dtype=pl.Enum(list("0123"))), "y": range(80)})
    assert dataset(enum, "y", task="regression").encoder.columns[0].kind == "category"


def test_an_encoder_of_images_reads_tables_of_texts(images):
    x, y = images
    data = dataset(x, y)
    flat = np.asarray(x).reshape(len(x), -1)
    table = pl.DataFrame({f"p{i}": column.astype(str) for i, column in enumerate(flat.T)})
    assert np.allclose(data.encoder.encode(table), data.encoder.encode(x), atol=1e-6)
    answered = table.with_columns(pl.Series(data.encoder.target, ["1"] * len(x)))
    assert np.array_equal(data.encoder.encode(answered), data.encoder.encode(table))
    wrong = table.with_columns(pl.Series("p1", ["x"] * len(x)))
    with pytest.raises(ValueError, match="column 'p1' has 'x' in row 1: a number was expected"):
        data.encoder.encode(wrong)


def test_names_classes_and_tasks(xy):
    x, y = xy
    named = dataset(x, np.array(["no", "yes"])[y], features=["width", "height", "depth"], name="boxes")
    assert (named.name, named.features, named.target) == ("boxes", ("width", "height", "depth"), "y")
    assert named.classes == ("no", "yes")
    assert dataset(pd.DataFrame({"a": x[:, 0]}), pd.Series(y, name="bought")).target == "bought"
    assert dataset(x, y == 1).classes == ("false", "true")
    assert dataset(x, y, task="regression").task == "regression"
    assert dataset(x, x[:, 0].astype(np.float16)).task == "regression"


def test_gaps_in_arrays_are_as_in_tables(xy):
    x, y = xy
    x = np.where(np.arange(80)[:, None] % 7 == [1, 9, 9], np.nan, x)
    frame = pl.DataFrame(x, schema=["x0", "x1", "x2"]).with_columns(pl.Series("y", y)).fill_nan(None)
    data = dataset(x, y)
    assert_same(data, from_frame(frame, "y"))
    assert data.features[:2] == ("x0", "x0 is missing")
    assert "Missing values become the training median, which a feature marks: x0 (12)." in data.notes
    answers = np.where(np.arange(80) < 3, np.nan, x[:, 1])
    known = dataset(x, answers)
    assert sum(map(len, parts(known))) == 77
    assert min(part.rows.min() for part in parts(known)) == 3


def test_arrays_of_texts_and_of_several_kinds():
    x = np.array([[i % 3, "red" if i % 2 else None, True] for i in range(40)], dtype=object)
    data = dataset(x, [i % 2 for i in range(40)])
    assert data.features == ("x0", "x1 = red", "x1 = missing")
    assert dataset(x.astype(str), [i % 2 for i in range(40)]).features == ("x0", "x1 = None", "x1 = red")


def test_columns_of_pandas_of_every_kind():
    n = 60
    frame = pd.DataFrame(
        {
            "whole": pd.array([None, *range(1, n)], dtype="Int64"),
            "text": pd.Series([None, *[f"t{i % 3}" for i in range(1, n)]]),
            "level": pd.Categorical([f"c{i % 2}" for i in range(n)]),
            "flag": pd.array([None, *[i % 2 == 0 for i in range(1, n)]], dtype="boolean"),
            "day": pd.date_range("2020-01-01", periods=n),
            "noon": pd.date_range("2020-01-01 12:00", periods=n, tz="Europe/Berlin"),
            "born": [date(2000, 1, 1 + i % 28) for i in range(n)],
            "y": np.linspace(0, 1, n),
        }
    )
    data = dataset(frame, "y")
    kinds = {column.name: column.kind for column in data.encoder.columns}
    assert kinds == {
        "whole": "number", "text": "category", "level": "category", "flag": "category",
        "day": "date", "noon": "date", "born": "date",
    }  # fmt: skip
    x = data.encoder.encode(frame)
    assert x.shape == (n, data.n_inputs)
    at = data.features.index("noon")
    days = x[0, at] * data.encoder.scale[at] + data.encoder.mean[at]
    assert days == pytest.approx((date(2020, 1, 1) - date(1970, 1, 1)).days + 11 / 24, abs=1e-3)  # in UTC
    assert x[0, data.features.index("text = missing")] == (1 if "text = missing" in data.features else 0)


# ---- images


def test_an_image_has_one_scale_a_channel(images):
    x, y = images
    data = dataset(x, y)
    assert data.shape == Shape(40, 3, (2, 4, 5))
    assert data.n_inputs == len(data.features)
    told = "Taken as images of 2 channels, 4 × 5, from the axes (rows, channels, height, width) of x."
    assert told in data.notes
    assert data.describe()[0] == "arrays: 100 rows, 2 channels of 4 × 5, 40 features"
    known = x[data.train.rows]
    mean, scale = known.mean(axis=(0, 2, 3), keepdims=True), known.std(axis=(0, 2, 3), keepdims=True)
    for part in parts(data):
        np.testing.assert_allclose(part.x, ((x[part.rows] - mean) / scale).reshape(-1, 40), rtol=1e-5, atol=1e-5)
        assert np.array_equal(part.y, y[part.rows])
    again = Encoder.from_json(data.encoder.to_json())
    assert again == data.encoder
    table = pl.DataFrame(x.reshape(100, 40))
    for rows in (x, torch.tensor(x), x.reshape(100, 40), table):
        assert np.array_equal(again.encode(rows)[data.test.rows], data.test.x)


@pytest.mark.parametrize(
    ("shape", "image", "expected"),
    [
        ((60, 6, 7), None, (1, 6, 7)),
        ((60, 6, 7), (6, 7), (6, 7)),
        ((60, 1, 6, 7), None, (1, 6, 7)),
        ((60, 3, 6, 7), None, (3, 6, 7)),
        ((60, 2, 4, 3, 5), None, (2, 4, 3, 5)),
        ((60, 6, 7, 1), (6, 7, 1), (6, 7, 1)),
        ((60, 42), (1, 6, 7), (1, 6, 7)),
        ((60, 42), (2, 21), (2, 21)),
        ((60, 42), None, ()),
    ],
)
def test_what_the_axes_are_taken_for(shape, image, expected):
    x = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    data = dataset(x, np.arange(60) % 2, image=image)
    assert data.shape == Shape(x[0].size, 2, expected)
    assert any(note.startswith("Taken as images") for note in data.notes) == (image is None and len(shape) > 2)
    raw = data.test.x.reshape(len(data.test), *expected) if expected else data.test.x
    if expected:  # one scale a channel undoes what was done, and the pixels are where they were
        mean, scale = (
            np.array(v).reshape(-1, *[1] * (len(expected) - 1)) for v in (data.encoder.mean, data.encoder.scale)
        )
        np.testing.assert_allclose(raw * scale + mean, x[data.test.rows].reshape(-1, *expected), atol=1e-3)


def test_gaps_in_images_become_the_median_of_the_channel(images):
    x, y = images
    x[::10, 1, 2, 3], x[5, 0, 0, 0] = np.nan, np.inf
    data = dataset(x, y)
    assert "Missing and infinite values become the training median of their channel (11)." in data.notes
    assert data.n_inputs == 40
    known = x[data.train.rows, 1]
    assert data.encoder.columns[1].fill == np.median(known[np.isfinite(known)])
    found = data.encoder.encode(x)[0].reshape(2, 4, 5)[1, 2, 3] * data.encoder.scale[1] + data.encoder.mean[1]
    assert found == pytest.approx(data.encoder.columns[1].fill, rel=1e-5)


def test_images_for_regression(images):
    x, _ = images
    data = dataset(x, x.sum(axis=(1, 2, 3)))
    assert data.shape == Shape(40, 1, (2, 4, 5))
    np.testing.assert_allclose(data.test.values, x[data.test.rows].sum(axis=(1, 2, 3)))


# ---- a held-out part of the caller's own


def test_a_held_out_part_is_the_test_part(xy):
    x, y = xy
    new, answers = x[:30] + 100, 1 - y[:30]
    data = dataset(x, y, held_out=(new, answers), validation=0.25)
    assert [len(part) for part in parts(data)] == [60, 20, 30]
    assert np.array_equal(data.test.y, answers)
    assert np.array_equal(data.test.x, data.encoder.encode(new))
    assert np.array_equal(np.sort(np.concatenate([data.train.rows, data.validation.rows])), np.arange(80))
    assert "The test part is the held-out part as given." in data.notes
    blind = dataset(x, y, held_out=(new * 0, answers), validation=0.25)
    assert blind.encoder == data.encoder  # nothing is learned from it


def test_held_out_parts_of_every_kind(tmp_path, xy, images):
    x, y = xy
    expected = dataset(x, y, held_out=(x[:9], y[:9]))
    frame = pl.DataFrame(x, schema=["x0", "x1", "x2"]).with_columns(pl.Series("y", y))
    frame.write_csv(tmp_path / "train.csv")
    frame[:9].write_csv(tmp_path / "test.csv")
    tensors = TensorDataset(torch.tensor(x), torch.tensor(y))
    assert_same(dataset(frame, "y", held_out=frame[:9]), expected)
    assert_same(dataset(frame.to_dict(), "y", held_out=frame[:9].to_dict()), expected)
    assert_same(dataset(tmp_path / "train.csv", "y", held_out=tmp_path / "test.csv"), expected)
    assert_same(dataset(tensors, held_out=Subset(tensors, range(9))), expected)
    x, y = images
    data = dataset(x, y, held_out=(x[:7], y[:7]))
    assert np.array_equal(data.test.x, data.encoder.encode(x[:7]))
    assert len(data.train) + len(data.validation) == 100


def test_what_is_wrong_with_a_held_out_part(xy, images):
    x, y = xy
    texts = np.array(["no", "yes"])[y]
    other = texts[:9].astype(object)
    other[4] = "maybe"
    cases = [
        (
            (x, texts),
            (x[:9], other),
            r"in the held-out part, target 'y' has 'maybe' in row 5: one of the classes in tr",
        ),
        ((x, y), (x[:9], np.full(9, 7)), r"target 'y' has 7 in row 1: one of the classes in training \(0, 1\) was exp"),
        ((x, x[:, 0]), (x[:9], ["a"] * 9), "target 'y' has 'a' in row 1: a number was expected"),
        ((x, y), (x[:9], [None] * 9), "in the held-out part, no row has a value of 'y'"),
        ((x, y), (x[:9, :2], y[:9]), "in the held-out part, column 'x2' is missing: the columns are 'x0', 'x1'"),
        (
            (x, y),
            (x[:0], y[:0]),
            r"got x of shape \(0, 3\): \(rows, features\) was expected, with at least one of each",
        ),
        ((x, y), (x[:9], y[:8]), "got the held-out x of 9 rows and 8 answers: give one answer a row"),
        ((x, y), x, "got held_out as ndarray: a pair"),
        (
            images,
            (images[0][:5, :1], images[1][:5]),
            r"got a held-out x of shape \(5, 1, 4, 5\) beside an x of \(100, 2",
        ),
        (images, (images[0][:0], images[1][:0]), r"got the held-out x of shape \(0, 2, 4, 5\): at least one row"),
    ]
    for arguments, held_out, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            dataset(*arguments, held_out=held_out)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="got validation=1: it must be above 0 and below 1"):
        dataset(x, y, held_out=(x, y), validation=1)


def test_the_held_out_part_may_have_gaps_and_more_columns(xy):
    x, y = xy
    frame = pl.DataFrame(x, schema=["a", "b", "c"]).with_columns(pl.Series("y", y))
    new = frame[:9].with_columns(pl.lit(1).alias("more"), pl.Series("y", [None, *y[1:9]]))
    data = dataset(frame, "y", held_out=new)
    assert len(data.test) == 8
    assert data.test.rows.tolist() == list(range(1, 9))
    assert "In the held-out part: Dropped 1 row without a value of 'y'." in data.notes
    assert "Columns of the held-out part alone are left out: more." in data.notes
    with pytest.raises(ValueError, match="'y' is not a column of the held-out part"):
        dataset(frame, "y", held_out=new.drop("y"))
    with pytest.raises(ValueError, match="got a held-out file beside 'digits', whose test part the seed draws"):
        dataset("digits", held_out="more.csv")


# ---- what can't be taken


def test_what_can_not_be_taken(xy):
    x, y = xy
    wrong = [
        ((x, y[:5]), "got x of 80 rows and 5 answers: give one answer a row"),
        ((x[:, 0], y), r"got x of shape \(80,\)"),
        ((x, np.eye(2)[y]), r"got y of shape \(80, 2\): one value a row was expected; .* as from argmax\(axis=1\)"),
        ((x, y + 1j), "got y of complex128: numbers, texts or dates were expected"),
        (
            (np.zeros((20, 8, 8, 3)), y[:20]),
            r"whose channels seem to come last: give np.moveaxis\(x, -1, 1\), or image=",
        ),
        ((np.zeros((20, 2, 2, 2, 2, 2)), y[:20]), r"got x of shape \(20, 2, 2, 2, 2, 2\): \(rows, features\), "),
        ((np.full((20, 4, 4), "a"), y[:20]), "got x of <U1: an image is of numbers"),
        ((np.ones((20, 4, 4)), np.arange(20) % 2), "x is the same in every training row"),
        (([[1], [2, 3]], [1, 2]), "got rows of x that differ in shape"),
        ((pl.DataFrame({"a": [1, 2]}),), "got a table without a target: name one of its columns, of 'a'"),
        ((pd.DataFrame([[1, 2]], columns=["a", "a"]), "a"), "got several columns called 'a'"),
        (({"a": [1, 2], "b": [1]}, "a"), "got columns of 1, 2 rows: give all of them the same number"),
        ((TensorDataset(torch.zeros(3, 2)),), r"sample 0 of the .* is no pair \(x, y\): a tuple of 1 was"),
        ((TensorDataset(torch.zeros(3, 2), torch.zeros(3)), "y"), "got a target beside a torch data set"),
    ]
    for arguments, message in wrong:
        with pytest.raises(ValueError, match=message) as error:
            dataset(*arguments)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"got x with axes \(8, 8, 3\) beside its rows and an image of \(3, 8, 8\)"):
        dataset(np.zeros((20, 8, 8, 3)), y[:20], image=(3, 8, 8))
    with pytest.raises(ValueError, match=r"got an image of \(2, 2\) for 3 features"):
        dataset(x, y, image=(2, 2))
    with pytest.raises(ValueError, match="got 2 names for the 3 columns of x"):
        dataset(x, y, features=["a", "b"])
    with pytest.raises(ValueError, match="got a column of x called 'y', as the answers are"):
        dataset(x, y, features=["a", "b", "y"])
    with pytest.raises(ValueError, match="got features beside a table"):
        dataset("digits", features=["a"])
    for data, target in ((3, None), (x, None), (None, "y"), (x, "y"), (open, [1, 2])):
        with pytest.raises(TypeError, match=r"got data of .* and a target of .*: give a bundled name, a \.csv or"):
            dataset(data, target)


def test_torch_data_sets_that_are_odd(xy):
    x, y = xy

    class Stream(IterableDataset):
        def __iter__(self):
            return zip(torch.tensor(x), y.tolist(), strict=True)

    assert_same(from_torch(Stream()), from_arrays(x, y))
    ragged = [(torch.zeros(2), 0), (torch.zeros(3), 1)]
    with pytest.raises(ValueError, match=r"sample 1 has an x of shape \(3,\), the first of \(2,\): give all the same"):
        from_torch(ragged)


def test_arrays_import_neither_torch_nor_pandas():
    code = (
        "import sys, numpy as np; from search.data import dataset; "
        "dataset(np.arange(40.).reshape(20, 2), np.arange(20.) / 3); "
        "dataset(np.random.rand(20, 4, 4), np.arange(20) % 2); "
        "print(sorted({'torch', 'pandas', 'sklearn'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
