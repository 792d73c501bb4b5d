"""docs/format.md, held to its word: its reader and its example are taken from the page itself."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import machgraph as mg
from machgraph.activation import ACTIVATIONS
from machgraph.io import FORMAT, KINDS, specification

PAGE = (Path(__file__).parents[1] / "docs" / "format.md").read_text()


@pytest.fixture(scope="module")
def reader():
    """The names that the page's code defines; it imports json, struct and numpy."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert set(re.findall(r"^import (\w+)", code, flags=re.MULTILINE)) == {"json", "struct", "numpy"}
    names = {}
    exec(code, names)
    return names


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_dense_machine_evaluated_by_the_page(reader, tmp_path, dtype, tolerance, bias):
    names = list(reader["ACTIVATIONS"])
    shortcuts = np.tri(len(names), k=-1, dtype=bool) & (np.arange(len(names)) % 3 > 0)
    widths = [2 + i % 3 for i in range(len(names))]
    machine = mg.DenseMachine(widths, activation=names, shortcuts=shortcuts, bias=bias, dtype=dtype)
    path = mg.save(machine, tmp_path / "m.machgraph", {"answer": 42})
    written, notes, tensors = reader["read"](path)
    assert written == specification(machine)
    assert notes == {"answer": 42}
    x = torch.randn(5, widths[0]).to(dtype)
    z = reader["solve"](written, tensors, x.double().numpy())
    np.testing.assert_allclose(z, machine(x).detach().double().numpy(), rtol=0, atol=tolerance)


def test_the_example_on_the_page_is_a_machine(reader, tmp_path):
    rows = re.findall(r"^[0-9a-f]{4}  ((?:[0-9a-f]+ ?)+?) +\|", PAGE, flags=re.MULTILINE)
    path = tmp_path / "example.machgraph"
    path.write_bytes(bytes.fromhex("".join(rows)))
    written, _, tensors = reader["read"](path)
    np.testing.assert_array_equal(reader["solve"](written, tensors, np.array([[1.0]])), [[1, 1, 8.5]])
    machine = mg.load(path)
    torch.testing.assert_close(machine(torch.ones(1, 1)), torch.tensor([[1, 1, 8.5]]))
    again = mg.save(machine, tmp_path / "again.machgraph", {"note": "tiny"})
    assert again.stat().st_size == path.stat().st_size
    assert reader["read"](again)[0] == written


def test_the_page_names_all_that_is_written():
    words = set(re.findall(r"`\"?(\w+)\"?`", PAGE))
    assert set(ACTIVATIONS) <= words
    assert f"`{FORMAT}`" in PAGE
    for kind, (_, more) in KINDS.items():
        assert {kind, *more} <= words


def positions_of(page_kind, machine, x):
    """The table of products, one entry at a time: ``(w z)[o, p]`` for a solution ``z`` in two dimensions or in time."""
    w, z = machine.weight.detach().numpy(), machine(x).detach().numpy()[0]
    result = np.zeros_like(z)
    for p in np.ndindex(*z.shape[1:]):
        for k in np.ndindex(*w.shape[2:]):
            at = []
            for axis, (here, tap) in enumerate(zip(p, k, strict=True)):
                if page_kind == "recurrence":
                    at.append(here - tap)
                    continue
                total = machine.dilation[axis] * (machine.kernel_size[axis] - 1)
                before = total if machine.padding == "causal" else total // 2
                at.append(here + machine.dilation[axis] * tap - before)
            if page_kind != "recurrence" and machine.padding == "circular":
                at = [a % extent for a, extent in zip(at, z.shape[1:], strict=True)]
            if all(0 <= a < extent for a, extent in zip(at, z.shape[1:], strict=True)):
                result[(slice(None), *p)] += w[(slice(None), slice(None), *k)] @ z[(slice(None), *at)]
    return result


@pytest.mark.parametrize(
    ("kind", "machine"),
    [
        *(
            ("convolution", mg.ConvMachine((2, 2, 1), (2, 3), dilation=(2, 1), padding=padding, dtype=torch.float64))
            for padding in ("same", "causal", "circular")
        ),
        ("recurrence", mg.RecurrentMachine((2, 2, 1), lags=3, timeblock=2, dtype=torch.float64)),
    ],
)
def test_the_products_are_as_in_the_table(kind, machine):
    """``y = w z + y0 + bias`` with the product spelled out as on the page."""
    x = torch.randn(1, 2, *(4, 5)[: machine.dimensions], dtype=torch.float64)
    y = machine.solve(x)[0].detach().numpy()[0]
    y[:2] -= x.numpy()[0]
    y -= machine.bias.detach().numpy().reshape(-1, *[1] * machine.dimensions)
    np.testing.assert_allclose(positions_of(kind, machine, x), y, rtol=0, atol=1e-12)
