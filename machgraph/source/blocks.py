"""What a file of source code has to say of a machine: which blocks it computes, what each hears, and their sizes."""

import textwrap
from collections.abc import Sequence

import numpy as np

from machgraph.parametric import RecurrentMachine
from machgraph.parametric_machine import ParametricMachine
from machgraph.partition import lag_words, runs
from machgraph.source.lines import LINE, listed, wrapped

Source = tuple[int, int]  # a block and the lag at which it is heard: 0 where there is no time

FUNCTIONS = {  # of each named activation
    "identity": "",
    "tanh": "torch.tanh",
    "sigmoid": "torch.sigmoid",
    "relu": "torch.relu",
    "leaky_relu": "F.leaky_relu",
    "elu": "F.elu",
    "gelu": "F.gelu",
    "silu": "F.silu",
    "softplus": "F.softplus",
    "sine": "torch.sin",
}
AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def refuse_unnamed(machine: ParametricMachine) -> None:
    """ValueError: an activation of one's own, of which there is no text."""
    if not machine.is_named:
        known = [sigma.name for sigma in machine.activation if sigma.name not in FUNCTIONS]
        name = known[0] if known else "named as one of them"
        raise ValueError(
            f"got the activation {name!r}, a function of one's own: it has no text to be written as Python, so give "
            f"named ones ({', '.join(FUNCTIONS)}), or export the machine as .pt2"
        )


def heard_by(machine: ParametricMachine, i: int) -> list[Source]:
    """What a block hears: block by block, and of each the oldest step first."""
    mask = machine.shortcuts if machine.shortcuts.ndim == 3 else machine.shortcuts[None]
    return [(j, int(lag)) for j in range(len(machine.partition)) for lag in np.flatnonzero(mask[:, i, j])[::-1]]


def computed(machine: ParametricMachine) -> list[int]:
    """The blocks that the output depends on, itself among them, in their order."""
    found, ahead = set[int](), [len(machine.partition) - 1]
    while ahead:
        i = ahead.pop()
        if i not in found:
            found.add(i)
            ahead += [j for j, _ in heard_by(machine, i)]
    return sorted(found)


def has_bias(machine: ParametricMachine, i: int) -> bool:
    """Whether a block has a bias worth a line: a search does not train the input's where it hears nothing, it is 0."""
    if machine.bias is None:
        return False
    alone = i == 0 and not heard_by(machine, 0)
    return not alone or bool(machine.bias.detach()[machine.partition.block(0)].any())


# ---- in words ----------------------------------------------------------------------------------------------------


def overview(machine: ParametricMachine) -> list[str]:
    """A table of the blocks: channels, activation, and what each hears."""
    last = len(machine.partition) - 1
    rows = [("block", "channels", "activation", *["grid"] * machine.is_scaled, "hears")]
    for i, (width, sigma) in enumerate(zip(machine.partition.widths, machine.activation, strict=True)):
        role = {0: " (input)", last: " (output)"}.get(i, "")
        grid = f"1/{2 ** machine.scales[i]}" if machine.scales[i] else "1"
        rows.append((f"{i}{role}", str(width), sigma.name, *[grid] * machine.is_scaled, _heard_in_words(machine, i)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        front = "".join(f"{cell:<{width}}  " for cell, width in zip(row[:-1], widths, strict=True))
        lines += textwrap.wrap(front + row[-1], LINE, subsequent_indent=" " * len(front))
    if dead := [str(i) for i in range(last) if i not in computed(machine)]:
        several = f"blocks {listed(dead)}: they are" if len(dead) > 1 else f"block {dead[0]}: it is"
        lines += ["", *wrapped(f"Nothing that reaches the output hears {several} not computed.")]
    return lines


def _heard_in_words(machine: ParametricMachine, i: int) -> str:
    blocks = dict.fromkeys(j for j, _ in heard_by(machine, i))
    if machine.shortcuts.ndim == 2:
        return ", ".join(numbers_in_words(list(blocks))) or "nothing"
    return ", ".join(f"{j} ({_lags(machine, i, j)})" for j in blocks) or "nothing"


def shortcuts_in_words(machine: ParametricMachine, i: int) -> str:
    """A sentence on what a block hears; none where it is the block before alone."""
    blocks = list(dict.fromkeys(j for j, _ in heard_by(machine, i)))
    me = called(machine, i)
    me = me[0].upper() + me[1:]
    if not blocks:
        return f"{me} hears nothing: it is the same everywhere."
    if machine.shortcuts.ndim == 3:
        names = ["itself" if j == i else called(machine, j) for j in blocks]
        lags = [_lags(machine, i, j) for j in blocks]
        said = [name + f" at {lag}" * (lag != "lag 0") for name, lag in zip(names, lags, strict=True)]
        return "" if said == [called(machine, i - 1)] else f"{me} hears {listed(said)}."
    jumps = [j for j in blocks if j != i - 1]
    if not jumps:
        return ""
    kind = "a shortcut" if len(jumps) == 1 else "shortcuts"
    hidden = [j for j in jumps if j > 0]
    said = ["the input"] * (0 in jumps)
    if hidden:
        said.append(f"block{'s' * (len(hidden) > 1)} {listed(numbers_in_words(hidden))}")
    if i - 1 in blocks:
        return f"{me} hears {called(machine, i - 1)} and, by {kind}, {listed(said)}."
    return f"{me} hears, by {kind} past {called(machine, i - 1)}, {listed(said)}."


def numbers_in_words(numbers: Sequence[int]) -> list[str]:
    """Rising numbers, those that follow one another in short.

    >>> numbers_in_words([0, 2, 3, 4, 6, 7])
    ['0', '2 to 4', '6', '7']
    """
    words = list[str]()
    for first, stop in runs(np.isin(np.arange(max(numbers, default=0) + 1), numbers)):
        words += [f"{first} to {stop - 1}"] if stop - first > 2 else map(str, range(first, stop))
    return words


def called(machine: ParametricMachine, i: int) -> str:
    """What a block is called in a sentence."""
    return {0: "the input", len(machine.partition) - 1: "the output"}.get(i, f"block {i}")


def _lags(machine: ParametricMachine, i: int, j: int) -> str:
    return lag_words(machine.shortcuts[:, i, j]).replace("–", " to ")


def layout(machine: ParametricMachine, block: int) -> str:
    """The shape of a block, as one writes it in a comment.

    >>> from machgraph import ConvMachine
    >>> layout(ConvMachine((3, 8), (3, 3), scales=(0, 1)), -1)
    '(batch, 8, height/2, width/2)'
    """
    width = machine.partition.widths[block]
    axes: Sequence[str] = ("time",) if isinstance(machine, RecurrentMachine) else AXES.get(machine.dimensions, ())
    coarser = f"/{2 ** machine.scales[block]}" if machine.scales[block] else ""
    return f"({', '.join(['batch', str(width), *(axis + coarser for axis in axes)])})"
