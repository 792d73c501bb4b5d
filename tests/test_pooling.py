"""Blocks on coarser grids: pooling as one more machine of the sum, held to torch's own layers."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import machgraph as mg
from machgraph import compiled
from machgraph.io import from_specification, specification
from machgraph.mipmap import beside, cut, finest, pooled, spread

CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
KINDS = {
    "1-D": ((2, 3, 2, 4), (0, 0, 1, 2), (11,), {"kernel_size": 3}),
    "1-D, even kernel, dilated": ((1, 2, 2, 1), (0, 1, 1, 1), (9,), {"kernel_size": 2, "dilation": 2}),
    "2-D": ((1, 2, 3, 2), (0, 0, 1, 2), (8, 8), {"kernel_size": (3, 3)}),
    "2-D, odd": ((2, 1, 2, 3, 2), (0, 1, 1, 3, 3), (7, 5), {"kernel_size": (3, 2)}),
    "2-D, circular": ((1, 2, 2), (0, 0, 1), (6, 5), {"kernel_size": (3, 3), "padding": "circular"}),
    "3-D": ((1, 2, 2), (0, 1, 2), (4, 3, 5), {"kernel_size": (3, 1, 2)}),
    "out of order": ((1, 2, 2, 2), (0, 1, 0, 1), (6, 6), {"kernel_size": (3, 3), "shortcuts": "skip"}),
}
CASES = [
    pytest.param(*case, pooling, id=f"{name}, {pooling}") for name, case in KINDS.items() for pooling in ("max", "mean")
]


def machine_of(widths, scales, options, pooling, dtype=torch.float64, activation="tanh", seed=0):
    options = dict(options)
    if isinstance(options.get("shortcuts"), str):
        options["shortcuts"] = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]
    generator = torch.Generator().manual_seed(seed)
    return mg.ConvMachine(
        widths, scales=scales, pooling=pooling, activation=activation, generator=generator, dtype=dtype, **options
    )


def by_hand(machine, weight, bias, x):
    """Each block on its own grid, in torch's layers: what anyone would write."""
    dimensions, scales = machine.dimensions, machine.scales
    pad = [side for margin in reversed(machine.margins) for side in margin]
    mode = "circular" if machine.padding == "circular" else "constant"
    z = []
    for i in range(len(scales)):
        rows = machine.partition.block(i)
        heard = []
        for j in np.flatnonzero(machine.shortcuts[i]):
            source = z[j]
            for _ in range(scales[i] - scales[j]):
                size = source.shape[-dimensions:]
                window = [min(2, n) for n in size]
                name = f"{'avg' if machine.pooling == 'mean' else 'max'}_pool{dimensions}d"
                source = getattr(F, name)(source, window)
            columns = machine.partition.block(int(j))
            padded = F.pad(source, pad, mode=mode)
            heard.append(CONVOLUTIONS[dimensions - 1](padded, weight[rows, columns], dilation=machine.dilation))
        y = sum(heard) if heard else 0
        y = y + bias[rows].view(-1, *[1] * dimensions)
        if i == 0:
            y = y + x
        elif not heard:
            size = [max(1, n >> scales[i]) for n in x.shape[2:]]
            y = y.expand(len(x), rows.stop - rows.start, *size)
        z.append(machine.activation[i].function(y))
    return z


@pytest.mark.parametrize(("widths", "scales", "size", "options", "pooling"), CASES)
def test_solutions_and_gradients_are_those_of_torchs_layers(widths, scales, size, options, pooling):
    machine = machine_of(widths, scales, options, pooling)
    x = torch.randn(3, widths[0], *size, dtype=torch.float64, requires_grad=True)
    z = machine(x)
    expected = by_hand(machine, machine.weight, machine.bias, x)
    for block, wanted in zip(machine.split(z), expected, strict=True):
        torch.testing.assert_close(block, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(machine.output(z), expected[-1])
    cotangents = [torch.randn_like(block) for block in expected]
    inputs = (machine.weight, machine.bias, x)
    found = torch.autograd.grad(machine.split(z), inputs, cotangents)
    wanted = torch.autograd.grad(expected, inputs, cotangents)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("widths", "scales", "size", "options", "pooling"), CASES)
def test_it_agrees_with_its_architecture_and_its_plain_form(widths, scales, size, options, pooling):
    machine = machine_of(widths, scales, options, pooling)
    x = torch.randn(2, widths[0], *size, dtype=torch.float64)
    y, z = machine.solve(x)
    h = machine.architecture.resolvent(machine.components(x))
    for half, blocks in (("y", machine.split(y)), ("z", machine.split(z))):
        for i, block in enumerate(blocks):
            torch.testing.assert_close(h[f"{half}_{i}"], block)
    for i, j in np.argwhere(machine.shortcuts):
        for scale in range(scales[j] + 1, scales[i] + 1):
            on_grid = machine._on_grid(z[:, machine.partition.block(int(j))], scale)
            torch.testing.assert_close(h[f"z_{j}@{scale}"], on_grid)
    exported = torch.export.export(machine, (x,)).module()
    torch.testing.assert_close(exported(x), z)


@pytest.mark.parametrize("pooling", ["max", "mean"])
@pytest.mark.parametrize("name", ["1-D", "out of order", "2-D, circular"])
def test_derivatives_to_the_second_order(name, pooling):
    widths, scales, size, options = KINDS[name]
    machine = machine_of(widths, scales, options, pooling)
    x = torch.randn(1, widths[0], *size, dtype=torch.float64, requires_grad=True)
    parameters = machine.weight.detach().requires_grad_(), machine.bias.detach().requires_grad_()

    def solve(weight, bias, x):
        return machine.reference(weight, bias, x)

    assert torch.autograd.gradcheck(solve, (*parameters, x), fast_mode=pooling == "mean")  # which is linear
    assert torch.autograd.gradgradcheck(solve, (*parameters, x), atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_transforms_of_torch_func(pooling):
    widths, scales, size, options = KINDS["2-D"]
    machine = machine_of(widths, scales, options, pooling)
    x, dx = torch.randn(2, 3, widths[0], *size, dtype=torch.float64)
    weights = machine.weight.detach() * torch.linspace(0.5, 1.5, 4, dtype=torch.float64).view(-1, 1, 1, 1, 1)

    def output(weight, x):
        return machine.output(machine.reference(weight, machine.bias, x)[1])

    many = torch.func.vmap(output, in_dims=(0, None))(weights, x)
    torch.testing.assert_close(many, torch.stack([output(weight, x) for weight in weights]))
    each = torch.func.vmap(output, in_dims=(None, 0))(machine.weight, x.unsqueeze(1))
    torch.testing.assert_close(each.squeeze(1), output(machine.weight, x))
    _, tangent = torch.func.jvp(lambda x: output(machine.weight, x), (x,), (dx,))
    h = 1e-6
    numeric = (output(machine.weight, x + h * dx) - output(machine.weight, x - h * dx)) / (2 * h)
    torch.testing.assert_close(tangent, numeric, rtol=1e-6, atol=1e-7)
    grad = torch.func.vmap(torch.func.grad(lambda w, x: output(w, x).square().sum()), in_dims=(0, None))(weights, x)
    one = torch.func.grad(lambda w, x: output(w, x).square().sum())(weights[2], x)
    torch.testing.assert_close(grad[2], one)


def test_a_tie_goes_to_the_first_as_in_torch():
    machine = machine_of((1, 1), (0, 1), {"kernel_size": (1, 1), "bias": False}, "max", activation="identity")
    with torch.no_grad():
        machine.weight.fill_(1).mul_(torch.from_numpy(machine.weight_mask))
    x = torch.ones(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(machine.output(machine(x)).sum(), x)
    (wanted,) = torch.autograd.grad(F.max_pool2d(x, 2).sum(), x)
    assert torch.equal(gradient, wanted)


# ---- populations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_a_population_trains_them_as_torch_does(name, pooling, dtype, monkeypatch):
    widths, scales, size, options = KINDS[name]
    machine = machine_of(widths, scales, options, pooling, dtype)
    alone, stacked = copy.deepcopy(machine), copy.deepcopy(machine)
    torch.manual_seed(0)
    x, y = torch.randn(20, widths[0], *size, dtype=dtype), torch.randint(widths[-1], (20,))
    (data,) = mg.batches(x, y, 10)
    optimizer = mg.Optimizer("adamw", learning_rate=0.01, weight_decay=0.1)

    population = mg.Population(mg.Objective("cross_entropy"))
    candidate = population.enter(machine, optimizer)
    losses = [population.descend(data, [1.0, 1.0])[0] for _ in range(2)]
    candidate.store()

    monkeypatch.setattr(compiled, "AVAILABLE", False)
    other = mg.Population(mg.Objective("cross_entropy"))
    same = other.enter(stacked, optimizer)
    stacked_losses = [other.descend(data, [1.0, 1.0])[0] for _ in range(2)]
    same.store()

    reference = torch.optim.AdamW(alone.parameters(), lr=0.01, weight_decay=0.1)
    read = torch.zeros_like(alone.weight, dtype=torch.bool)  # taps that reach beyond a small grid never are
    mask = torch.from_numpy(alone.weight_mask)
    wanted = []
    for _ in range(2):
        epoch = []
        for rows in (slice(0, 10), slice(10, 20)):
            outputs = by_hand(alone, alone.weight, alone.bias, x[rows])[-1].flatten(2).mean(-1)
            loss = F.cross_entropy(outputs, y[rows])
            reference.zero_grad()
            loss.backward()
            read |= alone.weight.grad != 0
            alone.bias.grad[: widths[0]] = 0  # the input's is not trained
            held = alone.bias.detach()[: widths[0]].clone()
            reference.step()
            with torch.no_grad():
                alone.bias[: widths[0]] = held
                alone.weight.mul_(mask)
            epoch.append(loss.item())
        wanted.append(sum(epoch) / 2)
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-10}
    np.testing.assert_allclose(losses, wanted, **close)
    np.testing.assert_allclose(stacked_losses, wanted, **close)
    if dtype == torch.float64:  # Adam makes much of small gradients, whose float32 is rounded
        for trained in (machine, stacked):
            torch.testing.assert_close(trained.weight[read], alone.weight[read], **close)
            torch.testing.assert_close(trained.bias, alone.bias, **close)


def test_each_position_of_the_coarse_grid_may_be_answered():
    widths, scales, size, options = KINDS["2-D"]
    machine = machine_of(widths, scales, options, "max", torch.float32)
    x = torch.randn(8, widths[0], *size)
    y = torch.randint(widths[-1], (8, 2, 2))
    population = mg.Population(mg.Objective("cross_entropy", reading="each"))
    population.enter(machine, mg.Optimizer())
    ((loss, hits),) = population.measure(mg.batches(x, y, 8))
    outputs = machine.output(machine(x))
    assert loss == pytest.approx(F.cross_entropy(outputs, y).item(), rel=1e-5)
    assert hits == pytest.approx((outputs.argmax(1) == y).float().mean().item())


@settings(max_examples=60)
@given(st.data())
def test_any_mask_and_any_scales(data):
    blocks = data.draw(st.integers(2, 5))
    scales = [0, *data.draw(st.lists(st.integers(0, 2), min_size=blocks - 1, max_size=blocks - 1))]
    mask = np.zeros((blocks, blocks), dtype=bool)
    for i, j in itertools.combinations(range(blocks), 2):
        mask[j, i] = scales[i] <= scales[j] and data.draw(st.booleans())
    widths = data.draw(st.lists(st.integers(1, 3), min_size=blocks, max_size=blocks))
    size = tuple(data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=2)))
    pooling = data.draw(st.sampled_from(["max", "mean"]))
    machine = machine_of(widths, scales, {"kernel_size": (3, 2), "shortcuts": mask}, pooling)
    x = torch.randn(2, widths[0], *size, dtype=torch.float64)
    expected = by_hand(machine, machine.weight, machine.bias, x)
    z = machine(x)
    for block, wanted in zip(machine.split(z), expected, strict=True):
        torch.testing.assert_close(block, wanted)
    population = mg.Population(mg.Objective("squared_error"), threads=1)
    population.enter(machine, mg.Optimizer())
    ((loss, _),) = population.measure(mg.batches(x, torch.zeros(2, widths[-1], dtype=torch.float64), 2))
    assert loss == pytest.approx(expected[-1].flatten(2).mean(-1).square().mean().item())


# ---- layout, words, errors ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 4))
def test_mipmaps_go_both_ways(size, scales):
    size = tuple(size)
    grids = [torch.rand(2, *(max(1, n >> scale) for n in size)) for scale in range(scales)]
    whole = beside(grids, size)
    assert whole.shape[1:] == spread(size, scales)
    assert finest(spread(size, scales), scales) == size
    for scale, grid in enumerate(grids):
        assert torch.equal(cut(whole, size, scale), grid)
    assert whole.sum() == pytest.approx(sum(grid.sum() for grid in grids).item(), rel=1e-5)


def test_pooling_by_hand():
    x = torch.arange(12.0).reshape(1, 3, 4)
    assert pooled(x, 2, mean=False).tolist() == [[[5, 7]]]
    assert pooled(x, 2, mean=True).tolist() == [[[2.5, 4.5]]]


def test_it_is_written_down_and_copied():
    machine = machine_of(*KINDS["2-D"][:2], KINDS["2-D"][3], "mean")
    other = from_specification(specification(machine), dtype=torch.float64)
    other.load_state_dict(machine.state_dict())
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    assert torch.equal(other(x), machine(x))
    assert (other.scales, other.pooling) == (machine.scales, "mean")


def test_flops_count_each_block_on_its_own_grid():
    machine = mg.ConvMachine((1, 4, 10), 3, scales=(0, 0, 1))
    assert machine.flops((8,)) == 8 * (1 + 4 * (2 * 3 + 1)) + 4 * 10 * (2 * 3 * 5 + 1) - 8 * 0
    with pytest.raises(ValueError, match="got no size"):
        machine.flops()


@pytest.mark.parametrize(
    ("scales", "more", "message"),
    [
        ((0, 1), {}, "for 3 blocks"),
        ((1, 1, 1), {}, "0 for the input"),
        ((0, 2, 1), {}, "block 2 hears block 1, which is coarser"),
        ((0, 0, 1), {"padding": "causal"}, "looks ahead"),
        ((0, 0.5, 1), {}, r"got scales=\(0, 0.5, 1\) for 3 blocks: .* all whole"),
        (1, {}, "got scales=1 for 3 blocks"),
        ((0, 0, 1), {"pooling": "median"}, "pooling='median'"),
    ],
)
def test_what_can_not_be(scales, more, message):
    with pytest.raises(ValueError, match=message):
        mg.ConvMachine((1, 2, 2), 3, scales=scales, **more)


def test_scales_of_numpy_are_written_down():
    machine = mg.ConvMachine((1, 2), 3, scales=np.array([0, 1]))
    assert json.loads(json.dumps(specification(machine)))["scales"] == [0, 1]


def test_slopes_are_refused():
    machine = mg.ConvMachine((1, 2, 2), 3, scales=(0, 0, 1))
    y, _ = machine.solve(torch.randn(1, 1, 8))
    with pytest.raises(ValueError, match=r"got slopes for a machine of several scales, .*: take the tangent by torch"):
        machine.solve(torch.randn(1, 1, 8), slopes=torch.ones_like(y))


def test_input_for_a_coarser_block_is_refused():
    machine = mg.ConvMachine((1, 2, 2), 3, scales=(0, 0, 1))
    with pytest.raises(ValueError, match="the first 3 are there"):
        machine(torch.randn(1, 5, 8))
