"""The loop over a plan, compiled: one program for all architectures, which reads the plan as a table.

Arrays: ``W[tap, channel_out, channel_in]`` with any strides; ``Y, Z, U, V[channel, position]`` contiguous, a position
being a time or pixel crossed with the samples, samples innermost. The same loop solves the machine and its dual.
"""

from typing import Any

import numpy as np
from numba import njit

from machgraph.kernels.keep import named
from machgraph.kernels.pointwise import add_activated, add_weighed
from machgraph.kernels.product import add_outer, add_product
from machgraph.kernels.program import (
    ACCUMULATE,
    ACTIVATE,
    BLOCK,
    CLEAR,
    COLUMN,
    COLUMN_END,
    DUAL,
    INPUT,
    INPUT_END,
    KIND,
    OFFSET,
    POOL,
    REPEAT,
    ROW,
    ROW_END,
    TAP,
    WRAP,
)

CHUNK = 2048  # columns that neighbouring products go over together: what they read and write stays in the cache


def _solver(name: str, transposed: bool, activate: Any, pool: Any) -> Any:
    """The loop, with W or its transpose, with what it does for ``Z[box] += σ(Y[box])``, and from grid to grid."""

    def accumulate(table, begin, end, moved, samples, W, Y, Z):
        longest = 0
        for k in range(begin, end):
            longest = max(longest, samples * (table[k, COLUMN_END] - table[k, COLUMN]))
        for start in range(0, longest, CHUNK):
            for k in range(begin, end):
                step = table[k]
                rows, inputs = slice(step[ROW], step[ROW_END]), slice(step[INPUT], step[INPUT_END])
                first, offset = samples * (step[COLUMN] + moved) + start, samples * step[OFFSET]
                last = min(samples * (step[COLUMN_END] + moved), first + CHUNK)
                if first < last:
                    left = W[step[TAP], inputs, rows].T if transposed else W[step[TAP], rows, inputs]
                    add_product(Y[rows, first:last], left, Z[inputs, first + offset : last + offset])

    accumulate = njit(named(name, accumulate), error_model="numpy")

    def solve(table, border, windows, samples, W, Y, Z, codes, arrays, at):
        i = 0
        while i < len(table):
            repeated = table[i, KIND] == REPEAT
            body, turns, stride = (table[i, 1], table[i, 2], table[i, 3]) if repeated else (1, 1, 0)
            i += repeated
            while not repeated and i + body < len(table) and table[i + body, KIND] != REPEAT:
                body += 1
            for turn in range(turns):
                j = i
                while j < i + body:
                    end = j
                    while end < i + body and table[end, KIND] == ACCUMULATE:
                        end += 1
                    if end > j:
                        accumulate(table, j, end, turn * stride, samples, W, Y, Z)
                        j = end
                        continue
                    step = table[j]
                    first = samples * (step[COLUMN] + turn * stride)
                    last = samples * (step[COLUMN_END] + turn * stride)
                    if step[KIND] == ACTIVATE:
                        activate(codes[step[BLOCK]], step[ROW], step[ROW_END], first, last, Y, Z, arrays)
                    elif step[KIND] == CLEAR:
                        _clear(Y if step[DUAL] else Z, step, border, samples)
                    elif step[KIND] == WRAP:
                        _wrap(Z, step, border, samples)
                    elif step[KIND] == POOL:
                        pool(Y if step[DUAL] else Z, at, step, windows, samples)
                    else:
                        _fold(Y, step, border, samples)
                    j += 1
            i += body

    return njit(named(name, solve), error_model="numpy")


def _boxed(pointwise: Any) -> Any:
    """A pointwise operation over a box, as one long row where its rows lie together."""

    @njit(error_model="numpy", inline="always")
    def activate(code, row, row_end, first, last, Y, Z, arrays):
        if first == 0 and last == Y.shape[1]:
            rows = slice(row, row_end)
            pointwise(code, Y[rows].ravel(), Z[rows].ravel(), arrays[rows].ravel())
        else:
            for i in range(row, row_end):
                pointwise(code, Y[i, first:last], Z[i, first:last], arrays[i, first:last])

    return activate


@njit(error_model="numpy", inline="always")
def _sigma(code, y, z, _):
    add_activated(code, y, z)


@njit(error_model="numpy", inline="always")
def _sigma_dual(code, u, v, y):
    add_weighed(code, y, u, v)


@njit(error_model="numpy")
def _pool(Z, _, step, windows, samples):
    """Add maxima or means over windows to the next grid; a maximum is the first that is largest, or not a number."""
    pooled = np.empty(samples, Z.dtype)
    for i in range(step[ROW], step[ROW_END]):
        for window in windows[step[COLUMN] : step[COLUMN_END]]:
            pooled[:] = Z[i, samples * window[1] : samples * (window[1] + 1)]
            count = 1
            while count < 8 and window[count + 1] >= 0:
                other = Z[i, samples * window[count + 1] : samples * (window[count + 1] + 1)]
                count += 1
                if step[TAP]:
                    for j in range(samples):
                        pooled[j] += other[j]
                else:
                    for j in range(samples):
                        pooled[j] = pooled[j] if pooled[j] >= other[j] or pooled[j] != pooled[j] else other[j]
            to = Z[i, samples * window[0] : samples * (window[0] + 1)]
            share = Z.dtype.type(1) / Z.dtype.type(count if step[TAP] else 1)
            for j in range(samples):
                to[j] += share * pooled[j]


@njit(error_model="numpy")
def _unpool(U, z, step, windows, samples):
    """The adjoint: evenly, or to what was the first largest."""
    chosen, largest = np.empty(samples, np.int32), np.empty(samples, z.dtype)
    for i in range(step[ROW], step[ROW_END]):
        for window in windows[step[COLUMN] : step[COLUMN_END]]:
            source = U[i, samples * window[0] : samples * (window[0] + 1)]
            count = 1
            largest[:] = z[i, samples * window[1] : samples * (window[1] + 1)]
            chosen[:] = 1
            while count < 8 and window[count + 1] >= 0:
                count += 1
                other = z[i, samples * window[count] : samples * (window[count] + 1)]
                for j in range(samples):
                    stays = largest[j] >= other[j] or largest[j] != largest[j]
                    chosen[j] = chosen[j] if stays else np.int32(count)
                    largest[j] = largest[j] if stays else other[j]
            share = U.dtype.type(1) / U.dtype.type(count)
            for w in range(1, count + 1):
                to = U[i, samples * window[w] : samples * (window[w] + 1)]
                if step[TAP]:
                    for j in range(samples):
                        to[j] += share * source[j]
                else:
                    for j in range(samples):
                        to[j] += source[j] if chosen[j] == w else U.dtype.type(0)


# y = W z + y0, z = σ(y) + z0;    u = W* v + u0, v = σ'(y) ⊙ u + v0;
# Pooling is linearized at z.
solve = _solver("forward", transposed=False, activate=_boxed(_sigma), pool=_pool)
solve_dual = _solver("dual", transposed=True, activate=_boxed(_sigma_dual), pool=_unpool)


@njit(error_model="numpy")
def add_weight_gradient(products, samples, Q, V, Z):
    """``Q += V Z*`` where the plan reads weights (eq. 14); the rows of ``Q`` are contiguous."""
    length = 0
    for i in range(len(products)):
        length = max(length, samples * (products[i, COLUMN_END] - products[i, COLUMN]))
    for start in range(0, length, CHUNK):
        for i in range(len(products)):
            step = products[i]
            rows, inputs, offset = (
                slice(step[ROW], step[ROW_END]),
                slice(step[INPUT], step[INPUT_END]),
                samples * step[OFFSET],
            )
            first = samples * step[COLUMN] + start
            last = min(samples * step[COLUMN_END], first + CHUNK)
            if first < last:
                add_outer(Q[step[TAP], rows, inputs], V[rows, first:last], Z[inputs, first + offset : last + offset])


@njit(error_model="numpy", fastmath={"reassoc", "contract"})
def total(row):
    """The sum of a contiguous row."""
    sum_ = row.dtype.type(0)
    for value in row:
        sum_ += value
    return sum_


@njit(error_model="numpy")
def _clear(X, step, border, samples):
    for i in range(step[ROW], step[ROW_END]):
        for run in border[step[COLUMN] : step[COLUMN_END]]:
            X[i, samples * run[0] : samples * (run[0] + run[1])] = 0


@njit(error_model="numpy")
def _wrap(X, step, border, samples):
    for i in range(step[ROW], step[ROW_END]):
        for run in border[step[COLUMN] : step[COLUMN_END]]:
            for j in range(samples * run[1]):
                X[i, samples * run[0] + j] = X[i, samples * run[2] + j]


@njit(error_model="numpy")
def _fold(X, step, border, samples):
    for i in range(step[ROW], step[ROW_END]):
        for run in border[step[COLUMN] : step[COLUMN_END]]:
            for j in range(samples * run[1]):
                X[i, samples * run[2] + j] += X[i, samples * run[0] + j]
                X[i, samples * run[0] + j] = 0
