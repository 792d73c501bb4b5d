"""How many different architectures a space holds: bare structures up to isomorphism, then Burnside's lemma."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import perm
from typing import NamedTuple

from search.isomorphism.order import canonical_order, symmetries


class Structure(NamedTuple):
    """Hidden blocks without labels: which earlier ones each hears, which hear the input, which feed the output."""

    sources: tuple[tuple[int, ...], ...]
    hears_input: tuple[bool, ...]
    feeds_output: tuple[bool, ...]


def class_count(max_blocks: int, widths: Sequence[int], activations: int) -> int:
    """Number of canonical architectures that at most ``max_blocks`` blocks of these widths can be.

    Parameters
    ----------
    max_blocks : most hidden blocks before twins are merged.
    widths : the widths of one block; the block that twins are merged into has a sum of them.
    activations : number of activations.

    Notes
    -----
    A block whose width needs ``c`` blocks at least takes ``c`` of the budget ``max_blocks``. The labellings (width and
    activation of each block) of a bare structure that fit the budget, counted up to the structure's symmetries, are by
    Burnside's lemma the mean over the symmetries of the number of labellings that each leaves as they are. Two blocks
    with the same sources and readers must differ in activation, or they were one. Each further block takes about 40
    times as long: 0.1 s for 4, seconds for 5, minutes for 6.

    Examples
    --------
    Nothing at all, the linear model, and one hidden block without and with the shortcut past it:

    >>> class_count(1, widths=(8,), activations=1)
    4
    """
    by_cost = _widths_by_cost(max_blocks, widths)
    total = 2  # no hidden block: the output hears the input or nothing
    for blocks in range(1, max_blocks + 1):
        labellings = sum(_labellings(structure, by_cost, activations) for structure in structures(blocks))
        total += 2 * labellings  # the input feeds the output or not, whatever the rest
    return total


def structures(blocks: int) -> Iterator[Structure]:
    """Every bare structure once up to isomorphism: each block hears the input and reaches the output somehow.

    >>> [sum(1 for _ in structures(blocks)) for blocks in (1, 2, 3)]
    [1, 5, 49]
    """
    seen = set()
    for sources, hears_input in _heard(blocks):
        fed = {source for heard in sources for source in heard}
        optional = sorted(fed)
        for size in range(len(optional) + 1):
            for chosen in combinations(optional, size):
                # A block that feeds no other one must feed the output.
                feeds_output = tuple(block not in fed or block in chosen for block in range(blocks))
                colours = list(zip(_levels(sources), hears_input, feeds_output, strict=True))
                order, edges, _ = canonical_order(colours, sources)
                form = (tuple(colours[block] for block in order), edges)
                if form not in seen:
                    seen.add(form)
                    yield Structure(sources, hears_input, feeds_output)


def _heard(blocks: int) -> Iterator[tuple[tuple[tuple[int, ...], ...], tuple[bool, ...]]]:
    """Who hears whom, by non-decreasing (level, sources): any structure can be put so, few in more than one way."""
    if blocks == 0:
        yield (), ()
        return
    for sources, hears_input in _heard(blocks - 1):
        last = max(zip(_levels(sources), sources, hears_input, strict=True), default=(0, (), False))
        for size in range(blocks):
            for heard in combinations(range(blocks - 1), size):
                for hears in (False, True) if heard else (True,):
                    longer = (*sources, heard)
                    if (_levels(longer)[-1], heard, hears) >= last:
                        yield longer, (*hears_input, hears)


def _levels(sources: Sequence[Sequence[int]]) -> list[int]:
    levels: list[int] = []
    for heard in sources:
        levels.append(1 + max((levels[source] for source in heard), default=0))
    return levels


def _widths_by_cost(max_blocks: int, widths: Sequence[int]) -> list[int]:
    """``[c]``: number of widths that are a sum of ``c`` of the widths and of no fewer, for ``c = 0 ... max_blocks``."""
    sums, known, counts = {0}, set[int](), [0]
    for _ in range(max_blocks):
        sums = {total + width for total in sums for width in widths}
        counts.append(len(sums - known))
        known |= sums
    return counts


def _labellings(structure: Structure, by_cost: list[int], activations: int) -> int:
    """Labellings within the budget, up to the structure's symmetries."""
    blocks, budget = len(structure.sources), len(by_cost) - 1
    colours = list(zip(structure.hears_input, structure.feeds_output, strict=True))
    group = symmetries(blocks, canonical_order(colours, structure.sources).generators)
    twins = _twins(structure)
    fixed = 0
    for permutation in group:
        if any(permutation[block] != block and permutation[block] in twins[block] for block in range(blocks)):
            continue  # it moves a block to its twin, so that both would have one activation
        cycles = _cycles(permutation)
        # polynomial[b]: number of ways to give every cycle a width at the cost of b blocks in all
        polynomial = [1] + [0] * budget
        for cycle in cycles:
            longer = [0] * (budget + 1)
            for spent, ways in enumerate(polynomial):
                for cost, choices in enumerate(by_cost):
                    if ways and choices and spent + cost * len(cycle) <= budget:
                        longer[spent + cost * len(cycle)] += ways * choices
            polynomial = longer
        # A cycle through a class of twins meets each class on its way once: the classes move as one.
        ways = 1
        for classes in {frozenset(frozenset(twins[block]) for block in cycle) for cycle in cycles}:
            ways *= perm(activations, len(next(iter(classes))))
        fixed += ways * sum(polynomial)
    return fixed // len(group)


def _twins(structure: Structure) -> list[frozenset[int]]:
    """For each block, the blocks with the same sources and readers, itself among them."""
    blocks = range(len(structure.sources))
    kinds = [
        (
            structure.sources[block],
            structure.hears_input[block],
            structure.feeds_output[block],
            tuple(reader for reader in blocks if block in structure.sources[reader]),
        )
        for block in blocks
    ]
    return [frozenset(other for other in blocks if kinds[other] == kinds[block]) for block in blocks]


def _cycles(permutation: Sequence[int]) -> list[list[int]]:
    cycles: list[list[int]] = []
    left = set(range(len(permutation)))
    while left:
        cycle = [min(left)]
        while permutation[cycle[-1]] != cycle[0]:
            cycle.append(permutation[cycle[-1]])
        left -= set(cycle)
        cycles.append(cycle)
    return cycles
