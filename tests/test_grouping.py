"""Groups of machines: trees and cuts of them, whose parts must depend on each other in one direction."""

from itertools import chain, pairwise

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machgraph.graph import Node, dependency_graph
from machgraph.grouping import Group, between, cut, machines_of, modules, tree


def chained(*names, skips=()):
    """Each machine reads the one before, and those that it skips to."""
    reads = {b: [a] for a, b in pairwise(names)}
    for a, b in skips:
        reads[b].append(a)
    return dependency_graph([Node(name, tuple(reads.get(name, ["input"])), (name,)) for name in names])


def groups_of(part):
    if isinstance(part, str):
        return []
    return [part, *chain.from_iterable(map(groups_of, part.members))]


@st.composite
def graphs(draw):
    """Any order of execution, any modules, any edges forwards."""
    n = draw(st.integers(1, 24))
    module = st.lists(st.sampled_from("ab"), max_size=2)
    names = [".".join([*draw(module), f"m{i}"]) for i in range(n)]
    nodes = []
    for i, name in enumerate(names):
        reads = draw(st.sets(st.sampled_from(names[:i]), max_size=3)) if i else ()
        nodes.append(Node(name, tuple(sorted(reads)), (name,)))
    return dependency_graph(nodes)


@settings(max_examples=60)
@given(graphs(), st.integers(2, 8), st.sampled_from(["auto", None, 1, 2]))
def test_every_cut_has_each_machine_once_and_an_order_of_execution(graph, most, grouping):
    root = tree(graph, most)
    parts = cut(root, grouping, most)
    assert sorted(chain.from_iterable(map(machines_of, parts))) == sorted(graph)
    links = between(graph, parts)
    assert len(links) == len(parts)
    home = {m: name for name, part in zip(links, parts, strict=True) for m in machines_of(part)}
    assert nx.is_directed_acyclic_graph(links)
    assert set(links.edges) == {(home[a], home[b]) for a, b in graph.edges if home[a] != home[b]}
    if grouping == "auto":
        assert len(parts) <= most


@settings(max_examples=60)
@given(graphs(), st.integers(2, 8))
def test_no_group_has_more_members_than_asked_for_or_only_one(graph, most):
    for group in groups_of(tree(graph, most)):
        assert len(group.members) <= most
        assert len(group.machines) >= 2 or not group.name
        links = between(graph, group.members)
        assert nx.is_directed_acyclic_graph(links)


def test_groups_are_modules():
    graph = chained("conv", "a.0.x", "a.0.y", "a.1.x", "a.1.y", "fc", skips=[("conv", "a.0.y")])
    assert list(between(graph, cut(tree(graph), 1))) == ["conv", "a", "fc"]
    assert list(between(graph, cut(tree(graph), 2))) == ["conv", "a.0", "a.1", "fc"]
    assert cut(tree(graph), 3) == cut(tree(graph), None) == list(graph)
    assert cut(tree(graph), "auto", most=4) == cut(tree(graph), 2)
    assert cut(tree(graph), "auto", most=3) == cut(tree(graph), 1)


def test_what_groups_read_write_and_pass_on():
    nodes = [
        Node("a.p", ("x",), ("u", "v")),
        Node("a.q", ("u",), ("w", "unread")),
        Node("b.p", ("v", "w"), ("s",)),
        Node("b.q", ("s", "w"), ("t",)),
    ]
    links = between(dependency_graph(nodes), cut(tree(dependency_graph(nodes)), 1))
    assert links.nodes["a"] == {"reads": ("x",), "writes": ("v", "w", "unread"), "machines": ("a.p", "a.q")}
    assert links.nodes["b"] == {"reads": ("v", "w"), "writes": ("t",), "machines": ("b.p", "b.q")}
    assert links.edges["a", "b"] == {"components": ("v", "w")}


def test_a_module_through_which_data_pass_twice_is_two_groups():
    graph = chained("a.0", "a.1", "b.0", "b.1", "a.2", "a.3")
    links = between(graph, cut(tree(graph), 1))
    assert list(links) == ["a", "b", "a (2)"]
    assert list(links.edges) == [("a", "b"), ("b", "a (2)")]


def test_two_modules_that_hear_each_other_are_not_one_circle():
    nodes = [Node("a.0", (), ("p",)), Node("b.0", (), ("q",)), Node("b.1", ("p",), ("r",)), Node("a.1", ("q",), ("s",))]
    graph = dependency_graph(nodes)
    assert nx.is_directed_acyclic_graph(between(graph, cut(tree(graph), 1)))


def test_where_no_module_says_it_neighbours_are_groups():
    graph = chained(*(f"f{i}" for i in range(100)))
    root = tree(graph, 12)
    assert 2 <= len(root.members) <= 4
    assert max(len(group.members) for group in groups_of(root)) <= 12
    assert all(isinstance(part, Group) and not part.of_module for part in root.members)
    assert list(root.machines) == list(graph)


def test_many_machines_that_have_nothing_to_do_with_each_other():
    graph = dependency_graph([Node(f"f{i}", ("x",), (f"y{i}",)) for i in range(90)])
    assert len(tree(graph, 40).members) <= 40
    pairs = [Node(f"p{i}", ("x",), (f"y{i}",)) for i in range(60)] + [
        Node(f"q{i}", (f"y{i}",), (f"z{i}",)) for i in range(60)
    ]
    assert len(tree(dependency_graph(pairs), 40).members) <= 40


def test_steps_of_a_recurrence_are_modules():
    assert modules("w_1[t=3:5]") == ("t=3:5",)
    assert modules("..") == ("", "")


@pytest.mark.parametrize("grouping", [0, -1, True, "layer1", 1.5])
def test_groupings_that_make_no_sense_are_refused(grouping):
    with pytest.raises(ValueError, match="how many names of modules make a group"):
        cut(tree(chained("a", "b")), grouping)
