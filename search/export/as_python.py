"""A trained machine as a Python file of plain torch: from the cells of a table to what ``machgraph predict`` says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.resources import files
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray

from machgraph.parametric import DenseMachine, RecurrentMachine
from machgraph.parametric_machine import ParametricMachine
from machgraph.source.blocks import overview
from machgraph.source.lines import Group, docstring, fitted, indented, laid, literal, module
from machgraph.source.module import WEIGHTS, checked_name, loading, put, refuse_other, summary
from machgraph.source.network import definition, tensors
from search.data.columns import Column
from search.data.encoder import Encoder
from search.data.table import MISSING
from search.data.transform import NODES, SHARES
from search.numbers import counted
from search.trained import Trained, answered
from search.training.machine import reading

ROWS = 7  # that a file is tried on


def source(trained: Trained, name: str) -> str:
    """The text of a module ``name``: the network, ``load``, ``encode`` and ``predict``.

    Parameters
    ----------
    trained : of a dense, convolutional or recurrent machine; its weights are to be beside the file.
    name : of the module.
    """
    machine, encoder = trained.machine, trained.encoder
    assert isinstance(machine, ParametricMachine)  # of a graph space nobody asks for it
    flat = isinstance(machine, DenseMachine)
    constants, parts = definition(
        machine, reading("recurrence" if isinstance(machine, RecurrentMachine) else "convolution")
    )
    given, what = "table", "A table is a data frame, or lists of cells by the names of columns."
    if encoder.layout == "pixels":
        given, what = "images", "Images are a tensor, channels first, as they were before any scaling."
    elif encoder.layout == "series":
        what = "A table is a data frame, or lists of cells by the names of columns: steps in order."
    said = "classes, probabilities" if encoder.classes else "answers"
    usage = [f"from {name} import load, predict", "", "network = load()", f"{said} = predict(network, {given})"]
    form = ["Numbers in it are as 1234.5, without units or marks between thousands."]
    opening = docstring(
        f"{summary(machine)}, as plain torch.",
        overview(machine),
        [
            f"The weights are in {name}.safetensors, beside this file. They answer in double",
            "precision, so that what is said of a row does not depend on the rows beside it.",
            "To use them:",
        ],
        indented(usage),
        [what, *form * any(column.kind == "number" for column in encoder.columns if encoder.layout != "pixels")],
    )
    around = _around(trained, flat).strip("\n").splitlines()
    return module(opening, [[WEIGHTS, *constants], *parts, loading("torch.float64"), around])


def write(trained: Trained, path: str | os.PathLike[str]) -> str:
    """Write a trained machine as ``NAME.py`` and ``NAME.safetensors``, once tried; and say so in one sentence.

    The encoder is in the metadata of the weights, as JSON, too.

    Parameters
    ----------
    path : of the Python file.

    Raises
    ------
    ValueError : a machine that is not written as Python, a name that no module can have, or a file that answers
        otherwise.
    """
    path = checked_name(path)
    if not isinstance(trained.machine, ParametricMachine):
        raise ValueError(
            f"got a {type(trained.machine).__name__}: dense, convolutional and recurrent machines are written as "
            "Python, others as .pt2 or .onnx"
        )
    encoder, table = trained.encoder, None
    x = np.random.default_rng(0).standard_normal((ROWS, encoder.n_inputs)).astype(np.float32)
    expected = encoder.decode(trained.outputs(x))
    if encoder.layout == "pixels" or find_spec("polars"):  # reads what a table holds
        table = sample(encoder)
        expected = answered([trained], table)

    def tried(written: ModuleType) -> None:
        if table is None:
            shape = () if isinstance(trained.machine, DenseMachine) else encoder.image
            read = torch.from_numpy(x).double().reshape(len(x), *shape or (-1,))
            vars(written)["encode"] = lambda _: read
        given = torch.from_numpy(table) if isinstance(table, np.ndarray) else table
        said = written.predict(written.load(), given)
        numbers = expected.values if expected.probabilities is None else expected.probabilities
        refuse_other(path, said if expected.probabilities is None else said[1], torch.from_numpy(numbers))

    put(path, source(trained, path.stem), tensors(trained.machine), tried, {"encoder": encoder.to_json()})
    what = f"probabilities of {len(encoder.classes)} classes" if encoder.classes else f"'{encoder.target}'"
    count = counted(len(encoder.columns), "column" if encoder.layout != "pixels" else "channel")
    return f"{path} and {path.with_suffix('.safetensors').name}: {count} to {what}; tried, equal to the machine"


def sample(encoder: Encoder) -> Any:
    """Cells as the training rows may have had them, empty ones and unknown levels among them; or images."""
    rng = np.random.default_rng(0)
    if encoder.layout == "pixels":
        channels, *size = encoder.image
        shape = (1, channels, *[1] * len(size))
        x = rng.standard_normal((ROWS, *encoder.image)) * np.reshape(encoder.scale, shape)
        x += np.reshape(encoder.mean, shape)
        x.flat[1] = np.nan
        return x
    features, table, rows = iter(zip(encoder.mean, encoder.scale, strict=True)), {}, ROWS + encoder.lags
    for place, column in enumerate(encoder.columns):
        (mean, scale), *_ = [next(features) for _ in column.features]
        values = mean + scale * rng.standard_normal(rows)
        if encoder.layout == "series" and place == 0:
            values = encoder.transform.answers(values)
        table[column.name] = _cells(column, values)
    return table


def _cells(column: Column, values: NDArray[np.float64]) -> list[str | None]:
    """Texts that stand for the values; where they are categories, the levels in turn and an unknown one."""
    if column.kind == "category":
        levels = [*column.levels, "a level that no row had", None]
        return [levels[i % len(levels)] for i in range(len(values))]
    cells: list[str | None] = [repr(float(value)) for value in values]
    if column.kind == "date":
        cells = [str(np.datetime64(int(value), "D")) for value in values]
    cells[2] = None
    if column.words:
        cells[3] = column.words[0]
    return cells


# ---- the text ----------------------------------------------------------------------------------------------------


def _around(trained: Trained, flat: bool) -> str:
    """What stands around the network: ``encode`` and ``predict``."""
    encoder = trained.encoder
    template = files("search.export").joinpath("as_python.py.jinja").read_text(encoding="utf-8")
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    of = {kind: [c for c in encoder.columns if c.kind == kind] for kind in ("number", "date", "category")}
    series = encoder.layout == "series"
    learned = series and encoder.transform.name != "none"
    bounds = encoder.transform.forward(np.array([encoder.transform.low, encoder.transform.high]))
    return environment.from_string(template).render(
        encoder=encoder,
        flat=flat,
        series=series,
        sharpness=trained.sharpness,
        image=", ".join(map(str, encoder.image)),
        numbers=_needs(of["number"], target=learned, powers=any(c.power for c in of["number"])),
        dates=_needs(of["date"]),
        categories={"other": any(c.other for c in of["category"])} if of["category"] else None,
        columns=_columns(encoder, learned),
        missing=", ".join(map(literal, MISSING)),
        classes="\n".join(laid(_tuple("CLASSES = (", map(_label, encoder.classes)))),
        label=type(encoder.classes[0]).__name__ if encoder.classes else "",
        bounds=", ".join(repr(float(bound)) for bound in bounds),
        nodes="\n".join(
            line
            for name, values in (("NODES", NODES), ("SHARES", SHARES))
            for line in laid(_tuple(f"{name} = (", map(repr, values.tolist())))
        ),
        **_channels(encoder),
    )


def _needs(columns: Sequence[Column], **more: bool) -> dict[str, bool]:
    """What the columns of a kind need beside their values; nothing where there are none."""
    found = {"gaps": any(c.gaps for c in columns), "words": any(c.words for c in columns), **more}
    return found if columns else {}


def _columns(encoder: Encoder, learned: bool) -> list[str]:
    """The lines of the table of columns."""
    if encoder.layout == "pixels":
        return []
    features, lines = iter(zip(encoder.mean, encoder.scale, strict=True)), []
    for place, column in enumerate(encoder.columns):
        items = _values(column, [next(features) for _ in column.features])
        items += ["gaps=True"] * column.gaps
        items += [_tuple("words=(", map(literal, column.words))] if column.words else []
        items += ["target=True"] * (learned and place == 0)
        lines += fitted(f"{literal(column.name)}: {column.kind.capitalize()}(", items, "),", indent=4)
    return lines


def _values(column: Column, features: Sequence[tuple[float, float]]) -> list[str | Group]:
    """What a column's features are made with."""
    if column.kind == "category":
        levels = ("None" if level is None else literal(level) for level in column.levels)
        return [_tuple("levels=(", levels), *["other=True"] * column.other]
    if column.kind == "date":
        scaled = features[: 1 + 2 * len(column.periods)]
        return [
            f"fill={column.fill!r}",
            _tuple("periods=(", map(repr, column.periods)),
            _tuple("means=(", (repr(mean) for mean, _ in scaled)),
            _tuple("scales=(", (repr(scale) for _, scale in scaled)),
        ]
    (mean, scale), *more = features
    items: list[str | Group] = [f"fill={column.fill!r}", f"mean={mean!r}", f"scale={scale!r}"]
    if column.power:
        told = {**asdict(column.power), "mean": more[0][0], "scale": more[0][1]}
        items.append(Group("power=Power(", [f"{name}={value!r}" for name, value in told.items()], ")"))
    return items


def _channels(encoder: Encoder) -> dict[str, str]:
    """Of images: what stands for a gap in each channel, and their means and scales."""
    if encoder.layout != "pixels":
        return {}
    values = {"fill": [column.fill for column in encoder.columns], "mean": encoder.mean, "scale": encoder.scale}
    lines = {
        name: "\n".join(laid(_tuple(f"{name.upper()} = (", map(repr, several)))) for name, several in values.items()
    }
    return {**lines, "each": ", ".join([str(encoder.image[0]), *["1"] * (len(encoder.image) - 1)])}


def _label(label: str | int | float) -> str:
    return literal(label) if isinstance(label, str) else repr(label)


def _tuple(opening: str, items: Iterable[str]) -> Group:
    return Group(opening, list(items), ")", is_tuple=True)
