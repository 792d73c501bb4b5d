"""One machine's turn: what it reads goes in, what it writes is added to what is there, and who fails is named."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from machgraph.graph import Node


class Misfit(ValueError):
    """A machine fails on what it reads, or returns what does not fit the components that it writes."""


@contextmanager
def versions_counted() -> Iterator[None]:
    """Changes in place are seen by the version of a tensor, which torch does not count in inference mode."""
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False), torch.no_grad():
            yield
    else:
        yield


def accumulate(machine: Node, function: Callable[..., Any], x: Mapping[str, Tensor], into: dict[str, Tensor]) -> None:
    """``into += f_i(x)``: what the machine writes is added to what is there; ``into`` may be ``x``."""
    xs = [x[component] for component in machine.reads]
    versions, start = _versions(xs), torch._C._autograd._get_sequence_nr()
    ys = _call(machine, function, xs)
    if _versions(xs) != versions:
        raise ValueError(f"{machine.name} changes a tensor that it reads in place: let it return a new one instead")
    ys = [ys] if isinstance(ys, Tensor) else list(ys) if isinstance(ys, tuple | list) else [ys]
    if len(ys) != len(machine.writes):
        raise Misfit(
            f"{machine.name} returns {len(ys)} tensor{'s' * (len(ys) != 1)} and writes {len(machine.writes)} "
            f"component{'s' * (len(machine.writes) != 1)} ({', '.join(machine.writes)}): return one for each"
        )
    for i, (component, y) in enumerate(zip(machine.writes, ys, strict=True)):
        if not isinstance(y, Tensor):
            raise Misfit(f"{machine.name} returns {type(y).__name__} for {component}: return a tensor")
        if component in into:
            _check_kind(machine.name, component, into[component], y)
            into[component] = into[component] + y
        else:
            # 0 + y, so that the solution never shares memory with what the function reads or holds; a result of its
            # own is left as it is, since autograd may have saved it, and a copy would be kept beside it
            own = _is_result(y, start) and not any(y is other for other in ys[:i])
            into[component] = y if own else y.clone()


def _call(machine: Node, function: Callable[..., Any], xs: Sequence[Tensor]) -> Any:
    try:
        return function(*xs)
    except Exception as error:
        got = ", ".join(f"{component} of {_kind(x)}" for component, x in zip(machine.reads, xs, strict=True))
        if type(error) in (RuntimeError, TypeError):  # torch's of a wrong shape or dtype, Python's of too many reads
            raise Misfit(f"{machine.name} fails on {got or 'no reads'}: {error}") from error
        error.add_note(f"in machine {machine.name}, on {got or 'no reads'}")
        raise


def _check_kind(name: str, component: str, x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape or x.device != y.device or not (x.dtype == y.dtype or _autocast_mixes(x, y)):
        raise Misfit(
            f"{name} writes {_kind(y)} to {component}, which already holds {_kind(x)}: "
            "what a machine adds must have the shape, dtype and device of what is there"
        )


def _autocast_mixes(x: Tensor, y: Tensor) -> bool:
    """Whether autocast, which chooses the dtype of each operation, may have made real numbers of two kinds."""
    device = x.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return autocast and x.is_floating_point() and y.is_floating_point()


def _kind(x: Tensor) -> str:
    return f"shape {tuple(x.shape)} ({str(x.dtype).removeprefix('torch.')}, {x.device})"


def _is_result(y: Tensor, start: int) -> bool:
    """Whether ``y`` was computed since autograd's count stood at ``start``, and is no view of something else."""
    return y.grad_fn is not None and y.grad_fn._sequence_nr() >= start and y._base is None


def _versions(xs: Sequence[Tensor]) -> list[int]:
    return [x._version for x in xs if not x.is_inference()]
