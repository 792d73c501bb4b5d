"""Compile the loop now rather than at first use: ``python -m machgraph.warm_up``.

The code is kept on disk, for the processor that it was compiled on, and taken from there by every later process.
"""

import torch

from machgraph import compiled
from machgraph.parametric import DenseMachine
from machgraph.population import Population
from machgraph.training import Objective, Optimizer, batches


def warm_up(dtype: torch.dtype = torch.float32) -> bool:
    """Compile what solves, trains and, in double precision, answers; false if numba is missing.

    Examples
    --------
    >>> warm_up(torch.bfloat16)  # which only torch runs
    False
    """
    if not compiled.available() or dtype not in compiled.LIKE:
        return False
    machine = DenseMachine((2, 1), dtype=dtype)
    x = torch.ones(2, 2, dtype=dtype)
    machine(x).sum().backward()
    population = Population(Objective("squared_error"))
    population.enter(machine, Optimizer())
    population.descend(batches(x, x[:, :1], 2)[0], [1.0])
    with torch.no_grad():
        machine.double()(x.double())
    return True


if __name__ == "__main__":
    warm_up()
