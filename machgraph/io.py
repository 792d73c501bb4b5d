"""Machines on disk: the specification as JSON and the weights, in one safetensors file; never pickle."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from machgraph.activation import ACTIVATIONS
from machgraph.parametric import ConvMachine, DenseMachine, ParametricMachine, RecurrentMachine
from machgraph.partition import Partition

FORMAT = "machgraph/1"
COMMON = ("widths", "activation", "shortcuts", "bias")
KINDS: dict[str, tuple[type[ParametricMachine], tuple[str, ...]]] = {  # with what each says beside the common names
    "dense": (DenseMachine, ()),
    "convolution": (ConvMachine, ("kernel_size", "dilation", "padding", "scales", "pooling")),
    "recurrence": (RecurrentMachine, ("lags", "timeblock")),
}


def save(machine: ParametricMachine, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> Path:
    """Write a machine to one file, whole or not at all: what stood there before stays until the new file is complete.

    Parameters
    ----------
    machine : with named activations; a callable can't be written down.
    path : by custom ``NAME.machgraph``. The file is in safetensors format: ``weight`` (and ``bias``) as tensors, and in
        its metadata ``format``, ``specification`` and ``metadata``, each of the last two one JSON object.
    metadata : anything JSON can hold, to be kept with the machine.

    Raises
    ------
    ValueError : an activation without a name of the list, or metadata that JSON can't hold.
    """
    if not isinstance(machine, ParametricMachine):
        raise ValueError(
            f"got {type(machine).__name__}: only dense, convolutional and recurrent machines are written down"
        )
    path = Path(path)
    notes = as_json(metadata or {})
    header = {"format": FORMAT, "specification": json.dumps(specification(machine)), "metadata": notes}
    tensors = {"weight": _masked(machine)}
    if machine.bias is not None:
        tensors["bias"] = machine.bias.detach().contiguous()
    write_whole(path, to_bytes(tensors, header))
    return path


def as_json(metadata: Mapping[str, Any]) -> str:
    """Metadata as a text; ValueError: JSON can't hold them."""
    try:
        return json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"got metadata that JSON can't hold ({error}): give numbers, strings, lists and dicts"
        ) from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: what stood there before stays until the new one is complete."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"can't write {path}: there is no folder {path.parent}, so make it first")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike[str]) -> ParametricMachine:
    """The machine in a file that ``save`` wrote: equal to the last bit.

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : not a machgraph file, one of a newer format, or weights that don't fit the specification.
    """
    header, tensors = _read(path)
    try:
        described = json.loads(header["specification"])
        channels = Partition(tuple(described["widths"])).size
        taps = described["lags"] + 1 if "lags" in described else described.get("kernel_size", ())
        kernel = (taps,) if isinstance(taps, int) else tuple(taps)
        if tuple(tensors["weight"].shape) != (channels, channels, *kernel):  # before there is room made for them
            raise ValueError(f"{channels} channels, a kernel of {kernel}, weights of {tuple(tensors['weight'].shape)}")
        machine = from_specification(described, dtype=tensors["weight"].dtype)
        machine.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is damaged, its specification does not fit what it holds: {error}") from None
    with torch.no_grad():
        machine.weight.copy_(_masked(machine))
    return machine


def load_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What was given to ``save`` as ``metadata``."""
    metadata: dict[str, Any] = json.loads(_read(path)[0]["metadata"])
    return metadata


def specification(machine: ParametricMachine) -> dict[str, Any]:
    """The architecture of a machine as a JSON object.

    All kinds have ``kind, widths, activation, shortcuts, bias``; a ``convolution`` also ``kernel_size, dilation,
    padding, scales, pooling``, and a ``recurrence`` ``lags, timeblock``, its shortcuts being ``[lag, block_out,
    block_in]``.

    Examples
    --------
    >>> specification(DenseMachine((2, 1), activation="tanh"))["shortcuts"]
    [[0, 0], [1, 0]]
    """
    for activation in machine.activation:
        if not activation.is_named:
            raise ValueError(
                f"got the activation {activation.name!r}, a function that can't be written down: "
                f"to be saved a machine needs named ones ({', '.join(ACTIVATIONS)})"
            )
    kind, more = next((kind, more) for kind, (made, more) in KINDS.items() if isinstance(machine, made))
    return {
        "kind": kind,
        "widths": list(machine.partition.widths),
        "activation": [activation.name for activation in machine.activation],
        "shortcuts": machine.shortcuts.astype(int).tolist(),
        "bias": machine.bias is not None,
        **{name: getattr(machine, name) for name in more},
    }


def from_specification(specification: Mapping[str, Any], **settings: Any) -> ParametricMachine:
    """A new machine of this architecture.

    Parameters
    ----------
    specification : as the function ``specification`` gives. Only ``widths`` is needed, and ``kernel_size`` or ``lags``;
        the rest has the machine's own defaults, and ``kind`` is ``dense``.
    settings : ``dtype``, ``device``, ``generator`` of the machine.

    Raises
    ------
    ValueError : a name that is missing or unknown, or a value that the machine refuses.
    """
    if not isinstance(specification, Mapping):
        raise ValueError(f"got a description of type {type(specification).__name__}: give an object that holds widths")
    arguments = dict(specification)
    kind = arguments.pop("kind", "dense")
    if kind not in KINDS:
        raise ValueError(f"got a machine of kind {kind!r}: this version knows {', '.join(KINDS)}")
    made, more = KINDS[kind]
    needed = ("widths", *more[:1])
    if not set(needed) <= set(arguments) or set(arguments) - {*COMMON, *more}:
        got = ", ".join(map(str, arguments)) or "nothing"
        raise ValueError(
            f"got a description with {got}: for kind {kind!r} it must hold {' and '.join(needed)}, "
            f"and may hold {', '.join((*COMMON[1:], *more[1:]))}"
        )
    if not isinstance(arguments.get("bias", True), bool):
        raise ValueError(f"got bias={arguments['bias']!r}: it is true or false")
    shortcuts = arguments.pop("shortcuts", None)
    if shortcuts is not None and not isinstance(shortcuts, str):
        shortcuts = np.array(shortcuts)
    return made(arguments.pop("widths"), shortcuts=shortcuts, **arguments, **settings)


def _masked(machine: ParametricMachine) -> Tensor:
    """The weights, and exact zeros where the mask leaves them out, whatever stands there."""
    weight = machine.weight.detach()
    there = torch.from_numpy(machine.weight_mask).to(weight.device)
    return torch.where(there, weight, torch.zeros_like(weight)).contiguous()


def contents(path: str | os.PathLike[str], writer: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Header and tensors of a file, whatever its format; ``writer`` is what such files are written by.

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : not a safetensors file, or a damaged one.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file: give one that {writer} wrote")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a mapping
            return file.metadata() or {}, tensors
    except SafetensorError as error:
        raise ValueError(f"{path} is not a machgraph file, or is damaged: {error}") from None


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, str], dict[str, Any]]:
    header, tensors = contents(path, "machgraph.save")
    written = header.get("format", "nothing")
    if written != FORMAT:
        raise ValueError(f"{path} says its format is {written!r}, and this version reads {FORMAT!r}: update machgraph")
    return header, tensors
