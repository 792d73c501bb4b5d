"""Who depends on whom, layered by level."""

from collections.abc import Hashable
from typing import Any, Literal

import networkx as nx
from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle
from matplotlib.path import Path

from machgraph.draw import sketch
from machgraph.draw.arcs import ASIDE, LANE, arcs_below, draw_arcs
from machgraph.draw.canvas import LINE, SMALL, Box, Line, canvas, graph_of, level_colour, text, tint
from machgraph.draw.sketch import PILE, Item, Sketch
from machgraph.grouping import Group, Grouping, between, cut, tree
from machgraph.layout import Layout, Point, layered, transposed, wrapped

HEAD = 6.0  # length of the head of an arrow
PAGE = {"right": 7.2, "down": 9.0}  # inches that a page has
LABELLED_EDGES = 12  # graphs of more edges than this don't say what each edge carries, unless asked to


def dependency_graph(
    architecture: Any,
    ax: Axes | None = None,
    *,
    components: bool = False,
    labels: bool | None = None,
    direction: Literal["right", "down"] = "right",
    group: Grouping = "auto",
    wrap: float | None = None,
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
    labels : name at each edge the components that it carries. By default for graphs of at most 12 edges, where those
        have other names than the machines. ``False`` for no words; but a folded recurrence has its lags there.
    direction : where the levels follow each other: to the ``"right"`` or ``"down"``.
    group : how many names of modules make a group, as in ``from_torch``: with 1 all of ``layer1.0.conv1``,
        ``layer1.1.conv1`` and so on is one box, ``layer1``. By default graphs of more than 40 machines are drawn in as
        much detail as 40 boxes allow, by module, or else by neighbourhood; ``None`` draws every machine. Lines between
        groups are merged, and say how many components they carry if that is more than one. Levels and colours are those
        of the groups. A folded recurrence has no groups.
    wrap : inches after which what is longer goes on in a next row (or column), where few lines lead there; by default
        a page's, 7.2 to the right and 9 down. ``math.inf`` for one row.

    Raises
    ------
    TypeError : neither an architecture nor a graph. ValueError : another direction or group.
    """
    graph = graph_of(architecture)
    if direction not in ("right", "down"):
        raise ValueError(f'got direction={direction!r}: give "right" or "down"')
    is_folded = bool(nx.get_edge_attributes(graph, "lags"))
    parts = cut(tree(graph), group)
    if not is_folded and any(isinstance(part, Group) for part in parts):
        graph = between(graph, parts)
    if is_folded:
        drawn = sketch.folded(graph, components=components)
    elif components:
        drawn = sketch.with_components(graph)
    else:
        words = _words(graph, labels)
        drawn = sketch.with_labels(graph, words) if any(words.values()) else sketch.machines(graph)
    return _draw(drawn, ax, down=direction == "down", longest=72 * (wrap or PAGE[direction]))


def _words(graph: "nx.DiGraph[str]", labels: bool | None) -> dict[tuple[str, str], str]:
    """What edges say: the names of what they carry, or between groups how many, where they are several."""
    if labels is False:
        return {}
    grouped = any(inside for _, inside in graph.nodes(data="machines"))
    carried = {(a, b): tuple(components or ()) for a, b, components in graph.edges(data="components")}
    if labels is None:  # names that tell more than those of the machines do
        telling = any(components != (a,) for (a, _), components in carried.items())
        labels = telling and not grouped and len(carried) <= LABELLED_EDGES
    if labels:
        return {edge: ", ".join(components) for edge, components in carried.items()}
    return {
        edge: f"×{len(components)}" if grouped and len(components) > 1 else "" for edge, components in carried.items()
    }


def _draw(sketch: Sketch, ax: Axes | None, *, down: bool, longest: float) -> Axes:
    graph: nx.DiGraph[Hashable] = nx.DiGraph()
    graph.add_nodes_from(sketch.items)
    graph.add_edges_from(sketch.edges)
    sizes = {key: item.size for key, item in sketch.items.items()}
    if down:
        sizes = {key: (h, w) for key, (w, h) in sizes.items()}
    layout = layered(graph, sketch.layers, sizes)
    if not sketch.arcs:
        layout = wrapped(layout, sketch.layers, longest)
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


def _draw_lines(ax: Axes, sketch: Sketch, layout: Layout[Hashable], key: Hashable, z: float, *, down: bool) -> None:
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


def _draw_item(ax: Axes, item: Item, centre: Point, size: Point) -> None:
    (x, y), (w, h) = centre, size
    colour = level_colour(item.level)
    if item.shape == "label":
        ax.add_patch(Rectangle((x - w / 2, y - h / 2), w, h, facecolor="white", edgecolor="none", zorder=2))
        text(ax, x, y, item.text, SMALL, colour=colour)
        return
    rounding = min(w, h) / 2 if item.shape == "pill" else 2.0
    fill = {"facecolor": "white", "edgecolor": colour, "zorder": 3}
    if item.shape == "group":  # a pile of boxes, the last one in front
        x, y, w, h = x - PILE / 2, y + PILE / 2, w - PILE, h - PILE
        for step in (PILE, PILE / 2):
            ax.add_patch(Box((x - w / 2 + step, y - h / 2 - step), w, h, rounding, **fill))
    if item.shape != "pill":
        fill["facecolor"] = tint(colour, 0.14)
    ax.add_patch(Box((x - w / 2, y - h / 2), w, h, rounding, gid=item.text, **fill))
    top = y - sum(points + 2 for _, points in item.lines) / 2
    for row, points in item.lines:
        text(ax, x, top + (points + 2) / 2, row, points)
        top += points + 2
