"""How a candidate is trained: the same for every candidate, and for the rivals that it is compared with."""

from dataclasses import dataclass
from math import cos, log2, pi


@dataclass(frozen=True)
class Recipe:
    """AdamW on a one-cycle schedule, with label smoothing, early stopping and successive halving.

    Parameters
    ----------
    epochs : length of the schedule; a candidate that nothing stops trains so long.
    batch_size : samples a step; a last, smaller batch is dropped.
    weight_decay : decoupled, times the learning rate, on weights and biases alike.
    label_smoothing : of the cross-entropy that is trained on; the validation loss is plain.
    warm_up : fraction of the schedule in which the learning rate grows from 1/25 of its peak.
    patience : epochs without a lower validation loss after which a candidate stops; ``None``: never.
    rungs : epochs after which only the best ``1/reduction`` of a population, by validation loss, go on.
    reduction : of successive halving, at least 1.

    Raises
    ------
    ValueError : a number out of its range, or rungs that do not increase within the schedule.
    """

    epochs: int = 60
    batch_size: int = 64
    weight_decay: float = 0.3
    label_smoothing: float = 0.05
    warm_up: float = 0.3
    patience: int | None = 20
    rungs: tuple[int, ...] = (12, 24)
    reduction: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "rungs", tuple(self.rungs))
        least = {"epochs": 1, "batch_size": 1, "reduction": 1, "patience": 1, "weight_decay": 0, "label_smoothing": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and not value >= bound:
                raise ValueError(f"got {name}={value!r}: it must be at least {bound}")
        if not self.label_smoothing < 1:
            raise ValueError(f"got label_smoothing={self.label_smoothing!r}: it must be below 1")
        if not 0 < self.warm_up < 1:
            raise ValueError(f"got warm_up={self.warm_up!r}: it must be a fraction between 0 and 1")
        if list(self.rungs) != sorted(set(self.rungs)) or any(not 0 < rung < self.epochs for rung in self.rungs):
            raise ValueError(
                f"got rungs={self.rungs!r}: they must increase, between 1 and epochs - 1 = {self.epochs - 1}"
            )

    def rate(self, progress: float) -> float:
        """The learning rate as a fraction of its peak, after a fraction ``progress`` of the schedule.

        >>> recipe = Recipe()
        >>> [round(recipe.rate(t), 3) for t in (0.0, 0.3, 0.65, 1.0)]
        [0.04, 1.0, 0.5, 0.0]
        """
        if progress < self.warm_up:
            return 0.04 + 0.96 * (1 - cos(pi * progress / self.warm_up)) / 2
        return (1 + cos(pi * (progress - self.warm_up) / (1 - self.warm_up))) / 2


def default_recipe(n_samples: int) -> Recipe:
    """The recipe for so many training samples.

    Weight decay is a prior, whose share falls as data come in. A schedule wants about a thousand steps; from some
    thousand samples on it has them in fewer epochs and larger batches. Measured on digits (1,150 samples; 0.1 to 0.3 is
    best), breast_cancer (364; 1 to 3) and diabetes (283; 1 to 3).

    Examples
    --------
    >>> [(r.epochs, r.batch_size, r.weight_decay, r.rungs) for r in map(default_recipe, (300, 1150, 100_000))]
    [(60, 64, 1.0, (12, 24)), (60, 64, 0.261, (12, 24)), (12, 1024, 0.03, (2, 5))]
    """
    batch_size = min(max(64, 2 ** round(log2(n_samples / 18))), 1024)
    epochs = min(max(10, 1200 * batch_size // n_samples), 60)
    weight_decay = round(min(max(0.03, 300 / n_samples), 3.0), 3)
    return Recipe(epochs, batch_size, weight_decay, rungs=(round(0.2 * epochs), round(0.4 * epochs)))
