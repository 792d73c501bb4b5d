"""The loop that solves a plan of steps, and its dual: the same loop over the reversed plan (Theorems 2 and 3).

The primal adds to each component what the machines write there, in their order, ``R_f = (id + f_n) ... (id + f_1)``.
The dual starts from cotangents and adds, in the reversed order, the adjoint of each machine at the solution,
``(R_f)* = (id + Df_1*) ... (id + Df_n*)``. Both are `run`. To have the adjoints, the primal runs each step on detached
leaves and keeps the small graph that autograd records, so that nothing is computed twice and an adjoint is one
vector-Jacobian product over one step, with respect to what it reads and to every tensor that it closes over.

Second derivatives: the dual is solved by the same `solve`. Its steps close over the leaves of the primal, which stand
for components of the solution: `solve` passes the solution itself in their place. So it goes at any order.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from machgraph.closure import Edge, held_tensors

_Leaf = torch._C._functions.AccumulateGrad  # type: ignore[attr-defined]  # the node of a tensor that nothing computed


@dataclass(frozen=True)
class Step:
    """One instruction, ``state[writes] += function(state[reads])``; ``None`` stands for 0, read or written."""

    name: str
    reads: tuple[Hashable, ...]
    writes: tuple[Hashable, ...]
    function: Callable[..., Sequence[Tensor | None]]


def run(steps: Iterable[Step], state: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
    """THE loop: each step adds to what it writes, and all that it reads is final when its turn comes."""
    state = dict(state)
    for step in steps:
        increments = step.function(*(state.get(key) for key in step.reads))
        for key, increment in zip(step.writes, increments, strict=True):
            if increment is not None:
                state[key] = _sum(state[key], increment, step, key) if key in state else increment
    return state


def solve(
    steps: Iterable[Step], state: Mapping[Hashable, Tensor], parent: "_Tape | None" = None
) -> dict[Hashable, Tensor]:
    """`run`, differentiable by the dual where a gradient is wanted.

    Parameters
    ----------
    steps : the plan: a step comes after all that write what it reads.
    state : the tensors to start from, by key; they are not changed, but may be returned.
    parent : for the steps of a dual, the tape that they come from.
    """
    if not torch.is_grad_enabled() or _transformed():
        return run(steps, state)
    tape = _Tape.under(parent, state)
    values = run(map(tape.record, steps), {key: x.detach() for key, x in state.items()})
    outputs = tuple(key for key in values if key in tape.active)
    if not outputs:
        return values
    inputs = tuple(key for key, x in state.items() if x.requires_grad)
    closed_over = (tape.stands_for.get(tensor, tensor) for tensor in tape.captured)
    solution: tuple[Tensor, ...] = _Solve.apply(  # type: ignore[no-untyped-call]
        tape, inputs, {key: values[key] for key in outputs}, *(state[key] for key in inputs), *closed_over
    )
    return values | dict(zip(outputs, solution, strict=True))


@dataclass
class _Record:
    """What the dual needs of a step: its outputs, and what they were computed from, both in the step's own graph."""

    name: str
    writes: list[Hashable]
    outputs: list[Tensor]
    sources: list[Tensor]

    def adjoint(self, *cotangents: Tensor | None) -> Sequence[Tensor | None]:
        known = [(y, v) for y, v in zip(self.outputs, cotangents, strict=True) if v is not None]
        if not known:
            return [None] * len(self.sources)
        outputs, v = zip(*known, strict=True)
        with _shares(self.sources) as shares:
            gradients = torch.autograd.grad(
                outputs, self.sources, v, retain_graph=True, create_graph=torch.is_grad_enabled(), allow_unused=True
            )
        return [shares.get(source, gradient) for source, gradient in zip(self.sources, gradients, strict=True)]


@dataclass
class _Tape:
    """The record of one run: the graph of each step, cut from the others."""

    active: set[Hashable]  # the keys that carry a gradient
    start: int  # nodes of an earlier number belong to a graph outside
    stands_for: dict[Tensor, Tensor] = field(default_factory=dict)  # leaf of a tape below -> the tensor itself
    stops: dict[Edge, Tensor] = field(default_factory=dict)  # results from outside that steps close over
    leaves: dict[Hashable, Tensor] = field(default_factory=dict)  # what the steps read
    names: dict[Tensor, Hashable] = field(default_factory=dict)  # the leaves the other way round
    captured: dict[Tensor, Hashable] = field(default_factory=dict)  # what the steps close over
    records: list[_Record] = field(default_factory=list)

    @staticmethod
    def under(parent: "_Tape | None", state: Mapping[Hashable, Tensor]) -> "_Tape":
        active = {key for key, x in state.items() if x.requires_grad}
        if parent is None:
            return _Tape(active, torch._C._autograd._get_sequence_nr())
        # the steps of a dual reach into the graphs of the tape below, and close over nothing that it has not found
        return _Tape(active, 0, parent.stands_for, parent.stops)

    def record(self, step: Step) -> Step:
        def function(*xs: Tensor | None) -> Sequence[Tensor | None]:
            ys = step.function(*map(self._leaf, step.reads, xs))
            kept = [(key, y) for key, y in zip(step.writes, ys, strict=True) if y is not None and y.requires_grad]
            if kept:
                writes, outputs = (list(column) for column in zip(*kept, strict=True))
                self.active.update(writes)
                self.records.append(_Record(step.name, writes, outputs, self._sources(step, outputs)))
            return [y if y is None else y.detach() for y in ys]

        return replace(step, function=function)

    def _leaf(self, key: Hashable, x: Tensor | None) -> Tensor | None:
        if x is None or key not in self.active:
            return x
        if key not in self.leaves:
            leaf = x.detach().requires_grad_()
            self.leaves[key], self.names[leaf] = leaf, key
        return self.leaves[key]

    def _sources(self, step: Step, outputs: Sequence[Tensor]) -> list[Tensor]:
        """The leaves of the step's graph and the results from outside that enter it."""
        found: dict[Tensor, None] = {y: None for y in outputs if y.grad_fn is None}
        outside: list[Edge] = []
        seen: set[Node] = set()
        stack: list[Edge] = [(y.grad_fn, y.output_nr) for y in outputs]
        while stack:
            edge = stack.pop()
            node = edge[0]
            if node is None:
                continue
            if edge in self.stops:
                found[self.stops[edge]] = None
            elif isinstance(node, _Leaf):
                found[node.variable] = None
            elif node in seen:
                continue
            elif node._sequence_nr() < self.start:
                outside.append(edge)
            else:
                seen.add(node)
                stack.extend(node.next_functions)
        if outside:
            held = held_tensors(step.function, set(outside))
            if len(held) < len(set(outside)):
                raise ValueError(
                    f"{step.name} uses a result computed outside that needs a gradient, and no closure, attribute or "
                    f"global of its function holds it: hold that tensor there, or make it a component that is read"
                )
            self.stops.update(held)
            found.update(dict.fromkeys(held.values()))
        for tensor in found:
            if tensor not in self.names:
                self.captured.setdefault(tensor, object())
        return list(found)

    def dual(self, keep: bool) -> Iterator[Step]:
        """The adjoints in the reversed order; each graph is let go as soon as it is used, unless it is to be kept."""
        for i in reversed(range(len(self.records))):
            record = self.records[i] if keep else self.records.pop()
            writes = tuple(self.names[t] if t in self.names else self.captured[t] for t in record.sources)
            yield Step(record.name, tuple(record.writes), writes, record.adjoint)


class _Solve(torch.autograd.Function):
    """Hands out the values that a tape has computed, and solves the dual machine in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, tape: _Tape, inputs: Sequence[Hashable], values: Mapping[Hashable, Tensor], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.tape, ctx.inputs, ctx.outputs = tape, inputs, tuple(values)
        # for the second order: what each leaf stands for, on tapes below (closed over by this one) and on this one
        below = {
            leaf: x for leaf, x in zip(tape.captured, tensors[len(inputs) :], strict=True) if leaf in tape.stands_for
        }
        here = {leaf: values[key] for leaf, key in tape.names.items()}
        ctx.leaves = (*below, *here)
        ctx.save_for_backward(*below.values(), *here.values())
        return tuple(values.values())

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        solution = ctx.saved_tensors  # raises torch's own sentence where the graph was let go
        tape = replace(ctx.tape, stands_for=dict(zip(ctx.leaves, solution, strict=True)))
        state = {key: v for key, v in zip(ctx.outputs, cotangents, strict=True) if v is not None}
        v = solve(tape.dual(_graph_is_kept()), state, parent=tape)
        return None, None, None, *(v.get(key) for key in (*ctx.inputs, *tape.captured.values()))


def _sum(x: Tensor, increment: Tensor, step: Step, key: Hashable) -> Tensor:
    if x.shape != increment.shape or x.dtype != increment.dtype or x.device != increment.device:
        raise ValueError(
            f"{step.name} writes {_kind(increment)} to {key}, which already holds {_kind(x)}: "
            "what a machine adds must have the shape, dtype and device of what is there"
        )
    return x + increment


def _kind(x: Tensor) -> str:
    return f"shape {tuple(x.shape)} ({str(x.dtype).removeprefix('torch.')}, {x.device})"


def _transformed() -> bool:
    """Something else differentiates or records the plain loop: torch.func, forward mode, or a compiler."""
    return (
        torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or torch.compiler.is_compiling()
    )


def _graph_is_kept() -> bool:
    asked = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if asked is None else bool(asked())


@contextmanager
def _shares(sources: Sequence[Tensor]) -> Iterator[dict[Tensor, Tensor]]:
    """Confine a gradient to one step: its share alone, no further than to the sources, and unseen by the user's hooks.

    A source from outside may itself have been computed from another source. So its share is taken out of the backward
    pass where it arrives, and 0 goes on; `_Solve` returns it, and autograd carries it on once for all steps. Hooks and
    retained gradients are put off until then, since they are for the whole.
    """
    shares: dict[Tensor, Tensor] = {}
    hooks = [(t._backward_hooks, dict(t._backward_hooks)) for t in sources if t._backward_hooks]
    retained = [(t, t.grad) for t in sources if t.retains_grad]

    def take(source: Tensor, share: Tensor) -> Tensor:
        shares[source] = share
        return torch.zeros_like(share)

    for hook, _ in hooks:
        hook.clear()
    handles = [t.register_hook(partial(take, t)) for t in sources if not t.is_leaf]  # type: ignore[no-untyped-call]
    try:
        yield shares
    finally:
        for handle in handles:
            handle.remove()
        for hook, saved in hooks:
            hook.update(saved)
        for t, gradient in retained:
            t.grad = gradient
