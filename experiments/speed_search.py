"""The speed of a search: candidates trained a minute, and how soon the first step is done."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from experiments import peers
from experiments.speed_rows import Effort, Row, Target, beginning, row, seconds
from experiments.timing import elapsed, threads
from machgraph.population import Population
from machgraph.training import Objective, Optimizer, batches
from search.data import Dataset, load
from search.defaults import default_space
from search.isomorphism.canonical import canonical
from search.point import Point
from search.recipe import Recipe
from search.shape import Shape
from search.space import Space
from search.training.machine import build

SEARCHES = {
    "blocks up to 16 wide": ((8, 16), Target("at least", 8, 10)),
    "blocks 32 wide": ((32,), Target("at least", 3.5, 5)),
    "blocks 128 wide": ((128,), Target("at least", 1.7, 2)),
}


def search(effort: Effort, device: str, workers: int) -> list[Row]:
    """Candidates a minute on digits: ours in one process, and plain torch under Optuna in several."""
    dataset, rows = load("digits", seed=0), []
    recipe = Recipe(epochs=effort.epochs, rungs=(), patience=None)
    with peers.processes(workers) as processes:
        for name, (widths, target) in SEARCHES.items():
            space = Space(widths=widths)
            points = distinct(space, effort.candidates, seed=0)
            machines = [build(point, dataset.shape, seed=0) for point in points]
            initial = tuple(map(peers.state, machines))
            job = peers.Job(tuple(points), initial, space, dataset, recipe, seed=0, device=device)
            few = peers.Job(job.points[:workers], initial, space, dataset, Recipe(1, rungs=()), seed=0, device=device)
            processes.search(few)  # warms up
            trained(points[:1], dataset, Recipe(1, rungs=()), device, workers)
            ours, plain = [], []
            for _ in range(effort.searches):
                began = time.perf_counter()
                losses = trained(points, dataset, recipe, device, workers)
                ours.append((time.perf_counter() - began) / len(points))
                rate, others = processes.search(job)
                plain.append(1 / rate)
            away = np.abs(np.array(losses) - np.array(others))
            samples = {"ours": np.array(ours), "plain torch, Optuna": np.array(plain)}
            told = {
                "candidates": len(points),
                "epochs": recipe.epochs,
                "batch": space.batch_sizes[0],
                "losses": [round(float(np.quantile(losses, q)), 4) for q in (0, 0.5, 1)],
                "loss_difference": {"median": float(np.median(away)), "largest": float(away.max())},
            }
            rows.append(row(name, samples["plain torch, Optuna"], samples["ours"], target, **told, **seconds(samples)))
    return rows


def distinct(space: Space, number: int, seed: int) -> list[Point]:
    """Different architectures of a space, drawn as a search draws them: no two equal, none without a way through."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < number:
        point = canonical(space.sample(rng))
        if point.depth > 1 and set(point.widths) <= set(space.widths):  # twins may have become one wider block
            found.setdefault((point.widths, point.activations, point.shortcuts), point)
    return list(found.values())


def trained(points: Sequence[Point], dataset: Dataset, recipe: Recipe, device: str, workers: int) -> list[float]:
    """The validation loss of each point, which is taken after every epoch, after its last one."""
    population = Population(Objective("cross_entropy", label_smoothing=recipe.label_smoothing), threads=workers)
    for point in points:
        settings = Optimizer("adamw", learning_rate=point.learning_rate, weight_decay=point.weight_decay)
        population.enter(build(point, dataset.shape, seed=0).to(device), settings)
    x, y = peers.tensors(dataset.train, device)
    validation = batches(*peers.tensors(dataset.validation, device), len(dataset.validation))
    order = torch.Generator().manual_seed(0)
    (batch_size,) = {point.batch_size for point in points}
    size, steps = min(batch_size, len(y)), recipe.steps(len(y), batch_size)
    results: list[tuple[float, float]] = []
    for epoch in range(recipe.epochs):
        shuffled = torch.randperm(len(y), generator=order)[: steps * size].to(device)
        (data,) = batches(x, y, size, shuffled)
        population.descend(data, [recipe.rate((epoch * steps + k) / (recipe.epochs * steps)) for k in range(steps)])
        results = population.measure(validation)
    return [loss for loss, _ in results]


# ---- beginnings --------------------------------------------------------------------------------------------------

FIRST_STEP = Target("at most", 20)  # ms
READY = Target("at most", 3)  # s


def beginnings(effort: Effort, device: str) -> list[Row]:
    """From a new architecture to the end of its first training step, in ms."""
    dataset = load("digits", seed=0)
    space = default_space(Shape(dataset.n_inputs, dataset.n_outputs), len(dataset.train))  # as a table: dense machines
    batch = 64
    x, y = (t[:batch] for t in peers.tensors(dataset.train, device))

    def ours(point: Point) -> None:
        population = Population(Objective("cross_entropy"), threads=1)
        population.enter(build(point, dataset.shape, seed=0).to(device), Optimizer("adamw"))
        population.descend(batches(x, y, batch)[0], [1.0])

    def plain(point: Point) -> None:
        widths = (dataset.n_inputs, *point.widths, dataset.n_outputs)
        made = peers.Network(widths, point.activations, peers.sources(point.shortcuts)).to(device)
        peers.step(made, peers.adamw(made, 1e-3, 0.1), x, y, 0.05)

    first, *points = distinct(space, effort.architectures + 1, seed=1)
    samples: dict[str, list[float]] = {"ours": [], "plain torch": []}
    with threads(1):
        for begin in (ours, plain):
            begin(first)  # loads the code
        for point in points:
            for name, begin in (("ours", ours), ("plain torch", plain)):
                samples[name].append(1e3 * elapsed(lambda begin=begin, point=point: begin(point), 1, device))
    return [beginning(name, samples[name], "ms", FIRST_STEP if name == "ours" else None) for name in samples]


def starts(effort: Effort, device: str) -> list[Row]:
    """From the start of a process to the end of its first training step, in s; and ``import torch`` alone."""
    if not effort.starts:
        return []
    with tempfile.TemporaryDirectory() as folder:
        kept = {**os.environ, "NUMBA_CACHE_DIR": folder, "OMP_NUM_THREADS": "1"}
        rows = []
        if device == "cpu":
            rows.append(beginning("ours, the first time ever", [_start("ours", device, kept)], "s", None))
        samples: dict[str, list[float]] = {"torch": [], "plain": [], "ours": []}
        for _ in range(effort.starts):
            for name, times in samples.items():
                times.append(_start(name, device, kept))
    return [
        beginning("ours", samples["ours"], "s", READY),
        beginning("plain torch", samples["plain"], "s", None),
        beginning("import torch alone", samples["torch"], "s", None),
        *rows,
    ]


def _start(what: str, device: str, environment: Mapping[str, str]) -> float:
    began = time.time()
    command = [sys.executable, "-m", "experiments.first_step", what, device]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout) - began
