"""Machines as files that run without machgraph: programs of ``torch.export``, ONNX, and plain Python."""

import logging
import os
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from machgraph.parametric import DenseMachine, ParametricMachine
from machgraph.source.module import write


def export(
    machine: nn.Module,
    path: str | os.PathLike[str],
    example: Any = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write what ``machine(example)`` computes as plain operations of torch or of ONNX, or as Python that one can read.

    A program returns what the machine does: all of machine space, whose last channels are the output. In an ONNX file
    they are called ``y0`` and ``z``, and the components of an architecture ``g_NAME`` and ``h_NAME``. Every size of
    batch will do; other sizes are those of the example, and a recurrence is unrolled over its steps.

    A Python file is of parametric machines alone, and needs torch and safetensors. Its ``load()`` gives a module with
    a layer for each block that hears what the mask says, and the weights of ``NAME.safetensors`` beside it, which
    returns ``machine.output(machine(x))`` for inputs of every size. It was tried before it is there.

    Parameters
    ----------
    machine : a parametric machine, an architecture, or a module that contains some, in the mode that is wanted.
    path : ``NAME.pt2`` for ``torch.export.load(path).module()``, ``NAME.onnx`` (needs onnxscript), or ``NAME.py``.
    example : the input, ``(batch, channel, *size)``; a mapping by component for an architecture; a tuple for a module
        of several inputs. The first axis of each tensor is the batch. A dense machine needs none, nor does Python.
    metadata : texts to be kept in the file: ``NAME.json`` in the ``extra_files`` of ``torch.export.load``, the
        ``metadata_props`` of an ONNX model, or the metadata of the weights beside a Python file.

    Raises
    ------
    ValueError : another suffix, no example or one that does not fit, or a module that ``torch.export`` does not accept;
        for Python, another module than a parametric machine, or an activation without a name.
    ModuleNotFoundError : onnxscript is missing; the sentence has the command that installs it.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> machine = DenseMachine((3, 2))
    >>> with TemporaryDirectory() as folder:
    ...     program = torch.export.load(export(machine, Path(folder, "machine.pt2")))
    >>> program.module()(torch.zeros(7, 3)).shape
    torch.Size([7, 5])
    """
    path = Path(path)
    if path.suffix not in (".pt2", ".onnx", ".py"):
        raise ValueError(f"got {path.name}: the name must end in .pt2 (torch.export), .onnx or .py")
    if path.suffix == ".onnx" and find_spec("onnxscript") is None:
        raise ModuleNotFoundError("ONNX files need onnxscript: pip install 'machgraph[onnx]'")
    if not isinstance(machine, nn.Module):
        raise ValueError(
            f"got {type(machine).__name__}: give a machine, an architecture or a module that contains some"
        )
    if path.suffix == ".py":
        if not isinstance(machine, ParametricMachine):
            raise ValueError(
                f"got {type(machine).__name__}: dense, convolutional and recurrent machines are written as Python, "
                "other modules as .pt2 or .onnx"
            )
        return write(machine, path, None if example is None else _inputs(machine, example)[0], metadata)
    inputs = _inputs(machine, example)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and onnxscript warn of themselves
        program = _program(machine, inputs)
        temporary = path.with_name(f".{os.getpid()}.{path.name}")
        try:
            if path.suffix == ".pt2":
                notes = {f"{name}.json": text for name, text in (metadata or {}).items()}
                torch.export.save(program, temporary, extra_files=notes)
            else:
                _write_onnx(machine, program, inputs, temporary, metadata or {})
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def _inputs(machine: nn.Module, example: Any) -> tuple[Any, ...]:
    """The example as arguments, each tensor with at least two samples: torch takes one for a constant."""
    if example is None:
        if not isinstance(machine, DenseMachine):
            raise ValueError(f"got no example: give an input of {type(machine).__name__} for its shape, as example=x")
        example = machine.weight.new_zeros(2, machine.partition.widths[0])
    inputs = example if isinstance(example, tuple) else (example,)
    for leaf in pytree.tree_leaves(inputs):
        if not isinstance(leaf, Tensor) or leaf.dim() == 0 or leaf.shape[0] == 0:
            got = f"a tensor of shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else type(leaf).__name__
            raise ValueError(f"got {got} in the example: give tensors whose first axis is the batch")
    if isinstance(machine, ParametricMachine):
        layout, x = ", ".join(["batch", "channel", *["size"] * machine.dimensions]), inputs[0] if inputs else None
        if len(inputs) != 1 or not isinstance(x, Tensor):
            got = f"{len(inputs)} inputs" if len(inputs) != 1 else type(x).__name__
            raise ValueError(f"got {got} in the example: a {type(machine).__name__} takes one tensor, ({layout})")
        if x.dim() != 2 + machine.dimensions:
            raise ValueError(f"got an example of shape {tuple(x.shape)}: it must be ({layout})")
    return tuple(pytree.tree_map(lambda x: x if x.shape[0] > 1 else torch.cat([x, x]), inputs))


def _program(machine: nn.Module, inputs: tuple[Any, ...]) -> ExportedProgram:
    batch = Dim("batch")
    shapes = pytree.tree_map(lambda _: {0: batch}, inputs)
    try:
        return torch.export.export(machine, inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"torch.export does not accept {type(machine).__name__}: {reason}") from error


def _write_onnx(
    machine: nn.Module, program: ExportedProgram, inputs: tuple[Any, ...], path: Path, metadata: Mapping[str, str]
) -> None:
    given: list[str] | None = None  # torch's own choice
    returned: list[str] | None = None
    if isinstance(machine, ParametricMachine):
        given, returned = ["y0"], ["z"]
    elif isinstance(inputs[0], Mapping) and program.call_spec.out_spec is not None:  # g and h of an architecture
        given = [f"g_{c}" for c in inputs[0]]
        returned = [f"h_{c}" for c in program.call_spec.out_spec.context]
    axes = pytree.tree_map(lambda _: {0: "batch"}, inputs)
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it tells everyone that torchvision is not there
    try:
        model = torch.onnx.export(
            program,
            inputs,
            input_names=given,
            output_names=returned,
            dynamic_shapes=axes,
            dynamo=True,
            verbose=False,
        )
        assert model is not None  # it is, of dynamo
        model.model.metadata_props.update(metadata)
        model.save(path, external_data=False)
    finally:
        log.setLevel(level)
