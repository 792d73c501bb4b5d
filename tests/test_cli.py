"""The command line as a user meets it: what it prints, writes and refuses."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from rich.console import Console

import machgraph as mg
from machgraph.io import load, load_metadata, save
from search import cli, report, work
from search.data.encoder import Encoder
from search.one_of import OneOf
from search.report import write
from search.run import read_facts, read_leaderboard, read_records, read_settings
from search.space import Space
from search.terminal.progress import footnotes, heading, leaderboard

MACHGRAPH = [sys.executable, "-m", "search.cli"]
ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}


@pytest.fixture(autouse=True, scope="module")
def surroundings():
    threads, verbosity = torch.get_num_threads(), optuna.logging.get_verbosity()
    yield
    torch.set_num_threads(threads)
    optuna.logging.set_verbosity(verbosity)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A configuration of searches that end soon, as options."""
    path = tmp_path_factory.mktemp("short") / "short.toml"
    path.write_text("[search]\nfinalists = 1\nseeds = 1\nfolds = 2\n[recipe]\nepochs = 4\nrungs = [2]\n")
    return "--config", path


def machgraph(capsys, *arguments):
    """Exit code, standard output and standard error of the command line, in this process."""
    code = 0
    try:
        cli.main(list(map(str, arguments)))
    except SystemExit as end:
        code = end.code or 0
    out, err = capsys.readouterr()
    return code, out, err


def write_signs(path, rows=60, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 2))
    labels = np.where(x[:, 0] * x[:, 1] > 0, "same", "other")
    lines = ["a,b,sign", *(f"{a:.5f},{b:.5f},{label}" for (a, b), label in zip(x, labels, strict=True))]
    path.write_text("\n".join(lines))
    return path


def decimals(line):
    return [float(word) for word in line.split() if re.fullmatch(r"-?\d+\.\d{4}", word)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run by the real command into pipes: its folder, what was found, and how it went."""
    place = tmp_path_factory.mktemp("finished")
    write_signs(place / "signs.csv")
    command = [*MACHGRAPH, "search", "signs.csv", "--target", "sign", "--trials", "8", "--population", "4"]
    ended = subprocess.run(command, cwd=place, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return place / "runs" / "signs", ended.stdout, ended.stderr


# ---- a search that ends ---------------------------------------------------------------------------------------------


def test_search_writes_the_runs_folder(finished):
    folder, _, _ = finished
    names = {path.name for path in folder.iterdir()}
    assert {"run.json", "study.db", "ledger.csv", "leaderboard.csv", "best.machgraph", "report.html"} <= names
    assert len(read_records(folder)) == 8
    assert read_settings(folder).source == str(folder.parents[1] / "signs.csv")  # found again from anywhere


def test_search_tells_data_space_and_progress_beside_the_results(finished):
    *_, err = finished
    lines = [line.rstrip() for line in err.splitlines()]
    assert max(map(len, lines)) <= 160  # progress is not cut; the rest:
    assert all(len(line) <= 80 for line in lines if "best so far" not in line)
    assert lines[0].startswith("data       signs: 60 rows, 2 columns used")
    assert any(re.search(r"^\s+[\d,]+ points, of which [\d,]+ are different", line) for line in lines)
    assert [line.split(",")[0] for line in lines if "best so far" in line] == ["4 trials", "8 trials"]


def test_search_prints_leaderboard_and_what_to_type_next(finished):
    folder, out, _ = finished
    lines = [line.rstrip() for line in out.splitlines()]
    assert all(len(line) <= 80 for line in lines)
    assert lines[0].startswith("trials     8 in ")
    (begin,) = [i for i, line in enumerate(lines) if line and set(line) == {"─"}]
    board = lines[begin + 1 : next(i for i, line in enumerate(lines) if line.startswith("test: "))]
    rows = read_leaderboard(folder)
    names = [row.name for row in rows]
    assert names[:5] == ["winner", "second", "third", "fourth", "fifth"]
    assert names[5:8] == ["ensemble", "random (median of 5)", "plain MLP"]
    assert names[8].startswith("scikit-learn (")
    for row in rows:
        (line,) = [line for line in board if line.startswith(row.name.split(" (")[0] + " ")]
        shown = [float(f"{value:.4f}") for value in (row.loss, row.score, row.test_score) if value is not None]
        assert shown == decimals(line)[: len(shown)]
        assert (f" {row.test_sd:.4f}".replace(" 0", " ") if row.test_sd is not None else "") in line
    assert lines[-1] == f"next: machgraph predict {folder.relative_to(folder.parents[1])} NEW.csv"


def test_same_command_gives_the_same_search_and_never_overwrites(finished, folder, capsys, plain):
    arguments = ["search", finished[0].parents[1] / "signs.csv", "--target", "sign", "--trials", 8, "--population", 4]
    assert machgraph(capsys, *arguments, "--out", "again")[0] == 0
    keys = [[record.key for record in read_records(run)] for run in (finished[0], folder / "again")]
    assert keys[0] == keys[1]
    before = (folder / "again" / "study.db").read_bytes()
    code, _, err = machgraph(capsys, *arguments, "--out", "again")
    assert code == 2
    assert err == (
        "machgraph: again already holds a run: go on with it by machgraph resume again, "
        "or give another folder with --out\n"
    )
    assert (folder / "again" / "study.db").read_bytes() == before


def test_schedule_is_shortened_where_the_time_is_short_and_that_is_told(finished, folder, capsys, plain):
    data = finished[0].parents[1] / "signs.csv"
    code, _, err = machgraph(capsys, "search", data, "--target", "sign", "--time", 1e-4, "--population", 4)
    assert code == 0
    told = "5 epochs of 1 step instead of 60, so that a few generations fit into the time"
    assert told in " ".join(err.split())
    recipe = read_settings("runs/signs").recipe
    assert (recipe.epochs, recipe.batches, recipe.rungs) == (5, 1, (1, 2))
    assert max(record.epochs for record in read_records("runs/signs")) == 5


@pytest.mark.parametrize("architectures", [None, 4321])
def test_heading_tells_every_kind_of_machine_and_how_many_networks_if_that_is_known(finished, architectures):
    dense = Space(widths=(8, 16), activations=("relu",))
    grid = Space(widths=(4,), kind="convolution", kernels=(3, 5), max_scale=1, heads=(1, 2), max_span=2, min_blocks=2)
    settings = replace(read_settings(finished[0]), space=OneOf((dense, grid)))
    facts = replace(read_facts(finished[0]), points=settings.space.count(), architectures=architectures)
    console = Console(width=200, file=io.StringIO())
    console.print(heading(settings, facts))
    lines = [line.strip() for line in console.file.getvalue().splitlines()]
    place = lines.index("space      up to 4 hidden blocks of 8 or 16 units, relu, any shortcuts")
    assert lines[place + 1] == (
        "2 to 4 hidden blocks of 4 channels, relu, tanh or gelu, kernels of 3 or 5, pooled up to 2 times, "
        "shortcuts over up to 2 blocks"
    )
    different = "" if architectures is None else ", of which 4,321 are different"
    assert lines[place + 2] == f"{settings.space.count():,} points{different}"


@pytest.mark.parametrize("width", [40, 55, 60, 70, 80])
def test_leaderboard_cuts_no_number_however_narrow(finished, width):
    rows = [replace(row, score=-1490250112.0) for row in read_leaderboard(finished[0])]
    console = Console(width=width, file=io.StringIO())
    console.print(leaderboard(rows, read_facts(finished[0]), width))
    lines = console.file.getvalue().splitlines()
    assert "…" not in console.file.getvalue()
    for row in rows:
        (line,) = [line for line in lines if line.startswith(row.name.split(" (")[0])]
        assert "-1.5e+09" in line
        assert row.test_score is None or f"{row.test_score:.4f}" in line


def test_footnotes_tell_of_an_ensemble_where_there_is_one(finished):
    rows = read_leaderboard(finished[0])
    assert "ensemble: the winner and those below it together." in footnotes(rows).plain
    assert "ensemble" not in footnotes([row for row in rows if row.name != "ensemble"]).plain


def test_footnotes_tell_of_how_many_draws_and_rows(finished):
    rows = [row for row in read_leaderboard(finished[0]) if not row.name.startswith(("random", "scikit"))]
    assert "random: a uniform draw from" in footnotes(rows).plain
    said = footnotes(
        [
            *rows,
            replace(rows[-1], name="random (median of 3)"),
            replace(rows[-1], name="scikit-learn (trees of 1,200 rows)"),
        ]
    ).plain
    assert "of 3 uniform draws" in said
    assert "an SVM, fitted to 1,200 rows, for which there was time. Their" in said


def test_without_a_folder_the_next_free_one_is_taken(finished, folder, capsys, plain, short):
    data = finished[0].parents[1] / "signs.csv"
    for name in ("signs", "signs-2", "signs-3"):
        code, out, _ = machgraph(capsys, "search", data, "--target", "sign", "--trials", 1, *short)
        assert code == 0
        assert out.splitlines()[-1] == f"next: machgraph predict runs/{name} NEW.csv"
        assert len(read_records(folder / "runs" / name)) == 1


def test_interrupt_says_what_is_kept_and_how_to_go_on(finished, folder, capsys, plain, monkeypatch):
    (folder / "few.toml").write_text("[search]\nfinalists = 1\nseeds = 1\n")
    real = work.train

    def train(points, folds, recipe, seed, progress, **more):
        if len(read_records("signs")) == 4:
            raise KeyboardInterrupt
        return real(points, folds, recipe, seed, progress, **more)

    write_signs(folder / "signs.csv")
    with monkeypatch.context() as patch:
        patch.setattr(work, "train", train)
        command = ("search", "signs.csv", "--target", "sign", "--trials", 8, "--population", 4, "--out", "signs")
        code, _, err = machgraph(capsys, *command, "--config", "few.toml")
    assert code == 130
    assert err.splitlines()[-2:] == [
        "Stopped: 4 trials are kept in signs, the 4 in training are lost.",
        "Go on with: machgraph resume signs",
    ]
    code, out, _ = machgraph(capsys, "resume", "signs")
    assert code == 0
    assert "next: machgraph predict signs NEW.csv" in out
    keys = [[record.key for record in read_records(run)] for run in (finished[0], "signs")]
    assert keys[0] == keys[1]


def test_resume_extends_and_report_rewrites(folder, capsys, plain, short, monkeypatch):
    write_signs(folder / "signs.csv")
    machgraph(capsys, "search", "signs.csv", "--target", "sign", "--trials", 2, "--population", 2, *short)
    assert machgraph(capsys, "resume", "runs/signs", "--trials", 2)[0] == 0
    assert len(read_records("runs/signs")) == 4
    page = folder / "runs" / "signs" / "report.html"
    page.write_text("an old one")
    monkeypatch.setattr(report, "write", write)
    assert machgraph(capsys, "report", "runs/signs") == (0, "runs/signs/report.html\n", "")
    assert page.read_text().startswith("<!doctype html>")


def test_one_trial_is_told_as_one(finished, folder, capsys, plain, short):
    data = finished[0].parents[1] / "signs.csv"
    _, _, err = machgraph(capsys, "search", data, "--target", "sign", "--trials", 1, "--out", "one", *short)
    assert "\n1 trial, " in err


# ---- what is done with the winner -----------------------------------------------------------------------------------


def test_predict_gives_the_machines_own_answers_from_its_file_alone(finished, folder, capsys):
    write_signs(folder / "new.csv", rows=20, seed=1)
    (folder / "moved.machgraph").write_bytes((finished[0] / "best.machgraph").read_bytes())
    code, out, err = machgraph(capsys, "predict", "moved.machgraph", "new.csv")
    assert (code, err) == (0, "")
    assert out == machgraph(capsys, "predict", finished[0], "new.csv")[1]
    header, *lines = list(csv.reader(io.StringIO(out)))
    assert header == ["sign", "p(other)", "p(same)"]
    machine, metadata = load(finished[0] / "best.machgraph"), load_metadata(finished[0] / "best.machgraph")
    encoder = Encoder.from_json(metadata["encoder"])
    with torch.no_grad():
        outputs = machine.output(machine.double()(torch.from_numpy(encoder.encode("new.csv")).double()))
    assert [line[0] for line in lines] == [encoder.classes[i] for i in outputs.argmax(1)]
    expected = torch.softmax(metadata["sharpness"] * outputs, dim=1).numpy()
    np.testing.assert_allclose([[float(cell) for cell in line[1:]] for line in lines], expected, rtol=1e-12)


def test_regression_predicts_numbers_in_the_unit_of_the_target(folder, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    y = 1000 + 50 * x[:, 0] - 20 * x[:, 1]
    lines = ["a,b,price", *(f"{a},{b},{c}" for (a, b), c in zip(x, y, strict=True))]
    (folder / "prices.csv").write_text("\n".join(lines))
    code, out, _ = machgraph(capsys, "search", "prices.csv", "--target", "price", "--trials", 4, "--population", 4)
    assert code == 0
    assert "R²" in out
    code, out, _ = machgraph(capsys, "predict", "runs/prices", "prices.csv")
    header, *lines = out.splitlines()
    assert header == "price"
    assert np.corrcoef(np.array(lines, dtype=float), y)[0, 1] > 0.9
    assert abs(np.mean(np.array(lines, dtype=float)) - y.mean()) < 25


def test_show_draws_a_run_a_saved_machine_and_a_description(finished, folder, capsys):
    (folder / "net.json").write_text('{"widths": [4, 3, 3, 2], "activation": "tanh", "shortcuts": null}')
    save(mg.DenseMachine((4, 3, 3, 2), activation="tanh"), "net.machgraph")
    told = []
    for place, picture in ((finished[0], "run.svg"), ("net.json", "net.svg"), ("net.machgraph", "other.png")):
        code, out, err = machgraph(capsys, "show", place, "--out", picture)
        assert (code, err) == (0, "")
        assert (folder / picture).stat().st_size > 1000
        told.append(re.sub(r"picture .*", "", out))
    assert told[1] == told[2]
    assert "4-3-3-2" in told[1]
    assert "0 → 2, 0 → 3, 1 → 3" in told[1]
    assert "σ_0 w_1 σ_1 w_2 σ_2 w_3 σ_3" in told[1]
    assert "7 ⊇ 6 ⊇ 5 ⊇ 4 ⊇ 3 ⊇ 2 ⊇ 1 ⊇ 0" in " ".join(told[1].split()) or "⊇ 0 components" in told[1]
    first = (folder / "net.svg").read_bytes()
    machgraph(capsys, "show", "net.json")
    assert (folder / "net.svg").read_bytes() == first
    assert "net.html" in machgraph(capsys, "show", "net.json", "--html")[1]
    machgraph(capsys, "show", "net.json", "--out", "same.html")
    assert (folder / "same.html").read_text() == (folder / "net.html").read_text()
    assert (folder / "net.html").read_text().startswith("<!doctype html>")


# ---- help and errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["search", "resume", "report", "show", "predict", "export", "dashboard"])
def test_help_is_a_page_with_an_example(capsys, command):
    code, out, _ = machgraph(capsys, command, "--help")
    assert code == 0
    assert f"Example: machgraph {command}" in out
    assert len(out.splitlines()) < 50


def test_help_and_version_load_nothing_heavy():
    program = (
        "import sys\nfrom search.cli import main\n"
        "for arguments in (['--help'], ['search', '--help'], ['--version']):\n"
        "    try: main(arguments)\n"
        "    except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'optuna', 'matplotlib', 'numpy', 'sklearn', 'polars', 'networkx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == f"machgraph {mg.__version__}"


@pytest.fixture
def mistakes(folder):
    """Files with which users go wrong."""
    write_signs(folder / "signs.csv")
    write_signs(folder / "runs.csv")
    (folder / "empty.csv").write_text("")
    (folder / "notes.txt").write_text("hello")
    (folder / "broken.json").write_text('{"widths": [4,')
    (folder / "wrong.json").write_text('{"width": [4, 2]}')
    (folder / "ragged.json").write_text('{"widths": [4, 2], "shortcuts": [[1, 2], [3]]}')
    (folder / "typed.json").write_text('{"widths": [4, 2], "activation": 3}')
    (folder / "endless.json").write_text('{"widths": [100000000, 100000000]}')
    (folder / "other.csv").write_text("a,c\n1,2\n")
    (folder / "occupied").mkdir()
    (folder / "occupied" / "thesis.tex").write_text("")
    (folder / "wrong.toml").write_text("[recipe]\nepoch = 3\n")
    save(mg.DenseMachine((2, 2)), "plain.machgraph")
    save(mg.ConvMachine((2, 2), 3), "grid.machgraph")
    return folder


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("search digit", "no bundled data set is called 'digit' (did you mean 'digits'?)"),
        ("search nothing.csv --target y", "file not found: nothing.csv"),
        ("search notes.txt --target y", "give a .csv or a .parquet file"),
        ("search empty.csv --target y", "is empty"),
        ("search signs.csv", "needs a target"),
        ("search signs.csv --target sing", "'sing' is not a column of"),
        ("search signs.csv --target sign --task ranking", "got the task 'ranking': it is classification or"),
        ("search signs.csv --target sign --task regression", "regression needs numbers"),
        ("search signs.csv --target sign --strategy evolve", "did you mean 'evolution'"),
        ("search signs.csv --target sign --time -1", "the time must be positive"),
        ("search signs.csv --target sign --time nan", "the time must be positive"),
        ("search signs.csv --target sign --trials 0", "got trials=0: it must be at least 1"),
        ("search signs.csv --target sign --trials many", "should be a valid integer"),
        ("resume {run} --trials -3", "got trials=-3: it must be at least 1"),
        ("resume {run} --time 0", "the time must be positive"),
        ("search signs.csv --target sign --out occupied", "occupied is there already and is no run"),
        ("search signs.csv --target sign --out signs.csv", "signs.csv is there already and is no run"),
        (
            "search signs.csv --target sign --out notes.txt/run",
            "can't make the folder notes.txt/run: notes.txt is a file",
        ),
        ("search signs.csv --target sign --out signs.csv/run", "signs.csv is a file; choose another with --out"),
        ("search signs.csv --target sign --seed -1", "got seed=-1: it must be 0 or more"),
        ("search", "missing DATA: give a bundled name, a file, or a configuration whose [data] has a source"),
        ("show", "missing argument 'RUN|FILE': see machgraph --help"),
        ("search --config none.toml", "no configuration is at none.toml"),
        ("search signs.csv --config wrong.toml", "wrong.toml has 'epoch' in [recipe] (did you mean 'epochs'?)"),
        ("search signs.csv --target sign --objective los", "did you mean 'loss'"),
        ("search signs.csv --target sign --constraint depth", "got the constraint 'depth': give a measure"),
        ("search signs.csv --target sign --constraint depth<=1 --trials 2", "points drawn from the space has depth"),
        ("search signs.csv --target sign --folds 0", "got folds=0: it must be at least 1"),
        ("search signs.csv --target sign --folds 500 --dry-run", "got 500 folds of 48 rows"),
        ("search signs.csv --target sign --transform sqrt", "got the transform 'sqrt' for classes"),
        ("search signs.csv --target sign --image 1,b", "got the image '1,b': give channels, then the extent"),
        ("search signs.csv --target sign --image 1,3,3", "9"),
        ("search signs.csv --target a --lags 0", "got lags=0: a whole number of at least 1 was expected"),
        ("search signs.csv --target a --time-column b", "without lags"),
        ("search signs.csv --target a --lags 2 --held-out signs.csv", "a held-out part beside a series"),
        ("search digits --lags 2", "got lags=2 beside 'digits', which is no series: leave them out"),
        ("search digits --held-out signs.csv", "got a held-out file beside 'digits'"),
        ("search signs.csv --target sign --held-out gone.csv", "file not found: "),
        ("export occupied", "no run is in occupied"),
        ("export signs.csv", "is not a machgraph file"),
        ("export plain.machgraph --out net.pth", "the name of an exported machine ends in one of .pt2, .onnx"),
        ("export plain.machgraph --out plain.machgraph", "plain.machgraph is the machine itself"),
        ("export plain.machgraph --out gone/net.pt2", "there is no folder gone: make it"),
        ("export grid.machgraph", "grid.machgraph was saved without the shape of its input"),
        ("predict plain.machgraph signs.csv --ensemble", "plain.machgraph has no ensemble"),
        ("serch signs.csv", "no such command 'serch' (did you mean 'search'?): see"),
        ("search signs.csv --tagret sign", "no such option: --tagret"),
        ("show ragged.json", "ragged.json describes no machine"),
        ("show typed.json", "typed.json describes no machine: got an activation of type int"),
        ("show endless.json", "endless.json describes no machine"),
        ("resume runs/none", "no run is in runs/none"),
        ("resume signs.csv", "no run is in signs.csv"),
        ("report occupied", "no run is in occupied"),
        ("show nowhere", "nowhere is not there"),
        ("show occupied", "no run is in occupied"),
        ("show broken.json", "is not JSON"),
        ("show wrong.json", "it must hold widths"),
        ("show signs.csv", "is not a machgraph file"),
        ("show plain.machgraph --out net.doc", "the name of a picture ends in one of"),
        ("show plain.machgraph --html --out net.svg", "a page's name ends in .html"),
        ("predict plain.machgraph signs.csv", "was saved without an encoder"),
        ("predict {run} other.csv", "column 'b' is missing"),
        ("predict {run} none.csv", "file not found"),
    ],
)
def test_bad_input_ends_in_a_sentence(mistakes, finished, capsys, command, sentence):
    before = sorted(mistakes.rglob("*"))
    code, out, err = machgraph(capsys, *command.format(run=finished[0]).split())
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert err.startswith("machgraph: ")
    assert out == "" or not command.startswith("predict")
    assert sorted(mistakes.rglob("*")) == before  # nothing is left behind


def test_bug_shows_its_traceback(finished, capsys, monkeypatch):
    def broken(*_):
        return np.zeros(3).reshape(2, 2)  # a ValueError, but none of ours

    monkeypatch.setattr(Encoder, "encode", broken)
    with pytest.raises(ValueError, match="cannot reshape"):
        machgraph(capsys, "predict", finished[0], finished[0].parents[1] / "signs.csv")


def test_bundled_data_need_no_target(folder, capsys, plain, short):
    command = ("search", "diabetes", "--trials", 2, "--population", 2, "--seed", 3, "--strategy", "random", *short)
    assert machgraph(capsys, *command)[0] == 0
    settings = json.loads((folder / "runs" / "diabetes" / "run.json").read_text())["settings"]
    assert (settings["source"], settings["seed"], settings["strategy"]) == ("diabetes", 3, "random")
