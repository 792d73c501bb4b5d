import copy
import gc
import weakref

import networkx as nx
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
    for arguments in ((f, g), (f,), ([f], g)):
        with pytest.raises(ValueError, match=r"^got machines that are not in a list: give one, Architecture"):
            mg.Architecture(*arguments)
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


def test_default_names_that_clash_are_numbered() -> None:
    a, b, c = (mg.Machine(nn.Linear(2, 2), (f"x{i}",), (f"x{i + 1}",)) for i in range(3))
    given = mg.Machine(torch.sin, ("x3",), ("x4",), name="Linear_3")
    f = a + b + given + c
    assert f.order == ["Linear", "Linear_2", "Linear_4", "Linear_3"]
    assert [m.name for m in f.machines] == ["Linear", "Linear_2", "Linear_3", "Linear_4"]
    assert c.name == "Linear"
    assert {key.split(".")[0] for key in f.state_dict()} == {"Linear", "Linear_2", "Linear_4"}
    assert (a + (b + c)).order == ["Linear", "Linear_2", "Linear_3"]
    x = torch.ones(2)
    torch.testing.assert_close(f({"x0": x})["x4"], c(b(a({"x0": x})))["x3"].sin())
    lambdas = mg.Architecture(mg.Machine(lambda x: x + 1, (f"x{i}",), (f"x{i + 1}",)) for i in range(3))
    assert lambdas.order == ["<lambda>", "<lambda>_2", "<lambda>_3"]
    assert lambdas({"x0": x})["x3"].tolist() == [4.0, 4.0]
    named = mg.Machine(nn.Linear(2, 2), ("x3",), ("x4",), name="Linear")
    with pytest.raises(ValueError, match=r"^two machines are called Linear: give each its own name"):
        a + named
    assert (named + a).order == ["Linear", "Linear_2"]


def test_a_module_that_is_replaced_is_the_one_that_runs() -> None:
    x = torch.randn(3, 2)
    a = mg.Machine(nn.Linear(2, 2), ("x",), ("y",), name="a")
    f = a + mg.Machine(nn.BatchNorm1d(2), ("y",), ("z",), name="b")
    f.a = nn.Identity()
    assert torch.equal(f({"x": x})["y"], x)
    assert torch.equal(f.increment({"x": x, "y": x})["y"], x)
    assert [type(m.function) for m in f.machines] == [nn.Identity, nn.BatchNorm1d]
    assert torch.equal((f + mg.Machine(torch.sin, ("z",), ("w",)))({"x": x})["y"], x)
    assert torch.equal((mg.Machine(torch.sin, ("z",), ("w",)) + f)({"x": x})["y"], x)
    assert isinstance(a.function, nn.Linear)  # the machine that was added has its own
    a.a = nn.Identity()
    assert torch.equal(a({"x": x})["y"], x)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(f)
    assert [type(m.function) for m in converted.machines] == [nn.Identity, nn.SyncBatchNorm]
    twin = copy.deepcopy(f)
    twin.a = nn.Tanh()
    assert torch.equal(f({"x": x})["y"], x)
    assert torch.equal(twin({"x": x})["y"], x.tanh())


def test_nothing_that_a_user_can_change_is_run_over() -> None:
    f = figure2()
    expected = f(element(COMPONENTS))
    f.order.append("f9")
    f.levels[0].clear()
    f.cofiltration.clear()
    f.graph.nodes["f3"]["reads"] = ("nothing",)
    f.graph.edges["f1", "f3"]["components"] = ()
    assert f.order == ["f1", "f2", "f3", "f4", "f5"]
    assert f.levels[0] == ["f1", "f2"]
    assert len(f.cofiltration) == 5
    torch.testing.assert_close(f(element(COMPONENTS)), expected)


@quick
@given(nodes(machines=8), st.data())
def test_however_a_sum_is_made_it_is_the_same(machines: list[Node], data: st.DataObject) -> None:
    f = architecture(machines)
    one_by_one = sum(f.machines)
    cut = data.draw(st.integers(0, len(machines)))
    halves = [mg.Architecture(part) for part in (f.machines[:cut], f.machines[cut:]) if part]
    for total in (one_by_one, sum(halves)):
        assert (total.machines, total.order, total.levels) == (f.machines, f.order, f.levels)
        assert total.cofiltration == f.cofiltration


@quick
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=8), st.data())
def test_a_cycle_is_refused_by_the_sum_that_makes_it(flows: list[tuple[int, int]], data: st.DataObject) -> None:
    """However the machines are grouped, as networkx finds it."""
    machines = [mg.Machine(torch.sin, (f"x{a}",), (f"x{b}",), f"f{i}") for i, (a, b) in enumerate(flows) if a != b]
    cyclic = not nx.is_directed_acyclic_graph(nx.DiGraph(flow for flow in flows if flow[0] != flow[1]))

    def total(part: list[mg.Machine]) -> mg.Architecture:
        cut = data.draw(st.integers(1, len(part) - 1)) if len(part) > 1 else 0
        return total(part[:cut]) + total(part[cut:]) if cut else part[0]

    assume(machines)
    if cyclic:
        with pytest.raises(ValueError, match=r"depend on each other"):
            total(machines)
    else:
        assert len(total(machines).order) == len(machines)


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


def test_what_autocast_makes_of_several_types_adds() -> None:
    f = mg.Machine(nn.Linear(3, 3), ("x",), ("y",), name="a") + mg.Machine(torch.exp, ("x",), ("y",), name="b")
    x = torch.randn(2, 3)
    with torch.autocast("cpu"):
        assert (f.machines[0].function(x).dtype, x.exp().dtype) == (torch.bfloat16, torch.float32)
        y = f.resolvent({"x": x})["y"]
        torch.testing.assert_close(y, f.machines[0].function(x) + x.exp())
    y.sum().backward()
    with torch.autocast("cpu"), pytest.raises(ValueError, match="must have the shape, dtype and device"):
        f.resolvent({"x": x, "y": torch.zeros(2, 3, dtype=torch.int64)})


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_a_parametric_machine_is_its_sum_under_autocast(activation: str) -> None:
    machine = mg.DenseMachine((2, 3, 1), activation=activation)
    x = torch.randn(4, 2)
    with torch.autocast("cpu"):
        (y, z), h = machine.solve(x), machine.architecture.resolvent(machine.components(x))
    for half, blocks in (("y", machine.split(y)), ("z", machine.split(z))):
        for i, block in enumerate(blocks):
            torch.testing.assert_close(h[f"{half}_{i}"], block, rtol=2e-2, atol=2e-2)


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
        (
            chain(torch.relu_),
            {"x0": torch.ones(2, requires_grad=True)},
            r"^f1 changes a tensor that it reads in place: let it return a new one instead$",
        ),
        (
            chain(nn.Linear(3, 2)),
            {"x0": torch.ones(4, 5)},
            r"^f1 fails on x0 of shape \(4, 5\) \(float32, cpu\): mat1 and mat2 shapes cannot be multiplied",
        ),
        (
            mg.Machine(torch.sin, ("x", "y"), ("z",), name="f"),
            {"x": torch.ones(1), "y": torch.ones(2)},
            r"^f fails on x of shape \(1,\) \(float32, cpu\), y of shape \(2,\) .*takes .* 2 were given",
        ),
    ],
)
def test_errors(f: mg.Architecture, g: Element, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        f.resolvent(g)


def test_a_change_in_place_is_found_in_inference_mode_and_by_increment() -> None:
    f = mg.Machine(nn.ReLU(inplace=True), ("x",), ("y",), name="f")
    with torch.inference_mode(), pytest.raises(ValueError, match=r"^f changes a tensor that it reads in place"):
        f.resolvent({"x": torch.tensor([-1.0])})
    for grad in (True, False):
        x = torch.tensor([-1.0], requires_grad=grad)
        with pytest.raises(ValueError, match=r"^f changes a tensor that it reads in place"):
            f.increment({"x": x})
        assert x.item() == -1.0


def test_what_an_adjoint_keeps_is_free_as_soon_as_nobody_holds_it() -> None:
    """Memory counts no cycles, which Python finds when it likes."""
    f = mg.Machine(torch.exp, ("x",), ("y",)) + mg.Machine(nn.Linear(3, 3), ("y",), ("z",))
    h = f.resolvent({"x": torch.ones(3)})
    gc.disable()
    try:
        dual, one = f.dual(h), mg.Machine(torch.sin, ("x",), ("y",))
        kept = [weakref.ref(dual), *(weakref.ref(machine.function) for machine in dual.machines), weakref.ref(one)]
        dual.resolvent({"z": torch.ones(3)})
        del dual, one
        assert [ref() for ref in kept] == [None] * 4
    finally:
        gc.enable()


def test_an_error_of_the_user_keeps_its_type_and_names_the_machine() -> None:
    def picky(x: Tensor) -> Tensor:
        raise KeyError("no such thing")

    with pytest.raises(KeyError) as caught:
        chain(picky).resolvent({"x0": torch.ones(2)})
    assert caught.value.__notes__ == ["in machine f1, on x0 of shape (2,) (float32, cpu)"]


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
