"""The cofiltration of the index space (section 3), and the resolvent that fills machine space step by step.

Left, each index in the colour and with the number of the step that settles it; right, the values that are settled after
some of the steps. Four partitions of the same kind of set, time × channel: a dense machine has one time; a convolution
solves all times at once, block by block; a recurrence goes through time; and a partition given by hand does both.

``python -m figures.index_cofiltration`` writes it as SVG and PNG.
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

import machgraph as mg
from figures import HERE, save
from machgraph.activation import per_block
from machgraph.index import Box, plan
from machgraph.resolvent import resolvent

TIMES = 8
POINTS = 72.0  # an inch
BOXES = (
    Box((0, 1), (0, TIMES)),
    Box((1, 3), (0, 3)),
    Box((3, 4), (0, 3)),
    Box((1, 4), (3, 4)),
    Box((3, 4), (4, TIMES)),
    Box((1, 3), (4, TIMES)),
)


def rows(seed: int = 0) -> list[tuple[str, object, torch.Tensor]]:
    """For each row its title, a machine or a plan, and the solution ``z``, ``[channel, time]``."""
    generator = torch.Generator().manual_seed(seed)
    settings = {"activation": "tanh", "generator": generator, "bias": False}
    machines = [
        ("Dense: $I_i = J_i$", mg.DenseMachine((2, 2, 1), **settings)),
        ("Convolution: $I_i = \\{1, \\dots, n_t\\} \\times J_i$", mg.ConvMachine((1, 2, 1), 3, **settings)),
        ("Recurrence: $I_{t,i} = \\{t\\} \\times J_i$", mg.RecurrentMachine((1, 2, 1), 2, **settings)),
    ]
    drawn: list[tuple[str, object, torch.Tensor]] = []
    for title, machine in machines:
        with torch.no_grad():
            machine.weight.mul_(2.5)  # so that colours can be told apart
            size = (TIMES,) * machine.dimensions
            x = torch.randn(machine.partition.widths[0], *size, generator=generator)
            drawn.append((title, machine, machine(x)))
    by_hand = plan(BOXES, (0, -1, -2))
    channels = by_hand.channels
    weight = 0.7 * torch.randn(1, 3, channels, channels, generator=generator)
    y0 = torch.zeros(1, channels, TIMES)
    y0[:, 0] = torch.randn(TIMES, generator=generator)
    z = resolvent(by_hand, per_block("tanh", len(by_hand.blocks)), weight, None, y0)[1][0]
    return [*drawn, ("By hand, box by box", by_hand, z)]


def main(*, out: Path = HERE) -> list[Path]:
    """Draw the figure into the folder ``out``; returns what was written."""
    figure = Figure(facecolor="white")
    drawn = []
    for title, machine, z in rows():
        left, right = (figure.add_axes((0, 0, 1, 1), label=f"{title} {side}") for side in ("steps", "values"))
        mg.draw.index_cofiltration(machine, left, size=z.shape[1:])
        mg.draw.filling(z, machine, right, panels=4, columns=4)
        drawn.append((title, left, right))
    _place(figure, drawn)
    return save(figure, out, "index_cofiltration")


def _place(figure: Figure, drawn: list) -> None:
    """Rows one below the other, every axes at its own size, so that all cells and letters are of one size."""
    head, gap, margin = 22.0, 10.0, 8.0
    sizes = [(_size(left), _size(right)) for _, left, right in drawn]
    middle = max(left[0] for left, _ in sizes) + 12
    wide = 2 * margin + middle + max(right[0] for _, right in sizes)
    high = 2 * margin + sum(head + gap + max(left[1], right[1]) for left, right in sizes)
    figure.set_size_inches(wide / POINTS, high / POINTS)
    top = margin
    for (title, left, right), both in zip(drawn, sizes, strict=True):
        figure.text(margin / wide, 1 - (top + head / 2) / high, title, fontsize=10, ha="left", va="center")
        top += head
        for ax, x, (w, h) in ((left, margin, both[0]), (right, margin + middle, both[1])):
            ax.set_position((x / wide, 1 - (top + h) / high, w / wide, h / high))
        top += max(h for _, h in both) + gap


def _size(ax) -> tuple[float, float]:
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    return right - left, bottom - top


if __name__ == "__main__":
    for path in main():
        print(path)
