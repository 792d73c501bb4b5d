"""Where the boxes, lines and dots of a report's pictures go: plain numbers, which its template turns into SVG."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, floor, isfinite, log, log10, sqrt

import networkx as nx

from machgraph.graph import levels
from machgraph.layout import layered, transposed
from machgraph.partition import Mask, lag_words

GAP = 44.0  # between two blocks
PORT = 9.0  # between two lines that enter one side of a block
LETTER = 6.9  # width of a letter of the labels, at most
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
    lagged = mask if mask.ndim == 3 else mask[None]
    mask = lagged.max(axis=0)
    n = len(widths)
    names = [block_name(i, n) for i in range(n)]
    article = [f"the {name}" if name in ("input", "output") else name for name in names]
    details = [str(width) if i == 0 else f"{width} {activations[i]}" for i, width in enumerate(widths)]
    details[-1] = str(widths[-1]) if activations[-1] == "identity" else details[-1]
    details = [detail + " ↺" * bool(mask[i, i:].any()) for i, detail in enumerate(details)]
    arcs = [(j, i) for j, i in combinations(range(n), 2) if mask[i, j] and i > j + 1]
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
    for j, i in combinations(range(n), 2):
        if not mask[i, j]:
            continue
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
        hears = listing([_heard(article[j], i == j, lagged[:, i, j]) for j in range(n) if mask[i, j]])
        feeds = listing([article[k] for k in range(n) if mask[k, i] and k != i])
        kind = f"{widths[i]:,} {'features' if i == 0 else 'units'}"
        kind += "" if i == 0 or activations[i] == "identity" else f", {activations[i]}"
        flow = ([f"hears {hears}"] if i else []) + ([f"feeds {feeds}"] if i < n - 1 else [])
        says = f"{names[i].capitalize()}: {kind}; {', '.join(flow)}."
        at, size = (centres[i], 0.0), (lengths[i], heights[i])
        if down:
            at, size = at[::-1], size[::-1]
        boxes.append(Box(str(i), names[i], details[i], says, *at, *size))
    first, last = -reach[1] - 4, reach[-1] + 4
    frame = (-4.0, first, x - (30.0 if down else GAP) + 8, last - first)
    return Diagram(*((frame[1], frame[0], frame[3], frame[2]) if down else frame), tuple(boxes), tuple(lines))


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

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def indexed(name: str) -> str:
    """A name with its index set low.

    >>> indexed("σ_12"), indexed("z_2@1"), indexed("conv1")
    ('σ₁₂', 'z₂@1', 'conv1')
    """
    letter, _, rest = name.partition("_")
    index, at, scale = rest.partition("@")
    return letter + index.translate(_SUBSCRIPTS) + at + scale if index.isascii() and index.isdigit() else name


def machine_diagram(graph: "nx.DiGraph[str]", *, down: bool) -> Diagram:
    """Who depends on whom, a layer for each level; ``graph`` as ``Architecture.graph``."""
    rows = levels(graph)
    level = {name: i for i, row in enumerate(rows, 1) for name in row}
    sizes = {name: (max(LETTER * len(indexed(name)) + 14, 32.0), 24.0) for name in graph}
    if down:
        sizes = {name: (h, w) for name, (w, h) in sizes.items()}
    layout = layered(graph, rows, sizes)
    lines = [
        _line(a, b, route, (1.0, 0.0), False, down=down) for (a, b), route in layout.routes.items()
    ]  # routes run to the right, and _line exchanges x and y itself
    layout = transposed(layout) if down else layout
    boxes = []
    for name, (x, y) in layout.centres.items():
        hears = listing([indexed(other) for other in graph.predecessors(name)], "only what is given")
        feeds = listing([indexed(other) for other in graph.successors(name)])
        reads, writes = (listing([indexed(c) for c in graph.nodes[name][key]]) for key in ("reads", "writes"))
        says = f"{indexed(name)}, level {level[name]}: reads {reads}, writes {writes}; hears {hears}, feeds {feeds}."
        boxes.append(Box(name, indexed(name), "", says, x, y, *layout.sizes[name], level[name]))
    return Diagram(-2.0, -2.0, layout.width + 4, layout.height + 4, tuple(boxes), tuple(lines))


# --- charts: a square of 1000 by 1000 that the page stretches --------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """Numbers to places in ``[0, 1000]``; what lies outside is put on the border, what is not finite at the end."""

    low: float
    high: float
    logarithmic: bool = False
    flip: bool = False

    def __call__(self, value: float | None) -> float:
        """The place of a value."""
        if value is None or not isfinite(value):
            share = 1.0
        elif self.logarithmic:
            share = log(max(value, self.low) / self.low) / log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        share = min(max(share, 0.0), 1.0)
        return round(1000 * (1 - share if self.flip else share), 1)

    @property
    def ticks(self) -> list[float]:
        """Round numbers within the scale, about five.

        >>> Scale(0, 12).ticks, Scale(0.05, 2, logarithmic=True).ticks
        ([0, 2, 4, 6, 8, 10, 12], [0.05, 0.1, 0.2, 0.5, 1, 2])
        """
        if self.logarithmic:
            decades = range(floor(log10(self.low)), floor(log10(self.high)) + 1)
            steps = (1, 2, 5) if len(decades) <= 3 else (1,)
            candidates = [float(f"{step}e{decade}") for decade in decades for step in steps]
        else:
            rough = (self.high - self.low) / 5
            unit = 10.0 ** floor(log10(rough))
            unit *= next(step for step in (1, 2, 5, 10) if step * unit >= 0.8 * rough)
            candidates = [float(f"{unit * k:.6g}") for k in range(floor(self.low / unit), floor(self.high / unit) + 1)]
        margin = 0.0 if self.logarithmic else 1e-9 * (self.high - self.low)  # linear ticks are products, and rounded
        inside = [tick for tick in candidates if self.low - margin <= tick <= self.high + margin]
        return [int(tick) if tick == int(tick) else tick for tick in inside]


def loss_scale(losses: Iterable[float], share: float = 0.97) -> Scale:
    """For losses, up the page, that holds this share of them; logarithmic where they span more than a factor of 5."""
    finite = sorted(loss for loss in losses if isfinite(loss))
    if not finite:
        return Scale(0.0, 1.0, flip=True)
    low, high = finite[0], finite[ceil(share * (len(finite) - 1))]
    if low > 0 and high > 5 * low:
        return Scale(0.94 * low, 1.06 * high, logarithmic=True, flip=True)
    margin = 0.06 * (high - low) or 0.1 * abs(low) or 1.0
    return Scale(low - margin, high + margin, flip=True)


def count_scale(first: int, last: int) -> Scale:
    """For whole numbers across the page."""
    return Scale(first, max(last, first + 1))


def polyline(points: Iterable[Place]) -> str:
    """Points joined, as an SVG path."""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def dots(points: Iterable[Place]) -> str:
    """Points apart, as an SVG path of strokes without length: round caps make them dots of any stretched picture."""
    return "".join(f"M{x:g} {y:g}h0" for x, y in points)


def stairs(points: Sequence[Place]) -> str:
    """A line that keeps its height until the next point, as an SVG path."""
    if not points:
        return ""
    (x, y), *rest = points
    return f"M{x:g} {y:g}" + "".join(f"H{px:g}V{py:g}" for px, py in rest)
