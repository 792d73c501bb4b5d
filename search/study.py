"""A search on data: begun, and gone on with."""

import os
from dataclasses import replace
from pathlib import Path

from search.data import Dataset, load
from search.driver import Event as Event
from search.driver import Listener, go_on, start
from search.driver import Result as Result
from search.facts import facts_of, fingerprint
from search.objectives import refuse_impossible, refuse_unknown
from search.one_of import transforms
from search.run import Settings, read_facts, read_settings, refuse_used
from search.suggest import DIFFERENTIABLE
from search.transform import GIVEN
from search.work import OnData, gateable


def run(
    settings: Settings, dataset: Dataset, folder: str | os.PathLike[str], on_event: Listener = lambda event: None
) -> Result:
    """Search, and write everything into a new folder.

    Parameters
    ----------
    settings : what is searched, how, and for how long.
    dataset : ``load(settings.source, settings.target, settings.seed, task=settings.task)``.
    folder : that does not exist, or is empty.
    on_event : told of every step, in the same thread.

    Raises
    ------
    ValueError : there is something in the folder.
    BlockingIOError : another process searches there.
    OSError : the folder can't be written, or the disk is full; finished generations are kept.
    """
    folder = Path(folder)
    refuse_used(folder)
    refuse_unknown(settings.objectives, "objective", ("loss",))
    refuse_impossible(settings.space, dataset.shape, settings.constraints, settings.seed)
    if settings.strategy == DIFFERENTIABLE:
        gateable(settings.space)
    for name in transforms(settings.space) - {GIVEN}:
        dataset.transformed(name)  # refuses what it can't do
    facts = facts_of(dataset, settings)
    return start(settings, facts, OnData(settings, facts, dataset, folder), folder, on_event)


def resume(
    folder: str | os.PathLike[str],
    on_event: Listener = lambda event: None,
    *,
    trials: int | None = None,
    seconds: float | None = None,
) -> Result:
    """Go on with a search, as it would have gone on if nothing had stopped it.

    Parameters
    ----------
    folder : of the run.
    on_event : told of every step, in the same thread.
    trials, seconds : how many more, from now on, in place of the limits that the search was begun with.

    Raises
    ------
    FileNotFoundError : no run is there, or its data are gone.
    ValueError : ``trials`` or ``seconds`` is not positive, the data have changed, or this version proposes other trials
        than the one that began the search.
    BlockingIOError : another process searches there.
    OSError : the folder can't be written, or the disk is full; finished generations are kept.
    """
    folder = Path(folder)
    settings, facts = read_settings(folder), read_facts(folder)
    more = trials is not None or seconds is not None
    if more:
        settings = replace(settings, trials=trials, seconds=seconds)  # refuses what is not positive
    dataset = load(settings.source, settings.target, settings.seed, task=settings.task)  # type: ignore[arg-type]
    if fingerprint(dataset) != facts.fingerprint:
        raise ValueError(f"{settings.source} has changed since {folder} was begun: put it back, or start a new search")
    return go_on(settings, facts, OnData(settings, facts, dataset, folder), folder, on_event, more=more)
