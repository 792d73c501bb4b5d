"""The compiled loop as it trains: a step is one of descent on the loss of the reference in plain torch."""

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st
from test_compiled import by_reference, close, machines

import machgraph as mg


@given(machines(), st.sampled_from(["each", "mean", "last"]), st.booleans(), st.integers(1, 9))
def test_a_step_of_training_is_one_of_descent(case, reading, classes, samples):
    """On random machines; ``test_candidates`` takes many steps, by all optimizers."""
    machine, size = case
    reading = "mean" if reading == "last" and len(size) > 1 else reading
    exact, rate, generator = copy.deepcopy(machine).double(), 0.25, torch.Generator().manual_seed(0)
    inputs, outputs = machine.partition.widths[0], machine.partition.widths[-1]
    x = torch.randn(samples, inputs, *size, generator=generator, dtype=machine.weight.dtype)
    z = exact.output(by_reference(exact, x.double())[1]).reshape(samples, outputs, -1)
    z = {"each": z, "mean": z.mean(-1, keepdim=True), "last": z[..., -1:]}[reading]
    axes = size if reading == "each" else ()
    if classes:
        y = torch.randint(0, outputs, (samples, *axes), generator=generator)
        loss = torch.nn.functional.cross_entropy(z, y.reshape(samples, -1), label_smoothing=0.1)
        objective = mg.Objective("cross_entropy", reading, label_smoothing=0.1)
    else:
        y = torch.randn(samples, outputs, *axes, generator=generator, dtype=x.dtype)
        loss = (z - y.reshape(z.shape)).square().mean()
        objective = mg.Objective("squared_error", reading)
    slopes = dict(zip(("weight", "bias"), torch.autograd.grad(loss, list(exact.parameters())), strict=False))
    if not machine.weight_mask[:inputs].any() and "bias" in slopes:
        slopes["bias"][:inputs] = 0  # whoever hears the input has a bias of its own
    together = mg.Population(objective)
    candidate = together.enter(machine, mg.Optimizer("sgd", rate, momentum=0.0))
    tolerance = 1e-11 if machine.weight.dtype == torch.float64 else 1e-4
    told = torch.tensor(together.descend(mg.batches(x, y, samples)[0], [1.0]), dtype=torch.float64)
    close([told], [loss[None]], tolerance)
    found = dict(zip(("weight", "bias"), candidate.weights(), strict=True))
    for name, slope in slopes.items():
        close([found[name]], [getattr(exact, name) - rate * slope], tolerance)
    assert (found["weight"][~torch.from_numpy(machine.weight_mask)] == 0).all()
