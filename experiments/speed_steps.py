"""The speed of a training step: ours over the limit of this machine, and the peers' beside it."""

from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from experiments import peers
from experiments.speed_rows import Effort, Row, Target, row, seconds
from experiments.timing import Contender, Quartiles, alternate, elapsed
from machgraph.parametric import DenseMachine, ParametricMachine
from machgraph.population import Population
from machgraph.training import Objective, Optimizer, batches
from search.data import load
from search.recipe import Recipe

GEMM = 1024  # rows and columns of the product whose rate is the limit
SMOOTHING, LEARNING_RATE, WEIGHT_DECAY = 0.05, 1e-3, 0.1  # of the steps; a step costs the same with others
BATCH = 128
STEPS = {
    (64, 16, 16, 16, 10): Target("at most", 2.2),
    (64, 32, 32, 32, 32, 10): Target("at most", 2.0, 1.5),
    (64, 64, 64, 64, 10): Target("at most", 2.0, 1.5),
    (30, *(8,) * 12, 2): Target("at most", 2.2),
    (64, 128, 128, 128, 10): Target("at most", 1.6, 1.3),
}


def steps(effort: Effort, device: str, workers: int) -> list[Row]:
    """One training step of a candidate in a population, over its operations at the rate of a large product."""
    populations = [effort.candidates] if device == "cpu" else [effort.candidates, 8 * effort.candidates]
    return [
        _step(widths, target, candidates, effort, device, workers)
        for candidates in populations
        for widths, target in STEPS.items()
    ]


def _step(widths: tuple[int, ...], target: Target, candidates: int, effort: Effort, device: str, workers: int) -> Row:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(effort.batches * BATCH, widths[0], generator=generator).to(device)
    y = torch.randint(widths[-1], (effort.batches * BATCH,), generator=generator).to(device)
    machines = [dense(widths, generator) for _ in range(candidates)]
    all_steps, contenders = candidates * effort.batches, {}
    for of, number in {"": workers, ", 1 thread": 1}.items() if device == "cpu" else [("", workers)]:
        contenders[f"limit{of}"] = _large_product(device, number)
        contenders[f"ours{of}"] = Contender(_descent(machines, x, y, device, number), all_steps)
        contenders[f"vmap{of}"] = Contender(_vmap_steps(machines, x, y, device), all_steps, number)
    contenders["plain torch, one alone"] = Contender(_plain_steps(machines[0], x, y, device), effort.batches)
    samples = alternate(contenders, rounds=effort.rounds, seconds=2 * effort.seconds, device=device)
    operations = step_operations(machines[0], BATCH)
    samples |= {name: operations * samples[name] for name in samples if name.startswith("limit")}
    told = {"batch": BATCH, "candidates": candidates, "operations": operations, **seconds(samples)}
    if device == "cpu":
        told["ratio_of_one_thread"] = asdict(Quartiles.of(samples["ours, 1 thread"] / samples["limit, 1 thread"]))
    name = shape(widths) if device == "cpu" else f"{shape(widths)} × {candidates}"
    return row(name, samples["ours"], samples["limit"], target, **told)


def shape(widths: Sequence[int]) -> str:
    """Widths as people write them.

    >>> shape((64, 32, 32, 10)), shape((30, *(8,) * 12, 2))
    ('64-32-32-10', '30-(12×8)-2')
    """
    first, *hidden, last = widths
    same = len(hidden) > 3 and len(set(hidden)) == 1
    middle = f"({len(hidden)}×{hidden[0]})" if same else "-".join(map(str, hidden))
    return f"{first}-{middle}-{last}"


def dense(widths: Sequence[int], generator: torch.Generator | None = None) -> DenseMachine:
    """All shortcuts; relu in the hidden blocks."""
    activation = ("identity", *["relu"] * (len(widths) - 2), "identity")
    return DenseMachine(widths, activation=activation, generator=generator)


def step_operations(machine: ParametricMachine, samples: int) -> int:
    """What a training step needs: 2 a weight and sample forward, 2 for the gradient of W, 2 for the dual.

    The dual need not go back to the input, so the weights that read the input block count twice and not three times.
    """
    mask = machine.weight_mask
    of_input = int(mask[:, machine.partition.block(0)].sum())
    return 2 * samples * (3 * int(mask.sum()) - of_input)


def _large_product(device: str, threads: int) -> Contender:
    a, b, c = (torch.rand(GEMM, GEMM, device=device) for _ in range(3))
    return Contender(lambda: torch.mm(a, b, out=c), 2 * GEMM**3, threads)


def _descent(machines: Sequence[ParametricMachine], x: Tensor, y: Tensor, device: str, threads: int) -> Any:
    population = Population(Objective("cross_entropy", label_smoothing=SMOOTHING), threads=threads)
    for machine in machines:
        settings = Optimizer("adamw", learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        population.enter(machine.to(device), settings)
    (data,) = batches(x, y, BATCH)
    return lambda: population.descend(data, [1.0] * len(data))


def _plain_steps(machine: ParametricMachine, x: Tensor, y: Tensor, device: str) -> Any:
    plain = peers.network(machine, ["relu"] * (len(machine.partition) - 2)).to(device)
    return _loop(plain, peers.adamw(plain, LEARNING_RATE, WEIGHT_DECAY), x, y)


def _loop(module: Any, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Any:
    parts = list(zip(x.split(BATCH), y.split(BATCH), strict=True))

    def run() -> None:
        for inputs, targets in parts:
            peers.step(module, optimizer, inputs, targets, SMOOTHING)

    return run


def _vmap_steps(machines: Sequence[ParametricMachine], x: Tensor, y: Tensor, device: str) -> Any:
    networks = [peers.network(machine, ["relu"] * (len(machine.partition) - 2)).to(device) for machine in machines]
    settings = {"learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "smoothing": SMOOTHING}
    stacked = peers.Stacked(networks, **settings)
    parts = list(zip(x.split(BATCH), y.split(BATCH), strict=True))

    def run() -> None:
        for inputs, targets in parts:
            stacked.step(inputs, targets)

    return run


# ---- torch.compile -----------------------------------------------------------------------------------------------


def compiled(effort: Effort, device: str, budget: float) -> tuple[list[Row], list[str]]:
    """A step of the plain network by ``torch.compile``, in a process that is ended when the budget is spent."""
    if not budget:
        return [], ["torch.compile: left out, as asked for."]
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_compile, args=(theirs, effort, device))
    process.start()
    theirs.close()
    name, found = shape(next(iter(STEPS))), None
    try:
        if not ours.poll(budget):
            return [], [f"torch.compile: not done with {name} within {budget:.0f} s."]
        found = ours.recv()
    except EOFError:
        return [], [f"torch.compile: its process ended without a result on {name}."]
    finally:
        process.join(5 if found is not None else 0)
        process.terminate()
        process.join()
    if isinstance(found, str):
        return [], [f"torch.compile failed on {name}: {found}"]
    took, samples = found
    recipe, n_samples = Recipe(), len(load("digits", seed=0).train)
    of_one = recipe.epochs * recipe.steps(n_samples)  # steps of a candidate that nothing stops
    counted = samples["torch.compile"] + took / of_one
    rows = [
        row(f"{name}, compiling not counted", samples["torch.compile"], samples["plain torch"], None),
        row(f"{name}, counted over {of_one:,} steps", counted, samples["plain torch"], None),
    ]
    told = {"batch": BATCH, "compile_seconds": round(took, 1), **seconds(samples)}
    return [one | told for one in rows], []


def _compile(result: Connection, effort: Effort, device: str) -> None:
    torch.set_num_threads(1)
    widths = next(iter(STEPS))
    x = torch.randn(effort.batches * BATCH, widths[0], device=device)
    y = torch.randint(widths[-1], (effort.batches * BATCH,), device=device)
    machine, made = dense(widths), {}
    for name in ("plain torch", "torch.compile"):
        plain = peers.network(machine, ["relu"] * (len(widths) - 2)).to(device)
        module = torch.compile(plain, fullgraph=True, dynamic=False) if name == "torch.compile" else plain
        made[name] = Contender(_loop(module, peers.adamw(plain, LEARNING_RATE, WEIGHT_DECAY), x, y), effort.batches)
    try:
        from torch._inductor.utils import fresh_cache  # here: importing the compiler takes seconds

        with fresh_cache():
            first = elapsed(made["torch.compile"].call, 1, device)
            samples = alternate(made, rounds=effort.rounds, seconds=effort.seconds, device=device)
    except Exception as error:  # whatever the compiler says, the table goes on without it
        result.send(str(error).strip().splitlines()[0])
        return
    result.send((first, samples))
