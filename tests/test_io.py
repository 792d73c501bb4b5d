import copy
import json
import pickle
import struct

import numpy as np
import pytest
import torch

import machgraph as mg
from machgraph.io import from_specification, load_metadata, specification


@pytest.fixture
def machine():
    mask = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=bool)
    return mg.DenseMachine((3, 4, 2), activation=("identity", "tanh", "gelu"), shortcuts=mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_machine_comes_back_to_the_last_bit(tmp_path, dtype, bias):
    machine = mg.DenseMachine((3, 4, 2), activation="silu", bias=bias, dtype=dtype)
    loaded = mg.load(mg.save(machine, tmp_path / "one.machgraph"))
    assert specification(loaded) == specification(machine)
    x = torch.randn(5, 3).to(dtype)
    torch.testing.assert_close(loaded(x), machine(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "machine",
    [
        mg.ConvMachine((2, 3, 1), (3, 2), activation="silu", padding="circular", dilation=(1, 2)),
        mg.RecurrentMachine((2, 3, 1), lags=3, timeblock=2, shortcuts="sequential", bias=False),
    ],
)
def test_every_kind_comes_back(tmp_path, machine):
    loaded = mg.load(mg.save(machine, tmp_path / "one.machgraph"))
    assert type(loaded) is type(machine)
    assert specification(loaded) == specification(machine)
    x = torch.randn(2, 2, *(5, 6)[: machine.dimensions])
    torch.testing.assert_close(loaded(x), machine(x), rtol=0, atol=0)


def test_metadata(tmp_path, machine):
    path = mg.save(machine, tmp_path / "m.machgraph", metadata={"classes": ["a", "b"], "score": 0.5})
    assert load_metadata(path) == {"classes": ["a", "b"], "score": 0.5}


def test_the_file_can_be_read_without_machgraph(tmp_path, machine):
    """A safetensors file: eight bytes of length, that much JSON, then the numbers."""
    content = mg.save(machine, tmp_path / "m.machgraph").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header["__metadata__"]["specification"]) == specification(machine)
    start, stop = header["weight"]["data_offsets"]
    weight = np.frombuffer(content[8 + length :][start:stop], dtype="<f4").reshape(header["weight"]["shape"])
    assert (weight == machine.weight.detach().numpy()).all()


def test_a_failed_save_leaves_what_was_there(tmp_path, machine, monkeypatch):
    path = mg.save(machine, tmp_path / "m.machgraph")
    before = path.read_bytes()

    def fail(_):
        raise OSError("No space left on device")

    monkeypatch.setattr("machgraph.io.os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        mg.save(mg.DenseMachine((3, 1)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_description_needs_only_widths():
    machine = from_specification({"widths": [3, 4, 2], "activation": "tanh"})
    assert machine.shortcuts.sum() == 3
    assert machine.bias is not None


def _write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("act", "error", "sentence"),
    [
        (lambda p: mg.save(mg.DenseMachine((3, 1), activation=torch.sin), p / "m"), ValueError, "'sin', a function"),
        (
            lambda p: mg.save(mg.DenseMachine((3, 1)), p / "m", {"a": {1, 2}}),
            ValueError,
            "metadata that JSON can't hold",
        ),
        (lambda p: mg.load(p / "none"), FileNotFoundError, "is not a file"),
        (lambda p: mg.load(_write(p / "m", b"hello, world, this is no machine")), ValueError, "not a machgraph file"),
        (
            lambda p: from_specification({"width": [3, 1]}),
            ValueError,
            "with width: for kind 'dense' it must hold widths",
        ),
        (lambda p: from_specification({"widths": [3, 1], "kind": "conv"}), ValueError, "kind 'conv'"),
        (lambda p: from_specification({"widths": [3, 1], "kind": "recurrence"}), ValueError, "hold widths and lags"),
        (lambda p: from_specification([3, 1]), ValueError, "a description of type list"),
        (lambda p: from_specification({"widths": [3, 1], "bias": "no"}), ValueError, "bias='no': it is true or false"),
        (lambda p: mg.save(mg.DenseMachine((3, 1)).architecture, p / "m"), ValueError, "got Architecture: only dense"),
    ],
)
def test_what_is_refused(tmp_path, act, error, sentence):
    with pytest.raises(error, match=sentence):
        act(tmp_path)


def test_a_newer_format_is_refused(tmp_path, machine, monkeypatch):
    monkeypatch.setattr("machgraph.io.FORMAT", "machgraph/2")
    path = mg.save(machine, tmp_path / "m.machgraph")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="its format is 'machgraph/2', and this version reads 'machgraph/1'"):
        mg.load(path)


def test_a_torn_file_is_refused(tmp_path, machine):
    path = mg.save(machine, tmp_path / "m.machgraph")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="not a machgraph file, or is damaged"):
        mg.load(path)


def test_a_specification_that_does_not_fit_is_refused_before_anything_is_made(tmp_path, machine, monkeypatch):
    described = specification(machine)
    monkeypatch.setattr("machgraph.io.specification", lambda _: {**described, "widths": [10**6, 10**6]})
    path = mg.save(machine, tmp_path / "m.machgraph")
    with pytest.raises(
        ValueError, match=r"m.machgraph is damaged.*2000000 channels, a kernel of .* weights of \(9, 9\)"
    ):
        mg.load(path)


@pytest.mark.parametrize(
    "more", [{"kind": "recurrence", "lags": 10**9}, {"kind": "convolution", "kernel_size": [10**5, 10**3]}]
)
def test_a_kernel_that_does_not_fit_is_refused_before_anything_is_made(tmp_path, machine, more, monkeypatch):
    described = {name: value for name, value in specification(machine).items() if name != "shortcuts"}
    monkeypatch.setattr("machgraph.io.specification", lambda _: {**described, **more})
    path = mg.save(machine, tmp_path / "m.machgraph")
    with pytest.raises(ValueError, match=r"is damaged.* a kernel of \(10.*weights of \(9, 9\)"):
        mg.load(path)


def test_what_the_mask_leaves_out_is_zero_in_the_file(tmp_path, machine):
    x = torch.randn(5, 3)
    expected = machine(x)
    with torch.no_grad():
        machine.weight[torch.from_numpy(~machine.weight_mask)] = torch.nan
    loaded = mg.load(mg.save(machine, tmp_path / "m.machgraph"))
    assert (loaded.weight[torch.from_numpy(~machine.weight_mask)] == 0).all()
    torch.testing.assert_close(loaded(x), expected, rtol=0, atol=0)


def test_a_copy_and_a_parametrized_machine_can_be_saved(tmp_path, machine):
    x = torch.randn(5, 3)
    for one in (
        copy.deepcopy(machine),
        pickle.loads(pickle.dumps(machine)),
        torch.nn.utils.parametrizations.weight_norm(machine),
    ):
        torch.testing.assert_close(mg.load(mg.save(one, tmp_path / "m.machgraph"))(x), one(x))
