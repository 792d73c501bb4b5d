"""A space of several kinds of machines: each point belongs to one of them; and what any space is."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from search.graph.space import GraphSpace
from search.point import AnyPoint, Kind, Point
from search.space import Choice, Code, Space


@dataclass(frozen=True)
class OneOf:
    """The points of several spaces, each of another kind of machine.

    The code has the kind first, then the codes of all spaces, the kind before each name: so it has a fixed length.

    Parameters
    ----------
    spaces : at least two, no two of one kind.

    Raises
    ------
    ValueError : fewer, or two of one kind.

    Examples
    --------
    >>> few = {"max_blocks": 0, "learning_rates": (1e-3,)}
    >>> space = OneOf((Space(**few), Space(**few, kind="convolution", kernels=(3, 5))))
    >>> space.count(), list(space.parameters)[:3]
    (6, ['kind', 'dense_blocks', 'dense_shortcut_1_0'])
    """

    spaces: tuple[Space, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "spaces", tuple(self.spaces))
        kinds = [space.kind for space in self.spaces]
        if len(kinds) < 2 or len(set(kinds)) < len(kinds):
            raise ValueError(
                f"got spaces of kind {', '.join(kinds) or 'none'}: give two or more, each of another kind; "
                "one space is a space already"
            )

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Of the spaces, in order."""
        return tuple(space.kind for space in self.spaces)

    def of(self, kind: str) -> Space:
        """The space of a kind.

        Raises
        ------
        ValueError : there is none.
        """
        if kind not in self.kinds:
            raise ValueError(f"got kind {kind!r}, which is not in the space: it has {', '.join(self.kinds)}")
        return self.spaces[self.kinds.index(kind)]

    @cached_property
    def parameters(self) -> Mapping[str, tuple[Choice, ...]]:
        """The names of the code and the choices of each, the same for every point."""
        named = {f"{space.kind}_{name}": choices for space in self.spaces for name, choices in space.parameters.items()}
        return {"kind": self.kinds, **named}

    @property
    def untrained(self) -> "OneOf":
        """The same with the first choice alone of all that concerns training, for whom no point tells of it."""
        return OneOf(tuple(space.untrained for space in self.spaces))

    def encode(self, point: AnyPoint) -> Code:
        """The code of a point; what belongs to other kinds has its first choice. ValueError: not in the space."""
        own = self.of(point.kind).encode(point)
        code: Code = {name: choices[0] for name, choices in self.parameters.items()}
        return code | {"kind": point.kind} | {f"{point.kind}_{name}": value for name, value in own.items()}

    def decode(self, code: Mapping[str, Choice]) -> Point:
        """The point of a code; what belongs to other kinds is ignored. ValueError: a name is missing."""
        missing = [name for name in self.parameters if name not in code]
        if missing:
            raise ValueError(f"got a code without {', '.join(missing)}: give every name of OneOf.parameters")
        space = self.of(str(code["kind"]))
        return space.decode({name: code[f"{space.kind}_{name}"] for name in space.parameters})

    def count(self) -> int:
        """Number of points, exactly."""
        return sum(space.count() for space in self.spaces)

    def count_classes(self) -> int | None:
        """Number of different networks, exactly; ``None`` where it is not known of every kind."""
        counts = [space.count_classes() for space in self.spaces]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def sample(self, rng: np.random.Generator) -> Point:
        """A point of any of the kinds, each as likely as the others, drawn uniformly from its space."""
        return self.spaces[int(rng.integers(len(self.spaces)))].sample(rng)

    def draw(self, rng: np.random.Generator) -> Code:
        """A code with each parameter drawn uniformly from its choices."""
        return {name: choices[int(rng.integers(len(choices)))] for name, choices in self.parameters.items()}


AnySpace = Space | OneOf | GraphSpace


def smooths(space: AnySpace) -> bool:
    """Whether some points have a label smoothing of their own."""
    spaces = space.spaces if isinstance(space, OneOf) else (space,)
    return any(isinstance(one, Space) and one.smoothings is not None for one in spaces)


def transforms(space: AnySpace) -> set[str]:
    """Of the numbers to answer, all that a point may have."""
    spaces = space.spaces if isinstance(space, OneOf) else (space,)
    return {name for one in spaces for name in one.transforms}
