"""Arrays whose features lie on a grid: what their axes mean, and one scale a channel."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.data.columns import Column, Floats, moments
from search.numbers import counted
from search.shape import Shape

MOST_COLOURS = 4  # a last axis of 1, 3 or 4 after larger ones holds colours, which are wanted first
AXES = {3: "height, width", 4: "channels, height, width", 5: "channels, depth, height, width"}


def image_of(x: NDArray[Any], wish: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """Channels and the extent of each axis of the rows of an array, and a sentence on how its axes were taken.

    Two axes beside the rows are the height and width of one channel; of three or four the first is the channels.
    ``wish`` is what the caller says instead.

    Raises
    ------
    ValueError : too many axes, channels that seem to come last, or a wish that does not agree with the axes.
    """
    axes = x.shape[1:]
    if wish:
        Shape(prod(axes), 1, wish)  # refuses what is no image of so many features
        if len(axes) > 1 and [n for n in axes if n > 1] != [n for n in wish if n > 1]:
            raise ValueError(
                f"got x with axes {axes} beside its rows and an image of {wish}: they must come in the same order, "
                "channels first, as np.moveaxis(x, -1, 1) puts them"
            )
        return wish, ""
    if x.ndim not in AXES:
        raise ValueError(
            f"got x of shape {x.shape}: (rows, features), (rows, height, width), (rows, channels, height, width) or "
            "(rows, channels, depth, height, width) was expected"
        )
    if x.ndim > 3 and axes[-1] in (1, 3, MOST_COLOURS) and axes[0] > MOST_COLOURS:
        raise ValueError(
            f"got x with axes {axes} beside its rows, whose channels seem to come last: give np.moveaxis(x, -1, 1), or "
            f"image={axes} if they come first"
        )
    image = (1, *axes) if x.ndim == 3 else axes
    size = " × ".join(map(str, image[1:]))
    other = f": for {axes[0]} channels of {axes[1]} steps give image={axes}" if x.ndim == 3 else ""
    told = (
        f"Taken as images of {counted(image[0], 'channel')}, {size}, from the axes (rows, {AXES[x.ndim]}) of x{other}."
    )
    return image, told


def fit_channels(
    x: NDArray[Any], training: NDArray[np.intp], image: tuple[int, ...]
) -> tuple[tuple[Column, ...], Floats, Floats, list[str]]:
    """A column for each channel, its mean and scale over the training rows, and a sentence about gaps.

    Raises
    ------
    ValueError : the training rows are all the same.
    """
    columns, means, scales, gaps = [], [], [], 0
    for c, values in enumerate(_channels(x, image)):
        gaps += int(np.count_nonzero(~np.isfinite(values)))
        known = values[training].astype(float)
        present = known[np.isfinite(known)]
        fill = float(np.median(present)) if len(present) else 0.0
        mean, scale = moments(np.where(np.isfinite(known), known, fill), None)
        columns.append(Column(f"channel {c}", "number", fill=fill))
        means.append(mean)
        scales.append(scale)
    if (x[training] == x[training[0]]).all():
        raise ValueError("x is the same in every training row: there is nothing to learn from")
    told = [f"Missing and infinite values become the training median of their channel ({gaps})."] if gaps else []
    return tuple(columns), np.array(means), np.array(scales), told


def encode_channels(
    x: NDArray[Any], image: tuple[int, ...], columns: tuple[Column, ...], mean: Floats, scale: Floats
) -> Floats:
    """Scaled features, shape ``(rows, features)``, of an array of the rows' images.

    Raises
    ------
    ValueError : an array of other sizes, or that holds no numbers.
    """
    if x.dtype.kind not in "biuf" or x.ndim < 2 or prod(x.shape[1:]) != prod(image):
        raise ValueError(f"got x of shape {x.shape} and {x.dtype}: numbers of shape {('rows', *image)} were expected")
    if x.ndim > 2:
        image_of(x, image)
    scaled = np.empty((len(x), image[0], prod(image[1:])))
    for c, values in enumerate(_channels(x, image)):
        scaled[:, c] = (np.where(np.isfinite(values), values, columns[c].fill) - mean[c]) / scale[c]
    return scaled.reshape(len(x), prod(image))


def _channels(x: NDArray[Any], image: tuple[int, ...]) -> NDArray[Any]:
    """Shape ``(channels, rows, positions)``."""
    return np.moveaxis(x.reshape(len(x), image[0], prod(image[1:])), 1, 0)
