"""Who depends on whom (Definition 4), by structure or by forward-mode derivatives on random probes (eq. 6)."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from machgraph.architecture import Architecture, Point
from machgraph.nilpotent import NilpotentMachine

DRAWS = 16  # how often a probe is drawn before it counts as impossible


def depends_on(
    a: Any,
    b: Any,
    *,
    like: Tensor | Point | None = None,
    probes: int = 8,
    tolerance: float | None = None,
    seed: int = 0,
    structural: bool = True,
) -> bool:
    """Whether ``a`` depends on ``b`` (Definition 4): ``a(x_1 + λ b(x_2)) != a(x_1)`` somewhere.

    Two architectures are compared by structure: does one read what the other writes? Other callables ``X -> X`` are
    probed: by eq. 6, ``a`` depends on ``b`` where ``D a(x_1) b(x_2) != 0``, which forward-mode differentiation computes
    at random points. A dependence that is found is one; that none is found is a statement about the probes.

    Parameters
    ----------
    a, b : architectures, nilpotent machines, or callables that take and return an element of ``X``: a tensor, or a
        mapping of tensors from which components that are 0 may be left out. A plain number stands for a constant.
    like : an element of ``X``, for its shapes, dtypes and devices; by default a vector of 4 numbers in float64, or of
        the size and dtype of a nilpotent machine.
    probes : number of pairs ``x_1, x_2``, standard normal. Where a function has no finite value another one is drawn.
    tolerance : how small a derivative along ``b(x_2)`` is 0, relative to one along a random direction of the same
        length; by default 1000 times the precision of the dtype.
    seed : of the random points.
    structural : ``False`` probes architectures too; ``like`` then names all components that they read or write.

    Raises
    ------
    ValueError : architectures are to be probed without ``like``; ``like`` is empty or not of a floating dtype; what is
        compared is a parametric machine, does not map ``X`` to itself, or is finite nowhere.

    Examples
    --------
    The paper's example: ``f_1 f_2 = 0`` everywhere, and still ``f_1`` depends on ``f_2``.

    >>> f1, f2 = lambda x: x - 3, lambda x: torch.full_like(x, 3)
    >>> depends_on(f1, f2), depends_on(f2, f1)
    (True, False)
    """
    if isinstance(a, Architecture) and isinstance(b, Architecture) and structural:
        return not {c for m in a.machines for c in m.reads}.isdisjoint(c for m in b.machines for c in m.writes)
    like = _default_like(a, b) if like is None else like
    space = dict(like) if isinstance(like, Mapping) else {"": like}
    if not space:
        raise ValueError("got an empty like: give a tensor for each component")
    for component, x in space.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"got {got} for like{component and f'[{component!r}]'}: give a floating dtype")
    at, along = (_endofunction(f, role, space, isinstance(like, Tensor)) for role, f in (("a", a), ("b", b)))
    generator = torch.Generator().manual_seed(seed)

    def random() -> dict[str, Tensor]:
        return {
            c: torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device, x.dtype)
            for c, x in space.items()
        }

    if tolerance is None:
        tolerance = 1e3 * max(torch.finfo(x.dtype).eps for x in space.values())
    probed = 0
    for _ in range(DRAWS * probes):
        x1, direction, anywhere = random(), along(random()), random()
        derivative, reference = (_norm(torch.func.jvp(at, (x1,), (v,))[1]) for v in (direction, anywhere))
        length = _norm(direction)
        if not torch.tensor([derivative, reference, length]).isfinite().all():
            continue
        if derivative * _norm(anywhere) > tolerance * reference * length:
            return True
        probed += 1
        if probed == probes:
            break
    if not probed:
        raise ValueError(
            f"none of {DRAWS * probes} probes had a finite value and derivative: give functions that are defined "
            "almost everywhere, or a smaller like"
        )
    return False


def _default_like(a: Any, b: Any) -> Tensor:
    for f in (a, b):
        if isinstance(f, Architecture):
            raise ValueError("got an architecture to probe and no like: give a tensor for each component")
        if isinstance(f, NilpotentMachine):
            return f.matrix.detach()[0]
    return torch.zeros(4, dtype=torch.float64)


def _endofunction(f: Any, role: str, space: Point, bare: bool) -> Callable[[Point], dict[str, Tensor]]:
    """``f`` as a map of dictionaries that hold all components of ``X``."""
    if hasattr(f, "architecture"):
        raise ValueError(
            f"got {type(f).__name__} for {role}, whose call is its resolvent: compare the sum, {role}.architecture"
        )
    f = getattr(f, "increment", f)  # of a machine the map itself; its call is the resolvent
    if not callable(f):
        raise ValueError(f"got {type(f).__name__} for {role}: give a machine or a callable")

    def function(x: Point) -> dict[str, Tensor]:
        try:
            y = f(x[""] if bare else x)
        except (RuntimeError, TypeError, ValueError) as error:
            got = ", ".join(f"{c} {tuple(v.shape)} of {v.dtype}".strip() for c, v in space.items())
            raise ValueError(
                f"{role} fails on {got}: {error}; like= says on which shapes and dtypes to probe"
            ) from error
        y = {"": y} if bare else y
        if not isinstance(y, Mapping):
            y = dict.fromkeys(space, y)  # a plain number
        return {c: _fitting(y.get(c, 0.0), x[c], role) for c in space}

    return function


def _fitting(y: Any, x: Tensor, role: str) -> Tensor:
    if not isinstance(y, Tensor):
        return torch.full_like(x, y)
    if y.ndim == 0:
        return y.to(x).expand_as(x)
    if y.shape != x.shape or y.dtype != x.dtype:
        raise ValueError(
            f"{role} returns shape {tuple(y.shape)} of {y.dtype} for {tuple(x.shape)} of {x.dtype}: "
            "give maps of one space to itself, and like= for its shapes and dtypes"
        )
    return y


def _norm(x: Point) -> float:
    return float(
        torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(v.detach().double()) for v in x.values()]))
    )
