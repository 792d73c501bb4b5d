"""Spaces of partitions and shortcuts: every point counted, drawn at random, and written as a code of fixed length."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from machgraph.partition import Mask, Partition, shortcut_mask
from search.data.transform import GIVEN, TRANSFORMS
from search.isomorphism.canonical import canonical as canonical
from search.isomorphism.canonical import key as key
from search.isomorphism.count import class_count
from search.numbers import native
from search.point import KINDS as KINDS
from search.point import REGULARIZERS as REGULARIZERS
from search.point import AnyPoint, Kind, Point, regular
from search.point import hyperparameters as hyperparameters

Choice = bool | int | float | str
Code = dict[str, Choice]
Shortcuts = Literal["free", "all", "sequential"] | tuple[tuple[bool | int, ...], ...]
Recurrences = Literal["free", "all", "own"]
Triple = tuple[int, int, int]  # lag, block_out, block_in

OWNERS: Mapping[str, Kind] = {  # what a single kind has
    **dict.fromkeys(("kernels", "dilations", "max_scale", "first_scale", "heads"), "convolution"),
    **dict.fromkeys(("lags", "timeblocks", "recurrences"), "recurrence"),
}

TRAINING = ("learning_rates", "weight_decays", "batch_sizes", "transforms")

STRENGTHS: Mapping[str, str] = {  # of each regularizer of a point: the field of a space with its choices
    "block_penalty": "block_penalties",
    "smoothing": "smoothings",
    "input_noise": "input_noises",
    "input_dropout": "input_dropouts",
}

DRAWS = 100  # until one is no constant
COUNTED_BLOCKS = 4  # hidden blocks up to which classes are counted; each further one takes 40 times as long


@dataclass(frozen=True)
class Space:
    """All points of one kind with so many hidden blocks, of these widths and activations, with any shortcuts.

    A point has from ``min_blocks`` to ``max_blocks`` hidden blocks; each has one of the widths and one of the
    activations; each pair ``block_in < block_out`` of blocks, input and output among them, has a shortcut or not. No
    hidden block is a point too: the linear model and the constant, which larger points come down to when all their
    hidden blocks are dropped.

    Parameters
    ----------
    max_blocks : most hidden blocks.
    widths, learning_rates, weight_decays, batch_sizes, kernels, dilations, heads : increasing, finite in number, so
        that the space can be counted.
    activations, transforms : names, none twice; of nonlinearities, and of transforms of the numbers to answer, of which
        ``given`` is the one that the data set has.
    min_blocks : fewest hidden blocks, as the point is written: its canonical form may have fewer.
    shortcuts : ``free``; or the same for all points: ``all``; ``sequential``, from each block to the next alone; or a
        mask of your own ``[block_out, block_in]``, input and output among the blocks, for points of as many blocks.
    max_span : of free shortcuts: how many blocks on, at most, a block is heard; ``None``: any number.
    density : of free shortcuts: the least and the largest share of the possible ones that a point has.
    kind : of machine.
    kernels, dilations : of a convolution.
    max_scale : of a convolution: how often the grid may be halved before its last hidden block. Each block has a scale
        from 0 to this, none a smaller one than the block before.
    first_scale : of a convolution: the coarsest scale of its first hidden block; ``None``: any. At 0 a block hears the
        image before anything is pooled.
    heads : of a convolution: scales of the output, at least ``max_scale``; its mean over positions is the answer.
    lags, timeblocks : of a recurrence: the longest lag, and the steps of time that are updated at once. A time block
        that no lag reaches would leave no recurrence.
    recurrences : of a recurrence: ``free``, where at each lag each block but the input hears each but the output, or
        not; ``all`` of these; or ``own``, where each hidden block hears its own past.
    block_penalties, smoothings, input_noises, input_dropouts : regularizers to choose from, see ``Point``; increasing.
        ``smoothings`` are of classes alone; ``None``: the recipe's.

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
    weight_decays: tuple[float, ...] = (0.3,)
    batch_sizes: tuple[int, ...] = (64,)
    transforms: tuple[str, ...] = (GIVEN,)
    min_blocks: int = 0
    shortcuts: Shortcuts = "free"
    max_span: int | None = None
    density: tuple[float, float] | None = None
    kind: Kind = "dense"
    kernels: tuple[int, ...] = (1,)
    dilations: tuple[int, ...] = (1,)
    max_scale: int = 0
    first_scale: int | None = None
    heads: tuple[int, ...] = (0,)
    lags: tuple[int, ...] = (0,)
    timeblocks: tuple[int, ...] = (1,)
    recurrences: Recurrences = "free"
    block_penalties: tuple[float, ...] = (0.0,)
    smoothings: tuple[float, ...] | None = None
    input_noises: tuple[float, ...] = (0.0,)
    input_dropouts: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        """Check, and turn lists into tuples."""
        for field in fields(self):
            object.__setattr__(self, field.name, native(getattr(self, field.name)))
        whole = ("max_blocks", "min_blocks", "max_scale", *["first_scale"] * (self.first_scale is not None))
        for name in whole:
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise ValueError(f"got {name}={number!r}: it must be a whole number, 0 or more")
        if self.min_blocks > self.max_blocks:
            raise ValueError(
                f"got min_blocks={self.min_blocks}, max_blocks={self.max_blocks}: the first must not be the larger"
            )
        numbers = (
            "widths", "learning_rates", "weight_decays", "batch_sizes", "kernels", "dilations", "heads", "lags",
            "timeblocks", *(name for name in STRENGTHS.values() if getattr(self, name) is not None),
        )  # fmt: skip
        for name in (*numbers, "activations", "transforms"):
            choices = getattr(self, name)
            if isinstance(choices, str) or not (choices := tuple(choices)):
                raise ValueError(f"got {name}={choices!r}: give a tuple with at least one choice")
            object.__setattr__(self, name, tuple(map(native, choices)))
        for name, choices in STRENGTHS.items():
            if getattr(self, choices) is not None:
                object.__setattr__(self, choices, tuple(regular(name, value) for value in getattr(self, choices)))
        Partition(self.widths)  # whole and positive
        for name in numbers:
            choices = getattr(self, name)
            if any(a >= b for a, b in pairwise(choices)):
                raise ValueError(f"got {name}={choices!r}: give them in increasing order, none twice")
        for name in ("batch_sizes", "kernels", "dilations", "timeblocks"):
            if getattr(self, name)[0] < 1:
                raise ValueError(f"got {name}={getattr(self, name)!r}: each must be at least 1")
        if not all(0 < rate < math.inf for rate in self.learning_rates):
            raise ValueError(f"got learning_rates={self.learning_rates!r}: each must be positive and finite")
        if not all(0 <= decay < math.inf for decay in self.weight_decays):
            raise ValueError(f"got weight_decays={self.weight_decays!r}: each must be 0 or more, and finite")
        for name in ("activations", "transforms"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"got {name}={getattr(self, name)!r}: give each name once")
        for name in self.transforms:
            if name not in (GIVEN, *TRANSFORMS):
                raise ValueError(f"got the transform {name!r}: give some of {', '.join((GIVEN, *TRANSFORMS))}")
        self._check_shortcuts()
        if self.max_span is not None and (self.max_span < 1 or self.shortcuts != "free"):
            raise ValueError(f"got max_span={self.max_span!r}: it is at least 1, and of free shortcuts alone")
        self._check_kind()
        self._check_density()

    def _check_shortcuts(self) -> None:
        if (
            isinstance(self.shortcuts, str)
            or not isinstance(self.shortcuts, Sequence | np.ndarray)
            or any(isinstance(row, str) for row in self.shortcuts)
        ):
            if self.shortcuts not in ("free", "all", "sequential"):
                raise ValueError(f"got shortcuts={self.shortcuts!r}: give free, all, sequential, or a mask of your own")
            return
        hidden = len(self.shortcuts) - 2
        if not self.min_blocks == self.max_blocks == hidden:
            raise ValueError(
                f"got a mask of shortcuts of {hidden + 2} rows, for points of {self.min_blocks} to {self.max_blocks} "
                "hidden blocks: it has a row for each of them, one for the input and one for the output, so give "
                f"min_blocks={max(0, hidden)} and max_blocks={max(0, hidden)}"
            )
        mask = shortcut_mask(self.shortcuts, hidden + 2)
        hears = [True]  # the input, directly or through others
        for block in range(1, hidden + 2):
            hears.append(bool(mask[block, :block][hears].any()))
        if not hears[-1]:
            raise ValueError(
                "got a mask of shortcuts by which the output hears nothing of the input: let a way lead there"
            )
        object.__setattr__(self, "shortcuts", _tuples(mask))

    def _check_kind(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"got kind={self.kind!r}: it is one of {', '.join(KINDS)}")
        for field in fields(self):
            if OWNERS.get(field.name, self.kind) != self.kind and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"got {field.name} for a space of kind {self.kind!r}: only a {OWNERS[field.name]} has these"
                )
        if self.heads[0] < self.max_scale:
            raise ValueError(
                f"got heads={self.heads} below max_scale={self.max_scale}: no output is finer than what it hears"
            )
        if self.kind == "recurrence" and self.lags[0] < max(1, self.timeblocks[-1]):
            raise ValueError(
                f"got lags={self.lags} for timeblocks={self.timeblocks}: a recurrence needs lags of at least 1, and of "
                "its longest time block"
            )
        if self.recurrences not in ("free", "all", "own"):
            raise ValueError(f"got recurrences={self.recurrences!r}: give free, all or own")

    def _check_density(self) -> None:
        if self.density is None:
            return
        object.__setattr__(self, "density", tuple(map(native, self.density)))
        if len(self.density) != 2 or not 0 <= self.density[0] <= self.density[1] <= 1 or self.shortcuts != "free":
            raise ValueError(
                f"got density={self.density!r}: give the least and the largest share, from 0 to 1, of free shortcuts"
            )
        for blocks in range(self.min_blocks, self.max_blocks + 1):
            least, most = self.shortcut_range(blocks)
            if least > most:
                raise ValueError(
                    f"got density={self.density!r}: no whole number of the {len(self._edges(blocks))} shortcuts of "
                    f"{blocks} hidden blocks is between these shares, so widen it, or have other numbers of blocks"
                )

    @cached_property
    def parameters(self) -> Mapping[str, tuple[Choice, ...]]:
        """The names of the code and the choices of each, the same for every point.

        Hidden block ``i`` is ``i`` and the output ``max_blocks + 1``, however many hidden blocks are in use.

        >>> list(Space(max_blocks=1).parameters)  # doctest: +NORMALIZE_WHITESPACE
        ['blocks', 'width_1', 'activation_1', 'shortcut_1_0', 'shortcut_2_0', 'shortcut_2_1', 'learning_rate',
         'weight_decay', 'batch_size', 'transform']
        """
        hidden = range(1, self.max_blocks + 1)
        convolution: dict[str, tuple[Choice, ...]] = {}
        if self.kind == "convolution":
            convolution = {f"scale_{i}": tuple(range(self.coarsest(i) + 1)) for i in hidden}
            convolution |= {"head": self.heads, "kernel": self.kernels, "dilation": self.dilations}
        recurrence: dict[str, tuple[Choice, ...]] = {}
        if self.kind == "recurrence":
            recurrence = {"lags": self.lags, "timeblock": self.timeblocks}
            recurrence |= dict.fromkeys(self._lagged, (False, True)) if self.recurrences == "free" else {}
        return {
            "blocks": tuple(range(self.min_blocks, self.max_blocks + 1)),
            **{f"width_{i}": self.widths for i in hidden},
            **{f"activation_{i}": self.activations for i in hidden},
            **(dict.fromkeys(self._pairs, (False, True)) if self.shortcuts == "free" else {}),
            **convolution,
            **recurrence,
            "learning_rate": self.learning_rates,
            "weight_decay": self.weight_decays,
            "batch_size": self.batch_sizes,
            "transform": self.transforms,
            **self.regularizers,
        }

    @cached_property
    def regularizers(self) -> Mapping[str, tuple[float, ...]]:
        """The choices of those that some point has.

        >>> Space(block_penalties=(0, 0.1), smoothings=(0.1,)).regularizers
        {'block_penalty': (0.0, 0.1), 'smoothing': (0.1,)}
        """
        choices: dict[str, Any] = {name: getattr(self, field) or (None,) for name, field in STRENGTHS.items()}
        return {name: values for name, values in choices.items() if values != (REGULARIZERS[name],)}

    @property
    def untrained(self) -> "Space":
        """The same with the first choice alone of all that concerns training, for whom no point tells of it.

        >>> Space(max_blocks=1).count(), Space(max_blocks=1).untrained.count()
        (296, 74)
        """
        names = (*TRAINING, *(name for name in STRENGTHS.values() if getattr(self, name) is not None))
        return replace(self, **{name: getattr(self, name)[:1] for name in names})

    def encode(self, point: AnyPoint) -> Code:
        """The code of a point; what belongs to unused blocks has its first choice.

        Raises
        ------
        ValueError : the point is not in the space.
        """
        if not isinstance(point, Point) or point.kind != self.kind:
            raise ValueError(f"got a point of kind {point.kind!r}, which is not in the space: it has {self.kind!r}")
        code: Code = {name: choices[0] for name, choices in self.parameters.items()}
        code |= {"blocks": point.blocks, **hyperparameters(point)}
        for name, neutral in REGULARIZERS.items():  # those that no point has are not in the code
            if name not in self.regularizers and code[name] == neutral:
                del code[name]
        for i, (width, activation) in enumerate(zip(point.widths, point.activations, strict=True), start=1):
            code[f"width_{i}"], code[f"activation_{i}"] = width, activation
        if self.kind == "convolution":
            *scales, head = point.scales
            code |= {f"scale_{i}": scale for i, scale in enumerate(scales, start=1)}
            code |= {"head": head, "kernel": point.kernel, "dilation": point.dilation}
        if self.shortcuts == "free":
            code |= {name: point.shortcuts[i][j] for name, (i, j) in self._edges(point.blocks).items()}
        if self.kind == "recurrence":
            code |= {"lags": len(point.recurrences), "timeblock": point.timeblock}
            if self.recurrences == "free":
                free = self._triples(point.blocks, len(point.recurrences), point.timeblock)
                code |= {name: point.recurrences[lag - 1][i][j] for name, (lag, i, j) in free.items()}
        for name, value in code.items():
            if value not in self.parameters.get(name, ()):
                choices = self.parameters.get(name, "nothing of that name")
                raise ValueError(f"got a point with {name}={value!r}, which is not in the space: it has {choices}")
        if self.decode(code) != point:
            raise ValueError("got a point with shortcuts, scales or recurrences that are not in the space")
        return code

    def decode(self, code: Mapping[str, Choice]) -> Point:
        """The point of a code; what belongs to unused blocks is ignored.

        No scale is below the one before. Where the shortcuts are too many or too few for the density, the longest are
        left out, or the shortest put in: of equally long ones those into later blocks are the first to go, and the last
        to come.

        Raises
        ------
        ValueError : a name is missing.
        """
        missing = [name for name in self.parameters if name not in code]
        if missing:
            raise ValueError(f"got a code without {', '.join(missing)}: give every name of Space.parameters")
        blocks = int(code["blocks"])
        hidden = range(1, blocks + 1)
        mask = np.zeros((blocks + 2, blocks + 2), dtype=bool)
        for name, edge in self._edges(blocks).items():
            mask[edge] = self.shortcuts == "free" and code[name]
        own: dict[str, Any] = {}
        if self.kind == "convolution":
            scales = np.maximum.accumulate([0, *(int(code[f"scale_{i}"]) for i in hidden)])[1:].tolist()
            own = {"scales": (*scales, int(code["head"]))}
            own |= {name: int(code[name]) for name in ("kernel", "dilation")}
        if self.kind == "recurrence":
            lags, timeblock = int(code["lags"]), int(code["timeblock"])
            lagged = np.zeros((lags, *mask.shape), dtype=bool)
            if self.recurrences == "free":
                for name, (lag, i, j) in self._triples(blocks, lags, timeblock).items():
                    lagged[lag - 1, i, j] = code[name]
            own = {"recurrences": _tuples(self.recurring(lagged, timeblock)), "timeblock": timeblock}
        return Point(
            tuple(int(code[f"width_{i}"]) for i in hidden),
            tuple(str(code[f"activation_{i}"]) for i in hidden),
            _tuples(self.wired(mask)),
            learning_rate=float(code["learning_rate"]),
            weight_decay=float(code["weight_decay"]),
            batch_size=int(code["batch_size"]),
            transform=str(code["transform"]),
            kind=self.kind,
            **{name: code[name] for name in self.regularizers},  # type: ignore[arg-type]
            **own,
        )

    def wired(self, mask: Mask) -> Mask:
        """A mask ``[block_out, block_in]`` made one of the space's, as ``decode`` says; one that is stays as it is."""
        blocks = len(mask) - 2
        found = np.zeros_like(mask)
        if not isinstance(self.shortcuts, str):
            return np.array(self.shortcuts, dtype=bool)
        if self.shortcuts == "all":
            return ~np.triu(~found)
        if self.shortcuts == "sequential":
            return np.eye(blocks + 2, k=-1, dtype=bool)
        pairs = sorted(self._edges(blocks).values(), key=lambda pair: (pair[0] - pair[1], pair[0]))
        taken = [pair for pair in pairs if mask[pair]]
        least, most = self.shortcut_range(blocks)
        absent = [pair for pair in pairs if not mask[pair]]
        for pair in (*taken[:most], *absent[: max(0, least - len(taken))]):
            found[pair] = True
        return found

    def recurring(self, masks: Mask, timeblock: int) -> Mask:
        """Masks ``[lag - 1, block_out, block_in]`` made such as the space has them, where they are not free."""
        found = np.zeros_like(masks)
        lags, blocks = len(masks), masks.shape[1] - 2
        for lag, i, j in self._triples(blocks, lags, timeblock).values():
            free = masks[lag - 1, i, j]
            found[lag - 1, i, j] = {"free": free, "all": True, "own": i == j and i <= blocks}[self.recurrences]
        return found

    def count(self) -> int:
        """Number of points, exactly: for each number of hidden blocks and all choices."""
        return sum(self._counts.values())

    def count_classes(self) -> int | None:
        """Number of different ``canonical(point)`` over all points, exactly; ``None`` where it is not known.

        It is known of dense machines with free shortcuts up to 4 hidden blocks. It does not depend on ``min_blocks``: a
        smaller network can be written with more blocks that nothing reads.
        """
        if (
            self.kind != "dense"
            or self.shortcuts != "free"
            or self.max_span
            or self.density
            or self.max_blocks > COUNTED_BLOCKS
        ):
            return None
        return class_count(self.max_blocks, self.widths, len(self.activations)) * self._trainings

    def sample(self, rng: np.random.Generator) -> Point:
        """A point drawn uniformly: each with the same probability, but that the constant is drawn of need alone.

        A constant is a point whose output does not hear the input, directly or through others. Nearly all draws have
        ``max_blocks`` hidden blocks, as nearly all points have, and half of the shortcuts. It is uniform over points,
        not over classes: a network that can be written in many ways is drawn more often, and as blocks without a way
        from input to output are common, the canonical forms drawn have fewer hidden blocks.
        """
        counts = self._counts
        shares = [count / sum(counts.values()) for count in counts.values()]
        for _ in range(DRAWS):
            code = self.draw(rng)
            blocks, lags, timeblock = list(counts)[int(rng.choice(len(counts), p=shares))]
            code["blocks"] = blocks
            if self.kind == "convolution":  # one of the rising sequences of scales
                code |= self._some_scales(blocks, rng)
            if self.kind == "recurrence":
                code |= {"lags": lags, "timeblock": timeblock}
            if self.density is not None:
                code |= self._some_shortcuts(blocks, rng)
            if not (point := self.decode(code)).is_constant:
                break
        return point

    def draw(self, rng: np.random.Generator) -> Code:
        """A code with each parameter drawn uniformly from its choices, the number of blocks too."""
        return {name: choices[int(rng.integers(len(choices)))] for name, choices in self.parameters.items()}

    def pairs(self, blocks: int) -> list[tuple[int, int]]:
        """The pairs ``(block_out, block_in)`` that may have a shortcut, in a point of so many hidden blocks."""
        return list(self._edges(blocks).values())

    def triples(self, blocks: int, lags: int, timeblock: int) -> list[Triple]:
        """The ``(lag, block_out, block_in)`` that may have a recurrence, in a point of so many hidden blocks."""
        return list(self._triples(blocks, lags, timeblock).values())

    @property
    def _trainings(self) -> int:
        settings = len(self.learning_rates) * len(self.weight_decays) * len(self.batch_sizes) * len(self.transforms)
        return settings * math.prod(map(len, self.regularizers.values()))

    @cached_property
    def _counts(self) -> dict[Triple, int]:
        """Number of points by number of hidden blocks, longest lag and time block."""
        labels = len(self.widths) * len(self.activations)
        rest = self._trainings * len(self.kernels) * len(self.dilations) * len(self.heads)
        return {
            (n, lags, timeblock): labels**n
            * self._wirings(n)
            * (2 ** len(self._triples(n, lags, timeblock)) if self.recurrences == "free" else 1)
            * sum(self._risings(n))
            * rest
            for n in range(self.min_blocks, self.max_blocks + 1)
            for lags in self.lags
            for timeblock in self.timeblocks
        }

    def coarsest(self, block: int) -> int:
        """The coarsest scale that a hidden block, counted from 1, may have."""
        return self.max_scale if self.first_scale is None or block > 1 else min(self.first_scale, self.max_scale)

    def _risings(self, blocks: int) -> list[int]:
        """Number of rising sequences of scales, by the scale of the first of so many blocks."""
        if not blocks:
            return [1]
        return [math.comb(blocks - 1 + self.max_scale - first, blocks - 1) for first in range(self.coarsest(1) + 1)]

    def _some_scales(self, blocks: int, rng: np.random.Generator) -> Code:
        """A rising sequence drawn uniformly."""
        if not blocks:
            return {}
        ways = self._risings(blocks)
        first = int(rng.choice(len(ways), p=[way / sum(ways) for way in ways]))
        places = np.sort(rng.choice(blocks - 1 + self.max_scale - first, size=blocks - 1, replace=False))
        scales = [first, *(first + places - np.arange(blocks - 1)).tolist()]
        return {f"scale_{i}": scale for i, scale in enumerate(scales, start=1)}

    def _wirings(self, blocks: int) -> int:
        """Number of masks of lag 0."""
        if self.shortcuts != "free":
            return 1
        possible = len(self._edges(blocks))
        least, most = self.shortcut_range(blocks)
        return sum(math.comb(possible, number) for number in range(least, most + 1))

    def shortcut_range(self, blocks: int) -> tuple[int, int]:
        """The least and the largest number of free shortcuts of a point of so many hidden blocks."""
        possible = len(self._edges(blocks))
        low, high = self.density or (0.0, 1.0)
        return math.ceil(low * possible - 1e-9), math.floor(high * possible + 1e-9)

    def _some_shortcuts(self, blocks: int, rng: np.random.Generator) -> Code:
        """Free shortcuts drawn uniformly from those of the density."""
        names = list(self._edges(blocks))
        least, most = self.shortcut_range(blocks)
        ways = [math.comb(len(names), number) for number in range(least, most + 1)]
        number = least + int(rng.choice(len(ways), p=[way / sum(ways) for way in ways]))
        chosen = set(rng.choice(len(names), size=number, replace=False).tolist())
        return {name: i in chosen for i, name in enumerate(names)}

    @cached_property
    def _lagged(self) -> tuple[str, ...]:
        """The names of the recurrences of all points."""
        numbers = range(self.min_blocks, self.max_blocks + 1)
        names = {
            name for n in numbers for lags in self.lags for tb in self.timeblocks for name in self._triples(n, lags, tb)
        }
        return tuple(sorted(names, key=_numbers))

    def _triples(self, blocks: int, lags: int, timeblock: int) -> dict[str, Triple]:
        """The recurrences that such a point may have: what the code calls each, and ``(lag, out, in)``."""
        names = (*range(blocks + 1), self.max_blocks + 1)
        return {
            f"recurrence_{lag}_{names[i]}_{j}": (lag, i, j)
            for lag in range(1, lags + 1)
            for i in range(1, blocks + 2)
            for j in range(blocks + 1)
            if lag >= timeblock or j < i
        }

    @cached_property
    def _pairs(self) -> tuple[str, ...]:
        """The names of the shortcuts of all points."""
        numbers = range(self.min_blocks, self.max_blocks + 1)
        names = {name for blocks in numbers for name in self._edges(blocks)}
        return tuple(sorted(names, key=_numbers))

    def _edges(self, blocks: int) -> dict[str, tuple[int, int]]:
        """The shortcuts that a point of so many blocks may have: what the code calls each, and ``(out, in)``."""
        names = (*range(blocks + 1), self.max_blocks + 1)
        span = self.max_span or blocks + 1
        return {f"shortcut_{names[i]}_{j}": (i, j) for i in range(1, blocks + 2) for j in range(max(0, i - span), i)}


def _numbers(name: str) -> list[int]:
    return [int(number) for number in name.split("_")[1:]]


def _tuples(mask: Mask) -> Any:
    """Nested tuples.

    >>> _tuples(np.array([[True, False]]))
    ((True, False),)
    """
    return tuple(map(_tuples, mask)) if mask.ndim > 1 else tuple(mask.tolist())
