"""Objectives of one's own: the loop, the storage, the resume and the leaderboard for any function of a machine."""

import math
from dataclasses import replace

import pytest
import torch

from machgraph.io import load, load_metadata
from search.objectives import fronts
from search.one_of import OneOf
from search.optimize import optimize
from search.report import write
from search.run import BEST, read_leaderboard, read_records
from search.shape import UNKNOWN, Shape
from search.space import Space
from search.suggest import STRATEGIES
from search.training.machine import build

SPACE = Space(max_blocks=2, widths=(2, 4), activations=("relu", "tanh"), learning_rates=(1e-2,))
SHAPE = Shape(3, 2)


def size(machine):
    """Least at 40 parameters."""
    return abs(machine.parameter_count() - 40)


def stopped(limit):
    calls = []

    def objective(machine):
        if len(calls) == limit:
            raise KeyboardInterrupt
        calls.append(machine)
        return size(machine)

    return objective


def records(folder):
    return [(record.key, record.loss, record.status, record.duplicate_of) for record in read_records(folder)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, strategy):
    options = {"strategy": strategy, "trials": 20, "population": 3, "seed": 4}
    whole = optimize(size, SPACE, SHAPE, out=tmp_path / "whole", **options)
    size_until = stopped(5)
    size_until.__qualname__, size_until.__module__ = size.__qualname__, size.__module__
    with pytest.raises(KeyboardInterrupt):
        optimize(size_until, SPACE, SHAPE, out=tmp_path / "cut", **options)
    assert 0 < len(read_records(tmp_path / "cut")) < 20
    result = optimize(size, SPACE, SHAPE, out=tmp_path / "cut", resume=True, **options)
    assert records(tmp_path / "cut") == records(tmp_path / "whole")
    assert [row.loss for row in result.rows] == [row.loss for row in whole.rows]
    longer = optimize(size, SPACE, SHAPE, out=tmp_path / "cut", resume=True, **{**options, "trials": 26})
    assert len(longer.records) == 26  # of the whole search


def test_the_best_machine_has_the_weights_that_the_function_left(tmp_path):
    def filled(machine):
        with torch.no_grad():
            machine.bias.fill_(machine.parameter_count())
        return size(machine)

    result = optimize(filled, SPACE, SHAPE, trials=12, out=tmp_path)
    best = min((r for r in result.records if r.duplicate_of is None), key=lambda r: (r.loss, r.number))
    assert result.rows[0].trial == best.number
    assert result.rows[0].score == best.loss == best.measures["value"]
    assert (load(tmp_path / BEST).bias == best.canonical.parameters(SHAPE)).all()
    assert load_metadata(tmp_path / BEST)["trial"] == best.number
    assert read_leaderboard(tmp_path) == list(result.rows)
    assert "The best network found has value" in write(tmp_path).read_text()


def test_no_machine_is_tried_twice_and_each_is_as_the_seed_has_it(tmp_path):
    seen = []
    few = Space(max_blocks=1, widths=(2,), activations=("relu",), learning_rates=(1e-2,))

    def objective(machine):
        seen.append(machine)
        return size(machine)

    result = optimize(objective, few, SHAPE, trials=12, seed=5, out=tmp_path)
    trained = [record for record in result.records if record.duplicate_of is None]
    assert len(seen) == len(trained) == len({record.key for record in trained})
    for machine, record in zip(seen, trained, strict=True):
        assert torch.equal(machine.weight, build(record.canonical, SHAPE, 5).weight)


def test_how_machines_are_trained_makes_no_others_of_them(tmp_path):
    """The function is not told of learning rates and the like."""
    one = Space(max_blocks=1, widths=(2,), activations=("relu",), weight_decays=(0.1, 0.2), input_noises=(0.0, 0.1))
    space = OneOf((one, replace(one, kind="convolution", kernels=(1, 3))))
    seen = []

    def objective(machine):
        seen.append(machine)
        return len(seen)

    result = optimize(objective, space, Shape(4, 2, (1, 2, 2)), trials=40, out=tmp_path)
    drawn = {(type(machine), *machine.weight.shape, tuple(machine.shortcuts.ravel().tolist())) for machine in seen}
    assert len(drawn) == len(seen)
    assert result.facts.points == space.untrained.count() == space.count() // 16
    assert {record.point.learning_rate for record in result.records} == {1e-3}


@pytest.mark.parametrize("returned", [list, lambda pair: dict(zip(("error", "noise"), pair, strict=True)), tuple])
def test_several_numbers_some_of_them_to_be_large(tmp_path, returned):
    def objective(machine):
        return returned([size(machine), -float(machine.weight.detach().abs().sum())])

    names = ("error", "parameters", "noise")
    result = optimize(
        objective, SPACE, SHAPE, trials=16, objectives=names, maximize=("noise",), out=tmp_path, strategy="nsga2"
    )
    values = [(r.measures["error"], r.measures["parameters"], -r.measures["noise"]) for r in result.records]
    front = {r.number for r, place in zip(result.records, fronts(values), strict=True) if place == 0}
    assert {row.trial for row in result.rows[:2]} <= front
    for record in result.records:
        assert record.measures["parameters"] == record.canonical.parameters(SHAPE)


def test_what_is_to_be_large_wins_when_it_is(tmp_path):
    result = optimize(lambda m: m.parameter_count(), SPACE, SHAPE, trials=10, maximize=("value",), out=tmp_path)
    most = max(record.measures["value"] for record in result.records)
    assert result.rows[0].score == most == -result.rows[0].loss


def test_a_function_that_fails_ends_the_search_or_the_trial_alone(tmp_path):
    def odd(machine):
        if machine.parameter_count() % 4 == 1:
            raise ArithmeticError("odd")
        return math.inf if machine.parameter_count() % 3 else 1.0

    with pytest.raises(ArithmeticError, match="odd"):
        optimize(odd, SPACE, SHAPE, trials=30, out=tmp_path / "ended")
    result = optimize(odd, SPACE, SHAPE, trials=30, catch=(ArithmeticError,), out=tmp_path / "caught")
    for record in result.records:
        parameters = record.canonical.parameters(SHAPE)
        if record.duplicate_of is None:
            expected = "failed" if parameters % 4 == 1 else "diverged" if parameters % 3 else "complete"
            assert record.status == expected
    assert {record.status for record in result.records} >= {"failed", "diverged"}
    write(tmp_path / "caught")


@pytest.mark.parametrize(
    ("returned", "objectives", "said"),
    [
        ("best", ("value",), "the objective returned 'best': it must return a number"),
        (None, ("value",), "the objective returned None: it must return a number"),
        ([1.0], ("a", "b"), r"the objective returned \[1.0\]: it must return 2 numbers, for a, b"),
        ({"a": 1, "c": 2}, ("a", "b"), "it must return 2 numbers, for a, b"),
    ],
)
def test_what_is_no_number_is_told(tmp_path, returned, objectives, said):
    with pytest.raises(ValueError, match=said):
        optimize(lambda machine: returned, SPACE, SHAPE, trials=2, objectives=objectives, out=tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"objective": None}, "got an objective of NoneType: give a function of a machine"),
        ({"objectives": "error"}, r"got objectives='error': give a tuple of names, as \('error',\)"),
        ({"objectives": ("a", "b"), "maximize": "a"}, "got maximize='a': give a tuple of names"),
        ({"constraints": ["parameters <= 3"]}, r"got constraints=\['parameters <= 3'\]: give a mapping from measures"),
        ({"trials": 2.5}, "got trials=2.5: it must be a whole number"),
        ({"trials": "many"}, "got trials='many': it must be a whole number"),
    ],
)
def test_likely_mistakes_are_told_before_a_folder_is_made(tmp_path, wrong, said):
    with pytest.raises(ValueError, match=said):
        optimize(**{"objective": size, "space": SPACE, "shape": SHAPE, "trials": 2, "out": tmp_path / "run", **wrong})
    assert not (tmp_path / "run").exists()


def test_arguments_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="name at least one that the function itself returns"):
        optimize(size, SPACE, SHAPE, trials=2, objectives=("parameters",), out=tmp_path)
    with pytest.raises(ValueError, match="resume without a folder"):
        optimize(size, SPACE, SHAPE, trials=2, resume=True)
    with pytest.raises(ValueError, match="is none of the objectives"):
        optimize(size, SPACE, SHAPE, trials=2, maximize=("size",), out=tmp_path)
    with pytest.raises(FileNotFoundError, match="no run is in"):
        optimize(size, SPACE, SHAPE, trials=2, resume=True, out=tmp_path / "nothing")
    with pytest.raises(ValueError, match="got no shape"):
        optimize(size, SPACE, UNKNOWN, trials=2, out=tmp_path / "nothing")
    optimize(size, SPACE, SHAPE, trials=2, out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"already holds a run that was begun from Python: .* resume=True"):
        optimize(size, SPACE, SHAPE, trials=2, out=tmp_path / "run")
    with pytest.raises(ValueError, match="seed=0, and not 3: a search goes on with what it was begun with"):
        optimize(size, SPACE, SHAPE, trials=2, seed=3, resume=True, out=tmp_path / "run")
    with pytest.raises(ValueError, match="begun with another objective or shape"):
        optimize(stopped(3), SPACE, SHAPE, trials=2, resume=True, out=tmp_path / "run")
