"""Where the nodes and edges of a layered graph go: plain numbers, for any kind of picture.

The method of Sugiyama, Tagawa and Toda (1981), with three choices of ours:

- All edges of one node that pass a layer share one bend there, so that a node with many readers is one line that
  branches, not a bundle of parallel ones. Lines of different nodes never merge, so every branch has one origin.
- Across the band of a layer every line runs straight; it turns only between bands. So no line can touch a node that it
  does not end at: in the band it is kept apart like a node, and between the bands there are none.
- Coordinates begin with those of Brandes and Köpf (2001), which keep long lines straight: four extreme alignments and
  the mean of the middle two, blocks compacted by longest paths (the paper's published compaction is known to err). Each
  is then settled, nodes and straight stretches moving to where most of their lines run straight, and the best is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import networkx as nx

from machgraph.layout.coordinates import alignments, bending, settle
from machgraph.layout.mesh import Layout, Mesh, N, Point, ports_of, woven
from machgraph.layout.ordering import arranged
from machgraph.layout.wrapping import wrapped

__all__ = ["Layout", "Point", "layered", "transposed", "wrapped"]

STUB = 7.0  # the last stretch before a layer is straight: room for the head of an arrow
TURN_GAP = (9.0, 42.0)  # between two layers, besides the stub: at least, at most
SLOPE = 0.25  # a turn over a height h gets SLOPE * h more room


def layered(graph: "nx.DiGraph[N]", layers: Sequence[Sequence[N]], sizes: Mapping[N, Point]) -> Layout[N]:
    """A layered layout, layers from left to right. Deterministic.

    Parameters
    ----------
    graph : every edge must lead from an earlier layer to a later one.
    layers : all nodes of the graph, each once.
    sizes : (width, height) of each node in points. A node that many lines enter is made higher, so that they fit.

    Raises
    ------
    ValueError : the layers miss a node, repeat one, or an edge does not lead to a later layer.

    Examples
    --------
    >>> layout = layered(nx.DiGraph([("a", "b")]), [["a"], ["b"]], {"a": (20, 12), "b": (20, 12)})
    >>> layout.centres
    {'a': (10.0, 6.0), 'b': (46.0, 6.0)}
    >>> layout.routes["a", "b"][0], layout.routes["a", "b"][-1]
    ((20.0, 6.0), (36.0, 6.0))
    """
    layer = {node: i for i, row in enumerate(layers) for node in row}
    count = sum(map(len, layers))
    if count != len(layer) or set(layer) != set(graph):
        raise ValueError(f"got {count} places for {len(graph)} nodes: each node must be in one layer, once")
    for a, b in graph.edges:
        if layer[a] >= layer[b]:
            raise ValueError(f"edge {a!r} -> {b!r} leads from layer {layer[a]} to {layer[b]}, which is not a later one")
    mesh = woven(graph, layers, layer, sizes)
    order = arranged(mesh)
    ports = ports_of(mesh, order)
    settled = [settle(mesh, order, ports, y) for y in alignments(mesh, order)]
    return _routed(graph, layer, sizes, mesh, order, min(settled, key=lambda y: bending(mesh, ports, y)), ports)


def _routed(
    graph: "nx.DiGraph[N]",
    layer: Mapping[N, int],
    sizes: Mapping[N, Point],
    mesh: Mesh[N],
    order: list[list[int]],
    y: list[float],
    ports: dict[tuple[int, int], float],
) -> Layout[N]:
    top = min((y[v] - mesh.height[v] / 2 for row in order for v in row), default=0.0)
    y = [value - top for value in y]
    widths = [0.0 for _ in order]
    for node, i in layer.items():
        widths[i] = max(widths[i], sizes[node][0])
    left, x = [], 0.0
    for i, row in enumerate(order):
        left.append(x)
        turn = max((abs(y[v] + ports[u, v] - y[u]) for u in row for v in mesh.after[u]), default=0.0)
        x += widths[i] + min(TURN_GAP[0] + SLOPE * turn, TURN_GAP[1]) + STUB
    right = [start + width for start, width in zip(left, widths, strict=True)]

    centres, grown = {}, {}
    for node, i in layer.items():
        v = mesh.number[node, i]
        centres[node] = ((left[i] + right[i]) / 2, y[v])
        grown[node] = (float(sizes[node][0]), mesh.height[v])
    routes = {}
    for a, b in graph.edges:
        u = mesh.number[a, layer[a]]
        points = [(centres[a][0] + sizes[a][0] / 2, y[u])]
        _straight(points, right[layer[a]])
        for i in range(layer[a] + 1, layer[b] + 1):
            v = mesh.number[b if i == layer[b] else a, i]
            _turn(points, (left[i] - STUB, y[v] + ports[u, v]))
            _straight(points, right[i] if i < layer[b] else centres[b][0] - sizes[b][0] / 2)
            u = v
        routes[a, b] = tuple(points)
    bottom = max((y[v] + mesh.height[v] / 2 for row in order for v in row), default=0.0)
    return Layout(centres, grown, routes, right[-1] if right else 0.0, bottom)


def _straight(points: list[Point], x: float) -> None:
    x0, y0 = points[-1]
    if x != x0:
        points += [(x0 + (x - x0) / 3, y0), (x - (x - x0) / 3, y0), (x, y0)]


def _turn(points: list[Point], end: Point) -> None:
    x0, y0 = points[-1]
    middle = (x0 + end[0]) / 2
    points += [(middle, y0), (middle, end[1]), end]


def transposed(layout: Layout[N]) -> Layout[N]:
    """The same layout with x and y exchanged: layers from top to bottom.

    Lay out with the width and height of every node exchanged, and transpose the result.
    """
    return replace(
        layout,
        centres={node: (y, x) for node, (x, y) in layout.centres.items()},
        sizes={node: (h, w) for node, (w, h) in layout.sizes.items()},
        routes={edge: tuple((y, x) for x, y in points) for edge, points in layout.routes.items()},
        width=layout.height,
        height=layout.width,
    )
