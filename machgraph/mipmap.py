"""Tensors on several grids, each half as fine as the one before: side by side in one tensor, as a mipmap.

The grids lie next to each other along the last axis, each in the upper left corner of its part; what no grid covers is
0. A grid has the size of ``machgraph.boxes.halved``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from machgraph.boxes import halved

Size = tuple[int, ...]


def spread(size: Size, scales: int) -> Size:
    """The size of a mipmap with so many scales, the finest being of this size.

    >>> spread((8, 6), 3)
    (8, 10)
    """
    return (*size[:-1], sum(halved(size, scale)[-1] for scale in range(scales)))


def finest(size: Size, scales: int) -> Size:
    """The finest size of a mipmap of this size.

    >>> finest((8, 10), 3)
    (8, 6)

    Raises
    ------
    ValueError : no mipmap of so many scales has it.
    """
    last = next(n for n in range(1, size[-1] + 1) if spread((n,), scales)[-1] >= size[-1])
    fine = (*size[:-1], last)
    if spread(fine, scales) != tuple(size):
        raise ValueError(f"got positions of size {tuple(size)}: {scales} grids side by side have another last extent")
    return fine


def cut(x: Tensor, size: Size, scale: int) -> Tensor:
    """The grid of a scale out of a mipmap ``(..., *spread)``, whose finest grid has this size."""
    first = sum(halved(size, finer)[-1] for finer in range(scale))
    here = halved(size, scale)
    x = x.narrow(-1, first, here[-1])
    for axis, extent in enumerate(here[:-1], start=x.dim() - len(size)):
        x = x.narrow(axis, 0, extent)
    return x


def beside(grids: Sequence[Tensor], size: Size) -> Tensor:
    """The mipmap of grids ``(..., *halved(size, scale))``, finest first."""
    parts = []
    for scale, grid in enumerate(grids):
        here = halved(size, scale)
        missing = [all_ - some for all_, some in zip(size[:-1], here[:-1], strict=True)]
        parts.append(F.pad(grid, (0, 0, *(side for count in reversed(missing) for side in (0, count)))))
    return torch.cat(parts, dim=-1)


def pooled(x: Tensor, dimensions: int, mean: bool) -> Tensor:
    """``(..., channel, *size)`` on the next grid: the maxima, or means, of windows of two along each axis."""
    size = x.shape[-dimensions:]
    window = [min(2, extent) for extent in size]
    flat = x.reshape(-1, *x.shape[-dimensions - 1 :])
    if mean:
        y = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[dimensions - 1](flat, window)
    else:
        y = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[dimensions - 1](flat, window)
    return y.reshape(*x.shape[: x.dim() - dimensions], *y.shape[2:])
