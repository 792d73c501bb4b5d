"""Gates on the shortcuts of one machine: they find the wiring of a teacher, and their cuts are points to train."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from experiments import differentiable as experiment
from experiments import regret
from experiments.results import FOLDER
from machgraph.partition import shortcut_mask
from search.data import from_arrays, load
from search.isomorphism.canonical import canonical
from search.point import Point
from search.recipe import Recipe
from search.shape import Shape
from search.space import Space
from search.strategies.differentiable import PRICES, Gates, cuts, gated, proposals, slots
from search.training.machine import answers, build

RECIPE = Recipe(label_smoothing=0.0)
SHORT = replace(RECIPE, epochs=3, rungs=())
IMAGES = Space(
    max_blocks=2, widths=(4, 8), activations=("relu",), kind="convolution", kernels=(3,), max_scale=1, heads=(1,)
)
FULL = Point((8, 8), ("sine", "relu"), shortcut_mask(None, 4), 0.01)
CHAIN = replace(FULL, shortcuts=shortcut_mask("sequential", 4))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["breast_cancer", "diabetes"])
def dataset(request):
    return load(request.param, seed=1)


def taught(seed):
    """What a chain of two blocks answers, rows of which no more is known than four numbers."""
    teacher = build(CHAIN, Shape(4, 1), seed)
    x = torch.randn(1500, 4, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        teacher.weight.mul_(3)  # so that the sine is far from a line
        return from_arrays(x.numpy(), answers(teacher, x, Shape(4, 1))[:, 0].numpy(), seed=seed)


# ---- training ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_gates_of_a_teachers_wiring_are_the_most_open(seed):
    gates = np.array(gated(FULL, taught(seed), RECIPE, seed=seed, price=0.04).values)
    assert gates[CHAIN.mask].min() > gates[FULL.mask & ~CHAIN.mask].max()


def test_without_a_price_no_gate_closes_and_with_a_huge_one_all_do():
    data, space = load("digits"), Space(max_blocks=2, widths=(8,), activations=("sine", "relu"), learning_rates=(0.01,))
    free, cheap, dear = (gated(FULL, data, RECIPE, seed=0, price=price) for price in (0.0, 0.02, 100.0))
    opened = [np.array(gates.values)[FULL.mask] for gates in (free, cheap, dear)]
    assert opened[0].min() > 0.5 > opened[2].max()
    assert opened[0].sum() > opened[1].sum() > opened[2].sum()
    assert free.loss < cheap.loss < dear.loss
    assert cuts(free, space, 1) == (canonical(FULL),)
    (least,) = cuts(dear, space, 1)
    assert least.mask.sum() == least.blocks + 1  # one way


def test_values_are_gates_of_the_shortcuts_that_the_point_has(dataset):
    mask = shortcut_mask(None, 4)
    mask[3, 0] = mask[2, 1] = False
    point = replace(FULL, shortcuts=mask)
    gates = gated(point, dataset, SHORT, seed=0, price=0.01)
    values = np.array(gates.values)
    assert ((values > 0) == mask).all()
    assert values.max() < 1
    assert (gates.point, gates.price) == (point, 0.01)


def test_the_same_gates_for_the_same_seed_whatever_is_in_the_other_parts(dataset):
    parts = {name: getattr(dataset, name) for name in ("validation", "test")}
    blind = replace(dataset, **{name: replace(part, x=np.full_like(part.x, np.nan)) for name, part in parts.items()})
    gates, again, other = (
        gated(FULL, data, SHORT, seed=seed, price=0.01) for data, seed in ((dataset, 3), (blind, 3), (dataset, 4))
    )
    assert gates == again
    assert gates.values != other.values


@pytest.mark.parametrize("price", [-0.1, float("nan"), float("inf")])
def test_a_price_is_a_loss(price):
    with pytest.raises(ValueError, match=f"got price={price}: give 0 or more, the loss that"):
        gated(FULL, load("diabetes"), SHORT, seed=0, price=price)


# ---- cutting -----------------------------------------------------------------------------------------------------


@st.composite
def gates_in_spaces(draw):
    """All shortcuts of a space, and gates that are drawn, equal ones among them."""
    most = draw(st.integers(0, 4))
    images = {"kind": "convolution", "kernels": (3,), "max_scale": 1, "heads": (1, 2)}
    space = Space(
        max_blocks=most,
        min_blocks=draw(st.integers(0, most)),
        widths=(8, 16),
        activations=("relu", "tanh"),
        max_span=draw(st.sampled_from([None, 1, 2])),
        density=draw(st.sampled_from([None, None, (0.0, 0.75), (0.5, 1.0)])) if most else None,
        **draw(st.sampled_from([{}, images])),
    )
    point = slots(space, np.random.default_rng(draw(st.integers(0, 99))))
    assume(not point.is_constant)  # of a narrow density all may be
    size = point.blocks + 2
    drawn = draw(st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), min_size=size**2, max_size=size**2))
    values = np.where(point.mask, np.reshape(drawn, (size, size)), 0.0)
    return Gates(point, tuple(map(tuple, values.tolist())), 0.0, 0.0), space


@given(gates_in_spaces(), st.integers(1, 8))
def test_cuts_are_ever_smaller_networks_of_the_space(case, number):
    gates, space = case
    shape = Shape(9, 2, (1, 3, 3))
    path, some = cuts(gates, space, 1000), cuts(gates, space, number)
    assert len(some) == min(number, len(path))
    assert [point for point in path if point in some] == list(some)
    sizes = [canonical(point).parameters(shape) for point in path]
    assert sizes == sorted(set(sizes), reverse=True)
    for point in path:
        space.encode(point)  # or a ValueError
        assert point.depth > 1
    assert canonical(path[0]) == canonical(gates.point)
    last = canonical(path[-1])
    if space.density is None:
        assert last.mask.sum() == last.blocks + 1
    assert cuts(gates, space, 1000, {canonical(point) for point in some}) == tuple(p for p in path if p not in some)


@given(gates_in_spaces(), st.randoms(use_true_random=False))
def test_the_way_of_the_strongest_gates_is_left_at_last(case, rng):
    gates, space = case
    space = replace(space, density=None)
    mask, way = gates.point.mask, [gates.point.blocks + 1]
    while way[-1]:
        way.append(rng.choice(mask[way[-1]].nonzero()[0].tolist()))
    values, alone = np.array(gates.values), np.zeros_like(mask)
    alone[way[:-1], way[1:]] = True
    stronger = replace(gates, values=tuple(map(tuple, np.where(alone, 1.5 + values, values).tolist())))
    wiring = replace(gates.point, shortcuts=tuple(map(tuple, alone.tolist())))
    assert canonical(cuts(stronger, space, 1000)[-1]) == canonical(wiring)


def test_shortcuts_that_are_not_free_have_no_gates():
    with pytest.raises(ValueError, match="got a space with shortcuts='all': gates choose among free ones"):
        slots(Space(shortcuts="all"), np.random.default_rng(0))


# ---- proposals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [Space(max_blocks=3, widths=(8, 16)), IMAGES], ids=["dense", "convolution"])
def test_proposals_are_as_many_different_networks_of_the_space_as_wanted(space):
    data = load("digits")
    data = replace(data, train=data.train.take(np.arange(100)))
    first = proposals(space, data, SHORT, (5, 0), 7)
    networks = {canonical(point) for point in first}
    assert len(first) == len(networks) == 7
    for point in first:
        space.encode(point)  # or a ValueError
    assert proposals(space, data, SHORT, (5, 0), 7) == first
    more = proposals(space, data, SHORT, (5, 0), 7, seen=networks)
    assert len({canonical(point) for point in more} | networks) == 14
    other = proposals(space, data, SHORT, (5, 1), 7)
    assert other != first
    assert len({point.learning_rate for point in first + more + other}) > 1


def test_a_space_of_few_networks_is_exhausted():
    space = Space(max_blocks=0, learning_rates=(1e-3, 1e-2))
    assert len(proposals(space, load("diabetes"), SHORT, 0, 8)) == 2


# ---- the experiment ----------------------------------------------------------------------------------------------


def test_effects_are_what_shortcuts_save():
    weights = np.arange(10.0)
    losses = {mask: 100 - float(weights @ [digit == "1" for digit in mask]) for mask in regret.MASKS}
    median = experiment.effects(losses)
    assert np.argsort(median)[-3:].tolist() == [7, 8, 9]


def test_proposals_are_the_first_trials_of_a_search_that_they_begin():
    losses = dict.fromkeys(regret.MASKS, 1.0)
    first = [regret.point_of(mask) for mask in ("1" * 10, "0000001000", "1" * 5 + "0" + "1" * 4)]
    done = regret.search("evolution", 0, losses, 16, first)
    assert [trial.mask for trial in done[:3]] == [regret.mask_of(point) for point in first]
    assert len(done) == 16


def test_the_group_lasso_closes_more_with_more_strength():
    data = load("digits")
    recipe = replace(regret.recipe_of(data), epochs=4)
    free, strong = (experiment.lasso(data, recipe, 0, strength=strength) for strength in (0.0, 1.0))
    assert (np.array(free.values)[experiment.FULL.mask] > 0).all()
    assert not np.array(strong.values).any()


def test_the_committed_figures_say_that_gates_know_shortcuts_better_than_norms_do():
    result = json.loads((FOLDER / "differentiable.json").read_text())["result"]
    rows = {row["method"]: row for row in result["orders"]}
    assert set(rows) == set(experiment.METHODS)
    priced = [rows[f"gates, price {price}"] for price in PRICES]
    lasso = [row for method, row in rows.items() if method.startswith("group lasso")]
    assert min(row["agreement"] for row in priced) > 0.5 > max(row["agreement"] for row in lasso)
    assert max(row["regret_of_path"] for row in priced) < min(row["regret_of_path"] for row in lasso)
    begun, plain = (result["searches"]["strategies"][name] for name in (experiment.BEGUN, "evolution"))
    assert result["searches"]["trials"][0] == regret.GENERATION
    regrets = [told["regret"]["mean"][0] for told in (begun, plain)]
    assert regrets[0] < regrets[1]
