"""Regularizers: closed forms, gradients, what they leave, and that pruned machines stay machines."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from operators import element, parametric
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils import parametrize

import machgraph as mg
from machgraph.partition import channel_mask
from machgraph.regularize import (
    block_norms,
    block_sparsity,
    prune_blocks,
    prune_weights,
    shrink_blocks,
    smoothness,
    weight_mask,
)

quick = settings(deadline=None, max_examples=30)


def groups(machine):
    """Each entry of the mask with its weights, one by one."""
    weight = machine.weight.detach().numpy()
    for entry in np.argwhere(machine.shortcuts):
        *lag, i, j = (int(k) for k in entry)
        block = weight[machine.partition.block(i), machine.partition.block(j)]
        yield tuple(map(int, entry)), block[..., lag[0]] if lag else block


# ---- blocks ------------------------------------------------------------------------------------------------------


@quick
@given(parametric())
def test_the_group_lasso_group_by_group(case):
    machine, _ = case
    expected = sum(np.sqrt(block.size) * np.linalg.norm(block) for _, block in groups(machine))
    assert block_sparsity(machine).item() == pytest.approx(expected, abs=1e-12)
    norms = block_norms(machine)
    assert norms.shape == machine.shortcuts.shape
    for entry, block in groups(machine):
        assert norms[entry].item() == pytest.approx(np.linalg.norm(block), abs=1e-12)
    assert (norms[torch.from_numpy(~machine.shortcuts)] == 0).all()


def test_its_gradient_and_its_value_at_zero():
    machine = mg.RecurrentMachine((1, 2, 1), lags=1, dtype=torch.float64)
    mask = torch.from_numpy(machine.weight_mask)
    with torch.no_grad():
        machine.weight[1:3, 0, 0] = 0  # one group of zeros
    block_sparsity(machine).backward()
    gradient = machine.weight.grad
    assert gradient.isfinite().all()
    assert (gradient[1:3, 0, 0] == 0).all()
    assert (gradient[~mask] == 0).all()
    block = machine.weight[1:3, 1:3, 1].detach()
    torch.testing.assert_close(gradient[1:3, 1:3, 1], 2 * block / block.norm())  # sqrt(4) W / |W|


def test_masked_weights_count_nothing():
    machine = mg.DenseMachine((2, 2, 1), shortcuts="sequential")
    before = [block_sparsity(machine), smoothness(machine, "channels")]
    with torch.no_grad():
        machine.weight[~torch.from_numpy(machine.weight_mask)] = torch.nan
    assert [block_sparsity(machine), smoothness(machine, "channels")] == before


@quick
@given(parametric(), st.floats(0, 2))
def test_the_proximal_step_minimizes_what_it_is_named_for(case, amount):
    """W = argmin ½|W - W0|² + amount Σ sqrt(size) |W_group|: the subgradient there holds 0, group by group."""
    machine, _ = case
    before = {entry: block.copy() for entry, block in groups(machine)}
    shrink_blocks(machine, amount)
    for entry, after in groups(machine):
        moved, limit = before[entry] - after, amount * np.sqrt(after.size)
        if (after == 0).all():
            assert np.linalg.norm(moved) <= limit + 1e-9
        else:
            np.testing.assert_allclose(moved, limit * after / np.linalg.norm(after), atol=1e-9)


@quick
@given(parametric(bias=True), st.floats(0, 1.5))
def test_pruned_blocks_are_those_that_are_small(case, threshold):
    machine, size = case
    kept = copy.deepcopy(machine)
    pruned = prune_blocks(machine, threshold)
    for entry, block in groups(machine):
        assert pruned.shortcuts[entry] == (np.sqrt(np.mean(block**2)) > threshold)
    assert not (pruned.shortcuts & ~machine.shortcuts).any()
    assert (pruned.weight.detach().numpy()[~pruned.weight_mask] == 0).all()
    assert (pruned.shortcuts.sum(), pruned.flops()) <= (machine.shortcuts.sum(), machine.flops())
    # the machine it came from, with these weights at 0, is the same function
    with torch.no_grad():
        kept.weight.mul_(torch.from_numpy(pruned.weight_mask))
    x = element(machine, size)
    torch.testing.assert_close(pruned.solve(*x), kept.solve(*x), rtol=1e-12, atol=1e-12)


def test_pruning_leaves_the_machine_alone_and_can_be_saved(tmp_path):
    machine = mg.DenseMachine((3, 4, 2))
    with torch.no_grad():
        machine.weight[3:7, :3] = 0
    pruned = prune_blocks(machine)
    assert machine.shortcuts.sum() == 3
    assert pruned.shortcuts.sum() == 2
    loaded = mg.load(mg.save(pruned, tmp_path / "pruned.machgraph"))
    x = torch.randn(5, 3)
    torch.testing.assert_close(loaded(x), machine(x))
    assert (loaded.shortcuts == pruned.shortcuts).all()


# ---- single weights ----------------------------------------------------------------------------------------------


@quick
@given(parametric(bias=True), st.floats(0.05, 1))
def test_the_largest_weights_stay(case, keep):
    machine, _ = case
    present = torch.from_numpy(machine.weight_mask)
    count = round(keep * int(present.sum()))
    assume(count or not present.any())  # else it is refused
    ticket = prune_weights(machine, keep)
    mask = weight_mask(ticket)
    assert mask.sum() == count
    assert not (mask & ~present).any()
    torch.testing.assert_close(ticket.weight, machine.weight * mask, rtol=0, atol=0)
    size = machine.weight.abs().detach()
    gone = present & ~mask
    if mask.any() and gone.any():
        assert size[mask].min() >= size[gone].max()


def test_equal_weights_are_pruned_to_the_exact_number():
    machine = mg.DenseMachine((4, 4))
    with torch.no_grad():
        machine.weight.fill_(1.0)
    assert weight_mask(prune_weights(machine, 0.25)).sum() == 4


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_ticket_is_rewound_and_its_zeros_stay_zero(optimizer):
    torch.manual_seed(0)
    machine = mg.DenseMachine((3, 8, 2), activation="tanh", dtype=torch.float64)
    start = copy.deepcopy(machine)
    x, target = torch.randn(16, 3, dtype=torch.float64), torch.randn(16, 2, dtype=torch.float64)
    _train(machine, x, target, optimizer)
    ticket = prune_weights(machine, 0.3, rewind=start)
    mask = weight_mask(ticket)
    torch.testing.assert_close(ticket.weight, start.weight * mask, rtol=0, atol=0)
    torch.testing.assert_close(ticket.bias, start.bias, rtol=0, atol=0)
    first = (ticket.output(ticket(x)) - target).square().mean()
    last = _train(ticket, x, target, optimizer)
    assert last < first
    assert (ticket.weight[~mask] == 0).all()
    assert (ticket.weight[mask] != start.weight[mask]).all()


def _train(machine, x, target, optimizer):
    chosen = optimizer(machine.parameters(), lr=0.02, weight_decay=0.1)
    for _ in range(20):
        chosen.zero_grad()
        loss = (machine.output(machine(x)) - target).square().mean()
        loss.backward()
        chosen.step()
    return loss


def test_rounds_of_pruning_multiply():
    machine = mg.ConvMachine((2, 4, 4), 5)
    masks, ticket = [], machine
    for _ in range(3):
        ticket = prune_weights(ticket, 0.5, rewind=machine)
        masks.append(weight_mask(ticket))
    total = machine.parameter_count() - machine.bias.numel()
    assert [int(m.sum()) for m in masks] == [total // 2, total // 4, total // 8]
    assert all(not (later & ~earlier).any() for earlier, later in itertools.pairwise(masks))
    assert len(ticket.parametrizations.weight) == 1


def test_a_ticket_outlives_what_is_made_of_it():
    machine, x = mg.DenseMachine((3, 4, 2)), torch.randn(5, 3)
    first = prune_weights(machine, 0.5)
    said = first(x)
    second = prune_weights(first, 0.5)
    kept = copy.deepcopy(first)
    parametrize.remove_parametrizations(kept, "weight")
    for ticket in (first, kept):
        torch.testing.assert_close(ticket(x), said)
    assert weight_mask(second).sum() == weight_mask(first).sum() // 2
    assert isinstance(second, mg.DenseMachine)
    assert isinstance(kept, mg.DenseMachine)
    torch.testing.assert_close(copy.deepcopy(second)(x), second(x))


@pytest.mark.parametrize("kind", ["dense", "recurrence"])
def test_derivatives_through_a_mask_of_weights(kind):
    make = {"dense": lambda: mg.DenseMachine((2, 2, 1), activation="tanh", dtype=torch.float64)}
    make["recurrence"] = lambda: mg.RecurrentMachine((2, 1), 1, dtype=torch.float64)
    ticket = prune_weights(make[kind](), 0.6)
    y0, _ = element(ticket, () if kind == "dense" else (3,))

    def solve(weight, y0):
        return torch.func.functional_call(ticket, {"parametrizations.weight.original": weight}, (y0,))

    weight = ticket.parametrizations.weight.original.detach().requires_grad_()
    assert gradcheck(solve, (weight, y0.requires_grad_()), check_forward_ad=True)
    assert gradgradcheck(solve, (weight, y0), fast_mode=True)
    (gradient,) = torch.autograd.grad(solve(weight, y0).square().sum(), weight)
    assert (gradient[~weight_mask(ticket)] == 0).all()


def test_a_ticket_with_its_zeros_made_its_own_is_an_ordinary_machine(tmp_path):
    ticket = prune_weights(mg.DenseMachine((3, 4, 2)), 0.5)
    x = torch.randn(5, 3)
    expected = ticket(x)
    torch.testing.assert_close(mg.load(mg.save(ticket, tmp_path / "masked.machgraph"))(x), expected)
    parametrize.remove_parametrizations(ticket, "weight")
    assert type(ticket) is mg.DenseMachine
    torch.testing.assert_close(mg.load(mg.save(ticket, tmp_path / "ticket.machgraph"))(x), expected)


def test_both_masks_together():
    machine = mg.DenseMachine((2, 2, 2))
    with torch.no_grad():
        machine.weight[4:6, :2] *= 0.01
    ticket = prune_blocks(prune_weights(machine, 0.7), 0.05)
    blocks = torch.from_numpy(channel_mask(ticket.shortcuts, ticket.partition))
    assert not ticket.shortcuts[2, 0]
    assert (ticket.weight[~blocks] == 0).all()
    assert not (weight_mask(ticket) & ~blocks).any()
    shrink_blocks(ticket, 0.01)
    assert (ticket.weight[~weight_mask(ticket)] == 0).all()
    assert copy.deepcopy(ticket)(torch.ones(1, 2)).shape == (1, 6)


# ---- smoothness --------------------------------------------------------------------------------------------------


@quick
@given(parametric(), st.sampled_from(["taps", "channels"]))
def test_smoothness_pair_by_pair(case, over):
    machine, _ = case
    if over == "taps" and not machine.dimensions:
        return
    weight, legal = machine.weight.detach().numpy(), machine.weight_mask
    block = np.repeat(np.arange(len(machine.partition)), machine.partition.widths)
    expected = 0.0
    for here in np.argwhere(legal):
        for axis in range(2, weight.ndim) if over == "taps" else (0, 1):
            there = here.copy()
            there[axis] += 1
            if there[axis] == weight.shape[axis] or not legal[tuple(there)]:
                continue
            if over == "taps" or block[here[axis]] == block[there[axis]]:
                expected += (weight[tuple(here)] - weight[tuple(there)]) ** 2
    assert smoothness(machine, over).item() == pytest.approx(expected, abs=1e-12)


def test_smooth_weights_cost_nothing_and_ramps_their_slope():
    machine = mg.ConvMachine((1, 2), (3, 4), dtype=torch.float64)
    with torch.no_grad():
        machine.weight.fill_(7.0)
    assert smoothness(machine) == smoothness(machine, "channels") == 0
    with torch.no_grad():
        machine.weight.copy_(torch.arange(3).view(3, 1).expand(3, 3, 3, 4))
    assert smoothness(machine).item() == 2 * (2 * 4)  # two kernels, steps of 1 down each of 4 columns


def test_smoothness_is_differentiable():
    machine = mg.RecurrentMachine((1, 2), lags=2, dtype=torch.float64)
    smoothness(machine).backward()
    weight = machine.weight.detach()
    left, middle, right = weight[1, 0]
    torch.testing.assert_close(machine.weight.grad[1, 0, 1], 2 * (middle - left) + 2 * (middle - right))
    assert (machine.weight.grad[~torch.from_numpy(machine.weight_mask)] == 0).all()


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda m: smoothness(m), 'a dense machine, which has neither taps nor lags: give over="channels"'),
        (lambda m: smoothness(m, "time"), 'got over=\'time\': give "taps" or "channels"'),
        (lambda m: prune_weights(m, 0), "got keep=0: give the share of weights that stay"),
        (lambda m: prune_weights(m, 1.5), "more than 0 and at most 1"),
        (lambda m: prune_weights(m, 0.05), "got keep=0.05 of 6 weights, of which none would stay: give at least 1/6"),
        (lambda m: prune_weights(m, 0.5, mg.DenseMachine((2, 1))), r"got a machine of \(3, 3\) weights to rewind one"),
        (lambda m: prune_blocks(m, -1), "got threshold=-1: give 0 or more"),
        (lambda m: shrink_blocks(m, -0.1), "got amount=-0.1: give 0 or more"),
    ],
)
def test_errors(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(mg.DenseMachine((2, 3)))
