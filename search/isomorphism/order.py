"""A canonical order for the vertices of a coloured directed graph, and the graph's symmetries."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class CanonicalOrder(NamedTuple):
    """What ``canonical_order`` returns: ``order[i]`` is the vertex at place ``i``; ``edges[i]`` the places it hears.

    A place that is heard by an edge with a label is the place plus the label times the number of vertices.
    """

    order: tuple[int, ...]
    edges: tuple[tuple[int, ...], ...]
    generators: tuple[tuple[int, ...], ...]


def canonical_order(colours: Sequence[Any], sources: Sequence[Iterable[int] | Mapping[int, int]]) -> CanonicalOrder:
    """Order the vertices so that isomorphic coloured graphs get the same colours and edges, place by place.

    Parameters
    ----------
    colours : one a vertex, sortable; vertices of a smaller colour come first.
    sources : for each vertex, the vertices that it hears; or from each of these to the label of the edge, 0 or more.

    Returns
    -------
    The order, its edges, and permutations (``g[v]``: where ``v`` goes) that generate all automorphisms.

    Notes
    -----
    Refinement by neighbours splits the colours; a tie that is left is broken by setting each of its vertices apart in
    turn and keeping the least edges (McKay's individualization and refinement). Two ways that give equal edges are an
    automorphism, and a vertex that an automorphism reaches from a tried one is not tried: ``k`` equal chains cost
    ``2^(k-1)`` orders, not ``k!``.

    Examples
    --------
    >>> canonical_order("ba", [[], [0]]).edges == canonical_order("ab", [[1], []]).edges == ((1,), ())
    True
    """
    size = len(colours)
    heard: list[list[tuple[int, int]]] = []  # with the label times the size, which a place is added to
    readers: list[list[tuple[int, int]]] = [[] for _ in range(size)]
    for vertex, vertices in enumerate(sources):
        labels = vertices if isinstance(vertices, Mapping) else dict.fromkeys(vertices, 0)
        heard.append([(source, size * label) for source, label in labels.items()])
        for source, shift in heard[-1]:
            readers[source].append((vertex, shift))

    def refine(ranks: list[int]) -> list[int]:
        while (ties := len(set(ranks))) < size:
            seen = [
                (
                    ranks[v],
                    sorted([ranks[source] + shift for source, shift in heard[v]]),
                    sorted([ranks[reader] + shift for reader, shift in readers[v]]),
                )
                for v in range(size)
            ]
            ranks = _ranks(seen)
            if len(set(ranks)) == ties:
                break
        return ranks

    def search(ranks: list[Any]) -> CanonicalOrder:
        ranks = refine(_ranks(ranks))
        cells: list[list[int]] = [[] for _ in range(size)]
        for v, rank in enumerate(ranks):
            cells[rank].append(v)
        tied = next((cell for cell in cells if len(cell) > 1), None)
        if tied is None:
            order = tuple(v for (v,) in cells)
            return CanonicalOrder(
                order, tuple(tuple(sorted(ranks[s] + shift for s, shift in heard[v])) for v in order), ()
            )
        found: dict[tuple[tuple[int, ...], ...], tuple[int, ...]] = {}
        generators: list[tuple[int, ...]] = []
        tried: list[int] = []
        for vertex in tied:
            if vertex in _orbit(tried, generators):
                continue
            tried.append(vertex)
            order, edges, deeper = search([2 * rank + (v != vertex) for v, rank in enumerate(ranks)])
            generators += deeper
            if edges in found:
                image = dict(zip(found[edges], order, strict=True))
                generators.append(tuple(image[v] for v in range(size)))
            else:
                found[edges] = order
        least = min(found)
        return CanonicalOrder(found[least], least, tuple(generators))

    return search(list(colours))


def symmetries(size: int, generators: Iterable[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """All permutations of ``size`` vertices that the generators give.

    >>> len(symmetries(3, [(1, 0, 2), (0, 2, 1)]))
    6
    """
    generators = tuple(generators)
    group = {tuple(range(size))}
    fresh = list(group)
    while fresh:
        first = fresh.pop()
        for then in generators:
            product = tuple(then[v] for v in first)
            if product not in group:
                group.add(product)
                fresh.append(product)
    return group


def _ranks(values: Sequence[Any]) -> list[int]:
    """How many values are smaller, for each: without ties this is its place."""
    place: list[int] = [0] * len(values)
    by_value = sorted(range(len(values)), key=values.__getitem__)
    for i, v in enumerate(by_value):
        previous = by_value[i - 1]
        place[v] = place[previous] if i and values[v] == values[previous] else i
    return place


def _orbit(vertices: Iterable[int], generators: Sequence[tuple[int, ...]]) -> set[int]:
    orbit = set(vertices)
    fresh = list(orbit)
    while fresh:
        vertex = fresh.pop()
        for image in generators:
            if image[vertex] not in orbit:
                orbit.add(image[vertex])
                fresh.append(image[vertex])
    return orbit
