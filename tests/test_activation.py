import copy
import pickle

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from machgraph.activation import ACTIVATIONS, Activation, as_activation, per_block

LEARNED = nn.Parameter(torch.ones(()))
TORCH = {
    "identity": nn.Identity(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(),
    "elu": nn.ELU(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "softplus": nn.Softplus(),
    "sine": torch.sin,
}


@pytest.fixture
def y():
    torch.manual_seed(0)
    return torch.randn(200, dtype=torch.float64) * 3


def test_the_names():
    assert set(ACTIVATIONS) == set(TORCH)


@pytest.mark.parametrize("name", TORCH)
def test_function_and_derivative_are_those_of_torch(name, y):
    y.requires_grad_()
    expected = TORCH[name](y)
    (slope,) = torch.autograd.grad(expected.sum(), y)
    sigma = ACTIVATIONS[name]
    torch.testing.assert_close(sigma.function(y), expected, rtol=0, atol=0)
    torch.testing.assert_close(sigma.derivative(y, expected), slope, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", TORCH)
def test_the_derivative_is_differentiable(name, y):
    sigma = ACTIVATIONS[name]
    y = y[:20].requires_grad_()
    assert gradcheck(lambda y: sigma.derivative(y, sigma.function(y)), y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", TORCH)
def test_the_type_is_kept(name, dtype):
    y = torch.linspace(-2, 2, 5, dtype=dtype)
    a = ACTIVATIONS[name].function(y)
    assert a.dtype == ACTIVATIONS[name].derivative(y, a).dtype == dtype


def test_any_pointwise_callable(y):
    cube = as_activation(lambda y: y**3)
    torch.testing.assert_close(cube.derivative(y, y**3), 3 * y**2)
    assert as_activation(nn.Hardtanh()).name == "Hardtanh"


def test_a_function_may_be_no_number_somewhere(y):
    log = as_activation(torch.log)
    torch.testing.assert_close(log.derivative(y.abs(), y.abs().log()), 1 / y.abs())


def test_what_is_set_around_a_trial_does_not_count():
    learns = nn.PReLU()
    for around in (torch.no_grad(), torch.inference_mode()):
        with around, pytest.raises(ValueError, match="PReLU, which holds a parameter of its own"):
            as_activation(learns)
    with torch.device("meta"):
        assert as_activation(torch.sin).name == "sin"


def test_one_for_all_or_one_for_each():
    assert [sigma.name for sigma in per_block("tanh", 3)] == ["tanh"] * 3
    assert [sigma.name for sigma in per_block(("tanh", torch.sin), 2)] == ["tanh", "sin"]


@pytest.mark.parametrize(
    ("activation", "error", "sentence"),
    [
        ("rellu", ValueError, "got activation 'rellu': did you mean 'relu'"),
        (3, TypeError, "of type int"),
        (None, TypeError, "of type NoneType"),
        (nn.PReLU(), ValueError, "PReLU, which holds a parameter of its own"),
        (lambda y: torch.tanh(LEARNED * y), ValueError, "holds a parameter"),
        (nn.Dropout(), ValueError, "Dropout, which gives another value each time"),
        (nn.RReLU(), ValueError, "gives another value each time"),
        (nn.Softmax(-1), ValueError, "Softmax, which is not pointwise"),
        (lambda y: y / y.norm(), ValueError, "is not pointwise"),
        (nn.ReLU(inplace=True), ValueError, "ReLU, which changes its argument in place"),
        (nn.ReLU, ValueError, "which returns ReLU, not a tensor|which fails"),
        (lambda y: y.double(), ValueError, "of torch.float64 for"),
        (lambda y: y @ y, ValueError, "fails on a tensor of shape"),
    ],
)
def test_what_is_refused(activation, error, sentence):
    with pytest.raises(error, match=sentence):
        as_activation(activation)


def test_a_wrong_number_is_refused():
    with pytest.raises(ValueError, match="got 2 activations for 3 blocks"):
        per_block(("tanh", "relu"), 3)


def test_copies_are_the_same_activation():
    for sigma in ACTIVATIONS.values():
        assert copy.deepcopy(sigma) is sigma
        assert pickle.loads(pickle.dumps(sigma)) is sigma
    sine = as_activation(torch.sin)
    assert copy.deepcopy(sine).function is torch.sin


def _seven(y, _):
    return 7 * torch.ones_like(y)


def test_a_derivative_of_ones_own_is_copied_too(y):
    surrogate = Activation("sign", torch.sign, _seven)
    for twin in (copy.deepcopy(surrogate), pickle.loads(pickle.dumps(surrogate))):
        assert (twin.name, twin.function, twin.derivative) == ("sign", torch.sign, _seven)
    sine = pickle.loads(pickle.dumps(as_activation(torch.sin)))
    torch.testing.assert_close(sine.derivative(y, y.sin()), y.cos())
