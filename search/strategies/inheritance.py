"""Where the channels of a child come from, block by block, whatever its blocks are called and merged to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from search.isomorphism.canonical import members
from search.point import AnyPoint, Point
from search.strategies.mutation import NEW, NOBODY, Origin

PARENT = "parent"  # the attribute of a child's trial


@dataclass(frozen=True, eq=False)
class Descent:
    """A point, the number of the trial that it is a child of, and where its hidden channels come from.

    Parameters
    ----------
    point : as it was proposed.
    parent : ``None`` for one without.
    origin : of each hidden channel, its number among those of the parent's point; -1: it is new.

    Examples
    --------
    >>> both = Descent(Point((2, 2), ("relu", "tanh"), np.tri(4, k=-1), 1e-3), 7, np.array([2, 3, 0, -1]))
    >>> both.to_dict()
    {'trial': 7, 'channels': [[2, 2], [0, 1], [-1, 1]]}
    >>> Descent.from_dict(both.point, both.to_dict()).origin.tolist()
    [2, 3, 0, -1]
    """

    point: AnyPoint
    parent: int | None = None
    origin: Origin = field(default_factory=NOBODY.copy)

    @classmethod
    def unchanged(cls, point: AnyPoint, parent: int) -> "Descent":
        """A parent as its own child."""
        return cls(point, parent, np.arange(sum(point.widths)) if isinstance(point, Point) else NOBODY)

    def then(self, point: AnyPoint, origin: Origin) -> "Descent":
        """What comes of it by one more mutation."""
        return Descent(point, self.parent, _through(origin, self.origin))

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON can hold: channels in runs, ``[first, number]``, of new ones ``[-1, number]``."""
        return {"trial": self.parent, "channels": _runs(self.origin)}

    @classmethod
    def from_dict(cls, point: AnyPoint, record: Mapping[str, Any]) -> "Descent":
        """What ``to_dict`` wrote, of the point."""
        runs = [
            np.full(count, NEW) if first == NEW else np.arange(first, first + count)
            for first, count in record["channels"]
        ]
        return cls(point, record["trial"], np.concatenate([NOBODY, *runs]))

    def alignment(self, parent: Point) -> Origin:
        """The same between canonical forms, which are what is trained.

        Parameters
        ----------
        parent : the point of the parent, as it was proposed.

        Returns
        -------
        Of each hidden channel of ``canonical(point)``, its number among those of ``canonical(parent)``; -1 where it is
        new, or nothing of the parent's output heard it.

        Examples
        --------
        Two twins are one block; in the child the second hears the first, and there are two:

        >>> mask = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]])
        >>> twins = Point((1, 2), ("relu", "relu"), mask, 1e-3)
        >>> mask[2, 1] = True
        >>> child = Point((1, 2), ("relu", "relu"), mask, 1e-3)
        >>> Descent(child, 0, np.arange(3)).alignment(twins)
        array([0, 1, 2])
        """
        assert isinstance(self.point, Point)  # a graph has no blocks
        trained = _channels(parent)
        places = np.full(sum(parent.widths), NEW)
        places[trained] = np.arange(len(trained))
        return _through(_through(_channels(self.point), self.origin), places)


def _through(later: Origin, earlier: Origin) -> Origin:
    """Origins of origins."""
    return np.where(later == NEW, NEW, np.append(earlier, NEW)[later])


def _channels(point: Point) -> Origin:
    """Of each hidden channel of the canonical form, its number among those of the point."""
    bounds = np.cumsum((0, *point.widths))
    spans = [np.arange(bounds[block - 1], bounds[block]) for blocks in members(point) for block in blocks]
    return np.concatenate([NOBODY, *spans])


def _runs(origin: Origin) -> list[list[int]]:
    runs: list[list[int]] = []
    for channel in origin.tolist():
        first, count = runs[-1] if runs else (NEW, 0)
        if count and channel == (NEW if first == NEW else first + count):
            runs[-1][1] += 1
        else:
            runs.append([channel, 1])
    return runs
