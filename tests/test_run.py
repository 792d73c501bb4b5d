"""What a run's folder holds is read back as it was written, and what it should not hold is refused."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.point import canonical
from search.recipe import Recipe
from search.run import (
    LEADERBOARD,
    LEDGER,
    RUN,
    Facts,
    Record,
    Row,
    Settings,
    read_facts,
    read_leaderboard,
    read_records,
    read_settings,
    write_leaderboard,
    write_ledger,
    write_run,
)
from search.space import Space

SETTINGS = Settings("digits", None, None, 0, "tpe", 10, 2.5, 8, Space(), Recipe(patience=None), threads=2)
FACTS = Facts("kinds, of [two]", "classification", 3, 2, ("a", 'b"'), ("one", "two"), "f00", 10**20, 7, {"torch": "2"})

points = st.integers(0, 2**32).map(lambda seed: Space().sample(np.random.default_rng(seed)))
losses = st.floats(allow_infinity=False, width=32)


@st.composite
def records(draw):
    point = draw(points)
    status = draw(st.sampled_from(["complete", "stopped", "halved", "diverged", "duplicate"]))
    curve = tuple(draw(st.lists(losses, max_size=4)))
    loss, score = draw(losses), draw(losses)
    duplicate_of = draw(st.none() | st.integers(0, 5))
    return Record(6, "ab" * 32, point, canonical(point), status, len(curve), loss, score, 0.25, duplicate_of, curve)


@st.composite
def rows(draw):
    point = draw(st.none() | points)
    test = draw(st.none() | losses)
    return Row("random, of 5", draw(st.none() | st.integers(0, 9)), point, draw(losses), 0.5, test, test, 3, 4, 5, 0.1)


def text(value):
    """Equal for equal values, where not a number equals itself."""
    return repr(value) + (repr(value.curve) if isinstance(value, Record) else "")


def test_settings_and_facts_come_back(tmp_path):
    write_run(tmp_path, SETTINGS, FACTS)
    assert read_settings(tmp_path) == SETTINGS
    assert read_facts(tmp_path) == FACTS
    assert [path.name for path in tmp_path.iterdir()] == [RUN]


def test_settings_of_a_run_begun_when_spaces_had_no_fewest_blocks_come_back():
    record = SETTINGS.to_dict()
    del record["space"]["min_blocks"]
    assert Settings.from_dict(record) == SETTINGS
    some = replace(SETTINGS, space=Space(max_blocks=3, min_blocks=2))
    assert Settings.from_dict(json.loads(json.dumps(some.to_dict()))) == some


@given(records())
def test_records_come_back_through_strict_json(record):
    stored = json.dumps(record.to_dict(), allow_nan=False)
    assert text(Record.from_dict(json.loads(stored))) == text(record)


@given(st.lists(rows(), max_size=3))
def test_leaderboard_comes_back(tmp_path_factory, leaderboard):
    folder = tmp_path_factory.mktemp("run")
    write_leaderboard(folder, leaderboard, FACTS)
    assert list(map(text, read_leaderboard(folder))) == list(map(text, leaderboard))


def test_ledger_has_a_line_for_every_record_and_says_who_hears_whom(tmp_path):
    point = canonical(Space().sample(np.random.default_rng(1)))
    record = Record(0, "k", point, point, "complete", 1, 0.5, 0.75, 0.1, None, (0.5,))
    write_ledger(tmp_path, [record, replace(record, number=1, loss=math.nan)], FACTS)
    header, *lines = (tmp_path / LEDGER).read_text().splitlines()
    line = dict(zip(header.split(","), lines[0].split(","), strict=True))
    edges = {tuple(map(int, edge.split(">"))) for edge in line["edges"].split()}
    assert edges == {(i, o) for o, i in np.argwhere(point.mask)}
    assert (int(line["parameters"]), int(line["depth"])) == (point.parameters(3, 2), point.depth)
    assert len(lines) == 2


def test_what_is_not_there_yet_is_empty_and_what_is_no_run_is_refused(tmp_path):
    for read in (read_settings, read_facts, read_records):
        with pytest.raises(FileNotFoundError, match="no run is in"):
            read(tmp_path)
    write_run(tmp_path, SETTINGS, FACTS)
    assert read_records(tmp_path) == []
    assert read_leaderboard(tmp_path) == []
    assert not (tmp_path / LEADERBOARD).exists()


@pytest.mark.parametrize(
    ("path", "name", "sentence"),
    [
        ((), "strategi", "got 'strategi' in the settings, did you mean 'strategy'"),
        (("space",), "max_block", "got 'max_block' in the space, did you mean 'max_blocks'"),
        (("recipe",), "epoch", "got 'epoch' in the recipe, did you mean 'epochs'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(path, name, sentence):
    record = json.loads(json.dumps(SETTINGS.to_dict()))
    part = record
    for step in path:
        part = part[step]
    part[name] = 1
    with pytest.raises(ValueError, match=sentence):
        Settings.from_dict(record)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"trials": None, "seconds": None}, "neither trials nor seconds"),
        ({"trials": 0}, "trials=0: it must be at least 1"),
        ({"population": 0}, "population=0: it must be at least 1"),
        ({"threads": 0}, "threads=0: it must be at least 1"),
        ({"seconds": 0.0}, "the time must be positive"),
        ({"seconds": math.inf}, "the time must be positive and finite"),
        ({"seconds": math.nan}, "the time must be positive and finite"),
        ({"seed": -1}, "it must be 0 or more"),
    ],
)
def test_settings_that_make_no_search_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(SETTINGS, **change)


@pytest.mark.parametrize(
    "content",
    [
        b'{"settings": ',
        b"\xff\xfe",
        b"[]",
        b'{"facts": {}}',
        b'{"settings": {}, "facts": {}}',
        b'{"settings": 3, "facts": 3}',
        b'{"settings": {"sed": 1}, "facts": {"nam": 1}}',
    ],
)
def test_damaged_run_file_is_told(tmp_path, content):
    (tmp_path / RUN).write_bytes(content)
    for read in (read_settings, read_facts, read_records):
        with pytest.raises(ValueError, match=r"is damaged .*: put it right, or start the search anew$"):
            read(tmp_path)


def test_facts_are_plain_json():
    assert json.loads(json.dumps(asdict(FACTS)))["points"] == 10**20
