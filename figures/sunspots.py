"""Yearly sunspots: the test years, and what the recurrent machines said of each from the 11 years before it.

Reads ``experiments/results/sunspots.json`` and trains nothing.

``python -m figures.sunspots`` writes ``figures/sunspots.svg`` and ``figures/sunspots.png``.
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from figures import HERE, save
from machgraph.draw.canvas import COLOURS, GREY

RESULTS = HERE.parent / "experiments" / "results" / "sunspots.json"


def main(*, out: Path = HERE, results: Path = RESULTS) -> list[Path]:
    """Draw the picture into the folder ``out``; returns what was written."""
    result = json.loads(results.read_text())["result"]
    years, outputs = np.array(result["years"]), np.array(result["outputs"])
    figure = Figure(figsize=(6.4, 3.2), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    left.plot(years, result["truth"], "o", color="black", markersize=2.5, label="observed")
    left.plot(years, outputs.mean(axis=0), color=COLOURS[0], linewidth=1.2, label=f"mean of {len(outputs)} machines")
    left.fill_between(years, outputs.min(axis=0), outputs.max(axis=0), color=COLOURS[0], alpha=0.25, linewidth=0)
    left.set_ylabel("sunspots", fontsize=9)
    left.set_ylim(0, 240)
    left.legend(loc="upper right", ncols=2, frameon=False, fontsize=8)
    rows = sorted(result["test"].items(), key=lambda item: -item[1]["rmse"])
    for k, (name, row) in enumerate(rows):
        right.barh(k, row["rmse"], 0.7, color=COLOURS[0] if name == "machine" else "#C9C9C9")
        right.text(
            max(row.get("seeds", [row["rmse"]])) + 0.8, k, f"{row['rmse']:.1f}", va="center_baseline", fontsize=8
        )
        if "seeds" in row:
            right.plot(row["seeds"], [k] * len(row["seeds"]), "|", color="black", markersize=5)
    right.set_yticks(range(len(rows)), [name.replace("linear fit of ", "linear fit of\n") for name, _ in rows])
    right.set_xlim(0, 41)
    right.set_xlabel("RMSE, one step ahead", fontsize=9)
    for ax in (left, right):
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    right.tick_params(axis="y", length=0)
    left.axhline(0, color=GREY, linewidth=0.6)
    return save(figure, out, "sunspots")


if __name__ == "__main__":
    for path in main():
        print(path)
