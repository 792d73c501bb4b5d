"""A polynomial surface learned by a dense machine from a grid of 6 × 6 points; after a demo of the paper's authors.

    p(x, y) = (2 x - 1)² + 2 y + x y - 3        on the unit square

Three hidden blocks of 4 with all shortcuts, as in the demo, whose readout is the last block here; beside it the same
blocks without shortcuts, and a plane. The error is measured on a grid of 14 × 14 points, most of them never seen.

    python -m experiments.polynomial            about half a minute
"""

from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

import machgraph as mg
from experiments.results import write

WIDTHS = (2, 4, 4, 4, 1)
ACTIVATION = ("identity", "sigmoid", "sigmoid", "sigmoid", "identity")
TRAIN, TEST, SHOWN = 6, 14, 21  # points along each side


def polynomial(points: Tensor) -> Tensor:
    """``p`` at points ``(..., 2)``."""
    x, y = points.unbind(-1)
    return (2 * x - 1) ** 2 + 2 * y + x * y - 3


def grid(points: int) -> Tensor:
    """The unit square, ``(points², 2)``; x is the outer one."""
    side = torch.linspace(0, 1, points, dtype=torch.float64)
    return torch.cartesian_prod(side, side)


def fitted(shortcuts: str | None, seed: int, steps: int, rate: float = 0.1) -> mg.DenseMachine:
    """A machine trained on the small grid, all of it in each step."""
    generator = torch.Generator().manual_seed(seed)
    machine = mg.DenseMachine(
        WIDTHS, activation=ACTIVATION, shortcuts=shortcuts, generator=generator, dtype=torch.float64
    )
    points = grid(TRAIN)
    optimizer = torch.optim.Adam(machine.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (predicted(machine, points) - polynomial(points)).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
    return machine


def predicted(machine: mg.DenseMachine, points: Tensor) -> Tensor:
    """The one channel of the last block."""
    return machine.output(machine(points))[..., 0]


def plane(points: Tensor) -> Tensor:
    """The least-squares plane through the training points, at others."""

    def with_constant(at: Tensor) -> Tensor:
        return torch.cat([at, torch.ones_like(at[:, :1])], dim=1)

    known = grid(TRAIN)
    return with_constant(points) @ torch.linalg.lstsq(with_constant(known), polynomial(known)).solution


def rmse(outputs: Tensor) -> float:
    """On the grid of 14 × 14 points."""
    return float((outputs - polynomial(grid(TEST))).square().mean().sqrt())


def main(*, seeds: int = 3, steps: int = 2000) -> dict[str, Any]:
    """RMSE of each, and the surface that the first machine learned."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {"test": {"plane": {"rmse": round(rmse(plane(grid(TEST))), 4)}}}
    for name, shortcuts in (("no shortcuts", "sequential"), ("all shortcuts", None)):
        machines = [fitted(shortcuts, seed, steps) for seed in range(seeds)]
        with torch.no_grad():
            errors = [rmse(predicted(machine, grid(TEST))) for machine in machines]
            surface = predicted(machines[0], grid(SHOWN))
        result["test"][name] = {"rmse": round(fmean(errors), 4), "seeds": [round(error, 4) for error in errors]}
        if seeds > 1:
            result["test"][name]["sd"] = round(stdev(errors), 4)
        result["test"][name]["parameters"] = machines[0].parameter_count()
    result["train_points"] = TRAIN  # along each side
    result["truth"] = polynomial(grid(SHOWN)).view(SHOWN, SHOWN).round(decimals=3).tolist()
    result["prediction"] = surface.view(SHOWN, SHOWN).round(decimals=3).tolist()  # of the last: all shortcuts
    return result


if __name__ == "__main__":
    result = main()
    for name, row in result["test"].items():
        print(f"{name:14} RMSE {row['rmse']:.4f}" + (f" ± {row['sd']:.4f}" if "sd" in row else ""))
    print(write("polynomial", "python -m experiments.polynomial", result))
