"""Partitions given box by box, and the cofiltration of the index space that any plan solves."""

from itertools import pairwise

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.collections import QuadMesh
from operators import element, operator, parametric
from torch.autograd import gradcheck, gradgradcheck

import machgraph as mg
from figures import index_cofiltration as index_figure
from machgraph.activation import ACTIVATIONS, per_block
from machgraph.index import Box, cofiltration, plan, steps
from machgraph.plan import Accumulate, Activate, Plan
from machgraph.resolvent import resolvent

matplotlib.use("Agg")
quick = settings(deadline=None, max_examples=40)
SCALED = mg.ConvMachine((1, 2, 2), 3, scales=(0, 0, 1))
exactly = {"rtol": 1e-12, "atol": 1e-12}


def solve(made, weight, y0, z0, activation="tanh", bias=None):
    """``(y, z)`` of one sample: ``weight`` is ``(out, in, tap)``, ``y0`` and ``z0`` are ``(channel, position)``."""
    activations = per_block(activation, len(made.blocks))
    bias = None if bias is None else bias[None]
    y, z = resolvent(made, activations, weight.movedim(-1, 0)[None], bias, y0[None], z0[None])
    return y[0], z[0]


def implied_operator(boxes, offsets, weight):
    """``w = Σ (π_i - π_{i-1}) l π_{i-1}`` of section 3, with its projections as matrices."""
    channels, positions = max(b.channels[1] for b in boxes), max(b.positions[1] for b in boxes)
    l = np.zeros((channels, positions, channels, positions))  # noqa: E741 - the paper's letter
    for tap, offset in enumerate(offsets):
        for t in range(positions):
            if 0 <= t + offset < positions:
                l[:, t, :, t + offset] += weight[:, :, tap].numpy()
    l = l.reshape(channels * positions, -1)  # noqa: E741
    w, before = np.zeros_like(l), np.zeros((channels, positions))
    for box in boxes:
        after = before.copy()
        after[slice(*box.channels), slice(*box.positions)] = 1
        w += np.diag((after - before).ravel()) @ l @ np.diag(before.ravel())
        before = after
    return torch.from_numpy(w)


@st.composite
def partitions(draw, channels=4, positions=5):
    """A random partition into boxes in a random order: a rectangle that is cut again and again."""
    rectangles = [((0, draw(st.integers(1, channels))), (0, draw(st.integers(1, positions))))]
    for _ in range(draw(st.integers(0, 6))):
        k = draw(st.integers(0, len(rectangles) - 1))
        spans = list(rectangles[k])
        axis = draw(st.integers(0, 1))
        start, stop = spans[axis]
        if stop - start > 1:
            cut = draw(st.integers(start + 1, stop - 1))
            rectangles[k] = tuple((start, cut) if a == axis else s for a, s in enumerate(spans))
            rectangles.append(tuple((cut, stop) if a == axis else s for a, s in enumerate(spans)))
    return [Box(*spans) for spans in draw(st.permutations(rectangles))]


OFFSETS = st.sampled_from([(0,), (0, -1, -2), (-1, 0, 1), (3, -2)])


# ---- boxes by hand -----------------------------------------------------------------------------------------------


@quick
@given(partitions(), OFFSETS, st.integers(0, 99))
def test_the_machine_equation_with_the_mask_that_the_partition_implies(boxes, offsets, seed):
    made = plan(boxes, offsets)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(made.channels, made.channels, len(offsets), generator=generator, dtype=torch.float64)
    y0, z0 = torch.randn(2, made.channels, made.positions, generator=generator, dtype=torch.float64)
    y, z = solve(made, weight, y0, z0)
    w = implied_operator(boxes, offsets, weight)
    torch.testing.assert_close(y, (w @ z.flatten()).view_as(y) + y0, **exactly)
    torch.testing.assert_close(z, torch.tanh(y) + z0, **exactly)


def test_time_blocks_of_different_lengths_and_channels_that_change_with_time():
    """A recurrence whose first block is three steps long, its second one, its last two, each cut differently."""
    boxes = [Box((0, 1), (0, 3)), Box((1, 4), (0, 3)), Box((0, 4), (3, 4)), Box((2, 4), (4, 6)), Box((0, 2), (4, 6))]
    offsets = (0, -1, -2)
    made = plan(boxes, offsets)
    assert made.blocks == ((0, 1), (1, 2), (2, 4))  # what no box cuts
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    y0, z0 = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64)
    y, z = solve(made, weight, y0, z0, ("tanh", "sine", "silu"))
    w = implied_operator(boxes, offsets, weight.detach())
    torch.testing.assert_close(y, (w @ z.flatten()).view_as(y) + y0, **exactly)
    sigma = torch.cat([torch.tanh(y[:1]), torch.sin(y[1:2]), ACTIVATIONS["silu"].function(y[2:])])
    torch.testing.assert_close(z, sigma + z0, **exactly)

    arguments = (weight, y0.requires_grad_(), z0.requires_grad_())
    assert gradcheck(lambda *x: solve(made, *x), arguments, check_forward_ad=True)
    assert gradgradcheck(lambda *x: solve(made, *x), arguments, fast_mode=True)


@pytest.mark.parametrize("padding", ["same", "causal"])
def test_all_positions_at_once_are_a_convolution(padding):
    machine = mg.ConvMachine((2, 3, 1), 4, activation="tanh", padding=padding, dtype=torch.float64)
    offsets = range(-1, 3) if padding == "same" else range(-3, 1)
    boxes = [Box(channels, (0, 6)) for channels in pairwise(machine.partition.bounds)]
    _equal(machine, plan(boxes, tuple(offsets)), (6,))


@pytest.mark.parametrize("timeblock", [1, 2])
@pytest.mark.parametrize("shortcuts", [None, "sequential"])
def test_one_time_after_another_is_a_recurrence(timeblock, shortcuts):
    """With a longer time block the partition keeps some entries at some times alone: those are stored as 0."""
    machine = mg.RecurrentMachine((2, 3, 1), 2, timeblock=timeblock, shortcuts=shortcuts, dtype=torch.float64)
    boxes = [
        Box(channels, (t, min(t + timeblock, 5)))
        for t in range(0, 5, timeblock)
        for channels in pairwise(machine.partition.bounds)
    ]
    _equal(machine, plan(boxes, (0, -1, -2)), (5,))


def test_one_position_is_a_dense_machine():
    machine = mg.DenseMachine((2, 3, 1), activation="tanh", dtype=torch.float64)
    y0, z0 = element(machine, ())
    made = plan([Box(channels) for channels in pairwise(machine.partition.bounds)])
    y, z = solve(made, machine.weight[..., None], y0[:, None], z0[:, None], bias=machine.bias)
    torch.testing.assert_close((y[:, 0], z[:, 0]), machine.solve(y0, z0), **exactly)


def _equal(machine, made, size):
    y0, z0 = element(machine, size)
    ours, theirs = solve(made, machine.weight, y0, z0, bias=machine.bias), machine.solve(y0, z0)
    torch.testing.assert_close(ours, theirs, **exactly)
    gradients = [torch.autograd.grad(y.sum() + z.square().sum(), machine.weight)[0] for y, z in (ours, theirs)]
    mask = torch.from_numpy(machine.weight_mask)
    torch.testing.assert_close(gradients[0] * mask, gradients[1], **exactly)


def test_what_a_box_reads():
    boxes = [Box((0, 1)), Box((1, 2), reads=(0,)), Box((2, 3), reads=(0, 0)), Box((3, 4), reads=())]
    products = plan(boxes).products
    assert [(step.rows, step.inputs) for step in products] == [((1, 2), (0, 1)), ((2, 3), (0, 1))]


@pytest.mark.parametrize(
    ("boxes", "sentence"),
    [
        ([], "got no boxes: a partition has at least one part"),
        (
            [Box((0, 2), (0, 4)), Box((2, 3), (0, 4)), Box((1, 2), (3, 4))],
            r"box 2 \(channels 1, positions 3\) overlaps box 0 \(channels 0 to 1, positions 0 to 3\)",
        ),
        (
            [Box((0, 2), (0, 2)), Box((0, 1), (2, 4))],
            "channel 1 at position 2 is in no box: the 2 boxes must cover 2 channels × 4 positions",
        ),
        (
            [Box((0, 1), reads=(1,)), Box((1, 2))],
            r"box 0 \(channels 0, positions 0\) reads box 1 \(channels 1, positions 0\), which is not before it",
        ),
        ([Box((0, 1), reads=(0,))], r"reads box 0 \(channels 0, positions 0\), which is not before it"),
        ([Box((0, 1)), Box((1, 2), reads=(7,))], "reads box 7, which is none: a box may read earlier boxes alone"),
    ],
)
def test_what_is_no_partition(boxes, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan(boxes)


@pytest.mark.parametrize("spans", [((1, 1), (0, 1)), ((0, 1), (2, 1)), ((-1, 1), (0, 1))])
def test_what_is_no_box(spans):
    with pytest.raises(ValueError, match="give a range"):
        Box(*spans)


# ---- the cofiltration --------------------------------------------------------------------------------------------


@quick
@given(partitions(), OFFSETS)
def test_the_steps_of_a_plan_are_its_boxes(boxes, offsets):
    """Up to boxes that are solved at once: the same positions, and nothing heard in between."""
    made = plan(boxes, offsets)
    number = steps(made)
    assert number.shape == (made.channels, made.positions)
    assert sorted(set(number.ravel().tolist())) == list(range(number.max() + 1))
    of_box = [np.unique(number[slice(*box.channels), slice(*box.positions)]) for box in boxes]
    assert all(len(found) == 1 for found in of_box)
    order = [int(found[0]) for found in of_box]
    assert order == sorted(order)
    for (i, one), (j, other) in pairwise(zip(order, boxes, strict=True)):
        if i == j:
            assert one.positions == other.positions


def test_steps_of_the_three_kinds():
    dense, convolution, recurrence = (
        steps(mg.DenseMachine((2, 1, 1)).plan(())),
        steps(mg.ConvMachine((2, 1), (3, 2)).plan((2, 3))),
        steps(mg.RecurrentMachine((1, 1), lags=1).plan((3,))),
    )
    assert dense.tolist() == [0, 0, 1, 2]
    assert convolution.tolist() == [[[0] * 3] * 2] * 2 + [[[1] * 3] * 2]
    assert recurrence.tolist() == [[0, 2, 4], [1, 3, 5]]  # I_t,i in the lexicographic order of (t, i)


def test_the_chain_has_the_length_of_section_3():
    machine = mg.DenseMachine((2, 1, 1))
    chain = cofiltration(steps(machine.plan(())))
    assert len(chain) - 1 == machine.partition.depth_bound == machine.architecture.depth == 5
    dimensions = [int(y.sum() + z.sum()) for y, z in chain]
    assert dimensions == [6, 4, 3, 2, 1, 0]  # Y without block 0 and Z; then without block 0 of Z; ...


@quick
@given(parametric(bias=True), st.integers(0, 99))
def test_the_expensive_sequence_is_right_outside_of_each_subspace(case, seed):
    """Definition 3 and Proposition 4: h_k = g + f h_(k-1), begun anywhere in V_0, agrees with the solution off V_k."""
    machine, size = case
    chain = cofiltration(steps(machine.plan(size)))
    y0, z0 = element(machine, size, seed)
    solution = machine.solve(y0, z0)
    w, sigma = operator(machine, size), machine.activation[0].function
    g = (y0 + machine.bias.view(-1, *[1] * len(size)), z0)
    phi = element(machine, size, seed + 1)
    h = tuple(a + b * torch.from_numpy(v) for a, b, v in zip(g, phi, chain[0], strict=True))
    for k, subspace in enumerate(chain):
        if k:
            h = (g[0] + (w @ h[1].flatten()).view_as(y0), g[1] + sigma(h[0]))
        for found, expected, inside in zip(h, solution, subspace, strict=True):
            torch.testing.assert_close(found[~inside], expected[~inside], **exactly)


@quick
@given(parametric())
def test_a_plan_reads_what_earlier_steps_have_settled(case):
    """The steps are those of the executed program: whatever a product reads was final in an earlier step."""
    machine, size = case
    made = machine.plan(size)
    number = np.full((made.channels, made.positions), -1)  # padding is final from the start
    inside = tuple(slice(b, e - a) for e, (b, a) in zip(made.grid, made.margins, strict=True))
    number.reshape(made.channels, *made.grid)[:, *inside] = steps(made)
    if getattr(machine, "padding", "same") == "circular":
        return  # there the padding holds copies
    real = np.zeros(made.grid, dtype=bool)
    real[inside] = True
    for step in made.products:
        start, stop = step.columns
        targets = np.flatnonzero(real.ravel()[start:stop]) + start
        written = number[slice(*step.rows)][:, targets].min(axis=0)
        read = number[slice(*step.inputs)][:, targets + step.offset].max(axis=0)
        assert (read < written).all()


def test_a_block_that_hears_no_cycle_is_one_step_over_all_time():
    machine = mg.RecurrentMachine((1, 1, 1), lags=1, shortcuts="sequential")
    assert steps(machine.plan((4,))).tolist() == [[0] * 4, [1, 2, 3, 4], [5, 6, 7, 8]]


def test_instructions_are_those_of_the_library():
    made = plan([Box((0, 1), (0, 2)), Box((1, 2), (0, 2))], offsets=(-1,))
    assert made.instructions == (
        Activate((0, 1), 0, (0, 2)),
        Accumulate((1, 2), (0, 1), (1, 2), 0, -1),
        Activate((1, 2), 1, (0, 2)),
    )


# ---- pictures ----------------------------------------------------------------------------------------------------

PICTURES = {
    "dense": (lambda: mg.DenseMachine((3, 2, 1)), ()),
    "convolution": (lambda: mg.ConvMachine((1, 2, 1), (2, 3)), (2, 5)),
    "recurrence": (lambda: mg.RecurrentMachine((1, 2, 1), lags=2), (12,)),
    "by hand": (lambda: plan([Box((0, 1), (0, 4)), Box((1, 12), (0, 3)), Box((1, 12), (3, 4))]), ()),
}


def drawn_texts(ax):
    """Each text with its box in pixels."""
    ax.figure.draw_without_rendering()
    return {(t, t.get_text()): t.get_window_extent() for t in ax.texts if t.get_text()}


def assert_readable(ax):
    boxes = list(drawn_texts(ax).items())
    page = ax.figure.bbox
    for k, ((_, name), box) in enumerate(boxes):
        assert box.x0 >= page.x0 - 1, name
        assert box.x1 <= page.x1 + 1, name
        for (_, other), beside in boxes[:k]:
            apart = box.x1 <= beside.x0 or beside.x1 <= box.x0 or box.y1 <= beside.y0 or beside.y1 <= box.y0
            assert apart, (name, other)


@pytest.fixture(params=PICTURES)
def picture(request):
    make, size = PICTURES[request.param]
    yield make(), size
    plt.close("all")


def test_the_picture_of_the_cofiltration_numbers_each_step(picture):
    machine, size = picture
    ax = mg.draw.index_cofiltration(machine, size=size)
    assert_readable(ax)
    last = int(steps(machine if isinstance(machine, Plan) else machine.plan(size)).max())
    written = {name for _, name in drawn_texts(ax)}
    assert {str(step) for step in range(last + 1)} <= written
    assert f"{last + 1} steps: a chain of length {2 * last + 1}" in written


def test_cells_have_the_colour_of_their_step():
    ax = mg.draw.index_cofiltration(mg.RecurrentMachine((1, 1), lags=1), size=3)
    colours = ax.collections[0].get_array().reshape(6, 3)
    assert len(np.unique(colours, axis=0)) == 6
    brightness = colours @ (0.3, 0.59, 0.11)
    assert np.argsort(brightness).tolist() == [0, 3, 1, 4, 2, 5]  # darker is earlier; the input is the first row
    plt.close("all")


def test_filling_shows_what_is_settled_and_nothing_else(picture):
    machine, size = picture
    made = machine if isinstance(machine, Plan) else machine.plan(size)
    number = steps(made).reshape(made.channels, -1)
    z = torch.full((made.channels, *(size or number.shape[1:] if isinstance(machine, Plan) else size)), -1.0)
    ax = mg.draw.filling(z, machine, panels=3)
    assert_readable(ax)
    meshes = [c for c in ax.collections if isinstance(c, QuadMesh)][:-1]  # the last one is the scale
    assert len(meshes) == min(3, number.max() + 1)
    shown = [int(name.removeprefix("step ")) for _, name in drawn_texts(ax) if name.startswith("step ")]
    assert (shown[0], shown[-1]) == (0, number.max())
    for step, mesh in zip(shown, meshes, strict=True):
        blue = mesh.get_array().reshape(*number.shape, 3)[..., 0] < 0.5
        assert (blue == (number <= step)).all()


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: mg.draw.index_cofiltration("dense"), TypeError, "got a str: give a parametric machine, or a plan"),
        (
            lambda: mg.draw.index_cofiltration(mg.ConvMachine((1, 1), 3)),
            ValueError,
            r"got size=\(\) for a machine with 1 axes",
        ),
        (lambda: mg.draw.filling(np.ones(3), mg.DenseMachine((2, 2))), ValueError, "give one sample of 4 channels"),
        (lambda: mg.draw.filling(np.ones(4), mg.DenseMachine((2, 2)), panels=0), ValueError, "got panels=0"),
        (lambda: mg.draw.index_cofiltration(SCALED, size=8), ValueError, "got a plan of 2 grids, as of a machine with"),
        (lambda: mg.draw.filling(SCALED(torch.zeros(1, 8)), SCALED), ValueError, "got a plan of 2 grids"),
        (lambda: steps(SCALED.plan((8,))), ValueError, "give a machine whose blocks all have scale 0"),
    ],
)
def test_what_can_not_be_drawn(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_the_figure_is_written_twice_with_the_same_bytes(tmp_path):
    first, second = (index_figure.main(out=tmp_path / name) for name in "ab")
    assert [path.suffix for path in first] == [".svg", ".png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_figure_holds_solutions():
    """The input is on block 0 alone, so y = w z on all others."""
    for _, machine, z in index_figure.rows():
        if not isinstance(machine, Plan):
            z, first = z.detach().double(), machine.partition.widths[0]
            y = (operator(machine.double(), z.shape[1:]) @ z.flatten()).view_as(z)
            torch.testing.assert_close(torch.tanh(y[first:]), z[first:], rtol=1e-4, atol=1e-4)
