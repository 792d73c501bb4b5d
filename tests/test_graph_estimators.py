"""Estimators that search a graph space: what they answer, their files, and what they refuse."""

import sys
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from torch import nn

import machgraph as mg
from search import (
    ArchitectureSearchClassifier,
    ArchitectureSearchForecaster,
    ArchitectureSearchRegressor,
    Candidate,
    GraphSpace,
    MachineRegressor,
)
from search.graph.io import load_graph
from search.predict import answer
from search.run import BEST, read_leaderboard
from search.space import Space

QUICK = {"n_trials": 4, "population": 4, "epochs": 4, "folds": 2, "finalists": 2, "seeds": 1, "random_state": 0}


class Single(nn.Module):
    """A module that knows its own precision alone."""

    def forward(self, x):
        return x @ torch.full((6, 6), 0.5, dtype=torch.float32)


def space(inputs, outputs, head=nn.Linear):
    return GraphSpace(
        (
            Candidate("stem", partial(nn.Linear, inputs, 6), ("x",), ("h",), copies=2),
            Candidate("norm", partial(nn.BatchNorm1d, 6), ("h",), ("h", "g")),
            Candidate("drop", lambda: nn.Sequential(nn.Tanh(), nn.Dropout(0.2)), ("h", "g"), ("h", "g")),
            Candidate("single", Single, ("h", "g"), ("g",)),
            Candidate("head", partial(head, 6, outputs), ("h", "g"), ("y",), required=True),
        ),
        shapes={"x": (inputs,), "h": (6,), "g": (6,), "y": (outputs,)},
        learning_rates=(1e-2, 3e-2),
        batch_sizes=(16,),
    )


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def searched(iris):
    return ArchitectureSearchClassifier(**QUICK, space=space(4, 3)).fit(*iris)


def softmax(values):
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_it_answers_as_the_sum_of_machines_does(searched, iris):
    member = searched._members[0]
    x = torch.from_numpy((iris[0] - member.encoder.mean) / member.encoder.scale).float()
    with torch.no_grad():
        said = searched.best_architecture_.resolvent({"x": x})["y"].double().numpy()
    assert searched.predict_proba(iris[0]) == pytest.approx(softmax(member.sharpness * said), abs=1e-5)
    assert (searched.predict(iris[0]) == said.argmax(axis=1)).all()
    assert searched.score(*iris) > 0.5
    with torch.no_grad():
        assert searched.best_machine_(x).numpy() == pytest.approx(said, abs=1e-5)


def test_it_tells_what_was_found(searched):
    board, rows = searched.leaderboard_, read_leaderboard(searched.run_)
    assert board["architecture"].to_list() == [row.point.describe() for row in rows if row.point]
    assert board["name"].to_list() == ["winner", "second"]
    f = searched.best_architecture_
    assert f.depth == board["depth"][0] == searched.best_point_.depth
    assert isinstance(f, mg.Architecture)
    file = load_graph(searched.run_ / BEST, searched.space)
    assert all(torch.equal(weight, f.state_dict()[name]) for name, weight in file.state_dict().items())
    assert len(searched.study_.trials) == 4


def test_the_same_random_state_gives_the_same(searched, iris):
    again = clone(searched).fit(*iris)
    assert again.best_point_ == searched.best_point_
    assert (again.predict_proba(iris[0]) == searched.predict_proba(iris[0])).all()


def test_what_is_saved_answers_the_same_given_the_space_again(searched, iris, tmp_path):
    path = tmp_path / "model.machgraph"
    searched.save(path)
    loaded = ArchitectureSearchClassifier.load(path, space=searched.space)
    assert (loaded.predict_proba(iris[0]) == searched.predict_proba(iris[0])).all()
    assert loaded.best_point_ == searched.best_point_
    assert loaded.get_params() == searched.get_params()
    assert loaded.space.build(loaded.best_point_).depth == searched.best_architecture_.depth  # its factories are there
    loaded.save(path)  # once more
    again = ArchitectureSearchClassifier.load(path, space=searched.space)
    assert (again.predict(iris[0]) == searched.predict(iris[0])).all()


def test_a_saved_estimator_answers_a_table(searched, iris, tmp_path):
    searched.save(tmp_path / "model.machgraph")
    pl.DataFrame(iris[0][:20], schema=searched._columns, orient="row").write_csv(tmp_path / "new.csv")
    with (tmp_path / "answers.csv").open("w") as out:
        answer(tmp_path / "model.machgraph", tmp_path / "new.csv", out, space=searched.space)
    said = pl.read_csv(tmp_path / "answers.csv")
    assert said[:, 1:].to_numpy() == pytest.approx(searched.predict_proba(iris[0][:20]))


def test_a_file_needs_the_space_and_no_other(searched, iris, tmp_path):
    path, load = tmp_path / "model.machgraph", ArchitectureSearchClassifier.load
    searched.save(path)
    with pytest.raises(
        ValueError, match=r"is of a graph space, whose modules Python makes: give it again, .* by space="
    ):
        load(path)
    with pytest.raises(ValueError, match="of another space: its learning_rates are"):
        load(path, space=replace(searched.space, learning_rates=(0.1,)))
    with pytest.raises(ValueError, match=r"got Space as the space of .*: give the search.GraphSpace that it is of"):
        load(path, space=Space())
    MachineRegressor(hidden=(2,), epochs=1).fit(*iris).save(path)
    with pytest.raises(ValueError, match=r"got a graph space for .*, which is of another kind of space: leave it out"):
        MachineRegressor.load(path, space=searched.space)


def test_an_ensemble_of_values_and_a_search_that_goes_on(tmp_path):
    x = np.random.default_rng(0).normal(size=(80, 3))
    y = x[:, 0] - 2 * x[:, 1]
    given = {**QUICK, "space": space(3, 1), "ensemble": True, "out": tmp_path / "run"}
    model = ArchitectureSearchRegressor(**given).fit(x, y)
    assert len(model._members) == 2
    alone = [member.encoder.decode(member.outputs(member.encoder.encode(table(model, x)))) for member in model._members]
    assert model.predict(x) == pytest.approx(np.mean([one.values for one in alone], axis=0))
    model.save(tmp_path / "models")
    loaded = ArchitectureSearchRegressor.load(tmp_path / "models", space=given["space"])
    assert (loaded.predict(x) == model.predict(x)).all()

    longer = ArchitectureSearchRegressor(**{**given, "n_trials": 8, "resume": True}).fit(x, y)
    assert len(longer.study_.trials) == 8
    other = replace(given["space"], batch_sizes=(8,))
    with pytest.raises(ValueError, match="was begun with another graph space: its batch_sizes are"):
        ArchitectureSearchRegressor(**{**given, "space": other, "resume": True}).fit(x, y)


def table(model, x):
    return pl.DataFrame(x, schema=model._columns, orient="row")


def test_a_series_is_forecast_by_modules_of_ones_own(tmp_path):
    y = np.sin(np.arange(90) / 3)
    own = GraphSpace(
        (
            Candidate("conv", partial(nn.Conv1d, 1, 4, 3), ("x",), ("h",)),
            Candidate("head", lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(1)), ("h", "x"), ("y",), required=True),
        ),
        shapes={"x": (1, 8), "y": (1,)},  # h is as long as it is
        learning_rates=(1e-2,),
        batch_sizes=(16,),
    )
    model = ArchitectureSearchForecaster(8, **QUICK, space=own).fit(y)
    model.save(tmp_path / "series.machgraph")
    loaded = ArchitectureSearchForecaster.load(tmp_path / "series.machgraph", space=own)
    assert model.predict(5).shape == (5,)
    assert (loaded.predict(5) == model.predict(5)).all()
    assert loaded.step(0.3) == model.step(0.3)


@pytest.mark.parametrize("given", [3, "nets:space", Candidate])
def test_what_is_no_space_is_refused(iris, given):
    with pytest.raises(ValueError, match=r"got space=.*: give a search.space.Space, .* or a search.GraphSpace"):
        ArchitectureSearchClassifier(space=given).fit(*iris)


def test_a_space_that_does_not_fit_the_data_is_refused(iris):
    with pytest.raises(ValueError, match=r"x has shape \(3,\), and the data have 4 numbers a row: give these"):
        ArchitectureSearchClassifier(**QUICK, space=space(3, 3)).fit(*iris)
    blind = replace(space(4, 2), shapes=())
    with pytest.raises(
        ValueError, match=r"not one of 4 trials .*, the first as y has shape \(2,\).* machines that fit"
    ):
        ArchitectureSearchClassifier(**{**QUICK, "strategy": "random"}, space=blind).fit(*iris)


def test_nothing_is_imported_by_a_file(searched, tmp_path, monkeypatch):
    """Whatever a file names: here it names a module that would say so."""
    (tmp_path / "loud.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    told = {"graph": "loud:space"}
    member = searched._members[0]
    from search.trained import read, write

    write(member, tmp_path / "model.machgraph", told)
    with pytest.raises(ValueError, match=r"is of the graph space loud:space, whose .* by --space loud:space or"):
        read(tmp_path / "model.machgraph")
    assert "loud" not in sys.modules
