"""How a candidate is trained: the same for every candidate, and for the rivals that it is compared with."""

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from math import cos, pi

from search.numbers import native


@dataclass(frozen=True)
class Recipe:
    """AdamW on a one-cycle schedule, with label smoothing and successive halving; early stopping on request.

    Learning rate, weight decay and batch size vary, so that they belong to the point.

    Parameters
    ----------
    epochs : length of the schedule; a candidate that nothing stops trains so long.
    batches : steps an epoch at most; where the training part holds more, each epoch draws its own anew.
    label_smoothing : of the cross-entropy that is trained on; the validation loss is plain.
    warm_up : fraction of the schedule in which the learning rate grows from 1/25 of its peak.
    patience : epochs without a lower validation loss after which a candidate stops, and is given back the weights of
        its best epoch; ``None``: all go on to the end of the schedule, and the last epoch counts. The lowest of many
        losses is in part luck, and networks whose loss stays low to the end were better on held-out data.
    rungs : epochs after which only the best ``1/reduction`` of each kind of machine in a population, and of each
        transform of the answers, by validation loss, go on: they learn at different speeds.
    reduction : of successive halving, at least 1.
    hyperband : whether generations take turns in how many of the rungs they have, from all to none (Li et al. 2018,
        "Hyperband"): the fewer it has, the fewer candidates it has, so that all take about as long.
    inherit : whether a child of evolution begins with the weights of its parent, as far as they have the same blocks.
        The end of a search trains the best from scratch, whatever they began with. Losses that are found so are lower,
        for ancestors have trained as well; from scratch the networks were no better on breast_cancer, and worse on
        digits (``experiments.inherit``).
    child_share : of the epochs, the share that such a child trains for.

    Raises
    ------
    ValueError : a number out of its range, or rungs that do not increase within the schedule.
    """

    epochs: int = 60
    batches: int = 100
    label_smoothing: float = 0.05
    warm_up: float = 0.3
    patience: int | None = None
    rungs: tuple[int, ...] = (12, 24)
    reduction: int = 2
    hyperband: bool = False
    inherit: bool = False
    child_share: float = 0.5

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, native(getattr(self, one.name)))
        object.__setattr__(self, "rungs", tuple(map(native, self.rungs)))
        least = dict.fromkeys(("epochs", "batches", "reduction", "patience"), 1)
        for name, bound in (*least.items(), ("label_smoothing", 0)):
            value = getattr(self, name)
            if value is not None and not value >= bound:
                raise ValueError(f"got {name}={value!r}: it must be at least {bound}")
        if not self.label_smoothing < 1:
            raise ValueError(f"got label_smoothing={self.label_smoothing!r}: it must be below 1")
        if not 0 < self.child_share <= 1:
            raise ValueError(f"got child_share={self.child_share!r}: it must be a fraction, more than 0 and at most 1")
        if not 0 < self.warm_up < 1:
            raise ValueError(f"got warm_up={self.warm_up!r}: it must be a fraction between 0 and 1")
        if list(self.rungs) != sorted(set(self.rungs)) or any(not 0 < rung < self.epochs for rung in self.rungs):
            raise ValueError(
                f"got rungs={self.rungs!r}: they must increase, between 1 and epochs - 1 = {self.epochs - 1}"
            )

    def steps(self, n_samples: int, batch_size: int) -> int:
        """Number of steps in an epoch over so many samples; a last, smaller batch is dropped.

        >>> [Recipe(batches=100).steps(n, batch_size=64) for n in (10, 1150, 1_000_000)]
        [1, 17, 100]
        """
        return min(n_samples // min(batch_size, n_samples), self.batches)

    @property
    def mean_epochs(self) -> float:
        """Epochs that a candidate of a large population trains for on average, if none but the rungs stop it.

        >>> Recipe(epochs=60, rungs=(12, 24), reduction=2).mean_epochs
        27.0
        """
        ends = pairwise((0, *self.rungs, self.epochs))
        return sum((end - start) * float(self.reduction) ** -i for i, (start, end) in enumerate(ends))

    def bracket(self, generation: int) -> "Recipe":
        """The recipe of a generation, counted from 0: the same, or with fewer of the rungs.

        >>> recipe = Recipe(rungs=(12, 24), hyperband=True)
        >>> [recipe.bracket(generation).rungs for generation in range(4)]
        [(12, 24), (24,), (), (12, 24)]
        """
        left_out = generation % (len(self.rungs) + 1) if self.hyperband else 0
        return replace(self, rungs=self.rungs[left_out:])

    def share(self, generation: int) -> float:
        """Of the candidates of a first generation, how many this one may have, to take as long.

        >>> [round(Recipe(rungs=(12, 24), hyperband=True).share(generation), 2) for generation in range(3)]
        [1.0, 0.64, 0.45]
        """
        return self.mean_epochs / self.bracket(generation).mean_epochs

    def of_children(self) -> "Recipe":
        """The recipe of children that inherit: the same, but shorter.

        >>> child = Recipe(epochs=60, rungs=(12, 24), inherit=True, child_share=0.5).of_children()
        >>> child.epochs, child.rungs
        (30, (6, 12))
        """
        epochs = max(1, round(self.child_share * self.epochs))
        rungs = {round(self.child_share * rung) for rung in self.rungs}
        return replace(self, epochs=epochs, rungs=tuple(sorted(rung for rung in rungs if 0 < rung < epochs)))

    def shorter(self, epochs: int) -> "Recipe":
        """The recipe with fewer epochs, halved as often, where the schedule still has room for it.

        >>> [Recipe(60, rungs=rungs).shorter(6).rungs for rungs in ((12, 24), (), (20, 40), (2, 5, 30), (58, 59))]
        [(1, 2), (), (2, 4), (1, 2, 3), ()]
        """
        if self.rungs == rungs_of(self.epochs):
            return replace(self, epochs=epochs, rungs=rungs_of(epochs))
        rungs = list[int]()
        for rung in self.rungs:
            rungs.append(max(round(rung * epochs / self.epochs), rungs[-1] + 1 if rungs else 1))
        return replace(self, epochs=epochs, rungs=tuple(rung for rung in rungs if rung < epochs))

    def rate(self, progress: float) -> float:
        """The learning rate as a fraction of its peak, after a fraction ``progress`` of the schedule.

        >>> recipe = Recipe()
        >>> [round(recipe.rate(t), 3) for t in (0.0, 0.3, 0.65, 1.0)]
        [0.04, 1.0, 0.5, 0.0]
        """
        if progress < self.warm_up:
            return 0.04 + 0.96 * (1 - cos(pi * progress / self.warm_up)) / 2
        return (1 + cos(pi * (progress - self.warm_up) / (1 - self.warm_up))) / 2


def rungs_of(epochs: int) -> tuple[int, ...]:
    """Where a schedule is halved: after a fifth and after two fifths of it.

    >>> rungs_of(60), rungs_of(3), rungs_of(1)
    ((12, 24), (1,), ())
    """
    return tuple(sorted({rung for rung in (round(0.2 * epochs), round(0.4 * epochs)) if 0 < rung < epochs}))
