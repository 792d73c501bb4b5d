"""The experiment on what each strategy makes of the same time: what it takes of a search, compares and keeps."""

import json
from dataclasses import replace
from statistics import fmean, stdev
from types import SimpleNamespace

import pytest

from experiments import quality, strategies
from experiments.strategies import STRATEGIES, Search
from search.config import USUAL


def row(name, score):
    return SimpleNamespace(name=name, test_score=score)


def record(loss, epochs=3, is_valid=True):
    return SimpleNamespace(loss=loss, epochs=epochs, is_valid=is_valid)


ROWS = [row("winner", 0.9), row("second", None), row("ensemble", 0.95), row("plain MLP", 0.8)]
RECORDS = [record(0.4), record(0.2), record(0.2, epochs=0), record(0.1, is_valid=False)]


@pytest.mark.parametrize(("rows", "together"), [(ROWS, 0.95), (ROWS[:1], 0.9)])
def test_it_takes_the_winner_the_ensemble_and_the_lowest_loss(rows, together, monkeypatch):
    asked = []

    def searched(name, dataset, seed, strategy, seconds):
        asked.append((name, dataset.name, seed, strategy, seconds))
        return SimpleNamespace(rows=rows, records=RECORDS)

    monkeypatch.setattr(quality, "searched", searched)
    found = strategies.searched("wine", 3, "tpe", 2.0)
    assert found == Search("wine", 3, "tpe", 2.0, 3, 0.2, 0.9, together)
    assert asked == [("wine", "wine", 3, "tpe", 2.0)]
    assert strategies.searched(strategies.DIGITS, 4, "random", 1.0).data == strategies.DIGITS
    assert asked[1] == (strategies.DIGITS, "digits", 4, "random", 1.0)


def test_what_is_in_the_file_is_not_searched_again(tmp_path, monkeypatch):
    asked = []

    def searched(name, split, strategy, seconds):
        asked.append((split, strategy))
        return Search(name, split, strategy, seconds, 8, 0.5, 0.25 + split / 8 + (strategy == "tpe") / 8, 1.0)

    monkeypatch.setattr(strategies, "searched", searched)
    path = tmp_path / "strategies.csv"
    first = strategies.main(names=("wine",), splits=(1, 2), seconds=1.0, path=path)
    assert len(asked) == len(set(asked)) == 2 * len(STRATEGIES)
    assert [asked[i][1] for i in (0, len(STRATEGIES))] == [STRATEGIES[1], STRATEGIES[2]]  # in turns
    assert strategies.main(names=("wine",), splits=(1, 2), seconds=1.0, path=path) == first
    assert len(asked) == 2 * len(STRATEGIES)
    strategies.main(names=("wine",), splits=(1,), seconds=2.0, path=path)
    assert len(asked) == 3 * len(STRATEGIES)
    assert first["wine"]["tpe"]["winner"] == {"mean": 0.5625, "ahead": 0.125, "error": 0.0}
    assert first["wine"]["random"]["winner"] == {"mean": 0.4375, "ahead": 0.0, "error": 0.0}


def test_it_compares_split_by_split():
    ours = [Search("wine", split, "tpe", 1.0, 8, loss, 0.0, 0.0) for split, loss in enumerate((0.5, 0.4, 0.9))]
    theirs = [replace(one, strategy="random", loss=loss) for one, loss in zip(ours, (0.4, 0.5, 0.5), strict=True)]
    differences = [one.loss - other.loss for one, other in zip(ours, theirs, strict=True)]
    assert strategies.figures(ours, theirs)["loss"] == {
        "mean": pytest.approx(0.6), "ahead": fmean(differences), "error": stdev(differences) / 3**0.5,
    }  # fmt: skip


def test_every_strategy_is_there_and_the_default_is_as_good_as_random_search_beyond_noise():
    found = json.loads((strategies.FOLDER / "strategies.json").read_text())["result"]
    assert USUAL["strategy"] in STRATEGIES
    assert all(tuple(found[name]) == STRATEGIES for name in strategies.DATA)
    for what, sign in (("loss", -1), ("winner", 1), ("together", 1)):
        ours = [found[name][USUAL["strategy"]][what] for name in strategies.DATA]
        assert all(sign * one["ahead"] > -3 * one["error"] for one in ours)
        errors = [sign * one["ahead"] / one["error"] for one in ours]
        assert fmean(errors) > -2 / len(errors) ** 0.5


def test_the_file_has_what_the_results_are_made_of():
    found = json.loads((strategies.FOLDER / "strategies.json").read_text())["result"]
    known = strategies.read(strategies.FOLDER / "strategies.csv")
    splits = range(strategies.FIRST, strategies.FIRST + strategies.SPLITS)
    for name in strategies.DATA:
        for strategy in STRATEGIES:
            pairs = [[known[name, split, one, found["seconds"]] for split in splits] for one in (strategy, "random")]
            assert found[name][strategy] == strategies.figures(*pairs)
