"""A run in optuna-dashboard: what it says over HTTP, and that the run's own file stays as it is."""

import hashlib
import json
import math
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing
from datetime import datetime
from pathlib import Path

import numpy as np
import optuna
import pytest

from search import dashboard
from search.dashboard import HOST, readable, serving
from search.data import load
from search.defaults import default_recipe
from search.facts import facts_of
from search.isomorphism.canonical import canonical
from search.record import Record, Settings
from search.run import STUDY, read_facts, read_settings, write_run
from search.space import Space
from search.storage.store import Store
from search.storage.stored_trial import Generation, Stored

pytest.importorskip("optuna_dashboard")
ROOT = Path(__file__).parents[1]
SPACE = Space(max_blocks=2, widths=(4, 8))
TRIALS = 7


@pytest.fixture(autouse=True, scope="module")
def quiet():
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(verbosity)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two objectives, of which one is to be large; its last trial has diverged."""
    folder, dataset, rng = tmp_path_factory.mktemp("runs") / "cells", load("breast_cancer"), np.random.default_rng(0)
    folder.mkdir()
    recipe = default_recipe(len(dataset.train))
    settings = Settings(
        "breast_cancer", None, None, 0, "random", TRIALS, None, 4, SPACE, recipe,
        objectives=("loss", "gain"), maximize=("gain",),
    )  # fmt: skip
    write_run(folder, settings, facts_of(dataset, settings))
    with Store(folder, objectives=2) as store:
        for number in range(TRIALS):
            point = SPACE.sample(rng)
            loss, last = 1 / (1 + number), number == TRIALS - 1
            record = Record(
                number, f"{number}", point, canonical(point), "diverged" if last else "complete", 3,
                math.nan if last else loss, math.nan if last else 0.5, 2.0, None,
                (0.9, math.nan) if last else (0.9, 0.8, loss), {} if last else {"gain": 10.0 + number},
            )  # fmt: skip
            values = None if last else record.values(settings.objectives, settings.maximize)
            store.append([Stored(record, Generation(number, 1, 1.0), (), values)])
    return folder


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_trials_are_read_in_words_and_the_run_stays_as_it_is(run):
    before = digest(run)
    study, _ = readable(run)
    assert digest(run) == before
    assert study.study_name == "cells"
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert study.metric_names == ["loss", "gain"]
    trials = study.get_trials()
    assert [trial.values for trial in trials] == [[1 / (1 + n), 10.0 + n] for n in range(TRIALS - 1)] + [None]
    assert [trial.number for trial in study.best_trials] == [TRIALS - 2]  # it has the least loss and the largest gain
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * (TRIALS - 1) + ["FAIL"]
    assert trials[-1].intermediate_values == {1: 0.9}  # what is not a number is no point of a curve
    with Store(run) as store:
        records = [stored.record for stored in store.read()]
    for trial, record in zip(trials, records, strict=True):
        assert trial.params["number of hidden blocks"] == record.canonical.blocks
        assert trial.params["learning rate"] == record.canonical.learning_rate
        assert trial.user_attrs["status"] == record.status
        assert (trial.datetime_complete - trial.datetime_start).total_seconds() == record.seconds


def test_times_are_those_of_the_clock_wherever_it_stands(run, tmp_path, monkeypatch):
    with Store(run) as store:
        stored = store.read()
    write_run(tmp_path, read_settings(run), read_facts(run))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        with Store(tmp_path, 2) as store:
            before = datetime.now()
            store.append(stored)
            assert before <= store.read()[-1].finished <= datetime.now()
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.fixture(scope="module")
def url(run):
    with serving(run, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()
        thread.join()


def asked(url, **how):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **how), timeout=60) as answer:
            return answer.status, answer.headers.get_content_type(), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get_content_type(), error.read()


def test_the_page_and_the_trials_are_served(url):
    status, kind, page = asked(f"{url}/dashboard")
    assert (status, kind) == (200, "text/html")
    assert b"<script" in page
    _, _, answer = asked(f"{url}/api/studies/0")
    found = json.loads(answer)
    assert (found["name"], found["directions"]) == ("cells", ["minimize", "maximize"])
    assert len(found["trials"]) == TRIALS


def test_each_trial_has_a_picture_that_no_script_can_be_in(url):
    _, _, answer = asked(f"{url}/api/studies/0")
    artifacts = [trial["artifacts"] for trial in json.loads(answer)["trials"]]
    assert [len(some) for some in artifacts] == [1] * TRIALS
    assert {(one["filename"], one["mimetype"]) for (one,) in artifacts} == {("architecture.png", "image/png")}
    status, kind, picture = asked(f"{url}/artifacts/0/2/{artifacts[2][0]['artifact_id']}")
    assert (status, kind, picture[:8]) == (200, "image/png", b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    "how",
    [
        {"headers": {"Host": "elsewhere.example"}},  # a name of another site that leads to this machine
        {"method": "DELETE"},
        {"method": "POST", "data": b"{}", "headers": {"Content-Type": "application/json"}},
    ],
)
def test_what_is_not_looking_is_refused(url, how):
    assert asked(f"{url}/api/studies/0", **how)[0] == 403
    assert asked(f"{url}/api/studies/0")[0] == 200


def test_it_listens_on_this_machine_alone(run):
    with serving(run, 0) as server:
        assert server.server_address[0] == "127.0.0.1"


COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have left ignored
from search.cli import main
main(sys.argv[1:])
"""


def test_the_command_prints_the_address_and_ends_on_ctrl_c(run):
    command = [sys.executable, "-c", COMMAND, "dashboard", run, "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            assert asked(f"{address}dashboard")[0] == 200, process.stderr.read()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out.strip(), err) == (0, "", "")


def test_what_is_refused(run, tmp_path, monkeypatch):
    with closing(socket.socket()) as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(OSError, match=rf"can't listen on port {port} \(.*\): give another with --port"),
            serving(run, port),
        ):
            pass
    with pytest.raises(ValueError, match="got port 70000: give one from 1 to 65535"), serving(run, 70000):
        pass
    with pytest.raises(FileNotFoundError, match="no run"), serving(tmp_path, 0):
        pass
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "run.json").write_bytes((run / "run.json").read_bytes())
    (damaged / STUDY).write_bytes(b"no database, but long enough to be one" * 50)
    with pytest.raises(OSError, match=r"can't read .*study\.db: file is not a database"), serving(damaged, 0):
        pass
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'machgraph\[dashboard\]'"), serving(run, 0):
        pass
