"""A candidate trained in a population fares as it does alone, and as in a loop of plain torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import concatenations
from sklearn.metrics import accuracy_score, log_loss, r2_score

from machgraph.partition import channel_mask, shortcut_mask
from search.data import load
from search.point import Point
from search.population import build, evaluate, train, trained
from search.recipe import Recipe

PLAIN = Recipe(epochs=6, batch_size=32, rungs=(), patience=None)
POINTS = [
    Point((8,), ("tanh",), shortcut_mask("sequential", 3), 0.01),
    Point((12, 4, 6), ("relu", "gelu", "tanh"), shortcut_mask(None, 5), 0.004),
    Point((), (), shortcut_mask(None, 2), 0.02),
    Point((4, 8), ("silu", "tanh"), [[0] * 4, [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]], 0.008),
]


@pytest.fixture(scope="module", params=["breast_cancer", "diabetes"])
def dataset(request):
    return load(request.param, seed=1)


@pytest.fixture(scope="module")
def outcomes(dataset):
    return train(POINTS, dataset, PLAIN, seed=3)


def _same(a, b, tolerance=2e-4):
    assert (a.status, a.epochs) == (b.status, b.epochs)
    np.testing.assert_allclose(a.curve, b.curve, rtol=tolerance)
    torch.testing.assert_close(a.weight, b.weight, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(a.bias, b.bias, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("i", range(len(POINTS)))
def test_a_candidate_fares_as_it_does_alone(dataset, outcomes, i):
    (alone,) = train(POINTS[i : i + 1], dataset, PLAIN, seed=3)
    _same(outcomes[i], alone)


@pytest.mark.parametrize("change", [{}, {"batch_size": 65}, {"batches": 3}])
def test_a_candidate_fares_as_in_plain_torch(dataset, change):
    """The recipe written out: one machine, autograd over concatenations, torch's own optimizer and schedule."""
    point, recipe = POINTS[1], replace(PLAIN, **change)
    machine = build(point, dataset, seed=3)
    mask = torch.from_numpy(channel_mask(machine.shortcuts, machine.partition))
    x, y = torch.from_numpy(dataset.train.x), torch.from_numpy(dataset.train.y)
    steps = min(len(y) // recipe.batch_size, recipe.batches)
    optimizer = torch.optim.AdamW(machine.parameters(), lr=point.learning_rate, weight_decay=recipe.weight_decay)
    total = recipe.epochs * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.rate(step / total))
    order, curve = torch.Generator().manual_seed(3), []
    for _ in range(recipe.epochs):
        shuffled = torch.randperm(len(y), generator=order)
        for k in range(steps):
            batch = shuffled[k * recipe.batch_size : (k + 1) * recipe.batch_size]
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
        curve.append(evaluate(machine, dataset, dataset.validation)[0])
    np.testing.assert_allclose(train(POINTS, dataset, recipe, seed=3)[1].curve, curve, rtol=1e-3)
    assert (machine.weight[~mask] == 0).all()


def test_masked_weights_stay_zero(dataset, outcomes):
    for point, outcome in zip(POINTS, outcomes, strict=True):
        partition = point.partition(dataset.n_inputs, dataset.n_outputs)
        assert (outcome.weight[~torch.from_numpy(channel_mask(point.mask, partition))] == 0).all()


def test_the_same_again_is_the_same_to_the_last_bit(dataset, outcomes):
    for a, b in zip(train(POINTS, dataset, PLAIN, seed=3), outcomes, strict=True):
        assert a.curve == b.curve
        assert torch.equal(a.weight, b.weight)
    assert train(POINTS[:1], dataset, PLAIN, seed=4)[0].curve != outcomes[0].curve


def test_loss_and_score_are_those_of_the_best_epoch(dataset, outcomes):
    for point, outcome in zip(POINTS, outcomes, strict=True):
        assert outcome.loss == min(outcome.curve)
        machine = trained(point, dataset, outcome)
        assert evaluate(machine, dataset, dataset.validation) == pytest.approx((outcome.loss, outcome.score), rel=1e-5)


def test_scores_are_those_of_scikit_learn(dataset, outcomes):
    machine, part = trained(POINTS[0], dataset, outcomes[0]), dataset.validation
    loss, score = evaluate(machine, dataset, part)
    outputs = machine.output(machine(torch.from_numpy(part.x))).detach()
    if dataset.classes:
        assert loss == pytest.approx(log_loss(part.y, outputs.double().softmax(-1).numpy()), rel=1e-5)
        assert score == pytest.approx(accuracy_score(part.y, outputs.argmax(-1).numpy()))
    else:
        assert loss == pytest.approx(np.mean((outputs[:, 0].numpy() - part.y) ** 2), rel=1e-5)
        assert score == pytest.approx(r2_score(part.y, outputs[:, 0].numpy()), rel=1e-5)


@pytest.mark.parametrize("batch_size", [32, 65])
def test_halving_lets_the_best_go_on_undisturbed(dataset, batch_size):
    """Also among candidates that are not in one stack."""
    recipe = replace(PLAIN, batch_size=batch_size)
    whole, halved = (train(POINTS, dataset, r, seed=3) for r in (recipe, replace(recipe, rungs=(2, 4))))
    assert sorted(outcome.epochs for outcome in halved) == [2, 2, 4, 6]
    for a, b in zip(halved, whole, strict=True):
        np.testing.assert_allclose(a.curve, b.curve[: a.epochs], rtol=2e-4)
        assert a.status == ("complete" if a.epochs == 6 else "halved")
    best = sorted(min(b.curve[:2]) for b in whole)[:2]
    assert sorted(min(a.curve[:2]) for a in halved if a.epochs > 2) == pytest.approx(best, rel=1e-4)


def test_early_stopping_keeps_the_best_epoch(dataset):
    (outcome,) = train(POINTS[1:2], dataset, replace(PLAIN, epochs=200, patience=3), seed=3)
    assert outcome.status == "stopped"
    assert outcome.epochs == int(np.argmin(outcome.curve)) + 1 + 3


def test_one_that_diverges_leaves_and_harms_nobody(dataset, outcomes):
    wild = replace(POINTS[1], learning_rate=1e30)
    told = []
    mixed = train([POINTS[0], wild], dataset, PLAIN, seed=3, progress=lambda *news: told.append(news))
    assert mixed[1].status == "diverged"
    assert mixed[1].epochs < PLAIN.epochs
    _same(mixed[0], outcomes[0])
    assert told[-1] == (PLAIN.epochs, 1)


def test_nothing_to_train(dataset):
    assert train([], dataset, PLAIN, seed=0) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "epochs=0: it must be at least 1"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0: it must be below 1"),
        ({"rungs": (30, 10)}, "rungs=\\(30, 10\\): they must increase"),
        ({"rungs": (60,)}, "between 1 and epochs - 1 = 59"),
        ({"warm_up": 0.0}, "warm_up=0.0: it must be a fraction"),
        ({"weight_decay": float("nan")}, "weight_decay=nan"),
    ],
)
def test_recipes_that_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Recipe(**change)
