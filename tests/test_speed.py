"""The speed table: the contenders do the same work, the operations are counted right, and every row is there."""

import json
from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.nn import functional as F

import machgraph as mg
from experiments import first_step, peers, speed, speed_rows, speed_search, speed_solve, speed_steps, table1
from experiments.results import FOLDER
from experiments.speed_rows import Effort, Target
from experiments.timing import Contender, Quartiles, alternate, threads
from machgraph import compiled
from search.data import load
from search.recipe import Recipe
from search.space import Space
from search.training.machine import build

TINY = Effort(rounds=2, seconds=0.0, candidates=3, batches=2, searches=1, epochs=1, architectures=2, starts=1)
SPACE = Space(max_blocks=3, widths=(4, 8))
ELSEWHERE = "cpu:0"  # which torch takes for the CPU, and the table for another device than "cpu"


@pytest.fixture
def uncompiled(monkeypatch):
    """Populations are stacked, as on a GPU."""
    monkeypatch.setattr(compiled, "available", lambda: False)


@pytest.fixture(scope="module")
def dataset():
    return load("digits", seed=0)


def job(dataset, number=3, epochs=2):
    points = tuple(speed_search.distinct(SPACE, number, seed=1))
    initial = tuple(peers.state(build(point, dataset.shape, seed=0)) for point in points)
    return peers.Job(points, initial, SPACE, dataset, Recipe(epochs=epochs, rungs=(), patience=None), seed=0)


def printed(result):
    shown = StringIO()
    for table in speed.tables(result):
        Console(width=speed.WIDTH, file=shown).print(table)
    return shown.getvalue()


# ---- the contenders do the same work -----------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [None, 3])
def test_the_network_is_the_machine(kernel):
    mask = [[0] * 4, [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]]
    options = {"activation": ("identity", "tanh", "gelu", "identity"), "shortcuts": np.array(mask, dtype=bool)}
    machine = mg.ConvMachine((3, 4, 2, 5), kernel, **options) if kernel else mg.DenseMachine((3, 4, 2, 5), **options)
    network = peers.network(machine, ("tanh", "gelu"), kernel)
    x = torch.randn(6, 3, *[7] * bool(kernel))
    torch.testing.assert_close(network(x), machine.output(machine(x)))
    assert sum(p.numel() for p in network.parameters()) == machine.parameter_count() - 3  # the input's bias


def test_a_search_gives_the_losses_of_plain_torch(dataset):
    this = job(dataset)
    _, plain = peers.search(this)
    ours = speed_search.trained(this.points, dataset, this.recipe, "cpu", 2)
    np.testing.assert_allclose(ours, plain, rtol=1e-4)
    assert len(set(plain)) == len(plain)


def test_so_does_a_stacked_population(dataset, uncompiled):
    this = job(dataset)
    ours = speed_search.trained(this.points, dataset, this.recipe, ELSEWHERE, 2)
    np.testing.assert_allclose(ours, peers.search(this)[1], rtol=1e-4)


def test_processes_put_their_parts_together(dataset):
    this = job(dataset, number=3, epochs=1)
    with peers.processes(2) as two:
        rate, losses = two.search(this)
    assert rate > 0
    np.testing.assert_allclose(losses, peers.search(this)[1], rtol=1e-5)


def test_stacked_networks_step_as_each_alone():
    generator = torch.Generator().manual_seed(0)
    networks = [peers.network(speed_steps.dense((4, 3, 3, 2), generator), ("relu", "relu")) for _ in range(3)]
    settings = {"learning_rate": 0.01, "weight_decay": 0.1}
    stacked = peers.Stacked(networks, smoothing=0.05, **settings)
    x, y = torch.randn(8, 4, generator=generator), torch.tensor([0, 1] * 4)
    optimizers = [peers.adamw(network, **settings) for network in networks]
    for _ in range(3):
        stacked.step(x, y)
        for network, optimizer in zip(networks, optimizers, strict=True):
            peers.step(network, optimizer, x, y, 0.05)
    for name, parameters in stacked.parameters.items():
        alone = torch.stack([network.get_parameter(name) for network in networks])
        torch.testing.assert_close(parameters, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("way", ["compiled", "stacked"])
def test_a_population_steps_as_plain_torch(way, request):
    if way == "stacked":
        request.getfixturevalue("uncompiled")
    machine = speed_steps.dense((4, 3, 3, 2), torch.Generator().manual_seed(0))
    x, y = torch.randn(2 * speed_steps.BATCH, 4), torch.randint(2, (2 * speed_steps.BATCH,))
    network = peers.network(machine, ("relu", "relu"))
    optimizer = peers.adamw(network, speed_steps.LEARNING_RATE, speed_steps.WEIGHT_DECAY)
    losses = []
    for a, b in 2 * list(zip(x.split(speed_steps.BATCH), y.split(speed_steps.BATCH), strict=True)):
        losses.append(F.cross_entropy(network(a), b, label_smoothing=speed_steps.SMOOTHING).item())
        peers.step(network, optimizer, a, b, speed_steps.SMOOTHING)
    descend = speed_steps._descent([machine], x, y, "cpu", 1)
    assert [*descend(), *descend()] == pytest.approx([np.mean(losses[:2]), np.mean(losses[2:])], rel=1e-5)


@pytest.mark.parametrize("kind", table1.KINDS)
def test_the_weights_of_the_concatenations_are_those_of_the_machine(kind):
    case = table1.case(kind, "small")
    case.machine.requires_grad_(True)
    solve = table1.concatenations(case.machine)
    weights = speed_solve._weights(solve)
    found = torch.autograd.grad(solve(case.y0, case.z0), weights, (case.v0, case.u0), allow_unused=True)
    (expected,) = torch.autograd.grad(case.machine.solve(case.y0, case.z0), case.machine.weight, (case.v0, case.u0))
    total = sum(float(gradient.square().sum()) for gradient in found if gradient is not None)
    assert total == pytest.approx(float(expected.square().sum()))


# ---- counts, samples, targets ------------------------------------------------------------------------------------


def test_operations_of_a_step():
    machine = speed_steps.dense((2, 3, 1))  # 6 weights, and 5 of which 2 read the input
    assert speed_steps.step_operations(machine, samples=1) == 2 * 11 + 2 * 11 + 2 * (11 - 8)
    assert speed_steps.step_operations(machine, samples=7) == 7 * 50


def test_the_architectures_are_different_and_in_the_space():
    points = speed_search.distinct(SPACE, 20, seed=0)
    assert len({(p.widths, p.activations, p.shortcuts) for p in points}) == 20
    assert all(set(p.widths) <= {4, 8} and p.depth > 1 for p in points)


def test_contenders_take_turns_and_are_counted_by_unit():
    called = []
    contenders = {name: Contender(lambda name=name: called.append(name), units=4.0) for name in "ab"}
    samples = alternate(contenders, rounds=3, seconds=0.0)
    assert called == ["a", "a", "b", "b", *"ababab"]  # two calls to warm up, then the rounds
    assert all((values > 0).all() and len(values) == 3 for values in samples.values())
    assert Quartiles.of([4.0, 1.0, 2.0, 3.0, 5.0]) == Quartiles(3.0, 2.0, 4.0)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_targets():
    assert Target("at least", 3, 5).told(4) == {"kind": "at least", "bound": 3, "aim": 5, "met": True, "aim_met": False}
    assert not Target("at most", 1.1).told(1.2)["met"]
    ratio = speed_rows.row("x", np.array([2.0, 4.0, 6.0]), np.array([2.0, 2.0, 2.0]), Target("at least", 3))
    assert (ratio["ratio"]["median"], ratio["target"]["met"]) == (2.0, False)
    assert speed.missed({"here": [ratio]}) == ["here, x: 2, to be at least 3"]


# ---- the whole of it ---------------------------------------------------------------------------------------------


def _few(monkeypatch):
    """Small sizes, one start of a process that is none, and no processes for plain torch."""
    monkeypatch.setattr(speed_search, "SEARCHES", {"narrow": ((4, 8), Target("at least", 8))})
    monkeypatch.setattr(speed_steps, "STEPS", {(64, 4, 4, 10): Target("at most", 2.2, 1.1)})
    monkeypatch.setattr(speed_solve, "HIDDEN", {4: Target("at most", 0.6)})
    monkeypatch.setattr(table1, "SIZES", {"small": 2, "medium": 3})
    monkeypatch.setattr(speed_search, "_start", lambda what, device, environment: 1.5)

    class Here:
        def search(self, job):
            seconds, losses = peers.search(job)
            return len(losses) / seconds, losses

    class Few:
        def __enter__(self):
            return Here()

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(peers, "processes", lambda number: Few())


@pytest.mark.parametrize("device", ["cpu", ELSEWHERE])
def test_a_tiny_run_has_every_section_and_fits_a_terminal(device, monkeypatch, request):
    if device == ELSEWHERE:
        request.getfixturevalue("uncompiled")
    _few(monkeypatch)
    told = []
    result = speed.main(device=device, effort=TINY, compile_budget=0, tell=told.append)
    json.dumps(result)
    machines = [f"machines, {dtype}" for dtype in (["float32", "float64"] if device == "cpu" else ["float32"])]
    assert list(result["sections"]) == [
        "search", "steps", "compile", *machines, "recurrences", "layers", "beginnings", "starts",
    ]  # fmt: skip
    assert len(told) == len(speed.SECTIONS)
    assert result["notes"][0] == "torch.compile: left out, as asked for."
    (search,) = result["sections"]["search"]
    assert search["loss_difference"]["largest"] < 1e-4
    for section in ("recurrences", "layers"):
        assert all(row["largest_difference"] < 1e-5 for row in result["sections"][section])
    rows = [row for rows in result["sections"].values() for row in rows]
    assert any(row["target"] is not None for row in rows) == (device == "cpu")
    lines = printed(result).splitlines()
    assert max(map(len, lines)) <= 80
    for row in rows:
        assert any(line.strip().startswith(row["row"]) for line in lines)


def test_compiling_is_given_up_when_its_time_is_spent():
    rows, notes = speed_steps.compiled(TINY, "cpu", 0.01)
    assert rows == []
    assert notes == ["torch.compile: not done with 64-16-16-16-10 within 0 s."]


@pytest.mark.parametrize("kind", [first_step.ours, first_step.plain, first_step.nothing])
def test_first_steps_run(kind):
    kind("cpu")


def test_without_a_gpu_the_command_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert speed.command(["--device", "cuda"]) == 2
    assert "torch finds no CUDA here" in capsys.readouterr().err


def test_the_command_writes_a_whole_run_alone(monkeypatch, capsys, tmp_path):
    result = {"sections": {}, "notes": [], "missed": [], "workers": 2}
    efforts = []
    monkeypatch.setattr(speed, "main", lambda **options: efforts.append(options["effort"]) or result)
    assert speed.command(["--quick"], tmp_path) == 0
    assert speed.command(["--sections", "steps"], tmp_path) == 0
    assert not list(tmp_path.iterdir())
    assert speed.command([], tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"]
    assert efforts == [speed_rows.QUICK, Effort(), Effort()]


def test_the_committed_table_fits_a_terminal_and_says_what_it_says():
    result = json.loads((FOLDER / "speed.json").read_text())["result"]
    assert max(map(len, printed(result).splitlines())) <= 80
    assert result["missed"] == speed.missed(result["sections"])
    for rows in result["sections"].values():
        for row in rows:
            for _, value, target in speed._targets(row):
                again = Target(target["kind"], target["bound"], target["aim"])
                assert target == again.told(value)
    assert result["effort"]["candidates"] == 32
    for row in result["sections"]["search"]:
        assert row["loss_difference"]["median"] < 1e-2
