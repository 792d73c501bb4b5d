"""The cost of a machine against the numbers that its mask leaves: forward, backward and all gradients, axis by axis.

A weight that the mask leaves is multiplied three times for each column (a sample at a position): forward, in the dual,
and for the gradient of W. So a machine has 6 × entries × columns floating-point operations, and the limit is how long
``torch.mm`` takes for as many: a product of 1024 × 1024 in float32, measured in the same rounds on one thread.

Each sweep varies one axis; density is that of a random mask of blocks. "Products" counts how many the loop does one
after the other in the forward pass. "Rest" is the time of the same machine with an empty mask: Python and autograd, σ
and σ', and what is read and written whatever the mask leaves, among it a gradient as large as W. "Torch" is the same
machine by the reference executor. Populations are one training step with AdamW of that many different architectures;
nothing is carried back into their inputs, so there operations are counted without that.

    python -m experiments.cost                     some minutes
    python -m experiments.cost --sweep density     one sweep, which is shown and not written
"""

import argparse
import copy
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

import machgraph as mg
from experiments.results import write
from experiments.timing import Contender, Quartiles, Samples, alternate
from machgraph.parametric import ParametricMachine
from machgraph.plan import Accumulate, Plan, Repeat
from machgraph.population import Population
from machgraph.training import Objective, Optimizer, batches

GEMM = 1024  # rows and columns of the product whose rate is the limit
MEMORY = 2e9  # bytes that a row may need
SECONDS = 60.0  # that one call may take, at a tenth of the rate of the limit
LAGS, KERNEL = 2, (3, 3)


@dataclass(frozen=True)
class Setting:
    """One machine and its input.

    Parameters
    ----------
    kind : dense, convolution (of 3 × 3, in two dimensions), recurrence (lags 0 to 2), or population.
    blocks, width : of the machine, each block of the same width; of a population, how many machines.
    density : of the blocks that may be heard, how many are.
    batch : samples.
    size : pixels along each axis, or steps.
    """

    kind: str = "dense"
    blocks: int = 16
    width: int = 32
    density: float = 1.0
    batch: int = 128
    size: int = 1


@dataclass(frozen=True)
class Sweep:
    """Settings that differ along one axis, by their values of it."""

    title: str
    settings: dict[float, Setting]


def _powers(first: int, last: int, base: int = 2) -> list[int]:
    values = [first]
    while values[-1] * base <= last:
        values.append(values[-1] * base)
    return values


def _sweep(title: str, axis: str, setting: Setting, values: Iterable[float]) -> Sweep:
    return Sweep(title, {value: replace(setting, **{axis: value}) for value in values})


DENSITIES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 0.9, 1.0)
SWEEPS = {
    "depth": _sweep("depth: blocks of 16, batch 128", "blocks", Setting(width=16), _powers(2, 512)),
    "width": _sweep("width of 3 blocks, batch 128", "width", Setting(blocks=3), _powers(2, 4096)),
    "batch": _sweep("batch, 16 blocks of 32", "batch", Setting(), _powers(1, 4096)),
    "density": _sweep("density, 32 blocks of 32", "density", Setting(blocks=32), DENSITIES),
    "density of 8": _sweep("density, 128 blocks of 8", "density", Setting(blocks=128, width=8), DENSITIES),
    "density of 2": _sweep("density, 256 blocks of 2", "density", Setting(blocks=256, width=2), DENSITIES),
    "block": Sweep(
        "512 units in blocks of so many, batch 128", {w: Setting(blocks=512 // w, width=w) for w in _powers(1, 256)}
    ),
    "steps": _sweep(
        "steps of a recurrence, 3 blocks of 32, batch 16",
        "size",
        Setting("recurrence", blocks=3, batch=16),
        (10, 30, 100, 300, 1000, 3000, 10000),
    ),
    "pixels": _sweep(
        "side of an image, 4 blocks of 16 channels, 3 × 3, batch 8",
        "size",
        Setting("convolution", blocks=4, width=16, batch=8),
        _powers(4, 128),
    ),
    "population": _sweep(
        "different architectures, 64 to 10 by 1 to 4 blocks of 8 to 64",
        "blocks",
        Setting("population"),
        _powers(1, 1024, 4),
    ),
}


# ---- what is measured --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """A setting to be timed.

    Parameters
    ----------
    entries : of W, that the mask leaves.
    columns : samples × positions.
    flops : of a call.
    products : that a forward pass does, one after the other.
    calls : by name: ``machgraph``, and where they make sense ``rest`` and ``torch``.
    """

    entries: int
    columns: int
    flops: int
    products: int
    calls: dict[str, Callable[[], object]]


def machine_of(setting: Setting, seed: int = 0) -> ParametricMachine:
    """A machine with a random mask and random weights."""
    widths, options = (setting.width,) * setting.blocks, {"generator": torch.Generator().manual_seed(seed)}
    machine: ParametricMachine
    if setting.kind == "dense":
        machine = mg.DenseMachine(widths, activation="tanh", shortcuts=_mask(setting, seed), **options)
    elif setting.kind == "convolution":
        machine = mg.ConvMachine(widths, KERNEL, activation="tanh", shortcuts=_mask(setting, seed), **options)
    else:
        machine = mg.RecurrentMachine(widths, LAGS, activation="tanh", **options)
    return machine


def _mask(setting: Setting, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return np.tril(rng.random((setting.blocks, setting.blocks)) < setting.density, -1)


def work(setting: Setting, seed: int = 0) -> Work:
    """The calls that a setting stands for, and what they have to do."""
    if setting.kind == "population":
        return _training(setting, seed)
    machine = machine_of(setting, seed)
    empty = copy.copy(machine)
    empty.shortcuts = np.zeros_like(machine.shortcuts)
    size = (setting.size,) * machine.dimensions
    generator = torch.Generator().manual_seed(seed)
    shape = setting.batch, machine.partition.size, *size
    y0, z0, v0, u0 = (torch.randn(shape, generator=generator) for _ in range(4))
    inputs = (machine.weight, machine.bias, y0.requires_grad_(), z0.requires_grad_())

    def both_ways(solve: Callable[..., tuple[Tensor, Tensor]]) -> object:
        return torch.autograd.grad(solve(y0, z0), inputs, (v0, u0), materialize_grads=True)

    entries = machine.parameter_count() - machine.partition.size
    columns = setting.batch * int(np.prod(size))
    calls: dict[str, Callable[[], object]] = {
        "machgraph": lambda: both_ways(machine.solve),
        "rest": lambda: both_ways(empty.solve),
        "torch": lambda: both_ways(lambda y0, z0: machine.reference(machine.weight, machine.bias, y0, z0)),
    }
    return Work(entries, columns, 6 * entries * columns, _products(machine.plan(size)), calls)


def _training(setting: Setting, seed: int) -> Work:
    """One step of so many architectures, each drawn at random, on one batch of random classes."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    x, y = torch.randn(setting.batch, 64, generator=generator), torch.randint(10, (setting.batch,), generator=generator)
    (data,) = batches(x, y, size=setting.batch)
    population = Population(Objective("cross_entropy"), threads=1)
    entries = flops = products = 0
    for _ in range(setting.blocks):
        hidden = rng.integers(8, 65, size=rng.integers(1, 5)).tolist()
        blocks = len(hidden) + 2
        mask = np.tril(rng.random((blocks, blocks)) < 0.5, -1) | np.eye(blocks, k=-1, dtype=bool)
        machine = mg.DenseMachine((64, *hidden, 10), activation="relu", shortcuts=mask, generator=generator)
        population.enter(machine, Optimizer("adamw", learning_rate=1e-3))
        there = machine.parameter_count() - machine.partition.size
        entries += there
        flops += setting.batch * int(6 * there - 2 * machine.weight_mask[:, :64].sum())
        products += _products(machine.plan(()))
    return Work(entries, setting.batch, flops, products, {"machgraph": lambda: population.descend(data, [1.0])})


def _products(plan: Plan) -> int:
    """How many products a plan does one after the other."""
    return sum(
        sum(isinstance(turn, Accumulate) for turn in step.body) * step.times
        if isinstance(step, Repeat)
        else isinstance(step, Accumulate)
        for step in plan.instructions
    )


def needs(setting: Setting) -> tuple[float, float]:
    """Bytes and operations, about: of W and its gradient, and y0, z0, y and z with theirs; and of a full mask."""
    if setting.kind == "population":  # W with its gradient and the optimizer's two means, at the most
        weights = (64 + 4 * 64 + 10) ** 2
        return 16.0 * weights * setting.blocks, 3.0 * weights * setting.batch * setting.blocks
    channels = setting.blocks * setting.width
    taps = {"convolution": KERNEL[0] * KERNEL[1], "recurrence": LAGS + 1}.get(setting.kind, 1)
    columns = setting.batch * setting.size ** (2 if setting.kind == "convolution" else 1)
    return 4.0 * (2 * taps * channels**2 + 8 * channels * columns), 6.0 * taps * channels**2 * columns


# ---- timing ------------------------------------------------------------------------------------------------------


def gemm() -> Contender:
    """The product whose rate is the limit; its unit is one operation."""
    a, b = torch.randn(2, GEMM, GEMM, generator=torch.Generator().manual_seed(0)).unbind()
    return Contender(lambda: torch.mm(a, b), units=2.0 * GEMM**3)


def timed(this: Work, limit: Contender, *, rounds: int, seconds: float) -> dict[str, Any]:
    """The times of a row, in seconds, and its time over the limit, from the same rounds."""
    contenders = {name: Contender(call) for name, call in this.calls.items()}
    samples = alternate({"limit": limit, **contenders}, rounds=rounds, seconds=seconds)
    least = samples["limit"] * this.flops
    return {
        "seconds": asdict(Quartiles.of(samples["machgraph"])),
        "limit": Quartiles.of(least).median,
        "over": asdict(Quartiles.of(samples["machgraph"] / least)),
        **{name: _median(samples, name) for name in ("rest", "torch") if name in samples},
    }


def _median(samples: dict[str, Samples], name: str) -> float:
    return Quartiles.of(samples[name]).median


def main(
    *, sweeps: Iterable[str] = SWEEPS, rounds: int = 9, seconds: float = 0.03, most: float = np.inf
) -> dict[str, Any]:
    """Rows and what was left out; ``most`` bounds the operations of a row."""
    torch.set_num_threads(1)
    limit = gemm()
    rate = 1 / Quartiles.of(alternate({"limit": limit}, rounds=rounds, seconds=seconds)["limit"]).median
    rows, left_out = [], []
    for name in sweeps:
        sweep = SWEEPS[name]
        for value, setting in sweep.settings.items():
            why = _too_much(setting, rate, most)
            if why:
                left_out.append({"sweep": name, "value": value, "why": why})
                continue
            this = work(setting)
            counts = {"entries": this.entries, "columns": this.columns, "flops": this.flops, "products": this.products}
            row = {"sweep": name, "value": value, **asdict(setting), **counts}
            rows.append(row | timed(this, limit, rounds=rounds, seconds=seconds))
        print(f"{name}: done", flush=True)
    return {
        "unit": "s",
        "threads": torch.get_num_threads(),
        "gemm": float(f"{rate:.4g}"),
        "rows": rows,
        "left_out": left_out,
    }


def _too_much(setting: Setting, rate: float, most: float) -> str:
    memory, flops = needs(setting)
    if memory > MEMORY:
        return f"about {memory / 1e9:.1f} GB, more than {MEMORY / 1e9:.0f}"
    if flops > min(most, SECONDS * rate / 10):
        return f"up to {flops / 1e9:.1f} GFLOP, which is too many"
    return ""


# ---- the table ---------------------------------------------------------------------------------------------------


def table(result: dict[str, Any], name: str) -> Table:
    """The rows of a sweep, at most 80 columns wide."""
    shown = Table(title=SWEEPS[name].title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for column in (name.split()[0], "products", "MFLOP", "time", "±", "limit", "×", "rest", "torch"):
        shown.add_column(column, justify="right", no_wrap=True, min_width=7)
    for row in result["rows"]:
        if row["sweep"] == name:
            times = row["seconds"]
            shown.add_row(
                f"{row['value']:,}",
                f"{row['products']:,}",
                _number(row["flops"] / 1e6),
                _number(1e3 * times["median"]),
                _number(500 * (times["high"] - times["low"])),
                _number(1e3 * row["limit"]),
                f"{row['over']['median']:,.{0 if row['over']['median'] >= 100 else 2}f}",
                *(_number(1e3 * row[key]) if key in row else "" for key in ("rest", "torch")),
            )
    return shown


def _number(x: float) -> str:
    """Three digits or more; one of what is below a hundredth."""
    return f"{x:.0e}" if x < 0.01 else f"{x:,.{0 if x >= 100 else 1 if x >= 10 else 3}f}"


def report(result: dict[str, Any], console: Console) -> None:
    """A table for each sweep, and what was left out."""
    for name in dict.fromkeys(row["sweep"] for row in result["rows"]):
        console.print(table(result, name))
    console.print(
        "Times of forward, backward and all gradients, in ms; ±: half the distance between the quartiles. Limit: as "
        f"many operations by torch.mm, {result['gemm'] / 1e9:.0f} GFLOP/s here. ×: time over the limit. Rest: with an "
        f"empty mask. Torch: by the reference executor. float32, {result['threads']} thread."
    )
    for row in result["left_out"]:
        console.print(f"Left out: {row['sweep']} {row['value']:,}: {row['why']}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m experiments.cost", description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", action="append", choices=list(SWEEPS), help="one sweep alone, not written")
    parser.add_argument("--quick", action="store_true", help="few rounds and small machines, not written")
    arguments = parser.parse_args()
    effort: dict[str, Any] = {"rounds": 3, "seconds": 0.005, "most": 1e9} if arguments.quick else {}
    result = main(sweeps=arguments.sweep or SWEEPS, **effort)
    report(result, Console(width=80))
    if not arguments.sweep and not arguments.quick:
        print(write("cost", "python -m experiments.cost", result))
