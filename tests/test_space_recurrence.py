"""Recurrences among the points of a space, and how dense shortcuts are: one network, one form; one space, one count."""

import itertools
import json
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from networkx.algorithms.isomorphism import DiGraphMatcher, categorical_edge_match, categorical_node_match

from machgraph.partition import lag_mask, shortcut_mask
from search.defaults import default_space, space_of_kind
from search.isomorphism.canonical import canonical, key
from search.one_of import OneOf
from search.point import Point
from search.shape import Shape
from search.space import Space
from search.strategies.evolution import beginning
from search.strategies.mutation import mutate
from search.training.machine import answers, build

SERIES = Shape(14, 2, (2, 7))


def legal(blocks, lags, timeblock):
    """What a point may have at each lag: any of this, but that the input hears nothing and the output feeds nothing."""
    mask = lag_mask(None, blocks + 2, lags, timeblock)
    mask[:, 0] = mask[:, :, -1] = False
    return mask


def point_of(widths, activations, masks, timeblock=1, learning_rate=1e-3):
    shortcuts, *recurrences = masks.tolist()
    return Point(
        tuple(widths), tuple(activations), shortcuts, learning_rate,
        kind="recurrence", recurrences=recurrences, timeblock=timeblock,
    )  # fmt: skip


@st.composite
def points(draw, max_blocks=4, max_lags=3, max_timeblock=3):
    n, lags = draw(st.integers(0, max_blocks)), draw(st.integers(0, max_lags))
    timeblock = draw(st.integers(1, max_timeblock))
    masks = legal(n, lags, timeblock)
    size, seed = int(masks.sum()), draw(st.integers(0, 2**32 - 1))
    masks[masks] = np.random.default_rng(seed).random(size) < draw(st.sampled_from((0.2, 0.4, 0.8)))
    widths = draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))
    activations = draw(st.lists(st.sampled_from(("relu", "tanh")), min_size=n, max_size=n))
    return point_of(widths, activations, masks, timeblock)


def with_twins(point, block, width):
    """The point with one more block right after this one, that hears and feeds the same at every lag."""
    blocks = [*range(block + 1), *range(block, point.blocks + 2)]
    widths, activations = list(point.widths), list(point.activations)
    widths.insert(block, width)
    activations.insert(block, activations[block - 1])
    return point_of(widths, activations, point.masks[:, blocks][:, :, blocks], point.timeblock)


def graph_of(point):
    """Blocks by what they are, and edges by the lags at which they are heard."""
    graph = nx.DiGraph()
    for block, label in enumerate(["input", *zip(point.widths, point.activations, strict=True), "output"]):
        graph.add_node(block, label=label)
    for i, j in np.argwhere(point.masks.any(axis=0)):
        graph.add_edge(int(j), int(i), lags=tuple(np.flatnonzero(point.masks[:, i, j]).tolist()))
    return graph


def reduced(point):
    """An independent account of what is one network, by networkx: the live blocks, twins together."""
    graph, output = graph_of(point), point.blocks + 1
    live = (({0} | nx.descendants(graph, 0)) & ({output} | nx.ancestors(graph, output))) | {0, output}
    if not nx.has_path(graph, 0, output):
        graph.remove_edges_from(list(graph.edges))
        live = {0, output}
    graph = graph.subgraph(live)

    def neighbours(block):
        heard = {(j, data["lags"]) for j, _, data in graph.in_edges(block, data=True)}
        return heard, {(i, data["lags"]) for _, i, data in graph.out_edges(block, data=True)}

    def same(a, b):
        if a == b or {a, b} & {0, output}:
            return a == b
        return neighbours(a) == neighbours(b) and point.activations[a - 1] == point.activations[b - 1]

    def node_data(members):
        names = {0: "input", output: "output"}
        first = min(members)
        label = names.get(first) or (sum(point.widths[m - 1] for m in members), point.activations[first - 1])
        return {"label": label}

    quotient = nx.quotient_graph(graph, same, node_data=node_data, edge_data=lambda a, b: one_lag(graph, a, b))
    for members in quotient:  # a quotient of networkx has no loops
        loops = one_lag(graph, members, members)
        if loops:
            quotient.add_edge(members, members, **loops)
    return quotient


def one_lag(graph, sources, readers):
    """The lags of the edges between two classes, which are all the same."""
    lags = {graph.edges[j, i]["lags"] for j in sources for i in readers if graph.has_edge(j, i)}
    assert len(lags) <= 1
    return {"lags": lags.pop()} if lags else {}


def matcher(a, b):
    return DiGraphMatcher(
        a, b, node_match=categorical_node_match("label", None), edge_match=categorical_edge_match("lags", None)
    )


# ---- points --------------------------------------------------------------------------------------------------------


@given(points())
def test_sizes_and_depth_are_those_of_the_machine(point):
    machine = build(point, SERIES, seed=0)
    assert point.parameters(SERIES) == machine.parameter_count()
    assert point.flops(SERIES) == 7 * machine.flops()
    assert point.depth == machine.architecture.depth


@given(points())
def test_a_point_goes_through_json(point):
    assert Point.from_dict(json.loads(json.dumps(point.to_dict()))) == point


@given(points(), st.integers(0, 6))
def test_a_machine_answers_at_the_last_step_of_its_window(point, seed):
    machine = build(point, SERIES, seed)
    x = torch.randn(3, 14, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        windows = machine.output(machine(x.reshape(3, 2, 7)))
        torch.testing.assert_close(answers(machine, x, SERIES), windows[:, :, -1])


EMPTY = np.zeros((2, 3, 3), dtype=bool)


def test_descriptions():
    plain = lag_mask("sequential", 3, 1, 1)
    assert point_of((8,), ("tanh",), plain).describe(SERIES) == "2-8-2 · tanh · no shortcuts · 2 recurrences"
    full = point_of((8,), ("tanh",), legal(1, 2, 2), timeblock=2)
    assert full.describe(SERIES) == "2-8-2 · tanh · 1 shortcut · 7 recurrences in blocks of 2 steps"
    late = EMPTY[:, :2, :2].copy()
    late[1, 1, 0] = True
    assert point_of((), (), late).describe(SERIES) == "2-2 · linear · no shortcuts · 1 recurrence"
    assert point_of((), (), EMPTY[:1, :2, :2]).describe(SERIES) == "2-2 · constant · no shortcuts · no recurrences"


@pytest.mark.parametrize(
    ("edge", "timeblock", "message"),
    [
        ((1, 1, 1), 2, "before it is known"),
        ((1, 0, 1), 1, "of the input"),
        ((1, 1, 2), 1, "hears the output"),
        ((0, 1, 2), 1, "does not come after it"),
    ],
)
def test_an_edge_that_no_point_has_is_refused(edge, timeblock, message):
    masks = EMPTY.copy()
    masks[edge] = True
    with pytest.raises(ValueError, match=message):
        point_of((8,), ("relu",), masks, timeblock)


def test_recurrences_are_of_a_recurrence_for_a_series():
    point = point_of((8,), ("relu",), EMPTY)
    with pytest.raises(ValueError, match="only a recurrence has these"):
        replace(point, kind="dense")
    with pytest.raises(ValueError, match="only a convolution has these"):
        replace(point, kernel=3)
    with pytest.raises(ValueError, match="shape"):
        replace(point, recurrences=(((False,),),))
    with pytest.raises(ValueError, match="needs a series, of one axis"):
        point.partition(Shape(16, 1, (1, 4, 4)))
    with pytest.raises(ValueError, match="on no grid"):
        point.partition(Shape(16, 1))


# ---- the canonical form --------------------------------------------------------------------------------------------


@given(points())
def test_canonical_is_idempotent_and_isomorphic_to_the_reduced_network(point):
    form = canonical(point)
    assert canonical(form) == form
    assert matcher(reduced(point), graph_of(form)).is_isomorphic()
    assert form.is_constant == point.is_constant


@given(points(max_timeblock=1), st.randoms(use_true_random=False))
def test_canonical_does_not_see_the_order_of_the_blocks(point, rng):
    left, blocks = list(range(1, point.blocks + 1)), [0]
    while left:
        blocks.append(rng.choice([b for b in left if not any(point.shortcuts[b][other] for other in left)]))
        left.remove(blocks[-1])
    order = [*blocks, point.blocks + 1]
    widths, activations = ([values[b - 1] for b in order[1:-1]] for values in (point.widths, point.activations))
    other = point_of(widths, activations, point.masks[:, order][:, :, order])
    assert canonical(other) == canonical(point)


@given(points(), st.data())
def test_canonical_merges_twins_also_where_they_hear_themselves(point, data):
    assume(point.blocks)
    block, more = data.draw(st.integers(1, point.blocks)), data.draw(st.integers(1, 3))
    wider = list(point.widths)
    wider[block - 1] += more
    assert canonical(with_twins(point, block, more)) == canonical(replace(point, widths=tuple(wider)))


def test_blocks_that_hear_themselves_but_not_each_other_are_no_twins():
    masks = np.zeros((2, 4, 4), dtype=bool)
    masks[0, 1:3, 0] = masks[0, 3, 1:3] = True
    both = masks.copy()
    both[1, 1:3, 1:3] = True
    own, crossed = masks.copy(), masks.copy()
    own[1, [1, 2], [1, 2]] = True
    crossed[1, [1, 2], [2, 1]] = True
    forms = [canonical(point_of((2, 2), ("tanh", "tanh"), mask)) for mask in (both, own, crossed)]
    assert [form.blocks for form in forms] == [1, 2, 2]
    assert len(set(forms)) == 3


@given(points())
def test_the_time_block_is_the_longest_that_any_order_of_the_blocks_allows(point):
    form = canonical(point)

    def loops(lags):
        within = nx.DiGraph([(int(j), int(i)) for i, j in np.argwhere(form.masks[:lags].any(axis=0))])
        return not nx.is_directed_acyclic_graph(within)

    whole = len(form.masks)
    assert not loops(form.timeblock)
    assert form.timeblock == (next(lags for lags in range(1, whole) if loops(lags + 1)) if loops(whole) else 1)
    assert whole == 1 or form.masks[-1].any()


def test_time_block_and_empty_lags_make_no_other_network():
    masks = np.zeros((4, 3, 3), dtype=bool)
    masks[0] = shortcut_mask("sequential", 3)
    masks[2, 1, 1] = True
    slow, fast = (point_of((8,), ("tanh",), masks, timeblock) for timeblock in (1, 2))
    short = replace(slow, recurrences=slow.recurrences[:2])
    assert canonical(slow) == canonical(fast) == canonical(short) == replace(short, timeblock=2)
    assert len({key(point, seed=0, budget=1) for point in (slow, fast, short)}) == 1
    assert key(replace(short, recurrences=slow.recurrences[:1]), seed=0, budget=1) != key(short, seed=0, budget=1)


@given(points(), st.integers(0, 2**32 - 1))
def test_canonical_computes_the_same_function(point, seed):
    form = canonical(point)
    whole, small = (build(p, SERIES, seed).double() for p in (point, form))
    generator = torch.Generator().manual_seed(seed)
    isomorphism = next(matcher(reduced(point), graph_of(form)).isomorphisms_iter())
    members = {block: sorted(group) for group, block in isomorphism.items()}

    def places(machine, blocks):
        return [k for block in blocks for k in range(*machine.partition.block(block).indices(whole.partition.size))]

    heard = places(whole, nx.descendants(graph_of(point), 0) | {0})
    of = places(whole, [m for block in range(form.blocks + 2) for m in members[block]])
    with torch.no_grad():
        whole.weight.normal_(generator=generator).mul_(torch.from_numpy(whole.weight_mask))
        # What hears no input tells the time at most, and says nothing at all without a bias.
        whole.bias.zero_()[heard] = torch.randn(len(heard), generator=generator, dtype=torch.float64)
        lags = small.weight.shape[-1]
        moved = whole.weight[of][:, of, :lags] * torch.from_numpy(small.weight_mask)
        small.weight.copy_(moved)
        small.bias.copy_(whole.bias[of])
        if point.is_constant:
            small.bias[-2:] = whole.bias[-2:]
        x = torch.randn(3, 2, 7, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(small.output(small(x)), whole.output(whole(x)))


# ---- spaces --------------------------------------------------------------------------------------------------------

SMALL = {"widths": (8,), "activations": ("tanh",), "learning_rates": (1e-3,)}
RECURRENCES = [
    Space(0, **SMALL, kind="recurrence", lags=(1, 2)),
    Space(1, (8, 16), ("tanh",), (1e-3,), kind="recurrence", lags=(1,)),
    Space(1, **SMALL, kind="recurrence", lags=(2,), timeblocks=(1, 2), shortcuts="sequential"),
    Space(2, **SMALL, kind="recurrence", lags=(1, 3), timeblocks=(1,), recurrences="own"),
    Space(2, **SMALL, kind="recurrence", lags=(2,), timeblocks=(2,), recurrences="all", density=(0.5, 1.0)),
    Space(2, **SMALL, kind="recurrence", lags=(1,), min_blocks=2, shortcuts="all"),
]
DENSITIES = [
    Space(3, **SMALL, density=(0.0, 0.5)),
    Space(3, **SMALL, density=(0.5, 0.7), min_blocks=2),
    Space(3, **SMALL, density=(0.4, 0.4), min_blocks=3),
    Space(3, **SMALL, density=(0.3, 0.5), min_blocks=3, max_span=2),
]


def fixed_shortcuts(space, mask):
    """Whether the mask of lag 0 is one of the space's, by definition."""
    if space.shortcuts != "free":
        word = {"all": None, "sequential": "sequential"}[space.shortcuts]
        return np.array_equal(mask, shortcut_mask(word, len(mask)))
    span = space.max_span or len(mask)
    possible = np.tri(len(mask), k=-1, dtype=bool) & ~np.tri(len(mask), k=-1 - span, dtype=bool)
    low, high = space.density or (0, 1)
    return not (mask & ~possible).any() and low <= mask.sum() / possible.sum() <= high


def subsets(possible):
    for edges in itertools.product((False, True), repeat=int(possible.sum())):
        mask = np.zeros_like(possible)
        mask[possible] = edges
        yield mask


def everything(space):
    """Every point of a space of one training, by its definition."""
    for n, lags, timeblock in itertools.product(
        range(space.min_blocks, space.max_blocks + 1), space.lags, space.timeblocks
    ):
        possible = legal(n, lags, timeblock)
        wirings = [
            np.concatenate([now[None], past])
            for now in subsets(possible[0])
            if fixed_shortcuts(space, now)
            for past in (
                subsets(possible[1:]) if space.recurrences == "free" else fixed_recurrences(space, possible[1:])
            )
        ]
        for widths in itertools.product(space.widths, repeat=n):
            for masks in wirings:
                if space.kind == "recurrence":
                    yield point_of(widths, space.activations * n, masks, timeblock)
                else:
                    yield Point(widths, space.activations * n, masks[0].tolist(), 1e-3)


def fixed_recurrences(space, possible):
    own = np.eye(possible.shape[-1], dtype=bool)
    own[0] = own[-1] = False
    return [possible & own if space.recurrences == "own" else possible]


@pytest.mark.parametrize("space", [*RECURRENCES, *DENSITIES], ids=str)
def test_counts_agree_with_enumeration_and_codes_go_both_ways(space):
    every = list(everything(space))
    assert len(set(every)) == len(every) == space.count()
    for point in every[:: max(1, len(every) // 300)]:
        code = space.encode(point)
        assert list(code) == list(space.parameters)
        assert space.decode(code) == point
    assert space.count_classes() is None


@pytest.mark.parametrize(
    "space", [RECURRENCES[0], RECURRENCES[3], DENSITIES[1], DENSITIES[2]], ids=lambda space: f"{space.kind}"
)
def test_samples_are_uniform_over_points_that_are_no_constant(space):
    rng, counts = np.random.default_rng(0), {point: 0 for point in everything(space) if not point.is_constant}
    draws = 12 * len(counts)
    for _ in range(draws):
        counts[space.sample(rng)] += 1
    statistic, freedom = sum((n - 12) ** 2 / 12 for n in counts.values()), len(counts) - 1
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


LARGE = [
    Space(3, (8, 16), kind="recurrence", lags=(2, 3), timeblocks=(1, 2)),
    Space(3, (8, 16), kind="recurrence", lags=(1, 2), density=(0.3, 0.6), min_blocks=1, max_span=2),
    Space(3, (8, 16), kind="recurrence", lags=(1, 2), recurrences="own", min_blocks=1),
    Space(3, (8, 16), kind="recurrence", lags=(2, 3), recurrences="all", shortcuts="sequential", timeblocks=(1, 2)),
    Space(4, (8, 16), density=(0.4, 0.6), min_blocks=2),
    Space(4, (8, 16), density=(0.45, 0.55), min_blocks=2),
]


@pytest.mark.parametrize("space", LARGE, ids=str)
@given(seed=st.integers(0, 2**32 - 1))
def test_mutations_draws_and_beginnings_stay_in_the_space(space, seed):
    rng = np.random.default_rng(seed)
    point = beginning(space, rng)
    for _ in range(6):
        code = space.encode(point)
        assert all(value in space.parameters[name] for name, value in code.items())
        assert space.decode(code) == point
        point = mutate(point, space, rng)
    drawn = space.decode(space.draw(rng))
    assert space.decode(space.encode(drawn)) == drawn


@pytest.mark.parametrize("space", LARGE, ids=str)
def test_a_mutation_changes_the_point(space):
    rng = np.random.default_rng(0)
    point = space.sample(rng)
    same = 0
    for _ in range(400):
        child = mutate(point, space, rng)
        same += child == point
        point = child
    assert same < 20


def test_mutations_change_everything_that_varies():
    rng, seen = np.random.default_rng(0), set()
    space = replace(LARGE[0], max_blocks=2)
    point = space.sample(rng)
    names = {"widths", "activations", "shortcuts", "recurrences", "timeblock", "learning_rate"}
    for _ in range(1000):
        child = mutate(point, space, rng)
        seen |= {name for name in names if getattr(child, name) != getattr(point, name)}
        seen |= {"lags"} if len(child.recurrences) != len(point.recurrences) else set()
        point = child
    assert seen == {*names, "lags"}


def test_a_space_of_two_kinds_has_the_codes_of_both():
    space = OneOf((Space(2, (8,)), Space(2, (8,), kind="recurrence", lags=(1, 2))))
    rng = np.random.default_rng(0)
    for _ in range(30):
        point = space.sample(rng)
        assert space.decode(space.encode(point)) == point


def test_a_code_of_another_density_keeps_the_shortest_shortcuts():
    space = Space(2, **SMALL, density=(0.5, 0.5), min_blocks=2)
    codes = {name: choices[0] for name, choices in space.parameters.items()}
    none, every = codes, codes | {name: True for name in codes if name.startswith("shortcut")}
    plain = shortcut_mask("sequential", 4)
    assert np.array_equal(space.decode(none).mask, plain)
    assert np.array_equal(space.decode(every).mask, plain)
    with pytest.raises(ValueError, match="not in the space"):
        space.encode(replace(space.decode(none), shortcuts=shortcut_mask(None, 4)))


def test_a_point_with_what_the_space_has_not_is_refused():
    space = Space(1, (8,), kind="recurrence", lags=(1,), recurrences="own")
    inside = space.sample(np.random.default_rng(0))
    for recurrences in (((False,) * 3,) * 3,), (((False,) * 3,) * 3,) * 2:
        point = Point((8,), ("relu",), shortcut_mask(None, 3), 1e-3, kind="recurrence", recurrences=recurrences)
        with pytest.raises(ValueError, match="not in the space"):
            space.encode(point)
    with pytest.raises(ValueError, match="of kind 'recurrence', which is not in the space"):
        Space().encode(inside)


def test_a_series_is_searched_with_recurrences_where_these_are_asked_for():
    assert default_space(SERIES, 200).kind == "dense"
    space, rng = space_of_kind("recurrence", SERIES, 200), np.random.default_rng(0)
    for _ in range(5):
        build(space.sample(rng), SERIES, seed=0)


def test_a_beginning_is_plain_or_whole_or_drawn():
    space = Space(3, kind="recurrence", lags=(2,), min_blocks=3, timeblocks=(1, 2))
    counts = {"plain": 0, "all": 0}
    for seed in range(90):
        point = beginning(space, np.random.default_rng(seed))
        plain = np.zeros_like(point.masks)
        plain[0] = shortcut_mask("sequential", 5)
        plain[point.timeblock, range(1, 4), range(1, 4)] = True
        counts["plain"] += np.array_equal(point.masks, plain)
        counts["all"] += np.array_equal(point.masks, legal(3, 2, point.timeblock))
    assert all(20 <= count <= 40 for count in counts.values())
