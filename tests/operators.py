"""Random parametric machines of every kind, and their linear operator as one dense matrix, entry by entry."""

from itertools import product

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

import machgraph as mg
from machgraph.boxes import margins

KINDS = ("dense", "convolution", "recurrence")


@st.composite
def parametric(draw: st.DrawFn, kinds=KINDS, activations=("tanh", "silu", "sine"), bias=False):
    """A machine in float64 and the size of its positions; its weights are those it is born with, times two."""
    kind = draw(st.sampled_from(kinds))
    widths = tuple(draw(st.lists(st.integers(1, 2), min_size=2, max_size=4)))
    n = len(widths)
    settings = {"activation": draw(st.sampled_from(activations)), "bias": bias, "dtype": torch.float64}
    settings["generator"] = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    bits = np.array(draw(st.lists(st.booleans(), min_size=n * n, max_size=n * n))).reshape(n, n)
    if kind == "dense":
        machine, size = mg.DenseMachine(widths, shortcuts=np.tril(bits, -1), **settings), ()
    elif kind == "convolution":
        kernel = draw(st.sampled_from([(1,), (2,), (3,), (2, 3)]))
        padding = draw(st.sampled_from(["same", "causal", "circular"]))
        machine = mg.ConvMachine(widths, kernel, shortcuts=np.tril(bits, -1), padding=padding, **settings)
        size = tuple(draw(st.integers(2, 3)) for _ in kernel)
    else:
        lags, timeblock = draw(st.integers(0, 2)), draw(st.integers(1, 2))
        allowed = np.ones((n, n), bool) if lags >= timeblock else np.tri(n, k=-1, dtype=bool)
        machine = mg.RecurrentMachine(widths, lags, timeblock=timeblock, shortcuts=bits & allowed, **settings)
        size = (draw(st.integers(1, 5)),)
    with torch.no_grad():
        machine.weight.mul_(2)
    return machine, size


class Solve(torch.nn.Module):
    """So that ``functional_call`` reaches ``solve``."""

    def __init__(self, machine):
        super().__init__()
        self.machine = machine

    def forward(self, *x, **options):
        return self.machine.solve(*x, **options)


def solve_with(machine, parameters, *x, **options):
    """``machine.solve`` as a function of its parameters too, ``{"weight": ..., "bias": ...}``."""
    named = {f"machine.{name}": value for name, value in parameters.items()}
    return torch.func.functional_call(Solve(machine), named, x, options)


def element(machine, size, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A random pair of the shape of ``y0`` and ``z0`` for one sample."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, machine.partition.size, *size, generator=generator, dtype=torch.float64).unbind()


def operator(machine, size, weight: Tensor | None = None) -> Tensor:
    """``w`` of the machine as a matrix over flat ``(channel, *size)``, by its definition and no product of ours."""
    weight = (machine.weight if weight is None else weight).detach().numpy() * machine.weight_mask
    channels, positions = machine.partition.size, list(product(*map(range, size)))
    place = {position: k for k, position in enumerate(positions)}
    w = np.zeros((channels, len(positions), channels, len(positions)))
    for tap in product(*map(range, weight.shape[2:])):
        for t in positions:
            source = _source(machine, t, tap, size)
            if source in place:
                w[:, place[t], :, place[source]] += weight[(slice(None), slice(None), *tap)]
    return torch.from_numpy(w.reshape(channels * len(positions), -1))


def _source(machine, t, tap, size):
    if isinstance(machine, mg.RecurrentMachine):
        return (t[0] - tap[0],)
    if isinstance(machine, mg.ConvMachine):
        sides = margins(machine.kernel_size, machine.dilation, machine.padding)
        moved = [p + d * k - before for p, k, d, (before, _) in zip(t, tap, machine.dilation, sides, strict=True)]
        circular = machine.padding == "circular"
        return tuple(p % extent if circular else p for p, extent in zip(moved, size, strict=True))
    return ()


def tangent(machine, size, y: Tensor) -> Tensor:
    """``Df(x)`` on ``Y ⊕ Z``, flattened: ``w`` from Z to Y, and ``σ'(y)`` from Y to Z."""
    leaf = y.detach().requires_grad_()
    blocks = zip(machine.activation, machine.split(leaf), strict=True)
    z = torch.cat([sigma.function(block) for sigma, block in blocks], dim=-1 - machine.dimensions)
    (slopes,) = torch.autograd.grad(z.sum(), leaf)
    n = y.numel()
    matrix = torch.zeros(2 * n, 2 * n, dtype=y.dtype)
    matrix[:n, n:] = operator(machine, size)
    matrix[n:, :n] = torch.diag(slopes.flatten())
    return matrix


def is_depth_cofiltration(f: Tensor, spaces: list[Tensor], tolerance: float = 1e-10) -> bool:
    """Definition 2 for a matrix and subspaces ``V_0, ..., V_d`` given by orthonormal bases, shape ``(n, dim)``."""
    if spaces[-1].shape[1]:
        return False
    whole = torch.eye(len(f), dtype=f.dtype)
    return all(
        _inside(f @ larger, smaller, tolerance) and _inside(smaller, larger, tolerance)
        for larger, smaller in zip([whole, *spaces], spaces, strict=False)
    )


def annihilators(spaces: list[Tensor]) -> list[Tensor]:
    """``(X/V_{d-1})* ⊇ ... ⊇ (X/V_0)* ⊇ 0``: the functionals that vanish on each subspace, in the reversed order."""
    duals = []
    for v in reversed(spaces[:-1]):
        complement = torch.linalg.qr(v, mode="complete").Q[:, v.shape[1] :] if v.shape[1] else torch.eye(len(v))
        duals.append(complement.to(v.dtype))
    return [*duals, torch.zeros(len(spaces[0]), 0, dtype=spaces[0].dtype)]


def coordinates(indices) -> Tensor:
    """The subspace that a boolean vector of coordinates spans."""
    flags = torch.as_tensor(np.asarray(indices, dtype=bool).ravel())
    return torch.eye(len(flags), dtype=torch.float64)[:, flags]


def _inside(vectors: Tensor, space: Tensor, tolerance: float) -> bool:
    rest = vectors - space @ (space.mT @ vectors)
    return bool(rest.abs().max() <= tolerance) if rest.numel() else True
