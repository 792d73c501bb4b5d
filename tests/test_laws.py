"""The paper's propositions and theorems as laws over random machines, each against dense linear algebra."""

from functools import reduce

import numpy as np
import torch
from helpers import architecture, nodes
from helpers import element as point
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from operators import (
    annihilators,
    coordinates,
    element,
    is_depth_cofiltration,
    operator,
    parametric,
    solve_with,
    tangent,
)
from torch.func import jvp, vjp

import machgraph as mg
from machgraph.index import cofiltration, steps
from machgraph.recurrence import fold, unfold

quick = settings(deadline=None, max_examples=40)
exactly = {"rtol": 1e-10, "atol": 1e-10}


# ---- depth cofiltrations: Definition 2, Proposition 3 ------------------------------------------------------------


@quick
@given(nodes(machines=5, components=5), st.integers(0, 99))
def test_proposition_3_for_architectures(machines, seed):
    """A depth cofiltration of f is one of Df(x), and its annihilators are one of Df(x)*."""
    f = architecture(machines, seed)
    x = {c: v[0, 0] for c, v in point(f.components, seed=seed).items()}
    derivative = _derivative(f, x)
    spaces = [coordinates([c in v for c in x]) for v in f.cofiltration]
    assert is_depth_cofiltration(derivative, spaces)
    assert is_depth_cofiltration(derivative.mT, annihilators(spaces))


def _derivative(f, x):
    """The matrix of ``Df(x)``, where each component is one number."""

    def increment(values):
        image = f.increment(dict(zip(x, values.expand(2, 3, -1).unbind(-1), strict=True)))
        return torch.stack([image[c][0, 0] if c in image else values[0] * 0 for c in x])

    return torch.autograd.functional.jacobian(increment, torch.stack(list(x.values())))


@quick
@given(st.integers(1, 6), st.integers(0, 999))
def test_proposition_3_for_nilpotent_machines(n, seed):
    f = mg.NilpotentMachine(_nilpotent(n, torch.Generator().manual_seed(seed)), tolerance=1e-9)
    assert is_depth_cofiltration(f.matrix, f.cofiltration, 1e-7)
    if f.depth:
        duals = annihilators(f.cofiltration)
        assert is_depth_cofiltration(f.matrix.mT, duals, 1e-7)
        assert mg.NilpotentMachine(f.matrix.mT, tolerance=1e-9).depth == f.depth == len(duals) - 1


@quick
@given(parametric(), st.integers(0, 99))
def test_proposition_3_for_parametric_machines(case, seed):
    """The chain of section 3, of length 2n + 1, from the plan that is executed; and its dual."""
    machine, size = case
    parts = steps(machine.plan(size))
    spaces = [coordinates(np.concatenate([y.ravel(), z.ravel()])) for y, z in cofiltration(parts)]
    assert len(spaces) - 1 == 2 * parts.max() + 1
    y, _ = machine.solve(*element(machine, size, seed))
    derivative = tangent(machine, size, y)
    assert is_depth_cofiltration(derivative, spaces)
    assert is_depth_cofiltration(derivative.mT, annihilators(spaces))


def test_a_chain_that_is_too_short_is_no_depth_cofiltration():
    """The checks above can fail: a chain without its middle, and one for another order."""
    f = torch.diag(torch.ones(2, dtype=torch.float64), -1)
    spaces = [coordinates(v) for v in ([0, 1, 1], [0, 0, 1], [0, 0, 0])]
    assert is_depth_cofiltration(f, spaces)
    assert is_depth_cofiltration(f.mT, annihilators(spaces))
    assert not is_depth_cofiltration(f, [spaces[0], spaces[2]])
    assert not is_depth_cofiltration(f.mT, spaces)
    assert not is_depth_cofiltration(f, spaces[:2])


# ---- sums: Theorem 2, Remark 2 -----------------------------------------------------------------------------------


@quick
@given(parametric(bias=True), st.data())
def test_theorem_2_for_the_two_parts_of_a_parametric_machine(case, data):
    """Cut anywhere in its order: the first machines do not depend on the later ones."""
    machine, size = case
    f, g = _as_sum(machine, size)
    assume(len(f.order) > 1)
    cut = data.draw(st.integers(1, len(f.order) - 1))
    f1, f2 = (_part(f, names) for names in (f.order[:cut], f.order[cut:]))
    assert not mg.depends_on(f1, f2)
    h = f.resolvent(g)
    torch.testing.assert_close(h, f2.resolvent(f1.resolvent(g)), **exactly)  # R_(f1 + f2) = R_f2 R_f1
    assert (f1 + f2).depth == f.depth <= f1.depth + f2.depth
    h = fold(h) if isinstance(machine, mg.RecurrentMachine) else h
    for half, x in zip("yz", machine.solve(*element(machine, size)), strict=True):
        for i, block in enumerate(machine.split(x)):
            torch.testing.assert_close(h[f"{half}_{i}"], block, **exactly)


@quick
@given(parametric(bias=True), st.data())
def test_theorem_2_for_independent_parts_of_a_parametric_machine(case, data):
    """Any machines, and any others with no edge between: R_(f1 + f2) = R_f1 + R_f2 - id."""
    machine, size = case
    f, g = _as_sum(machine, size)
    first = data.draw(st.lists(st.sampled_from(f.order), min_size=1, unique=True))
    near = {*first, *(b for a in first for b in (*f.graph.successors(a), *f.graph.predecessors(a)))}
    second = [name for name in f.order if name not in near]
    assume(second)
    f1, f2 = _part(f, first), _part(f, second)
    assert not mg.depends_on(f1, f2)
    assert not mg.depends_on(f2, f1)
    one, two = f1.resolvent(g), f2.resolvent(g)
    torch.testing.assert_close((f1 + f2).resolvent(g), {c: one[c] + two[c] - g[c] for c in g}, **exactly)
    assert (f1 + f2).depth <= max(f1.depth, f2.depth)


def _as_sum(machine, size):
    """The machine as a sum of machines, a recurrence unrolled over its series, and an input for it."""
    g = {c: v.detach() for c, v in machine.components(*element(machine, size)).items()}
    if isinstance(machine, mg.RecurrentMachine):
        return machine.unroll(*size), unfold(g, machine.timeblock)
    return machine.architecture, g


def _part(f, names):
    machines = {m.name: m for m in f.machines}
    return mg.Architecture(machines[name] for name in names)


@quick
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 999))
def test_remark_2(rank, rest, seed):
    """L1 L2 = 0, L1^n1 = L2^n2 = 0: then (L1 + L2)^(n1 + n2 - 1) = 0, and the depths add up to a bound."""
    generator = torch.Generator().manual_seed(seed)
    n = rank + rest
    basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    # the image of L2 is the span of the first `rank` vectors, on which L1 vanishes
    l2, l1 = (torch.zeros(n, n, dtype=torch.float64) for _ in range(2))
    l2[:rank, :rank] = _nilpotent(rank, generator)
    l2[:rank, rank:] = torch.randn(rank, rest, generator=generator, dtype=torch.float64)
    l1[:rank, rank:] = torch.randn(rank, rest, generator=generator, dtype=torch.float64)
    l1[rank:, rank:] = _nilpotent(rest, generator)
    l1, l2 = (basis @ f @ basis.mT for f in (l1, l2))
    assert (l1 @ l2).abs().max() < 1e-12
    f1, f2, both = (mg.NilpotentMachine(f, tolerance=1e-9) for f in (l1, l2, l1 + l2))
    n1, n2 = f1.depth + 1, f2.depth + 1  # f^(d + 1) = 0
    power = reduce(torch.matmul, [both.matrix] * (n1 + n2 - 1))
    assert power.abs().max() < 1e-8 * max(1, both.matrix.norm()) ** (n1 + n2 - 1)
    assert both.depth <= f1.depth + f2.depth
    g = torch.randn(3, n, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(both.resolvent(g), f2.resolvent(f1.resolvent(g)), rtol=1e-8, atol=1e-8)


def _nilpotent(n, generator):
    """A random nilpotent matrix: strictly lower triangular with holes, in a random orthonormal basis."""
    lower = torch.randn(n, n, generator=generator, dtype=torch.float64).tril(-1)
    lower = lower * (torch.rand(n, n, generator=generator) < 0.6)
    basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    return basis @ lower @ basis.mT


# ---- derivatives: Propositions 1 and 2, Theorem 3 ----------------------------------------------------------------


@quick
@given(parametric(bias=True))
def test_the_machine_equation(case):
    machine, size = case
    y0, z0 = element(machine, size)
    y, z = machine.solve(y0, z0)
    wz = (operator(machine, size) @ z.flatten()).view_as(y)
    bias = machine.bias.view(-1, *[1] * len(size))
    torch.testing.assert_close(y, wz + y0 + bias, rtol=0, atol=1e-12)
    torch.testing.assert_close(z, machine.activation[0].function(y) + z0, rtol=0, atol=1e-12)


@quick
@given(parametric(bias=True), st.booleans())
def test_proposition_2(case, dual):
    """R_Df(x0) = D R_f(x0), and of the duals: jvp and vjp are the resolvents of a matrix and of its transpose."""
    machine, size = case
    x0, dx = element(machine, size), element(machine, size, seed=1)
    y, _ = machine.solve(*x0)
    system = torch.eye(2 * y.numel(), dtype=y.dtype) - tangent(machine, size, y)  # id - Df(x)
    vector = torch.cat([half.flatten() for half in dx])
    expected = torch.linalg.solve(system.mT if dual else system, vector)
    found = vjp(machine.solve, *x0)[1](dx) if dual else jvp(machine.solve, x0, dx)[1]
    torch.testing.assert_close(torch.cat([half.flatten() for half in found]), expected, **exactly)


@quick
@given(parametric())
def test_the_tangent_machine_is_the_machine_with_its_slopes_for_an_activation(case):
    machine, size = case
    x0, dx = element(machine, size), element(machine, size, seed=1)
    y, _ = machine.solve(*x0)
    sigma = machine.activation[0]
    slopes = sigma.derivative(y, sigma.function(y)).detach()
    torch.testing.assert_close(machine.solve(*dx, slopes=slopes), jvp(machine.solve, x0, dx)[1], **exactly)


@quick
@given(parametric(bias=True))
def test_theorem_3_for_parameters(case):
    """∂R/∂p = ∂R/∂x0 ∂f/∂p with ∂f/∂p = (dW z + db, 0), and the duals of both sides."""
    machine, size = case
    x0 = element(machine, size)
    parameters = {name: p.detach() for name, p in machine.named_parameters()}
    d = {name: torch.randn_like(p) for name, p in parameters.items()}

    def solve(parameters):
        return solve_with(machine, parameters, *x0)

    (y, z), pushed = jvp(solve, (parameters,), (d,))
    dy = (operator(machine, size, d["weight"]) @ z.detach().flatten()).view_as(y)
    dy = dy + d["bias"].view(-1, *[1] * len(size))
    expected = jvp(machine.solve, x0, (dy, torch.zeros_like(z)))[1]
    torch.testing.assert_close(pushed, expected, **exactly)

    cotangents = element(machine, size, seed=2)
    v, _ = vjp(machine.solve, *x0)[1](cotangents)
    (pulled,) = vjp(solve, parameters)[1](cotangents)
    torch.testing.assert_close(pulled["bias"], v.flatten(1).sum(-1) if size else v, **exactly)
    left = sum((pulled[name] * d[name]).sum() for name in d)  # <(∂f/∂p)* v, d> = <v, ∂f/∂p d>
    torch.testing.assert_close(left, (v * dy).sum(), **exactly)
    assert (pulled["weight"].numpy()[~machine.weight_mask] == 0).all()
