"""Cofiltrations by component, and the sequences that climb them to the solution (section 2.2)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def cofiltration(levels: Sequence[Sequence[str]], writes: Mapping[str, Sequence[str]]) -> list[frozenset[str]]:
    """The depth cofiltration ``V_0 ⊇ V_1 ⊇ ... ⊇ V_d = 0`` of an architecture, by component (Definition 2).

    Parameters
    ----------
    levels : the names of the machines on each of the ``d`` levels.
    writes : for each machine, the components that it writes.

    Returns
    -------
    ``V_0, ..., V_d``: ``V_i`` holds the components that a machine on a level above ``i`` still writes.

    Examples
    --------
    >>> [sorted(v) for v in cofiltration([["f"], ["g"]], {"f": ("y",), "g": ("z",)})]
    [['y', 'z'], ['z'], []]
    """
    v: list[frozenset[str]] = [frozenset()]
    for level in reversed(levels):
        v.append(v[-1].union(*(writes[name] for name in level)))
    return v[::-1]


def depth_sequence(f: Any, g: Any, strategy: str = "optimized", phi: Any = None) -> Iterator[Any]:
    """The approximations ``h_0, ..., h_d`` of the solution, computed as they are asked for (Definition 3).

    They lift the depth sequence: ``h_i`` is right outside ``V_i``, and ``h_d`` solves ``h = g + f h`` (Theorem 1).

    Parameters
    ----------
    f : an `Architecture` or a `NilpotentMachine`.
    g : a mapping of tensors, or for a `NilpotentMachine` a tensor of shape (..., n).
    strategy : both begin at ``h_0 = g + φ``. ``"optimized"`` adds the machines of one level at a time, so that each is
        evaluated once (section 2.3), and drops φ from what is final, so that ``h_i`` holds it in ``V_i`` alone;
        ``"expensive"`` evaluates all of ``f`` every time, ``h_i = g + f h_(i-1)`` (Proposition 4). That needs a 0 of
        the right shape for each component that ``g`` lacks, and finds them by a first evaluation.
    phi : any element of ``V_0``, or a function from ``g`` to one; by default 0.

    Returns
    -------
    An iterator over ``d + 1`` elements of machine space, which share no memory.

    Raises
    ------
    ValueError : something else than such an ``f`` and ``g``, another strategy, a φ outside ``V_0``, or a component
        that is absent and not written, or of another shape, dtype or device than what is added to it.

    Examples
    --------
    >>> import torch, machgraph as mg
    >>> f = mg.Machine(lambda x: 2 * x, reads=("x",), writes=("y",), name="double")
    >>> [h["y"].item() for h in depth_sequence(f, {"x": torch.tensor(3.0), "y": torch.tensor(1.0)})]
    [1.0, 7.0]
    """
    if not hasattr(f, "increment"):
        hint = "its sum, .architecture" if hasattr(f, "architecture") else "a sum of machines or a NilpotentMachine"
        raise ValueError(f"got {type(f).__name__} for f: give {hint}")
    if strategy not in ("optimized", "expensive"):
        raise ValueError(f'got strategy={strategy!r}: give "optimized" or "expensive"')
    _check_form("g", f, g)
    phi = phi(g) if callable(phi) else phi
    if phi is not None:
        _check_form("phi", f, phi)
        _check_in_first(f, phi)
    if strategy == "optimized" and hasattr(f, "levels"):  # one linear map has no levels to tell apart
        return _optimized(f, g, phi or {})
    return _expensive(f, g, phi)


def _optimized(f: Any, g: Mapping[str, Any], phi: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    h = g = _copy(g)
    v = f.cofiltration
    yield _copy(_sum(g, phi))
    for level, v_i in zip(f.levels, v[1:], strict=True):
        h = _sum(h, f.increment(h, level))
        yield _copy(_sum(h, {component: x for component, x in phi.items() if component in v_i}))


def _expensive(f: Any, g: Any, phi: Any) -> Iterator[Any]:
    g = _copy(f.completed(g) if isinstance(g, Mapping) else g)
    h = g if phi is None else _sum(g, phi)
    yield _copy(h)
    for _ in range(f.depth):
        h = _sum(g, f.increment(h))
        yield _copy(h)


def _copy(x: Any) -> Any:
    return {c: x[c].clone() for c in x} if isinstance(x, Mapping) else x.clone()


def _sum(x: Any, y: Any) -> Any:
    if not isinstance(x, Mapping):
        return _sum({"the vector": x}, {"the vector": y})["the vector"]
    for c in x.keys() & y.keys():
        if (x[c].shape, x[c].dtype, x[c].device) != (y[c].shape, y[c].dtype, y[c].device):
            raise ValueError(f"{c} has {_kind(x[c])}, and what is added to it has {_kind(y[c])}: give both the same")
    return {**x, **{c: x[c] + y[c] if c in x else y[c] for c in y}}


def _kind(x: Any) -> str:
    return f"shape {tuple(x.shape)} ({x.dtype}, {x.device})"


def _check_form(role: str, f: Any, x: Any) -> None:
    if hasattr(f, "levels") and not isinstance(x, Mapping):
        raise ValueError(f"got {type(x).__name__} for {role}: give a mapping from the names of components to tensors")
    values = x.values() if hasattr(f, "levels") else [x]
    for value in values:
        if not hasattr(value, "clone"):
            raise ValueError(f"got {type(value).__name__} in {role}: give a tensor")


def _check_in_first(f: Any, phi: Any) -> None:
    if not isinstance(phi, Mapping):
        if not f.in_first(phi):
            raise ValueError(
                "phi is not in V_0, the kernel of the last power of f that is not 0: give an element of it"
            )
        return
    first = f.cofiltration[0]
    for component in phi:
        if component not in first:
            raise ValueError(
                f"phi holds {component}, which is not in V_0: only components that a machine writes are, "
                f"here {', '.join(sorted(first))}"
            )
