"""What forward and backward hold in memory: machine space once, beside autograd over concatenations.

Dense machines of blocks of one width with all shortcuts, σ = tanh, float32, on the CPU. A loss hears the last block;
all gradients are taken. Beside them the same network as people write it, each layer on ``torch.cat`` of all before it:
there autograd keeps every concatenation, so memory grows with the square of the depth. The loop keeps y and z once, and
the dual u and v.

Counted are the bytes of torch's own allocator, from the profiler's record of every allocation and release, above what
was there before: input and weights are not counted, all that the call makes is. Not counted is what the compiled loop
holds for itself within a product, 32 kB at most. Gradients of weights are results and no activations, so they are told
apart: "activations" is the highest sum without them, "peak" with them.

    python -m experiments.memory                   some seconds
    python -m experiments.memory --most 16         up to depth 16 only
"""

import argparse
import gc
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

import machgraph as mg
from experiments.results import write
from machgraph import compiled

DEPTHS = (2, 4, 8, 16, 32, 64)
WIDTH, SAMPLES = 32, 256

Gradients = tuple[Tensor, ...]


@dataclass(frozen=True)
class Network:
    """A network to be measured.

    Parameters
    ----------
    output : of the last block, as a function of the input.
    parameters : weights and biases.
    """

    output: Callable[[Tensor], Tensor]
    parameters: tuple[Tensor, ...]


@dataclass(frozen=True)
class Memory:
    """Bytes above what was there before.

    Parameters
    ----------
    held : when the forward pass has ended.
    activations : the most at one time in forward and backward, without the gradients of parameters.
    peak : the most at one time, with them.
    """

    held: int
    activations: int
    peak: int


def networks(depth: int, width: int = WIDTH, seed: int = 0) -> dict[str, Network]:
    """One network of so many blocks, four times over."""
    generator = torch.Generator().manual_seed(seed)
    machine = mg.DenseMachine((width,) * depth, activation="tanh", generator=generator)
    assert machine.bias is not None
    parameters = (machine.weight, machine.bias)
    last = width * (depth - 1)

    def by_the_reference(x: Tensor) -> Tensor:
        return machine.reference(*parameters, x)[1][:, last:]

    found = {
        "machgraph": Network(lambda x: machine(x)[:, last:], parameters),
        "machgraph, torch": Network(by_the_reference, parameters),
        "concatenations": concatenations(machine),
    }
    return found if compiled.available() else {name: found[name] for name in list(found)[1:]}


def concatenations(machine: "mg.DenseMachine") -> Network:
    """The same network as people write it: each layer has its own weights, and hears all before it."""
    assert machine.bias is not None
    blocks = [machine.partition.block(i) for i in range(len(machine.partition))]
    weights = [machine.weight[rows, : rows.start].detach().clone().requires_grad_() for rows in blocks[1:]]
    biases = [machine.bias[rows].detach().clone().requires_grad_() for rows in blocks]

    def output(x: Tensor) -> Tensor:
        zs = [torch.tanh(x + biases[0])]
        for weight, bias in zip(weights, biases[1:], strict=True):
            zs.append(torch.tanh(F.linear(torch.cat(zs, dim=1), weight, bias)))
        return zs[-1]

    return Network(output, (*weights, *biases))


def measure(network: Network, x: Tensor, cotangent: Tensor) -> Memory:
    """Forward and backward, once to warm up and once counted."""
    inputs = (*network.parameters, x)
    torch.autograd.grad(network.output(x), inputs, cotangent)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        output = network.output(x)
        with torch.profiler.record_function("forward ended"):
            pass
        gradients = torch.autograd.grad(output, inputs, cotangent)
    results = {gradient.untyped_storage().data_ptr() for gradient in gradients[:-1]}
    return _counted(_events(recorded), results)


def _events(recorded: profile) -> list[dict[str, Any]]:
    """What the profiler saw, in order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return sorted((event for event in events if "ts" in event), key=lambda event: float(event["ts"]))


def _counted(events: Iterable[dict[str, Any]], results: set[int]) -> Memory:
    """The sums; ``results`` are the addresses of gradients of parameters, which are alive at the end."""
    changes = [event for event in events if event["name"] in ("[memory]", "forward ended")]
    last = {
        event["args"]["Addr"]: k for k, event in enumerate(changes) if "Addr" in event["args"] and _bytes(event) > 0
    }
    kept = {last[address] for address in results}
    held = total = without = activations = peak = 0
    for k, event in enumerate(changes):
        if event["name"] == "forward ended":
            held = total
            continue
        total += _bytes(event)
        without += 0 if k in kept else _bytes(event)
        activations, peak = max(activations, without), max(peak, total)
    return Memory(held, activations, peak)


def _bytes(event: dict[str, Any]) -> int:
    return int(event["args"]["Bytes"])


def main(*, depths: Iterable[int] = DEPTHS, width: int = WIDTH, samples: int = SAMPLES) -> dict[str, Any]:
    """Rows: of each depth and network, its memory."""
    torch.set_num_threads(1)
    rows = []
    for depth in depths:
        generator = torch.Generator().manual_seed(depth)
        x = torch.randn(samples, width, generator=generator).requires_grad_()
        cotangent = torch.randn(samples, width, generator=generator)
        found = {name: measure(network, x, cotangent) for name, network in networks(depth, width).items()}
        rows += [{"depth": depth, "by": name, **asdict(memory)} for name, memory in found.items()]
    return {"unit": "bytes", "width": width, "samples": samples, "dtype": "float32", "rows": rows}


def ratio(result: dict[str, Any], depth: int, what: str = "activations", by: str = "machgraph") -> float:
    """Ours over that of the concatenations."""
    values = {row["by"]: row[what] for row in result["rows"] if row["depth"] == depth}
    return float(values[by] / values["concatenations"])


def table(result: dict[str, Any]) -> Table:
    """The rows by depth, at most 80 columns wide."""
    shown = Table(
        title=f"Memory in MB: blocks of {result['width']}, {result['samples']} samples, float32",
        caption="Held: when the forward pass has ended. Activations: the most at one time, without the gradients of "
        "weights. Peak: with them. /: over that of the concatenations.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    shown.add_column("depth", justify="right")
    shown.add_column("")
    for name in ("held", "activations", "/", "peak", "/"):
        shown.add_column(name, justify="right", no_wrap=True)
    before = None
    for row in result["rows"]:
        ratios = [f"{ratio(result, row['depth'], what, row['by']):.2f}" for what in ("activations", "peak")]
        values = [f"{row[what] / 1e6:.2f}" for what in ("held", "activations", "peak")]
        depth = str(row["depth"]) if row["depth"] != before else ""
        if depth and before is not None:
            shown.add_section()
        before = row["depth"]
        shown.add_row(depth, row["by"], values[0], values[1], ratios[0], values[2], ratios[1])
    return shown


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m experiments.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=DEPTHS[-1], help="the greatest depth (default 64)")
    most = parser.parse_args().most
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler tells whenever it starts and stops
    result = main(depths=[depth for depth in DEPTHS if depth <= most])
    Console(width=80).print(table(result))
    if most == DEPTHS[-1]:
        print(write("memory", "python -m experiments.memory", result))
