"""Graph spaces from the shell: the module of the current folder that has one is named, and never by a file alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import polars as pl
import pytest
import torch
from test_session import machgraph

from search import load_graph
from search.config import prepared, read
from search.graph.named import named_space
from search.run import read_records, read_settings, resuming

ROOT = Path(__file__).parents[1]
NETS = """
from functools import partial

from torch import nn

from search import Candidate, GraphSpace


class Product(nn.Module):
    def forward(self, a, b):
        return a * b


def bend():
    return nn.Sequential(nn.Tanh(), nn.Dropout(0.1))


space = GraphSpace(
    (
        Candidate("stem", partial(nn.Linear, 3, 4), ("x",), ("h",), copies=2),
        Candidate("bend", bend, ("h",), ("h",)),
        Candidate("product", Product, (("h",), ("h",)), ("p",)),
        Candidate("head", partial(nn.Linear, 4, 2), ("h", "p"), ("y",), required=True),
    ),
    shapes={"x": (3,), "h": (4,), "p": (4,), "y": (2,)},
    learning_rates=(1e-2, 3e-2),
    batch_sizes=(16,),
)


def made(rates=(1e-2,)):
    from dataclasses import replace

    return replace(space, learning_rates=rates)


def asking(rates):
    return made(rates)


def blind():
    from dataclasses import replace

    head = Candidate("head", partial(nn.Linear, 4, 5), ("h", "p"), ("y",), required=True)
    return replace(space, candidates=(*space.candidates[:-1], head), shapes=())


number = 3
"""
CONFIG = """
[data]
source = "data.csv"
target = "y"

[search]
trials = 8
population = 4
finalists = 2
seeds = 1
folds = 2
{more}

[recipe]
epochs = 4
rungs = [2]
"""


def write_folder(folder):
    (folder / "nets.py").write_text(NETS)
    x = np.random.default_rng(0).normal(size=(60, 3))
    signs = np.where(x[:, 0] * x[:, 1] > 0, "up", "down")
    pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": signs}).write_csv(folder / "data.csv")
    (folder / "search.toml").write_text(CONFIG.format(more=""))
    (folder / "named.toml").write_text(CONFIG.format(more='graph = "nets:space"'))
    return folder


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A fresh one, whose modules are forgotten at the end."""
    threads, verbosity = torch.get_num_threads(), optuna.logging.get_verbosity()
    monkeypatch.chdir(write_folder(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("nets", None)
    torch.set_num_threads(threads)
    optuna.logging.set_verbosity(verbosity)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two workers by a process that finds no module in the current folder by itself."""
    place = write_folder(tmp_path_factory.mktemp("searched"))
    command = [sys.executable, "-P", "-m", "search.cli", "search", "--config", "search.toml", "--space", "nets:space"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [*command, "--workers", "2", "--out", "run"], cwd=place, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return place / "run"


def test_a_run_remembers_the_name(run):
    settings = read_settings(run)
    assert (settings.graph, settings.workers, len(read_records(run))) == ("nets:space", 2, 8)
    assert resuming(run).endswith(" --space nets:space")
    page = (run / "report.html").read_text()
    assert "run/search.toml" in page
    assert "run --space nets:space" in page
    again, _ = prepared(read(run / "search.toml"))
    assert again == settings


def test_answers_are_those_of_the_sum_of_machines(run, folder, capsys):
    code, out, _ = machgraph(capsys, "predict", run, "data.csv", "--space", "nets:space")
    assert code == 0
    said = pl.read_csv(out.encode())
    assert said.columns == ["y", "p(down)", "p(up)"]
    f = load_graph(run / "best.machgraph", named_space("nets:space"))
    from search.trained import read as trained

    encoder = trained(run / "best.machgraph", named_space("nets:space")).encoder
    with torch.no_grad():
        logits = f.resolvent({"x": torch.from_numpy(encoder.encode(pl.read_csv("data.csv")))})["y"].numpy()
    assert said["y"].to_list() == [("down", "up")[i] for i in logits.argmax(axis=1)]
    code, together, _ = machgraph(capsys, "predict", run, "data.csv", "--ensemble", "--space", "nets:space")
    assert code == 0
    assert len(together.splitlines()) == len(out.splitlines()) == 61


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_an_exported_program_answers_as_predict_does(run, folder, capsys, suffix):
    pytest.importorskip("onnxscript")
    out = folder / f"net{suffix}"
    code, said, err = machgraph(capsys, "export", run, "--space", "nets:space", "--out", out)
    assert code == 0, err
    assert "3 features to probabilities of 2 classes; tried on 16 rows, equal to" in said
    if suffix == ".pt2":
        extra = {"encoder.json": ""}
        program = torch.export.load(out, extra_files=extra).module()
        from search.data.encoder import Encoder

        x = Encoder.from_json(extra["encoder.json"]).encode(pl.read_csv("data.csv"))
        answers = pl.read_csv(machgraph(capsys, "predict", run, "data.csv", "--space", "nets:space")[1].encode())
        with torch.no_grad():
            found = program(torch.from_numpy(x)).numpy()
        assert found == pytest.approx(answers[:, 1:].to_numpy(), abs=1e-5)


def test_what_needs_no_modules_needs_no_space(run, folder, capsys):
    assert machgraph(capsys, "show", run, "--out", "net.svg")[0] == 0
    assert machgraph(capsys, "report", run)[0] == 0
    assert machgraph(capsys, "export", run, "--out", "copy.machgraph")[0] == 0
    assert "nets" not in sys.modules


def test_a_run_goes_on(folder, capsys, plain):
    assert machgraph(capsys, "search", "--config", "named.toml", "--out", "run", "--quiet")[0] == 0
    assert read_settings("run").graph == "nets:space"
    code, _, err = machgraph(capsys, "resume", "run", "--space", "nets:space", "--trials", 4, "--quiet")
    assert code == 0, err
    assert len(read_records("run")) == 12
    code, _, err = machgraph(capsys, "resume", "run", "--space", "nets:made", "--trials", 4)
    assert code == 2
    assert "run was begun with another graph space: its learning_rates are" in err


def test_a_function_may_make_the_space(folder, capsys):
    code, out, _ = machgraph(
        capsys, "search", "--config", "search.toml", "--space", "nets:made", "--dry-run", "--json", "--quiet"
    )
    assert code == 0
    assert json.loads(out)["settings"]["space"]["learning_rates"] == [1e-2]
    code, out, _ = machgraph(
        capsys, "search", "--config", "search.toml", "--space", "nets:made", "--dry-run", "--quiet"
    )
    assert 'graph = "nets:made"' in out
    assert "[space]" not in out


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("search {}", "got the graph space 'nets': give MODULE:NAME, as nets:space for what nets.py calls space"),
        (
            "search {}.py:space",
            "there is no module 'nets.py' (did you mean 'nets'?) for the graph space 'nets.py:space'",
        ),
        (
            "search nest:space",
            "there is no module 'nest' (did you mean 'nets'?) for the graph space 'nest:space': give",
        ),
        ("search {}:spaec", "nets has no 'spaec' (did you mean 'space'?): give the name of a search.GraphSpace"),
        ("search {}:number", "nets:number is of type int: a search.GraphSpace was expected, or a function that makes"),
        ("search {}:Product", "nets:Product is of type type: a search.GraphSpace was expected"),
        ("search {}:bend", "nets:bend is of type Sequential: a search.GraphSpace was expected"),
        ("search {}:asking", "nets:asking can't make a graph space, missing a required argument: 'rates': give a"),
        ("search {}:space --strategy differentiable", "got the differentiable strategy"),
        ("search {}:space --inherit", "got inherit"),
    ],
)
def test_a_space_that_is_none_ends_in_a_sentence(folder, capsys, command, sentence):
    before = sorted(folder.rglob("*.*"))
    word, space, *more = command.format("nets").split()
    code, out, err = machgraph(capsys, word, "--config", "search.toml", "--space", space, *more)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert [path for path in sorted(folder.rglob("*.*")) if "__pycache__" not in str(path)] == before


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            "predict {run} data.csv",
            "is of the graph space nets:space, whose modules Python makes: give it again, by --s",
        ),
        ("export {run}", "give it again, by --space nets:space or from Python by space="),
        ("resume {run}", "run is of the graph space nets:space, whose modules Python makes: give it again, by --space"),
        ("predict {run} data.csv --space nets:made", "holds an architecture of another space: its learning_rates are"),
        ("export {run} --space nets:space --out net.py", "modules of one's own are Python already, so take .pt2 or"),
        ("export plain.machgraph --space nets:space", "which is of another kind of space: leave it out"),
        ("search --config both.toml", "got the graph space 'nets:space' and a [space] of both.toml: leave one of the"),
    ],
)
def test_a_run_that_needs_its_space_says_so(run, folder, capsys, command, sentence):
    import machgraph as mg

    mg.save(mg.DenseMachine((3, 2)), folder / "plain.machgraph")
    (folder / "both.toml").write_text((folder / "named.toml").read_text() + "\n[space]\nmax_blocks = 1\n")
    code, out, err = machgraph(capsys, *command.format(run=run).split())
    assert (code, out) == (2, "")
    assert sentence in err
    if "--space" not in command:
        assert "nets" not in sys.modules  # whatever the run names


def test_what_a_module_itself_does_wrong_is_no_sentence(folder, capsys):
    (folder / "broken.py").write_text("import no_such_module\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        machgraph(capsys, "search", "--config", "search.toml", "--space", "broken:space")


def test_where_nothing_fits_the_data_the_first_reason_is_told(capsys, plain):
    code, said, _ = machgraph(
        capsys, "search", "--config", "search.toml", "--space", "nets:blind", "--strategy", "random", "--out", "none"
    )
    assert code == 0
    words = " ".join(said.split())
    assert "not one trial ended with a finite loss; the first had failed: y has shape (5,)" in words
