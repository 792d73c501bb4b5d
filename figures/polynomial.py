"""The polynomial surface, what a dense machine made of 6 × 6 points of it, and the difference.

Reads ``experiments/results/polynomial.json`` and trains nothing.

``python -m figures.polynomial`` writes ``figures/polynomial.svg`` and ``figures/polynomial.png``.
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from figures import HERE, save

RESULTS = HERE.parent / "experiments" / "results" / "polynomial.json"


def main(*, out: Path = HERE, results: Path = RESULTS) -> list[Path]:
    """Draw the picture into the folder ``out``; returns what was written."""
    result = json.loads(results.read_text())["result"]
    truth, prediction = np.array(result["truth"]), np.array(result["prediction"])
    error = prediction - truth
    figure = Figure(figsize=(6.4, 2.3), layout="constrained", facecolor="white")
    axes = figure.subplots(1, 3, sharey=True)
    bound = float(np.abs(error).max())
    known = np.linspace(0, 1, result["train_points"])
    panels = (
        ("truth, points given", truth, "viridis", (truth.min(), truth.max())),
        ("prediction", prediction, "viridis", (truth.min(), truth.max())),
        ("difference", error, "RdBu_r", (-bound, bound)),
    )
    for ax, (title, values, colours, (low, high)) in zip(axes, panels, strict=True):
        # values are [x, y]; a picture's rows are y, upwards
        image = ax.imshow(values.T, origin="lower", extent=(0, 1, 0, 1), cmap=colours, vmin=low, vmax=high)
        ax.set_title(title, fontsize=9, loc="left")
        ax.set_xlabel("x", fontsize=9)
        ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.tick_params(labelsize=8)
        if values is not prediction:
            bar = figure.colorbar(image, ax=axes[:2] if values is truth else ax, shrink=0.75, pad=0.02)
            bar.ax.tick_params(labelsize=8)
            bar.outline.set_visible(False)
    axes[0].plot(*np.meshgrid(known, known), "o", color="white", markeredgecolor="black", markersize=2.5, clip_on=False)
    axes[0].set_ylabel("y", fontsize=9)
    return save(figure, out, "polynomial")


if __name__ == "__main__":
    for path in main():
        print(path)
