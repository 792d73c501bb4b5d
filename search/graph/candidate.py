"""Candidates: machines of one's own that a search may use, with the components that each may read and write."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from math import comb
from typing import TYPE_CHECKING, Any

from machgraph.graph import Node
from search.graph.point import slot
from search.numbers import counted

if TYPE_CHECKING:
    from torch import nn

MOST = 1 << 20  # ways to choose what is read, or written
Ports = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Candidate:
    """A machine that an architecture may have: a module, what it may read, and what it may write.

    Parameters
    ----------
    name : of the machine, as Python names things; no component has it.
    make : is called for each architecture anew, under a seed of torch's, and returns a module with new weights.
    reads : the components that the module's argument may read; it gets the sum of some of them. Of a module with
        several arguments: for each argument its components, as in ``reads=(("x", "h"), ("gate",))``.
    writes : the components that what it returns may be added to.
    required : whether every architecture has it.
    copies : how many an architecture may have at most, each with weights of its own.
    max_reads, max_writes : of each argument, and of what it returns: how many components at most; ``None``: any number.
    described : what tells whether two factories make the same; it is worked out.

    Raises
    ------
    ValueError : names that are none, a number below 1, or a factory that gives no module.

    Examples
    --------
    >>> from functools import partial
    >>> from torch import nn
    >>> stem = Candidate("stem", partial(nn.Linear, 3, 8), reads=("x",), writes=("h",))
    >>> stem.described
    'torch.nn.modules.linear:Linear, 32 parameters, ...'
    """

    name: str
    make: "Callable[[], nn.Module]" = field(compare=False, repr=False)
    reads: tuple[str, ...] | Ports
    writes: tuple[str, ...]
    required: bool = False
    copies: int = 1
    max_reads: int | None = None
    max_writes: int | None = None
    described: str = ""

    def __post_init__(self) -> None:
        """Check, turn lists into tuples, and make a module to see what it is."""
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise ValueError(
                f"got {self.name!r} as the name of a candidate: give a name as Python has them, as 'conv2'"
            )
        if isinstance(self.reads, str):
            raise ValueError(f'{self.name} has reads="{self.reads}", a bare string: give a tuple, ("{self.reads}",)')
        single = all(isinstance(component, str) for component in self.reads)
        ports: Ports = ((*self.reads,),) if single else tuple((*port,) for port in self.reads)
        if single and not self.reads:
            raise ValueError(f"{self.name} may read nothing: name at least one component")
        if self.name in (*self.writes, *(component for port in ports for component in port)):
            raise ValueError(f"{self.name} is a candidate and a component: call one of them otherwise")
        for port in ports:  # refuses a bare string, and a name that is none or is there twice
            Node(self.name, port, (self.name,))
        Node(self.name, (), self.writes)
        if not all(ports):
            raise ValueError(f"{self.name} has an argument that may read nothing: name at least one component for each")
        object.__setattr__(self, "reads", ports[0] if single else ports)
        object.__setattr__(self, "writes", tuple(self.writes))
        for name in ("copies", "max_reads", "max_writes"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{self.name} has {name}={value!r}: it must be at least 1")
        for words, some, most in (
            *(("read", port, self.max_reads) for port in ports),
            ("write", self.writes, self.max_writes),
        ):
            if subsets(len(some), most) > MOST:
                raise ValueError(
                    f"{self.name} may {words} {len(some)} components in more than {MOST:,} ways: give max_{words}s"
                )
        if not self.described:
            object.__setattr__(self, "described", _described(self.name, self.make))

    @property
    def ports(self) -> Ports:
        """For each argument of the module, the components that it may read."""
        return self.reads if isinstance(self.reads[0], tuple) else (self.reads,)

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of its copies."""
        return tuple(slot(self.name, copy) for copy in range(1, self.copies + 1))

    @property
    def is_told(self) -> bool:
        """Whether it comes from a run's folder, so that nothing can be made."""
        return isinstance(self.make, _Told)

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON can hold: the factory is told, not stored."""
        reads = [list(port) if isinstance(port, tuple) else port for port in self.reads]
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "make"}
        return {**own, "reads": reads, "writes": list(self.writes)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Candidate":
        """The candidate that ``to_dict`` wrote, which is equal to it but can't make anything."""
        return cls(**{**record, "make": _Told(record["described"])})


@dataclass(frozen=True)
class _Told:
    """Stands for a factory that was only told."""

    described: str

    def __call__(self) -> "nn.Module":
        raise ValueError(
            f"{self.described} is a function of Python, which no run's folder holds: give the graph space again"
        )


def _described(name: str, make: "Callable[[], nn.Module]") -> str:
    """Where the factory is, and a digest of what it makes: the module's own text, and the shapes of its parameters."""
    import torch
    from torch.nn.parameter import is_lazy

    if not callable(make):
        raise ValueError(f"{name} has {type(make).__name__} for a factory: give a function that returns a module")
    if isinstance(make, torch.nn.Module):
        kind = type(make).__name__
        raise ValueError(
            f"{name} has a module for a factory: give a function that makes one, as functools.partial(nn.{kind}, ...)"
        )
    with torch.random.fork_rng(devices=[]):
        module = make()
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"the factory of {name} returned {type(module).__name__}: it must return a torch.nn.Module")
    made = getattr(make, "func", make)  # of functools.partial
    where = f"{getattr(made, '__module__', '')}:{getattr(made, '__qualname__', type(made).__qualname__)}"
    lazy = any(is_lazy(parameter) for parameter in module.parameters())
    shapes = [(n, "lazy" if is_lazy(p) else tuple(p.shape)) for n, p in module.named_parameters()]
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(module))
    digest = hashlib.sha256(f"{type(module).__qualname__} {text} {shapes}".encode()).hexdigest()[:8]
    size = "lazy" if lazy else counted(sum(p.numel() for p in module.parameters()), "parameter")
    return f"{where}, {size}, {digest}"


@dataclass(frozen=True)
class Fit:
    """Components that fit each other: each argument reads some of a port, and some of ``writes`` are written."""

    ports: Ports
    writes: tuple[str, ...]

    def options(self, candidate: Candidate) -> int:
        """How many wirings these leave a machine."""
        found = subsets(len(self.writes), candidate.max_writes)
        for port in self.ports:
            found *= subsets(len(port), candidate.max_reads)
        return found


def subsets(size: int, most: int | None) -> int:
    """Number of subsets that are not empty, and hold at most so many.

    >>> subsets(4, None), subsets(4, 2), subsets(0, None)
    (15, 10, 0)
    """
    return sum(comb(size, number) for number in range(1, min(size, size if most is None else most) + 1))
