"""Tables from files: what cells, commas, dots and dates are taken for, and what is told of it."""

import csv

import numpy as np
import polars as pl
import pytest
from test_data import parts, people

from search.data import from_frame, load
from search.data.table import alike, read

__all__ = ["people"]  # a fixture


MESSY = {
    "age": ["n/a", "old", *map(str, range(20, 118))],
    "city": ["", *["Oslo", "Rome", "Bonn"] * 33],
    "since": ["", "2020-02-30", *[f"2021-{1 + i % 12:02d}-{1 + i % 28:02d} {i % 24:02d}:30:00" for i in range(98)]],
    "note": [f"said {i}" for i in range(100)],
    "price": ["", *[f"{i * 1.37:.2f}" for i in range(98)], "inf"],
}


def test_a_messy_file_end_to_end(tmp_path):
    file = tmp_path / "shop.csv"
    pl.DataFrame(MESSY).write_csv(file)
    dataset = load(file, "price")
    assert dataset.describe() == [
        "shop: 98 rows, 3 columns used, 13 features",
        "regression of 'price'",
        "split: 62 training, 16 validation, 20 held-out test",
        "Taken as regression: 'price' holds 98 different numbers.",
        "Dropped 2 rows without a value of 'price'.",
        "Texts among numbers count as missing: age ('old').",
        "Missing values become the training median, which a feature marks: age (1), since (1).",
        "Categories, one feature a level, none for a level not seen in training: city (3).",
        "Texts among dates count as missing: since ('2020-02-30').",
        "Dates became days since 1970 and waves of year, week and day: since.",
        "Dropped, as they name rows (nearly every training row has its own): note.",
    ]
    assert all(np.isfinite(part.x).all() for part in parts(dataset))
    assert dataset.encoder.encode(file).shape == (100, 13)  # bad cells and all
    answers = dataset.encoder.decode(dataset.test.y[:, None]).values
    assert set(np.round(answers, 2)) <= {round(i * 1.37, 2) for i in range(98)}


def test_parquet_equals_csv(tmp_path, people):
    frame = people.with_columns(pl.when(pl.col("age") % 5 == 0).then(None).otherwise(pl.col("height")).alias("height"))
    frame.write_csv(tmp_path / "people.csv")
    frame.with_columns(pl.col("city").cast(pl.Categorical)).write_parquet(tmp_path / "people.parquet")
    text, parquet = (load(tmp_path / f"people.{ending}", "bought") for ending in ("csv", "parquet"))
    assert text.encoder == parquet.encoder
    assert text.notes == parquet.notes
    for one, other in zip(parts(text), parts(parquet), strict=True):
        assert np.array_equal(one.x, other.x)
        assert np.array_equal(one.y, other.y)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_read_off_the_header(tmp_path, people, separator):
    people.write_csv(tmp_path / "people.csv", separator=separator, include_bom=True)
    assert read(tmp_path / "people.csv")[0].columns == people.columns


COMMAS = (-0.063, 1234.5, 12.0, 7.25, 1234567.5)


@pytest.mark.parametrize(
    ("separator", "cells", "meaning"),
    [
        (",", ("-0.063", "1,234.5", "12", "7.25", "1,234,567.5"), "marks between thousands"),
        (";", ("-0,063", "1.234,5", "12", "7,25", "1.234.567,5"), "decimal commas"),
    ],
)
def test_commas_in_numbers_are_understood_and_told(tmp_path, separator, cells, meaning):
    """And in a new file as in the first; texts with commas stay as they are."""
    rows = [(cells[i % 5], f"a{i % 3}, b", cells[i % 5]) for i in range(40)]
    for name, some in (("old.csv", rows), ("new.csv", rows[:5])):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file, delimiter=separator).writerows([("x", "text", "y"), *some])
    frame, told = read(tmp_path / "old.csv")
    assert told == [f"Commas in numbers are taken for {meaning}: x, y."]
    assert frame["x"].cast(float).to_list() == [COMMAS[i % 5] for i in range(40)]
    assert frame["text"].to_list() == [text for _, text, _ in rows]
    dataset = load(tmp_path / "old.csv", "y", task="regression")
    assert dataset.notes[0] == told[0]
    assert np.array_equal(dataset.encoder.encode(tmp_path / "new.csv"), dataset.encoder.encode(frame[:5]))


def test_commas_that_can_not_mean_what_they_mean_elsewhere_are_no_numbers_and_that_is_told(tmp_path):
    """A new file may have none that tells: 1,234 would be another number there."""
    rows = [f"{i % 7};{f'1,0{10 + i},344' if i % 2 else f'{900 + i},134'};{i}" for i in range(40)]
    (tmp_path / "table.csv").write_text("\n".join(["x;y;z", *rows]))
    assert any(
        "Read as text, since numbers are written as 1234567.5, for a comma" in n
        for n in load(tmp_path / "table.csv", "x").notes
    )
    with pytest.raises(ValueError, match=r"^target 'y' has '1,0\d\d,344', but numbers are written as 1234567\.5"):
        load(tmp_path / "table.csv", "y")
    assert "numbers are written as 1234567.5" in alike(pl.Series(["1234,56", "12345,5"]))
    assert not alike(pl.Series(["192.168.178.12", "10.0.0.1"]))


def test_the_separator_is_what_the_header_has_most_outside_of_quotes(tmp_path):
    (tmp_path / "a.csv").write_text("area, m2;rooms;price\n1,5;2;3\n")
    assert read(tmp_path / "a.csv")[0].columns == ["area, m2", "rooms", "price"]
    (tmp_path / "b.csv").write_text('"a;b;c",price\n1,2\n')
    assert read(tmp_path / "b.csv")[0].columns == ["a;b;c", "price"]


def test_apostrophes_in_numbers_are_understood_and_told(tmp_path):
    (tmp_path / "table.csv").write_text("x,y,z\n1'234'567.5,O'Neill,1'234\n-1’234,1'000,12'34\n12,a,3\n")
    frame, told = read(tmp_path / "table.csv")
    assert told == ["Apostrophes in numbers are taken for marks between thousands: x."]
    assert frame["x"].to_list() == ["1234567.5", "-1234", "12"]
    assert frame["y"].to_list() == ["O'Neill", "1'000", "a"]
    assert frame["z"].to_list() == ["1'234", "12'34", "3"]


def test_dots_that_may_stand_between_thousands_are_told(tmp_path):
    for separator, doubtful in ((";", True), (",", False)):
        rows = [("x", "y"), ("1.234", "1.5"), ("12", "2.345"), ("12.345", "3")]
        (tmp_path / "table.csv").write_text("".join(separator.join(row) + "\n" for row in rows))
        frame, told = read(tmp_path / "table.csv")
        said = "Dots in numbers are taken for decimal points; where they stand between thousands, take them out: x."
        assert told == [said] * doubtful
        assert frame["x"].to_list() == ["1.234", "12", "12.345"]


def test_dates_with_dots_are_those_of_iso(people):
    iso = from_frame(people, "bought")
    for form in ("%d.%m.%Y", "%-d.%-m.%Y %H:%M", "%d.%m.%Y %H:%M:%S"):
        dotted = from_frame(people.with_columns(pl.col("joined").cast(pl.Datetime).dt.strftime(form)), "bought")
        assert dotted.notes == iso.notes
        assert np.array_equal(dotted.train.x, iso.train.x)


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (
            [f"{1 + i % 12}/{1 + i % 28}/20{i % 90 + 10}" for i in range(200)],
            "dates are written as 2024-12-31 or 31.",
        ),
        ([f"CHF {i}'000" for i in range(200)], "numbers are written without units, as 1234.5: joined."),
        ([f"{i} %" for i in range(200)], "numbers are written without units, as 1234.5: joined."),
        ([f"H{i:03}" for i in range(200)], ""),
        ([f"{i}B" for i in range(200)], ""),
    ],
)
def test_text_that_looks_like_numbers_or_dates_is_told(people, cells, told):
    notes = from_frame(people.with_columns(pl.Series("joined", cells)), "bought").notes
    assert [note for note in notes if note.startswith("Read as text, since ")] == [
        note for note in notes if told and told in note
    ]
    assert any(note.startswith("Dropped, as they name rows") and "joined" in note for note in notes)


def test_numbers_with_units_to_answer_are_refused_with_what_to_write(people):
    with pytest.raises(ValueError, match=r"has '\$0', but numbers are written without units, as 1234.5: correct it"):
        from_frame(people.with_columns(pl.Series("cost", [f"${i}" for i in range(200)])), "cost")


def test_what_differs_in_case_alone_is_told(people):
    cities = ["Bonn", "bonn", "Oslo", "Rome"] * 50
    answers = ["yes", "Yes", "no", "no"] * 50
    notes = from_frame(people.with_columns(pl.Series("city", cities), pl.Series("bought", answers)), "bought").notes
    assert "Levels that differ in case alone are kept apart: city ('Bonn', 'bonn')." in notes
    assert "Classes that differ in case alone are kept apart: 'Yes', 'yes'." in notes


def test_names_of_several_words_are_quoted_in_notes(people):
    notes = from_frame(people.rename({"joined": "joined, when"}), "bought").notes
    assert any(note.endswith(": 'joined, when'.") for note in notes)


@pytest.mark.parametrize("cell", ["1,5", "0,123", "1,2345", "12,34,567", "1,234,x", "1,,234"])
def test_other_commas_are_left_alone(tmp_path, cell):
    (tmp_path / "table.csv").write_text(f'x,y\n"{cell}",1\n"1,234",2\n')
    frame, told = read(tmp_path / "table.csv")
    assert (frame["x"].to_list(), told) == ([cell, "1,234"], [])
