"""Graph spaces: any machines, with the components that they may read and write, wired in any way without a cycle."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from search.data.transform import GIVEN
from search.graph.candidate import Candidate, Fit
from search.graph.count import count_wirings
from search.graph.fit import check_names, fits, misfit
from search.graph.point import GraphPoint, Placed, canonical_graph
from search.graph.sample import draw_network
from search.graph.wiring import acyclic, bits, downstream, options, pick
from search.point import AnyPoint, hyperparameters
from search.shape import UNKNOWN, Shape
from search.space import TRAINING, Choice, Code, Space

if TYPE_CHECKING:
    from machgraph.architecture import Architecture

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
MOST_COMPONENTS = 62  # which are bits of a number
DRAWS = 1000  # of codes, until one leads from the inputs to the outputs
ENUMERATED = 20_000  # wirings up to which different networks are counted


@dataclass(frozen=True)
class GraphSpace:
    """Machines of one's own, and all the ways to wire them without a cycle.

    An architecture has some of the candidates; each reads some of the components that it may read, their sum being its
    argument, and what it returns is added to some of those that it may write. A component that nobody writes is 0. What
    is on no way from an input to an output is no part of the network, which is known by its `canonical` form.

    Parameters
    ----------
    candidates : the machines.
    inputs, outputs : the components that are given, and those that are the answer; none is both. Where data are
        learned, one each: rows of features, and logits or values ``(row, output)``.
    shapes : of components, without the axis of samples. Each candidate of whose components all are known is tried
        once on zeros of these shapes, and is only ever wired so that it fits; with none of them known, a wiring that
        does not fit is a trial that fails. Rows of features are given to the input in its shape. FLOPs, memory and
        latency need those of the inputs, which data tell.
    learning_rates, weight_decays, batch_sizes, transforms : as of `Space`.

    Raises
    ------
    ValueError : names that are there twice or nowhere, or a candidate that fits nowhere.

    Examples
    --------
    >>> from functools import partial
    >>> import torch
    >>> from torch import nn
    >>> space = GraphSpace(
    ...     candidates=(
    ...         Candidate("stem", partial(nn.Linear, 3, 8), reads=("x",), writes=("h",)),
    ...         Candidate("bend", nn.Tanh, reads=("h", "g"), writes=("h", "g"), copies=2),
    ...         Candidate("head", partial(nn.Linear, 8, 2), reads=("h", "g"), writes=("y",), required=True),
    ...     ),
    ...     shapes={"x": (3,), "h": (8,), "g": (8,), "y": (2,)},
    ...     learning_rates=(1e-2,),
    ... )
    >>> space.count(), space.count_classes()
    (42, 5)
    >>> point = space.sample(np.random.default_rng(11))
    >>> canonical_graph(point).describe()
    'stem(x), bend(stem), head(stem + bend) → y'
    >>> f = space.build(point, seed=0)
    >>> f.depth, f.resolvent({"x": torch.ones(5, 3)})["y"].shape
    (3, torch.Size([5, 2]))
    """

    candidates: tuple[Candidate, ...]
    inputs: tuple[str, ...] = ("x",)
    outputs: tuple[str, ...] = ("y",)
    shapes: Shapes | Mapping[str, Sequence[int]] = ()
    learning_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3, 8e-3)
    weight_decays: tuple[float, ...] = (0.3,)
    batch_sizes: tuple[int, ...] = (64,)
    transforms: tuple[str, ...] = (GIVEN,)

    def __post_init__(self) -> None:
        """Check, turn lists into tuples, and see what fits."""
        for name in ("candidates", "inputs", "outputs"):
            given = getattr(self, name)
            if isinstance(given, Candidate):
                raise ValueError(
                    f"got the candidate {given.name} alone: give a tuple of candidates, as ({given.name},)"
                )
            if isinstance(given, str) or not isinstance(given, Iterable) or not (given := tuple(given)):
                raise ValueError(f"got {name}={getattr(self, name)!r}: give a tuple with at least one")
            object.__setattr__(self, name, given)
        for candidate in self.candidates:
            if not isinstance(candidate, Candidate):
                raise ValueError(f"got {type(candidate).__name__} among the candidates: give search.Candidate")
        object.__setattr__(self, "shapes", _pairs(self.shapes))
        training = Space(max_blocks=0, **{name: getattr(self, name) for name in TRAINING})  # it has the same checks
        for name in TRAINING:
            object.__setattr__(self, name, getattr(training, name))
        if len(self.components) > MOST_COMPONENTS:
            raise ValueError(
                f"got {len(self.components)} components: at most {MOST_COMPONENTS} can be wired, so put some machines "
                "together"
            )
        check_names(self.candidates, self.inputs, self.outputs, self.components, [name for name, _ in self.known])
        if any(candidate.is_told for candidate in self.candidates):
            return  # read from a run's folder: nothing can be tried
        for candidate, some in zip(self.candidates, self.fits, strict=True):
            if not some:
                raise ValueError(f"{candidate.name} fits nowhere: {misfit(candidate, dict(self.known))}")
        if refused := self.refusal(self.sample(np.random.default_rng(0))):
            raise ValueError(f"got candidates of which no wiring is a network, as far as was tried: {refused}")

    @property
    def known(self) -> Shapes:
        """The shapes as pairs."""
        assert isinstance(self.shapes, tuple)  # since __post_init__
        return self.shapes

    @property
    def kind(self) -> Literal["graph"]:
        """Of its points."""
        return "graph"

    @property
    def components(self) -> tuple[str, ...]:
        """All names that candidates may read or write, the inputs first and the outputs last."""
        named = dict.fromkeys(self.inputs)
        for candidate in self.candidates:
            named |= dict.fromkeys(name for port in candidate.ports for name in port) | dict.fromkeys(candidate.writes)
        return tuple(name for name in named if name not in self.outputs) + self.outputs

    @property
    def shape(self) -> Shape:
        """How many numbers are given and answered in all; ``UNKNOWN`` where the shapes do not tell."""
        known = {name: int(np.prod(shape, dtype=int)) for name, shape in self.known}
        if not {*self.inputs, *self.outputs} <= known.keys():
            return UNKNOWN
        given, answer = (sum(known[name] for name in names) for names in (self.inputs, self.outputs))
        return Shape(given, answer)

    def has_sample(self, shape: Shape) -> bool:
        """Whether a sample can be made to measure on: the shapes of all inputs are known, or data of a shape tell."""
        known = {name for name, _ in self.known}
        return set(self.inputs) <= known or (len(self.inputs) == 1 and shape != UNKNOWN)

    @cached_property
    def fits(self) -> tuple[tuple[Fit, ...], ...]:
        """For each candidate the components that fit each other; all of them, where shapes are not known."""
        return tuple(fits(candidate, dict(self.known)) for candidate in self.candidates)

    @cached_property
    def parameters(self) -> Mapping[str, tuple[Choice, ...]]:
        """The names of the code and the choices of each, the same for every point.

        For each copy of a candidate: whether it is there, and for each component whether it is read, by which argument
        if there are several, and whether it is written; what can't be otherwise is left out.
        """
        found: dict[str, tuple[Choice, ...]] = {}
        for candidate, name, _ in self._places:
            if not candidate.required:
                found[name] = (False, True)
            for _, _, label in bits(candidate, name):
                found[label] = (False, True)
        return {**found, **{name[:-1]: getattr(self, name) for name in TRAINING}}

    @property
    def untrained(self) -> "GraphSpace":
        """The same with the first choice alone of all that concerns training, for whom no point tells of it."""
        return replace(self, **{name: getattr(self, name)[:1] for name in TRAINING})

    @cached_property
    def _places(self) -> tuple[tuple[Candidate, str, int], ...]:
        """All copies of all candidates, with their names and numbers: those that are required come first."""
        some = [(c, name, i) for c in self.candidates for i, name in enumerate(c.slots, start=1)]
        return tuple(sorted(some, key=lambda place: not place[0].required))

    def candidate(self, machine: Placed) -> Candidate:
        """Whose copy a machine is."""
        return next(candidate for candidate in self.candidates if candidate.name == machine.candidate)

    def fits_of(self, candidate: Candidate) -> tuple[Fit, ...]:
        """Which of its components fit each other."""
        return self.fits[self.candidates.index(candidate)]

    def encode(self, point: AnyPoint) -> Code:
        """The code of a point; what belongs to machines that it has not has its first choice.

        Raises
        ------
        ValueError : the point is not in the space.
        """
        if not isinstance(point, GraphPoint):
            raise ValueError(f"got a point of kind {point.kind!r}, which is not in the space: it has {self.kind!r}")
        code: Code = {name: choices[0] for name, choices in self.parameters.items()} | hyperparameters(point)
        machines = {machine.name: machine for machine in point.machines}
        for candidate, name, _ in self._places:
            if name not in machines:
                continue
            code |= {} if candidate.required else {name: True}
            for port, component, label in bits(candidate, name):
                there = machines[name].writes if port is None else machines[name].reads[port : port + 1]
                code[label] = component in (there if port is None else (there or ((),))[0])
        for name, value in code.items():
            if value not in self.parameters.get(name, ()):
                choices = self.parameters.get(name, "nothing of that name")
                raise ValueError(f"got a point with {name}={value!r}, which is not in the space: it has {choices}")
        if self.decode(code) != point:
            raise ValueError(f"got the point {point.describe()}, which is not in the space as it is written")
        return code

    def decode(self, code: Mapping[str, Choice]) -> GraphPoint:
        """The point of a code, machine by machine, the required ones first.

        Of what a machine is to read and write only what fits is left, and no more than it may; it reads and writes the
        first that fits where the code says nothing. What would close a cycle with the machines before it is not read,
        and a machine that is left with nothing to read is left out; a required one is wired in the first way that is
        possible.

        Raises
        ------
        ValueError : a name is missing.
        """
        missing = [name for name in self.parameters if name not in code]
        if missing:
            raise ValueError(f"got a code without {', '.join(missing)}: give every name of GraphSpace.parameters")
        found: list[Placed] = []
        for candidate, name, copy in self._places:
            if not (candidate.required or code[name]):
                continue
            wish: dict[int | None, list[str]] = {}
            for port, component, label in bits(candidate, name):
                wish.setdefault(port, []).extend([component] if code[label] else [])
            reads, writes = self._fitting(candidate, wish)
            after = downstream(found, writes)
            ports = tuple(
                tuple(component for component in port if component not in after)[: candidate.max_reads]
                for port in reads
            )
            if all(ports):
                found.append(Placed(candidate.name, copy, ports, writes))
            elif candidate.required:
                ways = options(candidate, copy, self.fits_of(candidate))
                found += next(([way] for way in ways if acyclic([*found, way])), [])
        return self._point(found, {name[:-1]: code[name[:-1]] for name in TRAINING})

    def arranged(self, machines: Sequence[Placed], point: GraphPoint) -> GraphPoint:
        """A point with these machines, and trained with the same."""
        return self._point(machines, hyperparameters(point))

    def _point(self, machines: Sequence[Placed], training: Mapping[str, Any]) -> GraphPoint:
        """The machines in the order of the candidates."""
        order = {name: i for i, name in enumerate(name for c in self.candidates for name in c.slots)}
        return GraphPoint(
            tuple(sorted(machines, key=lambda machine: order[machine.name])), self.inputs, self.outputs, **training
        )

    def _fitting(self, candidate: Candidate, wish: Mapping[int | None, Sequence[str]]) -> tuple[Any, tuple[str, ...]]:
        """What is to be read and written, as far as it fits: the most of the wish that does."""

        def kept(some: Sequence[str], port: int | None) -> tuple[str, ...]:
            return tuple(component for component in some if component in wish.get(port, ()))

        def number(fit: Fit) -> int:
            return sum(len(kept(some, port)) for port, some in enumerate(fit.ports)) + len(kept(fit.writes, None))

        fit = max(self.fits_of(candidate), key=number)  # the first of equal ones
        reads = tuple(kept(some, port) or some[:1] for port, some in enumerate(fit.ports))
        return reads, (kept(fit.writes, None) or fit.writes[:1])[: candidate.max_writes]

    def holds(self, machine: Placed) -> bool:
        """Whether a machine, a copy of a candidate, fits, and reads and writes no more than it may."""
        candidate = self.candidate(machine)
        most = [(port, candidate.max_reads) for port in machine.reads] + [(machine.writes, candidate.max_writes)]
        return all(0 < len(some) <= (limit or len(some)) for some, limit in most) and any(
            set(machine.writes) <= set(fit.writes)
            and all(set(port) <= set(some) for port, some in zip(machine.reads, fit.ports, strict=True))
            for fit in self.fits_of(candidate)
        )

    def refusal(self, point: GraphPoint) -> str:
        """Why a point is no network of the space: an output hears no input, or what is required is on no such way.

        Empty where it is one.
        """
        live = {machine.name for machine in canonical_graph(point).machines}
        if not live:
            return f"no way leads from {', '.join(self.inputs)} to {' and to '.join(self.outputs)}"
        absent = [name for candidate, name, _ in self._places if candidate.required and name not in live]
        return f"{', '.join(absent)}: required, and on no way from an input to an output" if absent else ""

    def count(self) -> int | None:
        """Number of points, exactly: all wirings without a cycle, those that lead nowhere too, times all choices of
        what is trained with. ``None`` where more than 7 components could be in a circle: then it is not known.
        """
        wirings = count_wirings(self.candidates, self.fits)
        return None if wirings is None else wirings * self._trainings

    def count_classes(self) -> int | None:
        """Number of different networks, exactly: of ``canonical(point)`` over all points that are networks. ``None``
        where there are more than 20,000 wirings to go through, or it is not known how many.
        """
        wirings = count_wirings(self.candidates, self.fits)
        if wirings is None or wirings > ENUMERATED:
            return None
        return len({canonical_graph(point) for point in self.wirings() if not self.refusal(point)}) * self._trainings

    def wirings(self) -> "list[GraphPoint]":
        """All points with the first choice of what is trained with: for small spaces."""
        some: list[list[Placed]] = [[]]
        for candidate, _, copy in self._places:
            ways = [[option] for option in options(candidate, copy, self.fits_of(candidate))]
            ways += [] if candidate.required else [[]]
            some = [[*machines, *way] for machines in some for way in ways if acyclic([*machines, *way])]
        return [self._point(machines, self._first) for machines in some]

    def sample(self, rng: np.random.Generator) -> GraphPoint:
        """A network drawn uniformly from the points that are some, by throwing away what closes a cycle or leads
        nowhere. Where that has left nothing of 66,112 wirings, one of random codes is taken, which close none.

        It is uniform over points, not over networks: one that can be written in many ways is drawn more often.
        """
        places = [(candidate, copy, self.fits_of(candidate)) for candidate, _, copy in self._places]
        machines = draw_network(places, self.inputs, self.outputs, rng)
        if machines is not None:
            return self._point(machines, self._training(rng))
        for _ in range(DRAWS):
            point = self.decode(self.draw(rng))
            if not self.refusal(point):
                break
        return point

    def draw(self, rng: np.random.Generator) -> Code:
        """A code with each parameter drawn uniformly from its choices."""
        return {name: choices[int(rng.integers(len(choices)))] for name, choices in self.parameters.items()}

    def build(self, point: GraphPoint, seed: int = 0) -> "Architecture":
        """The architecture of a point in canonical form, each module made anew under a seed of its own.

        A machine is called as its candidate, a second copy ``NAME_2``, and so is the component that it writes for
        others; inputs and outputs have the names that they have in the space. The seed of a module depends on ``seed``
        and on its name: whatever else there is, it begins with the same weights. Only what is drawn by torch's global
        generator can be seeded.

        Raises
        ------
        ValueError : the point is no network of the space.
        """
        from search.graph.network import build

        return build(self, point, seed)

    def describe(self) -> str:
        """In words."""
        copies = [f"{c.name}{f' (up to {c.copies})' * (c.copies > 1)}" for c in self.candidates]
        return f"{', '.join(copies)}, wired in any way from {', '.join(self.inputs)} to {', '.join(self.outputs)}"

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON can hold; what can't be stored, the factories, is told."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            **own,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "shapes": {name: list(shape) for name, shape in self.known},
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "GraphSpace":
        """The space that ``to_dict`` wrote: equal to it, but nothing can be built from it."""
        candidates = tuple(Candidate.from_dict(one) for one in record["candidates"])
        return cls(**{**record, "candidates": candidates})

    @property
    def _trainings(self) -> int:
        return int(np.prod([len(getattr(self, name)) for name in TRAINING], dtype=int))

    @property
    def _first(self) -> dict[str, Any]:
        return {name[:-1]: getattr(self, name)[0] for name in TRAINING}

    def _training(self, rng: np.random.Generator) -> dict[str, Any]:
        return {name[:-1]: pick(getattr(self, name), rng) for name in TRAINING}


def _pairs(shapes: Any) -> Shapes:
    """Shapes as pairs of a name and whole numbers; ValueError: something else."""
    try:
        pairs = dict(shapes).items()
    except (TypeError, ValueError):
        raise ValueError(f"got shapes={shapes!r}: give a mapping from components to tuples, as {{'x': (3,)}}") from None
    found = []
    for name, shape in pairs:
        if isinstance(shape, str) or not isinstance(shape, Sequence) or not all(map(_is_size, shape)):
            given = f"({shape},)" if _is_size(shape) else "(3,) or (1, 8, 8)"
            raise ValueError(f"got the shape {shape!r} of {name}: give a tuple of whole numbers from 1 on, as {given}")
        found.append((name, tuple(map(int, shape))))
    return tuple(found)


def _is_size(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0
