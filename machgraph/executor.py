"""The reference executor of plans, in torch: any dtype and device. It works in place and records no gradient.

``W`` is ``[population, tap, channel_out, channel_in]``, ``Y`` and ``Z`` are ``[population, channel, position]``; a
population of one may come without its axis.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from machgraph.plan import Accumulate, Activate, Clear, Grid, Instruction, Plan, Pool, Repeat, Simple, Span, Wrap

Activator = Callable[[Activate, Tensor, Tensor], None]


def execute(plan: Plan, W: Tensor, Y: Tensor, Z: Tensor, activate: Activator, at: Tensor | None = None) -> None:
    """Do what the plan says, in place of ``Y`` and ``Z``; ``activate`` is told the instruction and both boxes.

    Pooling is linearized at the solution ``at``, of the shape of ``Z``; where that is left out it is not linear.
    """
    samples = Y.shape[-1] // plan.positions
    for step in plan.instructions:
        for one in _turns(step):
            if isinstance(one, Accumulate):
                _add_product(
                    box(Y, one.rows, one.columns, samples),
                    _weights(W, one),
                    box(Z, one.inputs, one.columns, samples, one.offset),
                )
            elif isinstance(one, Activate):
                activate(one, box(Y, one.rows, one.columns, samples), box(Z, one.rows, one.columns, samples))
            elif isinstance(one, Pool):
                _pool(plan, one, Y if one.dual else Z, Z if at is None else at, samples)
            else:
                _border(plan, one, Y, Z, samples)


def weight_gradient(plan: Plan, Q: Tensor, v: Tensor, z: Tensor) -> None:
    """Add ``v z*`` to ``Q``, of the shape of ``W``, where the plan reads weights (eq. 14)."""
    samples = z.shape[-1] // plan.positions
    for step in plan.products:
        right = box(z, step.inputs, step.columns, samples, step.offset)
        _add_product(_weights(Q, step), box(v, step.rows, step.columns, samples), right.mT)


def box(tensor: Tensor, rows: Span, columns: Span, samples: int, offset: int = 0) -> Tensor:
    """A view of some rows and columns; a column of the plan is as many positions as there are samples."""
    some = tensor.narrow(-2, *_extent(rows))
    width = samples * (columns[1] - columns[0])
    return some if width == tensor.shape[-1] else some.narrow(-1, samples * (columns[0] + offset), width)


def one_or_many(*tensors: Tensor) -> tuple[Tensor, ...]:
    """A population of one drops its axis: plain matrix products are quicker than batched ones."""
    return tuple(tensor[0] for tensor in tensors) if tensors[0].shape[0] == 1 else tensors


def _turns(step: Instruction) -> "list[Simple] | tuple[Simple, ...]":
    return [one for turn in range(step.times) for one in step.at(turn)] if isinstance(step, Repeat) else (step,)


def _weights(W: Tensor, step: Accumulate) -> Tensor:
    return W.select(-3, step.tap).narrow(-2, *_extent(step.rows)).narrow(-1, *_extent(step.inputs))


def _add_product(target: Tensor, left: Tensor, right: Tensor) -> None:
    if target.dim() == 2:
        target.addmm_(left, right)
    else:
        target.baddbmm_(left, right)


def _extent(span: Span) -> tuple[int, int]:
    return span[0], span[1] - span[0]


# ---- borders -------------------------------------------------------------------------------------------------


def _border(plan: Plan, step: Clear | Wrap, Y: Tensor, Z: Tensor, samples: int) -> None:
    grid = plan.grids[step.grid]
    positions = _on_grid(grid, Y if step.dual else Z, step.rows, samples)
    (_clear if isinstance(step, Clear) else _fold if step.dual else _wrap)(positions, grid.margins)


def _on_grid(grid: Grid, tensor: Tensor, rows: Span, samples: int) -> Tensor:
    """Some rows with their positions on a grid, ``[..., *extents, sample]``."""
    some = tensor.narrow(-2, *_extent(rows)).narrow(-1, samples * grid.start, samples * grid.positions)
    return some.view(*some.shape[:-1], *grid.extents, samples)


def _sides(grid: Tensor, margins: tuple[Span, ...]) -> list[tuple[Tensor, Tensor]]:
    """Each strip of padding with the strip that it repeats if the axis is a circle, axis by axis."""
    sides = []
    for axis, (before, after) in enumerate(margins, start=grid.dim() - 1 - len(margins)):
        extent = grid.shape[axis]
        size = extent - before - after
        sides.append((grid.narrow(axis, 0, before), grid.narrow(axis, size, before)))
        sides.append((grid.narrow(axis, extent - after, after), grid.narrow(axis, before, after)))
    return sides


def _clear(grid: Tensor, margins: tuple[Span, ...]) -> None:
    for padding, _ in _sides(grid, margins):
        padding.zero_()


def _wrap(grid: Tensor, margins: tuple[Span, ...]) -> None:
    for padding, source in _sides(grid, margins):  # axis by axis: later ones take the corners along
        padding.copy_(source)


def _fold(grid: Tensor, margins: tuple[Span, ...]) -> None:
    for padding, source in reversed(_sides(grid, margins)):
        source.add_(padding)
        padding.zero_()


# ---- from grid to grid ---------------------------------------------------------------------------------------


def _pool(plan: Plan, step: Pool, X: Tensor, at: Tensor, samples: int) -> None:
    fine, coarse = plan.grids[step.grid], plan.grids[step.grid + 1]
    windows = _windows(fine, coarse, X, step.rows, samples)
    pooled = _inside(coarse, X, step.rows, samples)
    count = windows.shape[pooled.dim() :].numel()
    if step.mean and step.dual:
        windows.add_(pooled.reshape(*pooled.shape, *[1] * len(fine.extents)) / count)
    elif step.mean:
        pooled.add_(windows.flatten(pooled.dim()).mean(-1))
    else:
        chosen = _windows(fine, coarse, at, step.rows, samples).flatten(pooled.dim()).argmax(-1, keepdim=True)
        if step.dual:
            back = torch.zeros_like(windows.flatten(pooled.dim())).scatter_(-1, chosen, pooled.unsqueeze(-1))
            windows.add_(back.view(windows.shape))
        else:
            pooled.add_(windows.flatten(pooled.dim()).gather(-1, chosen).squeeze(-1))


def _inside(grid: Grid, tensor: Tensor, rows: Span, samples: int) -> Tensor:
    """Some rows with their positions on a grid but its padding, ``[..., *size, sample]``."""
    inside = _on_grid(grid, tensor, rows, samples)
    first = inside.dim() - 1 - len(grid.extents)
    for axis, (extent, (before, _)) in enumerate(zip(grid.size, grid.margins, strict=True), start=first):
        inside = inside.narrow(axis, before, extent)
    return inside


def _windows(fine: Grid, coarse: Grid, tensor: Tensor, rows: Span, samples: int) -> Tensor:
    """Some rows of the fine grid by the positions of the coarse one, ``[..., *coarse size, sample, *window]``.

    A window has two positions along each axis, or the only one that there is; what is over at the end is in none.
    """
    inside = _inside(fine, tensor, rows, samples)
    first = inside.dim() - 1 - len(fine.extents)
    for axis, (extent, half) in enumerate(zip(fine.size, coarse.size, strict=True), start=first):
        width = min(2, extent)
        inside = inside.unfold(axis, width, width).narrow(axis, 0, half)
    return inside
