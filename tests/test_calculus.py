"""Derivatives of parametric machines of every kind: tangent, dual, second order, and σ as an array."""

import copy

import pytest
import torch
from helpers import concatenations
from hypothesis import given, settings
from operators import element, operator, parametric, solve_with
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import machgraph as mg
from experiments import gradient_penalty, poisson
from machgraph.activation import per_block

quick = settings(deadline=None, max_examples=30)
exactly = {"rtol": 1e-10, "atol": 1e-10}

MACHINES = {
    "dense": (lambda **s: mg.DenseMachine((2, 1, 1), **s), ()),
    "same": (lambda **s: mg.ConvMachine((1, 2, 1), 3, **s), (3,)),
    "circular": (lambda **s: mg.ConvMachine((1, 1, 1), (2, 3), padding="circular", **s), (2, 3)),
    "recurrence": (lambda **s: mg.RecurrentMachine((1, 2, 1), 2, timeblock=2, **s), (4,)),
}


@pytest.fixture(params=MACHINES)
def case(request):
    make, size = MACHINES[request.param]
    machine = make(activation="tanh", dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return machine, size


def arguments(machine, size, *, slopes=False):
    """A function of all that the solution depends on, and a point: parameters, y0, z0, and σ as an array."""
    x = element(machine, size)
    if slopes:
        x = (*x, element(machine, size, seed=1)[0])

    def solve(weight, bias, y0, z0, *slopes):
        options = {"slopes": slopes[0]} if slopes else {}
        return solve_with(machine, {"weight": weight, "bias": bias}, y0, z0, **options)

    return solve, (machine.weight.detach(), machine.bias.detach(), *x)


def inner(xs, ys):
    return sum((x * y).sum() for x, y in zip(xs, ys, strict=True))


def random_like(xs, seed):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in xs)


@pytest.mark.parametrize("slopes", [False, True])
def test_first_and_second_order(case, slopes):
    """Reverse and forward mode, and both over reverse mode, with respect to everything, σ among it."""
    solve, x = arguments(*case, slopes=slopes)
    x = tuple(a.clone().requires_grad_() for a in x)
    assert gradcheck(solve, x, check_forward_ad=True)
    assert gradgradcheck(solve, x, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("slopes", [False, True])
def test_the_dual_is_the_adjoint_of_the_tangent(case, slopes):
    solve, x = arguments(*case, slopes=slopes)
    tangents, cotangents = random_like(x, 1), random_like(solve(*x), 2)
    pushed, pulled = jvp(solve, x, tangents)[1], vjp(solve, *x)[1](cotangents)
    torch.testing.assert_close(inner(pushed, cotangents), inner(tangents, pulled), **exactly)  # <A t, w> = <t, A* w>


def test_second_order_is_symmetric_and_the_same_by_four_ways(case):
    solve, x = arguments(*case)

    def energy(z0):
        y, z = solve(*x[:3], z0)
        return (y.square() * z).sum()

    by_reverse = jacrev(jacrev(energy))(x[3])
    for other in (jacfwd(jacrev(energy))(x[3]), jacrev(jacfwd(energy))(x[3]), hessian(energy)(x[3])):
        torch.testing.assert_close(other, by_reverse, **exactly)
    matrix = by_reverse.reshape(x[3].numel(), -1)
    torch.testing.assert_close(matrix, matrix.mT, **exactly)
    assert matrix.abs().max() > 1e-3


def test_forward_over_forward(case):
    """d²/dt² of the solution along a line: the tangent of the tangent machine, against the dual of the dual."""
    solve, x = arguments(*case)
    direction = random_like(x, 3)

    def along(t):
        y, z = solve(*(a + t * d for a, d in zip(x, direction, strict=True)))
        return (y * z).sum()

    t = torch.zeros((), dtype=torch.float64)
    twice_forward = jacfwd(jacfwd(along))(t)
    torch.testing.assert_close(twice_forward, grad(grad(along))(t), **exactly)
    step = 1e-4
    difference = (along(t + step) - 2 * along(t) + along(t - step)) / step**2
    torch.testing.assert_close(twice_forward, difference, rtol=1e-4, atol=1e-4)


def test_a_hessian_vector_product_is_a_product_with_the_hessian(case):
    solve, x = arguments(*case)

    def energy(weight):
        return inner(solve(weight, *x[1:]), solve(weight, *x[1:]))

    (direction,) = random_like(x[:1], 4)
    product = jvp(grad(energy), (x[0],), (direction,))[1]
    matrix = hessian(energy)(x[0]).reshape(x[0].numel(), -1)
    torch.testing.assert_close(product.flatten(), matrix @ direction.flatten(), **exactly)


# ---- σ as an array: z = σ ⊙ y + z0 ------------------------------------------------------------------------------


@quick
@given(parametric(bias=True))
def test_the_linear_machine_is_a_dense_system(case):
    machine, size = case
    (y0, z0), (s, _) = element(machine, size), element(machine, size, seed=1)
    y, z = machine.solve(y0, z0, slopes=s)
    w = operator(machine, size)
    g = (y0 + machine.bias.view(-1, *[1] * len(size))).flatten()
    system = torch.eye(len(w), dtype=w.dtype) - w * s.flatten()  # y = w (s ⊙ y + z0) + g
    torch.testing.assert_close(y.flatten(), torch.linalg.solve(system, w @ z0.flatten() + g), **exactly)
    torch.testing.assert_close(z, s * y + z0, **exactly)


@quick
@given(parametric(bias=True))
def test_the_gradient_of_an_array_in_place_of_sigma(case):
    """ds = u ⊙ y, with the dual solved as a dense transposed system."""
    machine, size = case
    (y0, z0), (s, _) = element(machine, size), element(machine, size, seed=1)
    s = s.clone().requires_grad_()
    y, z = machine.solve(y0, z0, slopes=s)
    v0, u0 = element(machine, size, seed=2)
    (found,) = torch.autograd.grad((y, z), s, (v0, u0))
    w = operator(machine, size)
    diagonal = torch.diag(s.detach().flatten())
    system = torch.eye(len(w), dtype=w.dtype) - w.mT @ diagonal  # u = w* (s ⊙ u + v0) + u0
    u = torch.linalg.solve(system, w.mT @ v0.flatten() + u0.flatten())
    torch.testing.assert_close(found.flatten(), u * y.detach().flatten(), **exactly)


def test_slopes_of_ones_are_the_identity_and_of_zeros_the_product_alone(case):
    machine, size = case
    y0, z0 = element(machine, size)
    _, z = machine.solve(y0, z0, slopes=torch.zeros_like(y0))
    torch.testing.assert_close(z, z0, rtol=0, atol=0)
    twin = copy.deepcopy(machine)
    twin.activation = per_block("identity", len(machine.partition))
    torch.testing.assert_close(machine.solve(y0, z0, slopes=torch.ones_like(y0)), twin.solve(y0, z0), **exactly)


def test_slopes_in_a_batch_and_by_vmap(case):
    machine, size = case
    y0, s = (torch.randn(3, 4, machine.partition.size, *size, dtype=torch.float64) for _ in range(2))
    together = machine.solve(y0, slopes=s)
    by_vmap = vmap(lambda y0, s: machine.solve(y0, slopes=s))(y0, s)
    torch.testing.assert_close(together, by_vmap, **exactly)
    one = machine.solve(y0[1, 2], slopes=s[1, 2])
    torch.testing.assert_close((together[0][1, 2], together[1][1, 2]), one, **exactly)


def test_the_input_alone_may_be_given_with_slopes(case):
    machine, size = case
    first = torch.randn(2, machine.partition.widths[0], *size, dtype=torch.float64)
    s = torch.randn(2, machine.partition.size, *size, dtype=torch.float64)
    whole = torch.zeros_like(s)
    whole[:, : first.shape[1]] = first
    torch.testing.assert_close(machine.solve(first, slopes=s), machine.solve(whole, slopes=s), **exactly)


def test_slopes_of_another_shape_are_refused(case):
    machine, size = case
    y0, _ = element(machine, size)
    with pytest.raises(ValueError, match="give one for each entry of y"):
        machine.solve(y0, slopes=y0[:1])
    with pytest.raises(ValueError, match=r"slopes of torch.float32"):
        machine.solve(y0, slopes=y0.float())


# ---- the worked examples that need second order ------------------------------------------------------------------


def test_the_exact_solution_of_the_poisson_experiment_solves_its_equation():
    x = torch.linspace(0, 1, 11, dtype=torch.float64)
    second = vmap(grad(grad(poisson.exact)))(x)
    torch.testing.assert_close(-second, poisson.source(x), rtol=1e-12, atol=1e-12)
    assert poisson.exact(x[[0, -1]]).abs().max() < 1e-15


def test_its_second_derivative_by_the_input_is_that_of_differences():
    generator = torch.Generator().manual_seed(0)
    machine = mg.DenseMachine((1, 4, 4, 1), activation="tanh", dtype=torch.float64, generator=generator)
    x, step = torch.linspace(0.1, 0.9, 5, dtype=torch.float64), 1e-4
    with torch.no_grad():
        u = [poisson.trial(machine, x + k * step) for k in (-1, 0, 1)]
    differences = (u[0] - 2 * u[1] + u[2]) / step**2
    torch.testing.assert_close(poisson.second_derivative(machine, x).detach(), differences, rtol=1e-5, atol=1e-6)


def test_training_through_second_derivatives_finds_the_solution():
    generator = torch.Generator().manual_seed(0)
    sigma = ("identity", "tanh", "tanh", "identity")
    machine = mg.DenseMachine((1, 12, 12, 1), activation=sigma, dtype=torch.float64, generator=generator)
    before = poisson.errors(machine)[1]
    poisson.solve(machine, points=32, iterations=150)
    assert poisson.errors(machine)[1] < 0.05 * before


def test_the_gradient_penalty_is_that_of_autograd_through_concatenations():
    generator = torch.Generator().manual_seed(0)
    machine = mg.DenseMachine((4, 5, 3), activation="silu", dtype=torch.float64, generator=generator)
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    penalty = gradient_penalty.loss_and_gradient(machine, x, y)[1].square().sum()
    ours = torch.autograd.grad(penalty, list(machine.parameters()))

    leaf = x.clone().requires_grad_()
    _, z = concatenations(machine, leaf)
    loss = torch.nn.functional.cross_entropy(machine.output(z), y, reduction="sum")
    (by_input,) = torch.autograd.grad(loss, leaf, create_graph=True)
    theirs = torch.autograd.grad(by_input.square().sum(), list(machine.parameters()))
    torch.testing.assert_close(ours, theirs, **exactly)
