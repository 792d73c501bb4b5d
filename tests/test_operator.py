"""The compiled loop as operators of torch: compilers take a machine whole, and get its gradients too."""

import numpy as np
import pytest
import torch
from torch.autograd import gradgradcheck
from torch.func import grad, jvp, vmap

import machgraph as mg
from machgraph import compiled, operator
from machgraph.activation import as_activation
from machgraph.partition import Partition

pytestmark = pytest.mark.skipif(not compiled.AVAILABLE, reason="numba is not installed")

MACHINES = {
    "dense": (lambda **more: mg.DenseMachine((5, 4, 3, 2), **more), (7, 5)),
    "convolution": (lambda **more: mg.ConvMachine((3, 4, 2), (3, 2), **more), (4, 3, 6, 5)),
    "circular": (lambda **more: mg.ConvMachine((3, 4, 2), 3, padding="circular", **more), (4, 3, 6)),
    "recurrence": (lambda **more: mg.RecurrentMachine((3, 4, 2), 2, timeblock=2, **more), (4, 3, 9)),
}


def case_of(kind):
    make, shape = MACHINES[kind]
    generator = torch.Generator().manual_seed(0)
    machine = make(activation="tanh", generator=generator, dtype=torch.float64)
    y0, z0 = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return machine, y0.requires_grad_(), z0.requires_grad_()


@pytest.fixture(params=MACHINES)
def case(request):
    return case_of(request.param)


def gradients(machine, y0, z0, solve, **options):
    y, z = solve(y0, z0)
    inputs = [machine.weight, machine.bias, y0, *([] if z0 is None else [z0])]
    return y, z, *torch.autograd.grad((y.cos() * z).sum(), inputs, **options)


@pytest.mark.parametrize("with_z0", [False, True])
def test_operators_keep_what_torch_asks_of_them(case, with_z0):
    machine, y0, z0 = case
    arguments = (machine.weight, machine.bias, y0, z0 if with_z0 else None, operator.described(machine))
    torch.library.opcheck(torch.ops.machgraph.resolvent.default, arguments)


@pytest.mark.parametrize("with_z0", [False, True])
def test_a_compiler_takes_a_machine_whole(case, with_z0):
    machine, y0, z0 = case
    z0 = z0 if with_z0 else None
    targets = []

    def backend(graph, _):
        targets.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return graph

    torch.compiler.reset()
    taken = torch.compile(machine.solve, fullgraph=True, backend=backend)
    results = gradients(machine, y0, z0, taken)
    for a, b in zip(results, gradients(machine, y0, z0, machine.solve), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert torch.ops.machgraph.resolvent in targets or torch.ops.machgraph.resolvent.default in targets
    assert not any("conv" in str(target) or "linear" in str(target) for target in targets)


def test_compiled_whole_by_inductor_for_any_batch(case):
    machine, y0, _ = case
    torch.compiler.reset()
    taken = torch.compile(machine.solve, fullgraph=True, dynamic=True)
    for samples in (4, 3):
        part = y0[:samples].detach().requires_grad_()
        for a, b in zip(
            gradients(machine, part, None, taken), gradients(machine, part, None, machine.solve), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_nonlinearity_of_ones_own_is_looked_into():
    machine = mg.DenseMachine((3, 4, 2), activation=lambda y: y * y)
    targets = []

    def backend(graph, _):
        targets.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch.compiler.reset()
    x = torch.randn(5, 3)
    torch.testing.assert_close(torch.compile(machine, fullgraph=True, backend=backend)(x), machine(x))
    assert not any("machgraph" in target for target in targets)


CHANGES = {
    "shortcuts": lambda m: setattr(m, "shortcuts", np.tril(m.shortcuts, -2)),
    "partition": lambda m: setattr(m, "partition", Partition(m.partition.widths[::-1])),
    "activation": lambda m: setattr(m, "activation", (*m.activation[1:], as_activation("sine"))),
    "dilation": lambda m: setattr(m, "dilation", (2,) * m.dimensions),
    "padding": lambda m: setattr(m, "padding", "causal"),
    "timeblock": lambda m: setattr(m, "timeblock", 1),
}


@pytest.mark.parametrize(("kind", "change"), [(k, c) for k in MACHINES for c in CHANGES if hasattr(case_of(k)[0], c)])
def test_a_change_of_the_machine_is_seen(kind, change):
    machine, y0, z0 = case_of(kind)
    torch.compiler.reset()
    taken = torch.compile(machine.solve, backend="eager")
    taken(y0, z0)
    CHANGES[change](machine)
    for a, b in zip(taken(y0, z0), machine.solve(y0, z0), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_second_order(case):
    machine, y0, z0 = case
    torch.compiler.reset()
    results = []
    for solve in (torch.compile(machine.solve, backend="eager"), machine.solve):
        _, _, *first = gradients(machine, y0, z0, solve, create_graph=True)
        results.append(torch.autograd.grad(sum(g.square().sum() for g in first), [*machine.parameters(), y0, z0]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_second_order_by_differences(case):
    machine, y0, z0 = case
    described = operator.described(machine)
    x = machine.weight, machine.bias, *(a[:1].detach().requires_grad_() for a in (y0, z0))
    assert gradgradcheck(lambda *x: torch.ops.machgraph.resolvent(*x, described), x, fast_mode=True)


TRANSFORMS = {
    "grad": lambda m, y0: grad(lambda x: m(x).square().sum())(y0),
    "vmap": lambda m, y0: vmap(m)(y0[None]),
    "vmap of grad": lambda m, y0: vmap(grad(lambda x: m(x[None]).square().sum()))(y0),
    "jvp": lambda m, y0: jvp(m, (y0,), (y0,))[1],
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_inside_of_what_is_compiled(case, transform):
    machine, y0, _ = case
    torch.compiler.reset()
    found = torch.compile(lambda y0: TRANSFORMS[transform](machine, y0), backend="eager")(y0.detach())
    torch.testing.assert_close(found, TRANSFORMS[transform](machine, y0.detach()), rtol=1e-10, atol=1e-12)


def test_autocast_chooses_the_same_type(case):
    machine, y0, _ = case
    machine, y0 = machine.float(), y0.detach().float()
    torch.compiler.reset()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = torch.compile(machine, backend="eager")(y0), machine(y0)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
