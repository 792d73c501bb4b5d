"""Cost and memory: what the experiments count, on short runs, the files that are committed, and their figures."""

import json
from dataclasses import replace
from io import StringIO

import matplotlib
import numpy as np
import pytest
import torch
from rich.console import Console

from experiments import cost, memory
from experiments.results import FOLDER
from figures import cost as cost_figure
from figures import memory as memory_figure
from machgraph import compiled
from machgraph.plan import Accumulate, Repeat

matplotlib.use("Agg")
needs_the_loop = pytest.mark.skipif(not compiled.available(), reason="the loop is not compiled")


def committed(name):
    return json.loads((FOLDER / f"{name}.json").read_text())["result"]


def shown(*things):
    text = StringIO()
    console = Console(width=80, file=text)
    for thing in things:
        console.print(thing)
    return text.getvalue().splitlines()


# ---- memory ------------------------------------------------------------------------------------------------------


def test_the_networks_whose_memory_is_compared_are_the_same():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    cotangent = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    networks = memory.networks(depth=4, width=3)
    outputs = {name: network.output(x) for name, network in networks.items()}
    gradients = {name: torch.autograd.grad(output, x, cotangent)[0] for name, output in outputs.items()}
    for name in networks:
        torch.testing.assert_close(outputs[name], outputs["concatenations"])
        torch.testing.assert_close(gradients[name], gradients["concatenations"])
    ours, theirs = (networks[name].parameters for name in ("machgraph, torch", "concatenations"))
    assert sum(p.numel() for p in theirs) == 3 * 3 * 6 + 12
    assert [p.shape for p in ours] == [(12, 12), (12,)]


@needs_the_loop
def test_at_depth_32_the_activations_need_less_than_a_third_of_autograds():
    result = memory.main(depths=(4, 32))
    assert memory.ratio(result, 32) <= 0.3
    assert memory.ratio(result, 32, by="machgraph, torch") <= 0.36
    numbers = 4 * 32 * memory.WIDTH * memory.SAMPLES  # bytes of one tensor over machine space
    (row,) = [row for row in result["rows"] if (row["depth"], row["by"]) == (32, "machgraph")]
    assert row["held"] == 2 * numbers  # y and z
    assert row["activations"] == 5 * numbers  # these, u and v, and the cotangent of z that a slice has made
    weights = 4 * (32 * memory.WIDTH) ** 2
    assert row["peak"] == 5 * numbers + weights + 4 * 32 * memory.WIDTH


def test_memory_is_the_running_sum_and_results_are_told_apart():
    def change(address, count):
        return {"name": "[memory]", "args": {"Addr": address, "Bytes": count}}

    ended = {"name": "forward ended", "args": {}}
    noise = {"name": "aten::add", "args": {}}
    events = [change(1, 8), change(2, 4), change(2, -4), ended, noise, change(2, 16), change(3, 2), change(1, -8)]
    assert memory._counted(events, {2}) == memory.Memory(held=8, activations=12, peak=26)
    assert memory._counted(events, set()) == memory.Memory(held=8, activations=26, peak=26)


def test_the_committed_memory_keeps_to_the_target():
    result = committed("memory")
    assert memory.ratio(result, 32) <= 0.3
    assert {row["depth"] for row in result["rows"]} == set(memory.DEPTHS)
    assert max(map(len, shown(memory.table(result)))) <= 80


# ---- cost --------------------------------------------------------------------------------------------------------


def test_operations_are_three_products_for_each_entry_and_column():
    setting = cost.Setting(blocks=3, width=2, batch=5)
    dense = cost.work(setting)
    assert (dense.entries, dense.columns, dense.flops, dense.products) == (12, 5, 6 * 12 * 5, 2)
    image = cost.work(replace(setting, kind="convolution", size=4))
    assert (image.entries, image.columns, image.products) == (9 * 12, 5 * 16, 9 * 2)
    series = cost.work(replace(setting, kind="recurrence", size=4))
    assert (series.entries, series.columns) == (12 + 2 * 36, 5 * 4)
    plan = cost.machine_of(replace(setting, kind="recurrence")).plan((4,))
    (loop,) = [step for step in plan.instructions if isinstance(step, Repeat)]
    assert series.products == 4 * sum(isinstance(step, Accumulate) for step in loop.body)


@pytest.mark.parametrize("kind", ["dense", "convolution", "recurrence"])
def test_the_calls_that_are_compared_do_the_same(kind):
    work = cost.work(cost.Setting(kind, blocks=4, width=3, density=0.6, batch=2, size=3))
    ours, theirs, rest = (work.calls[name]() for name in ("machgraph", "torch", "rest"))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    assert len(ours) == 4  # of the weights, the bias, y0 and z0
    assert int((rest[0] != 0).sum()) == 0
    assert int((ours[0] != 0).sum()) == work.entries


def test_a_population_is_counted_machine_by_machine():
    one, four = (cost.work(cost.Setting("population", blocks=blocks, batch=8)) for blocks in (1, 4))
    assert one.flops < four.flops
    rng = np.random.default_rng(0)  # the first machine again
    hidden = rng.integers(8, 65, size=rng.integers(1, 5)).tolist()
    blocks = len(hidden) + 2
    mask = np.tril(rng.random((blocks, blocks)) < 0.5, -1) | np.eye(blocks, k=-1, dtype=bool)
    widths = (64, *hidden, 10)
    entries = sum(widths[i] * widths[j] for i, j in np.argwhere(mask))
    heard = sum(widths[i] * 64 for i in np.flatnonzero(mask[:, 0]))
    assert one.entries == entries
    assert one.flops == 8 * (6 * entries - 2 * heard)
    assert np.isfinite(four.calls["machgraph"]()).all()


def test_a_short_run_has_its_rows_and_says_what_it_left_out():
    result = cost.main(sweeps=("depth", "population"), rounds=2, seconds=1e-3, most=5e7)
    depths = [row for row in result["rows"] if row["sweep"] == "depth"]
    assert [row["value"] for row in depths] == [2, 4, 8]
    assert [(row["sweep"], row["value"]) for row in result["left_out"]][:2] == [("depth", 16), ("depth", 32)]
    assert [row["value"] for row in result["rows"] if row["sweep"] == "population"] == [1]
    assert all("GFLOP, which is too many" in row["why"] for row in result["left_out"])
    for row in depths:
        assert row["over"]["low"] <= row["over"]["median"] <= row["over"]["high"]
        assert row["limit"] > 0
        assert min(row["rest"], row["torch"]) > 0
    lines = StringIO()
    cost.report(result, Console(width=80, file=lines))
    assert max(map(len, lines.getvalue().splitlines())) <= 80


def test_what_needs_too_much_is_left_out():
    assert cost._too_much(cost.Setting(blocks=512, width=32), 1e11, np.inf) == "about 2.2 GB, more than 2"
    assert cost._too_much(cost.Setting(), 1e7, np.inf) == "up to 0.2 GFLOP, which is too many"
    assert cost._too_much(cost.Setting(), 1e11, np.inf) == ""


def test_the_committed_costs_are_whole():
    result = committed("cost")
    there = {(row["sweep"], row["value"]) for row in (*result["rows"], *result["left_out"])}
    assert there == {(name, value) for name, sweep in cost.SWEEPS.items() for value in sweep.settings}
    for row in result["rows"]:
        if row["sweep"] != "population":
            assert row["flops"] == 6 * row["entries"] * row["columns"]
    assert max(map(len, shown(*(cost.table(result, name) for name in cost.SWEEPS)))) <= 80


# ---- figures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", [cost_figure, memory_figure])
def test_a_figure_is_written_twice_with_the_same_bytes(figure, tmp_path):
    first, second = (figure.main(out=tmp_path / name) for name in "ab")
    assert [path.suffix for path in first] == [".svg", ".png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_figure_knows_every_sweep():
    assert {name.split()[0] for name in cost.SWEEPS} == set(cost_figure.STYLES)
    assert set(cost_figure.DENSITIES) <= set(cost.SWEEPS)
