"""Convolutional machines: the defining equations, with torch's own convolutions as the oracle."""

import itertools

import numpy as np
import pytest
import torch
from helpers import by_block, convolved, solver
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jvp, vmap

import machgraph as mg

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

HOLES = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]], dtype=bool)
SHAPES = {  # kernel, dilation, size
    "one tap": ((1,), 1, (5,)),
    "odd": ((3,), 1, (6,)),
    "even": ((4,), 1, (6,)),
    "even, dilated": ((4,), (2,), (7,)),
    "even, three apart": ((2,), (3,), (5,)),
    "wide": ((7,), 1, (4,)),
    "plane": ((3, 2), 1, (4, 5)),
    "plane, dilated": ((2, 3), (3, 2), (5, 4)),
    "space": ((2, 1, 3), 1, (3, 2, 4)),
    "space, dilated": ((3, 2, 2), (1, 2, 1), (2, 4, 3)),
}


class Case:
    """A machine of float64 as a function of (weight, bias, y0, z0), and arguments for it."""

    def __init__(self, shape, padding, shortcuts=HOLES, widths=(2, 1, 2, 1), channels=None):
        torch.manual_seed(0)
        kernel, dilation, size = SHAPES[shape]
        self.machine = mg.ConvMachine(
            widths,
            kernel,
            activation=("identity", *["tanh"] * (len(widths) - 2), "sine"),
            shortcuts=shortcuts,
            padding=padding,
            dilation=dilation,
            dtype=torch.float64,
        )
        self.solve = solver(self.machine)
        c = sum(widths)
        y0 = torch.randn(2, channels or c, *size, dtype=torch.float64)
        z0 = torch.randn(2, c, *size, dtype=torch.float64)
        self.mask = torch.from_numpy(self.machine.weight_mask)
        weight = torch.randn_like(self.machine.weight.detach()) / 2
        self.arguments = (weight, torch.randn(c, dtype=torch.float64), y0, z0)

    def require_grad(self):
        return tuple(argument.clone().requires_grad_() for argument in self.arguments)

    def linear(self, weight, z):
        return convolved(z, weight * self.mask, self.machine.padding, self.machine.dilation)


@pytest.fixture(params=[(s, p) for s in SHAPES for p in ("same", "causal", "circular")], ids=str)
def case(request):
    return Case(*request.param)


def test_machine_equation(case):
    weight, bias, y0, z0 = case.arguments
    machine = case.machine
    y, z = case.solve(weight, bias, y0, z0)
    beside = bias.view(-1, *[1] * machine.dimensions)
    sigma = torch.cat([s.function(b) for s, b in zip(machine.activation, machine.split(y), strict=True)], dim=1)
    torch.testing.assert_close(y, case.linear(weight, z) + y0 + beside, rtol=0, atol=1e-12)  # eq. 11
    torch.testing.assert_close(z, sigma + z0, rtol=0, atol=1e-12)  # eq. 10


def test_gradients_are_those_of_torchs_convolutions(case):
    """The same machine by iteration, z <- σ(W z + y0) + z0, as often as there are blocks."""
    arguments = case.require_grad()
    weight, bias, y0, z0 = arguments
    machine = case.machine
    z = torch.zeros_like(z0)
    for _ in range(len(machine.partition)):
        y = case.linear(weight, z) + y0 + bias.view(-1, *[1] * machine.dimensions)
        z = z0 + torch.cat([s.function(b) for s, b in zip(machine.activation, machine.split(y), strict=True)], dim=1)
    ours = case.solve(*arguments)
    torch.testing.assert_close(ours, (y, z), rtol=1e-12, atol=1e-12)
    cotangents = [torch.randn_like(z) for _ in range(2)]
    expected = torch.autograd.grad((y, z), arguments, cotangents)
    torch.testing.assert_close(torch.autograd.grad(ours, arguments, cotangents), expected, rtol=1e-12, atol=1e-11)


def test_equals_its_sum_of_machines(case):
    machine, (_, _, y0, z0) = case.machine, case.require_grad()
    inputs = (machine.weight, machine.bias, y0, z0)
    ours = machine.solve(y0, z0)
    theirs = by_block(machine, machine.architecture.resolvent(machine.components(y0, z0)))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    cotangents = [torch.randn_like(y0) for _ in range(2)]
    gradients = (torch.autograd.grad(values, inputs, cotangents) for values in (ours, theirs))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("padding", ["same", "causal", "circular"])
@pytest.mark.parametrize(("kernel", "size"), [((2,), (3,)), ((3,), (2,)), ((2, 1), (2, 2)), ((1, 2, 2), (1, 2, 2))])
def test_derivatives_of_first_and_second_order(padding, kernel, size):
    torch.manual_seed(0)
    machine = mg.ConvMachine((1, 1, 1), kernel, activation="tanh", padding=padding, dtype=torch.float64)
    x = torch.randn(2, 1, 3, *size, dtype=torch.float64)
    tensors = (torch.randn_like(machine.weight), torch.randn_like(machine.bias), *x)
    arguments = [tensor.detach().requires_grad_() for tensor in tensors]
    assert gradcheck(solver(machine), arguments, check_forward_ad=True, fast_mode=len(kernel) > 1)
    assert gradgradcheck(solver(machine), arguments, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("shape", ["even", "plane"])
@pytest.mark.parametrize("padding", ["same", "causal", "circular"])
@pytest.mark.parametrize("batched", [(2,), (0, 1), (2, 3), (0, 1, 2, 3)])
def test_vmap_of_values_and_of_gradients(shape, padding, batched):
    case = Case(shape, padding)
    arguments = [torch.randn(3, *x.shape, dtype=x.dtype) if i in batched else x for i, x in enumerate(case.arguments)]
    in_dims = tuple(0 if i in batched else None for i in range(4))

    def energy(*x):
        return sum((half.square() * torch.arange(half.shape[-1])).sum() for half in case.solve(*x))

    for function in (case.solve, grad(energy, argnums=(0, 1, 2, 3))):
        together = vmap(function, in_dims=in_dims)(*arguments)
        for k in range(3):
            alone = function(*[x[k] if i in batched else x for i, x in enumerate(arguments)])
            torch.testing.assert_close(tuple(t[k] for t in together), alone, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("padding", ["same", "causal", "circular"])
def test_the_tangent_is_the_derivative_along_a_line(padding):
    case = Case("plane, dilated", padding)
    tangents = tuple(torch.randn_like(x) for x in case.arguments)
    _, pushed = jvp(case.solve, case.arguments, tangents)

    def along(t):
        return torch.stack(case.solve(*[x + t * dx for x, dx in zip(case.arguments, tangents, strict=True)]))

    t = torch.zeros((), dtype=torch.float64)
    pulled = torch.autograd.functional.jacobian(along, t)
    torch.testing.assert_close(torch.stack(pushed), pulled, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", ["even", "plane", "space"])
@pytest.mark.parametrize("padding", ["same", "causal", "circular"])
def test_shapes_of_batches_and_of_inputs(shape, padding):
    case = Case(shape, padding)
    machine, (*_, size) = case.machine, SHAPES[shape]
    x = torch.randn(3, 2, 2, *size, dtype=torch.float64)
    y, z = machine.solve(x)
    assert y.shape == z.shape == (3, 2, 6, *size)
    torch.testing.assert_close(machine(x[2, 1]), z[2, 1], rtol=0, atol=1e-14)
    assert machine(x[:0]).shape == (0, 2, 6, *size)
    whole = torch.cat([x, x.new_zeros(3, 2, 4, *size)], dim=2)
    torch.testing.assert_close(machine.solve(whole), (y, z), rtol=0, atol=0)
    assert machine.output(z).shape == (3, 2, 1, *size)
    torch.testing.assert_close(machine.solve(x, torch.zeros_like(whole)), (y, z), rtol=0, atol=1e-14)
    x.requires_grad_()
    part, all_of_it = (
        torch.autograd.grad(machine(v).sin().sum(), x)[0]
        for v in (x, nn.functional.pad(x, (0, 0) * len(size) + (0, 4)))
    )
    torch.testing.assert_close(part, all_of_it, rtol=0, atol=1e-14)


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize(
    ("dimensions", "kernel", "dilation", "size"),
    [(1, 3, 1, (6,)), (1, 4, 1, (6,)), (1, 2, 3, (6,)), (2, (4, 3), (1, 2), (5, 6)), (3, (2, 3, 4), 1, (4, 3, 5))],
)
def test_a_sequential_mask_is_a_stack_of_torchs_layers(dimensions, kernel, dilation, size, padding_mode):
    torch.manual_seed(1)
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    widths = (2, 3, 1, 2)
    layers = [
        layer(a, b, kernel, padding="same", dilation=dilation, padding_mode=padding_mode, dtype=torch.float64)
        for a, b in itertools.pairwise(widths)
    ]
    stack = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.ReLU(), layers[2])
    machine = mg.ConvMachine(
        widths,
        layers[0].kernel_size,
        activation=("identity", "tanh", "relu", "identity"),
        shortcuts="sequential",
        padding="same" if padding_mode == "zeros" else "circular",
        dilation=dilation,
        dtype=torch.float64,
    )
    block = machine.partition.block
    with torch.no_grad():
        machine.bias.zero_()
        for i, one in enumerate(layers, start=1):
            machine.weight[block(i), block(i - 1)] = one.weight
            machine.bias[block(i)] = one.bias
    x = torch.randn(4, 2, *size, dtype=torch.float64, requires_grad=True)
    ours, theirs = machine.output(machine(x)), stack(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    v = torch.randn_like(ours)
    dx, dw, db = torch.autograd.grad(ours, (x, machine.weight, machine.bias), v)
    expected = torch.autograd.grad(theirs, [x, *stack.parameters()], v)
    torch.testing.assert_close(dx, expected[0], rtol=1e-12, atol=1e-12)
    for i in (1, 2, 3):
        torch.testing.assert_close(dw[block(i), block(i - 1)], expected[2 * i - 1], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(db[block(i)], expected[2 * i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding", ["same", "causal", "circular"])
def test_masked_weights_are_never_read_and_get_no_gradient(padding):
    case = Case("plane", padding)
    weight, *rest = case.arguments
    before = case.solve(weight, *rest)
    poisoned = weight.masked_fill(~case.mask, torch.nan).requires_grad_()
    after = case.solve(poisoned, *rest)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(sum(half.sin().sum() for half in after), poisoned)
    assert (gradient[~case.mask] == 0).all()
    assert (gradient[case.mask] != 0).all()


def test_padding_is_never_written():
    """What σ makes of 0 is not 0 here: the padding must stay 0 all the same."""
    machine = mg.ConvMachine((1, 1, 1), (3, 3), activation=torch.cos, bias=False, dtype=torch.float64)
    machine.weight.data.fill_(1.0)
    z = machine(torch.zeros(1, 2, 2, dtype=torch.float64))
    torch.testing.assert_close(z[0], torch.ones(2, 2, dtype=torch.float64), rtol=0, atol=0)
    torch.testing.assert_close(z[1], torch.full((2, 2), 4.0, dtype=torch.float64).cos(), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("kernel", "dilation", "size", "sentence"),
    [
        (4, 1, (1,), "got 1 positions for a circular kernel that reaches 2 beyond"),
        ((3, 3), (1, 4), (5, 3), "got 3 positions for a circular kernel that reaches 4 beyond"),
    ],
)
def test_a_circular_kernel_that_reaches_too_far_is_refused(kernel, dilation, size, sentence):
    machine = mg.ConvMachine((1, 1), kernel, padding="circular", dilation=dilation)
    with pytest.raises(ValueError, match=sentence):
        machine(torch.randn(1, *size))


def test_a_circular_kernel_may_reach_around_once():
    machine = mg.ConvMachine((1, 1), 5, padding="circular", activation="identity", bias=False, dtype=torch.float64)
    x = torch.randn(1, 1, 2, dtype=torch.float64)
    y = machine.solve(x)[0][:, 1:]
    expected = convolved(machine.split(machine(x))[0], machine.weight[1:, :1], "circular", (1,))
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-14)


def test_the_mask_is_for_all_taps_of_a_pair():
    machine = mg.ConvMachine((2, 3, 1), (3, 2), shortcuts="sequential")
    assert machine.weight.shape == (6, 6, 3, 2)
    assert machine.parameter_count() == 6 * (2 * 3 + 3 * 1) + 6
    assert machine.flops() == 2 * 6 * (2 * 3 + 3 * 1) + 6
    assert (machine.weight.detach().numpy()[~machine.weight_mask] == 0).all()
    assert machine.weight[2:5].abs().max() <= (2 * 6) ** -0.5  # the fan-in counts taps


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"padding": "valid"}, 'got padding=\'valid\': give "same", "causal" or "circular"'),
        ({"kernel_size": 0}, "got kernel_size=0: give one, two or three numbers of at least 1"),
        ({"kernel_size": (3, 3, 3, 3)}, "give one, two or three numbers"),
        ({"kernel_size": (3.9,)}, r"got kernel_size=\(3.9,\): give one, two or three numbers of at least 1, and whole"),
        ({"kernel_size": 3.0}, "got kernel_size=3.0: .* whole"),
        ({"kernel_size": True}, "got kernel_size=True: .* whole"),
        ({"dilation": 1.5}, "got dilation=1.5: give one number, or 1 of at least 1, and whole"),
        ({"dilation": (1, 2)}, r"got dilation=\(1, 2\): give one number, or 1 of at least 1"),
        ({"dilation": 0}, "got dilation=0"),
        ({"shortcuts": np.eye(2, dtype=bool)}, r"shortcuts\[0, 0\] lets block 0 feed block 0"),
    ],
)
def test_what_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        mg.ConvMachine((1, 1), **({"kernel_size": 3} | arguments))


def test_what_is_refused_of_an_input():
    machine = mg.ConvMachine((1, 2), (3, 3))
    with pytest.raises(
        ValueError, match=r"got y0 of shape \(1, 5\): it must be \(..., channel, size, size\) with 1 to 3"
    ):
        machine(torch.randn(1, 5))
    with pytest.raises(ValueError, match=r"it has no positions"):
        machine(torch.randn(1, 0, 5))
    with pytest.raises(ValueError, match=r"got a machine of torch.complex64: .* so convert it back"):
        mg.ConvMachine((1, 2), 3).type(torch.complex64)(torch.randn(1, 1, 5, dtype=torch.complex64))


def test_numbers_of_numpy_are_numbers():
    machine = mg.ConvMachine((1, 1), np.int64(3), dilation=np.array([2]))
    assert (machine.kernel_size, machine.dilation) == ((3,), (2,))
    assert all(type(extent) is int for extent in machine.kernel_size + machine.dilation)


def steep(y):
    """Its slope at 0, which is where padding stands, is infinite."""
    return y.sign() * y.abs().sqrt()


@pytest.mark.parametrize(
    ("size", "more"),
    [((9,), {}), ((6, 6), {}), ((6, 6), {"padding": "circular"}), ((6, 6), {"scales": (0, 0, 1)}), ((3, 4, 4), {})],
)
def test_no_slope_of_padding_counts(size, more):
    machine = mg.ConvMachine((1, 4, 2), (3,) * len(size), activation=steep, generator=torch.manual_seed(0), **more)
    y0 = torch.randn(2, 1, *size, requires_grad=True)
    machine.output(machine(y0)).sum().backward()
    assert machine.bias.grad.isfinite().all()
    torch.testing.assert_close(machine.bias.grad[0], y0.grad.sum())  # the bias is a part of y0
