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
    strategy : ``"optimized"`` begins at ``h_0 = g`` and adds the machines of one level at a time, so that each is
        evaluated once (section 2.3); ``"expensive"`` begins at ``h_0 = g + φ`` and evaluates all of ``f`` every time,
        ``h_i = g + f h_(i-1)`` (Proposition 4), so ``g`` must hold every component that is read.
    phi : for ``"expensive"``, any element of ``V_0``, or a function from ``g`` to one; by default 0.

    Returns
    -------
    An iterator over ``d + 1`` elements of machine space.

    Raises
    ------
    ValueError : another strategy, a φ for ``"optimized"``, a φ outside ``V_0``, or an absent component.

    Examples
    --------
    >>> import torch, machgraph as mg
    >>> f = mg.Machine(lambda x: 2 * x, reads=("x",), writes=("y",), name="double")
    >>> [h["y"].item() for h in depth_sequence(f, {"x": torch.tensor(3.0), "y": torch.tensor(1.0)})]
    [1.0, 7.0]
    """
    if strategy == "optimized":
        if phi is not None:
            raise ValueError('got phi with strategy="optimized", which begins at g: use strategy="expensive"')
        return _optimized(f, g)
    if strategy == "expensive":
        phi = phi(g) if callable(phi) else phi
        if phi is not None:
            _check_in_first(f, phi)
        return _expensive(f, g, phi)
    raise ValueError(f'got strategy={strategy!r}: give "optimized" or "expensive"')


def _optimized(f: Any, g: Any) -> Iterator[Any]:
    if not isinstance(g, Mapping):  # one linear map has no levels to tell apart
        yield from _expensive(f, g, None)
        return
    h = dict(g)
    yield h
    for level in f.levels:
        h = _sum(h, f.increment(h, level))
        yield h


def _expensive(f: Any, g: Any, phi: Any) -> Iterator[Any]:
    h = _sum(g, phi)
    yield h
    for _ in range(f.depth):
        h = _sum(g, f.increment(h))
        yield h


def _sum(x: Any, y: Any) -> Any:
    if y is None:
        return dict(x) if isinstance(x, Mapping) else x
    if not isinstance(x, Mapping):
        return x + y
    for c in x.keys() & y.keys():
        if x[c].shape != y[c].shape:
            raise ValueError(
                f"{c} has shape {tuple(x[c].shape)}, and what is added to it has shape {tuple(y[c].shape)}"
            )
    return {**x, **{c: x[c] + y[c] if c in x else y[c] for c in y}}


def _check_in_first(f: Any, phi: Any) -> None:
    if not isinstance(phi, Mapping):
        if not f.in_first(phi):
            raise ValueError(
                "phi is not in V_0, the kernel of the last power of f that is not 0: give an element of it"
            )
        return
    for component in phi:
        if component not in f.cofiltration[0]:
            raise ValueError(
                f"phi holds {component}, which is not in V_0: only components that a machine writes are, "
                f"here {', '.join(sorted(f.cofiltration[0]))}"
            )
