"""Transforms of the numbers to answer, fitted on the training rows: a network learns what they give."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal, get_args

import numpy as np

from search.data.columns import Floats
from search.data.power import inverse_yeo_johnson, likeliest, skewness, yeo_johnson
from search.data.table import nearest, require

Name = Literal["none", "sqrt", "log", "yeo-johnson"]

GIVEN = "given"  # of a point: as the data set has it
TRANSFORMS: tuple[Name, ...] = get_args(Name)
SKEWED = 0.75  # answers whose skewness is more than this are, to one side or the other
LEAST = 1e-9  # of the largest value, is added before a logarithm
NODES, SHARES = np.polynomial.hermite_e.hermegauss(7)  # of means over a normal distribution, of mean 0 and variance 1
SHARES = SHARES / SHARES.sum()
WORDS = {"sqrt": "square root", "log": "logarithm", "yeo-johnson": "power"}


@dataclass(frozen=True)
class Transform:
    """A rising function of the target, and its inverse.

    Parameters
    ----------
    name : ``none``; ``sqrt``; ``log``, the logarithm of the value and ``parameter``; or ``yeo-johnson``, the power
        transform of Yeo and Johnson (2000) with the exponent ``parameter``.
    parameter : as fitted.
    low, high : the inverse of a transform can grow without bound, so answers of a network are kept within these; not
        used by ``none``.
    noise : the standard deviation of what a network leaves unexplained of what it learns. Its answers are means over
        that; undone alone, a mean of roots or logarithms would be less than the mean of the values (Duan 1983,
        "Smearing estimate: a nonparametric retransformation method"; here the distribution is taken as normal).

    Examples
    --------
    >>> root = Transform("sqrt", high=100.0)
    >>> root.forward(np.array([0.0, 9.0])).tolist(), root.answers(np.array([-1.0, 3.0, 99.0])).tolist()
    ([0.0, 3.0], [0.0, 9.0, 100.0])

    The mean of a square is the square of the mean, and the variance:

    >>> root.noisy(0.5).answers(np.array([3.0])).round(6).tolist()
    [9.25]
    """

    name: Name = "none"
    parameter: float = 0.0
    low: float = 0.0
    high: float = 0.0
    noise: float = 0.0

    def forward(self, values: Floats) -> Floats:
        """What a network learns.

        Raises
        ------
        ValueError : a value below 0 of which the root or the logarithm is asked.
        """
        if self.name in ("sqrt", "log"):
            if (wrong := values[values < 0]).size:
                raise ValueError(
                    f"the target has {float(wrong.flat[0])!r}, which has no {WORDS[self.name]}: "
                    "take the transform 'yeo-johnson' or 'none'"
                )
            found: Floats = np.sqrt(values) if self.name == "sqrt" else np.log(values + self.parameter)
            return found
        return yeo_johnson(values, self.parameter) if self.name == "yeo-johnson" else values

    def inverse(self, values: Floats) -> Floats:
        """What gives these: `forward` undone."""
        if self.name == "sqrt":
            return np.maximum(values, 0) ** 2
        if self.name == "log":
            return np.exp(values) - self.parameter
        return inverse_yeo_johnson(values, self.parameter) if self.name == "yeo-johnson" else values

    def answers(self, values: Floats) -> Floats:
        """As `inverse`, of what a network says, which may be far from all that it has learned."""
        if self.name == "none":
            return values
        low, high = self.forward(np.array([self.low, self.high]))

        def bounded(z: Floats) -> Floats:
            return np.clip(self.inverse(np.clip(z, low, high)), self.low, self.high)

        if not self.noise:
            return bounded(values)
        found: Floats = bounded(values[..., None] + self.noise * NODES) @ SHARES
        return found

    def within(self, values: Floats) -> Floats:
        """Numbers from elsewhere, kept within what its own answers are: below 0 a root or a logarithm has nothing.

        >>> Transform("sqrt", high=100.0).within(np.array([-3.0, 9.0])).tolist(), NONE.within(np.array([-3.0])).tolist()
        ([0.0, 9.0], [-3.0])
        """
        return values if self.name == "none" else np.clip(values, self.low, self.high)

    def noisy(self, noise: float) -> Transform:
        """The same with this noise; what is not transformed has none to tell."""
        return self if self.name == "none" else replace(self, noise=noise)


NONE = Transform()


def suitable(values: Floats) -> tuple[Name, ...]:
    """The transforms that are worth a try for the values of the training rows: none, unless they are skewed.

    >>> suitable(np.arange(9.0)), suitable(2.0 ** np.arange(9))
    ((), ('yeo-johnson',))
    """
    return ("yeo-johnson",) if abs(skewness(values)) > SKEWED and find_spec("sklearn") else ()


def fit_transform(name: str, values: Floats) -> Transform:
    """The transform of a name that suits the values of the training rows.

    A logarithm is of the value and half of the least positive one, so that zeros have one too. The exponent of Yeo and
    Johnson is the likeliest, as in scikit-learn's ``PowerTransformer``. Answers are kept as near to the training rows'
    as they are wide, and at least 0 where the transform wants that.

    Raises
    ------
    ValueError : another name, or values below 0 for a root or a logarithm.
    ImportError : scikit-learn is not installed, for ``yeo-johnson``.
    """
    if name not in TRANSFORMS:
        raise ValueError(f"no transform is called {name!r}{nearest(name, TRANSFORMS)}: give {', '.join(TRANSFORMS)}")
    if name == "none":
        return NONE
    low, high = float(values.min()), float(values.max())
    wide = high - low
    parameter = 0.0
    if name == "log":
        positive = values[values > 0]
        parameter = max(float(positive.min()) / 2, LEAST * high) if len(positive) else 1.0
    if name == "yeo-johnson":
        require("sklearn", "scikit-learn")
        parameter = likeliest(values)
    least = low - wide if name == "yeo-johnson" else max(0.0, low - wide)
    fitted = Transform(name, parameter, least, high + wide)
    fitted.forward(values)  # refuses what is below 0
    return fitted
