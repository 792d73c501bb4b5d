"""A machine in words and as a picture: ``machgraph show``."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from machgraph.architecture import Architecture
from machgraph.io import from_specification, load
from machgraph.partition import lag_words
from search.graph.io import is_graph, read_graph
from search.graph.network import sketch
from search.numbers import counted
from search.run import BEST, RUN, resuming

if TYPE_CHECKING:
    from machgraph.parametric import ParametricMachine
    from machgraph.partition import Mask

GRAPHS = {".dot": "dot", ".gv": "dot", ".graphml": "graphml", ".html": "html"}  # of machgraph.draw


def machine_file(place: str | os.PathLike[str]) -> Path:
    """The best machine of a run's folder; any other path as it is.

    Raises
    ------
    FileNotFoundError : a folder that is no run, or one that has no machine yet, or no such file.
    """
    path = Path(place)
    if path.is_dir():
        if not (path / RUN).exists():
            raise FileNotFoundError(f"no run is in {path}: it has no {RUN}; give the folder of a run, or a file")
        if not (path / BEST).exists():
            raise FileNotFoundError(f"{path} has no {BEST} yet: go on with {resuming(path)}")
        return path / BEST
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: give the folder of a run, a .machgraph file or a JSON file")
    return path


def read_machine(place: str | os.PathLike[str]) -> "ParametricMachine | Architecture":
    """The machine of a run, of a saved file, or, with new weights, of a description in JSON.

    Of a graph space it is an architecture without its modules, which Python makes and no file holds.

    Raises
    ------
    FileNotFoundError : nothing is there.
    ValueError : neither a saved machine nor the description of one.
    """
    path = machine_file(place)
    if path.suffix.lower() != ".json":
        return sketch(read_graph(path)[0]) if is_graph(path) else load(path)
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): write a description as in {_EXAMPLE}") from None
    try:
        return from_specification(description)
    except (ValueError, TypeError, RuntimeError) as error:  # the last of a network that no memory holds
        raise ValueError(f"{path} describes no machine: {str(error).splitlines()[0]}") from None


_EXAMPLE = '{"widths": [64, 32, 10], "activation": "relu", "shortcuts": null}'


def describe(machine: "ParametricMachine | Architecture") -> list[tuple[str, str]]:
    """Labels and lines: summary, order, levels and the sizes of the cofiltration."""
    if isinstance(machine, Architecture):
        parts = [(m.name, f"{', '.join(m.reads)} → {', '.join(m.writes)}") for m in machine.machines]
        return [("machine", f"a graph of {counted(len(parts), 'machine')}"), *parts, *_levels(machine)]
    architecture = machine.architecture
    blocks = "-".join(map(str, machine.partition.widths))
    edges = _shortcuts(machine.shortcuts)
    size = f"{machine.parameter_count():,} parameters"
    if not machine.is_scaled:  # else it depends on the size of the input
        size += f", {machine.flops():,} FLOPs a sample{' and position' * (machine.dimensions > 0)}"
    scales = [("scales", ", ".join(map(str, machine.scales)))] if machine.is_scaled else []
    return [
        ("machine", f"blocks {blocks}, {size}"),
        *scales,
        ("σ", ", ".join(activation.name for activation in machine.activation)),
        ("shortcuts", ", ".join(edges) or "none"),
        *_levels(architecture, " in one turn of the loop over time" * (machine.shortcuts.ndim == 3)),
    ]


def _levels(architecture: Architecture, note: str = "") -> list[tuple[str, str]]:
    sizes = [len(components) for components in architecture.cofiltration]
    return [
        ("order", " ".join(architecture.order)),
        ("levels", " → ".join(", ".join(names) for names in architecture.levels)),
        ("depth", f"{architecture.depth}{note}"),
        ("cofiltration", " ⊇ ".join(map(str, sizes)) + " components"),
    ]


def _shortcuts(mask: "Mask") -> list[str]:
    """What is not from the block before at the same time, with the lags of a recurrence."""
    if mask.ndim == 2:
        return [f"{j} → {i}" for i, j in np.argwhere(mask) if j < i - 1]
    words = {(int(i), int(j)): lag_words(mask[:, i, j]) for i, j in np.argwhere(mask.any(axis=0))}
    return [f"{j} → {i} ({lags})" for (i, j), lags in words.items() if j != i - 1 or lags != "lag 0"]


def picture_file(place: str | os.PathLike[str], out: Path | None, *, page: bool) -> Path:
    """Where the picture of a machine goes, if nothing is said beside the machine.

    Raises
    ------
    ValueError : a page is wanted, in a file of another kind.
    """
    if page and out and out.suffix.lower() != ".html":
        raise ValueError(f"got --html and --out {out}: a page's name ends in .html; leave one of the two out")
    return out or machine_file(place).with_suffix(".html" if page else ".svg")


def draw(machine: "ParametricMachine | Architecture", path: Path) -> None:
    """Write a picture of a machine: its dependency graph, and below it which block hears which; or the graph alone.

    Of a graph space the cofiltration takes the place of blocks.

    Parameters
    ----------
    path : whose end says what is written: a picture, such as ``.svg`` or ``.pdf``, or the dependency graph alone, for
        other programs, as ``.dot``, ``.gv`` or ``.graphml``, or as a page to look around in, ``.html``.

    Raises
    ------
    ValueError : the name does not end in a format that can be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from machgraph import draw

    suffix = path.suffix.lower()
    if suffix in GRAPHS:
        path.write_text(getattr(draw, GRAPHS[suffix])(machine), encoding="utf-8")
        return
    figure = Figure(facecolor="white")
    kinds = figure.canvas.get_supported_filetypes()
    if suffix[1:] not in kinds:
        known = ", ".join(sorted([*kinds, *(name[1:] for name in GRAPHS)]))
        raise ValueError(f"can't write {path}: the name of a picture ends in one of {known}")
    pictures = [figure.add_axes((0.0, 0.0, 1.0, 1.0), label=label) for label in ("graph", "shortcuts")]
    draw.dependency_graph(machine, pictures[0])
    (draw.cofiltration if isinstance(machine, Architecture) else draw.shortcuts)(machine, pictures[1])
    # The unit of both is a point at full size: so they get the sizes that they ask for, one below the other.
    sizes = [(abs(x1 - x0), abs(y1 - y0)) for ax in pictures for (x0, x1), (y0, y1) in [(ax.get_xlim(), ax.get_ylim())]]
    width, height = max(w for w, _ in sizes), sum(h for _, h in sizes)
    bottom = height
    for ax, (w, h) in zip(pictures, sizes, strict=True):
        bottom -= h
        ax.set_position((0.0, bottom / height, w / width, h / height))
    figure.set_size_inches(width / 72, height / 72)
    with rc_context({"svg.hashsalt": "machgraph"}):  # the same machine gives the same file
        figure.savefig(path, dpi=200, metadata={"Date": None} if suffix == ".svg" else None)
