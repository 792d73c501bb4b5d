"""A Ray cluster of several nodes on this machine: the same search, whoever of it dies."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from elsewhere import add, die, process, refuse, refuse_oddly, sleep, unsendable
from test_optimize import SHAPE, SPACE, records, size
from test_study import Cut, cut_at, ledger, same, settings
from test_study import dataset as dataset
from test_study import quiet as quiet
from test_study import source as source
from test_workers import descendants, graphs, is_alive
from test_workers import searched as searched
from test_workers import wish as wish
from torch import nn

from search import study
from search.config import ON_GPUS, parse, to_toml, wished
from search.facts import facts_of
from search.graph.training import train_graphs
from search.isomorphism.canonical import canonical
from search.optimize import optimize
from search.parallel import cluster
from search.parallel.cluster import Cluster
from search.parallel.pool import ATTEMPTS
from search.parallel.workers import employed
from search.population import refit, train
from search.recipe import Recipe
from search.run import read_records, read_settings
from search.work import OnData

pytestmark = pytest.mark.scale
HERE = os.path.dirname(__file__)
PATH = os.pathsep.join([HERE, os.path.dirname(HERE), os.environ.get("PYTHONPATH", "")])
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def nodes():
    """A cluster of a head and two more nodes, of one CPU each."""
    utilities = pytest.importorskip("ray.cluster_utils", reason="needs ray: make test-scale")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATH)  # for its workers, who call functions of these modules
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        begun = utilities.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        for _ in range(2):
            begun.add_node(num_cpus=1)
        yield begun
        begun.shutdown()


@pytest.fixture(scope="module")
def two(nodes):
    made = Cluster(nodes.address, 2, 40)
    yield made
    made.close()


# ---- functions called elsewhere ----------------------------------------------------------------------------------


def test_nodes_call_functions_with_what_they_share(two):
    assert [two.submit(add, k).result() for k in range(4)] == [40, 41, 42, 43]
    waiting = [two.submit(add, k) for k in range(1000)]
    assert [one.result() for one in waiting] == [40 + k for k in range(1000)]
    pids = {two.submit(process).result() for _ in range(8)}
    assert os.getpid() not in pids


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


def test_a_deadly_function_is_given_up(two):
    assert two.lost == 0
    with pytest.raises(OSError, match=f"{ATTEMPTS} workers have died over the same candidates"):
        two.submit(die).result()
    assert two.lost == ATTEMPTS
    assert [two.submit(add, k).result() for k in range(4)] == [40, 41, 42, 43]


def test_closing_ends_what_nodes_do(nodes):
    made = Cluster(nodes.address, 2, 40)
    waiting = made.submit(sleep, 600)
    pid = made.submit(process).result()
    made.close()
    with pytest.raises(OSError, match="the workers were ended"):
        waiting.result(timeout=30)
    with pytest.raises(OSError, match="the workers were ended"):
        made.submit(add, 1).result(timeout=30)
    deadline = time.monotonic() + 60
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(pid)


def test_a_node_that_has_just_died_is_no_hindrance(nodes):
    """Ray lists it for some seconds more."""
    nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
    try:
        made = Cluster(nodes.address, 2, 40)
        assert [made.submit(add, k).result() for k in range(4)] == [40, 41, 42, 43]
        assert len(made._joined.nodes) == 2
        assert made.lost == 0
        made.close()
        assert cluster.size(nodes.address) == 2
    finally:
        nodes.add_node(num_cpus=1)


def test_a_cluster_of_this_machine_is_begun_and_ended(monkeypatch):
    pytest.importorskip("ray", reason="needs ray: make test-scale")
    monkeypatch.setenv("PYTHONPATH", PATH)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token into the home of who runs this
    assert cluster.size("local") >= 1
    made = Cluster("local", 1, 40)
    left = descendants(made._joined._process.pid)
    assert made.submit(add, 2).result() == 42
    made.close()
    deadline = time.monotonic() + 60
    while (left := [pid for pid in left if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


# ---- a search ----------------------------------------------------------------------------------------------------


class Slow(OnData):
    """Takes its time, so that who is busy can be seen."""

    def train(self, task, progress):
        if task.points:
            time.sleep(0.3)
        return super().train(task, progress)


def test_a_search_on_a_cluster_is_the_same_as_on_this_machine(nodes, wish, searched, dataset, tmp_path):
    study.run(wish, dataset, tmp_path / "run", ray=nodes.address)
    same(tmp_path / "run", searched)


@pytest.mark.parametrize("begun_there", [True, False])
def test_a_search_goes_on_elsewhere_as_if_it_had_not(nodes, wish, searched, dataset, tmp_path, begun_there):
    """On a cluster what was begun by processes of this machine, and the other way round."""
    places = [nodes.address if begun_there else None, None if begun_there else nodes.address]
    with pytest.raises(Cut):
        study.run(wish, dataset, tmp_path / "run", cut_at("storing", 16), ray=places[0])
    study.resume(tmp_path / "run", dataset=dataset, ray=places[1])
    same(tmp_path / "run", searched)


def busy(node):
    """Whether a worker of a node has a call."""
    for pid in descendants(node.all_processes["raylet"][0].process.pid):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"ray::generation" in file.read():
                return True
    return False


def test_a_node_that_is_killed_changes_nothing_that_is_found(nodes, wish, searched, dataset, tmp_path):
    lost, killed = [], []

    def on_event(event):
        lost.append(event.lost)
        last = killed[-1] if killed else 0
        if event.stage == "training" and event.done >= max(8, last + 1) and not event.lost:
            for node in list(nodes.worker_nodes):
                if busy(node):  # unless its call ends this very moment; then another is killed later
                    killed.append(event.done)
                    nodes.remove_node(node, allow_graceful=False)
                    break

    facts = facts_of(dataset, wish)
    try:
        with employed(Slow(wish, facts, dataset, tmp_path / "run"), nodes.address) as work:
            study.start(wish, facts, work, tmp_path / "run", on_event)
    finally:
        for _ in killed:
            nodes.add_node(num_cpus=1)
    same(tmp_path / "run", searched)
    assert killed
    assert lost[0] == 0
    assert lost[-1] >= 1


def machgraph(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": PATH}
    command = [sys.executable, "-m", "search.cli", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, text=True, stdout=-1, stderr=-1, **options)


def ended(running):
    said, complained = running.communicate(timeout=300)
    return running.returncode, said, " ".join(complained.split())


def test_a_command_that_is_killed_goes_on_as_if_it_had_not_been(nodes, source, tmp_path):
    few = settings(source, trials=32, workers=2, population=4, finalists=2)
    (tmp_path / "few.toml").write_text(to_toml(few))
    code, _, complained = ended(machgraph("search", "--config", tmp_path / "few.toml", "--out", tmp_path / "whole"))
    assert code == 0, complained
    begun = machgraph("search", "--config", tmp_path / "few.toml", "--out", tmp_path / "run", "--ray", nodes.address)
    said = []
    for line in begun.stderr:
        said.append(line)
        if line.startswith("8 trials"):
            break
    else:
        pytest.fail("".join(said))
    children = descendants(begun.pid)
    begun.kill()
    ended(begun)
    deadline = time.monotonic() + 60
    while (left := [pid for pid in children if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    assert 8 <= len(read_records(tmp_path / "run")) < 32
    code, said, complained = ended(machgraph("resume", tmp_path / "run", "--ray", nodes.address, "--json"))
    assert code == 0, complained
    assert json.loads(said)["trials"] == 32
    same(tmp_path / "run", tmp_path / "whole")


def test_there_are_as_many_workers_as_the_cluster_has_room_for(nodes, wish, dataset, tmp_path):
    assert cluster.size(nodes.address) == 3
    result = study.run(replace(wish, workers=None, trials=8), dataset, tmp_path / "run", ray=nodes.address)
    assert result.settings.workers == read_settings(tmp_path / "run").workers == 3
    with pytest.raises(ValueError, match="has no GPU on its 3 nodes: leave gpus out, or say by workers=N how many"):
        cluster.size(nodes.address, 0.5)


def test_a_graph_space_is_searched_on_a_cluster(nodes, wish, dataset, tmp_path):
    own = replace(wish, space=graphs(partial(nn.Linear, 3, 4), nn.ReLU, partial(nn.Linear, 4, 2)), trials=8)
    there = study.run(own, dataset, tmp_path / "there", ray=nodes.address)
    here = study.run(own, dataset, tmp_path / "here")
    assert [(r.key, r.loss) for r in there.records] == [(r.key, r.loss) for r in here.records]


# ---- what can go wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_a_cluster_that_is_lost_ends_the_search_in_a_sentence(wish, dataset, tmp_path, monkeypatch, part):
    """Its head, or the node of this process."""
    utilities = pytest.importorskip("ray.cluster_utils", reason="needs ray: make test-scale")
    monkeypatch.setenv("PYTHONPATH", PATH)
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "3")  # which Ray waits for it
    begun = utilities.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})

    def on_event(event):
        if event.stage == "storing" and event.done == 8:
            os.kill(begun.head_node.all_processes[part][0].process.pid, signal.SIGKILL)

    try:
        with pytest.raises(OSError, match=f"is gone; .*: machgraph resume .*run --ray {begun.address}$"):
            study.run(replace(wish, trials=4000), dataset, tmp_path / "run", on_event, ray=begun.address)
    finally:
        begun.shutdown()
    done = len(read_records(tmp_path / "run"))
    assert 8 <= done < 4000
    study.resume(tmp_path / "run", dataset=dataset, trials=4)
    assert len(read_records(tmp_path / "run")) == done + 4


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "nobody answers at 127.0.0.1:1"),
        ("ray://127.0.0.1:1", "nobody answers at ray://127.0.0.1:1"),
        ("nowhere", "got the address 'nowhere' of a cluster: give auto"),
    ],
)
def test_an_address_of_nobody_is_told_at_once(nodes, source, tmp_path, address, said):
    running = machgraph("search", source, "--target", "sign", "--ray", address, "--trials", "4", cwd=tmp_path)
    code, _, complained = ended(running)
    assert code == 2
    assert complained.startswith(f"machgraph: {said}")
    assert not (tmp_path / "runs").exists()


def test_ray_that_is_missing_is_told(wish, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'machgraph\[distributed\]'"):
        study.run(wish, dataset, tmp_path / "run", ray="auto")


def test_nodes_of_other_versions_are_refused(nodes, monkeypatch):
    versions = cluster._versions()
    monkeypatch.setattr(cluster, "_versions", lambda: {**versions, "torch": "0.1"})
    with pytest.raises(ValueError, match=rf"^node \S+ has torch {re.escape(versions['torch'])} and not 0.1"):
        Cluster(nodes.address, 1, 40)


def test_a_token_that_is_missing_is_told():
    exceptions = pytest.importorskip("ray.exceptions", reason="needs ray: make test-scale")
    error = ConnectionError("Failed to connect")
    error.__cause__ = exceptions.AuthenticationError("Authentication token is missing")
    assert "set RAY_AUTH_MODE=token" in cluster._reason(error)
    assert cluster._reason(ConnectionError("Failed.\nDetails")) == "Failed."


def test_what_nodes_can_not_read_is_told(nodes, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("class Odd: pass")
    monkeypatch.syspath_prepend(tmp_path)
    from only_here import Odd as Unknown

    with pytest.raises(ValueError, match=r"can't work for this search .*only_here.*must be installed there"):
        Cluster(nodes.address, 1, Unknown())


def test_a_search_without_workers_can_not_go_on_on_a_cluster(wish, dataset, tmp_path):
    study.run(replace(wish, workers=None, trials=8), dataset, tmp_path / "run")
    with pytest.raises(ValueError, match="begun without workers"):
        study.resume(tmp_path / "run", dataset=dataset, trials=4, ray="auto")


# ---- GPUs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_of_a_gpu_that_is_none_is_refused(source, share):
    with pytest.raises(ValueError, match=f"got gpus={share}: it is the share of a GPU"):
        settings(source, workers=2, gpus=share)


def test_gpus_without_a_cluster_are_refused(wish, dataset, tmp_path):
    with pytest.raises(ValueError, match=r"got gpus=0\.25 without a Ray cluster"):
        study.run(replace(wish, gpus=0.25), dataset, tmp_path / "run")


def test_populations_are_sized_to_the_device():
    assert wished(parse('data.source = "digits"')).population == 8
    assert wished(parse('data.source = "digits"\nsearch.gpus = 0.5')).population == ON_GPUS
    assert wished(parse('data.source = "digits"\nsearch.gpus = 1\nsearch.population = 5')).population == 5


class Shared:
    """A value that is told its GPU."""

    device = "cpu"


def device(shared):
    time.sleep(0.1)
    return shared.device


@pytest.fixture
def fake(nodes):
    """A node that says that it has GPUs."""
    node = nodes.add_node(num_cpus=1, num_gpus=2)
    yield node
    nodes.remove_node(node)


def test_workers_share_gpus(nodes, fake):
    assert cluster.size(nodes.address, 0.5) == 4
    four = Cluster(nodes.address, 4, Shared(), share=0.5)
    try:
        waiting = [four.submit(device) for _ in range(20)]
        assert {one.result() for one in waiting} == {"cuda:0", "cuda:1"}
    finally:
        four.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_worker_without_cuda_is_told(nodes, fake, wish, dataset, tmp_path):
    with pytest.raises(ValueError, match=r"got a GPU to train on, where torch \S+ finds none"):
        study.run(replace(wish, gpus=0.5), dataset, tmp_path / "run", ray=nodes.address)


def points_of(space, number):
    rng = np.random.default_rng(0)
    return [canonical(space.sample(rng)) for _ in range(number)]


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_machines_are_trained_on_a_device_and_come_back(dataset, wish, where):
    points, recipe = points_of(wish.space, 4), Recipe(epochs=3, rungs=())
    here = train(points, (dataset,), recipe, 0)
    there = train(points, (dataset,), recipe, 0, device=where)
    assert [o.loss for o in there] == pytest.approx([o.loss for o in here], rel=1e-2)
    machines = refit(points, dataset, recipe, [2] * 4, seed=0, seeds=[0] * 4, device=where)
    assert {p.device.type for m in [*machines, *(o.machine for o in there)] for p in m.parameters()} == {"cpu"}


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_networks_are_trained_on_a_device_with_numbers_of_their_own(dataset, where):
    space = graphs(partial(nn.Linear, 3, 4), partial(nn.Dropout, 0.5), partial(nn.Linear, 4, 2))
    points, recipe = points_of(space, 3), Recipe(epochs=3, rungs=())
    together = train_graphs(space, points, (dataset,), recipe, 0, device=where)
    torch.rand(3, device=where)  # moves the global numbers
    alone = [train_graphs(space, [point], (dataset,), recipe, 0, device=where)[0] for point in points]
    assert [o.loss for o in together] == [o.loss for o in alone]
    assert {p.device.type for o in together for p in o.machine.parameters()} == {"cpu"}


# ---- objectives of one's own -------------------------------------------------------------------------------------


def fragile(machine):
    """Fails for some."""
    if machine.parameter_count() % 3 == 0:
        raise ArithmeticError("a multiple of three")
    return size(machine)


def test_an_objective_is_tried_by_workers(nodes, tmp_path):
    options = {"trials": 24, "population": 2, "workers": 2, "catch": (ArithmeticError,)}
    for objective in (size, fragile):
        here, there = (tmp_path / f"{objective.__name__} {place}" for place in ("here", "there"))
        optimize(objective, SPACE, SHAPE, out=here, **options)
        optimize(objective, SPACE, SHAPE, out=there, ray=nodes.address, **options)
        assert records(here) == records(there)
        assert ledger(here) == ledger(there)
    assert {status for _, _, status, _ in records(here)} >= {"complete", "failed"}
    longer = optimize(fragile, SPACE, SHAPE, out=there, ray=nodes.address, resume=True, **{**options, "trials": 30})
    assert len(longer.records) == 30


def test_an_error_of_an_objective_ends_the_search_as_it_is(nodes, tmp_path):
    with pytest.raises(ArithmeticError, match="a multiple of three"):
        optimize(fragile, SPACE, SHAPE, trials=40, workers=2, ray=nodes.address, out=tmp_path / "run")


def test_an_objective_that_can_not_be_sent_is_refused(tmp_path):
    with pytest.raises(ValueError, match="can't be sent to its workers"):
        optimize(lambda machine: 1.0, SPACE, SHAPE, trials=4, workers=2, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
