"""Several objectives and constraints: fronts, what machines cost, and searches that go by them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from machgraph.io import load as load_machine
from search import study
from search.comparison import final
from search.comparison.rivals import draws
from search.data import load
from search.isomorphism.canonical import canonical
from search.objectives import accepting, crowding, excess, fronts, latency, limit, measures, order
from search.recipe import Recipe
from search.run import BEST, LEDGER, Settings, read_leaderboard, read_records
from search.shape import Shape
from search.space import Space
from search.suggest import STRATEGIES
from search.training.machine import build

SPACE = Space(max_blocks=2, widths=(2, 4, 8), activations=("relu",), learning_rates=(1e-2,), batch_sizes=(64,))
IMAGES = Space(max_blocks=2, widths=(2, 3), kind="convolution", kernels=(3,), max_scale=1, heads=(1, 2))
RECIPE = Recipe(epochs=3, patience=None, rungs=(1,))
rows = st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 4)] * n), min_size=1, max_size=12))


def beats(a, b):
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


@given(rows)
def test_fronts_are_peeled_off(values):
    left, number, expected = set(range(len(values))), 0, {}
    while left:
        front = {i for i in left if not any(beats(values[j], values[i]) for j in left)}
        expected |= dict.fromkeys(front, number)
        left, number = left - front, number + 1
    assert fronts(values).tolist() == [expected[i] for i in range(len(values))]


@given(rows)
def test_the_order_is_that_of_the_fronts(values):
    places, found = fronts(values), order(values)
    assert sorted(found) == list(range(len(values)))
    assert [places[i] for i in found] == sorted(places)
    assert values[found[0]][0] == min(value[0] for value in values)


def test_the_ends_of_a_front_are_the_loneliest():
    found = crowding([[0, 9], [1, 3], [2, 2.9], [9, 0]])
    assert np.isinf(found[[0, 3]]).all()
    assert np.isfinite(found[1:3]).all()
    assert crowding([[1, 2]]).tolist() == [np.inf]


@pytest.mark.parametrize("space", [SPACE, IMAGES], ids=lambda space: space.kind)
def test_measures_are_those_of_the_built_machine(space):
    shape = Shape(16, 3, (1, 4, 4))
    point = canonical(space.sample(np.random.default_rng(3)))
    machine, found = build(point, shape, 0), measures(point, shape)
    size = shape.size if space.kind == "convolution" else ()
    assert found["parameters"] == machine.parameter_count()
    assert found["flops"] == (machine.flops(size) if size else machine.flops())
    assert found["depth"] == machine.architecture.depth
    z = machine.split(machine(torch.zeros(1, *(shape.image if size else (shape.inputs,)))))
    assert found["memory"] == 4 * (found["parameters"] + 2 * sum(block.numel() for block in z))
    assert 0 < latency(point, shape) < 1e4


@pytest.mark.parametrize("text", ["parameters", "parameters < 3", "<= 3", "parameters <= three", "weights<=3"])
def test_a_limit_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match="constraint"):
        limit(text)


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("1,500,000", 1.5e6), ("20,000", 2e4), ("20,000.5", 20000.5), ("20_000", 2e4), ("2k", 2e3), ("1.5M", 1.5e6),
        ("1,500k", 1.5e6), (".5", 0.5), ("1e6", 1e6), ("1.5e-3 G", 1.5e6), ("5.", 5),
    ],
)  # fmt: skip
def test_a_comma_separates_thousands(text, most):
    assert limit(f"flops <= {text}") == ("flops", most)


@pytest.mark.parametrize("text", ["1,5M", "1,50", "1,5000", "1500,000", "1,500,00", "0,500", "1.5,000", "1,", "1,,000"])
def test_a_comma_anywhere_else_is_refused(text):
    with pytest.raises(ValueError, match=r"got the constraint 'flops <= .*write a fraction with a point, as in 1.5M"):
        limit(f"flops <= {text}")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(final, "reference", lambda dataset, seconds: None)


@pytest.fixture(scope="module")
def dataset():
    return load("breast_cancer", seed=0)


def settings(**changes):
    kind = {"strategy": "evolution", "trials": 12, "population": 6, "objectives": ("loss", "parameters"), **changes}
    made = Settings(
        "breast_cancer", None, None, 0, kind.pop("strategy"), kind.pop("trials"), None, kind.pop("population"),
        SPACE, RECIPE, finalists=3, seeds=1,
    )  # fmt: skip
    return replace(made, **kind)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_search_of_two_objectives_finds_its_front_and_resumes(dataset, tmp_path, strategy):
    whole = study.run(settings(strategy=strategy), dataset, tmp_path / "whole")
    values = [record.values(("loss", "parameters")) for record in whole.records]
    front = {r.number for r, place in zip(whole.records, fronts(values), strict=True) if place == 0}
    finalists = [row.trial for row in whole.rows if row.trial is not None and row.name != "ensemble"]
    ahead = {r.number for r in whole.records if r.number in front and r.duplicate_of is None}
    assert set(finalists) <= ahead
    assert {row.name for row in whole.rows if row.trial in finalists} <= {"winner", "front", "ensemble"}
    assert all(record.measures["parameters"] == record.canonical.parameters(dataset.shape) for record in whole.records)
    lines = (tmp_path / "whole" / LEDGER).read_text().splitlines()
    assert "front" in lines[0].split(",")
    assert read_leaderboard(tmp_path / "whole") == list(whole.rows)

    study.run(settings(strategy=strategy, trials=6), dataset, tmp_path / "cut")
    study.resume(tmp_path / "cut", trials=6)
    keys = [[record.key for record in read_records(tmp_path / name)] for name in ("whole", "cut")]
    assert keys[0] == keys[1]


@pytest.mark.parametrize("large", [(), ("depth",), ("parameters", "depth")], ids=str)
def test_halving_keeps_what_is_wished(dataset, tmp_path, large):
    """By loss at the rung and measures, no trial that went on is surpassed by one that did not."""
    names = ("loss", "parameters", "depth")
    wish = settings(strategy="random", trials=24, population=24, objectives=names, maximize=large)
    result = study.run(wish, dataset, tmp_path)
    stayed, left = (
        [replace(r, loss=r.curve[0]).values(names, large) for r in result.records if r.status == status]
        for status in ("complete", "halved")
    )
    assert not any(beats(worse, better) for worse in left for better in stayed)
    assert any(beats(better, worse) for worse in left for better in stayed)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_above_a_limit_is_trained_or_wins(dataset, tmp_path, strategy):
    limited = settings(strategy=strategy, objectives=("loss",), constraints={"parameters": 250, "depth": 5})
    result = study.run(limited, dataset, tmp_path)
    trained = [record for record in result.records if record.status not in ("infeasible", "duplicate")]
    assert trained
    for record in result.records:
        over = excess(record.measures, limited.constraints)
        assert (record.status == "infeasible") == (over > 0 and record.duplicate_of is None)
        assert record.epochs == 0 or not over
    if strategy in ("evolution", "random"):
        assert all(record.status != "infeasible" for record in result.records)
    machine = load_machine(tmp_path / BEST)
    assert machine.parameter_count() <= 250
    assert all(accepting(dataset.shape, limited.constraints)(point) for point in draws(limited, dataset.shape, 5))


def test_a_limit_that_nothing_keeps_ends_in_words(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"none of 1,000 points drawn .* has parameters at most 3: the least were"):
        study.run(settings(constraints={"parameters": 3}), dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_latency_is_measured_and_kept(dataset, tmp_path):
    limited = settings(trials=6, objectives=("loss", "latency", "memory"), constraints={"latency": 1e4})
    result = study.run(limited, dataset, tmp_path)
    for record in result.records:
        assert record.measures["latency"] > 0
        assert record.measures["memory"] == measures(record.canonical, dataset.shape, ["memory"])["memory"]


def test_unknown_objectives_are_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"no objective is called 'flop' \(did you mean 'flops'\?\)"):
        study.run(settings(objectives=("loss", "flop")), dataset, tmp_path)
    with pytest.raises(ValueError, match="no constraint is called"):
        settings(constraints={"size": 3})
    with pytest.raises(ValueError, match="none twice"):
        settings(objectives=("loss", "loss"))
