"""Cofiltrations by component, and the sequences that climb them to the solution (section 2.2)."""

from collections.abc import Mapping, Sequence


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
