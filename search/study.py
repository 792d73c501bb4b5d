"""A search on data: begun, and gone on with."""

import os
from dataclasses import replace
from pathlib import Path

from search.comparison.final import folds_of
from search.data import Dataset
from search.data.transform import GIVEN
from search.driver import Event as Event
from search.driver import Listener, go_on, start
from search.driver import Result as Result
from search.facts import Facts, facts_of, fingerprint
from search.graph.io import difference
from search.graph.named import missing, needless
from search.graph.network import check_data
from search.graph.space import GraphSpace
from search.loading import dataset_of, is_loadable
from search.objectives import refuse_impossible, refuse_unknown
from search.one_of import AnySpace, smooths, transforms
from search.parallel.workers import employed, manned
from search.run import Settings, read_facts, read_settings, refuse_used
from search.storage.store import restore
from search.suggest import DIFFERENTIABLE
from search.work import OnData, gateable


def run(
    settings: Settings,
    dataset: Dataset,
    folder: str | os.PathLike[str],
    on_event: Listener = lambda event: None,
    *,
    ray: str | None = None,
    in_folder: bool = False,
) -> Result:
    """Search, and write everything into a new folder.

    Parameters
    ----------
    settings : what is searched, how, and for how long.
    dataset : ``search.loading.dataset_of(settings)``; or one of your own, which is then also needed to go on.
    folder : that does not exist, or is empty.
    on_event : told of every step, in the same thread.
    ray : the address of a Ray cluster, whose nodes train, as ``search.parallel.cluster.Cluster`` takes it; with as many
        workers as it has room for now, where the settings have none.
    in_folder : whether the study is in the folder, even if the environment names a database.

    Raises
    ------
    ValueError : there is something in the folder.
    BlockingIOError : another process searches there.
    OSError : the folder can't be written, or the disk is full, or the cluster is lost; finished generations are kept.
    """
    folder = Path(folder)
    refuse_used(folder)
    refuse_unfit(settings, dataset)
    settings = manned(settings, ray)
    facts = facts_of(dataset, settings)
    with employed(OnData(settings, facts, dataset, folder), ray) as work:
        return start(settings, facts, work, folder, on_event, in_folder=in_folder)


def refuse_unfit(settings: Settings, dataset: Dataset) -> None:
    """ValueError: the settings do not fit the data, each in a sentence of its own."""
    refuse_unknown(settings.objectives, "objective", ("loss",))
    if "loss" in settings.maximize:
        raise ValueError(f"got maximize={settings.maximize!r}: the loss is always made small, so leave it out")
    if isinstance(settings.space, GraphSpace):
        check_data(settings.space, dataset.shape)
    folds_of(dataset, settings)
    refuse_impossible(settings.space, dataset.shape, settings.constraints, settings.seed)
    if settings.strategy == DIFFERENTIABLE:
        gateable(settings.space)
    for name in transforms(settings.space) - {GIVEN}:
        dataset.transformed(name)  # refuses what it can't do
    if smooths(settings.space) and not dataset.classes:
        raise ValueError(
            f"got smoothings for the numbers of {dataset.target!r}: they are for classes, so leave them out"
        )


def resume(
    folder: str | os.PathLike[str],
    on_event: Listener = lambda event: None,
    *,
    dataset: Dataset | None = None,
    space: GraphSpace | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    ray: str | None = None,
) -> Result:
    """Go on with a search, as it would have gone on if nothing had stopped it.

    Parameters
    ----------
    folder : of the run; where its study is in a database, it may be missing: then it is made anew.
    on_event : told of every step, in the same thread.
    dataset : the one that the search was begun with, where it can't be loaded again by the settings.
    space : the one that is searched, if it is a graph space, whose factories no folder holds.
    trials, seconds : how many more, from now on, in place of the limits that the search was begun with.
    ray : the address of a Ray cluster to go on with, wherever it was begun.

    Raises
    ------
    FileNotFoundError : no run is there, or its data are gone.
    ValueError : ``trials`` or ``seconds`` is not positive, the data or the graph space are others or must be given,
        this version proposes other trials than the one that began the search, or it was begun without workers.
    BlockingIOError : another process searches there.
    OSError : the folder can't be written, or the disk is full, or the cluster is lost; finished generations are kept.
    """
    folder = Path(folder)
    restore(folder)
    settings, facts = read_settings(folder), read_facts(folder)
    more = trials is not None or seconds is not None
    if more:
        settings = replace(settings, trials=trials, seconds=seconds)  # refuses what is not positive
    if not facts.objective:  # else there are no data to go on with, which comes next
        settings = replace(settings, space=_given(settings, space, folder))
    dataset = _same(settings, facts, folder, dataset)
    with employed(OnData(settings, facts, dataset, folder), ray) as work:
        return go_on(settings, facts, work, folder, on_event, more=more)


def _same(settings: Settings, facts: Facts, folder: Path, given: Dataset | None) -> Dataset:
    """The data set that the search was begun with, given or loaded again."""
    if facts.objective:
        raise ValueError(
            f"{folder} was begun by search.optimize with the objective {settings.source}: go on with it there, "
            f"by optimize(..., out={str(folder)!r}, resume=True)"
        )
    if given is None and not is_loadable(settings.source):
        raise ValueError(
            f"the data of {folder} were given from Python: go on with it there, "
            f"by search.study.resume({str(folder)!r}, dataset=...)"
        )
    dataset = dataset_of(settings) if given is None else given
    if fingerprint(dataset) == facts.fingerprint:
        return dataset
    if given is not None:
        raise ValueError(f"got other data than {folder} was begun with: give the same, split by the same seed")
    files = " or ".join(name for name in (settings.source, settings.loading.held_out) if name)
    raise ValueError(f"{files} has changed since {folder} was begun: put it back, or start a new search")


def _given(settings: Settings, space: GraphSpace | None, folder: Path) -> AnySpace:
    """The space to go on in: a graph space as it is given, which must be the one that the search was begun with."""
    stored = settings.space
    if not isinstance(stored, GraphSpace):
        if space is not None:
            raise needless(folder)
        return stored
    if space is None:
        raise missing(folder, settings.graph)
    if space != stored:
        raise ValueError(f"{folder} was begun with another graph space: {difference(stored, space)}")
    return space
