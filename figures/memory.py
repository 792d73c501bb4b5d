"""What forward and backward hold in memory at most, by depth: machine space once, beside every concatenation.

Reads ``experiments/results/memory.json`` and measures nothing.

``python -m figures.memory`` writes ``figures/memory.svg`` and ``figures/memory.png``.
"""

import json
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from figures import HERE, save
from machgraph.draw.canvas import COLOURS

RESULTS = HERE.parent / "experiments" / "results" / "memory.json"
STYLES = {
    "concatenations": ("concatenations, autograd", COLOURS[1], "D-"),
    "machgraph, torch": ("machgraph, in torch", COLOURS[0], "o:"),
    "machgraph": ("machgraph, compiled", COLOURS[0], "o-"),
}
PANELS = {"activations": "activations", "peak": "with gradients of the weights"}


def main(*, out: Path = HERE, results: Path = RESULTS) -> list[Path]:
    """Draw the picture into the folder ``out``; returns what was written."""
    result = json.loads(results.read_text())["result"]
    figure = Figure(figsize=(6.4, 3.0), layout="constrained", facecolor="white")
    axes = figure.subplots(1, 2, sharey=True)
    depths = sorted({row["depth"] for row in result["rows"]})
    for ax, (what, title) in zip(axes, PANELS.items(), strict=True):
        for by, (label, colour, line) in STYLES.items():
            rows = [row for row in result["rows"] if row["by"] == by]
            places, values = [row["depth"] for row in rows], [row[what] / 1e6 for row in rows]
            filled = "white" if line[0] == "D" else colour
            ax.plot(
                places, values, line, color=colour, label=label, markersize=4, linewidth=1.2, markerfacecolor=filled
            )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(depths, [str(depth) for depth in depths])
        ax.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_locator(NullLocator())
        ax.set_title(title, fontsize=9, loc="left")
        ax.set_xlabel(f"blocks of {result['width']}", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("MB at most", fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return save(figure, out, "memory")


if __name__ == "__main__":
    for path in main():
        print(path)
