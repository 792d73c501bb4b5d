"""Lines that go back in time: out of a box, along a lane below all layers, and up to where they are heard."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.path import Path

from machgraph.draw.canvas import LINE, Line
from machgraph.layout import Layout, Point

LANE = 7.0  # between lanes
APART, ROOM = 2.5, 9.0  # between lines that run beside each other, next to a layer; and for all of them
ASIDE = 10.0  # room for lines beside the first and the last layer
RADIUS = 3.0  # of corners


@dataclass(frozen=True)
class Arcs:
    """The corners of the lines that leave each node, and the number of lanes that they take."""

    lines: dict[Hashable, list[list[Point]]]
    lanes: int


def arcs_below(
    layout: Layout[Hashable], layers: Sequence[Sequence[Hashable]], edges: Sequence[tuple[Hashable, Hashable]]
) -> Arcs:
    """Lines from the right of one node to the left of another, which turn between layers, where no box is.

    The lines of one node run down and along a lane as one; nodes whose lines are apart share a lane.
    """
    row = {key: i for i, layer in enumerate(layers) for key in layer}
    left = [min(layout.centres[key][0] - layout.sizes[key][0] / 2 for key in layer) for layer in layers]
    right = [max(layout.centres[key][0] + layout.sizes[key][0] / 2 for key in layer) for layer in layers]
    starts = list(dict.fromkeys(start for start, _ in edges))
    down = _beside([row[start] for start in starts])
    ups = _beside([row[end] for _, end in edges])
    trunk = {start: right[row[start]] + x for start, x in zip(starts, down, strict=True)}
    up: dict[Hashable, dict[Hashable, float]] = {start: {} for start in starts}
    for (start, end), x in zip(edges, ups, strict=True):
        up[start][end] = left[row[end]] - x

    lanes: list[list[Point]] = []  # the spans that each holds
    lines: dict[Hashable, list[list[Point]]] = {}
    spans = {start: (min(x, *up[start].values()), max(x, *up[start].values())) for start, x in trunk.items()}
    for start, (low, high) in sorted(spans.items(), key=lambda item: item[1][1] - item[1][0]):  # the shortest inside
        lane = len(lanes)
        while lane and all(high + APART < a or b + APART < low for a, b in lanes[lane - 1]):
            lane -= 1
        lanes[lane:] = lanes[lane:] or [[]]
        lanes[lane].append((low, high))
        (x, y), lane_y = layout.centres[start], layout.height + LANE * (lane + 0.7)
        begin = [(x + layout.sizes[start][0] / 2, y), (trunk[start], y), (trunk[start], lane_y)]
        lines[start] = []
        for end, turn in up[start].items():
            x, y = layout.centres[end]
            lines[start].append([*begin, (turn, lane_y), (turn, y), (x - layout.sizes[end][0] / 2, y)])
    return Arcs(lines, len(lanes))


def _beside(layers: Sequence[int]) -> list[float]:
    """How far from its layer each line runs down or up, side by side with the others there."""
    count, seen = Counter(layers), Counter[int]()
    distances = []
    for layer in layers:
        distances.append(3.5 + min(APART, ROOM / count[layer]) * seen[layer])
        seen[layer] += 1
    return distances


def draw_arcs(ax: Axes, name: str, colour: str, lines: Sequence[Sequence[Point]], *, down: bool) -> None:
    """Dashed lines with round corners; x and y are exchanged where the layers go down.

    Dashes are counted from the start, so that they lie on each other where the lines of one node are one.
    """
    for line in lines:
        path = _rounded([(y, x) for x, y in line] if down else line)
        ax.add_patch(Line(path, 2 * LINE, edgecolor="white", zorder=0.5, capstyle="butt"))
        dashes = (0, (3.0, 1.6))
        style = {"linestyle": dashes, "gid": f"back from {name}"}
        ax.add_patch(Line(path, LINE, edgecolor=colour, zorder=0.6, capstyle="butt", **style))


def _rounded(corners: Sequence[Point]) -> Path:
    points, codes = [corners[0]], [int(Path.MOVETO)]
    for (before, corner), (_, after) in pairwise(pairwise(corners)):
        points += [_towards(corner, before), corner, _towards(corner, after)]
        codes += [int(Path.LINETO), int(Path.CURVE3), int(Path.CURVE3)]
    return Path([*points, corners[-1]], [*codes, int(Path.LINETO)])


def _towards(start: Point, end: Point) -> Point:
    """A point near ``start`` on the way to ``end``, at most half of it."""
    length = abs(end[0] - start[0]) + abs(end[1] - start[1])  # along one axis
    share = min(0.5, RADIUS / length) if length else 0.0
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])
