"""Recurrent machines: a naive loop over time as the oracle, what is legal, and the graphs folded and unrolled."""

import itertools

import networkx as nx
import numpy as np
import pytest
import torch
from helpers import by_block, lag_masks, precedes, recurrence_by_hand, solver
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jvp, vmap

import machgraph as mg
from machgraph.partition import lag_mask
from machgraph.recurrence import fold, unfold
from search.show import describe, draw


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def recurrent(widths=(2, 1, 2, 1), lags=2, timeblock=1, shortcuts=None, **settings):
    generator = torch.Generator().manual_seed(0)
    return mg.RecurrentMachine(
        widths, lags, timeblock=timeblock, shortcuts=shortcuts, generator=generator, dtype=torch.float64, **settings
    )


# ---- values and gradients ----------------------------------------------------------------------------------------


@given(lag_masks(), st.integers(1, 7), st.sampled_from(["tanh", "relu", "sine"]), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_equals_a_naive_loop_over_time(case, steps, activation, bias, with_z0):
    partition, lags, timeblock, mask = case
    machine = recurrent(partition.widths, lags, timeblock, mask, activation=activation, bias=bias)
    y0, z0 = random(2, 2, partition.size, steps).requires_grad_()
    halves = (y0, z0) if with_z0 else (y0,)
    ours, theirs = machine.solve(*halves), recurrence_by_hand(machine, *halves)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    inputs = (*halves, *machine.parameters())
    cotangents = random(2, 2, partition.size, steps, seed=1)
    gradients = torch.autograd.grad(ours, inputs, tuple(cotangents))
    expected = torch.autograd.grad(theirs, inputs, tuple(cotangents), allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-12)


@given(lag_masks(), st.integers(1, 7))
@settings(deadline=None)
def test_machine_equation(case, steps):
    """eqs. 10 and 11 with ``w`` a sum over lags of shifted products; the weights that the mask leaves out are NaN."""
    partition, lags, timeblock, mask = case
    machine = recurrent(partition.widths, lags, timeblock, mask)
    W = machine.weight.detach().clone()
    machine.weight.data[~torch.from_numpy(machine.weight_mask)] = torch.nan
    y0, z0 = random(2, 2, partition.size, steps)
    y, z = machine.solve(y0, z0)
    wz = sum(
        W[:, :, lag] @ torch.nn.functional.pad(z, (lag, 0))[..., :steps]  # weight[:, :, τ] multiplies z[t - τ]
        for lag in range(lags + 1)
    )
    torch.testing.assert_close(y, wz + y0 + machine.bias[:, None], rtol=0, atol=1e-12)
    torch.testing.assert_close(z, torch.tanh(y) + z0, rtol=0, atol=1e-12)
    gradient = torch.autograd.grad(z.sum(), machine.weight)[0]
    assert (gradient[~torch.from_numpy(machine.weight_mask)] == 0).all()


CASES = [  # lags, time block, steps, shortcuts
    (0, 1, 3, None),
    (2, 1, 4, None),
    (1, 2, 3, None),  # a time block beyond the lags: no past but that of earlier blocks
    (3, 2, 5, None),
    (1, 1, 4, "sequential"),
    (3, 3, 7, "sequential"),
]


@pytest.mark.parametrize(("lags", "timeblock", "steps", "shortcuts"), CASES)
def test_derivatives_of_first_and_second_order(lags, timeblock, steps, shortcuts):
    machine = recurrent((1, 1, 1), lags, timeblock, shortcuts)
    tensors = (random(3, 3, lags + 1), random(3), *random(2, 1, 3, steps, seed=1))
    arguments = [tensor.clone().requires_grad_() for tensor in tensors]
    assert gradcheck(solver(machine), arguments, check_forward_ad=True)
    assert gradgradcheck(solver(machine), arguments, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("timeblock", [1, 2])
@pytest.mark.parametrize("batched", [(2,), (0, 1), (2, 3), (0, 1, 2, 3)])
def test_vmap_of_values_and_of_gradients(timeblock, batched):
    machine = recurrent(lags=2, timeblock=timeblock)
    solve = solver(machine)
    shapes = ((6, 6, 3), (6,), (2, 6, 5), (2, 6, 5))
    arguments = [random(*[3] * (i in batched), *shape, seed=i) / 2 for i, shape in enumerate(shapes)]
    in_dims = tuple(0 if i in batched else None for i in range(4))

    def energy(*x):
        return sum((half.square() * torch.arange(5)).sum() for half in solve(*x))

    for function in (solve, grad(energy, argnums=(0, 1, 2, 3))):
        together = vmap(function, in_dims=in_dims)(*arguments)
        for k in range(3):
            alone = function(*[x[k] if i in batched else x for i, x in enumerate(arguments)])
            torch.testing.assert_close(tuple(t[k] for t in together), alone, rtol=1e-12, atol=1e-11)


@given(lag_masks(), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_the_tangent_and_the_dual_are_adjoint(case, steps):
    partition, lags, timeblock, mask = case
    machine = recurrent(partition.widths, lags, timeblock, mask)
    c = partition.size
    primal = (machine.weight.detach(), machine.bias.detach(), *random(2, 2, c, steps))
    tangents = tuple(random(*x.shape, seed=i) for i, x in enumerate(primal))
    cotangents = tuple(random(2, 2, c, steps, seed=9))
    pushed = jvp(solver(machine), primal, tangents)[1]
    pulled = torch.func.vjp(solver(machine), *primal)[1](cotangents)
    left = sum((a * b).sum() for a, b in zip(pushed, cotangents, strict=True))
    right = sum((a * b).sum() for a, b in zip(tangents, pulled, strict=True))
    torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)  # <A t, w> == <t, A* w>


@given(lag_masks(), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_a_longer_series_begins_like_a_shorter_one(case, steps):
    """Neither the mask nor the plan of the first steps depends on the length."""
    partition, lags, timeblock, mask = case
    machine = recurrent(partition.widths, lags, timeblock, mask)
    y0 = random(2, partition.size, 7)
    torch.testing.assert_close(machine(y0)[..., :steps], machine(y0[..., :steps]), rtol=1e-12, atol=1e-12)
    assert (machine.shortcuts == mask).all()


def test_shapes_of_batches_and_of_inputs():
    machine = recurrent()
    x = random(3, 2, 2, 5)
    y, z = machine.solve(x)
    assert y.shape == z.shape == (3, 2, 6, 5)
    torch.testing.assert_close(machine(x[2, 1]), z[2, 1], rtol=0, atol=1e-14)
    assert machine(x[:0]).shape == (0, 2, 6, 5)
    whole = torch.cat([x, x.new_zeros(3, 2, 4, 5)], dim=2)
    torch.testing.assert_close(machine.solve(whole), (y, z), rtol=0, atol=0)
    torch.testing.assert_close(machine.solve(whole, x * 0), (y, z), rtol=0, atol=1e-14)
    assert machine.output(z).shape == (3, 2, 1, 5)


# ---- what is legal -----------------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(0, 4), st.integers(1, 5))
def test_all_that_is_legal_is_what_precedes_at_every_time(blocks, lags, timeblock):
    mask = lag_mask(None, blocks, lags, timeblock)
    expected = [
        [[precedes(j, i, lag, timeblock) for j in range(blocks)] for i in range(blocks)] for lag in range(lags + 1)
    ]
    assert (mask == np.array(expected)).all()


@given(lag_masks(), st.data())
@settings(deadline=None)
def test_any_illegal_entry_is_refused_by_its_name(case, data):
    partition, lags, timeblock, mask = case
    illegal = [(t, i, j) for t, i, j in np.ndindex(mask.shape) if not precedes(j, i, t, timeblock)]
    lag, out, source = data.draw(st.sampled_from(illegal))
    mask[lag, out, source] = True
    with pytest.raises(ValueError, match="before it is known") as caught:
        mg.RecurrentMachine(partition.widths, lags, timeblock=timeblock, shortcuts=mask)
    sentence = f"shortcuts[{lag}, {out}, {source}] lets block {source} feed block {out} before it is known: "
    assert str(caught.value).startswith(sentence)
    assert f"from lag {timeblock} (the time block) on" in str(caught.value)
    assert ("which is beyond lags" in str(caught.value)) == (lags < timeblock)


@given(lag_masks(), st.data())
@settings(max_examples=30, deadline=None)
def test_a_mask_of_pairs_means_all_legal_lags(case, data):
    partition, lags, timeblock, _ = case
    blocks = len(partition)
    some = [(i, j) for i, j in np.ndindex(blocks, blocks) if precedes(j, i, lags, timeblock)]
    pairs = np.zeros((blocks, blocks), dtype=bool)
    for pair in data.draw(st.lists(st.sampled_from(some))):
        pairs[pair] = True
    machine = mg.RecurrentMachine(partition.widths, lags, timeblock=timeblock, shortcuts=pairs)
    assert (machine.shortcuts == (lag_mask(None, blocks, lags, timeblock) & pairs)).all()
    never = [(i, j) for i, j in np.ndindex(blocks, blocks) if not precedes(j, i, lags, timeblock)]
    if never:
        out, source = data.draw(st.sampled_from(never))
        pairs[out, source] = True
        with pytest.raises(
            ValueError, match=rf"shortcuts\[{out}, {source}\] lets block {source} feed block {out} before"
        ):
            mg.RecurrentMachine(partition.widths, lags, timeblock=timeblock, shortcuts=pairs)


def test_sequential_is_the_block_before_now_and_its_own_past():
    mask = recurrent((1, 1, 1), lags=3, timeblock=2, shortcuts="sequential").shortcuts
    assert {tuple(map(int, entry)) for entry in np.argwhere(mask)} == {
        *[(0, 1, 0), (0, 2, 1)],
        *[(lag, block, block) for lag in (2, 3) for block in (1, 2)],
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"lags": -1}, "got lags=-1 and timeblock=1"),
        ({"timeblock": 0}, "got lags=1 and timeblock=0"),
        ({"lags": 1.5}, "got lags=1.5 and timeblock=1: lags are 0 or more, .* both whole"),
        ({"timeblock": 2.7}, "got lags=1 and timeblock=2.7"),
        ({"shortcuts": "all"}, "got shortcuts='all'"),
        (
            {"shortcuts": np.zeros((3, 2, 2), dtype=bool)},
            r"of shape \(3, 2, 2\): give \[block_out, block_in\] of shape",
        ),
        ({"shortcuts": [[0, 0], [2, 0]]}, "that are not true or false"),
    ],
)
def test_what_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        mg.RecurrentMachine((1, 1), **({"lags": 1} | arguments))


# ---- graphs ------------------------------------------------------------------------------------------------------


@given(lag_masks(), st.integers(1, 6), st.booleans())
@settings(max_examples=30, deadline=None)
def test_unrolled_and_folded_they_have_the_same_resolvent(case, steps, with_z0):
    partition, lags, timeblock, mask = case
    machine = recurrent(partition.widths, lags, timeblock, mask)
    y0, z0 = random(2, 2, partition.size, steps).requires_grad_()
    halves = (y0, z0) if with_z0 else (y0,)
    inputs = (*halves, *machine.parameters())
    g, cotangents = machine.components(*halves), tuple(random(2, 2, partition.size, steps, seed=1))
    ours = machine.solve(*halves)
    unrolled = fold(machine.unroll(steps).resolvent(unfold(g, timeblock)))
    for h in (unrolled, machine.architecture.resolvent(g)):
        theirs = by_block(machine, h)
        torch.testing.assert_close(theirs, ours, rtol=1e-12, atol=1e-12)
        expected = torch.autograd.grad(ours, inputs, cotangents, retain_graph=True)
        gradients = torch.autograd.grad(
            theirs, inputs, cotangents, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        torch.testing.assert_close(gradients, expected, rtol=1e-11, atol=1e-12)


@given(lag_masks(), st.integers(1, 6))
@settings(deadline=None)
def test_the_unrolled_graph_is_the_mask_over_time(case, steps):
    partition, lags, timeblock, mask = case
    machine = recurrent(partition.widths, lags, timeblock, mask)
    f = machine.unroll(steps)
    name = {t: next(c for c in unfold({"": torch.arange(steps)}, timeblock) if _holds(c, t)) for t in range(steps)}
    expected = {
        (f"σ_{j}{name[t - lag]}", f"w_{i}{name[t]}") for lag, i, j in np.argwhere(mask) for t in range(lag, steps)
    }
    assert {edge for edge in f.graph.edges if edge[0].startswith("σ")} == expected
    assert {(a[1:], b[1:]) for a, b in f.graph.edges if a.startswith("w")} == {
        (m[1:], m[1:]) for m in f.order if m.startswith("w")
    }
    turns = -(-steps // timeblock)
    assert sum(m.startswith("σ") for m in f.order) == turns * len(partition)
    assert f.depth <= turns * machine.architecture.depth <= turns * partition.depth_bound + turns  # w_0 of a loop too


def _holds(label, time):
    start, _, stop = label.removeprefix("[t=").removesuffix("]").partition(":")
    return int(start) <= time < int(stop or int(start) + 1)


@given(lag_masks())
@settings(deadline=None)
def test_the_folded_graph_is_the_mask(case):
    partition, lags, timeblock, mask = case
    f = recurrent(partition.widths, lags, timeblock, mask).architecture
    heard = {(int(b[2:]), int(a[2:])): lags for a, b, lags in f.graph.edges(data="lags") if a.startswith("σ")}
    assert {(lag, *pair) for pair, lags in heard.items() for lag in lags} == {
        tuple(entry) for entry in np.argwhere(mask)
    }
    assert all(edge["back"] == (min(edge["lags"]) >= timeblock) for edge in f.graph.edges.values())
    assert nx.is_frozen(f.graph)
    assert set(f.order) == set(itertools.chain(*f.levels)) == set(f.graph)
    level = {name: i for i, names in enumerate(f.levels) for name in names}
    assert all(level[a] < level[b] for a, b, back in f.graph.edges(data="back") if not back)
    assert f.cofiltration[0] == {c for _, writes in f.graph.nodes(data="writes") for c in writes}
    assert f.cofiltration[-1] == frozenset()
    assert len(f.cofiltration) == f.depth + 1


def test_the_graphs_of_an_ordinary_rnn():
    machine = recurrent((2, 3, 1), lags=1, shortcuts="sequential")
    f, unrolled = machine.architecture, machine.unroll(3)
    assert f.levels == [["σ_0"], ["w_1"], ["σ_1"], ["w_2"], ["σ_2"]]
    assert [edge for edge, back in nx.get_edge_attributes(f.graph, "back").items() if back] == [
        ("σ_1", "w_1"),
        ("σ_2", "w_2"),
    ]
    assert f.components == ("y_0", "z_0", "y_1", "z_1", "y_2", "z_2")
    assert unrolled.depth == 9  # down the blocks of the first step, or along time: 2 more a step
    assert unrolled.levels[:3] == [["σ_0[t=0]", "σ_0[t=1]", "σ_0[t=2]"], ["w_1[t=0]"], ["σ_1[t=0]"]]
    assert unrolled.cofiltration[-2] == {"z_2[t=2]"}
    assert machine.unroll(1).depth == 5


def test_without_lags_there_is_one_machine_of_each_kind():
    f = recurrent((2, 3, 1), lags=0).architecture
    assert f.order == mg.DenseMachine((2, 3, 1)).architecture.order
    assert set(f.graph.edges) == set(mg.DenseMachine((2, 3, 1)).architecture.graph.edges)


def test_names_of_turns_of_several_steps():
    machine = recurrent((1, 1), lags=2, timeblock=2, shortcuts="sequential")
    assert machine.unroll(5).order[:3] == ["σ_0[t=0:2]", "w_1[t=0:2]", "σ_1[t=0:2]"]
    assert machine.unroll(5).order[-1] == "σ_1[t=4]"
    x = random(2, 3, 5)
    assert list(unfold({"y_0": x}, 2)) == ["y_0[t=0:2]", "y_0[t=2:4]", "y_0[t=4]"]
    torch.testing.assert_close(fold(unfold({"y_0": x}, 2))["y_0"], x)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda m: m.unroll(0), "got steps=0: unroll a recurrence over at least one step"),
        (lambda m: m.architecture.resolvent({}), r"got nothing: give series \(..., channel, time\) of one length"),
        (
            lambda m: m.architecture.resolvent({"y_0": torch.ones(1, 2), "y_1": torch.ones(1, 3)}),
            "got y_0 of 2 steps, y_1 of 3 steps: give series",
        ),
        (
            lambda m: m.architecture.resolvent({"y_1": torch.ones(1, 2)}),
            r"σ_0\[t=0\] reads y_0\[t=0\], which is absent",
        ),
    ],
)
def test_what_a_graph_refuses(act, sentence):
    with pytest.raises(ValueError, match=sentence):
        act(mg.RecurrentMachine((1, 1), lags=1))


def test_what_show_says_of_a_recurrence(tmp_path):
    machine = mg.RecurrentMachine((2, 3, 1), lags=3, shortcuts="sequential")
    said = dict(describe(mg.load(mg.save(machine, tmp_path / "one.machgraph"))))
    assert said["machine"] == "blocks 2-3-1, 45 parameters, 84 FLOPs a sample and position"
    assert said["shortcuts"] == "1 → 1 (lags 1–3), 2 → 2 (lags 1–3)"
    assert said["order"] == "σ_0 w_1 σ_1 w_2 σ_2"
    assert said["depth"] == "5 in one turn of the loop over time"
    draw(machine, tmp_path / "one.svg")
    assert (tmp_path / "one.svg").stat().st_size > 1000


def test_a_folded_recurrence_says_where_its_machines_are():
    f = mg.RecurrentMachine((1, 1), lags=1).architecture
    for name in ("machines", "increment", "parameters"):
        with pytest.raises(AttributeError, match=rf"has no {name} of its own: unroll\(steps\).{name} is"):
            getattr(f, name)
    assert not hasattr(f, "weight")
    assert len(f.unroll(3).machines) == 12 - 1  # at first w_0 hears nothing
