"""Machines, their sums, and the loop that solves them (sections 2.1 to 2.3).

``R_f = (id + f_n) ... (id + f_1)``: in the order of the dependency graph, each machine adds what it writes to what is
there, and all that it reads is final when its turn comes. The backward is the dual machine (Theorem 3),
``(R_f)* = (id + Df_1*) ... (id + Df_n*)``: the same loop in the reversed order, with the adjoint of each machine at the
solution, which autograd has recorded. Autograd runs it, the machine that came last first, and each once, since only it
knows all that an arbitrary function closes over.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import count
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn

from machgraph import cofiltration, graph, step

Point = Mapping[str, Tensor]  # an element of machine space: a tensor for each component, absent for 0


class Architecture(nn.Module):
    """A sum of machines, ``f = f_1 + ... + f_n``, solved in the order of its dependency graph (Theorem 2).

    Parameters
    ----------
    machines : machines and sums of them. ``f + g`` and ``sum([f, g])`` make one too.

    Raises
    ------
    ValueError : something else than machines, two of one given name, or machines that depend on each other.

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

    def __init__(self, machines: "Iterable[Architecture]", *others: object) -> None:
        super().__init__()
        if others or not isinstance(machines, Iterable):
            raise ValueError("got machines that are not in a list: give one, Architecture([f, g]), or add them, f + g")
        summands = list(machines)
        if not summands:
            raise ValueError("got no machines: an architecture is the sum of at least one")
        for summand in summands:
            if not isinstance(summand, Architecture):
                got = type(summand).__name__
                raise ValueError(f"got {got} among the machines: wrap it, Machine(function, reads=..., writes=...)")
        first, *rest = summands
        self._machines: dict[str, Machine]
        self._readers: dict[str, tuple[str, ...]]
        self._keys: dict[str, str]  # of the machines that are modules: where those are registered
        # the first summand is taken over as it is, so that a sum of many looks at each machine once
        self._machines, self._readers, self._keys = dict(first._machines), dict(first._readers), dict(first._keys)
        self._modules.update(first._modules)
        added = [self._add(machine) for summand in rest for machine in summand.machines]
        if graph.has_cycle(added, self._machines, self._readers):
            graph.dependency_graph([machine.node for machine in self._machines.values()])  # says which

    def _add(self, machine: "Machine") -> str:
        if machine.name in self._machines:
            if machine._default_name is None:
                raise ValueError(graph.twice(machine.name))
            numbered = (f"{machine._default_name}_{i}" for i in count(2))
            free = next(name for name in numbered if name not in self._machines)
            machine = machine._but(machine.function, free)
        name = machine.name
        self._machines[name] = machine
        for component in machine.reads:
            self._readers[component] = (*self._readers.get(component, ()), name)
        self._register(name, machine.function)
        return name

    def _register(self, name: str, function: Callable[..., Any]) -> None:
        """Have a machine's parameters, if it is a module."""
        if isinstance(function, nn.Module):
            key = name.replace(".", "_")  # torch takes no dots in the name of a module
            while hasattr(Machine, key) or key in self.__dict__ or key in self._modules:
                key += "_"
            self.add_module(key, function)
            self._keys[name] = key

    def _function(self, name: str) -> Callable[..., Any]:
        """Modules are looked up when they run, so that one that was replaced since counts."""
        key = self._keys.get(name)
        return self._machines[name].function if key is None else self._modules[key]  # type: ignore[return-value]

    @property
    def machines(self) -> "tuple[Machine, ...]":
        """The summands in the order in which they were given; those without a name of their own may be numbered."""
        functions = {name: self._function(name) for name in self._machines}
        return tuple(
            m if m.function is functions[m.name] else m._but(functions[m.name]) for m in self._machines.values()
        )

    @cached_property
    def graph(self) -> nx.DiGraph:
        """Frozen ``networkx.DiGraph`` over their names; an edge ``a -> b`` where ``b`` reads what ``a`` writes."""
        return graph.dependency_graph([machine.node for machine in self._machines.values()])

    @cached_property
    def _order(self) -> tuple[str, ...]:
        return tuple(graph.order(self.graph))

    @property
    def order(self) -> list[str]:
        """Names in the order of execution, ``R_f = R_fn ... R_f1``."""
        return list(self._order)

    @property
    def levels(self) -> list[list[str]]:
        """Names by level; a level depends on earlier ones alone."""
        return graph.levels(self.graph)

    @property
    def depth(self) -> int:
        """Number of levels."""
        return len(self.levels)

    @property
    def cofiltration(self) -> list[frozenset[str]]:
        """``V_0 ⊇ ... ⊇ V_d``, the components that a machine on a level above ``i`` still writes."""
        return cofiltration.cofiltration(self.levels, {name: m.writes for name, m in self._machines.items()})

    @property
    def components(self) -> tuple[str, ...]:
        """Names of all components that the machines read or write."""
        return tuple(dict.fromkeys(c for m in self._machines.values() for c in (*m.reads, *m.writes)))

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
        ValueError : a component is absent, read and not written; or a machine fails on what it reads, changes it in
            place, or returns too few or too many tensors, or one that does not fit the component that it writes.
        """
        self._check(g, self._order, {c for machine in self._machines.values() for c in machine.writes})
        with step.versions_counted():
            h = {component: x.clone() for component, x in g.items()}
            for name in self._order:
                step.accumulate(self._machines[name].node, self._function(name), h, into=h)
        return h

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
        names = self._order if machines is None else tuple(machines)
        self._check(x, names)
        y: dict[str, Tensor] = {}
        with step.versions_counted():
            own = {component: x[component].clone() for name in names for component in self._machines[name].reads}
            for name in names:
                step.accumulate(self._machines[name].node, self._function(name), own, into=y)
        return y

    def dual(self, h: Point) -> "Architecture":
        """The dual machine at a solution: the same sum with each machine's adjoint at ``h`` (Theorem 3).

        Its graph is the reversed one, and its resolvent takes cotangents of ``h`` to cotangents of ``g``. Machines that
        read nothing have the adjoint 0 and are left out.

        Each function is evaluated once more, on what it reads of ``h``, by ``torch.func.vjp``. So the resolvent of the
        dual is the backward of ``resolvent``, which evaluates nothing again, for functions that give the same value
        each time: dropout is drawn anew here.

        Parameters
        ----------
        h : the solution, or any other point at which to linearize.

        Raises
        ------
        ValueError : a machine reads what is no real or complex number, or ``torch.func.vjp`` fails on it, as on batch
            norm in training.

        Examples
        --------
        >>> f = Machine(torch.sin, ("x",), ("y",)) + Machine(lambda y: 3 * y, ("y",), ("z",), name="triple")
        >>> dual = f.dual(f.resolvent({"x": torch.tensor(0.0)}))
        >>> dual.order
        ['triple*', 'sin*']
        >>> dual.resolvent({"z": torch.tensor(1.0)})["x"]  # 3 cos 0
        tensor(3.)
        """
        self._check(h, self._order)
        return Architecture(_adjoint(machine, h) for machine in self.machines if machine.reads)

    def completed(self, g: Point) -> dict[str, Tensor]:
        """``g`` with a 0 for each component that it lacks and a machine writes, of the shape that is written there."""
        missing = [c for c in self.components if c not in g and c in self.cofiltration[0]]
        if not missing:
            return dict(g)
        with torch.no_grad():
            h = self.resolvent(g)
        return {**g, **{component: torch.zeros_like(h[component]) for component in missing}}

    def _check(self, g: Point, names: Iterable[str], written: Collection[str] = ()) -> None:
        if not isinstance(g, Mapping):
            raise ValueError(f"got {type(g).__name__}: give a mapping from the names of components to tensors")
        for component, x in g.items():
            if not isinstance(x, Tensor):
                raise ValueError(f"got {type(x).__name__} for {component}: give a tensor")
        for name in names:
            for component in self._machines[name].reads:
                if component not in g and component not in written:
                    why = "" if component in self.cofiltration[0] else " and no machine writes"
                    raise ValueError(
                        f"{name} reads {component}, which is absent{why}: give it a tensor; "
                        f"got {', '.join(g) or 'nothing'}{graph.near(component, g)}"
                    )

    def extra_repr(self) -> str:
        """One line a machine: what it reads and what it writes."""
        lines = (f"{m.name}: {', '.join(m.reads)} -> {', '.join(m.writes)}" for m in self._machines.values())
        return "\n".join(lines)


class Machine(Architecture):
    """A machine of depth 1: a map that reads some components and adds to others. A sum of one, with its whole face.

    Parameters
    ----------
    function : any callable or module. It gets its reads as positional arguments and returns its writes in order; for
        one write it may return the bare tensor. Modules are registered, so that ``parameters()`` holds theirs.
    reads : components that it looks at.
    writes : components that it adds to, none of them read.
    name : how order, levels and errors call it; by default the name of the function or of its class, which a sum
        numbers where it is taken.

    Raises
    ------
    ValueError : an empty name, a bare string for a tuple of names, a repeated component, no writes, or a machine that
        reads what it writes.

    Examples
    --------
    >>> f = Machine(torch.neg, reads=("x",), writes=("y",))
    >>> f.name, f.levels, f.depth
    ('neg', [['neg']], 1)
    >>> (f + Machine(torch.neg, reads=("y",), writes=("z",))).order
    ['neg', 'neg_2']
    """

    def __init__(
        self, function: Callable[..., Any], reads: Sequence[str], writes: Sequence[str], name: str | None = None
    ) -> None:
        nn.Module.__init__(self)
        if not callable(function):
            raise ValueError(f"got {type(function).__name__} for a function: give something that can be called")
        self._default_name = getattr(function, "__name__", type(function).__name__) if name is None else None
        self._node = graph.Node(self._default_name if name is None else name, reads, writes)  # type: ignore[arg-type]
        self.__dict__["_callable"] = function  # a module is registered below, by the machine's name, as in any sum
        self._readers, self._keys = dict.fromkeys(self.reads, (self.name,)), {}
        self._register(self.name, function)

    @property
    def _machines(self) -> "dict[str, Machine]":  # type: ignore[override]
        """Itself alone, which it does not hold: what an adjoint keeps of a graph is free as soon as nobody holds it."""
        return {self.name: self}

    @property
    def node(self) -> graph.Node:
        """The machine as its graph sees it."""
        return self._node

    @property
    def name(self) -> str:
        """How order, levels and errors call it."""
        return self._node.name

    @property
    def reads(self) -> tuple[str, ...]:
        """Components that it looks at."""
        return self._node.reads

    @property
    def writes(self) -> tuple[str, ...]:
        """Components that it adds to."""
        return self._node.writes

    @property
    def function(self) -> Callable[..., Any]:
        """What it was given, or the module that has replaced it since."""
        key = self._keys.get(self.name)
        return self.__dict__["_callable"] if key is None else self._modules[key]  # type: ignore[return-value]

    def _but(self, function: Callable[..., Any], name: str | None = None) -> "Machine":
        machine = Machine(function, self.reads, self.writes, name or self.name)
        machine._default_name = self._default_name
        return machine


def _adjoint(machine: Machine, h: Point) -> Machine:
    def function(*xs: Tensor) -> tuple[Tensor, ...]:
        ys = machine.function(*xs)
        return (ys,) if isinstance(ys, Tensor) else tuple(ys)

    for component in machine.reads:
        if not (h[component].is_floating_point() or h[component].is_complex()):
            raise ValueError(
                f"{machine.name} reads {component} of {h[component].dtype}, along which nothing has a derivative: "
                "take the dual of a sum without this machine, or the gradient by backward()"
            )
    try:
        pull = torch.func.vjp(function, *(h[component] for component in machine.reads))[1]
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        raise ValueError(
            f"{machine.name} has no adjoint, since torch.func.vjp fails on it ({reason}): let it change nothing that "
            "it holds, as modules in eval() do, or take the gradient by backward()"
        ) from error
    return Machine(lambda *v: pull(v), machine.writes, machine.reads, f"{machine.name}*")
