"""The charts of a report: a square of 1000 by 1000 that the page stretches, and the scales of its axes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, floor, isfinite, log, log10

Place = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Numbers to places in ``[0, 1000]``; what lies outside is put on the border, what is not finite at the end."""

    low: float
    high: float
    logarithmic: bool = False
    flip: bool = False

    def __call__(self, value: float | None) -> float:
        """The place of a value."""
        if value is None or not isfinite(value):
            share = 1.0
        elif self.logarithmic:
            share = log(max(value, self.low) / self.low) / log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        share = min(max(share, 0.0), 1.0)
        return round(1000 * (1 - share if self.flip else share), 1)

    @property
    def ticks(self) -> list[float]:
        """Round numbers within the scale, about five.

        >>> Scale(0, 12).ticks, Scale(0.05, 2, logarithmic=True).ticks
        ([0, 2, 4, 6, 8, 10, 12], [0.05, 0.1, 0.2, 0.5, 1, 2])
        """
        if self.logarithmic:
            decades = range(floor(log10(self.low)), floor(log10(self.high)) + 1)
            steps = (1, 2, 5) if len(decades) <= 3 else (1,)
            candidates = [float(f"{step}e{decade}") for decade in decades for step in steps]
        else:
            rough = (self.high - self.low) / 5
            unit = 10.0 ** floor(log10(rough))
            unit *= next(step for step in (1, 2, 5, 10) if step * unit >= 0.8 * rough)
            candidates = [float(f"{unit * k:.6g}") for k in range(floor(self.low / unit), floor(self.high / unit) + 1)]
        margin = 0.0 if self.logarithmic else 1e-9 * (self.high - self.low)  # linear ticks are products, and rounded
        inside = [tick for tick in candidates if self.low - margin <= tick <= self.high + margin]
        return [int(tick) if tick == int(tick) else tick for tick in inside]


def loss_scale(losses: Iterable[float], share: float = 0.97) -> Scale:
    """For losses, up the page, that holds this share of them; logarithmic where they span more than a factor of 5."""
    finite = sorted(loss for loss in losses if isfinite(loss))
    if not finite:
        return Scale(0.0, 1.0, flip=True)
    low, high = finite[0], finite[ceil(share * (len(finite) - 1))]
    if low > 0 and high > 5 * low:
        return Scale(0.94 * low, 1.06 * high, logarithmic=True, flip=True)
    margin = 0.06 * (high - low) or 0.1 * abs(low) or 1.0
    return Scale(low - margin, high + margin, flip=True)


def cost_scale(costs: Iterable[float]) -> Scale:
    """For what a machine costs, across the page; logarithmic where the largest is more than 5 times the smallest."""
    scale = loss_scale(costs, share=1.0)
    return replace(scale, flip=False)


def count_scale(first: int, last: int) -> Scale:
    """For whole numbers across the page."""
    return Scale(first, max(last, first + 1))


def polyline(points: Iterable[Place]) -> str:
    """Points joined, as an SVG path."""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def dots(points: Iterable[Place]) -> str:
    """Points apart, as an SVG path of strokes without length: round caps make them dots of any stretched picture."""
    return "".join(f"M{x:g} {y:g}h0" for x, y in points)


def bends(points: Iterable[Place], most: int) -> str:
    """Points joined, at most so many of them, in whole numbers: an SVG path for a faint line among many.

    >>> bends([(0, 0), (10.4, 5), (20, 9.6)], 2)
    'M0 0l20 10'
    """
    line = list(points)
    kept = [line[i] for i in sorted({round(k * (len(line) - 1) / max(1, most - 1)) for k in range(most)})]
    whole = [(round(x), round(y)) for x, y in kept]
    moves = [(x1 - x0, y1 - y0) for (x0, y0), (x1, y1) in pairwise(whole)]
    return f"M{whole[0][0]} {whole[0][1]}" + "".join(f"l{dx} {dy}" for dx, dy in moves)


def stairs(points: Sequence[Place]) -> str:
    """A line that keeps its height until the next point, as an SVG path."""
    if not points:
        return ""
    (x, y), *rest = points
    return f"M{x:g} {y:g}" + "".join(f"H{px:g}V{py:g}" for px, py in rest)
