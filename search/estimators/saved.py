"""Fitted estimators on disk: machgraph's own files, whose metadata tell the rest; never pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.graph.space import GraphSpace
from search.record import read_space

if TYPE_CHECKING:
    from search.trained import Trained

SUFFIX = ".machgraph"
KEPT = "estimator"  # where the metadata of a machine tell of the estimator that it is of


def save_estimator(
    estimator: Any, members: Sequence[Trained], path: str | os.PathLike[str], fitted: Mapping[str, Any]
) -> None:
    """Write the machines of a fitted estimator, its parameters, and what else ``fitted`` tells of it.

    Parameters
    ----------
    path : of a file; where machines answer together, of a folder that has one for each.

    Raises
    ------
    ValueError : what JSON can't hold, or a path where something else is.
    """
    from search.trained import write

    path = Path(path)
    parameters = {name: _written(value) for name, value in estimator.get_params(deep=False).items()}
    if not isinstance(parameters.get("random_state"), int | None):
        parameters["random_state"] = None  # a generator has done its work
    kept = {KEPT: {"class": type(estimator).__name__, "parameters": parameters, "fitted": dict(fitted)}}
    if len(members) == 1:
        if path.is_dir():
            raise ValueError(f"{path} is a folder: give the path of a file, as {path / 'model'}{SUFFIX}")
        write(members[0], path, kept)
        return
    if path.exists() and not (path.is_dir() and all(_is_member(file) for file in path.iterdir())):
        raise ValueError(f"{path} is there already: an ensemble of {len(members)} machines needs a folder of its own")
    path.mkdir(exist_ok=True)
    for number, member in enumerate(members, start=1):
        write(member, path / f"{number}{SUFFIX}", kept)
    for file in path.iterdir():
        if int(file.stem) > len(members):
            file.unlink()


def load_estimator(
    made: type[Any], path: str | os.PathLike[str], space: GraphSpace | None = None
) -> tuple[Any, tuple[Trained, ...], Mapping[str, Any]]:
    """An estimator with the parameters that were saved, its machines, and what else was told of it.

    Parameters
    ----------
    space : of a graph space, that which was searched.

    Raises
    ------
    FileNotFoundError : nothing is there.
    ValueError : no file of an estimator, or one of another than ``made``; a graph space that is missing, needless or
        another.
    """
    from search.trained import metadata_of, read

    path = Path(path)
    files = [path]
    if path.is_dir():
        files = sorted(filter(_is_member, path.iterdir()), key=lambda file: int(file.stem))
        if not files:
            raise FileNotFoundError(f"no estimator is in the folder {path}: give the path that it was saved to")
    kept = metadata_of(files[0]).get(KEPT)
    if kept is None:
        raise ValueError(f"{path} holds a machine and no estimator: read it by machgraph.load, or search.load_graph")
    if kept["class"] != made.__name__:
        raise ValueError(f"{path} is of {kept['class']} and not of {made.__name__}: read it by {kept['class']}.load")
    parameters = {name: _read(value) for name, value in kept["parameters"].items()}
    members = tuple(read(file, space) for file in files)
    if isinstance(parameters.get("space"), dict):
        stored = read_space(kept["parameters"]["space"])
        parameters["space"] = space if space == stored else stored  # equal, but for its factories
    return made(**parameters), members, kept["fitted"]


def _is_member(file: Path) -> bool:
    return file.suffix == SUFFIX and file.stem.isdecimal()


def _written(value: Any) -> Any:
    """A parameter as values that JSON can hold."""
    if isinstance(value, GraphSpace):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [_written(one) for one in value]
    return dict(value) if isinstance(value, Mapping) else value


def _read(value: Any) -> Any:
    return tuple(map(_read, value)) if isinstance(value, list) else value
