"""The classics are parametric machines: with torch's own weights, equal outputs and equal gradients in float64."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import machgraph as mg

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def assert_equal_gradients(ours, theirs, pairs, x):
    """``pairs``: of each of their parameters its place in one of ours, ``(theirs, ours, index)``."""
    torch.testing.assert_close(ours, theirs, **EXACT)
    cotangent = torch.randn_like(theirs)
    expected = torch.autograd.grad(theirs, [x, *(parameter for parameter, _, _ in pairs)], cotangent)
    got = torch.autograd.grad(ours, [x, *dict.fromkeys(parameter for _, parameter, _ in pairs)], cotangent)
    by_parameter = dict(zip(dict.fromkeys(parameter for _, parameter, _ in pairs), got[1:], strict=True))
    torch.testing.assert_close(got[0], expected[0], **EXACT)
    for (_, parameter, index), gradient in zip(pairs, expected[1:], strict=True):
        torch.testing.assert_close(by_parameter[parameter][index], gradient, **EXACT)


def places(machine, layers):
    """Where the weights and biases of a stack of layers are in the machine."""
    block = machine.partition.block
    pairs = []
    for i, layer in enumerate(layers, start=1):
        pairs.append((layer.weight, machine.weight, (block(i), block(i - 1))))
        if layer.bias is not None:
            pairs.append((layer.bias, machine.bias, block(i)))
    return pairs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus, nn.LeakyReLU, nn.Mish])
def test_multilayer_perceptron(activation, bias):
    torch.manual_seed(0)
    linear = [nn.Linear(a, b, bias=bias) for a, b in itertools.pairwise((5, 8, 6, 3))]
    mlp = nn.Sequential(linear[0], activation(), linear[1], activation(), linear[2]).double()
    machine = mg.from_sequential(mlp)
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    assert_equal_gradients(machine.output(machine(x)), mlp(x), places(machine, linear), x)


def test_a_layer_that_occurs_twice_is_computed_twice():
    torch.manual_seed(0)
    linear, tanh = nn.Linear(4, 4), nn.Tanh()
    mlp = nn.Sequential(linear, tanh, nn.Sequential(linear, tanh), nn.Linear(4, 2), tanh).double()
    machine = mg.from_sequential(mlp)
    assert machine.partition.widths == (4, 4, 4, 2)
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    ours, theirs = machine.output(machine(x)), mlp(x)
    torch.testing.assert_close(ours, theirs, **EXACT)
    cotangent, block = torch.randn_like(theirs), machine.partition.block
    expected = torch.autograd.grad(theirs, [x, linear.weight], cotangent)
    got = torch.autograd.grad(ours, [x, machine.weight], cotangent)
    torch.testing.assert_close(got[0], expected[0], **EXACT)
    copies = got[1][block(1), block(0)] + got[1][block(2), block(1)]
    torch.testing.assert_close(copies, expected[1], **EXACT)


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize(
    ("convolution", "kernel", "dilation", "size"),
    [
        (nn.Conv1d, 5, 1, (9,)),
        (nn.Conv2d, (3, 3), 1, (6, 5)),
        (nn.Conv2d, (2, 3), (2, 1), (5, 4)),
        (nn.Conv3d, 3, 1, (4, 3, 3)),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_stack_of_convolutions(convolution, kernel, dilation, size, padding_mode):
    torch.manual_seed(0)
    settings = {"padding": "same", "dilation": dilation, "padding_mode": padding_mode}
    layers = [convolution(a, b, kernel, **settings, bias=b != 4) for a, b in itertools.pairwise((2, 4, 3, 1))]
    stack = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.Sigmoid(), layers[2]).double()
    machine = mg.from_sequential(stack)
    x = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    assert_equal_gradients(machine.output(machine(x)), stack(x), places(machine, layers), x)


class DenseNetBlock(nn.Module):
    """Each layer reads the concatenation of all features before it."""

    def __init__(self, widths):
        super().__init__()
        sums = itertools.accumulate(widths[:-1])
        self.layers = nn.ModuleList(nn.Conv2d(n, w, 3, padding=1) for n, w in zip(sums, widths[1:], strict=True))

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, torch.relu(layer(x))], dim=1)
        return x


def test_densenet_block_is_all_shortcuts():
    torch.manual_seed(0)
    widths = (3, 4, 4, 2)
    network = DenseNetBlock(widths).double()
    machine = mg.ConvMachine(widths, (3, 3), activation=("identity", "relu", "relu", "relu"), dtype=torch.float64)
    start, block, pairs = 0, machine.partition.block, []
    with torch.no_grad():
        machine.bias.zero_()
        for i, layer in enumerate(network.layers, start=1):
            start = block(i).start
            machine.weight[block(i), :start] = layer.weight
            machine.bias[block(i)] = layer.bias
            pairs += [(layer.weight, machine.weight, (block(i), slice(start))), (layer.bias, machine.bias, block(i))]
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    assert_equal_gradients(machine(x), network(x), pairs, x)  # all of machine space is the whole concatenation


class ResNetBlock(nn.Module):
    """``relu(x + F(x))``, after He and others (2016), without the normalization."""

    def __init__(self, width, inner):
        super().__init__()
        self.first, self.second = nn.Conv2d(width, inner, 3, padding=1), nn.Conv2d(inner, width, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class Frozen(nn.Module):
    """A parametrization that holds some entries at what they are."""

    def __init__(self, values, held):
        super().__init__()
        self.register_buffer("values", values)
        self.register_buffer("held", held)

    def forward(self, weight):
        return torch.where(self.held, self.values, weight)


def test_resnet_blocks_are_shortcuts_of_frozen_weights():
    torch.manual_seed(0)
    blocks = [ResNetBlock(3, 4).double(), ResNetBlock(3, 2).double()]
    shortcuts = torch.zeros(5, 5, dtype=torch.bool)
    for out, source in [(1, 0), (2, 1), (2, 0), (3, 2), (4, 3), (4, 2)]:
        shortcuts[out, source] = True
    activation = ("identity", "relu", "relu", "relu", "relu")
    machine = mg.ConvMachine(
        (3, 4, 3, 2, 3), (3, 3), activation=activation, shortcuts=shortcuts.numpy(), dtype=torch.float64
    )
    block = machine.partition.block
    held = torch.zeros_like(machine.weight, dtype=torch.bool)
    layers = [layer for one in blocks for layer in (one.first, one.second)]
    with torch.no_grad():
        machine.bias.zero_()
        for parameter, ours, index in places(machine, layers):
            ours[index] = parameter
        for out, source in [(2, 0), (4, 2)]:
            machine.weight[block(out), block(source)] = 0
            machine.weight[block(out), block(source), 1, 1] = torch.eye(3, dtype=torch.float64)
            held[block(out), block(source)] = True
    parametrize.register_parametrization(machine, "weight", Frozen(machine.weight.detach().clone(), held))
    learned = machine.parametrizations.weight.original
    pairs = [
        (parameter, learned if ours.dim() > 1 else machine.bias, index)
        for parameter, ours, index in places(machine, layers)
    ]
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    assert_equal_gradients(machine.output(machine(x)), nn.Sequential(*blocks)(x), pairs, x)
    (gradient,) = torch.autograd.grad(machine(x).sum(), learned)
    assert (gradient[held] == 0).all()


def test_resnet_block_is_a_sum_of_machines():
    torch.manual_seed(0)
    network = ResNetBlock(3, 4).double()
    f = (
        mg.Machine(nn.Sequential(network.first, nn.ReLU()), ("x",), ("inner",), "first")
        + mg.Machine(network.second, ("inner",), ("sum",), "second")
        + mg.Machine(nn.Identity(), ("x",), ("sum",), "skip")
        + mg.Machine(nn.ReLU(), ("sum",), ("y",), "relu")
    )
    assert f.depth == 3
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    pairs = [(parameter, parameter, ...) for parameter in network.parameters()]
    assert_equal_gradients(f.resolvent({"x": x})["y"], network(x), pairs, x)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("steps", [1, 6])
def test_recurrent_network(layers, nonlinearity, bias, batch_first, steps):
    torch.manual_seed(0)
    rnn = nn.RNN(3, 4, layers, nonlinearity=nonlinearity, bias=bias, batch_first=batch_first).double()
    machine = mg.from_rnn(rnn)
    x = torch.randn(2, 3, steps, dtype=torch.float64, requires_grad=True)
    z = machine(x)
    theirs, h_n = rnn(x.mT if batch_first else x.permute(2, 0, 1))
    block, of, pairs = machine.partition.block, dict(rnn.named_parameters()), []
    for k in range(layers):
        pairs.append((of[f"weight_ih_l{k}"], machine.weight, (block(k + 1), block(k), 0)))
        pairs.append((of[f"weight_hh_l{k}"], machine.weight, (block(k + 1), block(k + 1), 1)))
        if bias:  # both of torch's biases get the gradient of their sum
            pairs += [(of[f"bias_{name}_l{k}"], machine.bias, block(k + 1)) for name in ("ih", "hh")]
    ours = machine.output(z)
    assert_equal_gradients(ours.mT if batch_first else ours.permute(2, 0, 1), theirs, pairs, x)
    torch.testing.assert_close(torch.stack([part[..., -1] for part in machine.split(z)[1:]]), h_n, **EXACT)


def test_the_first_state_of_a_recurrent_network_is_a_part_of_the_input():
    torch.manual_seed(0)
    rnn = nn.RNN(3, 4, 2, batch_first=True).double()
    machine = mg.from_rnn(rnn)
    x, h0 = torch.randn(2, 3, 5, dtype=torch.float64), torch.randn(2, 2, 4, dtype=torch.float64)
    y0 = torch.nn.functional.pad(x, (0, 0, 0, 8))
    y0[:, machine.partition.block(1), 0] = h0[0] @ rnn.weight_hh_l0.detach().mT
    y0[:, machine.partition.block(2), 0] = h0[1] @ rnn.weight_hh_l1.detach().mT
    torch.testing.assert_close(machine.output(machine(y0)).mT, rnn(x.mT, h0)[0], **EXACT)
