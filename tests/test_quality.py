"""The experiment on the quality of what is found: whose scores it takes, compares and keeps."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import wilcoxon

from experiments import quality
from search.record import Row


def row(name, score, trial=None):
    return Row(name, trial, None, None, None, None, score, 1, 1, 1, 0.1)


ROWS = [
    row("winner", 0.9, 3), row("second", None, 5), row("ensemble", 0.95, 3), row("random (median of 5)", 0.7),
    row("plain MLP", 0.8), row("scikit-learn (SVM)", 0.85),
]  # fmt: skip
OTHERS = [row("winner", 0.6, 1), row("ensemble", 0.65, 1), row("plain MLP", 0.1), row("scikit-learn (SVM)", 0.1)]


def test_the_held_out_part_is_the_quarter_that_scikit_learn_holds_out():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    _, outside, _, asked = train_test_split(x, y, test_size=0.25, random_state=3)
    found = quality.data("digits", 3)
    values = np.asarray(found.classes)[found.test.y]
    assert np.array_equal(values, asked)
    assert found.shape.size == (8, 8)
    pixels = found.test.x.reshape(len(outside), -1)
    assert np.corrcoef(pixels.ravel(), outside.ravel())[0, 1] > 0.99
    assert len(found.train) + len(found.validation) == len(x) - len(outside)


def test_rivals_are_those_of_the_first_search():
    scores = quality.scores_of(quality.data("breast_cancer", 0), ROWS, OTHERS)
    assert scores == {
        "winner": 0.9, "ensemble": 0.95, "random": 0.7, "plain": 0.8, "scikit-learn": 0.85,
        "random search": 0.6, "random search, ensemble": 0.65,
    }  # fmt: skip


def test_of_a_series_it_is_the_root_of_the_mean_squared_error():
    series = quality.data("sunspots", 0)
    known = series.values(series.test)
    scores = quality.scores_of(series, [row("winner", 0.9, 1)], [])
    assert scores == {"winner": pytest.approx(math.sqrt(0.1 * np.mean((known - known.mean()) ** 2)))}


def test_each_is_compared_with_the_winner_and_ensembles_with_each_other():
    rng = np.random.default_rng(0)
    names = ("winner", "ensemble", "plain", "random search, ensemble", "seconds", "limit")
    runs = [dict(zip(names, rng.integers(900, 990, 6) / 1000, strict=True)) for _ in range(10)]
    told = quality.summary(runs)
    of = {name: np.array([run[name] for run in runs]) for name in names}
    assert [*told] == [*names[:4]]
    assert told["winner"]["p"] is None
    for name, ours in (("plain", "winner"), ("ensemble", "winner"), ("random search, ensemble", "ensemble")):
        assert told[name]["p"] == pytest.approx(wilcoxon(np.round(of[ours] - of[name], 3)).pvalue)
        assert (told[name]["mean"], told[name]["sd"]) == pytest.approx((of[name].mean(), of[name].std(ddof=1)))


def test_a_name_that_not_all_have_is_left_out():
    assert [*quality.summary([{"winner": 1.0, "ensemble": 1.0}, {"winner": 0.9}])] == ["winner"]


def test_what_was_searched_for_as_long_is_not_searched_again(tmp_path, monkeypatch):
    seen = []

    def searched(name, dataset, seed, strategy, seconds):
        seen.append((name, seed, strategy, seconds))
        return SimpleNamespace(rows=ROWS if strategy == "evolution" else OTHERS)

    monkeypatch.setattr(quality, "searched", searched)
    path, asked = tmp_path / "quality.csv", {"breast_cancer": 2}
    first = quality.main(datasets=asked, seconds=5.0, path=path)
    both = [("breast_cancer", seed, strategy, 5.0) for seed in (0, 1) for strategy in ("evolution", "random")]
    assert seen == both
    again = quality.main(datasets=asked, seconds=5.0, path=path)
    assert seen == both
    assert first["breast_cancer"]["summary"] == again["breast_cancer"]["summary"]
    quality.main(datasets={"breast_cancer": 1}, seconds=6.0, path=path)
    assert seen[4:] == [("breast_cancer", 0, strategy, 6.0) for strategy in ("evolution", "random")]
    assert "winner" in quality.table(first, asked)


def test_the_page_has_the_figures_of_the_results():
    found = json.loads((quality.FOLDER / "quality.json").read_text())["result"]
    page = (Path(__file__).parents[1] / "docs" / "quality.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| ")][1:]
    names = ("winner", "ensemble", "random search", "plain", "scikit-learn")
    for data, line in zip(quality.DATA, lines, strict=True):
        summary, (_, *cells) = found[data]["summary"], line.strip("| ").split(" | ")
        digits = 2 if data == "sunspots" else 4
        wanted = [(f"{summary[n]['mean']:.{digits}f}", summary[n]["p"]) if n in summary else None for n in names]
        assert cells == ["" if w is None else w[0] if w[1] is None else f"{w[0]} ({w[1]:.3f})" for w in wanted]
