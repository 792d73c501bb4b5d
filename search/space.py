"""Spaces of partitions and shortcuts: every point counted, drawn at random, and written as a code of fixed length."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from machgraph.partition import Partition
from search.count import class_count
from search.point import Point as Point
from search.point import canonical as canonical
from search.point import hyperparameters as hyperparameters
from search.point import key as key

Choice = bool | int | float | str
Code = dict[str, Choice]


@dataclass(frozen=True)
class Space:
    """All points with so many hidden blocks, of these widths and activations, with any shortcuts.

    A point has from ``min_blocks`` to ``max_blocks`` hidden blocks; each has one of the widths and one of the
    activations; each pair ``block_in < block_out`` of blocks, input and output among them, has a shortcut or not. No
    hidden block is a point too: the linear model and the constant, which larger points come down to when all their
    hidden blocks are dropped.

    Parameters
    ----------
    max_blocks : most hidden blocks.
    widths, learning_rates : increasing, finite in number, so that the space can be counted.
    activations : names, none twice.
    min_blocks : fewest hidden blocks, as the point is written: its canonical form may have fewer.

    Raises
    ------
    ValueError : any of these does not hold.

    Examples
    --------
    >>> space = Space(max_blocks=1, widths=(8,), activations=("relu",), learning_rates=(1e-3, 1e-2))
    >>> space.count(), space.count_classes()
    (20, 8)
    """

    max_blocks: int = 4
    widths: tuple[int, ...] = (16, 32, 64)
    activations: tuple[str, ...] = ("relu", "tanh", "gelu")
    learning_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3, 8e-3)
    min_blocks: int = 0

    def __post_init__(self) -> None:
        """Check, and turn lists into tuples."""
        for name in ("max_blocks", "min_blocks"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise ValueError(f"got {name}={number!r}: it must be a whole number, 0 or more")
        if self.min_blocks > self.max_blocks:
            raise ValueError(
                f"got min_blocks={self.min_blocks}, max_blocks={self.max_blocks}: the first must not be the larger"
            )
        for name in ("widths", "activations", "learning_rates"):
            choices = getattr(self, name)
            if isinstance(choices, str) or not (choices := tuple(choices)):
                raise ValueError(f"got {name}={choices!r}: give a tuple with at least one choice")
            object.__setattr__(self, name, choices)
        Partition(self.widths)  # whole and positive
        for name, choices in (("widths", self.widths), ("learning_rates", self.learning_rates)):
            if any(a >= b for a, b in pairwise(choices)):
                raise ValueError(f"got {name}={choices!r}: give them in increasing order, none twice")
        if not all(0 < rate < math.inf for rate in self.learning_rates):
            raise ValueError(f"got learning_rates={self.learning_rates!r}: each must be positive and finite")
        if len(set(self.activations)) < len(self.activations):
            raise ValueError(f"got activations={self.activations!r}: give each name once")

    @cached_property
    def parameters(self) -> Mapping[str, tuple[Choice, ...]]:
        """The names of the code and the choices of each, the same for every point.

        Hidden block ``i`` is ``i`` and the output ``max_blocks + 1``, however many hidden blocks are in use.

        >>> list(Space(max_blocks=1).parameters)  # doctest: +NORMALIZE_WHITESPACE
        ['blocks', 'width_1', 'activation_1', 'shortcut_1_0', 'shortcut_2_0', 'shortcut_2_1', 'learning_rate']
        """
        hidden = range(1, self.max_blocks + 1)
        return {
            "blocks": tuple(range(self.min_blocks, self.max_blocks + 1)),
            **{f"width_{i}": self.widths for i in hidden},
            **{f"activation_{i}": self.activations for i in hidden},
            **{f"shortcut_{i}_{j}": (False, True) for i in range(1, self.max_blocks + 2) for j in range(i)},
            "learning_rate": self.learning_rates,
        }

    def encode(self, point: Point) -> Code:
        """The code of a point; what belongs to unused blocks has its first choice.

        Raises
        ------
        ValueError : the point is not in the space.
        """
        code: Code = {name: choices[0] for name, choices in self.parameters.items()}
        code["blocks"] = point.blocks
        code["learning_rate"] = point.learning_rate
        for i, (width, activation) in enumerate(zip(point.widths, point.activations, strict=True), start=1):
            code[f"width_{i}"], code[f"activation_{i}"] = width, activation
        names = self._names(point.blocks)
        for i in range(1, point.blocks + 2):
            for j in range(i):
                code[f"shortcut_{names[i]}_{j}"] = point.shortcuts[i][j]
        for name, value in code.items():
            if value not in self.parameters.get(name, ()):
                choices = self.parameters.get(name, "nothing of that name")
                raise ValueError(f"got a point with {name}={value!r}, which is not in the space: it has {choices}")
        return code

    def decode(self, code: Mapping[str, Choice]) -> Point:
        """The point of a code; what belongs to unused blocks is ignored.

        Raises
        ------
        ValueError : a name is missing.
        """
        missing = [name for name in self.parameters if name not in code]
        if missing:
            raise ValueError(f"got a code without {', '.join(missing)}: give every name of Space.parameters")
        blocks = int(code["blocks"])
        names = self._names(blocks)
        return Point(
            tuple(int(code[f"width_{i}"]) for i in range(1, blocks + 1)),
            tuple(str(code[f"activation_{i}"]) for i in range(1, blocks + 1)),
            tuple(
                tuple(j < i and bool(code[f"shortcut_{names[i]}_{j}"]) for j in range(blocks + 2))
                for i in range(blocks + 2)
            ),
            learning_rate=float(code["learning_rate"]),
        )

    def count(self) -> int:
        """Number of points: ``Σ_n (widths · activations)^n · 2^((n+1)(n+2)/2)`` times the learning rates, exactly."""
        return sum(self._counts())

    def count_classes(self) -> int:
        """Number of different ``canonical(point)`` over all points, exactly; 0.1 s at 4 blocks, minutes from 6 on.

        It does not depend on ``min_blocks``: a smaller network can be written with more blocks that nothing reads.
        """
        return class_count(self.max_blocks, self.widths, len(self.activations)) * len(self.learning_rates)

    def sample(self, rng: np.random.Generator) -> Point:
        """A point drawn uniformly: each of the ``count()`` points with the same probability.

        So nearly all draws have ``max_blocks`` hidden blocks, as nearly all points have, and half of the shortcuts. It
        is uniform over points, not over classes: a network that can be written in many ways is drawn more often, and as
        blocks without a way from input to output are common, the canonical forms drawn have 0 to 4 hidden blocks about
        evenly (22, 23, 25, 20 and 10 % in the default space).
        """
        counts = self._counts()
        place = int(rng.choice(len(counts), p=[count / sum(counts) for count in counts]))
        drawn = self.draw(rng)
        return self.decode({**drawn, "blocks": self.min_blocks + place})

    def draw(self, rng: np.random.Generator) -> Code:
        """A code with each parameter drawn uniformly from its choices, the number of blocks too."""
        return {name: choices[int(rng.integers(len(choices)))] for name, choices in self.parameters.items()}

    def _counts(self) -> list[int]:
        """Number of points with ``min_blocks``, ... ``max_blocks`` hidden blocks."""
        labels = len(self.widths) * len(self.activations)
        return [
            labels**n * 2 ** ((n + 1) * (n + 2) // 2) * len(self.learning_rates)
            for n in range(self.min_blocks, self.max_blocks + 1)
        ]

    def _names(self, blocks: int) -> tuple[int, ...]:
        """What the code calls the input, the hidden blocks and the output of a point."""
        return (*range(blocks + 1), self.max_blocks + 1)


def default_space(n_inputs: int, n_outputs: int, n_samples: int) -> Space:
    """A space for data of this size: three widths around the square root of the number of training rows.

    Parameters
    ----------
    n_inputs, n_outputs : widths of the first and last blocks.
    n_samples : rows to train on.

    Notes
    -----
    The middle width is a power of two from 8 to 128, at least as wide as the output where that allows it, and so narrow
    that it has at most ``2^18`` weights from the input. The learning rates suit AdamW with one cycle.

    Examples
    --------
    >>> default_space(64, 10, 1100).widths, default_space(10, 1, 270).widths
    ((16, 32, 64), (8, 16, 32))
    """
    for name, size in (("n_inputs", n_inputs), ("n_outputs", n_outputs), ("n_samples", n_samples)):
        if size < 1:
            raise ValueError(f"got {name}={size!r}: it must be at least 1")
    wish = max(round(math.log2(n_samples) / 2), math.ceil(math.log2(n_outputs)))
    most = min(7, math.floor(18 - math.log2(n_inputs)))
    middle = 2 ** max(3, min(wish, most))
    return Space(widths=(middle // 2, middle, 2 * middle))
