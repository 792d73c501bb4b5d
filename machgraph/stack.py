"""Machines of a population stacked along the first axis of the global tensor, in plain torch, on any device.

Candidates of different partitions, shortcuts and activations share one index space. Block ``i`` of a candidate lies in
slot ``i``, which is as wide as the widest such block; the output has the last slot; what a candidate lacks is zero and
stays zero. The plan is that of the union of all masks, so that each product of the loop is one batched product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from machgraph.activation import Activation
from machgraph.compiled_training import Measured, Values
from machgraph.parametric_machine import ParametricMachine
from machgraph.partition import Partition
from machgraph.plan import Plan
from machgraph.resolvent import resolvent
from machgraph.training import Batches, Objective, read_positions

if TYPE_CHECKING:
    from machgraph.population import Candidate, Rates


@dataclass(frozen=True)
class State:
    """What one candidate has learned, in its own index space: weight and bias, and of each the two running means.

    Shapes are ``[tap, channel_out, channel_in]`` and ``[channel]``.
    """

    weight: Tensor
    bias: Tensor
    weight_first: Tensor
    weight_second: Tensor
    bias_first: Tensor
    bias_second: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of it, in order."""
        return (
            self.weight, self.bias, self.weight_first, self.weight_second, self.bias_first, self.bias_second,
        )  # fmt: skip


class StackedTrainer:
    """Stacks of candidates, one for each shape of kernel, input and output; anew when somebody enters or leaves."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.states: dict[Candidate, State] = {}  # of those that are in no stack yet
        self.stacks: list[Stack] = []

    def __getstate__(self) -> dict[str, Any]:
        """For copies: what the candidates have learned; stacks are made anew."""
        self._unstack()
        return self.__dict__

    def enter(self, candidate: "Candidate") -> None:
        """Begin with the machine's present weights."""
        self._unstack()
        machine = candidate.machine
        weight = machine.matrices(machine.weight.detach()).clone(memory_format=torch.contiguous_format)
        bias = torch.zeros_like(weight[0, 0]) if machine.bias is None else machine.bias.detach().clone()
        means = [torch.zeros_like(x) for x in (weight, weight, bias, bias)]
        self.states[candidate] = State(weight, bias, *means)

    def leave(self, candidates: "Sequence[Candidate]") -> None:
        """Forget these."""
        leaving = [c for c in candidates if c in self.states or any(c in stack.candidates for stack in self.stacks)]
        if leaving:
            self._unstack()
            for candidate in leaving:
                del self.states[candidate]

    def descend(self, data: Batches, rates: "Rates") -> "dict[Candidate, float]":
        """One step on each batch; the mean losses."""
        self._stack()
        losses: dict[Candidate, float] = {}
        for stack in self.stacks:
            began = perf_counter()
            losses |= stack.descend(data, rates)
            stack.share(perf_counter() - began)
        return losses

    def measure(self, parts: Sequence[Batches], sharpness: Values) -> "dict[Candidate, Measured]":
        """Mean losses, fractions of hits, and the losses of outputs that are multiplied with each sharpness."""
        self._stack()
        results: dict[Candidate, Measured] = {}
        for stack in self.stacks:
            began = perf_counter()
            results |= stack.measure(parts, sharpness)
            stack.share(perf_counter() - began)
        return results

    def weights(self, candidate: "Candidate") -> tuple[Tensor, Tensor | None]:
        """Copies, in the shapes of the machine."""
        if candidate in self.states:
            state = self.states[candidate]
        else:
            (stack,) = [stack for stack in self.stacks if candidate in stack.candidates]
            state = stack.state(candidate)
        machine = candidate.machine
        weight = state.weight.movedim(0, -1).reshape(machine.weight.shape).clone()
        return weight, None if machine.bias is None else state.bias.clone()

    def take(self, candidate: "Candidate") -> None:
        """Go on from the machine's present weights."""
        self._unstack()
        machine, state = candidate.machine, self.states[candidate]
        state.weight.copy_(machine.matrices(machine.weight.detach()))
        if machine.bias is not None:
            state.bias.copy_(machine.bias.detach())

    def _unstack(self) -> None:
        for stack in self.stacks:
            self.states |= {candidate: stack.state(candidate) for candidate in stack.candidates}
        self.stacks = []

    def _stack(self) -> None:
        groups: dict[Any, dict[Candidate, State]] = {}
        for candidate, state in self.states.items():
            groups.setdefault(_geometry(candidate), {})[candidate] = state
        self.stacks += [Stack(group, self.objective) for group in groups.values()]
        self.states = {}


class Stack:
    """Candidates of one geometry, as one machine of the union of their masks.

    Parameters
    ----------
    states : of each candidate, at least one.
    objective : what they descend on.
    """

    def __init__(self, states: "dict[Candidate, State]", objective: Objective) -> None:
        self.candidates, self.objective = list(states), objective
        machines = [candidate.machine for candidate in self.candidates]
        first, *_, last = machines[0].partition.widths
        hidden = [machine.partition.widths[1:-1] for machine in machines]
        slots = [max(w[i] for w in hidden if i < len(w)) for i in range(max(map(len, hidden)))]
        self.partition = Partition((first, *slots, last))
        self.index = [self._channels(machine) for machine in machines]
        like, size = next(iter(states.values())).weight, self.partition.size
        weight, bias = (len(like), size, size), (size,)
        stacked = [like.new_zeros(len(machines), *shape) for shape in (weight, bias, weight, weight, bias, bias)]
        self.mask, self.bias_mask = torch.zeros_like(stacked[0]), torch.zeros_like(stacked[1])
        for p, (state, machine, index) in enumerate(zip(states.values(), machines, self.index, strict=True)):
            for whole, own in zip(stacked, state.tensors, strict=True):
                whole[p][_place(index, own)] = own
            mask = machine.matrices(torch.from_numpy(machine.weight_mask).to(like))
            self.mask[p][_place(index, mask)] = mask
            if machine.bias is not None:
                alone = not machine.shortcuts[..., 0, :].any()  # then the input's bias is not trained: see Population
                self.bias_mask[p][index[first if alone else 0 :]] = 1
        stacked[0].masked_fill_(self.mask == 0, 0)  # the plan reads what any of the masks has
        self.weight, self.bias, *self.means = stacked
        self.steps = like.new_tensor([candidate.steps for candidate in self.candidates])
        options = [candidate.optimizer for candidate in self.candidates]
        self.kind = options[0].kind
        betas = [(option.momentum, 0.0) if self.kind == "sgd" else option.betas for option in options]
        self.settings = like.new_tensor(
            [[o.learning_rate, o.weight_decay, *b, o.epsilon] for o, b in zip(options, betas, strict=True)]
        ).T
        names = [self._activations(machine) for machine in machines]
        self.activations = tuple(_mixed(row, like.device) for row in zip(*names, strict=True))
        self.captured: dict[Any, _Captured] = {}
        self.plans: dict[tuple[int, ...], tuple[Plan, Tensor]] = {}

    def state(self, candidate: "Candidate") -> State:
        """Copies of what a candidate has learned."""
        p = self.candidates.index(candidate)
        tensors = (self.weight, self.bias, *self.means)
        taken = [whole[p] for whole in tensors]
        return State(*[whole[_place(self.index[p], whole)].clone() for whole in taken])

    def share(self, seconds: float) -> None:
        """Let the candidates share the time."""
        for candidate in self.candidates:
            candidate.seconds += seconds / len(self.candidates)

    def descend(self, data: Batches, rates: "Rates") -> "dict[Candidate, float]":
        """One step on each batch; the mean losses."""
        total = self.weight.new_zeros(len(self.candidates))
        factors = total.new_tensor(np.stack([rates[candidate] for candidate in self.candidates], axis=1))
        done = 0
        try:
            for inputs, targets, rate in zip(data.inputs, data.targets, factors, strict=True):
                batch = inputs, targets, rate
                if self.weight.is_cuda:
                    key = data.size, inputs.shape, targets.shape
                    with torch.cuda.device(self.weight.device):  # streams and graphs are those of the current one
                        if key not in self.captured:
                            self.captured[key] = _Captured(self, data.size, batch)
                        total += self.captured[key].replay(batch)
                else:
                    total += self.step(data.size, batch)
                done += 1
        finally:
            for candidate in self.candidates:
                candidate.steps += done
        return dict(zip(self.candidates, (total / len(data)).tolist(), strict=True))

    def step(self, size: tuple[int, ...], batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """One step of all candidates on a batch (inputs, targets, factors of the learning rates).

        The losses before it are returned. Nothing in it waits for the device.
        """
        inputs, targets, rate = batch
        weight, bias = self.weight.detach().requires_grad_(), self.bias.detach().requires_grad_()
        outputs = self._outputs(weight, bias, inputs, size)
        losses = self._losses(outputs, targets, self.objective.label_smoothing)
        gradients = torch.autograd.grad(losses.sum(), (weight, bias))
        self._step(gradients[0] * self.mask, gradients[1] * self.bias_mask, rate)
        return losses.detach()

    def measure(self, parts: Sequence[Batches], sharpness: Values) -> "dict[Candidate, Measured]":
        """Mean losses, fractions of hits, and the losses of outputs that are multiplied with each sharpness."""
        total = self.weight.new_zeros(2 + len(sharpness), len(self.candidates))
        with torch.no_grad():
            for data in parts:
                for inputs, targets in zip(data.inputs, data.targets, strict=True):
                    outputs = self._outputs(self.weight, self.bias, inputs, data.size)
                    hits = (outputs.argmax(1) == targets).to(outputs).mean(-1) if targets.dim() == 1 else 0 * total[1]
                    sharper = [self._losses(factor * outputs, targets, 0.0) for factor in sharpness.tolist()]
                    total += inputs.shape[-1] * torch.stack([self._losses(outputs, targets, 0.0), hits, *sharper])
        total /= sum(data.samples for data in parts)
        rows = total.T.cpu().double().numpy()  # not every device has double precision
        return {c: (float(row[0]), float(row[1]), row[2:]) for c, row in zip(self.candidates, rows, strict=True)}

    def _outputs(self, weight: Tensor, bias: Tensor, inputs: Tensor, size: tuple[int, ...]) -> Tensor:
        """Where the last block is read, ``[candidate, output, position * sample]``."""
        if size not in self.plans:
            self.plans[size] = self._plan(size)
        plan, heard = self.plans[size]
        samples = inputs.shape[-1]
        padding = (0, 0, *[side for margin in reversed(plan.margins) for side in margin])
        y0 = F.pad(inputs.reshape(len(inputs), *size, samples), padding).reshape(1, len(inputs), -1)
        y0 = F.pad(y0, (0, plan.positions * samples - y0.shape[-1]))  # coarser grids
        _, z = resolvent(plan, self.activations, weight, bias, y0.expand(len(self.candidates), -1, -1))
        outputs = z[:, self.partition.block(-1)]
        outputs = outputs.view(*outputs.shape[:2], plan.positions, samples)[:, :, heard]
        return outputs.flatten(-2) if self.objective.reading == "each" else outputs.mean(2)

    def _losses(self, outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """Of each candidate, the mean over samples."""
        if self.objective.loss == "squared_error":
            return (outputs - targets).square().mean((1, 2))
        many = targets.expand(len(outputs), -1)
        return F.cross_entropy(outputs, many, reduction="none", label_smoothing=smoothing).mean(-1)

    def _step(self, weight_gradient: Tensor, bias_gradient: Tensor, rate: Tensor) -> None:
        """One step of every candidate's optimizer, each with its own settings; as in torch.optim."""
        self.steps += 1
        weight_first, weight_second, bias_first, bias_second = self.means
        for p, g, m, s in (
            (self.weight, weight_gradient, weight_first, weight_second),
            (self.bias, bias_gradient, bias_first, bias_second),
        ):
            settings = self.settings.view(5, -1, *[1] * (p.dim() - 1))
            step, (learning_rate, decay, first, second, epsilon) = self.steps.view_as(settings[0]), settings
            pace, held = rate.view_as(step) * learning_rate, self.mask if p is self.weight else self.bias_mask
            if self.kind == "sgd":
                g = g + decay * p * held
                m.copy_(torch.where(step == 1, g, first * m + g))
                p.sub_(pace * m)
                continue
            if self.kind == "adamw":
                p.mul_(1 - pace * decay * held)
            else:
                g = g + decay * p * held
            m.lerp_(g, (1 - first).expand_as(g))
            s.mul_(second).addcmul_((1 - second) * g, g)
            p.sub_(pace / (1 - first**step) * m / (s.sqrt() / (1 - second**step).sqrt() + epsilon))

    def _plan(self, size: tuple[int, ...]) -> tuple[Plan, Tensor]:
        """The plan of the union of all masks, and where outputs are read."""
        machine = self.candidates[0].machine
        blocks = len(self.partition)
        union = np.zeros((*machine.shortcuts.shape[:-2], blocks, blocks), dtype=bool)
        for candidate in self.candidates:
            slots = _slots(candidate.machine, blocks)
            union[..., slots[:, None], slots] |= candidate.machine.shortcuts
        plan = machine.plan_of(self.partition, union, size)
        return plan, torch.from_numpy(read_positions(plan, self.objective.reading)).to(self.weight.device)

    def _channels(self, machine: ParametricMachine) -> Tensor:
        """A machine's channels in the index space of the stack."""
        starts = [self.partition.bounds[slot] for slot in _slots(machine, len(self.partition))]
        spans = [torch.arange(a, a + width) for a, width in zip(starts, machine.partition.widths, strict=True)]
        return torch.cat(spans).to(machine.weight.device)

    def _activations(self, machine: ParametricMachine) -> list[Activation | None]:
        """The activation of a machine in each slot."""
        row: list[Activation | None] = [None] * len(self.partition)
        for slot, activation in zip(_slots(machine, len(self.partition)), machine.activation, strict=True):
            row[slot] = activation
        return row


class _Captured:
    """A step as a graph of CUDA: recorded once, then started whole, without the cost of its hundred small kernels."""

    def __init__(self, stack: Stack, size: tuple[int, ...], batch: tuple[Tensor, Tensor, Tensor]) -> None:
        learned = (stack.weight, stack.bias, *stack.means, stack.steps)
        before = [tensor.clone() for tensor in learned]
        self.batch = tuple(tensor.clone() for tensor in batch)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # libraries set themselves up, which can't be recorded
                stack.step(size, self.batch)  # type: ignore[arg-type]
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.losses = stack.step(size, self.batch)  # type: ignore[arg-type]
        for tensor, value in zip(learned, before, strict=True):
            tensor.copy_(value)

    def replay(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The step on this batch; the losses are good until the next."""
        for tensor, value in zip(self.batch, batch, strict=True):
            tensor.copy_(value)
        self.graph.replay()
        return self.losses


def _geometry(candidate: "Candidate") -> Any:
    """What candidates of one stack have in common."""
    machine = candidate.machine
    widths, weight = machine.partition.widths, machine.weight
    shape = type(machine), weight.shape[2:], widths[0], widths[-1], weight.dtype, weight.device
    kernel = [str(getattr(machine, name, None)) for name in ("dilation", "padding", "scales", "pooling", "timeblock")]
    # a nonlinearity of one's own may not be a number at 0, which slots that a candidate lacks hold: these stay alone
    own = () if machine.is_named else (machine.partition.widths, machine.shortcuts.tobytes(), machine.activation)
    return (*shape, *kernel, candidate.optimizer.kind, *own)


def _slots(machine: ParametricMachine, blocks: int) -> Any:
    """Where a machine's blocks lie among so many slots: in order, and the output last."""
    return np.array([*range(len(machine.partition) - 1), blocks - 1])


def _place(index: Tensor, own: Tensor) -> Any:
    """How the channels of a candidate are picked from ``[tap, out, in]`` or from ``[channel]``."""
    return (slice(None), index[:, None], index) if own.dim() == 3 else index


def _mixed(row: Sequence[Activation | None], device: torch.device) -> Activation:
    """One activation for a slot of the whole stack, where each candidate has its own, or none."""
    kinds = list({id(activation): activation for activation in row if activation is not None}.values())
    if len(kinds) == 1:
        return kinds[0]
    members = [[p for p, own in enumerate(row) if own is kind or (own is None and kind is kinds[0])] for kind in kinds]
    groups = [torch.tensor(places, device=device) for places in members]

    def function(y: Tensor) -> Tensor:
        z = torch.empty_like(y)
        for kind, group in zip(kinds, groups, strict=True):
            z[group] = kind.function(y[group])
        return z

    def derivative(y: Tensor, a: Tensor) -> Tensor:
        s = torch.empty_like(y)
        for kind, group in zip(kinds, groups, strict=True):
            s[group] = kind.derivative(y[group], a[group])
        return s

    return Activation("mixed", function, derivative)
