"""The graphs of a recurrent machine: folded, with edges that go back in time, and unrolled over a number of steps.

Over a series of fixed length the machine is a sum like any other, one ``w`` and one ``σ`` for each block and each turn
of the loop over time (``I_t,i`` of section 3): that is its unrolling, an acyclic graph. Folded, the turns lie on top of
each other, and an edge says at which lags it is heard. Edges of which every lag is at least the time block come from
earlier turns alone; without them the folded graph is acyclic too, and it is the graph of one turn with its past given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from machgraph import cofiltration, graph
from machgraph.architecture import Architecture, Machine, Point
from machgraph.partition import lag_words
from machgraph.plan import Span

if TYPE_CHECKING:
    from machgraph.parametric import RecurrentMachine

Heard = tuple[int, Span, tuple[int, ...]]  # a block, the steps of one turn, and the lags at which they are heard


@dataclass(frozen=True, eq=False)
class Recurrence:
    """A recurrent machine as a sum, folded over time: machines ``w_i`` and ``σ_i``, edges labelled by lag.

    ``order``, ``levels``, ``depth`` and ``cofiltration`` are those of one turn of the loop, ``timeblock`` steps of time
    with their past given. For a series they are those of ``unroll(steps)``, whose depth is at most that of one turn
    times the number of turns.

    Parameters
    ----------
    machine : whose weights and mask it shows.

    Examples
    --------
    >>> from machgraph import RecurrentMachine
    >>> f = RecurrentMachine((3, 4, 2), lags=1, shortcuts="sequential").architecture
    >>> list(f.graph.edges(data="lags"))
    [('σ_0', 'w_1', (0,)), ('w_1', 'σ_1', (0,)), ('σ_1', 'w_1', (1,)), ('σ_1', 'w_2', (0,)), ('w_2', 'σ_2', (0,)), ...]
    >>> f.order, f.depth
    (['σ_0', 'w_1', 'σ_1', 'w_2', 'σ_2'], 5)
    >>> f.unroll(10).depth
    23
    """

    machine: "RecurrentMachine"

    @cached_property
    def graph(self) -> nx.DiGraph:
        """Frozen; nodes carry ``reads`` and ``writes``, edges ``components``, ``lags`` (and in ``words``) and ``back``.

        ``back`` says that the edge comes from earlier turns alone, every lag being at least the time block.
        """
        folded = nx.DiGraph()
        mask = self.machine.shortcuts
        for i in range(len(self.machine.partition)):
            sources = [int(j) for j in np.flatnonzero(mask[:, i].any(axis=0))]
            if sources:
                folded.add_node(f"w_{i}", reads=tuple(f"z_{j}" for j in sources), writes=(f"y_{i}",))
            folded.add_node(f"σ_{i}", reads=(f"y_{i}",), writes=(f"z_{i}",))
            if sources:
                folded.add_edge(f"w_{i}", f"σ_{i}", components=(f"y_{i}",), lags=(0,), back=False)
        for i, j in np.argwhere(mask.any(axis=0)):
            lags = tuple(int(lag) for lag in np.flatnonzero(mask[:, i, j]))
            back = lags[0] >= self.machine.timeblock
            words = lag_words(mask[:, i, j])
            folded.add_edge(f"σ_{j}", f"w_{i}", components=(f"z_{j}",), lags=lags, back=back, words=words)
        return nx.freeze(folded)

    @cached_property
    def turn(self) -> nx.DiGraph:
        """The graph of one turn: without the edges that come from earlier turns alone, so without cycles."""
        return nx.freeze(graph.forward(self.graph))

    @property
    def order(self) -> list[str]:
        """The machines of one turn in the order of execution."""
        return graph.order(self.turn)

    @property
    def levels(self) -> list[list[str]]:
        """The machines of one turn by level."""
        return graph.levels(self.turn)

    @property
    def depth(self) -> int:
        """Number of levels of one turn."""
        return len(self.levels)

    @property
    def cofiltration(self) -> list[frozenset[str]]:
        """``V_0 ⊇ ... ⊇ V_d`` of one turn, by component."""
        return cofiltration.cofiltration(self.levels, dict(self.turn.nodes(data="writes")))

    @property
    def components(self) -> tuple[str, ...]:
        """Names of all components, each a series."""
        return tuple(f"{half}_{i}" for i in range(len(self.machine.partition)) for half in "yz")

    def __getattr__(self, name: str) -> Any:
        if name == "machines" or hasattr(Architecture, name):
            raise AttributeError(
                f"a recurrence folded over time has no {name} of its own: unroll(steps).{name} is that of a series of "
                "so many steps"
            )
        raise AttributeError(f"'Recurrence' object has no attribute {name!r}")

    def resolvent(self, g: Point) -> dict[str, Tensor]:
        """The solution ``h`` of ``h = g + f h``, by unrolling: a folded graph has cycles, and no order of its own.

        Parameters
        ----------
        g : a series ``(..., channel, time)`` for each component, as ``machine.components(y0, z0)`` gives them.

        Raises
        ------
        ValueError : series of different length, or as for the resolvent of ``unroll(steps)``.
        """
        lengths = {component: x.shape[-1] for component, x in g.items()}
        if len(set(lengths.values())) != 1:
            got = ", ".join(f"{component} of {steps} steps" for component, steps in lengths.items()) or "nothing"
            raise ValueError(f"got {got}: give series (..., channel, time) of one length")
        unrolled = self.unroll(next(iter(lengths.values())))
        return fold(unrolled.resolvent(unfold(g, self.machine.timeblock)))

    def unroll(self, steps: int) -> Architecture:
        """The sum over a series of so many steps: one ``w`` and one ``σ`` for each turn and block.

        They are called ``w_1[t=0]``, and ``w_1[t=0:2]`` where a turn is two steps; so are the components, which hold
        the steps of their turn, ``(..., channel, time)``. ``unfold`` and ``fold`` go from series to these and back.

        Raises
        ------
        ValueError : less than one step.
        """
        if steps < 1:
            raise ValueError(f"got steps={steps}: unroll a recurrence over at least one step")
        machines: list[Machine] = []
        turns = _turns(steps, self.machine.timeblock)
        for turn in turns:
            for i, sigma in enumerate(self.machine.activation):
                y, z = _at("y", i, turn), _at("z", i, turn)
                heard = self._heard(i, turn, turns)
                if heard:
                    reads = tuple(_at("z", j, times) for j, times, _ in heard)
                    machines.append(Machine(self._linear_map(i, turn, heard), reads, (y,), _at("w", i, turn)))
                machines.append(Machine(sigma.function, (y,), (z,), _at("σ", i, turn)))
        return Architecture(machines)

    def _heard(self, i: int, turn: Span, turns: Sequence[Span]) -> list[Heard]:
        """What a block hears in one turn: of each block the turns that the lags reach, by the paper's order."""
        mask = self.machine.shortcuts
        first = max(0, turn[0] - self.machine.lags) // self.machine.timeblock
        heard = []
        for times in turns[first : turns.index(turn) + 1]:
            for j in range(len(self.machine.partition)):
                lags = (int(lag) for lag in np.flatnonzero(mask[:, i, j]))
                meeting = tuple(lag for lag in lags if len(range(*_meet(times, lag, turn))))
                if meeting:
                    heard.append((j, times, meeting))
        return heard

    def _linear_map(self, i: int, turn: Span, heard: Sequence[Heard]) -> Callable[..., Tensor]:
        machine, block = self.machine, self.machine.partition.block

        def w(*z: Tensor) -> Tensor:
            products = []
            for (j, times, lags), x in zip(heard, z, strict=True):
                for lag in lags:
                    first, last = _meet(times, lag, turn)
                    part = x[..., first - lag - times[0] : last - lag - times[0]]
                    product = machine.weight[block(i), block(j), lag] @ part
                    products.append(torch.nn.functional.pad(product, (first - turn[0], turn[1] - last)))
            return sum(products[1:], products[0])

        return w


def unfold(g: Mapping[str, Tensor], timeblock: int = 1) -> dict[str, Tensor]:
    """Series as the components of an unrolled recurrence: each cut along time, ``timeblock`` steps a piece.

    Examples
    --------
    >>> unfold({"y_0": torch.tensor([[1.0, 2.0, 3.0]])}, timeblock=2)
    {'y_0[t=0:2]': tensor([[1., 2.]]), 'y_0[t=2]': tensor([[3.]])}
    """
    return {
        f"{component}{_label(turn)}": x[..., slice(*turn)]
        for component, x in g.items()
        for turn in _turns(x.shape[-1], timeblock)
    }


def fold(h: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The components of an unrolled recurrence as series, the inverse of ``unfold``."""
    pieces: dict[str, dict[int, Tensor]] = {}
    for name, x in h.items():
        component, _, times = name.rpartition("[t=")
        pieces.setdefault(component, {})[int(times.rstrip("]").split(":")[0])] = x
    return {component: torch.cat([xs[t] for t in sorted(xs)], dim=-1) for component, xs in pieces.items()}


def _turns(steps: int, timeblock: int) -> list[Span]:
    return [(start, min(start + timeblock, steps)) for start in range(0, steps, timeblock)]


def _label(turn: Span) -> str:
    return f"[t={turn[0]}]" if turn[1] - turn[0] == 1 else f"[t={turn[0]}:{turn[1]}]"


def _at(letter: str, block: int, turn: Span) -> str:
    return f"{letter}_{block}{_label(turn)}"


def _meet(times: Span, lag: int, turn: Span) -> Span:
    """The steps of a turn that hear these times at this lag; none if they end before they begin."""
    return max(times[0] + lag, turn[0]), min(times[1] + lag, turn[1])
