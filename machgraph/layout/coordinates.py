"""The coordinate across the layers: Brandes and Köpf's alignments, then settled."""

from bisect import bisect
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf
from statistics import median

import networkx as nx

from machgraph.layout.mesh import PORT_GAP, Mesh, N, apart, places_of

BEND = 20.0  # a bend is as bad as a line that runs this much further
SETTLING = 8  # sweeps that straighten lines


def alignments(mesh: Mesh[N], order: list[list[int]]) -> list[list[float]]:
    """The four extreme alignments, and last the mean of the middle two."""
    if not mesh.bend:
        return [[]]
    candidates = []
    for forwards in (True, False):
        for upwards in (True, False):
            block = _align(mesh, order, forwards=forwards, upwards=upwards)
            candidates.append(_compact(mesh, order, block, upwards=upwards))
    spans = [(min(y), max(y)) for y in candidates]
    low, high = min(spans, key=lambda span: span[1] - span[0])
    # Two of the four were packed towards each end: line the ends up with those of the smallest.
    shifts = [(low - a) if k % 2 == 0 else (high - b) for k, (a, b) in enumerate(spans)]
    shifted = [[y + shift for y in ys] for ys, shift in zip(candidates, shifts, strict=True)]
    return [*candidates, [median(ys) for ys in zip(*shifted, strict=True)]]


def _align(mesh: Mesh[N], order: list[list[int]], *, forwards: bool, upwards: bool) -> list[int]:
    """Join vertices into blocks that get one coordinate: each vertex names the first of its block."""
    near = mesh.before if forwards else mesh.after
    block = list(range(len(mesh.bend)))
    for other, row in pairwise(order if forwards else reversed(order)):
        place = places_of([row, other])
        taken: list[tuple[int, int]] = []  # pairs of places, increasing in both: no two alignments cross

        def join(v: int, u: int, place: dict[int, int] = place, taken: list[tuple[int, int]] = taken) -> bool:
            k = bisect(taken, (place[v], place[u]))
            before_ok = k == 0 or (taken[k - 1][0] < place[v] and taken[k - 1][1] < place[u])
            after_ok = k == len(taken) or (taken[k][0] > place[v] and taken[k][1] > place[u])
            if before_ok and after_ok:
                taken.insert(k, (place[v], place[u]))
                block[v] = block[u]
            return before_ok and after_ok

        # Bends first, so that long lines are straight; a bend that has a next bend is not for others.
        inner = [(v, u) for v in row if mesh.bend[v] for u in near[v] if mesh.bend[u]]
        held = {v for v, u in inner if join(v, u)} | {u for _, u in inner}
        for v in row if upwards else reversed(row):
            free = sorted((u for u in near[v] if u not in held), key=place.__getitem__)
            middle = free[(len(free) - 1) // 2 : len(free) // 2 + 1]
            if v not in held:
                any(join(v, u) for u in (middle if upwards else reversed(middle)))
    return block


def _compact(mesh: Mesh[N], order: list[list[int]], block: list[int], *, upwards: bool) -> list[float]:
    """The coordinate of each block, as near to one end as the gaps allow, then drawn together."""
    gaps: dict[tuple[int, int], float] = {}
    for row in order:
        for u, v in pairwise(row):
            pair = (block[u], block[v]) if upwards else (block[v], block[u])
            gaps[pair] = max(apart(mesh, u, v), gaps.get(pair, 0.0))
    before = nx.DiGraph()
    before.add_nodes_from(block)
    before.add_weighted_edges_from((u, v, gap) for (u, v), gap in gaps.items())
    turns = list(nx.topological_sort(before))
    y: dict[int, float] = {}
    for v in turns:
        y[v] = max((y[u] + gaps[u, v] for u in before.pred[v]), default=0.0)
    for v in reversed(turns):
        if before.pred[v]:
            y[v] = max(y[v], min((y[w] - gaps[v, w] for w in before.succ[v]), default=y[v]))
    return [y[block[v]] if upwards else -y[block[v]] for v in range(len(block))]


def settle(
    mesh: Mesh[N], order: list[list[int]], ports: Mapping[tuple[int, int], float], y: list[float]
) -> list[float]:
    """Move each node and each straight stretch to where most of its lines run straight, as far as there is room."""
    y = list(y)
    above: dict[int, tuple[int, float]] = {}
    below: dict[int, tuple[int, float]] = {}
    for row in order:
        for u, v in pairwise(row):
            above[v], below[u] = (u, apart(mesh, u, v)), (v, apart(mesh, u, v))
    for sweep in range(SETTLING):
        stretches = _stretches(mesh, order, y)
        for stretch in stretches if sweep % 2 == 0 else reversed(stretches):
            own = set(stretch)
            before = [y[u] - ports[u, v] for v in stretch for u in mesh.before[v] if u not in own]
            after = [y[w] + ports[v, w] for v in stretch for w in mesh.after[v] if w not in own]
            low = max((y[above[v][0]] + above[v][1] for v in stretch if v in above), default=-inf)
            high = min((y[below[v][0]] - below[v][1] for v in stretch if v in below), default=inf)
            wishes = sorted(before + after)
            if wishes and low <= high:
                here, ends = y[stretch[0]], (wishes[(len(wishes) - 1) // 2], wishes[len(wishes) // 2])
                # A bend of less than a port looks like a mistake: push it on, the way that this sweep goes.
                settled = set(before if sweep % 2 == 0 else after)
                small = [wish for wish in ends if abs(wish - here) < PORT_GAP]
                near = min(small, key=lambda wish: wish not in settled) if small else min(max(here, ends[0]), ends[1])
                for v in stretch:
                    y[v] = min(max(near, low), high)
    return y


def _stretches(mesh: Mesh[N], order: list[list[int]], y: list[float]) -> list[list[int]]:
    """Vertices that stay in line when they are moved: the bends of one line, and nodes with one line between them."""
    stretches: list[list[int]] = []
    of: dict[int, list[int]] = {}
    for v in (v for row in order for v in row):
        u = mesh.before[v][0] if len(mesh.before[v]) == 1 else v
        joined = (mesh.bend[u] and mesh.bend[v]) or mesh.after[u] == [v]
        if u != v and joined and abs(y[u] - y[v]) < 1e-6:
            of[v] = of[u]
        else:
            of[v] = []
            stretches.append(of[v])
        of[v].append(v)
    return stretches


def bending(mesh: Mesh[N], ports: Mapping[tuple[int, int], float], y: Sequence[float]) -> float:
    """How far lines run across the layers, in points, and what the bends cost that they need for it."""
    rises = [abs(y[v] + port - y[u]) for (u, v), port in ports.items()]
    return sum(rises) + BEND * sum(rise > 1e-6 for rise in rises)
