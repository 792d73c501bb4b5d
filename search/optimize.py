"""A search for an objective of one's own: a function from a machine to one number or several."""

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from machgraph.io import save
from machgraph.step import Misfit
from search.driver import Listener, Result, go_on, start
from search.facts import Facts, versions
from search.graph.io import difference, save_graph
from search.graph.point import GraphPoint
from search.graph.space import GraphSpace
from search.objectives import MEASURES, asked, refuse_impossible, refuse_unmeasured
from search.one_of import AnySpace
from search.parallel.workers import employed, manned
from search.point import AnyPoint, hyperparameters
from search.population import Outcome, Progress, Status
from search.recipe import Recipe
from search.record import Record, Row, Settings
from search.run import BEST, RUN, free_folder, read_facts, read_settings, refuse_used
from search.shape import UNKNOWN, Shape
from search.storage.store import restore
from search.suggest import DIFFERENTIABLE
from search.training.lessons import refuse_missing
from search.training.machine import build
from search.work import Pending, Task

Values = float | Sequence[float] | Mapping[str, float]
Objective = Callable[[Any], Values]  # of a parametric machine, or of an architecture


def optimize(
    objective: Objective,
    space: AnySpace,
    shape: Shape | None = None,
    *,
    trials: int | None = None,
    seconds: float | None = None,
    objectives: Sequence[str] = ("value",),
    maximize: Sequence[str] = (),
    constraints: Mapping[str, float] | None = None,
    strategy: str = "evolution",
    population: int = 1,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float = 0.0,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    catch: tuple[type[Exception], ...] = (),
    on_event: Listener = lambda event: None,
) -> Result:
    """Search for the machine of a space that makes a function small, or several numbers at once.

    Every trial is stored when it is done, no architecture is tried twice, and a search that was stopped goes on with
    ``resume=True``. How a machine is trained is the function's: of learning rates and all else that concerns training
    in a space only the first choice is taken (``space.untrained``). The folder holds the ledger, the leaderboard and
    the best machine, with the weights that the function left it with.

    Parameters
    ----------
    objective : is given a machine with new weights, or of a graph space an architecture, may train it in
        any way, and returns a number; or a number for each of the objectives that is no measure, in their order or by
        name. Not a number: the trial has diverged.
    space, shape : of the machines. A graph space needs no shape: what its shapes tell is enough. Without those of its
        inputs there are no FLOPs, memory and latency.
    trials, seconds : when to end, in all, what was done before ``resume`` among it; at least one.
    objectives : names, of what the function returns and of measures: ``parameters``, ``flops``, ``depth``, ``memory``
        or ``latency``. With several the search looks for their front.
    maximize : which of them are to be large.
    constraints : of measures, the most that each may be; a machine that has more is not given to the function.
    strategy, seed : as of any search.
    population : trials that are proposed at once, and stored when all are done.
    workers, ray, gpus : so many populations are tried at once by processes of this machine, or with ``ray`` by the
        nodes of the cluster at that address, each with such a share of a GPU, which torch then has as ``"cuda"``. The
        function, and the factories of a graph space, must be such that can be pickled.
    out : the run's folder; ``runs/`` and the function's name if not given, or that and ``-2`` and so on.
    resume : go on with the search in ``out``, which was begun with the same arguments but ``trials`` and ``seconds``.
    catch : exceptions of the function that end the trial alone, whose status is then ``failed``; any other ends the
        search, whose finished trials are kept. Of a graph space what does not fit together fails always.
    on_event : told of every step.

    Raises
    ------
    ValueError : arguments that do not fit, measures that need shapes, or other numbers than the objectives; on
        resuming, other arguments.
    FileNotFoundError : there is nothing to go on with.
    OSError : workers die over a trial again and again, or the cluster is lost; finished trials are kept.

    Examples
    --------
    >>> import tempfile
    >>> from search.space import Space
    >>> def distance(machine):
    ...     return abs(machine.parameter_count() - 20)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = optimize(distance, Space(max_blocks=1, widths=(2,)), Shape(3, 1), trials=4, out=folder)
    >>> len(result.records), result.rows[0].name
    (4, 'winner')
    """
    if isinstance(space, GraphSpace):
        shape, catch = shape or space.shape, (*catch, Misfit)
    elif shape is None or shape == UNKNOWN:
        raise ValueError("got no shape: give search.shape.Shape(inputs, outputs), so that machines can be built")
    if not callable(objective):
        raise ValueError(f"got an objective of {type(objective).__name__}: give a function of a machine")
    name = getattr(objective, "__qualname__", type(objective).__qualname__)
    source = f"{getattr(objective, '__module__', '')}:{name}"
    settings = Settings(
        source, None, None, seed, strategy, trials, seconds, population, space, Recipe(), finalists=1, seeds=1,
        objectives=objectives, maximize=maximize, constraints=constraints or {},  # type: ignore[arg-type]  # told there
        workers=workers, gpus=gpus,
    )  # fmt: skip
    settings = replace(settings, space=settings.space.untrained)
    own = tuple(one for one in settings.objectives if one not in MEASURES)
    if not own:
        raise ValueError(f"got objectives={settings.objectives}: name at least one that the function itself returns")
    if strategy == DIFFERENTIABLE:
        raise ValueError("got the differentiable strategy, which trains on data itself: take another")
    refuse_unmeasured(space, shape, asked(settings.objectives, settings.constraints))
    facts = _facts(name, settings, shape)
    if resume and out is None:
        raise ValueError("got resume without a folder: give the one of the search to go on with as out")
    folder = Path(out) if out is not None else free_folder(Path("runs", name.rsplit(".", 1)[-1].strip("<>")))
    if resume:
        restore(folder)
        if ray is not None and workers is None:
            settings = replace(settings, workers=read_settings(folder).workers)
        _refuse_others(folder, settings, facts)
    else:
        refuse_used(folder)
        refuse_impossible(settings.space, shape, settings.constraints, seed)
        settings = manned(settings, ray)
    with employed(_OwnWork(objective, own, settings, shape, folder, catch), ray) as work:
        return (go_on if resume else start)(settings, facts, work, folder, on_event)


class _OwnWork:
    """Trials that are one call of a function each."""

    ahead = lost = 0
    device = "cpu"  # as of work on data

    def __init__(
        self,
        objective: Objective,
        own: Sequence[str],
        settings: Settings,
        shape: Shape,
        folder: Path,
        catch: tuple[type[Exception], ...],
    ) -> None:
        self.objective, self.own, self.settings, self.shape = objective, own, settings, shape
        self.folder, self.catch = folder, catch

    def begin(self, number: int) -> list[AnyPoint]:
        """Nothing."""
        return []

    def submit(self, task: Task) -> Pending:
        """They are tried when they are waited for."""
        return lambda progress: self.train(task, progress)

    def train(self, task: Task, progress: Progress) -> list[Outcome]:
        """One after the other; the function is given new weights."""
        refuse_missing(self.device)
        found = []
        for i, point in enumerate(task.points):
            progress(0, len(task.points) - i)
            found.append(self._outcome(point))
        return found

    def keep(self, record: Record, outcome: Outcome) -> None:
        """With the weights that the function left."""
        metadata = {
            "objective": self.settings.source,
            "trial": record.number,
            "key": record.key,
            **hyperparameters(record.canonical),
            **record.measures,
        }
        if isinstance(record.canonical, GraphPoint):
            save_graph(outcome.machine, _graphs(self.settings.space), record.canonical, self.folder / BEST, metadata)
        else:
            save(outcome.machine, self.folder / BEST, metadata)

    def end(self, ranked: Sequence[Record], settings: Settings) -> list[Row]:
        """There are no data, so nobody to compare the winner with."""
        if not (self.folder / BEST).exists():  # where the folder was made anew
            self.keep(ranked[0], self._outcome(ranked[0].canonical))
        return []

    def _outcome(self, point: AnyPoint) -> Outcome:
        space, seed, began = self.settings.space, self.settings.seed, perf_counter()
        if not isinstance(point, GraphPoint):
            machine: Any = build(point, self.shape, seed)
        elif refused := _graphs(space).refusal(point):
            return Outcome("failed", 0, 0, math.nan, math.nan, (), 0.0, 1.0, None, reason=refused)
        else:
            machine = _graphs(space).build(point, seed)
        values, reason = None, ""
        try:
            values = _numbers(self.objective(machine), self.own)
        except self.catch as error:
            reason = str(error) or type(error).__name__
        seconds = perf_counter() - began
        if self.settings.gpus:
            machine = machine.cpu()  # where the function has left it on its GPU
        if values is None or not all(map(math.isfinite, values.values())):
            status: Status = "failed" if values is None else "diverged"
            return Outcome(status, 0, 0, math.nan, math.nan, (), seconds, 1.0, machine, reason=reason)
        first = values[self.own[0]]
        loss = -first if self.own[0] in self.settings.maximize else first
        return Outcome("complete", 0, 0, loss, first, (), seconds, 1.0, machine, values)


def _graphs(space: AnySpace) -> GraphSpace:
    assert isinstance(space, GraphSpace)  # where graphs are from
    return space


def _numbers(returned: Any, own: Sequence[str]) -> dict[str, float]:
    """What the function returned, by name."""
    if isinstance(returned, Mapping):
        values = dict(returned)
        fits = set(values) == set(own)
    else:
        listed = [returned] if hasattr(returned, "__float__") else returned
        fits = isinstance(listed, Sequence) and not isinstance(listed, str) and len(listed) == len(own)
        values = dict(zip(own, listed, strict=True)) if fits else {}
    try:
        if fits:
            return {name: float(values[name]) for name in own}
    except (TypeError, ValueError):
        pass
    wish = "a number" if len(own) == 1 else f"{len(own)} numbers, for {', '.join(own)}"
    raise ValueError(f"the objective returned {returned!r}: it must return {wish}")


def _facts(name: str, settings: Settings, shape: Shape) -> Facts:
    told = repr((settings.source, settings.objectives, settings.maximize, shape))
    return Facts(
        name=name,
        task="objective",
        shape=shape,
        classes=(),
        lines=(f"{settings.source}, {_told(settings.space, shape)}",),
        fingerprint=hashlib.sha256(told.encode()).hexdigest(),
        points=settings.space.count(),
        architectures=settings.space.count_classes(),
        versions=versions(),
        objective=next(one for one in settings.objectives if one not in MEASURES),
    )


def _told(space: AnySpace, shape: Shape) -> str:
    if isinstance(space, GraphSpace):
        return f"from {', '.join(space.inputs)} to {', '.join(space.outputs)}"
    return f"{shape.inputs} inputs and {shape.outputs} outputs"


def _refuse_others(folder: Path, settings: Settings, facts: Facts) -> None:
    """FileNotFoundError: no run is there. ValueError: it was begun with other arguments."""
    begun = replace(read_settings(folder), trials=settings.trials, seconds=settings.seconds)
    if read_facts(folder).fingerprint != facts.fingerprint:
        raise ValueError(f"{folder} was begun with another objective or shape, {begun.source}: give the same again")
    if isinstance(begun.space, GraphSpace) and isinstance(settings.space, GraphSpace) and begun.space != settings.space:
        raise ValueError(f"{folder} was begun with another graph space: {difference(begun.space, settings.space)}")
    for name in ("seed", "strategy", "population", "workers", "gpus", "space", "constraints"):
        if getattr(begun, name) != getattr(settings, name):
            raise ValueError(
                f"{folder / RUN} has {name}={getattr(begun, name)!r}, and not {getattr(settings, name)!r}: "
                "a search goes on with what it was begun with"
            )
