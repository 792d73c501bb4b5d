"""Partitions and masks into plans: which boxes a dense, a convolutional and a recurrent machine update, in which order.

A box is a block of channels crossed with a range of positions. The three kinds choose the ranges (section 3): one
position, all positions at once (``I_i = {1..n_t} × J_i``), or some steps of time at once (``I_t,i = {t} × J_i``).

A product may be done as soon as what it reads is final, so blocks of few channels share products: the blocks are cut in
two halves, and what neighbours in the second half hear in common of the first is one product before either of them;
then the same within each half. Nearly all the work of many small blocks is so in large products. What the mask leaves
out is in none of them.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise, product
from operator import mul
from typing import Literal

import networkx as nx
import numpy as np

from machgraph.partition import Mask, Partition, runs
from machgraph.plan import Accumulate, Activate, Clear, Grid, Instruction, Plan, Pool, Repeat, Span, Wrap

Padding = Literal["same", "causal", "circular"]
Part = tuple[Span, Span]  # blocks, and blocks that are final before any of them is

WIDE = 16  # channels of a block that shares no products: it would gain little, as blocks of 1 to 64 were measured


def dense_plan(partition: Partition, mask: Mask) -> Plan:
    """The plan of a generalized multi-layer perceptron: algorithm 1, block by block.

    Parameters
    ----------
    partition : blocks of channels.
    mask : which block hears which, boolean ``[block_out, block_in]``, strictly lower triangular. Neighbouring sources
        are one product; blocks that the mask leaves out are skipped, not multiplied by zero.

    Examples
    --------
    >>> from machgraph.partition import shortcut_mask
    >>> for step in dense_plan(Partition((4, 3, 2)), shortcut_mask(None, 3)).instructions:
    ...     print(step)
    Activate(rows=(0, 4), block=0, columns=(0, 1))
    Accumulate(rows=(4, 7), inputs=(0, 4), columns=(0, 1), tap=0, offset=0)
    Activate(rows=(4, 7), block=1, columns=(0, 1))
    Accumulate(rows=(7, 9), inputs=(0, 7), columns=(0, 1), tap=0, offset=0)
    Activate(rows=(7, 9), block=2, columns=(0, 1))
    """
    return _convolution_plan(partition, mask.tobytes(), (), (), (), "same", (0,) * len(partition), False)


def convolution_plan(
    partition: Partition,
    mask: Mask,
    size: tuple[int, ...],
    kernel_size: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: Padding,
    scales: tuple[int, ...] = (),
    mean: bool = False,
) -> Plan:
    """The plan of a convolutional machine with all positions of a block in one box.

    Parameters
    ----------
    partition, mask : as for ``dense_plan``.
    size, kernel_size, dilation : along each axis of positions.
    padding : what is beyond the border, and on which side; see ``margins``.
    scales : of each block, how often its grid is halved; all 0 if left out. A block is pooled as far as it is heard.
    mean : whether the mean over a window is pooled, not the maximum.
    """
    scales = scales or (0,) * len(partition)
    return _convolution_plan(partition, mask.tobytes(), size, kernel_size, dilation, padding, scales, mean)


def halved(size: tuple[int, ...], times: int) -> tuple[int, ...]:
    """Extents after so many halvings, each rounded down, 1 being the least.

    >>> halved((8, 7, 1), 1), halved((8, 7, 1), 3)
    ((4, 3, 1), (1, 1, 1))
    """
    return tuple(max(1, extent >> times) for extent in size)


def margins(kernel_size: tuple[int, ...], dilation: tuple[int, ...], padding: Padding) -> tuple[Span, ...]:
    """Padding before and after, along each axis: all before if causal, else halves, the larger one after (as torch's).

    >>> margins((3, 4), (2, 1), "same"), margins((3, 4), (2, 1), "causal")
    (((2, 2), (1, 2)), ((4, 0), (3, 0)))
    """
    reach = [step * (taps - 1) for taps, step in zip(kernel_size, dilation, strict=True)]
    return tuple((total, 0) if padding == "causal" else (total // 2, total - total // 2) for total in reach)


@lru_cache(maxsize=4096)
def _convolution_plan(
    partition: Partition,
    mask_bytes: bytes,
    size: tuple[int, ...],
    kernel_size: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: Padding,
    scales: tuple[int, ...],
    mean: bool,
) -> Plan:
    blocks = len(partition)
    mask = np.frombuffer(mask_bytes, dtype=bool).reshape(blocks, blocks)
    around = margins(kernel_size, dilation, padding)
    grids: list[Grid] = []
    for scale in range(max(scales) + 1):
        extents = tuple(
            extent + before + after for extent, (before, after) in zip(halved(size, scale), around, strict=True)
        )
        grids.append(Grid(extents, around, sum(grid.positions for grid in grids)))
    taps = list(product(*map(range, kernel_size)))
    reaches = [
        tuple(step * k - before for step, k, (before, _) in zip(dilation, tap, around, strict=True)) for tap in taps
    ]
    halves = list(_halves(partition.bounds))
    heard = [_heard(partition, mask & np.equal(scales, scale)[:, None], halves) for scale in range(len(grids))]
    coarsest = [max([scales[i], *(scales[reader] for reader in np.flatnonzero(mask[:, i]))]) for i in range(blocks)]
    border: list[Instruction] = []
    if len(size) == 1 and padding != "circular":  # for the dual, whose products reach into the padding
        border = [Clear((0, partition.size), grid=scale) for scale in range(len(grids))]
    instructions: list[Instruction] = border
    for i, rows in enumerate(pairwise(partition.bounds)):
        for scale, grid in enumerate(grids):  # products that blocks of a scale share come before the first of them
            instructions += [
                Accumulate(several, inputs, grid.columns, tap, sum(map(mul, grid.strides, reach)))
                for tap, reach in enumerate(reaches)
                if padding == "circular" or all(abs(by) < extent for by, extent in zip(reach, grid.size, strict=True))
                for several, inputs in heard[scale][i]
            ]
        instructions.append(Activate(rows, i, grids[scales[i]].columns))
        for scale in range(scales[i], coarsest[i] + 1):
            if scale > scales[i]:
                instructions.append(Pool(rows, scale - 1, mean))
            if padding == "circular":
                instructions.append(Wrap(rows, grid=scale))
            elif len(size) > 1:  # the columns run from the first pixel to the last and cross padding
                instructions.append(Clear(rows, grid=scale))
    return Plan(tuple(instructions), partition.size, grids[0].extents, around, len(taps), tuple(grids[1:]))


def recurrent_plan(partition: Partition, mask: Mask, steps: int, timeblock: int) -> Plan:
    """The plan of a recurrent machine over a series of so many steps.

    Parameters
    ----------
    partition : blocks of channels.
    mask : boolean ``[lag, block_out, block_in]``: lags below ``timeblock`` only from earlier blocks.
    steps : length of the series.
    timeblock : steps of time that one box updates.

    Notes
    -----
    The order ``(t, i)`` of the paper is one of many that respect the dependencies. This one goes by the strongly
    connected components of the graph of blocks, any lag an edge: a block that no lagged cycle meets is one box over all
    time; the others loop over time, after the products with everything that is known beforehand.
    """
    return _recurrent_plan(partition, mask.tobytes(), mask.shape[0] - 1, steps, timeblock)


@lru_cache(maxsize=1024)
def _recurrent_plan(partition: Partition, mask_bytes: bytes, lags: int, steps: int, timeblock: int) -> Plan:
    blocks = len(partition)
    mask = np.frombuffer(mask_bytes, dtype=bool).reshape(lags + 1, blocks, blocks)
    spans = list(pairwise(partition.bounds))
    graph = nx.DiGraph()
    graph.add_nodes_from(range(blocks))
    graph.add_edges_from((int(j), int(i)) for i, j in np.argwhere(mask.any(axis=0)))

    everything = [((0, blocks), (0, blocks))]
    instructions: list[Instruction] = [Clear((0, partition.size))]  # for the dual, which reaches into the padding
    for component in _components(graph):
        whole, inside = (lags, lags + steps), np.isin(np.arange(blocks), component)
        mask_of = mask & inside[:, None]
        known = [_heard(partition, at_lag & ~inside, everything) for at_lag in mask_of]
        instructions += [
            Accumulate(rows, inputs, whole, tap=lag, offset=-lag)
            for i in component  # what other blocks say is known beforehand, at all times
            for lag in range(lags + 1)
            for rows, inputs in known[lag][i]
        ]
        if len(component) == 1 and not graph.has_edge(component[0], component[0]):
            instructions.append(Activate(spans[component[0]], component[0], whole))
            continue
        own = [  # what is heard from before the turn is known to all of them
            _heard(partition, at_lag & inside, everything if lag >= timeblock else _halves(partition.bounds))
            for lag, at_lag in enumerate(mask_of)
        ]

        def boxes(
            first: int, length: int, component: list[int] = component, own: list[list[list[Part]]] = own
        ) -> list[Accumulate | Activate]:
            columns = (lags + first, lags + first + length)
            steps: list[Accumulate | Activate] = []
            for i in component:
                steps += [
                    Accumulate(rows, inputs, columns, tap=lag, offset=-lag)
                    for lag in range(lags + 1)
                    for rows, inputs in own[lag][i]
                ]
                steps.append(Activate(spans[i], i, columns))
            return steps

        turns, rest = divmod(steps, timeblock)
        if turns:
            instructions.append(Repeat(tuple(boxes(0, timeblock)), turns, timeblock))
        if rest:
            instructions += boxes(turns * timeblock, rest)
    return Plan(tuple(instructions), partition.size, (lags + steps,), ((lags, 0),), lags + 1)


def _components(graph: nx.DiGraph) -> list[list[int]]:
    """The strongly connected components, each in the order of its blocks, sources first."""
    condensed = nx.condensation(graph)
    order = nx.lexicographical_topological_sort(condensed, key=lambda c: min(condensed.nodes[c]["members"]))
    return [sorted(condensed.nodes[component]["members"]) for component in order]


# ---- small blocks in large products --------------------------------------------------------------------------


def _heard(partition: Partition, mask: Mask, parts: Iterable[Part]) -> list[list[Part]]:
    """For each block, the products that come before its σ, as channels: (rows, inputs).

    Within each of the ``parts`` rows may share products, which come before the first of them.
    """
    shared: list[list[Part]] = [[] for _ in partition.widths]
    alone, narrow = mask.copy(), mask.any(axis=1) & (np.array(partition.widths) < WIDE)
    for (start, stop), (first, last) in parts if narrow.sum() > 1 else ():
        for rows, inputs in _rectangles(mask[start:stop, first:last] & narrow[start:stop, None]):
            if rows[1] - rows[0] > 1:
                rows, inputs = (start + rows[0], start + rows[1]), (first + inputs[0], first + inputs[1])
                shared[rows[0]].append((rows, inputs))
                alone[slice(*rows), slice(*inputs)] = False
    for i in np.flatnonzero(alone.any(axis=1)).tolist():
        shared[i] += [((i, i + 1), inputs) for inputs in runs(alone[i])]
    at = partition.bounds
    return [[((at[a], at[b]), (at[c], at[d])) for (a, b), (c, d) in products] for products in shared]


def _halves(bounds: tuple[int, ...], start: int = 0, stop: int | None = None) -> Iterator[Part]:
    """The blocks cut in two, and each half again: (second half, first half), larger ones first."""
    stop = len(bounds) - 1 if stop is None else stop
    if stop - start < 3 or bounds[stop] - bounds[start] < WIDE:
        return
    middle = min(range(start + 1, stop), key=lambda cut: abs(bounds[start] + bounds[stop] - 2 * bounds[cut]))
    yield (middle, stop), (start, middle)
    yield from _halves(bounds, start, middle)
    yield from _halves(bounds, middle, stop)


def _rectangles(mask: Mask) -> list[Part]:
    """What is true, each entry once: neighbouring rows that share a maximal run of true are one rectangle.

    >>> _rectangles(np.array([[1, 1, 0, 1], [1, 1, 0, 0]], dtype=bool))
    [((0, 2), (0, 2)), ((0, 1), (3, 4))]
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges > 0)
    found = np.stack((starts, np.nonzero(edges < 0)[1], rows), axis=1)
    found = found[np.lexsort(found.T[::-1])]  # equal runs together, by row
    new = np.ones(len(found), dtype=bool)
    new[1:] = (np.diff(found, axis=0) != (0, 0, 1)).any(axis=1)
    last = np.roll(new, -1)  # the run before a new one is the last of its rectangle
    return [
        ((row, end + 1), (start, stop))
        for (start, stop, row), end in zip(found[new].tolist(), found[last, 2].tolist(), strict=True)
    ]
