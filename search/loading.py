"""What the data of a search are loaded with, so that a search that goes on finds the same again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.data.parts import Dataset
    from search.record import Settings

FILES = (".csv", ".parquet")


@dataclass(frozen=True)
class Loading:
    """What ``search.data.load`` is given beside the source, the target, the task and the seed.

    Parameters
    ----------
    transform, image, lags, time, exogenous, held_out, validation, test : as there.

    Raises
    ------
    ValueError : shares that are none, or that leave nothing to train on.
    """

    transform: str = "none"
    image: tuple[int, ...] | None = None
    lags: int | None = None
    time: str | None = None
    exogenous: tuple[str, ...] | None = None
    held_out: str | None = None
    validation: float = 0.16
    test: float = 0.2

    def __post_init__(self) -> None:
        for name in ("image", "exogenous"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(value))
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
            raise ValueError(
                f"got validation={self.validation!r}, test={self.test!r}: both are shares of the rows, from 0 on, "
                "and must leave some to train on"
            )

    def options(self) -> dict[str, Any]:
        """The keyword arguments of ``search.data.load``."""
        return asdict(self)


def dataset_of(settings: Settings) -> Dataset:
    """The data set that a search learns from, loaded as its settings say; raises what ``search.data.load`` raises."""
    from search.data import load

    return load(
        settings.source,
        settings.target,
        settings.seed,
        task=settings.task,  # type: ignore[arg-type]  # checked by `load`
        **settings.loading.options(),
    )


def is_loadable(source: str) -> bool:
    """Whether a source names data that can be loaded again: a bundled set, or a CSV or Parquet file, there or not.

    >>> is_loadable("digits"), is_loadable("my/prices.csv"), is_loadable("an array of mine")
    (True, True, False)
    """
    from search.data import BUNDLED

    return source in BUNDLED or Path(source).suffix.lower() in FILES
