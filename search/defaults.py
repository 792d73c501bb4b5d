"""The space and the recipe that a search begins with when none is given: they follow from the size of the data."""

import math
from typing import Any

from search.one_of import AnySpace, OneOf
from search.recipe import Recipe, rungs_of
from search.shape import Shape
from search.space import Space

FEW = 1000  # rows, below which one validation part says too little


def default_space(shape: Shape, n_samples: int) -> AnySpace:
    """A space for data of this size: dense machines; for images convolutions too, for series recurrences.

    Parameters
    ----------
    shape : of the data.
    n_samples : rows to train on.

    Notes
    -----
    The middle width of dense machines is a power of two around the square root of the number of rows, from 8 to 128, at
    least as wide as the output where that allows it, and so narrow that it has at most ``2^18`` weights from the input.
    The learning rates suit AdamW with one cycle. Weight decay is a prior, whose share falls as data come in: it is
    ``400 / n_samples``, or three times that; recurrences do better with a tenth or a third. Steps are of 64 samples,
    fewer for few rows and more for many. These choices decide more than the wiring: ``experiments.recipe`` has the
    figures.

    Examples
    --------
    >>> space = default_space(Shape(10, 1), 270)
    >>> space.widths, space.weight_decays, space.batch_sizes
    ((8, 16, 32), (1.5, 4.4), (32,))
    >>> default_space(Shape(64, 10, (1, 8, 8)), 1100).of("convolution").heads
    (2, 3)
    >>> default_space(Shape(11, 1, (1, 11)), 240).of("recurrence").lags
    (1, 2)
    """
    if n_samples < 1:
        raise ValueError(f"got n_samples={n_samples!r}: it must be at least 1")
    wish = max(round(math.log2(n_samples) / 2), math.ceil(math.log2(shape.outputs)))
    most = min(7, math.floor(18 - math.log2(shape.inputs)))
    middle = 2 ** max(3, min(wish, most))
    decay = min(max(0.03, 400 / n_samples), 3.0)
    training: dict[str, Any] = {
        "activations": ("relu", "gelu"),
        "learning_rates": (2e-3, 4e-3, 8e-3),
        "weight_decays": tuple(float(f"{decay * factor:.2g}") for factor in (1, 3)),
        "batch_sizes": (_batch_size(n_samples),),
    }
    dense = Space(widths=(middle // 2, middle, 2 * middle), **training)
    if not shape.size:
        return dense
    if len(shape.size) == 1:
        training["activations"] = ("tanh", "relu")
        training["weight_decays"] = tuple(float(f"{decay / share:.2g}") for share in (10, 3))
        return OneOf((dense, Space(max_blocks=3, widths=(8, 16), kind="recurrence", lags=(1, 2), **training)))
    halvings = math.floor(math.log2(min(shape.size)))  # to one pixel
    finest = max(0, halvings - 1)
    convolution = Space(
        widths=(8, 16, 24),
        kind="convolution",
        kernels=(3,),
        max_scale=finest,
        heads=tuple(sorted({finest, halvings})),
        **training,
    )
    return OneOf((dense, convolution))


def default_recipe(n_samples: int) -> Recipe:
    """The recipe for so many training samples.

    A schedule wants about a thousand steps; from some thousand samples on it has them in fewer epochs and larger
    batches.

    Examples
    --------
    >>> [(r.epochs, r.rungs) for r in map(default_recipe, (300, 1150, 100_000))]
    [(60, (12, 24)), (60, (12, 24)), (12, (2, 5))]
    """
    batch_size = _batch_size(n_samples)
    epochs = min(1200 * batch_size // min(n_samples, 100 * batch_size), 60)  # an epoch has at most 100 batches
    return Recipe(epochs, rungs=rungs_of(epochs))


def default_folds(n_samples: int) -> int:
    """Folds of validation for so many training rows: where a single part would be small, each row takes its turn."""
    return 5 if n_samples < FEW else 1


def _batch_size(n_samples: int) -> int:
    return int(min(max(64 if n_samples >= FEW else 32, 2 ** round(math.log2(n_samples / 18))), 1024))
