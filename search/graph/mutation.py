"""Small random changes of a point of a graph space, natural for wirings, that stay in the space."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from search.graph.point import GraphPoint, Placed
from search.graph.space import GraphSpace
from search.graph.wiring import acyclic, pick, wired
from search.space import TRAINING

ATTEMPTS = 20  # to wire a new machine without a cycle


def mutate_graph(point: GraphPoint, space: GraphSpace, rng: np.random.Generator) -> GraphPoint:
    """One random mutation, of a kind drawn uniformly from those that this point and space allow.

    The kinds: add a machine or drop one; read one component more or less, or another one; write to one more or less, or
    to another; give a machine's place to another candidate; step what the point is trained with. In a space of one
    point the point itself comes back.

    Examples
    --------
    >>> from torch import nn
    >>> from search.graph.candidate import Candidate
    >>> space = GraphSpace((Candidate("bend", nn.Tanh, ("x", "h"), ("h", "y")),), learning_rates=(1e-2,))
    >>> through = GraphPoint((Placed("bend", 1, (("x",),), ("y",)),), ("x",), ("y",), 1e-2)
    >>> changed = [mutate_graph(through, space, np.random.default_rng(seed)).describe() for seed in range(20)]
    >>> sorted(set(changed))  # doctest: +NORMALIZE_WHITESPACE
    ['bend(h) → y', 'bend(x + h) → y', 'bend(x) → h', 'bend(x) → h, y', 'no way from x to y']
    """
    for kind in rng.permutation(len(_MUTATIONS)):
        changed: GraphPoint | None = _MUTATIONS[kind](point, space, rng)
        if changed is not None:
            return changed
    return point


# Each mutation gives the new point, or nothing where there is nothing to change.


def _add_machine(point: GraphPoint, space: GraphSpace, rng: np.random.Generator) -> GraphPoint | None:
    """A copy that is not there yet, wired in any way that closes no cycle; of a candidate as likely as of others."""
    there = {machine.name for machine in point.machines}
    absent = [(c, copy) for c in space.candidates for copy, name in enumerate(c.slots, start=1) if name not in there]
    candidates = list(dict.fromkeys(candidate for candidate, _ in absent))
    if not candidates:
        return None
    candidate = pick(candidates, rng)
    copy = next(copy for one, copy in absent if one is candidate)
    for _ in range(ATTEMPTS):
        new = wired(candidate, copy, space.fits_of(candidate), rng)
        if acyclic([*point.machines, new]):
            return space.arranged([*point.machines, new], point)
    return None


def _drop_machine(point: GraphPoint, space: GraphSpace, rng: np.random.Generator) -> GraphPoint | None:
    required = {candidate.name for candidate in space.candidates if candidate.required}
    free = [machine for machine in point.machines if machine.candidate not in required]
    if not free:
        return None
    dropped = pick(free, rng)
    return space.arranged([machine for machine in point.machines if machine is not dropped], point)


def _exchange_machine(point: GraphPoint, space: GraphSpace, rng: np.random.Generator) -> GraphPoint | None:
    """Another candidate, with the same reads and writes, where that fits."""
    there = {machine.name for machine in point.machines}
    required = {candidate.name for candidate in space.candidates if candidate.required}
    found = []
    for machine in point.machines:
        for candidate in space.candidates:
            if candidate.name == machine.candidate or machine.candidate in required:
                continue
            free = [copy for copy, name in enumerate(candidate.slots, start=1) if name not in there]
            new = replace(machine, candidate=candidate.name, copy=free[0]) if free else machine
            if free and len(candidate.ports) == len(machine.reads) and space.holds(_sorted(new, space)):
                found.append((machine, _sorted(new, space)))
    return _one_of(found, point, space, rng)


def _toggle_read(point: GraphPoint, space: GraphSpace, rng: np.random.Generator) -> GraphPoint | None:
    return _rewired(point, space, rng, lambda machine: _reads(machine, space, _toggled))


def _move_read(point: GraphPoint, space: GraphSpace, rng: np.random.Generator) -> GraphPoint | None:
    return _rewired(point, space, rng, lambda machine: _reads(machine, space, _moved))


def _toggle_write(point: GraphPoint, space: GraphSpace, rng: np.random.Generator) -> GraphPoint | None:
    return _rewired(point, space, rng, lambda machine: _writes(machine, space, _toggled))


def _move_write(point: GraphPoint, space: GraphSpace, rng: np.random.Generator) -> GraphPoint | None:
    return _rewired(point, space, rng, lambda machine: _writes(machine, space, _moved))


def _stepper(name: str, plural: str) -> "Mutation":
    """The mutation of a number to the choice before or after it."""

    def step(point: GraphPoint, space: GraphSpace, rng: np.random.Generator) -> GraphPoint | None:
        choices = getattr(space, plural)
        i = choices.index(getattr(point, name))
        near = [j for j in (i - 1, i + 1) if 0 <= j < len(choices)]
        return replace(point, **{name: choices[pick(near, rng)]}) if near else None

    return step


Mutation = Callable[[GraphPoint, GraphSpace, np.random.Generator], GraphPoint | None]
Change = Callable[[tuple[str, ...], tuple[str, ...]], Iterator[tuple[str, ...]]]
_MUTATIONS: tuple[Mutation, ...] = (
    _add_machine,
    _drop_machine,
    _exchange_machine,
    _toggle_read,
    _move_read,
    _toggle_write,
    _move_write,
    *(_stepper(name[:-1], name) for name in TRAINING),
)


def _toggled(some: tuple[str, ...], possible: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """With one more, or one less."""
    for one in possible:
        yield tuple(name for name in possible if (name in some) != (name == one))


def _moved(some: tuple[str, ...], possible: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """With another in place of one."""
    for old in some:
        for new in possible:
            if new not in some:
                yield tuple(name for name in possible if name == new or (name in some and name != old))


def _reads(machine: Placed, space: GraphSpace, change: Change) -> Iterator[Placed]:
    for i, (port, possible) in enumerate(zip(machine.reads, space.candidate(machine).ports, strict=True)):
        for new in change(port, possible):
            yield replace(machine, reads=(*machine.reads[:i], new, *machine.reads[i + 1 :]))


def _writes(machine: Placed, space: GraphSpace, change: Change) -> Iterator[Placed]:
    for new in change(machine.writes, space.candidate(machine).writes):
        yield replace(machine, writes=new)


def _rewired(
    point: GraphPoint, space: GraphSpace, rng: np.random.Generator, ways: Callable[[Placed], Iterator[Placed]]
) -> GraphPoint | None:
    """One machine wired otherwise, in one of these ways that the space holds."""
    return _one_of([(m, new) for m in point.machines for new in ways(m) if space.holds(new)], point, space, rng)


def _one_of(
    changes: list[tuple[Placed, Placed]], point: GraphPoint, space: GraphSpace, rng: np.random.Generator
) -> GraphPoint | None:
    """The point with one of its machines changed, where that closes no cycle."""
    possible = []
    for old, new in changes:
        machines = [new if machine is old else machine for machine in point.machines]
        if acyclic(machines):
            possible.append(machines)
    return space.arranged(pick(possible, rng), point) if possible else None


def _sorted(machine: Placed, space: GraphSpace) -> Placed:
    """Reads and writes in the order of the candidate, whose machine it has become."""
    candidate = space.candidate(machine)

    def arranged(some: tuple[str, ...], possible: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(some, key=lambda name: possible.index(name) if name in possible else len(possible)))

    reads = zip(machine.reads, candidate.ports, strict=False)
    return replace(
        machine,
        reads=tuple(arranged(port, possible) for port, possible in reads),
        writes=arranged(machine.writes, candidate.writes),
    )
