"""Exponential, hyperbolic and other functions as plain arithmetic, which compilers turn into vector instructions.

A call into a library of mathematics keeps a loop from being vectorized, and costs more than the products around it.
Here each function is a polynomial after a reduction of its argument, without branches. Within 4 units in the last place
of float32 (the normal distribution function: 6), and 1e-14 relative in float64; infinities and what is not a number
come out as they should.
"""

from collections.abc import Iterable
from functools import cache
from math import factorial, log, pi
from types import SimpleNamespace
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.polynomial import chebyshev

# Chebyshev coefficients in 2t - 1 of log(erfc(z) / t) + z², where t = 2 / (2 + z), for z from 0 on. Computed with 50
# digits by interpolation at 60 nodes; what is left out is below 1e-17.
ERFC = (
    -0.6513268598908547, 0.6419697923564903, 0.019476473204185836, -0.009561514786808632, -0.0009465953444820369,
    0.00036683949785276145, 4.2523324806907772e-5, -2.0278578112534243e-5, -1.6242900046470255e-6,
    1.3036558355805232e-6, 1.5626441722066143e-8, -8.5238095914926543e-8, 6.529054439098851e-9, 5.059343495551469e-9,
    -9.913641564930331e-10, -2.2736512229318359e-10, 9.646791102015527e-11, 2.3940380830391147e-12,
    -6.886027526497553e-12, 8.944879273090726e-13, 3.130921399342958e-13, -1.1270822361367252e-13,
    3.8109052551892321e-16, 7.106097613609237e-15, -1.5230282014571043e-15, -9.4574945712912340e-17,
    1.2102371892242790e-16, -2.8166630877471770e-17,
)  # fmt: skip


FAR_ANGLE = 1e8  # from here on the reduction of an angle loses digits


def _polynomial(coefficients: Iterable[float]) -> Any:
    """An intrinsic: ``Σ_n c_n x^n`` by Horner's rule, written out, since a loop would keep others from vectorizing."""
    first, *others = reversed([float(c) for c in coefficients])

    @intrinsic
    def polynomial(typing, x):
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = arguments[0].type
            name = "llvm.fmuladd.f32" if isinstance(kind, ir.FloatType) else "llvm.fmuladd.f64"
            fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
            value = ir.Constant(kind, first)
            for c in others:
                value = builder.call(fma, [value, arguments[0], ir.Constant(kind, c)])
            return value

        return x(x), emit

    return polynomial


@cache
def arithmetic(real: Any) -> SimpleNamespace:
    """``exp, expm1, tanh, sigmoid, softplus, normal, density, sine`` of one number, for float32 or float64."""
    single = real is np.float32
    whole, bits, bias = (np.int32, np.int32(23), 127) if single else (np.int64, np.int64(52), 1023)
    taylor = _polynomial([1 / factorial(n) for n in range(1, 9 if single else 15)])  # of (exp(r) - 1) / r
    log2e, ln2_high = real(1 / log(2)), real(np.float32(0.693359375))  # few digits, so that n * ln2_high is exact
    ln2_low = real(-2.12194440054690583e-4)  # ln 2 - ln2_high
    zero, half, one, two = (real(number) for number in (0, 0.5, 1, 2))
    top, bottom = (real(88), real(-110)) if single else (real(709), real(-760))
    flat = real(22 if single else 44)  # tanh(x) and expm1(-x) are 1 and -1 from half and from all of this on
    artanh = _polynomial([1 / (2 * n + 1) for n in range(9 if single else 18)])  # of artanh(s) / s, in s²
    erfc = _polynomial(chebyshev.cheb2poly(ERFC[:15] if single else ERFC))
    root_half, far = real(0.5**0.5), real(15 if single else 39)  # beyond, the tail is 0
    grid = real(2**7 if single else 2**20)
    sines = _polynomial([(-1.0) ** n / factorial(2 * n + 1) for n in range(6 if single else 9)])  # sin(r) / r, in r²
    cosines = _polynomial([(-1.0) ** n / factorial(2 * n) for n in range(6 if single else 10)])
    # a product and a sum may be one instruction; a call that is not inlined is not vectorized
    scalar = njit(fastmath={"contract"}, error_model="numpy", forceinline=True)

    @scalar
    def power(n: Any) -> Any:
        """2 to the power of a whole number, by its bits."""
        return whole((n + whole(bias)) << bits).view(real)

    @scalar
    def reduced(x: Any, small: Any) -> Any:
        """A whole number n and ``exp(r) - 1``, where ``x + small = n ln 2 + r`` and ``|r| <= ln(2) / 2``."""
        n = np.floor((x + small) * log2e + half)
        r = x - n * ln2_high - n * ln2_low + small
        return whole(n), r * taylor(r)

    @scalar
    def exp_of_sum(x: Any, small: Any) -> Any:
        """``exp(x + small)`` with no rounding of the sum."""
        n, e = reduced(min(max(x, bottom), top + one), small)
        first = whole(n >> whole(1))  # the compiler makes 64 bits of 32 otherwise
        value = (one + e) * power(first) * power(whole(n - first))  # one step might overflow, or underflow too early
        return value if x == x else x

    @scalar
    def exp(x: Any) -> Any:
        return exp_of_sum(x, zero)

    @scalar
    def expm1(x: Any) -> Any:
        """``exp(x) - 1``, for ``x`` up to ``top``."""
        inside = min(max(x, -flat), top)
        n, e = reduced(inside, zero)
        scale = power(n)
        value = scale * e + (scale - one)
        return value if x == x else x

    @scalar
    def tanh(x: Any) -> Any:
        e = expm1(min(max(two * x, -flat), flat))
        value = e / (e + two)
        return value if x == x else x

    @scalar
    def sigmoid(x: Any) -> Any:
        return one / (one + exp(-x))

    @scalar
    def softplus(x: Any) -> Any:
        t = exp(-abs(x))
        s = t / (two + t)  # at most 1/3; log(1 + t) is 2 artanh(s)
        value = max(x, zero) + two * s * artanh(s * s)
        return x if x > real(20) or x != x else value  # as torch, which is exact to float32

    @scalar
    def normal(x: Any) -> Any:
        """Distribution function of the normal distribution, from erfc(z) = t exp(series - z²), z = |x| / √2."""
        z = min(abs(x), far)
        t = two / (two + z * root_half)
        head = np.floor(z * grid) * (one / grid)  # so few digits that its square is exact
        rest = half * (z - head) * (z + head)
        tail = half * t * exp_of_sum(-half * head * head, erfc(two * t - one) - rest)
        return (tail if x < zero else one - tail) if x == x else x

    @scalar
    def density(x: Any) -> Any:
        """Of the normal distribution; that x² is rounded costs ``x² / 2`` units in the last place."""
        return exp(-half * x * x) * real((2 * pi) ** -0.5)

    @scalar
    def sine(x: Any, quarters: Any) -> Any:
        """``sin(x + quarters π/2)``, for ``|x|`` up to ``FAR_ANGLE``; beside its zeros within 1e-22."""
        wide = np.float64(x)
        n = np.floor(wide * (2 / pi) + 0.5)
        r = wide - n * 1.57079625129699707031 - n * 7.54978941586159635335e-8 - n * 5.39030285815811905290e-15
        quadrant = np.int64(n) + quarters
        value = cosines(r * r) if quadrant & 1 else r * sines(r * r)
        return real(-value if quadrant & 2 else value)

    functions = (exp, expm1, tanh, sigmoid, softplus, normal, density, sine)
    return SimpleNamespace(**{function.__name__: function for function in functions})
