"""Table 1: how long the forward and the backward pass of a machine take, and their ratio.

The paper's sizes: 5 blocks of 2 channels and 2 samples (small) or of 32 and 32 (medium), σ = tanh, all shortcuts; 1-D
convolution of 16 positions and kernel 7; recurrence of 16 steps, 7 lags (0 to 6) and a time block of 5; y0 and z0 given
on all channels. Forward solves the machine; the paper's masks W in it, which needs no time here: only entries that the
mask leaves are read. Backward takes cotangents of machine space to input space, without the gradient of W. In the same
run the same network as people write it, with concatenations and plain autograd, and that compiled by torch. float64 on
the CPU with one thread, float32 with CUDA.

The paper prints "ms"; its script's numbers are nanoseconds divided by 1000, so they are μs, as they are called here.

    python -m experiments.table1                   about 3 minutes on 2 cores, most of it torch.compile's
    python -m experiments.table1 --compile 0       without torch.compile
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from torch.utils.benchmark import Measurement, Timer

import machgraph as mg
from experiments.results import write
from machgraph.parametric import ParametricMachine

Solve = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

KINDS = ("dense", "convolution", "recurrent")
SIZES = {"small": 2, "medium": 32}  # channels of a block, and samples
BLOCKS, POSITIONS, KERNEL, LAGS, TIMEBLOCK = 5, 16, 7, 6, 5

# Forward and backward in μs: the minimum over many runs on an i7-7700HQ (float64) and a Quadro M1200 (float32).
PUBLISHED = {
    ("dense", "small", "cpu"): (22.1, 17.6),
    ("dense", "small", "cuda"): (806.2, 936.6),
    ("dense", "medium", "cpu"): (224.3, 181.9),
    ("dense", "medium", "cuda"): (782.6, 883.1),
    ("convolution", "small", "cpu"): (100.6, 93.4),
    ("convolution", "small", "cuda"): (1056.7, 1131.6),
    ("convolution", "medium", "cpu"): (29504.0, 28878.0),
    ("convolution", "medium", "cuda"): (2054.3, 2252.9),
    ("recurrent", "small", "cpu"): (365.2, 334.8),
    ("recurrent", "small", "cuda"): (4427.4, 4542.2),
    ("recurrent", "medium", "cpu"): (41184.0, 40932.0),
    ("recurrent", "medium", "cuda"): (7058.7, 7118.5),
}


@dataclass(frozen=True)
class Pass:
    """Times in μs: their minimum, their median, and the distance between their quartiles."""

    minimum: float
    median: float
    spread: float
    runs: int


@dataclass(frozen=True)
class Case:
    """One row of the paper's table: a machine with its input and its cotangents, all of them over machine space."""

    machine: ParametricMachine
    y0: Tensor
    z0: Tensor
    v0: Tensor
    u0: Tensor


def case(kind: str, size: str, device: str = "cpu", seed: int = 0) -> Case:
    """A machine of the paper's size with random weights, input and cotangents; only the input needs a gradient."""
    n, dtype = SIZES[size], torch.float64 if device == "cpu" else torch.float32
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"activation": "tanh", "bias": False, "generator": generator, "dtype": torch.float64}
    widths = (n,) * BLOCKS
    machine: ParametricMachine
    if kind == "dense":
        machine = mg.DenseMachine(widths, **options)
    elif kind == "convolution":
        machine = mg.ConvMachine(widths, KERNEL, **options)
    else:
        machine = mg.RecurrentMachine(widths, LAGS, timeblock=TIMEBLOCK, **options)
    shape = (n, n * BLOCKS) if kind == "dense" else (n, n * BLOCKS, POSITIONS)
    y0, z0, v0, u0 = torch.rand(4, *shape, generator=generator, dtype=torch.float64).to(device, dtype)
    return Case(machine.to(device, dtype).requires_grad_(False), y0.requires_grad_(), z0.requires_grad_(), v0, u0)


# ---- the same networks with concatenations -----------------------------------------------------------------------


def concatenations(machine: ParametricMachine) -> Solve:
    """The same network as people write it: block after block, each on the concatenation of what it hears."""
    if isinstance(machine, mg.RecurrentMachine):
        return _recurrence(machine)
    blocks = [machine.partition.block(i) for i in range(len(machine.partition))]
    weights = [machine.weight[rows, : rows.start].contiguous() for rows in blocks]
    layer = F.linear if isinstance(machine, mg.DenseMachine) else _same_convolution

    def solve(y0: Tensor, z0: Tensor) -> tuple[Tensor, Tensor]:
        ys, zs = [y0[:, blocks[0]]], [torch.tanh(y0[:, blocks[0]]) + z0[:, blocks[0]]]
        for rows, weight in zip(blocks[1:], weights[1:], strict=True):
            ys.append(layer(torch.cat(zs, dim=1), weight) + y0[:, rows])
            zs.append(torch.tanh(ys[-1]) + z0[:, rows])
        return torch.cat(ys, dim=1), torch.cat(zs, dim=1)

    return solve


def _same_convolution(z: Tensor, weight: Tensor) -> Tensor:
    return F.conv1d(z, weight, padding="same")


def _recurrence(machine: "mg.RecurrentMachine") -> Solve:
    """Turn after turn of the time block, and within it block after block: two convolutions over what is known.

    Earlier blocks are heard at all lags; the block itself and later ones at lags of at least the time block. Tap k of a
    convolution is lag ``LAGS - k``.
    """
    blocks = [machine.partition.block(i) for i in range(len(machine.partition))]
    near = [machine.weight[rows, : rows.start].flip(-1).contiguous() for rows in blocks]
    far = [machine.weight[rows, rows.start :, TIMEBLOCK:].flip(-1).contiguous() for rows in blocks]

    def solve(y0: Tensor, z0: Tensor) -> tuple[Tensor, Tensor]:
        steps = y0.shape[-1]
        past = y0.new_zeros(*y0.shape[:2], LAGS)  # z of the steps before this turn, the last LAGS of them
        y_turns, z_turns = [], []
        for start in range(0, steps, TIMEBLOCK):
            turn = slice(start, min(start + TIMEBLOCK, steps))
            length = turn.stop - turn.start
            ys, zs = [], []
            for i, rows in enumerate(blocks):
                y = y0[:, rows, turn] + F.conv1d(past[:, rows.start :, : length + LAGS - TIMEBLOCK], far[i])
                if i:
                    heard = torch.cat([past[:, : rows.start], torch.cat(zs, dim=1)], dim=-1)
                    y = y + F.conv1d(heard, near[i])
                ys.append(y)
                zs.append(torch.tanh(y) + z0[:, rows, turn])
            y_turns.append(torch.cat(ys, dim=1))
            z_turns.append(torch.cat(zs, dim=1))
            past = torch.cat([past, z_turns[-1]], dim=-1)[..., -LAGS:]
        return torch.cat(y_turns, dim=-1), torch.cat(z_turns, dim=-1)

    return solve


def compiled(solve: Solve, case: Case) -> tuple[Solve, float]:
    """``solve`` by ``torch.compile``, both passes compiled, and the seconds that it took, without any cache.

    Raises
    ------
    TorchDynamoException : no compiler is installed, or it failed.
    """
    from torch._inductor.utils import fresh_cache  # here: importing the compiler takes seconds

    torch.compiler.reset()
    # donated buffers would make the backward pass good for one use, and it is timed many times
    with fresh_cache(), torch._functorch.config.patch(donated_buffer=False):
        start = perf_counter()
        fast: Solve = torch.compile(solve, fullgraph=True, dynamic=False)
        backward(fast(case.y0, case.z0), case)
        return fast, perf_counter() - start


# ---- timing ------------------------------------------------------------------------------------------------------


def backward(solution: tuple[Tensor, Tensor], case: Case) -> tuple[Tensor, ...]:
    """From machine space to input space; the solution may be used again."""
    return torch.autograd.grad(solution, (case.y0, case.z0), (case.v0, case.u0), retain_graph=True)


def timed(solvers: dict[str, Solve], case: Case, seconds: float, rounds: int) -> dict[str, tuple[Pass, Pass]]:
    """Forward and backward of each. They take turns, so that what else the machine does falls on all of them."""
    timers = {}
    for name, solve in solvers.items():
        solution = solve(case.y0, case.z0)
        forward = Timer("solve(y0, z0)", globals={"solve": solve, "y0": case.y0, "z0": case.z0})
        timers[name, "forward"] = forward
        names = {"backward": backward, "solution": solution, "case": case}
        timers[name, "backward"] = Timer("backward(solution, case)", globals=names)
    runs: dict[tuple[str, str], list[Measurement]] = {key: [] for key in timers}
    for _ in range(rounds):
        for key, timer in timers.items():
            runs[key].append(timer.blocked_autorange(min_run_time=seconds / rounds))
    return {name: (_pass(runs[name, "forward"]), _pass(runs[name, "backward"])) for name in solvers}


def _pass(measurements: list[Measurement]) -> Pass:
    times = 1e6 * np.array([time for measurement in measurements for time in measurement.times])
    low, middle, high = (float(q) for q in np.quantile(times, (0.25, 0.5, 0.75)))
    runs = sum(measurement.number_per_run * len(measurement.raw_times) for measurement in measurements)
    return Pass(round(float(times.min()), 2), round(middle, 2), round(high - low, 2), runs)


def main(
    *,
    kinds: tuple[str, ...] = KINDS,
    sizes: tuple[str, ...] = tuple(SIZES),
    seconds: float = 0.5,
    rounds: int = 4,
    compile_budget: float = 120.0,
) -> dict[str, Any]:
    """Rows and notes. Each pass is timed for so many seconds; no compilation begins after the budget is spent."""
    torch.set_num_threads(1)
    rows, notes, compiling = [], [], 0.0
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    if "cuda" not in devices:
        notes.append("No GPU here: the GPU rows are the published ones alone.")
    for device, kind, size in ((device, kind, size) for device in devices for kind in kinds for size in sizes):
        this = case(kind, size, device)
        solvers = {"machgraph": this.machine.solve, "concatenations": concatenations(this.machine)}
        took = None
        if compiling < compile_budget:
            try:
                solvers["compiled"], took = compiled(solvers["concatenations"], this)
                compiling += took
            except torch._dynamo.exc.TorchDynamoException as error:
                notes.append(f"torch.compile failed on {kind}, {size}, {device}: {str(error).strip().splitlines()[0]}")
        else:
            notes.append(
                f"Not compiled: {kind}, {size}, {device}, as "
                + (f"the {compile_budget:.0f} s for it were spent." if compile_budget else "asked for.")
            )
        where = {"machine": kind, "size": size, "device": device, "dtype": str(this.y0.dtype).partition(".")[2]}
        for name, (forward, back) in timed(solvers, this, seconds, rounds).items():
            row = where | {"by": name, "forward": asdict(forward), "backward": asdict(back)}
            row |= {"ratio": round(back.minimum / forward.minimum, 3)}
            row |= {"ratio_of_medians": round(back.median / forward.median, 3)}
            rows.append(row | ({"compile_seconds": round(took, 1)} if name == "compiled" and took else {}))
        print(f"{kind}, {size}, {device}: done", flush=True)
    return {
        "unit": "μs",
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if "cuda" in devices else None,
        "rows": rows + published(kinds, sizes),
        "notes": notes,
    }


def published(kinds: tuple[str, ...] = KINDS, sizes: tuple[str, ...] = tuple(SIZES)) -> list[dict[str, Any]]:
    """The paper's rows, in the form of ours; they are minima."""
    return [
        {
            "machine": kind,
            "size": size,
            "device": device,
            "dtype": "float64" if device == "cpu" else "float32",
            "by": "published",
            "forward": {"minimum": forward},
            "backward": {"minimum": back},
            "ratio": round(back / forward, 3),
        }
        for (kind, size, device), (forward, back) in PUBLISHED.items()
        if kind in kinds and size in sizes
    ]


# ---- the table ---------------------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> Table:
    """The rows by device, machine and size, less than 90 columns wide."""
    shown = Table(
        title="Table 1: runtimes in μs (the paper prints its own, which are μs too, as ms)",
        caption="min: least of all runs; median; ±: distance between the quartiles. Ratio: backward / forward, of the "
        "minima. compiled: the concatenations by torch.compile, with the time to compile. Published: i7-7700HQ (CPU), "
        f"Quadro M1200 (GPU). CPU: float64, ours with {result['threads']} thread. GPU: float32.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    shown.add_column("", no_wrap=True)
    for name in ("forward min", "median", "±", "backward min", "median", "±", "ratio"):
        shown.add_column(name, justify="right", no_wrap=True)
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in result["rows"]:
        groups.setdefault((row["device"], row["machine"], row["size"]), []).append(row)
    for (device, kind, size), rows in groups.items():
        where = f"{kind}, {size}, {'CPU' if device == 'cpu' else 'GPU'}"
        alone = len(rows) == 1  # a published row without any of ours
        if not alone:
            shown.add_row(f"[bold]{where}[/]")
        for row in rows:
            took = f" ({row['compile_seconds']:.0f} s)" if "compile_seconds" in row else ""
            times = [
                number(row[way][key]) if key in row[way] else ""
                for way in ("forward", "backward")
                for key in ("minimum", "median", "spread")
            ]
            shown.add_row(f"{where} *" if alone else f"  {row['by']}{took}", *times, f"{row['ratio']:.2f}")
    if any(len(rows) == 1 for rows in groups.values()):
        shown.caption = f"{shown.caption} *: published alone."
    return shown


def number(x: float) -> str:
    """Three digits or more."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m experiments.table1", description="Table 1 of the paper.")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each pass of each row (default 0.5)")
    parser.add_argument(
        "--compile",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="budget for torch.compile (default 120; 0: none)",
    )
    arguments = parser.parse_args()
    result = main(seconds=arguments.seconds, compile_budget=arguments.compile)
    console = Console(width=96)
    console.print(table(result))
    for note in result["notes"]:
        console.print(note)
    console.print(str(write("table1", "python -m experiments.table1", result)))
