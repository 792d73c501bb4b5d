"""The compiled loop as torch sees it: machines solved and differentiated by it, as by the reference in plain torch."""

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
import torch
from helpers import lag_masks, masks, solver
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, grad, jvp, vmap
from torch.utils.checkpoint import checkpoint

import machgraph as mg
from machgraph import compiled
from machgraph.activation import ACTIVATIONS
from machgraph.partition import Partition

if not compiled.available():
    pytest.skip("numba is not installed, or MACHGRAPH_COMPILED=0", allow_module_level=True)

GUARD, CANARY = 64, 12345.0
MACHINES = {
    "dense": (lambda **s: mg.DenseMachine((2, 1, 1), **s), ()),
    "same": (lambda **s: mg.ConvMachine((1, 2, 1), 3, **s), (3,)),
    "circular": (lambda **s: mg.ConvMachine((1, 1, 1), (2, 3), padding="circular", **s), (2, 3)),
    "recurrence": (lambda **s: mg.RecurrentMachine((1, 2, 1), 2, timeblock=2, **s), (4,)),
}


def made(kind, dtype=torch.float64, activation="tanh", **settings):
    """A machine and the size of its positions."""
    make, size = MACHINES[kind]
    generator = torch.Generator().manual_seed(0)
    return make(activation=activation, dtype=dtype, generator=generator, **settings), size


def given_to(machine, size, samples=3, seed=0):
    """``y0`` and ``z0`` with all channels."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, samples, machine.partition.size, *size)
    return torch.randn(shape, generator=generator, dtype=machine.weight.dtype).unbind()


@pytest.fixture(params=MACHINES)
def case(request):
    machine, size = made(request.param)
    return machine, *given_to(machine, size)


@pytest.fixture
def calls(monkeypatch):
    """One entry for each solution by the compiled loop."""
    found, resolvent = [], compiled.resolvent
    monkeypatch.setattr(compiled, "resolvent", lambda *arguments: found.append(arguments) or resolvent(*arguments))
    return found


def is_compiled(x):
    return isinstance(x.grad_fn, compiled._CompiledResolvent._backward_cls)


def by_reference(machine, *x):
    return machine.reference(machine.weight, machine.bias, *x)


def close(found, expected, tolerance=1e-11):
    """Each tensor to within what rounding may do to numbers of the size of its largest."""
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a.double(), b.double(), rtol=0, atol=tolerance * max(1.0, b.abs().max().item()))


# ---- values and gradients on random machines ---------------------------------------------------------------------


@st.composite
def machines(draw):
    """A machine of any kind, and the size of its positions."""
    kind = draw(st.sampled_from(["dense", "convolution", "recurrence"]))
    seed = draw(st.integers(0, 999))
    told = {
        "bias": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float32, torch.float64])),
        "generator": torch.Generator().manual_seed(seed),
    }
    if kind == "recurrence":
        partition, lags, timeblock, mask = draw(lag_masks())
        told |= {"timeblock": timeblock}
    else:
        partition, mask = draw(masks())
    widths = tuple(width * draw(st.sampled_from([1, 1, 3, 11])) for width in partition.widths)
    told |= {"activation": [draw(st.sampled_from(list(ACTIVATIONS))) for _ in widths], "shortcuts": mask}
    if kind == "recurrence":
        return mg.RecurrentMachine(widths, lags, **told), (draw(st.integers(1, 7)),)
    if kind == "dense":
        return mg.DenseMachine(widths, **told), ()
    kernel = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    dilation = [draw(st.integers(1, 2)) for _ in kernel]
    padding = draw(st.sampled_from(["same", "causal", "circular"]))
    least = [d * (k - 1) if padding == "circular" else 1 for d, k in zip(dilation, kernel, strict=True)]
    size = tuple(draw(st.integers(max(1, n), 4)) for n in least)
    return mg.ConvMachine(widths, kernel, padding=padding, dilation=dilation, **told), size


LAYOUTS = {
    "plain": lambda x: x,
    "expanded": lambda x: x[:1].expand_as(x),
    "transposed": lambda x: x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim()))),
    "sliced": lambda x: x.repeat_interleave(2, -1).repeat_interleave(3, 0)[1::3, ..., ::2],
    "negated": lambda x: torch.complex(x, -x).conj().imag,  # torch keeps the sign apart from the memory
}


@st.composite
def tensors(draw, machine, size, samples, least, layouts=tuple(LAYOUTS)):
    """Of some of the channels, laid out in memory in some way; or none, if there may be none."""
    channels = draw(st.integers(least, machine.partition.size))
    if channels == 0:
        return None
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(samples, channels, *size, generator=generator, dtype=machine.weight.dtype)
    return LAYOUTS[draw(st.sampled_from(layouts))](x)


@contextmanager
def guarded():
    """Solutions lie between canaries, in memory of no numbers."""
    memories, solution = [], compiled._solution

    def between(*arguments):
        x = solution(*arguments)
        length = x.untyped_storage().nbytes() // x.element_size()
        memory = torch.full((length + 2 * GUARD,), CANARY, dtype=x.dtype)
        memory[GUARD:-GUARD] = torch.nan
        memories.append(memory)
        return x.new_empty(0).set_(memory.untyped_storage(), GUARD + x.storage_offset(), x.shape, x.stride())

    with (
        mock.patch.object(compiled, "_solution", between),
        mock.patch.object(compiled, "_another", lambda plan, x: between(plan, x)),
    ):
        yield memories
    for memory in memories:
        assert (memory[:GUARD] == CANARY).all()
        assert (memory[-GUARD:] == CANARY).all()


def leaf(x):
    return None if x is None else x.detach().requires_grad_()


@given(machines(), st.integers(1, 70), st.data())
@settings(max_examples=200)
def test_solutions_and_gradients_are_those_of_the_reference(case, samples, data):
    machine, size = case
    inputs = [data.draw(tensors(machine, size, samples, least, [*LAYOUTS][:-1])) for least in (1, 0)]
    cotangents = [data.draw(tensors(machine, size, samples, machine.partition.size)) for _ in range(2)]
    learned = [x for x in (*machine.parameters(), *map(leaf, inputs)) if x is not None]
    with guarded() as memories:
        solution = machine.solve(*learned[-2:] if inputs[1] is not None else learned[-1:])
        found = torch.autograd.grad(solution, learned, cotangents)
    assert len(memories) == 4
    exact = copy.deepcopy(machine).double()
    y0, z0 = (None if x is None else leaf(x.double()) for x in inputs)
    expected_solution = by_reference(exact, y0, z0)
    learned = [x for x in (*exact.parameters(), y0, z0) if x is not None]
    expected = torch.autograd.grad(expected_solution, learned, [x.double() for x in cotangents])
    tolerance = 1e-11 if machine.weight.dtype == torch.float64 else 1e-4
    close(solution, expected_solution, tolerance)
    close(found, expected, tolerance)
    assert (found[0][~torch.from_numpy(machine.weight_mask)] == 0).all()


def test_wide_machines_of_many_samples():
    """Products that are done in blocks, also where rows of memory lie far apart."""
    for machine, shape in (
        (mg.DenseMachine((300, 260, 70, 5), dtype=torch.float64), (1030, 300)),
        (mg.ConvMachine((3, 70, 2), 3, dtype=torch.float64), (9, 3, 130)),
    ):
        y0 = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
        with guarded():
            z = machine(y0)
            found = torch.autograd.grad(z.square().sum(), [*machine.parameters(), y0])
        assert is_compiled(z)
        expected = by_reference(machine, y0)[1]
        close([z], [expected])
        close(found, torch.autograd.grad(expected.square().sum(), [*machine.parameters(), y0]))


def test_derivatives_by_differences(case, calls):
    """Of first order by the compiled loop, of second order by the reference."""
    machine, y0, z0 = case
    x = [leaf(a) for a in (machine.weight, machine.bias, y0[:2], z0[:2])]
    assert gradcheck(solver(machine), x)
    assert calls
    assert gradgradcheck(solver(machine), x, fast_mode=True)
    assert all(is_compiled(half) for half in machine.solve(y0, z0))


def test_second_order_is_that_of_the_reference(case):
    machine, y0, z0 = case
    found, expected = [], []
    for solve, results in ((machine.solve, found), (lambda *x: by_reference(machine, *x), expected)):
        x = (*machine.parameters(), leaf(y0), leaf(z0))
        y, z = solve(*x[2:])
        first = torch.autograd.grad((y * z).sum(), x, create_graph=True)
        results += torch.autograd.grad(sum(g.square().sum() for g in first), x)
    close(found, expected)


# ---- what autograd may ask for -----------------------------------------------------------------------------------


def gradients(machine, outputs, cotangents=None, **options):
    return torch.autograd.grad(outputs, list(machine.parameters()), cotangents, **options)


def test_a_retained_graph_gives_the_same_again(case):
    machine, y0, z0 = case
    y, z = machine.solve(y0, z0)
    loss = (y * z).sum()
    first = [g.clone() for g in gradients(machine, loss, retain_graph=True)]
    assert all(torch.equal(a, b) for a, b in zip(first, gradients(machine, loss), strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        gradients(machine, loss)


@pytest.mark.parametrize("half", [0, 1])
def test_a_solution_that_was_changed_is_told(case, half):
    machine, y0, z0 = case
    solution = machine.solve(y0, z0)
    loss = sum(x.sum() for x in solution)
    with torch.no_grad():
        solution[half].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


CHANGES = {
    "shortcuts": lambda m: setattr(m, "shortcuts", m.shortcuts & False),
    "activation": lambda m: setattr(m, "activation", made("dense", activation="sine")[0].activation),
    "dilation": lambda m: setattr(m, "dilation", (2,) * m.dimensions),
    "padding": lambda m: setattr(m, "padding", "causal"),
    "timeblock": lambda m: setattr(m, "timeblock", 1),
}


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_the_gradient_is_that_of_the_machine_as_it_was(case, change, create_graph):
    machine, y0, z0 = case
    solution = machine.solve(y0, z0)
    expected = gradients(machine, torch.mul(*by_reference(machine, y0, z0)).sum())
    CHANGES[change](machine)
    close(gradients(machine, torch.mul(*solution).sum(), create_graph=create_graph), expected)


@pytest.mark.parametrize("half", [0, 1])
def test_one_half_alone(case, half):
    machine, y0, z0 = case
    x = leaf(y0), leaf(z0)
    found = torch.autograd.grad(machine.solve(*x)[half].square().sum(), [*machine.parameters(), *x])
    expected = torch.autograd.grad(by_reference(machine, *x)[half].square().sum(), [*machine.parameters(), *x])
    close(found, expected)


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_what_is_frozen_gets_no_gradient(case, frozen):
    machine, y0, _ = case
    getattr(machine, frozen).requires_grad_(False)
    y0 = leaf(y0)
    machine(y0).sum().backward()
    others = {"weight", "bias"} - {frozen}
    assert getattr(machine, frozen).grad is None
    learned = [getattr(machine, name) for name in others] + [y0]
    close([x.grad for x in learned], torch.autograd.grad(by_reference(machine, y0)[1].sum(), learned))


def test_the_input_alone(case):
    machine, y0, _ = case
    machine.requires_grad_(False)
    assert not machine(y0).requires_grad
    y0 = leaf(y0)
    (found,) = torch.autograd.grad(machine(y0).sum(), y0)
    close([found], torch.autograd.grad(by_reference(machine, y0)[1].sum(), y0))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(case, mode, calls):
    machine, y0, z0 = case
    with mode():
        solution = machine.solve(y0, z0)
    assert len(calls) == 1
    assert not any(x.requires_grad for x in solution)
    close(solution, by_reference(machine, y0, z0))


def test_batches_of_cotangents(case):
    machine, y0, z0 = case
    z = machine.solve(y0, z0)[1]
    cotangents = torch.randn(4, *z.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype)
    one_by_one = [gradients(machine, z, cotangent, retain_graph=True) for cotangent in cotangents]
    expected = [torch.stack(several) for several in zip(*one_by_one, strict=True)]
    close(gradients(machine, z, cotangents, is_grads_batched=True, retain_graph=True), expected)
    close(vmap(lambda cotangent: gradients(machine, z, cotangent, retain_graph=True))(cotangents), expected)


def test_forward_mode_over_a_backward_pass(case):
    """The dual is linear in its cotangents."""
    machine, y0, z0 = case
    z = machine.solve(y0, z0)[1]
    v, tangent = torch.randn(2, *z.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype)
    with forward_ad.dual_level():
        found = gradients(machine, z, forward_ad.make_dual(v, tangent), retain_graph=True)
        tangents = [forward_ad.unpack_dual(g).tangent.clone() for g in found]
    close(tangents, gradients(machine, z, tangent))


def test_a_negated_cotangent(case):
    """Of an imaginary part after a conjugation, torch keeps the sign apart from the memory."""
    machine, y0, z0 = case
    z = machine.solve(y0, z0)[1]
    v = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype)
    loss = (torch.complex(torch.zeros_like(z), z).conj() * v).imag.sum()
    close(gradients(machine, loss, retain_graph=True), gradients(machine, z, -v))


HOOKS = {
    "a copy": lambda x: x.clone(),
    "a contiguous copy": lambda x: x.clone(memory_format=torch.contiguous_format),
    "a copy of the same strides": lambda x: torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).copy_(x),
    "the same": lambda x: x,
}


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_on_saved_tensors(case, hook):
    """They may give back other memory, which has no padding around it."""
    machine, y0, z0 = case
    with torch.autograd.graph.saved_tensors_hooks(HOOKS[hook], lambda x: x):
        solution = machine.solve(y0, z0)
    expected = by_reference(machine, y0, z0)
    close(gradients(machine, torch.mul(*solution).sum()), gradients(machine, torch.mul(*expected).sum()))


def test_checkpoints(case):
    machine, y0, z0 = case
    y, z = checkpoint(machine.solve, y0, z0, use_reentrant=False)
    close(gradients(machine, (y * z).sum()), gradients(machine, torch.mul(*machine.solve(y0, z0)).sum()))


TIES = {
    "the solution as input": lambda solve, y0, z0: solve(*solve(y0, z0)),
    "weights in the input": lambda solve, y0, z0: solve(solve(y0)[1].cos(), z0),
    "twice the same": lambda solve, y0, _: solve(y0, y0),
}
WAYS = {
    "create_graph": lambda outputs, x, v: torch.autograd.grad(outputs, x, v, create_graph=True),
    "batches of cotangents": lambda outputs, x, v: [
        g[0] for g in torch.autograd.grad(outputs, x, v[None], is_grads_batched=True)
    ],
    "hooks": lambda outputs, x, v: torch.autograd.grad(outputs, x, v),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tie", TIES)
def test_inputs_that_depend_on_each_other(case, tie, way):
    """What one input owes to another is autograd's to add, once."""
    machine, y0, z0 = case
    y0, z0 = leaf(y0), leaf(z0)
    x = [*machine.parameters(), y0, *([] if tie == "twice the same" else [z0])]
    hook = HOOKS["a contiguous copy" if way == "hooks" else "the same"]
    with torch.autograd.graph.saved_tensors_hooks(hook, lambda x: x):
        y, z = TIES[tie](machine.solve, y0, z0)
    v = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    expected = TIES[tie](lambda *x: by_reference(machine, *x), y0, z0)
    close(WAYS[way](y * z, x, v), torch.autograd.grad(torch.mul(*expected), x, v))


# ---- which way is taken ------------------------------------------------------------------------------------------


def test_functional_calls_take_the_loop(case, calls):
    machine, y0, _ = case
    weight, bias = leaf(2 * machine.weight), leaf(machine.bias + 1)
    z = functional_call(machine, {"weight": weight, "bias": bias}, y0)
    assert len(calls) == 1
    expected = machine.reference(weight, bias, y0)[1]
    close([z], [expected])
    close(torch.autograd.grad(z.sum(), (weight, bias)), torch.autograd.grad(expected.sum(), (weight, bias)))


def parameters(machine):
    return {name: parameter.detach() for name, parameter in machine.named_parameters()}


class Numbers(torch.Tensor):
    """A tensor of one's own, which may be without memory."""


OTHER_WAYS = {
    "autocast": lambda m, y0: _autocast(m, y0),
    "forward mode": lambda m, y0: jvp(m, (y0,), (y0,)),
    "dual numbers": lambda m, y0: _dual_numbers(m, y0),
    "vmap": lambda m, y0: vmap(m)(y0[None]),
    "vmap without a batch": lambda m, y0: vmap(m)(y0),
    "grad": lambda m, y0: grad(lambda p: functional_call(m, p, y0).sum())(parameters(m)),
    "no batch": lambda m, y0: m(y0[0]),
    "more batches": lambda m, y0: m(y0[None]),
    "no sample": lambda m, y0: m(y0[:0]),
    "bfloat16": lambda m, y0: copy.deepcopy(m).bfloat16()(y0.bfloat16()),
    "meta": lambda m, y0: copy.deepcopy(m).to("meta")(y0.to("meta")),
    "fake tensors": lambda m, y0: _fake(m, y0),
    "weights in another order": lambda m, y0: functional_call(m, {"weight": m.weight.mT.contiguous().mT}, y0),
    "slopes": lambda m, y0: m.solve(y0, slopes=y0),
    "a negated view": lambda m, y0: m(LAYOUTS["negated"](y0)),
    "a subclass": lambda m, y0: m(y0.as_subclass(Numbers)).as_subclass(torch.Tensor),
}


def _autocast(m, y0):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return copy.deepcopy(m).float()(y0.float())


def _dual_numbers(m, y0):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(m(forward_ad.make_dual(y0, y0))).tangent.clone()


def _fake(m, y0):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return m(mode.from_tensor(y0)).shape


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_the_rest_goes_by_the_reference(case, calls, way, monkeypatch):
    machine, y0, _ = case
    found = OTHER_WAYS[way](machine, y0)
    assert not calls
    monkeypatch.setattr(compiled, "serves", lambda *_: False)
    torch.testing.assert_close(found, OTHER_WAYS[way](machine, y0), check_device=True)


def test_a_nonlinearity_of_ones_own_goes_by_the_reference(calls):
    machine, size = made("same", activation=lambda y: y * y)
    y0, z0 = given_to(machine, size)
    y, z = machine.solve(y0, z0)
    assert not calls
    torch.testing.assert_close(z, y * y + z0)
    named = mg.DenseMachine((1, 2, 1), activation=["tanh", torch.sin, "tanh"])
    named(torch.ones(1, 1))
    assert not calls


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_goes_by_the_reference(case, calls):
    machine, y0, _ = case
    expected = machine(y0)
    del calls[:]
    close([machine.cuda()(y0.cuda()).cpu()], [expected])
    assert not calls


@pytest.mark.filterwarnings("ignore")
def test_traces_record_the_operations(case):
    machine, y0, _ = case
    traced = torch.jit.trace(machine, y0)
    close([traced(2 * y0)], [machine(2 * y0)])


def test_a_choice_of_activation_after_the_first_solution():
    machine, size = made("dense")
    y0, _ = given_to(machine, size)
    machine(y0)
    machine.activation = made("dense", activation="sine")[0].activation
    close(machine.solve(y0), by_reference(machine, y0))
    close(copy.deepcopy(machine).solve(y0), by_reference(machine, y0))


def test_the_environment_can_forbid_it():
    program = "import torch, machgraph as mg; z = mg.DenseMachine((1, 1))(torch.ones(1, 1)); print(type(z.grad_fn))"
    program += "; import sys; print('numba' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, env=os.environ | {"MACHGRAPH_COMPILED": "0"},
    )  # fmt: skip
    assert "Resolvent" not in result.stdout
    assert result.stdout.endswith("False\n")


# ---- memory that is not what it seems ----------------------------------------------------------------------------


STRANGE_BIASES = {
    "with gaps": lambda b: torch.stack([b, b + 1], dim=1)[:, 0],
    "expanded": lambda b: b[:1].expand_as(b),
    "of another type": lambda b: b.float(),
    "negated": lambda b: torch.complex(b, -b).conj().imag,
}


@pytest.mark.parametrize("kind", STRANGE_BIASES)
def test_strange_biases(case, kind):
    machine, y0, _ = case
    bias = STRANGE_BIASES[kind](machine.bias.detach())
    expected = machine.reference(machine.weight, bias.clone().double(), y0)[1]
    close([functional_call(machine, {"bias": bias}, y0)], [expected])


def test_strides_along_axes_of_one_entry():
    """They may be anything, also of a weight that torch calls contiguous."""
    machine = mg.ConvMachine((1, 2), (3, 1), dtype=torch.float64)
    weight = machine.weight.detach().permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    weight = weight.as_strided(weight.shape, (*weight.stride()[:3], 77))
    assert weight.is_contiguous()
    y0 = given_to(machine, (4, 4))[0]
    close([functional_call(machine, {"weight": weight}, y0)], [machine(y0)])


def test_a_device_that_torch_was_told_to_prefer(case):
    machine, y0, z0 = case
    with torch.device("meta"):
        y, z = machine.solve(y0, z0)
        found = gradients(machine, (y * z).sum())
    close(found, gradients(machine, torch.mul(*by_reference(machine, y0, z0)).sum()))


@pytest.mark.parametrize(
    ("z0", "error", "sentence"),
    [
        (lambda z0: z0[0, 0], ValueError, "got (y0 of shape .* and )?z0 of shape"),
        (lambda z0: z0[:1], ValueError, "they may differ in the number of channels alone"),
        (lambda z0: z0[:, :0], ValueError, "1 to . channels"),
        (lambda z0: z0.repeat(1, 2, *[1] * (z0.dim() - 2)), ValueError, "1 to . channels"),
        (lambda z0: z0.tolist(), TypeError, "got z0 of type list"),
        (lambda z0: z0.float(), ValueError, "got z0 of torch.float32"),
    ],
)
def test_what_does_not_fit_is_told(case, z0, error, sentence):
    machine, y0, whole = case
    with pytest.raises(error, match=sentence):
        machine.solve(y0, z0(whole))


@pytest.mark.parametrize("taps", [2, 4])
def test_weights_of_another_kernel_are_refused(taps):
    machine, size = made("same")
    with pytest.raises(ValueError, match="got weight of shape"):
        functional_call(machine, {"weight": torch.zeros(4, 4, taps, dtype=torch.float64)}, given_to(machine, size)[0])


@pytest.mark.parametrize(
    ("machine", "change"),
    [
        (mg.ConvMachine((2, 2), 1, bias=False), {"weight": (2, 2, 4)}),
        (mg.ConvMachine((2, 2), 1, bias=False), {"weight": (4, 2, 2)}),
        (mg.ConvMachine((2, 2), (2, 3)), {"weight": (4, 4, 3, 2)}),
        (mg.ConvMachine((2, 2), 4), {"partition": Partition((4, 4)), "kernel_size": (1,)}),
        (mg.RecurrentMachine((2, 2), 1), {"_shortcuts": np.tri(2, k=-1, dtype=bool)[None]}),
        (mg.DenseMachine((2, 2)), {"activation": made("dense")[0].activation[:1]}),
    ],
)
def test_a_machine_that_was_changed_to_what_does_not_fit_is_told(machine, change):
    machine = copy.deepcopy(machine)
    for name, value in change.items():
        setattr(machine, name, torch.nn.Parameter(torch.zeros(value)) if name == "weight" else value)
    with pytest.raises(ValueError, match=r"got (weight of shape|1 activations for 2 blocks)"):
        machine(torch.ones(3, 2, *[5] * machine.dimensions))


def test_a_weight_that_shrank_is_told(case):
    machine, y0, _ = case
    loss = machine(y0).sum()
    machine.weight.data = machine.weight.data[:1, :1].clone()
    with pytest.raises(RuntimeError, match=r"got weight of shape .* solve again"):
        loss.backward()


def test_weights_of_another_machine_are_refused(case):
    machine, y0, _ = case
    with pytest.raises((RuntimeError, ValueError)):
        functional_call(machine, {"weight": machine.weight[:-1, :-1].contiguous()}, y0[:, :1])


@pytest.mark.parametrize("kind", ["with gaps", "of another type"])
def test_strange_biases_in_what_torch_compiles(kind):
    machine, size = made("same")
    y0, bias = given_to(machine, size)[0], STRANGE_BIASES[kind](machine.bias.detach())
    solve = torch.compile(lambda bias, y0: functional_call(machine, {"bias": bias}, y0), backend="eager")
    close([solve(bias, y0)], [machine.reference(machine.weight, bias.double(), y0)[1]])


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        (((3, 5, 3),), "got y0 of shape"),
        (((3, 2, 0),), "it has no positions"),
        (((3, 2, 3), (3, 5, 3)), "got z0 of shape"),
        (((3, 2, 3), (3, 2, 2)), "they may differ in the number of channels alone"),
    ],
)
def test_what_does_not_fit_is_told_by_what_torch_compiles(shapes, sentence):
    solve = torch.compile(made("same")[0].solve, backend="eager")
    with pytest.raises((ValueError, torch._dynamo.exc.TorchDynamoException), match=sentence):
        solve(*(torch.ones(shape, dtype=torch.float64) for shape in shapes))


# ---- threads -----------------------------------------------------------------------------------------------------


def test_threads_give_the_same_as_one():
    def solved(seed):
        machine, size = made(list(MACHINES)[seed % 4], dtype=(torch.float32, torch.float64)[seed % 2])
        y0 = leaf(given_to(machine, size, samples=1 + 40 * (seed % 3), seed=seed)[0])
        y, z = machine.solve(y0)
        return [y.detach(), z.detach(), *torch.autograd.grad((y * z).sum(), [*machine.parameters(), y0])]

    alone = [solved(seed) for seed in range(120)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(solved, range(120)))
    for a, b in zip(alone, together, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ---- surroundings ------------------------------------------------------------------------------------------------


def test_a_numba_that_can_not_be_imported_is_told_once_and_torch_goes_on(monkeypatch, calls):
    machine, size = made("dense")
    y0, _ = given_to(machine, size)
    monkeypatch.setitem(sys.modules, "numba", None)
    compiled._numba_works.cache_clear()
    try:
        with pytest.warns(
            UserWarning, match=r"numba is installed, but its import fails \(ModuleNotFoundError: .*torch"
        ):
            found = machine.solve(y0)
        torch.testing.assert_close(found, by_reference(machine, y0))
        together = mg.Population(mg.Objective("squared_error"))
        together.enter(machine, mg.Optimizer())  # and no word of it again
        assert not calls
    finally:
        compiled._numba_works.cache_clear()


def test_the_library_is_imported_without_numba():
    code = "import sys, machgraph, machgraph.compiled, machgraph.population; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_device_that_is_set_around_it_does_not_count():
    machine, size = made("dense")
    y0, v = given_to(machine, size)
    plan, codes = compiled.program(machine, machine.weight, y0)
    with torch.device("meta"):
        y, z = compiled.forward(plan, codes, machine.weight, machine.bias, y0, None)
        gradients = compiled.backward(plan, codes, machine.weight, y, z, v, v, (True, True))
    assert all(gradient.device.type == "cpu" for gradient in gradients)
