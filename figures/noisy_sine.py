"""The noisy sine: the error of each machine by step of time, on three tasks.

Reads ``experiments/results/noisy_sine.json`` and trains nothing.

``python -m figures.noisy_sine`` writes ``figures/noisy_sine.svg`` and ``figures/noisy_sine.png``.
"""

import json
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import HERE, save
from machgraph.draw.canvas import COLOURS, GREY

RESULTS = HERE.parent / "experiments" / "results" / "noisy_sine.json"


def main(*, out: Path = HERE, results: Path = RESULTS) -> list[Path]:
    """Draw the picture into the folder ``out``; returns what was written."""
    result = json.loads(results.read_text())["result"]
    figure = Figure(figsize=(6.4, 3.0), layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(result["tasks"]), sharey=True)
    for ax, (task, rows) in zip(axes, result["tasks"].items(), strict=True):
        ax.axhline(result["noise_sd"], color=GREY, linewidth=0.8, linestyle=":", label="the noise")
        for colour, (name, row) in zip(COLOURS, rows.items(), strict=False):
            heard = result["machines"][name]
            ahead = f", {heard['ahead']} ahead" if heard["ahead"] else ""
            back = "all the past" if heard["back"] > len(row["rmse_by_step"]) else f"{heard['back']} back"
            ax.plot(
                row["rmse_by_step"],
                color=colour,
                linewidth=1.2,
                linestyle="-" if row["hears_the_step"] else "--",
                label=f"{name} (hears {back}{ahead})",
            )
        ax.set_yscale("log")
        ax.set_title(task, fontsize=9, loc="left")
        ax.set_xlabel("step", fontsize=9)
        ax.set_xticks([0, 20, 40, 60])
        ax.set_yticks([0.05, 0.1, 0.2, 0.5, 1], ["0.05", "0.1", "0.2", "0.5", "1"])
        ax.minorticks_off()
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("RMSE", fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    styles = [":", *["-"] * (len(handles) - 1)]  # solid or dashed is the task's, so a machine's key has colour alone
    keys = [Line2D([], [], color=h.get_color(), linestyle=style) for h, style in zip(handles, styles, strict=True)]
    keys.append(Line2D([], [], color="black", linestyle="--", linewidth=1.2))
    labels.append("dashed: does not hear the step asked for")
    figure.legend(keys, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return save(figure, out, "noisy_sine")


if __name__ == "__main__":
    for path in main():
        print(path)
