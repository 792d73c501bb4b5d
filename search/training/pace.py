"""A schedule that fits into the time: where data are large, one generation at full length would take all of it."""

from dataclasses import replace
from math import ceil
from time import perf_counter

import numpy as np

from search.comparison.final import folds_of, trainers
from search.data import Dataset, Part
from search.isomorphism.canonical import canonical
from search.numbers import counted
from search.one_of import AnySpace, OneOf
from search.run import Settings

GENERATIONS = 4  # that about fit into the time: a search is a choice from what came before
LEAST_EPOCHS = 5
TRIED = 4  # batches of training whose time is taken, or more while that is short
MORE = 8  # epochs whose time is taken where one is short
ENOUGH = 0.3  # seconds beside which it does not count that machines are set up


def paced(settings: Settings, dataset: Dataset) -> Settings:
    """The settings, with fewer epochs, then also fewer batches an epoch, where a generation would take too long.

    The time of one epoch is measured on a few batches, so what comes out depends on the machine; the run's folder keeps
    it, and a search that is resumed goes on with it. Without a limit of time the settings stay as they are; with GPUs
    too, for these are elsewhere.

    Raises
    ------
    ValueError : a single fold of data without a validation part.
    """
    if settings.seconds is None or settings.gpus:
        return settings
    if not len(dataset.validation):
        dataset = folds_of(dataset, settings)[0]
    share = settings.seconds / GENERATIONS / generation_seconds(settings, dataset)
    recipe = settings.recipe
    if share >= 1:
        return settings
    epochs = min(recipe.epochs, max(LEAST_EPOCHS, int(share * recipe.epochs)))
    left = min(1.0, share * recipe.epochs / epochs)
    steps = recipe.steps(len(dataset.train), min(_batch_sizes(settings.space)))
    batches = max(1, int(left * steps)) if left < 1 else recipe.batches
    return replace(settings, recipe=replace(recipe.shorter(epochs), batches=batches))


def generation_seconds(settings: Settings, dataset: Dataset) -> float:
    """How long a generation may take to train, as measured on random points of the space."""
    recipe, rng = settings.recipe, np.random.default_rng(settings.seed)
    points = [canonical(settings.space.sample(rng)) for _ in range(settings.population)]
    batch = min(min(point.batch_size for point in points), len(dataset.train))
    steps = recipe.steps(len(dataset.train), batch)
    tried, (train_all, _) = min(TRIED, steps), trainers(settings.space)

    def taken(tried: int, epochs: int = 1) -> float:
        few = replace(
            dataset,
            train=_first(dataset.train, tried * batch),
            validation=_first(dataset.validation, ceil(len(dataset.validation) * tried / steps)),
        )
        began = perf_counter()
        train_all(points, (few,), replace(recipe, epochs=epochs, rungs=()), settings.seed)
        return perf_counter() - began

    seconds = min(taken(tried), taken(tried))  # the first time, torch sets itself up
    while seconds < ENOUGH and tried < steps:
        tried = min(4 * tried, steps)
        seconds = taken(tried)
    if seconds < ENOUGH:  # machines are set up once for all epochs
        seconds = max(1e-6, taken(tried, 1 + MORE) - seconds) / MORE
    return seconds * steps / tried * recipe.mean_epochs * settings.folds


def _batch_sizes(space: AnySpace) -> set[int]:
    spaces = space.spaces if isinstance(space, OneOf) else (space,)
    return {size for one in spaces for size in one.batch_sizes}


def _first(part: Part, rows: int) -> Part:
    return part.take(np.arange(rows))


def note(wish: Settings, settings: Settings) -> str:
    """A sentence about what was made shorter; empty if nothing was."""
    before, now = wish.recipe, settings.recipe
    if before == now:
        return ""
    samples = f" of {counted(now.batches, 'step')}" if now.batches < before.batches else ""
    return (
        f"{now.epochs} epochs{samples} instead of {before.epochs}, "
        f"so that a few generations fit into the time: give more of it with --time"
    )
