"""A noisy sine, and which machines can tell its value 10 steps before or ahead; after a demo of the paper's authors.

Series of 63 steps of 0.1. In the demo all are the same sine, which a network can learn by heart; here each has a
frequency and a phase of its own, there is five times the noise, and the error is measured on fresh series. Three tasks:
the clean sine 10 steps before, the clean sine 10 steps ahead, and the noisy value itself 10 steps before.

A clean sine can be extrapolated, so a machine that does not hear the step in question only does worse. Noise can't: the
last task is possible where a machine hears 10 steps back, and elsewhere the error is at least the noise. What it
hears follows from the boxes, and is measured here by the gradient; whether training makes use of it is another matter.

    python -m experiments.noisy_sine            about half a minute
"""

from math import pi
from typing import Any

import torch
from torch import Tensor

import machgraph as mg
from experiments.results import write
from machgraph.parametric import ParametricMachine

STEPS, SHIFT, NOISE = 63, 10, 0.5  # noise: uniform, this wide
TASKS = {  # name: by how many steps the answer is moved, and whether it is the noisy series
    "clean, 10 steps before": (-SHIFT, False),
    "clean, 10 steps ahead": (SHIFT, False),
    "noisy, 10 steps before": (-SHIFT, True),
}
WIDTHS = (1, 8, 8, 1)
ACTIVATION = ("identity", "tanh", "tanh", "identity")


def machines(seed: int) -> dict[str, ParametricMachine]:
    """The networks compared; three links from input to output, all shortcuts."""

    def options() -> dict[str, Any]:
        return {"activation": ACTIVATION, "generator": torch.Generator().manual_seed(seed)}

    return {
        "causal convolution": mg.ConvMachine(WIDTHS, 4, padding="causal", **options()),
        "causal, dilated by 2": mg.ConvMachine(WIDTHS, 4, padding="causal", dilation=2, **options()),
        "convolution both ways": mg.ConvMachine(WIDTHS, 9, **options()),
        "recurrence": mg.RecurrentMachine(WIDTHS, 9, timeblock=5, **options()),
    }


def series(count: int, shift: int, noisy: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noisy sines and their answers, the clean or noisy ones moved by ``shift``: each ``(count, 1, STEPS)``."""
    phase = 2 * pi * torch.rand(count, 1, 1, generator=generator)
    frequency = 0.5 + torch.rand(count, 1, 1, generator=generator)
    t = 0.1 * torch.arange(-SHIFT, STEPS + SHIFT)
    clean = torch.sin(frequency * t + phase)
    x = clean + NOISE * (torch.rand(clean.shape, generator=generator) - 0.5)
    answer = x if noisy else clean
    return x[..., SHIFT : SHIFT + STEPS], answer[..., SHIFT + shift : SHIFT + shift + STEPS]


def reach(machine: ParametricMachine, steps: int = 4 * STEPS) -> tuple[int, int]:
    """How many steps back and ahead the output hears the input, as far as a series of so many steps shows."""
    middle = steps // 2
    x = torch.randn(1, 1, steps, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(machine.output(machine(x))[0, 0, middle], x)
    heard = gradient[0, 0].nonzero()[:, 0]
    return middle - int(heard.min()), int(heard.max()) - middle


def train(machine: ParametricMachine, shift: int, noisy: bool, seed: int, steps: int, rate: float = 0.02) -> None:
    """Fresh series in each step."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(machine.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        x, y = series(32, shift, noisy, generator)
        optimizer.zero_grad()
        (machine.output(machine(x)) - y).square().mean().backward()
        optimizer.step()
        schedule.step()


def main(*, steps: int = 500, seed: int = 0) -> dict[str, Any]:
    """Of each machine what it hears, and of each task its RMSE, by step and over the steps that are not at a border."""
    torch.set_num_threads(1)
    tasks: dict[str, Any] = {}
    heard = {name: reach(machine) for name, machine in machines(seed).items()}
    for task, (shift, noisy) in TASKS.items():
        x, y = series(500, shift, noisy, torch.Generator().manual_seed(1000))
        tasks[task] = {}
        for name, machine in machines(seed).items():
            train(machine, shift, noisy, seed, steps)
            with torch.no_grad():
                squares = (machine.output(machine(x)) - y).square().mean(dim=(0, 1))
            inside = squares[2 * SHIFT : -2 * SHIFT]
            back, ahead = heard[name]
            tasks[task][name] = {
                "hears_the_step": back >= -shift if shift < 0 else ahead >= shift,
                "rmse": round(float(inside.mean().sqrt()), 4),
                "rmse_by_step": [round(float(error), 4) for error in squares.sqrt()],
            }
    return {
        "noise_sd": round(NOISE / 12**0.5, 4),
        "tasks": tasks,
        "machines": {
            name: {"back": heard[name][0], "ahead": heard[name][1], "parameters": machine.parameter_count()}
            for name, machine in machines(seed).items()
        },
    }


if __name__ == "__main__":
    result = main()
    print(f"the noise has a standard deviation of {result['noise_sd']}")
    for task, rows in result["tasks"].items():
        for name, row in rows.items():
            hears = "hears the step" if row["hears_the_step"] else "does not hear it"
            print(f"{task:23} {name:22} {hears:18} RMSE {row['rmse']:.4f}")
    print(write("noisy_sine", "python -m experiments.noisy_sine", result))
