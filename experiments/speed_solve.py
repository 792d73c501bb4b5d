"""The speed of one machine, solved and differentiated by autograd: against concatenations, layers and nn.RNN."""

from collections.abc import Mapping
from dataclasses import asdict
from inspect import getclosurevars
from typing import Any

import torch
from torch import Tensor, nn

import machgraph as mg
from experiments import peers, table1
from experiments.speed_rows import Effort, Row, Target, row, seconds
from experiments.timing import Contender, Quartiles, Samples, alternate
from machgraph.parametric import ParametricMachine

BACKWARD_TO_FORWARD = Target("at most", 1.1)
MACHINES = {"small": Target("at least", 3), "medium": Target("at least", 1)}


def machines(effort: Effort, device: str, dtype: torch.dtype) -> list[Row]:
    """Table 1's machines, forward and backward to the input: ours against autograd over concatenations."""
    rows = []
    for kind in table1.KINDS:
        for size, target in MACHINES.items():
            case, learning = (_in_type(table1.case(kind, size, device), dtype) for _ in range(2))
            learning.machine.requires_grad_(True)
            concatenations = [table1.concatenations(one.machine) for one in (case, learning)]
            contenders = _passes(case, "ours", case.machine.solve)
            contenders |= _passes(case, "concatenations", concatenations[0])
            contenders |= _passes(case, "nothing", _nothing)
            contenders["ours, with W"] = _all_gradients(learning, learning.machine.solve, [learning.machine.weight])
            weights = _weights(concatenations[1])
            contenders["concatenations, with W"] = _all_gradients(learning, concatenations[1], weights)
            samples = alternate(contenders, rounds=effort.rounds, seconds=effort.seconds / 2, device=device)
            told = {"dtype": str(dtype).partition(".")[2], **_with_weights(samples, target), **_passes_apart(samples)}
            rows.append(
                row(f"{kind} {size}", samples["concatenations"], samples["ours"], target, **told, **seconds(samples))
            )
    return rows


def _with_weights(samples: Mapping[str, Samples], target: Target) -> Row:
    """The ratio where the gradient of W is taken too."""
    ratio = Quartiles.of(samples["concatenations, with W"] / samples["ours, with W"])
    return {"ratio_with_weights": asdict(ratio), "target_with_weights": target.told(ratio.median)}


def _passes_apart(samples: Mapping[str, Samples]) -> Row:
    """Backward over forward: of ours, of ours without what torch takes for a function of its own, of the peer."""
    back, forth = samples["ours, backward"], samples["ours, forward"]
    inside = (back - samples["nothing, backward"]) / (forth - samples["nothing, forward"])
    theirs = samples["concatenations, backward"] / samples["concatenations, forward"]
    ratios = {"ours": back / forth, "ours_inside_torch": inside, "concatenations": theirs}
    told = {name: asdict(Quartiles.of(ratio)) for name, ratio in ratios.items()}
    return {"backward_over_forward": told, "target_of_passes": BACKWARD_TO_FORWARD.told(told["ours"]["median"])}


class _Nothing(torch.autograd.Function):
    """What torch alone takes for a function of its own: nothing is computed in either pass."""

    @staticmethod
    def forward(ctx: Any, y0: Tensor, z0: Tensor) -> tuple[Tensor, Tensor]:
        return torch.empty_like(y0), torch.empty_like(z0)

    @staticmethod
    def backward(ctx: Any, v0: Tensor, u0: Tensor) -> tuple[Tensor, Tensor]:
        return v0, u0


def _nothing(y0: Tensor, z0: Tensor) -> tuple[Tensor, Tensor]:
    y, z = _Nothing.apply(y0, z0)  # type: ignore[no-untyped-call]
    return y, z


def _in_type(case: table1.Case, dtype: torch.dtype) -> table1.Case:
    y0, z0, v0, u0 = (x.detach().to(dtype) for x in (case.y0, case.z0, case.v0, case.u0))
    return table1.Case(case.machine.to(dtype), y0.requires_grad_(), z0.requires_grad_(), v0, u0)


def _passes(case: table1.Case, name: str, solve: table1.Solve) -> dict[str, Contender]:
    """Both passes together, and each alone."""
    solution = solve(case.y0, case.z0)

    def both() -> object:
        return torch.autograd.grad(solve(case.y0, case.z0), (case.y0, case.z0), (case.v0, case.u0))

    return {
        name: Contender(both),
        f"{name}, forward": Contender(lambda: solve(case.y0, case.z0)),
        f"{name}, backward": Contender(lambda: table1.backward(solution, case)),
    }


def _all_gradients(case: table1.Case, solve: table1.Solve, weights: list[Tensor]) -> Contender:
    """Both passes, with the gradients of all weights."""
    inputs = (case.y0, case.z0, *weights)
    return Contender(
        lambda: torch.autograd.grad(solve(case.y0, case.z0), inputs, (case.v0, case.u0), allow_unused=True)
    )


def _weights(solve: table1.Solve) -> list[Tensor]:
    """The matrices and kernels that the concatenations are multiplied with."""
    found = getclosurevars(solve).nonlocals
    return [weight for name in ("weights", "near", "far") for weight in found.get(name, [])]


# ---- with the gradients of all weights ---------------------------------------------------------------------------

HIDDEN = {
    16: Target("at most", 0.6), 32: Target("at most", 0.6), 64: Target("at most", 0.6), 128: Target("at most", 0.9),
}  # fmt: skip
RNN_INPUTS, RNN_BATCH, RNN_STEPS = 16, 32, 100

# channels of each block, samples, positions: Table 1's, and a longer series
LAYERS = {
    "dense small": (2, 2, None, Target("at least", 1)),
    "dense medium": (32, 32, None, Target("at least", 1)),
    "convolution small": (2, 2, 16, Target("at least", 1)),
    "convolution medium": (32, 32, 16, Target("at least", 1)),
    "convolution long": (8, 32, 64, Target("at least", 1)),
}


def recurrences(effort: Effort, device: str) -> list[Row]:
    """A recurrence against ``nn.RNN`` with the same weights: forward, and backward to all weights."""
    rows = []
    for hidden, target in HIDDEN.items():
        torch.manual_seed(0)
        rnn = nn.RNN(RNN_INPUTS, hidden).to(device)  # (time, sample, channel), in which torch is fastest
        machine = mg.from_rnn(rnn)
        x = torch.randn(RNN_BATCH, RNN_INPUTS, RNN_STEPS, device=device)
        v = torch.randn(RNN_BATCH, hidden, RNN_STEPS, device=device)
        series, cotangents = (t.permute(2, 0, 1).contiguous() for t in (x, v))
        solvers = {
            "ours": (lambda m=machine, x=x: m.output(m(x)), v, list(machine.parameters())),
            "nn.RNN": (lambda m=rnn, x=series: m(x)[0], cotangents, list(rnn.parameters())),
        }
        samples, away = _learning(solvers, lambda z: z.permute(1, 2, 0), effort, device)
        told = {"inputs": RNN_INPUTS, "batch": RNN_BATCH, "steps": RNN_STEPS, "largest_difference": away}
        rows.append(row(f"{hidden} hidden", samples["ours"], samples["nn.RNN"], target, **told, **seconds(samples)))
    return rows


def layers(effort: Effort, device: str) -> list[Row]:
    """Machines against layers on concatenations with tanh: forward, and backward to all weights."""
    rows = []
    for name, (channels, batch, positions, target) in LAYERS.items():
        generator, widths = torch.Generator().manual_seed(0), (channels,) * table1.BLOCKS
        activation = ("identity", *["tanh"] * (table1.BLOCKS - 1))
        size = () if positions is None else (positions,)
        kernel = None if positions is None else table1.KERNEL
        machine: ParametricMachine
        if kernel is None:
            machine = mg.DenseMachine(widths, activation=activation, generator=generator)
        else:
            machine = mg.ConvMachine(widths, kernel, activation=activation, generator=generator)
        plain = peers.network(machine, activation[1:], kernel).to(device)
        machine = machine.to(device)
        x, v = torch.randn(2, batch, channels, *size, generator=generator).to(device)
        solvers = {
            "ours": (lambda m=machine, x=x: m.output(m(x)), v, list(machine.parameters())),
            "layers": (lambda m=plain, x=x: m(x), v, list(plain.parameters())),
        }
        samples, away = _learning(solvers, lambda z: z, effort, device)
        told = {"channels": channels, "batch": batch, "positions": positions, "largest_difference": away}
        rows.append(row(name, samples["layers"], samples["ours"], target, **told, **seconds(samples)))
    return rows


def _learning(solvers: Any, seen: Any, effort: Effort, device: str) -> tuple[dict[str, Samples], float]:
    """Times of forward and backward, and how far the outputs are apart; ``seen`` lays out the peer's as ours."""

    def passes(solve: Any, v: Tensor, parameters: list[Tensor]) -> Contender:
        return Contender(lambda: torch.autograd.grad(solve(), parameters, v))

    (ours, *_), (theirs, *_) = solvers.values()
    with torch.no_grad():
        away = float((ours() - seen(theirs())).abs().max())
    contenders = {name: passes(*solver) for name, solver in solvers.items()}
    return alternate(contenders, rounds=effort.rounds, seconds=effort.seconds, device=device), away
