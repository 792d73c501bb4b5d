"""A point of a graph space: machines of one's own and their wiring; and which points are the same network."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

import networkx as nx

from machgraph.graph import Node, dependency_graph, levels, order
from search.data.transform import GIVEN, TRANSFORMS
from search.isomorphism.order import canonical_order
from search.shape import Shape

MOST_READ = 1 << 10  # times that one argument can read one machine, in the label of an edge


@dataclass(frozen=True)
class Placed:
    """A candidate in an architecture.

    Parameters
    ----------
    candidate, copy : its name, and which of its copies this is, from 1.
    reads : for each argument of the module, the components whose sum it gets.
    writes : the components that what it returns is added to.

    Examples
    --------
    >>> Placed("conv", 2, (("x", "h"),), ("y",)).name
    'conv_2'
    """

    candidate: str
    copy: int
    reads: tuple[tuple[str, ...], ...]
    writes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Lists to tuples."""
        object.__setattr__(self, "reads", tuple(map(tuple, self.reads)))
        object.__setattr__(self, "writes", tuple(self.writes))

    @property
    def name(self) -> str:
        """Of the machine in the architecture's graph."""
        return slot(self.candidate, self.copy)

    @property
    def node(self) -> Node:
        """The machine as its graph sees it: a component that is read twice is there once."""
        return Node(self.name, tuple(dict.fromkeys(c for port in self.reads for c in port)), self.writes)


def slot(candidate: str, copy: int) -> str:
    """What a copy of a candidate is called."""
    return candidate if copy == 1 else f"{candidate}_{copy}"


@dataclass(frozen=True)
class GraphPoint:
    """Machines of a graph space, what each reads and writes, and what the architecture is trained with.

    Parameters
    ----------
    machines : at most one of each copy; none depends on itself, directly or through others.
    inputs, outputs : the components that are given, and those that are the answer.
    learning_rate, weight_decay, batch_size, transform : as of any point.
    kind : tells it from points of other spaces.

    Raises
    ------
    ValueError : any of these does not hold; a cycle is told with the way round.

    Examples
    --------
    >>> machines = (Placed("stem", 1, (("x",),), ("h",)), Placed("gate", 1, (("x", "h"), ("h",)), ("y",)))
    >>> point = GraphPoint(machines, ("x",), ("y",), learning_rate=1e-3)
    >>> point.describe(), point.depth, point.levels
    ('stem(x) → h, gate(x + h, h) → y', 2, [['stem'], ['gate']])
    """

    machines: tuple[Placed, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    learning_rate: float
    weight_decay: float = 0.3
    batch_size: int = 64
    transform: str = GIVEN
    kind: Literal["graph"] = "graph"

    def __post_init__(self) -> None:
        """Check, and turn lists into tuples."""
        for name in ("machines", "inputs", "outputs"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "learning_rate", float(self.learning_rate))
        object.__setattr__(self, "weight_decay", float(self.weight_decay))
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"got learning_rate={self.learning_rate!r}: it must be positive and finite")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"got weight_decay={self.weight_decay!r}: it must be 0 or more, and finite")
        if self.batch_size < 1:
            raise ValueError(f"got batch_size={self.batch_size!r}: it must be at least 1")
        if self.transform not in (GIVEN, *TRANSFORMS):
            raise ValueError(f"got transform={self.transform!r}: it is one of {', '.join((GIVEN, *TRANSFORMS))}")
        for machine in self.machines:
            if not machine.reads or not all(machine.reads):
                raise ValueError(f"{machine.name} has an argument that reads nothing: leave the machine out")
        object.__setattr__(self, "kind", "graph")
        self.graph  # noqa: B018 - it refuses cycles and names that are there twice

    @cached_property
    def graph(self) -> "nx.DiGraph[str]":
        """Who depends on whom, as ``machgraph.Architecture.graph``."""
        return dependency_graph([machine.node for machine in self.machines])

    @property
    def levels(self) -> list[list[str]]:
        """Names of the machines by level."""
        return levels(self.graph)

    @property
    def depth(self) -> int:
        """Number of levels, of machines on a way from an input to an output."""
        return len(canonical_graph(self).levels)

    def describe(self, shape: Shape | None = None) -> str:
        """Each machine with its arguments; what it writes after an arrow, unless that is called as the machine is."""
        parts = []
        for name in order(self.graph):
            machine = next(one for one in self.machines if one.name == name)
            written = [component for component in machine.writes if component != name]
            arguments = ", ".join(" + ".join(port) for port in machine.reads)
            parts.append(f"{name}({arguments})" + (f" → {', '.join(written)}" if written else ""))
        return ", ".join(parts) or f"no way from {', '.join(self.inputs)} to {', '.join(self.outputs)}"

    def to_dict(self) -> dict[str, Any]:
        """As lists and plain values that JSON can hold; ``GraphPoint.from_dict`` reads it back."""
        machines = [
            {**asdict(machine), "reads": [list(port) for port in machine.reads], "writes": list(machine.writes)}
            for machine in self.machines
        ]
        return {**_values(self), "machines": machines, "inputs": list(self.inputs), "outputs": list(self.outputs)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "GraphPoint":
        """The point that ``to_dict`` wrote; ValueError: other names than the fields of a point."""
        names = [field.name for field in fields(cls)]
        if set(record) != set(names):
            raise ValueError(f"got a record with {', '.join(record) or 'nothing'}: a point has {', '.join(names)}")
        return cls(**{**record, "machines": tuple(Placed(**machine) for machine in record["machines"])})


ARCHITECTURE = ("kind", "inputs", "outputs", "machines")  # the fields of a point that are not hyperparameters


def _values(point: GraphPoint) -> dict[str, Any]:
    return {field.name: getattr(point, field.name) for field in fields(point)}


@lru_cache(maxsize=1 << 16)
def canonical_graph(point: GraphPoint) -> GraphPoint:
    """The one point that stands for all points which are the same set of networks.

    A component only passes on a sum, so what an argument gets is a sum of inputs and of what machines return, each of
    these once for every component by which it comes. Points are the same network when these sums are, whatever the
    components are called, and whichever copies of a candidate are used. So in the canonical form each machine writes to
    a component of its own, with its own name, and to the outputs; an argument that hears a machine by two components
    reads it twice. Dropped: machines with an argument that hears no input (there is nothing to call them with), and
    those that reach no output. Where an output is left with nothing, no machine is left.

    Examples
    --------
    The second machine is heard by nobody, and the first by two ways:

    >>> a, b = Placed("a", 2, (("x",),), ("h", "k")), Placed("b", 1, (("k",),), ("l",))
    >>> c = Placed("c", 1, (("h", "k"),), ("y",))
    >>> canonical_graph(GraphPoint((a, b, c), ("x",), ("y",), 1e-3)).describe()
    'a(x), c(a + a) → y'
    """
    machines, running = {machine.name: machine for machine in point.machines}, order(point.graph)
    writers = {component: [m.name for m in point.machines if component in m.writes] for component in _components(point)}
    sources: dict[str, list[Counter[str]]] = {}  # of each argument of what can be called: inputs and machines
    for name in running:
        heard = [_heard(port, point.inputs, writers, sources) for port in machines[name].reads]
        if all(heard):
            sources[name] = heard
    live: set[str] = set()
    for name in reversed(running):
        readers = (other for other in live if any(name in argument for argument in sources[other]))
        if name in sources and (set(machines[name].writes) & set(point.outputs) or any(readers)):
            live.add(name)
    if any(not set(writers.get(output, ())) & live for output in point.outputs):
        return replace(point, machines=())

    vertices = [name for name in running if name in live]
    place = {name: i for i, name in enumerate(vertices)}
    level: dict[str, int] = {}
    for name in vertices:
        level[name] = 1 + max((level[s] for argument in sources[name] for s in argument if s in level), default=0)

    def given(argument: Counter[str]) -> tuple[int, ...]:
        return tuple(argument[component] for component in point.inputs)

    # Level first: it grows along every edge, so that the order by colours is a topological one.
    colours = [
        (
            level[name],
            machines[name].candidate,
            tuple(map(given, sources[name])),
            tuple(output in machines[name].writes for output in point.outputs),
        )
        for name in vertices
    ]
    placed = canonical_order(colours, [_labels(sources[name], place) for name in vertices]).order
    return replace(point, machines=_renamed([vertices[i] for i in placed], machines, sources, point))


def _components(point: GraphPoint) -> set[str]:
    return {component for machine in point.machines for component in machine.writes}


def _heard(
    port: Iterable[str], inputs: Sequence[str], writers: Mapping[str, Sequence[str]], callable_: Mapping[str, Any]
) -> Counter[str]:
    """What an argument is the sum of: inputs, and the machines that can be called."""
    found: Counter[str] = Counter()
    for component in port:
        found.update([component] if component in inputs else [])
        found.update(name for name in writers.get(component, ()) if name in callable_)
    return found


def _labels(arguments: Sequence[Counter[str]], place: Mapping[str, int]) -> dict[int, int]:
    """From each machine that is heard to one number that tells by which arguments, and how often."""
    labels: Counter[int] = Counter()
    for i, argument in enumerate(arguments):
        for source, times in argument.items():
            if source in place:
                labels[place[source]] += times * MOST_READ**i
    return dict(labels)


def _renamed(
    names: Sequence[str],
    machines: Mapping[str, Placed],
    sources: Mapping[str, Sequence[Counter[str]]],
    point: GraphPoint,
) -> tuple[Placed, ...]:
    """The machines in this order, the copies numbered by it, each with a component of its own."""
    copies: Counter[str] = Counter()
    called: dict[str, str] = {component: component for component in point.inputs}
    heard = {source for name in names for argument in sources[name] for source in argument}
    found = []
    for name in names:
        machine = machines[name]
        copies[machine.candidate] += 1
        called[name] = slot(machine.candidate, copies[machine.candidate])
        reads = tuple(
            tuple(new for source, new in called.items() for _ in range(argument[source])) for argument in sources[name]
        )
        own = (called[name],) if name in heard else ()
        writes = (*own, *(output for output in point.outputs if output in machine.writes))
        found.append(Placed(machine.candidate, copies[machine.candidate], reads, writes))
    return tuple(found)
