"""The driver: exact after every interruption, never training anything twice, deaf to the held-out part."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState
from sklearn.neighbors import NearestCentroid
from sqlalchemy import Engine, event

from machgraph.io import load as load_machine
from machgraph.io import load_metadata
from search import driver, study, work
from search.comparison import rivals
from search.comparison.finalists import chosen
from search.comparison.leaderboard import NAMES, ranking
from search.data import Part, load
from search.isomorphism.canonical import canonical, key
from search.population import evaluate, refit, train
from search.recipe import Recipe
from search.report import write
from search.run import (
    BEST,
    LEDGER,
    STUDY,
    Settings,
    read_facts,
    read_leaderboard,
    read_records,
    read_settings,
)
from search.space import Space
from search.storage.connection import only_writer
from search.storage.store import Store
from search.terminal.progress import footnotes

SPACE = Space(max_blocks=2, widths=(2, 4), activations=("tanh", "relu"), learning_rates=(1e-2, 3e-2), batch_sizes=(16,))
RECIPE = Recipe(epochs=3, patience=2, rungs=(1,))
STRATEGIES = ("random", "tpe", "nsga2", "evolution")


@pytest.fixture(autouse=True, scope="module")
def quiet():
    """Of scikit-learn's models the quick one alone."""
    threads, verbosity = torch.get_num_threads(), optuna.logging.get_verbosity()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rivals, "_models", lambda dataset: {"linear": NearestCentroid()})
        yield
    torch.set_num_threads(threads)
    optuna.logging.set_verbosity(verbosity)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    labels = np.where(x[:, 0] * x[:, 1] + 0.3 * x[:, 2] > 0, "up", "down")
    path = tmp_path_factory.mktemp("data") / "signs.csv"
    lines = ["a,b,c,sign", *(f"{a:.6f},{b:.6f},{c:.6f},{label}" for (a, b, c), label in zip(x, labels, strict=True))]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture(scope="module")
def dataset(source):
    return load(source, "sign")


def settings(source, strategy="evolution", trials=27, **changes):
    few = Settings(source, "sign", None, 0, strategy, 27, None, 6, SPACE, RECIPE, seeds=2)
    return replace(few, trials=trials, **changes)


def ledger(folder):
    """All of ``ledger.csv`` but the times."""
    lines = [line.split(",") for line in (folder / LEDGER).read_text().splitlines()]
    place = lines[0].index("seconds")
    return [line[:place] + line[place + 1 :] for line in lines]


def untimed(items):
    return [replace(item, seconds=0.0) for item in items]


def same(run, other):
    """Two runs are the same in all but times: trials, leaderboard, and the best machine to the last bit."""
    assert ledger(run) == ledger(other)
    assert untimed(read_records(run)) == untimed(read_records(other))
    assert untimed(read_leaderboard(run)) == untimed(read_leaderboard(other))
    assert load_metadata(run / BEST) == load_metadata(other / BEST)
    assert torch.equal(load_machine(run / BEST).weight, load_machine(other / BEST).weight)


@pytest.fixture(scope="module")
def whole(source, dataset, tmp_path_factory):
    """For each strategy a search that nothing interrupted."""
    folders = {}
    for strategy in STRATEGIES:
        folders[strategy] = tmp_path_factory.mktemp("whole") / strategy
        study.run(settings(source, strategy), dataset, folders[strategy])
    return folders


class Cut(BaseException):
    """Stands for whatever ends a process."""


def cut_at(stage, done, epoch=0):
    def on_event(event):
        if (event.stage, event.done) == (stage, done) and event.epoch >= epoch:
            raise Cut

    return on_event


# ---- what a run holds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_trial_is_stored_finished_and_numbered(whole, strategy):
    folder = whole[strategy]
    records = read_records(folder)
    assert [record.number for record in records] == list(range(27))  # the last generation is cut by the limit
    assert len(ledger(folder)) == 28
    stored = optuna.load_study(study_name="search", storage=f"sqlite:///{folder / STUDY}")
    assert {trial.state for trial in stored.trials} == {TrialState.COMPLETE}
    assert [trial.value for trial in stored.trials] == [record.loss for record in records]
    for record in records:
        assert record.canonical == canonical(record.point)
        assert record.key == key(record.point, seed=0, budget=RECIPE.epochs)
        if record.duplicate_of is None:
            assert len(record.curve) == record.epochs
            assert min(record.curve) == record.loss


def test_best_so_far_is_kept_exactly_as_it_was_found(source, dataset, tmp_path):
    with pytest.raises(Cut):
        study.run(settings(source), dataset, tmp_path, cut_at("rivals", 27))
    rows, records = read_leaderboard(tmp_path), read_records(tmp_path)
    winner = rows[0]
    assert [row.name for row in rows] == list(NAMES)
    assert winner.loss == min(record.loss for record in records) == records[winner.trial].loss
    machine, metadata = load_machine(tmp_path / BEST), load_metadata(tmp_path / BEST)
    figures = evaluate(machine, dataset, dataset.validation, metadata["sharpness"])
    assert figures == pytest.approx((winner.loss, winner.score), rel=4e-3)
    assert metadata["encoder"] == dataset.encoder.to_json()
    assert {name for name in metadata if name.startswith("test")} == set()  # not looked at yet
    assert {row.test_loss for row in rows} == {row.test_score for row in rows} == {None}


def test_winner_is_best_on_average_and_learns_all_that_is_not_held_out(whole, dataset):
    rows, records = read_leaderboard(whole["evolution"]), read_records(whole["evolution"])
    finalists, recipe = chosen(ranking(records, settings("made.csv")), 5), replace(RECIPE, rungs=())
    folds = dataset.folds(5, 1)  # that no candidate was chosen by
    results = {
        record.number: [train([record.canonical], folds, recipe, 0, seeds=[seed])[0] for seed in (1, 2)]
        for record in finalists
    }
    means = {number: np.mean([outcome.loss for outcome in outcomes]) for number, outcomes in results.items()}
    assert [row.trial for row in rows[:5]] == sorted(means, key=means.get)
    assert [row.loss for row in rows[:5]] == pytest.approx(sorted(means.values()), rel=1e-4)
    winner = rows[0]
    epochs = round(np.mean([outcome.best_epoch for outcome in results[winner.trial]]))
    both = refit([winner.point] * 2, dataset.whole(), recipe, [epochs] * 2, seed=0, seeds=[1, 2])
    machine, metadata = load_machine(whole["evolution"] / BEST), load_metadata(whole["evolution"] / BEST)
    torch.testing.assert_close(machine.weight, both[0].weight, rtol=1e-4, atol=1e-5)
    sharpness = metadata["sharpness"]
    assert sharpness == pytest.approx(np.mean([outcome.sharpness for outcome in results[winner.trial]]), rel=1e-4)
    losses, scores = zip(*(evaluate(one, dataset, dataset.test, sharpness) for one in (machine, both[1])), strict=True)
    expected = np.mean(losses), np.mean(scores), np.std(scores, ddof=1)
    assert (winner.test_loss, winner.test_score, winner.test_sd) == pytest.approx(expected, rel=1e-4)
    assert (metadata["test_loss"], metadata["test_score"]) == (winner.test_loss, winner.test_score)
    known = records[winner.trial]
    assert (metadata["trial"], metadata["key"], metadata["loss"]) == (known.number, known.key, known.loss)
    assert metadata["encoder"] == dataset.encoder.to_json()
    assert machine.parameter_count() == winner.parameters
    assert machine.flops() == winner.flops


def test_leaderboard_shows_the_held_out_part_for_the_winner_and_its_rivals_alone(whole):
    rows = read_leaderboard(whole["tpe"])
    others = ["ensemble", "random (median of 5)", "plain MLP", "scikit-learn (linear)"]
    assert [row.name for row in rows] == [*NAMES, *others]
    assert [row.test_score is not None for row in rows] == [True] + 4 * [False] + 4 * [True]
    assert [row.test_loss is not None for row in rows] == [True] + 4 * [False] + 3 * [True] + [False]
    assert [row.loss for row in rows[:5]] == sorted(row.loss for row in rows[:5])
    assert [row.trial is None for row in rows] == 6 * [False] + 3 * [True]
    assert rows[5].trial == rows[0].trial
    architectures = {(row.point.widths, row.point.activations, row.point.shortcuts) for row in rows[:5]}
    assert len(architectures) == 5


def test_held_out_part_has_no_say_in_the_search(whole, source, dataset, tmp_path):
    blind = replace(dataset, test=Part(np.zeros_like(dataset.test.x), dataset.test.y[::-1].copy()))
    study.run(settings(source, "evolution"), blind, tmp_path / "blind")
    assert ledger(tmp_path / "blind") == ledger(whole["evolution"])
    seen, unseen = (read_leaderboard(folder)[:5] for folder in (whole["evolution"], tmp_path / "blind"))
    assert [(row.trial, row.loss, row.score) for row in seen] == [(row.trial, row.loss, row.score) for row in unseen]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_is_trained_twice(source, dataset, tmp_path, monkeypatch, strategy):
    trained = []
    real = work.train

    def train(points, *rest, **more):
        trained.extend(points)
        return real(points, *rest, **more)

    monkeypatch.setattr(work, "train", train)
    small = replace(SPACE, max_blocks=1, widths=(2,))  # 8 points have many forms
    result = study.run(settings(source, strategy, space=small), dataset, tmp_path / "run")
    keys = [key(point, seed=0, budget=RECIPE.epochs) for point in trained]
    assert len(keys) == len(set(keys)) < len(result.records)
    for record in result.records:
        if record.duplicate_of is not None:
            first = result.records[record.duplicate_of]
            assert first.duplicate_of is None
            assert first.number < record.number
            assert (first.key, first.loss, first.score) == (record.key, record.loss, record.score)
            assert (record.status, record.epochs, record.curve) == ("duplicate", 0, ())


def test_search_ends_when_every_network_of_the_space_is_known(source, dataset, tmp_path):
    tiny = replace(SPACE, max_blocks=0)
    result = study.run(settings(source, "random", trials=1000, space=tiny), dataset, tmp_path / "run")
    assert len({record.key for record in result.records}) == 2  # one for each learning rate: no constant is drawn
    assert len(result.records) < 300
    tiny = replace(SPACE, max_blocks=1, widths=(2,), activations=("relu",), learning_rates=(0.01,))
    result = study.run(settings(source, "evolution", trials=1000, space=tiny), dataset, tmp_path / "evolution")
    assert len({record.key for record in result.records}) == tiny.count_classes() == 4
    assert len(result.records) < 300


# ---- interruptions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "cut"),
    [
        *(("evolution", cut) for cut in [("proposing", 0), ("training", 6, 1), ("storing", 24), ("rivals", 27)]),
        *((strategy, ("training", 12, 1)) for strategy in STRATEGIES),
    ],
    ids=str,
)
def test_resumed_search_is_the_uninterrupted_one(whole, source, dataset, tmp_path, strategy, cut):
    with pytest.raises(Cut):
        study.run(settings(source, strategy), dataset, tmp_path, cut_at(*cut))
    study.resume(tmp_path)
    same(tmp_path, whole[strategy])


@pytest.mark.parametrize("strategy", ["nsga2", "evolution"])
@pytest.mark.parametrize("table", ["trials", "trial_values", "trial_user_attributes"])
def test_a_generation_is_stored_whole_or_not_at_all(whole, source, dataset, tmp_path, strategy, table):
    stored = []  # generations

    def cut(connection, cursor, statement, *_):
        if len(stored) == 3 and statement.startswith(f"INSERT INTO {table} "):
            raise Cut
        if statement.startswith("INSERT INTO trial_user_attributes "):
            stored.append(statement)

    event.listen(Engine, "after_cursor_execute", cut)
    try:
        with pytest.raises(Cut):
            study.run(settings(source, strategy), dataset, tmp_path)
    finally:
        event.remove(Engine, "after_cursor_execute", cut)
    assert len(read_records(tmp_path)) == 18
    study.resume(tmp_path)
    same(tmp_path, whole[strategy])


FIRST = "(SELECT value_json FROM trial_user_attributes LIMIT 1)"


@pytest.mark.parametrize(
    "change", ["DELETE FROM trials WHERE number = 20", f"UPDATE trial_user_attributes SET value_json = {FIRST}"]
)
def test_trials_that_are_no_whole_generations_are_refused(source, dataset, tmp_path, change):
    study.run(settings(source, trials=24), dataset, tmp_path)
    with closing(sqlite3.connect(tmp_path / STUDY)) as connection, connection:
        connection.execute(change)
    with pytest.raises(ValueError, match="begun by another version of machgraph, which stored its trials otherwise"):
        study.resume(tmp_path)


KILLED = """
import os, signal, sys
import torch
from search import study
from search.data import load
from tests.test_study import settings
torch.set_num_threads(1)
source, strategy, folder = sys.argv[1:]

def on_event(event):
    if event.stage == "training" and event.done == 18 and event.epoch >= 1:
        os.kill(os.getpid(), signal.SIGKILL)

study.run(settings(source, strategy), load(source, "sign"), folder, on_event)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize("strategy", ["tpe", "evolution"])
def test_search_survives_kill_9(whole, source, tmp_path, strategy):
    command = [sys.executable, "-c", KILLED, source, strategy, str(tmp_path / "run")]
    root = str(Path(__file__).parents[1])
    ended = subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": root}, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert len(read_records(tmp_path / "run")) == 18  # and the lock died with its process
    study.resume(tmp_path / "run")
    same(tmp_path / "run", whole[strategy])


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"garbage")])
def test_best_machine_that_was_lost_is_made_again(whole, source, dataset, tmp_path, spoil):
    study.run(settings(source), dataset, tmp_path)
    spoil(tmp_path / BEST)
    study.resume(tmp_path)
    same(tmp_path, whole["evolution"])


def test_full_disk_is_told_and_loses_nothing(whole, source, dataset, tmp_path, monkeypatch):
    real = Store.append

    def append(self, trials, waiting):
        if trials[0].generation.first == 12:
            # SQLite lowers the limit to the size that the file has, and then says what it says on a full disk.
            self._storage.engine.dispose()
            event.listen(self._storage.engine, "connect", lambda c, _: c.execute("PRAGMA max_page_count = 1"))
        real(self, trials)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", append)
        with pytest.raises(OSError, match=r"disk is full.*all trials before are kept.*machgraph resume"):
            study.run(settings(source), dataset, tmp_path)
    assert len(read_records(tmp_path)) == 12
    study.resume(tmp_path)
    same(tmp_path, whole["evolution"])


def test_full_disk_is_told_when_the_best_machine_is_written(source, dataset, tmp_path, monkeypatch):
    def save(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(work, "save", save)
    with pytest.raises(OSError, match=r"No space left on device\); all generations before are kept.*machgraph resume"):
        study.run(settings(source), dataset, tmp_path)
    assert read_records(tmp_path) == []  # no record without its machine


def test_damaged_study_is_told(whole, tmp_path):
    (tmp_path / "run.json").write_text((whole["tpe"] / "run.json").read_text())
    (tmp_path / STUDY).write_text("not a database, by any means")
    with pytest.raises(OSError, match=r"^can't open .*study.db: file is not a database: put a copy back, or delete it"):
        study.resume(tmp_path)


@pytest.mark.parametrize("schema", ["v3.0.0.a", "v9.0.0.a"])
def test_tables_of_another_version_of_optuna_are_told(source, dataset, tmp_path, schema):
    folder = tmp_path / "my run"
    study.run(settings(source, trials=6), dataset, folder)
    with closing(sqlite3.connect(folder / STUDY)) as connection, connection:
        connection.execute(f"UPDATE alembic_version SET version_num = '{schema}'")
        connection.execute("UPDATE version_info SET library_version = '3.0.1'")
    with pytest.raises(ValueError, match=r"^can't use the tables of .*study\.db: .*optuna 3\.0\.1\): install") as told:
        study.resume(folder)
    assert str(told.value).endswith(f"optuna storage upgrade --storage 'sqlite:///{folder / STUDY}'")


def test_second_process_is_refused(source, dataset, tmp_path):
    study.run(settings(source, trials=6), dataset, tmp_path)
    with only_writer(tmp_path), pytest.raises(BlockingIOError, match="being searched by another process"):
        study.resume(tmp_path)
    study.resume(tmp_path)


# ---- limits ---------------------------------------------------------------------------------------------------------


def test_finished_search_can_be_extended(whole, source, dataset, tmp_path):
    study.run(settings(source, trials=12), dataset, tmp_path)
    result = study.resume(tmp_path, trials=15)
    assert read_settings(tmp_path).trials == len(result.records) == 27
    same(tmp_path, whole["evolution"])  # 12 is a whole number of generations


def footnote(result):
    return " ".join(footnotes(result.rows, result.facts.looks).plain.split())


def test_it_is_told_how_often_the_held_out_part_was_looked_at(source, dataset, tmp_path):
    ended = [study.run(settings(source, trials=6), dataset, tmp_path)]
    for more in ({}, {"trials": 6}, {}, {"trials": 3}):
        ended.append(study.resume(tmp_path, **more))
        assert read_facts(tmp_path) == ended[-1].facts
    assert [result.facts.looked for result in ended] == [(6,), (6,), (6, 12), (6, 12), (6, 12, 15)]
    assert "looked at for the winner and its rivals alone" in footnote(ended[1])
    assert "times" not in footnote(ended[1])
    assert footnote(ended[-1]).count("looked at 3 times: the search went on after its end.") == 1
    assert write(tmp_path).read_text().count("It was looked at 3 times: the search went on after its end.") == 1


@pytest.mark.parametrize("stage", ["training", "rivals"])
def test_only_ends_are_counted_and_each_before_it_is_seen(source, dataset, tmp_path, monkeypatch, stage):
    with pytest.raises(Cut):
        study.run(settings(source, trials=6), dataset, tmp_path, cut_at(stage, 0 if stage == "training" else 6))
    assert read_facts(tmp_path).looked == ()
    with monkeypatch.context() as patch:
        patch.setattr(driver, "write_leaderboard", killing(driver.write_leaderboard))
        with pytest.raises(Cut):
            study.resume(tmp_path)
    assert read_facts(tmp_path).looked == (6,)
    assert study.resume(tmp_path).facts.looks == ""


def killing(function):
    """The function, but the process is killed where it would tell of the held-out part."""

    def killed(folder, rows, facts):
        if any(row.test_score is not None for row in rows):
            raise Cut
        function(folder, rows, facts)

    return killed


def test_time_is_a_limit_that_counts_earlier_sittings(source, dataset, tmp_path):
    brief = settings(source, trials=None, seconds=1e-6)
    assert len(study.run(brief, dataset, tmp_path).records) == 6  # one generation is always tried
    assert len(study.resume(tmp_path).records) == 6
    with Store(tmp_path) as store:
        elapsed = store.read()[-1].generation.elapsed
    result = study.resume(tmp_path, seconds=5 * elapsed)
    assert len(result.records) > 6
    assert read_settings(tmp_path).seconds == pytest.approx(6 * elapsed)
    assert elapsed < result.elapsed


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_candidates_that_diverge_fail_and_are_kept(source, dataset, tmp_path):
    wild = replace(SPACE, learning_rates=(1e-2, 1e30))
    result = study.run(settings(source, "random", trials=12, space=wild), dataset, tmp_path)
    stored = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / STUDY}")
    states = [trial.state for trial in stored.trials]
    diverged = [record.number for record in result.records if not record.is_valid]
    assert 0 < len(diverged) < 12
    assert [number for number, state in enumerate(states) if state == TrialState.FAIL] == diverged
    assert result.rows[0].trial not in diverged


def test_duplicate_of_one_that_diverged_after_good_epochs_is_no_result_either(source, dataset, tmp_path, monkeypatch):
    def diverging(points, *arguments, **more):
        return [replace(outcome, status="diverged") for outcome in train(points, *arguments, **more)]

    monkeypatch.setattr(work, "train", diverging)
    small = replace(SPACE, max_blocks=0, learning_rates=(1e-2,))
    result = study.run(settings(source, "random", trials=6, population=3, space=small), dataset, tmp_path)
    assert {record.status for record in result.records} == {"diverged", "duplicate"}
    assert not any(record.is_valid for record in result.records)
    assert result.rows == ()


def test_search_in_which_everything_diverges_ends_without_a_winner(source, dataset, tmp_path):
    wild = replace(SPACE, max_blocks=0, learning_rates=(1e30,), weight_decays=(1e10,))
    nothing = settings(source, "random", trials=6, space=wild)
    result = study.run(nothing, dataset, tmp_path)
    assert {record.status for record in result.records} <= {"diverged", "duplicate"}
    assert result.rows == ()
    assert not (tmp_path / BEST).exists()


def test_an_extension_ends_with_the_time_of_the_whole_search(source, dataset, tmp_path, monkeypatch):
    first, real, seen = study.run(settings(source, trials=6), dataset, tmp_path / "run"), work.final, []

    def final(best, settings, *rest):
        seen.append(settings.seconds)
        return real(best, settings, *rest)

    monkeypatch.setattr(work, "final", final)
    study.resume(tmp_path / "run", seconds=0.1)
    assert seen == [pytest.approx(first.elapsed + 0.1)]


def test_a_loss_that_is_to_be_large_is_refused(source, dataset, tmp_path):
    with pytest.raises(ValueError, match="the loss is always made small"):
        study.run(replace(settings(source, trials=6), maximize=("loss",)), dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_folder_in_use_is_never_overwritten(source, dataset, tmp_path):
    study.run(settings(source, trials=6), dataset, tmp_path / "run")
    before = files(tmp_path / "run")
    with pytest.raises(ValueError, match=r"already holds a run.*machgraph resume.*--out"):
        study.run(settings(source, trials=6), dataset, tmp_path / "run")
    with pytest.raises(ValueError, match="is no run"):
        study.run(settings(source, trials=6), dataset, tmp_path)
    assert before == files(tmp_path / "run")


def test_changed_data_are_noticed(source, tmp_path):
    copy = tmp_path / "signs.csv"
    copy.write_text(Path(source).read_text())
    study.run(settings(str(copy), trials=6), load(copy, "sign"), tmp_path / "run")
    copy.write_text(copy.read_text().replace("0.", "1.", 1))
    with pytest.raises(ValueError, match="has changed since"):
        study.resume(tmp_path / "run")
