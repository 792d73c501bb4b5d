"""Axes whose unit is a point, artists that scale with them, and the colours and letters of every picture."""

import re
from typing import Any, Literal

import networkx as nx
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Patch, PathPatch
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

from machgraph.graph import forward, levels

# Okabe and Ito's colours, told apart with any kind of colour blindness, without yellow, which is too faint for a line,
# and with a wine red: an odd number, so that levels which alternate between two kinds of machine use all of them.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255")
GREY = "#8A8A8A"
PALE = "#EFEFEF"
INK = "#1A1A1A"
FONT = 9.0  # points, as are all lengths below
SMALL = 7.0
LINE = 1.1
EDGE = 0.9
LONGEST_FIGURE = 150.0  # inches


def level_colour(level: int) -> str:
    """The colour of a level, counted from 1; level 0 is what no machine writes."""
    return COLOURS[(level - 1) % len(COLOURS)] if level else GREY


def tint(colour: str, strength: float) -> tuple[float, ...]:
    """The colour thinned with white."""
    return tuple(1 - strength * (1 - channel) for channel in to_rgb(colour))


# --- what is drawn ---------------------------------------------------------------------------------------------------


def graph_of(architecture: Any) -> "nx.DiGraph[str]":
    """The dependency graph of an architecture, of a parametric machine, or of itself."""
    owner = getattr(architecture, "architecture", architecture)
    graph = owner if isinstance(owner, nx.DiGraph) else getattr(owner, "graph", None)
    if not isinstance(graph, nx.DiGraph):
        raise TypeError(f"got a {type(architecture).__name__}: give an architecture, or its graph (a networkx.DiGraph)")
    return graph


def levels_of(graph: "nx.DiGraph[str]") -> dict[str, int]:
    """The level of each machine, from 1; where time goes back in a circle, those of one turn."""
    return {name: i for i, names in enumerate(levels(forward(graph)), 1) for name in names}


def last_writers(graph: "nx.DiGraph[str]") -> dict[str, int]:
    """For each component the level of the last machine that writes it, 0 if none does; in order of first use."""
    level = levels_of(graph)
    last: dict[str, int] = {}
    for name in sorted(graph, key=level.__getitem__):
        for component in graph.nodes[name].get("reads", ()):
            last.setdefault(component, 0)
        for component in graph.nodes[name].get("writes", ()):
            last[component] = level[name]
    return last


# --- axes and artists ------------------------------------------------------------------------------------------------


def canvas(ax: Axes | None, width: float, height: float, margin: float = 4.0) -> Axes:
    """Axes whose unit is a point at full size, y downwards. A figure of our own has exactly that size."""
    width, height = width + 2 * margin, height + 2 * margin
    if ax is None:
        from matplotlib import pyplot as plt  # only here: axes that are given need no state of pyplot

        shrink = min(1.0, LONGEST_FIGURE * 72 / max(width, height))
        figure = plt.figure(figsize=(width * shrink / 72, height * shrink / 72), facecolor="white")
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set_xlim(-margin, width - margin)
    ax.set_ylim(height - margin, -margin)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


def _points_per_unit(artist: Text | Patch) -> float:
    """Of the axes as they are now; the smaller of both directions, which an equal aspect will give to both."""
    if artist.axes is None or artist.figure is None:
        return 1.0
    matrix = artist.axes.transData.get_matrix()
    return float(min(abs(matrix[0, 0]), abs(matrix[1, 1])) * 72 / artist.figure.dpi)


class Letters(Text):
    """Text that scales with the axes, so that it fits its box in a figure of any size."""

    def __init__(self, x: float, y: float, string: str, points: float, **options: Any) -> None:
        super().__init__(x, y, string, fontsize=points, **options)
        self._points = points

    def _fit(self) -> None:
        size = max(self._points * _points_per_unit(self), 0.1)
        if size != self.get_fontsize():
            self.set_fontsize(size)

    def draw(self, renderer: Any) -> None:
        """Draw at the size that the axes have by now."""
        self._fit()
        super().draw(renderer)

    def get_window_extent(self, renderer: Any = None, dpi: float | None = None) -> Any:
        """The box in pixels, at the size that the axes have by now."""
        self._fit()
        return super().get_window_extent(renderer, dpi)


class Line(PathPatch):
    """A line that gets thinner with the axes."""

    def __init__(self, path: Path, points: float, **options: Any) -> None:
        super().__init__(path, facecolor="none", linewidth=points, **options)
        self._points = points

    def draw(self, renderer: Any) -> None:
        """Draw at the width that the axes ask for by now."""
        self.set_linewidth(self._points * min(_points_per_unit(self), 1.0))
        super().draw(renderer)


class Box(FancyBboxPatch):
    """A box with round corners whose edge gets thinner with the axes."""

    def __init__(self, corner: tuple[float, float], wide: float, high: float, radius: float, **options: Any) -> None:
        super().__init__(corner, wide, high, boxstyle=f"round,pad=0,rounding_size={radius}", **options)

    def draw(self, renderer: Any) -> None:
        """Draw at the width that the axes ask for by now."""
        self.set_linewidth(EDGE * min(_points_per_unit(self), 1.0))
        super().draw(renderer)


def text(
    ax: Axes,
    x: float,
    y: float,
    name: str,
    points: float = FONT,
    *,
    colour: str = INK,
    align: Literal["left", "center", "right"] = "center",
    rotation: float = 0.0,
) -> None:
    """Write a name, its height centred at ``y``."""
    string, mathematics = spelled(name)
    options = {"horizontalalignment": align, "verticalalignment": "center_baseline", "rotation": rotation}
    options |= {"rotation_mode": "anchor", "parse_math": mathematics, "clip_on": False}
    ax.add_artist(Letters(x, y, string, points, color=colour, zorder=4, **options))


_SUBSCRIPT = re.compile(r"([^\W\d_])_?(\d+)(\[t=[\d:]+\])?")  # and, in an unrolled recurrence, a time


def spelled(name: str) -> tuple[str, bool]:
    """A name as it is set, and whether that is mathematics: ``w_1`` and ``x1`` are letters with an index.

    >>> spelled("σ_12"), spelled("conv1"), spelled("x1, x2"), spelled("w_1[t=0]")
    (('$σ_{12}$', True), ('conv1', False), ('$x_{1}$, $x_{2}$', True), ('$w_{1}$[t=0]', True))
    """
    if name.startswith("$") and name.endswith("$") and len(name) > 2:
        return name, True
    parts = name.split(", ")
    if all(_SUBSCRIPT.fullmatch(part) for part in parts):
        return ", ".join(_SUBSCRIPT.sub(r"$\1_{\2}$\3", part) for part in parts), True
    return name, False


def width(name: str, points: float = FONT) -> float:
    """How wide a name is, in points; a little more than drawn, since pixels round it up."""
    string, mathematics = spelled(name)
    measured, _, _ = text_to_path.get_text_width_height_descent(string, FontProperties(size=points), mathematics)
    return 1.03 * float(measured)
