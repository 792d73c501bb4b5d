"""Functions called elsewhere with a value that all calls share: what is sent there, and what comes back."""

import pickle
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

ATTEMPTS = 3  # to have a function called, if workers die over it
READY, ANSWER, ERROR = "ready", "answer", "error"

Function = Callable[..., Any]


class Pool(Protocol):
    """Who calls the functions: processes of this machine, or the nodes of a cluster."""

    @property
    def lost(self) -> int:
        """How many workers have died so far, whose calls others have made."""

    def submit(self, function: Function, *arguments: Any) -> Future[Any]:
        """What a function of a module says of the shared value and the arguments, by the next worker that is free.

        Raises, when it is waited for
        -----------------------------
        OSError : several workers have died over it, or all have been ended.
        Exception : whatever the function raises.
        """

    def close(self) -> None:
        """End the workers, whatever they do."""


def packed(shared: Any) -> bytes:
    """What workers are to share, as it is sent to them; ValueError: it can't be."""
    try:
        return pickle.dumps(shared)
    except Exception as error:  # pickle raises many kinds
        raise ValueError(
            f"got a search that can't be sent to its workers ({error}): take functions of a module as factories of a "
            "graph space and as objectives, or leave the workers out"
        ) from None


def answered(shared: Any, asked: bytes) -> bytes:
    """What a worker answers, who is asked for a function and its arguments."""
    try:
        function, arguments = pickle.loads(asked)
        return sendable(ANSWER, function(shared, *arguments))
    except Exception as error:
        error.add_note(f"In a worker:\n{traceback.format_exc()}")
        return sendable(ERROR, error)


def sendable(kind: str, content: Any) -> bytes:
    """What can be read on the other side; an error that can't be is told by another."""
    try:
        told = pickle.dumps((kind, content))
        if kind == ERROR:
            pickle.loads(told)  # some can't be made anew
    except Exception as error:  # pickle raises many kinds
        said = f"a worker can't send {content!r}: {error}"
        return pickle.dumps((ERROR, RuntimeError(said)))
    return told


def content_of(answer: bytes) -> Any:
    """What was answered; an error is raised here."""
    kind, content = pickle.loads(answer)
    if kind == ERROR:
        raise content
    return content


def worn_out() -> OSError:
    """What is told when nobody survives a call."""
    return OSError(
        f"{ATTEMPTS} workers have died over the same candidates, out of memory perhaps: "
        "give fewer workers, or a space of smaller networks"
    )


def ended() -> OSError:
    """What is told to those who wait for workers that were ended."""
    return OSError("the workers were ended")
