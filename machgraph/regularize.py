"""Regularizers that the paper's conclusion names, for any parametric machine: simpler than all shortcuts allow.

Terms to add to a loss: ``block_sparsity`` and ``smoothness``. Steps between updates: ``shrink_blocks``. New machines
from trained ones: ``prune_blocks`` (a smaller mask of shortcuts) and ``prune_weights`` (a mask of single weights).
"""

import copy
from typing import Literal, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from machgraph.parametric import ParametricMachine
from machgraph.partition import Mask

M = TypeVar("M", bound=ParametricMachine)


def block_sparsity(machine: ParametricMachine) -> Tensor:
    """The group lasso over pairs of blocks, ``Σ sqrt(size) |W_group|``: as a penalty it lets go of whole shortcuts.

    A group holds the weights of one entry of ``machine.shortcuts``: of a pair of blocks, in a recurrence of a pair of
    blocks at one lag. ``|·|`` is the Euclidean norm and ``size`` the number of weights, so that groups of any size cost
    the same for equal weights. The gradient of a group of zeros is 0.

    Returns
    -------
    A scalar, differentiable in ``machine.weight``.

    Examples
    --------
    >>> from machgraph import DenseMachine
    >>> machine = DenseMachine((2, 1, 1), shortcuts="sequential")
    >>> _ = machine.weight.data.zero_()[2, :2].copy_(torch.tensor([3.0, 4.0]))
    >>> block_sparsity(machine)  # sqrt(2) * 5, and a group of zero
    tensor(7.0711, grad_fn=...)
    """
    return (_sizes(machine).sqrt() * block_norms(machine)).sum()


def block_norms(machine: ParametricMachine) -> Tensor:
    """The Euclidean norm of the weights of each group, of the shape of ``machine.shortcuts``; 0 where there is none.

    Examples
    --------
    >>> from machgraph import DenseMachine
    >>> machine = DenseMachine((2, 1), bias=False)
    >>> _ = machine.weight.data.zero_()[2, :2].copy_(torch.tensor([3.0, 4.0]))
    >>> block_norms(machine)
    tensor([[0., 0.],
            [5., 0.]], grad_fn=...)
    """
    squares = _by_group(machine, torch.where(_legal(machine), machine.weight, 0.0).square())
    kept = squares > 0  # the root of 0 has no derivative: those entries never meet it
    return torch.where(kept, torch.where(kept, squares, 1.0).sqrt(), 0.0)


def shrink_blocks(machine: ParametricMachine, amount: float) -> None:
    """Shorten each group by ``amount * sqrt(size)``, to exactly 0 if it is no longer than that; in place.

    The proximal step of ``amount * block_sparsity``. After each update of an optimizer with the learning rate ``r``,
    ``shrink_blocks(machine, r * strength)`` does what the penalty ``strength * block_sparsity(machine)`` only
    approaches: groups end at zero.

    Raises
    ------
    ValueError : a negative amount.

    Examples
    --------
    >>> from machgraph import DenseMachine
    >>> machine = DenseMachine((1, 1, 1))
    >>> _ = machine.weight.data.copy_(torch.tensor([[0.0, 0, 0], [4, 0, 0], [0.5, 2, 0]]))
    >>> shrink_blocks(machine, 1.0)
    >>> machine.weight.data
    tensor([[0., 0., 0.],
            [3., 0., 0.],
            [0., 1., 0.]])
    """
    if amount < 0:
        raise ValueError(f"got amount={amount}: give 0 or more, the learning rate times the strength of the penalty")
    with torch.no_grad():
        norms = block_norms(machine)
        factors = (1 - amount * _sizes(machine).sqrt() / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_min(0)
        _stored(machine).mul_(_over_weights(machine, factors))


def prune_blocks(machine: M, threshold: float = 0.0) -> M:
    """A new machine without the shortcuts whose weights are small: a smaller mask, and fewer products to compute.

    Parameters
    ----------
    machine : left as it is. A mask of single weights is kept.
    threshold : groups go whose root mean square weight is at most this; 0 takes away those that are zero.

    Raises
    ------
    ValueError : a negative threshold.

    Examples
    --------
    >>> from machgraph import DenseMachine
    >>> machine = DenseMachine((1, 1, 1))
    >>> _ = machine.weight.data.copy_(torch.tensor([[0.0, 0, 0], [3, 0, 0], [0.1, 2, 0]]))
    >>> prune_blocks(machine, 0.5).shortcuts.astype(int)
    array([[0, 0, 0],
           [1, 0, 0],
           [0, 1, 0]])
    """
    if threshold < 0:
        raise ValueError(f"got threshold={threshold}: give 0 or more, the root mean square of a group's weights")
    pruned = copy.deepcopy(machine)
    with torch.no_grad():
        kept = block_norms(machine) > threshold * _sizes(machine).sqrt()
        pruned.shortcuts = cast(Mask, machine.shortcuts & kept.cpu().numpy())
        _stored(pruned).mul_(_legal(pruned))
    return pruned


# ---- single weights ----------------------------------------------------------------------------------------------


class WeightMask(nn.Module):
    """``weight ⊙ mask``: what ``machine.weight`` is while single weights are pruned.

    It stands between the parameter and everything that reads it (torch's parametrization of ``weight``), so gradients
    of any order are exactly 0 where the mask is, whatever the optimizer does to the parameter itself.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """The weights that are left."""
        return torch.where(self.mask, weight, 0.0)


def prune_weights(machine: M, keep: float, rewind: M | None = None) -> M:
    """A new machine with the largest weights alone, by default as they are, or rewound to where they began.

    With ``rewind`` it is the lottery ticket of Frankle and Carbin: copy the machine before training, train it, prune
    it with the copy as ``rewind``, train the ticket. Call it again on a trained ticket to prune in rounds.

    The mask is a parametrization: ``ticket.weight`` is the parameter with zeros put in, and what trains is
    ``ticket.parametrizations.weight.original``. ``mg.save`` writes the weights with their zeros and no mask; to make
    the zeros the machine's own in place: ``torch.nn.utils.parametrize.remove_parametrizations(ticket, "weight")``.

    Parameters
    ----------
    machine : trained; left as it is.
    keep : the share of the weights that stay, of those that ``machine`` has: the largest ones of the whole machine.
    rewind : a machine of the same shape, usually a copy from before training, whose weights and bias the new one takes.

    Raises
    ------
    ValueError : a share outside (0, 1], or so small that no weight stays; or a ``rewind`` of another shape.

    Examples
    --------
    >>> from machgraph import DenseMachine
    >>> machine = DenseMachine((1, 1, 1))
    >>> _ = machine.weight.data.copy_(torch.tensor([[0.0, 0, 0], [3, 0, 0], [-4, 2, 0]]))
    >>> prune_weights(machine, keep=2 / 3).weight
    tensor([[ 0.,  0.,  0.],
            [ 3.,  0.,  0.],
            [-4.,  0.,  0.]], grad_fn=...)
    """
    if not 0 < keep <= 1:
        raise ValueError(f"got keep={keep}: give the share of weights that stay, more than 0 and at most 1")
    ticket = copy.deepcopy(machine)
    with torch.no_grad():
        present = weight_mask(machine)
        there = int(present.sum())
        count = round(keep * there)
        if there and not count:
            raise ValueError(f"got keep={keep} of {there} weights, of which none would stay: give at least 1/{there}")
        size = torch.where(present, machine.weight.abs(), -1.0).flatten()
        largest = size.topk(count).indices  # exactly so many, where weights are equal too
        mask = torch.zeros_like(size, dtype=torch.bool).index_fill_(0, largest, True).view_as(machine.weight)
        if parametrize.is_parametrized(ticket, "weight"):
            parametrize.remove_parametrizations(ticket, "weight")
        if rewind is not None:
            if rewind.weight.shape != ticket.weight.shape or (rewind.bias is None) != (ticket.bias is None):
                raise ValueError(
                    f"got a machine of {tuple(rewind.weight.shape)} weights to rewind one of "
                    f"{tuple(ticket.weight.shape)} to: give a copy of it from before training"
                )
            ticket.weight.copy_(rewind.weight)
            if rewind.bias is not None and ticket.bias is not None:
                ticket.bias.copy_(rewind.bias)
        ticket.weight.mul_(mask)
    parametrize.register_parametrization(ticket, "weight", WeightMask(mask))
    return ticket


def weight_mask(machine: ParametricMachine) -> Tensor:
    """Which weights both masks leave, of blocks and of single weights: a boolean tensor of the shape of ``weight``."""
    mask = _legal(machine)
    if parametrize.is_parametrized(machine, "weight"):
        for step in cast(nn.ModuleDict, machine.parametrizations)["weight"]:  # type: ignore[attr-defined]
            if isinstance(step, WeightMask):
                mask = mask & step.mask
    return mask


# ---- smoothness --------------------------------------------------------------------------------------------------


def smoothness(machine: ParametricMachine, over: Literal["taps", "channels"] = "taps") -> Tensor:
    """The sum of squared differences between neighbouring weights: 0 for weights that are all equal.

    Parameters
    ----------
    machine : the machine; only differences count whose two weights both are on its mask.
    over : ``"taps"``, neighbouring lags of a recurrence or taps of a kernel, along each of its axes; ``"channels"``,
        neighbouring channels of one block, as readers and as sources.

    Returns
    -------
    A scalar, differentiable in ``machine.weight``.

    Raises
    ------
    ValueError : another word, or taps for a dense machine.

    Examples
    --------
    >>> from machgraph import RecurrentMachine
    >>> machine = RecurrentMachine((1, 1), lags=2, shortcuts=[[0, 0], [1, 0]])
    >>> _ = machine.weight.data.zero_()[1, 0].copy_(torch.tensor([1.0, 2.0, 5.0]))
    >>> smoothness(machine)  # 1 + 9
    tensor(10., grad_fn=...)
    """
    if over not in ("taps", "channels"):
        raise ValueError(f'got over={over!r}: give "taps" or "channels"')
    if over == "taps" and not machine.dimensions:
        raise ValueError('got a dense machine, which has neither taps nor lags: give over="channels"')
    legal, total = _legal(machine), machine.weight.new_zeros(())
    within = torch.from_numpy(_block_numbers(machine)).to(legal.device).diff() == 0  # both channels of one block
    for axis in (0, 1) if over == "channels" else range(2, machine.weight.dim()):
        n = machine.weight.shape[axis]
        both = legal.narrow(axis, 1, n - 1) & legal.narrow(axis, 0, n - 1)
        if axis < 2:
            both = both & within.view([-1 if k == axis else 1 for k in range(machine.weight.dim())])
        total = total + torch.where(both, machine.weight.diff(dim=axis), 0.0).square().sum()
    return total


# ---- weights and groups ------------------------------------------------------------------------------------------


def _stored(machine: ParametricMachine) -> Tensor:
    """The parameter itself, behind a mask of single weights if there is one."""
    if parametrize.is_parametrized(machine, "weight"):
        return cast(Tensor, machine.parametrizations["weight"].original)  # type: ignore[index, union-attr]
    return machine.weight


def _legal(machine: ParametricMachine) -> Tensor:
    return torch.from_numpy(machine.weight_mask).to(machine.weight.device)


def _block_numbers(machine: ParametricMachine) -> NDArray[np.int64]:
    """The block of each channel."""
    return np.repeat(np.arange(len(machine.partition)), machine.partition.widths)


def _by_group(machine: ParametricMachine, values: Tensor) -> Tensor:
    """Sums over the weights of each group: ``(channels, channels, *kernel)`` to the shape of ``shortcuts``."""
    member = torch.from_numpy(np.eye(len(machine.partition))[:, _block_numbers(machine)]).to(values)
    lagged = machine.shortcuts.ndim == 3  # [lag, block_out, block_in]
    matrices = values.movedim(-1, 0) if lagged else values.flatten(2).sum(-1) if machine.dimensions else values
    return member @ matrices @ member.T


def _over_weights(machine: ParametricMachine, groups: Tensor) -> Tensor:
    """One number a group to each of its weights: the shape of ``shortcuts`` to one that fits ``weight``."""
    block = torch.from_numpy(_block_numbers(machine)).to(groups.device)
    spread = groups[..., block[:, None], block]
    if machine.shortcuts.ndim == 3:
        return spread.movedim(0, -1)
    return spread.view(*spread.shape, *[1] * machine.dimensions)


def _sizes(machine: ParametricMachine) -> Tensor:
    """Number of weights of each group."""
    return _by_group(machine, _legal(machine).to(machine.weight.dtype))
