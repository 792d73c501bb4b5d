"""A long layout broken into rows, as text is: what leads on goes round to the start of the next row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from machgraph.layout.mesh import Layout, N, Point

LANE = 4.5  # between lines that go round beside each other
ASIDE = 6.0  # from a row to the first of them
RADIUS = 3.5  # of their corners
MOST_LINES = 4  # that go round together; where more would, no row ends
MARGIN = ASIDE + LANE * MOST_LINES  # that all rows have at the left, at most
ROW_GAP = 16.0  # between rows, besides the lanes
NEAR = 1e-6


@dataclass(frozen=True)
class _Break:
    """The end of a row after ``layer``, at ``x``, and the heights of the lines that lead on, from above."""

    layer: int
    x: float
    heights: tuple[float, ...]

    @property
    def room(self) -> float:
        """Of the lines, on either side and below."""
        return ASIDE + LANE * len(self.heights)


def breaks(right: Sequence[float], crossing: Sequence[Sequence[float]], longest: float) -> list[_Break]:
    """Where rows end: with few lines that go round, in few rows of like length; none where that can't be done.

    Parameters
    ----------
    right : where each layer ends.
    crossing : for each layer the heights of the lines that lead on from it.
    longest : points that a row may have.
    """
    if not right or right[-1] <= longest:
        return []
    count = len(right)
    ends = [_Break(i, right[i], tuple(sorted(ys))) for i, ys in enumerate(crossing)]
    rows = -(-right[-1] // longest)
    best, before = [0.0] + [inf] * count, [0] * (count + 1)  # by the number of layers that are in rows
    for end in range(1, count + 1):
        for start in range(end):
            begin = (ends[start - 1].x if start else 0.0) - MARGIN
            stop = right[-1] if end == count else ends[end - 1].x + ends[end - 1].room
            lines = 0 if end == count else len(ends[end - 1].heights)
            if stop - begin > longest or lines > MOST_LINES:
                continue
            cost = best[start] + 2 * lines + 6 * ((stop - begin) * rows / right[-1] - 1) ** 2 + 2
            if cost < best[end]:
                best[end], before[end] = cost, start
    if best[count] == inf:
        return []
    found, end = [], before[count]
    while end:
        found.append(ends[end - 1])
        end = before[end]
    return found[::-1]


def wrapped(layout: Layout[N], layers: Sequence[Sequence[N]], longest: float) -> Layout[N]:
    """The layout in rows of at most so many points, each row from left to right.

    Where more than four lines would go round together no row ends; a layout that can't be broken stays as it is.
    Deterministic, and no line touches a node that it did not touch before.

    Parameters
    ----------
    layout, layers : of ``layered``.
    longest : width of a row, in points.
    """
    layer = {node: i for i, row in enumerate(layers) for node in row}
    right = [max(layout.centres[node][0] + layout.sizes[node][0] / 2 for node in row) for row in layers]
    crossing: list[set[float]] = [set() for _ in layers]
    for (a, b), route in layout.routes.items():
        for i in range(layer[a], layer[b]):
            crossing[i].add(_height(route, right[i]))
    found = breaks(right, [sorted(ys) for ys in crossing], longest)
    if not found:
        return layout
    row_of = [sum(one.layer < i for one in found) for i in range(len(layers))]
    begins = [0.0, *(one.x for one in found)]
    margin = max(one.room for one in found)

    # how high each row is: its nodes and its pieces of lines
    spans = [[inf, -inf] for _ in begins]

    def reach(row: int, ys: Sequence[float]) -> None:
        spans[row] = [min(spans[row][0], *ys), max(spans[row][1], *ys)]

    pieces: dict[tuple[N, N], list[tuple[int, tuple[Point, ...]]]] = {}
    for (a, b), route in layout.routes.items():
        pieces[a, b] = []
        row = row_of[layer[a]]
        for k in range(0, len(route) - 1, 3):
            while row < len(found) and route[k][0] > found[row].x - NEAR:
                row += 1
            pieces[a, b].append((row, route[k : k + 4]))
            reach(row, [y for _, y in route[k : k + 4]])
    for node, (_, y) in layout.centres.items():
        reach(row_of[layer[node]], [y - layout.sizes[node][1] / 2, y + layout.sizes[node][1] / 2])
    shifts, bottom = [], 0.0
    for row, (low, high) in enumerate(spans):
        shifts.append((margin - begins[row], bottom - low))
        bottom += high - low + (found[row].room + ROW_GAP if row < len(found) else 0.0)

    def moved(row: int, point: Point) -> Point:
        return point[0] + shifts[row][0], point[1] + shifts[row][1]

    routes: dict[tuple[N, N], tuple[Point, ...]] = {}
    for edge, parts in pieces.items():
        here = row_of[layer[edge[0]]]
        points = [moved(here, parts[0][1][0])]
        for row, part in parts:
            while here < row:
                below = spans[here][1] + shifts[here][1]
                points += _round(
                    found[here],
                    part[0][1],
                    moved(here, (found[here].x, 0.0))[0],
                    margin,
                    below,
                    shifts[here : here + 2],
                )
                here += 1
            points += [moved(row, point) for point in part[1:]]
        routes[edge] = tuple(points)
    centres = {node: moved(row_of[layer[node]], centre) for node, centre in layout.centres.items()}
    ends = [x + layout.sizes[node][0] / 2 for node, (x, _) in centres.items()]
    width = max(*ends, *(x for route in routes.values() for x, _ in route))
    return replace(layout, centres=centres, routes=routes, width=width, height=bottom)


def _height(route: Sequence[Point], x: float) -> float:
    """Of the line where it leaves a layer that ends at ``x``: it runs straight there."""
    return next(p[1] for p in reversed(route[::3]) if p[0] <= x + NEAR)


def _round(end: _Break, height: float, right: float, left: float, below: float, shifts: Sequence[Point]) -> list[Point]:
    """From the end of a row to the start of the next, nested so that the lines that go there don't cross each other."""
    k = end.heights.index(height)
    outer, last = len(end.heights) - 1 - k, k
    lane = below + ASIDE + LANE * outer
    y0, y1 = height + shifts[0][1], height + shifts[1][1]
    x0, x1 = right + ASIDE + LANE * outer, left - ASIDE - LANE * last
    corners = [(right, y0), (x0, y0), (x0, lane), (x1, lane), (x1, y1), (left, y1)]
    return _rounded(corners)


def _rounded(corners: Sequence[Point]) -> list[Point]:
    """A chain of cubic curves along the corners, without its first point."""
    points: list[Point] = []
    here = corners[0]
    for before, corner, after in zip(corners, corners[1:], corners[2:], strict=False):
        a, b = _towards(corner, before), _towards(corner, after)
        points += [*_line(here, a), _mix(a, corner, 0.55), _mix(b, corner, 0.55), b]
        here = b
    return points + _line(here, corners[-1])


def _line(a: Point, b: Point) -> list[Point]:
    return [_mix(a, b, 1 / 3), _mix(a, b, 2 / 3), b]


def _mix(a: Point, b: Point, share: float) -> Point:
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])


def _towards(start: Point, end: Point) -> Point:
    length = abs(end[0] - start[0]) + abs(end[1] - start[1])  # along one axis
    return _mix(start, end, min(0.5, RADIUS / length)) if length else start
