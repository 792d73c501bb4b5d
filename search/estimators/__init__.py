"""Estimators with scikit-learn's interface."""

from search.estimators.forecaster import ArchitectureSearchForecaster
from search.estimators.tables import (
    ArchitectureSearchClassifier,
    ArchitectureSearchRegressor,
    MachineClassifier,
    MachineRegressor,
)

__all__ = [
    "ArchitectureSearchClassifier", "ArchitectureSearchForecaster", "ArchitectureSearchRegressor", "MachineClassifier",
    "MachineRegressor",
]  # fmt: skip
