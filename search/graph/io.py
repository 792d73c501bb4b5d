"""Architectures of graph spaces on disk: the point as JSON and the weights, in one safetensors file; never pickle."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from machgraph.architecture import Architecture
from machgraph.io import as_json, contents, write_whole
from search.graph.point import GraphPoint, canonical_graph
from search.graph.space import GraphSpace

FORMAT = "machgraph-graph/1"


def save_graph(
    architecture: Architecture,
    space: GraphSpace,
    point: GraphPoint,
    path: str | os.PathLike[str],
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write an architecture of a graph space to one file, whole or not at all.

    Parameters
    ----------
    architecture, space, point : ``space.build(point)``, with any weights.
    path : by custom ``NAME.machgraph``. In its metadata stand ``format``, ``point``, ``space`` (its factories by name)
        and ``metadata``, each of the last three one JSON object.
    metadata : anything JSON can hold.

    Raises
    ------
    ValueError : metadata that JSON can't hold.
    """
    header = {
        "format": FORMAT,
        "point": json.dumps(canonical_graph(point).to_dict(), allow_nan=False),
        "space": json.dumps(space.to_dict(), allow_nan=False),
        "metadata": as_json(metadata or {}),
    }
    # Of their own memory: modules may share weights, and a file holds each once for each name.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in architecture.state_dict().items()}
    path = Path(path)
    write_whole(path, to_bytes(tensors, header))
    return path


def load_graph(path: str | os.PathLike[str], space: GraphSpace) -> Architecture:
    """The architecture in a file that ``save_graph`` or a search wrote, with its weights, in evaluation mode.

    Parameters
    ----------
    path : as ``best.machgraph`` of a run's folder.
    space : the one that was searched: its factories make the modules.

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : no such file format, or another space.
    """
    header, tensors = _read(path)
    if not isinstance(space, GraphSpace):
        raise ValueError(f"got {type(space).__name__} as the space of {path}: give the search.GraphSpace that it is of")
    told = GraphSpace.from_dict(json.loads(header["space"]))
    if told not in (space, space.untrained):  # the latter by `optimize`
        raise ValueError(f"{path} holds an architecture of another space: {difference(told, space)}")
    architecture = space.build(GraphPoint.from_dict(json.loads(header["point"])))
    try:
        architecture.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} is damaged, its weights do not fit its machines: {error}") from None
    return architecture.eval()


def is_graph(path: str | os.PathLike[str]) -> bool:
    """Whether ``save_graph`` wrote a file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return bool((file.metadata() or {}).get("format") == FORMAT)
    except (SafetensorError, OSError):
        return False


def read_graph(path: str | os.PathLike[str]) -> tuple[GraphPoint, dict[str, Any]]:
    """The point in such a file, in canonical form, and what was given as ``metadata``; raises as ``load_graph``."""
    header, _ = _read(path)
    return GraphPoint.from_dict(json.loads(header["point"])), json.loads(header["metadata"])


def difference(told: GraphSpace, given: GraphSpace) -> str:
    """The first thing in which a space that was stored differs from the one that is given."""
    before, now = told.to_dict(), given.to_dict()
    name = next(name for name in before if before[name] != now[name])
    was, is_ = before[name], now[name]
    if name == "candidates" and len(was) == len(is_):
        was, is_ = next((a, b) for a, b in zip(was, is_, strict=True) if a != b)
        field = next(field for field in was if was[field] != is_[field])
        name, was, is_ = f"{field} of {was['name']}", was[field], is_[field]
    elif name == "candidates":
        was, is_ = [one["name"] for one in was], [one["name"] for one in is_]
    return f"its {name} {'is' if isinstance(was, str) else 'are'} {was}, and not {is_}"


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, str], dict[str, Any]]:
    header, tensors = contents(path, "a search of a graph space")
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} holds no architecture of a graph space (its format is {header.get('format')!r})")
    return header, tensors
