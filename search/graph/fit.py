"""Which components of a graph space fit which candidates, and whether its names make sense."""

from collections.abc import Mapping, Sequence

from machgraph.graph import near
from search.graph.candidate import Candidate, Fit
from search.graph.wiring import read_shapes

Shape = tuple[int, ...]


def fits(candidate: Candidate, shapes: Mapping[str, Shape]) -> tuple[Fit, ...]:
    """The components that fit a candidate and each other; all that it has, where not all their shapes are known.

    Its module is tried once for each choice of shapes of its arguments, on zeros.
    """
    from search.graph.network import tried  # here, for torch takes seconds to import

    names = {*candidate.writes, *(name for port in candidate.ports for name in port)}
    if not names <= shapes.keys():
        return (Fit(candidate.ports, candidate.writes),)
    found = []
    for given in read_shapes(candidate, shapes):
        got = tried(candidate, given)
        writes = tuple(name for name in candidate.writes if shapes[name] == got)
        ports = tuple(
            tuple(name for name in port if shapes[name] == shape)
            for port, shape in zip(candidate.ports, given, strict=True)
        )
        found += [Fit(ports, writes)] if writes else []
    return tuple(found)


def misfit(candidate: Candidate, shapes: Mapping[str, Shape]) -> str:
    """Why a candidate fits nothing."""
    from search.graph.network import tried

    told = []
    for given in read_shapes(candidate, shapes):
        got = tried(candidate, given)
        said = f"fails ({got})" if isinstance(got, str) else f"returns {got}"
        told.append(f"on {' and '.join(map(str, given))} it {said}")
    wish = ", ".join(f"{name} {shapes[name]}" for name in candidate.writes)
    return f"{'; '.join(told)}; it may write to {wish}"


def check_names(
    candidates: Sequence[Candidate],
    inputs: Sequence[str],
    outputs: Sequence[str],
    components: Sequence[str],
    shaped: Sequence[str],
) -> None:
    """ValueError: names that are there twice, are nowhere, or can come to nothing."""
    slots = [name for candidate in candidates for name in candidate.slots]
    twice = next((name for i, name in enumerate(slots) if name in slots[:i]), None)
    if twice:
        raise ValueError(f"two machines are called {twice}, copies among them: give each candidate its own name")
    clash = next((name for name in slots if name in components), None)
    if clash:
        raise ValueError(f"{clash} is a machine and a component: call one of them otherwise")
    both = [name for name in inputs if name in outputs]
    if both:
        raise ValueError(f"{both[0]} is an input and an output: let a machine write to another component")
    read = {component for c in candidates for port in c.ports for component in port}
    written = {component for c in candidates for component in c.writes}
    for name in inputs:
        if name not in read:
            raise ValueError(f"no candidate may read the input {name}{near(name, read)}: let one, or leave it out")
    for name in outputs:
        if name not in written:
            raise ValueError(f"no candidate may write the output {name}{near(name, written)}: let one, or leave it out")
    for name in sorted(read - written - set(inputs)):
        raise ValueError(
            f"{name} may be read, but no candidate may write it{near(name, {*written, *inputs})}: "
            "let one write it, or name it among the inputs"
        )
    for name in shaped:
        if name not in components:
            raise ValueError(f"got a shape of {name}, which no candidate reads or writes{near(name, components)}")
