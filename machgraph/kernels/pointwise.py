"""Nonlinearities and their derivatives over arrays, by number: ``CODES`` says which is which."""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from machgraph.kernels.arithmetic import FAR_ANGLE, arithmetic
from machgraph.kernels.keep import named

NAMES = ("identity", "tanh", "sigmoid", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "sine")
CODES = {name: code for code, name in enumerate(NAMES)}


def add_activated(code: int, y: Any, z: Any) -> None:
    """``z += σ(y)``; contiguous arrays of one axis."""
    raise NotImplementedError("only in compiled code")


def add_weighed(code: int, y: Any, u: Any, v: Any) -> None:
    """``v += σ'(y) ⊙ u``; contiguous arrays of one axis."""
    raise NotImplementedError("only in compiled code")


def _functions(real: Any) -> dict[str, tuple[Any, Any]]:
    """σ and σ', each of one number."""
    f = arithmetic(real)
    exp, expm1, tanh, sigmoid, softplus, normal, density, sine = (
        f.exp, f.expm1, f.tanh, f.sigmoid, f.softplus, f.normal, f.density, f.sine,
    )  # fmt: skip
    zero, one, leak = real(0), real(1), real(0.01)

    def silu_slope(y: Any) -> Any:
        s = sigmoid(y)
        return s * (one + y * (one - s))

    def tanh_slope(y: Any) -> Any:
        a = tanh(y)
        return one - a * a

    def sigmoid_slope(y: Any) -> Any:
        a = sigmoid(y)
        return a * (one - a)

    return {
        "identity": (lambda y: y, lambda y: one),
        "tanh": (tanh, tanh_slope),
        "sigmoid": (sigmoid, sigmoid_slope),
        "relu": (lambda y: zero if y <= zero else y, lambda y: one if y > zero else zero),
        "leaky_relu": (lambda y: y if y > zero else leak * y, lambda y: one if y > zero else leak),
        "elu": (lambda y: y if y > zero else expm1(y), lambda y: one if y > zero else exp(y)),
        "gelu": (lambda y: y * normal(y), lambda y: normal(y) + y * density(y)),
        "silu": (lambda y: y * sigmoid(y), silu_slope),
        "softplus": (softplus, sigmoid),
        "sine": (lambda y: sine(y, 0), lambda y: sine(y, 1)),
    }


def _chosen(name: str, loops: list[Any]) -> Any:
    """One function of a code that calls the loop of that number. Written out, in one: each layer would be compiled."""
    a, b, c, d, e, f, g, h, i, j = loops

    def choose(code: int, x: Any, y: Any, z: Any) -> None:
        if code == 0:
            a(x, y, z)
        elif code == 1:
            b(x, y, z)
        elif code == 2:
            c(x, y, z)
        elif code == 3:
            d(x, y, z)
        elif code == 4:
            e(x, y, z)
        elif code == 5:
            f(x, y, z)
        elif code == 6:
            g(x, y, z)
        elif code == 7:
            h(x, y, z)
        elif code == 8:
            i(x, y, z)
        else:
            j(x, y, z)

    return njit(named(name, choose))


def _scalar(name: str, function: Any) -> Any:
    compiled = hasattr(function, "py_func")
    return function if compiled else njit(named(name, function), error_model="numpy", forceinline=True)


def _activating(name: str, function: Any) -> Any:
    function = _scalar(name, function)

    def loop(y: Any, z: Any, _: Any) -> None:
        for i in range(len(y)):
            z[i] += function(y[i])

    return njit(named(name, loop), error_model="numpy")


def _weighing(name: str, function: Any) -> Any:
    function = _scalar(name + " slope", function)

    def loop(y: Any, u: Any, v: Any) -> None:
        for i in range(len(y)):
            v[i] += function(y[i]) * u[i]

    return njit(named(name, loop), error_model="numpy", fastmath={"contract"})


def _near_or_far(name: str, near: Any, far: Any) -> Any:
    """The loop to be taken if all angles are near, and else the other."""

    def loop(y: Any, x: Any, z: Any) -> None:
        for i in range(len(y)):
            if not abs(y[i]) < FAR_ANGLE:
                far(y, x, z)
                return
        near(y, x, z)

    return njit(named(name, loop))


def _loops(real: Any) -> tuple[Any, Any]:
    """For all codes: σ, and σ' times something."""
    functions = _functions(real)
    activating = [_activating(name, functions[name][0]) for name in NAMES]
    weighing = [_weighing(name, functions[name][1]) for name in NAMES]
    activating[-1] = _near_or_far("σ", activating[-1], _activating("far", lambda y: np.sin(y)))
    weighing[-1] = _near_or_far("σ'", weighing[-1], _weighing("far", lambda y: np.cos(y)))
    return _chosen("σ", activating), _chosen("σ'", weighing)


_LOOPS = {types.float32: _loops(np.float32), types.float64: _loops(np.float64)}


@overload(add_activated, inline="always")
def _add_activated(code, y, z):
    loop = _LOOPS[y.dtype][0]
    return lambda code, y, z: loop(code, y, z, z)


@overload(add_weighed, inline="always")
def _add_weighed(code, y, u, v):
    loop = _LOOPS[y.dtype][1]
    return lambda code, y, u, v: loop(code, y, u, v)
