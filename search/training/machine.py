"""From a point of the space to a machine, and from the rows of the data to what the machine reads and answers."""

import torch
from torch import Tensor

from machgraph.parametric import ConvMachine, DenseMachine, RecurrentMachine
from machgraph.parametric_machine import ParametricMachine
from machgraph.training import Reading
from search.graph.network import Network
from search.point import Kind, Point
from search.shape import Shape

ROWS = 1024  # of data that a network of a graph space is given at once


def build(point: Point, shape: Shape, seed: int) -> ParametricMachine:
    """The machine of a point, with the initial weights that the seed draws."""
    activation = ("identity", *point.activations, "identity")
    generator = torch.Generator().manual_seed(seed)
    widths = point.partition(shape).widths
    if point.kind == "dense":
        return DenseMachine(widths, activation=activation, shortcuts=point.mask, generator=generator)
    if point.kind == "recurrence":
        return RecurrentMachine(
            widths,
            len(point.recurrences),
            activation=activation,
            timeblock=point.timeblock,
            shortcuts=point.masks,
            generator=generator,
        )
    axes = len(shape.size)
    return ConvMachine(
        widths,
        (point.kernel,) * axes,
        activation=activation,
        shortcuts=point.mask,
        dilation=point.dilation,
        scales=(0, *point.scales),
        generator=generator,
    )


def laid_out(x: Tensor, shape: Shape, kind: Kind) -> Tensor:
    """Rows of features as a machine of this kind reads them: ``(row, feature)`` or ``(row, channel, *size)``.

    The last axis of a series is time.
    """
    return x if kind == "dense" else x.reshape(-1, *shape.image)


def answers(machine: ParametricMachine | Network, x: Tensor, shape: Shape) -> Tensor:
    """What a machine says of rows of features, ``(row, output)``: its last block, where ``reading`` says."""
    if isinstance(machine, Network):
        return torch.cat([machine(rows) for rows in torch.split(x, ROWS)]) if len(x) else x.new_zeros(0, shape.outputs)
    kind: Kind = "convolution" if isinstance(machine, ConvMachine) else "recurrence"
    if isinstance(machine, DenseMachine):
        return machine.output(machine(x))
    outputs = machine.output(machine(laid_out(x, shape, kind)))
    return outputs[..., -1] if reading(kind) == "last" else outputs.flatten(2).mean(2)


def reading(kind: Kind) -> Reading:
    """Where a machine of this kind answers: at the last step of time, or as the mean over positions."""
    return "last" if kind == "recurrence" else "mean"
