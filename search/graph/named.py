"""Graph spaces by name: ``nets:space`` is what the module ``nets`` calls ``space``."""

import inspect
import os
import shlex
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

from search.data.table import nearest
from search.graph.space import GraphSpace


def named_space(name: str) -> GraphSpace:
    """The graph space of a module, or the one that a function of it makes; modules of the current folder come first.

    This runs the module's code: call it with a name that the user has given, never with one that a run's folder tells.

    Raises
    ------
    ValueError : no such module or name, with the nearest, or something else than a graph space.
    """
    where, _, attribute = name.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in where.split(".")):
        raise ValueError(f"got the graph space {name!r}: give MODULE:NAME, as nets:space for what nets.py calls space")
    here = Path.cwd()
    if str(here) not in sys.path:  # and there it stays, for workers look there too
        sys.path.insert(0, str(here))
    try:
        module = import_module(where)
    except ModuleNotFoundError as error:
        if not f"{where}.".startswith(f"{error.name}."):  # it is there, and needs another that is not
            raise
        files = [path.stem for path in here.glob("*.py")]
        raise ValueError(
            f"there is no module {where!r}{nearest(where, files)} for the graph space {name!r}: give one that Python "
            f"finds from {here}"
        ) from None
    if not hasattr(module, attribute):
        raise ValueError(
            f"{where} has no {attribute!r}{nearest(attribute, vars(module))}: give the name of a search.GraphSpace, or "
            "of a function that makes one"
        )
    found = getattr(module, attribute)
    if inspect.isfunction(found) or isinstance(found, partial):
        try:
            inspect.signature(found).bind()
        except TypeError as error:
            raise ValueError(f"{name} can't make a graph space, {error}: give a function without arguments") from None
        found = found()
    if not isinstance(found, GraphSpace):
        raise ValueError(
            f"{name} is of type {type(found).__name__}: a search.GraphSpace was expected, or a function that makes one"
        )
    return found


def given(name: str | None) -> GraphSpace | None:
    """The graph space of that name, if one was given; raises as ``named_space``."""
    return None if name is None else named_space(name)


def missing(place: str | os.PathLike[str], name: str | None) -> ValueError:
    """What is to be said where only the graph space that was searched can go on, and nobody has given it.

    >>> str(missing("runs/a", "nets:space"))
    'runs/a is of the graph space nets:space, whose modules Python makes: give it again, by --space nets:space ...'
    """
    which, again = ("a graph space", "MODULE:NAME") if name is None else (f"the graph space {name}", shlex.quote(name))
    return ValueError(
        f"{place} is of {which}, whose modules Python makes: give it again, by --space {again} or from Python by space="
    )


def needless(place: str | os.PathLike[str]) -> ValueError:
    """What is to be said where a graph space was given, and another kind was searched."""
    return ValueError(f"got a graph space for {place}, which is of another kind of space: leave it out")
