"""The parts of the compiled loop, each against an oracle of its own: numpy, many digits, torch."""

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from operators import parametric

from machgraph.activation import ACTIVATIONS
from machgraph.plan import Accumulate, Activate, Clear, Repeat, Wrap

pytest.importorskip("numba", reason="numba is not installed, so nothing is compiled")

from numba import njit, types
from numba.extending import overload

from machgraph.kernels import keep, program
from machgraph.kernels.arithmetic import FAR_ANGLE, arithmetic
from machgraph.kernels.losses import cross_entropy, hits, squared_error
from machgraph.kernels.optimizer import ADAM, ADAMW, SGD, descend
from machgraph.kernels.pointwise import CODES, add_activated, add_weighed
from machgraph.kernels.product import BESIDE, FAR, MANY, SUM, add_outer, add_product
from machgraph.kernels.tiles import VECTOR_BYTES

reals = pytest.mark.parametrize("real", [np.float32, np.float64])
FUNCTIONS = ("exp", "expm1", "tanh", "sigmoid", "softplus", "normal", "density", "sine", "cosine")
ARITHMETIC = {types.float32: arithmetic(np.float32), types.float64: arithmetic(np.float64)}


def evaluate(x, rows):
    """Each of ``FUNCTIONS`` over an array."""
    raise NotImplementedError("only in compiled code")


@overload(evaluate)
def _evaluate(x, rows):
    f = ARITHMETIC[x.dtype]
    exp, expm1, tanh, sigmoid, softplus, normal, density, sine = (
        f.exp, f.expm1, f.tanh, f.sigmoid, f.softplus, f.normal, f.density, f.sine,
    )  # fmt: skip

    def loop(x, rows):
        for i in range(len(x)):
            rows[0, i], rows[1, i], rows[2, i], rows[3, i] = exp(x[i]), expm1(x[i]), tanh(x[i]), sigmoid(x[i])
            rows[4, i], rows[5, i], rows[6, i] = softplus(x[i]), normal(x[i]), density(x[i])
            rows[7, i], rows[8, i] = sine(x[i], 0), sine(x[i], 1)

    return loop


@njit
def part(memory, at, transposed):
    """Rows and columns of memory, each ``first, end, step``; of one type wherever they lie."""
    (row, row_end, row_step), (column, column_end, column_step) = at
    found = memory[row:row_end:row_step, column:column_end:column_step]
    return found.T if transposed else found


def _compiled(sources):
    """What the tests call, kept on disk."""

    @keep.kept
    def product(C, A, B):
        _ = sources
        add_product(part(*C), part(*A), part(*B))

    @keep.kept
    def outer(C, A, B):
        _ = sources
        add_outer(part(*C), part(*A), part(*B))

    @keep.kept
    def values(x, rows):
        _ = sources
        evaluate(x, rows)

    @keep.kept
    def activated(code, y, z):
        _ = sources
        add_activated(code, y, z)

    @keep.kept
    def weighed(code, y, u, v):
        _ = sources
        add_weighed(code, y, u, v)

    @keep.kept
    def entropy(z, classes, smoothing, gradient):
        _ = sources
        return cross_entropy(z, classes, smoothing, gradient), hits(z, classes)

    @keep.kept
    def error(z, target, gradient):
        _ = sources
        return squared_error(z, target, gradient)

    @keep.kept
    def step(p, g, m, s, rate, settings, number):
        _ = sources
        descend(p, g, m, s, rate, settings, number)

    return SimpleNamespace(**{name: function for name, function in locals().items() if name != "sources"})


compiled = _compiled(keep.sources())


# ---- products ----------------------------------------------------------------------------------------------------


def amid(filling, array, rng, layout="rows", wide=0):
    """A copy of the array within memory full of something else: that memory, and where in it, as ``part`` takes them.

    Its layout: contiguous rows, contiguous columns, or gaps along both axes; ``wide`` more columns lie beside it.
    """
    transposed = layout == "columns"
    array = array.T if transposed else array
    steps = (3, 2) if layout == "gaps" else (1, 1)
    first, after = rng.integers(0, 20, 2), rng.integers([0, wide], [20, wide + 20])
    ends = first + np.multiply(array.shape, steps)
    memory = np.full(ends + after, filling, array.dtype)
    at = tuple((int(start), int(end), step) for start, end, step in zip(first, ends, steps, strict=True))
    memory[tuple(slice(*span) for span in at)] = array
    return memory, at, transposed


def is_added(function, real, shape, layout="rows", wide=0):
    """Whether ``C += A B`` holds to rounding; what is beside A and B is no number, and beside C nothing is written."""
    rng = np.random.default_rng(shape)
    M, K, N = shape
    A, B, C = (rng.standard_normal(size).astype(real) for size in ((M, K), (K, N), (M, N)))
    right = B.T if function is compiled.outer else B
    memory, at, _ = placed = amid(-0.0, C, rng)
    function(placed, amid(np.nan, A, rng, layout), amid(np.nan, right, rng, wide=wide))
    found = memory[tuple(slice(*span) for span in at)]
    bound = np.finfo(real).eps * (K + 2) * (np.abs(C) + np.abs(A) @ np.abs(B))
    close = bool((np.abs(found - (C + A.astype(float) @ B)) <= bound).all())
    found[:] = -0.0
    return close and bool((memory == 0).all() and np.signbit(memory).all())  # to add 0 would make it +0


sizes = st.integers(0, 40)


@reals
@given(st.tuples(sizes, sizes, sizes), st.sampled_from(["rows", "columns", "gaps"]))
def test_products_of_any_shape(real, shape, layout):
    assert is_added(compiled.product, real, shape, layout)


@reals
@given(st.tuples(sizes, st.integers(0, 70), sizes))
def test_outer_products_of_any_shape(real, shape):
    assert is_added(compiled.outer, real, shape)


LANES = VECTOR_BYTES // 4
BEYOND = [
    (MANY - 1, 2 * SUM + 1, 2 * LANES),
    (MANY, 2 * SUM + 1, 2 * LANES),
    (MANY + 1, 3 * SUM - 1, 5 * LANES + 3),
    (BESIDE + 9, 2 * SUM + 30, 3 * LANES + 1),
    (2 * BESIDE + 1, 3, 1),
    (5, 4 * SUM + 1, BESIDE + 5),
]


@reals
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("shape", BEYOND)
def test_products_that_are_done_in_blocks(real, shape, layout):
    assert is_added(compiled.product, real, shape, layout)


@reals
@pytest.mark.parametrize("shape", [(MANY, 3, 4 * LANES), (MANY + 3, SUM + 5, 2 * LANES + 5), (3, 40, 7)])
def test_products_of_rows_that_lie_far_apart(real, shape):
    assert is_added(compiled.product, real, shape, wide=FAR)


@reals
@pytest.mark.parametrize("shape", BEYOND)
def test_outer_products_that_are_done_in_blocks(real, shape):
    assert is_added(compiled.outer, real, shape)


# ---- arithmetic --------------------------------------------------------------------------------------------------

EXACT = {
    "exp": mp.exp,
    "expm1": mp.expm1,
    "tanh": mp.tanh,
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "softplus": lambda x: x if x > 20 else mp.log1p(mp.exp(x)),  # as torch
    "normal": mp.ncdf,
    "density": mp.npdf,
    "sine": mp.sin,
    "cosine": mp.cos,
}


def computed(name, x):
    rows = np.empty((len(FUNCTIONS), len(x)), x.dtype)
    compiled.values(x, rows)
    return rows[FUNCTIONS.index(name)]


def arguments(real, name):
    """Of all sizes and both signs; for angles, near multiples of π/2 too."""
    rng = np.random.default_rng(0)
    top = {"sine": FAR_ANGLE, "cosine": FAR_ANGLE, "expm1": math.log(np.finfo(real).max) - 1}.get(name, 800.0)
    sizes = 10 ** rng.uniform(-12, math.log10(top), 100)
    x = [sizes, -sizes, rng.uniform(-13, 13, 100)]
    if name in ("sine", "cosine"):
        x.append(rng.integers(-(10**7), 10**7, 50) * (math.pi / 2))
    return np.concatenate(x).astype(real)


@reals
@pytest.mark.parametrize("name", FUNCTIONS)
def test_arithmetic_is_as_exact_as_it_says(real, name):
    x = arguments(real, name)
    with mp.workdps(50):
        exact = [EXACT[name](mp.mpf(float(number))) for number in x]
    with np.errstate(over="ignore"):
        rounded = np.array([float(number) for number in exact]).astype(real)
    finite, found = np.isfinite(rounded), computed(name, x)
    np.testing.assert_array_equal(found[~finite], rounded[~finite])
    errors = np.array([float(abs(float(a) - b)) for a, b in zip(found[finite], np.array(exact)[finite], strict=True)])
    single, size = real is np.float32, np.abs(rounded[finite])
    bound = (6 if name == "normal" else 4) * np.spacing(size) if single else 1e-14 * size + 4 * np.spacing(0.0)
    if name == "density":  # its x² is rounded
        bound = bound * (1 + x[finite].astype(float) ** 2 / 2)
    if name == "sigmoid":  # what is less than the least normal number may be 0
        bound = bound + np.finfo(real).tiny
    if name in ("sine", "cosine"):  # beside a zero
        bound = bound + 1e-22
    assert (errors <= bound).all(), (x[finite][errors > bound], found[finite][errors > bound])


@reals
def test_arithmetic_of_infinities_and_of_no_number(real):
    ends = {
        "exp": (0, np.inf),
        "tanh": (-1, 1),
        "sigmoid": (0, 1),
        "softplus": (0, np.inf),
        "normal": (0, 1),
        "density": (0, 0),
    }
    for name, expected in ends.items():
        np.testing.assert_array_equal(computed(name, np.array([-np.inf, np.inf, np.nan], real)), [*expected, np.nan])
    np.testing.assert_array_equal(computed("expm1", np.array([-np.inf, np.nan], real)), [-1, np.nan])


# ---- nonlinearities ----------------------------------------------------------------------------------------------


def close(found, expected, real):
    tolerance = 16 * np.finfo(real).eps
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def is_pointwise(real, name, y):
    """σ and σ' of compiled code against torch's in float64, added to what is there."""
    rng, activation = np.random.default_rng(1), ACTIVATIONS[name]
    z, u, v = rng.standard_normal((3, len(y))).astype(real)
    exact = torch.from_numpy(y).double()
    a = activation.function(exact)
    slopes = activation.derivative(exact, a).numpy()
    sum_, weighed = z.copy(), v.copy()
    compiled.activated(CODES[name], y, sum_)
    compiled.weighed(CODES[name], y, u, weighed)
    close(sum_, z + a.numpy(), real)
    close(weighed, v + slopes * u, real)


def test_all_nonlinearities_have_numbers():
    assert CODES.keys() == ACTIVATIONS.keys()
    assert sorted(CODES.values()) == list(range(len(ACTIVATIONS)))


@reals
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nonlinearities_and_slopes(real, name):
    rng = np.random.default_rng(0)
    is_pointwise(real, name, np.concatenate([rng.standard_normal(301), rng.uniform(-30, 30, 300), [0]]).astype(real))


@reals
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nonlinearities_where_numbers_end(real, name):
    with np.errstate(invalid="ignore"):
        is_pointwise(real, name, np.array([-np.inf, np.inf, np.nan, -90, 90, -1000, 1000], real))


@reals
@pytest.mark.parametrize("largest", [0.99 * FAR_ANGLE, FAR_ANGLE, 1e15, 1e30])
def test_sines_of_large_angles(real, largest):
    rng = np.random.default_rng(0)
    is_pointwise(real, "sine", (largest * rng.uniform(-1, 1, 100)).astype(real))
    is_pointwise(real, "sine", np.array([0.5, 1, largest, 2, -largest], real))


# ---- losses and optimizers ---------------------------------------------------------------------------------------


def torch_entropy(z, classes, smoothing):
    leaf = torch.from_numpy(z.T.astype(float)).requires_grad_()
    loss = torch.nn.functional.cross_entropy(leaf, torch.from_numpy(classes), label_smoothing=smoothing)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.item(), gradient.T.numpy()


@reals
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("outputs", "samples", "scale"), [(1, 3, 1), (2, 5, 1), (5, 33, 1), (7, 20, 1e4)])
def test_cross_entropy(real, outputs, samples, scale, smoothing):
    rng = np.random.default_rng(0)
    z = (scale * rng.standard_normal((outputs, samples))).astype(real)
    classes, gradient = rng.integers(0, outputs, samples), np.full_like(z, np.nan)
    loss, right = compiled.entropy(z, classes, smoothing, gradient)
    expected, slopes = torch_entropy(z, classes, smoothing)
    assert loss == pytest.approx(expected, rel=1e-5 if real is np.float32 else 1e-12)
    close(gradient, slopes, real)
    assert right == (z.argmax(0) == classes).sum()


@reals
def test_cross_entropy_of_no_number_is_none(real):
    z, classes = np.zeros((3, 2), real), np.array([0, 1])
    for k in range(3):
        broken = z.copy()
        broken[k, 1] = np.nan
        assert math.isnan(compiled.entropy(broken, classes, 0.1, z.copy())[0])


@reals
def test_of_equal_outputs_the_first_counts(real):
    z = np.array([[1, 0, 2], [1, 3, 2], [0, 3, 2]], real)
    assert compiled.entropy(z, np.array([0, 1, 0]), 0.0, z.copy())[1] == 3
    assert compiled.entropy(z, np.array([1, 2, 2]), 0.0, z.copy())[1] == 0


@reals
def test_squared_error(real):
    z, target = np.random.default_rng(0).standard_normal((2, 3, 7)).astype(real)
    gradient = np.full_like(z, np.nan)
    loss = compiled.error(z, target, gradient)
    assert loss == pytest.approx(np.mean((z.astype(float) - target) ** 2), rel=1e-6)
    close(gradient, 2 * (z.astype(float) - target) / z.size, real)


OPTIMIZERS = {
    "sgd": (SGD, torch.optim.SGD, {}),
    "momentum": (SGD, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    "adam": (ADAM, torch.optim.Adam, {"betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    "adamw": (ADAMW, torch.optim.AdamW, {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}),
}


@reals
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_torch(real, name):
    kind, make, told = OPTIMIZERS[name]
    first, second = told.get("betas", (told.get("momentum", 0.0), 0.0))
    kept = np.array([kind, told.get("weight_decay", 0.0), first, second, told.get("eps", 0.0)])
    rng = np.random.default_rng(0)
    p, m, s = rng.standard_normal(37).astype(real), np.zeros(37, real), np.zeros(37, real)
    theirs = torch.from_numpy(p.astype(float)).requires_grad_()
    optimizer = make([theirs], lr=1.0, **told)
    for number in range(1, 6):
        rate, g = 0.1 / number, rng.standard_normal(37).astype(real)
        optimizer.param_groups[0]["lr"], theirs.grad = rate, torch.from_numpy(g.astype(float))
        optimizer.step()
        compiled.step(p, g, m, s, rate, kept, number)
        assert (g == 0).all()
        np.testing.assert_allclose(p, theirs.detach(), rtol=0, atol=32 * np.finfo(real).eps)


# ---- plans as tables ---------------------------------------------------------------------------------------------


def instructions(table):
    """What a table says, as the plan says it."""
    rows = iter(table.tolist())
    return [_repeat(row, rows) if row[program.KIND] == program.REPEAT else _instruction(row) for row in rows]


def _repeat(row, rows):
    body = tuple(_instruction(next(rows)) for _ in range(row[1]))
    return Repeat(body, times=row[2], stride=row[3])


def _instruction(row):
    kind, *rows, first, last, source, source_end, tap, offset, block, dual = row
    if kind == program.ACCUMULATE:
        return Accumulate(tuple(rows), (source, source_end), (first, last), tap, offset)
    if kind == program.ACTIVATE:
        return Activate(tuple(rows), block, (first, last))
    assert kind in (program.CLEAR, program.WRAP, program.FOLD)
    assert (kind == program.FOLD) <= bool(dual)
    return (Clear if kind == program.CLEAR else Wrap)(tuple(rows), bool(dual))


@given(parametric())
def test_tables_say_what_plans_say(case):
    machine, size = case
    plan = machine.plan(size)
    tables = plan.program
    assert instructions(tables.forward) == list(plan.instructions)
    assert instructions(tables.dual) == list(plan.dual.instructions)
    assert instructions(tables.products) == list(plan.products)


@given(parametric())
def test_the_table_of_weights_has_each_once(case):
    machine, size = case
    found = np.zeros(machine.matrices(machine.weight).shape, int)
    for step in instructions(machine.plan(size).program.weights):
        found[step.tap, slice(*step.rows), slice(*step.inputs)] += 1
    mask = machine.matrices(torch.from_numpy(machine.weight_mask.astype(int)))
    np.testing.assert_array_equal(found, mask)


@given(parametric())
def test_in_training_nothing_is_carried_back_into_an_input_that_hears_nothing(case):
    machine, size = case
    tables, inputs = machine.plan(size).program, machine.partition.widths[0]
    first = 0 if machine.weight_mask[:inputs].any() else inputs
    whole, cut = instructions(tables.dual), instructions(tables.training_dual)
    assert list(_rows(cut)) == [row for row in _rows(whole) if row[1] >= first]


def _rows(steps):
    """Each instruction by its kind and one row that it writes, with what it reads."""
    for step in steps:
        if isinstance(step, Repeat):
            yield from ((*one, step.times, step.stride) for one in _rows(step.body))
        else:
            rest = {name: getattr(step, name) for name in step.__slots__ if name != "rows"}
            yield from ((type(step).__name__, row, str(rest)) for row in range(*step.rows))


@given(parametric(kinds=("convolution", "recurrence")))
def test_the_border_is_all_of_the_padding_and_repeats_the_other_side(case):
    machine, size = case
    plan = machine.plan(size)
    inner = np.arange(plan.positions).reshape(plan.grid)[
        tuple(slice(before, before + extent) for (before, _), extent in zip(plan.margins, size, strict=True))
    ]
    sources = np.arange(plan.positions)
    padding = [range(start, start + length) for start, length, _ in plan.program.border]
    np.testing.assert_array_equal(np.concatenate([[], *padding]), np.setdiff1d(sources, inner))
    if getattr(machine, "padding", "") == "circular":
        for start, length, source in plan.program.border:
            sources[start : start + length] = range(source, source + length)
        np.testing.assert_array_equal(sources.reshape(plan.grid), np.pad(inner, plan.margins, mode="wrap"))


@given(parametric())
def test_the_frame_is_where_there_is_no_padding(case):
    machine, size = case
    plan = machine.plan(size)
    *frame, positions = plan.program.frame
    extents, before, grid = np.reshape(frame, (3, 3))
    assert tuple(extents[3 - len(size) :]) == size
    assert before @ [grid[1] * grid[2], grid[2], 1] == plan.first
    assert grid.prod() == plan.grids[0].positions
    assert positions == plan.positions


# ---- compiled code on disk ---------------------------------------------------------------------------------------


def test_another_text_is_another_number(tmp_path, monkeypatch):
    monkeypatch.setattr(keep, "__file__", str(tmp_path / "keep.py"))
    numbers = []
    for text in ("a", "b", "a"):
        (tmp_path / "loop.py").write_text(text)
        numbers.append(keep.sources())
    assert numbers[0] == numbers[2] != numbers[1]


def test_without_a_place_on_disk_it_is_compiled_all_the_same():
    told, names = [], {}
    keep.announce(told.append)
    exec("def twice(x):\n    return 2 * x", names)  # of no file and of no module
    assert keep.kept(names["twice"])(3) == 6
    assert not told


SOLVE = """
import torch, machgraph as mg
for dtype in (torch.float32, torch.float64):
    machine = mg.DenseMachine((2, 1), dtype=dtype)
    machine(torch.ones(1, 2, dtype=dtype)).sum().backward()
from machgraph.kernels import entry
"""
HITS = """
for function in (entry.forward, entry.backward):
    print(len(function.stats.cache_hits), len(function.stats.cache_misses))
"""
NAMES = """
import gc
from collections import Counter
from numba.core.dispatcher import Dispatcher
found = [x for x in gc.get_objects() if isinstance(x, Dispatcher) and x.py_func.__module__.startswith("machgraph")]
names = Counter((f.py_func.__module__, f.py_func.__qualname__, str(s)) for f in found for s in f.signatures)
print(len(names), [name for name, count in names.items() if count > 1])
"""


def python(program, **environment):
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | environment, check=True
    )
    return result.stdout.splitlines(), result.stderr


def test_another_process_takes_the_code_from_disk():
    """Where the first one, this, has put it."""
    lines, told = python(SOLVE + HITS)
    assert lines == ["2 0", "2 0"]
    assert "compiling" not in told


def test_what_is_compiled_ahead_of_time_answers_in_double_precision_too():
    program = "from machgraph.kernels import entry; from machgraph.warm_up import warm_up; warm_up()"
    lines, _ = python(program + "; print(len(entry.forward.signatures), len(entry.backward.signatures))")
    assert lines == ["2 1"]


def test_no_two_compiled_functions_share_a_name(tmp_path):
    """Kept code is put together by these. Compiled anew, in haste, and for one of the precisions."""
    program = SOLVE.replace("(torch.float32, torch.float64)", "(torch.float32,)") + NAMES
    lines, told = python(program, NUMBA_OPT="0", NUMBA_CACHE_DIR=str(tmp_path))
    count, repeated = lines[0].split(" ", 1)
    assert int(count) > 70
    assert repeated == "[]"
    assert told.count("compiling") == 1
