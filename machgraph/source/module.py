"""The file: what it says at the top, how it loads its weights; and how it is written, tried first."""

import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from importlib.util import module_from_spec, spec_from_file_location
from keyword import iskeyword
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import torch
from safetensors.torch import save_file
from torch import Tensor

from machgraph.parametric_machine import ParametricMachine
from machgraph.source.blocks import overview
from machgraph.source.lines import docstring, indented, module
from machgraph.source.network import definition, tensors

WEIGHTS = 'WEIGHTS = Path(__file__).with_suffix(".safetensors")'
SAMPLES = 3  # that a file is tried on
NEAR = 1e-9  # in double precision it answers as the machine does, to so much of the largest answer


def source(machine: ParametricMachine, name: str) -> str:
    """The text of a module ``name`` that answers as ``machine.output(machine(x))`` does.

    It has a class ``Network``, and a function ``load`` that gives one with the weights beside the file.

    Parameters
    ----------
    machine : with named activations; its numbers are in ``tensors(machine)``.
    name : of the module.

    Raises
    ------
    ValueError : an activation without a name of the list.

    Examples
    --------
    >>> from machgraph.parametric import DenseMachine
    >>> text = source(DenseMachine((3, 4, 2), activation=("identity", "tanh", "identity")), "net")
    >>> print(text[text.index("    def __init__") : text.index("def load")].rstrip())
        def __init__(self) -> None:
            super().__init__()
            self.block1 = nn.Linear(3, 4)
            self.output = nn.Linear(3 + 4, 2)
    <BLANKLINE>
        def forward(self, x: Tensor) -> Tensor:
            h1 = torch.tanh(self.block1(x))
            # The output hears block 1 and, by a shortcut, the input.
            return self.output(torch.cat([x, h1], dim=-1))
    """
    constants, parts = definition(machine)
    usage = [f"from {name} import load", "", "network = load()", "outputs = network(x)"]
    opening = docstring(
        f"{summary(machine)}, as plain torch.",
        overview(machine),
        [f"The weights are in {name}.safetensors, beside this file. To use it:"],
        indented(usage),
    )
    return module(opening, [[WEIGHTS, *constants], *parts, loading()])


def summary(machine: ParametricMachine) -> str:
    """What it is, in a few words."""
    kinds = {"DenseMachine": "dense", "ConvMachine": "convolutional", "RecurrentMachine": "recurrent"}
    kind = next(kinds[base.__name__] for base in type(machine).__mro__ if base.__name__ in kinds)
    count = sum(tensor.numel() for tensor in tensors(machine).values())
    return f"A {kind} network of {len(machine.partition)} blocks, {count:,} parameters"


def loading(precision: str = "next(iter(weights.values())).dtype") -> list[str]:
    """The lines of ``load``."""
    return [
        "def load(path: str | Path = WEIGHTS) -> Network:",
        '    """The network with its weights, ready to answer."""',
        "    weights = load_file(path)",
        f"    network = Network().to({precision})",
        "    network.load_state_dict(weights)",
        "    return network.eval()",
    ]


def write(
    machine: ParametricMachine,
    path: str | os.PathLike[str],
    example: Tensor | None = None,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write ``NAME.py`` and, beside it, ``NAME.safetensors``; both are tried before they are there.

    Parameters
    ----------
    machine : with named activations.
    path : of the Python file.
    example : an input to try it on, ``(batch, channel, *size)``; random numbers if not given.
    notes : texts to be kept with the weights.

    Raises
    ------
    ValueError : an activation without a name, a name that no module can have, an output that depends on nothing, or a
        file that answers otherwise.
    """
    path = checked_name(path)
    text, weights = source(machine, path.stem), tensors(machine)
    if not weights:
        raise ValueError("got a machine whose output hears nothing and has no bias: it has no weights to be written")
    x = _example(machine) if example is None else example[:, : machine.partition.widths[0]].detach().cpu().double()
    twin = deepcopy(machine).cpu().double()

    def tried(written: ModuleType) -> None:
        with torch.no_grad():
            refuse_other(path, written.load().double()(x), twin.output(twin(x)))

    return put(path, text, weights, tried, notes)


def checked_name(path: str | os.PathLike[str]) -> Path:
    """The path of a Python file that can be imported.

    Raises
    ------
    ValueError : it can't.
    """
    path = Path(path)
    if not path.stem.isidentifier() or iskeyword(path.stem) or path.stem in ("torch", "safetensors"):
        raise ValueError(f"got {path.name}: no module can be imported by this name, so give another, such as net.py")
    return path


def put(
    path: Path,
    text: str,
    weights: Mapping[str, Tensor],
    tried: Callable[[ModuleType], None],
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write a module and its weights, once it has been imported and tried; what stood there before stays until then.

    Parameters
    ----------
    tried : raises what is wrong with the module.
    notes : texts to be kept with the weights.
    """
    with TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        draft = Path(folder, path.name)
        draft.write_text(text, encoding="utf-8")
        numbers = draft.with_suffix(".safetensors")
        save_file({name: tensor.cpu() for name, tensor in weights.items()}, numbers, dict(notes or {}) or None)
        spec = spec_from_file_location(path.stem, draft)
        assert spec is not None  # of a file that ends in .py
        assert spec.loader is not None
        written = module_from_spec(spec)
        exec(compile(text, draft, "exec"), written.__dict__)  # not the loader, which would leave a cache beside it
        tried(written)
        numbers.replace(path.with_suffix(".safetensors"))
        draft.replace(path)
    return path


def refuse_other(path: Path, got: Tensor, expected: Tensor) -> None:
    """ValueError: a file answers otherwise than its machine."""
    difference = float((got - expected).abs().max())
    if got.shape != expected.shape or not difference <= NEAR * max(1.0, float(expected.abs().max())):
        raise ValueError(
            f"{path.name} would answer otherwise than the machine, by {difference:.1e}: it is not written; "
            "export the machine as .pt2, and report this"
        )


def _example(machine: ParametricMachine) -> Tensor:
    """Random numbers on as many positions as every kernel fits in, on the coarsest grid too."""
    size = [(1 + sum(margin)) << max(machine.scales) for margin in machine.margins]
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SAMPLES, machine.partition.widths[0], *size, generator=generator, dtype=torch.float64)
