"""All wirings in one machine: a gate on each shortcut and a price for open ones, trained with the weights, then cut.

One machine has every block and every shortcut that the space allows. What is heard through a shortcut is multiplied by
a gate, the sigmoid of a number that learns as well, and the loss to lower is the data's and a price for each open gate.
So a shortcut stays that is worth its price, given all others, and the weights of these learn to do without it. The
order in which gates are open is a path of wirings, from dense to sparse, a few points of which are trained from scratch
like any other. It is the continuous relaxation of Liu et al. 2019, "DARTS: Differentiable Architecture Search", over
the shortcuts of a machine, with the price per open gate of Louizos et al. 2018, "Learning Sparse Neural Networks through
L0 Regularization".
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from machgraph.parametric_machine import ParametricMachine
from machgraph.partition import Mask
from machgraph.population import Population
from machgraph.training import Objective, Optimizer, batches
from search.data import Dataset
from search.machine import build, laid_out
from search.point import Point, canonical
from search.population import evaluate
from search.recipe import Recipe
from search.space import Space

PRICES = (0.005, 0.01, 0.02, 0.04)  # of which a proposal draws one: from most shortcuts of a small machine to a third
CUTS = 4  # points of one machine
MACHINES = 20  # that are trained at most for one list of proposals

OPEN = 2.0  # gates begin at sigmoid(2) = 0.88
WAY = 30.0  # how far a gate's number may go in a whole schedule, at the peak of the rate
ROWS = 1024  # of the training part, that a step of the gates looks at


@dataclass(frozen=True)
class Gates:
    """How far each shortcut of one machine is open.

    Parameters
    ----------
    point : what was trained: all shortcuts that its space allows.
    values : ``[block_out][block_in]`` from 0 to 1; 0 where ``point`` has no shortcut.
    price : of an open gate, in units of the loss.
    loss : of the machine with its gates, on the training part: see ``search.population.evaluate``.
    """

    point: Point
    values: tuple[tuple[float, ...], ...]
    price: float
    loss: float


def slots(space: Space, rng: np.random.Generator) -> Point:
    """The most blocks with all legal shortcuts; widths, activations and all else drawn from the choices of the space.

    Raises
    ------
    ValueError : a space whose shortcuts are not free.

    Examples
    --------
    >>> slots(Space(max_blocks=3), np.random.default_rng(0)).mask.sum()
    np.int64(10)
    """
    if space.shortcuts != "free":
        raise ValueError(
            f"got a space with shortcuts={space.shortcuts!r}: gates choose among free ones, so take another strategy"
        )
    code = {name: True if name.startswith("shortcut_") else value for name, value in space.draw(rng).items()}
    return space.decode({**code, "blocks": space.max_blocks})


def gated(point: Point, dataset: Dataset, recipe: Recipe, *, seed: int, price: float) -> Gates:
    """Train the machine of a point on the training part, with a gate on each shortcut.

    Weights and gates take turns: an epoch of the weights, in the compiled loop, then a step of the gates. Each gate
    goes down the gradient of the loss and of ``price`` times the sum of all gates.

    Parameters
    ----------
    point : with the shortcuts to choose from, its learning rate, decay and batch size.
    recipe : schedule and smoothing; nothing is stopped or halved.
    seed : of the initial weights and the order of the batches.
    price : of an open gate: how much loss a shortcut must save to be kept.

    Raises
    ------
    ValueError : a price that is negative or not finite.
    """
    if not 0 <= price < float("inf"):
        raise ValueError(f"got price={price!r}: give 0 or more, the loss that an open shortcut must save")
    part, classes = dataset.train, dataset.task == "classification"
    x, y = laid_out(torch.from_numpy(part.x), dataset.shape, point.kind), torch.from_numpy(part.y)
    y = y if classes else y[:, None]
    objective = Objective(
        "cross_entropy" if classes else "squared_error", label_smoothing=recipe.label_smoothing if classes else 0.0
    )
    size = min(point.batch_size, len(y))
    steps = recipe.steps(len(y), size)
    rates = [recipe.rate(k / (steps * recipe.epochs)) for k in range(steps * recipe.epochs)]
    population, order = Population(objective, threads=1), torch.Generator().manual_seed(seed)
    settings = Optimizer("adamw", learning_rate=point.learning_rate, weight_decay=point.weight_decay)

    machine, legal = build(point, dataset.shape, seed), torch.from_numpy(point.mask)
    weight = machine.weight.detach().clone()  # of which the machine has as much as its gates are open
    numbers = torch.full(legal.shape, OPEN, requires_grad=True)
    steps_of_gates = torch.optim.Adam([numbers], betas=(0.8, 0.99))
    for epoch in range(recipe.epochs):
        before = _through(weight, torch.sigmoid(numbers).detach(), machine)
        with torch.no_grad():
            machine.weight.copy_(before)
        candidate = population.enter(machine, settings)
        shuffled = torch.randperm(len(y), generator=order)
        (data,) = batches(x, y, size, shuffled[: steps * size])
        population.descend(data, rates[epoch * steps : (epoch + 1) * steps])
        candidate.store()
        population.leave([candidate])
        weight += machine.weight.detach() - before  # as far as ungated weights would go: a closed gate stops no step

        rows = shuffled[:ROWS]
        gates = torch.sigmoid(numbers)
        loss = _loss(machine, _through(weight, gates, machine), x[rows], y[rows], objective)
        steps_of_gates.param_groups[0]["lr"] = WAY / recipe.epochs * rates[epoch * steps]
        steps_of_gates.zero_grad()
        (loss + price * gates[legal].sum()).backward()  # type: ignore[no-untyped-call]
        steps_of_gates.step()
    values = torch.where(legal, torch.sigmoid(numbers).detach(), 0.0)
    with torch.no_grad():
        machine.weight.copy_(_through(weight, values, machine))
    loss_at_last, _ = evaluate(machine, dataset, part)
    return Gates(point, tuple(map(tuple, values.tolist())), price, loss_at_last)


def cuts(gates: Gates, space: Space, number: int) -> tuple[Point, ...]:
    """Points with ever fewer shortcuts, the weakest closed first, until one way from input to output is left.

    Parameters
    ----------
    number : of points, at least 1; of a longer path these are spread evenly, the first and last among them.

    Returns
    -------
    Points of the space, different networks all; in canonical form where the space has it.
    """
    point, mask = gates.point, gates.point.mask
    networks = {canonical(point): point}
    for pair in sorted(space.pairs(point.blocks), key=lambda pair: gates.values[pair[0]][pair[1]]):
        mask[pair] = False
        thinner = replace(point, shortcuts=tuple(map(tuple, mask.tolist())))
        if thinner.depth > 1:
            networks.setdefault(canonical(thinner), thinner)
        else:
            mask[pair] = True  # the only way there is left
    path = [form if _has(space, form) else cut for form, cut in networks.items()]
    places = np.linspace(0, len(path) - 1, min(number, len(path))).round().astype(int)
    return tuple(path[place] for place in places)


def proposals(
    space: Space, dataset: Dataset, recipe: Recipe, seed: int | tuple[int, ...], number: int,
    seen: Collection[Point] = (),
) -> list[Point]:
    """Points to train, cut from machines whose widths, activations, settings and price the seed draws.

    Parameters
    ----------
    seed : of one list: for each generation of a search another, as in ``(seed, generation)``.
    number : of points, different networks all; fewer where ``MACHINES`` machines do not have so many.
    seen : canonical forms to leave out.

    Raises
    ------
    ValueError : a space whose shortcuts are not free.
    """
    rng, found = np.random.default_rng(seed), dict[Point, Point]()
    for _ in range(MACHINES):
        if len(found) >= number:
            break
        point, price = slots(space, rng), float(rng.choice(PRICES))
        gates = gated(point, dataset, recipe, seed=int(rng.integers(1 << 31)), price=price)
        for cut in cuts(gates, space, CUTS):
            if (form := canonical(cut)) not in seen:
                found.setdefault(form, cut)
    return list(found.values())[:number]


def _has(space: Space, point: Point) -> bool:
    try:
        space.encode(point)
    except ValueError:
        return False
    return True


def _through(weight: Tensor, gates: Tensor, machine: ParametricMachine) -> Tensor:
    """The weights, each multiplied with the gate of its pair of blocks."""
    block = torch.repeat_interleave(torch.arange(len(gates)), torch.tensor(machine.partition.widths))
    spread = gates[block[:, None], block]
    return weight * spread.view(*spread.shape, *[1] * machine.dimensions)


def _loss(machine: ParametricMachine, weight: Tensor, x: Tensor, y: Tensor, objective: Objective) -> Tensor:
    """What the machine descends on, differentiable in ``weight`` alone."""
    bias = None if machine.bias is None else machine.bias.detach()
    outputs = machine.output(machine.reference(weight, bias, x)[1])
    outputs = outputs.flatten(2).mean(2) if machine.dimensions else outputs
    if objective.loss == "cross_entropy":
        return F.cross_entropy(outputs, y, label_smoothing=objective.label_smoothing)
    return F.mse_loss(outputs, y)
