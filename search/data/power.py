"""The power transform of Yeo and Johnson, which makes skewed numbers nearly symmetric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from search.data.columns import Floats

FLAT = 1e-12  # an exponent as near to 0 is a logarithm


@dataclass(frozen=True)
class Power:
    """A power of the numbers of a column, fitted on its training rows; those beyond are taken for the nearest of them.

    Parameters
    ----------
    exponent : of Yeo and Johnson's transform of the numbers in standard deviations from their mean.
    center, spread : that mean, and the standard deviation.
    low, high : the least and the largest of the training rows' numbers.

    Examples
    --------
    >>> logarithm = Power(exponent=0.0, center=10.0, spread=2.0, low=10.0, high=16.0)
    >>> logarithm.of(np.array([8.0, 10.0, 12.0, 16.0, 99.0])).round(3).tolist()
    [0.0, 0.0, 0.693, 1.386, 1.386]
    """

    exponent: float
    center: float
    spread: float
    low: float
    high: float

    def of(self, values: Floats) -> Floats:
        """The power of each number, before scaling."""
        return yeo_johnson((np.clip(values, self.low, self.high) - self.center) / self.spread, self.exponent)


def likeliest(values: Floats) -> float:
    """The exponent under which the transformed values are most likely normal, as scikit-learn finds it."""
    from sklearn.preprocessing import PowerTransformer

    power = PowerTransformer(method="yeo-johnson", standardize=False).fit(values[:, None])
    return float(power.lambdas_[0])


def skewness(values: Floats) -> float:
    """The third moment of the values, less their mean, in units of their standard deviation; 0 where they are all one.

    >>> skewness(np.ones(3)), round(skewness(np.array([0.0, 0.0, 0.0, 1.0])), 3)
    (0.0, 1.155)
    """
    spread = values.std()
    return float(np.mean(((values - values.mean()) / spread) ** 3)) if spread > 0 else 0.0


def yeo_johnson(y: Floats, exponent: float) -> Floats:
    """((y + 1)^λ - 1) / λ where y ≥ 0, else -((1 - y)^(2 - λ) - 1) / (2 - λ); a logarithm where that divides by 0."""
    return np.where(y >= 0, _box_cox(np.maximum(y, 0), exponent), -_box_cox(np.maximum(-y, 0), 2 - exponent))


def inverse_yeo_johnson(z: Floats, exponent: float) -> Floats:
    """The y of which z is the transform."""
    above, below = _inverse_box_cox(np.maximum(z, 0), exponent), _inverse_box_cox(np.maximum(-z, 0), 2 - exponent)
    return np.where(z >= 0, above, -below)


def _box_cox(y: Floats, exponent: float) -> Floats:
    """((y + 1)^λ - 1) / λ, without loss where y or λ is small."""
    logs: Floats = np.log1p(y)
    return np.expm1(exponent * logs) / exponent if abs(exponent) > FLAT else logs


def _inverse_box_cox(z: Floats, exponent: float) -> Floats:
    with np.errstate(divide="ignore"):  # where λ < 0, z is below -1/λ
        logs: Floats = np.log1p(np.maximum(exponent * z, -1)) / exponent if abs(exponent) > FLAT else z
    return np.expm1(logs)
