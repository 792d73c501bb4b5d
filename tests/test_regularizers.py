"""Regularizers of a point: searched like any other choice, and in training what a loop of plain torch makes of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import calibrated, concatenations

from machgraph import population as of_machines
from machgraph.partition import shortcut_mask
from search import population, study
from search.data import from_arrays
from search.isomorphism.canonical import key
from search.point import Point
from search.population import refit, train
from search.recipe import Recipe
from search.record import Settings
from search.space import Space
from search.strategies.mutation import mutate
from search.training.machine import build

POINT = Point((6, 4), ("tanh", "relu"), shortcut_mask(None, 4), 0.02, 0.1, batch_size=16)
STRENGTHS = {"block_penalty": 0.1, "smoothing": 0.2, "input_noise": 0.5, "input_dropout": 0.3}
RECIPE = Recipe(epochs=4, rungs=())
SPACE = Space(
    max_blocks=2,
    widths=(4, 8),
    block_penalties=(0, 0.1, 0.2),
    smoothings=(0.0, 0.1),
    input_noises=(0.3,),
    input_dropouts=(0, 0.2),
)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 5))
    return from_arrays(x, np.where(x[:, 0] * x[:, 1] > 0, "up", "down") + np.where(x[:, 2] > 0.5, "!", ""), seed=0)


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(120, 4))
    return from_arrays(x, np.sin(x[:, 0]) + x[:, 1] ** 2, seed=0)


def disturbed(x, point, seed, epoch):
    """The features of an epoch: noise is added, then some are left out."""
    noise = np.random.default_rng((seed, epoch, 1)).standard_normal(x.shape, dtype=np.float32)
    left = np.random.default_rng((seed, epoch, 2)).random(x.shape, dtype=np.float32) >= point.input_dropout
    return torch.from_numpy(left / (1 - point.input_dropout)).float() * (
        x + point.input_noise * torch.from_numpy(noise)
    )


def shrunk(machine, amount):
    """The group lasso's proximal step, group by group."""
    bounds = machine.partition.bounds
    for i, j in np.argwhere(machine.shortcuts):
        group = machine.weight[bounds[i] : bounds[i + 1], bounds[j] : bounds[j + 1]]
        norm = group.norm()
        group *= max(0.0, 1 - amount * group.numel() ** 0.5 / norm) if norm > 0 else 0.0


def descended(point, dataset, recipe, seed):
    """The recipe written out, the machine after each epoch."""
    machine, x, y = build(point, dataset.shape, seed), *map(torch.from_numpy, (dataset.train.x, dataset.train.y))
    steps = len(y) // point.batch_size
    optimizer = torch.optim.AdamW(machine.parameters(), lr=point.learning_rate, weight_decay=point.weight_decay)
    smoothing = recipe.label_smoothing if point.smoothing is None else point.smoothing
    for epoch in range(recipe.epochs):
        order = torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(len(y)))[: steps * point.batch_size]
        inputs, targets, way = disturbed(x[order], point, seed, epoch), y[order], 0.0
        for k in range(steps):
            some = slice(k * point.batch_size, (k + 1) * point.batch_size)
            outputs = machine.output(concatenations(machine, inputs[some])[1])
            if dataset.classes:
                loss = torch.nn.functional.cross_entropy(outputs, targets[some], label_smoothing=smoothing)
            else:
                loss = torch.nn.functional.mse_loss(outputs[:, 0], targets[some])
            optimizer.zero_grad()
            loss.backward()
            machine.bias.grad[: dataset.n_inputs] = 0
            rate = point.learning_rate * recipe.rate((epoch + k / steps) / recipe.epochs)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
            way += rate
        with torch.no_grad():
            shrunk(machine, point.block_penalty * way)
        yield machine


def stacked(monkeypatch):
    """All candidates as one tensor program of torch."""
    monkeypatch.setattr(of_machines, "trains", lambda machine: False)
    monkeypatch.setattr(population, "trains", lambda machine: False)


@pytest.mark.parametrize("name", [*STRENGTHS, "all"])
@pytest.mark.parametrize("trainer", ["compiled", "stacked"])
def test_a_regularized_candidate_fares_as_in_plain_torch(dataset, monkeypatch, name, trainer):
    if trainer == "stacked":
        stacked(monkeypatch)
    point = replace(POINT, **(STRENGTHS if name == "all" else {name: STRENGTHS[name]}))
    other = replace(POINT, widths=(5, 3), smoothing=0.4, block_penalty=0.3)
    outcome = train([other, point], (dataset,), RECIPE, seed=3)[1]
    curve = [calibrated(machine, dataset, dataset.validation) for machine in descended(point, dataset, RECIPE, 3)]
    np.testing.assert_allclose(outcome.curve, curve, rtol=4e-3)
    *_, expected = descended(point, dataset, RECIPE, 3)
    (machine,) = refit([point], dataset, RECIPE, [RECIPE.epochs], seed=3, seeds=[3])
    for found in (outcome.machine, machine):
        torch.testing.assert_close(found.weight, expected.weight, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found.bias, expected.bias, rtol=1e-3, atol=1e-3)
    (plain,) = train([POINT], (dataset,), RECIPE, seed=3)
    assert outcome.curve != plain.curve


def test_values_are_learned_with_noise_and_a_penalty_too(values):
    point = replace(POINT, input_noise=0.3, block_penalty=0.1)
    (machine,) = refit([point], values, RECIPE, [RECIPE.epochs], seed=3, seeds=[3])
    *_, expected = descended(point, values, RECIPE, 3)
    torch.testing.assert_close(machine.weight, expected.weight, rtol=1e-3, atol=1e-3)


def test_a_strong_penalty_lets_go_of_shortcuts_for_good(dataset):
    bounds = build(POINT, dataset.shape, 0).partition.bounds
    (machine,) = refit([replace(POINT, block_penalty=1.2)], dataset, RECIPE, [4], seed=0, seeds=[0])
    blocks = [machine.weight[bounds[i] : bounds[i + 1], bounds[j] : bounds[j + 1]] for i, j in np.argwhere(POINT.mask)]
    gone = sum(not block.any() for block in blocks)
    assert 0 < gone < len(blocks)


def test_a_recurrence_is_shrunk_lag_by_lag(values):
    own = ((False,) * 3, (False, True, False), (False,) * 3)
    point = Point((5,), ("tanh",), shortcut_mask("sequential", 3), 0.02, kind="recurrence", recurrences=(own,))
    one = replace(values, encoder=replace(values.encoder, image=(1, 4)))
    plain, shrunk = (
        refit([some], one, replace(RECIPE, warm_up=0.5), [1], seed=0, seeds=[0])[0]
        for some in (point, replace(point, block_penalty=0.3))
    )
    steps = len(one.train) // 64
    way = sum(0.02 * replace(RECIPE, warm_up=0.5).rate(k / steps) for k in range(steps))
    first, hidden = slice(1, 6), slice(0, 1)
    for rows, columns, lag, size in ((first, hidden, 0, 5), (first, first, 1, 25), (slice(6, 7), first, 0, 5)):
        before = plain.weight.detach()[rows, columns, lag]
        expected = before * max(0.0, 1 - 0.3 * way * size**0.5 / before.norm().item())
        torch.testing.assert_close(shrunk.weight.detach()[rows, columns, lag], expected, rtol=1e-5, atol=1e-6)


# ---- in the space ------------------------------------------------------------------------------------------------


def test_the_default_space_and_its_points_know_of_none():
    plain = Space(max_blocks=1)
    assert not set(STRENGTHS) & set(plain.parameters)
    point = plain.sample(np.random.default_rng(0))
    assert {name: getattr(point, name) for name in STRENGTHS} == {**dict.fromkeys(STRENGTHS, 0.0), "smoothing": None}
    assert plain.decode(plain.encode(point)) == point
    with pytest.raises(ValueError, match=r"block_penalty=0.1, which is not in the space"):
        plain.encode(replace(point, block_penalty=0.1))


def test_points_of_before_are_read_and_named_as_before():
    record = POINT.to_dict()
    former = {name: value for name, value in record.items() if name not in STRENGTHS}
    assert Point.from_dict(former) == Point.from_dict(json.loads(json.dumps(record))) == POINT
    keys = {key(replace(POINT, **{name: value}), seed=0, budget=4) for name, value in STRENGTHS.items()}
    assert len(keys | {key(POINT, seed=0, budget=4)}) == 5


def test_regularizers_are_coded_counted_and_mutated():
    assert [SPACE.parameters[name] for name in STRENGTHS] == [(0, 0.1, 0.2), (0, 0.1), (0.3,), (0, 0.2)]
    neutral = replace(SPACE, block_penalties=(0.0,), smoothings=None, input_noises=(0.0,), input_dropouts=(0.0,))
    assert SPACE.count() == 12 * neutral.count()
    assert SPACE.count_classes() == 12 * neutral.count_classes()
    rng, point, seen = np.random.default_rng(0), SPACE.sample(np.random.default_rng(1)), set()
    for _ in range(300):
        point = mutate(point, SPACE, rng)
        assert SPACE.decode(SPACE.encode(point)) == point
        seen.add((point.block_penalty, point.smoothing, point.input_noise, point.input_dropout))
    assert len(seen) == 12


def test_settings_with_regularizers_are_read_back_from_json():
    settings = Settings("digits", None, None, 0, "evolution", 5, None, 4, SPACE, RECIPE)
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"block_penalties": (-0.1, 0.0)}, "block_penalty=-0.1: it must be a number from 0 on"),
        ({"smoothings": (0.0, 1.0)}, "smoothing=1.0: it must be a number from 0 to below 1"),
        ({"smoothings": ()}, "smoothings"),
        ({"input_noises": (0.2, 0.1)}, "input_noises=.*increasing order"),
        ({"input_dropouts": ("half",)}, "input_dropout='half'"),
        ({"input_noises": (float("nan"),)}, "input_noise=nan"),
    ],
)
def test_strengths_that_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Space(**change)


def test_smoothings_are_refused_for_values_before_anything_is_trained(values, tmp_path):
    settings = Settings("made", None, None, 0, "random", 2, None, 2, SPACE, RECIPE)
    with pytest.raises(ValueError, match=r"smoothings for the numbers of .*: they are for classes, so leave them out"):
        study.run(settings, values, tmp_path / "run")
    assert not (tmp_path / "run").exists()
