"""The one loop over a plan, and its dual: resolvents of parametric machines in torch.

Shapes: ``W`` is ``[population, tap, channel_out, channel_in]``; ``y, z, u, v, s`` are ``[population, channel,
position]``, where a position is a time or pixel crossed with the samples of the batch, samples innermost.

The machine (section 3, eqs. 10 and 11), and its linearization with an array ``s`` in place of σ:

    y = W z + y0 + bias                y = W z + y0
    z = σ(y) + z0                      z = s ⊙ y + z0

The derivative rules, from differentiating both lines (Theorem 3). Tangent, with s = σ'(y):

    dy = W dz + (dW z + dy0)           dz = s ⊙ dy + (ds ⊙ y + dz0)           the linear machine of the same plan

Adjoint, from cotangents v0 of y and u0 of z (eqs. 12 to 14, with the masked W of the forward pass, and with + v0):

    u = W* v + u0                      v = s ⊙ u + v0                         the linear machine of the dual plan
    Q = v z*  on the mask              ds = u ⊙ y

Q is bilinear, with adjoints ``v = Q z`` and ``z = Q* v``; and a product ``W z`` alone is the linear machine with s = 0.

Each derivative is a resolvent again, so that every order of derivative is these few lines. Both halves of (y, z) are
returned: what is saved but not returned would lose the σ'' term of the second order.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from machgraph.activation import Activation
from machgraph.executor import box, execute, one_or_many, weight_gradient
from machgraph.plan import Activate, Plan

Activations = tuple[Activation, ...]


def resolvent(
    plan: Plan, activations: Activations, weight: Tensor, bias: Tensor | None, y0: Tensor, z0: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Solve ``y = W z + y0 + bias``, ``z = σ(y) + z0``; differentiable to every order, and by ``torch.func``.

    Parameters
    ----------
    plan : what to do, in order.
    activations : σ, one for each block of the plan.
    weight : ``W``, ``[population, tap, channel_out, channel_in]``. What the plan does not read gets a gradient of 0.
    bias : ``[population, channel]``, a learned part of ``y0``.
    y0, z0 : ``[population, channels, positions]``; ``y0`` may hold only the first channels, the others are 0.

    Returns
    -------
    ``y`` and ``z``, each ``[population, channel, position]``, of eqs. 10 and 11.
    """
    y, z = _value(_Resolvent, plan, activations, weight, bias, y0, z0)
    return y, z


def linear_resolvent(
    plan: Plan,
    weight: Tensor,
    slopes: Tensor,
    y0: Tensor | None,
    z0: Tensor | None = None,
    at: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Solve ``y = W z + y0``, ``z = s ⊙ y + z0``: the machine whose σ is an array, which every derivative is.

    A plan that pools is linear where it chooses as it does at the solution ``at``.
    """
    y, z = _value(_LinearResolvent, plan, weight, slopes, y0, z0, at if plan.coarser else None)
    return y, z


def dual_resolvent(
    plan: Plan, activations: Activations, W: Tensor, y: Tensor, z: Tensor, v0: Tensor, u0: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of weight and bias, and ``u`` and ``v``, of a solution ``(y, z)`` (eqs. 12 to 14)."""
    u, v = linear_resolvent(plan.dual, W.mT, _slopes(plan, activations, y, None), u0, v0)
    return _weight_gradient(plan, v, z), v.sum(-1), u, v


def _value(rule: type[torch.autograd.Function], *arguments: Any) -> Any:
    """What a rule gives, with its derivatives only where somebody may ask for them: they cost as much as a product."""
    if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return rule.apply(*arguments)  # type: ignore[no-untyped-call]
    return rule.forward(*arguments)


# ---- the rules ---------------------------------------------------------------------------------------------


class _Resolvent(torch.autograd.Function):
    """``(y, z)`` of a machine ``W + σ``; its derivatives are linear resolvents."""

    @staticmethod
    def forward(
        plan: Plan, activations: Activations, W: Tensor, bias: Tensor | None, y0: Tensor, z0: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        shape = (y0.shape[0], plan.channels, y0.shape[-1])
        Y = y0.new_zeros(shape) if bias is None else biased(plan, bias, shape)
        Y[:, : y0.shape[1]] += y0
        Z = _unwritten(plan, Y) if z0 is None else _copy(z0)

        def activate(step: Activate, Y_box: Tensor, Z_box: Tensor) -> None:
            activated = activations[step.block].function(Y_box)
            if z0 is None:
                Z_box.copy_(activated)
            else:
                Z_box.add_(activated)

        W_, Y_, Z_ = one_or_many(W, Y, Z)
        execute(plan, W_, Y_, Z_, activate)
        return Y, Z

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.plan, ctx.activations, W, bias, y0, z0 = inputs
        ctx.has_bias, ctx.has_z0, ctx.y0_channels = bias is not None, z0 is not None, y0.shape[1]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(W, *output)
        ctx.save_for_forward(W, *output)

    @staticmethod
    def backward(ctx: Any, v0: Tensor | None, u0: Tensor | None) -> tuple[Tensor | None, ...]:
        W, y, z = ctx.saved_tensors
        if v0 is None and u0 is None:
            return (None,) * 6
        s = _slopes(ctx.plan, ctx.activations, y, None if ctx.has_z0 else z)
        u, v = linear_resolvent(ctx.plan.dual, W.mT, s, u0, v0, z.detach())
        Q = _weight_gradient(ctx.plan, v, z) if ctx.needs_input_grad[2] else None
        bias_gradient = _unbiased(ctx.plan, v) if ctx.has_bias and ctx.needs_input_grad[3] else None
        y0_gradient = v if ctx.y0_channels == ctx.plan.channels else v[:, : ctx.y0_channels]
        return None, None, Q, bias_gradient, y0_gradient, u if ctx.has_z0 else None

    @staticmethod
    def jvp(
        ctx: Any,
        _plan: None,
        _sigma: None,
        dW: Tensor | None,
        db: Tensor | None,
        dy0: Tensor | None,
        dz0: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        W, y, z = ctx.saved_tensors
        s = _slopes(ctx.plan, ctx.activations, y, None if ctx.has_z0 else z)
        g = torch.zeros_like(y) if dW is None else _product(ctx.plan, dW, z)
        if dy0 is not None:
            g = g + torch.nn.functional.pad(dy0, (0, 0, 0, ctx.plan.channels - dy0.shape[1]))
        if db is not None:
            g = g + (biased(ctx.plan, db, g.shape) if ctx.plan.coarser else db.unsqueeze(-1))
        return linear_resolvent(ctx.plan, W, s, g, dz0, z.detach())

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], plan: Plan, activations: Activations, *tensors: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        if in_dims[2] is None and in_dims[3] is None:
            (W, bias), (y0, z0) = tensors[:2], _into_samples(info.batch_size, in_dims[4:], tensors[2:])
            return _from_samples(info.batch_size, resolvent(plan, activations, W, bias, y0, z0))  # type: ignore[arg-type]
        W, bias, y0, z0 = _into_population(info.batch_size, in_dims[2:], tensors)
        return _from_population(info.batch_size, resolvent(plan, activations, W, bias, y0, z0))  # type: ignore[arg-type]


class _LinearResolvent(torch.autograd.Function):
    """``(y, z)`` of the machine ``W + s ⊙``; its derivatives are of the same kind."""

    @staticmethod
    def forward(
        plan: Plan, W: Tensor, s: Tensor, y0: Tensor | None, z0: Tensor | None, at: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        Y = torch.zeros_like(s, memory_format=torch.contiguous_format) if y0 is None else _copy(y0)
        Z = _unwritten(plan, Y) if z0 is None else _copy(z0)
        W_, Y_, Z_, s_, at_ = one_or_many(W, Y, Z, s, s if at is None else at)
        samples = Y.shape[-1] // plan.positions

        def activate(step: Activate, Y_box: Tensor, Z_box: Tensor) -> None:
            s_box = box(s_, step.rows, step.columns, samples)
            if z0 is None:
                Z_box.copy_(s_box * Y_box)
            else:
                Z_box.addcmul_(s_box, Y_box)

        execute(plan, W_, Y_, Z_, activate, at_)
        return Y, Z

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.plan, W, s, y0, z0, at = inputs
        ctx.has_y0, ctx.has_z0 = y0 is not None, z0 is not None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(W, s, *output, at)
        ctx.save_for_forward(W, s, *output, at)

    @staticmethod
    def backward(ctx: Any, v0: Tensor | None, u0: Tensor | None) -> tuple[Tensor | None, ...]:
        W, s, y, z, at = ctx.saved_tensors
        if v0 is None and u0 is None:
            return (None,) * 6
        u, v = linear_resolvent(ctx.plan.dual, W.mT, s, u0, v0, at)
        Q = _weight_gradient(ctx.plan, v, z) if ctx.needs_input_grad[1] else None
        ds = u * y if ctx.needs_input_grad[2] else None
        return None, Q, ds, v if ctx.has_y0 else None, u if ctx.has_z0 else None, None

    @staticmethod
    def jvp(
        ctx: Any,
        _: None,
        dW: Tensor | None,
        ds: Tensor | None,
        dy0: Tensor | None,
        dz0: Tensor | None,
        _at: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        W, s, y, z, at = ctx.saved_tensors
        g = _sum(dy0, None if dW is None else _product(ctx.plan, dW, z))
        return linear_resolvent(ctx.plan, W, s, g, _sum(dz0, None if ds is None else ds * y), at)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], plan: Plan, *tensors: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        if in_dims[1] is None:
            s, *rest = _into_samples(info.batch_size, in_dims[2:], tensors[1:])
            return _from_samples(info.batch_size, linear_resolvent(plan, tensors[0], s, *rest))  # type: ignore[arg-type]
        W, s, *rest = _into_population(info.batch_size, in_dims[1:], tensors)
        return _from_population(info.batch_size, linear_resolvent(plan, W, s, *rest))  # type: ignore[arg-type]


class _WeightGradient(torch.autograd.Function):
    """``Q = v z*`` on the mask (eq. 14): one product for each of the plan's."""

    @staticmethod
    def forward(plan: Plan, v: Tensor, z: Tensor) -> Tensor:
        Q = v.new_zeros((v.shape[0], plan.taps, plan.channels, plan.channels))
        weight_gradient(plan, *one_or_many(Q, v, z))
        return Q

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.plan, v, z = inputs
        ctx.save_for_backward(v, z)
        ctx.save_for_forward(v, z)

    @staticmethod
    def backward(ctx: Any, dQ: Tensor) -> tuple[Tensor | None, ...]:
        v, z = ctx.saved_tensors
        dv = _product(ctx.plan, dQ, z) if ctx.needs_input_grad[1] else None
        dz = _product(ctx.plan.dual, dQ.mT, v) if ctx.needs_input_grad[2] else None
        return None, dv, dz

    @staticmethod
    def jvp(ctx: Any, _: None, dv: Tensor | None, dz: Tensor | None) -> Tensor:
        v, z = ctx.saved_tensors
        one = None if dv is None else _weight_gradient(ctx.plan, dv, z)
        total = _sum(one, None if dz is None else _weight_gradient(ctx.plan, v, dz))
        assert total is not None
        return total

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], plan: Plan, *tensors: Tensor) -> tuple[Tensor, int]:
        v, z = _into_population(info.batch_size, in_dims[1:], tensors)
        assert v is not None
        assert z is not None
        Q = _weight_gradient(plan, v, z)
        return Q.reshape(info.batch_size, -1, *Q.shape[1:]), 0


def _weight_gradient(plan: Plan, v: Tensor, z: Tensor) -> Tensor:
    Q: Tensor = _value(_WeightGradient, plan, v, z)
    return Q


def _product(plan: Plan, W: Tensor, z: Tensor) -> Tensor:
    """``W z`` with the plan's mask: the machine that changes nothing after, s = 0."""
    return linear_resolvent(plan.unpooled if plan.coarser else plan, W, torch.zeros_like(z), None, z)[0]


def _slopes(plan: Plan, activations: Activations, y: Tensor, output: Tensor | None) -> Tensor:
    """``s = σ'(y)`` from (input, output); the output σ(y) is evaluated again where ``z0`` hides it.

    It is 0 on padding that lies between positions, where a slope may be infinite: nothing there counts.
    """
    pieces, start = [], 0
    while start < len(activations):
        stop = start + 1
        while stop < len(activations) and activations[stop] is activations[start]:
            stop += 1  # neighbouring blocks of one kind are one operation
        rows = slice(plan.blocks[start][0], plan.blocks[stop - 1][1])
        activation, y_rows = activations[start], y[:, rows]
        pieces.append(activation.derivative(y_rows, activation.function(y_rows) if output is None else output[:, rows]))
        start = stop
    s = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
    if len(plan.grid) < 2 or all(activation.is_named for activation in activations):
        return s
    inside = torch.tensor(plan.is_inside, device=y.device).repeat_interleave(y.shape[-1] // plan.positions)
    return torch.where(inside, s, 0.0)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _unwritten(plan: Plan, like: Tensor) -> Tensor:
    """For what σ writes, all but the padding: that is 0 and stays so."""
    return torch.zeros_like(like) if plan.margins else torch.empty_like(like)


def biased(plan: Plan, bias: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The bias at all positions; of several grids, on each block's own."""
    if not plan.coarser:
        return _copy(bias.unsqueeze(-1).expand(shape))
    Y = bias.new_zeros(shape)
    for step in plan.instructions:
        if isinstance(step, Activate):
            box(Y, step.rows, step.columns, shape[-1] // plan.positions).add_(bias[:, slice(*step.rows), None])
    return Y


def _unbiased(plan: Plan, v: Tensor) -> Tensor:
    """The adjoint: sums over the positions where the bias is."""
    if not plan.coarser:
        return v.sum(-1)
    own = [step for step in plan.instructions if isinstance(step, Activate)]
    samples = v.shape[-1] // plan.positions
    return torch.cat([box(v, step.rows, step.columns, samples).sum(-1) for step in own], dim=-1)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


# ---- torch.func.vmap: a batch of weights is a population, a batch of data is more samples ------------------


def _into_population(batch: int, dims: tuple[Any, ...], tensors: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    return [
        None if t is None else (t.expand(batch, *t.shape) if d is None else t.movedim(d, 0)).flatten(0, 1)
        for d, t in zip(dims, tensors, strict=True)
    ]


def _from_population(batch: int, pair: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    y, z = (t.reshape(batch, -1, *t.shape[1:]) for t in pair)
    return (y, z), (0, 0)


def _into_samples(batch: int, dims: tuple[Any, ...], tensors: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    return [
        None if t is None else (t.unsqueeze(-1).expand(*t.shape, batch) if d is None else t.movedim(d, -1)).flatten(-2)
        for d, t in zip(dims, tensors, strict=True)
    ]


def _from_samples(batch: int, pair: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    y, z = (t.reshape(*t.shape[:-1], -1, batch) for t in pair)
    return (y, z), (3, 3)
