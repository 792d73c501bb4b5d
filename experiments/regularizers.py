"""What each regularizer of the paper's conclusion does: on blocks, on single weights, on neighbouring lags.

python -m experiments.regularizers            about a minute and a half on one core
"""

import copy
from statistics import fmean
from typing import Any

import torch

import machgraph as mg
from experiments.fit import accuracy, cross_entropy, digits, fit, tensors
from experiments.results import write
from machgraph.regularize import prune_blocks, prune_weights, shrink_blocks, smoothness, weight_mask

BLOCKS = (64, 16, 16, 16, 16, 10)
TICKET = (64, 64, 32, 10)


def main(*, seeds: int = 3, epochs: int = 30) -> dict[str, Any]:
    """All three; every row is a mean over the seeds, on the held-out test part."""
    return {"blocks": blocks(seeds, epochs), "tickets": tickets(seeds, epochs), "lags": lags(5 * seeds)}


def blocks(
    seeds: int, epochs: int, strengths: tuple[float, ...] = (0.0, 1e-3, 1.3e-3, 1.6e-3, 2e-3, 5e-3)
) -> list[dict[str, Any]]:
    """The group lasso on digits, by its proximal step: the shortcuts that are left, and what that costs.

    Plain gradient descent, for which the proximal step is exact: Adam scales the loss and would not scale the penalty.
    """
    rows = []
    for strength in strengths:
        found = []
        for seed in range(seeds):
            data = digits(seed)
            machine = _machine(BLOCKS, seed)
            fit(
                machine,
                *tensors(data.train),
                cross_entropy,
                epochs=epochs,
                rate=0.1,
                batch=32,
                seed=seed,
                optimizer=torch.optim.SGD,
                after_step=lambda machine, rate, strength=strength: shrink_blocks(machine, rate * strength),
            )
            pruned = prune_blocks(machine)
            found.append((int(pruned.shortcuts.sum()), pruned.parameter_count(), accuracy(pruned, *tensors(data.test))))
        edges, parameters, score = (fmean(column) for column in zip(*found, strict=True))
        rows.append({"strength": strength, "edges": edges, "parameters": parameters, "test": score})
        print(f"group lasso {strength:8g}: {edges:5.1f} edges, {parameters:7.0f} parameters, {score:.4f}", flush=True)
    return rows


def tickets(seeds: int, epochs: int, shares: tuple[float, ...] = (1.0, 0.3, 0.1, 0.05)) -> list[dict[str, Any]]:
    """Magnitude pruning on digits: just pruned; trained again from the old start; and from a start drawn anew."""
    rows = []
    data = [digits(seed) for seed in range(seeds)]
    starts = [_machine(TICKET, seed) for seed in range(seeds)]
    finished = [copy.deepcopy(start) for start in starts]
    for seed, machine in enumerate(finished):
        fit(machine, *tensors(data[seed].train), cross_entropy, epochs=epochs, seed=seed)
    for keep in shares:
        found = []
        for seed, (start, trained) in enumerate(zip(starts, finished, strict=True)):
            train, test = tensors(data[seed].train), tensors(data[seed].test)
            pruned = prune_weights(trained, keep)
            scores = [accuracy(pruned, *test)]
            for begin in (start, _machine(TICKET, 1000 + seed)):
                ticket = prune_weights(trained, keep, rewind=begin)
                fit(ticket, *train, cross_entropy, epochs=epochs, seed=seed)
                scores.append(accuracy(ticket, *test))
            found.append((int(weight_mask(pruned).sum()), *scores))
        weights, only, rewound, redrawn = (fmean(column) for column in zip(*found, strict=True))
        rows.append({"keep": keep, "weights": weights, "pruned": only, "rewound": rewound, "redrawn": redrawn})
        print(f"keep {keep:5g}: pruned {only:.4f}, rewound {rewound:.4f}, drawn anew {redrawn:.4f}", flush=True)
    return rows


def lags(
    seeds: int, strengths: tuple[float, ...] = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), longest: int = 24, steps: int = 80
) -> list[dict[str, Any]]:
    """A smooth response over 25 lags from 80 noisy steps of time: the error of the one that is found.

    The loss is quadratic, so LBFGS solves it: the difference between the rows is the penalty alone.
    """
    rows = []
    time = torch.arange(longest + 1, dtype=torch.float64)
    true = torch.sin(time / 4) * torch.exp(-time / 8)
    for strength in strengths:
        errors, roughness = [], []
        for seed in range(seeds):
            generator = torch.Generator().manual_seed(seed)
            machine, teacher = (_response(longest) for _ in range(2))
            with torch.no_grad():
                teacher.weight[1, 0] = true
                x = torch.randn(1, steps, generator=generator, dtype=torch.float64)
                y = teacher.output(teacher(x)) + 0.5 * torch.randn(1, steps, generator=generator, dtype=torch.float64)
            optimizer = torch.optim.LBFGS(machine.parameters(), max_iter=200, line_search_fn="strong_wolfe")

            def closure(machine=machine, x=x, y=y, optimizer=optimizer, strength=strength):
                optimizer.zero_grad()
                loss = (machine.output(machine(x)) - y).square().mean() + strength * smoothness(machine)
                loss.backward()
                return loss

            optimizer.step(closure)
            found = machine.weight[1, 0].detach()
            errors.append(float((found - true).square().mean().sqrt()))
            roughness.append(float(smoothness(machine).detach()))
        rows.append({"strength": strength, "error": fmean(errors), "roughness": fmean(roughness)})
        print(f"smoothness {strength:5g}: error of the response {fmean(errors):.4f}", flush=True)
    return rows


def _machine(widths: tuple[int, ...], seed: int) -> mg.DenseMachine:
    hidden = ("relu",) * (len(widths) - 2)
    generator = torch.Generator().manual_seed(seed)
    return mg.DenseMachine(widths, activation=("identity", *hidden, "identity"), generator=generator)


def _response(longest: int) -> mg.RecurrentMachine:
    """A linear response to the last steps of one series: no block hears itself."""
    machine = mg.RecurrentMachine(
        (1, 1), longest, shortcuts=[[0, 0], [1, 0]], activation="identity", bias=False, dtype=torch.float64
    )
    with torch.no_grad():
        machine.weight.zero_()
    return machine


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(write("regularizers", "python -m experiments.regularizers", main()))
