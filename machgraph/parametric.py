"""Parametric machines: one linear map, one pointwise nonlinearity and a partition of the index set (section 3)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from machgraph.activation import Activation, Pointwise, per_block
from machgraph.architecture import Architecture, Machine
from machgraph.boxes import dense_plan
from machgraph.partition import Mask, Partition, channel_mask, fan_in, shortcut_mask, weight_count
from machgraph.plan import Plan
from machgraph.resolvent import resolvent


class DenseMachine(nn.Module):
    """A generalized multi-layer perceptron: ``y = W z + y0 + bias``, ``z = σ(y) + z0`` (eqs. 10 and 11).

    Parameters
    ----------
    widths : number of channels of each block; block 0 is the input, the last block the output.
    activation : σ, for all blocks or one for each: a pointwise callable or a name (``identity, tanh, sigmoid, relu,
        leaky_relu, elu, gelu, silu, softplus, sine``).
    shortcuts : which block hears which: ``None`` (every later block hears every earlier one), ``"sequential"`` (a
        multi-layer perceptron), or a boolean array ``[block_out, block_in]``.
    bias : whether to learn a part of ``y0``, one number for each channel.
    generator : source of the initial weights.

    Attributes
    ----------
    weight : ``W`` of eq. 11, shape ``(channels, channels)``, ``[channel_out, channel_in]``. What the mask leaves out is
        stored as 0, is never read and gets a gradient of exactly 0.
    bias : shape ``(channels,)``, or ``None``.
    partition, shortcuts, activation : the architecture, as values.

    Raises
    ------
    ValueError : fewer than two blocks, a width below 1, an unknown activation, a shortcut to an earlier block.

    Examples
    --------
    >>> machine = DenseMachine((1, 1, 1), activation="identity", bias=False)
    >>> _ = machine.weight.data.copy_(torch.tensor([[0.0, 0, 0], [2, 0, 0], [5, 3, 0]]))
    >>> machine(torch.tensor([[1.0]]))  # z1 = 2, z2 = 5 + 3 * 2
    tensor([[ 1.,  2., 11.]], grad_fn=...)
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        widths: Sequence[int],
        *,
        activation: str | Pointwise | Sequence[str | Pointwise] = "relu",
        shortcuts: Any = None,
        bias: bool = True,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.partition = Partition(tuple(widths))
        if len(self.partition) < 2:
            raise ValueError(
                f"got {len(self.partition)} block: a machine needs at least an input and an output, as in (64, 10)"
            )
        self.shortcuts: Mask = shortcut_mask(shortcuts, len(self.partition))
        self.activation: tuple[Activation, ...] = per_block(activation, len(self.partition))
        channels = self.partition.size
        self.weight = nn.Parameter(torch.empty(channels, channels, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights and bias of each block uniformly in ± 1/sqrt(fan-in), as ``nn.Linear`` does.

        The fan-in counts the inputs that the mask leaves; a block that hears nothing begins at 0.
        """
        mask = torch.from_numpy(channel_mask(self.shortcuts, self.partition)).to(self.weight.device)
        with torch.no_grad():
            for i, inputs in enumerate(fan_in(self.shortcuts, self.partition)):
                bound = inputs**-0.5 if inputs else 0.0
                rows = self.partition.block(i)
                self.weight[rows].uniform_(-bound, bound, generator=generator)
                if self.bias is not None:
                    self.bias[rows].uniform_(-bound, bound, generator=generator)
            self.weight.mul_(mask)

    @property
    def plan(self) -> Plan:
        """The instructions that solve this machine."""
        return dense_plan(self.partition, self.shortcuts)

    def solve(self, y0: Tensor, z0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Both halves ``(y, z)`` of the solution of the machine equation.

        Parameters
        ----------
        y0, z0 : ``(..., channel)``; they may hold only the first channels, and the rest is zero.

        Returns
        -------
        ``y`` and ``z``, each ``(..., channels)``: all of machine space.
        """
        y0 = self._checked(y0, "y0")
        batch = y0.shape[:-1]
        if z0 is not None:
            z0 = self._checked(z0, "z0")
            if z0.shape[:-1] != batch:
                raise ValueError(
                    f"got y0 of shape {tuple(y0.shape)} and z0 of shape {tuple(z0.shape)}: their batches must agree"
                )
            z0 = nn.functional.pad(z0, (0, self.partition.size - z0.shape[-1]))
            z0 = z0.reshape(-1, self.partition.size).mT[None]
        bias = None if self.bias is None else self.bias[None]
        y, z = resolvent(
            self.plan, self.activation, self.weight[None, None], bias, y0.reshape(-1, y0.shape[-1]).mT[None], z0
        )
        shape = (*batch, self.partition.size)
        return y[0].mT.reshape(shape), z[0].mT.reshape(shape)

    def forward(self, y0: Tensor) -> Tensor:
        """``z`` over all of machine space, ``(..., channels)``, for an input ``y0`` of ``(..., channel)``."""
        return self.solve(y0)[1]

    def output(self, z: Tensor) -> Tensor:
        """The last block of ``z``."""
        return z[..., self.partition.block(-1)]

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """``x`` of ``(..., channels)`` by block."""
        return x.split(self.partition.widths, dim=-1)

    @property
    def architecture(self) -> Architecture:
        """The same machine as a sum: ``w_i`` reads blocks of ``z`` and writes ``y_i``; ``σ_i`` takes that to ``z_i``.

        The bias belongs to the input and not to the sum, so ``architecture.resolvent(machine.components(y0))`` holds
        the same values as ``machine.solve(y0)``.
        """
        machines = []
        for i, sigma in enumerate(self.activation):
            sources = [int(j) for j in self.shortcuts[i].nonzero()[0]]
            if sources:
                reads = tuple(f"z_{j}" for j in sources)
                machines.append(Machine(self._linear_map(i, sources), reads=reads, writes=(f"y_{i}",), name=f"w_{i}"))
            machines.append(Machine(sigma.function, reads=(f"y_{i}",), writes=(f"z_{i}",), name=f"σ_{i}"))
        return Architecture(machines)

    def components(self, y0: Tensor, z0: Tensor | None = None) -> dict[str, Tensor]:
        """The input function ``g`` of the machine equation, by component: ``y0`` with the bias, and ``z0``."""
        y0 = nn.functional.pad(self._checked(y0, "y0"), (0, self.partition.size - y0.shape[-1]))
        if self.bias is not None:
            y0 = y0 + self.bias
        z0 = torch.zeros_like(y0) if z0 is None else self._checked(z0, "z0")
        z0 = nn.functional.pad(z0, (0, self.partition.size - z0.shape[-1]))
        halves = {"y": self.split(y0), "z": self.split(z0)}
        return {f"{half}_{i}": block for half, blocks in halves.items() for i, block in enumerate(blocks)}

    def parameter_count(self) -> int:
        """Number of weights that the mask leaves, and of biases."""
        return weight_count(self.shortcuts, self.partition) + (0 if self.bias is None else self.bias.numel())

    def flops(self) -> int:
        """Floating-point operations of a forward pass per sample: two a weight, one a bias; σ is not counted."""
        return 2 * weight_count(self.shortcuts, self.partition) + (0 if self.bias is None else self.bias.numel())

    def extra_repr(self) -> str:
        """What ``print`` shows of the machine."""
        names = ", ".join(activation.name for activation in self.activation)
        edges, parameters = int(self.shortcuts.sum()), self.parameter_count()
        return f"{self.partition.widths}, activation=({names}), {edges} edges between blocks, {parameters} parameters"

    def _linear_map(self, i: int, sources: Sequence[int]) -> Callable[..., Tensor]:
        def w(*z: Tensor) -> Tensor:
            rows = self.weight[self.partition.block(i)]
            columns = [rows[:, self.partition.block(j)] for j in sources]
            return nn.functional.linear(torch.cat(z, dim=-1), torch.cat(columns, dim=-1))

        return w

    def _checked(self, x: Tensor, name: str) -> Tensor:
        channels = self.partition.size
        if not isinstance(x, Tensor):
            raise TypeError(f"got {name} of type {type(x).__name__}: give a torch tensor of shape (..., channel)")
        if x.dim() == 0 or not 1 <= x.shape[-1] <= channels:
            raise ValueError(
                f"got {name} of shape {tuple(x.shape)}: the last axis must hold 1 to {channels} channels "
                f"(the machine's input block has {self.partition.widths[0]})"
            )
        if x.dtype != self.weight.dtype or x.device != self.weight.device:
            raise ValueError(
                f"got {name} of {x.dtype} on {x.device} for a machine of {self.weight.dtype} on {self.weight.device}: "
                f"convert one of them, for example {name}.to(machine.weight)"
            )
        return x
