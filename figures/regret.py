"""How far each strategy of the search is from the best mask of all, after so many trials, and how often it repeats one.

Reads ``experiments/results/regret.json`` and trains nothing.

``python -m figures.regret`` writes ``figures/regret.svg`` and ``figures/regret.png``.
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from figures import HERE, save
from machgraph.draw.canvas import COLOURS, GREY

RESULTS = HERE.parent / "experiments" / "results" / "regret.json"
STYLES = {
    "random": ("random", GREY, "-"),
    "random, none twice": ("random, none twice", GREY, ":"),
    "nsga2": ("NSGA-II", COLOURS[1], "-"),
    "tpe": ("TPE", COLOURS[2], "-"),
    "evolution": ("evolution (default)", COLOURS[0], "-"),
}


def main(*, out: Path = HERE, results: Path = RESULTS) -> list[Path]:
    """Draw the picture into the folder ``out``; returns what was written."""
    result = json.loads(results.read_text())["result"]
    trials = np.array(result["trials"])
    figure = Figure(figsize=(6.4, 2.9), layout="constrained", facecolor="white")
    left, middle, right = axes = figure.subplots(1, 3)
    for strategy, (name, colour, line) in STYLES.items():
        told = result["strategies"][strategy]
        for ax, regret in ((left, told["regret"]), (middle, told["test_regret"])):
            mean, error = np.array(regret["mean"]), 2 * np.array(regret["error"])
            ax.plot(trials, mean, line, color=colour, linewidth=1.2, label=name if ax is left else None)
            ax.fill_between(trials, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        right.plot(trials, told["duplicates"], line, color=colour, linewidth=1.2)
    left.set_title("regret, validation loss", fontsize=9, loc="left")
    middle.set_title("regret, test accuracy", fontsize=9, loc="left")
    right.set_title("duplicates", fontsize=9, loc="left")
    for ax in axes:
        ax.set_ylim(bottom=0)
        ax.set_xlabel("trials", fontsize=9)
        ax.set_xticks([0, 64, 128, 192, 256])
        ax.set_xlim(0, trials[-1])
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=5, columnspacing=1.2, handlelength=1.5, frameon=False, fontsize=8)
    return save(figure, out, "regret")


if __name__ == "__main__":
    for path in main():
        print(path)
