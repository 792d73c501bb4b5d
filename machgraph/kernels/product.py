"""Matrix products of any size, tile by tile, in an order that keeps in the caches what is needed again."""

from typing import Any

import numpy as np
from numba import njit

from machgraph.kernels.keep import named
from machgraph.kernels.tiles import ROWS, SIDE, VECTOR_BYTES, copy_tile, inner_tile, outer_tile

# A block of each operand that fits into the second cache: so many entries of a sum, and of rows beside it.
SUM, BESIDE = 256, 256
FAR = 4096  # bytes between the rows of B from which on they fall on each other's places in the first cache
MANY = 64  # rows of a product that pay for a copy of B


def _panel(vectors: int, masked: bool) -> Any:
    """All rows of a product at so many vectors of columns: in tiles of ``ROWS`` rows, what is left in smaller ones."""
    most = outer_tile(ROWS, vectors, masked)
    four, two, one = (outer_tile(rows, vectors, masked) for rows in (4, 2, 1))

    def panel(like, columns, M, K, A, a_i, a_k, B, b_k, C, c_i, size):
        i = 0
        while i + ROWS <= M:
            most(like, columns, K, A + size * i * a_i, a_i, a_k, B, b_k, C + size * i * c_i, c_i)
            i += ROWS
        if ROWS > 4 and i + 4 <= M:
            four(like, columns, K, A + size * i * a_i, a_i, a_k, B, b_k, C + size * i * c_i, c_i)
            i += 4
        if i + 2 <= M:
            two(like, columns, K, A + size * i * a_i, a_i, a_k, B, b_k, C + size * i * c_i, c_i)
            i += 2
        if i < M:
            one(like, columns, K, A + size * i * a_i, a_i, a_k, B, b_k, C + size * i * c_i, c_i)

    return njit(named(f"{vectors}{masked}", panel))


_two_vectors, _one_vector, _part_of_a_vector = _panel(2, False), _panel(1, False), _panel(1, True)


@njit
def add_product(C, A, B):
    """``C += A B``; the rows of ``B`` and of ``C`` are contiguous, ``A`` has any strides."""
    M, K = A.shape
    N = C.shape[1]
    if M < MANY or (K <= 2 * SUM and B.strides[0] < FAR):
        _add_columns(C, A, B)
        return
    like, size = C[0, 0], C.itemsize
    width = 2 * VECTOR_BYTES // size
    panel = np.empty((min(K, SUM), width), C.dtype)  # a copy of some columns of B that lies together
    for k in range(0, K, SUM):
        length = min(SUM, K - k)
        for i in range(0, M, BESIDE):
            left, result = A[i : i + BESIDE, k : k + length], C[i : i + BESIDE]
            for j in range(0, N, width):
                if j + width <= N:
                    for row in range(length):
                        copy_tile(like, panel[row].ctypes.data, B[k + row, j:].ctypes.data)
                    _add_columns(result[:, j : j + width], left, panel[:length])
                else:
                    _add_columns(result[:, j:], left, B[k : k + length, j:])


@njit
def _add_columns(C, A, B):
    """``C += A B``, two vectors of columns at a time."""
    M, K = A.shape
    N = C.shape[1]
    if M == 0 or K == 0 or N == 0:
        return
    like, size = C[0, 0], C.itemsize
    lanes = VECTOR_BYTES // size
    a, a_i, a_k = A.ctypes.data, A.strides[0] // size, A.strides[1] // size
    b, b_k = B.ctypes.data, B.strides[0] // size
    c, c_i = C.ctypes.data, C.strides[0] // size
    j = 0
    while j + 2 * lanes <= N:
        _two_vectors(like, lanes, M, K, a, a_i, a_k, b + size * j, b_k, c + size * j, c_i, size)
        j += 2 * lanes
    if j + lanes <= N:
        _one_vector(like, lanes, M, K, a, a_i, a_k, b + size * j, b_k, c + size * j, c_i, size)
        j += lanes
    if j < N:
        _part_of_a_vector(like, N - j, M, K, a, a_i, a_k, b + size * j, b_k, c + size * j, c_i, size)


@njit
def add_outer(C, A, B):
    """``C += A B*``; the rows of all three are contiguous."""
    M, N = C.shape
    if M == 0 or N == 0:
        return
    like, size = C[0, 0], C.itemsize
    a, a_i = A.ctypes.data, A.strides[0] // size
    b, b_j = B.ctypes.data, B.strides[0] // size
    c, c_i = C.ctypes.data, C.strides[0] // size
    for n in range(0, A.shape[1], 2 * SUM):
        length = min(2 * SUM, A.shape[1] - n)
        for beside in range(0, N, BESIDE // 2):
            for i in range(0, M, SIDE):
                for j in range(beside, min(N, beside + BESIDE // 2), SIDE):
                    inner_tile(
                        like, M - i, N - j, length, a + size * (i * a_i + n), a_i, b + size * (j * b_j + n), b_j,
                        c + size * (i * c_i + j), c_i,
                    )  # fmt: skip
