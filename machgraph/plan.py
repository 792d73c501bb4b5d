"""Plans: the flat list of instructions that solves a machine, and the dual list that solves its adjoint.

State is two tensors ``Y`` and ``Z`` of shape ``[population, channel, position]``, weights one tensor ``W`` of shape
``[population, tap, channel_out, channel_in]``. A plan counts positions for one sample; the samples of a batch lie side
by side within each position, so that a plan serves every batch size. The two instructions are the two lines of
algorithm 1, on a box (a range of rows crossed with a range of columns):

    Accumulate    Y[rows, columns] += W[tap][rows, inputs] @ Z[inputs, columns + offset]      (eq. 11)
    Activate      Z[rows, columns] += σ(Y[rows, columns])                                     (eq. 10)

The dual machine ``u = W* v + u0``, ``v = σ'(y) ⊙ u + v0`` (eqs. 12 and 13) is the same program on ``(u, v)``: the list
reversed, ``W`` transposed, the offsets negated. A plan is immutable and knows nothing of tensors: executors do.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from machgraph.partition import Mask, Partition, runs

Span = tuple[int, int]  # a half-open range


@dataclass(frozen=True, slots=True)
class Accumulate:
    """Add a product to the rows of ``Y``: one tap, one contiguous range of inputs."""

    rows: Span
    inputs: Span
    columns: Span = (0, 1)
    tap: int = 0
    offset: int = 0

    def adjoint(self) -> "Accumulate":
        """The transposed product, from rows back to inputs."""
        start, stop = self.columns
        shifted = (start + self.offset, stop + self.offset)
        return replace(self, rows=self.inputs, inputs=self.rows, columns=shifted, offset=-self.offset)


@dataclass(frozen=True, slots=True)
class Activate:
    """Apply the nonlinearity of ``block`` to the rows of ``Y`` and add the result to ``Z``."""

    rows: Span
    block: int
    columns: Span = (0, 1)

    def adjoint(self) -> "Activate":
        """Itself: a pointwise product is its own adjoint."""
        return self


Instruction = Accumulate | Activate


@dataclass(frozen=True)
class Plan:
    """An immutable program for one machine: instructions in order, over ``channels`` rows and ``positions`` columns."""

    instructions: tuple[Instruction, ...]
    channels: int
    positions: int = 1
    taps: int = 1

    @cached_property
    def dual(self) -> "Plan":
        """The program of the dual machine, to be run with ``W`` transposed (Theorem 3)."""
        return replace(self, instructions=tuple(step.adjoint() for step in reversed(self.instructions)))

    @cached_property
    def blocks(self) -> tuple[Span, ...]:
        """The rows of each block, by its number."""
        return tuple(
            dict(sorted((step.block, step.rows) for step in self.instructions if isinstance(step, Activate))).values()
        )

    @cached_property
    def products(self) -> tuple[Accumulate, ...]:
        """The linear part alone: what ``w`` does, and what the gradient of ``W`` is summed over."""
        return tuple(step for step in self.instructions if isinstance(step, Accumulate))


def dense_plan(partition: Partition, mask: Mask) -> Plan:
    """The plan of a generalized multi-layer perceptron: algorithm 1, block by block.

    Parameters
    ----------
    partition : blocks of channels.
    mask : which block hears which, boolean ``[block_out, block_in]``, strictly lower triangular. Neighbouring sources
        are one product; blocks that the mask leaves out are skipped, not multiplied by zero.

    Examples
    --------
    >>> from machgraph.partition import shortcut_mask
    >>> for step in dense_plan(Partition((4, 3, 2)), shortcut_mask(None, 3)).instructions:
    ...     print(step)
    Activate(rows=(0, 4), block=0, columns=(0, 1))
    Accumulate(rows=(4, 7), inputs=(0, 4), columns=(0, 1), tap=0, offset=0)
    Activate(rows=(4, 7), block=1, columns=(0, 1))
    Accumulate(rows=(7, 9), inputs=(0, 7), columns=(0, 1), tap=0, offset=0)
    Activate(rows=(7, 9), block=2, columns=(0, 1))
    """
    return _dense_plan(partition, mask.tobytes())


@lru_cache(maxsize=4096)
def _dense_plan(partition: Partition, mask_bytes: bytes) -> Plan:
    blocks, bounds = len(partition), partition.bounds
    mask = np.frombuffer(mask_bytes, dtype=bool).reshape(blocks, blocks)
    instructions: list[Instruction] = []
    for i in range(blocks):
        rows = (bounds[i], bounds[i + 1])
        instructions += [Accumulate(rows, (bounds[start], bounds[stop])) for start, stop in runs(mask[i])]
        instructions.append(Activate(rows, block=i))
    return Plan(tuple(instructions), channels=partition.size)
