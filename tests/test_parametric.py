"""Dense machines: the defining equations on a table of cases, and oracles that know nothing of machines."""

import copy
import itertools

import numpy as np
import pytest
import torch
from helpers import concatenations, masks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

import machgraph as mg
from machgraph.partition import channel_mask, fan_in

HOLES = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)
SHORTCUTS = {"all": None, "sequential": "sequential", "holes": HOLES, "none": np.zeros((4, 4), dtype=bool)}
ACTIVATIONS = {
    "tanh": "tanh",
    "mixed": ("identity", "sine", "gelu", "softplus"),
    "callable": ("sigmoid", "silu", lambda y: y * torch.cos(y), "identity"),
}


class Solve(nn.Module):
    """So that ``functional_call`` reaches ``solve``."""

    def __init__(self, machine):
        super().__init__()
        self.machine = machine

    def forward(self, *x):
        return self.machine.solve(*x)


class Case:
    """A machine of float64 as a function of (weight, bias, y0[, z0]), and arguments for it."""

    def __init__(self, shortcuts, activation, with_z0):
        torch.manual_seed(0)
        self.machine = mg.DenseMachine(
            (2, 1, 2, 1), activation=ACTIVATIONS[activation], shortcuts=SHORTCUTS[shortcuts], dtype=torch.float64
        )
        self.solve = Solve(self.machine)
        y0 = torch.randn(2, 6 if with_z0 else 2, dtype=torch.float64)
        z0 = (torch.randn(2, 6, dtype=torch.float64),) if with_z0 else ()
        self.arguments = (torch.randn(6, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64), y0, *z0)

    def __call__(self, weight, bias, *x):
        return functional_call(self.solve, {"machine.weight": weight, "machine.bias": bias}, x)

    def energy(self, *arguments):
        return sum((half.square() * torch.arange(1, 7)).sum() for half in self(*arguments))

    def require_grad(self):
        return tuple(argument.clone().requires_grad_() for argument in self.arguments)


@pytest.fixture(params=[(s, a, z) for s in SHORTCUTS for a in ACTIVATIONS for z in (False, True)], ids=str)
def case(request):
    return Case(*request.param)


def test_machine_equation(case):
    weight, bias, *x = case.arguments
    machine = case.machine
    y, z = case(weight, bias, *x)
    W = weight * torch.from_numpy(channel_mask(machine.shortcuts, machine.partition))
    y0 = nn.functional.pad(x[0], (0, 6 - x[0].shape[-1]))
    sigma = torch.cat([s.function(b) for s, b in zip(machine.activation, machine.split(y), strict=True)], dim=-1)
    torch.testing.assert_close(y, z @ W.mT + y0 + bias, rtol=0, atol=1e-12)  # eq. 11
    torch.testing.assert_close(z, sigma + (x[1] if len(x) > 1 else 0), rtol=0, atol=1e-12)  # eq. 10


def test_equals_the_network_of_concatenations(case):
    arguments = case.require_grad()
    weight, bias, *x = arguments
    ours, theirs = case(*arguments), concatenations(case.machine, *x, weight=weight, bias=bias)
    cotangents = [torch.randn(2, 6, dtype=torch.float64) for _ in range(2)]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(theirs, arguments, cotangents, allow_unused=True, materialize_grads=True)
    for a, b in zip(torch.autograd.grad(ours, arguments, cotangents), gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_derivatives_of_first_and_second_order(case):
    arguments = case.require_grad()
    assert gradcheck(case, arguments, check_forward_ad=True)
    assert gradgradcheck(case, arguments, check_fwd_over_rev=True)


def test_the_dual_is_the_adjoint_of_the_tangent(case):
    primal = case.arguments
    tangents = tuple(torch.randn_like(x) for x in primal)
    cotangents = tuple(torch.randn(2, 6, dtype=torch.float64) for _ in range(2))
    pushed = jvp(case, primal, tangents)[1]
    pulled = vjp(case, *primal)[1](cotangents)
    left = sum((a * b).sum() for a, b in zip(pushed, cotangents, strict=True))
    right = sum((a * b).sum() for a, b in zip(tangents, pulled, strict=True))
    torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)  # <A t, w> == <t, A* w>


def test_dual_by_a_dense_solve(case):
    """eqs. 12 and 13 as one linear system, with the masked W (algorithm 1 prints L) and with + v0."""
    arguments = case.require_grad()
    machine = case.machine
    y, z = case(*arguments)
    mask = torch.from_numpy(channel_mask(machine.shortcuts, machine.partition))
    W = (arguments[0] * mask).detach()
    y_detached = y.detach().requires_grad_()
    sigma = torch.cat(
        [s.function(b) for s, b in zip(machine.activation, machine.split(y_detached), strict=True)], dim=-1
    )
    (slopes,) = torch.autograd.grad(sigma.sum(), y_detached)
    v0, u0 = torch.randn_like(y), torch.randn_like(z)
    expected = []
    for s, v0_row, u0_row in zip(slopes, v0, u0, strict=True):
        system = torch.eye(6, dtype=torch.float64) - s[:, None] * W.mT  # v = s W* v + s u0 + v0
        expected.append(torch.linalg.solve(system, s * u0_row + v0_row))
    v = torch.stack(expected)
    gradients = torch.autograd.grad((y, z), arguments, (v0, u0))
    torch.testing.assert_close(gradients[1], v.sum(0), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients[2], v[:, : arguments[2].shape[-1]], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients[0], (v.mT @ z.detach()) * mask, rtol=1e-10, atol=1e-10)  # eq. 14
    if len(arguments) == 4:
        torch.testing.assert_close(gradients[3], v @ W + u0, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("batched", [(0,), (2,), (0, 1, 2), (1, 2), (1,)], ids=str)
@pytest.mark.parametrize("with_z0", [False, True])
def test_vmap_of_values_and_of_gradients(batched, with_z0):
    case = Case("holes", "mixed", with_z0)
    arguments = [
        torch.randn(3, *x.shape, dtype=torch.float64) if i in batched else x for i, x in enumerate(case.arguments)
    ]
    in_dims = tuple(0 if i in batched else None for i in range(len(arguments)))
    alone = [[x[k] if i in batched else x for i, x in enumerate(arguments)] for k in range(3)]
    for function in (case, grad(case.energy, argnums=(0, 1, 2)), hessian(case.energy, argnums=1)):
        together = vmap(function, in_dims=in_dims)(*arguments)
        for k in range(3):
            torch.testing.assert_close(
                torch.utils._pytree.tree_map(lambda t, k=k: t[k], together), function(*alone[k]), rtol=1e-10, atol=1e-10
            )


def test_third_order():
    case = Case("all", "tanh", True)
    weight, bias, y0, z0 = case.arguments
    direction = torch.randn_like(weight)

    def along(t, solve):
        return solve(weight + t * direction, t).square().sum()

    def ours(W, t):
        return case(W, bias, y0 * (1 + t), z0)[1]

    def theirs(W, t):
        return concatenations(case.machine, y0 * (1 + t), z0, weight=W, bias=bias)[1]

    for solve in (ours, theirs):
        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        value = along(t, solve)
        for _ in range(3):
            (value,) = torch.autograd.grad(value, t, create_graph=True)
        if solve is ours:
            expected = value.detach()
    torch.testing.assert_close(expected, value.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr:UserWarning")  # torch's, of its own graph
def test_nested_forward_mode_and_linearization():
    """What torch's custom functions can't take part in goes through plain operations."""
    case = Case("holes", "mixed", True)
    weight, bias, y0, z0 = case.arguments

    def energy(y0):
        return case.energy(weight, bias, y0, z0)

    expected = hessian(energy)(y0)
    torch.testing.assert_close(jacfwd(jacfwd(energy))(y0), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(jacfwd(jacrev(energy))(y0), expected, rtol=1e-10, atol=1e-10)
    direction = torch.randn_like(y0)
    for trainable in (True, False):
        case.machine.requires_grad_(trainable)
        tangent = linearize(case.machine, y0)[1](direction)
        torch.testing.assert_close(tangent, jvp(case.machine, (y0,), (direction,))[1], rtol=1e-10, atol=1e-10)


def test_batched_gradients():
    case = Case("all", "tanh", True)
    weight, bias, y0, z0 = case.arguments
    several = torch.autograd.functional.jacobian(lambda y0: case(weight, bias, y0, z0), y0, vectorize=True)
    one = torch.autograd.functional.jacobian(lambda y0: case(weight, bias, y0, z0), y0)
    torch.testing.assert_close(several, one, rtol=1e-12, atol=1e-12)


def test_autocast():
    network = nn.Sequential(nn.Linear(3, 3), mg.DenseMachine((3, 4, 2), activation="tanh"))
    x = torch.randn(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        z = network(x)
    assert z.dtype == torch.bfloat16
    torch.testing.assert_close(z.float(), network(x), rtol=0.05, atol=0.05)
    z.float().sum().backward()
    assert network[1].weight.grad.dtype == torch.float32


@given(masks(), st.sampled_from(["tanh", "relu", "silu"]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_random_machines_and_their_sums_of_machines(case, activation, bias):
    partition, mask = case
    machine = mg.DenseMachine(partition.widths, activation=activation, shortcuts=mask, bias=bias, dtype=torch.float64)
    y0 = torch.randn(2, partition.size, dtype=torch.float64)
    z0 = torch.randn(2, partition.size, dtype=torch.float64)
    y, z = machine.solve(y0, z0)
    for a, b in zip((y, z), concatenations(machine, y0, z0), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    architecture = machine.architecture
    h = architecture.resolvent(machine.components(y0, z0))
    for i, (y_block, z_block) in enumerate(zip(machine.split(y), machine.split(z), strict=True)):
        torch.testing.assert_close(h[f"y_{i}"], y_block, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(h[f"z_{i}"], z_block, rtol=1e-12, atol=1e-12)
    assert architecture.depth <= partition.depth_bound  # 2n + 1
    ours = torch.autograd.grad(z.square().sum(), machine.weight)[0]
    total = sum(h[f"z_{i}"].square().sum() for i in range(len(partition)))
    theirs = torch.autograd.grad(total, machine.weight)[0] if mask.any() else torch.zeros_like(ours)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_depth_of_all_shortcuts_is_the_bound():
    machine = mg.DenseMachine((3, 2, 2, 2))
    assert machine.architecture.depth == 7
    assert machine.architecture.order == ["σ_0", "w_1", "σ_1", "w_2", "σ_2", "w_3", "σ_3"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sequential_mask_is_a_multilayer_perceptron(dtype):
    torch.manual_seed(1)
    widths = (5, 8, 8, 3)
    machine = mg.DenseMachine(
        widths, activation=("identity", "relu", "relu", "identity"), shortcuts="sequential", dtype=dtype
    )
    linear = [nn.Linear(a, b, dtype=dtype) for a, b in itertools.pairwise(widths)]
    mlp = nn.Sequential(linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2])
    with torch.no_grad():
        machine.bias.zero_()
        for i, layer in enumerate(linear, start=1):
            machine.weight[machine.partition.block(i), machine.partition.block(i - 1)] = layer.weight
            machine.bias[machine.partition.block(i)] = layer.bias
    x = torch.randn(16, 5, dtype=dtype)
    precision = torch.finfo(dtype).eps * 8
    torch.testing.assert_close(machine.output(machine(x)), mlp(x), rtol=precision, atol=precision)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_follows_float64(dtype):
    torch.manual_seed(0)
    machine = mg.DenseMachine((8, 16, 16, 4), activation="tanh", dtype=dtype)
    exact = copy.deepcopy(machine).double()
    x = torch.randn(32, 8).to(dtype)
    tolerance = 30 * torch.finfo(dtype).eps
    torch.testing.assert_close(machine(x).double(), exact(x.double()), rtol=tolerance, atol=tolerance)
    for one, inputs in ((machine, x), (exact, x.double())):
        one(inputs).mean().backward()
    torch.testing.assert_close(machine.weight.grad.double(), exact.weight.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_cuda_follows_the_cpu(dtype):
    machine = mg.DenseMachine((8, 16, 16, 4), activation="tanh", dtype=dtype)
    x = torch.randn(32, 8).to(dtype)
    moved = copy.deepcopy(machine).cuda()
    tolerance = 30 * torch.finfo(dtype).eps
    torch.testing.assert_close(moved(x.cuda()).cpu(), machine(x), rtol=tolerance, atol=tolerance)
    for one, inputs in ((machine, x), (moved, x.cuda())):
        one(inputs).mean().backward()
    torch.testing.assert_close(moved.weight.grad.cpu(), machine.weight.grad, rtol=tolerance, atol=tolerance)


@given(masks())
@settings(deadline=None)
def test_initial_weights_count_the_inputs_that_the_mask_leaves(case):
    partition, mask = case
    machine = mg.DenseMachine(partition.widths, shortcuts=mask, generator=torch.Generator().manual_seed(0))
    left_out = ~torch.from_numpy(channel_mask(mask, partition))
    assert (machine.weight[left_out] == 0).all()
    for i, inputs in enumerate(fan_in(mask, partition)):
        bound = inputs**-0.5 if inputs else 0
        assert machine.weight[partition.block(i)].abs().max() <= bound
        assert machine.bias[partition.block(i)].abs().max() <= bound
    assert machine.parameter_count() == int((~left_out).sum()) + partition.size
    assert machine.flops() == 2 * int((~left_out).sum()) + partition.size


def test_initial_weights_fill_their_range():
    machine = mg.DenseMachine((100, 50, 20), shortcuts=[[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    assert 0.098 < machine.weight[100:150, :100].abs().max() < 0.1
    assert 0.135 < machine.weight[150:, 100:150].abs().max() < 50**-0.5


def test_masked_weights_are_never_read_and_get_no_gradient():
    machine = mg.DenseMachine((3, 2, 2, 2), activation="tanh", shortcuts=HOLES)
    left_out = ~torch.from_numpy(channel_mask(machine.shortcuts, machine.partition))
    x = torch.randn(4, 3)
    before = machine(x)
    machine.weight.data[left_out] = torch.nan
    after = machine(x)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    after.sum().backward()
    assert (machine.weight.grad[left_out] == 0).all()


def test_shapes_of_batches():
    machine = mg.DenseMachine((3, 4, 2))
    x = torch.randn(5, 6, 3)
    z = machine(x)
    assert z.shape == (5, 6, 9)
    assert machine.output(z).shape == (5, 6, 2)
    torch.testing.assert_close(machine(x[2, 3]), z[2, 3])
    assert machine(x[:0]).shape == (0, 6, 9)
    whole = torch.cat([x, torch.zeros(5, 6, 6)], dim=-1)
    torch.testing.assert_close(machine(whole), z)


def test_the_callers_tensors_are_left_alone():
    machine = mg.DenseMachine((3, 4, 2), activation="identity")
    y0, z0 = torch.randn(5, 9), torch.randn(5, 9)
    given = y0, z0, machine.bias.detach(), machine.weight.detach()
    kept = tuple(tensor.clone() for tensor in given)
    for half in (*machine.solve(y0, z0), *machine.solve(y0[:1], z0[:1]), machine(y0[0])):
        half.detach().zero_()
    torch.testing.assert_close(given, kept, rtol=0, atol=0)


def test_as_a_module():
    machine = mg.DenseMachine((3, 4, 2))
    assert set(machine.state_dict()) == {"weight", "bias"}
    twin = copy.deepcopy(machine)
    with torch.no_grad():
        twin.weight.mul_(2)
    x = torch.randn(5, 3)
    h = twin.architecture.resolvent(twin.components(x))
    torch.testing.assert_close(h["z_2"], twin.output(twin(x)))  # its own weights, not those that it was copied from
    assert "24 edges" not in repr(machine)
    assert "3 edges between blocks" in repr(machine)
    network = nn.Sequential(nn.Linear(7, 3), machine, nn.Linear(9, 1))
    network(torch.randn(2, 7)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_without_gradients_nothing_is_kept():
    machine = mg.DenseMachine((3, 4, 2))
    with torch.no_grad():
        assert machine(torch.randn(5, 3)).grad_fn is None
    machine.requires_grad_(False)
    assert machine(torch.randn(5, 3)).grad_fn is None
    x = torch.randn(5, 3, requires_grad=True)
    machine(x).sum().backward()
    assert machine.weight.grad is None
    assert x.grad is not None


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda m: mg.DenseMachine((3,)), ValueError, "got 1 block: a machine needs at least an input and an output"),
        (lambda m: mg.DenseMachine(3), ValueError, "got widths=3: give the width of each block"),
        (lambda m: mg.DenseMachine((3, 2), dtype=torch.complex64), ValueError, "real floating-point"),
        (lambda m: mg.DenseMachine((3, 2), activation="rel"), ValueError, "did you mean 'relu'"),
        (
            lambda m: m(torch.randn(5, 10)),
            ValueError,
            r"got y0 of shape \(5, 10\): it must be \(..., channel\) with 1 to 9",
        ),
        (lambda m: m(torch.randn(5, 3).double()), ValueError, "got y0 of torch.float64"),
        (lambda m: m([1.0, 2.0, 3.0]), TypeError, "got y0 of type list"),
        (
            lambda m: m.solve(torch.randn(5, 3), torch.randn(4, 9)),
            ValueError,
            "they may differ in the number of channels alone",
        ),
    ],
)
def test_what_is_refused(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make(mg.DenseMachine((3, 4, 2)))


@pytest.mark.parametrize(
    ("machine", "mask", "sentence"),
    [
        (mg.DenseMachine((3, 4, 2)), np.ones((3, 3), dtype=bool), "lets block 0 feed block 0"),
        (mg.DenseMachine((3, 4, 2)), np.full((3, 3), 2), "not true or false"),
        (mg.DenseMachine((3, 4, 2)), np.zeros((2, 2)), r"shape \(2, 2\)"),
        (mg.RecurrentMachine((3, 4, 2), lags=1), np.ones((2, 3, 3), dtype=bool), "feed"),
    ],
)
def test_shortcuts_that_are_given_later_are_checked_too(machine, mask, sentence):
    before = machine.shortcuts.copy()
    with pytest.raises(ValueError, match=sentence):
        machine.shortcuts = mask
    assert (machine.shortcuts == before).all()


def test_a_block_hears_no_coarser_one_later_either():
    machine = mg.ConvMachine(
        (1, 4, 4, 2), 3, scales=(0, 1, 0, 1), shortcuts=[[0] * 4, [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]]
    )
    with pytest.raises(ValueError, match="block 2 hears block 1, which is coarser"):
        machine.shortcuts = None
    with pytest.raises(ValueError, match="from 0 to 62"):
        mg.ConvMachine((1, 2), 3, scales=(0, 10**9))
