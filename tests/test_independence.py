import pytest
import torch
from helpers import chain, element
from torch import nn

import machgraph as mg


def test_the_example_of_the_paper() -> None:
    """``f1 f2 = 0``, and still ``f1`` depends on ``f2``."""
    f1, f2 = lambda x: x - 3, lambda x: torch.full_like(x, 3)
    assert torch.equal(f1(f2(torch.randn(4))), torch.zeros(4))
    assert mg.depends_on(f1, f2)
    assert not mg.depends_on(f2, f1)
    assert mg.depends_on(f1, lambda x: 3.0)
    assert not mg.depends_on(lambda x: 3.0, f1)


def test_dependence_of_linear_maps_is_their_product() -> None:
    a = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    like = torch.zeros(2, dtype=torch.float64)
    assert not mg.depends_on(lambda x: a @ x, lambda x: a @ x, like=like)
    assert mg.depends_on(lambda x: a @ x, lambda x: a.T @ x, like=like)
    basis, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    p, q = basis[:, :3] @ basis[:, :3].T, basis[:, 3:] @ basis[:, 3:].T  # p q = 0 up to rounding
    like = torch.zeros(6, dtype=torch.float64)
    assert not mg.depends_on(lambda x: p @ x, lambda x: q @ x, like=like)
    assert mg.depends_on(lambda x: p @ x, lambda x: (q + 1e-6 * p) @ x, like=like)


def test_dependence_by_structure_and_by_probes() -> None:
    f1, f2 = chain(torch.sin, torch.cos).machines
    assert mg.depends_on(f2, f1)
    assert not mg.depends_on(f1, f2)
    like = element(("x0", "x1", "x2"))
    for a, b in ((f1, f2), (f2, f1), (f1 + f2, f1), (f1, f1)):
        assert mg.depends_on(a, b, structural=False, like=like) == mg.depends_on(a, b)
    blind = mg.Machine(lambda x: 0 * x, ("x1",), ("x2",), name="blind")
    assert mg.depends_on(blind, f1)  # it reads what f1 writes,
    assert not mg.depends_on(blind, f1, structural=False, like=like)  # but does not look
    assert mg.depends_on(lambda x: {"x2": x["x1"]}, f1, like=like)
    assert not mg.depends_on(lambda x: {"x2": x["x0"]}, f1, like=like)


def test_dependence_wants_a_space() -> None:
    f = chain(torch.sin)
    with pytest.raises(
        ValueError, match=r"^got an architecture to probe and no like: give a tensor for each component$"
    ):
        mg.depends_on(f, f, structural=False)
    with pytest.raises(ValueError, match=r"^got torch.int64 for like: give a floating dtype$"):
        mg.depends_on(torch.sin, torch.sin, like=torch.ones(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^got an empty like: give a tensor for each component$"):
        mg.depends_on(torch.sin, torch.sin, like={})


def shift(n: int, *ones: tuple[int, int]) -> mg.NilpotentMachine:
    matrix = torch.zeros(n, n)
    for i, j in ones:
        matrix[i, j] = 1
    return mg.NilpotentMachine(matrix)


def test_nilpotent_machines_are_probed_themselves_and_not_their_resolvents() -> None:
    f, g, h = shift(4, (1, 0)), shift(4, (3, 2)), shift(4, (2, 1))
    assert not mg.depends_on(f, g)
    assert not mg.depends_on(f, f)  # f f = 0: of depth 1
    assert mg.depends_on(h, f)
    assert not mg.depends_on(f, h)
    assert mg.depends_on(lambda x: x.sin(), f)


def test_parametric_machines_are_compared_by_their_sums() -> None:
    dense = mg.DenseMachine((2, 1))
    with pytest.raises(ValueError, match=r"^got DenseMachine for b, whose call is its resolvent: .* b\.architecture$"):
        mg.depends_on(torch.sin, dense)
    assert mg.depends_on(dense.architecture, dense.architecture)


def test_points_where_a_function_is_not_defined_do_not_count() -> None:
    assert mg.depends_on(lambda x: x, torch.log)
    assert mg.depends_on(torch.log, lambda x: x)
    assert not mg.depends_on(lambda x: 0 * x, torch.log)
    for a, b in ((torch.sin, lambda x: x / 0), (lambda x: x * torch.inf, torch.sin)):
        with pytest.raises(ValueError, match=r"^none of 128 probes had a finite value and derivative"):
            mg.depends_on(a, b)


def test_scalars_and_other_shapes() -> None:
    assert mg.depends_on(lambda x: x - 3, lambda x: torch.tensor(3.0))
    assert not mg.depends_on(lambda x: torch.tensor(3.0), lambda x: x - 3)
    with pytest.raises(ValueError, match=r"^a returns shape \(2,\) of torch.float64 for \(4,\) of torch.float64"):
        mg.depends_on(lambda x: x[:2], torch.sin)
    with pytest.raises(ValueError, match=r"^b returns shape \(4,\) of torch.float32 for"):
        mg.depends_on(torch.sin, lambda x: x.float())


def test_a_module_of_another_dtype_or_size_is_told_of_like() -> None:
    with pytest.raises(ValueError, match=r"^b fails on \(4,\) of torch.float64: .*; like= says on which"):
        mg.depends_on(torch.sin, nn.Linear(4, 4))
    assert mg.depends_on(torch.sin, nn.Linear(4, 4), like=torch.zeros(4))
