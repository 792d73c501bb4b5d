"""What the winner of a search is measured against: luck, a plain network of its size, and scikit-learn."""

import math
import warnings
from collections import Counter
from contextlib import suppress
from importlib.util import find_spec
from itertools import count
from time import perf_counter
from typing import Any

import numpy as np

from machgraph.partition import lag_mask
from search.data import Dataset, Part
from search.isomorphism.canonical import canonical
from search.objectives import accepting
from search.point import AnyPoint, Point, hyperparameters
from search.population import cores
from search.record import Row, Settings
from search.shape import Shape
from search.strategies.evolution import accepted

STREAM = 2**32  # of random numbers; the proposals of trial n come from stream n
MOST_ROWS = 10_000  # that models are compared on, and support vector machines trained: the square of them in time


def draws(settings: Settings, shape: Shape, number: int) -> list[AnyPoint]:
    """Architectures drawn uniformly from what the constraints leave of the space: what luck alone finds."""
    rng, accepts = (
        np.random.default_rng((settings.seed, STREAM)),
        accepting(shape, settings.constraints, settings.space),
    )
    return [canonical(accepted(lambda: settings.space.sample(rng), accepts)) for _ in range(number)]


def plain(point: Point, shape: Shape) -> Point:
    """A multi-layer perceptron, a plain stack of convolutions or of recurrences, as large as a point's machine.

    It has the same number of hidden blocks (at least one), all of the width that brings its number of parameters
    nearest to the machine's, the activation that most of its blocks have (or relu), and its hyperparameters; a stack of
    convolutions also the machine's kernel, its grid halved before the same blocks. In a stack of recurrences each block
    hears the one before at the same time, and its own past at the machine's lags from its time block on, at least one.

    Examples
    --------
    >>> plain(Point((), (), ((False, False), (True, False)), 1e-3), Shape(64, 10)).describe(Shape(64, 10))
    '64-9-10 · relu · no shortcuts'
    """
    blocks = max(1, point.blocks)
    activation = Counter(point.activations).most_common(1)[0][0] if point.activations else "relu"
    lags = max(len(point.recurrences), point.timeblock) if point.kind == "recurrence" else 0
    shortcuts, *recurrences = lag_mask("sequential", blocks + 2, lags, point.timeblock).tolist()
    scales = point.scales if point.blocks or not point.scales else (0, *point.scales)
    wish = point.parameters(shape)

    def of(width: int) -> Point:
        same: dict[str, Any] = {
            **hyperparameters(point), "kind": point.kind, "kernel": point.kernel, "dilation": point.dilation,
            "recurrences": recurrences, "timeblock": point.timeblock,
        }  # fmt: skip
        return Point((width,) * blocks, (activation,) * blocks, shortcuts, scales=scales, **same)

    width = next(width for width in count(1) if of(width + 1).parameters(shape) > wish)
    return min((of(width), of(width + 1)), key=lambda rival: abs(rival.parameters(shape) - wish))


def reference(dataset: Dataset, seconds: float = math.inf) -> Row | None:
    """What scikit-learn does with its default settings: a linear model, support vectors or a forest of trees.

    Which one, the validation part decides, or the first of five folds where there is none; it is then fitted to all
    that is not held out, or to as many rows as about so many seconds are enough for, ``MOST_ROWS`` at least, and is
    called so. They learn what networks learn, of a target under a transform the transformed one, and are scored in the
    unit of the target. ``None`` where scikit-learn is not installed.
    """
    if find_spec("sklearn") is None:
        return None
    one = dataset if len(dataset.validation) else dataset.folds(5)[0]
    few = _some(one.train, MOST_ROWS)
    models, validated, taken = _models(dataset), dict[str, float](), dict[str, float]()
    for name, model in models.items():
        began = perf_counter()
        with suppress(ValueError):  # where classes are so rare that among few rows there is one alone
            validated[name] = _score(model, dataset, few, one.validation)
        taken[name] = perf_counter() - began
    if not validated:
        return None
    name = max(validated, key=validated.__getitem__)
    whole = dataset.whole().train
    rows = int(min(len(whole), max(MOST_ROWS, len(few) * seconds / taken[name])))
    said = name
    if rows < len(whole):
        rows -= rows % 10 ** (len(str(rows)) - 2)  # two digits tell enough
        said = f"{name} of {rows:,} rows"
    test_score = _score(models[name], dataset, _some(whole, rows), dataset.test)
    spent = sum(taken.values())
    return Row(f"scikit-learn ({said})", None, None, None, validated[name], None, test_score, 0, 0, 0, spent)


def _some(part: Part, number: int) -> Part:
    """So many rows, from anywhere: a file may be in the order of what it is about."""
    return part if number >= len(part) else part.take(np.random.default_rng(0).permutation(len(part))[:number])


def _models(dataset: Dataset) -> dict[str, Any]:
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.svm import SVC, SVR

    classes = dataset.task == "classification"
    models: dict[str, Any] = {
        "linear": LogisticRegression(max_iter=1000) if classes else RidgeCV(),
        "trees": (ExtraTreesClassifier if classes else ExtraTreesRegressor)(300, random_state=0, n_jobs=cores()),
    }
    if len(dataset.train) + len(dataset.validation) <= MOST_ROWS:
        models["SVM"] = SVC() if classes else SVR()
    return models


def _score(model: Any, dataset: Dataset, train: Part, part: Part) -> float:
    """Accuracy or R², in the unit of the target."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of solvers that would go on for longer
        said = model.fit(train.x, train.y).predict(part.x)
    return float(np.mean(said == part.y)) if dataset.classes else dataset.score(part, said[:, None])
