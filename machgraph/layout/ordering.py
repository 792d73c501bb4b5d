"""The order within each layer: means of neighbours, then exchanges; the order with the fewest crossings is kept."""

from bisect import bisect, insort
from collections.abc import Sequence
from random import Random

from machgraph.layout.mesh import Mesh, N, places_of

STARTS = 4  # orders to begin with: the given one, and shuffled ones
PATIENCE = 4  # sweeps without fewer crossings before ordering stops


def arranged(mesh: Mesh[N]) -> list[list[int]]:
    """The layers, each in the order found to give the fewest crossings."""
    best, fewest = mesh.rows, _crossings(mesh, mesh.rows)
    for seed in range(STARTS):
        rows = [list(row) for row in mesh.rows]
        if seed:
            shuffle = Random(seed).shuffle
            for row in rows:
                shuffle(row)
        least, idle, sweep = len(mesh.bend) ** 2, 0, 0
        while fewest and idle < PATIENCE:
            _sweep(mesh, rows, forwards=sweep % 2 == 0, last_first=sweep % 4 > 1)
            _exchange(mesh, rows)
            sweep += 1
            found = _crossings(mesh, rows)
            idle = 0 if found < least else idle + 1
            least = min(found, least)
            if found < fewest:
                best, fewest = [list(row) for row in rows], found
    return best


def _crossings(mesh: Mesh[N], rows: Sequence[Sequence[int]]) -> int:
    place, total = places_of(rows), 0
    for row in rows:
        seen: list[int] = []
        for u in row:
            ends = sorted(place[v] for v in mesh.after[u])
            total += sum(len(seen) - bisect(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _sweep(mesh: Mesh[N], rows: list[list[int]], *, forwards: bool, last_first: bool) -> None:
    """Sort each layer by the mean of its neighbours in the layer just sorted; who has none keeps its place."""
    near = mesh.before if forwards else mesh.after
    place = places_of(rows)
    for i in range(1, len(rows)) if forwards else range(len(rows) - 2, -1, -1):
        row = rows[i]
        key = {v: sum(place[u] for u in near[v]) / len(near[v]) for v in row if near[v]}
        ranked = iter(sorted(reversed(key) if last_first else key, key=key.__getitem__))
        rows[i] = [next(ranked) if v in key else v for v in row]
        place.update((v, k) for k, v in enumerate(rows[i]))


def _exchange(mesh: Mesh[N], rows: list[list[int]]) -> None:
    """Exchange neighbours in a layer while that removes crossings."""
    place = places_of(rows)
    for row in rows:
        ends = {v: [sorted(place[u] for u in near[v]) for near in (mesh.before, mesh.after)] for v in row}
        active = set(range(len(row) - 1))
        while active:
            k = min(active)
            active.remove(k)
            v, w = row[k], row[k + 1]
            if sum(_inversions(a, b) - _inversions(b, a) for a, b in zip(ends[v], ends[w], strict=True)) > 0:
                row[k], row[k + 1] = w, v
                place[v], place[w] = k + 1, k
                active |= {j for j in (k - 1, k + 1) if 0 <= j < len(row) - 1}


def _inversions(left: Sequence[int], right: Sequence[int]) -> int:
    """Crossings of the lines of two neighbours, the left one's ends being ``left``; both sorted."""
    return sum(bisect(right, end - 1) for end in left)
