"""Machines in groups, as the modules in their names say (``layer1.0.conv1``): a tree, and the graph between its parts.

What is seen as one must depend on the others as one. So a module through which data pass twice, with others in
between, is two groups; and the graph between the parts of any cut through the tree has a topological order, as the
machines have.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Literal

import networkx as nx

from machgraph.graph import forward, levels, order

MOST = 40  # parts that one picture shows
Grouping = int | Literal["auto"] | None
_STEP = re.compile(r".+\[(t=[\d:]+)\]")  # of an unrolled recurrence


@dataclass(frozen=True)
class Group:
    """Machines that are seen as one.

    Parameters
    ----------
    name : the path of a module, as ``layer1.0``, numbered from 2 where its machines can't be one; or the first and last
        machine of a group that no module makes. The whole has none.
    depth : how many names of modules all of its machines share.
    members : groups and machines, in an order of execution.
    of_module : whether a module makes it. Else it stands for neighbours of which there would be too many.
    """

    name: str
    depth: int
    members: "tuple[Group | str, ...]"
    of_module: bool = True

    @cached_property
    def machines(self) -> tuple[str, ...]:
        """All machines in it."""
        return tuple(chain.from_iterable(map(machines_of, self.members)))


Part = Group | str


def machines_of(part: Part) -> tuple[str, ...]:
    """Those of a group, or the machine itself."""
    return (part,) if isinstance(part, str) else part.machines


def modules(machine: str) -> tuple[str, ...]:
    """The names of the modules that hold a machine, the outermost first; of a step of a recurrence its time.

    >>> modules("layer1.0.conv1"), modules("conv1"), modules("w_1[t=3]")
    (('layer1', '0'), (), ('t=3',))
    """
    step = _STEP.fullmatch(machine)
    return (step[1],) if step else tuple(machine.split(".")[:-1])


def tree(graph: "nx.DiGraph[str]", most: int = MOST) -> Group:
    """The machines grouped by module, and by neighbourhood where there are more than ``most`` side by side.

    Parameters
    ----------
    graph : as ``Architecture.graph``; what goes back in time is left out.
    most : members of a group, at least 2.

    Examples
    --------
    >>> graph = nx.DiGraph([("a.0", "a.1"), ("a.1", "b.0"), ("b.0", "b.1"), ("b.1", "end")])
    >>> [machines_of(part) for part in tree(graph).members]
    [('a.0', 'a.1'), ('b.0', 'b.1'), ('end',)]
    """
    graph = forward(graph)
    return Group("", 0, _members(graph, order(graph), 0, most))


def cut(root: Group, grouping: Grouping, most: int = MOST) -> list[Part]:
    """The parts of a tree that a picture shows, in an order of execution.

    Parameters
    ----------
    root : of the tree.
    grouping : how many names of modules make a group, at least 1; ``"auto"`` for as much detail, the same everywhere,
        as ``most`` parts allow; ``None`` for every machine alone.

    Raises
    ------
    ValueError : another grouping.
    """
    if grouping is None:
        return list(root.machines)
    if grouping == "auto":
        parts: list[Part] = list(root.members)
        while any(isinstance(part, Group) for part in parts):
            opened = list(chain.from_iterable(p.members if isinstance(p, Group) else (p,) for p in parts))
            if len(opened) > most:
                break
            parts = opened
        return parts
    if isinstance(grouping, bool) or not isinstance(grouping, int) or grouping < 1:
        raise ValueError(
            f'got group={grouping!r}: give how many names of modules make a group, at least 1, "auto", or None'
        )
    return list(_down_to(root.members, grouping))


def between(graph: "nx.DiGraph[str]", parts: Sequence[Part]) -> "nx.DiGraph[str]":
    """The graph of who depends on whom between the parts of a cut.

    Returns
    -------
    A graph as ``machgraph.graph.dependency_graph`` makes it. A machine keeps its name and attributes; a group has its
    name (numbered, if that is taken), what it ``reads`` from others, what it ``writes`` for others or for nobody, and
    its ``machines``. Edges have all ``components`` that flow.
    """
    graph = forward(graph)
    taken = {part for part in parts if isinstance(part, str)}
    name_of: list[str] = []
    for part in parts:
        name = part if isinstance(part, str) else free(part.name, taken)
        taken.add(name)
        name_of.append(name)
    home = {machine: name for part, name in zip(parts, name_of, strict=True) for machine in machines_of(part)}
    readers, writers = _users(graph, "reads"), _users(graph, "writes")
    result: nx.DiGraph[str] = nx.DiGraph()
    for part, name in zip(parts, name_of, strict=True):
        if isinstance(part, str):
            result.add_node(name, **graph.nodes[name])
            continue
        inside = set(part.machines)
        reads = [c for c in _used(graph, part.machines, "reads") if not inside.issuperset(writers.get(c, {""}))]
        writes = [c for c in _used(graph, part.machines, "writes") if not inside.issuperset(readers.get(c, {""}))]
        result.add_node(name, reads=tuple(reads), writes=tuple(writes), machines=part.machines)
    for a, b, carried in graph.edges(data="components"):
        start, end = home.get(a), home.get(b)
        if start is not None and end is not None and start != end:
            if not result.has_edge(start, end):
                result.add_edge(start, end, components=())
            edge = result.edges[start, end]
            edge["components"] = tuple(dict.fromkeys((*edge["components"], *(carried or ()))))
    return result


def free(name: str, taken: Iterable[str]) -> str:
    """The name, or the first of ``name (2)``, ``name (3)``, ... that is not taken."""
    taken, count, found = set(taken), 1, name
    while found in taken:
        count += 1
        found = f"{name} ({count})"
    return found


def _users(graph: "nx.DiGraph[str]", role: str) -> dict[str, set[str]]:
    users: dict[str, set[str]] = {}
    for machine in graph:
        for component in graph.nodes[machine].get(role, ()):
            users.setdefault(component, set()).add(machine)
    return users


def _used(graph: "nx.DiGraph[str]", machines: Iterable[str], role: str) -> dict[str, None]:
    return dict.fromkeys(component for machine in machines for component in graph.nodes[machine].get(role, ()))


def _down_to(members: Iterable[Part], depth: int) -> Iterator[Part]:
    for part in members:
        if isinstance(part, str) or (part.of_module and part.depth >= depth):
            yield part
        else:
            yield from _down_to(part.members, depth)


def _members(graph: "nx.DiGraph[str]", machines: Sequence[str], depth: int, most: int) -> tuple[Part, ...]:
    found = _modules_apart(graph, machines, depth)
    if len(found) == 1 and found[0][0]:  # all in one module: it tells nothing
        return _members(graph, machines, depth + 1, most)
    members: list[Part] = []
    names: set[str] = set()
    for path, inside in found:
        if len(inside) == 1:
            members += inside
            continue
        name = free(".".join(path), names)
        names.add(name)
        members.append(Group(name, depth + 1, _members(graph, inside, depth + 1, most)))
    return tuple(members) if len(members) <= most else _neighbourhoods(graph, members, depth, most)


def _modules_apart(
    graph: "nx.DiGraph[str]", machines: Sequence[str], depth: int
) -> list[tuple[tuple[str, ...], list[str]]]:
    """The machines by their next module, so that no two groups depend on each other; without a path where none is next.

    In the order of execution each machine joins the latest group of its module, unless that depends on this group's
    own results; then it begins another.
    """
    found: list[tuple[tuple[str, ...], list[str]]] = []
    home: dict[str, int] = {}
    latest: dict[tuple[str, ...], int] = {}
    links: nx.DiGraph[int] = nx.DiGraph()
    for machine in machines:
        path = modules(machine)[: depth + 1]
        path = path if len(path) > depth else ()
        sources = {home[source] for source in graph.predecessors(machine) if source in home}
        here = latest.get(path) if path else None
        if here is None or not sources.isdisjoint(nx.descendants(links, here)):
            here = len(found)
            found.append((path, []))
            links.add_node(here)
            latest[path] = here
        links.add_edges_from((source, here) for source in sources if source != here)
        found[here][1].append(machine)
        home[machine] = here
    ranked = nx.lexicographical_topological_sort(links, key=int)
    return [found[i] for i in ranked]


def _neighbourhoods(graph: "nx.DiGraph[str]", members: Sequence[Part], depth: int, most: int) -> tuple[Part, ...]:
    """The parts joined: those that hang together within as few levels as it takes, and the rest.

    To a third of what would fit, since each is linked with many others.
    """
    links = between(graph, members)
    part = dict(zip(links, members, strict=True))
    rows = levels(links)
    for step in range(1, len(rows)):
        joined = [names for i in range(0, len(rows), step) for names in _hanging(links, rows[i : i + step])]
        if 1 < len(joined) <= max(most // 3, 2):
            break
    else:  # not even most levels together will do: as many at a time as it takes, in an order of execution
        names, size = list(chain.from_iterable(rows)), -(-len(links) // most)
        joined = [names[i : i + size] for i in range(0, len(names), size)]
    return tuple(_joined(graph, [part[name] for name in names], depth, most) for names in joined)


def _hanging(links: "nx.DiGraph[str]", rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """What depends on each other within these levels, and what on nothing there as one."""
    names = list(chain.from_iterable(rows))
    home = {name: i for i, group in enumerate(nx.weakly_connected_components(links.subgraph(names))) for name in group}
    found: dict[int, list[str]] = {}
    for name in names:
        found.setdefault(home[name], []).append(name)
    alone = [name for group in found.values() if len(group) == 1 for name in group]
    together = [group for group in found.values() if len(group) > 1]
    return [*together, alone] if alone else together


def _joined(graph: "nx.DiGraph[str]", parts: Sequence[Part], depth: int, most: int) -> Part:
    if len(parts) == 1:
        return parts[0]
    first, last = (
        part.name if isinstance(part, Group) and part.of_module else machines_of(part)[end]
        for part, end in ((parts[0], 0), (parts[-1], -1))
    )
    members = tuple(parts) if len(parts) <= most else _neighbourhoods(graph, parts, depth, most)
    return Group(f"{first} … {last}", depth, members, of_module=False)
