"""Functions called by other processes of this machine, each on one thread.

A worker holds nothing that is not known elsewhere, so that one that dies can be replaced by any other.
"""

import os
import pickle
import signal
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock
from typing import Any

from search.parallel.pool import (
    ATTEMPTS,
    ERROR,
    READY,
    Function,
    answered,
    content_of,
    ended,
    packed,
    sendable,
    worn_out,
)


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
        self._shared = packed(shared)
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
        """As ``search.parallel.pool.Pool`` has it."""
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
            return content_of(answer)
        raise ended() if self._closed else worn_out()

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
                raise ended()
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
                "and what you give it must be functions of a module that can be imported"
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
    try:
        on_one_thread()
        shared = pickle.loads(pickled)
        told = sendable(READY, None)
    except Exception as error:
        told = sendable(ERROR, f"{type(error).__name__}: {error}")
    while True:
        try:
            connection.send_bytes(told)
            asked = connection.recv_bytes()
        except (EOFError, OSError):
            return  # the process that searches has ended
        told = answered(shared, asked)


def on_one_thread() -> None:
    """Let this process, a worker, train on one."""
    os.environ["OMP_NUM_THREADS"] = "1"  # candidates are spread over so many threads too
    import torch

    torch.set_num_threads(1)
