"""From a point of a graph space to an architecture, to a network over rows of data, and to what it costs."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from time import perf_counter
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

from machgraph.architecture import Architecture, Machine
from search.graph.candidate import Candidate
from search.graph.point import GraphPoint, Placed, canonical_graph
from search.graph.space import GraphSpace
from search.shape import Shape

REPEATS = 20  # forward passes, of which the fastest is the latency
MISFITS = (RuntimeError, TypeError, ValueError, IndexError, AssertionError)  # what modules say to a wrong shape


class Wiring(nn.Module):
    """A module among components: each argument is a sum of what is read, and each write gets what is returned."""

    def __init__(self, module: nn.Module, machine: Placed) -> None:
        super().__init__()
        reads = machine.node.reads
        self.module = module
        self.terms = [[reads.index(component) for component in port] for port in machine.reads]
        self.writes = len(machine.writes)

    def forward(self, *read: Tensor) -> tuple[Tensor, ...]:
        """The module's answer, once for each component that is written."""
        arguments = []
        for first, *others in self.terms:
            argument = read[first]
            for i in others:
                if read[i].shape != argument.shape:  # else torch would broadcast one to the other
                    raise RuntimeError(f"it reads the sum of {tuple(argument.shape)} and {tuple(read[i].shape)}")
                argument = argument + read[i]
            arguments.append(argument)
        answer = self.module(*arguments)
        return (answer,) * self.writes


def build(space: GraphSpace, point: GraphPoint, seed: int) -> Architecture:
    """See ``GraphSpace.build``."""
    point = canonical_graph(point)
    if refused := space.refusal(point):
        raise ValueError(f"got a point that is no network of the space: {refused}")
    candidates = {candidate.name: candidate for candidate in space.candidates}
    machines = []
    for placed in point.machines:
        with seeded(np.random.SeedSequence((seed, crc32(placed.candidate.encode()), placed.copy))):
            module = candidates[placed.candidate].make()
        node = placed.node
        machines.append(Machine(Wiring(module, placed), node.reads, node.writes, node.name))
    return Architecture(machines)


def sketch(point: GraphPoint) -> Architecture:
    """The architecture of a point without its modules: what can be drawn and told, not computed."""
    nodes = [machine.node for machine in canonical_graph(point).machines]
    return Architecture([Machine(_untold, node.reads, node.writes, node.name) for node in nodes])


def _untold(*read: Tensor) -> Tensor:
    raise ValueError("got a sketch of an architecture, without its modules: build it from the graph space")


@contextmanager
def seeded(seed: np.random.SeedSequence) -> Iterator[None]:
    """Torch's global generator begun by a seed, and put back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_number(seed))
        yield


def _number(seed: np.random.SeedSequence) -> int:
    return int(seed.generate_state(1, np.uint64)[0] >> 1)


class Numbers:
    """Random numbers of one's own: of torch's global generator, and of the one of a device."""

    def __init__(self, seed: np.random.SeedSequence, device: str) -> None:
        self.devices = [torch.device(device)] if device.startswith("cuda") else []  # the CPU has the global one
        with torch.random.fork_rng(devices=self.devices):
            torch.default_generator.manual_seed(_number(seed))
            for one in self.devices:
                with torch.cuda.device(one):
                    torch.cuda.manual_seed(_number(seed))
            self._take_down()

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """What draws within goes on where it left off, and torch's generators are put back as they were."""
        with torch.random.fork_rng(devices=self.devices):
            torch.set_rng_state(self.state)
            for device, state in zip(self.devices, self.states, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
            self._take_down()

    def _take_down(self) -> None:
        self.state, self.states = torch.get_rng_state(), [torch.cuda.get_rng_state(one) for one in self.devices]


def tried(candidate: Candidate, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...] | str:
    """The shape of what a candidate returns for arguments of these shapes, without samples; or why it does not."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            answer = candidate.make().eval()(*(torch.zeros(2, *shape) for shape in shapes))
        except MISFITS as error:
            return str(error).strip().partition("\n")[0] or type(error).__name__
    if not isinstance(answer, Tensor):
        return f"it returns {type(answer).__name__} and not a tensor"
    if answer.dim() == 0 or len(answer) != 2:
        return f"it returns shape {tuple(answer.shape)} for 2 samples"
    return tuple(answer.shape[1:])


# ---- over rows of data -----------------------------------------------------------------------------------------------


class Network(nn.Module):
    """An architecture that reads rows of features and answers, ``(row, output)``.

    Parameters
    ----------
    architecture : with one component that is given, ``given``, and one that is the answer, ``answer``.
    size : of what a row is for the architecture, ``()`` as it is.
    """

    def __init__(self, architecture: Architecture, given: str, answer: str, size: tuple[int, ...]) -> None:
        super().__init__()
        self.architecture, self.given, self.answer, self.size = architecture, given, answer, size

    def forward(self, x: Tensor) -> Tensor:
        """What it says of rows of features."""
        laid_out = x.reshape(x.shape[0], *self.size) if self.size else x  # an exported program takes any number
        return self.architecture.resolvent({self.given: laid_out})[self.answer]

    def parameter_count(self) -> int:
        """Of all machines."""
        return sum(parameter.numel() for parameter in self.parameters())


def network(space: GraphSpace, point: GraphPoint, shape: Shape, seed: int) -> Network:
    """The network of a point for data of this shape.

    Raises
    ------
    ValueError : the point is no network of the space, or it does not fit the data, or its machines each other.
    """
    check_data(space, shape)
    made = Network(space.build(point, seed), space.inputs[0], space.outputs[0], row_size(space, shape))
    with torch.no_grad(), seeded(np.random.SeedSequence(seed)):  # lazy weights get theirs now
        said = made.eval()(torch.zeros(2, shape.inputs))
    if said.shape != (2, shape.outputs):
        raise ValueError(
            f"{made.answer} has shape {tuple(said.shape[1:])} for a sample: the data need ({shape.outputs},)"
        )
    return made.train()


def check_data(space: GraphSpace, shape: Shape) -> None:
    """ValueError: the inputs and outputs of the space are none that data of this shape can have."""
    if len(space.inputs) != 1 or len(space.outputs) != 1:
        raise ValueError(
            f"got inputs {', '.join(space.inputs)} and outputs {', '.join(space.outputs)}: a search on data has one of "
            "each; for others give search.optimize a function of your own"
        )
    known = dict(space.known)
    for name, expected in ((space.inputs[0], shape.inputs), (space.outputs[0], shape.outputs)):
        if name in known and prod(known[name]) != expected:
            raise ValueError(f"{name} has shape {known[name]}, and the data have {expected} numbers a row: give these")
    if known.get(space.outputs[0], (shape.outputs,)) != (shape.outputs,):
        raise ValueError(f"{space.outputs[0]} has shape {known[space.outputs[0]]}: the data need ({shape.outputs},)")


def row_size(space: GraphSpace, shape: Shape) -> tuple[int, ...]:
    """What a row of features is for the architecture: as the space says, or the image that it is, or a vector."""
    return dict(space.known).get(space.inputs[0], shape.image)


# ---- what it costs ---------------------------------------------------------------------------------------------------


def measures(space: GraphSpace, point: GraphPoint, shape: Shape, names: Iterable[str]) -> dict[str, float]:
    """What a network costs, measured on one sample of zeros: as ``search.objectives.measures``; what can't be known
    is left out.
    """
    found = dict(_measured(space, canonical_graph(point), shape))
    if "latency" in names and "flops" in found:
        found["latency"] = _latency(space, point, shape)
    return {name: found[name] for name in names if name in found}


def unmeasured(space: GraphSpace, shape: Shape, names: Iterable[str]) -> list[str]:
    """Those of the measures that can't be known of any network, or not of each: without shapes nothing can be run."""
    if space.has_sample(shape):
        return []
    with torch.random.fork_rng(devices=[]):
        weights = [weight for candidate in space.candidates for weight in candidate.make().parameters()]
    unknown = {"flops", "memory", "latency", *(["parameters"] if any(map(is_lazy, weights)) else [])}
    return [name for name in names if name in unknown]


@lru_cache(maxsize=1 << 12)
def _measured(space: GraphSpace, point: GraphPoint, shape: Shape) -> tuple[tuple[str, float], ...]:
    found: dict[str, float] = {"depth": point.depth}
    if space.refusal(point):
        return tuple(found.items())
    architecture, given = space.build(point).eval(), _sample(space, shape)
    if given is not None:
        try:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                h = architecture.resolvent(given)
        except ValueError:  # it does not fit
            return tuple(found.items())
        weights = [*architecture.parameters(), *architecture.buffers()]
        found["flops"] = counter.get_total_flops()
        found["memory"] = sum(tensor.nbytes for tensor in (*weights, *h.values()))
    if not any(is_lazy(parameter) for parameter in architecture.parameters()):
        found["parameters"] = sum(parameter.numel() for parameter in architecture.parameters())
    return tuple(found.items())


def _sample(space: GraphSpace, shape: Shape) -> dict[str, Tensor] | None:
    """One sample of zeros, if the shapes of all inputs are known."""
    if not space.has_sample(shape):
        return None
    known, laid_out = dict(space.known), shape.image or (shape.inputs,)
    return {name: torch.zeros(1, *known.get(name, laid_out)) for name in space.inputs}


def _latency(space: GraphSpace, point: GraphPoint, shape: Shape) -> float:
    """Milliseconds of a forward pass on one sample."""
    architecture, given = space.build(point).eval(), _sample(space, shape)
    assert given is not None
    times = []
    with torch.no_grad():
        for _ in range(REPEATS + 2):  # the first ones set things up
            began = perf_counter()
            architecture.resolvent(given)
            times.append(perf_counter() - began)
    return 1e3 * min(times[2:])
