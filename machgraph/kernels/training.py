"""An epoch of one candidate: forward, loss, dual, gradient and optimizer, batch after batch, all compiled.

Nothing of it is Python, so candidates train on several threads at once, each with its own plan and settings.
"""

from typing import Any

import numpy as np
from numba import njit

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


@njit(error_model="numpy")
def _loss(outputs, classes, values, smoothing, gradient):
    """The mean loss and its gradient, and how many classes are right: one of the two kinds of targets is empty."""
    if len(values):
        return squared_error(outputs, values, gradient), 0
    return cross_entropy(outputs, classes, smoothing, gradient), hits(outputs, classes)


def _compiled(sources: int) -> Any:
    @kept
    def epoch(machine, state, x, targets, read, smoothing, settings, rates, step, sharpness, losses):
        """Take one candidate over one batch after the other: train it, or measure it only, if there are no rates.

        Parameters
        ----------
        machine : tables of the plan (instructions, dual, products, weights, border, windows, frame), codes of the
            activations, and the first channel whose bias is trained.
        state : ``W[tap, out, in]``, ``bias[channel]``, and of each the two running means; all are changed.
        x : ``[batch, channel, inner position, sample]``.
        targets : classes ``[batch, sample of the output]`` and values ``[batch, output, sample of the output]``; there
            are no outputs in the latter, or no samples in the former.
        read : first channel of the last block, positions that are heard, and whether their mean is the output.
        smoothing : of classes.
        settings, rates : of the optimizer, and the learning rate of each step.
        step : how many steps were done before.
        sharpness, losses : to the latter is added, for each of the former, the mean of the batches' losses of classes
            if the outputs are multiplied with it.

        Returns
        -------
        The mean of the batches' losses, and the fraction of classes that were right.
        """
        _ = sources
        table, dual, products, weights, border, windows, frame, codes, trained = machine
        W, bias, W_first, W_second, bias_first, bias_second = state
        first, heard, pooled = read
        samples, channels = x.shape[3], len(bias)
        positions = frame[9] * samples
        Y, Z = np.empty((channels, positions), W.dtype), np.empty((channels, positions), W.dtype)
        out = np.empty((channels - first, samples if pooled else samples * len(heard)), W.dtype)
        gradient, loss, right = np.empty_like(out), 0.0, 0
        back = channels if len(rates) else 0
        U, V = np.empty((back, positions), W.dtype), np.empty((back, positions), W.dtype)
        Q, Q_bias = np.zeros_like(W[:, :back]), np.zeros_like(bias[:back])
        for batch in range(len(x)):
            _enter(Y, bias, x[batch], frame, samples)
            Z[:] = 0
            solve(table, border, windows, samples, W, Y, Z, codes, Y, Z)
            _read_out(Z, first, heard, pooled, samples, out)
            one_loss, one_right = _loss(out, targets[0][batch], targets[1][batch], smoothing, gradient)
            loss += one_loss
            right += one_right
            before = 1.0
            for k in range(len(sharpness)):
                factor = W.dtype.type(sharpness[k] / before)
                for row in out:
                    for j in range(len(row)):
                        row[j] *= factor
                losses[k] += cross_entropy(out, targets[0][batch], smoothing, gradient) / len(x)
                before = sharpness[k]
            if not back:
                continue
            U[:] = 0
            V[:] = 0
            _read_out_dual(U, first, heard, pooled, samples, gradient)
            solve_dual(dual, border, windows, samples, W, U, V, codes, Y, Z)
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
        return loss / len(x), right / (len(x) * out.shape[1])

    return epoch


epoch = _compiled(sources())
