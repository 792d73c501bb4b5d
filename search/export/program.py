"""The winner of a search as a program that runs without machgraph: from encoded features to answers."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from machgraph.io import load
from machgraph.parametric import DenseMachine
from machgraph.portable import export as write
from search.data.transform import NODES, SHARES, Transform
from search.export import as_python
from search.graph.io import is_graph
from search.graph.named import needless
from search.graph.network import Network
from search.graph.space import GraphSpace
from search.numbers import counted
from search.show import machine_file
from search.trained import Trained, metadata_of, read
from search.training.machine import answers

SUFFIXES = (".pt2", ".onnx", ".py", ".machgraph")
ROWS = 16  # that an exported program is tried on
NEAR = 1e-4  # it answers as the machine does, to so much of the largest answer: the order of sums is its own


class Answering(nn.Module):
    """A machine with all between encoded features and answers, as ``machgraph predict`` gives them.

    Features of shape ``(row, feature)`` become the probability of each class, ``(row, class)``, or for regression the
    answer in the target's own unit, ``(row, 1)``.
    """

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.trained, self.machine = trained, trained.machine  # the second is registered

    def forward(self, features: Tensor) -> Tensor:
        """The answers."""
        encoder = self.trained.encoder
        if isinstance(self.machine, Network):  # of all rows at once: a program takes any number of them
            said = self.trained.sharpness * self.machine(features)
        else:
            said = self.trained.sharpness * answers(self.machine, features, self.trained.shape)
        if encoder.classes:
            return torch.softmax(said, dim=1)
        return _undone(said * encoder.target_scale + encoder.target_mean, encoder.transform)


def export(
    place: str | os.PathLike[str], out: str | os.PathLike[str] | None = None, *, space: GraphSpace | None = None
) -> str:
    """Write the best machine of a run, or a saved one, to another file, and try this: in one sentence what it is.

    A machine that a search found is exported as ``Answering``; one without an encoder as ``machgraph.export`` does it.
    The names of features and of classes, and how the features are made of the columns of a table, are in the file:
    ``encoder.json`` among the extra files of a ``.pt2``, ``encoder`` among the metadata of an ``.onnx``. A ``.py`` has
    it all as code, from the cells of a table on: see ``search.export.as_python``.

    Parameters
    ----------
    place : folder of a run, or a ``.machgraph`` file.
    out : whose suffix is ``.pt2`` (torch.export), ``.onnx``, ``.py``, or ``.machgraph``, a copy; beside the machine and
        a ``.pt2`` if not given.
    space : of a graph space, that which was searched. Its modules can't be written as ``.py``.

    Raises
    ------
    FileNotFoundError : no machine is there.
    ValueError : another suffix; a machine that can't be exported; a graph space that is missing, needless or another;
        or a program that answers otherwise, which is not kept.
    ModuleNotFoundError : onnxscript is missing.
    """
    path = machine_file(place)
    out = path.with_suffix(".pt2") if out is None else Path(out)
    if out.suffix not in SUFFIXES:
        raise ValueError(f"can't write {out}: the name of an exported machine ends in one of {', '.join(SUFFIXES)}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent}: make it, or give another file with --out")
    if out.exists() and out.samefile(path):
        raise ValueError(f"{out} is the machine itself: give another file with --out")
    metadata, ours = metadata_of(path), is_graph(path)
    if out.suffix == ".machgraph":
        shutil.copyfile(path, out)
        return f"{out}: a copy of {path}"
    if space is not None and not ours:
        raise needless(path)
    if out.suffix == ".py":
        if ours:
            raise ValueError(f"can't write {out}: modules of one's own are Python already, so take .pt2 or .onnx")
        if "encoder" in metadata:
            return as_python.write(read(path), out)
        write(load(path), out)
        return f"{out} and {out.with_suffix('.safetensors').name}: the network alone; tried, equal to the machine"
    network: nn.Module
    told: dict[str, str] = {}
    kind = torch.float32  # of what a graph space learned from, whatever its modules hold
    if "encoder" in metadata:
        trained = read(path, space)
        encoder, network, width = trained.encoder, Answering(trained), trained.shape.inputs
        said = f"probabilities of {len(encoder.classes)} classes" if encoder.classes else f"'{encoder.target}'"
        told = {"encoder": metadata["encoder"]}
        if not isinstance(trained.machine, Network):
            kind = trained.machine.weight.dtype
    elif ours or not isinstance(machine := load(path), DenseMachine):
        raise ValueError(
            f"{path} was saved without the shape of its input: export it from Python, by "
            "machgraph.export(machine, path, example)"
        )
    else:
        network, width, said, kind = machine, machine.partition.widths[0], "all of machine space", machine.weight.dtype
    draft = out.with_name(f".{os.getpid()}.{out.name}")
    try:
        write(network, draft, torch.zeros(2, width, dtype=kind), metadata=told)
        rows = torch.randn(ROWS, width, generator=torch.Generator().manual_seed(0), dtype=kind)
        expected = _answers(network, rows)
        got = _run(draft, rows)
        if got is not None:
            difference = float(np.abs(got - expected).max() / max(1e-30, np.abs(expected).max()))
            if not difference <= NEAR:
                raise ValueError(
                    f"the program of {path} answers otherwise than the machine, by {difference:.1e} of the largest "
                    "answer: it is not kept; try the other format"
                )
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    what = f"{out}: {counted(width, 'feature')} to {said}"
    if got is None:
        return f"{what}; not tried, for that takes onnxruntime"
    return f"{what}; tried on {ROWS} rows, equal to {difference:.0e}"


def _answers(network: nn.Module, rows: Tensor) -> NDArray[Any]:
    """What ``machgraph predict`` says of rows of features; of a machine alone, what it computes."""
    if not isinstance(network, Answering):
        with torch.no_grad():
            computed: Tensor = network(rows)
        return computed.numpy()
    said = network.trained.encoder.decode(network.trained.outputs(rows.numpy()))
    return said.values[:, None] if said.probabilities is None else said.probabilities


def _run(path: Path, rows: Tensor) -> NDArray[Any] | None:
    """What an exported program says of rows of features; ``None`` if nothing is installed that could run it."""
    if path.suffix == ".pt2":
        with torch.no_grad():
            said: Tensor = torch.export.load(path).module()(rows)
        return said.numpy()
    if find_spec("onnxruntime") is not None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    elif find_spec("onnx") is not None:
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(path)
    else:
        return None
    (name,) = (given if isinstance(given, str) else given.name for given in _inputs(session))
    found: NDArray[Any] = session.run(None, {name: rows.numpy()})[0]
    return found


def _inputs(session: Any) -> Any:
    return session.get_inputs() if hasattr(session, "get_inputs") else session.input_names


def _undone(values: Tensor, transform: Transform) -> Tensor:
    """``Transform.answers`` in torch, of values ``(row, 1)``."""
    if transform.name == "none":
        return values
    if transform.noise:
        nodes, shares = (torch.tensor(some, dtype=values.dtype) for some in (NODES, SHARES))
        return _undone(values + transform.noise * nodes, transform.noisy(0.0)) @ shares[:, None]
    low, high = transform.forward(np.array([transform.low, transform.high])).tolist()
    z, power = values.clamp(low, high), transform.parameter
    if transform.name == "sqrt":
        found = z.clamp(min=0) ** 2
    elif transform.name == "log":
        found = z.exp() - power
    else:  # yeo-johnson: the inverse of Box and Cox on either side of 0
        found = torch.where(z >= 0, _rooted(z.clamp(min=0), power), -_rooted((-z).clamp(min=0), 2 - power))
    return found.clamp(transform.low, transform.high)


def _rooted(z: Tensor, power: float) -> Tensor:
    return torch.expm1(torch.log1p((power * z).clamp(min=-1)) / power) if abs(power) > 1e-12 else torch.expm1(z)
