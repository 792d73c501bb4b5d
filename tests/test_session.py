"""Searches from the command line, short ones: where what is told goes, and data of every kind, gone on with."""

import csv
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from machgraph.io import load_metadata
from search import cli, config, study
from search.data import from_arrays
from search.data.encoder import Encoder
from search.optimize import optimize
from search.recipe import Recipe
from search.report import write
from search.run import BEST, CONFIG, ENSEMBLE, Settings, read_facts, read_leaderboard, read_records, read_settings
from search.shape import Shape
from search.space import Space
from search.terminal.session import told

QUICK = """
[search]
trials = 2
population = 2
finalists = 2
seeds = 1
folds = 1
[recipe]
epochs = 2
batches = 2
[space]
max_blocks = 1
widths = [3]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, plain):
    """An empty one to work in."""
    threads, verbosity = torch.get_num_threads(), optuna.logging.get_verbosity()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.toml").write_text(QUICK)
    yield tmp_path
    torch.set_num_threads(threads)
    optuna.logging.set_verbosity(verbosity)


def machgraph(capsys, *arguments):
    """Exit code, standard output and standard error of the command line, in this process."""
    code = 0
    try:
        cli.main(list(map(str, arguments)))
    except SystemExit as end:
        code = end.code or 0
    return code, *capsys.readouterr()


def done(capsys, *arguments):
    """The standard output of a command that comes to its end."""
    code, out, err = machgraph(capsys, *arguments)
    assert code == 0, err
    return out


def write_table(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_signs(path, rows=60):
    x = np.random.default_rng(rows).normal(size=(rows, 2)).round(4)
    write_table(path, ("a", "b", "sign"), [(a, b, "same" if a * b > 0 else "other") for a, b in x])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run, and the table that it was made of."""
    place = tmp_path_factory.mktemp("finished")
    write_signs(place / "signs.csv")
    asked = config.parse(QUICK).over({"source": str(place / "signs.csv"), "target": "sign"}, {})
    study.run(*config.prepared(asked), place / "run")
    return place / "run", place / "signs.csv"


@pytest.fixture
def signs(folder):
    write_signs(folder / "signs.csv")
    return ("search", "signs.csv", "--target", "sign", "--config", "quick.toml")


# ---- what is told where ---------------------------------------------------------------------------------------------


def test_results_alone_are_on_a_piped_standard_output(signs, capsys):
    code, out, err = machgraph(capsys, *signs)
    assert code == 0
    assert out.startswith("trials ")
    assert out.splitlines()[-1] == "next: machgraph predict runs/signs NEW.csv"
    assert err.startswith("data ")
    assert "2 trials, " in err
    code, out, err = machgraph(capsys, "resume", "runs/signs", "--trials", 1, "--quiet")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "next: machgraph predict runs/signs NEW.csv"


def test_a_search_that_knows_all_networks_says_so(signs, folder, capsys):
    few = "activations = ['relu']\nlearning_rates = [0.01]\nweight_decays = [0.1]\nbatch_sizes = [16]\n"
    (folder / "quick.toml").write_text(QUICK + few)
    out = done(capsys, *signs, "--trials", 500)
    assert "; all networks of the space are known, so the search is at its end" in " ".join(out.split())
    assert len(read_records("runs/signs")) < 500


def test_json_is_one_document_of_what_the_run_holds(signs, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    code, out, err = machgraph(capsys, *signs, "--json")
    assert code == 0
    assert err.startswith("data ")  # on a terminal too: the document stands alone
    found = json.loads(out)
    rows = read_leaderboard("runs/signs")
    assert found["winner"] == found["leaderboard"][0]
    assert [row["name"] for row in found["leaderboard"]] == [row.name for row in rows]
    for row, told_row in zip(rows, found["leaderboard"], strict=True):
        assert {name: told_row[name] for name in ("trial", "loss", "test_score", "parameters", "depth")} == {
            "trial": row.trial, "loss": row.loss, "test_score": row.test_score, "parameters": row.parameters,
            "depth": row.depth,
        }  # fmt: skip
        assert told_row["point"] == (None if row.point is None else json.loads(json.dumps(row.point.to_dict())))
    assert (found["folder"], found["trials"], found["score"]) == ("runs/signs", 2, "accuracy")
    more = json.loads(done(capsys, "resume", "runs/signs", "--trials", 1, "--json", "--quiet"))
    assert more["trials"] == 3


def test_on_a_terminal_all_is_in_one_place(monkeypatch):
    for terminal in (True, False):
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        assert told(quiet=False, as_json=False).stderr is not terminal
        assert told(quiet=False, as_json=True).stderr


def test_dry_run_writes_what_would_be_run_and_nothing_else(signs, folder, capsys):
    before = sorted(folder.rglob("*"))
    code, out, err = machgraph(capsys, *signs, "--seed", 5, "--constraint", "parameters <= 20k", "--dry-run")
    assert code == 0
    assert sorted(folder.rglob("*")) == before
    assert "Nothing is run" in err
    settings, _ = config.prepared(config.parse(out))
    assert (settings.seed, settings.trials, settings.recipe.epochs) == (5, 2, 2)
    assert settings.constraints == {"parameters": 20000}
    assert settings.space.count() == int(err.split(" points")[0].split()[-1].replace(",", ""))
    document = json.loads(done(capsys, *signs, "--dry-run", "--json"))
    assert Settings.from_dict(document["settings"]) == replace(settings, seed=0, constraints={})


def test_the_file_of_a_run_repeats_it(signs, capsys):
    done(capsys, *signs, "--objective", "loss", "--objective", "parameters")
    done(capsys, "search", "--config", f"runs/signs/{CONFIG}", "--out", "again")
    assert read_settings("again") == read_settings("runs/signs")
    assert read_settings("again").objectives == ("loss", "parameters")
    first, second = ([replace(one, seconds=0.0) for one in read_records(run)] for run in ("runs/signs", "again"))
    assert first == second


# ---- data of every kind, gone on with --------------------------------------------------------------------------------


def test_series_from_flags_is_gone_on_with_and_answers(folder, capsys):
    t = np.arange(60)
    level = (2 + np.sin(t / 3)) ** 2
    order = np.random.default_rng(0).permutation(60)
    rows = [(level[k], f"{1900 + k}-01-01", k % 2) for k in order]
    write_table(folder / "waves.csv", ("level", "day", "odd"), rows)
    flags = ("--target", "level", "--lags", 4, "--time-column", "day", "--transform", "sqrt", "--config", "quick.toml")
    done(capsys, "search", "waves.csv", *flags)
    settings = read_settings("runs/waves")
    assert (settings.loading.lags, settings.loading.time, settings.loading.transform) == (4, "day", "sqrt")
    assert settings.space.kind == "dense"
    done(capsys, "resume", "runs/waves", "--trials", 2)
    assert len(read_records("runs/waves")) == 4
    assert read_settings("runs/waves").loading == settings.loading
    answers = [line.split(",") for line in done(capsys, "predict", "runs/waves", "waves.csv").splitlines()]
    # each step that has enough before it, and the one after the last
    assert [day for day, _ in answers] == ["day", *(f"{1900 + k}-01-01" for k in range(4, 60)), ""]
    assert min(float(level) for _, level in answers[1:]) >= 0  # squares


def test_images_with_a_held_out_file_are_gone_on_with(folder, capsys):
    rng = np.random.default_rng(1)
    for name, count in (("grid.csv", 40), ("rest.csv", 12)):
        x = rng.normal(size=(count, 16)).round(3)
        rows = [(*row, "left" if row[0] > row[3] else "right") for row in x]
        write_table(folder / name, [*(f"p{i}" for i in range(16)), "side"], rows)
    flags = ("--target", "side", "--image", "1x4x4", "--held-out", "rest.csv", "--config", "quick.toml")
    done(capsys, "search", "grid.csv", *flags)
    settings, facts = read_settings("runs/grid"), read_facts("runs/grid")
    assert facts.shape.image == settings.loading.image == (1, 4, 4)
    assert any("12 held-out test" in line for line in facts.lines)
    os.rename("runs", "elsewhere")  # files are found from anywhere
    done(capsys, "resume", "elsewhere/grid", "--trials", 1)
    rest = (folder / "rest.csv").read_text()
    (folder / "rest.csv").write_text(rest.replace("left", "right", 1))
    code, _, err = machgraph(capsys, "resume", "elsewhere/grid", "--trials", 1)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{folder}/grid.csv or {folder}/rest.csv has changed since elsewhere/grid was begun" in err


def test_data_from_python_are_gone_on_with_from_python(folder, capsys):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(60, 3)), rng.integers(2, size=60)
    wish = Settings(
        "arrays of mine", None, None, 0, "random", 2, None, 2, Space(1, (2,)), Recipe(2, 2, rungs=()), 1, 1, 1
    )
    dataset = from_arrays(x, y)
    study.run(wish, dataset, "mine")
    assert not Path("mine", CONFIG).exists()
    code, _, err = machgraph(capsys, "resume", "mine", "--trials", 1)
    assert (code, err) == (
        2,
        "machgraph: the data of mine were given from Python: go on with it there, "
        "by search.study.resume('mine', dataset=...)\n",
    )
    assert len(study.resume("mine", dataset=dataset, trials=2).records) == 4
    with pytest.raises(ValueError, match="got other data than mine was begun with"):
        study.resume("mine", dataset=from_arrays(x, y, seed=1), trials=2)
    assert "study.run(settings, dataset, &#39;mine&#39;)" in write(Path("mine")).read_text()


def test_objective_of_ones_own_is_gone_on_with_where_it_was_begun(folder, capsys):
    optimize(lambda machine: machine.parameter_count(), Space(1, (2,)), Shape(2, 1), trials=2, out="own")
    code, _, err = machgraph(capsys, "resume", "own")
    assert (code, err.count("\n")) == (2, 1)
    assert "own was begun by search.optimize with the objective " in err
    assert "optimize(..., out='own', resume=True)" in err


# ---- what is done with the winner -----------------------------------------------------------------------------------


def test_ensemble_answers_by_the_mean_of_its_members(finished, capsys):
    run, table = finished

    def probabilities(*arguments):
        lines = list(csv.reader(io.StringIO(done(capsys, "predict", *arguments))))
        assert lines[0] == ["sign", "p(other)", "p(same)"]
        return np.array([[float(cell) for cell in line[1:]] for line in lines[1:]])

    members = sorted(Path(run, ENSEMBLE).iterdir())
    assert len(members) == 2
    mean = np.mean([probabilities(member, table) for member in members], axis=0)
    np.testing.assert_allclose(probabilities(run, table, "--ensemble"), mean, rtol=1e-12)
    assert np.abs(probabilities(run, table) - mean).max() > 1e-6


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_exported_winner_answers_as_predict_does(finished, folder, capsys, suffix):
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    run, _ = finished
    told = done(capsys, "export", run, "--out", f"net{suffix}")
    assert told.startswith(f"net{suffix}: 2 features to probabilities of 2 classes; tried on 16 rows, equal to ")
    assert sorted(path.name for path in folder.glob("*net*")) == [f"net{suffix}"]
    write_signs(folder / "new.csv", rows=7)
    lines = list(csv.reader(io.StringIO(done(capsys, "predict", run, "new.csv"))))[1:]
    expected = np.array([[float(cell) for cell in line[1:]] for line in lines])
    if suffix == ".pt2":
        kept = {"encoder.json": ""}
        program = torch.export.load(f"net{suffix}", extra_files=kept).module()
        encoder = Encoder.from_json(kept["encoder.json"])
        got = program(torch.from_numpy(encoder.encode("new.csv"))).detach().numpy()
    else:
        runtime = pytest.importorskip("onnxruntime")
        session = runtime.InferenceSession(f"net{suffix}", providers=["CPUExecutionProvider"])
        encoder = Encoder.from_json(session.get_modelmeta().custom_metadata_map["encoder"])
        (got,) = session.run(None, {session.get_inputs()[0].name: encoder.encode("new.csv")})
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert encoder == Encoder.from_json(load_metadata(Path(run, BEST))["encoder"])
