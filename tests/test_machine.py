"""From points to machines, from rows to what machines read and say, and machines of several kinds side by side."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import calibrated
from hypothesis import given
from hypothesis import strategies as st

from machgraph.parametric import ConvMachine, DenseMachine
from machgraph.partition import shortcut_mask
from search.data import load
from search.isomorphism.canonical import canonical
from search.point import Point
from search.population import evaluate, refit, scores, train
from search.recipe import Recipe
from search.shape import Shape
from search.space import Space
from search.training.machine import answers, build, laid_out

PLAIN = Recipe(epochs=4, rungs=(), patience=None)
DENSE = Space(widths=(2, 3), activations=("tanh", "relu"))
GRID = replace(DENSE, kind="convolution", kernels=(1, 2, 3), dilations=(1, 2), max_scale=2, heads=(2, 3))
IMAGE = {"kind": "convolution", "batch_size": 32}
POINTS = [
    Point((4, 3), ("tanh", "relu"), shortcut_mask(None, 4), 0.02, scales=(0, 1, 2), kernel=3, **IMAGE),
    Point((8,), ("tanh",), shortcut_mask(None, 3), 0.01, batch_size=32),
    Point((4,), ("gelu",), shortcut_mask("sequential", 3), 0.03, scales=(2, 2), kernel=2, **IMAGE),
    Point((), (), shortcut_mask(None, 2), 0.01, scales=(3,), kernel=3, kind="convolution", batch_size=16),
    Point((4, 6), ("relu", "tanh"), shortcut_mask(None, 4), 0.01, batch_size=16),
]

shapes = st.builds(
    lambda channels, size, outputs: Shape(channels * int(np.prod(size)), outputs, (channels, *size)),
    st.integers(1, 3),
    st.lists(st.integers(8, 10), min_size=1, max_size=3),
    st.integers(1, 4),
)


@pytest.fixture(scope="module")
def digits():
    whole = load("digits", seed=1)
    few = {name: getattr(whole, name).take(np.arange(90)) for name in ("train", "validation", "test")}
    return replace(whole, **few)


def descended(point, dataset, recipe, seed):
    """The recipe written out, the machine after each epoch: autograd, and torch's own AdamW."""
    machine = build(point, dataset.shape, seed)
    x, y = torch.from_numpy(dataset.train.x), torch.from_numpy(dataset.train.y)
    steps = len(y) // point.batch_size
    optimizer = torch.optim.AdamW(machine.parameters(), lr=point.learning_rate, weight_decay=point.weight_decay)
    total = recipe.epochs * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.rate(step / total))
    for epoch in range(recipe.epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(y))
        shuffled = torch.from_numpy(order[: steps * point.batch_size])
        for batch in shuffled.split(point.batch_size):
            outputs = answers(machine, x[batch], dataset.shape)
            loss = torch.nn.functional.cross_entropy(outputs, y[batch], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            machine.bias.grad[: point.partition(dataset.shape).widths[0]] = 0  # the input's is not trained
            optimizer.step()
            schedule.step()
        yield machine


def assert_alike(machine, expected):
    """Where weights are read: taps that reach beyond a small grid never are, and are left as they began."""
    read = expected.weight.grad != 0
    torch.testing.assert_close(machine.weight[read], expected.weight[read], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(machine.bias, expected.bias, rtol=1e-3, atol=1e-3)


# ---- machines and what they read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [DENSE, GRID], ids=lambda space: space.kind)
@given(seed=st.integers(0, 2**32), shape=shapes)
def test_a_machine_is_as_large_and_as_deep_as_its_point_says(space, seed, shape):
    point = canonical(space.sample(np.random.default_rng(seed)))
    machine = build(point, shape, seed=0)
    assert isinstance(machine, DenseMachine if space is DENSE else ConvMachine)
    assert machine.partition == point.partition(shape)
    assert np.array_equal(machine.shortcuts, point.mask)
    assert machine.parameter_count() == point.parameters(shape)
    assert machine.architecture.depth == point.depth
    outputs = answers(machine, torch.zeros(2, shape.inputs), shape)
    assert outputs.shape == (2, shape.outputs)


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.kind)
def test_initial_weights_are_those_of_the_seed(point, digits):
    one, same, other = (build(point, digits.shape, seed) for seed in (1, 1, 2))
    assert torch.equal(one.weight, same.weight)
    assert torch.equal(one.bias, same.bias)
    assert not torch.equal(one.weight, other.weight)


def test_pixels_are_laid_out_by_channel_and_place():
    shape = Shape(24, 3, (2, 3, 4))
    x = torch.arange(48.0).reshape(2, 24)
    assert laid_out(x, shape, "dense") is x
    grid = laid_out(x, shape, "convolution")
    assert grid.shape == (2, 2, 3, 4)
    for place in np.ndindex(2, 3, 4):
        assert grid[(1, *place)] == x[1, np.ravel_multi_index(place, (2, 3, 4))]


def test_answers_are_the_output_or_its_mean_over_positions():
    shape = Shape(12, 2, (3, 4))
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    dense = build(Point((), (), shortcut_mask(None, 2), 0.1), shape, seed=0)
    expected = x @ dense.weight[12:, :12].T + dense.bias[:12] @ dense.weight[12:, :12].T + dense.bias[12:]
    torch.testing.assert_close(answers(dense, x, shape), expected)
    point = Point((), (), shortcut_mask(None, 2), 0.1, kind="convolution", scales=(0,), kernel=3)
    machine = build(point, shape, seed=0)
    z0 = x.reshape(5, 3, 4) + machine.bias[:3, None]
    maps = torch.nn.functional.conv1d(z0, machine.weight[3:, :3], machine.bias[3:], padding="same")
    torch.testing.assert_close(answers(machine, x, shape), maps.mean(dim=2))


# ---- side by side ------------------------------------------------------------------------------------------------


def test_machines_of_several_kinds_fare_as_alone_and_as_in_plain_torch(digits):
    told = []
    outcomes = train(POINTS, (digits,), PLAIN, seed=3, progress=lambda *news: told.append(news))
    for point, outcome in zip(POINTS, outcomes, strict=True):
        (alone,) = train([point], (digits,), PLAIN, seed=3)
        np.testing.assert_allclose(outcome.curve, alone.curve, rtol=1e-4)
        curve, best = [], None
        for epoch, machine in enumerate(descended(point, digits, PLAIN, 3), start=1):
            curve.append(calibrated(machine, digits, digits.validation))
            if epoch == outcome.best_epoch:
                best = deepcopy(machine)
                best.weight.grad = machine.weight.grad.clone()
        np.testing.assert_allclose(outcome.curve, curve, rtol=4e-3)
        assert_alike(outcome.machine, best)
    assert told[-1] == (PLAIN.epochs, 0)


def test_each_kind_of_machine_is_halved_by_itself(digits):
    whole, halved = (train(POINTS, (digits,), r, seed=3) for r in (PLAIN, replace(PLAIN, rungs=(2,))))
    best = []
    for kind, half in (("dense", 1), ("convolution", 2)):  # of two, and of three, rounded up
        own = [i for i, point in enumerate(POINTS) if point.kind == kind]
        best += sorted(own, key=lambda i: whole[i].curve[1])[:half]
    assert [i for i, outcome in enumerate(halved) if outcome.status == "complete"] == sorted(best)
    for a, b in zip(halved, whole, strict=True):
        np.testing.assert_allclose(a.curve, b.curve[: a.epochs], rtol=1e-4)


def test_figures_of_a_convolution_are_those_of_its_answers(digits):
    for point in POINTS:
        machine = build(point, digits.shape, seed=4)
        with torch.no_grad():
            outputs = answers(machine, torch.from_numpy(digits.test.x), digits.shape).double().numpy()
        assert evaluate(machine, digits, digits.test) == pytest.approx(scores(digits, digits.test, outputs), rel=1e-5)


def test_machines_of_several_kinds_are_refitted(digits):
    epochs = (1, 4, 3, 2, 3)
    machines = refit(POINTS, digits.whole(), PLAIN, epochs, seed=3, seeds=[3] * 5)
    for point, last, machine in zip(POINTS, epochs, machines, strict=True):
        *_, expected = descended(point, digits.whole(), replace(PLAIN, epochs=last), 3)  # a schedule of its own length
        assert_alike(machine, expected)
