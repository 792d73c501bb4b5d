"""The time of a machine, forward and backward, against the operations that its mask leaves, and against its density.

Reads ``experiments/results/cost.json`` and measures nothing. The limit is the time of as many operations in products of
1024 × 1024. On the right, a mask of blocks that may be heard is left out one random block after the other.

``python -m figures.cost`` writes ``figures/cost.svg`` and ``figures/cost.png``.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from figures import HERE, save
from machgraph.draw.canvas import COLOURS, GREY

RESULTS = HERE.parent / "experiments" / "results" / "cost.json"
STYLES = {  # sweep: label, colour, marker
    "depth": ("depth", COLOURS[0], "o"),
    "width": ("width", COLOURS[1], "D"),
    "batch": ("batch", COLOURS[2], "s"),
    "density": ("density", COLOURS[3], "v"),
    "block": ("size of blocks", GREY, "x"),
    "steps": ("steps", COLOURS[4], "^"),
    "pixels": ("pixels", COLOURS[5], "P"),
    "population": ("population", COLOURS[6], "*"),
}
DENSITIES = {  # sweep: label, line and marker
    "density": ("32 blocks of 32", "v-"),
    "density of 8": ("128 blocks of 8", "s--"),
    "density of 2": ("256 blocks of 2", "o:"),
}


def main(*, out: Path = HERE, results: Path = RESULTS) -> list[Path]:
    """Draw the picture into the folder ``out``; returns what was written."""
    result = json.loads(results.read_text())["result"]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    _draw_time(left, result)
    _draw_density(right, result["rows"])
    for ax in (left, right):
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside upper center", ncols=5, columnspacing=1.2, handlelength=1.5, frameon=False, fontsize=8,
    )  # fmt: skip
    return save(figure, out, "cost")


def _draw_time(ax: Axes, result: dict[str, Any]) -> None:
    """All rows, and the limit."""
    flops = np.array([row["flops"] for row in result["rows"]])
    ends = np.array([flops.min(), flops.max()])
    ax.plot(ends, ends / result["gemm"], color="black", linewidth=0.8, label="limit")
    for name, (label, colour, marker) in STYLES.items():
        rows = [row for row in result["rows"] if row["sweep"] == name]
        ax.plot(
            [row["flops"] for row in rows],
            [row["seconds"]["median"] for row in rows],
            f"{marker}-", color=colour, label=label, markersize=3.5, linewidth=0.8,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_locator(FixedLocator([1e4, 1e6, 1e8, 1e10]))
    ax.yaxis.set_major_locator(FixedLocator([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]))
    ax.set_yticklabels(["1 μs", "10 μs", "0.1 ms", "1 ms", "10 ms", "0.1 s", "1 s"])
    ax.set_ylim(bottom=1e-6)
    ax.set_xlabel("floating-point operations", fontsize=9)
    ax.set_title("forward, backward, all gradients", fontsize=9, loc="left")


def _draw_density(ax: Axes, rows: list[dict[str, Any]]) -> None:
    """The time over that of the full mask."""
    ax.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    ax.text(0.5, 0.4, "in proportion", fontsize=8, ha="left", va="top")
    highest = 1.0
    for name, (label, line) in DENSITIES.items():
        times = {row["value"]: row["seconds"]["median"] for row in rows if row["sweep"] == name}
        ratios = [time / times[1.0] for time in times.values()]
        highest = max(highest, *ratios)
        ax.plot(
            list(times),
            ratios,
            line, color=STYLES["density"][1], label=label, markersize=3.5, linewidth=1.2,
        )  # fmt: skip
    ax.set_xlim(0, 1.03)
    ax.set_ylim(0, 1.45 * highest)  # with room for the legend
    ax.set_xlabel("density of the mask", fontsize=9)
    ax.set_title("time / that of the full mask", fontsize=9, loc="left")
    ax.legend(frameon=False, fontsize=8, loc="upper left")


if __name__ == "__main__":
    for path in main():
        print(path)
