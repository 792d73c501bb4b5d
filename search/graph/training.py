"""Networks of a graph space trained on data, side by side and halved at the rungs: a plain loop of torch.

A candidate sees the same batches, begins from the same weights and draws the same random numbers (of dropout, say) as
when it is trained alone.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from machgraph.population import EXPONENTS, calibrated
from search.data.parts import Dataset
from search.graph.network import Network, Numbers, network
from search.graph.point import GraphPoint
from search.graph.space import GraphSpace
from search.point import AnyPoint
from search.population import Measured, Outcome, Progress, Status, scores, slow
from search.recipe import Recipe
from search.training.lessons import Lessons, targets


def train_graphs(
    space: GraphSpace,
    points: Sequence[AnyPoint],
    folds: Sequence[Dataset],
    recipe: Recipe,
    seed: int,
    progress: Progress = lambda epoch, running: None,
    *,
    seeds: Sequence[int] | None = None,
    costs: Sequence[Sequence[float]] | None = None,
    device: str = "cpu",
) -> list[Outcome]:
    """Train all candidates, as ``search.population.train`` does with those of other spaces.

    One that does not fit (its machines each other, or the data) has failed, and says why; whatever else a module raises
    goes on to the caller.

    Parameters
    ----------
    space : the points' own.
    points, folds, recipe, seed, progress, seeds, costs, device : as there.
    """
    lessons = _lessons(points, folds, recipe, seed, device)
    initial, others = seeds or [seed] * len(points), costs or [()] * len(points)
    outcomes: dict[int, Outcome] = {}
    students = []
    for i, (point, begun) in enumerate(zip(points, initial, strict=True)):
        try:
            nets = [network(space, _graph(point), one.shape, begun).to(device) for one in folds]
        except ValueError as error:
            outcomes[i] = Outcome("failed", 0, 0, math.nan, math.nan, (), 0.0, 1.0, None, reason=str(error))
            continue
        students.append(_Student(i, _graph(point), nets, lessons[point.transform], recipe.epochs, begun))
    running = students
    for end in (*recipe.rungs, recipe.epochs):
        for epoch in range(max((len(s.curve) for s in running), default=end), end):
            for student in running:
                student.epoch(epoch)
                student.record(recipe.patience)
            running = [student for student in running if student.status is None]
            progress(epoch + 1, len(running))
        if end < recipe.epochs:
            told = [(student.loss, *others[student.number]) for student in running]
            for i in slow([student.point for student in running], told, recipe.reduction):
                running[i].status = "halved"
            running = [student for student in running if student.status is None]
    outcomes |= {student.number: student.outcome() for student in students}
    return [outcomes[i] for i in range(len(points))]


def refit_graphs(
    space: GraphSpace,
    points: Sequence[AnyPoint],
    dataset: Dataset,
    recipe: Recipe,
    epochs: Sequence[int],
    *,
    seed: int,
    seeds: Sequence[int],
    device: str = "cpu",
) -> list[Network]:
    """Train networks on ``dataset.train`` without looking at any other part, as ``search.population.refit`` does."""
    lessons = _lessons(points, (dataset,), recipe, seed, device)
    found = []
    for point, length, begun in zip(points, epochs, seeds, strict=True):
        net = network(space, _graph(point), dataset.shape, begun).to(device)
        student = _Student(0, _graph(point), [net], lessons[point.transform], length, begun)
        for epoch in range(length):
            student.epoch(epoch)
        found.append(net.cpu().eval())
    return found


def _graph(point: AnyPoint) -> GraphPoint:
    assert isinstance(point, GraphPoint)  # all points of the space are
    return point


def _lessons(
    points: Sequence[AnyPoint], folds: Sequence[Dataset], recipe: Recipe, seed: int, device: str
) -> dict[str, list[Lessons]]:
    names = dict.fromkeys(point.transform for point in points)
    return {name: [Lessons(dataset, recipe, seed, name, device) for dataset in folds] for name in names}


@dataclass(eq=False)
class _Student:
    """How a candidate fares, on each of the folds, each with a network, an optimizer and random numbers of its own."""

    number: int
    point: GraphPoint
    networks: list[Network]
    lessons: Sequence[Lessons]
    length: int
    seed: int
    status: Status | None = None
    loss: float = math.nan
    score: float = math.nan
    sharpness: float = 1.0
    noise: float = 0.0
    best_epoch: int = 0
    seconds: float = 0.0
    curve: list[float] = field(default_factory=list)
    by_fold: tuple[float, ...] = ()
    weights: dict[str, Tensor] | None = None  # of the best epoch, of the first fold

    def __post_init__(self) -> None:
        rate, decay = self.point.learning_rate, self.point.weight_decay
        self.optimizers = [  # a sum of machines without weights has nothing to learn
            torch.optim.AdamW(list(net.parameters()), lr=rate, weight_decay=decay) if list(net.parameters()) else None
            for net in self.networks
        ]
        self.random = [Numbers(np.random.SeedSequence((self.seed, 1)), one.device) for one in self.lessons]

    def epoch(self, number: int) -> None:
        """Train each network for one epoch, counted from 0."""
        began = perf_counter()
        for i, (net, lessons, optimizer) in enumerate(zip(self.networks, self.lessons, self.optimizers, strict=True)):
            with self.random[i].drawn():
                _descend(net.train(), lessons, optimizer, self.point, number, self.length)
        self.seconds += perf_counter() - began

    def record(self, patience: int | None) -> None:
        """Measure on the validation parts; see whether to go on.

        As with other machines the last epoch counts, or, where training may stop early, the best one; and what is not
        finite never.
        """
        results = [_measured(net.eval(), one) for net, one in zip(self.networks, self.lessons, strict=True)]
        loss, score, sharpness, noise = map(float, np.mean(results, axis=0))
        self.curve.append(loss)
        if math.isfinite(loss) and (patience is None or not loss >= self.loss):
            self.loss, self.score, self.best_epoch = loss, score, len(self.curve)
            self.sharpness, self.noise = sharpness, noise
            self.by_fold = tuple(float(result[0]) for result in results)
            self.weights = deepcopy(self.networks[0].state_dict())
        if not math.isfinite(loss):
            self.status = "diverged"
        elif len(self.curve) == self.length:
            self.status = "complete"
        elif patience is not None and len(self.curve) - self.best_epoch >= patience:
            self.status = "stopped"

    def outcome(self) -> Outcome:
        assert self.status is not None  # it has run to an end
        if self.weights is not None:
            self.networks[0].load_state_dict(self.weights)
        return Outcome(
            self.status, len(self.curve), self.best_epoch, self.loss, self.score, tuple(self.curve), self.seconds,
            self.sharpness, self.networks[0].cpu().eval(), by_fold=self.by_fold, noise=self.noise,
        )  # fmt: skip


def _descend(
    net: Network, lessons: Lessons, optimizer: torch.optim.AdamW | None, point: GraphPoint, epoch: int, length: int
) -> None:
    """One epoch by the schedule of the recipe."""
    train, recipe = lessons.dataset.train, lessons.recipe
    size = min(point.batch_size, len(train))
    steps = lessons.steps(size)
    rows = torch.from_numpy(lessons.order(epoch, size)).to(lessons.device)
    x, y = torch.from_numpy(train.x).to(lessons.device), targets(train).to(lessons.device)
    for k in range(steps if optimizer is not None else 0):
        batch = rows[k * size : (k + 1) * size]
        for group in optimizer.param_groups:  # type: ignore[union-attr]  # there are no steps without it
            group["lr"] = point.learning_rate * recipe.rate((epoch + k / steps) / length)
        optimizer.zero_grad()  # type: ignore[union-attr]
        said = net(x[batch])
        if lessons.dataset.task == "regression":
            loss = functional.mse_loss(said, y[batch])
        else:
            loss = functional.cross_entropy(said, y[batch], label_smoothing=recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()  # type: ignore[union-attr]


def _measured(net: Network, lessons: Lessons) -> Measured:
    """Loss, score, sharpness and noise on the validation part."""
    part = lessons.given.validation
    said, noise = lessons.measured(lessons.outputs(net, "validation"))
    if lessons.dataset.task == "regression" or not np.isfinite(said).all():
        return (*scores(lessons.given, part, said), 1.0, noise)
    loss, sharpness = calibrated(np.array([scores(lessons.given, part, said * 2.0**e)[0] for e in EXPONENTS]))
    return loss, lessons.given.score(part, said), sharpness, noise
