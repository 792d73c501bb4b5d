"""The pictures of a run, as files that can be put in a paper."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from machgraph import draw as mg_draw
from machgraph.architecture import Architecture
from search.report.charts import Tradeoff
from search.report.colours import STATUSES
from search.report.scales import loss_scale
from search.run import Record, Row


def draw(
    folder: Path, machine: Any, records: Sequence[Record], rival: Row | None, costs: Sequence[Tradeoff] = ()
) -> None:
    """Write ``winner-graph`` and ``winner-shortcuts`` as SVG and PNG, ``history.svg`` and ``front.svg``, into a folder.

    Of a graph space ``winner-cofiltration`` takes the place of shortcuts.

    Parameters
    ----------
    machine : the winner, a parametric machine or an architecture; ``None`` where no trial has ended well, so that there
        is none to draw.
    rival : the random architecture, whose loss is a dashed line of the history.
    costs : of which the first is drawn as the front.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "machgraph"}):  # the same run gives the same files
        other = "cofiltration" if isinstance(machine, Architecture) else "shortcuts"
        for name, picture in (("graph", mg_draw.dependency_graph), (other, getattr(mg_draw, other))):
            if machine is None:
                continue
            _save(picture(machine), folder / f"winner-{name}", ("svg", "png"))
        _save(history(records, rival), folder / "history", ("svg",))
        for chart in costs[:1]:
            _save(front(chart), folder / "front", ("svg",))


def history(records: Sequence[Record], rival: Row | None = None, ax: Axes | None = None) -> Axes:
    """Draw the validation loss of every trial, the best so far, and the loss of the random rival.

    What is off the scale stands at the upper edge.
    """
    if ax is None:
        ax = Figure(figsize=(6.4, 3.4), layout="constrained").add_subplot()
    valid = [record for record in records if record.is_valid]
    known = [rival.loss] if rival and rival.loss is not None else []
    scale = loss_scale([*(record.loss for record in valid), *known])
    for status, (colour, _) in STATUSES.items():
        some = [record for record in valid if record.status == status]
        if some:
            numbers, losses = [r.number for r in some], [min(r.loss, scale.high) for r in some]
            ax.plot(numbers, losses, ".", color=colour, markersize=4, label=status, alpha=0.8)
    if valid:
        best, steps = math.inf, []
        for record in valid:
            best = min(best, record.loss)
            steps.append(best)
        ax.step([r.number for r in valid], steps, where="post", color="#1A1A1A", linewidth=1.4, label="best so far")
        if scale.logarithmic:
            ax.set_yscale("log")
            ax.minorticks_off()
        ax.set_ylim(scale.low, scale.high)
        ax.set_yticks([float(tick) for tick in scale.ticks], [f"{tick:g}" for tick in scale.ticks])
    if rival is not None and rival.loss is not None:
        ax.axhline(rival.loss, color="#D55E00", linestyle="--", linewidth=1.2, label=rival.name)
    ax.set_xlabel("trial")
    ax.set_ylabel("validation loss")
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))  # beside no dot
    return ax


def front(chart: Tradeoff, ax: Axes | None = None) -> Axes:
    """Draw two numbers of every network against each other: those on the front in colour, with the line that they form.

    What is off the scale stands at the upper edge.
    """
    if ax is None:
        ax = Figure(figsize=(6.4, 3.4), layout="constrained").add_subplot()
    colour, top = STATUSES["complete"][0], chart.y.high
    rest = [point for point in chart.points if point not in chart.best]
    for points, style in (
        (rest, {"color": "#5F6871", "markersize": 4, "label": "surpassed", "alpha": 0.8}),
        (chart.best, {"color": colour, "markersize": 9, "label": "on the front"}),
    ):
        ax.plot([float(x) for x, _ in points], [float(min(y, top)) for _, y in points], ".", **style)  # type: ignore[arg-type]
    if chart.chain:
        xs, ys = ([float(pair[k]) for pair in chart.chain] for k in (0, 1))  # whole numbers may be too large for numpy
        ax.step(xs, ys, where="post", color=colour, linewidth=1.2)
    ax.set_xscale("log" if chart.x.logarithmic else "linear")
    ax.set_yscale("log" if chart.y.logarithmic else "linear")
    ax.minorticks_off()
    ax.set_xticks([float(x) for x in chart.x.ticks], [f"{x:,g}" for x in chart.x.ticks])
    ax.set_yticks([float(y) for y in chart.y.ticks], [f"{y:,g}" for y in chart.y.ticks])
    ax.set_xlim(chart.x.low, chart.x.high)
    ax.set_ylim(chart.y.low, chart.y.high)
    ax.set_xlabel(chart.title)
    ax.set_ylabel(chart.y_title)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return ax


def _save(ax: Axes, path: Path, kinds: Sequence[str]) -> None:
    from matplotlib import pyplot as plt  # the pictures of machgraph.draw are pyplot's, which keeps them until closed

    figure = ax.get_figure(root=True)
    assert figure is not None  # axes that were just drawn
    for kind in kinds:
        figure.savefig(path.with_suffix(f".{kind}"), dpi=200, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)
