import networkx as nx
import pytest
from helpers import nodes
from hypothesis import given

from machgraph.graph import Node, dependency_graph, levels, order


def test_edges_carry_the_components_that_flow() -> None:
    graph = dependency_graph([Node("a", ("x",), ("y", "z")), Node("b", ("z", "y"), ("w",)), Node("c", ("x",), ("w",))])
    assert list(graph.edges(data="components")) == [("a", "b", ("y", "z"))]
    assert graph.nodes["b"] == {"reads": ("z", "y"), "writes": ("w",)}
    assert order(graph) == ["a", "b", "c"]
    assert levels(graph) == [["a", "c"], ["b"]]


def test_the_graph_is_frozen() -> None:
    with pytest.raises(nx.NetworkXError):
        dependency_graph([Node("a", ("x",), ("y",))]).add_node("b")


def test_ties_go_to_the_machine_that_was_added_first() -> None:
    late, early, free = Node("late", ("y",), ("z",)), Node("early", ("x",), ("y",)), Node("free", ("x",), ("w",))
    assert order(dependency_graph([late, free, early])) == ["free", "early", "late"]
    assert order(dependency_graph([late, early, free])) == ["early", "late", "free"]
    assert levels(dependency_graph([late, free, early])) == [["free", "early"], ["late"]]


@given(nodes())
def test_all_that_writes_a_component_comes_before_all_that_read_it(machines: list[Node]) -> None:
    graph = dependency_graph(machines)
    position = {name: i for i, name in enumerate(order(graph))}
    level = {name: i for i, names in enumerate(levels(graph)) for name in names}
    assert sorted(position) == sorted(level) == sorted(node.name for node in machines)
    for a in machines:
        for b in machines:
            if set(a.writes) & set(b.reads):
                assert position[a.name] < position[b.name]
                assert level[a.name] < level[b.name]
    for name, i in level.items():  # no machine waits longer than it must
        assert i == max((level[before] + 1 for before in graph.predecessors(name)), default=0)


def test_two_machines_that_depend_on_each_other_are_named_with_the_way_round() -> None:
    machines = [Node("f1", ("x1",), ("x5",)), Node("f2", ("x5",), ("x6",)), Node("f4", ("x6",), ("x5", "x7"))]
    with pytest.raises(
        ValueError, match=r"^f2 and f4 depend on each other \(x5 -> x6 -> x5\): no resolvent order exists; "
    ):
        dependency_graph(machines)


def test_the_shortest_way_round_is_shown() -> None:
    machines = [Node(f"f{i}", (f"x{i}",), (f"x{(i + 1) % 5}",)) for i in range(5)] + [Node("short", ("x3",), ("x1",))]
    with pytest.raises(
        ValueError, match=r"^f1, f2 and short depend on each other \(x1 -> x2 -> x3 -> x1\): no resolvent"
    ):
        dependency_graph(machines)


def test_two_machines_of_one_name() -> None:
    with pytest.raises(ValueError, match=r'^two machines are called f: give each its own name, as in name="f_2"$'):
        dependency_graph([Node("f", ("x",), ("y",)), Node("f", ("y",), ("z",))])


@pytest.mark.parametrize(
    ("name", "reads", "writes", "sentence"),
    [
        ("f", ("x", "y"), ("y",), r"^f depends on itself \(y -> y\): .*another component, or use NilpotentMachine"),
        ("", ("x",), ("y",), r"^got '' as the name of a machine: give a non-empty string$"),
        (3, ("x",), ("y",), r"^got 3 as the name of a machine"),
        ("f", "x1", ("y",), r'^f has reads="x1", a bare string: give a tuple of names, \("x1",\)$'),
        ("f", ("x",), "x1", r'^f has writes="x1", a bare string'),
        ("f", ("x",), (), r"^f writes nothing: name at least one component that it adds to$"),
        ("f", ("x", "x"), ("y",), r"^f reads x twice: name each component once$"),
        ("f", ("x",), ("y", "y"), r"^f writes y twice"),
        ("f", ("",), ("y",), r"^f has '' among its reads: the name of a component is a non-empty string$"),
        ("f", ("x",), (1,), r"^f has 1 among its writes"),
    ],
)
def test_a_machine_that_is_none(name: str, reads: tuple[str, ...], writes: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Node(name, reads, writes)
