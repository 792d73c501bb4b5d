"""What a function holds: autograd names the results that it used by their edges, and has no way back to the tensors."""

import gc
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

Edge = tuple[Node | None, int]  # the node that computed a tensor, and which of its outputs it is


def held_tensors(function: Callable[..., Any], wanted: set[Edge]) -> dict[Edge, Tensor]:
    """The tensors behind ``wanted`` that a function holds in closures, defaults, attributes, containers or globals."""
    found: dict[Edge, Tensor] = {}
    seen: set[int] = set()
    queue: list[Any] = [function]
    for held in queue:  # breadth first: the queue grows while it is read
        if id(held) in seen or isinstance(held, ModuleType | str | int | float) or _is_library(held):
            continue
        seen.add(id(held))
        if isinstance(held, Tensor):
            edge = (held.grad_fn, held.output_nr)
            if edge in wanted:
                found[edge] = held
                if len(found) == len(wanted):
                    break
        elif isinstance(held, FunctionType):
            queue += [held.__closure__, held.__defaults__, held.__kwdefaults__, held.__dict__, *_globals(held)]
        else:
            queue += gc.get_referents(held)
    return found


def _is_library(held: Any) -> bool:
    """Whether it is a class or function of Python or torch: those hold no results, and name half of torch."""
    if not isinstance(held, type | FunctionType):
        return False
    return (held.__module__ or "").split(".")[0] in {"torch", "builtins", "typing", "collections"}


def _globals(function: FunctionType) -> Iterator[Any]:
    """What a function may name in its module, and in the modules that it names."""
    names: set[str] = set()
    codes = [function.__code__]
    for code in codes:
        names.update(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        if isinstance(value, ModuleType):
            yield from (vars(value)[part] for part in sorted(names & vars(value).keys()))
        else:
            yield value
