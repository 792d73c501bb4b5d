"""Generations trained by other processes of this machine, several at once, each on one thread.

A worker is told points and recipe, and answers with outcomes; what it trains depends on these alone, so that one that
dies can be replaced by any other. The study, the proposals and the files belong to the process that searches.
"""

import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock
from typing import Any

from search.graph.space import GraphSpace
from search.numbers import counted
from search.point import AnyPoint
from search.population import NEWS, Outcome, Progress
from search.record import Record, Row, Settings
from search.work import OnData, Pending, Task

ATTEMPTS = 3  # to train a generation whose workers die
QUEUED = 2  # generations a worker: one that it trains, and the next, so that it waits for nobody
READY, ANSWER, ERROR = "ready", "answer", "error"

Function = Callable[..., Any]


class Workers:
    """Processes that share a value, and call functions with it.

    They begin by forking a process that has imported torch already, end with the one that made them, and leave Ctrl-C
    to it.

    Parameters
    ----------
    number : of processes, at least 1.
    shared : what every function is given first; it must be one that can be pickled.
    """

    def __init__(self, number: int, shared: Any) -> None:
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["search.work"])
        self._shared = pickle.dumps(shared)
        self._lock, self._closed, self.lost = Lock(), False, 0
        self._all: set[_Worker] = set()
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._threads = ThreadPoolExecutor(number, thread_name_prefix="worker")
        try:
            for worker in [self._begun() for _ in range(number)]:
                worker.wait()
                self._idle.put(worker)
        except BaseException:
            self.close()
            raise

    def submit(self, function: Function, *arguments: Any) -> Future[Any]:
        """What a function of a module says of the shared value and the arguments, by the next worker that is free.

        Raises, when it is waited for
        -----------------------------
        OSError : several workers have died over it.
        Exception : whatever the function raises.
        """
        return self._threads.submit(self._called, function, arguments)

    def close(self) -> None:
        """End the processes, whatever they do."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            for worker in self._all:
                worker.end()

    def _called(self, function: Function, arguments: tuple[Any, ...]) -> Any:
        asked = pickle.dumps((function, arguments))
        for _ in range(ATTEMPTS):
            worker = self._idle.get()
            try:
                answer = worker.call(asked)
            except (EOFError, OSError):  # it has died
                self._idle.put(self._replaced(worker))
                continue
            self._idle.put(worker)
            kind, content = pickle.loads(answer)
            if kind == ERROR:
                raise content
            return content
        if self._closed:
            raise OSError("the workers were ended")
        raise OSError(
            f"{ATTEMPTS} workers have died over the same candidates, out of memory perhaps: "
            "give fewer workers, or a space of smaller networks"
        )

    def _replaced(self, worker: "_Worker") -> "_Worker":
        """Another in its place; the same, whose calls all fail, if the workers were ended or none can begin."""
        try:
            begun = self._begun()
            begun.wait()
        except OSError:
            return worker
        with self._lock:
            self.lost += 1
            self._all.discard(worker)
        worker.end()
        return begun

    def _begun(self) -> "_Worker":
        with self._lock:
            if self._closed:
                raise OSError("the workers were ended")
            worker = _Worker(self._context, self._shared)
            self._all.add(worker)
        return worker


class _Worker:
    """One process, and the way to it; what goes there is pickled here, for torch would send a file for each tensor."""

    def __init__(self, context: Any, shared: bytes) -> None:
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, shared), daemon=True)
        self._process.start()
        theirs.close()

    def wait(self) -> None:
        """Until it is ready; OSError: it can't begin."""
        try:
            kind, content = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            kind, content = ERROR, "it has died"
        if kind != READY:
            raise OSError(
                f"a worker could not begin ({content}): a script needs its search under if __name__ == '__main__', "
                "and factories of a graph space must be functions of a module that can be imported"
            )

    def call(self, asked: bytes) -> bytes:
        """An answer; EOFError or OSError: it has died."""
        self._connection.send_bytes(asked)
        answer: bytes = self._connection.recv_bytes()
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, pickled: bytes) -> None:
    """What a worker does, until nobody asks it any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"  # candidates are spread over so many threads too
    try:
        import torch

        torch.set_num_threads(1)
        shared = pickle.loads(pickled)
        told = _sendable(READY, None)
    except Exception as error:
        told = _sendable(ERROR, f"{type(error).__name__}: {error}")
    while True:
        try:
            connection.send_bytes(told)
            asked = connection.recv_bytes()
        except (EOFError, OSError):
            return  # the process that searches has ended
        try:
            function, arguments = pickle.loads(asked)
            told = _sendable(ANSWER, function(shared, *arguments))
        except Exception as error:
            error.add_note(f"In a worker:\n{traceback.format_exc()}")
            told = _sendable(ERROR, error)


def _sendable(kind: str, content: Any) -> bytes:
    """What can be read on the other side; an error that can't be is told by another."""
    try:
        told = pickle.dumps((kind, content))
        if kind == ERROR:
            pickle.loads(told)  # some can't be made anew
    except Exception as error:  # pickle raises many kinds
        said = f"a worker can't send {content!r}: {error}"
        return pickle.dumps((ERROR, RuntimeError(said)))
    return told


class OnWorkers:
    """The work of a search on data, with candidates trained by workers.

    Its end, which compares the best, is done in this process, on all cores.
    """

    def __init__(self, work: OnData, number: int) -> None:
        self._work, self.ahead = work, QUEUED * number - 1
        self._workers = Workers(number, work)

    @property
    def lost(self) -> int:
        """How many workers have died."""
        return self._workers.lost

    def begin(self, number: int) -> list[AnyPoint]:
        """As the work does."""
        return self._work.begin(number)

    def submit(self, task: Task) -> Pending:
        """A worker trains them, as soon as one is free."""
        future = self._workers.submit(_train, task)

        def outcomes(progress: Progress) -> list[Outcome]:
            while not wait([future], timeout=NEWS).done:
                progress(0, len(task.points))
            try:
                found: list[Outcome] = future.result()
            except OSError as error:
                if error.errno is None:  # ours: it says so already
                    raise
                raise OSError(f"a worker can't go on: {error}") from error  # it is not the folder that is at fault
            return found

        return outcomes

    def keep(self, record: Record, outcome: Outcome) -> None:
        """As the work does."""
        self._work.keep(record, outcome)

    def end(self, ranked: Sequence[Record], settings: Settings) -> list[Row]:
        """As the work does, without the workers."""
        self.close()
        return self._work.end(ranked, settings)

    def close(self) -> None:
        """End the workers."""
        self._workers.close()


def _train(work: OnData, task: Task) -> list[Outcome]:
    return work.train(task, lambda epoch, running: None)


@contextmanager
def employed(work: OnData) -> Iterator[OnData | OnWorkers]:
    """The work as its settings want it done: here, or by so many workers, which end with the context.

    Raises
    ------
    ValueError : a graph space that can't be sent to them.
    """
    number, space = work.settings.workers, work.settings.space
    if number is None:
        yield work
        return
    if isinstance(space, GraphSpace):
        try:
            pickle.dumps(space)
        except Exception as error:  # pickle raises many kinds
            raise ValueError(
                f"got {counted(number, 'worker')} for a graph space that can't be sent to them ({error}): "
                "take functions of a module as its factories, or leave the workers out"
            ) from None
    workers = OnWorkers(work, number)
    try:
        yield workers
    finally:
        workers.close()
