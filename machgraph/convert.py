"""Parametric machines that are equal to torch's own layers: a sequence of them, or a recurrent network."""

import copy
from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from machgraph.boxes import Padding, margins
from machgraph.parametric import ConvMachine, DenseMachine, ParametricMachine, RecurrentMachine

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NAMED: dict[type[nn.Module], tuple[str, dict[str, Any]]] = {  # what a module must say to be the one of that name
    nn.Identity: ("identity", {}),
    nn.Tanh: ("tanh", {}),
    nn.Sigmoid: ("sigmoid", {}),
    nn.ReLU: ("relu", {}),
    nn.LeakyReLU: ("leaky_relu", {"negative_slope": 0.01}),
    nn.ELU: ("elu", {"alpha": 1.0}),
    nn.GELU: ("gelu", {"approximate": "none"}),
    nn.SiLU: ("silu", {}),
    nn.Softplus: ("softplus", {"beta": 1.0, "threshold": 20.0}),
}
POINTWISE = (nn.CELU, nn.SELU, nn.Mish, nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign)


def from_sequential(sequential: nn.Sequential) -> DenseMachine | ConvMachine:
    """The machine with a sequential mask that is equal to a stack of layers.

    ``machine.output(machine(x))`` equals ``sequential(x)``, and so do the gradients. The weights are copied; of a layer
    that occurs twice there are two copies, which learn apart. To go on from here with shortcuts, make a machine of the
    same widths with another mask and copy them there.

    Parameters
    ----------
    sequential : ``Linear`` layers, or ``Conv1d``, ``Conv2d``, ``Conv3d`` of one kernel, dilation and padding mode that
        keep the size of their input; after each layer, and before the first, at most one pointwise nonlinearity.

    Raises
    ------
    TypeError : not an ``nn.Sequential``.
    ValueError : a layer that a machine can't be equal to, such as one of a subclass with a ``forward`` of its own; the
        sentence names it and says why.

    Examples
    --------
    >>> mlp = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> machine = from_sequential(mlp)
    >>> machine.partition.widths, [activation.name for activation in machine.activation]
    ((4, 8, 2), ['identity', 'tanh', 'identity'])
    """
    if not isinstance(sequential, nn.Sequential):
        raise TypeError(f"got {type(sequential).__name__}: give an nn.Sequential, or an nn.RNN to from_rnn")
    layers: list[tuple[str, Any]] = []
    activation: list[Any] = ["identity"]
    said: dict[int, str] = {}  # where each nonlinearity was said
    for name, layer in _flat(sequential):
        if isinstance(layer, (nn.Linear, *CONVOLUTIONS)):
            _check(name, layer, layers)
            layers.append((name, layer))
            activation.append("identity")
        elif not (isinstance(layer, nn.Identity) and _computes_as(layer, nn.Identity)):
            if len(layers) in said:
                raise ValueError(
                    f"{name} ({type(layer).__name__}) follows {said[len(layers)]} with no layer between them: "
                    "a block has one nonlinearity, so make one function of both"
                )
            activation[-1], said[len(layers)] = _pointwise(name, layer), name
    if not layers:
        raise ValueError("got no Linear or convolution: a machine needs at least one layer")
    return _with_weights([layer for _, layer in layers], activation)


def from_rnn(rnn: nn.RNN) -> RecurrentMachine:
    """The machine with a sequential mask, lags 0 and 1, that is equal to a recurrent network of any number of layers.

    The machine's tensors are ``(batch, channel, time)`` whatever ``batch_first`` says: for a network that has the batch
    first, ``machine.output(machine(x.mT)).mT`` equals ``rnn(x)[0]``. The last step of block ``l`` is ``h_n`` of layer
    ``l``. The series begins from a state of 0. Torch's two biases are one here, their sum; the weights are copied.

    Parameters
    ----------
    rnn : tanh or relu, with bias or without.

    Raises
    ------
    TypeError : another module, LSTM and GRU among them.
    ValueError : two directions, dropout between layers, or a subclass with a ``forward`` of its own.

    Examples
    --------
    >>> from_rnn(nn.RNN(4, 8, num_layers=2)).architecture.order
    ['σ_0', 'w_1', 'σ_1', 'w_2', 'σ_2']
    """
    if not isinstance(rnn, nn.RNN):
        why = ", whose gates multiply: write it as a sum of mg.Machine" if isinstance(rnn, nn.LSTM | nn.GRU) else ""
        raise TypeError(f"got {type(rnn).__name__}{why or ': give an nn.RNN'}")
    if not _computes_as(rnn, nn.RNN):
        raise ValueError(_own_forward(f"got {type(rnn).__name__}, which", "an nn.RNN"))
    if rnn.bidirectional:
        raise ValueError(
            "got an nn.RNN of two directions, and a machine goes forward in time: give bidirectional=False"
        )
    if rnn.dropout and rnn.num_layers > 1:
        raise ValueError(f"got an nn.RNN with dropout={rnn.dropout}, and a machine has no chance in it: set it to 0")
    layers, of = range(rnn.num_layers), rnn.state_dict()
    machine = RecurrentMachine(
        (rnn.input_size, *[rnn.hidden_size] * rnn.num_layers),
        lags=1,
        activation=("identity", *[rnn.nonlinearity] * rnn.num_layers),
        shortcuts="sequential",
        bias=rnn.bias,
        device=of["weight_ih_l0"].device,
        dtype=of["weight_ih_l0"].dtype,
    )
    block = machine.partition.block
    with torch.no_grad():
        for k in layers:
            machine.weight[block(k + 1), block(k), 0] = of[f"weight_ih_l{k}"]
            machine.weight[block(k + 1), block(k + 1), 1] = of[f"weight_hh_l{k}"]
        if machine.bias is not None:
            sums = [of[f"bias_ih_l{k}"] + of[f"bias_hh_l{k}"] for k in layers]
            machine.bias.copy_(torch.cat([sums[0].new_zeros(rnn.input_size), *sums]))
    return machine


# ---- sequences ---------------------------------------------------------------------------------------------------


def _flat(sequential: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers with their paths, those of a sequence within a sequence too, and each as often as it occurs."""
    if not _computes_as(sequential, nn.Sequential):
        got = type(sequential).__name__
        raise ValueError(_own_forward(f"{prefix[:-1]} ({got})" if prefix else f"got {got}, which", "an nn.Sequential"))
    for name, layer in sequential._modules.items():
        if isinstance(layer, nn.Sequential):
            yield from _flat(layer, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", layer


def _computes_as(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module of a class, or of a subclass of it, does what the class does."""
    methods = ("forward", "_conv_forward")
    return all(getattr(getattr(layer, m, None), "__func__", None) is getattr(kind, m, None) for m in methods)


def _own_forward(who: str, wanted: str) -> str:
    return (
        f"{who} has a forward of its own, and a machine can only be equal to torch's: give {wanted}, "
        "or write the network as a sum of mg.Machine"
    )


def _check(name: str, layer: Any, before: list[tuple[str, Any]]) -> None:
    """That the layer fits a machine, and those before it."""
    kind = f"{name} ({type(layer).__name__})"
    base = next(base for base in (nn.Linear, *CONVOLUTIONS) if isinstance(layer, base))
    if not _computes_as(layer, base):
        raise ValueError(_own_forward(kind, f"an nn.{base.__name__}"))
    if isinstance(layer.weight, nn.UninitializedParameter):
        raise ValueError(f"{kind} has no weights yet: call the network once")
    if isinstance(layer, CONVOLUTIONS):
        _check_convolution(kind, layer)
    if not before:
        return
    (first_name, first), (last_name, last) = before[0], before[-1]
    if _properties(layer) != _properties(first):
        name, got = next((name, got) for name, got in _properties(layer).items() if got != _properties(first).get(name))
        raise ValueError(
            f"{kind} has {name} {got} and {first_name} has {_properties(first).get(name)}: "
            "all layers of one machine have the same"
        )
    if _widths(layer)[0] != _widths(last)[1]:
        raise ValueError(f"{kind} reads {_widths(layer)[0]} channels and {last_name} gives {_widths(last)[1]}")


def _check_convolution(kind: str, layer: Any) -> None:
    if prod(layer.stride) != 1:
        raise ValueError(f"{kind} has stride {layer.stride}: all blocks of a machine have one size, so give stride 1")
    if layer.groups != 1:
        raise ValueError(f"{kind} has {layer.groups} groups: a machine's mask is of blocks, so give groups=1")
    if layer.padding_mode not in ("zeros", "circular"):
        raise ValueError(f'{kind} has padding_mode="{layer.padding_mode}": a machine pads with "zeros" or "circular"')
    sides = tuple(margins(layer.kernel_size, layer.dilation, "same"))
    padding = layer.padding
    if padding == "valid":
        padding = (0,) * len(sides)
    if padding != "same" and tuple((p, p) for p in padding) != sides:
        raise ValueError(
            f"{kind} has padding {layer.padding}: all blocks of a machine have one size and one border, "
            'so give padding="same"'
        )


def _widths(layer: Any) -> tuple[int, int]:
    outputs, inputs = layer.weight.shape[:2]
    return int(inputs), int(outputs)


def _properties(layer: Any) -> dict[str, Any]:
    """What all layers of one machine have in common."""
    common: dict[str, Any] = {"axes": layer.weight.dim() - 2}
    if common["axes"]:
        common |= {name: getattr(layer, name) for name in ("kernel_size", "dilation", "padding_mode")}
    return common | {"dtype": layer.weight.dtype, "device": layer.weight.device}


def _pointwise(name: str, layer: nn.Module) -> Any:
    if type(layer) in NAMED:
        known, settings = NAMED[type(layer)]
        if all(getattr(layer, key) == value for key, value in settings.items()):
            return known
    elif type(layer) not in POINTWISE:
        raise ValueError(
            f"{name} ({type(layer).__name__}) is neither a Linear or convolution nor a pointwise nonlinearity that is "
            "known to be one: take it out, or write the network as a sum of mg.Machine"
        )
    layer = copy.deepcopy(layer)
    if hasattr(layer, "inplace"):
        layer.inplace = False  # type: ignore[assignment]
    return layer


def _with_weights(layers: list[Any], activation: list[Any]) -> DenseMachine | ConvMachine:
    first, bias = layers[0], any(layer.bias is not None for layer in layers)
    widths = [_widths(first)[0], *(_widths(layer)[1] for layer in layers)]
    settings: dict[str, Any] = {"dtype": first.weight.dtype, "device": first.weight.device, "bias": bias}
    settings |= {"activation": activation, "shortcuts": "sequential"}
    machine: DenseMachine | ConvMachine
    if isinstance(first, nn.Linear):
        machine = DenseMachine(widths, **settings)
    else:
        padding: Padding = "circular" if first.padding_mode == "circular" else "same"
        machine = ConvMachine(widths, first.kernel_size, dilation=first.dilation, padding=padding, **settings)
    _copy(machine, [layer.weight for layer in layers], [layer.bias for layer in layers])
    return machine


def _copy(machine: ParametricMachine, weights: list[Tensor], biases: list[Tensor | None]) -> None:
    block = machine.partition.block
    with torch.no_grad():
        if machine.bias is not None:
            machine.bias.zero_()
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True), start=1):
            machine.weight[block(i), block(i - 1)] = weight
            if bias is not None and machine.bias is not None:
                machine.bias[block(i)] = bias
