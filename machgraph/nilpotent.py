"""Linear machines that read what they write: nilpotent operators (sections 2.1 and 2.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class _Staircase:
    """``ker f ⊆ ker f^2 ⊆ ... ⊆ ker f^(d+1) = X``, as found for one state of the matrix."""

    matrix: Tensor
    state: tuple[object, ...]
    basis: Tensor  # (n, n), orthonormal, in double precision
    sizes: tuple[int, ...]  # dim ker f^0, ..., dim ker f^(d+1): that many columns of the basis span it


class NilpotentMachine(nn.Module):
    """A nilpotent linear operator ``f`` as a machine: ``f^(d+1) = 0``, where ``d`` is its depth.

    Parameters
    ----------
    matrix : shape (n, n), ``[out, in]``, floating or complex; kept as it is, so that gradients reach it. Vectors are
        the last axis: ``f x = x @ matrix.T`` for ``x`` of shape (..., n). When it has changed it is checked anew.
    tolerance : by how much, relative to the norm of ``f``, it may miss a nilpotent operator; by default ten times
        the square root of the precision of the dtype, and at most 0.01. A matrix whose zeros alone make it nilpotent,
        as if strictly triangular, always is.

    Raises
    ------
    ValueError : the matrix is not square, not of a floating dtype, not finite, or not nilpotent.

    Examples
    --------
    >>> shift = torch.diag(torch.ones(2), -1)  # x_0 -> x_1 -> x_2
    >>> f = NilpotentMachine(shift)
    >>> f.depth, [tuple(v.shape) for v in f.cofiltration]
    (2, [(3, 2), (3, 1), (3, 0)])
    >>> f.resolvent(torch.tensor([1.0, 0.0, 0.0]))
    tensor([1., 1., 1.])
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor, tolerance: float | None = None) -> None:
        super().__init__()
        if not isinstance(matrix, Tensor) or matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            got = f"shape {tuple(matrix.shape)}" if isinstance(matrix, Tensor) else type(matrix).__name__
            raise ValueError(f"got {got} for a matrix: give a square tensor, [out, in]")
        if not matrix.is_floating_point() and not matrix.is_complex():
            raise ValueError(f"got a matrix of {matrix.dtype}: give a floating dtype")
        if isinstance(matrix, nn.Parameter):
            self.matrix = matrix
        else:
            self.register_buffer("matrix", matrix)
        self._tolerance = tolerance
        self._found = self._climb()

    @property
    def tolerance(self) -> float:
        """By how much, relative to its norm, ``f`` may miss a nilpotent operator."""
        return min(10 * torch.finfo(self.matrix.dtype).eps ** 0.5, 0.01) if self._tolerance is None else self._tolerance

    @property
    def depth(self) -> int:
        """The least ``d`` with ``f^(d+1) = 0``; 0 for the zero matrix, whose cofiltration ``V_0 = 0`` has length 0."""
        return max(len(self._staircase().sizes) - 2, 0)

    @property
    def cofiltration(self) -> list[Tensor]:
        """``V_0 ⊇ ... ⊇ V_d = 0`` with ``V_i = ker f^(d-i)``, as orthonormal bases of shape (n, dim V_i).

        Each is the first columns of the one before.
        """
        found = self._staircase()
        kernels = found.sizes[: self.depth + 1]
        return [found.basis[:, :size].to(self.matrix.dtype) for size in reversed(kernels)]

    def _staircase(self) -> _Staircase:
        """That of the matrix as it is; inside a transformation of torch's, which shows no numbers, that of before."""
        hidden = torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling()
        if not hidden and (self._found.matrix is not self.matrix or self._found.state != self._state()):
            self._found = self._climb()
        return self._found

    def _state(self) -> tuple[object, ...]:
        f = self.matrix
        return (None if f.is_inference() else f._version, f.dtype, f.device)

    def _climb(self) -> _Staircase:
        f = self.matrix.detach()
        if not f.isfinite().all():
            raise ValueError("got a matrix with entries that are not finite: a machine is a bounded operator")
        tolerance = self.tolerance
        f = f.to(torch.complex128 if f.is_complex() else torch.float64)
        levels = _levels(f)  # where there are any, f is exactly nilpotent: its entries are taken as they are
        rounding = min(10 * len(f) * torch.finfo((self.matrix if levels is None else f).dtype).eps, tolerance)
        basis, sizes, missed = _kernels(f, rounding)
        if missed > rounding and levels is not None:
            basis, sizes = levels
        elif missed > tolerance:
            raise ValueError(
                f"got a matrix f that is not nilpotent: relative to its norm, it is {missed:.2g} away from mapping "
                f"each kernel of a power into the one before, and may be {tolerance:.2g}"
            )
        return _Staircase(self.matrix, self._state(), basis, sizes)

    def increment(self, x: Tensor) -> Tensor:
        """``f x``, of the shape (..., n) of ``x``."""
        self._check(x)
        return x @ self.matrix.T

    def resolvent(self, g: Tensor) -> Tensor:
        """``R_f g = g + f g + ... + f^d g`` by Horner's rule; ``g`` and the result have the shape (..., n).

        Raises
        ------
        ValueError : another size, or the matrix has changed and is not nilpotent any more.
        """
        self._check(g)
        h = g.clone()
        for _ in range(self.depth):
            h = g + self.increment(h)
        return h

    forward = resolvent

    def in_first(self, phi: Tensor) -> bool:
        """Whether vectors of shape (..., n) lie in ``V_0 = ker f^d``, up to the tolerance."""
        basis = self.cofiltration[0]
        rest = phi - phi @ basis.conj() @ basis.T
        return bool(torch.linalg.vector_norm(rest) <= self.tolerance * torch.linalg.vector_norm(phi))

    def _check(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise ValueError(f"got {type(x).__name__}: give a tensor of shape (..., {len(self.matrix)})")
        if x.ndim == 0 or x.shape[-1] != len(self.matrix):
            raise ValueError(
                f"got shape {tuple(x.shape)}: the last axis must have the size {len(self.matrix)} of the matrix"
            )


def _kernels(f: Tensor, rounding: float) -> tuple[Tensor, tuple[int, ...], float]:
    """The staircase of ``f``, and how far, relative to its norm, ``f`` is from a nilpotent operator that has it.

    ``f`` maps ``ker f^(k+1)`` into ``ker f^k``. So with ``Q`` a basis of what is left beside ``ker f^k``, the next
    kernel adds to it ``Q`` times the kernel of ``Q* f Q``, which is ``f`` on the quotient (Kublanovskaya). No power is
    formed, and the kernels are nested by construction. A step is never empty nor larger than the one before, as for
    every nilpotent operator; the singular values that it takes for 0 tell whether ``f`` is one.
    """
    n = step = len(f)
    norm = float(torch.linalg.matrix_norm(f, 2)) if n else 0.0
    basis, sizes, missed = torch.eye(n, dtype=f.dtype, device=f.device), [0], 0.0
    while sizes[-1] < n:
        kernel, rest = basis[:, : sizes[-1]], basis[:, sizes[-1] :]
        _, values, rows = torch.linalg.svd(rest.mH @ f @ rest)
        step = min(max(int((values <= rounding * norm).sum()), 1), step)
        missed = max(missed, float(values[-step]) / (norm or 1.0))
        basis = torch.cat([kernel, rest @ rows.mH.flip(1)], dim=1)  # the least singular values are the last
        sizes.append(sizes[-1] + step)
    return basis, tuple(sizes), missed


def _levels(f: Tensor) -> tuple[Tensor, tuple[int, ...]] | None:
    """The staircase by the zeros of ``f`` alone, or ``None`` where its graph has a cycle."""
    left, order, sizes = torch.ones(len(f), dtype=torch.bool, device=f.device), [], [0]
    while left.any():
        free = left & ~(f[left] != 0).any(dim=0)  # those that reach nothing that is left
        if not free.any():
            return None
        order += free.nonzero()[:, 0].tolist()
        sizes.append(len(order))
        left = left & ~free
    return torch.eye(len(f), dtype=f.dtype, device=f.device)[:, order], tuple(sizes)
