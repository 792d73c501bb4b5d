"""Weights that children begin with: those of their parents, as far as they have the same channels.

What a child has beside them begins so that it changes nothing yet, as in Chen et al. 2016, "Net2Net", and Wei et al.
2016, "Network Morphism": nobody who was there before hears a new channel, or by a new shortcut, at first. So a block
that is widened, split or added, and a shortcut that is added, leave the outputs as they were.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from machgraph.parametric import ConvMachine
from machgraph.parametric_machine import ParametricMachine
from search.point import Point
from search.shape import Shape
from search.strategies.mutation import NEW, Origin
from search.training.machine import build

Weights = tuple[Tensor, Tensor]  # weight and bias of a machine

FOLDER = "parents"


@dataclass(frozen=True, eq=False)
class Inheritance:
    """What a child is given.

    Parameters
    ----------
    alignment : of each of its hidden channels, the number among the parent's; -1: it is new.
    seed : of what is new: each child has its own, or a new block would begin as one before it once did.
    weights : of the parent, of each fold: what one has learned from its rows is no other fold's to know.
    """

    alignment: Origin
    seed: int
    weights: tuple[Weights, ...]


def begun(point: Point, shape: Shape, seed: int, alignment: Origin, weights: Weights) -> ParametricMachine:
    """The machine of a point with inherited weights; what is new is drawn by the seed, or 0 where others hear it.

    Parameters
    ----------
    point, shape, seed : as of ``build``; a canonical form.
    alignment : of each hidden channel, its number among those of the parent; -1: it is new.
    weights : of the parent, weight and bias. Taps of its kernel are taken from the middle on, lags from 0 on.
    """
    machine = build(point, shape, seed)
    weight, bias = weights
    first, last = machine.partition.widths[0], machine.partition.widths[-1]
    hidden = np.where(alignment == NEW, NEW, first + alignment)
    index = torch.from_numpy(np.concatenate([np.arange(first), hidden, np.arange(len(bias) - last, len(bias))]))
    old = (index != NEW).nonzero()[:, 0]
    taps = [
        _shared(own, theirs, isinstance(machine, ConvMachine))
        for own, theirs in zip(machine.kernel, weight.shape[2:], strict=True)
    ]
    here, there = (slice(None), slice(None), *(a for a, _ in taps)), (slice(None), slice(None), *(b for _, b in taps))
    with torch.no_grad():
        known = torch.zeros_like(machine.weight[old][:, old])
        known[here] = weight[index[old]][:, index[old]][there]
        heard = torch.zeros_like(machine.weight[old])
        heard[:, old] = known
        machine.weight[old] = heard
        machine.weight.mul_(torch.from_numpy(machine.weight_mask))
        if machine.bias is not None:
            machine.bias[old] = bias[index[old]]
    return machine


def _shared(own: int, theirs: int, from_the_middle: bool) -> tuple[slice, slice]:
    """The taps that two kernels have in common, in each of them."""
    shift = (own - 1) // 2 - (theirs - 1) // 2 if from_the_middle else 0
    start, end = max(0, shift), min(own, theirs + shift)
    return slice(start, end), slice(start - shift, end - shift)


class Parents:
    """The weights of the living population, in a folder of the run: one file a trial.

    Parameters
    ----------
    folder : of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def write(self, number: int, machines: Sequence[ParametricMachine]) -> None:
        """Keep what a trial's machines have learned, one for each fold; OSError: the disk is full, or not writable."""
        self._folder.mkdir(exist_ok=True)
        tensors = {
            f"{name}.{fold}": tensor.detach().contiguous()
            for fold, machine in enumerate(machines)
            for name, tensor in (("weight", machine.weight), ("bias", machine.bias))
            if tensor is not None
        }
        path = self._path(number)
        temporary = path.with_name(path.name + ".part")
        temporary.write_bytes(save(tensors))
        temporary.replace(path)

    def read(self, number: int) -> tuple[Weights, ...]:
        """What a trial's machines had learned.

        Raises
        ------
        OSError : the file is gone or damaged.
        """
        path = self._path(number)
        try:
            tensors = load_file(path)
        except (SafetensorError, FileNotFoundError) as error:
            what = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
            raise OSError(
                f"{path} {what}, and children of trial {number} begin with its weights: "
                "put a copy back, or start a new search"
            ) from None
        return tuple((tensors[f"weight.{fold}"], tensors[f"bias.{fold}"]) for fold in range(len(tensors) // 2))

    def has(self, number: int) -> bool:
        """Whether a trial's weights are here."""
        return self._path(number).exists()

    def leave(self, living: Collection[int]) -> None:
        """Take away the weights of all trials but these."""
        names = {self._path(number).name for number in living}
        for path in self._folder.glob("*"):
            if path.name not in names:
                path.unlink()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.safetensors"
