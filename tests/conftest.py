"""What comes before all tests."""

import pytest
import torch

import machgraph as mg
from machgraph.warm_up import warm_up


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    """Compile first what is not on disk, so that what is told of it is in no test's output."""
    warm_up()
    mg.DenseMachine((1, 1), dtype=torch.float64)(torch.ones(1, 1, dtype=torch.float64)).sum().backward()
