"""An epoch of one candidate: forward, loss, dual, gradient and optimizer, batch after batch, all compiled.

Nothing of it is Python, so candidates train on several threads at once, each with its own plan and settings.
"""

from typing import Any

import numpy as np
from numba import njit
from numba.extending import overload

from machgraph.kernels.keep import kept, sources
from machgraph.kernels.loop import add_weight_gradient, solve, solve_dual, total
from machgraph.kernels.losses import cross_entropy, hits, squared_error
from machgraph.kernels.optimizer import descend
from machgraph.kernels.program import INPUT, INPUT_END, ROW, ROW_END, TAP


@njit(error_model="numpy")
def _enter(Y, bias, x, frame, samples):
    """``Y = y0 + bias``: ``x[channel, inner position, sample]`` in the first channels, 0 in the others."""
    for i in range(len(Y)):
        Y[i] = bias[i]
    for i in range(len(x)):
        for a in range(frame[0]):
            for b in range(frame[1]):
                start = ((frame[3] + a) * frame[7] + frame[4] + b) * frame[8] + frame[5]
                inner = (a * frame[1] + b) * frame[2]
                to = Y[i, samples * start : samples * (start + frame[2])]
                source = x[i, inner : inner + frame[2]].ravel()
                for j in range(len(source)):
                    to[j] += source[j]


@njit(error_model="numpy")
def _read_out(Z, first, heard, pooled, samples, out):
    """The last block at the positions that are heard, or its mean over them: ``out[output, sample]``."""
    for k in range(len(out)):
        row = Z[first + k]
        for p in range(len(heard)):
            start, to = samples * heard[p], 0 if pooled else samples * p
            for j in range(samples):
                if pooled and p:
                    out[k, j] += row[start + j]
                else:
                    out[k, to + j] = row[start + j]
        if pooled and len(heard) > 1:
            for j in range(samples):
                out[k, j] /= len(heard)


@njit(error_model="numpy")
def _read_out_dual(U, first, heard, pooled, samples, gradient):
    """The adjoint: what the outputs' gradient is as a cotangent of Z."""
    for k in range(len(gradient)):
        row = U[first + k]
        for p in range(len(heard)):
            start, source = samples * heard[p], 0 if pooled else samples * p
            for j in range(samples):
                row[start + j] = gradient[k, source + j] / len(heard) if pooled else gradient[k, source + j]


def loss_of(outputs, targets, smoothing, gradient):
    """The mean loss, and its gradient: classes ``[sample]``, or values ``[output, sample]``."""
    raise NotImplementedError("only in compiled code")


@overload(loss_of)
def _loss_of(outputs, targets, smoothing, gradient):
    if targets.ndim == 1:
        return lambda outputs, targets, smoothing, gradient: cross_entropy(outputs, targets, smoothing, gradient)
    return lambda outputs, targets, smoothing, gradient: squared_error(outputs, targets, gradient)


def hits_of(outputs, targets):
    """How many are right, of classes; of values, 0."""
    raise NotImplementedError("only in compiled code")


@overload(hits_of)
def _hits_of(outputs, targets):
    if targets.ndim == 1:
        return lambda outputs, targets: hits(outputs, targets)
    return lambda outputs, targets: 0


def _compiled(sources: int) -> tuple[Any, Any]:
    @kept
    def epoch(machine, state, x, targets, read, smoothing, settings, rates, step):
        """Train one candidate on one batch after the other, and return the mean of their losses.

        Parameters
        ----------
        machine : tables of the plan (instructions, dual, products, weights, border, frame), codes of the activations,
            and the first channel whose bias is trained.
        state : ``W[tap, out, in]``, ``bias[channel]``, and of each the two running means; all are changed.
        x, targets : ``[batch, channel, inner position, sample]`` and ``[batch, (output,) sample of the output]``.
        read : first channel of the last block, positions that are heard, and whether their mean is the output.
        smoothing : of classes.
        settings, rates : of the optimizer, and the learning rate of each step.
        step : how many steps were done before.
        """
        _ = sources
        table, dual, products, weights, border, frame, codes, trained = machine
        W, bias, W_first, W_second, bias_first, bias_second = state
        first, heard, pooled = read
        samples, channels = x.shape[3], len(bias)
        positions = frame[6] * frame[7] * frame[8] * samples
        Y, Z = np.empty((channels, positions), W.dtype), np.empty((channels, positions), W.dtype)
        U, V = np.empty((channels, positions), W.dtype), np.empty((channels, positions), W.dtype)
        Q, Q_bias = np.zeros_like(W), np.zeros_like(bias)
        out = np.empty((channels - first, samples if pooled else samples * len(heard)), W.dtype)
        gradient, loss = np.empty_like(out), 0.0
        for batch in range(len(x)):
            _enter(Y, bias, x[batch], frame, samples)
            Z[:] = 0
            solve(table, border, samples, W, Y, Z, codes, Y)
            _read_out(Z, first, heard, pooled, samples, out)
            loss += loss_of(out, targets[batch], smoothing, gradient)
            U[:] = 0
            V[:] = 0
            _read_out_dual(U, first, heard, pooled, samples, gradient)
            solve_dual(dual, border, samples, W, U, V, codes, Y)
            add_weight_gradient(products, samples, Q, V, Z)
            rate, now = rates[batch], step + batch + 1
            for w in weights:
                tap, inputs = w[TAP], slice(w[INPUT], w[INPUT_END])
                for i in range(w[ROW], w[ROW_END]):
                    m, s = W_first[tap, i, inputs], W_second[tap, i, inputs]
                    descend(W[tap, i, inputs], Q[tap, i, inputs], m, s, rate, settings, now)
            for i in range(trained, channels):
                Q_bias[i] = total(V[i])
            last = slice(trained, channels)
            descend(bias[last], Q_bias[last], bias_first[last], bias_second[last], rate, settings, now)
        return loss / len(x)

    @kept
    def measure(machine, W, bias, x, targets, read):
        """The mean loss on some batches, without smoothing, and the fraction of hits; arguments as for an epoch."""
        _ = sources
        table, _, _, _, border, frame, codes, _ = machine
        first, heard, pooled = read
        samples, channels = x.shape[3], len(bias)
        positions = frame[6] * frame[7] * frame[8] * samples
        Y, Z = np.empty((channels, positions), W.dtype), np.empty((channels, positions), W.dtype)
        out = np.empty((channels - first, samples if pooled else samples * len(heard)), W.dtype)
        gradient, loss, right = np.empty_like(out), 0.0, 0
        for batch in range(len(x)):
            _enter(Y, bias, x[batch], frame, samples)
            Z[:] = 0
            solve(table, border, samples, W, Y, Z, codes, Y)
            _read_out(Z, first, heard, pooled, samples, out)
            loss += loss_of(out, targets[batch], 0.0, gradient)
            right += hits_of(out, targets[batch])
        return loss / len(x), right / (len(x) * out.shape[1])

    return epoch, measure


epoch, measure = _compiled(sources())
