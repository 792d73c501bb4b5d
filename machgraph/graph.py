"""From what machines read and write to who depends on whom: the dependency graph, its order and its levels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain, pairwise
from typing import Any

import networkx as nx


@dataclass(frozen=True)
class Node:
    """A machine as its graph sees it: a name, the components that it reads, and those that it adds to.

    Parameters
    ----------
    name : name of the machine.
    reads : components that the machine looks at; none for a constant.
    writes : components that the machine adds to, at least one.

    Raises
    ------
    ValueError : an empty or repeated name, a bare string for a tuple of names, no writes, or a machine that reads
        what it writes.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"got {self.name!r} as the name of a machine: give a non-empty string")
        object.__setattr__(self, "reads", _names(self.reads, "reads", self.name))
        object.__setattr__(self, "writes", _names(self.writes, "writes", self.name))
        if not self.writes:
            raise ValueError(f"{self.name} writes nothing: name at least one component that it adds to")
        own = [component for component in self.reads if component in self.writes]
        if own:
            raise ValueError(
                f"{self.name} depends on itself ({own[0]} -> {own[0]}): it reads what it writes; "
                "write to another component, or use NilpotentMachine if it is linear"
            )


def dependency_graph(nodes: Sequence[Node]) -> nx.DiGraph:
    """The graph of who depends on whom: an edge ``a -> b`` where ``b`` reads what ``a`` writes (Theorem 2).

    Parameters
    ----------
    nodes : the machines. Their order is kept, and decides wherever the graph leaves a choice.

    Returns
    -------
    A frozen ``networkx.DiGraph`` over names. Nodes carry ``reads`` and ``writes``, edges the ``components`` that flow.

    Raises
    ------
    ValueError : two machines of one name, or machines that depend on each other; the sentence shows the way round.

    Examples
    --------
    >>> graph = dependency_graph([Node("f", ("x",), ("y",)), Node("g", ("x", "y"), ("z",))])
    >>> list(graph.edges(data="components"))
    [('f', 'g', ('y',))]
    """
    graph = nx.DiGraph()
    readers: dict[str, list[str]] = {}
    for node in nodes:
        if node.name in graph:
            raise ValueError(twice(node.name))
        graph.add_node(node.name, reads=node.reads, writes=node.writes)
        for component in node.reads:
            readers.setdefault(component, []).append(node.name)
    flows: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        for component in node.writes:
            for reader in readers.get(component, ()):
                flows.setdefault((node.name, reader), []).append(component)
    graph.add_edges_from((a, b, {"components": tuple(components)}) for (a, b), components in flows.items())
    if not nx.is_directed_acyclic_graph(graph):
        raise ValueError(_way_round(graph))
    return nx.freeze(graph)


def has_cycle(start: Iterable[str], nodes: Mapping[str, Any], readers: Mapping[str, Sequence[str]]) -> bool:
    """Whether a way from one of ``start`` runs into itself: what they don't reach is not looked at.

    Parameters
    ----------
    start : names of machines.
    nodes : all machines by name, each with its ``writes``.
    readers : for each component, the names of the machines that read it.
    """
    on_the_way: dict[str, bool] = {}  # False once all that a machine reaches has been seen
    stack = list(start)
    while stack:
        name = stack[-1]
        if name in on_the_way:
            on_the_way[stack.pop()] = False
            continue
        on_the_way[name] = True
        for reader in chain.from_iterable(readers.get(component, ()) for component in nodes[name].writes):
            if on_the_way.get(reader):
                return True
            if reader not in on_the_way:
                stack.append(reader)
    return False


def order(graph: nx.DiGraph) -> list[str]:
    """The order of execution, ``R_f = R_fn ... R_f1``: what a machine depends on comes before it.

    Among the machines that could come next, the one that was added first does, so the order is deterministic.
    """
    position = {name: i for i, name in enumerate(graph)}
    return list(nx.lexicographical_topological_sort(graph, key=position.__getitem__))


def levels(graph: nx.DiGraph) -> list[list[str]]:
    """The machines by level: those of one level depend on earlier levels alone. Their number bounds the depth."""
    position = {name: i for i, name in enumerate(graph)}
    return [sorted(level, key=position.__getitem__) for level in nx.topological_generations(graph)]


def forward(graph: nx.DiGraph) -> nx.DiGraph:
    """The graph without the edges that go back in time, which a folded recurrence marks ``back``."""
    return nx.subgraph_view(graph, filter_edge=lambda a, b: not graph.edges[a, b].get("back", False))


def twice(name: str) -> str:
    """The sentence about two machines of one name."""
    return f'two machines are called {name}: give each its own name, as in name="{name}_2"'


def near(name: str, names: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: a name that looks like it, where there is one."""
    close = get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _names(names: Sequence[str], role: str, machine: str) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ValueError(f'{machine} has {role}="{names}", a bare string: give a tuple of names, ("{names}",)')
    names = tuple(names)
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise ValueError(f"{machine} has {name!r} among its {role}: the name of a component is a non-empty string")
        if name in names[:i]:
            raise ValueError(f"{machine} {role} {name} twice: name each component once")
    return names


def _way_round(graph: nx.DiGraph) -> str:
    shortest = min(_shortest_cycles(graph), key=len)
    way = [graph.edges[a, b]["components"][0] for a, b in pairwise([*shortest, shortest[0]])]
    # a machine carries the component that enters it to the one that leaves it: the way starts and ends with one name
    arrows = " -> ".join([way[-1], *way])
    machines = ", ".join(shortest[:-1]) + f" and {shortest[-1]}"
    return (
        f"{machines} depend on each other ({arrows}): no resolvent order exists; "
        "let one of them write to another component"
    )


def _shortest_cycles(graph: nx.DiGraph) -> Iterable[list[str]]:
    """For each edge on a cycle, the shortest way round through it, begun at its earliest machine."""
    position = {name: i for i, name in enumerate(graph)}
    components = (graph.subgraph(c) for c in nx.strongly_connected_components(graph) if len(c) > 1)
    for a, b in chain.from_iterable(component.edges for component in components):
        cycle = nx.shortest_path(graph, b, a)
        start = cycle.index(min(cycle, key=position.__getitem__))
        yield cycle[start:] + cycle[:start]
