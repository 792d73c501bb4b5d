"""What a run's folder holds is read back as it was written, and what it should not hold is refused."""

import csv
import json
import math
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.facts import versions
from search.isomorphism.canonical import canonical
from search.loading import Loading
from search.one_of import OneOf
from search.recipe import Recipe
from search.run import (
    CONFIG,
    FIGURES,
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
from search.shape import Shape
from search.space import Space

CONVOLUTIONS = Space(kind="convolution", kernels=(3, 5), dilations=(1, 2), max_scale=1, heads=(1, 2), max_span=2)
BOTH = OneOf((Space(weight_decays=(0.1, 0.3), batch_sizes=(32, 64)), CONVOLUTIONS))
SETTINGS = Settings(
    "digits", None, None, 0, "tpe", 10, 2.5, 8, Space(), Recipe(patience=None), folds=5, finalists=3, seeds=2, threads=2
)
SHAPE = Shape(12, 2, (3, 2, 2))
FACTS = Facts("kinds, of [two]", "classification", SHAPE, ("a", 'b"'), ("one", "two"), "f00", 10**20, 7, {"torch": "2"})

PAGE = (Path(__file__).parents[1] / "docs" / "runs.md").read_text()

points = st.integers(0, 2**32).map(lambda seed: BOTH.sample(np.random.default_rng(seed)))
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
    figures = {name: draw(st.none() | losses) for name in FIGURES}
    trial = draw(st.none() | st.integers(0, 9))
    return Row("random, of 5", trial, point, depth=3, parameters=4, flops=5, seconds=0.1, **figures)


def text(value):
    """Equal for equal values, where not a number equals itself."""
    return repr(value) + (repr(value.curve) if isinstance(value, Record) else "")


def test_versions_are_of_what_is_installed(monkeypatch):
    assert versions()["scikit-learn"] == version("scikit-learn")

    def without(name):
        if name == "scikit-learn":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("search.facts.version", without)
    assert set(versions()) == {"machgraph", "python", "torch", "optuna", "numpy"}


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        (SETTINGS, FACTS),
        (
            replace(SETTINGS, space=BOTH, loading=Loading("log", lags=2, exogenous=("a", "b"), test=0.3)),
            replace(FACTS, architectures=None, looked=(6, 9)),
        ),
        (replace(SETTINGS, space=CONVOLUTIONS, trials=None), replace(FACTS, shape=Shape(5, 1), classes=())),
    ],
    ids=["dense", "of several kinds", "convolutions"],
)
def test_settings_and_facts_come_back(tmp_path, settings, facts):
    write_run(tmp_path, settings, facts)
    assert read_settings(tmp_path) == settings
    assert read_facts(tmp_path) == facts
    assert {path.name for path in tmp_path.iterdir()} == {RUN, CONFIG}


def test_a_run_of_when_looks_were_not_counted_comes_back(tmp_path):
    write_run(tmp_path, SETTINGS, FACTS)
    content = json.loads((tmp_path / RUN).read_text())
    del content["facts"]["looked"]
    (tmp_path / RUN).write_text(json.dumps(content))
    assert read_facts(tmp_path) == FACTS


def test_settings_of_a_run_begun_when_spaces_had_no_fewest_blocks_come_back():
    record = SETTINGS.to_dict()
    del record["space"]["min_blocks"]
    assert Settings.from_dict(record) == SETTINGS
    some = replace(SETTINGS, space=Space(max_blocks=3, min_blocks=2))
    assert Settings.from_dict(json.loads(json.dumps(some.to_dict()))) == some


def test_settings_of_several_kinds_of_machines_keep_their_order():
    turned = replace(SETTINGS, space=OneOf(BOTH.spaces[::-1]))
    again = Settings.from_dict(json.loads(json.dumps(turned.to_dict())))
    assert again == turned != replace(SETTINGS, space=BOTH)
    assert list(again.space.parameters.items()) == list(turned.space.parameters.items())


@given(records())
def test_records_come_back_through_strict_json(record):
    stored = json.dumps(record.to_dict(), allow_nan=False)
    assert text(Record.from_dict(json.loads(stored))) == text(record)


@given(st.lists(rows(), max_size=3))
def test_leaderboard_comes_back(tmp_path_factory, leaderboard):
    folder = tmp_path_factory.mktemp("run")
    write_leaderboard(folder, leaderboard, FACTS)
    assert list(map(text, read_leaderboard(folder))) == list(map(text, leaderboard))


def test_leaderboard_has_an_empty_field_for_what_is_not_there(tmp_path):
    empty = Row("scikit-learn (SVM)", None, None, None, 0.5, None, 0.25, 0, 0, 0, 0.1)
    write_leaderboard(tmp_path, [empty, replace(empty, loss=math.nan)], FACTS)
    header, *lines = csv.reader((tmp_path / LEADERBOARD).read_text().splitlines())
    lines = [dict(zip(header, line, strict=True)) for line in lines]
    nothing = {"trial", "point", "architecture", "test_loss", "loss_sd", "test_sd", "measures"}
    assert {name for name, cell in lines[0].items() if cell == ""} == nothing | {"loss"}
    assert {name for name in lines[0] if f"`{name}`" not in PAGE} == set()
    assert {name for name, cell in lines[1].items() if cell == ""} == nothing
    assert lines[1]["loss"] == "nan"


@pytest.mark.parametrize("space", BOTH.spaces, ids=lambda space: space.kind)
def test_ledger_has_a_line_for_every_record_and_says_who_hears_whom(tmp_path, space):
    point = canonical(space.sample(np.random.default_rng(1)))
    record = Record(0, "k", point, point, "complete", 1, 0.5, 0.75, 0.1, None, (0.5,))
    write_ledger(tmp_path, [record, replace(record, number=1, loss=math.nan)], FACTS, SETTINGS)
    header, *lines = (tmp_path / LEDGER).read_text().splitlines()
    line = dict(zip(header.split(","), lines[0].split(","), strict=True))
    edges = {tuple(map(int, edge.split(">"))) for edge in line["edges"].split()}
    assert edges == {(i, o) for o, i in np.argwhere(point.mask)}
    assert (int(line["parameters"]), int(line["depth"])) == (point.parameters(SHAPE), point.depth)
    for name in ("kind", "kernel", "dilation", "learning_rate", "weight_decay", "batch_size"):
        assert line[name] == str(getattr(point, name))
    assert line["scales"] == "-".join(map(str, point.scales))
    assert len(lines) == 2
    assert {name for name in header.split(",") if f"`{name}`" not in PAGE} == set()


def test_what_is_not_there_yet_is_empty_and_what_is_no_run_is_refused(tmp_path):
    for read in (read_settings, read_facts, read_records):
        with pytest.raises(FileNotFoundError, match="no run is in"):
            read(tmp_path)
    write_run(tmp_path, SETTINGS, FACTS)
    assert read_records(tmp_path) == []
    assert read_leaderboard(tmp_path) == []
    assert not (tmp_path / LEADERBOARD).exists()


@pytest.mark.parametrize(
    ("space", "path", "name", "sentence"),
    [
        (Space(), (), "strategi", "got 'strategi' in the settings, did you mean 'strategy'"),
        (Space(), (), "finalist", "got 'finalist' in the settings, did you mean 'finalists'"),
        (Space(), ("space",), "max_block", "got 'max_block' in the space, did you mean 'max_blocks'"),
        (Space(), ("recipe",), "epoch", "got 'epoch' in the recipe, did you mean 'epochs'"),
        (BOTH, ("space",), "space", "did you mean 'spaces'"),
        (BOTH, ("space", "spaces", 1), "kernel", "got 'kernel' in the space, did you mean 'kernels'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(space, path, name, sentence):
    record = json.loads(json.dumps(replace(SETTINGS, space=space).to_dict()))
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
        ({"folds": 0}, "folds=0: it must be at least 1"),
        ({"finalists": 0}, "finalists=0: it must be at least 1"),
        ({"seeds": 0}, "seeds=0: it must be at least 1"),
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
