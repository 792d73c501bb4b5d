"""What Python calls: one machine solved, or its dual with all gradients, from the addresses of torch's own memory.

A machine of a few units takes some microseconds, about as long as Python needs to make an array of a tensor. So these
take addresses, and read and write the caller's layout ``(sample, channel, *size)`` with its strides themselves.
"""

from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic

from machgraph.kernels.keep import kept, sources
from machgraph.kernels.loop import add_weight_gradient, solve, solve_dual, total

NEAR = 8  # channels that are read side by side, each from a row of its own: rows may fall on one place in the cache
LINE = 16  # positions of a channel that are read one after the other


@intrinsic
def _pointer(typing, like, address):
    """An address as a pointer to numbers of the type of the first argument."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[1], context.get_value_type(signature.return_type))

    return types.CPointer(like)(like, address), emit


@njit(error_model="numpy")
def _matrices(like, address, taps, channels, strides):
    """``W[tap, out, in]`` of a tensor ``(out, in, *tap)``; its strides are those of out, in and the last tap."""
    first = carray(_pointer(like, address), (1,))
    size = first.itemsize
    return np.lib.stride_tricks.as_strided(
        first, (taps, channels, channels), (size * strides[2], size * strides[0], size * strides[1])
    )


@njit(error_model="numpy")
def _array(like, address, rows, columns):
    return carray(_pointer(like, address), (rows, columns))


@njit(error_model="numpy")
def _add(X, like, frame, samples, tensor):
    """Add to the first channels of ``X``, at the inner positions, a tensor ``(sample, channel, *size)``, if any."""
    address, channels, strides = tensor
    if address == 0:
        return
    given = carray(_pointer(like, address), (1 << 60,))
    if frame[2] > 1:
        for channel in range(channels):
            row = X[channel]
            for a in range(frame[0]):
                for b in range(frame[1]):
                    position = ((frame[3] + a) * frame[7] + frame[4] + b) * frame[8] + frame[5]
                    start = channel * strides[1] + a * strides[2] + b * strides[3]
                    for first in range(0, frame[2], LINE):
                        for sample in range(samples):
                            for c in range(first, min(first + LINE, frame[2])):
                                value = given[start + sample * strides[0] + c * strides[4]]
                                row[(position + c) * samples + sample] += value
        return
    for near in range(0, channels, NEAR):
        for a in range(frame[0]):
            for b in range(frame[1]):
                for c in range(frame[2]):
                    position = ((frame[3] + a) * frame[7] + frame[4] + b) * frame[8] + frame[5] + c
                    start = a * strides[2] + b * strides[3] + c * strides[4]
                    for sample in range(samples):
                        for channel in range(near, min(near + NEAR, channels)):
                            value = given[start + sample * strides[0] + channel * strides[1]]
                            X[channel, position * samples + sample] += value


def _compiled(sources: int) -> tuple[Any, Any]:
    @kept
    def forward(like, tables, codes, shape, W, bias, y0, z0, memory):
        """Solve one machine.

        Parameters
        ----------
        like : a number of the type of all entries.
        tables, codes : of the plan (instructions, dual, products, border, windows, frame), and of its activations.
        shape : channels, taps, samples.
        W : address, and the strides of out, in and tap.
        bias : address; 0 for none, here and below.
        y0, z0 : address, channels, and the strides of sample, channel and three axes of positions.
        memory : addresses of what will be Y and Z, each ``[channel, position]``.
        """
        _ = sources
        table, _, _, border, windows, frame = tables
        channels, taps, samples = shape
        positions = frame[9] * samples
        Y, Z = _array(like, memory[0], channels, positions), _array(like, memory[1], channels, positions)
        if bias:
            b = _array(like, bias, 1, channels)[0]
            for i in range(channels):
                Y[i] = b[i]
        else:
            Y[:] = 0
        _add(Y, like, frame, samples, y0)
        Z[:] = 0
        _add(Z, like, frame, samples, z0)
        solve(table, border, windows, samples, _matrices(like, W[0], taps, channels, W[1]), Y, Z, codes, Y, Z)

    @kept
    def backward(like, tables, codes, shape, W, v0, u0, memory, gradients):
        """Solve the dual of one machine that was solved, and take the gradients of W and of the bias, if asked.

        Parameters
        ----------
        like, tables, codes, shape, W : as above.
        v0, u0 : cotangents of y and z, as ``y0`` and ``z0`` above.
        memory : addresses of Y and Z, and of what will be U and V.
        gradients : addresses of what will be the gradients of W, ``[tap, out, in]``, and of the bias.
        """
        _ = sources
        _, dual, products, border, windows, frame = tables
        channels, taps, samples = shape
        positions = frame[9] * samples
        Y, Z = _array(like, memory[0], channels, positions), _array(like, memory[1], channels, positions)
        U, V = _array(like, memory[2], channels, positions), _array(like, memory[3], channels, positions)
        U[:] = 0
        V[:] = 0
        _add(U, like, frame, samples, u0)
        _add(V, like, frame, samples, v0)
        matrices = _matrices(like, W[0], taps, channels, W[1])
        solve_dual(dual, border, windows, samples, matrices, U, V, codes, Y, Z)
        if gradients[0]:
            Q = carray(_pointer(like, gradients[0]), (taps, channels, channels))
            Q[:] = 0
            add_weight_gradient(products, samples, Q, V, Z)
        if gradients[1]:
            b = _array(like, gradients[1], 1, channels)[0]
            for i in range(channels):
                b[i] = total(V[i])

    return forward, backward


forward, backward = _compiled(sources())
