"""Where the boxes and lines of a report's graphs go: plain numbers, which its template turns into SVG."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import sqrt

import networkx as nx

from machgraph.graph import levels, order
from machgraph.layout import layered, transposed
from machgraph.naming import indexed
from machgraph.partition import Mask, lag_words

GAP = 44.0  # between two blocks
PORT = 9.0  # between two lines that enter one side of a block
LETTER = 6.9  # width of a letter of the labels, at most
ROW = 28.0  # from one box of a column to the next
BULGE = 190.0  # of the longest arc beside a column
MOST_BLOCKS, MOST_EDGES = 14, 80  # in a row; more stand in a column, with arcs beside it
MOST_BENDS = 900  # levels that all edges pass together, laid out by level; the same
Place = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A block or a machine: centre ``(x, y)``, size, two lines of text, and a sentence about its neighbours."""

    key: str
    label: str
    detail: str
    says: str
    x: float
    y: float
    width: float
    height: float
    level: int = 0


@dataclass(frozen=True)
class Line:
    """An edge between two boxes: ``path`` is SVG's, ``head`` the corners of its arrow."""

    source: str
    target: str
    path: str
    head: str
    shortcut: bool


@dataclass(frozen=True)
class Diagram:
    """Boxes and lines within ``[left, left + width] x [top, top + height]``, in pixels."""

    left: float
    top: float
    width: float
    height: float
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]


def listing(names: Sequence[str], nothing: str = "nothing") -> str:
    """Names as a sentence has them.

    >>> listing(["the input", "block 1", "block 3"])
    'the input, block 1 and block 3'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or nothing


def block_name(i: int, blocks: int) -> str:
    """How people call block ``i`` of so many."""
    return "input" if i == 0 else "output" if i == blocks - 1 else f"block {i}"


# --- blocks in a row, shortcuts as arcs ------------------------------------------------------------------------------


def pages(arcs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """For each arc between places on a line the side (1 or -1) on which it crosses fewer others, long ones first.

    >>> pages([(0, 2), (1, 3), (0, 3)])
    {(0, 3): 1, (0, 2): 1, (1, 3): -1}
    """
    side: dict[tuple[int, int], int] = {}
    for a, b in sorted(arcs, key=lambda arc: (arc[0] - arc[1], arc)):
        crossed = [side[c, d] for c, d in side if a < c < b < d or c < a < d < b]
        side[a, b] = 1 if crossed.count(1) <= crossed.count(-1) else -1
    return side


def block_diagram(widths: Sequence[int], activations: Sequence[str], mask: Mask, *, down: bool) -> Diagram:
    """The blocks of a machine in a row, as thick as they are wide; edges to the next are straight, shortcuts are arcs.

    Parameters
    ----------
    widths, activations : one for each block.
    mask : boolean, ``[block_out, block_in]``, or ``[lag, block_out, block_in]``: then an edge is drawn to later blocks
        alone, at whatever lag, and a block that hears itself or later ones has a sign.
    down : the row goes down the page, and not to the right.
    """
    n = len(widths)
    names, details, said = _block_words(widths, activations, mask)
    mask = mask if mask.ndim == 2 else mask.max(axis=0)
    edges = [(j, i) for j, i in combinations(range(n), 2) if mask[i, j]]
    if n > MOST_BLOCKS or len(edges) > MOST_EDGES:
        boxes = [Box(str(i), f"{names[i]} · {details[i]}", "", said[i], 0, 0, 0, 0) for i in range(n)]
        return column([(box, i) for i, box in enumerate(boxes)], [(str(j), str(i)) for j, i in edges])
    arcs = [(j, i) for j, i in edges if i > j + 1]
    side = pages(arcs)

    # lines that end on one side of a block: those that come in first, near ones outside, so that none cross there
    ends = {
        (i, s): [(j, i) for j in range(i - 1, -1, -1) if side.get((j, i)) == s]
        + [(i, k) for k in range(n - 1, i, -1) if side.get((i, k)) == s]
        for i in range(n)
        for s in (1, -1)
    }
    texts = [LETTER * max(len(name), len(detail)) + 18 for name, detail in zip(names, details, strict=True)]
    thick = [sqrt(width / max(widths)) for width in widths]
    lengths, heights = [], []
    for i in range(n):
        ported = PORT * (max(len(ends[i, 1]), len(ends[i, -1])) + 1)
        lengths.append(max(46.0 if down else texts[i], ported))
        heights.append(max(texts[i], 60 + 80 * thick[i]) if down else 46 + 64 * thick[i])
    centres, x = [], 0.0
    for length in lengths:
        centres.append(x + length / 2)
        x += length + (30.0 if down else GAP)

    def port(i: int, arc: tuple[int, int]) -> Place:
        row = ends[i, side[arc]]
        return centres[i] + PORT * (row.index(arc) - (len(row) - 1) / 2), -side[arc] * heights[i] / 2

    lines, reach = [], {1: max(heights) / 2, -1: max(heights) / 2}
    for j, i in edges:
        arc, shortcut = (j, i), i > j + 1
        if shortcut:
            (x0, y0), (x1, y1), s = port(j, arc), port(i, arc), side[arc]
            within = max(heights[j : i + 1]) / 2
            rise = within + (14 + 15 * (i - j - 1) if down else 22 + 26 * (i - j - 1))
            reach[s] = max(reach[s], y1 * -s, 0.75 * rise + 0.25 * max(y0 * -s, y1 * -s), within + 14)
            tip, control, direction = (x1, y1), [(x0, -s * rise), (x1, -s * rise)], (0.0, float(s))
        else:
            x0, y0, tip = centres[j] + lengths[j] / 2, 0.0, (centres[i] - lengths[i] / 2, 0.0)
            control, direction = [((x0 + tip[0]) / 2, 0.0)] * 2, (1.0, 0.0)
        lines.append(_line(str(j), str(i), [(x0, y0), *control, tip], direction, shortcut, down=down))

    boxes = []
    for i in range(n):
        at, size = (centres[i], 0.0), (lengths[i], heights[i])
        if down:
            at, size = at[::-1], size[::-1]
        boxes.append(Box(str(i), names[i], details[i], said[i], *at, *size))
    first, last = -reach[1] - 4, reach[-1] + 4
    frame = (-4.0, first, x - (30.0 if down else GAP) + 8, last - first)
    return Diagram(*((frame[1], frame[0], frame[3], frame[2]) if down else frame), tuple(boxes), tuple(lines))


def _block_words(
    widths: Sequence[int], activations: Sequence[str], mask: Mask
) -> tuple[list[str], list[str], list[str]]:
    """Of each block its name, its size, and a sentence."""
    lagged = mask if mask.ndim == 3 else mask[None]
    heard, n = lagged.max(axis=0), len(widths)
    names = [block_name(i, n) for i in range(n)]
    article = [f"the {name}" if name in ("input", "output") else name for name in names]
    details = [str(width) if i == 0 else f"{width} {activations[i]}" for i, width in enumerate(widths)]
    details[-1] = str(widths[-1]) if activations[-1] == "identity" else details[-1]
    details = [detail + " ↺" * bool(heard[i, i:].any()) for i, detail in enumerate(details)]
    said = []
    for i in range(n):
        hears = listing([_heard(article[j], i == j, lagged[:, i, j]) for j in range(n) if heard[i, j]])
        feeds = listing([article[k] for k in range(n) if heard[k, i] and k != i])
        kind = f"{widths[i]:,} {'features' if i == 0 else 'units'}"
        kind += "" if i == 0 or activations[i] == "identity" else f", {activations[i]}"
        flow = ([f"hears {hears}"] if i else []) + ([f"feeds {feeds}"] if i < n - 1 else [])
        said.append(f"{names[i].capitalize()}: {kind}; {', '.join(flow)}.")
    return names, details, said


def _heard(name: str, own: bool, lags: Mask) -> str:
    """Whom a block hears, and at which lags where it is the past."""
    return ("itself" if own else name) + (f" ({lag_words(lags)})" if lags[1:].any() else "")


def _line(source: str, target: str, points: Sequence[Place], direction: Place, shortcut: bool, *, down: bool) -> Line:
    """A chain of cubic curves that ends in an arrow; ``down`` exchanges x and y of all that is given."""
    (x, y), (dx, dy) = points[-1], direction
    head = [(x, y), (x - 7 * dx - 3.2 * dy, y - 7 * dy - 3.2 * dx), (x - 7 * dx + 3.2 * dy, y - 7 * dy + 3.2 * dx)]
    points = [*points[:-1], (x - 5 * dx, y - 5 * dy)]
    if down:
        points, head = [p[::-1] for p in points], [p[::-1] for p in head]
    start, *rest = (f"{px:.1f} {py:.1f}" for px, py in points)
    return Line(
        source, target, f"M{start}C{' '.join(rest)}", " ".join(f"{px:.1f},{py:.1f}" for px, py in head), shortcut
    )


# --- machines, by level ----------------------------------------------------------------------------------------------


def machine_diagram(graph: "nx.DiGraph[str]", *, down: bool) -> Diagram:
    """Who depends on whom, a layer for each level; ``graph`` as ``Architecture.graph``."""
    rows = levels(graph)
    level = {name: i for i, row in enumerate(rows, 1) for name in row}
    if sum(level[b] - level[a] for a, b in graph.edges) > MOST_BENDS:
        every = [(_machine(graph, name, level[name]), level[name]) for name in order(graph)]
        return column(every, list(graph.edges))
    sizes = {name: (max(LETTER * len(indexed(name)) + 14, 32.0), 24.0) for name in graph}
    if down:
        sizes = {name: (h, w) for name, (w, h) in sizes.items()}
    layout = layered(graph, rows, sizes)
    lines = [
        _line(a, b, route, (1.0, 0.0), False, down=down) for (a, b), route in layout.routes.items()
    ]  # routes run to the right, and _line exchanges x and y itself
    layout = transposed(layout) if down else layout
    boxes = [_machine(graph, name, level[name], x, y, *layout.sizes[name]) for name, (x, y) in layout.centres.items()]
    return Diagram(-2.0, -2.0, layout.width + 4, layout.height + 4, tuple(boxes), tuple(lines))


def _machine(
    graph: "nx.DiGraph[str]",
    name: str,
    level: int,
    x: float = 0.0,
    y: float = 0.0,
    width: float = 0.0,
    height: float = 0.0,
) -> Box:
    hears = listing([indexed(other) for other in graph.predecessors(name)], "only what is given")
    feeds = listing([indexed(other) for other in graph.successors(name)])
    reads, writes = (listing([indexed(c) for c in graph.nodes[name][key]]) for key in ("reads", "writes"))
    says = f"{indexed(name)}, level {level}: reads {reads}, writes {writes}; hears {hears}, feeds {feeds}."
    return Box(name, indexed(name), "", says, x, y, width, height, level)


# --- what is too much for either: a column ---------------------------------------------------------------------------


def column(boxes: Sequence[tuple[Box, int]], edges: Iterable[tuple[str, str]]) -> Diagram:
    """Boxes below each other in the order of execution, lines as arcs beside them.

    Parameters
    ----------
    boxes : each with its rank: where two are more than one rank apart, an edge between them is a shortcut. Places and
        sizes are set here.
    edges : between their keys; a line leaves a box below the middle, and enters above it.
    """
    width = max(LETTER * len(box.label) for box, _ in boxes) + 18
    row = {box.key: i for i, (box, _) in enumerate(boxes)}
    rank = {box.key: rank for box, rank in boxes}
    lines = []
    for a, b in edges:
        start, end = (width, ROW * row[a] + 4), (width, ROW * row[b] - 4)
        rise = width + 14 + BULGE * ((row[b] - row[a]) / len(boxes)) ** 0.7
        bend = [(rise, start[1]), (rise, end[1])]
        lines.append(_line(a, b, [start, *bend, end], (-1.0, 0.0), rank[b] > rank[a] + 1, down=False))
    placed = [replace(box, x=width / 2, y=ROW * i, width=width, height=22.0) for i, (box, _) in enumerate(boxes)]
    height = ROW * (len(boxes) - 1) + 22
    return Diagram(-2.0, -13.0, width + 14 + 0.75 * BULGE + 8, height + 4, tuple(placed), tuple(lines))
