"""Oracles and cases that the tests share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

import machgraph as mg
from machgraph.graph import Node
from machgraph.parametric import ParametricMachine
from machgraph.partition import Mask, Partition

COMPONENTS = tuple(f"x{i}" for i in range(1, 9))


def figure2() -> mg.Architecture:
    """Figure 2 of the paper, with smooth functions of tensors of any one shape."""
    return (
        mg.Machine(lambda x1, x2: torch.tanh(x1) * x2, reads=("x1", "x2"), writes=("x3",), name="f1")
        + mg.Machine(torch.sin, reads=("x1",), writes=("x5",), name="f2")
        + mg.Machine(torch.cos, reads=("x3",), writes=("x4",), name="f3")
        + mg.Machine(lambda x4: (x4.sin(), x4 * x4, x4.exp()), reads=("x4",), writes=("x5", "x6", "x7"), name="f4")
        + mg.Machine(lambda x6: torch.tanh(3 * x6), reads=("x6",), writes=("x8",), name="f5")
    )


def figure2_by_hand(x: dict[str, Tensor]) -> dict[str, Tensor]:
    """The formulas of the caption of Figure 2."""
    x1, x2, x3, x4, x5, x6, x7, x8 = (x[c] for c in COMPONENTS)
    y3 = torch.tanh(x1) * x2 + x3
    y4 = torch.cos(y3) + x4
    y6 = y4 * y4 + x6
    return {
        "x1": x1,
        "x2": x2,
        "x3": y3,
        "x4": y4,
        "x5": torch.sin(x1) + torch.sin(y4) + x5,
        "x6": y6,
        "x7": torch.exp(y4) + x7,
        "x8": torch.tanh(3 * y6) + x8,
    }


def element(
    components: Sequence[str], shape: tuple[int, ...] = (2, 3), *, seed: int = 0, grad: bool = False
) -> dict[str, Tensor]:
    """A random element of machine space in float64."""
    generator = torch.Generator().manual_seed(seed)
    return {c: torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(grad) for c in components}


@dataclass(frozen=True)
class Mix:
    """A smooth map of any number of reads to any number of writes: ``tanh`` of a random linear combination."""

    weight: Tensor  # (writes, reads)

    def __call__(self, *xs: Tensor) -> tuple[Tensor, ...]:
        if not xs:
            return tuple(self.weight.new_ones(2, 3) for _ in self.weight)
        return tuple(sum(w * torch.tanh(x + w) for w, x in zip(row, xs, strict=True)) for row in self.weight)


@st.composite
def nodes(draw: st.DrawFn, machines: int = 6, components: int = 8, prefix: str = "f") -> list[Node]:
    """Machines that form no cycle, in a shuffled order: each reads components before those that it writes."""
    names = [f"x{i}" for i in range(components)]
    result = []
    for i in range(draw(st.integers(1, machines))):
        cut = draw(st.integers(1, components - 1))
        reads = draw(st.lists(st.sampled_from(names[:cut]), unique=True, max_size=3))
        writes = draw(st.lists(st.sampled_from(names[cut:]), unique=True, min_size=1, max_size=3))
        result.append(Node(f"{prefix}{i}", tuple(reads), tuple(writes)))
    return draw(st.permutations(result))


def architecture(nodes: Sequence[Node], seed: int = 0) -> mg.Architecture:
    """An architecture of smooth nonlinear maps over these nodes; its tensors have the shape (2, 3) in float64."""
    generator = torch.Generator().manual_seed(seed)
    return mg.Architecture(
        mg.Machine(
            Mix(torch.randn(len(n.writes), len(n.reads), generator=generator, dtype=torch.float64)),
            n.reads,
            n.writes,
            n.name,
        )
        for n in nodes
    )


def naive_resolvent(f: mg.Architecture, g: dict[str, Tensor]) -> dict[str, Tensor]:
    """The loop in plain torch, which autograd differentiates by itself."""
    h, machines = dict(g), {m.name: m for m in f.machines}
    for name in f.order:
        m = machines[name]
        ys = m.function(*(h[c] for c in m.reads))
        for c, y in zip(m.writes, [ys] if isinstance(ys, Tensor) else ys, strict=True):
            h[c] = h[c] + y if c in h else y
    return h


# ---- dense machines ----------------------------------------------------------------------------------------------


@st.composite
def masks(draw: st.DrawFn) -> tuple[Partition, Mask]:
    """A random partition and a random legal mask."""
    widths = tuple(draw(st.lists(st.integers(1, 3), min_size=2, max_size=5)))
    blocks = len(widths)
    mask = np.zeros((blocks, blocks), dtype=bool)
    for i in range(blocks):
        mask[i, :i] = draw(st.lists(st.booleans(), min_size=i, max_size=i))
    return Partition(widths), mask


def concatenations(machine, y0, z0=None, weight=None, bias=None):
    """The same network as people write it: block after block, each on what it hears, with plain autograd."""
    partition = machine.partition
    weight = machine.weight if weight is None else weight
    bias = machine.bias if bias is None else bias
    y0 = torch.nn.functional.pad(y0, (0, partition.size - y0.shape[-1]))
    y0 = y0 if bias is None else y0 + bias
    ys, zs = [], []
    for i in range(len(partition)):
        y = y0[..., partition.block(i)]
        sources = machine.shortcuts[i].nonzero()[0]
        if len(sources):
            rows = torch.cat([weight[partition.block(i), partition.block(j)] for j in sources], dim=-1)
            y = y + torch.cat([zs[j] for j in sources], dim=-1) @ rows.mT
        z = machine.activation[i].function(y)
        ys.append(y)
        zs.append(z if z0 is None else z + z0[..., partition.block(i)])
    return torch.cat(ys, dim=-1), torch.cat(zs, dim=-1)


def chain(*functions: Callable[..., Tensor]) -> mg.Architecture:
    """``x0 -> x1 -> ...``"""
    return mg.Architecture(mg.Machine(f, (f"x{i}",), (f"x{i + 1}",), f"f{i + 1}") for i, f in enumerate(functions))


# ---- convolutions and recurrences --------------------------------------------------------------------------------


def solver(machine: ParametricMachine) -> Callable[..., tuple[Tensor, Tensor]]:
    """``solve`` as a function of (weight, bias, y0[, z0])."""

    class Solve(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.machine = machine

        def forward(self, *x: Tensor) -> tuple[Tensor, Tensor]:
            return self.machine.solve(*x)

    module = Solve()
    return lambda weight, bias, *x: functional_call(module, {"machine.weight": weight, "machine.bias": bias}, x)


def by_block(machine: ParametricMachine, h: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """``(y, z)`` from the components of the machine's architecture."""
    blocks, axis = range(len(machine.partition)), -1 - machine.dimensions
    y, z = (torch.cat([h[f"{half}_{i}"] for i in blocks], dim=axis) for half in "yz")
    return y, z


def convolved(x: Tensor, weight: Tensor, padding: str, dilation: tuple[int, ...]) -> Tensor:
    """``(batch, channel, *size)`` by torch's own convolution; a circle as a sum over turns of the input."""
    if padding == "circular":
        axes = tuple(range(2, x.dim()))
        y = 0.0
        for tap in np.ndindex(*weight.shape[2:]):
            taps = list(zip(dilation, weight.shape[2:], tap, strict=True))
            turned = torch.roll(x, [d * (k - 1) // 2 - d * t for d, k, t in taps], axes)
            y = y + torch.einsum("oi,bi...->bo...", weight[(..., *tap)], turned)
        return y
    convolution = getattr(torch.nn.functional, f"conv{weight.dim() - 2}d")
    if padding == "same":
        return convolution(x, weight, padding="same", dilation=dilation)
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    before = [side for total in reversed(reach) for side in (total, 0)]
    return convolution(torch.nn.functional.pad(x, before), weight, dilation=dilation)


def recurrence_by_hand(machine, y0, z0=None, weight=None, bias=None):
    """A loop over turns and blocks in the paper's order ``(t, i)``, with plain autograd; ``y0`` has all channels."""
    weight = machine.weight if weight is None else weight
    bias = machine.bias if bias is None else bias
    block, blocks, steps = machine.partition.block, range(len(machine.partition)), y0.shape[-1]
    y, z = {}, {}
    for start in range(0, steps, machine.timeblock):
        turn = range(start, min(start + machine.timeblock, steps))
        for i in blocks:
            for t in turn:
                y[t, i] = y0[..., block(i), t] + (0 if bias is None else bias[block(i)])
                for lag, j in np.argwhere(machine.shortcuts[:, i]):
                    if lag <= t:  # a KeyError here is something heard before it is known
                        y[t, i] = y[t, i] + z[t - lag, j] @ weight[block(i), block(j), lag].mT
            for t in turn:
                z[t, i] = machine.activation[i].function(y[t, i]) + (0 if z0 is None else z0[..., block(i), t])
    y, z = (torch.stack([torch.cat([h[t, i] for i in blocks], -1) for t in range(steps)], -1) for h in (y, z))
    return y, z


@st.composite
def lag_masks(draw: st.DrawFn) -> tuple[Partition, int, int, Mask]:
    """A random partition, lags, a time block, and a random legal mask ``[lag, block_out, block_in]``."""
    widths = tuple(draw(st.lists(st.integers(1, 3), min_size=2, max_size=4)))
    lags, timeblock, blocks = draw(st.integers(0, 3)), draw(st.integers(1, 3)), len(widths)
    mask = np.zeros((lags + 1, blocks, blocks), dtype=bool)
    for lag, i, j in np.ndindex(mask.shape):
        if precedes(j, i, lag, timeblock):
            mask[lag, i, j] = draw(st.booleans())
    return Partition(widths), lags, timeblock, mask


def precedes(source: int, out: int, lag: int, timeblock: int) -> bool:
    """Whether the source's box comes before the target's at every time, in the order ``(t, i)`` of boxes."""
    return all(((t - lag) // timeblock, source) < (t // timeblock, out) for t in range(lag, lag + 2 * timeblock))


def calibrated(machine, dataset, part):
    """The lowest loss on a part of the data over all sharpnesses of the outputs that are tried; of values the loss."""
    from search.population import outputs, scores

    said = outputs(machine, dataset, part)
    tried = np.exp2(np.linspace(-2, 2, 401)) if dataset.classes else [1.0]
    return min(scores(dataset, part, sharpness * said)[0] for sharpness in tried)
