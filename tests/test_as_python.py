"""Trained machines as Python files: from the cells of a table they say what ``predict`` says."""

import csv
import datetime
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from safetensors import safe_open

import machgraph as mg
from search import cli
from search.data import from_arrays, from_frame, load
from search.data.columns import Column
from search.data.encoder import Encoder
from search.data.series import from_series
from search.export import as_python
from search.export.as_python import write
from search.export.program import Answering
from search.predict import answer
from search.shape import Shape
from search.trained import Trained, answered
from search.trained import write as save

ROWS = 60
NAME = 'a "tricky" one\'s \\ \n"""{{ name }}'
RNG = np.random.default_rng(0)
FRAME = pl.DataFrame(
    {
        "age": [None if i % 9 == 0 else float(RNG.normal(40, 10)) for i in range(ROWS)],
        NAME: RNG.normal(size=ROWS),
        "when": [datetime.datetime(2020, 1, 1) + datetime.timedelta(hours=61 * i) for i in range(ROWS)],
        "day": [datetime.date(2020, 1, 6) + datetime.timedelta(weeks=i) if i != 5 else None for i in range(ROWS)],
        "kind": [["cat", "dog", None, "bird"][i % 4] for i in range(ROWS)],
        "code": ["x" if i in (3, 4) else str(i * 1.5) for i in range(ROWS)],
        "yes": [i % 3 == 0 for i in range(ROWS)],
        "label": [["no", "yes", 'may"be'][i % 3] for i in range(ROWS)],
        "value": RNG.gamma(1.0, 3.0, size=ROWS),
    }
)
AREAS = np.exp(np.random.default_rng(1).normal(0, 1.5, size=ROWS))
WIDE = FRAME.with_columns(area=AREAS, rent=pl.Series([None if i % 7 == 0 else 9 * AREAS[-i] for i in range(ROWS)]))


def trained(encoder, sharpness=1.0, kind="dense"):
    generator = torch.Generator().manual_seed(0)
    outputs = len(encoder.classes) or 1
    inner = {"activation": ("identity", "tanh", "identity"), "generator": generator}
    if kind == "dense":
        machine = mg.DenseMachine((encoder.n_inputs, 6, outputs), **inner)
    elif kind == "recurrence":
        machine = mg.RecurrentMachine((encoder.image[0], 4, outputs), 1, shortcuts="sequential", **inner)
    else:
        axes = len(encoder.image) - 1
        machine = mg.ConvMachine((encoder.image[0], 4, outputs), (3,) * axes, scales=(0, 1, 1), **inner)
    return Trained(machine, encoder, Shape(encoder.n_inputs, outputs, encoder.image), sharpness)


def regression(transform):
    encoder = from_frame(FRAME.drop("label"), "value", "t", 0).encoder
    return encoder.refitted(transform, FRAME["value"].to_numpy())


def series(transform):
    return from_series(
        FRAME.select("value", "age", "kind", "day"), "value", lags=5, time="", transform=transform
    ).encoder


def images(*shape):
    x = RNG.normal(3, 2, size=(30, *shape))
    x[0].flat[0] = np.nan
    return from_arrays(x, RNG.integers(0, 2, 30), image=shape).encoder


CASES = {
    "classes": lambda: trained(from_frame(FRAME.drop("value"), "label", "t", 0).encoder, 1.3),
    "numbers": lambda: trained(regression("none")),
    "roots": lambda: trained(regression("sqrt")),
    "logarithms": lambda: trained(regression("log")),
    "powers": lambda: trained(regression("yeo-johnson")),
    **{f"mean_{name}": lambda name=name: trained(regression(name).noisy(0.4)) for name in ("sqrt", "log")},
    "mean_powers": lambda: trained(regression("yeo-johnson").noisy(0.4)),
    "digits": lambda: trained(load("digits").encoder, 0.9, "convolution"),
    "images": lambda: trained(images(3, 5, 4), 0.9, "convolution"),
    "flat_images": lambda: trained(images(1, 3, 2, 4)),
    "signals": lambda: trained(images(2, 9), kind="recurrence"),
    "steps": lambda: trained(series("sqrt"), kind="recurrence"),
    "flat_steps": lambda: trained(series("yeo-johnson")),
    "mean_steps": lambda: trained(series("yeo-johnson").noisy(0.3)),
    "log_steps": lambda: trained(series("log"), kind="convolution"),
    "plain_steps": lambda: trained(series("none"), kind="recurrence"),
}


def skewed(*without):
    encoder = from_frame(WIDE.drop("value", *without), "label", "t", 0).encoder
    assert any(column.power and bool(without) != column.gaps for column in encoder.columns)
    return trained(encoder)


CASES["skewed"] = skewed
CASES["skewed_alone"] = lambda: skewed("age", "code", "rent", "when", "day")
CASES["others"] = lambda: trained(
    Encoder(
        (Column("kind", "category", levels=("bird", None), other=True), Column("age", "number", fill=3.0)),
        (0.0, 0.0, 0.0, 40.0), (1.0, 1.0, 1.0, 9.0), "regression", "value", target_mean=2.0, target_scale=3.0,
    )
)  # fmt: skip


def imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def said(path, table):
    written = imported(path)
    return written.predict(written.load(), table)


def test_dates_with_dots_are_those_of_iso_in_the_file_too(cases):
    _, path = cases["numbers"]
    dotted = pl.col("day").dt.strftime("%d.%m.%Y"), pl.col("when").dt.strftime("%d.%m.%Y %H:%M")
    assert torch.equal(said(path, FRAME.with_columns(dotted)), said(path, FRAME))
    assert "Numbers in it are as 1234.5, without units or marks between thousands." in path.read_text()
    assert "Numbers in it" not in cases["images"][1].read_text()


def test_months_are_their_first_days_in_the_file_too(cases):
    _, path = cases["numbers"]
    first = FRAME.with_columns(pl.col("day").dt.truncate("1mo"))
    assert torch.equal(said(path, FRAME.with_columns(pl.col("day").dt.strftime("%Y-%m"))), said(path, first))
    assert torch.equal(said(path, FRAME.with_columns(pl.col("day").dt.strftime("%Y/%m"))), said(path, first))


def test_levels_that_no_training_row_had_are_told_beside_the_answers(folder, capsys):
    rows = FRAME.drop(NAME, "label")
    file = save(trained(from_frame(rows, "value", "t", 0).encoder), folder / "told.machgraph", {})
    table = folder / "rows.csv"
    answers = []
    for kind in (["cat"] * ROWS, ["cow", "emu"] + ["cat"] * (ROWS - 2)):
        rows.with_columns(pl.Series("kind", kind)).write_csv(table)
        answer(file, table, sys.stdout)
        answers.append(capsys.readouterr())
    assert answers[0].err == ""
    assert answers[1].err == "note: no training row had these, so nothing tells them: kind ('cow', 'emu')\n"
    assert [len(said.out.splitlines()) for said in answers] == [ROWS + 1] * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def cases(folder):
    found = {}
    for name, make in CASES.items():
        one, path = make(), folder / f"{name}.py"
        told = write(one, path)
        assert told.startswith(f"{path} and {name}.safetensors: ")
        assert told.endswith("; tried, equal to the machine")
        found[name] = one, path
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_file_says_what_predict_says(cases, name):
    one, path = cases[name]
    if one.encoder.layout == "pixels":
        x = np.random.default_rng(1).normal(3, 2, size=(20, *one.encoder.image))
        x[3].flat[2] = np.inf
        given, table = torch.from_numpy(x), x
    else:
        far = pl.concat([WIDE, WIDE[:2].with_columns(area=pl.Series([1e9, -1e9]), rent=pl.Series([-1e9, 1e9]))])
        given = table = far if one.encoder.columns[0].name in WIDE.columns else as_python.sample(one.encoder)
    expected = answered([one], table)
    found = said(path, given)
    if expected.probabilities is None:
        np.testing.assert_allclose(found.numpy(), expected.values, rtol=1e-9, atol=1e-9)
    else:
        assert found[0] == expected.values.tolist()
        np.testing.assert_allclose(found[1].numpy(), expected.probabilities, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("line", ["88", "120"])
@pytest.mark.parametrize("what", ["format --check", "check --select E4,E7,E9,F,W,I,B,UP,SIM,C4,RUF,RET,PERF,ANN"])
def test_files_are_formatted_and_clean(cases, folder, what, line):
    command = [sys.executable, "-m", "ruff", *what.split(), "--isolated", "--no-cache", "--line-length", line, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_encoder_is_beside_it_too(cases):
    for one, path in cases.values():
        with safe_open(path.with_suffix(".safetensors"), framework="pt") as file:
            assert Encoder.from_json(file.metadata()["encoder"]) == one.encoder


ALONE = """
import csv, json, sys
for name in ("machgraph", "search", "polars", "pandas", "numpy", "jinja2"):
    sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
import net
with open(sys.argv[2], newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
table = {name: [row[name] for row in rows] for name in rows[0]}
classes, probabilities = net.predict(net.load(), table)
print(json.dumps([classes, probabilities.tolist()]))
"""


def test_of_a_csv_file_it_says_what_the_command_line_says_and_needs_no_machgraph(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frame = FRAME.drop("value").rename({NAME: "odd"})
    frame.write_csv("new.csv")
    save(trained(from_frame(frame, "label", "t", 0).encoder, 1.3), "best.machgraph", {})
    for arguments in (["export", "best.machgraph", "--out", "net.py"], ["predict", "best.machgraph", "new.csv"]):
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert not end.value.code
    exported, header, *rows = capsys.readouterr().out.splitlines()
    assert (
        exported == "net.py and net.safetensors: 7 columns to probabilities of 3 classes; tried, equal to the machine"
    )
    answers = list(csv.reader([header, *rows]))[1:]
    command = [sys.executable, "-W", "ignore", "-c", ALONE, tmp_path, "new.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    classes, probabilities = json.loads(done.stdout or pytest.fail(done.stderr))
    assert classes == [row[0] for row in answers]
    np.testing.assert_allclose(probabilities, np.array([row[1:] for row in answers], dtype=float), rtol=1e-9, atol=1e-9)


def test_a_machine_alone_is_exported_as_the_network_alone(tmp_path, capsys):
    machine = mg.ConvMachine((2, 3), 3)
    mg.save(machine, tmp_path / "alone.machgraph")
    with pytest.raises(SystemExit):
        cli.main(["export", str(tmp_path / "alone.machgraph"), "--out", str(tmp_path / "net.py")])
    assert capsys.readouterr().out.endswith("net.safetensors: the network alone; tried, equal to the machine\n")
    x = torch.randn(2, 2, 7)
    torch.testing.assert_close(imported(tmp_path / "net.py").load()(x), machine.output(machine(x)))


def test_a_file_whose_features_differ_is_not_written(tmp_path, monkeypatch):
    one = CASES["numbers"]()
    honest = as_python.source

    def other(trained, name):
        column, *rest = trained.encoder.columns
        wrong = replace(trained.encoder, columns=(replace(column, fill=column.fill + 1), *rest))
        return honest(replace(trained, encoder=wrong), name)

    monkeypatch.setattr(as_python, "source", other)
    with pytest.raises(ValueError, match=r"net\.py would answer otherwise than the machine"):
        write(one, tmp_path / "net.py")
    assert not list(tmp_path.iterdir())


def test_a_network_that_is_no_parametric_machine_is_told(tmp_path):
    one = replace(CASES["numbers"](), machine=torch.nn.Linear(2, 1))
    with pytest.raises(ValueError, match="got a Linear: dense, convolutional and recurrent machines are written as Py"):
        write(one, tmp_path / "net.py")


def test_waves_of_whole_periods_are_the_same_to_the_last_bit():
    """Rounding would else differ from week to week, and be scaled up as if it told something."""
    column = Column("day", "date", periods=(7.0,))
    days = pl.Series("day", [datetime.date(2020, 1, 6) + datetime.timedelta(weeks=i) for i in range(300)])
    waves = column.encode(days)[:, 1:]
    assert (waves == waves[0]).all()
    np.testing.assert_allclose(
        waves[0], [np.sin(2 * np.pi * 4 / 7), np.cos(2 * np.pi * 4 / 7)]
    )  # 1970 began on a Thursday


@pytest.mark.parametrize("name", ["numbers", "roots", "logarithms", "powers", "mean_sqrt", "mean_log", "mean_powers"])
def test_a_program_of_torch_undoes_the_transform_as_predict_does(name):
    one = CASES[name]()
    x = RNG.normal(size=(64, one.encoder.n_inputs)).astype(np.float32)
    with torch.no_grad():
        said = Answering(one)(torch.from_numpy(x).to(one.machine.weight.dtype))
    expected = one.encoder.decode(one.outputs(x)).values
    np.testing.assert_allclose(said[:, 0].numpy(), expected, rtol=2e-4, atol=1e-5)
