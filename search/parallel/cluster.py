"""Functions called on the nodes of a Ray cluster.

A process of its own joins the cluster, and calls, values and answers go through it as bytes. For Ray ends a process
that loses its cluster, writes on the standard output of one that has joined, and takes over its signals: all that may
befall that process, whose end is one error here.
"""

import os
import pickle
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from search.numbers import counted
from search.parallel.pool import (
    ANSWER,
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
from search.parallel.processes import on_one_thread

LOST, GONE = "lost", "gone"  # the worker of a call, and all of the cluster
LOCAL = "local"  # the address of a cluster that is begun on this machine, and ends with the search
ANSWERING = 10.0  # seconds that whoever is at an address may take to take a call
JOINING = 60.0  # seconds that joining may take; with a cluster that is there it takes one or two
LEAVING = 10.0  # seconds that it is given for it
BEGINNING = 120.0  # seconds that a node may take for its first worker, or a cluster of this machine to begin
KEEPING = {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}  # see `_take_gpu`
MATTERING = ("machgraph", "python", "torch", "numpy")  # to results

Node = Mapping[str, float]  # how much it has of CPU and GPU


class Cluster:
    """Nodes whose workers share a value, and call functions with it: so many at once, as tasks of Ray.

    The value is put once into the cluster, and read once by each process there. A call whose worker or node dies is
    made again by another; how often that happened is told by ``lost``.

    Parameters
    ----------
    address : as Ray takes it: ``auto``, ``HOST:PORT``, ``ray://HOST:PORT``, or ``local`` for a cluster of this machine.
    number : of calls at once, at least 1.
    shared : what every function is given first; it must be one that can be pickled. With a ``share`` its attribute
        ``device`` says which GPU it is, as ``cuda:0``.
    share : of a GPU, that each call has to itself, above 0 and at most 1; 0: a CPU in its place.
    again : what to do if the cluster is lost.

    Raises
    ------
    ImportError : Ray is missing.
    ValueError : no address, nodes of other versions than this one, or such that can't read the value.
    OSError : nobody answers there, or it can't be joined.
    """

    def __init__(self, address: str, number: int, shared: Any, *, share: float = 0.0, again: str = "") -> None:
        self.lost, self._number, self._count = 0, number, 0
        self._gone = f"the cluster at {address} is gone; all generations before are kept: {again or 'begin again'}"
        self._lock, self._ended = Lock(), list[OSError]()
        self._waiting: deque[_Call] = deque()
        self._running: dict[int, _Call] = {}
        self._joined = _Joined(address, share, pickle.dumps((_versions(), packed(shared))))
        if address == LOCAL and not fitting(self._joined.nodes, share):
            self._joined.end()
            raise ValueError(_lacking(address, self._joined.nodes, share))
        Thread(target=self._read, name="cluster", daemon=True).start()

    def submit(self, function: Function, *arguments: Any) -> Future[Any]:
        """As ``search.parallel.pool.Pool`` has it."""
        future: Future[Any] = Future()
        try:
            asked = pickle.dumps((function, arguments))
        except Exception as error:  # pickle raises many kinds
            future.set_exception(error)
            return future
        with self._lock:
            if self._ended:
                future.set_exception(self._ended[0])
            else:
                self._count += 1
                self._waiting.append(_Call(self._count, asked, future))
                self._go_on()
        return future

    def close(self) -> None:
        """Leave the cluster, which ends whatever it does for this search."""
        self._end(ended())
        self._joined.end()

    def _go_on(self) -> None:
        while self._waiting and len(self._running) < self._number:
            call = self._waiting.popleft()
            self._running[call.number] = call
            self._ask(call)

    def _ask(self, call: "_Call") -> None:
        with suppress(OSError):  # the reader learns of it
            self._joined.connection.send((call.number, call.attempt, call.asked))

    def _read(self) -> None:
        """Take down what comes back, as long as anything can."""
        with suppress(EOFError, OSError):
            while (told := self._joined.connection.recv())[2] != GONE:
                self._settle(*told)
        self._end(OSError(self._gone))

    def _settle(self, number: int, attempt: int, kind: str, content: bytes) -> None:
        with self._lock:
            call = self._running.get(number)
            if call is None or call.attempt != attempt:
                return  # nobody waits for it any more
            if kind == LOST:
                self.lost += 1
                if attempt < ATTEMPTS:
                    call.attempt += 1
                    self._ask(call)
                    return
            del self._running[number]
            self._go_on()
        try:
            if kind == LOST:
                raise worn_out()
            call.future.set_result(content_of(content))
        except BaseException as error:
            call.future.set_exception(error)

    def _end(self, error: OSError) -> None:
        """Nothing is called any more, and nobody is left waiting."""
        with self._lock:
            self._ended.append(error)
            calls = [*self._running.values(), *self._waiting]
            self._running.clear()
            self._waiting.clear()
        for call in calls:
            call.future.set_exception(self._ended[0])


@dataclass
class _Call:
    """A function and its arguments; who of those who answer it is listened to, is said by ``attempt``."""

    number: int
    asked: bytes
    future: Future[Any] = field(repr=False)
    attempt: int = 1


def size(address: str, share: float = 0.0) -> int:
    """How many calls at once a cluster has room for now: one for each CPU, or for each such share of a GPU.

    Raises
    ------
    ValueError : it has room for none.
    ImportError, ValueError, OSError : as of ``Cluster``.
    """
    if address == LOCAL:  # not begun only to be counted
        _refuse_absent()
        import torch

        from search.population import usable

        nodes: list[Node] = [{"CPU": usable(), "GPU": torch.cuda.device_count()}]
    else:
        joined = _Joined(address, share, pickle.dumps((_versions(), packed(None))))
        joined.end()
        nodes = joined.nodes
    if not (room := fitting(nodes, share)):
        raise ValueError(_lacking(address, nodes, share))
    return room


def fitting(nodes: Sequence[Node], share: float) -> int:
    """How many calls at once these nodes have room for.

    >>> fitting([{"CPU": 8.0}, {"CPU": 4.0, "GPU": 2.0}], 0.0), fitting([{"CPU": 4.0, "GPU": 2.0}], 0.3)
    (12, 6)
    """
    if not share:
        return sum(int(node.get("CPU", 0)) for node in nodes)
    return sum(int(node.get("GPU", 0)) for node in nodes) * int(1 / share + 1e-9)


def _lacking(address: str, nodes: Sequence[Node], share: float) -> str:
    what, other = ("GPU", "gpus") if share else ("CPU", "ray")
    many = " that may come" if address != LOCAL else ""
    number = f", or say by workers=N how many{many}" if many else ""
    return f"the cluster at {address} has no {what} on its {counted(len(nodes), 'node')}: leave {other} out{number}"


def _versions() -> dict[str, str]:
    """Of what results depend on."""
    from search.facts import versions

    found = versions()
    return {name: found[name] for name in MATTERING}


# ---- the process that joins the cluster ------------------------------------------------------------------------------


class _Joined:
    """That process, seen from here. ``nodes``: what each has."""

    def __init__(self, address: str, share: float, shared: bytes) -> None:
        _refuse_absent()
        _refuse_silent(address)
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = theirs, address, share, shared
        self._process = context.Process(target=_join, args=arguments, name="cluster", daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._wait(address, BEGINNING if address == LOCAL else JOINING)
            self.nodes: list[Node] = self._wait(address, None)
        except BaseException:
            self.end()
            raise

    def _wait(self, address: str, seconds: float | None) -> Any:
        """Until it says how it stands; what it raised is raised here."""
        try:
            if not self.connection.poll(seconds):
                raise OSError(f"nobody answers at {address}: is that the address of a Ray cluster, as ray start says?")
            return content_of(self.connection.recv_bytes())
        except EOFError:
            raise OSError(
                f"the process that is to join the cluster at {address} has died: a script needs its search under "
                "if __name__ == '__main__', and others than that should see what ray status says"
            ) from None

    def end(self) -> None:
        """Let it leave the cluster, or end it."""
        with suppress(OSError):
            self.connection.send(None)
        self._process.join(LEAVING)
        self._process.kill()
        self._process.join()


def _refuse_absent() -> None:
    if find_spec("ray") is None:
        raise ImportError("a cluster needs ray: pip install 'machgraph[distributed]'")


def _refuse_silent(address: str) -> None:
    """ValueError: it is no address. OSError: nobody is there, which Ray would try for minutes."""
    if address in ("auto", LOCAL):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdigit()):
        raise ValueError(f"got the address {address!r} of a cluster: give auto, HOST:PORT, ray://HOST:PORT or local")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERING).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"nobody answers at {address} ({reason}): give the address that ray start has told") from None


def _join(connection: Connection, address: str, share: float, shared: bytes) -> None:
    """What that process does, until nobody asks it any more."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C is for the process that searches, which lets this one go
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray

        options: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
        if share:
            options["runtime_env"] = {"env_vars": KEEPING}
        ray.init(address=address, log_to_driver=False, **options)
        connection.send_bytes(sendable(READY, None))
        task = ray.remote(
            max_retries=0,  # who asks does it again, and tells
            max_calls=0,  # a process is used again, also with GPUs
            num_cpus=0 if share else 1,
            num_gpus=share,
        )(_answer)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        kept = [ray.put(shared)]
        gone = _try_out(task, kept, [node for node in nodes if fitting([node["Resources"]], share)])
        nodes = [node for node in nodes if node["NodeID"] not in gone]
        connection.send_bytes(sendable(READY, [node["Resources"] for node in nodes]))
    except ValueError as error:  # ours
        connection.send_bytes(sendable(ERROR, error))
        return
    except Exception as error:
        connection.send_bytes(sendable(ERROR, OSError(f"can't join the cluster at {address}: {_reason(error)}")))
        return
    told: SimpleQueue[Any] = SimpleQueue()  # so that Ray's own threads never wait
    Thread(target=_tell, args=(connection, told), daemon=True).start()
    with suppress(EOFError, OSError):
        while (asked := connection.recv()) is not None:
            number, attempt, content = asked
            called = task.options(name=f"generation {number}, attempt {attempt}").remote(kept, content)
            called.future().add_done_callback(partial(_take_down, told, number, attempt))
    ray.shutdown()


def _reason(error: BaseException) -> str:
    """Why it can't be joined, in one line."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ == "AuthenticationError":
            return (
                "it wants a token; put the one of its head (~/.ray/auth_token) there on this machine too, and set "
                "RAY_AUTH_MODE=token"
            )
        cause = cause.__cause__ or cause.__context__
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _tell(connection: Connection, told: "SimpleQueue[Any]") -> None:
    with suppress(OSError):
        while True:
            connection.send(told.get())


def _take_down(told: "SimpleQueue[Any]", number: int, attempt: int, done: Future[Any]) -> None:
    """What has become of a call."""
    from ray import exceptions

    error = done.exception()
    if error is None:
        told.put((number, attempt, ANSWER, done.result()))
    elif isinstance(error, exceptions.LocalRayletDiedError | ConnectionError):
        told.put((number, attempt, GONE, b""))
    elif isinstance(error, exceptions.RayError) and not isinstance(error, exceptions.RayTaskError):
        told.put((number, attempt, LOST, b""))  # the worker, its node, or what it had answered
    else:
        told.put((number, attempt, ANSWER, sendable(ERROR, _unable(error))))


def _try_out(task: Any, kept: Any, nodes: Sequence[Mapping[str, Any]]) -> set[str]:
    """Which nodes are gone, although they are still listed: Ray takes some 15 s to see that one has died.

    ValueError: a node that calls are made on can't make them, or has other versions.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = pickle.dumps((_nothing, ()))
    tried = [
        task.options(
            num_cpus=0,
            num_gpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(kept, asked)
        for node in nodes
    ]
    gone = set()
    for node, one in zip(nodes, tried, strict=True):
        try:
            content_of(ray.get(one, timeout=BEGINNING))
        except GetTimeoutError:
            raise OSError(f"node {node['NodeManagerAddress']} begins no worker: see its logs in /tmp/ray") from None
        except RayTaskError as error:
            raise _unable(error) from None
        except RayError as error:
            if node["NodeID"] in {other["NodeID"] for other in ray.nodes() if other["Alive"]}:
                raise _unable(error) from None
            gone.add(node["NodeID"])
    return gone


def _nothing(shared: Any) -> None:
    """What is called to see that something can be."""


def _unable(error: BaseException) -> ValueError:
    lines = str(getattr(error, "cause", None) or error).strip().splitlines() or [type(error).__name__]
    return ValueError(
        f"a node of the cluster can't work for this search ({lines[-1]}): machgraph, and modules with your own "
        "functions if there are any, must be installed there as they are here"
    )


# ---- what is done on the nodes ---------------------------------------------------------------------------------------


def _answer(kept: Any, asked: bytes) -> bytes:
    """A task of Ray: like ``search.parallel.pool.answered`` with the value that was put into the cluster."""
    try:
        shared = _read(kept[0])
        _take_gpu(shared)
    except Exception as error:
        return sendable(ERROR, error if isinstance(error, ValueError) else _unable(error))
    return answered(shared, asked)


@lru_cache(maxsize=1)  # once in each process
def _read(reference: Any) -> Any:
    import ray

    on_one_thread()
    versions, shared = pickle.loads(ray.get(reference))
    own = _versions()
    for name, version in versions.items():
        if own[name] != version:
            raise ValueError(
                f"node {ray.util.get_node_ip_address()} has {name} {own[name]} and not {version}, by which results "
                "may differ: install the same on all nodes"
            )
    return pickle.loads(shared)


def _take_gpu(shared: Any) -> None:
    """Let the value know its GPU, and torch too.

    Ray would hide all others in a variable of the process, which CUDA reads once; but the next call in the same process
    may be given another GPU. So it is kept from that (``KEEPING``), and GPUs are told apart here.
    """
    import ray

    if not (given := ray.get_gpu_ids()):
        return
    import torch

    place = place_of(str(given[0]), os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    shared.device = f"cuda:{place}"
    if torch.cuda.is_available():
        torch.cuda.set_device(place)


def place_of(name: str, visible: str) -> int:
    """Where torch counts a GPU that Ray names, among those that a node may use.

    >>> place_of("1", ""), place_of("3", "2,3"), place_of("GPU-7e", "GPU-15,GPU-7e")
    (1, 1, 1)
    """
    names = visible.split(",")
    return names.index(name) if name in names else int(name)
