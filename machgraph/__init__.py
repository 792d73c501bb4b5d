"""Machines of finite depth: a network is a sum of machines, its forward pass the resolvent of the sum.

Names are imported when first used, so that ``import machgraph`` loads neither torch nor matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from machgraph import draw as draw
    from machgraph import index as index
    from machgraph import regularize as regularize
    from machgraph.architecture import Architecture as Architecture
    from machgraph.architecture import Machine as Machine
    from machgraph.cofiltration import depth_sequence as depth_sequence
    from machgraph.convert import from_rnn as from_rnn
    from machgraph.convert import from_sequential as from_sequential
    from machgraph.independence import depends_on as depends_on
    from machgraph.io import load as load
    from machgraph.io import save as save
    from machgraph.nilpotent import NilpotentMachine as NilpotentMachine
    from machgraph.parametric import ConvMachine as ConvMachine
    from machgraph.parametric import DenseMachine as DenseMachine
    from machgraph.parametric import RecurrentMachine as RecurrentMachine
    from machgraph.population import Population as Population
    from machgraph.portable import export as export
    from machgraph.trace import from_torch as from_torch
    from machgraph.training import Batches as Batches
    from machgraph.training import Objective as Objective
    from machgraph.training import Optimizer as Optimizer
    from machgraph.training import batches as batches
    from machgraph.warm_up import warm_up as warm_up

_HOME = {
    "Architecture": "architecture",
    "Batches": "training",
    "ConvMachine": "parametric",
    "DenseMachine": "parametric",
    "Machine": "architecture",
    "NilpotentMachine": "nilpotent",
    "Objective": "training",
    "Optimizer": "training",
    "Population": "population",
    "batches": "training",
    "depends_on": "independence",
    "depth_sequence": "cofiltration",
    "RecurrentMachine": "parametric",
    "export": "portable",
    "from_rnn": "convert",
    "from_sequential": "convert",
    "from_torch": "trace",
    "load": "io",
    "save": "io",
    "warm_up": "warm_up",
}
_MODULES = ("draw", "index", "regularize")

__all__ = sorted([*_HOME, *_MODULES])  # noqa: PLE0605
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"machgraph.{name}")
    if name in _HOME:
        value = getattr(import_module(f"machgraph.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'machgraph' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
