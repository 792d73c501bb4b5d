"""Index sets, the blocks that they are split into, and which block may feed which (section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Partition:
    """A partition ``I_0 ⊔ ... ⊔ I_n`` of ``{0, ..., size - 1}`` into consecutive blocks; block 0 is the input.

    Parameters
    ----------
    widths : number of indices in each block, all positive.

    Raises
    ------
    ValueError : no block, or a width that is not a positive whole number.

    Examples
    --------
    >>> partition = Partition((4, 3, 2))
    >>> partition.size, partition.depth_bound
    (9, 5)
    >>> partition.block(1)
    slice(4, 7, None)
    """

    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        widths = tuple(self.widths)
        for width in widths:
            if isinstance(width, bool) or not isinstance(width, int | np.integer) or width < 1:
                raise ValueError(f"got a block of width {width!r}: each width must be a whole number of at least 1")
        if not widths:
            raise ValueError("got no blocks: give at least the width of the input, for example (64, 32, 10)")
        object.__setattr__(self, "widths", tuple(int(width) for width in widths))

    def __len__(self) -> int:
        return len(self.widths)

    @property
    def size(self) -> int:
        """Number of indices in all."""
        return sum(self.widths)

    @property
    def bounds(self) -> tuple[int, ...]:
        """Where the blocks begin, and the end of the last: ``len(self) + 1`` numbers."""
        return (0, *accumulate(self.widths))

    def block(self, i: int) -> slice:
        """The indices of block ``i``; -1 is the last."""
        start = self.bounds[:-1][i]
        return slice(start, start + self.widths[i])

    @property
    def depth_bound(self) -> int:
        """``2n + 1``, the length of the depth cofiltration of ``w + σ`` in section 3."""
        return 2 * len(self) - 1


def shortcut_mask(shortcuts: Any, blocks: int) -> Mask:
    """Which block feeds which, as a boolean array ``[block_out, block_in]`` of shape ``(blocks, blocks)``.

    Parameters
    ----------
    shortcuts : ``None`` (every later block hears every earlier one), ``"sequential"`` (each hears the one before), or
        a boolean array of that shape, true only where ``block_in < block_out``.

    Raises
    ------
    ValueError : another word, another shape, or an entry on or above the diagonal.

    Examples
    --------
    >>> shortcut_mask("sequential", 3).astype(int)
    array([[0, 0, 0],
           [1, 0, 0],
           [0, 1, 0]])
    """
    if shortcuts is None:
        return np.tri(blocks, k=-1, dtype=bool)
    if isinstance(shortcuts, str):
        if shortcuts != "sequential":
            raise ValueError(f'got shortcuts={shortcuts!r}: give None, "sequential", or an array [block_out, block_in]')
        return np.eye(blocks, k=-1, dtype=bool)
    try:
        mask = np.array(shortcuts)
    except ValueError:
        raise ValueError(
            f"got shortcuts whose rows are not equally long: {blocks} blocks need {blocks} rows of {blocks} entries"
        ) from None
    if mask.shape != (blocks, blocks):
        raise ValueError(
            f"got shortcuts of shape {mask.shape}: {blocks} blocks need ({blocks}, {blocks}), [block_out, block_in]"
        )
    mask = _boolean(mask)
    illegal = np.argwhere(mask & ~np.tri(blocks, k=-1, dtype=bool))
    if len(illegal):
        out, source = (int(k) for k in illegal[0])
        raise ValueError(
            f"shortcuts[{out}, {source}] lets block {source} feed block {out}, which does not come after it: "
            "a block may only hear earlier blocks, so set it to False or reorder the blocks"
        )
    return mask


def _boolean(mask: NDArray[Any]) -> Mask:
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise ValueError("got shortcuts that are not true or false: each entry [block_out, block_in] must be a boolean")
    return mask.astype(bool)


def lag_mask(shortcuts: Any, blocks: int, lags: int, timeblock: int) -> Mask:
    """Which block hears which at which lag, as a boolean array ``[lag, block_out, block_in]``.

    An entry is legal when its source box comes before its target box at every time. With boxes of ``timeblock`` steps:
    any lag from an earlier block, lags of at least ``timeblock`` from every block. It does not depend on the length of
    the series.

    Parameters
    ----------
    shortcuts : ``None`` (all that is legal); ``"sequential"`` (lag 0 from the block before, and the past of each block
        but the input); a boolean array ``[block_out, block_in]`` (all legal lags of these pairs) or
        ``[lag, block_out, block_in]``.
    lags : the longest lag.
    timeblock : steps of time that one box updates.

    Raises
    ------
    ValueError : another word, another shape, or an entry that is not legal.

    Examples
    --------
    >>> lag_mask(None, blocks=2, lags=1, timeblock=1).astype(int)
    array([[[0, 0],
            [1, 0]],
    <BLANKLINE>
           [[1, 1],
            [1, 1]]])
    """
    legal = np.zeros((lags + 1, blocks, blocks), dtype=bool)
    legal[:] = np.tri(blocks, k=-1, dtype=bool)
    legal[timeblock:] = True
    if shortcuts is None:
        return legal
    if isinstance(shortcuts, str):
        if shortcuts != "sequential":
            raise ValueError(f'got shortcuts={shortcuts!r}: give None, "sequential", or an array')
        own = np.eye(blocks, dtype=bool)
        own[0, 0] = False
        mask = legal & own
        mask[0] |= np.eye(blocks, k=-1, dtype=bool)
        return mask
    mask = np.array(shortcuts)
    shapes = ((blocks, blocks), (lags + 1, blocks, blocks))
    if mask.shape not in shapes:
        raise ValueError(
            f"got shortcuts of shape {mask.shape}: give [block_out, block_in] of shape {shapes[0]}, "
            f"or [lag, block_out, block_in] of shape {shapes[1]}"
        )
    mask = _boolean(mask)
    refused = np.argwhere(mask & ~(legal.any(axis=0) if mask.ndim == 2 else legal))
    if len(refused):
        *_, out, source = (int(k) for k in refused[0])
        raise ValueError(
            f"shortcuts[{', '.join(map(str, refused[0]))}] lets block {source} feed block {out} before it is known: "
            f"block {out} may hear blocks before it at any lag, and others from lag {timeblock} (the time block) on"
            + ("" if lags >= timeblock else f", which is beyond lags={lags}")
        )
    return mask & legal if mask.ndim == 2 else mask


def channel_mask(mask: Mask, partition: Partition) -> Mask:
    """The mask of blocks spread over channels: shape ``(size, size)``, ``[channel_out, channel_in]``."""
    return np.repeat(np.repeat(mask, partition.widths, axis=0), partition.widths, axis=1)


def fan_in(mask: Mask, partition: Partition) -> tuple[int, ...]:
    """Number of inputs that the mask leaves to a unit of each block; 0 for a block that hears nothing."""
    return tuple(int(n) for n in mask @ np.array(partition.widths))


def runs(flags: Sequence[bool] | Mask) -> list[tuple[int, int]]:
    """The maximal runs of true as half-open ranges.

    >>> runs([True, True, False, True])
    [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate(([False], np.asarray(flags, dtype=bool), [False])).astype(int)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def lag_words(flags: Mask) -> str:
    """The lags at which something is heard, as one writes them.

    >>> lag_words(np.array([True, False, True])), lag_words(np.array([False, True, True, True]))
    ('lags 0, 2', 'lags 1–3')
    """
    lags = [int(lag) for lag in np.flatnonzero(flags)]
    words = f"{lags[0]}–{lags[-1]}" if len(lags) > 2 and len(runs(flags)) == 1 else ", ".join(map(str, lags))
    return f"lag{'s' * (len(lags) > 1)} {words}"
