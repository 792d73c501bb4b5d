"""The values of a run: its settings, a finished trial, a line of the leaderboard."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from numbers import Integral
from typing import Any

from search.graph.space import GraphSpace
from search.loading import Loading
from search.numbers import native
from search.objectives import refuse_unknown
from search.one_of import AnySpace, OneOf
from search.point import AnyPoint, point_of
from search.recipe import Recipe
from search.space import Space

EVOLVING = ("evolution", "differentiable")  # strategies whose points have parents


@dataclass(frozen=True)
class Settings:
    """All that a search depends on, beside the data.

    Parameters
    ----------
    source, target, task : what ``search.data.load`` is given; of data that are given from Python, any name.
    seed : of the split, the proposals, the initial weights and the batches.
    strategy : of ``search.suggest.sampler``.
    trials, seconds : the search ends after so many trials, or when the next generation would take it past so many
        seconds of searching, whichever comes first; ``None``: no such limit, but one must be given.
    population : trials that are proposed and trained together.
    space, recipe : what is searched, and how a candidate is trained.
    folds : parts that training and validation rows together are cut in, each in turn for validation; 1: the data's own
        validation part alone.
    finalists, seeds : how many of the best, of other widths each while there are, are trained again, and with how many
        initial weights each; the winner is the best on average.
    objectives : what is made small: ``loss``, and measures of ``search.objectives``; of several the search looks for
        the front of what can't be made smaller in one without another getting larger.
    maximize : which of the objectives are to be large instead; of values that a function of one's own gives.
    constraints : of measures, the most that each may be; a point that has more is not trained.
    threads : of torch; results are the same only for the same number.
    workers : processes, each of which trains a population on one thread; ``None``: this one trains, on all its cores.
        What is proposed depends on their number, for a proposal waits for none of the generations before it that are
        still in training. Whether they are processes of one machine or tasks on a cluster is not among the settings.
    loading : what else the data are loaded with.
    graph : where Python finds the space, if it is a graph space that was given by name, as ``nets:space``: what is told
        to whom must give it again, for no folder of a run is trusted to name code.
    gpus : share of a GPU that each worker has, at most 1; 0: it trains on a CPU.

    Raises
    ------
    ValueError : something else than a space, no limit, a number out of its range, an unknown objective or one twice, or
        a constraint below 0.
    """

    source: str
    target: str | None
    task: str | None
    seed: int
    strategy: str
    trials: int | None
    seconds: float | None
    population: int
    space: AnySpace
    recipe: Recipe
    folds: int = 1
    finalists: int = 5
    seeds: int = 5
    objectives: tuple[str, ...] = ("loss",)
    maximize: tuple[str, ...] = ()
    constraints: Mapping[str, float] = field(default_factory=dict)
    threads: int = 1
    workers: int | None = None
    loading: Loading = field(default_factory=Loading)
    graph: str | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, native(getattr(self, one.name)))
        if not isinstance(self.space, AnySpace):
            raise ValueError(
                f"got space={self.space!r}: give a search.space.Space, a search.one_of.OneOf of several, or a "
                "search.GraphSpace"
            )
        if self.trials is None and self.seconds is None:
            raise ValueError("got neither trials nor seconds: give at least one, or the search would not end")
        for name in ("trials", "population", "threads", "workers", "folds", "finalists", "seeds"):
            if (value := getattr(self, name)) is None:
                continue
            if not isinstance(value, Integral) or isinstance(value, bool):
                raise ValueError(f"got {name}={value!r}: it must be a whole number")
            if value < 1:
                raise ValueError(f"got {name}={value}: it must be at least 1")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ValueError(f"got {self.seconds} s: the time must be positive and finite")
        if self.recipe.inherit and self.strategy not in EVOLVING:
            raise ValueError(
                f"got inherit with the strategy {self.strategy!r}: only children of {' or '.join(EVOLVING)} inherit, "
                "so take one of these, or leave it out"
            )
        if self.recipe.inherit and isinstance(self.space, GraphSpace):
            raise ValueError("got inherit for a space of graphs, whose machines have no blocks to align: leave it out")
        if self.workers is not None and (self.recipe.inherit or self.strategy == "nsga2"):
            what = "inherit" if self.recipe.inherit else "the strategy 'nsga2'"
            raise ValueError(
                f"got {what} with workers: it waits for all trials before, and workers train ahead of these, so leave "
                "one of the two out"
            )
        if not 0 <= self.gpus <= 1:
            raise ValueError(f"got gpus={self.gpus}: it is the share of a GPU that each worker has, from 0 to 1")
        if self.seed < 0:
            raise ValueError(f"got seed={self.seed}: it must be 0 or more")
        for name in ("objectives", "maximize"):
            if isinstance(names := getattr(self, name), str):
                raise ValueError(f"got {name}={names!r}: give a tuple of names, as ({names!r},)")
        if not isinstance(self.constraints, Mapping):
            raise ValueError(
                f"got constraints={self.constraints!r}: give a mapping from measures to the most of each, as "
                "{'parameters': 20000}"
            )
        object.__setattr__(self, "objectives", tuple(self.objectives))
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"got objectives={self.objectives!r}: give at least one, and none twice")
        object.__setattr__(self, "maximize", tuple(self.maximize))
        for name in self.maximize:
            if name not in self.objectives:
                raise ValueError(
                    f"got maximize={self.maximize!r}: {name!r} is none of the objectives {self.objectives}"
                )
        object.__setattr__(self, "constraints", {name: native(most) for name, most in self.constraints.items()})
        for name, most in self.constraints.items():
            if not 0 <= most < math.inf:
                raise ValueError(f"got at most {most!r} {name}: it must be 0 or more, and finite")
        refuse_unknown(self.constraints, "constraint")

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON can hold; ``Settings.from_dict`` reads it back."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "space"}
        own |= {name: asdict(value) for name, value in own.items() if isinstance(value, Recipe | Loading)}
        space = self.space.to_dict() if isinstance(self.space, GraphSpace) else asdict(self.space)
        return {**own, "space": space, "constraints": dict(self.constraints)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Settings":
        """The settings that ``to_dict`` wrote; ValueError: a name that settings do not have."""
        record = known(cls, record)
        parts = {
            "space": read_space(record["space"]),
            "recipe": Recipe(**known(Recipe, record["recipe"])),
            "loading": Loading(**known(Loading, record.get("loading", {}))),
        }
        return cls(**{**record, **parts})


@dataclass(frozen=True)
class Record:
    """A finished trial.

    Parameters
    ----------
    number : of the trial, from 0.
    key : names what was trained: ``search.isomorphism.canonical.key`` of the canonical form.
    point, canonical : as proposed, and the form that was trained.
    status : ``complete``, ``stopped``, ``halved``, ``diverged`` (see ``search.population.Outcome``); ``infeasible``:
        not trained, for it exceeds a constraint; or ``duplicate``: not trained, for ``duplicate_of`` has the same key;
        then loss, score and measures are that trial's.
    epochs, seconds, curve : of training; 0 and empty for what was not trained. ``curve`` is the validation loss by
        epoch.
    loss, score : on the validation part after the best epoch; not a number if it diverged at once or was not trained.
    measures : what else is to be small or limited, by name; of a graph also its depth, parameters and FLOPs.
    reason : why it failed, where it did.
    parent : the number of the trial that it is a child of, if any.
    """

    number: int
    key: str
    point: AnyPoint
    canonical: AnyPoint
    status: str
    epochs: int
    loss: float
    score: float
    seconds: float
    duplicate_of: int | None
    curve: tuple[float, ...] = field(repr=False)
    measures: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    parent: int | None = None

    @property
    def is_valid(self) -> bool:
        """Whether the loss can be compared: a candidate that diverged has none, nor has a duplicate of it."""
        return self.status not in ("diverged", "failed") and math.isfinite(self.loss)

    def values(self, objectives: Sequence[str], maximize: Sequence[str] = ()) -> tuple[float, ...]:
        """What it reached of each objective: the smaller, the better, as the sign of what is to be large is turned."""
        found = {"loss": self.loss, **self.measures}
        return tuple(-found[name] if name in maximize else found[name] for name in objectives)

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON can hold, ``None`` for a number that is not finite."""
        return {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "point": self.point.to_dict(),
            "canonical": self.canonical.to_dict(),
            "loss": _finite(self.loss),
            "score": _finite(self.score),
            "curve": [_finite(loss) for loss in self.curve],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Record":
        """The record that ``to_dict`` wrote; ValueError: a name that records do not have."""
        record = known(cls, record)
        numbers = {name: _number(record[name]) for name in ("loss", "score")}
        points = {name: point_of(record[name]) for name in ("point", "canonical")}
        return cls(**{**record, **numbers, **points, "curve": tuple(map(_number, record["curve"]))})


@dataclass(frozen=True)
class Row:
    """A line of the leaderboard: one of the best architectures found, the winner's ensemble, or a rival of the winner.

    Parameters
    ----------
    name : ``"winner"``, ``"second"`` ... ``"fifth"``, ``"ensemble"``, or the rival's.
    trial : its number; ``None`` for a rival.
    point : canonical; ``None`` for what is no machine of the space.
    loss, score : on the validation part: means over the initial weights; ``None`` for an ensemble.
    loss_sd, test_sd : standard deviations of the loss and of the test score over the initial weights; ``None`` of one.
    test_loss, test_score : on the held-out part, of machines trained on all of the rest: means over the initial
        weights; ``None`` where it was not looked at.
    depth, parameters, flops : of the machine; FLOPs of one forward pass on one sample. 0 for what is no machine.
    seconds : of training, on validation.
    measures : what else is to be small or limited, by name.
    """

    name: str
    trial: int | None
    point: AnyPoint | None
    loss: float | None
    score: float | None
    test_loss: float | None
    test_score: float | None
    depth: int
    parameters: int
    flops: int
    seconds: float
    loss_sd: float | None = None
    test_sd: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)


def known(cls: type[Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as it is; ValueError: a name that is no field of ``cls``, with the nearest that is.

    >>> known(Recipe, {"epoch": 3})
    Traceback (most recent call last):
    ValueError: got 'epoch' in the recipe, did you mean 'epochs'?
    """
    names = [f.name for f in fields(cls)]
    for name in record:
        if name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0)[0]
            raise ValueError(f"got {name!r} in the {cls.__name__.lower()}, did you mean {near!r}?")
    return dict(record)


def read_space(record: Mapping[str, Any]) -> AnySpace:
    """The space that ``dataclasses.asdict`` wrote; ValueError: a name that spaces do not have."""
    if "candidates" in record:
        return GraphSpace.from_dict(known(GraphSpace, record))
    if "spaces" in record:
        return OneOf(tuple(Space(**known(Space, one)) for one in known(OneOf, record)["spaces"]))
    return Space(**known(Space, record))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
