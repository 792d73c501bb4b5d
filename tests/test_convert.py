"""What from_sequential and from_rnn take over and what they refuse; that they are equal, test_classics says."""

import pytest
import torch
from torch import nn

import machgraph as mg


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Absolute(nn.Conv1d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight.abs(), bias)


class Halved(nn.Identity):
    def forward(self, x):
        return x / 2


class Louder(nn.RNN):
    def forward(self, x):
        return super().forward(2 * x)


class Named(nn.Sequential):
    """It only has a name."""


def test_a_subclass_that_computes_the_same_is_taken():
    layers = Named(nn.Linear(3, 4), Named(nn.ReLU(), nn.Linear(4, 2)))
    x = torch.randn(5, 3)
    machine = mg.from_sequential(layers)
    torch.testing.assert_close(machine.output(machine(x)), layers(x))


def test_weights_are_copied_and_the_mask_is_sequential():
    layers = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Sequential(nn.Linear(4, 2), nn.GELU())).double()
    machine = mg.from_sequential(layers)
    assert machine.partition.widths == (3, 4, 2)
    assert [activation.name for activation in machine.activation] == ["identity", "relu", "gelu"]
    assert (machine.shortcuts == mg.DenseMachine((3, 4, 2), shortcuts="sequential").shortcuts).all()
    assert machine.weight.dtype == torch.float64
    assert (machine.bias[:7] == 0).all()
    assert (machine.weight[3:7, :3] == layers[0].weight).all()
    with torch.no_grad():
        machine.weight.zero_()
    assert (layers[0].weight != 0).any()
    assert mg.from_sequential(nn.Sequential(nn.Linear(3, 4, bias=False))).bias is None


def test_the_kernel_of_convolutions_is_taken_over():
    layers = nn.Sequential(
        nn.Conv2d(1, 4, (3, 1), padding=(2, 0), dilation=(2, 1)),
        nn.Conv2d(4, 2, (3, 1), padding="same", dilation=(2, 1)),
    )
    machine = mg.from_sequential(layers)
    assert (machine.kernel_size, machine.dilation, machine.padding) == ((3, 1), (2, 1), "same")
    circle = nn.Conv1d(1, 4, 4, padding="same", padding_mode="circular")
    assert mg.from_sequential(nn.Sequential(circle)).padding == "circular"


def test_settings_of_a_nonlinearity_count():
    layers = nn.Sequential(nn.Hardtanh(), nn.Linear(3, 3), nn.LeakyReLU(0.3, inplace=True), nn.Linear(3, 1), nn.ELU())
    machine = mg.from_sequential(layers)
    assert [activation.name for activation in machine.activation] == ["Hardtanh", "LeakyReLU", "elu"]
    x = torch.randn(5, 3)
    torch.testing.assert_close(machine.output(machine(x)), layers(x))


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ([], "got no Linear or convolution"),
        ([nn.ReLU()], "got no Linear or convolution"),
        ([nn.Linear(2, 3), nn.BatchNorm1d(3)], r"1 \(BatchNorm1d\) is neither a Linear or convolution nor"),
        ([nn.Linear(2, 3), nn.Sequential(nn.Dropout())], r"1.0 \(Dropout\) is neither"),
        ([nn.Conv1d(1, 1, 1), nn.Flatten()], r"1 \(Flatten\) is neither"),
        ([nn.Linear(2, 3), nn.ReLU(), nn.Tanh()], r"2 \(Tanh\) follows 1 with no layer between them"),
        ([nn.Linear(2, 3), nn.Linear(4, 3)], r"1 \(Linear\) reads 4 channels and 0 gives 3"),
        ([nn.Linear(2, 3), nn.Linear(3, 3).double()], r"1 \(Linear\) has dtype torch.float64 and 0 has torch.float32"),
        ([nn.Linear(2, 3), nn.Conv1d(3, 1, 1)], r"1 \(Conv1d\) has axes 1 and 0 has 0"),
        ([nn.Conv1d(1, 1, 3, padding=1), nn.Conv1d(1, 1, 1)], r"1 \(Conv1d\) has kernel_size \(1,\) and 0 has \(3,\)"),
        (
            [nn.Conv1d(1, 1, 3, padding=1), nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")],
            "has padding_mode circular and 0 has zeros",
        ),
        ([nn.Conv1d(1, 1, 3)], r'0 \(Conv1d\) has padding \(0,\): .* so give padding="same"'),
        ([nn.Conv1d(1, 1, 4, padding=2)], r"0 \(Conv1d\) has padding \(2,\)"),
        ([nn.Conv1d(1, 1, 3, stride=2, padding=1)], r"0 \(Conv1d\) has stride \(2,\)"),
        ([nn.Conv1d(2, 2, 3, groups=2, padding=1)], r"0 \(Conv1d\) has 2 groups"),
        ([nn.Conv1d(1, 1, 3, padding=1, padding_mode="reflect")], 'has padding_mode="reflect"'),
        ([nn.LazyLinear(3)], r"0 \(LazyLinear\) has no weights yet"),
        ([Doubled(2, 3)], r"0 \(Doubled\) has a forward of its own, .*: give an nn.Linear, or write"),
        ([Absolute(1, 1, 1)], r"0 \(Absolute\) has a forward of its own, .*: give an nn.Conv1d"),
        ([nn.Linear(2, 2), Halved()], r"1 \(Halved\) is neither"),
        ([nn.Sequential(Residual(nn.Linear(2, 2)))], r"0.0 \(Residual\) has a forward .*: give an nn.Sequential"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_a_layer_that_does_not_fit_is_named(layers, sentence):
    with pytest.raises(ValueError, match=sentence):
        mg.from_sequential(nn.Sequential(*layers))


@pytest.mark.parametrize(
    ("act", "error", "sentence"),
    [
        (lambda: mg.from_sequential(nn.Linear(2, 3)), TypeError, "got Linear: give an nn.Sequential"),
        (lambda: mg.from_sequential(Residual(nn.Linear(2, 2))), ValueError, "got Residual, which has a forward of its"),
        (lambda: mg.from_rnn(Louder(2, 3)), ValueError, "got Louder, which has a forward of its own, .* an nn.RNN"),
        (lambda: mg.from_rnn(nn.LSTM(2, 3)), TypeError, "got LSTM, whose gates multiply"),
        (lambda: mg.from_rnn(nn.RNNCell(2, 3)), TypeError, "got RNNCell: give an nn.RNN"),
        (lambda: mg.from_rnn(nn.RNN(2, 3, bidirectional=True)), ValueError, "of two directions"),
        (lambda: mg.from_rnn(nn.RNN(2, 3, num_layers=2, dropout=0.5)), ValueError, "with dropout=0.5"),
    ],
)
def test_what_is_refused(act, error, sentence):
    with pytest.raises(error, match=sentence):
        act()
