"""Steps of optimizers on the weights that a plan reads; what is not read keeps its zero. As torch.optim has them."""

import numpy as np
from numba import njit

SGD, ADAM, ADAMW = range(3)
# What an optimizer is told, by place: its kind, the weight decay, the momentum or first beta, the second, epsilon.
KIND, DECAY, FIRST, SECOND, EPSILON = range(5)


@njit(error_model="numpy", fastmath={"contract"})
def descend(p, g, m, s, rate, settings, step):
    """One step on a contiguous row of parameters with gradient ``g``, which is cleared; ``step`` counts from 1.

    ``m`` and ``s`` are the running means of the gradient and of its square; for SGD, ``m`` is the velocity.
    """
    kind, real = settings[KIND], p.dtype.type
    rate, decay, first, second, epsilon = (
        real(rate), real(settings[DECAY]), real(settings[FIRST]), real(settings[SECOND]), real(settings[EPSILON]),
    )  # fmt: skip
    one = real(1)
    if kind == SGD:
        for i in range(len(p)):
            gradient = g[i] + decay * p[i]
            m[i] = gradient if step == 1 else first * m[i] + gradient
            p[i] -= rate * m[i]
            g[i] = 0
        return
    keep = one - rate * decay if kind == ADAMW else one
    coupled = decay if kind == ADAM else real(0)
    new_first, new_second = real(1 - settings[FIRST]), real(1 - settings[SECOND])  # small: not of rounded numbers
    pace = rate / real(1 - np.float64(settings[FIRST]) ** step)
    scale = real(1 / np.sqrt(1 - np.float64(settings[SECOND]) ** step))
    for i in range(len(p)):
        gradient = g[i] + coupled * p[i]
        m[i] += new_first * (gradient - m[i])
        s[i] = second * s[i] + new_second * gradient * gradient
        p[i] = keep * p[i] - pace * m[i] / (np.sqrt(s[i]) * scale + epsilon)
        g[i] = 0
