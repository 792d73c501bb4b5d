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
from search.graph.io import is_graph, load_graph, read_graph, save_graph
from search.graph.named import missing, needless
from search.graph.network import Network, row_size
from search.graph.point import GraphPoint
from search.graph.space import GraphSpace
from search.shape import Shape
from search.training.machine import answers

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
    space, point : of a graph space, what the machine was built by.
    """

    machine: ParametricMachine | Network
    encoder: Encoder
    shape: Shape
    sharpness: float = 1.0
    space: GraphSpace | None = None
    point: GraphPoint | None = None

    def outputs(self, x: NDArray[np.float32]) -> Floats:
        """What it says of encoded rows, ``(row, output)``.

        It is computed in double precision, so that what is said of a row does not depend on the rows beside it; of a
        graph space as it was trained, for modules of one's own may know no other precision.
        """
        rows, machine = torch.from_numpy(x), self.machine
        if not isinstance(machine, Network):
            rows, machine = rows.double(), self._double
        with torch.no_grad():
            said = [answers(machine, chunk, self.shape) for chunk in torch.split(rows, CHUNK)]
        return self.sharpness * torch.cat(said).double().numpy()

    @cached_property
    def _double(self) -> ParametricMachine:
        assert isinstance(self.machine, ParametricMachine)  # nobody asks for it otherwise
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
    if isinstance(trained.machine, Network):
        assert trained.space is not None  # both are there: see `read`
        assert trained.point is not None
        return save_graph(trained.machine.architecture, trained.space, trained.point, path, {**known, **metadata})
    return save(trained.machine, path, {**known, **metadata})


def read(path: str | os.PathLike[str], space: GraphSpace | None = None) -> Trained:
    """The trained machine of a file.

    Parameters
    ----------
    space : of a graph space, that which was searched, for no file holds its modules or says where they are.

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : no file of machgraph's, or one of a machine alone; a graph space that is missing, needless or another.
    """
    metadata = metadata_of(path)
    if "encoder" not in metadata:
        raise ValueError(
            f"{path} was saved without an encoder: predict needs a machine that a search found, or a saved estimator"
        )
    shape, encoder = Shape(**metadata["shape"]), Encoder.from_json(metadata["encoder"])
    if not is_graph(path):
        if space is not None:
            raise needless(path)
        return Trained(load(path), encoder, shape, metadata["sharpness"])
    if space is None:
        raise missing(path, metadata.get("graph"))
    architecture, (point, _) = load_graph(path, space), read_graph(path)
    network = Network(architecture, space.inputs[0], space.outputs[0], row_size(space, shape))
    return Trained(network.eval(), encoder, shape, metadata["sharpness"], space, point)


def metadata_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a file tells beside the machine, whichever kind that is; raises as ``machgraph.io.load_metadata``."""
    return read_graph(path)[1] if is_graph(path) else load_metadata(path)
