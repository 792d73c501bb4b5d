"""What wires the machines of a graph space: subsets of components, what comes after what, and no cycle."""

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import chain, combinations, product
from math import comb
from typing import Any

import numpy as np

from search.graph.candidate import Candidate, Fit
from search.graph.point import Placed


def bits(candidate: Candidate, name: str) -> list[tuple[int | None, str, str]]:
    """What a code says of a copy with this name: the argument, or ``None`` for what is written, component and label.

    Where there is but one component to read or write, there is nothing to say.

    >>> from torch import nn
    >>> mix = Candidate("mix", lambda: nn.Bilinear(2, 2, 2), reads=(("a", "b"), ("a", "c")), writes=("d",))
    >>> [label for _, _, label in bits(mix, "mix")]
    ['mix reads a', 'mix reads b', 'mix reads a as argument 2', 'mix reads c as argument 2']
    """
    found: list[tuple[int | None, str, str]] = []
    for i, port in enumerate(candidate.ports):
        later = f" as argument {i + 1}" if i else ""
        found += [(i, component, f"{name} reads {component}{later}") for component in port if len(port) > 1]
    writes = candidate.writes
    return found + [(None, component, f"{name} writes {component}") for component in writes if len(writes) > 1]


def acyclic(machines: Sequence[Placed]) -> bool:
    """Whether no machine depends on itself, directly or through others."""
    before: dict[str, set[str]] = {}
    for machine in machines:
        for component in machine.writes:
            before.setdefault(component, set()).update(chain.from_iterable(machine.reads))
    try:
        TopologicalSorter(before).prepare()
    except CycleError:
        return False
    return True


def downstream(machines: Sequence[Placed], components: Sequence[str]) -> set[str]:
    """These components, and all that depend on them through machines."""
    found, fresh = set(components), set(components)
    while fresh:
        fresh = {
            component
            for machine in machines
            if fresh.intersection(chain.from_iterable(machine.reads))
            for component in machine.writes
        } - found
        found |= fresh
    return found


def options(candidate: Candidate, copy: int, fits: Sequence[Fit]) -> Iterator[Placed]:
    """All ways to wire a copy of a candidate that fit."""
    for fit in fits:
        ports = [_subsets(port, candidate.max_reads) for port in fit.ports]
        for *reads, writes in product(*ports, _subsets(fit.writes, candidate.max_writes)):
            yield Placed(candidate.name, copy, tuple(reads), writes)


def wired(candidate: Candidate, copy: int, fits: Sequence[Fit], rng: np.random.Generator) -> Placed:
    """One of these ways, each as likely as the others."""
    ways = np.array([fit.options(candidate) for fit in fits], dtype=float)
    fit = fits[int(rng.choice(len(fits), p=ways / ways.sum()))]
    reads = tuple(_subset(port, candidate.max_reads, rng) for port in fit.ports)
    return Placed(candidate.name, copy, reads, _subset(fit.writes, candidate.max_writes, rng))


def read_shapes(candidate: Candidate, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[tuple[int, ...], ...]]:
    """The shapes that the arguments of a candidate may have together."""
    return list(product(*(dict.fromkeys(shapes[component] for component in port) for port in candidate.ports)))


def pick(choices: Any, rng: np.random.Generator) -> Any:
    """One of these, each as likely as the others."""
    return choices[int(rng.integers(len(choices)))]


def _subsets(items: Sequence[str], most: int | None) -> list[tuple[str, ...]]:
    sizes = range(1, min(len(items), most or len(items)) + 1)
    return [some for size in sizes for some in combinations(items, size)]


def _subset(items: Sequence[str], most: int | None, rng: np.random.Generator) -> tuple[str, ...]:
    """A subset that is not empty, each as likely as the others, in the order of the items."""
    ways = np.array([comb(len(items), size) for size in range(1, min(len(items), most or len(items)) + 1)], dtype=float)
    size = 1 + int(rng.choice(len(ways), p=ways / ways.sum()))
    chosen = sorted(rng.choice(len(items), size=size, replace=False).tolist())
    return tuple(items[i] for i in chosen)
