"""A study in PostgreSQL: the same search as in a file, whoever stops the database, kills the driver or moves it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread, Timer

import numpy as np
import pytest
from sqlalchemy import create_engine, text
from test_study import dataset, ledger, quiet, same, settings, source

from search import ArchitectureSearchClassifier, study
from search.dashboard import snapshot
from search.run import RUN, STUDY, read_records
from search.storage import store
from search.storage.connection import held
from search.storage.database import VARIABLE, database, place_of
from search.storage.store import Store, load_study

__all__ = ["dataset", "quiet", "source"]  # fixtures

pytest.importorskip("psycopg", reason="needs psycopg: make test-scale")
BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
if BIN is None:
    pytest.skip("needs PostgreSQL's server, as of Debian: make test-scale", allow_module_level=True)

pytestmark = pytest.mark.scale
PASSWORD = "s3cret-word"


class Server:
    """A database server of the tests' own."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        if os.geteuid() == 0:  # as whom it refuses to run
            shutil.chown(folder, "postgres")
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self("initdb", "-D", folder / "data", "--auth=scram-sha-256", "-U", "ada", f"--pwfile={secret}")
        self.start()

    def __call__(self, program, *arguments):
        command = [BIN / program, *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        with (self.folder / "said").open("a") as said:  # and no pipe, which the server would keep open
            done = subprocess.run(command, stdout=said, stderr=said, cwd=self.folder)
        assert done.returncode == 0, (self.folder / "said").read_text()

    def start(self):
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = self.folder / "log"
        self("pg_ctl", "-w", "-D", self.folder / "data", "-o", options, "-l", log, "start")
        self.is_up = True

    def stop(self):
        if self.is_up:
            self("pg_ctl", "-w", "-D", self.folder / "data", "-m", "immediate", "stop")
        self.is_up = False

    @property
    def url(self):
        return f"postgresql://ada:{PASSWORD}@127.0.0.1:{self.port}/postgres"


@pytest.fixture(scope="module")
def server():
    with TemporaryDirectory() as folder:  # not of pytest's, which other users can't read
        found = Server(Path(folder))
        yield found
        found.stop()


@pytest.fixture
def named(server, monkeypatch):
    """The environment names the database."""
    monkeypatch.setenv(VARIABLE, server.url)


@pytest.fixture(scope="module")
def whole(source, dataset, tmp_path_factory):
    """The same search with its study in a file."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    study.run(settings(source), dataset, folder)
    return folder


def texts(folder):
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


# ---- the same search -------------------------------------------------------------------------------------------------


def test_a_search_is_the_same_as_with_a_file(named, whole, source, dataset, tmp_path):
    folder = tmp_path / "same"
    study.run(settings(source), dataset, folder)
    same(folder, whole)
    assert not (folder / STUDY).exists()
    assert PASSWORD not in texts(folder)
    assert json.loads((folder / RUN).read_text())["study"]["database"].startswith("postgresql://ada:***@127.0.0.1:")
    assert [one.record for one in snapshot(folder)] == read_records(folder)
    assert [trial.value for trial in load_study(folder).trials] == [record.loss for record in read_records(whole)]


def test_strategies_of_optuna_go_on_from_there(named, source, dataset, tmp_path):
    folder = tmp_path / "tpe"
    study.run(settings(source, "tpe", trials=12), dataset, folder)
    study.resume(folder, dataset=dataset, trials=12)
    study.run(settings(source, "tpe", trials=24), dataset, tmp_path / "tpe at once")
    same(folder, tmp_path / "tpe at once")


def test_the_database_may_be_stopped_and_started_in_the_middle(
    server, named, whole, source, dataset, tmp_path, monkeypatch
):
    """Twice: before trials are written, and between a commit and its acknowledgement."""
    monkeypatch.setattr(store, "PAUSE", 0.2)
    folder, stages, add = tmp_path / "stopped", [], Store._add

    def on_event(event):
        if event.stage == "training" and event.done == 12 and "waiting" not in stages:
            server.stop()
        if event.stage == "waiting" and not server.is_up:
            server.start()
        stages.append(event.stage)

    def lost(self, trials):
        add(self, trials)
        if trials[0].record.number == 18 and "lost" not in stages:
            stages.append("lost")
            server.stop()
            add(self, trials)  # as if the answer had not come

    monkeypatch.setattr(Store, "_add", lost)
    study.run(settings(source), dataset, folder, on_event)
    assert stages.count("waiting") >= 2
    same(folder, whole)


def test_a_commit_that_is_still_being_made_is_waited_for_and_not_made_again(
    named, whole, source, dataset, tmp_path, monkeypatch
):
    """Of a connection that was cut: here another one has the rows, and commits them a second later."""
    folder, add, insert, late = tmp_path / "late", Store._add, Store._insert, []

    def meanwhile(self, trials):
        if trials[0].record.number == 18 and not late:
            there = Event()

            def other():
                with Store(folder) as one:
                    one._insert = lambda *rows: (insert(one, *rows), there.set(), time.sleep(1))
                    add(one, trials)

            late.append(Thread(target=other))
            late[0].start()
            assert there.wait(10)
        add(self, trials)

    monkeypatch.setattr(Store, "_add", meanwhile)
    study.run(settings(source), dataset, folder)
    late[0].join()
    same(folder, whole)


def test_a_database_that_was_put_back_is_told_and_the_search_goes_on_from_there(
    server, named, whole, source, dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(store, "PAUSE", 0.2)
    folder = tmp_path / "back"

    def put_back(place):
        engine = create_engine(place.url)
        numbers = "(SELECT trial_id FROM trials JOIN studies USING (study_id) "
        numbers += f"WHERE study_name = '{place.study}' AND number >= 12)"
        with engine.begin() as connection:
            for table in ("trial_user_attributes", "trial_values", "trials"):
                connection.execute(text(f"DELETE FROM {table} WHERE trial_id IN {numbers}"))
        engine.dispose()

    def on_event(event):
        if event.stage == "training" and event.done == 18 and server.is_up:
            put_back(place_of(folder))
            server.stop()
        if event.stage == "waiting":
            server.start()

    with pytest.raises(OSError, match=r"has lost the trials from 12 on, .*: machgraph resume .*back"):
        study.run(settings(source), dataset, folder, on_event)
    assert len(read_records(folder)) == 12
    study.resume(folder, dataset=dataset)
    same(folder, whole)


def test_the_lock_of_a_connection_that_was_cut_is_waited_for(
    server, named, whole, source, dataset, tmp_path, monkeypatch
):
    """The database holds it until it notices: here another connection does, for a second."""
    monkeypatch.setattr(store, "PAUSE", 0.2)
    folder = tmp_path / "cut"

    def on_event(event):
        if event.stage == "training" and event.done == 12:
            server.stop()
        if event.stage == "waiting":
            server.start()
            connection = held(place_of(folder))
            Timer(1.0, lambda: (connection.close(), connection.engine.dispose())).start()

    study.run(settings(source), dataset, folder, on_event)
    same(folder, whole)


def test_a_database_that_stays_away_ends_the_search_with_all_that_it_has(
    server, named, whole, source, dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(store, "PAUSE", 0.1)
    monkeypatch.setattr(store, "PATIENCE", 0.3)
    folder = tmp_path / "away"

    def on_event(event):
        if event.stage == "training" and event.done == 12:
            server.stop()

    with pytest.raises(OSError, match=r"^can't write postgresql://ada:\*\*\*@.*all trials before are kept.*resume"):
        study.run(settings(source), dataset, folder, on_event)
    server.start()
    study.resume(folder, dataset=dataset)
    same(folder, whole)


# ---- one writer, anywhere -------------------------------------------------------------------------------------------


def machgraph(*arguments, cwd):
    command = [sys.executable, "-m", "search.cli", *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_driver_that_is_killed_goes_on_from_an_empty_folder_elsewhere(named, source, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    wish = ("--target", "sign", "--trials", 24, "--population", 4, "--out", "moved")
    killed = machgraph("search", source, *wish, cwd=here)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (
        (here / "moved" / RUN).exists() and (here / "moved" / "ledger.csv").exists()
    ):
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    done = machgraph("resume", "moved", cwd=there)
    said, told = done.communicate(timeout=300)
    assert done.returncode == 0, told
    assert len(read_records(there / "moved")) == 24
    assert PASSWORD not in said + told + texts(there)
    whole = machgraph("search", source, *wish[:-1], "at-once", cwd=there)
    whole.communicate(timeout=300)
    assert ledger(there / "moved") == ledger(there / "at-once")


def test_a_second_driver_is_refused_wherever_it_is(named, source, dataset, tmp_path):
    folder, other = tmp_path / "one", tmp_path / "elsewhere" / "one"
    study.run(settings(source, trials=6), dataset, folder)
    with Store(folder) as held:
        held.hold()
        with pytest.raises(BlockingIOError, match=r"'one' in postgresql://ada:\*\*\*@.* is being searched by another"):
            study.resume(other, dataset=dataset)
    study.resume(other, dataset=dataset, trials=6)
    assert len(read_records(folder)) == 12


def test_a_study_of_that_name_is_not_mixed_with_another(named, source, dataset, tmp_path):
    study.run(settings(source, trials=6), dataset, tmp_path / "taken")
    with pytest.raises(ValueError, match=r"has a study 'taken' already: go on with it by machgraph resume"):
        study.run(settings(source, trials=6), dataset, tmp_path / "another" / "taken")
    assert not (tmp_path / "another").exists()


# ---- addresses -------------------------------------------------------------------------------------------------------


def test_a_run_says_where_its_study_is(server, named, source, dataset, tmp_path, monkeypatch):
    study.run(settings(source, trials=6), dataset, tmp_path / "told")
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ValueError, match=rf"is in the database postgresql://ada:\*\*\*@.*: set {VARIABLE} to"):
        study.resume(tmp_path / "told", dataset=dataset)
    monkeypatch.setenv(VARIABLE, server.url.replace("/postgres", "/template1"))
    with pytest.raises(FileNotFoundError, match=r"there is no study 'told' in postgresql://.*/template1: put it back"):
        read_records(tmp_path / "told")


def test_an_address_may_be_in_a_file(server, tmp_path, monkeypatch):
    (tmp_path / "address").write_text(server.url + "\n")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "address"))
    assert database().password == PASSWORD


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nowhere.txt", "neither an address nor a file"),
        ("mysql://ada:s3cret-word@host/db", "holds no address of PostgreSQL's"),
        ("postgresql://ada:s3cret-word@host:port/db", "holds no address of PostgreSQL's"),
        ("postgresql://ada:s3cret-word@127.0.0.1:1/db", "can't open postgresql://ada:***@127.0.0.1:1/db"),
        ("postgresql://ada:s3cret-word@127.0.0.1:1/db?password=s3cret-word", "can't open postgresql://ada:***@"),
    ],
)
def test_what_is_no_database_is_told_without_its_password(source, tmp_path, address, said):
    command = [sys.executable, "-m", "search.cli", "search", source, "--target", "sign", "--trials", "4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, VARIABLE: address})
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert PASSWORD not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_estimator_without_a_folder_leaves_the_database_alone(monkeypatch):
    """Its search is over with it."""
    monkeypatch.setenv(VARIABLE, "postgresql://ada:nobody@127.0.0.1:1/db")
    x = np.random.default_rng(0).normal(size=(40, 3))
    model = ArchitectureSearchClassifier(n_trials=4, population=4, epochs=2, folds=2, finalists=1, seeds=1)
    model.fit(x, (x[:, 0] > 0).astype(int))
    assert len(model.study_.trials) == 4
