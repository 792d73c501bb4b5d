"""Searches that begin with the cuts of gated machines, and generations that take turns in their rungs."""

from dataclasses import replace

import pytest
from test_study import RECIPE, SPACE, Cut, cut_at, dataset, ledger, quiet, settings, source

from search import study, work
from search.isomorphism.canonical import canonical
from search.one_of import OneOf
from search.recipe import Recipe
from search.run import read_records
from search.space import Space
from search.strategies.differentiable import proposals

__all__ = ["dataset", "quiet", "source"]  # fixtures


def test_the_first_generation_is_of_cuts_and_the_rest_evolves(source, dataset, tmp_path):
    wish = settings(source, "differentiable", trials=18, population=6)
    result = study.run(wish, dataset, tmp_path / "whole")
    first = proposals(SPACE, dataset, RECIPE, (0, 0), 6)
    assert [record.canonical for record in result.records[: len(first)]] == [canonical(point) for point in first]
    assert len(first) >= 4

    with pytest.raises(Cut):
        study.run(wish, dataset, tmp_path / "cut", cut_at("training", 0, 1))
    study.resume(tmp_path / "cut")
    assert ledger(tmp_path / "cut") == ledger(tmp_path / "whole")


def test_gates_need_free_shortcuts(source, dataset, tmp_path):
    plain = replace(SPACE, shortcuts="all")
    with pytest.raises(ValueError, match="without free shortcuts"):
        study.run(settings(source, "differentiable", space=plain), dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    series = Space(kind="recurrence", lags=(1,))
    assert work.gateable(OneOf((SPACE, series))) == [SPACE]


def test_generations_take_turns_in_their_rungs(source, dataset, tmp_path, monkeypatch):
    told, real = [], work.train

    def train(points, folds, recipe, *rest, **more):
        told.append((recipe.rungs, len(points)))
        return real(points, folds, recipe, *rest, **more)

    monkeypatch.setattr(work, "train", train)
    recipe = Recipe(epochs=4, rungs=(1, 2), hyperband=True)
    study.run(settings(source, "random", trials=30, population=8, recipe=recipe), dataset, tmp_path)
    assert [rungs for rungs, _ in told[:4]] == [(1, 2), (2,), (), (1, 2)]
    records = read_records(tmp_path)
    # 1 + 1/2 + 2/4 = 2 of 4 epochs with both rungs, 2 + 2/2 = 3 with one: so 8, 5 and 4 candidates take as long
    sizes = [8, 5, 4, 8, 5]
    assert len(records) == sum(sizes)
    ends = [record.epochs for record in records if record.duplicate_of is None]
    assert set(ends) <= {1, 2, 4}
    generation = [record for record in records[13:17] if record.duplicate_of is None]
    assert {record.status for record in generation} == {"complete"}
