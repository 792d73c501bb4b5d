"""The backward of the resolvent is the dual machine: held to autograd through the naive loop, and to numbers."""

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers import COMPONENTS, architecture, chain, element, figure2, naive_resolvent, nodes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import machgraph as mg
from machgraph.graph import Node

Element = dict[str, Tensor]
Solver = Callable[[mg.Architecture, Element], Element]
quick = settings(deadline=None, max_examples=30)


def dual(f: mg.Architecture, g: Element) -> Element:
    return f.resolvent(g)


@quick
@given(nodes(), st.integers(0, 99), st.data())
def test_gradients_are_those_of_autograd_through_the_naive_loop(
    machines: list[Node], seed: int, data: st.DataObject
) -> None:
    """To the second order, with some components absent, some without gradients, and some of the outputs used."""
    f = architecture(machines, seed)
    written = f.cofiltration[0]
    absent = data.draw(st.sets(st.sampled_from(sorted(written))))
    wants = data.draw(st.sets(st.sampled_from(sorted({*f.components}))))
    g = {c: x.requires_grad_(c in wants) for c, x in element(f.components, seed=seed).items() if c not in absent}
    weights = [m.function.weight.requires_grad_() for m in f.machines]
    used = data.draw(st.sets(st.sampled_from(sorted({*written, *g})), min_size=1))
    inputs = [*(g[c] for c in sorted(wants & g.keys())), *weights]

    def derivatives(solve: Solver) -> list[Tensor]:
        h = solve(f, g)
        loss = sum((h[c] ** 3).sum() for c in sorted(used)) + sum((x**3).sum() for x in inputs)
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        second = torch.autograd.grad(
            sum((v**2).sum() for v in first), inputs, allow_unused=True, materialize_grads=True
        )
        return [*first, *second]

    torch.testing.assert_close(derivatives(dual), derivatives(naive_resolvent))


@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_numerical_derivatives(check: Callable[..., bool]) -> None:
    f, g = figure2(), element(COMPONENTS, (2,), grad=True)
    assert check(lambda *xs: tuple(f.resolvent(dict(zip(COMPONENTS, xs, strict=True))).values()), tuple(g.values()))


def test_third_order() -> None:
    x = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    f = chain(torch.sin, lambda x: w * x * x, torch.exp)

    def derivative(value: Tensor) -> list[Tensor]:
        values = [value]
        for direction in (x, w, x):
            values.append(torch.autograd.grad(values[-1], direction, create_graph=True)[0])
        return values

    torch.testing.assert_close(derivative(f.resolvent({"x0": x})["x3"]), derivative(torch.exp(w * torch.sin(x) ** 2)))


@quick
@given(nodes(), st.integers(0, 99))
def test_the_backward_is_the_dual_machine(machines: list[Node], seed: int) -> None:
    """Theorem 3: the adjoint of each machine at the solution, summed, solved in the reversed order."""
    f = architecture(machines, seed)
    g, v = element(f.components, seed=seed, grad=True), element(f.components, seed=seed + 1)
    h = f.resolvent(g)

    expected = f.dual({c: x.detach() for c, x in h.items()}).resolvent(v) if any(m.reads for m in f.machines) else v
    found = torch.autograd.grad(list(h.values()), list(g.values()), [v[c] for c in h])
    torch.testing.assert_close(dict(zip(g, found, strict=True)), {c: expected[c] for c in g})


def test_the_dual_has_the_reversed_graph_and_the_dual_cofiltration() -> None:
    f = figure2()
    dual = f.dual(f.resolvent(element(COMPONENTS)))
    assert set(dual.graph.edges) == {(f"{b}*", f"{a}*") for a, b in f.graph.edges}
    assert dual.depth == f.depth
    assert dual.cofiltration[-2] == {"x1", "x2"}  # the last that it learns: X* ⊇ (X/V_3)* ⊇ ... (Proposition 3)


def test_the_adjoints_run_in_the_reversed_order_each_once() -> None:
    seen = []

    def watched(m: mg.Machine) -> mg.Machine:
        class Watch(torch.autograd.Function):
            @staticmethod
            def forward(ctx: object, *ys: Tensor) -> tuple[Tensor, ...]:
                return tuple(y.clone() for y in ys)

            @staticmethod
            def backward(ctx: object, *vs: Tensor) -> tuple[Tensor, ...]:
                seen.append(m.name)
                return vs

        def function(*xs: Tensor) -> tuple[Tensor, ...]:
            ys = m.function(*xs)
            return Watch.apply(*([ys] if isinstance(ys, Tensor) else ys))

        return mg.Machine(function, m.reads, m.writes, m.name)

    f = mg.Architecture(map(watched, figure2().machines))
    h = f.resolvent(element(COMPONENTS, grad=True))
    sum(x.sum() for x in h.values()).backward()
    assert seen == f.order[::-1]


def test_the_dual_is_the_adjoint_of_the_derivative() -> None:
    """``<A v, w> == <v, A* w>`` for ``A = D R_f(g)``, by forward mode through the loop and by the dual machine."""
    f, g = figure2(), element(COMPONENTS, grad=True)
    v, w = element(COMPONENTS, seed=1), element(COMPONENTS, seed=2)
    _, forward = torch.func.jvp(f.resolvent, ({c: x.detach() for c, x in g.items()},), (v,))
    backward = torch.autograd.grad(list(f.resolvent(g).values()), list(g.values()), list(w.values()))
    left = sum((forward[c] * w[c]).sum() for c in COMPONENTS)
    torch.testing.assert_close(left, sum((v[c] * b).sum() for c, b in zip(COMPONENTS, backward, strict=True)))


class Holder:
    __slots__ = ("w",)

    def __init__(self, w: Tensor) -> None:
        self.w = w

    def scale(self, x: Tensor) -> Tensor:
        return torch.tanh(x * self.w)


def scale(w: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(x * w)


def scale_by(module: nn.Module, w: Tensor) -> nn.Module:
    module.scale = w
    module.forward = lambda x: torch.tanh(x * module.scale)
    return module


GLOBAL = SimpleNamespace(w=torch.ones(()))


def from_global(x: Tensor) -> Tensor:
    return torch.tanh(x * GLOBAL.w)


class Shared:
    w = torch.ones(())


def set_class_attribute(w: Tensor) -> Callable[[Tensor], Tensor]:
    Shared.w = w
    return lambda x: torch.tanh(x * Shared.w)


def set_global(w: Tensor) -> Callable[[Tensor], Tensor]:
    GLOBAL.w = w
    return from_global


HOLDERS = {
    "closure": lambda w: lambda x: torch.tanh(x * w),
    "default": lambda w: lambda x, w=w: torch.tanh(x * w),
    "container": lambda w: lambda x, ws={"w": [w]}: torch.tanh(x * ws["w"][0]),
    "partial": lambda w: partial(scale, w),
    "method": lambda w: Holder(w).scale,
    "module": lambda w: scale_by(nn.Module(), w),
    "global": set_global,
    "class attribute": set_class_attribute,
    "nested": lambda w: lambda x: chain(lambda x: torch.tanh(x * w)).resolvent({"x0": x})["x1"],
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("leaf", [True, False])
def test_gradients_reach_what_a_function_closes_over(holder: str, leaf: bool) -> None:
    """Leaf or not, through the loss and ``g`` too, to the second order, and to ``w`` itself."""

    def derivatives(solve: Solver) -> list[Tensor]:
        p = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
        w = p if leaf else 2 * p.sin()
        # f1 and f2 share w; f3 closes over w and over p, from which w was computed
        f = chain(HOLDERS[holder](w), lambda x: torch.sin(x + w), lambda x: x * p + w)
        x = (w * p).exp()
        loss = (f_h := solve(f, {"x0": x}))["x3"].sum() + (w**2).sum() + (f_h["x1"] ** 2).sum()
        inputs = [p, w, x]
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        second = torch.autograd.grad(sum((v**2).sum() for v in first), inputs, retain_graph=True)
        loss = solve(f, {"x0": x})["x3"].sum()
        loss.backward()
        return [*first, *second, p.grad]

    torch.testing.assert_close(derivatives(dual), derivatives(naive_resolvent))


def test_hooks_and_retained_gradients_see_the_whole_gradient_once() -> None:
    def gradients(solve: Solver) -> list[Tensor]:
        seen = []
        p = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
        p.register_hook(lambda v: seen.append(v) or 3 * v)
        w = 2 * p
        w.retain_grad()
        w.register_hook(lambda v: seen.append(v) or 5 * v)
        f = chain(lambda x: torch.tanh(x * w), lambda x: torch.sin(x + p), lambda x: x * w)
        for _ in range(2):
            h = solve(f, {"x0": torch.ones(2, dtype=torch.float64)})
            (h["x3"] + w).sum().backward(retain_graph=True)
        assert len(seen) == 4
        return [p.grad, w.grad, *seen]

    torch.testing.assert_close(gradients(dual), gradients(naive_resolvent))


def test_a_result_from_outside_that_nothing_holds() -> None:
    p = torch.ones(2, requires_grad=True)
    store = weakref.WeakValueDictionary()
    store["w"] = w = 2 * p
    f = chain(lambda x: x * store["w"])
    f.resolvent({"x0": torch.ones(2)})["x1"].sum().backward()
    torch.testing.assert_close(p.grad, torch.full((2,), 2.0))
    del w


def test_threads_that_share_a_result_which_machines_close_over() -> None:
    w = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, 4, dtype=torch.float64)
    shared = w * 2
    f = chain(*10 * [lambda z: torch.tanh(z @ shared)])

    def gradient(_: int) -> Tensor:
        return torch.autograd.grad(f.resolvent({"x0": x})["x10"].sum(), w, retain_graph=True)[0]

    expected = torch.autograd.grad(naive_resolvent(f, {"x0": x})["x10"].sum(), w, retain_graph=True)[0]
    with ThreadPoolExecutor(2) as pool:
        for found in [*pool.map(gradient, range(40)), gradient(0)]:
            torch.testing.assert_close(found, expected)
    assert not shared._backward_hooks


def test_a_parameter_that_two_machines_g_and_the_loss_share() -> None:
    module = nn.Linear(3, 3).double()
    f = chain(module, torch.tanh, module)
    x = torch.randn(4, 3, dtype=torch.float64)

    def gradients(solve: Solver) -> tuple[Tensor, ...]:
        loss = (solve(f, {"x0": module(x)})["x3"] ** 2).sum() + module.weight.norm()
        return torch.autograd.grad(loss, tuple(module.parameters()))

    torch.testing.assert_close(gradients(dual), gradients(naive_resolvent))


def test_dropout_is_not_drawn_again_and_statistics_are_updated_once() -> None:
    torch.manual_seed(0)
    dropout, norm = nn.Dropout(0.5), nn.BatchNorm1d(8)
    f = chain(dropout, norm)
    x = torch.ones(64, 8, requires_grad=True)
    h = f.resolvent({"x0": x})
    statistics = norm.running_mean.clone()
    torch.testing.assert_close(statistics, 0.1 * h["x1"].mean(0))
    h["x1"].sum().backward(retain_graph=True)
    torch.testing.assert_close(x.grad, h["x1"].detach())  # the same mask: 0 or 2
    h["x2"].square().sum().backward()
    assert norm.num_batches_tracked == 1
    assert torch.equal(norm.running_mean, statistics)


def test_the_graph_is_kept_or_let_go_as_plain_autograd_does() -> None:
    x = torch.ones(2, requires_grad=True)
    h = chain(torch.exp, torch.exp).resolvent({"x0": x})
    h["x2"].sum().backward(retain_graph=True)
    once = x.grad.clone()
    h["x2"].sum().backward()
    torch.testing.assert_close(x.grad, 2 * once)
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        h["x2"].sum().backward()


def test_changing_what_the_dual_needs_is_an_error_of_torch() -> None:
    x = torch.ones(2, requires_grad=True)
    h = chain(torch.exp, torch.exp).resolvent({"x0": x})
    h["x1"].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        h["x2"].sum().backward()


def test_nothing_is_left_behind() -> None:
    """The graph of the second order too goes when its last name does, without waiting for the garbage collector."""
    f, g = figure2(), element(COMPONENTS, grad=True)

    def use() -> list[weakref.ref[Tensor]]:
        h = f.resolvent(g)
        first = torch.autograd.grad(h["x8"].sum(), g["x1"], create_graph=True)[0]
        torch.autograd.grad(first.square().sum(), g["x1"])
        return [weakref.ref(x) for x in (*h.values(), first)]

    gc.disable()
    try:
        assert all(ref() is None for ref in use())
    finally:
        gc.enable()


def test_no_gradient_is_recorded_where_none_is_wanted() -> None:
    module = nn.Linear(2, 2)
    f, x = chain(module, torch.sin), torch.ones(1, 2)
    with torch.no_grad():
        assert not f.resolvent({"x0": x})["x2"].requires_grad
    with torch.inference_mode():
        assert not f.resolvent({"x0": x})["x2"].requires_grad
    h = f.resolvent({"x0": x})
    assert [h[c].requires_grad for c in ("x0", "x1", "x2")] == [False, True, True]
    module.requires_grad_(False)
    assert not any(y.requires_grad for y in f.resolvent({"x0": x}).values())


@pytest.mark.parametrize(
    ("function", "x", "sentence"),
    [
        (
            nn.BatchNorm1d(2),
            torch.ones(3, 2),
            r"^f has no adjoint, since torch.func.vjp fails on it \(.*\): let it change",
        ),
        (nn.Embedding(3, 2), torch.tensor([1]), r"^f reads x of torch.int64, along which nothing has a derivative: "),
    ],
)
def test_what_has_no_dual(function: nn.Module, x: Tensor, sentence: str) -> None:
    f = mg.Machine(function, ("x",), ("y",), name="f")
    with pytest.raises(ValueError, match=sentence):
        f.dual({"x": x})


def test_an_output_that_is_not_used_and_an_input_that_does_not_matter() -> None:
    g = element(COMPONENTS, grad=True)
    h = figure2().resolvent(g)
    gradients = torch.autograd.grad(h["x3"].sum(), list(g.values()), allow_unused=True)
    assert [c for c, v in zip(COMPONENTS, gradients, strict=True) if v is not None] == ["x1", "x2", "x3"]


def test_components_that_are_not_differentiable_pass_unharmed() -> None:
    table = nn.Embedding(5, 3)
    f = (
        mg.Machine(table, ("index",), ("x",), name="table")
        + mg.Machine(lambda x: (x.argmax(-1), x.sin()), ("x",), ("best", "y"), name="both")
        + mg.Machine(lambda best, y: y[:, :1] * best[:, None], ("best", "y"), ("z",), name="pick")
    )
    index = torch.tensor([1, 4])
    h = f.resolvent({"index": index, "best": torch.ones(2, dtype=torch.int64)})
    assert torch.equal(h["index"], index)
    assert torch.equal(h["best"], 1 + h["x"].argmax(-1))
    h["z"].sum().backward()
    expected = torch.autograd.grad((table(index).sin()[:, :1] * h["best"][:, None]).sum(), table.weight)[0]
    torch.testing.assert_close(table.weight.grad, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    f = chain(torch.sin, lambda x: x * x)
    x = torch.tensor([0.25, 0.5], dtype=dtype, requires_grad=True)
    h = f.resolvent({"x0": x})["x2"]
    assert h.dtype == dtype
    torch.testing.assert_close(
        torch.autograd.grad(h.abs().sum(), x), torch.autograd.grad((x.sin() * x.sin()).abs().sum(), x)
    )


def test_an_architecture_inside_a_machine() -> None:
    inner = figure2()

    def nested(solve: Solver) -> mg.Architecture:
        def function(x: Tensor) -> tuple[Tensor, Tensor]:
            h = solve(inner, {"x1": x, "x2": x.cos()})
            return h["x8"], h["x5"]

        return chain(torch.sin) + mg.Machine(function, ("x1",), ("y", "z"), name="inner")

    def derivatives(solve: Solver) -> list[Tensor]:
        x = torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)
        h = solve(nested(solve), {"x0": x})
        first = torch.autograd.grad((h["y"] * h["z"]).sum(), x, create_graph=True)[0]
        return [first, torch.autograd.grad(first.square().sum(), x)[0]]

    torch.testing.assert_close(derivatives(dual), derivatives(naive_resolvent))


def test_torch_func_differentiates_and_maps_the_resolvent() -> None:
    module = nn.Linear(3, 3).double()
    f = chain(torch.sin, module, torch.exp)
    x = torch.randn(4, 3, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        return f.resolvent({"x0": x})["x3"].sum()

    x.requires_grad_()
    expected = torch.autograd.grad(loss(x), x)[0]
    torch.testing.assert_close(torch.func.grad(loss)(x), expected)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(x), expected)
    torch.testing.assert_close(torch.func.jvp(loss, (x,), (x,))[1], (expected * x).sum())
    hessian = torch.func.hessian(loss)(x[0])
    torch.testing.assert_close(hessian, torch.autograd.functional.hessian(loss, x[0]))
    parameters = dict(f.named_parameters())
    with_parameters = torch.func.grad(lambda p: torch.func.functional_call(f, p, ({"x0": x},))["x3"].sum())(parameters)
    torch.testing.assert_close(
        with_parameters, dict(zip(parameters, torch.autograd.grad(loss(x), list(parameters.values())), strict=True))
    )


def test_forward_mode_by_dual_numbers() -> None:
    x, v = torch.randn(3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    with torch.autograd.forward_ad.dual_level():
        h = chain(torch.sin, torch.exp).resolvent({"x0": torch.autograd.forward_ad.make_dual(x, v)})
        tangent = torch.autograd.forward_ad.unpack_dual(h["x2"]).tangent
    torch.testing.assert_close(tangent, x.sin().exp() * x.cos() * v)


def test_what_one_machine_leaves_for_another_carries_its_gradient() -> None:
    """Behind the back of the graph: f1 stores a result, f3 uses it."""

    def gradient(solve: Solver) -> Tensor:
        store = {}

        def first(x: Tensor) -> Tensor:
            store["hidden"] = x.exp() * w
            return x.sin()

        w = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        x = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        h = solve(chain(first, torch.cos, lambda x: x * store["hidden"]), {"x0": x})
        return torch.stack(torch.autograd.grad(h["x3"] + h["x1"], (x, w)))

    torch.testing.assert_close(gradient(dual), gradient(naive_resolvent))


def test_export_leaves_plain_torch() -> None:
    f = chain(nn.Linear(3, 3), torch.tanh)
    g = {"x0": torch.randn(4, 3)}
    program = torch.export.export(f, (g,))
    torch.testing.assert_close(program.module()(g), f(g))


def test_checkpointing_around_a_resolvent() -> None:
    f = chain(torch.sin, nn.Linear(3, 3).double(), torch.exp)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def loss(x: Tensor) -> Tensor:
        return f.resolvent({"x0": x})["x3"].sum()

    again = torch.utils.checkpoint.checkpoint(loss, x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(again, x), torch.autograd.grad(loss(x), x))
