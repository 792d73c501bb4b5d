"""Losses with their gradients: what a candidate descends on. Arrays are ``[output, sample]``, contiguous."""

import numpy as np
from numba import njit, types
from numba.extending import overload

from machgraph.kernels.arithmetic import arithmetic


def exponentials(row, maximum):
    """``row = exp(row - maximum)``."""
    raise NotImplementedError("only in compiled code")


_EXP = {types.float32: arithmetic(np.float32).exp, types.float64: arithmetic(np.float64).exp}


@overload(exponentials)
def _exponentials(row, maximum):
    exp = _EXP[row.dtype]

    def loop(row, maximum):
        for j in range(len(row)):
            row[j] = exp(row[j] - maximum[j])

    return loop


@njit(error_model="numpy")
def cross_entropy(z, classes, smoothing, gradient):
    """Mean over samples of ``-Σ_k q_k log softmax(z)_k``, ``q`` being the class, smoothed; ``gradient`` is written."""
    outputs, samples = z.shape
    maximum, total = z[0].copy(), np.zeros(samples, z.dtype)
    for k in range(1, outputs):
        row = z[k]
        for j in range(samples):
            maximum[j] = row[j] if row[j] > maximum[j] or row[j] != row[j] else maximum[j]
    even = smoothing / outputs
    loss = 0.0
    for k in range(outputs):
        row, probability = z[k], gradient[k]
        for j in range(samples):
            probability[j] = row[j]
            loss += even * np.float64(maximum[j] - row[j])
        exponentials(probability, maximum)
        for j in range(samples):
            total[j] += probability[j]
    for k in range(outputs):
        probability = gradient[k]
        for j in range(samples):
            probability[j] = (probability[j] / total[j] - even) / samples
    for j in range(samples):
        k = classes[j]
        gradient[k, j] -= (1 - smoothing) / samples
        loss += (1 - smoothing) * np.float64(maximum[j] - z[k, j]) + np.log(np.float64(total[j]))
    return loss / samples


@njit(error_model="numpy")
def squared_error(z, target, gradient):
    """Mean over outputs and samples of ``(z - target)²``; ``gradient`` is written."""
    outputs, samples = z.shape
    scale, loss = 2 / (outputs * samples), 0.0
    for k in range(outputs):
        for j in range(samples):
            error = z[k, j] - target[k, j]
            gradient[k, j] = scale * error
            loss += np.float64(error * error)
    return loss / (outputs * samples)


@njit(error_model="numpy")
def hits(z, classes):
    """How many samples have their largest output at their class, the first of equal ones."""
    count = 0
    for j in range(z.shape[1]):
        largest = 0
        for k in range(1, z.shape[0]):
            if z[k, j] > z[largest, j]:
                largest = k
        count += largest == classes[j]
    return count
