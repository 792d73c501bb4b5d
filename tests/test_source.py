"""Machines as Python files: they answer the same where no machgraph is, and read as one would have written them."""

import importlib.util
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import machgraph as mg
from machgraph.activation import ACTIVATIONS
from machgraph.source import module

D, NAMES = torch.float64, list(ACTIVATIONS)
PLAIN = ("identity", "relu", "relu", "identity")
MACHINES = {
    "dense": (lambda **k: mg.DenseMachine((3, 2, 4, 2), activation=("identity", "tanh", "gelu", "sine"), **k), ()),
    "every_activation": (lambda **k: mg.DenseMachine((2, *[2] * len(NAMES)), activation=["tanh", *NAMES], **k), ()),
    "few_shortcuts": (lambda **k: mg.DenseMachine((3, 2, 2), shortcuts=[[0] * 3, [0] * 3, [1, 0, 0]], **k), ()),
    "hears_nothing": (lambda **k: mg.DenseMachine((3, 2, 2), shortcuts=[[0] * 3, [0] * 3, [1, 1, 0]], **k), ()),
    "no_bias": (lambda **k: mg.DenseMachine((3, 2, 2), activation="silu", shortcuts="sequential", bias=False, **k), ()),
    "many_blocks": (lambda **k: mg.DenseMachine((8, *[2] * 24, 3), **k), ()),
    "series": (lambda **k: mg.ConvMachine((2, 3, 1), 3, dilation=2, activation="elu", **k), (9,)),
    "causal": (lambda **k: mg.ConvMachine((2, 3, 1), 4, padding="causal", **k), (9,)),
    "even": (lambda **k: mg.ConvMachine((2, 3, 1), (3, 2), activation=("identity", "tanh", "sine"), **k), (5, 4)),
    "circular": (
        lambda **k: mg.ConvMachine((2, 3, 3, 1), (4, 3), dilation=(1, 2), padding="circular", bias=False, **k),
        (6, 7),
    ),
    "scaled": (lambda **k: mg.ConvMachine((1, 4, 4, 3), (3, 3), scales=(0, 0, 1, 3), activation=PLAIN, **k), (9, 1)),
    "volume": (
        lambda **k: mg.ConvMachine(
            (1, 2, 2), (3, 3, 3), scales=(0, 1, 1), pooling="mean", shortcuts=[[0] * 3, [0] * 3, [1, 1, 0]], **k
        ),
        (4, 3, 5),
    ),
    "recurrence": (lambda **k: mg.RecurrentMachine((2, 3, 2), lags=3, timeblock=2, bias=False, **k), (7,)),
    "two_layers": (
        lambda **k: mg.RecurrentMachine((2, 3, 3, 1), 1, shortcuts="sequential", activation=PLAIN, **k),
        (6,),
    ),
    "no_lags": (lambda **k: mg.RecurrentMachine((2, 3, 1), lags=0, shortcuts="sequential", **k), (4,)),
    "gaps": (
        lambda **k: mg.RecurrentMachine(
            (2, 2, 1),
            4,
            shortcuts=[[[0] * 3, [lag == 0, lag in (1, 4), 0], [lag > 1, lag == 0, 0]] for lag in range(5)],
            **k,
        ),
        (8,),
    ),
}


def made(name, dtype=torch.float32):
    make, size = MACHINES[name]
    generator = torch.Generator().manual_seed(0)
    machine = make(generator=generator, dtype=dtype)
    return machine, torch.randn(3, machine.partition.widths[0], *size, dtype=dtype, generator=generator)


def imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


ALONE = """
import importlib, sys
sys.modules["machgraph"] = sys.modules["search"] = sys.modules["numpy"] = None  # to import them now is an error
sys.path.insert(0, sys.argv[1])
import torch
for name in sys.argv[2:]:
    x, expected = torch.load(f"{sys.argv[1]}/{name}.pt")
    net = importlib.import_module(name).load()
    assert not net.training and {p.dtype for p in net.parameters()} == {x.dtype}
    with torch.no_grad():
        torch.testing.assert_close(net(x), expected)
    print(name)
"""


def test_files_answer_the_same_where_machgraph_can_not_be_imported(tmp_path):
    names = []
    for kind in MACHINES:
        for dtype, short in ((torch.float32, "single"), (D, "double")):
            machine, x = made(kind, dtype)
            names.append(f"{kind}_{short}")
            mg.export(machine, tmp_path / f"{names[-1]}.py")
            torch.save((x, machine.output(machine(x)).detach()), tmp_path / f"{names[-1]}.pt")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:Failed to initialize NumPy", "-c", ALONE, tmp_path, *names],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == names, done.stderr
    kinds = {path.suffix for path in tmp_path.iterdir()}
    assert kinds - {"", ".pt"} == {".py", ".safetensors"}


def test_files_are_formatted_and_clean(tmp_path):
    for name in MACHINES:
        mg.export(made(name)[0], tmp_path / f"{name}.py")
    ruff = [sys.executable, "-m", "ruff"]
    rules = "E,F,W,I,B,UP,SIM,C4,RUF,RET,PERF,ANN"
    for line in ("88", "120"):
        for what in (["format", "--check"], ["check", "--select", rules]):
            command = [*ruff, *what, "--isolated", "--no-cache", "--line-length", line, tmp_path]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(set(MACHINES) - {"few_shortcuts", "hears_nothing"}))
def test_a_file_has_the_weights_of_the_mask_and_no_others(name, tmp_path):
    machine, _ = made(name)
    network = imported(mg.export(machine, tmp_path / "net.py")).Network()
    unused = 0  # the bias of an input that hears nothing begins at 0 and is left out
    if machine.bias is not None and not machine.shortcuts[..., 0, :].any():
        unused = machine.partition.widths[0]
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == machine.parameter_count() - unused
    assert f"{count:,} parameters" in (tmp_path / "net.py").read_text()


def test_what_does_not_reach_the_output_is_left_out_and_told(tmp_path):
    machine, x = made("few_shortcuts")
    path = mg.export(machine, tmp_path / "net.py")
    network = imported(path).load()
    assert [name for name, _ in network.named_parameters()] == ["output.weight", "output.bias"]
    assert "Nothing that reaches the output hears block 1: it is not computed." in path.read_text()
    torch.testing.assert_close(network(x), machine.output(machine(x)))


def test_a_recurrence_reads_as_its_equation(tmp_path):
    text = mg.export(made("gaps")[0], tmp_path / "net.py").read_text()
    body = text[text.index("    def forward") : text.index("def load")].rstrip()
    assert (
        body
        == """\
    def forward(self, x: Tensor) -> Tensor:
        # Lists of steps, each (batch, channel). Before the series all is 0.
        h0 = [x.new_zeros(len(x), 2)] * LAGS
        h1 = [x.new_zeros(len(x), 2)] * LAGS
        outputs = [x.new_zeros(len(x), 1)] * LAGS
        for t in range(LAGS, LAGS + x.shape[-1]):
            h0.append(torch.tanh(x[..., t - LAGS]))
            # Block 1 hears the input and itself at lags 1, 4.
            heard = torch.cat([h0[t], h1[t - 4], h1[t - 1]], dim=-1)
            h1.append(torch.tanh(self.block1(heard)))
            # The output hears the input at lags 2 to 4 and block 1.
            heard = torch.cat([*h0[t - 4 : t - 1], h1[t]], dim=-1)
            outputs.append(torch.tanh(self.output(heard)))
        return torch.stack(outputs[LAGS:], dim=-1)"""
    )


def test_the_bias_of_the_input_is_kept_where_there_is_one(tmp_path):
    for name in ("dense", "scaled", "no_lags"):
        machine, x = made(name, D)
        with torch.no_grad():
            machine.bias.uniform_(1, 2)
        network = imported(mg.export(machine, tmp_path / "net.py")).load()
        torch.testing.assert_close(network(x), machine.output(machine(x)))
        assert network.block0.shape == machine.partition.widths[:1]


@st.composite
def wirings(draw):
    """Machines of few blocks with any mask."""
    blocks, kind = draw(st.integers(2, 5)), draw(st.sampled_from(["dense", "convolution", "recurrence"]))
    widths = draw(st.lists(st.integers(1, 3), min_size=blocks, max_size=blocks))
    activation = draw(st.lists(st.sampled_from(NAMES), min_size=blocks, max_size=blocks))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    common = {"activation": activation, "bias": draw(st.booleans()), "dtype": D}
    earlier = np.tri(blocks, k=-1, dtype=bool)
    mask = earlier & (rng.random((blocks, blocks)) < 0.6)
    mask[-1, 0] = True  # so that there are weights
    if kind == "dense":
        return mg.DenseMachine(widths, shortcuts=mask, **common), ()
    if kind == "convolution":
        scales = np.cumsum([0, *rng.integers(0, 2, blocks - 1)]).tolist()
        pooling = draw(st.sampled_from(["max", "mean"]))
        machine = mg.ConvMachine(widths, (2, 3), shortcuts=mask, scales=scales, pooling=pooling, **common)
        return machine, tuple(rng.integers(1, 9, 2).tolist())
    masks = np.stack([mask, *(rng.random((2, blocks, blocks)) < 0.4)])
    return mg.RecurrentMachine(widths, 2, shortcuts=masks, **common), (5,)


@settings(max_examples=40, deadline=None)
@given(wirings())
def test_any_wiring(tmp_path_factory, wiring):
    machine, size = wiring
    path = tmp_path_factory.mktemp("any") / "net.py"
    network = imported(mg.export(machine, path)).load()
    x = torch.randn(2, machine.partition.widths[0], *size, dtype=D, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        _, z = machine.reference(machine.weight, machine.bias, x)
        torch.testing.assert_close(network(x), machine.output(z), rtol=1e-9, atol=1e-9)


def test_a_file_that_answers_otherwise_is_not_written(tmp_path, monkeypatch):
    machine, _ = made("dense")
    path = mg.export(machine, tmp_path / "net.py")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    honest = module.tensors

    def twisted(machine):
        return {name: tensor.flip(-1) for name, tensor in honest(machine).items()}

    monkeypatch.setattr(module, "tensors", twisted)
    with pytest.raises(ValueError, match=r"net\.py would answer otherwise than the machine, by .*: it is not written"):
        mg.export(machine, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def relu(y):
    return y.clamp(min=0)


@pytest.mark.parametrize(
    ("machine", "name", "sentence"),
    [
        (lambda: mg.DenseMachine((2, 1), activation=torch.cos), "net.py", "activation 'cos', a function of one's own"),
        (lambda: mg.DenseMachine((2, 1), activation=relu), "net.py", "a function of one's own"),
        (lambda: torch.nn.Linear(2, 1), "net.py", "got Linear: dense, convolutional and recurrent machines are"),
        (lambda: mg.DenseMachine((2, 1)), "my-net.py", r"got my-net\.py: no module can be imported by this name"),
        (lambda: mg.DenseMachine((2, 1)), "torch.py", r"got torch\.py: no module"),
        (lambda: mg.DenseMachine((2, 1), shortcuts=[[0, 0], [0, 0]], bias=False), "net.py", "it has no weights"),
        (lambda: mg.DenseMachine((2, 1)), "net.pyc", r"must end in \.pt2 \(torch\.export\), \.onnx or \.py"),
    ],
)
def test_what_is_refused(tmp_path, machine, name, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        mg.export(machine(), tmp_path / name)
    assert not re.search(r"\n", str(caught.value))
    assert not list(tmp_path.iterdir())
