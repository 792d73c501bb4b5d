"""Figure 1: two sequences that solve one linear machine with shortcuts on five nodes.

The paper does not publish its numbers: ours are drawn from the same distribution. An edge of the expensive sequence is
as wide as the number of values that it carries, since it is computed anew whenever its start has changed.

``python -m figures.figure1`` writes ``figures/figure1.svg`` and ``figures/figure1.png``.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch
from numpy.typing import NDArray

import machgraph as mg
from figures import HERE, save

NODES = 5
SEED = 1
ROWS = {
    "optimized": "Optimized: step $i$ updates node $i$",
    "expensive": "Expensive: $x \\leftarrow Wx + x_0$ at each step",
}


def problem(seed: int = SEED) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A strictly lower triangular ``W`` ``[node_out, node_in]`` and an input ``x_0``, uniform in [0.5, 1.5)."""
    rng = np.random.default_rng(seed)
    return np.tril(rng.uniform(0.5, 1.5, (NODES, NODES)), -1), rng.uniform(0.5, 1.5, NODES)


def architecture(weight: NDArray[np.float64]) -> mg.Architecture:
    """``x -> W x`` as a sum of machines: one for each node that has an edge into it."""
    return sum(
        mg.Machine(_row(weight[i, :i]), reads=tuple(f"x{j}" for j in range(i)), writes=(f"x{i}",), name=f"node{i}")
        for i in range(1, len(weight))
    )


def _row(weights: NDArray[np.float64]):
    return lambda *x: sum(float(w) * value for w, value in zip(weights, x, strict=True))


def states(strategy: str, seed: int = SEED) -> NDArray[np.float64]:
    """The depth sequence ``h_0, ..., h_4`` by the ``"optimized"`` or ``"expensive"`` strategy: ``[step, node]``."""
    weight, x0 = problem(seed)
    g = {f"x{i}": torch.tensor(value, dtype=torch.float64) for i, value in enumerate(x0)}
    sequence = mg.depth_sequence(architecture(weight), g, strategy=strategy)
    return np.array([[float(state[f"x{i}"]) for i in range(NODES)] for state in sequence])


def times_computed(sequence: NDArray[np.float64], *, deferred: bool) -> NDArray[np.int64]:
    """How often the edges out of each node are computed: once if deferred, else for every value that the node takes."""
    changes = np.abs(np.diff(sequence, axis=0, prepend=0.0)) > 1e-12
    return np.ones(NODES, dtype=np.int64) if deferred else changes.sum(axis=0)


def main(*, out: Path = HERE) -> list[Path]:
    """Draw the figure into the folder ``out``; returns what was written."""
    figure = Figure(figsize=(6.4, 5.4), layout="constrained", facecolor="white")
    axes = figure.subplots(2, 2, width_ratios=(1, 1.35), sharey="col")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    for (left, right), (strategy, title) in zip(axes, ROWS.items(), strict=True):
        sequence = states(strategy)
        _draw_graph(left, times_computed(sequence, deferred=strategy == "optimized"))
        mg.draw.depth_sequence(sequence, right, legend=strategy == "optimized")
        right.set_ylabel("value", fontsize=9)
        left.set_title(title, fontsize=9, loc="left")
    axes[-1, 1].set_xlabel("node", fontsize=9)
    return save(figure, out, "figure1")


def _draw_graph(ax: Axes, times: NDArray[np.int64]) -> None:
    """All edges, coloured by the node that they enter, as wide as the number of times they are computed."""
    angles = np.pi / 2 - 2 * np.pi * np.arange(NODES) / NODES
    place = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for j in range(NODES):
        for i in range(j + 1, NODES):
            ax.add_patch(
                FancyArrowPatch(
                    place[j],
                    place[i],
                    arrowstyle="-|>,head_length=0.45,head_width=0.2",
                    mutation_scale=8 + 3 * times[j],
                    shrinkA=9.5,
                    shrinkB=9.5,
                    linewidth=0.9 * times[j],
                    color=mg.draw.level_colour(i),
                    joinstyle="miter",
                    capstyle="butt",
                )
            )
    for i in range(NODES):
        colour = mg.draw.level_colour(i)
        ax.add_patch(Circle(place[i], 0.16, facecolor="white", edgecolor=colour, linewidth=1.2, zorder=3))
        ax.text(*place[i], str(i), ha="center", va="center_baseline", fontsize=9, zorder=4)
    ax.set_xlim(-1.22, 1.22)
    ax.set_ylim(-1.05, 1.22)
    ax.set_aspect("equal")
    ax.set_axis_off()


if __name__ == "__main__":
    for path in main():
        print(path)
