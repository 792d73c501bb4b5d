import copy

import pytest
import torch
from helpers import COMPONENTS, architecture, chain, element, figure2, figure2_by_hand, nodes
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import machgraph as mg
from machgraph.graph import Node

Element = dict[str, Tensor]
quick = settings(deadline=None, max_examples=30)


# ---- the face of an architecture -------------------------------------------------------------------------------------


def test_figure_2() -> None:
    f = figure2()
    assert [m.name for m in f.machines] == f.order == ["f1", "f2", "f3", "f4", "f5"]
    assert f.levels == [["f1", "f2"], ["f3"], ["f4"], ["f5"]]
    assert f.depth == 4
    assert set(f.graph.edges) == {("f1", "f3"), ("f3", "f4"), ("f4", "f5")}
    assert [sorted(v) for v in f.cofiltration] == [
        ["x3", "x4", "x5", "x6", "x7", "x8"],
        ["x4", "x5", "x6", "x7", "x8"],
        ["x5", "x6", "x7", "x8"],
        ["x8"],
        [],
    ]
    assert sorted(f.components) == list(COMPONENTS)


def test_figure_2_values_and_gradients_are_those_of_the_caption() -> None:
    g = element(COMPONENTS, grad=True)
    h, expected = figure2()(g), figure2_by_hand(g)
    torch.testing.assert_close(h, expected)
    v = element(COMPONENTS, seed=1)
    ours, theirs = (
        torch.autograd.grad([y[c] for c in COMPONENTS], list(g.values()), list(v.values())) for y in (h, expected)
    )
    torch.testing.assert_close(ours, theirs)


def test_one_machine_has_the_whole_face() -> None:
    f = mg.Machine(torch.sin, reads=("x",), writes=("y",))
    assert (f.name, f.reads, f.writes, f.function) == ("sin", ("x",), ("y",), torch.sin)
    assert (f.machines, f.order, f.levels, f.depth) == ((f,), ["sin"], [["sin"]], 1)
    assert f.cofiltration == [{"y"}, set()]
    assert f.components == ("x", "y")
    x = torch.ones(2)
    torch.testing.assert_close(f.resolvent({"x": x}), {"x": x, "y": x.sin()})


def test_sums() -> None:
    f, g, h = chain(torch.sin, torch.cos, torch.exp).machines
    for total in (h + g + f, h + (g + f), sum([h, g, f]), mg.Architecture([h, g + f])):
        assert type(total) is mg.Architecture
        assert total.machines == (h, g, f)
        assert total.order == ["f1", "f2", "f3"]
    with pytest.raises(ValueError, match=r"^two machines are called f1"):
        f + f
    with pytest.raises(TypeError):
        f + 1
    with pytest.raises(ValueError, match=r"^got no machines: an architecture is the sum of at least one$"):
        mg.Architecture([])
    with pytest.raises(
        ValueError, match=r"^got function among the machines: wrap it, Machine\(function, reads=..., writes"
    ):
        mg.Architecture([lambda x: x])  # type: ignore[list-item]


def test_default_names_are_those_of_functions_and_classes() -> None:
    assert mg.Machine(nn.Linear(1, 1), ("x",), ("y",)).name == "Linear"
    assert mg.Machine(torch.tanh, ("x",), ("y",)).name == "tanh"
    with pytest.raises(ValueError, match=r"^got int for a function: give something that can be called$"):
        mg.Machine(3, ("x",), ("y",))  # type: ignore[arg-type]


def test_modules_are_registered_by_the_names_of_their_machines() -> None:
    one, two, three = nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2)
    f = (
        mg.Machine(one, ("x",), ("y",), name="enc.1")
        + mg.Machine(two, ("y",), ("z",), name="graph")  # a name that the architecture itself has
        + mg.Machine(three, ("z",), ("w",), name="norm")
    )
    assert {key.rsplit(".", 1)[0] for key in f.state_dict()} == {"enc_1", "graph_", "norm"}
    assert set(f.parameters()) == {*one.parameters(), *two.parameters(), *three.parameters()}
    assert list(f.machines[0].state_dict()) == ["enc_1.weight", "enc_1.bias"]
    f.eval().double()
    assert not three.training
    assert one.weight.dtype == torch.float64
    twin = copy.deepcopy(f)
    assert not set(twin.parameters()) & set(f.parameters())
    with torch.no_grad():
        one.weight.zero_()
    twin.load_state_dict(f.state_dict())
    g = {"x": torch.ones(3, 2, dtype=torch.float64)}
    torch.testing.assert_close(twin(g), f(g))
    assert "enc.1: x -> y" in repr(f)


# ---- the machine equation and Theorem 2 ------------------------------------------------------------------------------


@quick
@given(nodes(), st.integers(0, 99))
def test_the_machine_equation(machines: list[Node], seed: int) -> None:
    f = architecture(machines, seed)
    g = element([*f.components, "untouched"], seed=seed)
    h, image = f.resolvent(g), f.increment(f.resolvent(g))
    assert image.keys() == f.cofiltration[0]
    torch.testing.assert_close(h, {c: g[c] + image.get(c, torch.zeros_like(g[c])) for c in g})


@quick
@given(nodes(), st.integers(0, 99))
def test_the_resolvent_inverts_id_minus_f(machines: list[Node], seed: int) -> None:
    """Proposition 1: a fixed point of ``h -> g + f h`` from anywhere, after as many rounds as f is deep."""
    f = architecture(machines, seed)
    g, h = element(f.components, seed=seed), element(f.components, seed=seed + 1)
    for _ in range(f.depth + 1):
        image = f.increment(h)
        h = {c: g[c] + image.get(c, torch.zeros_like(g[c])) for c in g}
    torch.testing.assert_close(f.resolvent(g), h)


@quick
@given(nodes(machines=4, prefix="a"), nodes(machines=4, prefix="b"), st.integers(0, 99))
def test_theorem_2(first: list[Node], second: list[Node], seed: int) -> None:
    """R_(f1+f2) = R_f2 R_f1 where f1 does not depend on f2, and R_f1 + R_f2 - id where neither does on the other."""
    reads, writes = {c for n in first for c in n.reads}, {c for n in second for c in n.writes}
    rename = {c: f"b_{c}" for c in reads & writes}  # f2 takes its own copies, and so f1 does not depend on it
    second = [
        Node(n.name, tuple(rename.get(c, c) for c in n.reads), tuple(rename.get(c, c) for c in n.writes))
        for n in second
    ]
    f1, f2 = architecture(first, seed), architecture(second, seed + 1)
    assume(not mg.depends_on(f1, f2))
    g = element(sorted({*f1.components, *f2.components}), seed=seed)
    both = (f1 + f2).resolvent(g)
    torch.testing.assert_close(both, f2.resolvent(f1.resolvent(g)))
    assert (f1 + f2).depth <= f1.depth + f2.depth
    if not mg.depends_on(f2, f1):
        one, two = f1.resolvent(g), f2.resolvent(g)
        torch.testing.assert_close(both, {c: one[c] + two[c] - g[c] for c in g})
        assert (f1 + f2).depth == max(f1.depth, f2.depth)


def test_theorem_2_for_machines_that_are_independent_both_ways() -> None:
    f1 = mg.Machine(torch.sin, ("x",), ("y",), name="f1") + mg.Machine(torch.cos, ("y",), ("z",), name="f2")
    f2 = mg.Machine(torch.exp, ("x",), ("z",), name="f3")
    assert not mg.depends_on(f1, f2)
    assert not mg.depends_on(f2, f1)
    g = element(("x", "y", "z"))
    one, two = f1.resolvent(g), f2.resolvent(g)
    torch.testing.assert_close((f1 + f2).resolvent(g), {c: one[c] + two[c] - g[c] for c in g})
    assert (f1 + f2).depth == 2


def test_outputs_of_two_machines_that_write_one_component_add() -> None:
    f = mg.Machine(torch.sin, ("x",), ("y",), name="a") + mg.Machine(torch.cos, ("x",), ("y",), name="b")
    x = torch.randn(3)
    torch.testing.assert_close(f.resolvent({"x": x})["y"], x.sin() + x.cos())
    torch.testing.assert_close(f.resolvent({"x": x, "y": 2 * x})["y"], 2 * x + x.sin() + x.cos())


# ---- what is refused -------------------------------------------------------------------------------------------------


def two(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x


@pytest.mark.parametrize(
    ("f", "g", "sentence"),
    [
        (
            mg.Machine(torch.add, ("hidden", "x2"), ("y",), name="f"),
            {"hiden": torch.ones(1), "x2": torch.ones(1)},
            r"^f reads hidden, which is absent and no machine writes: give it a tensor; got hiden, x2; "
            r"did you mean hiden\?$",
        ),
        (chain(torch.sin), {}, r"^f1 reads x0, which is absent .* got nothing$"),
        (chain(torch.sin), torch.ones(1), r"^got Tensor: give a mapping from the names of components to tensors$"),
        (chain(torch.sin), {"x0": 1.0}, r"^got float for x0: give a tensor$"),
        (
            chain(torch.sin),
            {"x0": torch.ones(2), "x1": torch.ones(2, 1)},
            r"^f1 writes shape \(2,\) \(float32, cpu\) to x1, which already holds shape \(2, 1\) \(float32, cpu\): ",
        ),
        (chain(torch.sin), {"x0": torch.ones(2), "x1": torch.ones(2).double()}, r"^f1 writes .* \(float64, cpu\)"),
        (
            chain(two),
            {"x0": torch.ones(2)},
            r"^f1 returns 2 tensors and writes 1 component \(x1\): return one for each$",
        ),
        (
            mg.Machine(torch.sin, ("x",), ("y", "z"), name="f"),
            {"x": torch.ones(2)},
            r"^f returns 1 tensor and writes 2 components \(y, z\)",
        ),
        (chain(lambda x: None), {"x0": torch.ones(2)}, r"^f1 returns NoneType for x1: return a tensor$"),
        (chain(torch.relu_), {"x0": torch.ones(2)}, r"^f1 changes a tensor that it reads in place"),
    ],
)
def test_errors(f: mg.Architecture, g: Element, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        f.resolvent(g)


def test_a_cycle_is_found_when_the_sum_is_made() -> None:
    f2 = mg.Machine(torch.sin, ("x5",), ("x6",), name="f2")
    f4 = mg.Machine(torch.sin, ("x6",), ("x5",), name="f4")
    with pytest.raises(
        ValueError, match=r"^f2 and f4 depend on each other \(x5 -> x6 -> x5\): no resolvent order exists"
    ):
        f2 + f4


@pytest.mark.parametrize("grad", [True, False])
def test_the_tensors_of_the_caller_are_neither_changed_nor_shared(grad: bool) -> None:
    constant = torch.full((3,), 7.0, requires_grad=grad)
    outside = 2 * constant
    f = mg.Machine(lambda x: (x, x.view(-1)), ("x",), ("y", "z"), name="same") + mg.Machine(
        lambda: constant, (), ("c",), name="constant"
    )
    g = {"x": torch.arange(3.0, requires_grad=grad), "y": torch.ones(3), "other": torch.ones(3, dtype=torch.int64)}
    kept = {c: x.detach().clone() for c, x in {**g, "constant": constant, "outside": outside}.items()}
    h = f.resolvent(g)
    expected = {c: x.detach().clone() for c, x in h.items()}
    for c in h:
        with torch.no_grad():
            h[c].add_(1)
        expected[c] += 1
        torch.testing.assert_close({c: x.detach() for c, x in h.items()}, expected)  # and not with each other
    torch.testing.assert_close(
        {c: x.detach() for c, x in {**g, "constant": constant, "outside": outside}.items()}, kept
    )


# ---- Definition 4 ----------------------------------------------------------------------------------------------------


def test_the_example_of_the_paper() -> None:
    """``f1 f2 = 0``, and still ``f1`` depends on ``f2``."""
    f1, f2 = lambda x: x - 3, lambda x: torch.full_like(x, 3)
    assert torch.equal(f1(f2(torch.randn(4))), torch.zeros(4))
    assert mg.depends_on(f1, f2)
    assert not mg.depends_on(f2, f1)
    assert mg.depends_on(f1, lambda x: 3.0)
    assert not mg.depends_on(lambda x: 3.0, f1)


def test_dependence_of_linear_maps_is_their_product() -> None:
    a = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    like = torch.zeros(2, dtype=torch.float64)
    assert not mg.depends_on(lambda x: a @ x, lambda x: a @ x, like=like)
    assert mg.depends_on(lambda x: a @ x, lambda x: a.T @ x, like=like)
    basis, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    p, q = basis[:, :3] @ basis[:, :3].T, basis[:, 3:] @ basis[:, 3:].T  # p q = 0 up to rounding
    like = torch.zeros(6, dtype=torch.float64)
    assert not mg.depends_on(lambda x: p @ x, lambda x: q @ x, like=like)
    assert mg.depends_on(lambda x: p @ x, lambda x: (q + 1e-6 * p) @ x, like=like)


def test_dependence_by_structure_and_by_probes() -> None:
    f1, f2 = chain(torch.sin, torch.cos).machines
    assert mg.depends_on(f2, f1)
    assert not mg.depends_on(f1, f2)
    like = element(("x0", "x1", "x2"))
    for a, b in ((f1, f2), (f2, f1), (f1 + f2, f1), (f1, f1)):
        assert mg.depends_on(a, b, structural=False, like=like) == mg.depends_on(a, b)
    blind = mg.Machine(lambda x: 0 * x, ("x1",), ("x2",), name="blind")
    assert mg.depends_on(blind, f1)  # it reads what f1 writes,
    assert not mg.depends_on(blind, f1, structural=False, like=like)  # but does not look
    assert mg.depends_on(lambda x: {"x2": x["x1"]}, f1, like=like)
    assert not mg.depends_on(lambda x: {"x2": x["x0"]}, f1, like=like)


def test_dependence_wants_a_space() -> None:
    f = chain(torch.sin)
    with pytest.raises(
        ValueError, match=r"^got an architecture to probe and no like: give a tensor for each component$"
    ):
        mg.depends_on(f, f, structural=False)
    with pytest.raises(ValueError, match=r"^got torch.int64 for like: give a floating dtype$"):
        mg.depends_on(torch.sin, torch.sin, like=torch.ones(2, dtype=torch.int64))
