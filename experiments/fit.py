"""What the small experiments share: plain training of one machine in batches, and the score of its answers."""

from collections.abc import Callable

import torch
from torch import Tensor

from machgraph.parametric import ParametricMachine
from search.data import Dataset, Part, load


def digits(seed: int) -> Dataset:
    """The bundled digits, split by the seed."""
    return load("digits", seed=seed)


def tensors(part: Part) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(part.x), torch.from_numpy(part.y)


def fit(
    machine: ParametricMachine,
    x: Tensor,
    y: Tensor,
    loss: Callable[[ParametricMachine, Tensor, Tensor], Tensor],
    *,
    epochs: int,
    rate: float = 3e-3,
    batch: int = 64,
    seed: int = 0,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    after_step: Callable[[ParametricMachine, float], None] = lambda machine, rate: None,
) -> None:
    """Adam, or another optimizer, with a cosine schedule; ``after_step`` gets the machine and the rate of the step."""
    generator = torch.Generator().manual_seed(seed)
    steps = optimizer(machine.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(steps, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(batch):
            steps.zero_grad()
            loss(machine, x[rows], y[rows]).backward()
            steps.step()
            after_step(machine, steps.param_groups[0]["lr"])
        schedule.step()


def cross_entropy(machine: ParametricMachine, x: Tensor, y: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(machine.output(machine(x)), y)


def accuracy(machine: ParametricMachine, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((machine.output(machine(x)).argmax(-1) == y).double().mean())
