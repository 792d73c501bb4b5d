"""Parametric machines in torch's own layers, for those who look at the operations: compilers, exporters, tracers.

Block after block, each on what it hears: a linear map or a convolution of the concatenated sources, and σ. It is the
network as people write it by hand, without plan and custom backward. So a program that is recorded from it needs no
machgraph, and serves any size of batch.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from machgraph.boxes import halved
from machgraph.mipmap import beside

if TYPE_CHECKING:
    from machgraph.parametric import ParametricMachine, RecurrentMachine

Blocks = tuple[Tensor, ...]


def plain_is_wanted() -> bool:
    """Whether somebody records the operations, or nests forward mode, which torch's custom functions join in once."""
    if torch.compiler.is_compiling() or get_proxy_mode() is not None or torch._C._is_tracing():
        return True
    if not torch._C._are_functorch_transforms_active():
        return False
    stack = torch._C._functorch.get_interpreter_stack() or []
    return sum(level.key() == torch._C._functorch.TransformType.Jvp for level in stack) > 1


def lowered(machine: "ParametricMachine", y0: Tensor, z0: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``(y, z)`` of ``machine.solve(y0, z0)``; autograd differentiates it by itself.

    Parameters
    ----------
    machine : dense, convolutional, or recurrent, which is unrolled over the steps that ``y0`` has.
    y0, z0 : ``(*batch, channels, *size)``, all channels.
    """
    bias = None if machine.bias is None else machine.bias.to(y0.dtype)  # another one under autocast
    inputs = machine._blocks(y0, bias), None if z0 is None else machine._blocks(z0)
    y, z = _unrolled(machine, *inputs) if hasattr(machine, "lags") else _layers(machine, *inputs)  # type: ignore[arg-type]
    axis = -1 - machine.dimensions
    return torch.cat(y, dim=axis), torch.cat(z, dim=axis)


def _layers(machine: "ParametricMachine", y0: Blocks, z0: Blocks | None) -> tuple[list[Tensor], list[Tensor]]:
    """Each block at all positions: ``y_i = Σ_j W_ij z_j + y0_i``, ``z_i = σ_i(y_i) + z0_i``."""
    y, scales = list(y0), machine.scales
    z: list[dict[int, Tensor]] = []  # of each block, by scale
    for i, hears in enumerate(machine._heard):
        sources = [j for j, heard in enumerate(hears) if heard]
        if sources:
            y[i] = y[i] + machine._linear_map(i, sources)(*(z[j][scales[i]] for j in sources))
        activated = machine.activation[i].function(y[i])
        z.append({scales[i]: activated if z0 is None else activated + z0[i]})
        for scale in range(scales[i], machine._coarsest(i)):
            z[i][scale + 1] = machine._pool(z[i][scale])
    if not machine.is_scaled:
        return y, [grids[0] for grids in z]
    size = tuple(y[0].shape[y[0].dim() - machine.dimensions :])
    return [_mipmap(machine, {scales[i]: block}, size) for i, block in enumerate(y)], [
        _mipmap(machine, grids, size) for grids in z
    ]


def _mipmap(machine: "ParametricMachine", grids: dict[int, Tensor], size: tuple[int, ...]) -> Tensor:
    """A block on the grids that it is on, and 0 on the others."""
    some = next(iter(grids.values()))
    front = some.shape[: some.dim() - machine.dimensions]
    return beside(
        [
            grids[scale] if scale in grids else some.new_zeros((*front, *halved(size, scale)))
            for scale in range(max(machine.scales) + 1)
        ],
        size,
    )


def _unrolled(machine: "RecurrentMachine", y0: Blocks, z0: Blocks | None) -> tuple[list[Tensor], list[Tensor]]:
    """Step after step and block after block, each on all of its sources and lags in one product."""
    blocks, block, mask = range(len(machine.partition)), machine.partition.block, machine._heard
    heard = [[(lag, j) for lag, at_lag in enumerate(mask) for j in blocks if at_lag[i][j]] for i in blocks]
    weights = [[machine.weight[block(i), block(j), lag] for lag, j in heard[i]] for i in blocks]
    matrices = [torch.cat(several, dim=-1) if several else None for several in weights]
    y = [list(series.unbind(-1)) for series in y0]
    z = [[torch.zeros_like(series[0])] * machine.lags for series in y]  # before the series all is 0
    for t in range(len(y[0])):
        for i in blocks:
            matrix = matrices[i]
            if matrix is not None:
                sources = torch.cat([z[j][machine.lags + t - lag] for lag, j in heard[i]], dim=-1)
                y[i][t] = y[i][t] + torch.nn.functional.linear(sources, matrix)
            activated = machine.activation[i].function(y[i][t])
            z[i].append(activated if z0 is None else activated + z0[i][..., t])
    return [torch.stack(steps, dim=-1) for steps in y], [torch.stack(steps[machine.lags :], dim=-1) for steps in z]
