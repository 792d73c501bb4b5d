"""What a user would write in place of machgraph: the peers of the speed table, in torch's own modules and autograd.

A network is block after block, each an ``nn.Linear`` or ``nn.Conv1d`` on the concatenation of what it hears. It is
trained by a loop of plain torch under Optuna, one candidate after the other, in as many processes as there are cores;
or, several candidates of one architecture at once, by ``torch.func.vmap`` over stacked modules.
"""

import copy
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import BrokenBarrierError
from time import perf_counter
from typing import Any

import optuna
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from machgraph.parametric import ParametricMachine
from search.data import Dataset, Part
from search.point import Point
from search.recipe import Recipe
from search.space import Space

FUNCTIONS = {"relu": torch.relu, "tanh": torch.tanh, "gelu": F.gelu}
State = dict[str, Tensor]


class Network(nn.Module):
    """Blocks with shortcuts, as people write them; tensors are ``(sample, channel, *size)``.

    Parameters
    ----------
    widths : of all blocks, the first being the input.
    activations : of the hidden blocks; the last block has none, unless it is given one more.
    heard : for each block, the earlier ones that it hears.
    kernel_size : of convolutions; none for linear layers.
    """

    def __init__(
        self,
        widths: Sequence[int],
        activations: Sequence[str],
        heard: Sequence[Sequence[int]],
        kernel_size: int | None = None,
    ) -> None:
        super().__init__()
        self.heard, self.activations = [list(sources) for sources in heard[1:]], [FUNCTIONS[a] for a in activations]
        kind = partial(nn.Conv1d, kernel_size=kernel_size, padding="same") if kernel_size else nn.Linear
        self.layers = nn.ModuleList(
            kind(sum(widths[j] for j in sources), width) for sources, width in zip(self.heard, widths[1:], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The last block."""
        z = [x]
        for i, (layer, sources) in enumerate(zip(self.layers, self.heard, strict=True)):
            y = layer(z[sources[0]] if len(sources) == 1 else torch.cat([z[j] for j in sources], dim=1))
            z.append(self.activations[i](y) if i < len(self.activations) else y)
        return z[-1]


def sources(mask: Any) -> list[list[int]]:
    """Which blocks each block hears, of a mask ``[block_out, block_in]``."""
    return [[j for j, edge in enumerate(row) if edge] for row in mask]


def state(machine: ParametricMachine) -> State:
    """The weights of a machine as those of the network that is equal to it."""
    assert machine.bias is not None
    found: State = {}
    for i, heard in enumerate(sources(machine.shortcuts)[1:], start=1):
        rows = machine.weight.detach()[machine.partition.block(i)]
        columns = [rows[:, machine.partition.block(j)] for j in heard]
        found[f"layers.{i - 1}.weight"] = torch.cat(columns, dim=1)
        found[f"layers.{i - 1}.bias"] = machine.bias.detach()[machine.partition.block(i)].clone()
    return found


def network(machine: ParametricMachine, activations: Sequence[str], kernel_size: int | None = None) -> Network:
    """The network that is equal to a machine; activations as for ``Network``."""
    made = Network(machine.partition.widths, activations, sources(machine.shortcuts), kernel_size)
    made.load_state_dict(state(machine))
    return made


def adamw(network: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """The optimizer at its fastest."""
    return torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)


def step(
    network: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, smoothing: float
) -> None:
    """One step on one batch."""
    optimizer.zero_grad()
    F.cross_entropy(network(x), y, label_smoothing=smoothing).backward()
    optimizer.step()


# ---- a search: one candidate after the other, under Optuna -------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What a process is given: points to train, and the weights that each begins with."""

    points: tuple[Point, ...]
    initial: tuple[State, ...]
    space: Space
    dataset: Dataset
    recipe: Recipe
    seed: int
    device: str = "cpu"


def search(job: Job) -> tuple[float, list[float]]:
    """Seconds that a study over the points took, and the validation loss of each."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(job.seed))
    for point in job.points:  # so that the points are those, and not others: suggest_* will answer them
        study.enqueue_trial(_parameters(point))
    train = tensors(job.dataset.train, job.device)
    validation = tensors(job.dataset.validation, job.device)

    def objective(trial: optuna.Trial) -> float:
        widths, activations, heard, learning_rate = _suggested(trial, job.space)
        network = Network((job.dataset.n_inputs, *widths, job.dataset.n_outputs), activations, heard).to(job.device)
        network.load_state_dict(job.initial[trial.number])
        optimizer = adamw(network, learning_rate, job.space.weight_decays[0])
        size = job.space.batch_sizes[0]
        return _fitted(network, optimizer, learning_rate, size, train, validation, job.recipe, job.seed)

    _together()
    began = perf_counter()
    study.optimize(objective, n_trials=len(job.points))
    took = perf_counter() - began
    return took, [trial.value or 0.0 for trial in study.trials]


def tensors(part: Part, device: str) -> tuple[Tensor, Tensor]:
    """Inputs and classes."""
    return torch.from_numpy(part.x).to(device), torch.from_numpy(part.y).to(device)


def _fitted(
    network: Network,
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    batch_size: int,
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    recipe: Recipe,
    seed: int,
) -> float:
    """The recipe's whole schedule; the validation loss, which is taken after every epoch, at its end."""
    (x, y), order = train, torch.Generator().manual_seed(seed)
    size, steps = min(batch_size, len(y)), recipe.steps(len(y), batch_size)
    loss = float("nan")
    for epoch in range(recipe.epochs):
        shuffled = torch.randperm(len(y), generator=order).to(x.device)
        for k in range(steps):
            rows = shuffled[k * size : (k + 1) * size]
            rate = recipe.rate((epoch * steps + k) / (recipe.epochs * steps))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * rate
            step(network, optimizer, x[rows], y[rows], recipe.label_smoothing)
        with torch.no_grad():
            loss = float(F.cross_entropy(network(validation[0]), validation[1]))
    return loss


def _parameters(point: Point) -> dict[str, Any]:
    """What ``_suggested`` asks for, so that it answers this point."""
    hidden = range(1, point.blocks + 1)
    return {
        "blocks": point.blocks,
        **{f"width_{i}": point.widths[i - 1] for i in hidden},
        **{f"activation_{i}": point.activations[i - 1] for i in hidden},
        **{f"shortcut_{i}_{j}": point.shortcuts[i][j] for i in range(1, point.blocks + 2) for j in range(i)},
        "learning_rate": point.learning_rate,
    }


def _suggested(trial: optuna.Trial, space: Space) -> tuple[list[int], list[str], list[list[int]], float]:
    """Widths and activations of the hidden blocks, what each block hears, and the learning rate."""
    blocks = trial.suggest_int("blocks", space.min_blocks, space.max_blocks)
    widths = [trial.suggest_categorical(f"width_{i}", space.widths) for i in range(1, blocks + 1)]
    activations = [trial.suggest_categorical(f"activation_{i}", space.activations) for i in range(1, blocks + 1)]
    heard = [
        [j for j in range(i) if trial.suggest_categorical(f"shortcut_{i}_{j}", (False, True))]
        for i in range(blocks + 2)
    ]
    return widths, activations, heard, trial.suggest_categorical("learning_rate", space.learning_rates)


class Processes:
    """Processes of one thread each, started and warm, that begin their parts of a search at one moment."""

    def __init__(self, pool: ProcessPoolExecutor, number: int) -> None:
        self.pool, self.number = pool, number

    def search(self, job: Job) -> tuple[float, list[float]]:
        """Candidates a second of all processes together, and the validation loss of each point.

        The rate is the sum of each process's own, so that it does not count that one of them is done before another.
        """
        parts = [slice(i, None, self.number) for i in range(self.number)]
        jobs = [
            Job(job.points[part], job.initial[part], job.space, job.dataset, job.recipe, job.seed, job.device)
            for part in parts
        ]
        losses, rate = [0.0] * len(job.points), 0.0
        for part, (seconds, values) in zip(parts, self.pool.map(search, jobs), strict=True):
            losses[part] = values
            rate += len(values) / seconds
        return rate, losses


@contextmanager
def processes(number: int) -> Iterator[Processes]:
    """So many processes, for a while."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(number)
    with ProcessPoolExecutor(number, mp_context=context, initializer=_begin, initargs=(barrier,)) as pool:
        yield Processes(pool, number)


_barrier: Any = None


def _begin(barrier: Any) -> None:
    global _barrier
    _barrier = barrier
    torch.set_num_threads(1)


def _together() -> None:
    """Wait for the others, in a process that has some; so each of them has one part, and all begin at once."""
    if _barrier is not None:
        try:
            _barrier.wait(timeout=120)
        except BrokenBarrierError:
            raise RuntimeError("a process did not come within two minutes: the machine is too busy to time") from None


# ---- several candidates of one architecture: vmap ----------------------------------------------------------------


class Stacked:
    """Networks of one architecture as one, each with its own weights; all that ``vmap`` can train together."""

    def __init__(self, networks: Sequence[Network], *, learning_rate: float, weight_decay: float, smoothing: float):
        self.parameters, _ = stack_module_state(list(networks))
        skeleton = copy.deepcopy(networks[0]).to("meta")

        def loss(parameters: State, x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(skeleton, parameters, (x,)), y, label_smoothing=smoothing)

        self._gradient = vmap(grad(loss), in_dims=(0, None, None))
        self._values = {name: parameter.detach() for name, parameter in self.parameters.items()}  # the same memory
        self._optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=learning_rate, weight_decay=weight_decay, fused=True
        )

    def step(self, x: Tensor, y: Tensor) -> None:
        """One step of each on one batch."""
        for name, gradient in self._gradient(self._values, x, y).items():
            self.parameters[name].grad = gradient
        self._optimizer.step()
