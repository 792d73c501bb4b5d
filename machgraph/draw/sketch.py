"""What is to be laid out, before any position: boxes, pills and labels, and who is linked to whom."""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import networkx as nx

from machgraph.draw.canvas import FONT, SMALL, last_writers, levels_of, width
from machgraph.layout import Point

PILE = 4.0  # how far the boxes behind a group's show
LETTERS = 20  # of a line; a longer name is broken after its dots and underscores


@dataclass(frozen=True)
class Item:
    """A node of a picture. ``shape``: a machine's or a group's box, a component's pill, or the text on an edge."""

    text: str
    shape: Literal["box", "group", "pill", "label"]
    level: int  # that gives it its colour
    note: str = ""

    @property
    def lines(self) -> list[tuple[str, float]]:
        """What stands in it, line by line, and how large."""
        size = SMALL if self.shape == "label" else FONT
        rows = [self.text] if self.shape == "label" else broken(self.text)
        return [*((row, size) for row in rows), *([(self.note, SMALL)] if self.note else [])]

    @property
    def size(self) -> Point:
        """Width and height, in points."""
        lines = self.lines
        wide = max(width(row, size) for row, size in lines)
        high = sum(size + 2 for _, size in lines)
        if self.shape == "label":
            return wide + 5, high + 1
        pile = PILE if self.shape == "group" else 0.0
        return max(wide + 11, 18.0) + pile, high + 6 + pile


@dataclass(frozen=True)
class Sketch:
    """The nodes of a picture, its lines, the layers, and the lines that go back, which are drawn below the layers."""

    items: dict[Hashable, Item]
    edges: list[tuple[Hashable, Hashable]]
    layers: list[list[Hashable]]
    arcs: list[tuple[Hashable, Hashable]] = field(default_factory=list)


def broken(name: str) -> list[str]:
    """A name in lines: one that is long is broken after dots and underscores.

    >>> broken("layer1.0.conv1"), broken("layers.0.self_attn.scaled_dot_product_attention")
    (['layer1.0.conv1'], ['layers.0.self_attn.', 'scaled_dot_product_', 'attention'])
    """
    if " … " in name:  # a group by its first and last machine
        first, last = name.split(" … ", 1)
        return [*broken(first), *broken(f"… {last}")]
    if len(name) <= LETTERS or "$" in name:
        return [name]
    lines = [""]
    for part in re.findall(r"[^._ ]*[._ ]+|[^._ ]+", name):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > LETTERS:
            lines.append("")
        lines[-1] += part
    return [line.strip() for line in lines]


def machines(graph: "nx.DiGraph[str]") -> Sketch:
    """Machines and groups alone."""
    levels = levels_of(graph)
    return Sketch(_boxes(graph, levels), list(graph.edges), _layers(levels))


def with_labels(graph: "nx.DiGraph[str]", words: Mapping[tuple[str, str], str]) -> Sketch:
    """Edges of one machine that say the same share a label right after it.

    The label is a node of its own, half a level on, so that no line can pass under it.
    """
    levels = levels_of(graph)
    items = _boxes(graph, levels)
    place: dict[Hashable, int] = {name: 2 * level for name, level in levels.items()}
    edges: dict[tuple[Hashable, Hashable], None] = {}
    for a, b in graph.edges:
        said = words.get((a, b), "")
        label = (a, said)
        if said:
            items[label] = Item(said, "label", levels[a])
            place[label] = 2 * levels[a] + 1
            edges[a, label] = None
        edges[label if said else a, b] = None
    return Sketch(items, list(edges), _layers(place))


def with_components(graph: "nx.DiGraph[str]") -> Sketch:
    """Machines, and between them the components that they read and write."""
    levels, last = levels_of(graph), last_writers(graph)
    items: dict[Hashable, Item] = {}
    place: dict[Hashable, int] = {}
    edges: list[tuple[Hashable, Hashable]] = []
    for component, level in last.items():
        items["component", component] = Item(component, "pill", level)
        place["component", component] = 2 * level
    for name, box in _boxes(graph, levels).items():
        items["machine", name] = box
        place["machine", name] = 2 * levels[str(name)] - 1
    for name in graph:
        edges += [(("component", read), ("machine", name)) for read in graph.nodes[name].get("reads", ())]
        edges += [(("machine", name), ("component", write)) for write in graph.nodes[name].get("writes", ())]
    return Sketch(items, edges, _layers(place))


def folded(graph: "nx.DiGraph[str]", *, components: bool) -> Sketch:
    """A recurrence: lags are labels; one that comes from earlier turns stands before its reader, where an arc ends."""
    levels, last = levels_of(graph), last_writers(graph)
    items = _boxes(graph, levels)
    place: dict[Hashable, int] = {name: 6 * level for name, level in levels.items()}
    edges: dict[tuple[Hashable, Hashable], None] = {}
    arcs: list[tuple[Hashable, Hashable]] = []
    if components:
        for component, level in last.items():
            items["component", component] = Item(component, "pill", level)
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
            items[label] = Item(edge["words"], "label", levels[a])
            place[label] = place[b] - 1 if edge["back"] else place[start] + 1
            edges[label, b] = None
            if edge["back"]:
                arcs.append((start, label))
            else:
                edges[start, label] = None
    return Sketch(items, list(edges), _layers(place), arcs)


def _boxes(graph: "nx.DiGraph[str]", levels: Mapping[str, int]) -> dict[Hashable, Item]:
    """Of each machine, and of each group, which says how many machines it has."""
    boxes: dict[Hashable, Item] = {}
    for name, inside in graph.nodes(data="machines"):
        boxes[name] = (
            Item(name, "group", levels[name], f"{len(inside)} machines") if inside else Item(name, "box", levels[name])
        )
    return boxes


def _layers(place: Mapping[Any, int]) -> list[list[Hashable]]:
    layers: dict[int, list[Hashable]] = {}
    for key, i in place.items():
        layers.setdefault(i, []).append(key)
    return [layers[i] for i in sorted(layers)]
