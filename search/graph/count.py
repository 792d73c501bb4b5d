"""How many wirings without a cycle a graph space holds."""

from collections.abc import Iterator, Sequence

from search.graph.candidate import Candidate, Fit, subsets

MOST = 7  # components in a circle of which could close one: 47,293 orders, and each further one takes ten times as long


def count_wirings(candidates: Sequence[Candidate], fits: Sequence[Sequence[Fit]]) -> int | None:
    """Number of choices of machines, reads and writes that close no cycle; ``None`` of too many components.

    Robinson's inclusion-exclusion over the components that no machine writes to, as it counts acyclic digraphs
    (Robinson 1973, "Counting labeled acyclic digraphs"), with reads and writes of a machine in place of edges: the sum
    over all ordered partitions ``S_1 ... S_k`` of ``n`` components, with the sign ``(-1)^(n-k)``, of the number of
    choices in which a machine that writes into ``S_i`` reads from ``S_1 ... S_(i-1)`` alone.

    Parameters
    ----------
    candidates, fits : and for each candidate what fits.

    Examples
    --------
    One machine that may lead from ``a`` to ``b``, and one back: both is a cycle.

    >>> from torch import nn
    >>> there, back = Candidate("f", nn.ReLU, ("a",), ("b",)), Candidate("g", nn.ReLU, ("b",), ("a",))
    >>> count_wirings((there, back), [[Fit((("a",),), ("b",))], [Fit((("b",),), ("a",))]])
    3
    """
    read = {component for some in fits for fit in some for port in fit.ports for component in port}
    written = {component for some in fits for fit in some for component in fit.writes}
    both = sorted(read & written)
    if len(both) > MOST:
        return None
    total = 0
    for parts in _ordered_partitions(both):
        # What nobody writes comes before all, what nobody reads after all.
        turn = dict.fromkeys(read - written, -1) | dict.fromkeys(written - read, len(parts))
        turn |= {component: i for i, part in enumerate(parts) for component in part}
        ways = (-1) ** (len(both) - len(parts))
        for candidate, some in zip(candidates, fits, strict=True):
            number = sum(_ways(candidate, fit, turn, len(parts)) for fit in some)
            ways *= (number + (not candidate.required)) ** candidate.copies
        total += ways
    return total


def _ways(candidate: Candidate, fit: Fit, turn: dict[str, int], last: int) -> int:
    """Of a machine to read only what comes before all that it writes."""
    found = 0
    for first in {turn[component] for component in fit.writes}:
        at_least = sum(turn[component] >= first for component in fit.writes)
        later = sum(turn[component] > first for component in fit.writes)
        ways = subsets(at_least, candidate.max_writes) - subsets(later, candidate.max_writes)
        for port in fit.ports:
            ways *= subsets(sum(turn[component] < first for component in port), candidate.max_reads)
        found += ways
    return found


def _ordered_partitions(items: Sequence[str]) -> Iterator[tuple[tuple[str, ...], ...]]:
    """All ways to cut a set in parts, in all orders of the parts.

    >>> len(list(_ordered_partitions("abc")))
    13
    """
    if not items:
        yield ()
        return
    first, *rest = items
    for parts in _ordered_partitions(rest):
        for i in range(len(parts) + 1):
            yield (*parts[:i], (first,), *parts[i:])
        for i, part in enumerate(parts):
            yield (*parts[:i], (first, *part), *parts[i + 1 :])
