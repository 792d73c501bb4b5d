"""A physics-informed network for the 1-D Poisson equation: the loss holds second derivatives of the machine.

    -u''(x) = f(x) on (0, 1), u(0) = u(1) = 0, with the exact solution u(x) = sin(π x) + sin(4 π x) / 4.

The trial function ``u(x) = x (1 - x) N(x)`` meets the boundary by itself, so the loss is the equation alone. It
knows nothing of the exact solution; training differentiates the residual once more, by the parameters (third order).

    python -m experiments.poisson            about a minute on one core
"""

import time
from math import pi
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap

import machgraph as mg
from experiments.results import write
from machgraph.parametric import ParametricMachine


def exact(x: Tensor) -> Tensor:
    return torch.sin(pi * x) + torch.sin(4 * pi * x) / 4


def source(x: Tensor) -> Tensor:
    return pi**2 * torch.sin(pi * x) + 4 * pi**2 * torch.sin(4 * pi * x)


def trial(machine: ParametricMachine, x: Tensor) -> Tensor:
    """``u`` at points ``x`` of shape (n,)."""
    return x * (1 - x) * machine.output(machine(2 * x[:, None] - 1))[:, 0]


def second_derivative(machine: ParametricMachine, x: Tensor) -> Tensor:
    """``u''`` at each point: the gradient of the gradient of one number, the points side by side."""
    return vmap(grad(grad(lambda point: trial(machine, point[None])[0])))(x)


def main(*, seeds: int = 3, points: int = 64, iterations: int = 1000) -> list[dict[str, Any]]:
    """Errors against the exact solution on 1,001 points, with all shortcuts and as a plain perceptron of equal size."""
    rows = []
    networks: list[tuple[str, tuple[int, ...], str | None]] = [
        ("all shortcuts", (1, 16, 16, 16, 1), None),
        ("sequential", (1, 20, 20, 20, 1), "sequential"),
    ]
    for name, widths, shortcuts in networks:
        for seed in range(seeds):
            machine = mg.DenseMachine(
                widths,
                activation=("identity", "tanh", "tanh", "tanh", "identity"),
                shortcuts=shortcuts,
                dtype=torch.float64,
                generator=torch.Generator().manual_seed(seed),
            )
            begun = time.process_time()
            residual = solve(machine, points, iterations)
            seconds = time.process_time() - begun
            largest, relative = errors(machine)
            rows.append(
                {
                    "network": name,
                    "seed": seed,
                    "parameters": machine.parameter_count(),
                    "residual": residual,
                    "largest_error": largest,
                    "relative_l2_error": relative,
                    "seconds": round(seconds, 1),
                }
            )
            print(f"{name:14} seed {seed}: residual {residual:.2e}, error {largest:.2e} ({seconds:.1f} s)", flush=True)
        print(f"{name}: mean largest error {fmean(r['largest_error'] for r in rows if r['network'] == name):.2e}")
    return rows


def solve(machine: ParametricMachine, points: int, iterations: int) -> float:
    """Train on evenly spread points by LBFGS; returns the root mean square of what is left of ``u'' + f``."""
    x = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    f = source(x)
    optimizer = torch.optim.LBFGS(
        machine.parameters(),
        max_iter=iterations,
        history_size=50,
        tolerance_grad=1e-9,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        return (second_derivative(machine, x) + f).square().mean()

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    return float(loss().detach().sqrt())


def errors(machine: ParametricMachine) -> tuple[float, float]:
    """The largest error, and the error relative to the solution in the mean square."""
    x = torch.linspace(0, 1, 1001, dtype=torch.float64)
    with torch.no_grad():
        u, expected = trial(machine, x), exact(x)
    return float((u - expected).abs().max()), float((u - expected).norm() / expected.norm())


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(write("poisson", "python -m experiments.poisson", main()))
