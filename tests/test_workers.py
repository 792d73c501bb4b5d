"""Workers: the same search whoever is faster, dies or is interrupted."""

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from threading import Thread

import numpy as np
import pytest
from elsewhere import add, die, process, refuse, refuse_oddly, sleep, unsendable
from test_session import machgraph
from test_study import RECIPE, Cut, cut_at, ledger, same, settings
from test_study import dataset as dataset
from test_study import quiet as quiet
from test_study import source as source
from torch import nn

from search import Candidate, GraphSpace, report, study
from search.facts import facts_of
from search.parallel.pool import ATTEMPTS
from search.parallel.processes import Workers
from search.parallel.workers import QUEUED, OnWorkers, employed
from search.run import read_records
from search.storage.store import Store
from search.work import OnData, Task

TRIALS = 40


@pytest.fixture(scope="module")
def wish(source):
    return settings(source, trials=TRIALS, workers=2, population=4)


@pytest.fixture(scope="module")
def searched(wish, dataset, tmp_path_factory):
    """A search by two workers that nothing interrupted."""
    folder = tmp_path_factory.mktemp("workers") / "run"
    study.run(wish, dataset, folder)
    return folder


class Alone(OnData):
    """Trains in this process what workers would, when it is waited for."""

    ahead = 2 * QUEUED - 1


@pytest.fixture
def two():
    made = Workers(2, 40)
    yield made
    made.close()


# ---- functions called elsewhere ----------------------------------------------------------------------------------


def test_workers_call_functions_with_what_they_share(two):
    assert [two.submit(add, k).result() for k in range(4)] == [40, 41, 42, 43]
    pids = {two.submit(process).result() for _ in range(8)}
    assert os.getpid() not in pids
    assert len(pids) <= 2
    assert two.lost == 0


def test_an_error_of_a_function_is_raised_here_and_kills_nobody(two):
    with pytest.raises(FileNotFoundError, match="no such thing") as caught:
        two.submit(refuse).result()
    assert any("in refuse" in note for note in caught.value.__notes__)
    for function in (unsendable, refuse_oddly):
        with pytest.raises(RuntimeError, match="a worker can't send"):
            two.submit(function).result()
    with pytest.raises(Exception, match="pickle"):
        two.submit(lambda shared: None).result()
    assert two.submit(add, 2).result() == 42
    assert two.lost == 0


def test_a_worker_that_dies_is_replaced_and_a_deadly_function_given_up(two):
    with pytest.raises(OSError, match=f"{ATTEMPTS} workers have died over the same candidates"):
        two.submit(die).result()
    assert two.lost == ATTEMPTS
    assert [two.submit(add, k).result() for k in range(4)] == [40, 41, 42, 43]


def test_a_script_without_a_guard_is_told(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from search.parallel.processes import Workers\nWorkers(1, 40)\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert "OSError: a worker could not begin" in done.stderr
    assert "if __name__ == '__main__'" in done.stderr


def test_closing_ends_what_workers_do(two):
    waiting = two.submit(sleep, 600)
    time.sleep(0.2)
    two.close()
    with pytest.raises(OSError, match="the workers were ended"):
        waiting.result(timeout=30)


# ---- a search ----------------------------------------------------------------------------------------------------


def test_a_search_by_workers_is_the_same_in_one_process(wish, searched, dataset, tmp_path):
    """Proposals depend on how many generations are in training, on no worker's speed."""
    folder = tmp_path / "run"
    facts = facts_of(dataset, wish)
    study.start(wish, facts, Alone(wish, facts, dataset, folder), folder, lambda event: None)
    same(folder, searched)
    assert len(read_records(folder)) == TRIALS


def test_workers_find_what_one_process_finds_as_long_as_nothing_was_known(wish, searched, dataset, tmp_path):
    study.run(replace(wish, workers=None), dataset, tmp_path / "run")
    begun = (1 + 2 * QUEUED) * wish.population  # before any result is known here, and there
    first = [[(r.key, r.loss) for r in read_records(run)[: wish.population]] for run in (searched, tmp_path / "run")]
    assert first[0] == first[1]
    assert begun < TRIALS
    assert ledger(searched) != ledger(tmp_path / "run")


@pytest.mark.parametrize("done", [0, 4, 16, 36])
def test_a_search_that_is_cut_off_goes_on_as_if_it_had_not_been(wish, searched, dataset, tmp_path, done):
    with pytest.raises(Cut):
        study.run(wish, dataset, tmp_path / "run", cut_at("storing" if done else "proposing", done))
    study.resume(tmp_path / "run", dataset=dataset)
    same(tmp_path / "run", searched)


@pytest.mark.parametrize("strategy", ["tpe", "random"])
def test_a_search_goes_on_as_if_it_had_not_been_cut_off_with_every_strategy(wish, dataset, tmp_path, strategy):
    own = replace(wish, strategy=strategy, trials=24)
    study.run(own, dataset, tmp_path / "whole")
    with pytest.raises(Cut):
        study.run(own, dataset, tmp_path / "cut", cut_at("storing", 12))
    study.resume(tmp_path / "cut", dataset=dataset)
    same(tmp_path / "cut", tmp_path / "whole")


def test_a_search_may_end_with_what_is_in_training(wish, dataset, tmp_path):
    """A limit that leaves the last generation smaller, and more trials later."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    study.run(replace(wish, trials=22), dataset, whole)
    assert len(read_records(whole)) == 22
    study.run(replace(wish, trials=12), dataset, cut)
    result = study.resume(cut, dataset=dataset, trials=10)
    assert [record.number for record in result.records] == list(range(22))
    assert [r.key for r in result.records[:12]] == [r.key for r in read_records(whole)[:12]]


def test_a_worker_that_is_killed_changes_nothing_but_is_told(wish, searched, dataset, tmp_path):
    lost = []

    def on_event(event):
        lost.append(event.lost)
        if event.stage == "proposing" and event.done == 8:
            for worker in list(employees[0]._pool._all)[:1]:
                os.kill(worker._process.pid, signal.SIGKILL)

    employees = []
    facts = facts_of(dataset, wish)
    with employed(OnData(wish, facts, dataset, tmp_path / "run")) as work:
        employees.append(work)
        study.start(wish, facts, work, tmp_path / "run", on_event)
    same(tmp_path / "run", searched)
    assert lost[0] == 0
    assert lost[-1] == 1


def test_workers_end_with_a_search_that_is_killed(source, tmp_path):
    (tmp_path / "wish").write_bytes(pickle.dumps(settings(source, trials=100000, workers=2)))
    script = tmp_path / "script.py"
    script.write_text(
        "if __name__ == '__main__':\n"
        "    import pickle\n"
        "    from search import study\n"
        "    from search.loading import dataset_of\n"
        "    wish = pickle.load(open('wish', 'rb'))\n"
        "    study.run(wish, dataset_of(wish), 'run', lambda event: print(event.done, flush=True))\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, cwd=tmp_path, text=True) as running:
        for line in running.stdout:
            if int(line) >= 6:
                break
        children = descendants(running.pid)
        running.kill()
    assert len(children) >= 3  # two workers and the process that they are forked from
    deadline = time.monotonic() + 60
    while (left := [pid for pid in children if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def descendants(pid):
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                parents[int(name)] = int(file.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found, last = set(), {pid}
    while last:
        last = {child for child, parent in parents.items() if parent in last} - found
        found |= last
    return found


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def graphs(*factories):
    candidates = [
        Candidate("stem", factories[0], ("x",), ("h",)),
        Candidate("bend", factories[1], ("h",), ("h",), copies=2),
        Candidate("head", factories[2], ("h",), ("y",), required=True),
    ]
    return GraphSpace(tuple(candidates), shapes={"x": (3,), "h": (4,), "y": (2,)}, batch_sizes=(16,))


def test_a_graph_space_is_searched_by_workers(wish, dataset, tmp_path):
    space = graphs(partial(nn.Linear, 3, 4), nn.ReLU, partial(nn.Linear, 4, 2))
    own = replace(wish, space=space, trials=8)
    result = study.run(own, dataset, tmp_path / "workers")
    alone = study.run(replace(own, workers=None), dataset, tmp_path / "alone")
    found = {record.key: record.loss for record in alone.records if record.duplicate_of is None}
    both = [record for record in result.records if record.key in found and record.is_valid]
    assert both
    assert [record.loss for record in both] == [found[record.key] for record in both]


def test_a_graph_space_that_can_not_be_sent_is_refused(wish, dataset, tmp_path):
    space = graphs(lambda: nn.Linear(3, 4), nn.ReLU, partial(nn.Linear, 4, 2))
    with pytest.raises(ValueError, match="can't be sent to its workers"):
        study.run(replace(wish, space=space), dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kept", [0, 4], ids=["before", "after"])
def test_a_search_may_be_cut_off_twice_while_it_stores(wish, searched, dataset, tmp_path, kept):
    append = Store.append

    def cut(first, kept):
        def some(self, trials, waiting):
            if trials[0].generation.first == first:
                append(self, trials[:kept])
                raise Cut
            append(self, trials)

        return some

    begin, go_on = partial(study.run, wish, dataset), partial(study.resume, dataset=dataset)
    for at, search in ((8, begin), (16, go_on)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "append", cut(at, kept))
            with pytest.raises(Cut):
                search(tmp_path / "run")
    study.resume(tmp_path / "run", dataset=dataset)
    same(tmp_path / "run", searched)


def test_a_limit_of_time_is_kept(wish, dataset, tmp_path):
    """However many generations were proposed ahead; after it nothing is."""
    result = study.run(replace(wish, trials=None, seconds=2.0), dataset, tmp_path / "run")
    assert result.elapsed < 20
    assert len(result.records) >= 2 * QUEUED * wish.population
    assert len(result.records) % wish.population == 0


@pytest.mark.parametrize("objectives", [("parameters",), ("parameters", "loss")])
def test_the_best_machine_comes_back_whatever_is_made_small(wish, dataset, tmp_path, objectives):
    own = replace(wish, trials=12, objectives=objectives)
    study.run(own, dataset, tmp_path / "workers")
    facts = facts_of(dataset, own)
    study.start(own, facts, Alone(own, facts, dataset, tmp_path / "one"), tmp_path / "one", lambda event: None)
    same(tmp_path / "workers", tmp_path / "one")


@pytest.mark.parametrize("change", [{"strategy": "nsga2"}, {"recipe": replace(RECIPE, inherit=True)}])
def test_what_waits_for_all_trials_before_it_is_refused(source, change):
    with pytest.raises(ValueError, match=r"^got (inherit|the strategy 'nsga2') with workers: it waits for all trials"):
        settings(source, workers=2, **change)


@pytest.mark.parametrize("number", [0, -1])
def test_a_number_of_workers_that_is_none_is_refused(source, number):
    with pytest.raises(ValueError, match=f"got workers={number}: it must be at least 1"):
        settings(source, workers=number)


def test_waiting_tells_how_many_are_in_training(wish, dataset, tmp_path):
    facts = facts_of(dataset, wish)
    own = OnData(wish, facts, dataset, tmp_path)
    work = OnWorkers(own, Workers(1, own), 1)
    told = []
    try:
        future = work._pool.submit(sleep, 0.5)
        point = wish.space.sample(np.random.default_rng(0))
        pending = work.submit(Task([point], [()], wish.recipe, [None]))
        waiter = Thread(target=future.result)
        waiter.start()
        (outcome,) = pending(lambda epoch, running: told.append((epoch, running)))
        waiter.join()
    finally:
        work.close()
    assert outcome.epochs > 0
    assert set(told) == {(0, 1)}


def test_the_command_line_takes_workers(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "write", lambda folder: None)
    (tmp_path / "few.toml").write_text("[search]\nfinalists = 1\nseeds = 1\n[recipe]\nepochs = 8\nrungs = [2]\n")
    common = ("search", source, "--target", "sign", "--trials", 12, "--config", tmp_path / "few.toml")
    code, _, err = machgraph(capsys, *common, "--workers", 2, "--out", tmp_path / "run")
    assert code == 0, err
    assert "8 candidates at a time by each of 2 workers" in " ".join(err.split())
    assert len(read_records(tmp_path / "run")) == 12
    code, _, err = machgraph(capsys, *common, "--workers", 0, "--out", tmp_path / "none")
    assert code == 2
    assert "got workers=0: it must be at least 1" in " ".join(err.split())
    assert not (tmp_path / "none").exists()
