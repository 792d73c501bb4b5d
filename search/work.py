"""What is done with the points that a search proposes: trained on data, here, and compared at the end."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from machgraph.io import save
from machgraph.parametric_machine import ParametricMachine
from search.comparison.final import Entrant, final, folds_of
from search.data import Dataset
from search.data.encoder import Encoder
from search.data.transform import GIVEN
from search.facts import Facts
from search.graph.io import save_graph
from search.graph.network import Network
from search.graph.point import GraphPoint
from search.graph.space import GraphSpace
from search.graph.training import train_graphs
from search.objectives import accepting
from search.one_of import AnySpace, OneOf
from search.point import AnyPoint, Point, hyperparameters
from search.population import Outcome, Progress, train
from search.recipe import Recipe
from search.record import Record, Row, Settings
from search.run import BEST, ENSEMBLE
from search.space import Space
from search.strategies.heirs import Inheritance, begun
from search.suggest import DIFFERENTIABLE
from search.training.lessons import refuse_missing


def gateable(space: AnySpace) -> list[Space]:
    """The parts of a space whose shortcuts gates can choose among.

    Raises
    ------
    ValueError : there is none.
    """
    spaces = space.spaces if isinstance(space, OneOf) else (space,)
    found = [one for one in spaces if isinstance(one, Space) and one.shortcuts == "free" and one.kind != "recurrence"]
    if not found:
        raise ValueError(
            "got the differentiable strategy for a space without free shortcuts of dense machines or convolutions: "
            "gates have nothing to choose among, so take another strategy"
        )
    return found


@dataclass(frozen=True)
class Task:
    """What is to be trained together.

    Parameters
    ----------
    points : in their canonical form.
    costs : of each point, what else is to be small.
    recipe : of the generation.
    heirs : of each point, what it inherits; ``None``: nothing.
    """

    points: Sequence[AnyPoint]
    costs: Sequence[Sequence[float]]
    recipe: Recipe
    heirs: Sequence[Inheritance | None]


Pending = Callable[[Progress], list[Outcome]]  # waits for what is being trained, or trains it


class Work(Protocol):
    """What the driver of a search leaves to others."""

    @property
    def ahead(self) -> int:
        """How many generations may be submitted before the one before them is waited for."""

    @property
    def lost(self) -> int:
        """How many workers have died so far, whose work others did."""

    def begin(self, number: int) -> Sequence[AnyPoint]:
        """What the first generation is to hold, at most so many; the strategy proposes the rest."""

    def submit(self, task: Task) -> Pending:
        """The outcomes of a generation, in the order of its points, to be waited for."""

    def keep(self, record: Record, outcome: Outcome) -> None:
        """Write the best machine so far."""

    def end(self, ranked: Sequence[Record], settings: Settings) -> list[Row]:
        """The leaderboard, from the best record of each architecture, best first; none to leave it as it is."""


class OnData:
    """Machines trained on a data set by the recipe of the settings, in this process."""

    ahead = lost = 0
    device = "cpu"  # where candidates are trained; on a cluster with GPUs a worker is told its own

    def __init__(self, settings: Settings, facts: Facts, dataset: Dataset, folder: Path) -> None:
        self.settings, self.facts, self.dataset, self.folder = settings, facts, dataset, folder
        self.folds = folds_of(dataset, settings)

    def begin(self, number: int) -> list[AnyPoint]:
        """The cuts of gated machines, of each kind as many, if that is the strategy."""
        if self.settings.strategy != DIFFERENTIABLE:
            return []
        from search.strategies.differentiable import proposals

        settings, spaces = self.settings, gateable(self.settings.space)
        accepts, found = accepting(self.dataset.shape, settings.constraints), list[AnyPoint]()
        for i, space in enumerate(spaces):
            wish = number * (i + 1) // len(spaces) - number * i // len(spaces)
            found += proposals(space, self.folds[0], settings.recipe, (settings.seed, i), wish)
        return [point for point in found if accepts(point)]

    def submit(self, task: Task) -> Pending:
        """They are trained when they are waited for."""
        return lambda progress: self.train(task, progress)

    def train(self, task: Task, progress: Progress) -> list[Outcome]:
        """Side by side, halved at the rungs; those that inherit apart, for their schedule is another."""
        refuse_missing(self.device)
        if isinstance(self.settings.space, GraphSpace):
            return train_graphs(
                self.settings.space, task.points, self.folds, task.recipe, self.settings.seed, progress,
                costs=task.costs, device=self.device,
            )  # fmt: skip
        points, costs, recipe, heirs = cast("Sequence[Point]", task.points), task.costs, task.recipe, task.heirs
        first = [i for i, heir in enumerate(heirs) if heir is None]
        outcomes = dict(zip(first, self._train(first, points, costs, recipe, progress), strict=True))
        begun = {i: self._begun(points[i], heir) for i, heir in enumerate(heirs) if heir is not None}
        if begun:
            rest = self._train(list(begun), points, costs, recipe.of_children(), progress, list(begun.values()))
            outcomes |= dict(zip(begun, rest, strict=True))
        return [outcomes[i] for i in range(len(points))]

    def _train(
        self,
        some: Sequence[int],
        points: Sequence[Point],
        costs: Sequence[Sequence[float]],
        recipe: Recipe,
        progress: Progress,
        machines: Sequence[Sequence[ParametricMachine]] | None = None,
    ) -> list[Outcome]:
        costs = [costs[i] for i in some]
        return train(
            [points[i] for i in some], self.folds, recipe, self.settings.seed, progress,
            costs=costs, machines=machines, device=self.device,
        )  # fmt: skip

    def _begun(self, point: Point, heir: Inheritance) -> list[ParametricMachine]:
        """What it begins with on each fold."""
        return [begun(point, self.dataset.shape, heir.seed, heir.alignment, weights) for weights in heir.weights]

    def keep(self, record: Record, outcome: Outcome) -> None:
        """With the weights that it was measured with."""
        transform = record.canonical.transform
        learned = self.folds[0] if transform == GIVEN else self.folds[0].transformed(transform)
        self._save(record, outcome.machine, learned.encoder.noisy(outcome.noise), sharpness=outcome.sharpness)

    def end(self, ranked: Sequence[Record], settings: Settings) -> list[Row]:
        """Find the winner among the best, train its rivals, and look at the held-out part."""
        ended = final(ranked, settings, self.dataset, self.facts)
        row = ended.rows[0]
        self._keep(ended.finalists[0], BEST, test_loss=row.test_loss, test_score=row.test_score)
        (self.folder / ENSEMBLE).mkdir(exist_ok=True)
        for old in (self.folder / ENSEMBLE).glob("*.machgraph"):
            old.unlink()
        for place, finalist in enumerate(ended.finalists, start=1):
            self._keep(finalist, f"{ENSEMBLE}/{place}.machgraph")
        return list(ended.rows)

    def _keep(self, finalist: Entrant, name: str, **more: float | None) -> None:
        assert finalist.record is not None  # a trial found it
        machine, encoder = finalist.machines[0], finalist.encoder
        self._save(finalist.record, machine, encoder, name, sharpness=finalist.sharpness, **more)

    def _save(self, winner: Record, machine: Any, encoder: Encoder, name: str = BEST, **more: float | None) -> None:
        """Write a machine with all that ``predict`` needs; a number that is none is not there."""
        metadata: dict[str, Any] = {
            "dataset": self.dataset.name,
            "task": self.dataset.task,
            "encoder": encoder.to_json(),
            "shape": asdict(self.dataset.shape),
            "trial": winner.number,
            "key": winner.key,
            **hyperparameters(winner.canonical),
            "loss": winner.loss,
            "score": winner.score,
            **({} if self.settings.graph is None else {"graph": self.settings.graph}),
            **more,
        }
        there = {name: None if value != value else value for name, value in metadata.items()}
        if isinstance(machine, Network):
            assert isinstance(self.settings.space, GraphSpace)
            assert isinstance(winner.canonical, GraphPoint)
            space, point = self.settings.space, winner.canonical
            save_graph(machine.architecture, space, point, self.folder / name, {**there, "size": machine.size})
        else:
            save(machine, self.folder / name, there)
