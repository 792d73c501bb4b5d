"""Derivatives of first and second order on random shapes, for all three kinds of machine."""

import torch
from helpers import solver
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

import machgraph as mg

small = st.integers(1, 2)


@st.composite
def machines_and_sizes(draw):
    widths = draw(st.lists(small, min_size=2, max_size=4))
    sigma = draw(st.sampled_from(["tanh", "sigmoid", "silu", "sine"]))
    kind = draw(st.sampled_from(["dense", "convolution", "recurrence"]))
    if kind == "dense":
        return mg.DenseMachine(widths, activation=sigma, dtype=torch.float64), ()
    if kind == "recurrence":
        lags, timeblock, steps = draw(st.integers(0, 2)), draw(small), draw(st.integers(1, 4))
        rnn = mg.RecurrentMachine(widths, lags, timeblock=timeblock, activation=sigma, dtype=torch.float64)
        return rnn, (steps,)
    kernel = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    padding = draw(st.sampled_from(["same", "causal", "circular"]))
    convolution = mg.ConvMachine(widths, kernel, padding=padding, activation=sigma, dtype=torch.float64)
    return convolution, tuple(draw(st.integers(2, 3)) for _ in kernel)


@given(machines_and_sizes(), small)
@settings(max_examples=40, deadline=None)
def test_derivatives_on_random_shapes(case, samples):
    machine, size = case
    torch.manual_seed(0)
    x = torch.randn(2, samples, machine.partition.size, *size, dtype=torch.float64)
    tensors = (torch.randn_like(machine.weight), torch.randn_like(machine.bias), *x)
    arguments = [tensor.detach().requires_grad_() for tensor in tensors]
    assert gradcheck(solver(machine), arguments, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(solver(machine), arguments, fast_mode=True)
