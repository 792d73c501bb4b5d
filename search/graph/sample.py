"""Networks of a graph space drawn uniformly: many wirings at once, components as bits, and all but the first that is a
network without a cycle thrown away.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from search.graph.candidate import Candidate, Fit
from search.graph.point import Placed

SIZES = (64, 512, *[4096] * 16)  # of the draws: 66,112 in all
Bits = NDArray[np.int64]
Place = tuple[Candidate, int, Sequence[Fit]]  # a copy of a candidate, and what fits


def draw_network(
    places: Sequence[Place], inputs: Sequence[str], outputs: Sequence[str], rng: np.random.Generator
) -> list[Placed] | None:
    """The machines of a wiring drawn uniformly from those that are networks; ``None`` where no draw was one.

    Parameters
    ----------
    places : all machines that there may be; those that are required are in all networks.
    inputs, outputs : of the space.

    Notes
    -----
    Each machine is there or not, and wired in any way that fits, each as likely as the others and whatever the other
    machines are: so wirings without a cycle that lead from the inputs to the outputs are equally likely.
    """
    bit = _numbered(places, inputs, outputs)
    for size in SIZES:
        there = np.ones((size, len(places)), dtype=bool)
        reads: list[Bits] = []
        writes = np.zeros((size, len(places)), dtype=np.int64)
        for i, (candidate, _, fits) in enumerate(places):
            ports, writes[:, i], there[:, i] = _drawn(candidate, fits, bit, size, rng)
            reads += ports
        found = _networks(places, reads, writes, there, bit, inputs, outputs)
        if found.any():
            return _machines(places, reads, writes, there, bit, int(found.argmax()))
    return None


@lru_cache(maxsize=256)
def subset_bits(size: int, most: int | None) -> Bits:
    """All subsets of so many items that are not empty and hold at most so many, as bits.

    >>> subset_bits(3, 2).tolist()
    [1, 2, 4, 3, 5, 6]
    """
    sizes = range(1, min(size, size if most is None else most) + 1)
    return np.array([sum(1 << i for i in some) for k in sizes for some in combinations(range(size), k)], dtype=np.int64)


def _numbered(places: Sequence[Place], inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, int]:
    names = dict.fromkeys((*inputs, *outputs))
    for candidate, _, _ in places:
        names |= dict.fromkeys((*(name for port in candidate.ports for name in port), *candidate.writes))
    return {name: i for i, name in enumerate(names)}


def _drawn(
    candidate: Candidate, fits: Sequence[Fit], bit: Mapping[str, int], size: int, rng: np.random.Generator
) -> tuple[list[Bits], Bits, NDArray[np.bool_]]:
    """Of each draw: what the arguments read, what is written, and whether the machine is there."""
    ways = np.array([fit.options(candidate) for fit in fits], dtype=float)
    absent = 0.0 if candidate.required else 1.0
    there = rng.random(size) * (absent + ways.sum()) >= absent
    which = rng.choice(len(fits), size=size, p=ways / ways.sum())
    reads = [np.zeros(size, dtype=np.int64) for _ in candidate.ports]
    writes = np.zeros(size, dtype=np.int64)
    for k, fit in enumerate(fits):
        rows = np.flatnonzero((which == k) & there)
        for some, into, most in (
            *((port, into, candidate.max_reads) for port, into in zip(fit.ports, reads, strict=True)),
            (fit.writes, writes, candidate.max_writes),
        ):
            subsets = subset_bits(len(some), most)
            chosen = subsets[rng.integers(len(subsets), size=len(rows))]
            for i, name in enumerate(some):
                into[rows] |= (chosen >> i & 1) << bit[name]
    return reads, writes, there


def _networks(
    places: Sequence[Place],
    reads: Sequence[Bits],
    writes: Bits,
    there: NDArray[np.bool_],
    bit: Mapping[str, int],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> NDArray[np.bool_]:
    """Of each draw, whether it closes no cycle, each output hears an input, and so does what is required."""
    ports, first = [], 0
    for candidate, _, _ in places:
        ports.append(range(first, first := first + len(candidate.ports)))
    heard = np.stack([np.bitwise_or.reduce([reads[p] for p in some]) for some in ports], axis=1)
    given = sum(1 << bit[name] for name in inputs)
    wanted = sum(1 << bit[name] for name in outputs)

    # A machine can run when nobody who has not run yet writes what it reads.
    waiting = there.copy()
    fed = np.full(len(writes), given)
    called = np.zeros_like(there)
    for _ in places:
        pending = np.bitwise_or.reduce(np.where(waiting, writes, 0), axis=1)
        ready = waiting & ((heard & pending[:, None]) == 0)
        callable_ = np.stack([np.all([reads[p] & fed for p in some], axis=0) for some in ports], axis=1)
        called |= ready & callable_
        fed |= np.bitwise_or.reduce(np.where(ready & callable_, writes, 0), axis=1)
        waiting &= ~ready
    useful = np.full(len(writes), wanted)
    live = np.zeros_like(there)
    for _ in places:
        live = called & ((writes & useful[:, None]) != 0)
        useful = wanted | np.bitwise_or.reduce(np.where(live, heard, 0), axis=1)
    answered = np.bitwise_or.reduce(np.where(live, writes, 0), axis=1) & wanted
    required = [i for i, (candidate, _, _) in enumerate(places) if candidate.required]
    found: NDArray[np.bool_] = ~waiting.any(axis=1) & (answered == wanted) & live[:, required].all(axis=1)
    return found


def _machines(
    places: Sequence[Place],
    reads: Sequence[Bits],
    writes: Bits,
    there: NDArray[np.bool_],
    bit: Mapping[str, int],
    row: int,
) -> list[Placed]:
    """Those of one draw."""

    def named(some: Sequence[str], bits: Bits) -> tuple[str, ...]:
        return tuple(name for name in some if int(bits[row]) >> bit[name] & 1)

    found, ports = [], iter(reads)
    for i, (candidate, copy, _) in enumerate(places):
        own = tuple(named(port, next(ports)) for port in candidate.ports)
        if there[row, i]:
            found.append(Placed(candidate.name, copy, own, named(candidate.writes, writes[:, i])))
    return found
