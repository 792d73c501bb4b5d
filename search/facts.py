"""What a run knows of its data, its space and its surroundings."""

from __future__ import annotations

import hashlib
import platform
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np

import machgraph
from search.shape import Shape

if TYPE_CHECKING:
    from search.data import Dataset
    from search.run import Settings


@dataclass(frozen=True)
class Facts:
    """What a run knows of its data and surroundings, so that it can be reported on without loading the data.

    Parameters
    ----------
    name, task, shape, classes : of the data set.
    lines : ``Dataset.describe()``.
    fingerprint : of the three encoded parts, by which a changed file is noticed.
    points, architectures : how many points the space holds, and how many different networks they are, if that is
        known.
    versions : of machgraph, Python and the libraries that results depend on.
    objective : of one's own, the first: what the score is called where there are no data.
    looked : how many trials there were each time that the held-out part was looked at; the same ones give the same.
    """

    name: str
    task: str
    shape: Shape
    classes: tuple[str, ...]
    lines: tuple[str, ...]
    fingerprint: str
    points: int | None
    architectures: int | None
    versions: dict[str, str] = field(default_factory=dict)
    objective: str = ""
    looked: tuple[int, ...] = ()

    @property
    def score(self) -> str:
        """What the score is called: it is better when higher, but for an objective of one's own."""
        return {"classification": "accuracy", "regression": "R²"}.get(self.task, self.objective)

    @property
    def looks(self) -> str:
        """Words for the held-out part of a search that went on after its end; none where it was looked at once.

        >>> Facts("iris", "classification", Shape(4, 3), (), (), "", 1, 1, looked=(40, 90)).looks
        'looked at 2 times: the search went on after its end'
        """
        return f"looked at {len(self.looked)} times: the search went on after its end" if len(self.looked) > 1 else ""


def facts_of(dataset: Dataset, settings: Settings) -> Facts:
    """What the run's folder tells of the data, the space and the versions."""
    return Facts(
        name=dataset.name,
        task=dataset.task,
        shape=dataset.shape,
        classes=tuple(map(str, dataset.classes)),
        lines=tuple(dataset.describe()),
        fingerprint=fingerprint(dataset),
        points=settings.space.count(),
        architectures=settings.space.count_classes(),
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Of machgraph, Python and the libraries that results depend on."""
    found = {"machgraph": machgraph.__version__, "python": platform.python_version()}
    for name in ("torch", "optuna", "numpy", "scikit-learn"):
        with suppress(PackageNotFoundError):  # the last is an extra, which splits and straightens where it is installed
            found[name] = version(name)
    return found


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of the three encoded parts."""
    digest = hashlib.sha256()
    for part in (dataset.train, dataset.validation, dataset.test):
        for array in (part.x, part.y):
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
