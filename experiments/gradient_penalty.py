"""Double backpropagation (Drucker and Le Cun): a penalty on the gradient of the loss by the input, on digits.

Training minimizes ``loss + strength * |∂loss/∂x|²``, so each step differentiates through a backward pass: the dual
machine of a dual machine. Then three questions on the held-out test part: the accuracy as it is, with noise on the
input, and against a step along the sign of the gradient.

    python -m experiments.gradient_penalty            about a minute on one core
"""

from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

import machgraph as mg
from experiments.fit import accuracy, cross_entropy, digits, fit, tensors
from experiments.results import write
from machgraph.parametric import ParametricMachine

WIDTHS = (64, 64, 32, 10)
MEASURES = ("test", "noise", "adversarial", "gradient")


def main(
    *,
    seeds: int = 5,
    epochs: int = 30,
    strengths: tuple[float, ...] = (0.0, 0.1, 1.0, 10.0, 100.0),
    noise: float = 0.5,
    attack: float = 0.15,
) -> list[dict[str, Any]]:
    """A row for each strength: means and standard deviations over the seeds, inputs scaled to unit variance."""
    rows = []
    for strength in strengths:
        found = [measure(strength, seed, epochs, noise, attack) for seed in range(seeds)]
        row: dict[str, Any] = {"strength": strength, "noise": noise, "attack": attack}
        for name, column in zip(MEASURES, zip(*found, strict=True), strict=True):
            row |= {name: fmean(column), f"{name}_sd": stdev(column)}
        rows.append(row)
        print(f"strength {strength:5g}: " + ", ".join(f"{name} {row[name]:.4f}" for name in MEASURES), flush=True)
    return rows


def measure(strength: float, seed: int, epochs: int, noise: float, attack: float) -> tuple[float, ...]:
    """Accuracies as they are, under noise and under attack, and the mean length of the gradient by the input."""
    data = digits(seed)
    x, y = tensors(data.train)
    machine = mg.DenseMachine(
        WIDTHS,
        activation=("identity", "silu", "silu", "identity"),
        generator=torch.Generator().manual_seed(seed),
    )

    def loss(machine: ParametricMachine, x: Tensor, y: Tensor) -> Tensor:
        if not strength:
            return cross_entropy(machine, x, y)
        value, gradient = loss_and_gradient(machine, x, y)
        return value.mean() + strength * gradient.square().sum(-1).mean()

    fit(machine, x, y, loss, epochs=epochs, batch=32, seed=seed)
    x, y = tensors(data.test)
    generator = torch.Generator().manual_seed(seed)
    noisy = x + noise * torch.randn(x.shape, generator=generator)
    gradient = loss_and_gradient(machine, x, y)[1].detach()
    attacked = x + attack * gradient.sign()
    scores = (accuracy(machine, inputs, y) for inputs in (x, noisy, attacked))
    return *scores, float(gradient.norm(dim=-1).mean())


def loss_and_gradient(machine: ParametricMachine, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each sample, and its gradient by that sample's input; both can be differentiated again."""
    x = x.detach().requires_grad_()
    losses = torch.nn.functional.cross_entropy(machine.output(machine(x)), y, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
    return losses, gradient


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(write("gradient_penalty", "python -m experiments.gradient_penalty", main()))
