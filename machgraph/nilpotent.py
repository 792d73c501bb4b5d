"""Linear machines that read what they write: nilpotent operators (sections 2.1 and 2.2)."""

import torch
from torch import Tensor, nn


class NilpotentMachine(nn.Module):
    """A nilpotent linear operator ``f`` as a machine: ``f^(d+1) = 0``, where ``d`` is its depth.

    Parameters
    ----------
    matrix : shape (n, n), ``[out, in]``, floating or complex; kept as it is, so that gradients reach it. Vectors are
        the last axis: ``f x = x @ matrix.T`` for ``x`` of shape (..., n).
    tolerance : what counts as 0, for norms and for singular values, relative to the largest possible; by default 100 n
        times the precision of the dtype.

    Attributes
    ----------
    depth : the least ``d`` with ``f^(d+1) = 0``; 0 for the zero matrix, whose cofiltration ``V_0 = 0`` has length 0.
    cofiltration : ``V_0 ⊇ ... ⊇ V_d = 0`` with ``V_i = ker f^(d-i)``, as orthonormal bases of shape (n, dim V_i).

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
        if not matrix.isfinite().all():
            raise ValueError("got a matrix with entries that are not finite: a machine is a bounded operator")
        if isinstance(matrix, nn.Parameter):
            self.matrix = matrix
        else:
            self.register_buffer("matrix", matrix)
        self.tolerance = 100 * len(matrix) * torch.finfo(matrix.dtype).eps if tolerance is None else tolerance
        powers = self._powers()
        self.depth = len(powers) - 1
        self.cofiltration = [self._kernel(power).to(matrix.dtype) for power in reversed(powers)]

    def _powers(self) -> list[Tensor]:
        """``f^0, ..., f^d``, each scaled to norm 1, so that a long product of small factors is not taken for 0."""
        f = self.matrix.detach()
        f = f.to(torch.complex128 if f.is_complex() else torch.float64)
        n, norm = len(f), torch.linalg.matrix_norm(f)
        powers, size = [torch.eye(n, dtype=f.dtype, device=f.device)], torch.ones_like(norm)
        for _ in range(n):
            power = f @ (powers[-1] / torch.linalg.matrix_norm(powers[-1]))
            found = torch.linalg.matrix_norm(power)
            if found <= self.tolerance * norm:
                return powers
            powers.append(power / found)
            size = size * found / norm
        raise ValueError(
            f"got a matrix f that is not nilpotent: f^{n} has norm {float(size):.3g} relative to the norm of f to the "
            f"power of {n}, and must be 0 up to {self.tolerance:.3g}"
        )

    def _kernel(self, power: Tensor) -> Tensor:
        _, values, rows = torch.linalg.svd(power)
        kernel: Tensor = rows[int((values > self.tolerance * values[0]).sum()) :].mH
        return kernel

    def increment(self, x: Tensor) -> Tensor:
        """``f x``, of the shape (..., n) of ``x``."""
        self._check(x)
        return x @ self.matrix.T

    def resolvent(self, g: Tensor) -> Tensor:
        """``R_f g = g + f g + ... + f^d g`` by Horner's rule; ``g`` and the result have the shape (..., n)."""
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
        if x.ndim == 0 or x.shape[-1] != len(self.matrix):
            raise ValueError(
                f"got shape {tuple(x.shape)}: the last axis must have the size {len(self.matrix)} of the matrix"
            )
