"""A process that tells the time at which it has done its first training step; ``experiments.speed`` starts it.

It imports no more than what its kind of step needs: that is what is timed.

    python -m experiments.first_step ours cpu
"""

import sys
import time
from importlib import import_module

WIDTHS, BATCH = (64, 16, 16, 16, 10), 64


def ours(device: str) -> None:
    import torch

    from machgraph import DenseMachine
    from machgraph.population import Population
    from machgraph.training import Objective, Optimizer, batches

    population = Population(Objective("cross_entropy"))
    population.enter(DenseMachine(WIDTHS, device=device), Optimizer())
    x, y = torch.randn(BATCH, WIDTHS[0], device=device), torch.randint(WIDTHS[-1], (BATCH,), device=device)
    population.descend(batches(x, y, BATCH)[0], [1.0])


def plain(device: str) -> None:
    import torch
    from torch import nn

    ends = [sum(WIDTHS[: i + 1]) for i in range(len(WIDTHS))]
    layers = nn.ModuleList(nn.Linear(end, width) for end, width in zip(ends, WIDTHS[1:], strict=False)).to(device)
    optimizer = torch.optim.AdamW(layers.parameters(), fused=True)
    z = [torch.randn(BATCH, WIDTHS[0], device=device)]
    for layer in layers:
        z.append(layer(torch.cat(z, dim=1)))
    nn.functional.cross_entropy(z[-1], torch.randint(WIDTHS[-1], (BATCH,), device=device)).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    z[-1].detach().sum().item()  # waits for a GPU


def nothing(device: str) -> None:
    import_module("torch")


if __name__ == "__main__":
    {"ours": ours, "plain": plain, "torch": nothing}[sys.argv[1]](sys.argv[2])
    print(time.time())
