"""Machine code that is kept on disk, so that the next process need not compile again."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import event


def sources() -> int:
    """A number for the text of this folder.

    numba looks for changes in a function's own file alone. Functions that are kept have this number among what they
    close over, which is part of the name that numba keeps them by, so that no code of another version is used.
    """
    texts = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return int.from_bytes(hashlib.sha256(texts).digest()[:7])


def kept(function: Callable[..., Any]) -> Any:
    """Compile without the interpreter's lock, and keep the code where there is a place that can be written."""
    try:
        return njit(function, error_model="numpy", nogil=True, cache=True)
    except RuntimeError:  # no such place: neither beside the source nor in the user's cache
        return njit(function, error_model="numpy", nogil=True)


def named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function made by another, under a name of its own.

    Compiled code that was kept by several processes is put together by the names of functions and the types of their
    arguments, so functions that differ in neither would be taken for one another.
    """
    function.__qualname__ = f"{function.__qualname__}.{name}"
    return function


def announce(tell: Callable[[str], object]) -> None:
    """Tell, when something of this folder is compiled for the first time, why that takes a while."""
    event.register("numba:compile", _Announcer(tell))


class _Announcer(event.Listener):  # type: ignore[misc]
    def __init__(self, tell: Callable[[str], object]) -> None:
        self.tell: Callable[[str], object] | None = tell

    def on_start(self, event: Any) -> None:
        function = getattr(event.data["dispatcher"], "py_func", None)  # anybody's, perhaps of no module
        if self.tell and str(getattr(function, "__module__", None)).startswith("machgraph.kernels"):
            self.tell("machgraph: compiling its loop for this processor, once (some 20 s)")
            self.tell = None

    def on_end(self, event: Any) -> None:
        """Nothing to tell."""
