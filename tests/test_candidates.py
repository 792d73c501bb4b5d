"""Machines that are trained together fare as each does alone by torch's own optimizers, whoever enters or leaves."""

import copy
import multiprocessing
import pickle
import threading
import time

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import machgraph as mg
from machgraph import compiled, compiled_training, population

RATES = [1.0, 0.5, 0.7, 0.2]
SIZES = {"dense": (), "convolution": (5, 4), "recurrence": (7,)}
OPTIMIZERS = {
    "sgd": mg.Optimizer("sgd", 0.05, weight_decay=0.1, momentum=0.8),
    "adam": mg.Optimizer("adam", 0.01, weight_decay=0.1, betas=(0.8, 0.99)),
    "adamw": mg.Optimizer("adamw", 0.01, weight_decay=0.1, epsilon=1e-4),
}
needs_numba = pytest.mark.skipif(not compiled.AVAILABLE, reason="numba is not installed")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
TRAINERS = [
    pytest.param("compiled", marks=needs_numba),
    "stacked",
    pytest.param("cuda", marks=needs_cuda),
]


def machine(kind, widths, activation, dtype, seed, **more):
    options = {"activation": activation, "dtype": dtype, "generator": torch.Generator().manual_seed(seed), **more}
    if kind == "dense":
        return mg.DenseMachine(widths, **options)
    if kind == "convolution":
        return mg.ConvMachine(widths, (3, 2), **options)
    return mg.RecurrentMachine(widths, 2, **options)


def machines(kind, dtype):
    """Three of different depth, widths, activations and shortcuts."""
    shortcuts = None if kind == "recurrence" else "sequential"
    return [
        machine(kind, (3, 4, 5, 2), "tanh", dtype, seed=0),
        machine(kind, (3, 7, 2), ("identity", "gelu", "identity"), dtype, seed=1, shortcuts=shortcuts),
        machine(kind, (3, 2, 2, 2, 2), "relu", dtype, seed=2, bias=False),
    ]


def samples(kind, loss, reading, dtype, number=22):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(number, 3, *SIZES[kind], generator=generator, dtype=dtype)
    axes = SIZES[kind] if reading == "each" else ()
    if loss == "cross_entropy":
        return x, torch.randint(0, 2, (number, *axes), generator=generator)
    return x, torch.randn(number, 2, *axes, generator=generator, dtype=dtype)


def read(machine, x, reading):
    """Outputs as a loss of torch takes them: ``(sample, output)`` or ``(sample, output, position)``."""
    z = machine.output(machine.reference(machine.weight, machine.bias, x)[1])
    if z.dim() == 2:
        return z
    z = machine.split(machine.reference(machine.weight, machine.bias, x)[1])[-1].flatten(2)
    return {"mean": z.mean(-1), "last": z[..., -1], "each": z}[reading]


def alone(machine, options, objective, x, y, size, rates):
    """A loop of plain torch over batches as they come; the losses."""
    made = {
        "sgd": lambda p: torch.optim.SGD(p, momentum=options.momentum, weight_decay=options.weight_decay),
        "adam": lambda p: torch.optim.Adam(p, betas=options.betas, weight_decay=options.weight_decay),
        "adamw": lambda p: torch.optim.AdamW(p, betas=options.betas, weight_decay=options.weight_decay),
    }
    optimizer, losses = made[options.kind](list(machine.parameters())), []
    for k, rate in enumerate(rates):
        k %= len(x) // size
        part, target = x[k * size : (k + 1) * size], y[k * size : (k + 1) * size]
        outputs = read(machine, part, objective.reading)
        if objective.loss == "cross_entropy":
            loss = F.cross_entropy(outputs, target.flatten(1) if target.dim() > 1 else target, label_smoothing=0.05)
        else:
            loss = (outputs - target.reshape(outputs.shape)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if machine.bias is not None and not machine.shortcuts[..., 0, :].any():
            machine.bias.grad[: machine.partition.widths[0]] = 0  # whoever hears the input has a bias of its own
        for group in optimizer.param_groups:
            group["lr"], group["eps"] = rate * options.learning_rate, options.epsilon
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize(
    ("kind", "loss", "reading"),
    [
        ("dense", "cross_entropy", "mean"),
        ("dense", "squared_error", "each"),
        ("convolution", "cross_entropy", "mean"),
        ("convolution", "squared_error", "each"),
        ("recurrence", "cross_entropy", "each"),
        ("recurrence", "squared_error", "last"),
    ],
)
def test_as_alone_whoever_enters_or_leaves(kind, loss, reading, options, trainer, monkeypatch):
    if trainer == "stacked":
        monkeypatch.setattr(population, "trains", lambda machine: False)
    device = "cuda" if trainer == "cuda" else "cpu"
    objective = mg.Objective(loss, reading, label_smoothing=0.05 if loss == "cross_entropy" else 0.0)
    x, y = samples(kind, loss, reading, torch.float64)
    full, rest = mg.batches(x.to(device), y.to(device), size=5)
    first, second, third = (copy.deepcopy(one).to(device) for one in machines(kind, torch.float64))
    together = mg.Population(objective, threads=2)
    a, b = together.enter(first, options), together.enter(second, options)
    told = [together.descend(full, RATES)]
    c = together.enter(third, options)
    told.append(together.descend(full, RATES))
    together.leave([a])
    told.append(together.descend(full, RATES))
    measured = together.measure([full, rest])
    for candidate, place, rounds in ((b, 1, 3), (c, 2, 2)):
        twin = machines(kind, torch.float64)[place]
        losses = alone(twin, options, objective, x, y, 5, RATES * rounds)
        assert told[2][place - 1] == pytest.approx(np.mean(losses[-4:]), rel=1e-8)
        assert candidate.steps == 4 * rounds
        candidate.store()
        for name, parameter in candidate.machine.named_parameters():
            torch.testing.assert_close(parameter.cpu(), getattr(twin, name), rtol=1e-8, atol=1e-10)
        with torch.no_grad():
            outputs = read(twin, x, reading)
        if loss == "cross_entropy":
            target = y.flatten(1) if y.dim() > 1 else y
            expected = F.cross_entropy(outputs, target).item(), (outputs.argmax(1) == target).double().mean().item()
        else:
            expected = (outputs - y.reshape(outputs.shape)).square().mean().item(), 0.0
        assert measured[place - 1] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("trainer", TRAINERS[:2])
def test_schedules_of_their_own(trainer, monkeypatch):
    if trainer == "stacked":
        monkeypatch.setattr(population, "trains", lambda machine: False)
    x, y = samples("dense", "squared_error", "mean", torch.float64)
    data = mg.batches(x, y, size=5)[0]
    together, schedules = mg.Population(mg.Objective("squared_error")), (RATES, RATES[::-1])
    for _ in schedules:
        together.enter(machine("dense", (3, 6, 2), "tanh", torch.float64, seed=0), OPTIMIZERS["adamw"])
    for loss, rates in zip(together.descend(data, schedules), schedules, strict=True):
        twin = machine("dense", (3, 6, 2), "tanh", torch.float64, seed=0)
        losses = alone(twin, OPTIMIZERS["adamw"], mg.Objective("squared_error"), x, y, 5, rates)
        assert loss == pytest.approx(np.mean(losses), rel=1e-8)


@needs_numba
def test_the_number_of_threads_and_of_neighbours_changes_no_bit():
    x, y = samples("dense", "cross_entropy", "mean", torch.float32)
    data = mg.batches(x, y, size=4)[0]
    results = []
    for threads, others in ((1, 0), (2, 0), (2, 7)):
        together = mg.Population(mg.Objective("cross_entropy"), threads=threads)
        candidate = together.enter(machine("dense", (3, 6, 2), "tanh", torch.float32, seed=0), mg.Optimizer())
        for seed in range(others):
            together.enter(machine("dense", (3, 9, 4, 2), "relu", torch.float32, seed), mg.Optimizer("sgd"))
        for _ in range(3):
            together.descend(data, [1.0] * len(data))
        results.append(candidate.weights()[0])
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def cube(y):
    return y**3


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("trainer", TRAINERS[:2])
def test_a_copy_goes_on_as_the_original(copied, trainer, monkeypatch):
    if trainer == "stacked":
        monkeypatch.setattr(population, "trains", lambda machine: False)
    x, y = samples("dense", "squared_error", "mean", torch.float64)
    data = mg.batches(x, y, size=5)[0]
    together = mg.Population(mg.Objective("squared_error"), threads=2)
    for activation in ("tanh", cube, "relu"):
        together.enter(machine("dense", (3, 6, 2), activation, torch.float64, seed=0), OPTIMIZERS["adam"])
    together.descend(data, RATES)
    other = COPIES[copied](together)
    assert other.descend(data, RATES) == together.descend(data, RATES)
    assert other.measure([data]) == together.measure([data])


@needs_numba
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python advises against forks of several threads
def test_a_forked_process_has_threads_of_its_own():
    data = mg.batches(*samples("dense", "squared_error", "mean", torch.float32), size=5)[0]
    together = mg.Population(mg.Objective("squared_error"), threads=2)
    for seed in range(3):
        together.enter(machine("dense", (3, 6, 2), "tanh", torch.float32, seed), mg.Optimizer())
    together.descend(data, RATES)
    time.sleep(0.1)  # until the threads are waiting
    child = multiprocessing.get_context("fork").Process(target=together.descend, args=(data, RATES))
    child.start()
    child.join(60)
    child.kill()
    assert child.exitcode == 0


@needs_numba
@pytest.mark.parametrize("thread", ["main", "other"])
def test_after_an_error_nobody_goes_on(thread, monkeypatch):
    """And the steps are those that were done."""
    began, done, both = [], [], threading.Barrier(2)

    class Training:
        @staticmethod
        def epoch(*arguments):
            began.append(arguments)
            both.wait(30)
            if (threading.current_thread() is threading.main_thread()) == (thread == "main"):
                raise KeyboardInterrupt
            time.sleep(0.2)
            done.append(arguments)
            return 0.0, 0.0

    data = mg.batches(*samples("dense", "squared_error", "mean", torch.float32), size=5)[0]
    together = mg.Population(mg.Objective("squared_error"), threads=2)
    candidates = [
        together.enter(machine("dense", (3, 6, 2), "tanh", torch.float32, seed), mg.Optimizer()) for seed in range(6)
    ]
    monkeypatch.setattr(compiled_training, "_training", Training)
    with pytest.raises(KeyboardInterrupt):
        together.descend(data, RATES)
    assert (len(began), len(done)) == (2, 1)
    assert sum(candidate.steps for candidate in candidates) == len(data)


@pytest.mark.parametrize("trainer", TRAINERS[:2])
def test_one_that_diverges_harms_nobody(trainer, monkeypatch):
    if trainer == "stacked":
        monkeypatch.setattr(population, "trains", lambda machine: False)
    x, y = samples("dense", "squared_error", "mean", torch.float64)
    data = mg.batches(x, y, size=5)[0]
    good, wild = (machine("dense", (3, 6, 2), "identity", torch.float64, seed=0) for _ in range(2))
    together = mg.Population(mg.Objective("squared_error"))
    together.enter(good, OPTIMIZERS["sgd"])
    together.enter(wild, mg.Optimizer("sgd", 1e200))
    for _ in range(4):
        fine, wrong = together.descend(data, RATES)
    assert not np.isfinite(wrong)
    twin = machine("dense", (3, 6, 2), "identity", torch.float64, seed=0)
    losses = alone(twin, OPTIMIZERS["sgd"], mg.Objective("squared_error"), x, y, 5, RATES * 4)
    assert fine == pytest.approx(np.mean(losses[-4:]), rel=1e-8)


@pytest.mark.parametrize("trainer", TRAINERS[:2])
def test_weights_that_the_mask_leaves_out_are_not_read(trainer, monkeypatch):
    if trainer == "stacked":
        monkeypatch.setattr(population, "trains", lambda machine: False)
    x, y = samples("dense", "squared_error", "mean", torch.float64)
    data = mg.batches(x, y, size=5)[0]
    pruned, whole = (machine("dense", (3, 6, 2, 2), "tanh", torch.float64, seed=0) for _ in range(2))
    pruned.shortcuts = machine("dense", (3, 6, 2, 2), "tanh", torch.float64, seed=0, shortcuts="sequential").shortcuts
    together, twin = mg.Population(mg.Objective("squared_error")), copy.deepcopy(pruned)
    for one in (pruned, whole):
        together.enter(one, OPTIMIZERS["adam"])
    told = together.descend(data, RATES)[0]
    with torch.no_grad():
        twin.weight.mul_(torch.from_numpy(twin.weight_mask))
    assert told == pytest.approx(
        np.mean(alone(twin, OPTIMIZERS["adam"], mg.Objective("squared_error"), x, y, 5, RATES)), rel=1e-8
    )


def test_a_nonlinearity_of_ones_own_is_trained_too():
    x, y = samples("dense", "squared_error", "mean", torch.float64)
    data = mg.batches(x, y, size=5)[0]
    together = mg.Population(mg.Objective("squared_error"))
    together.enter(machine("dense", (3, 6, 2), cube, torch.float64, seed=0), OPTIMIZERS["adam"])
    together.enter(machine("dense", (3, 6, 2), "tanh", torch.float64, seed=0), OPTIMIZERS["adam"])
    told = together.descend(data, RATES)
    for activation, loss in ((cube, told[0]), ("tanh", told[1])):
        twin = machine("dense", (3, 6, 2), activation, torch.float64, seed=0)
        losses = alone(twin, OPTIMIZERS["adam"], mg.Objective("squared_error"), x, y, 5, RATES)
        assert loss == pytest.approx(np.mean(losses), rel=1e-8)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": torch.zeros(22, 2)}, "targets of torch.float32 for the loss cross_entropy: give classes"),
        ({"y": torch.full((22,), 2)}, "classes from 2 to 2 for a machine of 2 outputs: they count from 0"),
        ({"y": torch.zeros(22, 4, dtype=torch.long)}, "targets for 4 positions a sample, where outputs are read at 1"),
        ({"x": torch.randn(22, 9)}, "inputs of 9 channels and 0 axes of positions for DenseMachine"),
        ({"x": torch.randn(22, 3, 4)}, "inputs of 3 channels and 1 axes of positions for DenseMachine"),
        ({"x": torch.randn(22, 3).double()}, "inputs of torch.float64 on cpu for a machine of torch.float32"),
    ],
)
def test_data_that_do_not_fit(change, sentence):
    given = {"x": torch.randn(22, 3), "y": torch.zeros(22, dtype=torch.long), **change}
    together = mg.Population(mg.Objective("cross_entropy"))
    together.enter(mg.DenseMachine((3, 2)), mg.Optimizer())
    data = mg.batches(given["x"], given["y"], size=5)[0]
    with pytest.raises(ValueError, match=sentence):
        together.descend(data, [1.0] * len(data))


def test_data_that_are_no_batches():
    x, y, classes = torch.randn(20, 3), torch.randn(20, 1), torch.zeros(20, dtype=torch.long)
    inputs, many = torch.randn(4, 3, 1, 5), torch.zeros(4, 5, dtype=torch.long)
    for wrong, sentence in (
        (lambda: mg.batches(x, y[:, 0], 5), r"y of shape \(20,\): .* for example y\[:, None\]"),
        (lambda: mg.batches(x[:, 0], y, 5), r"x of shape \(20,\)"),
        (lambda: mg.batches(x, y, 0), "size=0: give the number of samples of a batch, at least 1"),
        (lambda: mg.batches(x, y, 7.0), "size=7.0"),
        (lambda: mg.batches(x, torch.cat([y, y]), 5), "20 samples and 40 targets: give one for each"),
        (lambda: mg.batches(x, classes[:12], 5), "20 samples and 12 targets"),
        (lambda: mg.batches(x, 1j * y, 5), "targets of torch.complex64: give real numbers"),
        (lambda: mg.Batches(inputs.long(), many), "inputs of torch.int64 and .* give real numbers"),
        (lambda: mg.Batches(inputs, many[:1]), r"targets of shape \(1, 5\) on cpu for 4 batches"),
        (lambda: mg.Batches(inputs, many.double()), r"give values \[batch, output, position \* sample\]"),
        (lambda: mg.Batches(inputs, many[:, None]), r"give classes \[batch, position \* sample\]"),
        (lambda: mg.Batches(inputs[:, :, 0], many), r"inputs of shape \(4, 3, 5\) for positions of size \(\)"),
        (lambda: mg.Batches(inputs, many, (2, 3)), "with 6 positions"),
        (lambda: mg.Batches(inputs[:0], many[:0]), r"inputs of shape \(0, 3, 1, 5\)"),
        (lambda: mg.Population(mg.Objective("squared_error")).measure([]), "got no batches to measure on"),
    ):
        with pytest.raises(ValueError, match=sentence):
            wrong()
    with pytest.raises(TypeError, match="got x of type ndarray: give a torch tensor"):
        mg.batches(x.numpy(), y.numpy(), 5)
    with pytest.raises(TypeError, match=r"got tuple: give one mg.Batches"):
        mg.Population(mg.Objective("squared_error")).descend(mg.batches(x, y, 5), [1.0])


@pytest.mark.parametrize("trainer", TRAINERS[:2])
def test_data_of_other_types_and_with_a_history(trainer, monkeypatch):
    if trainer == "stacked":
        monkeypatch.setattr(population, "trains", lambda machine: False)
    for loss, change in (
        ("squared_error", lambda x, y: (x.clone().requires_grad_(), y.double().requires_grad_())),
        ("cross_entropy", lambda x, y: (x, y.bool())),
        ("cross_entropy", lambda x, y: (x, y.int())),
    ):
        given, told = samples("dense", loss, "mean", torch.float32), []
        for x, y in (given, change(*given)):
            together = mg.Population(mg.Objective(loss))
            together.enter(machine("dense", (3, 6, 2), "tanh", torch.float32, seed=0), mg.Optimizer())
            parts = mg.batches(x, y, size=5)
            told.append((together.descend(parts[0], RATES), together.measure(part for part in parts)))
        assert told[0] == told[1]


def test_wrong_settings():
    data = mg.batches(torch.randn(8, 3), torch.zeros(8, dtype=torch.long), size=4)[0]
    together = mg.Population(mg.Objective("cross_entropy"))
    with pytest.raises(
        ValueError, match="rates of shape \\(3,\\) for 2 batches and 0 candidates: give one for each batch"
    ):
        together.descend(data, [1.0] * 3)
    with pytest.raises(TypeError, match="got Linear: a population trains dense, convolutional, recurrent machines"):
        together.enter(torch.nn.Linear(3, 2), mg.Optimizer())
    for wrong, sentence in (
        (lambda: mg.Optimizer("adagrad"), "got optimizer 'adagrad'"),
        (lambda: mg.Optimizer(learning_rate=-1.0), "learning_rate=-1.0: it must be 0 or more"),
        (lambda: mg.Optimizer(betas=(0.9, 1.0)), "betas=\\(0.9, 1.0\\): from 0 to below 1"),
        (lambda: mg.Objective("hinge"), "got loss 'hinge'"),
        (lambda: mg.Objective("cross_entropy", "first"), "got reading 'first'"),
        (lambda: mg.Objective("cross_entropy", label_smoothing=1.0), "label_smoothing=1.0: from 0 to below 1"),
        (lambda: mg.Objective("squared_error", label_smoothing=0.1), "for the loss squared_error: only classes are"),
    ):
        with pytest.raises(ValueError, match=sentence):
            wrong()


@pytest.mark.parametrize("compiled_loop", [True, False])
def test_calibration_finds_the_sharpness_of_the_lowest_loss(compiled_loop, monkeypatch):
    monkeypatch.setattr(compiled, "AVAILABLE", compiled_loop and compiled.AVAILABLE)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(300, 5, generator=generator), torch.randint(3, (300,), generator=generator)
    population, machines = mg.Population(mg.Objective("cross_entropy", label_smoothing=0.1)), []
    for width in (4, 9):
        machines.append(mg.DenseMachine((5, width, 3), generator=generator))
        population.enter(machines[-1], mg.Optimizer(learning_rate=0.05))
    (data, *_) = mg.batches(x, y, 50)
    for _ in range(30):
        population.descend(data, [1.0] * len(data))
    for candidate in population.candidates:
        candidate.store()
    parts = mg.batches(torch.cat([x[:90], x[-30:]]), torch.cat([y[:90], y[-30:]]), 100)
    held, wanted = torch.cat([x[:90], x[-30:]]), torch.cat([y[:90], y[-30:]])
    for machine, (loss, hits, sharpness) in zip(machines, population.calibrate(parts), strict=True):
        outputs = machine.output(machine(held)).detach().double()
        grid = torch.linspace(-2, 2, 2001, dtype=torch.float64).exp2()
        losses = torch.stack([torch.nn.functional.cross_entropy(s * outputs, wanted) for s in grid])
        assert loss == pytest.approx(losses.min().item(), rel=2e-3)
        assert sharpness == pytest.approx(grid[losses.argmin()].item(), rel=0.05)
        assert hits == pytest.approx((outputs.argmax(1) == wanted).double().mean().item())


def test_only_classes_are_calibrated():
    with pytest.raises(ValueError, match="only the cross-entropy"):
        mg.Population(mg.Objective("squared_error")).calibrate([])


def test_a_nonlinearity_that_is_no_number_at_zero_spoils_nobody():
    def root(y):
        return y.abs().sqrt()

    x, y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(40, 1)
    (data,) = mg.batches(x, y, 20)
    losses = []
    for widths in ([4], [4, 8]):
        population = mg.Population(mg.Objective("squared_error"))
        for width in widths:
            machine = mg.DenseMachine(
                (3, width, 1), activation=("identity", root, "identity"), generator=torch.Generator().manual_seed(1)
            )
            population.enter(machine, mg.Optimizer(learning_rate=0.01))
        losses.append([population.descend(data, [1.0, 1.0])[0] for _ in range(2)])
    assert np.isfinite(losses[0]).all()
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused(dtype):
    with pytest.raises(ValueError, match="running means of training need"):
        mg.Population(mg.Objective("squared_error")).enter(mg.DenseMachine((2, 1), dtype=dtype), mg.Optimizer())


def test_a_machine_with_a_mask_of_weights_is_refused():
    ticket = mg.regularize.prune_weights(mg.DenseMachine((3, 4, 2)), 0.5)
    together = mg.Population(mg.Objective("squared_error"))
    with pytest.raises(
        ValueError, match=r"got a parametrized machine, .* whose zeros a population would train: train it"
    ):
        together.enter(ticket, mg.Optimizer())
    assert not together.candidates


@pytest.mark.parametrize("trainer", TRAINERS[:2])
def test_who_has_left_has_no_weights(trainer, monkeypatch):
    if trainer == "stacked":
        monkeypatch.setattr(population, "trains", lambda machine: False)
    together = mg.Population(mg.Objective("squared_error"))
    gone, present = (together.enter(mg.DenseMachine((3, 2)), mg.Optimizer()) for _ in range(2))
    together.leave([gone])
    for ask in (gone.weights, gone.store, gone.take):
        with pytest.raises(ValueError, match="a candidate that has left, whose weights are gone: store it before"):
            ask()
    present.store()
