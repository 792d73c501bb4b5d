"""All wirings in one machine: a gate on each shortcut and a price for open ones, trained with the weights, then cut.

One machine has every block and every shortcut that the space allows. Weights are multiplied with the gate of their
shortcut, the sigmoid of a number that learns as well, and what is lowered is the loss plus a price for each gate, as
far as it is open. So a shortcut stays open that saves more loss than its price, while the others learn to do without
the rest. The order in which gates are open is a path of wirings, from dense to sparse; a few points of it are then
trained from scratch like any other.

A relaxation as in Liu et al. 2019, "DARTS: Differentiable Architecture Search", with a price for each gate as in
Louizos et al. 2018, "Learning Sparse Neural Networks through L0 Regularization", over the shortcuts of a machine.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from machgraph.parametric_machine import ParametricMachine
from machgraph.population import Population
from machgraph.training import Objective, Optimizer, batches
from search.data import Dataset
from search.isomorphism.canonical import canonical
from search.point import Kind, Point
from search.population import evaluate
from search.recipe import Recipe
from search.space import Space
from search.training.machine import build, laid_out

PRICES = (0.005, 0.01, 0.02)  # on digits machines of three narrow blocks keep 9, 7 and 7 of their 10 shortcuts
CUTS = 4  # points of one machine
MACHINES = 20  # trained at most for one list of proposals

START = 2.0  # gates begin at sigmoid(2) = 0.88
RATE = 1.0  # of the gates' optimizer, at its peak
ROWS = 256  # of the training part, that a step of the gates looks at


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
    x, y, objective = _samples(dataset, point.kind, recipe)
    size = min(point.batch_size, len(y))
    steps = recipe.steps(len(y), size)
    rates = [recipe.rate(k / (steps * recipe.epochs)) for k in range(steps * recipe.epochs)]
    population, order = Population(objective, threads=1), torch.Generator().manual_seed(seed)
    settings = Optimizer("adamw", learning_rate=point.learning_rate, weight_decay=point.weight_decay)

    machine, legal = build(point, dataset.shape, seed), torch.from_numpy(point.mask)
    weight = machine.weight.detach().clone()  # of which the machine has as much as its gates are open
    numbers = torch.full(legal.shape, START, dtype=torch.float64, requires_grad=True)  # or open gates tie at 1
    adam = torch.optim.Adam([numbers], betas=(0.8, 0.99))
    for epoch in range(recipe.epochs):
        before = _through(weight, torch.sigmoid(numbers).detach(), machine)
        with torch.no_grad():
            machine.weight.copy_(before)
        candidate = population.enter(machine, settings)  # anew: the gates have changed its weights
        shuffled = torch.randperm(len(y), generator=order)
        (data,) = batches(x, y, size, shuffled[: steps * size])
        population.descend(data, rates[epoch * steps : (epoch + 1) * steps])
        candidate.store()
        population.leave([candidate])
        weight += machine.weight.detach() - before  # as far as ungated weights would go: a closed gate stops no step

        rows = shuffled[:ROWS]
        gates = torch.sigmoid(numbers)
        loss = _loss(machine, _through(weight, gates, machine), x[rows], y[rows], objective)
        adam.param_groups[0]["lr"] = RATE * rates[epoch * steps]
        adam.zero_grad()
        (loss + price * gates[legal].sum()).backward()  # type: ignore[no-untyped-call]
        adam.step()
    values = torch.where(legal, torch.sigmoid(numbers).detach(), 0.0)
    with torch.no_grad():
        machine.weight.copy_(_through(weight, values, machine))
    return Gates(point, tuple(map(tuple, values.tolist())), price, evaluate(machine, dataset, dataset.train)[0])


def cuts(gates: Gates, space: Space, number: int, seen: Collection[Point] = ()) -> tuple[Point, ...]:
    """Points on the path from all shortcuts to one way from input to output, along which the weakest is closed first.

    It ends earlier where the space has no points of so few shortcuts.

    Parameters
    ----------
    number : of points: those next to the wiring of the gates that are at least half open, from dense to sparse.
    seen : canonical forms to leave out.

    Returns
    -------
    Points of the space, different networks all, in canonical form where the space has that; fewer if there are no more.
    """
    point, mask = gates.point, gates.point.mask
    path = {canonical(point): point}  # the densest of each network
    least, _ = space.shortcut_range(point.blocks)
    for out, source in sorted(space.pairs(point.blocks), key=lambda pair: gates.values[pair[0]][pair[1]]):
        if mask.sum() <= least:
            break
        mask[out, source] = False
        thinner = replace(point, shortcuts=tuple(map(tuple, mask.tolist())))
        if thinner.depth > 1:
            path.setdefault(canonical(thinner), thinner)
        else:
            mask[out, source] = True  # without it there is no way
    half = (np.array(gates.values) >= 0.5).sum()
    fresh = [network for network in path.items() if network[0] not in seen]
    near = sorted(fresh, key=lambda network: abs(network[1].mask.sum() - half))[:number]
    return tuple(form if _has(space, form) else cut for form, cut in fresh if (form, cut) in near)


def proposals(
    space: Space,
    dataset: Dataset,
    recipe: Recipe,
    seed: int | tuple[int, ...],
    number: int,
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
        wanted = min(CUTS, number - len(found))
        found |= {canonical(cut): cut for cut in cuts(gates, space, wanted, {*seen, *found})}
    return list(found.values())


def _has(space: Space, point: Point) -> bool:
    """Whether the point is in the space: a canonical form may be too small for it, or as wide as two of its blocks."""
    try:
        space.encode(point)
    except ValueError:
        return False
    return True


def _samples(dataset: Dataset, kind: Kind, recipe: Recipe) -> tuple[Tensor, Tensor, Objective]:
    """Inputs and targets of the training part as the machine reads them, and what it descends on."""
    part = dataset.train
    x, y = laid_out(torch.from_numpy(part.x), dataset.shape, kind), torch.from_numpy(part.y)
    if dataset.task == "regression":
        return x, y[:, None], Objective("squared_error")
    return x, y, Objective("cross_entropy", label_smoothing=recipe.label_smoothing)


def _through(weight: Tensor, gates: Tensor, machine: ParametricMachine) -> Tensor:
    """The weights, each multiplied with the gate of its pair of blocks."""
    block = torch.repeat_interleave(torch.arange(len(gates)), torch.tensor(machine.partition.widths))
    spread = gates.to(weight.dtype)[block[:, None], block]
    return weight * spread.view(*spread.shape, *[1] * machine.dimensions)


def _loss(machine: ParametricMachine, weight: Tensor, x: Tensor, y: Tensor, objective: Objective) -> Tensor:
    """What the machine descends on, differentiable in ``weight`` alone."""
    bias = None if machine.bias is None else machine.bias.detach()
    outputs = machine.output(machine.reference(weight, bias, x)[1])
    outputs = outputs.flatten(2).mean(2) if machine.dimensions else outputs
    if objective.loss == "cross_entropy":
        return F.cross_entropy(outputs, y, label_smoothing=objective.label_smoothing)
    return F.mse_loss(outputs, y)
