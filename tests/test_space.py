import itertools
import json
import random
import subprocess
import sys
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networkx.algorithms.isomorphism import DiGraphMatcher, categorical_node_match

from machgraph.partition import channel_mask, shortcut_mask
from search.defaults import default_space
from search.isomorphism.canonical import canonical, key
from search.isomorphism.count import structures
from search.isomorphism.order import canonical_order, symmetries
from search.one_of import OneOf
from search.point import Point
from search.shape import Shape
from search.space import Space
from search.strategies.mutation import mutate

ACTIVATIONS = {"tanh": np.tanh, "relu": lambda y: np.maximum(y, 0.0)}


@st.composite
def points(draw, min_blocks=0, max_blocks=5, kinds=("dense", "convolution")):
    n = draw(st.integers(min_blocks, max_blocks))
    mask = np.zeros((n + 2, n + 2), dtype=bool)
    mask[np.tri(n + 2, k=-1, dtype=bool)] = draw(
        st.lists(st.booleans(), min_size=(n + 1) * (n + 2) // 2, max_size=(n + 1) * (n + 2) // 2)
    )
    widths = draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))
    activations = draw(st.lists(st.sampled_from(sorted(ACTIVATIONS)), min_size=n, max_size=n))
    if draw(st.sampled_from(kinds)) == "dense":
        return point_of(widths, activations, mask)
    scales = sorted(draw(st.lists(st.integers(0, 2), min_size=n + 1, max_size=n + 1)))
    kernel = draw(st.sampled_from((2, 3)))
    return point_of(widths, activations, mask, kind="convolution", scales=tuple(scales), kernel=kernel)


def point_of(widths, activations, mask, learning_rate=1e-3, **more):
    mask = tuple(map(tuple, np.asarray(mask).tolist()))
    return Point(tuple(widths), tuple(activations), mask, learning_rate, **more)


def reordered(point, blocks):
    """The same network with its blocks (input and output at the ends) in another order."""
    return point_of(
        [point.widths[b - 1] for b in blocks[1:-1]],
        [point.activations[b - 1] for b in blocks[1:-1]],
        point.mask[np.ix_(blocks, blocks)],
        **like(point),
    )


def like(point, scales=None):
    """What makes a point what it is, beside its blocks: its scales are those given, or its own."""
    return {"kind": point.kind, "kernel": point.kernel, "scales": point.scales if scales is None else tuple(scales)}


def with_block(point, block, width, activation, change, scale=None):
    """The point with one more block at this place, of the scale given or that of the block before it."""
    widths, activations, mask = inserted(point, block, width, activation)
    change(mask)
    if point.kind == "dense":
        return point_of(widths, activations, mask)
    scales = [0, *point.scales]
    scales.insert(block, scales[block - 1] if scale is None else scale)
    return point_of(widths, activations, mask, **like(point, scales[1:]))


def inserted(point, block, width, activation):
    """The point with one more block at this place that hears nothing and feeds nothing, and its mask."""
    mask = np.insert(np.insert(point.mask, block, False, axis=0), block, False, axis=1)
    widths, activations = list(point.widths), list(point.activations)
    widths.insert(block - 1, width)
    activations.insert(block - 1, activation)
    return widths, activations, mask


def reduced(point):
    """An independent account of what is one network, by networkx: the live blocks, twins together."""
    output = point.blocks + 1
    graph = nx.DiGraph([(int(j), int(i)) for i, j in np.argwhere(point.mask)])
    graph.add_nodes_from(range(output + 1))
    live = ((nx.descendants(graph, 0) & nx.ancestors(graph, output)) - {0, output}) | {0, output}
    graph = graph.subgraph(live)

    def same(a, b):
        if a == b or {a, b} & {0, output}:
            return a == b
        return (
            set(graph.predecessors(a)) == set(graph.predecessors(b))
            and set(graph.successors(a)) == set(graph.successors(b))
            and point.activations[a - 1] == point.activations[b - 1]
            and scale_of(point, a) == scale_of(point, b)
        )

    quotient = nx.quotient_graph(graph, same)
    for members, data in quotient.nodes(data=True):
        (first, *_) = members
        hidden = first not in (0, output)
        data["label"] = (
            (sum(point.widths[m - 1] for m in members), point.activations[first - 1], scale_of(point, first))
            if hidden
            else ("input" if first == 0 else "output")
        )
    return quotient


def scale_of(point, block):
    return (0, *point.scales)[block] if point.scales else 0


def as_graph(point):
    graph = nx.DiGraph([(int(j), int(i)) for i, j in np.argwhere(point.mask)])
    scales = [scale_of(point, block) for block in range(1, point.blocks + 1)]
    labels = ["input", *zip(point.widths, point.activations, scales, strict=True), "output"]
    graph.add_nodes_from((block, {"label": label}) for block, label in enumerate(labels))
    return graph


def matcher(a, b):
    return DiGraphMatcher(a, b, node_match=categorical_node_match("label", None))


def convolutions(space, blocks):
    """All that a point of so many blocks can be, beside blocks and shortcuts."""
    if space.kind == "dense":
        return [{}]
    scales = itertools.product(range(space.max_scale + 1), repeat=blocks)
    first = space.max_scale if space.first_scale is None else space.first_scale
    rising = [s for s in scales if list(s) == sorted(s) and (not s or s[0] <= first)]
    return [
        {"kind": space.kind, "scales": (*s, head), "kernel": kernel, "dilation": dilation}
        for s, head, kernel, dilation in itertools.product(rising, space.heads, space.kernels, space.dilations)
    ]


def everything(space):
    """Every point of a space, by its definition."""
    assert space.shortcuts == "free"
    for n in range(space.min_blocks, space.max_blocks + 1):
        legal = np.tri(n + 2, k=-1, dtype=bool)
        for widths in itertools.product(space.widths, repeat=n):
            for activations in itertools.product(space.activations, repeat=n):
                for edges in itertools.product((False, True), repeat=int(legal.sum())):
                    mask = np.zeros_like(legal)
                    mask[legal] = edges
                    if space.max_span and (np.subtract(*np.nonzero(mask)) > space.max_span).any():
                        continue
                    trained = itertools.product(space.learning_rates, space.weight_decays, space.batch_sizes)
                    for (rate, decay, size), built in itertools.product(trained, convolutions(space, n)):
                        yield point_of(widths, activations, mask, rate, weight_decay=decay, batch_size=size, **built)


# Points


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (8, 0)}, "width 0"),
        ({"activations": ("relu",)}, "1 activations for 2 hidden blocks"),
        ({"activations": "relu"}, "one name for each"),
        ({"activations": ("relu", 3)}, "one name for each"),
        ({"shortcuts": ((False,),)}, r"need \(4, 4\)"),
        ({"shortcuts": tuple(map(tuple, np.ones((4, 4), dtype=bool).tolist()))}, "does not come after it"),
        ({"learning_rate": 0.0}, "positive and finite"),
        ({"learning_rate": float("nan")}, "positive and finite"),
        ({"learning_rate": float("inf")}, "positive and finite"),
    ],
)
def test_a_point_is_checked_when_it_is_made(change, message):
    point = point_of((8, 8), ("relu", "tanh"), shortcut_mask(None, 4))
    with pytest.raises(ValueError, match=message):
        replace(point, **change)


@given(points(), st.integers(1, 5), st.integers(1, 3))
def test_parameters_and_flops_count_the_entries_of_the_masked_matrix(point, n_inputs, n_outputs):
    shape = Shape(n_inputs * 35, n_outputs, (n_inputs, 5, 7))
    partition = point.partition(shape)
    weights = channel_mask(point.mask, partition).sum(axis=1) * point.kernel**2
    assert point.parameters(shape) == weights.sum() + partition.size
    sizes = {0: 35, 1: 2 * 3, 2: 1} if point.kind == "convolution" else {0: 1}
    positions = np.repeat([sizes[scale_of(point, block)] for block in range(point.blocks + 2)], partition.widths)
    assert point.flops(shape) == ((2 * weights + 1) * positions).sum()


def test_a_convolution_needs_a_grid():
    point = point_of((), (), shortcut_mask(None, 2), kind="convolution", scales=(0,))
    with pytest.raises(ValueError, match="64 features on no grid"):
        point.partition(Shape(64, 10))


@given(points())
def test_depth_is_of_the_machine_graph_of_the_canonical_form(point):
    form = canonical(point)
    machines = nx.DiGraph()  # σ_j -> w_i where block i hears block j, w_i -> σ_i
    machines.add_nodes_from(("σ", block) for block in range(form.blocks + 2))
    for i, j in np.argwhere(form.mask):
        pools = [("σ", j), *(("pool", j, scale) for scale in range(scale_of(form, j), scale_of(form, i)))]
        nx.add_path(machines, [*pools, ("w", i), ("σ", i)])
    assert point.depth == form.depth == len(list(nx.topological_generations(machines)))


@given(points())
def test_a_point_goes_through_json(point):
    assert Point.from_dict(json.loads(json.dumps(point.to_dict()))) == point


def test_an_unknown_field_of_a_record_is_refused():
    record = point_of((), (), shortcut_mask(None, 2)).to_dict()
    with pytest.raises(ValueError, match="a point has widths, activations, shortcuts, learning_rate, weight_decay"):
        Point.from_dict({**record, "momentum": 0.9})


def test_descriptions():
    full = point_of((32, 32), ("tanh", "relu"), shortcut_mask(None, 4))
    assert full.describe(Shape(64, 10)) == "64-32-32-10 · tanh, relu · 3 shortcuts"
    assert point_of((8,), ("relu",), shortcut_mask(None, 3)).describe(Shape(4, 2)) == "4-8-2 · relu · 1 shortcut"
    assert point_of((), (), shortcut_mask(None, 2)).describe(Shape(4, 2)) == "4-2 · linear · no shortcuts"
    assert point_of((), (), np.zeros((2, 2), dtype=bool)).describe(Shape(4, 2)) == "4-2 · constant · no shortcuts"


# Canonical form


@given(points())
def test_canonical_is_idempotent_and_isomorphic_to_the_reduced_network(point):
    form = canonical(point)
    assert canonical(form) == form
    assert matcher(reduced(point), as_graph(form)).is_isomorphic()


@given(points(max_blocks=7), st.randoms(use_true_random=False))
def test_canonical_does_not_see_the_order_of_the_blocks(point, rng):
    left, blocks = list(range(1, point.blocks + 1)), [0]
    while left:
        finest = min(scale_of(point, b) for b in left)
        ready = [b for b in left if scale_of(point, b) == finest]
        ready = [b for b in ready if not any(point.shortcuts[b][other] for other in left)]
        blocks.append(rng.choice(ready))
        left.remove(blocks[-1])
    assert canonical(reordered(point, [*blocks, point.blocks + 1])) == canonical(point)


@given(points(), st.data())
def test_canonical_drops_a_block_that_hears_nothing_or_feeds_nothing(point, data):
    block = data.draw(st.integers(1, point.blocks + 1))

    def change(mask):
        if data.draw(st.booleans()):
            mask[block, :block] = data.draw(st.lists(st.booleans(), min_size=block, max_size=block))
        else:
            later = len(mask) - block - 1
            mask[block + 1 :, block] = data.draw(st.lists(st.booleans(), min_size=later, max_size=later))

    assert canonical(with_block(point, block, 2, "tanh", change)) == canonical(point)


@given(points(min_blocks=1), st.data())
def test_canonical_merges_twins(point, data):
    block = data.draw(st.integers(1, point.blocks))
    more = data.draw(st.integers(1, 3))
    first_reader = next((i for i in range(block + 1, point.blocks + 2) if point.mask[i, block]), point.blocks + 1)
    scale = scale_of(point, block)
    later = [b for b in range(block + 1, first_reader + 1) if scale_of(point, b - 1) == scale]
    at = data.draw(st.sampled_from(later))

    def change(mask):
        mask[at] = mask[block]
        mask[:, at] = mask[:, block]

    wider = list(point.widths)
    wider[block - 1] += more
    twins = with_block(point, at, more, point.activations[block - 1], change)
    assert canonical(twins) == canonical(replace(point, widths=tuple(wider)))


@given(points(max_blocks=4, kinds=("dense",)), st.integers(0, 2**32 - 1))
def test_canonical_computes_the_same_function(point, seed):
    rng, form = np.random.default_rng(seed), canonical(point)
    n_inputs, n_outputs, x = 3, 2, np.random.default_rng(seed + 1).normal(size=(3, 5))

    def solve(mask, widths, activations, weight, bias):
        z = [x]
        for i in range(1, len(mask)):
            y = bias[i][:, None] + sum((weight[i, j] @ z[j] for j in range(i) if mask[i, j]), np.zeros((widths[i], 5)))
            z.append(ACTIVATIONS[activations[i - 1]](y) if i <= len(activations) else y)
        return z

    widths = point.partition(Shape(n_inputs, n_outputs)).widths
    weight = {(i, j): rng.normal(size=(widths[i], widths[j])) for i in range(len(widths)) for j in range(i)}
    bias = [rng.normal(size=width) for width in widths]
    z = solve(point.mask, widths, point.activations, weight, bias)

    isomorphism = next(matcher(reduced(point), as_graph(form)).isomorphisms_iter())
    members = {block: sorted(group) for group, block in isomorphism.items()}
    kept = {block for group in members.values() for block in group}
    heard = nx.descendants(as_graph(point), 0) | {0}
    for i in kept - {0}:  # a block that hears no input is a constant: it goes into the biases of its readers
        bias[i] = bias[i] + sum(weight[i, j] @ z[j][:, 0] for j in range(i) if point.mask[i, j] and j not in heard)
    form_bias = [np.concatenate([bias[m] for m in members[b]]) for b in range(form.blocks + 2)]
    form_weight = {
        (int(i), int(j)): np.block([[weight[m, k] for k in members[j]] for m in members[i]])
        for i, j in np.argwhere(form.mask)
    }
    form_widths = form.partition(Shape(n_inputs, n_outputs)).widths
    form_z = solve(form.mask, form_widths, form.activations, form_weight, form_bias)
    np.testing.assert_allclose(form_z[-1], z[-1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("max_blocks", "widths", "activations"), [(3, (1,), ("relu",)), (2, (1, 2), ("relu", "tanh"))], ids=str
)
def test_no_two_canonical_forms_of_a_space_are_isomorphic(max_blocks, widths, activations):
    space = Space(max_blocks, widths, activations, learning_rates=(1e-3,))
    alike = {}  # by labels and number of edges, which isomorphic graphs share
    for form in {canonical(point) for point in everything(space)}:
        kind = (tuple(sorted(zip(form.widths, form.activations, strict=True))), form.mask.sum())
        alike.setdefault(kind, []).append(as_graph(form))
    for graphs in alike.values():
        assert not any(matcher(a, b).is_isomorphic() for a, b in itertools.combinations(graphs, 2))


def test_an_output_that_hears_nothing_is_the_constant():
    mask = np.tri(4, k=-1, dtype=bool)
    mask[-1] = False
    constant = point_of((), (), np.zeros((2, 2), dtype=bool))
    assert canonical(point_of((8, 8), ("relu", "tanh"), mask)) == constant
    assert constant.depth == 1
    assert constant.parameters(Shape(64, 10)) == constant.flops(Shape(64, 10)) == 74


def chains(order, length):
    """Equal chains of blocks from the input to the output, numbered in this order, level by level."""
    size = len(order) * length
    mask = np.zeros((size + 2, size + 2), dtype=bool)
    block = {(chain, 0): 0 for chain in order}
    for k, (level, chain) in enumerate(itertools.product(range(1, length + 1), order), start=1):
        block[chain, level] = k
        mask[k, block[chain, level - 1]] = True
    mask[-1, [block[chain, length] for chain in order]] = True
    return point_of((8,) * size, ("relu",) * size, mask)


@pytest.mark.parametrize(("copies", "length"), [(6, 2), (4, 3), (3, 4), (12, 1)])
def test_symmetric_networks_of_twelve_blocks(copies, length):
    point = chains(range(copies), length)
    form = canonical(point)
    assert form.blocks == (1 if length == 1 else 12)
    blocks = [0, *range(1, 13), 13]
    rng = random.Random(0)
    for level in range(length):
        middle = blocks[1 + level * copies : 1 + (level + 1) * copies]
        rng.shuffle(middle)
        blocks[1 + level * copies : 1 + (level + 1) * copies] = middle
    assert canonical(reordered(point, blocks)) == form


@given(st.integers(1, 5), st.data())
def test_the_generators_give_all_automorphisms(size, data):
    edges = [(a, b) for b in range(size) for a in range(b) if data.draw(st.booleans())]
    sources = [[a for a, b in edges if b == v] for v in range(size)]
    expected = {
        image for image in itertools.permutations(range(size)) if {(image[a], image[b]) for a, b in edges} == set(edges)
    }
    assert symmetries(size, canonical_order([0] * size, sources).generators) == expected


# Keys


def test_a_key_is_of_the_canonical_form_and_all_that_a_training_depends_on():
    point = point_of((8,), ("relu",), shortcut_mask(None, 3))
    twins = point_of((4, 4), ("relu", "relu"), [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]])
    assert key(point, seed=0, budget=10) == key(twins, seed=0, budget=10)
    others = [
        key(point, seed=1, budget=10),
        key(point, seed=0, budget=20),
        key(replace(point, learning_rate=2e-3), seed=0, budget=10),
        key(replace(point, weight_decay=1.0), seed=0, budget=10),
        key(replace(point, batch_size=32), seed=0, budget=10),
        key(replace(point, kind="convolution", scales=(0, 0)), seed=0, budget=10),
        key(replace(point, activations=("tanh",)), seed=0, budget=10),
        key(replace(point, widths=(9,)), seed=0, budget=10),
        key(replace(point, shortcuts=shortcut_mask("sequential", 3)), seed=0, budget=10),
    ]
    assert len({key(point, seed=0, budget=10), *others}) == 1 + len(others)


def test_a_hyperparameter_that_comes_later_is_in_the_key():
    @dataclass(frozen=True)
    class Later(Point):
        momentum: float = 0.9

    point = Later((8,), ("relu",), shortcut_mask(None, 3), 1e-3)
    assert canonical(replace(point, momentum=0.1)).momentum == 0.1
    assert key(point, seed=0, budget=1) != key(replace(point, momentum=0.1), seed=0, budget=1)


def test_a_key_is_the_same_in_another_process():
    code = (
        "from search.isomorphism.canonical import key; from search.point import Point;"
        "from machgraph.partition import shortcut_mask as m;"
        "print(key(Point((8, 8, 4), ('relu', 'tanh', 'tanh'), m(None, 5), 1e-3), seed=3, budget=7), end='')"
    )
    here = key(point_of((8, 8, 4), ("relu", "tanh", "tanh"), shortcut_mask(None, 5)), seed=3, budget=7)
    for hash_seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert done.stdout == here


# Spaces

SMALL = [
    Space(max_blocks=0, widths=(8,), activations=("relu",), learning_rates=(1e-3, 1e-2)),
    Space(max_blocks=2, widths=(1, 2), activations=("relu", "tanh"), learning_rates=(1e-3, 1e-2)),
    Space(max_blocks=2, widths=(2, 3, 7), activations=("relu",), learning_rates=(1e-3,)),
    Space(max_blocks=3, widths=(1,), activations=("relu", "tanh"), learning_rates=(1e-3,)),
    Space(max_blocks=3, widths=(2, 3), activations=("relu",), learning_rates=(1e-3,)),
    Space(max_blocks=2, widths=(2, 3, 7), activations=("relu", "tanh"), learning_rates=(1e-3,), min_blocks=1),
    Space(max_blocks=3, widths=(16,), activations=("relu",), learning_rates=(1e-3, 1e-2), min_blocks=3),
]


@pytest.mark.parametrize("space", SMALL, ids=str)
def test_counts_agree_with_enumeration(space):
    every = list(everything(space))
    assert len(set(every)) == len(every) == space.count()
    assert len({canonical(point) for point in every}) == space.count_classes()


CONVOLUTIONS = [
    Space(1, (8, 16), ("relu",), (1e-3,), kind="convolution", max_scale=1, heads=(1, 2)),
    Space(2, (8,), ("relu",), (1e-3,), (0.1, 0.3), kind="convolution", kernels=(1, 3), dilations=(1, 2), max_scale=2,
          heads=(2,)),
    Space(2, (8,), ("relu",), (1e-3,), kind="convolution", max_scale=2, first_scale=0, heads=(2,)),
    Space(2, (8,), ("relu",), (1e-3,), kind="convolution", max_scale=2, first_scale=1, heads=(2, 3)),
    Space(3, (8,), ("relu",), (1e-3,), kind="convolution", max_span=2, min_blocks=2),
    Space(4, (8,), ("relu",), (1e-3,), max_span=1),
]  # fmt: skip


@pytest.mark.parametrize("space", CONVOLUTIONS, ids=str)
def test_points_of_convolutions_and_short_spans_agree_with_enumeration(space):
    every = list(everything(space))
    assert len(set(every)) == len(every) == space.count()
    assert all(space.decode(space.encode(point)) == point for point in every[:: max(1, len(every) // 500)])
    assert space.count_classes() is None


SKIPPING = ((0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (1, 0, 1, 0))


@pytest.mark.parametrize(
    ("shortcuts", "edges"), [("all", 6), ("sequential", 3), (SKIPPING, 4), (np.array(SKIPPING, dtype=bool), 4)]
)
def test_a_space_may_leave_the_shortcuts_no_choice(shortcuts, edges):
    space = Space(2, (8, 16), ("relu",), (1e-3,), min_blocks=2, shortcuts=shortcuts)
    rng = np.random.default_rng(0)
    assert space.count() == 4
    assert not any(name.startswith("shortcut") for name in space.parameters)
    point = space.sample(rng)
    for _ in range(20):
        assert point.mask.sum() == edges
        assert space.decode(space.encode(point)) == point
        point = mutate(point, space, rng)


GRID = Space(3, (4, 8), kind="convolution", kernels=(3, 5), max_scale=2, first_scale=1, heads=(2, 3))
BOTH = OneOf((Space(3, (8, 16)), GRID))


@given(st.integers(0, 2**32 - 1))
def test_mutations_and_samples_of_all_kinds_stay_in_the_space(seed):
    rng = np.random.default_rng(seed)
    point = BOTH.sample(rng)
    for _ in range(5):
        code = BOTH.encode(point)
        assert list(code) == list(BOTH.parameters)
        assert all(value in BOTH.parameters[name] for name, value in code.items())
        assert BOTH.decode(code) == point
        point = mutate(point, BOTH.of(point.kind), rng)
    drawn = BOTH.decode(BOTH.draw(rng))
    assert BOTH.decode(BOTH.encode(drawn)) == drawn


def test_mutations_change_everything_that_varies():
    rng, seen = np.random.default_rng(0), set()
    space = BOTH.of("convolution")
    point = space.sample(rng)
    names = {"widths", "activations", "shortcuts", "scales", "kernel", "learning_rate"}
    for _ in range(2000):
        child = mutate(point, space, rng)
        seen |= {name for name in names if getattr(child, name) != getattr(point, name)}
        point = child
    assert seen == names


def test_counts_agree_with_enumeration_at_four_blocks():
    space = Space(max_blocks=4, widths=(1,), activations=("relu",), learning_rates=(1e-3,))
    assert len({canonical(point) for point in everything(space)}) == space.count_classes()


def test_counts_of_the_default_space():
    assert Space().count() == 4 * sum(9**n * 2 ** ((n + 1) * (n + 2) // 2) for n in range(5)) == 862_970_408
    assert Space().count_classes() == 47_760_440


def test_structures_are_live_and_of_different_shape():
    graphs = []
    for structure in structures(3):
        graph = nx.DiGraph()
        graph.add_nodes_from((node, {"label": str(node)}) for node in ("in", "out"))
        graph.add_nodes_from(range(3), label="hidden")
        graph.add_edges_from((source, block) for block, heard in enumerate(structure.sources) for source in heard)
        graph.add_edges_from(("in", block) for block in range(3) if structure.hears_input[block])
        graph.add_edges_from((block, "out") for block in range(3) if structure.feeds_output[block])
        assert nx.descendants(graph, "in") >= {0, 1, 2}
        assert nx.ancestors(graph, "out") >= {0, 1, 2}
        assert not any(matcher(graph, other).is_isomorphic() for other in graphs)
        graphs.append(graph)


@given(st.integers(0, 2**32 - 1))
def test_codes_go_both_ways_with_names_that_never_change(seed):
    space = Space(max_blocks=5)
    rng = np.random.default_rng(seed)
    code = space.draw(rng)
    point = space.decode(code)
    assert list(space.encode(point)) == list(code) == list(space.parameters)
    assert space.decode(space.encode(point)) == point
    assert all(value in space.parameters[name] for name, value in space.encode(point).items())


def test_a_space_of_a_fixed_number_of_blocks_has_a_point_for_every_mask():
    space = Space(max_blocks=3, widths=(16,), activations=("relu",), learning_rates=(4e-3,), min_blocks=3)
    assert space.count() == 2**10
    rng, whole = np.random.default_rng(0), replace(space, min_blocks=0)
    assert space.count_classes() == whole.count_classes()
    assert {space.sample(rng).blocks for _ in range(50)} == {space.decode(space.draw(rng)).blocks for _ in range(50)}
    assert space.sample(rng).blocks == 3
    with pytest.raises(ValueError, match=r"blocks=0, which is not in the space: it has \(3,\)"):
        space.encode(point_of((), (), shortcut_mask(None, 2), 4e-3))


def test_a_point_outside_the_space_and_half_a_code_are_refused():
    space = Space(max_blocks=1, widths=(8,))
    with pytest.raises(ValueError, match="width_1=9, which is not in the space"):
        space.encode(point_of((9,), ("relu",), shortcut_mask(None, 3)))
    with pytest.raises(ValueError, match="blocks=2, which is not in the space"):
        space.encode(point_of((8, 8), ("relu", "relu"), shortcut_mask(None, 4)))
    with pytest.raises(ValueError, match=r"without width_1, .*learning_rate"):
        space.decode({"blocks": 0})


@pytest.mark.parametrize(("min_blocks", "points"), [(0, 22), (1, 20)])
def test_samples_are_uniform_over_points(min_blocks, points):
    space = Space(1, (8, 16), ("relu",), learning_rates=(1e-3, 1e-2), min_blocks=min_blocks)
    assert_uniform(space, points)


def test_samples_of_convolutions_are_uniform_over_points():
    space = Space(2, (8,), ("relu",), (1e-3,), min_blocks=2, kind="convolution", max_scale=1, heads=(1,), max_span=1)
    assert_uniform(space, 3)


def assert_uniform(space, points):
    rng, draws = np.random.default_rng(0), 200 * points
    assert space.count() == len(list(everything(space)))
    counts = {point: 0 for point in everything(space) if point.depth > 1}
    for _ in range(draws):
        counts[space.sample(rng)] += 1
    expected = draws / len(counts)
    statistic = sum((n - expected) ** 2 / expected for n in counts.values())
    freedom = points - 1
    assert len(counts) == points
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)  # chi-squared: its mean, and a variance of twice that


def test_a_mask_of_ones_own_is_that_of_every_point():
    space = Space(2, (8, 16), ("relu",), (1e-3,), min_blocks=2, shortcuts=SKIPPING)
    assert space.shortcuts == tuple(map(tuple, np.array(SKIPPING, dtype=bool).tolist()))
    codes = itertools.product(*space.parameters.values())
    every = {space.decode(dict(zip(space.parameters, code, strict=True))) for code in codes}
    assert len(every) == space.count()
    assert {point.shortcuts for point in every} == {space.shortcuts}
    assert space == replace(space, shortcuts=np.array(SKIPPING)) == replace(space, shortcuts=list(map(list, SKIPPING)))
    with pytest.raises(ValueError, match="not in the space"):
        space.encode(point_of((8, 8), ("relu", "relu"), shortcut_mask(None, 4)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_blocks": -1}, "max_blocks=-1"),
        ({"max_blocks": True}, "max_blocks=True"),
        ({"min_blocks": 0.5}, "min_blocks=0.5"),
        ({"max_blocks": 2, "min_blocks": 3}, "min_blocks=3, max_blocks=2"),
        ({"widths": ()}, "at least one choice"),
        ({"widths": (32, 16)}, "increasing"),
        ({"widths": (0, 16)}, "width 0"),
        ({"activations": "relu"}, "give a tuple"),
        ({"activations": ("relu", "relu")}, "each name once"),
        ({"learning_rates": (1e-3, 1e-3)}, "increasing"),
        ({"learning_rates": (-1e-3, 1e-3)}, "positive and finite"),
        ({"weight_decays": (-0.1,)}, "0 or more"),
        ({"batch_sizes": (0,)}, "at least 1"),
        ({"shortcuts": "none"}, "free, all, sequential, or a mask"),
        ({"shortcuts": 3}, "free, all, sequential, or a mask"),
        ({"shortcuts": SKIPPING}, "mask of shortcuts of 4 rows, for points of 0 to 4 .* min_blocks=2 and max_blocks=2"),
        ({"shortcuts": SKIPPING, "max_blocks": 2}, "for points of 0 to 2"),
        ({"shortcuts": ((0, 1), (1, 0)), "max_blocks": 0}, "lets block 1 feed block 0"),
        ({"shortcuts": ((0, 0), (2, 0)), "max_blocks": 0}, "not true or false"),
        ({"shortcuts": ((0, 0), (0, 0)), "max_blocks": 0}, "the output hears nothing of the input"),
        ({"shortcuts": ("all", "sequential")}, "free, all, sequential, or a mask"),
        ({"shortcuts": ((0, 0), (1,)), "max_blocks": 0}, "not equally long"),
        ({"shortcuts": SKIPPING, "min_blocks": 2, "max_blocks": 2, "max_span": 1}, "free shortcuts alone"),
        ({"max_span": 0}, "at least 1"),
        ({"kind": "recurrent"}, "one of dense, convolution, recurrence"),
        ({"kernels": (3,)}, "only a convolution has these"),
        ({"lags": (2,)}, "only a recurrence has these"),
        ({"kind": "recurrence"}, "needs lags of at least 1"),
        ({"kind": "recurrence", "lags": (1,), "timeblocks": (2,)}, "its longest time block"),
        ({"density": (0.6, 0.5)}, "between 0 and 1|from 0 to 1"),
        ({"density": (0.3, 0.4), "max_blocks": 0}, "no whole number of the 1 shortcuts"),
        ({"density": (0.0, 0.5), "shortcuts": "all"}, "of free shortcuts"),
        ({"kind": "convolution", "max_scale": 2, "heads": (1,)}, "finer than what it hears"),
        ({"kind": "convolution", "first_scale": -1}, "first_scale=-1: it must be a whole number, 0 or more"),
        ({"first_scale": 0}, "only a convolution has these"),
    ],
)
def test_a_space_is_checked_when_it_is_made(wrong, message):
    with pytest.raises(ValueError, match=message):
        Space(**wrong)


@given(st.integers(1, 10**6), st.integers(1, 10**4), st.integers(1, 10**8))
def test_a_default_space_has_three_widths_in_bounds(n_inputs, n_outputs, n_samples):
    narrow, middle, wide = default_space(Shape(n_inputs, n_outputs), n_samples).widths
    assert (2 * narrow, wide) == (middle, 2 * middle)
    assert 16 <= middle <= 128
    assert middle == 16 or middle * n_inputs <= 2**18


def test_a_default_space_needs_sizes():
    with pytest.raises(ValueError, match="n_samples=0"):
        default_space(Shape(4, 2), 0)
