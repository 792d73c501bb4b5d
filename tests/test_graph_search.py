"""Searches of graph spaces: with data and with an objective of one's own, stopped and gone on with."""

import csv
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from test_study import STRATEGIES, Cut, cut_at, quiet, untimed
from torch import nn
from torch.nn import functional

from search import Candidate, GraphSpace, load_graph, report, study
from search.cli import main
from search.comparison import final
from search.data import dataset
from search.graph.io import read_graph
from search.graph.network import network
from search.graph.point import GraphPoint, Placed
from search.graph.training import refit_graphs, train_graphs
from search.isomorphism.canonical import canonical
from search.objectives import measures
from search.optimize import optimize
from search.population import scores
from search.recipe import Recipe
from search.record import Settings
from search.run import BEST, LEDGER, read_leaderboard, read_records, read_settings
from search.shape import UNKNOWN, Shape
from search.show import describe, read_machine
from search.space import Space

__all__ = ["quiet"]  # a fixture


def linear(inputs, outputs):
    return partial(nn.Linear, inputs, outputs)


def dropped():
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(0.3))


SPACE = GraphSpace(
    (
        Candidate("stem", linear(3, 4), ("x",), ("h",)),
        Candidate("bend", dropped, ("h", "g"), ("h", "g"), copies=2),
        Candidate("head", linear(4, 2), ("h", "g"), ("y",), required=True),
    ),
    shapes={"x": (3,), "h": (4,), "g": (4,), "y": (2,)},
    learning_rates=(1e-2, 3e-2),
    batch_sizes=(16,),
)
THROUGH = GraphPoint(
    (
        Placed("stem", 1, (("x",),), ("h",)),
        Placed("bend", 1, (("h",),), ("g",)),
        Placed("head", 1, (("h", "g"),), ("y",)),
    ),
    ("x",), ("y",), 3e-2, 0.3, 16,
)  # fmt: skip
RECIPE = Recipe(epochs=3, rungs=(1,))
SETTINGS = Settings("made", None, None, 0, "evolution", 12, None, 4, SPACE, RECIPE, finalists=2, seeds=2)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(70, 3))
    return dataset(x, np.where(x[:, 0] * x[:, 1] + 0.3 * x[:, 2] > 0, "up", "down"), name="made")


@pytest.fixture(scope="module")
def values():
    x = np.random.default_rng(1).normal(size=(70, 3))
    return dataset(x, 2 + 3 * x[:, 0] * x[:, 1], name="values")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    study.run(SETTINGS, data, folder)
    return folder


def ledger(folder):
    """All of ``ledger.csv`` but the times."""
    with (folder / LEDGER).open(newline="", encoding="utf-8") as file:
        return [{**line, "seconds": ""} for line in csv.DictReader(file)]


def same(run, other):
    assert ledger(run) == ledger(other)
    assert untimed(read_records(run)) == untimed(read_records(other))
    assert untimed(read_leaderboard(run)) == untimed(read_leaderboard(other))
    weights, others = (load_graph(folder / BEST, SPACE).state_dict() for folder in (run, other))
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data", "values"])
def test_training_is_a_plain_loop_of_torch(name, request):
    given = request.getfixturevalue(name)
    space = replace(SPACE, candidates=(*SPACE.candidates[:2], Candidate("head", linear(4, given.n_outputs), ("h", "g"), ("y",))), shapes=())  # fmt: skip # noqa: E501
    recipe, seed = Recipe(epochs=3, rungs=(), label_smoothing=0.1), 5
    (outcome,) = train_graphs(space, [THROUGH], [given], recipe, seed)

    net = network(space, THROUGH, given.shape, seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-2, weight_decay=0.3)
    x, y = torch.from_numpy(given.train.x), torch.from_numpy(given.train.y)
    generator = torch.random.get_rng_state()
    torch.default_generator.manual_seed(int(np.random.SeedSequence((seed, 1)).generate_state(1, np.uint64)[0] >> 1))
    steps = len(x) // 16
    for epoch in range(3):
        order = np.random.default_rng((seed, epoch)).permutation(len(x))
        for k in range(steps):
            optimizer.param_groups[0]["lr"] = 3e-2 * recipe.rate((epoch + k / steps) / 3)
            optimizer.zero_grad()
            rows = order[16 * k : 16 * (k + 1)]
            if name == "data":
                functional.cross_entropy(net(x[rows]), y[rows], label_smoothing=0.1).backward()
            else:
                (net(x[rows])[:, 0] - y[rows]).square().mean().backward()
            optimizer.step()
    torch.random.set_rng_state(generator)
    for key, weight in net.state_dict().items():
        torch.testing.assert_close(outcome.machine.state_dict()[key], weight)
    with torch.no_grad():
        said = net.eval()(torch.from_numpy(given.validation.x)).double().numpy()
    loss, score = scores(given, given.validation, outcome.sharpness * said)
    assert outcome.status == "complete"
    assert outcome.score == pytest.approx(score)
    if name == "values":
        assert outcome.loss == pytest.approx(loss)
    else:  # the least over all sharpness is found to the accuracy of a parabola
        losses = [scores(given, given.validation, s * said)[0] for s in np.geomspace(0.25, 4, 400)]
        assert outcome.loss == pytest.approx(min(losses), abs=5e-3)


def test_a_candidate_fares_as_it_does_alone_dropout_and_halving_or_not(data):
    rng = np.random.default_rng(2)
    points = [canonical(SPACE.sample(rng)) for _ in range(5)]
    folds = data.folds(2)
    together = train_graphs(SPACE, points, folds, RECIPE, 7)
    assert [outcome.status for outcome in together].count("halved") == 2
    for point, outcome in zip(points, together, strict=True):
        (alone,) = train_graphs(SPACE, [point], folds, replace(RECIPE, rungs=()), 7)
        assert outcome.curve == alone.curve[: outcome.epochs]
    best = min(outcome.loss for outcome in together if outcome.status == "complete")
    assert best in [outcome.loss for outcome in together]
    halved = [outcome.curve[0] for outcome in together if outcome.status == "halved"]
    assert min(halved) >= max(outcome.curve[0] for outcome in together if outcome.status == "complete")


def test_what_is_refitted_has_seen_all_rows_for_so_many_epochs(data):
    whole_data = data.whole()
    (net,) = refit_graphs(SPACE, [THROUGH], whole_data, RECIPE, [2], seed=7, seeds=[7])
    part = replace(whole_data, validation=data.test)
    (outcome,) = train_graphs(SPACE, [THROUGH], [part], Recipe(epochs=2, rungs=()), 7)
    for name, weight in net.state_dict().items():
        assert torch.equal(outcome.machine.state_dict()[name], weight)


# ---- on data ---------------------------------------------------------------------------------------------------------


def test_a_run_holds_every_trial_and_the_best_network(whole, data):
    records, rows = read_records(whole), read_leaderboard(whole)
    assert [record.number for record in records] == list(range(12))
    assert {record.status for record in records} <= {"complete", "halved", "duplicate"}
    assert [row.name for row in rows] == [
        "winner",
        "second",
        "ensemble",
        "random (median of 5)",
        "scikit-learn (linear)",
    ]
    f, (point, metadata) = load_graph(whole / BEST, SPACE), read_graph(whole / BEST)
    assert point == rows[0].point == canonical(records[rows[0].trial].point)
    assert (rows[0].parameters, rows[0].depth) == (sum(p.numel() for p in f.parameters()), f.depth)
    with torch.no_grad():
        said = f.resolvent({"x": torch.from_numpy(data.test.x)})["y"].double().numpy()
    assert scores(data, data.test, said)[1] == pytest.approx(2 * rows[0].test_score - other_seed(data, records, rows))
    assert metadata["trial"] == rows[0].trial
    settings = read_settings(whole)
    assert settings == SETTINGS  # equal, though its factories were only told


def other_seed(data, records, rows):
    """What the winner with the second of two initial weights does on the held-out part."""
    recipe, point = replace(RECIPE, rungs=()), rows[0].point
    (net,) = refit_graphs(SPACE, [point], data.whole(), recipe, [3], seed=0, seeds=[2])
    with torch.no_grad():
        return scores(data, data.test, net(torch.from_numpy(data.test.x)).double().numpy())[1]


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(whole, data, tmp_path):
    with pytest.raises(Cut):
        study.run(SETTINGS, data, tmp_path, cut_at("training", 8, 2))
    assert len(read_records(tmp_path)) == 8
    study.resume(tmp_path, dataset=data, space=SPACE)
    same(tmp_path, whole)


def test_going_on_needs_the_same_space(whole, data):
    with pytest.raises(ValueError, match=r"is of a graph space, whose modules Python makes: give it .* by space="):
        study.resume(whole, dataset=data)
    wider = Candidate("stem", partial(nn.Linear, 3, 4, bias=False), ("x",), ("h",))
    other = replace(SPACE, candidates=(wider, *SPACE.candidates[1:]))
    with pytest.raises(
        ValueError, match=r"begun with another graph space: its described of stem is .*16 parameters, .*"
    ):
        study.resume(whole, dataset=data, space=other)
    with pytest.raises(ValueError, match="its learning_rates are "):
        study.resume(whole, dataset=data, space=replace(SPACE, learning_rates=(1e-3,)))
    with pytest.raises(ValueError, match="holds an architecture of another space: its candidates are "):
        load_graph(
            whole / BEST, replace(SPACE, candidates=(*SPACE.candidates, Candidate("more", nn.ReLU, ("h",), ("g",))))
        )


def test_a_run_is_reported_and_shown(whole, capsys):
    row = read_leaderboard(whole)[0]
    page = " ".join(report.write(whole).read_text().split())
    assert row.point.describe() in page
    assert f"{row.parameters:,} parameters, {row.flops:,} FLOPs a sample." in page
    assert "None" not in page
    assert "bend(h | g) → h | g, up to 2 copies, test_graph_search:dropped, 20 parameters, " in page
    told = dict(describe(read_machine(whole)))
    assert told["depth"] == str(row.depth)
    with pytest.raises(SystemExit) as ended:
        main(["show", str(whole), "--out", str(whole / "net.svg")])
    assert not ended.value.code
    assert "<svg" in (whole / "net.svg").read_text()
    for command in (["predict", str(whole), "x.csv"], ["resume", str(whole)], ["export", str(whole)]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 2
        assert "give it again, by --space MODULE:NAME or from Python by space=" in capsys.readouterr().err


def test_what_does_not_fit_is_a_trial_that_failed_and_says_why(data, tmp_path):
    blind = replace(
        SPACE, shapes=(), candidates=(*SPACE.candidates, Candidate("wide", linear(3, 5), ("x",), ("h", "g")))
    )
    result = study.run(replace(SETTINGS, space=blind, strategy="random", finalists=1, seeds=1), data, tmp_path)
    failed = [record for record in result.records if record.status == "failed"]
    assert 0 < len(failed) < 12
    for record in failed:
        assert any(machine.candidate == "wide" for machine in record.canonical.machines)
        assert "shape" in record.reason
    assert ledger(tmp_path)[failed[0].number]["reason"] == failed[0].reason
    assert read_records(tmp_path)[failed[0].number].reason == failed[0].reason


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": ("x", "g")}, "a search on data has one of each; for others give search.optimize a function"),
        ({"shapes": {"x": (3,), "h": (4,), "g": (4,), "y": (2, 1)}}, None),
    ],
)
def test_a_space_that_is_none_for_the_data_is_refused(data, tmp_path, changes, said):
    if said is None:
        with pytest.raises(ValueError, match="head fits nowhere"):
            replace(SPACE, **changes)
        return
    with pytest.raises(ValueError, match=said):
        study.run(replace(SETTINGS, space=replace(SPACE, **changes)), data, tmp_path)
    assert not list(tmp_path.iterdir())


def test_rows_are_given_in_the_shape_of_the_input(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 4, 4))
    data = dataset(x.reshape(60, 16), np.where(x[:, :2].sum((1, 2)) > 0, "a", "b"), name="images")
    space = GraphSpace(
        (
            Candidate("conv", partial(nn.Conv2d, 1, 3, 3, padding=1), ("x",), ("h",), copies=2),
            Candidate("norm", partial(nn.BatchNorm2d, 3), ("h",), ("g",)),
            Candidate("head", lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), ("h", "g"), ("y",)),
        ),
        shapes={"x": (1, 4, 4), "h": (3, 4, 4), "g": (3, 4, 4), "y": (2,)},
        learning_rates=(1e-2,),
        batch_sizes=(8,),
    )
    result = study.run(
        replace(SETTINGS, space=space, trials=4, finalists=1, seeds=1, constraints={"parameters": 140}), data, tmp_path
    )
    for record in result.records:
        assert record.measures["parameters"] <= 140
        assert record.is_valid
    convolution = 2 * 3 * 9 * 16 + 2 * 48 * 2  # of one kernel at each pixel, and of the head
    assert result.rows[0].flops in (convolution, convolution + 2 * 3 * 9 * 16)
    load_graph(tmp_path / BEST, space)  # statistics of batches too


def test_measures_are_those_of_the_modules():
    found = measures(THROUGH, SPACE.shape, ("memory", "latency"), SPACE)
    weights, activities = 16 + 20 + 10, 3 + 4 + 4 + 2
    assert found["parameters"] == weights
    assert found["flops"] == 2 * (3 * 4 + 4 * 4 + 4 * 2)
    assert found["memory"] == 4 * (weights + activities)
    assert found["depth"] == 3
    assert found["latency"] > 0
    assert measures(THROUGH, replace(SPACE, shapes=()).shape, ("flops",), replace(SPACE, shapes=())) == {
        "depth": 3, "parameters": weights,
    }  # fmt: skip


# ---- for an objective of one's own -----------------------------------------------------------------------------------


def size(f):
    """Least at 40 weights."""
    return abs(sum(weight.numel() for weight in f.parameters()) - 40)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_objective_of_ones_own_gets_the_architecture_and_is_resumed(tmp_path, strategy):
    calls = []

    def cut(f):
        calls.append(f)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return size(f)

    cut.__qualname__, cut.__module__ = size.__qualname__, size.__module__
    stem, bend, head = SPACE.candidates
    space = replace(SPACE, candidates=(stem, replace(bend, copies=3), head))  # two rates make no others of its networks
    options = {"trials": 24, "population": 2, "seed": 3, "objectives": ("value", "flops"), "strategy": strategy}
    full = optimize(size, space, out=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        optimize(cut, space, out=tmp_path / "cut", **options)
    assert 0 < len(read_records(tmp_path / "cut")) < 24
    result = optimize(size, space, out=tmp_path / "cut", resume=True, **options)
    assert untimed(result.records) == untimed(full.records)
    best = result.rows[0]
    assert size(load_graph(tmp_path / "cut" / BEST, space)) == best.loss
    with pytest.raises(ValueError, match="begun with another graph space: its batch_sizes are"):
        optimize(size, replace(space, batch_sizes=(8,)), out=tmp_path / "cut", resume=True, **options)


def test_machines_that_do_not_fit_fail_and_other_errors_end_the_search(tmp_path):
    blind = GraphSpace(
        (
            Candidate("narrow", linear(3, 4), ("x",), ("h",)),
            Candidate("wide", linear(3, 5), ("x",), ("h",)),
            Candidate("head", linear(4, 2), ("h",), ("y",), required=True),
        ),
        learning_rates=(1e-2,),
    )

    def answer(f):
        return float(f.resolvent({"x": torch.ones(1, 3)})["y"].detach().abs().sum())

    result = optimize(answer, blind, trials=12, strategy="random", out=tmp_path / "run")
    for record in result.records:
        wide = any(machine.candidate == "wide" for machine in record.canonical.machines)
        assert record.is_valid is not wide
        if wide and record.duplicate_of is None:
            assert record.status == "failed"
            assert "which already holds shape" in record.reason or "fails on" in record.reason
    assert {record.is_valid for record in result.records} == {True, False}

    def broken(f):
        raise RuntimeError("no such loss")

    with pytest.raises(RuntimeError, match="no such loss"):
        optimize(broken, blind, trials=4, out=tmp_path / "broken")
    with pytest.raises(ValueError, match="got no shape"):
        optimize(size, Space(max_blocks=0), trials=2, out=tmp_path / "blocks")


class Lazy(nn.LazyLinear):
    """Whose number of inputs is not known before it has read some."""

    def __init__(self):
        super().__init__(2)


UNSIZED = replace(SPACE, shapes=())
LAZY = GraphSpace((Candidate("f", Lazy, ("x",), ("y",), required=True),), learning_rates=(1e-2, 2e-2))
PAIR = GraphSpace((Candidate("f", nn.Tanh, ("a",), ("y",)), Candidate("g", nn.ReLU, ("b",), ("y",))), ("a", "b"))


@pytest.mark.parametrize(
    ("space", "options", "unknown"),
    [
        (UNSIZED, {"objectives": ("value", "flops")}, "flops"),
        (
            UNSIZED,
            {"objectives": ("value", "memory", "parameters"), "constraints": {"latency": 1.0}},
            "memory, latency",
        ),
        (UNSIZED, {"constraints": {"flops": 1e6, "depth": 9}}, "flops"),
        (UNSIZED, {"shape": UNKNOWN, "constraints": {"flops": 1e6}}, "flops"),
        (replace(UNSIZED, shapes={"h": (4,)}), {"constraints": {"flops": 1e6}}, "flops"),
        (PAIR, {"shape": Shape(4, 2), "constraints": {"flops": 1e6}}, "flops"),
        (LAZY, {"objectives": ("value", "parameters")}, "parameters"),
    ],
)
def test_measures_that_need_shapes_are_refused_before_anything_is_tried(tmp_path, space, options, unknown):
    with pytest.raises(
        ValueError, match=f"^got {unknown} to be measured, which takes the shapes of .*: give the Graph"
    ):
        optimize(stop, space, trials=4, out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def stop(f):
    raise AssertionError("nothing is to be tried")


def test_measures_without_shapes_are_those_that_need_none(tmp_path):
    names = {"objectives": ("value", "depth", "parameters"), "constraints": {"parameters": 60}}
    result = optimize(size, UNSIZED, trials=12, out=tmp_path / "run", **names)
    for record in result.records:
        assert record.measures["parameters"] == weights(UNSIZED, record.canonical)
        assert (record.status == "infeasible") == (record.measures["parameters"] > 60 and record.duplicate_of is None)
    sized = optimize(size, UNSIZED, Shape(3, 2), trials=4, objectives=("value", "flops"), out=tmp_path / "sized")
    assert all(record.measures["flops"] > 0 for record in sized.records)


def weights(space, point):
    return sum(weight.numel() for weight in space.build(point).parameters())


def test_a_network_whose_objective_can_not_be_measured_has_failed(tmp_path):
    """The objective does not run it, so that nobody else notices that it does not fit."""
    blind = GraphSpace(
        (
            Candidate("narrow", linear(3, 4), ("x",), ("h",)),
            Candidate("wide", linear(3, 5), ("x",), ("h",)),
            Candidate("head", linear(4, 2), ("h",), ("y",), required=True),
        ),
        shapes={"x": (3,)},
        learning_rates=(1e-2,),
    )
    options = {"trials": 12, "population": 4, "strategy": "random"}
    for name, wish in {
        "objective": {"objectives": ("value", "flops")},
        "limit": {"constraints": {"flops": 1e6}},
    }.items():
        result = optimize(size, blind, out=tmp_path / name, **options, **wish)
        for record in result.records:
            wide = any(machine.candidate == "wide" for machine in record.canonical.machines)
            assert record.is_valid is not wide
            if wide and record.duplicate_of is None:
                assert record.status == "failed"
                assert "no flops could be measured" in record.reason
        assert {record.is_valid for record in result.records} == {True, False}


def test_data_of_one_feature_and_one_number_are_known_to_be_that(tmp_path, monkeypatch):
    monkeypatch.setattr(final, "reference", lambda dataset, seconds: None)
    x = np.random.default_rng(0).normal(size=(60, 1))
    data = dataset(x, x[:, 0] ** 3, name="cubes")
    assert data.shape == Shape(1, 1)
    space = GraphSpace(
        (
            Candidate("stem", linear(1, 4), ("x",), ("h",), required=True),
            Candidate("bend", nn.Tanh, ("h",), ("g",)),
            Candidate("head", linear(4, 1), ("h", "g"), ("y",), required=True),
        ),
        learning_rates=(1e-2,),
        batch_sizes=(16,),
    )
    wish = replace(SETTINGS, space=space, trials=4, objectives=("loss", "flops"), constraints={"memory": 1e6})
    result = study.run(wish, data, tmp_path)
    assert {record.measures["flops"] for record in result.records} == {2 * (4 + 4)}
    assert all(record.measures["memory"] > 0 for record in result.records)


def test_points_that_are_no_network_fail_and_the_search_still_ends(tmp_path):
    tiny = GraphSpace((Candidate("f", linear(3, 2), ("x",), ("y", "h")),), shapes={"x": (3,), "y": (2,), "h": (2,)}, learning_rates=(1e-2,))  # fmt: skip # noqa: E501
    assert (tiny.count(), tiny.count_classes()) == (4, 1)
    result = optimize(size, tiny, trials=300, strategy="tpe", out=tmp_path)
    assert len(result.records) < 300
    for record in result.records:
        if record.duplicate_of is None:
            assert record.status == ("complete" if record.canonical.machines else "failed")
            assert math.isfinite(record.loss) is bool(record.canonical.machines)
