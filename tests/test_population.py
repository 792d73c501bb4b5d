"""A candidate trained in a population fares as it does alone, and as in a loop of plain torch."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from helpers import calibrated, concatenations
from sklearn.metrics import accuracy_score, log_loss, r2_score

from machgraph.partition import channel_mask, shortcut_mask
from search.data import from_arrays, load
from search.point import Point
from search.population import evaluate, outputs, refit, scores, slow, train
from search.recipe import Recipe
from search.training.machine import build

PLAIN = Recipe(epochs=6, rungs=(), patience=None)
POINTS = [
    Point((8,), ("tanh",), shortcut_mask("sequential", 3), 0.01, batch_size=32),
    Point((12, 4, 6), ("relu", "gelu", "tanh"), shortcut_mask(None, 5), 0.004, batch_size=32),
    Point((), (), shortcut_mask(None, 2), 0.02, batch_size=32),
    Point((4, 8), ("silu", "tanh"), [[0] * 4, [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]], 0.008, batch_size=32),
]
MIXED = [replace(point, batch_size=size) for point, size in zip(POINTS, (16, 65, 10_000, 32), strict=True)]


@pytest.fixture(scope="module", params=["breast_cancer", "diabetes"])
def dataset(request):
    return load(request.param, seed=1)


@pytest.fixture(scope="module")
def outcomes(dataset):
    return train(POINTS, (dataset,), PLAIN, seed=3)


def without(dataset, *names):
    """The data set with nothing but not-a-number in these parts."""
    parts = {name: getattr(dataset, name) for name in names}
    return replace(dataset, **{n: replace(part, x=np.full_like(part.x, np.nan)) for n, part in parts.items()})


def mirrored(dataset):
    """The data set with a validation part whose answers are the opposite ones."""
    part = dataset.validation
    return replace(dataset, validation=replace(part, y=1 - part.y if dataset.classes else -part.y))


def descended(point, dataset, recipe, seed, initial=None):
    """The recipe written out, the machine after each epoch: autograd over concatenations, torch's own AdamW."""
    machine = build(point, dataset.shape, seed if initial is None else initial)
    x, y = torch.from_numpy(dataset.train.x), torch.from_numpy(dataset.train.y)
    size = min(point.batch_size, len(y))
    steps = min(len(y) // size, recipe.batches)
    optimizer = torch.optim.AdamW(machine.parameters(), lr=point.learning_rate, weight_decay=point.weight_decay)
    total = recipe.epochs * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.rate(step / total))
    for epoch in range(recipe.epochs):
        shuffled = torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(len(y)))
        for k in range(steps):
            batch = shuffled[k * size : (k + 1) * size]
            outputs = machine.output(concatenations(machine, x[batch])[1])
            if dataset.classes:
                loss = torch.nn.functional.cross_entropy(outputs, y[batch], label_smoothing=recipe.label_smoothing)
            else:
                loss = torch.nn.functional.mse_loss(outputs[:, 0], y[batch])
            optimizer.zero_grad()
            loss.backward()
            machine.bias.grad[: dataset.n_inputs] = 0  # the input's is not trained: its readers have their own
            optimizer.step()
            schedule.step()
        yield machine


def _same_machine(a, b, tolerance=2e-4):
    torch.testing.assert_close(a.weight, b.weight, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(a.bias, b.bias, rtol=tolerance, atol=tolerance)


def _same(a, b, tolerance=2e-4):
    assert (a.status, a.epochs, a.best_epoch) == (b.status, b.epochs, b.best_epoch)
    np.testing.assert_allclose(a.curve, b.curve, rtol=tolerance)
    _same_machine(a.machine, b.machine, tolerance)


@pytest.mark.parametrize("i", range(len(POINTS)))
def test_a_candidate_fares_as_it_does_alone(dataset, outcomes, i):
    (alone,) = train(POINTS[i : i + 1], (dataset,), PLAIN, seed=3)
    _same(outcomes[i], alone)


@pytest.mark.parametrize(
    ("change", "of_recipe"), [({}, {}), ({"batch_size": 65}, {}), ({}, {"batches": 3}), ({"weight_decay": 3.0}, {})]
)
def test_a_candidate_fares_as_in_plain_torch(dataset, change, of_recipe):
    points, recipe = [replace(point, **change) for point in POINTS], replace(PLAIN, **of_recipe)
    curve = []
    for machine in descended(points[1], dataset, recipe, seed=3):
        curve.append(calibrated(machine, dataset, dataset.validation))
    np.testing.assert_allclose(train(points, (dataset,), recipe, seed=3)[1].curve, curve, rtol=4e-3)
    mask = torch.from_numpy(channel_mask(machine.shortcuts, machine.partition))
    assert (machine.weight[~mask] == 0).all()


def test_masked_weights_stay_zero(dataset, outcomes):
    for point, outcome in zip(POINTS, outcomes, strict=True):
        mask = torch.from_numpy(channel_mask(point.mask, point.partition(dataset.shape)))
        assert (outcome.machine.weight[~mask] == 0).all()


def test_the_same_again_is_the_same_to_the_last_bit(dataset, outcomes):
    for a, b in zip(train(POINTS, (dataset,), PLAIN, seed=3), outcomes, strict=True):
        assert a.curve == b.curve
        assert torch.equal(a.machine.weight, b.machine.weight)
    assert train(POINTS[:1], (dataset,), PLAIN, seed=4)[0].curve != outcomes[0].curve


def test_loss_and_score_are_those_of_the_best_epoch(dataset, outcomes):
    for outcome in outcomes:
        assert (outcome.loss, outcome.best_epoch) == (outcome.curve[-1], PLAIN.epochs)
        figures = evaluate(outcome.machine, dataset, dataset.validation, outcome.sharpness)
        assert figures == pytest.approx((outcome.loss, outcome.score), rel=4e-3 if dataset.classes else 1e-5)


def test_scores_are_those_of_scikit_learn(dataset, outcomes):
    machine, part = outcomes[0].machine, dataset.validation
    outputs = machine.output(machine(torch.from_numpy(part.x))).detach()
    for loss, score in (evaluate(machine, dataset, part), scores(dataset, part, outputs.double().numpy())):
        if dataset.classes:
            assert loss == pytest.approx(log_loss(part.y, outputs.double().softmax(-1).numpy()), rel=1e-5)
            assert score == pytest.approx(accuracy_score(part.y, outputs.argmax(-1).numpy()))
        else:
            assert loss == pytest.approx(np.mean((outputs[:, 0].numpy() - part.y) ** 2), rel=1e-5)
            assert score == pytest.approx(r2_score(part.y, outputs[:, 0].numpy()), rel=1e-5)


@pytest.mark.parametrize("batch_size", [32, 65])
def test_halving_lets_the_best_go_on_undisturbed(dataset, batch_size):
    """Also among candidates that are not in one stack."""
    points = [replace(point, batch_size=batch_size) for point in POINTS]
    whole, halved = (train(points, (dataset,), r, seed=3) for r in (PLAIN, replace(PLAIN, rungs=(2, 4))))
    assert sorted(outcome.epochs for outcome in halved) == [2, 2, 4, 6]
    for a, b in zip(halved, whole, strict=True):
        np.testing.assert_allclose(a.curve, b.curve[: a.epochs], rtol=2e-4)
        assert a.status == ("complete" if a.epochs == 6 else "halved")
    best = sorted(min(b.curve[:2]) for b in whole)[:2]
    assert sorted(min(a.curve[:2]) for a in halved if a.epochs > 2) == pytest.approx(best, rel=1e-4)


def test_early_stopping_keeps_the_best_epoch(dataset):
    (outcome,) = train(POINTS[1:2], (dataset,), replace(PLAIN, epochs=200, patience=3), seed=3)
    assert outcome.status == "stopped"
    assert outcome.epochs == int(np.argmin(outcome.curve)) + 1 + 3 == outcome.best_epoch + 3


def test_one_that_diverges_leaves_and_harms_nobody(dataset, outcomes):
    wild = replace(POINTS[1], learning_rate=1e30)
    told = []
    mixed = train([POINTS[0], wild], (dataset,), PLAIN, seed=3, progress=lambda *news: told.append(news))
    assert mixed[1].status == "diverged"
    assert mixed[1].epochs < PLAIN.epochs
    _same(mixed[0], outcomes[0])
    assert told[-1] == (PLAIN.epochs, 0)


def test_nothing_to_train(dataset):
    assert train([], (dataset,), PLAIN, seed=0) == []
    assert refit([], dataset, PLAIN, [], seed=0, seeds=[]) == []


def test_nobody_looks_at_the_held_out_part(dataset, outcomes):
    for a, b in zip(train(POINTS, (without(dataset, "test"),), PLAIN, seed=3), outcomes, strict=True):
        assert a.curve == b.curve
        assert torch.equal(a.machine.weight, b.machine.weight)


# ---- batches of several sizes ------------------------------------------------------------------------------------


def test_candidates_of_several_batch_sizes_fare_as_alone_and_are_halved_together(dataset):
    """One of them takes all rows at once."""
    whole, halved = (train(MIXED, (dataset,), r, seed=3) for r in (PLAIN, replace(PLAIN, rungs=(2,))))
    for point, outcome in zip(MIXED, whole, strict=True):
        _same(outcome, train([point], (dataset,), PLAIN, seed=3)[0])
        curve = [calibrated(m, dataset, dataset.validation) for m in descended(point, dataset, PLAIN, seed=3)]
        np.testing.assert_allclose(outcome.curve, curve, rtol=1e-2)  # of a parabola
    best = sorted(range(len(MIXED)), key=lambda i: whole[i].curve[1])[:2]
    assert [i for i, outcome in enumerate(halved) if outcome.status == "complete"] == sorted(best)


# ---- folds -------------------------------------------------------------------------------------------------------


def test_several_folds_are_each_fold_alone_and_their_mean(dataset):
    folds = dataset.folds(3, seed=1)
    alone = [train(MIXED, (fold,), PLAIN, seed=3) for fold in folds]
    told = []
    for i, outcome in enumerate(train(MIXED, folds, PLAIN, seed=3, progress=lambda *news: told.append(news))):
        curve = np.mean([outcomes[i].curve for outcomes in alone], axis=0)
        np.testing.assert_allclose(outcome.curve, curve, rtol=1e-4)
        assert (outcome.status, outcome.epochs) == ("complete", PLAIN.epochs)
        assert (outcome.loss, outcome.best_epoch) == (outcome.curve[-1], PLAIN.epochs)
        best = [next(islice(descended(MIXED[i], fold, PLAIN, 3), outcome.best_epoch - 1, None)) for fold in folds]
        parts = [(machine, fold, fold.validation) for machine, fold in zip(best, folds, strict=True)]
        assert outcome.loss == pytest.approx(np.mean([calibrated(*part) for part in parts]), rel=4e-3)
        assert outcome.score == pytest.approx(np.mean([evaluate(*part)[1] for part in parts]), rel=1e-3, abs=1e-3)
        _same_machine(outcome.machine, best[0], 1e-3)
    assert told == sorted(told, key=lambda news: (news[0], -news[1]))
    assert told[-1] == (PLAIN.epochs, 0)


def test_stopping_goes_by_the_mean_over_folds(dataset):
    recipe, folds = replace(PLAIN, epochs=200, patience=3), (dataset, mirrored(dataset))
    together, *alone = (train(POINTS[1:2], some, recipe, seed=3)[0] for some in (folds, folds[:1], folds[1:]))
    assert together.status == "stopped"
    assert together.epochs == int(np.argmin(together.curve)) + 1 + 3 == together.best_epoch + 3
    least = min(len(one.curve) for one in (together, *alone))
    mean = np.mean([one.curve[:least] for one in alone], axis=0)
    np.testing.assert_allclose(together.curve[:least], mean, rtol=1e-4)
    assert together.epochs < alone[0].epochs  # which the first fold alone would not have done


def test_halving_goes_by_the_mean_over_folds(dataset):
    folds = dataset, mirrored(dataset)
    whole, halved = (train(POINTS, folds, r, seed=3) for r in (PLAIN, replace(PLAIN, rungs=(2,))))
    first = train(POINTS, folds[:1], PLAIN, seed=3)
    by_mean, by_first = (sorted(range(4), key=lambda i: some[i].curve[1])[:2] for some in (whole, first))
    assert [i for i, outcome in enumerate(halved) if outcome.status == "complete"] == sorted(by_mean)
    assert sorted(by_mean) != sorted(by_first)


def test_one_that_diverges_on_a_later_fold_has_diverged(dataset):
    (outcome,) = train(POINTS[:1], (dataset, without(dataset, "train")), PLAIN, seed=3)
    assert (outcome.status, outcome.epochs, outcome.best_epoch) == ("diverged", 1, 0)
    assert np.isnan([outcome.loss, outcome.score]).all()


# ---- initial weights, and training without validation ------------------------------------------------------------


def test_each_candidate_may_begin_with_weights_of_its_own(dataset, outcomes):
    points, seeds = [POINTS[1]] * 3 + [POINTS[0]], [3, 8, 9, 8]
    several = train(points, (dataset,), PLAIN, seed=3, seeds=seeds)
    _same(several[0], outcomes[1])
    for point, seed, outcome in zip(points, seeds, several, strict=True):
        (alone,) = train([point], (dataset,), PLAIN, seed=3, seeds=[seed])
        _same(outcome, alone)
    *_, machine = descended(POINTS[1], dataset, PLAIN, seed=3, initial=8)
    assert several[1].curve[-1] == pytest.approx(calibrated(machine, dataset, dataset.validation), rel=4e-3)
    assert several[1].curve != several[2].curve
    with pytest.raises(ValueError, match="shorter"):
        train(points, (dataset,), PLAIN, seed=3, seeds=[1])


def test_a_refit_is_plain_torch_on_all_rows_that_are_not_held_out(dataset):
    whole = dataset.whole()
    assert len(whole.train) == len(dataset.train) + len(dataset.validation)
    points, epochs, seeds = [*MIXED, MIXED[0]], (2, 6, 3, 1, 4), (3, 8, 3, 9, 3)
    machines = refit(points, whole, PLAIN, epochs, seed=3, seeds=seeds)
    for point, last, initial, machine in zip(points, epochs, seeds, machines, strict=True):
        *_, expected = descended(point, whole, replace(PLAIN, epochs=last), 3, initial)  # a schedule of its own length
        _same_machine(machine, expected, 1e-3)
        (alone,) = refit([point], whole, PLAIN, [last], seed=3, seeds=[initial])
        _same_machine(machine, alone)


def test_a_refit_looks_at_no_other_part_and_nothing_ends_it(dataset):
    hasty = replace(PLAIN, patience=1, rungs=(1, 2))
    options = {"epochs": [5] * 4, "seed": 3, "seeds": [3] * 4}
    seen, blind = (refit(POINTS, some, hasty, **options) for some in (dataset, without(dataset, "validation", "test")))
    for a, b, point in zip(seen, blind, POINTS, strict=True):
        assert torch.equal(a.weight, b.weight)
        assert torch.equal(a.bias, b.bias)
        *_, expected = descended(point, dataset, replace(PLAIN, epochs=5), 3)
        _same_machine(a, expected, 1e-3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "epochs=0: it must be at least 1"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0: it must be below 1"),
        ({"rungs": (30, 10)}, "rungs=\\(30, 10\\): they must increase"),
        ({"rungs": (60,)}, "between 1 and epochs - 1 = 59"),
        ({"warm_up": 0.0}, "warm_up=0.0: it must be a fraction"),
        ({"label_smoothing": float("nan")}, "label_smoothing=nan"),
    ],
)
def test_recipes_that_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Recipe(**change)


@pytest.mark.parametrize("decay", [float("nan"), -0.1, float("inf")])
def test_a_decay_of_weights_that_is_refused(decay):
    with pytest.raises(ValueError, match=f"weight_decay={decay}"):
        replace(POINTS[0], weight_decay=decay)


# ---- transforms of the answers -------------------------------------------------------------------------------------


def test_candidates_of_several_transforms_are_compared_in_the_unit_of_the_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    data = from_arrays(x, np.exp(x[:, 0] + 0.5 * x[:, 1]) + 1, seed=0)
    point = Point((8,), ("tanh",), shortcut_mask(None, 3), 1e-2, 0.01, 16)
    points = [point, replace(point, transform="log"), replace(point, transform="sqrt")]
    recipe = Recipe(epochs=12, patience=None, rungs=())
    given, log, root = train(points, (data,), recipe, seed=1)
    assert log.loss < given.loss  # the answers are a logarithm's
    for outcome, name in ((given, None), (log, "log"), (root, "sqrt")):
        learned = data if name is None else data.transformed(name)
        said = outputs(outcome.machine, learned, learned.validation)
        noise = np.sqrt(np.mean((said[:, 0] - learned.validation.y) ** 2))
        assert outcome.noise == pytest.approx(0 if name is None else noise, rel=1e-3)
        learned = replace(learned, encoder=learned.encoder.noisy(outcome.noise))
        error = learned.error(learned.validation, said)
        scale = data.encoder.target_scale
        assert outcome.loss == pytest.approx((error / scale) ** 2, rel=1e-3)
        assert outcome.score == pytest.approx(learned.score(learned.validation, said), rel=1e-3)
    _same_machine(train(points[1:2], (data,), recipe, seed=1)[0].machine, log.machine, 0.0)


def test_candidates_of_each_transform_are_halved_among_themselves():
    """Their losses after a few epochs say little of each other."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    data = from_arrays(x, np.exp(x[:, 0] + 0.5 * x[:, 1]) + 1, seed=0)
    point = Point((8,), ("tanh",), shortcut_mask(None, 3), 1e-2, 0.01, 16)
    points = [replace(point, learning_rate=r, transform=t) for t in ("given", "log") for r in (1e-2, 8e-3, 6e-3, 4e-3)]
    whole, halved = (train(points, (data,), Recipe(epochs=6, rungs=rungs), seed=1) for rungs in ((), (2,)))
    early = [outcome.curve[1] for outcome in whole]
    alike = [sorted(some, key=early.__getitem__)[:2] for some in (range(4), range(4, 8))]
    best = sorted(alike[0] + alike[1])
    assert best != sorted(sorted(range(8), key=early.__getitem__)[:4])
    assert [i for i in range(8) if halved[i].status == "complete"] == best


def test_the_slow_are_told_of_each_kind_and_transform_alone():
    dense = Point((), (), shortcut_mask(None, 2), 1e-2)
    grid = replace(dense, kind="convolution", scales=(0,), kernel=1)
    points = [dense, replace(dense, transform="log"), grid, dense, replace(dense, transform="log"), dense]
    assert sorted(slow(points, [(3.0,), (1.0,), (9.0,), (2.0,), (0.5,), (1.5,)], 2)) == [0, 1]
    assert slow([], [], 2) == []
