"""Trained machines with all that it takes to answer new rows; and their files, from which they answer the same."""

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from machgraph.io import load, load_metadata, save
from machgraph.parametric_machine import ParametricMachine
from search.data.encoder import Answers, Encoder
from search.machine import answers
from search.shape import Shape

CHUNK = 4096  # rows that are answered at once
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained machine, and what stands between it and the rows of a table.

    Parameters
    ----------
    machine : in the precision that it was trained in.
    encoder : from a table to the machine's inputs, and from its outputs to answers.
    shape : of inputs and outputs.
    sharpness : what outputs are multiplied with, so that classes are as probable as they are frequent.
    """

    machine: ParametricMachine
    encoder: Encoder
    shape: Shape
    sharpness: float = 1.0

    def outputs(self, x: NDArray[np.float32]) -> Floats:
        """What it says of encoded rows, ``(row, output)``.

        It is computed in double precision, so that what is said of a row does not depend on the rows beside it.
        """
        rows = torch.from_numpy(x).double()
        with torch.no_grad():
            said = [answers(self._double, chunk, self.shape) for chunk in torch.split(rows, CHUNK)]
        return self.sharpness * torch.cat(said).numpy()

    @cached_property
    def _double(self) -> ParametricMachine:
        return deepcopy(self.machine).double()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_double"}


def answered(members: Sequence[Trained], table: Any) -> Answers:
    """What machines answer together to the rows of a table: by the mean of their probabilities, or of their values.

    Parameters
    ----------
    members : at least one; all of the same classes.
    table : what the encoders take.
    """
    said = [member.encoder.decode(member.outputs(member.encoder.encode(table))) for member in members]
    if len(said) == 1:
        return said[0]
    if said[0].probabilities is None:
        return Answers(np.mean([one.values for one in said], axis=0), None)
    probabilities = np.mean([one.probabilities for one in said if one.probabilities is not None], axis=0)
    return Answers(np.array(members[0].encoder.classes)[probabilities.argmax(axis=1)], probabilities)


def write(trained: Trained, path: str | os.PathLike[str], metadata: Mapping[str, Any]) -> Path:
    """Write a trained machine to a file of machgraph's, which ``machgraph predict`` reads too.

    Parameters
    ----------
    metadata : what else is to be kept with it, of values that JSON can hold.

    Raises
    ------
    ValueError : what can't be written down: see ``machgraph.save``.
    """
    known = {
        "task": trained.encoder.task,
        "encoder": trained.encoder.to_json(),
        "shape": asdict(trained.shape),
        "sharpness": trained.sharpness,
    }
    return save(trained.machine, path, {**known, **metadata})


def read(path: str | os.PathLike[str]) -> Trained:
    """The trained machine of a file.

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : no file of machgraph's, or one of a machine alone.
    """
    machine, metadata = load(path), load_metadata(path)
    if "encoder" not in metadata:
        raise ValueError(
            f"{path} was saved without an encoder: predict needs a machine that a search found, or a saved estimator"
        )
    shape = Shape(**metadata["shape"])
    return Trained(machine, Encoder.from_json(metadata["encoder"]), shape, metadata["sharpness"])
