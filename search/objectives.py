"""What a search makes small, beside the loss too, and what may not be exceeded."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.data.table import nearest
from search.graph.point import GraphPoint
from search.graph.space import GraphSpace
from search.isomorphism.canonical import canonical
from search.one_of import AnySpace
from search.point import AnyPoint, Point
from search.shape import Shape

UNITS: Mapping[str, str] = {"parameters": "", "flops": "", "depth": "", "memory": "bytes", "latency": "ms"}
MEASURES = tuple(UNITS)
EXACT = ("parameters", "flops", "depth", "memory")  # known of a point without a clock
TOLD = ("depth", "parameters", "flops")  # that every row of a leaderboard has
REPEATS = 20  # forward passes, of which the fastest is the latency
DRAWS = 1000  # from the space, to see whether limits can be kept
THOUSANDS = r"[1-9]\d{0,2}(?:,\d{3})+"
NUMBER = re.compile(rf"(?P<value>(?:(?:{THOUSANDS}|\d[\d_]*)(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*(?P<unit>[kMG]?)")
SIZES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


def measures(
    point: AnyPoint, shape: Shape, names: Iterable[str] = EXACT, space: AnySpace | None = None
) -> dict[str, float]:
    """What a point costs, whatever its weights.

    Parameters
    ----------
    point, shape : of the machine.
    names : of ``parameters``; ``flops`` of one forward pass on one sample; ``depth``; ``memory``, the bytes that
        weights and one forward pass on one sample (outputs and inputs of all channels) take in single precision; and
        ``latency``, the milliseconds of that pass on this machine, the fastest of several.
    space : of a graph, to build it: what it costs is measured, its depth, parameters and FLOPs always; what can't be is
        left out.

    Examples
    --------
    >>> linear = Point((), (), ((False, False), (True, False)), learning_rate=1e-3)
    >>> measures(linear, Shape(3, 2))
    {'parameters': 11, 'flops': 17, 'depth': 3, 'memory': 84}
    """
    if isinstance(point, GraphPoint):
        from search.graph import network  # here, for torch takes seconds to import

        assert isinstance(space, GraphSpace)  # where the graph is from
        return network.measures(space, point, shape, dict.fromkeys((*TOLD, *names)))
    known: dict[str, Callable[[Shape], float]] = {
        "parameters": point.parameters,
        "flops": point.flops,
        "depth": lambda shape: point.depth,
        "memory": lambda shape: 4 * (point.parameters(shape) + 2 * point.activities(shape)),
        "latency": lambda shape: latency(point, shape),
    }
    return {name: known[name](shape) for name in names}


def sizes(point: AnyPoint, shape: Shape, found: Mapping[str, float]) -> dict[str, int]:
    """Depth, parameters and FLOPs of a point; of a graph as they have been measured, 0 where they are not known."""
    if isinstance(point, GraphPoint):
        return {name: int(found.get(name, 0)) for name in TOLD}
    return {"depth": point.depth, "parameters": point.parameters(shape), "flops": point.flops(shape)}


def asked(objectives: Iterable[str], constraints: Iterable[str]) -> list[str]:
    """The measures among these.

    >>> asked(("loss", "depth"), {"parameters": 100})
    ['parameters', 'depth']
    """
    names = {*objectives, *constraints}
    return [name for name in MEASURES if name in names]


def latency(point: Point, shape: Shape) -> float:
    """Milliseconds of a forward pass on one sample."""
    import torch  # here, for it takes seconds to import

    from search.training.machine import answers, build

    machine, x = build(point, shape, seed=0), torch.zeros(1, shape.inputs)
    times = []
    with torch.no_grad():
        for _ in range(REPEATS + 2):  # the first ones set things up
            began = perf_counter()
            answers(machine, x, shape)
            times.append(perf_counter() - began)
    return 1e3 * min(times[2:])


# ---- limits ----------------------------------------------------------------------------------------------------------


def limit(text: str) -> tuple[str, float]:
    """A limit as people write it: the measure, and the most that it may be.

    Raises
    ------
    ValueError : another form, or another measure.

    Examples
    --------
    >>> limit("parameters <= 20,000"), limit("latency<=0.5"), limit("flops <= 1.5M")
    (('parameters', 20000.0), ('latency', 0.5), ('flops', 1500000.0))
    """
    name, separator, most = (part.strip() for part in text.partition("<="))
    number = NUMBER.fullmatch(most)
    if separator and number is None and re.match(r"[\d.,_]*\d,", most):
        raise ValueError(
            f"got the constraint {text!r}: a comma stands between groups of three digits alone, as in 20,000; write a "
            "fraction with a point, as in 1.5M"
        )
    if not separator or number is None:
        raise ValueError(f"got the constraint {text!r}: give a measure and its most, as in 'parameters <= 20000'")
    value = float(number["value"].replace(",", "").replace("_", "")) * SIZES[number["unit"]]
    refuse_unknown([name], "constraint")
    return name, value


def refuse_unknown(names: Iterable[str], what: str, others: Sequence[str] = ()) -> None:
    """ValueError: one of the names is neither a measure nor one of the others."""
    for name in names:
        if name not in (*others, *MEASURES):
            known = (*others, *MEASURES)
            raise ValueError(f"no {what} is called {name!r}{nearest(name, known)}: give {', '.join(known)}")


def excess(found: Mapping[str, float], constraints: Mapping[str, float]) -> float:
    """By how much limits are exceeded, relative to each, all together; 0: by none. Of measures that are found alone.

    >>> excess({"parameters": 30, "depth": 5}, {"parameters": 20, "latency": 1.0})
    0.5
    """
    limits = {name: most for name, most in constraints.items() if name in found}
    return sum(max(0.0, found[name] / most - 1 if most else found[name]) for name, most in limits.items())


def accepting(
    shape: Shape, constraints: Mapping[str, float], space: AnySpace | None = None
) -> Callable[[AnyPoint], bool]:
    """Whether a point is within the limits, as far as that is known without a clock; of a graph: and a network."""
    limited = [name for name in EXACT if name in constraints]

    def accepts(point: AnyPoint) -> bool:
        if isinstance(point, GraphPoint) and isinstance(space, GraphSpace) and space.refusal(point):
            return False
        return not limited or not excess(measures(canonical(point), shape, limited, space), constraints)

    return accepts


def refuse_unmeasured(space: AnySpace, shape: Shape, names: Iterable[str]) -> None:
    """ValueError: some of these measures can't be known of a graph space, as nobody says what its inputs are."""
    if not isinstance(space, GraphSpace):
        return
    from search.graph import network  # here, for torch takes seconds to import

    if unknown := network.unmeasured(space, shape, names):
        raise ValueError(
            f"got {', '.join(unknown)} to be measured, which takes the shapes of {', '.join(space.inputs)}: give the "
            "GraphSpace the shapes of its components, or have the objective measure it, by another name"
        )


def refuse_impossible(space: AnySpace, shape: Shape, constraints: Mapping[str, float], seed: int) -> None:
    """ValueError: no point that is drawn from the space, of many, is within the limits."""
    rng = np.random.default_rng(seed)
    limited = [name for name in EXACT if name in constraints]
    least = dict.fromkeys(limited, math.inf)
    for _ in range(DRAWS if limited else 0):
        found = measures(canonical(space.sample(rng)), shape, limited, space)
        if not excess(found, constraints):
            return
        least = {name: min(least[name], found.get(name, math.inf)) for name in limited}
    if limited:
        wish = " and ".join(f"{name} at most {constraints[name]:g}" for name in limited)
        found_least = " and ".join(f"{least[name]:,} {name}" for name in limited)
        raise ValueError(
            f"none of {DRAWS:,} points drawn from the space has {wish}: the least were {found_least}, "
            "so raise the limit or take a space of smaller machines"
        )


# ---- several objectives ----------------------------------------------------------------------------------------------


def fronts(values: ArrayLike) -> NDArray[np.int64]:
    """For each row of values, all to be small, the number of its front: 0 if no other row is as small in all, and in
    one smaller; 1 if that holds once those of front 0 are left out; and so on.

    >>> fronts([[1, 5], [2, 2], [3, 3], [5, 1], [2, 2]]).tolist()
    [0, 0, 1, 0, 0]
    """
    rows = np.asarray(values, dtype=float)
    if rows.size == len(rows):  # of one value, or of no rows
        return np.unique(rows, return_inverse=True)[1].reshape(-1)
    beats = np.logical_and((rows[:, None] <= rows).all(2), (rows[:, None] < rows).any(2))
    found, beaten = np.full(len(rows), -1), beats.sum(0)  # by how many that are left
    for number in range(len(rows)):
        best = (found < 0) & (beaten == 0)
        if not best.any():
            break
        found[best] = number
        beaten -= beats[best].sum(0)
    return found


def crowding(values: ArrayLike) -> NDArray[np.float64]:
    """How lonely each row of one front is (Deb et al. 2002, NSGA-II): infinite at the ends.

    >>> crowding([[0, 4], [1, 2], [2, 1], [4, 0]]).tolist()
    [inf, 1.25, 1.25, inf]
    """
    rows = np.asarray(values, dtype=float)
    found = np.zeros(len(rows))
    for column in rows.T:
        order = np.argsort(column, kind="stable")
        spread = column[order[-1]] - column[order[0]] if len(rows) else 0.0
        found[order[[0, -1]]] = math.inf
        if spread:
            found[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
    return found


def order(values: ArrayLike) -> list[int]:
    """Which row is the best, the second, ...: by front, then by the first value; earlier rows first where all is equal.

    >>> order([[3, 3], [5, 1], [1, 5], [2, 2]])
    [2, 3, 1, 0]
    """
    rows = np.asarray(values, dtype=float)
    places = fronts(rows)
    return sorted(range(len(rows)), key=lambda i: (places[i], rows[i, 0], i))


def along(number: int, size: int) -> list[int]:
    """So many places of a row of this size, spread evenly from the first to the last.

    >>> along(3, 9), along(5, 2), along(1, 4)
    ([0, 4, 8], [0, 1], [0])
    """
    return sorted({round(k * (size - 1) / max(1, number - 1)) for k in range(number)})
