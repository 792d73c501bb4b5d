"""What a layout is, and the graph between layers: a vertex for each node and for each bend of a line."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import networkx as nx

Point = tuple[float, float]
N = TypeVar("N", bound=Hashable)

NODE_GAP = 11.0  # least distance between neighbours in a layer, in points: two nodes, ...
LINE_GAP = 6.5  # ... and two lines, or a line and a node
PORT_GAP = 5.5  # between the ends of lines that enter one node


@dataclass(frozen=True)
class Layout(Generic[N]):
    """Positions in points (1/72 inch), x to the right and y downwards, within ``[0, width] x [0, height]``.

    Parameters
    ----------
    centres, sizes : the centre and the (width, height) of each node.
    routes : for each edge the control points of its cubic Bézier curves, ``1 + 3 k`` of them for ``k`` curves.
    width, height : of the whole picture.
    """

    centres: dict[N, Point]
    sizes: dict[N, Point]
    routes: dict[tuple[N, N], tuple[Point, ...]]
    width: float
    height: float


@dataclass(frozen=True)
class Mesh(Generic[N]):
    """The graph with a bend wherever an edge passes a layer: vertices are numbers, edges join neighbouring layers."""

    rows: list[list[int]]
    before: list[list[int]]
    after: list[list[int]]
    height: list[float]
    bend: list[bool]
    number: dict[tuple[N, int], int]  # (node, layer) -> vertex: the node itself, or the bend of its line in that layer


def woven(
    graph: "nx.DiGraph[N]", layers: Sequence[Sequence[N]], layer: Mapping[N, int], sizes: Mapping[N, Point]
) -> Mesh[N]:
    """Give every node a vertex, and every line a vertex in each layer that it passes on the way to its last reader."""
    number = {(node, layer[node]): v for v, node in enumerate(node for row in layers for node in row)}
    height = [max(sizes[node][1], PORT_GAP * (graph.in_degree(node) + 1)) for node, _ in number]
    nodes = len(number)
    for row in layers:
        for node in row:
            last = max((layer[b] for b in graph.successors(node)), default=0)
            for i in range(layer[node] + 1, last):
                number[node, i] = len(number)
    total = len(number)
    rows: list[list[int]] = [[] for _ in layers]
    before: list[list[int]] = [[] for _ in range(total)]
    after: list[list[int]] = [[] for _ in range(total)]
    for (node, i), v in number.items():
        rows[i].append(v)
        if v >= nodes:
            before[v].append(number[node, i - 1])
            after[number[node, i - 1]].append(v)
    for a, b in graph.edges:
        u, v = number[a, layer[b] - 1], number[b, layer[b]]
        before[v].append(u)
        after[u].append(v)
    return Mesh(rows, before, after, height + [0.0] * (total - nodes), [v >= nodes for v in range(total)], number)


def places_of(rows: Sequence[Sequence[int]]) -> dict[int, int]:
    """Where each vertex stands in its layer."""
    return {v: k for row in rows for k, v in enumerate(row)}


def apart(mesh: Mesh[N], u: int, v: int) -> float:
    """Least distance between the centres of two neighbours in a layer."""
    line = mesh.bend[u] or mesh.bend[v]
    return (mesh.height[u] + mesh.height[v]) / 2 + (LINE_GAP if line else NODE_GAP)


def ports_of(mesh: Mesh[N], order: list[list[int]]) -> dict[tuple[int, int], float]:
    """For each edge how far from the centre of its end it enters: in the order of the layer before, so untangled."""
    place = places_of(order)
    ports: dict[tuple[int, int], float] = {}
    for v, sources in enumerate(mesh.before):
        for k, u in enumerate(sorted(sources, key=place.__getitem__)):
            ports[u, v] = 0.0 if mesh.bend[v] else PORT_GAP * (k - (len(sources) - 1) / 2)
    return ports
