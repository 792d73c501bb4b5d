"""Machines, their sums, and who depends on whom (sections 2.1 to 2.3)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn

from machgraph import cofiltration, graph
from machgraph.dual import Step, run, solve

Point = Mapping[str, Tensor]  # an element of machine space: a tensor for each component, absent for 0


class Architecture(nn.Module):
    """A sum of machines, ``f = f_1 + ... + f_n``, solved in the order of its dependency graph (Theorem 2).

    Parameters
    ----------
    machines : machines and sums of them. ``f + g`` and ``sum([f, g])`` make one too.

    Attributes
    ----------
    machines : the summands, in the order in which they were given.
    graph : frozen ``networkx.DiGraph`` over their names; an edge ``a -> b`` where ``b`` reads what ``a`` writes.
    order : names in the order of execution, ``R_f = R_fn ... R_f1``.
    levels : names by level; a level depends on earlier ones alone.
    depth : number of levels.
    cofiltration : ``V_0 ⊇ ... ⊇ V_d``, the components that a machine on a level above ``i`` still writes.
    components : names of all components that the machines read or write.

    Raises
    ------
    ValueError : two machines of one name, or machines that depend on each other.

    Examples
    --------
    >>> double = Machine(lambda x: 2 * x, reads=("x",), writes=("y",), name="double")
    >>> add = Machine(lambda x, y: x + y, reads=("x", "y"), writes=("z",), name="add")
    >>> f = add + double
    >>> f.order, f.depth
    (['double', 'add'], 2)
    >>> f.resolvent({"x": torch.tensor(1.0)})
    {'x': tensor(1.), 'y': tensor(2.), 'z': tensor(3.)}
    """

    def __init__(self, machines: "Iterable[Architecture]") -> None:
        super().__init__()
        summands = list(machines)
        for summand in summands:
            if not isinstance(summand, Architecture):
                got = type(summand).__name__
                raise ValueError(f"got {got} among the machines: wrap it, Machine(function, reads=..., writes=...)")
        self._set(tuple(machine for summand in summands for machine in summand.machines))

    def _set(self, machines: "tuple[Machine, ...]") -> None:
        if not machines:
            raise ValueError("got no machines: an architecture is the sum of at least one")
        self.machines = machines
        self.graph: nx.DiGraph = graph.dependency_graph(
            [graph.Node(machine.name, machine.reads, machine.writes) for machine in machines]
        )
        self.order = graph.order(self.graph)
        self.levels = graph.levels(self.graph)
        self.depth = len(self.levels)
        self.cofiltration = cofiltration.cofiltration(self.levels, dict(self.graph.nodes(data="writes")))
        self.components = tuple(dict.fromkeys(c for m in machines for c in (*m.reads, *m.writes)))
        for machine in machines:
            if isinstance(machine.function, nn.Module):
                key = machine.name.replace(".", "_")  # torch takes no dots in the name of a module
                while hasattr(self, key):
                    key += "_"
                self.add_module(key, machine.function)

    def __add__(self, other: "Architecture") -> "Architecture":
        return Architecture((self, other)) if isinstance(other, Architecture) else NotImplemented

    def __radd__(self, other: object) -> "Architecture":
        return self if other == 0 else NotImplemented  # sum() starts from 0, the machine that writes nothing

    def resolvent(self, g: Point) -> dict[str, Tensor]:
        """The solution ``h`` of the machine equation ``h = g + f h``, differentiable: the backward is the dual machine.

        Parameters
        ----------
        g : a tensor for each component that it holds. One that is absent counts as 0 where a machine writes it; one
            that no machine touches passes through.

        Returns
        -------
        ``h``, with ``g``'s components first and then the written ones. Its tensors share no memory with those of ``g``.

        Raises
        ------
        ValueError : a component is absent, read and not written; or a machine returns too few or too many tensors,
            or one that does not fit the component that it writes.
        """
        self._check(g, [c for m in self.machines for c in m.writes])
        return solve(self._steps(self.order, g), {c: x.clone() for c, x in g.items()})  # type: ignore[return-value]

    forward = resolvent

    def increment(self, x: Point, machines: Iterable[str] | None = None) -> dict[str, Tensor]:
        """The value of ``f`` itself at ``x``: what its machines write there, all looking at the same ``x``.

        Parameters
        ----------
        x : a tensor for each component that is read.
        machines : names of the summands that count; by default all.

        Returns
        -------
        The written components; the others are 0.
        """
        names = self.order if machines is None else list(machines)
        self._check(x, (), names)
        steps = self._steps(names, ())
        at_x = [Step(step.name, (), step.writes, lambda s=step: s.function(*(x[c] for c in s.reads))) for step in steps]
        return run(at_x, {})  # type: ignore[return-value]

    def _steps(self, names: Iterable[str], given: Iterable[str]) -> list[Step]:
        machines = {machine.name: machine for machine in self.machines}
        present = set(given)
        steps = []
        for name in names:
            machine = machines[name]
            steps.append(_step(machine, absent=set(machine.writes) - present))
            present.update(machine.writes)
        return steps

    def _check(self, g: Point, written: Iterable[str], names: Iterable[str] | None = None) -> None:
        if not isinstance(g, Mapping):
            raise ValueError(f"got {type(g).__name__}: give a mapping from the names of components to tensors")
        for component, x in g.items():
            if not isinstance(x, Tensor):
                raise ValueError(f"got {type(x).__name__} for {component}: give a tensor")
        known = {*g, *written}
        for name in self.order if names is None else names:
            for component in self.graph.nodes[name]["reads"]:
                if component not in known:
                    why = "" if component in self.cofiltration[0] else " and no machine writes"
                    raise ValueError(
                        f"{name} reads {component}, which is absent{why}: give it a tensor; "
                        f"got {', '.join(g) or 'nothing'}{graph.near(component, g)}"
                    )

    def extra_repr(self) -> str:
        """One line a machine: what it reads and what it writes."""
        return "\n".join(f"{m.name}: {', '.join(m.reads)} -> {', '.join(m.writes)}" for m in self.machines)


class Machine(Architecture):
    """A machine of depth 1: a map that reads some components and adds to others. A sum of one, with its whole face.

    Parameters
    ----------
    function : any callable or module. It gets its reads as positional arguments and returns its writes in order; for
        one write it may return the bare tensor. Modules are registered, so that ``parameters()`` holds theirs.
    reads : components that it looks at.
    writes : components that it adds to, none of them read.
    name : how order, levels and errors call it; by default the name of the function or of its class.

    Raises
    ------
    ValueError : an empty name, a bare string for a tuple of names, a repeated component, no writes, or a machine that
        reads what it writes.

    Examples
    --------
    >>> f = Machine(torch.neg, reads=("x",), writes=("y",))
    >>> f.name, f.levels, f.depth
    ('neg', [['neg']], 1)
    """

    def __init__(
        self, function: Callable[..., Any], reads: Sequence[str], writes: Sequence[str], name: str | None = None
    ) -> None:
        nn.Module.__init__(self)
        self.function: Callable[..., Any]
        if not callable(function):
            raise ValueError(f"got {type(function).__name__} for a function: give something that can be called")
        if name is None:
            name = getattr(function, "__name__", type(function).__name__)
        node = graph.Node(name, reads, writes)  # type: ignore[arg-type]
        self.name, self.reads, self.writes = node.name, node.reads, node.writes
        self.__dict__["function"] = function  # registered below, by the machine's name, as in any sum
        self._set((self,))


def _step(machine: Machine, absent: set[str]) -> Step:
    """What the machine does to the state; ``absent``: the components that hold nothing yet."""

    def function(*xs: Tensor) -> list[Tensor]:
        versions, start = _versions(xs), torch._C._autograd._get_sequence_nr()
        ys = machine.function(*xs)
        if _versions(xs) != versions:
            raise ValueError(f"{machine.name} changes a tensor that it reads in place: let it return a new one instead")
        ys = [ys] if isinstance(ys, Tensor) else list(ys) if isinstance(ys, tuple | list) else [ys]
        if len(ys) != len(machine.writes):
            raise ValueError(
                f"{machine.name} returns {len(ys)} tensor{'s' * (len(ys) != 1)} and writes {len(machine.writes)} "
                f"component{'s' * (len(machine.writes) != 1)} ({', '.join(machine.writes)}): return one for each"
            )
        for component, y in zip(machine.writes, ys, strict=True):
            if not isinstance(y, Tensor):
                raise ValueError(f"{machine.name} returns {type(y).__name__} for {component}: return a tensor")
        # 0 + y, so that the solution never shares memory with what the function reads or holds; a result of its own is
        # left as it is, since autograd may have saved it, and a copy would be kept beside it
        owned = [_is_result(y, start) and not any(y is other for other in ys[:i]) for i, y in enumerate(ys)]
        writes = zip(machine.writes, ys, owned, strict=True)
        return [y.clone() if c in absent and not own else y for c, y, own in writes]

    return Step(machine.name, machine.reads, machine.writes, function)


def _is_result(y: Tensor, start: int) -> bool:
    """Whether ``y`` was computed since autograd's count stood at ``start``, and is no view of something else."""
    return y.grad_fn is not None and y.grad_fn._sequence_nr() >= start and y._base is None


def _versions(xs: Sequence[Tensor]) -> list[int]:
    return [x._version for x in xs if not x.is_inference()]


def depends_on(
    a: Any,
    b: Any,
    *,
    like: Tensor | Point | None = None,
    probes: int = 8,
    tolerance: float | None = None,
    seed: int = 0,
    structural: bool = True,
) -> bool:
    """Whether ``a`` depends on ``b`` (Definition 4): ``a(x_1 + λ b(x_2)) != a(x_1)`` somewhere.

    Two architectures are compared by structure: does one read what the other writes? Other callables ``X -> X`` are
    probed: by eq. 6, ``a`` depends on ``b`` where ``D a(x_1) b(x_2) != 0``, which forward-mode differentiation computes
    at random points. A dependence that is found is one; that none is found is a statement about the probes.

    Parameters
    ----------
    a, b : architectures, or callables that take and return an element of ``X``: a tensor, or a mapping of tensors from
        which components that are 0 may be left out. A plain number stands for a constant tensor.
    like : an element of ``X``, for its shapes, dtypes and devices; by default a vector of 4 numbers in float64.
    probes : number of pairs ``x_1, x_2``, standard normal.
    tolerance : how small a derivative along ``b(x_2)`` is 0, relative to one along a random direction of the same
        length; by default 1000 times the precision of the dtype.
    seed : of the random points.
    structural : ``False`` probes architectures too; ``like`` then names all components that they read or write.

    Raises
    ------
    ValueError : architectures are to be probed without ``like``, or ``like`` is not of a floating dtype.

    Examples
    --------
    The paper's example: ``f_1 f_2 = 0`` everywhere, and still ``f_1`` depends on ``f_2``.

    >>> f1, f2 = lambda x: x - 3, lambda x: torch.full_like(x, 3)
    >>> depends_on(f1, f2), depends_on(f2, f1)
    (True, False)
    """
    both = isinstance(a, Architecture), isinstance(b, Architecture)
    if all(both) and structural:
        return not {c for m in a.machines for c in m.reads}.isdisjoint(c for m in b.machines for c in m.writes)
    if like is None:
        if any(both):
            raise ValueError("got an architecture to probe and no like: give a tensor for each component")
        like = torch.zeros(4, dtype=torch.float64)
    space = dict(like) if isinstance(like, Mapping) else {"": like}
    for component, x in space.items():
        if not x.is_floating_point():
            raise ValueError(f"got {x.dtype} for like{component and f'[{component!r}]'}: give a floating dtype")
    bare = isinstance(like, Tensor)
    at, along = (_endofunction(f, space, bare) for f in (a, b))
    generator = torch.Generator().manual_seed(seed)

    def random() -> dict[str, Tensor]:
        return {
            c: torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device, x.dtype)
            for c, x in space.items()
        }

    if tolerance is None:
        tolerance = 1e3 * max(torch.finfo(x.dtype).eps for x in space.values())
    for _ in range(probes):
        x1, direction = random(), along(random())
        anywhere = random()
        derivative, reference = (_norm(torch.func.jvp(at, (x1,), (v,))[1]) for v in (direction, anywhere))
        if derivative * _norm(anywhere) > tolerance * reference * _norm(direction):
            return True
    return False


def _endofunction(f: Any, space: Point, bare: bool) -> Callable[[Point], dict[str, Tensor]]:
    """``f`` as a map of dictionaries that hold all components of ``X``."""

    def function(x: Point) -> dict[str, Tensor]:
        y = f.increment(x) if isinstance(f, Architecture) else f(x[""] if bare else x)
        y = {"": y} if bare else y
        if not isinstance(y, Mapping):
            y = dict.fromkeys(space, y)  # a plain number
        values: dict[str, Any] = {c: y.get(c, 0.0) for c in space}
        return {c: v if isinstance(v, Tensor) else torch.full_like(x[c], v) for c, v in values.items()}

    return function


def _norm(x: Point) -> float:
    return float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(v.double()) for v in x.values()])))
