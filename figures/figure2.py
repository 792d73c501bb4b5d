"""Figure 2: a network with complex shortcuts as a sum of machines of depth 1, and its values for one input.

``python -m figures.figure2`` writes ``figures/figure2.svg`` and ``figures/figure2.png``.
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import machgraph as mg
from figures import HERE, save

INPUT = {"x1": 2.0, "x2": 3.0, "x3": 0.0, "x4": 0.0, "x5": 0.0, "x6": 0.0, "x7": 0.0, "x8": 0.0}
FUNCTIONS = (
    "$f_1(x_1, x_2) = x_1 x_2$",
    "$f_2(x_1) = x_1^2$",
    "$f_3(x_3) = x_3 - 3$",
    "$f_4(x_4) = (x_4,\\ x_4^2,\\ 2x_4)$",
    "$f_5(x_6) = x_6\\,/\\,2$",
)
FORMULAS = {
    "x1": "$x_1$",
    "x2": "$x_2$",
    "x3": "$f_1(x_1, x_2) + x_3$",
    "x4": "$f_3(y_3) + x_4$",
    "x5": "$f_2(x_1) + \\pi_5 f_4(y_4) + x_5$",
    "x6": "$\\pi_6 f_4(y_4) + x_6$",
    "x7": "$\\pi_7 f_4(y_4) + x_7$",
    "x8": "$f_5(y_6) + x_8$",
}


def f1(x1: Tensor, x2: Tensor) -> Tensor:
    """X1 ⊕ X2 -> X3."""
    return x1 * x2


def f2(x1: Tensor) -> Tensor:
    """X1 -> X5."""
    return x1**2


def f3(x3: Tensor) -> Tensor:
    """X3 -> X4."""
    return x3 - 3


def f4(x4: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """X4 -> X5 ⊕ X6 ⊕ X7."""
    return x4, x4**2, 2 * x4


def f5(x6: Tensor) -> Tensor:
    """X6 -> X8."""
    return x6 / 2


def architecture() -> mg.Architecture:
    """The sum ``f_1 + ... + f_5``."""
    return (
        mg.Machine(f1, reads=("x1", "x2"), writes=("x3",), name="f1")
        + mg.Machine(f2, reads=("x1",), writes=("x5",), name="f2")
        + mg.Machine(f3, reads=("x3",), writes=("x4",), name="f3")
        + mg.Machine(f4, reads=("x4",), writes=("x5", "x6", "x7"), name="f4")
        + mg.Machine(f5, reads=("x6",), writes=("x8",), name="f5")
    )


def values() -> dict[str, float]:
    """``y_1, ..., y_8`` by the name of the component, from the resolvent."""
    y = architecture().resolvent({name: torch.tensor(x, dtype=torch.float64) for name, x in INPUT.items()})
    return {name: float(y[name]) for name in INPUT}


def main(*, out: Path = HERE) -> list[Path]:
    """Draw the figure into the folder ``out``; returns what was written."""
    figure = Figure(figsize=(9.0, 1.9), facecolor="white")
    graph = figure.add_axes((0.0, 0.26, 0.62, 0.72))
    mg.draw.dependency_graph(architecture(), graph, components=True)
    figure.text(0.31, 0.1, "        ".join(FUNCTIONS), fontsize=8, ha="center", va="baseline")
    y = values()
    columns = {"x": (0.70, "right"), "y": (0.735, "left"), "formula": (0.76, "left"), "value": (0.975, "right")}
    top, step = 0.9, 0.105
    for column, title in (("x", "$x$"), ("value", "$y$")):
        figure.text(columns[column][0], top, title, fontsize=9, ha=columns[column][1], va="baseline")
    for k, (name, formula) in enumerate(FORMULAS.items(), 1):
        row = {"x": f"{INPUT[name]:g}", "y": f"$y_{k}$", "formula": f"$=$ {formula}", "value": f"{y[name]:g}"}
        for column, text in row.items():
            place, align = columns[column]
            text = text.replace("-", "\N{MINUS SIGN}") if column in ("x", "value") else text
            figure.text(place, top - step * k, text, fontsize=8.5, ha=align, va="baseline")
    return save(figure, out, "figure2")


if __name__ == "__main__":
    for path in main():
        print(path)
