import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

import machgraph as mg
from machgraph.activation import ACTIVATIONS
from machgraph.lower import lowered

D = torch.float64
NAMES = [name for name in ACTIVATIONS if name != "identity"]
MACHINES = {
    "dense": lambda **k: mg.DenseMachine((3, 2, 4, 2), activation=("identity", "tanh", "gelu", "sine"), **k),
    "dense, few shortcuts": lambda **k: mg.DenseMachine((3, 2, 2), shortcuts=[[0] * 3, [0] * 3, [1, 0, 0]], **k),
    "every activation": lambda **k: mg.DenseMachine((2, *[2] * len(NAMES)), activation=["identity", *NAMES], **k),
    "convolution": lambda **k: mg.ConvMachine((2, 3, 1), (3, 2), dilation=(1, 2), activation="silu", **k),
    "circular": lambda **k: mg.ConvMachine((2, 3, 1), 4, padding="circular", shortcuts="sequential", **k),
    "recurrence": lambda **k: mg.RecurrentMachine((2, 3, 2), lags=3, timeblock=2, bias=False, **k),
    "recurrence without lags": lambda **k: mg.RecurrentMachine((2, 3), lags=0, shortcuts="sequential", **k),
}
KINDS = ["every activation", "circular", "recurrence"]


def made(name, **settings):
    machine = MACHINES[name](generator=torch.Generator().manual_seed(0), **settings)
    size = (5, 4)[: machine.dimensions]
    return machine, lambda *batch, channels=machine.partition.widths[0]: torch.randn(
        *batch, channels, *size, dtype=machine.weight.dtype, generator=torch.Generator().manual_seed(len(batch))
    )


@pytest.fixture(params=MACHINES)
def name(request):
    return request.param


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("offset", [False, True])
def test_torchs_own_layers_solve_the_same_equation(name, batch, offset):
    machine, input = made(name, dtype=D)
    y0 = input(*batch, channels=machine.partition.size).requires_grad_()
    z0 = 0.5 - y0.detach() if offset else None
    leaves = [y0, *machine.parameters()]
    pairs = lowered(machine, y0, z0), machine.solve(y0, z0)
    gradients = [torch.autograd.grad((y * z + z).sum(), leaves) for y, z in pairs]
    torch.testing.assert_close(*pairs, rtol=0, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_an_exported_program_has_plain_operations_and_any_batch(name):
    machine, input = made(name, dtype=D)
    batch = torch.export.Dim("batch")
    net = nn.Sequential(machine)
    program = torch.export.export(net, (input(2),), dynamic_shapes=({0: batch},), strict=False)
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert all(target.startswith(("aten.", "<built-in function getitem>")) for target in targets)
    x = input(7)
    torch.testing.assert_close(program.module()(x), machine(x), rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad(f(x).square().sum(), list(f.parameters())) for f in (net, program.module()))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-12)


LOAD = """
import sys
sys.modules["machgraph"] = sys.modules["search"] = None  # to import them now is an error
import torch
folder, names = sys.argv[1], sys.argv[2:]
for name in names:
    x, expected = torch.load(f"{folder}/{name}.pt")
    got = torch.export.load(f"{folder}/{name}.pt2").module()(x)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    print(name)
"""


def test_pt2_files_run_where_machgraph_can_not_be_imported(tmp_path):
    for name in KINDS:
        machine, input = made(name)
        mg.export(machine, tmp_path / f"{name}.pt2", input(1))
        torch.save((input(6), machine(input(6)).detach()), tmp_path / f"{name}.pt")
    command = [sys.executable, "-W", "ignore", "-c", LOAD, tmp_path, *KINDS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.splitlines() == KINDS, done.stderr
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".pt"] * 3 + [".pt2"] * 3


def run_onnx(path, inputs):
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(path, options)
    values = session.run(None, {name: x.numpy() for name, x in inputs.items()})
    return {output.name: torch.from_numpy(value) for output, value in zip(session.get_outputs(), values, strict=True)}


@pytest.mark.parametrize("name", KINDS)
def test_onnx_files_give_the_same(tmp_path, name, capfd):
    pytest.importorskip("onnxscript")
    machine, input = made(name)
    path = mg.export(machine, tmp_path / "machine.onnx", input(1))
    assert capfd.readouterr() == ("", "")
    z = run_onnx(path, {"y0": input(6)})
    torch.testing.assert_close(z, {"z": machine(input(6)).detach()}, rtol=1e-4, atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["machine.onnx"]


def test_architectures_are_exported_by_component(tmp_path):
    lin = nn.Linear(3, 3)
    f = mg.Machine(lin, ("x",), ("y",), "lin") + mg.Machine(torch.mul, ("x", "y"), ("z",), "mul")
    g = {"x": torch.randn(2, 3), "y": torch.randn(2, 3)}
    program = torch.export.load(mg.export(f, tmp_path / "f.pt2", g)).module()
    more = {name: torch.cat([x, x, x]) for name, x in g.items()}
    torch.testing.assert_close(program(more), f.resolvent(more))
    if pytest.importorskip("onnxscript"):
        h = run_onnx(mg.export(f, tmp_path / "f.onnx", g), {f"g_{name}": x for name, x in more.items()})
        torch.testing.assert_close(h, {f"h_{name}": x.detach() for name, x in f.resolvent(more).items()})


def test_a_module_with_machines_in_it(tmp_path):
    net = nn.Sequential(nn.Linear(5, 3), mg.DenseMachine((3, 4, 2)), nn.Linear(9, 2))
    program = torch.export.load(mg.export(net, tmp_path / "net.pt2", torch.zeros(1, 5))).module()
    x = torch.randn(4, 5)
    torch.testing.assert_close(program(x), net(x))


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda p: mg.export(mg.DenseMachine((2, 1)), p / "m.pth"), r"got m.pth: the name must end in .pt2"),
        (lambda p: mg.export(mg.ConvMachine((2, 1), 3), p / "m.pt2"), "got no example: give an input of ConvMachine"),
        (
            lambda p: mg.export(mg.ConvMachine((2, 1), 3), p / "m.pt2", torch.zeros(2, 3)),
            r"it must be \(batch, channel, s",
        ),
        (lambda p: mg.export(mg.DenseMachine((2, 1)), p / "m.pt2", [1.0]), "got float in the example"),
        (
            lambda p: mg.export(mg.DenseMachine((2, 1)), p / "m.pt2", torch.zeros(2, 9)),
            "does not accept DenseMachine: got y0",
        ),
        (lambda p: mg.export(torch.sin, p / "m.pt2"), "got builtin_function_or_method"),
        (
            lambda p: mg.export(mg.DenseMachine((2, 1)), p / "m.py", (torch.zeros(3, 2), torch.zeros(3, 2))),
            r"got 2 inputs in the example: a DenseMachine takes one tensor, \(batch, channel\)",
        ),
        (
            lambda p: mg.export(mg.DenseMachine((2, 1)), p / "m.pt2", {"y0": torch.zeros(3, 2)}),
            "got dict in the example: a DenseMachine takes one tensor",
        ),
    ],
)
def test_what_is_refused(tmp_path, act, sentence):
    with pytest.raises(ValueError, match=sentence):
        act(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["py", "pt2"])
def test_a_ticket_is_exported_as_its_kind_and_an_example_may_be_a_tuple(tmp_path, suffix):
    ticket, x = mg.regularize.prune_weights(mg.DenseMachine((3, 4, 2), activation="tanh"), 0.5), torch.randn(5, 3)
    path = mg.export(ticket, tmp_path / f"net.{suffix}", (x,))
    if suffix == "py":
        assert "A dense network of 3 blocks" in path.read_text()
    else:
        torch.testing.assert_close(torch.export.load(path).module()(x), ticket(x))


def test_missing_onnxscript_is_told_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("machgraph.portable.find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'machgraph\[onnx\]'"):
        mg.export(mg.DenseMachine((2, 1)), tmp_path / "m.onnx")


# ---- as a layer ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")  # dynamo looks at .grad of what it meets
@pytest.mark.parametrize("name", ["dense", "dense, few shortcuts", "circular", "recurrence"])
def test_torch_compile_records_a_machine_whole(name):
    """``eager`` runs what dynamo has recorded: inductor, its default, takes long and has nothing to do with us."""
    machine, input = made(name, dtype=D)
    net = nn.Sequential(machine, nn.Tanh())
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    for batch in (4, 7):
        torch.testing.assert_close(compiled(input(batch)), net(input(batch)), rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(f(input(4)).square().sum(), list(net.parameters())) for f in (compiled, net)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
    torch.compiler.reset()


def test_two_masks_are_two_compiled_programs():
    x, results = torch.ones(2, 3, dtype=D), []
    for shortcuts in (None, "sequential"):
        machine = mg.DenseMachine((3, 4, 2), shortcuts=shortcuts, dtype=D)
        compiled = torch.compile(machine, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), machine(x), rtol=0, atol=1e-12)
        results.append(compiled(x))
    torch.compiler.reset()
    assert not torch.equal(*results)


def test_a_mask_is_not_changed_in_place():
    machine = mg.DenseMachine((3, 4, 2))
    ticket = copy.deepcopy(mg.regularize.prune_weights(machine, 0.5))
    for one in (machine, copy.deepcopy(machine), pickle.loads(pickle.dumps(machine)), ticket):
        with pytest.raises(ValueError, match="read-only"):
            one.shortcuts[1, 0] = False


def test_a_machine_is_a_layer(tmp_path):
    net = nn.Sequential(nn.Linear(5, 3), mg.DenseMachine((3, 4, 2)), nn.Linear(9, 2))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    other = nn.Sequential(nn.Linear(5, 3), mg.DenseMachine((3, 4, 2)), nn.Linear(9, 2))
    other.load_state_dict(torch.load(tmp_path / "net.pt"))
    x = torch.randn(4, 5)
    torch.testing.assert_close(other(x), net(x), rtol=0, atol=0)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    before = net(x)
    other(x).square().sum().backward()
    optimizer.step()
    assert (other(x) - before).abs().max() > 1e-3
    torch.testing.assert_close(net(x), before, rtol=0, atol=0)
