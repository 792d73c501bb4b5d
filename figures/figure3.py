"""Figure 3: the ratio of the runtimes of backward and forward pass, ours and the paper's.

Reads ``experiments/results/table1.json`` and times nothing. Ratios are of the minima, as the paper's. A backward pass
that is the same procedure as the forward pass takes as long: the line at 1.

``python -m figures.figure3`` writes ``figures/figure3.svg`` and ``figures/figure3.png``.
"""

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from figures import HERE, save
from machgraph.draw.canvas import COLOURS, GREY

RESULTS = HERE.parent / "experiments" / "results" / "table1.json"
KINDS = ("dense", "convolution", "recurrent")
SIZES = ("small", "medium")
SERIES = {  # by, device: label, colour, whether filled
    ("published", "cpu"): ("paper, CPU", GREY, True),
    ("published", "cuda"): ("paper, GPU", GREY, False),
    ("machgraph", "cpu"): ("machgraph, CPU", COLOURS[0], True),
    ("machgraph", "cuda"): ("machgraph, GPU", COLOURS[0], False),
    ("concatenations", "cpu"): ("concatenations, CPU", COLOURS[1], True),
    ("concatenations", "cuda"): ("concatenations, GPU", COLOURS[1], False),
    ("compiled", "cpu"): ("compiled, CPU", COLOURS[2], True),
    ("compiled", "cuda"): ("compiled, GPU", COLOURS[2], False),
}


def ratios(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[tuple[str, str], float]]:
    """Backward over forward: of each series (by, device), by machine and size."""
    found: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for row in rows:
        ratio = row["backward"]["minimum"] / row["forward"]["minimum"]
        found.setdefault((row["by"], row["device"]), {})[row["machine"], row["size"]] = ratio
    return {series: found[series] for series in SERIES if series in found}


def main(*, out: Path = HERE, results: Path = RESULTS) -> list[Path]:
    """Draw the figure into the folder ``out``; returns what was written."""
    series = ratios(json.loads(results.read_text())["result"]["rows"])
    figure = Figure(figsize=(6.4, 3.0), layout="constrained", facecolor="white")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, size in zip(axes, SIZES, strict=True):
        _draw(ax, size, series)
    axes[0].set_ylabel("backward / forward", fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=8, handletextpad=0.2)
    return save(figure, out, "figure3")


def _draw(ax: Axes, size: str, series: dict[tuple[str, str], dict[tuple[str, str], float]]) -> None:
    ax.axhline(1, color="black", linewidth=0.6, zorder=0)
    for k, (key, values) in enumerate(series.items()):
        label, colour, filled = SERIES[key]
        beside = 0.13 * (k - (len(series) - 1) / 2)
        places = {kind: i + beside for i, kind in enumerate(KINDS) if (kind, size) in values}
        ax.plot(
            list(places.values()),
            [values[kind, size] for kind in places],
            "o" if filled else "D",
            markersize=6 if filled else 5,
            color=colour,
            markerfacecolor=colour if filled else "white",
            label=label,
        )
    for i in range(1, len(KINDS)):
        ax.axvline(i - 0.5, color="#DDDDDD", linewidth=0.8, zorder=0)
    ax.set_yscale("log")  # twice as long and half as long are as far from 1
    ax.yaxis.set_major_locator(FixedLocator([0.5, 0.7, 1, 1.4, 2, 2.8]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    ax.set_xlim(-0.5, len(KINDS) - 0.5)
    ax.set_xticks(range(len(KINDS)), KINDS)
    ax.tick_params(axis="x", length=0)
    ax.tick_params(labelsize=9)
    ax.set_title(f"{size} problem", fontsize=9, loc="left")
    ax.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    for path in main():
        print(path)
