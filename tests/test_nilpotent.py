from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from machgraph import NilpotentMachine


def nilpotent(sizes: list[int], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Jordan blocks of these sizes with random entries, in a random orthonormal basis."""
    generator = torch.Generator().manual_seed(seed)
    blocks = [torch.diag(0.5 + torch.rand(k - 1, generator=generator, dtype=torch.float64), -1) for k in sizes]
    n = sum(sizes)
    basis, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64).to(dtype))
    return basis @ torch.block_diag(*blocks).to(dtype) @ basis.mH


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 99))
def test_depth_cofiltration_and_resolvent(sizes: list[int], seed: int) -> None:
    matrix = nilpotent(sizes, seed)
    f = NilpotentMachine(matrix)
    d = max(sizes) - 1  # the largest block has f^k = 0 from k = its size on; depth d means f^(d+1) = 0
    n = sum(sizes)
    assert f.depth == d
    for i, v in enumerate(f.cofiltration):
        assert v.shape == (n, sum(min(k, d - i) for k in sizes))  # dim ker f^(d-i)
        torch.testing.assert_close(v.mH @ v, torch.eye(v.shape[1], dtype=v.dtype))
        torch.testing.assert_close(torch.linalg.matrix_power(matrix, d - i) @ v, torch.zeros_like(v))
    image = f.cofiltration[0] @ f.cofiltration[0].mH @ matrix
    torch.testing.assert_close(image, matrix)  # Definition 2: Im f is in V_0
    g = torch.randn(2, 3, n, dtype=matrix.dtype, generator=torch.Generator().manual_seed(seed))
    h = f.resolvent(g)
    torch.testing.assert_close(h, g + f.increment(h))
    torch.testing.assert_close(
        h, torch.linalg.solve(torch.eye(n, dtype=matrix.dtype) - matrix, g.mT.reshape(2, n, 3)).mT
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128])
def test_other_dtypes(dtype: torch.dtype) -> None:
    matrix = nilpotent([3, 2], 0, dtype)
    f = NilpotentMachine(matrix)
    assert f.depth == 2
    assert {v.dtype for v in f.cofiltration} == {dtype}
    g = torch.ones(5, dtype=dtype)
    torch.testing.assert_close(f(g) - matrix @ f(g), g)


def test_the_zero_matrix_has_depth_0() -> None:
    f = NilpotentMachine(torch.zeros(3, 3))
    assert f.depth == 0
    assert [v.shape for v in f.cofiltration] == [(3, 0)]
    g = torch.ones(2, 3)
    assert torch.equal(f.resolvent(g), g)
    assert f.resolvent(g) is not g


DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128]


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_precision_is_so_low_that_everything_is_nilpotent(dtype: torch.dtype) -> None:
    for n in (1, 2, 8, 300 if dtype.itemsize == 2 else 60):
        with pytest.raises(ValueError, match=r"not nilpotent"):
            NilpotentMachine(torch.eye(n, dtype=dtype))
    with pytest.raises(ValueError, match=r"not nilpotent"):
        NilpotentMachine(0.3 * torch.eye(20, dtype=dtype) + torch.diag(torch.ones(19, dtype=dtype), -1))
    f = NilpotentMachine(torch.tril(torch.ones(6, 6, dtype=dtype), -1))
    assert f.depth == 5
    assert [v.shape[1] for v in f.cofiltration] == [5, 4, 3, 2, 1, 0]
    g = torch.ones(6, dtype=dtype)
    torch.testing.assert_close(f(g), 2 ** torch.arange(6).to(dtype))


def is_cofiltration(f: NilpotentMachine, tolerance: float) -> bool:
    """Definition 2, and each subspace in the one before."""
    spaces = [torch.eye(len(f.matrix), dtype=f.matrix.dtype), *f.cofiltration]
    norm = torch.linalg.matrix_norm(f.matrix, 2)

    def outside(v: Tensor, w: Tensor) -> float:
        return torch.linalg.matrix_norm(v - w @ (w.mH @ v)) if v.numel() else 0.0

    return all(outside(w, v) <= tolerance and outside(f.matrix @ v, w) <= tolerance * norm for v, w in pairwise(spaces))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [2, 15, 20, 60])
@pytest.mark.parametrize("sample", [torch.rand, torch.randn])
def test_strictly_triangular_matrices(n: int, dtype: torch.dtype, sample: Callable[..., Tensor]) -> None:
    matrix = torch.tril(sample(n, n, generator=torch.Generator().manual_seed(0), dtype=dtype), -1)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    for f in (NilpotentMachine(matrix), NilpotentMachine(matrix[order][:, order])):
        assert f.depth == n - 1
        assert [v.shape[1] for v in f.cofiltration] == list(range(n - 1, -1, -1))
        assert is_cofiltration(f, 1e3 * n * torch.finfo(dtype).eps)


@pytest.mark.parametrize("n", [2, 8, 15, 20, 30, 60])
@pytest.mark.parametrize("seed", range(3))
def test_triangular_in_another_basis(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    above = torch.tril(torch.randn(n, n, generator=generator, dtype=torch.float64), -2) / n**0.5
    matrix = above + torch.diag(0.5 + torch.rand(n - 1, generator=generator, dtype=torch.float64), -1)
    basis, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    f = NilpotentMachine(basis @ matrix @ basis.T)
    assert f.depth == n - 1
    assert is_cofiltration(f, f.tolerance)
    g = torch.randn(n, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(f(g), basis @ torch.linalg.solve(torch.eye(n, dtype=g.dtype) - matrix, basis.T @ g))


def test_a_matrix_that_changes_is_checked_anew() -> None:
    f = NilpotentMachine(nn.Parameter(torch.diag(torch.ones(2), -1)))
    optimizer = torch.optim.SGD(f.parameters(), 0.1)
    f.resolvent(torch.ones(3)).sum().backward()
    optimizer.step()
    for use in (lambda: f.resolvent(torch.ones(3)), lambda: f.depth, lambda: f.cofiltration):
        with pytest.raises(ValueError, match=r"not nilpotent"):
            use()
    f.load_state_dict({"matrix": torch.diag(torch.ones(1), -2)})
    assert f.depth == 1
    f.load_state_dict({"matrix": torch.eye(3)})
    with pytest.raises(ValueError, match=r"not nilpotent"):
        f.resolvent(torch.ones(3))
    f.matrix = nn.Parameter(torch.zeros(3, 3))
    assert f.depth == 0


def test_a_matrix_that_is_cast() -> None:
    f = NilpotentMachine(torch.diag(torch.ones(2), -1)).double()
    assert {v.dtype for v in f.cofiltration} == {torch.float64}
    assert f.tolerance < 1e-6
    assert f.in_first(f.increment(torch.ones(3, dtype=torch.float64)))


def test_under_transformations_of_torch() -> None:
    f = NilpotentMachine(nn.Parameter(torch.diag(torch.ones(2), -1)))
    g = torch.randn(4, 3)
    torch.testing.assert_close(torch.func.vmap(f)(g), f(g))
    gradient = torch.func.grad(lambda m: torch.func.functional_call(f, {"matrix": m}, (g,)).sum())(f.matrix.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(f(g).sum(), f.matrix)[0])
    with torch.inference_mode():
        torch.testing.assert_close(NilpotentMachine(torch.diag(torch.ones(2), -1))(g), f(g))


def test_small_factors_are_not_zero() -> None:
    chain = torch.diag(torch.tensor([1.0, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4], dtype=torch.float64), -1)
    assert NilpotentMachine(chain).depth == 6


def test_gradients_reach_the_vector_and_the_matrix() -> None:
    f = NilpotentMachine(nn.Parameter(torch.diag(torch.ones(2, dtype=torch.float64), -1)))
    g = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert [name for name, _ in f.named_parameters()] == ["matrix"]
    assert torch.autograd.gradcheck(lambda g, _: f.resolvent(g), (g, f.matrix))
    assert torch.autograd.gradgradcheck(lambda g, _: f.resolvent(g), (g, f.matrix))


@pytest.mark.parametrize(
    ("matrix", "sentence"),
    [
        (
            torch.eye(3),
            r"^got a matrix f that is not nilpotent: relative to its norm, it is 1 away from",
        ),
        # every power of 0.3 is small beside the norm to that power
        (0.3 * torch.eye(60) + torch.diag(torch.ones(59), -1), r"not nilpotent: relative to its norm, it is 0.99 away"),
        (torch.ones(2, 3), r"^got shape \(2, 3\) for a matrix: give a square tensor"),
        (torch.zeros(2, 2, dtype=torch.int64), r"^got a matrix of torch.int64: give a floating dtype$"),
        (torch.full((2, 2), torch.nan), r"^got a matrix with entries that are not finite"),
        ([[0.0]], r"^got list for a matrix"),
    ],
)
def test_what_is_no_nilpotent_operator(matrix: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        NilpotentMachine(matrix)


def test_a_vector_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"^got shape \(2,\): the last axis must have the size 3 of the matrix$"):
        NilpotentMachine(torch.zeros(3, 3)).resolvent(torch.ones(2))
