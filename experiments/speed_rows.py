"""What the measurements of the speed table have in common: how much is measured, rows, and targets.

A row is a ratio of two times that were taken in the same rounds: its median over the rounds and the quartiles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from experiments.timing import Quartiles, Samples

Row = dict[str, Any]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Parameters
    ----------
    rounds : in which all contenders of a row take their turns.
    seconds : of a contender in a round, about.
    candidates : of a population.
    batches : of a call, in the rows of steps.
    searches, epochs : rounds of the search, and epochs of each candidate.
    architectures : new ones, each trained for one step.
    starts : of processes, of each kind; the first start of all, which compiles, is measured once if there are any.
    """

    rounds: int = 11
    seconds: float = 0.04
    candidates: int = 32
    batches: int = 8
    searches: int = 5
    epochs: int = 30
    architectures: int = 40
    starts: int = 5


QUICK = Effort(rounds=5, seconds=0.02, searches=1, epochs=3, architectures=10, starts=1)
CUDA = Effort(searches=3, starts=2)


@dataclass(frozen=True)
class Target:
    """What a ratio is to be: at least or at most a bound, and better still an aim."""

    kind: str
    bound: float
    aim: float | None = None

    def met(self, value: float) -> bool:
        """Whether the bound is kept."""
        return self._holds(value, self.bound)

    def _holds(self, value: float, bound: float) -> bool:
        return value >= bound if self.kind == "at least" else value <= bound

    def told(self, value: float) -> Row:
        """As data, with what came of it."""
        reached = {} if self.aim is None else {"aim_met": self._holds(value, self.aim)}
        return asdict(self) | {"met": self.met(value)} | reached


def row(name: str, over: Samples, under: Samples, target: Target | None, **others: Any) -> Row:
    """A ratio of times, and whether it is as wanted."""
    ratio = Quartiles.of(over / under)
    told = None if target is None else target.told(ratio.median)
    return {"row": name, "ratio": asdict(ratio), "target": told} | others


def seconds(samples: Mapping[str, Samples]) -> Row:
    """Quartiles of each contender's times."""
    return {"seconds": {name: asdict(Quartiles.of(values)) for name, values in samples.items()}}


def beginning(name: str, samples: Sequence[float], unit: str, target: Target | None) -> Row:
    """A time in ``unit``, and whether it is as wanted."""
    middle = Quartiles.of(samples)
    told = None if target is None else target.told(middle.median)
    return {"row": name, "unit": unit, "time": asdict(middle), "most": round(max(samples), 4), "target": told}
