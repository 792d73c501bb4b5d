"""The search: what varies, the strategies that choose it, and the trials that are told them.

Names are imported when first used, so that ``import search`` loads neither scikit-learn nor torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.estimators import ArchitectureSearchClassifier as ArchitectureSearchClassifier
    from search.estimators import ArchitectureSearchForecaster as ArchitectureSearchForecaster
    from search.estimators import ArchitectureSearchRegressor as ArchitectureSearchRegressor
    from search.estimators import MachineClassifier as MachineClassifier
    from search.estimators import MachineRegressor as MachineRegressor
    from search.graph.candidate import Candidate as Candidate
    from search.graph.io import load_graph as load_graph
    from search.graph.space import GraphSpace as GraphSpace

_HOME = {
    "ArchitectureSearchClassifier": "estimators",
    "ArchitectureSearchForecaster": "estimators",
    "ArchitectureSearchRegressor": "estimators",
    "Candidate": "graph.candidate",
    "GraphSpace": "graph.space",
    "MachineClassifier": "estimators",
    "MachineRegressor": "estimators",
    "load_graph": "graph.io",
}

__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from search.data.table import require

        if _HOME[name] == "estimators":
            require("sklearn", "scikit-learn", "estimators")
        value = getattr(import_module(f"search.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'search' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
