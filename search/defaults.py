"""The space and the recipe that a search begins with when none is given: they follow from the size of the data."""

import math
from typing import Any

from search.data.parts import Dataset
from search.data.transform import GIVEN, suitable
from search.one_of import AnySpace, OneOf
from search.point import Kind
from search.recipe import Recipe, rungs_of
from search.shape import Shape
from search.space import Space

FEW = 1000  # rows, below which one validation part says too little


def space_for(dataset: Dataset) -> AnySpace:
    """The default space for a data set, and where the answers are skewed also with a transform that straightens them.

    >>> from search.data import load
    >>> space_for(load("sunspots")).transforms, space_for(load("diabetes")).transforms
    (('given', 'yeo-johnson'), ('given',))
    """
    return default_space(dataset.shape, len(dataset.train), transforms_for(dataset))


def transforms_for(dataset: Dataset) -> tuple[str, ...]:
    """Of the answers, those to choose from: the data set's own, and others where they are worth a try."""
    return (GIVEN, *(() if dataset.classes else suitable(dataset.values(dataset.train))))


def default_space(shape: Shape, n_samples: int, transforms: tuple[str, ...] = (GIVEN,)) -> AnySpace:
    """A space for data of this size: dense machines, which read the lags of a series as features; for images
    convolutions too.

    Parameters
    ----------
    shape : of the data.
    n_samples : rows to train on.
    transforms : of numbers to answer, to choose from.

    Notes
    -----
    The middle width of dense machines is a power of two around twice the square root of the number of rows, from 16 to
    128, at least as wide as the output where that allows it, and no wider than 16 where it has more than ``2^18``
    weights from the input. Below 1,000 rows there are two hidden blocks at most: what more of them fit better they
    answer worse. All are relu, which no other activation was better than, and none is as fast. Recurrences, which
    `space_of_kind` has, are left out: of most series they fit better what they are chosen by, and tell new steps worse
    (``experiments.kinds``). The learning rates suit AdamW with one cycle of the length that `default_recipe` has; those
    of convolutions are larger, and their first block hears the image before anything is pooled
    (``experiments.convolutions``). Weight decay is a prior, whose share falls as data come in: it is
    ``400 / n_samples`` or a third of it; of series, which follow rules, a third or a tenth; and of tables of fewer than
    1,000 rows, where there is least to choose it by, ``400 / n_samples``, but at least 1 and at most 3
    (``experiments.decays``). Steps are of 64 samples, fewer for few rows and more for many. These choices decide more
    than the wiring: ``experiments.prior`` has figures of them.

    Examples
    --------
    >>> space = default_space(Shape(10, 1), 270)
    >>> space.widths, space.weight_decays, space.batch_sizes
    ((16, 32, 64), (1.5,), (16,))
    >>> default_space(Shape(64, 10, (1, 8, 8)), 1100).of("convolution").heads
    (2,)
    >>> default_space(Shape(11, 1, (1, 11)), 240).kind
    'dense'
    """
    kinds: tuple[Kind, ...] = ("dense",) if len(shape.size) < 2 else ("dense", "convolution")
    spaces = [space_of_kind(kind, shape, n_samples, transforms) for kind in kinds]
    return spaces[0] if len(spaces) == 1 else OneOf(tuple(spaces))


def space_of_kind(kind: Kind, shape: Shape, n_samples: int, transforms: tuple[str, ...] = (GIVEN,)) -> Space:
    """The space of one kind of machine for data of this size; `default_space` has the kinds that suit the data.

    Raises
    ------
    ValueError : data that machines of this kind can't read.

    Examples
    --------
    >>> space_of_kind("convolution", Shape(11, 1, (1, 11)), 240).kernels
    (3,)
    >>> space_of_kind("recurrence", Shape(10, 1), 240)
    Traceback (most recent call last):
    ValueError: got a space of kind 'recurrence' for a table: it reads series, so load the data with lags
    """
    if n_samples < 1:
        raise ValueError(f"got n_samples={n_samples!r}: it must be at least 1")
    axes = len(shape.size)
    data = {0: "a table", 1: "a series"}.get(axes, f"an image of {axes} axes")
    if kind == "convolution" and not axes:
        raise ValueError(
            f"got a space of kind 'convolution' for {data}: it reads images and series, so load the data with an image "
            "or lags"
        )
    if kind == "recurrence" and axes != 1:
        raise ValueError(f"got a space of kind 'recurrence' for {data}: it reads series, so load the data with lags")
    wish = max(1 + round(math.log2(n_samples) / 2), math.ceil(math.log2(shape.outputs)))
    most = min(7, math.floor(18 - math.log2(shape.inputs)))
    middle = 2 ** max(4, min(wish, most))
    decay = min(max(0.03, 400 / n_samples), 3.0)
    few = n_samples < FEW
    if few and not axes:
        decays: tuple[float, ...] = (max(1.0, decay),)
    else:
        decays = tuple(factor * decay for factor in ((0.1, 1 / 3) if axes == 1 else (1 / 3, 1.0)))
    training: dict[str, Any] = {
        "activations": ("relu",),
        "max_blocks": 2 if few else 4,
        "learning_rates": (4e-3, 8e-3, 1.6e-2),
        "weight_decays": _rounded(*decays),
        "batch_sizes": (_batch_size(n_samples),),
        "transforms": transforms,
    }
    if kind == "dense":
        return Space(widths=(middle // 2, middle, 2 * middle), **training)
    if kind == "recurrence":
        training |= {"activations": ("tanh", "relu"), "max_blocks": 3}
        return Space(kind="recurrence", widths=(8, 16), lags=(1, 2), **training)
    halvings = max(0, math.floor(math.log2(min(shape.size))) - 1)  # to two pixels or three
    training |= {"max_blocks": 3, "max_scale": halvings, "first_scale": 0, "heads": (halvings,)}
    training |= {"learning_rates": (8e-3, 1.6e-2, 3.2e-2)}
    return Space(kind="convolution", widths=(16, 24, 32), kernels=(3,), **training)


def default_recipe(n_samples: int) -> Recipe:
    """The recipe for so many training samples.

    A schedule wants about a thousand steps; from some thousand samples on it has them in fewer epochs and larger
    batches. On folds of the digits 32 epochs of large learning rates were as good as 60 of smaller ones, in half the
    time (``experiments.convolutions``).

    Examples
    --------
    >>> [(r.epochs, r.rungs) for r in map(default_recipe, (300, 1150, 100_000))]
    [(60, (12, 24)), (32, (6, 13)), (12, (2, 5))]
    """
    batch_size, most = _batch_size(n_samples), 60 if n_samples < FEW else 32
    epochs = min(1200 * batch_size // min(n_samples, 100 * batch_size), most)  # an epoch has at most 100 batches
    return Recipe(epochs, rungs=rungs_of(epochs))


def default_folds(n_samples: int, *, has_validation: bool = True) -> int:
    """Folds of validation for so many training rows: where a single part would be small, each row takes its turn."""
    return 5 if n_samples < FEW or not has_validation else 1


def _batch_size(n_samples: int) -> int:
    return int(min(max(64 if n_samples >= FEW else 16, 2 ** round(math.log2(n_samples / 18))), 1024))


def _rounded(*numbers: float) -> tuple[float, ...]:
    return tuple(float(f"{number:.2g}") for number in numbers)
