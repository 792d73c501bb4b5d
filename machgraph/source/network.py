"""The class of a network in plain torch: a layer for each block, and a ``forward`` that goes from block to block."""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from machgraph.parametric import ConvMachine, RecurrentMachine
from machgraph.parametric_machine import ParametricMachine
from machgraph.partition import runs
from machgraph.source.blocks import (
    FUNCTIONS,
    Source,
    computed,
    has_bias,
    heard_by,
    layout,
    refuse_unnamed,
    shortcuts_in_words,
)
from machgraph.source.lines import LINE, comment, fitted, indented
from machgraph.training import Reading

FRACTIONS = {1: "half", 2: "quarter", 3: "eighth"}


def tensors(machine: ParametricMachine) -> dict[str, Tensor]:
    """The weights of ``Network``, by the names of its layers: those of the mask and no others."""
    block, found = machine.partition.block, {}
    for i in computed(machine):
        name, heard = _layer(machine, i), heard_by(machine, i)
        weights = [machine.weight.detach()[block(i), block(j)] for j, _ in heard]
        if machine.shortcuts.ndim == 3:
            weights = [weight[..., lag] for weight, (_, lag) in zip(weights, heard, strict=True)]
        if weights:
            found[f"{name}.weight"] = torch.cat(weights, dim=1).contiguous()
        if machine.bias is not None and has_bias(machine, i):
            found[f"{name}.bias" if weights else name] = machine.bias.detach()[block(i)].clone()
    return found


def definition(machine: ParametricMachine, reading: Reading = "each") -> tuple[list[str], list[list[str]]]:
    """Constants, and the parts of a module that define ``Network``: functions that it uses, and the class.

    Parameters
    ----------
    reading : where its answer is read off the output: at ``each`` position, at the ``last`` step of time, or as the
        ``mean`` over all positions.

    Raises
    ------
    ValueError : an activation without a name of the list.
    """
    refuse_unnamed(machine)
    constants, functions = list[str](), list[list[str]]()
    if isinstance(machine, RecurrentMachine):
        layers, forward = _linear_layers(machine), _steps(machine, reading)
        if longest := _longest_lag(machine):
            constants = [f"LAGS = {longest}  # steps that the network looks back"]
    elif isinstance(machine, ConvMachine):
        layers, forward = _convolutions(machine), _blocks(machine, reading)
        constants = _padding(machine)
        functions = [_halving(machine)] if any("halve(" in line for line in forward) else []
    else:
        layers, forward = _linear_layers(machine), _blocks(machine, reading)
    outputs = f"(batch, {machine.partition.widths[-1]})" if reading != "each" else layout(machine, -1)
    network = [
        "class Network(nn.Module):",
        *indented(_shapes(layout(machine, 0), outputs)),
        "",
        "    def __init__(self) -> None:",
        "        super().__init__()",
        *indented(layers, 8),
        "",
        "    def forward(self, x: Tensor) -> Tensor:",
        *indented(forward, 8),
    ]
    return constants, [*functions, network]


def _shapes(inputs: str, outputs: str) -> list[str]:
    """The docstring of the class."""
    line = f'"""From {inputs} to {outputs}."""'
    if 4 + len(line) <= LINE:
        return [line]
    return ['"""A layer for each block.', "", f"From {inputs}", f"to {outputs}.", '"""']


# ---- the layers --------------------------------------------------------------------------------------------------


def _linear_layers(machine: ParametricMachine) -> list[str]:
    bias = "" if machine.bias is not None else ", bias=False"
    lines = []
    for i in computed(machine):
        if heard := heard_by(machine, i):
            width = machine.partition.widths[i]
            lines.append(f"self.{_layer(machine, i)} = nn.Linear({_channels(machine, heard)}, {width}{bias})")
        else:
            lines += _constant_layer(machine, i)
    return lines


def _convolutions(machine: ConvMachine) -> list[str]:
    settings = [f"nn.Conv{machine.dimensions}d", f"kernel_size={_extent(machine.kernel_size)}"]
    if set(machine.dilation) != {1}:
        settings.append(f"dilation={_extent(machine.dilation)}")
    if not _padding(machine):
        settings.append('padding="same"')
    if machine.padding == "circular":
        settings.append('padding_mode="circular"')
    if machine.bias is None:
        settings.append("bias=False")
    lines = []
    for i in computed(machine):
        if heard := heard_by(machine, i):
            width = machine.partition.widths[i]
            lines.append(f"self.{_layer(machine, i)} = conv({_channels(machine, heard)}, {width})")
        else:
            lines += _constant_layer(machine, i)
    shared = fitted("conv = partial(", settings, ")", indent=8) if any("conv(" in line for line in lines) else []
    return [*shared, *lines]


def _constant_layer(machine: ParametricMachine, i: int) -> list[str]:
    """A block that hears nothing has a bias at most."""
    width = machine.partition.widths[i]
    return [f"self.{_layer(machine, i)} = nn.Parameter(torch.zeros({width}))"] if has_bias(machine, i) else []


def _padding(machine: ConvMachine) -> list[str]:
    """The padding that is no setting of torch's convolutions, which warn of ``same`` where the sides differ."""
    sides = [side for margin in reversed(machine.margins) for side in margin]
    if machine.padding == "circular" or (machine.padding == "same" and sides[::2] == sides[1::2]):
        return []
    why = "no position hears a later one" if machine.padding == "causal" else "an even kernel needs one more after"
    return [*comment(f"Before and after, from the last axis on: {why}."), f"PADDING = ({', '.join(map(str, sides))})"]


def _halving(machine: ConvMachine) -> list[str]:
    kind, what = ("avg", "mean") if machine.pooling == "mean" else ("max", "maximum")
    return [
        "def halve(x: Tensor) -> Tensor:",
        f'    """The {what} of each window of two along each axis; an axis of one stays."""',
        f"    return F.{kind}_pool{machine.dimensions}d(x, [min(2, extent) for extent in x.shape[2:]])",
    ]


# ---- forward: dense and convolutional ----------------------------------------------------------------------------


def _blocks(machine: ParametricMachine, reading: Reading) -> list[str]:
    """Block after block, at all positions at once."""
    lines, grids, axis = _input(machine), set[str](), 1 if machine.dimensions else -1
    read = _read(machine, reading) if machine.dimensions else ""
    pad = ("F.pad(", ", PADDING)") if isinstance(machine, ConvMachine) and _padding(machine) else ("", "")
    for i in computed(machine):
        if i == 0:
            continue
        lines += comment(shortcuts_in_words(machine, i))
        names = []
        for j, _ in heard_by(machine, i):
            name = _value(j)
            for scale in range(machine.scales[j] + 1, machine.scales[i] + 1):
                finer, name = name, f"{_value(j)}_{_fraction(scale - machine.scales[j])}"
                if name not in grids:
                    grids.add(name)
                    lines.append(f"{name} = halve({finer})")
            names.append(name)
        target = f"h{i} = "
        if i == len(machine.partition) - 1:
            target = "return " if not read else "outputs = "
        opening, closing = _around(machine, i, f"self.{_layer(machine, i)}({pad[0]}", f"{pad[1]})")
        if names:
            lines += _joined(f"{target}{opening}", names, closing, axis)
        else:
            lines += _constant(machine, i, target)
    return [*lines, f"return outputs{read}"] if read else lines


def _input(machine: ParametricMachine) -> list[str]:
    """σ and bias of the input, where it has any."""
    given = f"x + self.block0{_everywhere(machine)}" if has_bias(machine, 0) else "x"
    opening, closing = _around(machine, 0, "", "")
    return [f"x = {opening}{given}{closing}"] if (opening or given != "x") and 0 in computed(machine) else []


def _constant(machine: ParametricMachine, i: int, opening: str, closing: str = "") -> list[str]:
    """A statement on σ(bias), of a block that hears nothing, in the shape of one that does."""
    width = machine.partition.widths[i]
    bias = f"self.{_layer(machine, i)}" if has_bias(machine, i) else f"x.new_zeros({width})"
    value = "".join(_around(machine, i, bias, ""))
    sizes = ["len(x)", str(width)]
    if not machine.dimensions:
        sizes = ["*x.shape[:-1]", str(width)]
    elif isinstance(machine, ConvMachine):
        value += _everywhere(machine)
        divisor = 2 ** machine.scales[i]
        finest = "x.shape[2:]"
        sizes.append(f"*{finest if divisor == 1 else f'[max(1, extent // {divisor}) for extent in {finest}]'}")
    return fitted(f"{opening}{value}.expand(", sizes, f"){closing}", indent=8 + 4 * bool(closing))


def _everywhere(machine: ParametricMachine) -> str:
    """How a number for each channel becomes one for each position too."""
    return f"[:{', None' * machine.dimensions}]" if machine.dimensions else ""


def _read(machine: ParametricMachine, reading: Reading) -> str:
    """How the answer is read off the output."""
    axes = [str(axis) for axis in range(2, 2 + machine.dimensions)]
    mean = f".mean(dim={axes[0] if len(axes) == 1 else '(' + ', '.join(axes) + ')'})"
    return {"each": "", "last": "[..., -1]", "mean": mean}[reading]


def _fraction(halvings: int) -> str:
    return FRACTIONS.get(halvings, f"{2**halvings}th")


# ---- forward: recurrent ------------------------------------------------------------------------------------------


def _steps(machine: RecurrentMachine, reading: Reading) -> list[str]:
    """Step after step and block after block: lists of steps, with zeros in front, so that every lag is there."""
    longest, order, last = _longest_lag(machine), computed(machine), len(machine.partition) - 1
    names = [*(f"h{i}" for i in range(last)), "outputs"]
    plain = FUNCTIONS[machine.activation[0].name] == "" and not has_bias(machine, 0) and not heard_by(machine, 0)
    lines, loop = list[str](), list[str]()
    if longest:
        lines += ["# Lists of steps, each (batch, channel). Before the series all is 0."]
    for i in order:
        past = f"[x.new_zeros(len(x), {machine.partition.widths[i]})] * LAGS" if longest else ""
        if i == 0 and plain:
            lines.append(f"{names[0]} = {past}{' + ' * bool(past)}list(x.unbind(dim=-1))")
            continue
        lines.append(f"{names[i]} = {past}" if past else f"{names[i]}: list[Tensor] = []")
        heard = _past(machine, i, names)
        if i > 0 or heard:
            loop += comment(shortcuts_in_words(machine, i))
        given = f"x[..., t{' - LAGS' * bool(longest)}]" if i == 0 else ""
        layer, end = (f"self.{_layer(machine, i)}(", ")") if heard else ("", "")
        if i == 0 and heard:
            layer = f"{given} + {layer}"
        elif i == 0:
            heard = [f"{given} + self.block0" if has_bias(machine, 0) else given]
        opening, closing = _around(machine, i, layer, end)
        if heard:
            loop += _joined(f"{names[i]}.append({opening}", heard, f"{closing})", -1, indent=12)
        else:
            loop += _constant(machine, i, f"{names[i]}.append(", ")")
    span = "LAGS, LAGS + x.shape[-1]" if longest else "x.shape[-1]"
    lines += [f"for t in range({span}):", *indented(loop)]
    if reading == "last":
        return [*lines, "return outputs[-1]"]
    whole = f"torch.stack(outputs{'[LAGS:]' * bool(longest)}, dim=-1)"
    return [*lines, f"return {whole}{_read(machine, reading)}"]


def _past(machine: RecurrentMachine, i: int, names: Sequence[str]) -> list[str]:
    """The steps that a block hears, those of a block that follow one another as a slice."""
    heard = []
    for j, name in enumerate(names):
        for first, stop in runs(machine.shortcuts[:, i, j])[::-1]:
            oldest, newest = stop - 1, first
            if oldest == newest:
                heard.append(f"{name}[{_step(-newest)}]")
            else:
                heard.append(f"*{name}[{_step(-oldest)} : {_step(1 - newest)}]")
    return heard


def _step(offset: int) -> str:
    return f"t {'-' if offset < 0 else '+'} {abs(offset)}" if offset else "t"


def _longest_lag(machine: ParametricMachine) -> int:
    return max((lag for i in computed(machine) for _, lag in heard_by(machine, i)), default=0)


# ---- statements --------------------------------------------------------------------------------------------------


def _layer(machine: ParametricMachine, i: int) -> str:
    return "output" if i == len(machine.partition) - 1 else f"block{i}"


def _value(i: int) -> str:
    return f"h{i}" if i else "x"


def _around(machine: ParametricMachine, i: int, opening: str, closing: str) -> tuple[str, str]:
    """σ of a block around what it is applied to."""
    function = FUNCTIONS[machine.activation[i].name]
    return (f"{function}({opening}", f"{closing})") if function else (opening, closing)


def _channels(machine: ParametricMachine, heard: Sequence[Source]) -> str:
    """How many channels are heard, source by source."""
    terms = []
    for width, group in groupby(machine.partition.widths[j] for j, _ in heard):
        count = len(list(group))
        terms += [f"{count} * {width}"] if count > 2 else [str(width)] * count
    text = " + ".join(terms)
    return text if len(text) < LINE // 2 else str(sum(machine.partition.widths[j] for j, _ in heard))


def _joined(opening: str, names: Sequence[str], closing: str, axis: int, indent: int = 8) -> list[str]:
    """A statement on what is heard, side by side; two statements where one is too long."""
    if len(names) == 1 and not names[0].startswith("*"):
        return fitted(opening, names, closing, indent)
    line = f"{opening}torch.cat([{', '.join(names)}], dim={axis}){closing}"
    if indent + len(line) <= LINE:
        return [line]
    heard = f"heard = torch.cat([{', '.join(names)}], dim={axis})"
    parts = [heard]
    if indent + len(heard) > LINE:
        parts = ["heard = torch.cat(", *indented(fitted("[", names, "],", indent + 4)), f"    dim={axis},", ")"]
    return [*parts, *fitted(opening, ["heard"], closing, indent)]


def _extent(extents: Sequence[int]) -> str:
    return str(extents[0]) if len(set(extents)) == 1 else f"({', '.join(map(str, extents))})"
