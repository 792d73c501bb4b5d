"""Who depends on whom, layered by level."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import networkx as nx
from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle
from matplotlib.path import Path

from machgraph.draw.arcs import ASIDE, LANE, arcs_below, draw_arcs
from machgraph.draw.canvas import (
    FONT,
    LINE,
    SMALL,
    Box,
    Line,
    canvas,
    graph_of,
    last_writers,
    level_colour,
    levels_of,
    text,
    tint,
    width,
)
from machgraph.layout import Layout, Point, layered, transposed

HEAD = 6.0  # length of the head of an arrow
LABELLED_EDGES = 12  # graphs of more edges than this don't say what each edge carries, unless asked to


def dependency_graph(
    architecture: Any,
    ax: Axes | None = None,
    *,
    components: bool = False,
    labels: bool | None = None,
    direction: Literal["right", "down"] = "right",
) -> Axes:
    """Draw which machine depends on which: data flows along the arrows, one layer for each level.

    The lines that leave one machine start as one and branch; lines of different machines cross but never merge. Of a
    recurrence that is folded over time the levels are those of one turn, edges say at which lags they are heard (no
    word: lag 0), and what comes from earlier turns alone returns along a dashed line.

    Parameters
    ----------
    architecture : an architecture, or its graph: nodes with ``reads`` and ``writes``, edges with ``components``, and
        with ``lags`` and ``back`` where it is folded.
    components : also draw the components, as rounded labels that the machines (boxes) read and write, as in Figure 2.
    labels : name at each edge the components that it carries. By default for graphs of at most 12 edges. A folded
        recurrence has its lags there.
    direction : where the levels follow each other: to the ``"right"`` or ``"down"``.

    Raises
    ------
    TypeError : neither an architecture nor a graph. ValueError : another direction.
    """
    graph = graph_of(architecture)
    if direction not in ("right", "down"):
        raise ValueError(f'got direction={direction!r}: give "right" or "down"')
    if nx.get_edge_attributes(graph, "lags"):
        sketch = _folded(graph, components=components)
    elif components:
        sketch = _with_components(graph)
    elif labels or (labels is None and graph.number_of_edges() <= LABELLED_EDGES):
        sketch = _with_labels(graph)
    else:
        sketch = _machines(graph)
    return _draw_sketch(sketch, ax, down=direction == "down")


# --- sketches: what is to be laid out, before any position ----------------------------------------------------------


@dataclass(frozen=True)
class _Item:
    """A node of a picture. ``shape``: a machine's box, a component's pill, or the text on an edge."""

    text: str
    shape: Literal["box", "pill", "label"]
    level: int


@dataclass(frozen=True)
class _Sketch:
    items: dict[Hashable, _Item]
    edges: list[tuple[Hashable, Hashable]]
    layers: list[list[Hashable]]
    arcs: list[tuple[Hashable, Hashable]] = field(default_factory=list)  # edges that go back, drawn below the layers


def _layers(place: Mapping[Any, int]) -> list[list[Hashable]]:
    layers: dict[int, list[Hashable]] = {}
    for key, i in place.items():
        layers.setdefault(i, []).append(key)
    return [layers[i] for i in sorted(layers)]


def _machines(graph: "nx.DiGraph[str]") -> _Sketch:
    levels = levels_of(graph)
    items: dict[Hashable, _Item] = {name: _Item(name, "box", levels[name]) for name in graph}
    return _Sketch(items, list(graph.edges), _layers({name: levels[name] for name in graph}))


def _with_labels(graph: "nx.DiGraph[str]") -> _Sketch:
    """Edges of one machine that carry the same components share a label right after it.

    The label is a node of its own, half a level on, so that no line can pass under it.
    """
    levels = levels_of(graph)
    items: dict[Hashable, _Item] = {name: _Item(name, "box", levels[name]) for name in graph}
    place: dict[Hashable, int] = {name: 2 * level for name, level in levels.items()}
    edges: dict[tuple[Hashable, Hashable], None] = {}
    for a, b, carried in graph.edges(data="components"):
        label = (a, tuple(carried or ()))
        if carried:
            items[label] = _Item(", ".join(carried), "label", levels[a])
            place[label] = 2 * levels[a] + 1
            edges[a, label] = None
        edges[label if carried else a, b] = None
    return _Sketch(items, list(edges), _layers(place))


def _with_components(graph: "nx.DiGraph[str]") -> _Sketch:
    levels, last = levels_of(graph), last_writers(graph)
    items: dict[Hashable, _Item] = {}
    place: dict[Hashable, int] = {}
    edges: list[tuple[Hashable, Hashable]] = []
    for component, level in last.items():
        items["component", component] = _Item(component, "pill", level)
        place["component", component] = 2 * level
    for name in graph:
        items["machine", name] = _Item(name, "box", levels[name])
        place["machine", name] = 2 * levels[name] - 1
        edges += [(("component", read), ("machine", name)) for read in graph.nodes[name].get("reads", ())]
        edges += [(("machine", name), ("component", write)) for write in graph.nodes[name].get("writes", ())]
    return _Sketch(items, edges, _layers(place))


def _folded(graph: "nx.DiGraph[str]", *, components: bool) -> _Sketch:
    """A recurrence: lags are labels; one that comes from earlier turns stands before its reader, where an arc ends."""
    levels, last = levels_of(graph), last_writers(graph)
    items: dict[Hashable, _Item] = {name: _Item(name, "box", levels[name]) for name in graph}
    place: dict[Hashable, int] = {name: 6 * level for name, level in levels.items()}
    edges: dict[tuple[Hashable, Hashable], None] = {}
    arcs: list[tuple[Hashable, Hashable]] = []
    if components:
        for component, level in last.items():
            items["component", component] = _Item(component, "pill", level)
            place["component", component] = 6 * level + 3
        for name in graph:
            reads, writes = graph.nodes[name]["reads"], graph.nodes[name]["writes"]
            edges |= {(("component", c), name): None for c in reads if not last[c]}
            edges |= {(name, ("component", c)): None for c in writes}
    for a, b, edge in graph.edges(data=True):
        for start in [("component", c) for c in edge["components"]] if components else [a]:
            if edge["lags"] == (0,):
                edges[start, b] = None
                continue
            label = (start, b) if edge["back"] else (start, edge["lags"])
            items[label] = _Item(edge["words"], "label", levels[a])
            place[label] = place[b] - 1 if edge["back"] else place[start] + 1
            edges[label, b] = None
            if edge["back"]:
                arcs.append((start, label))
            else:
                edges[start, label] = None
    return _Sketch(items, list(edges), _layers(place), arcs)


def _draw_sketch(sketch: _Sketch, ax: Axes | None, *, down: bool) -> Axes:
    graph: nx.DiGraph[Hashable] = nx.DiGraph()
    graph.add_nodes_from(sketch.items)
    graph.add_edges_from(sketch.edges)
    sizes = {key: _size(item) for key, item in sketch.items.items()}
    if down:
        sizes = {key: (h, w) for key, (w, h) in sizes.items()}
    layout = layered(graph, sketch.layers, sizes)
    arcs = arcs_below(layout, sketch.layers, sketch.arcs)
    lanes, aside = LANE * arcs.lanes, ASIDE if sketch.arcs else 0.0
    if down:
        layout = transposed(layout)
    wide, high = (layout.width + lanes, layout.height) if down else (layout.width, layout.height + lanes)
    ax = canvas(ax, wide, high, margin=4.0 + aside)
    for key, lines in arcs.lines.items():
        draw_arcs(ax, sketch.items[key].text, level_colour(sketch.items[key].level), lines, down=down)
    for k, key in enumerate(graph):
        _draw_lines(ax, sketch, layout, key, 1 + k / len(graph), down=down)
    for key, item in sketch.items.items():
        _draw_item(ax, item, layout.centres[key], layout.sizes[key])
    return ax


def _size(item: _Item) -> Point:
    if item.shape == "label":
        return width(item.text, SMALL) + 5, SMALL + 3
    return max(width(item.text) + 11, 18.0), FONT + 8


def _draw_lines(ax: Axes, sketch: _Sketch, layout: Layout[Hashable], key: Hashable, z: float, *, down: bool) -> None:
    """All lines that leave one node as one tree, each stretch once, over a white casing that shows what crosses."""
    stretches: dict[tuple[Point, ...], None] = {}
    heads = []
    for (a, b), route in layout.routes.items():
        if a != key:
            continue
        ends_in_arrow = sketch.items[b].shape != "label"
        if ends_in_arrow:
            tip = route[-1]
            back, side = ((0, -HEAD), (HEAD * 0.42, 0)) if down else ((-HEAD, 0), (0, HEAD * 0.42))
            base = (tip[0] + back[0], tip[1] + back[1])
            heads.append([tip, (base[0] + side[0], base[1] + side[1]), (base[0] - side[0], base[1] - side[1])])
        for k in range(0, len(route) - 1, 3):
            stretches.setdefault(route[k : k + 4])
    if not stretches:
        return
    colour = level_colour(sketch.items[key].level)
    points = [point for stretch in stretches for point in stretch]
    path = Path(points, [Path.MOVETO, *[Path.CURVE4] * 3] * len(stretches))
    ax.add_patch(Line(path, 2 * LINE, edgecolor="white", zorder=z, capstyle="butt"))
    ax.add_patch(Line(path, LINE, edgecolor=colour, zorder=z, capstyle="butt", gid=f"from {sketch.items[key].text}"))
    for head in heads:
        ax.add_patch(Polygon(head, closed=True, facecolor=colour, edgecolor="none", zorder=2.5))


def _draw_item(ax: Axes, item: _Item, centre: Point, size: Point) -> None:
    (x, y), (w, h) = centre, size
    colour = level_colour(item.level)
    if item.shape == "label":
        ax.add_patch(Rectangle((x - w / 2, y - h / 2), w, h, facecolor="white", edgecolor="none", zorder=2))
        text(ax, x, y, item.text, SMALL, colour=colour)
        return
    rounding = min(w, h) / 2 if item.shape == "pill" else 2.0
    ax.add_patch(
        Box(
            (x - w / 2, y - h / 2),
            w,
            h,
            rounding,
            facecolor=tint(colour, 0.14) if item.shape == "box" else "white",
            edgecolor=colour,
            zorder=3,
            gid=item.text,
        )
    )
    text(ax, x, y, item.text)
