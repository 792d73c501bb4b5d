"""Contenders timed in turns, so that what else the machine does falls on all of them alike."""

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Contender:
    """A call that is timed.

    Parameters
    ----------
    call : without arguments.
    units : how many of what is counted (steps, operations) one call does.
    threads : of torch, while it is called.
    """

    call: Callable[[], object]
    units: float = 1.0
    threads: int = 1


@dataclass(frozen=True)
class Quartiles:
    """The median of some samples, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> "Quartiles":
        """Those of at least one sample, to four digits."""
        low, median, high = np.quantile(list(samples), (0.25, 0.5, 0.75))
        return cls(*(float(f"{x:.4g}") for x in (median, low, high)))


def alternate(
    contenders: Mapping[str, Contender], *, rounds: int, seconds: float, device: str = "cpu"
) -> dict[str, Samples]:
    """Seconds a unit of each contender, one sample a round; in a round each is called for about so many seconds."""
    numbers = {}
    for name, contender in contenders.items():
        with threads(contender.threads):
            elapsed(contender.call, 1, device)  # compiles, plans, warms up
            once = elapsed(contender.call, 1, device)
            numbers[name] = max(1, ceil(seconds / max(once, 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            with threads(contender.threads):
                took = elapsed(contender.call, numbers[name], device)
            samples[name].append(took / numbers[name] / contender.units)
    return {name: np.array(values) for name, values in samples.items()}


def elapsed(call: Callable[[], object], number: int, device: str = "cpu") -> float:
    """Seconds of so many calls, what they started on the device included; without garbage collection."""
    synchronize(device)
    collecting = gc.isenabled()
    gc.disable()
    try:
        began = perf_counter()
        for _ in range(number):
            call()
        synchronize(device)
        return perf_counter() - began
    finally:
        if collecting:
            gc.enable()


def synchronize(device: str) -> None:
    """Wait until a GPU has done all that it was told."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


@contextmanager
def threads(number: int) -> Iterator[None]:
    """So many of torch's threads, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seconds_of_others() -> float | None:
    """Processor time that other processes have taken so far, where the system tells; children count when they ended."""
    told = Path("/proc/stat")
    if not told.exists():
        return None
    user, nice, system, _, _, *interrupts = map(int, told.read_text().split()[1:8])
    own = os.times()
    all_ = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    return all_ - own.user - own.system - own.children_user - own.children_system
