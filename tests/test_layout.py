"""Layered layouts: nothing overlaps, every line can be followed, and the same graph gives the same picture."""

import os
import subprocess
import sys
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machgraph.layout import Layout, layered, transposed, wrapped
from machgraph.layout.mesh import LINE_GAP, NODE_GAP


@st.composite
def graphs(draw, most=14):
    n = draw(st.integers(1, most))
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    if n > 1:
        pairs = st.tuples(st.integers(0, n - 2), st.integers(1, n - 1)).filter(lambda pair: pair[0] < pair[1])
        graph.add_edges_from(draw(st.lists(pairs, max_size=3 * n)))
    return graph


def random_graph(n, seed):
    rng = np.random.default_rng(seed)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    for b in range(1, n):
        graph.add_edges_from((int(a), b) for a in rng.integers(0, b, rng.integers(1, 4)))
    return graph


def laid_out(graph):
    layers = [sorted(layer) for layer in nx.topological_generations(graph)]
    return layered(graph, layers, {node: (20.0 + 3 * (hash(node) % 5), 14.0 + hash(node) % 3) for node in graph})


def box(layout, node):
    (x, y), (w, h) = layout.centres[node], layout.sizes[node]
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def sampled(route, steps=12):
    """Points on a route, by the definition of its cubic curves."""
    t = np.linspace(0, 1, steps)[:, None]
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    curves = [np.array(route[k : k + 4]) for k in range(0, len(route) - 1, 3)]
    return np.concatenate([sum(w * p for w, p in zip(weights, curve, strict=True)) for curve in curves])


def check(graph: nx.DiGraph, layout: Layout) -> None:
    for a, b in combinations(graph, 2):
        left, right = box(layout, a), box(layout, b)
        clear = max(left[0] - right[2], right[0] - left[2], left[1] - right[3], right[1] - left[3])
        assert clear >= NODE_GAP - 1e-6
    assert set(layout.routes) == set(graph.edges)
    for (a, b), route in layout.routes.items():
        assert len(route) % 3 == 1
        x0, y0, x1, y1 = box(layout, a)
        assert route[0] == pytest.approx((x1, (y0 + y1) / 2))
        x0, y0, x1, y1 = box(layout, b)
        assert route[-1][0] == pytest.approx(x0)
        assert y0 < route[-1][1] < y1
        points = sampled(route)
        assert (np.diff(points[:, 0]) >= -1e-9).all()
        assert (points >= -1e-6).all()
        assert (points <= np.array([layout.width, layout.height]) + 1e-6).all()
        for node in graph:
            x0, y0, x1, y1 = box(layout, node)
            beside = (points[:, 0] > x0) & (points[:, 0] < x1) & (node not in (a, b))
            distance = np.maximum(y0 - points[:, 1], points[:, 1] - y1)
            assert (distance[beside] >= LINE_GAP - 1e-6).all()


@given(graphs())
def test_nothing_overlaps_and_no_line_touches_a_node_that_it_does_not_end_at(graph):
    check(graph, laid_out(graph))


@pytest.mark.parametrize("seed", range(3))
def test_the_same_holds_at_forty_nodes(seed):
    graph = random_graph(40, seed)
    check(graph, laid_out(graph))


def test_lines_of_different_nodes_never_merge():
    graph = random_graph(40, 5)
    layout = laid_out(graph)
    for (a, b), (c, d) in combinations(layout.routes, 2):
        if a != c:
            # where both have a joint at one x, the joints are apart
            first = {round(x, 6): y for x, y in layout.routes[a, b][::3]}
            for x, y in layout.routes[c, d][::3]:
                if round(x, 6) in first:
                    assert abs(first[round(x, 6)] - y) > 5


def test_lines_of_one_node_share_their_bends():
    graph = nx.DiGraph([*nx.path_graph(6, create_using=nx.DiGraph).edges, (0, 3), (0, 4), (0, 5)])
    layout = laid_out(graph)
    short, long = layout.routes[0, 3], layout.routes[0, 5]
    shared = len(short) - 4  # all but the stretch into the band of node 3 and the straight end
    assert shared > 4
    assert short[: shared - 3] == long[: shared - 3]


def test_a_chain_is_straight():
    layout = laid_out(nx.path_graph(17, create_using=nx.DiGraph))
    assert len({y for _, y in layout.centres.values()}) == 1
    assert len({y for route in layout.routes.values() for _, y in route}) == 1


def test_a_crossing_that_need_not_be_is_removed():
    graph = nx.DiGraph([("a", "d"), ("b", "c")])
    layout = layered(graph, [["a", "b"], ["c", "d"]], dict.fromkeys("abcd", (10.0, 10.0)))
    y = {node: centre[1] for node, centre in layout.centres.items()}
    assert (y["a"] < y["b"]) == (y["d"] < y["c"])


def test_a_tree_is_drawn_without_crossings():
    rng = np.random.default_rng(0)
    graph = nx.DiGraph((int(rng.integers(0, b)), b) for b in range(1, 60))
    layout = laid_out(graph)
    for (a, b), (c, d) in combinations(layout.routes, 2):  # in a tree every edge joins neighbouring layers
        start, end = layout.routes[a, b][0], layout.routes[a, b][-1]
        other_start, other_end = layout.routes[c, d][0], layout.routes[c, d][-1]
        if layout.centres[a][0] == layout.centres[c][0]:
            assert (start[1] - other_start[1]) * (end[1] - other_end[1]) >= 0


def test_layers_may_run_downwards():
    layout = laid_out(random_graph(12, 0))
    down = transposed(layout)
    assert transposed(down) == layout
    assert (down.width, down.height) == (layout.height, layout.width)
    assert down.centres[0] == layout.centres[0][::-1]


def test_no_nodes():
    layout = layered(nx.DiGraph(), [], {})
    assert (layout.centres, layout.routes) == ({}, {})


def test_the_layout_does_not_depend_on_the_hashes_of_names():
    program = (
        "import networkx as nx; from machgraph.layout import layered;"
        "g = nx.DiGraph((f'n{b * 7 % 5 % b}', f'n{b}') for b in range(1, 20)); "
        "g.add_edges_from([('n0', 'n19'), ('n2', 'n18')]);"
        "print(layered(g, list(nx.topological_generations(g)), {n: (20, 10) for n in g}))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ([["a"], []], "got 1 places for 2 nodes"),
        ([["a", "b"], ["a"]], "got 3 places for 2 nodes"),
        ([["b"], ["a"]], "'a' -> 'b' leads from layer 1 to 0"),
        ([["a", "b"]], "'a' -> 'b' leads from layer 0 to 0"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers, sentence):
    with pytest.raises(ValueError, match=sentence):
        layered(nx.DiGraph([("a", "b")]), layers, {"a": (1, 1), "b": (1, 1)})


# ---- in rows -----------------------------------------------------------------------------------------------------


def in_rows(graph, longest):
    layers = [sorted(layer) for layer in nx.topological_generations(graph)]
    return wrapped(layered(graph, layers, dict.fromkeys(graph, (20.0, 14.0))), layers, longest)


@pytest.mark.parametrize("shortcuts", [(), ((0, 3), (5, 9), (8, 20)), ((0, 29), (1, 28), (2, 27))])
@pytest.mark.parametrize("longest", [130.0, 300.0])
def test_long_layouts_go_on_in_rows(shortcuts, longest):
    graph = nx.path_graph(30, create_using=nx.DiGraph)
    graph.add_edges_from(shortcuts)
    layout = in_rows(graph, longest)
    assert layout.width <= longest
    for a, b in combinations(graph, 2):
        left, right = box(layout, a), box(layout, b)
        assert max(left[0] - right[2], right[0] - left[2], left[1] - right[3], right[1] - left[3]) > 6
    for (a, b), route in layout.routes.items():
        assert len(route) % 3 == 1
        x0, y0, x1, y1 = box(layout, a)
        assert route[0] == pytest.approx((x1, (y0 + y1) / 2))
        x0, y0, x1, y1 = box(layout, b)
        assert route[-1][0] == pytest.approx(x0)
        assert y0 < route[-1][1] < y1
        points = sampled(route)
        assert (points > 0).all()
        assert (points < (layout.width + 1e-6, layout.height + 1e-6)).all()
        for node in set(graph) - {a, b}:
            x0, y0, x1, y1 = box(layout, node)
            assert not ((points > (x0 - 2, y0 - 2)) & (points < (x1 + 2, y1 + 2))).all(axis=1).any()


def test_lines_that_go_round_together_do_not_cross():
    graph = nx.DiGraph([(f"{line}{i}", f"{line}{i + 1}") for line in "abc" for i in range(8)])
    layout = in_rows(graph, 140.0)
    assert layout.width <= 140.0
    curves = {line: [sampled(r, 40) for (a, _), r in layout.routes.items() if a[0] == line] for line in "abc"}
    for one, other in combinations("abc", 2):
        for first in curves[one]:
            for second in curves[other]:
                assert np.hypot(*(first[:, None] - second[None]).transpose(2, 0, 1)).min() > 2


def test_where_many_lines_lead_on_no_row_ends():
    graph = nx.DiGraph([(f"{line}{i}", f"{line}{i + 1}") for line in "abcdef" for i in range(8)])
    layers = [sorted(layer) for layer in nx.topological_generations(graph)]
    layout = layered(graph, layers, dict.fromkeys(graph, (20.0, 14.0)))
    assert wrapped(layout, layers, 140.0) is layout
    assert wrapped(layout, layers, layout.width) is layout
