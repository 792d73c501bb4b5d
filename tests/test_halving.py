"""Small blocks in large products: every entry once, nothing before it is final, and the same solution."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import element, operator

import machgraph as mg
from machgraph.boxes import WIDE, dense_plan
from machgraph.lower import lowered
from machgraph.partition import Partition, runs, shortcut_mask
from machgraph.plan import Accumulate, Activate, Repeat

quick = settings(deadline=None, max_examples=30)
exactly = {"rtol": 1e-11, "atol": 1e-11}
DENSITIES = st.sampled_from([0.05, 0.5, 0.9, 1.0])


@st.composite
def machines(draw):
    """Machines of all three kinds with enough blocks to be halved, and a size."""
    widths = tuple(draw(st.lists(st.sampled_from([1, 2, 2, 3, WIDE]), min_size=8, max_size=14)))
    options = {"activation": "tanh", "dtype": torch.float64, "generator": torch.Generator().manual_seed(0)}
    kind = draw(st.sampled_from(["dense", "convolution", "circular", "recurrent"]))
    if kind == "dense":
        machine, size = mg.DenseMachine(widths, **options), ()
    elif kind == "recurrent":
        machine, size = mg.RecurrentMachine(widths, lags=2, timeblock=draw(st.integers(1, 3)), **options), (5,)
    else:
        kernel = draw(st.sampled_from([(3,), (2, 3)]))
        padding = "circular" if kind == "circular" else draw(st.sampled_from(["same", "causal"]))
        machine, size = mg.ConvMachine(widths, kernel, padding=padding, **options), (4, 3)[: len(kernel)]
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    machine.shortcuts = machine.shortcuts & (rng.random(machine.shortcuts.shape) < draw(DENSITIES))
    machine.reset_parameters(torch.Generator().manual_seed(1))
    return machine, size


def unrolled(plan):
    for step in plan.instructions:
        for turn in range(step.times) if isinstance(step, Repeat) else (0,):
            yield from step.at(turn) if isinstance(step, Repeat) else (step,)


def real_positions(plan):
    real = np.zeros(plan.grid, dtype=bool)
    real[
        tuple(slice(before, extent - after) for extent, (before, after) in zip(plan.grid, plan.margins, strict=True))
    ] = True
    return real.ravel()


@quick
@given(machines())
def test_each_entry_is_multiplied_once_at_each_position(case):
    machine, size = case
    plan = machine.plan(size)
    found = np.zeros((plan.taps, plan.channels, plan.channels, plan.positions), dtype=int)
    for step in plan.products:
        found[step.tap, slice(*step.rows), slice(*step.inputs), slice(*step.columns)] += 1
    mask = machine.weight_mask.reshape(plan.channels, plan.channels, plan.taps)
    expected = np.broadcast_to(np.moveaxis(mask, -1, 0)[..., None], found.shape)
    real = real_positions(plan)
    assert (found[..., real] == expected[..., real]).all()


@quick
@given(machines())
def test_nothing_is_read_before_it_is_final(case):
    machine, size = case
    plan = machine.plan(size)
    if getattr(machine, "padding", "") == "circular":
        return  # there the padding holds copies
    real = real_positions(plan)
    for one in (plan, plan.dual):
        final = np.zeros((plan.channels, plan.positions), dtype=bool)
        final[:, ~real] = True
        for step in unrolled(one):
            if isinstance(step, Accumulate):
                columns = np.arange(*step.columns)
                columns = columns[real[columns]]
                assert final[slice(*step.inputs)][:, columns + step.offset].all()
                assert not final[slice(*step.rows)][:, columns].any()
            elif isinstance(step, Activate):
                columns = np.arange(*step.columns)
                assert not final[slice(*step.rows)][:, columns[real[columns]]].any()
                final[slice(*step.rows), slice(*step.columns)] = True
        assert final.all()


@quick
@given(machines(), st.integers(0, 99))
def test_the_solution_and_all_gradients(case, seed):
    machine, size = case
    y0, z0 = (x.requires_grad_() for x in element(machine, size, seed))
    y, z = machine.solve(y0, z0)
    w = operator(machine, size)
    bias = machine.bias.view(-1, *[1] * len(size))
    torch.testing.assert_close(y, (w @ z.flatten()).view_as(y) + y0 + bias, **exactly)
    torch.testing.assert_close(z, torch.tanh(y) + z0, **exactly)
    inputs = (machine.weight, machine.bias, y0, z0)
    v0, u0 = element(machine, size, seed + 1)
    by_layers = lowered(machine, y0[None], z0[None])
    expected = torch.autograd.grad(by_layers, inputs, (v0[None], u0[None]), materialize_grads=True)
    expected = (expected[0] * torch.from_numpy(machine.weight_mask), *expected[1:])
    reference = machine.reference(machine.weight, machine.bias, y0, z0)
    for solution in ((y, z), reference):
        found = torch.autograd.grad(solution, inputs, (v0, u0))
        torch.testing.assert_close(found, expected, **exactly)


# ---- which products there are ------------------------------------------------------------------------------------


def test_nearly_all_work_of_tiny_blocks_is_in_large_products():
    plan = dense_plan(Partition((2,) * 256), shortcut_mask(None, 256))
    work = [[step.rows[1] - step.rows[0], step.inputs[1] - step.inputs[0]] for step in plan.products]
    large = sum(rows * inputs for rows, inputs in work if min(rows, inputs) >= WIDE)
    assert large > 0.97 * sum(rows * inputs for rows, inputs in work)
    assert len(work) == 255


def block_by_block(partition, mask):
    """The products of each block alone."""
    at = partition.bounds
    return [
        Accumulate(rows, (at[first], at[last])) for i, rows in enumerate(pairwise(at)) for first, last in runs(mask[i])
    ]


@pytest.mark.parametrize("widths", [(2,) * 7, (64, WIDE, 4, WIDE, 10), (WIDE,) * 20, (3, WIDE + 1) * 10])
@pytest.mark.parametrize("density", [0.5, 1.0])
def test_few_small_blocks_and_wide_ones_stay_as_they_are(widths, density):
    blocks = len(widths)
    mask = np.tril(np.random.default_rng(0).random((blocks, blocks)) < density, -1)
    assert list(dense_plan(Partition(widths), mask).products) == block_by_block(Partition(widths), mask)


def test_what_neighbours_hear_alike_is_one_product_before_the_first_of_them():
    """Eight blocks of 4 that hear the first three; the sixth hears the fifth too."""
    mask = np.zeros((8, 8), dtype=bool)
    mask[4:, :3] = True
    mask[5, 4] = True
    plan = dense_plan(Partition((4,) * 8), mask)
    assert plan.instructions == (
        *(Activate((4 * i, 4 * i + 4), i) for i in range(4)),
        Accumulate((16, 32), (0, 12)),
        Activate((16, 20), 4),
        Accumulate((20, 24), (16, 20)),
        *(Activate((4 * i, 4 * i + 4), i) for i in range(5, 8)),
    )


def test_a_turn_of_a_recurrence_hears_what_came_before_it_in_one_product():
    """Nothing is halved: whatever is known before the turn is known to all."""
    machine = mg.RecurrentMachine((1, 1, 2), lags=2)
    assert [(step.tap, step.rows, step.inputs) for step in machine.plan((4,)).products] == [
        (1, (0, 4), (0, 4)),
        (2, (0, 4), (0, 4)),
        (0, (1, 2), (0, 1)),
        (0, (2, 4), (0, 2)),
    ]
