"""The end of a search, put together by hand from single trainings and scikit-learn's figures."""

import io
import shutil
from dataclasses import replace
from statistics import fmean, stdev

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score
from sklearn.neighbors import NearestCentroid

from machgraph.io import load as load_machine
from machgraph.partition import shortcut_mask
from search import study
from search.comparison import final as end
from search.comparison import finalists as few
from search.comparison import rivals
from search.comparison.final import final, folds_of, held_out, together
from search.comparison.finalists import DRAWS, FOLDS, SHARE, affordable, chosen
from search.comparison.leaderboard import NAMES
from search.data import load
from search.data.reading import _bundled
from search.facts import facts_of
from search.point import Point
from search.population import refit, train
from search.predict import answer
from search.recipe import Recipe
from search.run import Record, Settings
from search.space import Space
from search.training.machine import answers

SPACE = Space(max_blocks=2, widths=(2, 4), activations=("tanh", "relu"), learning_rates=(1e-2, 3e-2))
RECIPE = Recipe(epochs=5, patience=2, rungs=(1,))
WHOLE = replace(RECIPE, rungs=())
POINTS = [
    Point((8,), ("tanh",), shortcut_mask("sequential", 3), 0.01),
    Point((12, 4), ("relu", "gelu"), shortcut_mask(None, 4), 0.03, batch_size=32),
    Point((), (), shortcut_mask(None, 2), 0.02, weight_decay=1.0),
    Point((4, 8), ("silu", "tanh"), shortcut_mask(None, 4), 0.002),
]
RECORDS = [
    Record(10 + i, f"k{i}", point, point, "halved", 1, 0.1 + i, 0.5, 0.1, None, (0.1 + i,))
    for i, point in enumerate(POINTS)
]


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Of scikit-learn's models a quick one alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rivals, "_models", lambda dataset: {"quick": NearestCentroid()} if dataset.classes else {})
        patch.setattr(end, "reference", lambda dataset, seconds: rivals.reference(dataset) if dataset.classes else None)
        yield


@pytest.fixture(scope="module", params=["breast_cancer", "diabetes"])
def dataset(request):
    return load(request.param, seed=2)


def settings(dataset, **changes):
    return replace(
        Settings(dataset.name, None, None, 2, "random", 9, None, 3, SPACE, RECIPE, finalists=3, seeds=3), **changes
    )


def ended(dataset, best=RECORDS, **changes):
    wish = settings(dataset, **changes)
    return final(best, wish, dataset, facts_of(dataset, wish))


@pytest.fixture(scope="module")
def done(dataset):
    return ended(dataset)


def parts(dataset, number=FOLDS):
    """Folds that no candidate was chosen by."""
    return dataset.folds(number, 3)


def sharpness_of(outcomes):
    return fmean(outcome.sharpness for outcome in outcomes)


def alone(point, folds, seeds=(3, 4, 5)):
    """The outcomes of one point, each trained by itself."""
    return [train([point], folds, WHOLE, 2, seeds=[seed])[0] for seed in seeds]


def learned(point, dataset, outcomes, seeds=(3, 4, 5)):
    """Its machines, each trained by itself on all rows that are not held out."""
    epochs = round(fmean(outcome.best_epoch for outcome in outcomes))
    return [refit([point], dataset.whole(), WHOLE, [epochs], seed=2, seeds=[seed])[0] for seed in seeds]


def said(machine, dataset):
    with torch.no_grad():
        return answers(machine, torch.from_numpy(dataset.test.x), dataset.shape).double().numpy()


def figures(dataset, outputs):
    """Loss and score on the held-out part, of probabilities or values."""
    y = dataset.test.y
    if dataset.classes:
        return log_loss(y, outputs), accuracy_score(y, outputs.argmax(1))
    return mean_squared_error(y, outputs[:, 0]), r2_score(y, outputs[:, 0])


def each(dataset, machines, sharpness):
    outputs = [sharpness * said(machine, dataset) for machine in machines]
    return [figures(dataset, softmax(o, axis=1) if dataset.classes else o) for o in outputs]


def assert_held_out(row, dataset, machines, sharpness):
    losses, scores = zip(*each(dataset, machines, sharpness), strict=True)
    expected = fmean(losses), fmean(scores), stdev(scores)
    assert (row.test_loss, row.test_score, row.test_sd) == pytest.approx(expected, rel=2e-3, abs=1e-6)


# ---- finalists and winner ----------------------------------------------------------------------------------------


def test_finalists_are_ordered_by_their_mean_loss_over_initial_weights(dataset, done):
    results = {r.number: alone(r.canonical, parts(dataset)) for r in RECORDS[:3]}
    means = {number: fmean(outcome.loss for outcome in outcomes) for number, outcomes in results.items()}
    rows = done.rows[:3]
    assert [row.trial for row in rows] == sorted(means, key=means.get) != [10, 11, 12]  # the order of one luck each
    assert [row.name for row in rows] == list(NAMES[:3])
    assert done.finalists[0].record == RECORDS[rows[0].trial - 10]
    for row in rows:
        outcomes = results[row.trial]
        spread = stdev(outcome.loss for outcome in outcomes)
        assert (row.loss, row.loss_sd) == pytest.approx((means[row.trial], spread), rel=1e-3)
        assert row.score == pytest.approx(fmean(outcome.score for outcome in outcomes), rel=1e-3, abs=1e-3)
        assert (row.test_loss is None) == (row is not rows[0])


def test_winners_machines_are_trained_on_all_that_is_not_held_out(dataset, done):
    point = done.finalists[0].point
    outcomes = alone(point, parts(dataset))
    by_hand = learned(point, dataset, outcomes)
    assert done.finalists[0].sharpness == pytest.approx(sharpness_of(outcomes), rel=1e-3)
    for machine, expected in zip(done.finalists[0].machines, by_hand, strict=True):
        torch.testing.assert_close(machine.weight, expected.weight, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(machine.bias, expected.bias, rtol=1e-3, atol=1e-4)


def test_held_out_figures_are_those_of_the_machines(dataset, done):
    assert_held_out(done.rows[0], dataset, done.finalists[0].machines, done.finalists[0].sharpness)


def test_ensemble_answers_by_the_mean_of_its_members(dataset, done):
    row, finalists = done.rows[3], done.rows[:3]
    outputs = [done.finalists[0].sharpness * said(done.finalists[0].machines[0], dataset)]
    for other in finalists[1:]:
        outcomes = alone(other.point, parts(dataset))
        (machine,) = learned(other.point, dataset, outcomes, seeds=[3])
        outputs.append(sharpness_of(outcomes) * said(machine, dataset))
    mean = (softmax(outputs, axis=2) if dataset.classes else np.array(outputs)).mean(axis=0)
    assert (row.test_loss, row.test_score) == pytest.approx(figures(dataset, mean), rel=2e-3, abs=1e-6)
    assert (row.name, row.trial, row.point) == ("ensemble", finalists[0].trial, None)
    for name, whole in (("parameters", sum), ("flops", sum), ("depth", max)):
        assert getattr(row, name) == whole(getattr(other, name) for other in finalists)
    assert row.loss is row.score is row.loss_sd is row.test_sd is None


def test_one_seed_makes_no_deviation(dataset):
    told = ended(dataset, seeds=1)
    winner = told.rows[0]
    assert [row.name for row in told.rows][3:6] == ["ensemble", "random (median of 5)", "plain MLP"]
    assert len(told.finalists[0].machines) == 1
    assert all(row.loss_sd is row.test_sd is None for row in told.rows)
    assert [(winner.test_loss, winner.test_score)] == [
        pytest.approx(f) for f in each(dataset, told.finalists[0].machines, told.finalists[0].sharpness)
    ]


def test_fewer_records_than_finalists_are_all_there_are(dataset):
    told = ended(dataset, RECORDS[:1], finalists=5, seeds=2)
    assert [row.name for row in told.rows][:2] == ["winner", "random (median of 5)"]  # and one makes no ensemble


def test_validation_goes_over_the_folds_and_the_winner_learns_them_all(dataset):
    wish = settings(dataset, folds=3)
    folds = folds_of(dataset, wish)
    assert [len(fold.validation) for fold in folds] == [len(part.validation) for part in dataset.folds(3, 2)]
    assert folds_of(dataset, replace(wish, folds=1)) == (dataset,)
    told = ended(dataset, RECORDS[:2], folds=7)
    for row in told.rows[:2]:
        outcomes = alone(row.point, parts(dataset, 7))
        assert row.loss == pytest.approx(fmean(outcome.loss for outcome in outcomes), rel=1e-3)
    outcomes = alone(told.finalists[0].point, parts(dataset, 7))
    by_hand = learned(told.finalists[0].point, dataset, outcomes)
    assert_held_out(told.rows[0], dataset, by_hand, sharpness_of(outcomes))


def test_held_out_part_has_no_say(dataset, done):
    other = replace(dataset, test=replace(dataset.test, x=np.zeros_like(dataset.test.x)))
    blind = ended(other)
    assert blind.finalists[0].record == done.finalists[0].record
    for one, two in zip(blind.rows, done.rows, strict=True):
        assert (one.name, one.trial, one.loss, one.score) == (two.name, two.trial, two.loss, two.score)
    for one, two in zip(blind.finalists[0].machines, done.finalists[0].machines, strict=True):
        assert torch.equal(one.weight, two.weight)


# ---- rivals ------------------------------------------------------------------------------------------------------


def test_without_a_held_out_part_there_are_finalists_alone(dataset, done):
    nothing = replace(dataset, test=dataset.test.take(np.arange(0)))
    told = ended(nothing, seeds=3)
    assert [row.name for row in told.rows] == [*NAMES[:3]]
    assert all(row.test_loss is row.test_score is row.test_sd is None for row in told.rows)
    assert [(row.loss, row.trial) for row in told.rows] == [(row.loss, row.trial) for row in done.rows[:3]]
    for machine, expected in zip(told.finalists[0].machines, done.finalists[0].machines, strict=True):
        assert torch.equal(machine.weight, expected.weight)


def test_a_single_fold_needs_a_validation_part(dataset):
    with pytest.raises(ValueError, match="got folds=1 for data without validation rows"):
        folds_of(dataset.whole(), settings(dataset, folds=1))


def test_random_rival_is_the_middle_of_its_draws_trained_as_the_winner(dataset, done):
    (row,) = [row for row in done.rows if row.name == "random (median of 5)"]
    draws = rivals.draws(settings(dataset), dataset.shape, 5)
    outcomes = [alone(point, parts(dataset)[:1], seeds=[3])[0] for point in draws]
    middle = sorted(range(5), key=lambda i: outcomes[i].loss)[2]
    assert (row.point, row.trial) == (draws[middle], None)
    assert row.loss == pytest.approx(outcomes[middle].loss, rel=1e-3)
    assert_held_out(row, dataset, learned(draws[middle], dataset, [outcomes[middle]]), outcomes[middle].sharpness)


def test_plain_rival_is_trained_as_the_winner(dataset, done):
    (row,) = [row for row in done.rows if row.name == "plain MLP"]
    mlp = rivals.plain(done.finalists[0].point, dataset.shape)
    outcomes = alone(mlp, parts(dataset)[:1])
    assert (row.point, row.trial) == (mlp, None)
    assert row.loss == pytest.approx(fmean(outcome.loss for outcome in outcomes), rel=1e-3)
    assert_held_out(row, dataset, learned(mlp, dataset, outcomes), sharpness_of(outcomes))


def test_scikit_learn_comes_last_where_it_is_installed(dataset, done, monkeypatch):
    names = [row.name for row in done.rows]
    assert names[3:] == ["ensemble", "random (median of 5)", "plain MLP", "scikit-learn (quick)"][: len(names) - 3]
    assert len(names) == (7 if dataset.classes else 6)
    monkeypatch.setattr(end, "reference", lambda dataset, seconds: None)
    assert [row.name for row in ended(dataset).rows] == names[:6]


@pytest.mark.parametrize("rates", [(1e30,), (1e29, 1e30)])
def test_rivals_that_diverge_are_told_and_end_nothing(dataset, rates):
    told = ended(dataset, RECORDS[:1], seeds=2, space=replace(SPACE, learning_rates=rates, min_blocks=1))
    rows = {row.name: row for row in told.rows}
    assert np.isfinite([rows["winner"].loss, rows["winner"].test_loss, rows["plain MLP"].test_loss]).all()
    random = rows["random (median of 5)"]
    assert not np.isfinite([random.loss, random.test_loss]).any()
    assert random.loss_sd is None


def test_a_finalist_that_diverges_with_other_weights_is_no_winner(dataset, monkeypatch):
    def train_badly(points, folds, recipe, seed, *, seeds):
        outcomes = train(points, folds, recipe, seed, seeds=seeds)
        return [
            replace(o, status="diverged", loss=float("nan"), score=float("nan")) if (p, s) == (POINTS[1], 5) else o
            for o, p, s in zip(outcomes, points, seeds, strict=True)
        ]

    whole = ended(dataset)
    monkeypatch.setattr(end, "train", train_badly)
    told = ended(dataset)
    assert [row.trial for row in told.rows[:3]] == [*(r.trial for r in whole.rows[:3] if r.trial != 11), 11]
    assert not np.isfinite(told.rows[2].loss)
    assert told.rows[2].loss_sd is None


def test_machines_that_diverged_have_figures_that_are_not_finite(dataset, done):
    wild = [np.full((len(dataset.test), dataset.n_outputs), np.nan) for _ in done.finalists[0].machines]
    for row in (held_out(done.rows[0], wild, dataset), together(wild, done.rows[:3], [dataset] * len(wild))):
        assert not np.isfinite(row.test_loss)
        assert row.test_sd is None or dataset.classes  # there, nobody knows any class, and that is a score


def test_winner_may_be_a_convolution():
    whole = load("digits", seed=2)
    digits = replace(whole, **{n: getattr(whole, n).take(np.arange(100)) for n in ("train", "validation", "test")})
    options = {"kind": "convolution", "kernel": 3, "batch_size": 32}
    points = [
        Point((4, 3), ("tanh", "relu"), shortcut_mask(None, 4), 0.03, scales=(0, 1, 2), **options),
        Point((4,), ("tanh",), shortcut_mask(None, 3), 0.03, scales=(1, 3), **options),
    ]
    best = [replace(RECORDS[i], point=point, canonical=point) for i, point in enumerate(points)]
    told = ended(digits, best)
    outcomes = {r.number: alone(r.canonical, parts(digits)) for r in best}
    means = {number: fmean(outcome.loss for outcome in some) for number, some in outcomes.items()}
    assert [row.trial for row in told.rows[:2]] == sorted(means, key=means.get)
    assert_held_out(told.rows[0], digits, told.finalists[0].machines, told.finalists[0].sharpness)
    won = outcomes[told.rows[0].trial]
    assert_held_out(told.rows[0], digits, learned(told.finalists[0].point, digits, won), sharpness_of(won))
    (row,) = [row for row in told.rows if row.name == "plain CNN"]
    cnn = rivals.plain(told.finalists[0].point, digits.shape)
    assert row.point == cnn
    some = alone(cnn, parts(digits)[:1])
    assert_held_out(row, digits, learned(cnn, digits, some), sharpness_of(some))


# ---- what there is time for --------------------------------------------------------------------------------------


def timed(seconds):
    return [replace(record, epochs=2, seconds=s) for record, s in zip(RECORDS, seconds, strict=False)]


def test_without_a_limit_of_time_all_is_done(dataset):
    wish = settings(dataset, finalists=5, seeds=4)
    assert affordable(timed([1e9] * 4), wish) == (4, 4, FOLDS, DRAWS)
    assert affordable(timed([1e9] * 2), replace(wish, folds=7)) == (2, 4, 7, DRAWS)


@given(
    seconds=st.lists(st.floats(0, 10), min_size=1, max_size=4),
    limit=st.floats(0.01, 1e5),
    finalists=st.integers(1, 6),
    seeds=st.integers(1, 6),
)
def test_what_is_done_fits_into_its_share_of_the_time(dataset, seconds, limit, finalists, seeds):
    best, wish = timed(seconds), settings(dataset, finalists=finalists, seeds=seeds, trials=None, seconds=limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(few, "cores", lambda: 1)
        some, initial, folds, drawn = affordable(best, wish)
        more = affordable(best, replace(wish, seconds=10 * limit))
        patch.setattr(few, "cores", lambda: 2)
        wider = affordable(best, wish)
    assert 1 <= some <= min(finalists, len(best))
    assert 1 <= initial <= seeds
    assert 1 <= folds <= FOLDS
    assert drawn in (1, DRAWS)
    if (some, initial, folds) != (1, 1, 1):  # the trainings of the finalists alone, for the whole schedule
        assert sum(s / 2 * RECIPE.epochs for s in seconds[:some]) * initial * folds <= SHARE * limit
    assert some * initial * folds * drawn <= np.prod(more)
    assert some * initial * folds * drawn <= np.prod(wider)


def test_finalists_are_of_all_kinds():
    convolution = Point((4,), ("tanh",), shortcut_mask(None, 3), 0.03, kind="convolution", scales=(1, 3), kernel=3)
    best = [*RECORDS[:3], *(replace(RECORDS[3], number=n, point=convolution, canonical=convolution) for n in (20, 21))]
    assert [record.number for record in chosen(best, 1)] == [10]
    assert [record.number for record in chosen(best, 3)] == [10, 11, 20]
    assert [record.number for record in chosen(best, 4)] == [10, 11, 20, 21]
    assert chosen(best, 9) == best


def test_finalists_differ_in_their_widths_while_there_are_others():
    points = [
        Point(widths, ("relu",) * len(widths), shortcut_mask(shortcuts, len(widths) + 2), 0.03)
        for widths, shortcuts in (((8,), None), ((8,), "sequential"), ((16,), None), ((8, 8), None))
    ]
    best = [replace(RECORDS[0], number=n, point=point, canonical=point) for n, point in enumerate(points)]
    assert [record.number for record in chosen(best, 2)] == [0, 2]
    assert [record.number for record in chosen(best, 3)] == [0, 2, 3]
    assert [record.number for record in chosen(best, 4)] == [0, 1, 2, 3]


def test_much_time_allows_all_and_little_allows_one(dataset):
    brief = settings(dataset, trials=None, seconds=1e-6, finalists=4, seeds=6)
    assert affordable(timed([1.0] * 4), brief) == (1, 1, 1, 1)
    assert affordable(timed([1.0] * 4), replace(brief, seconds=1e6)) == (4, 6, FOLDS, DRAWS)


# ---- the ensemble on request -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "transform"), [("breast_cancer", "none"), ("diabetes", "none"), ("diabetes", "log")]
)
def test_the_ensemble_that_is_kept_answers_as_the_leaderboard_says(source, transform, tmp_path, monkeypatch):
    monkeypatch.setattr(end, "reference", lambda dataset, seconds: None)
    data = load(source, seed=0).transformed(transform)
    learned = ("given",) if transform == "none" else ("given", "sqrt")
    space = replace(SPACE, transforms=learned)
    made = Settings(
        source, None, None, 0, "random", 6, None, 6, space, Recipe(epochs=4, rungs=()), finalists=3, seeds=2
    )
    result = study.run(made, data, tmp_path / "run")
    row = next(row for row in result.rows if row.name == "ensemble")
    names = sorted(path.name for path in (tmp_path / "run" / "ensemble").iterdir())
    assert names == ["1.machgraph", "2.machgraph", "3.machgraph"]
    assert torch.equal(
        load_machine(tmp_path / "run" / "best.machgraph").weight,
        load_machine(tmp_path / "run" / "ensemble" / "1.machgraph").weight,
    )
    frame, target = _bundled(source, None)
    frame[data.test.rows].write_csv(tmp_path / "new.csv")
    for ensemble in (False, True):
        out = io.StringIO()
        answer(tmp_path / "run", tmp_path / "new.csv", out, ensemble=ensemble)
        said = pl.read_csv(io.StringIO(out.getvalue()))[target].to_numpy()
        known = frame[data.test.rows][target].to_numpy()
        score = accuracy_score(known, said) if data.classes else r2_score(known, said)
        if ensemble:
            assert score == pytest.approx(row.test_score, abs=1e-4)
    shutil.rmtree(tmp_path / "run" / "ensemble")
    with pytest.raises(FileNotFoundError, match="has no ensemble"):
        answer(tmp_path / "run", tmp_path / "new.csv", io.StringIO(), ensemble=True)
