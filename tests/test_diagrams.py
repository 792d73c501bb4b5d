"""Diagrams of a report: where boxes and arrows are, what a block says of itself; and the scales of its charts."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import machgraph as mg
from machgraph.partition import shortcut_mask
from search.report.diagrams import block_diagram, machine_diagram, pages
from search.report.scales import Scale, loss_scale

ARCS = st.integers(2, 9).flatmap(lambda n: st.sets(st.sampled_from(list(combinations(range(n), 2)))))


def crossings(arcs) -> int:
    return sum(a < c < b < d or c < a < d < b for (a, b), (c, d) in combinations(arcs, 2))


@given(ARCS)
def test_two_sides_leave_at_most_half_of_the_crossings(arcs):
    side = pages(arcs)
    assert set(side) == arcs
    assert 2 * sum(crossings([arc for arc in arcs if side[arc] == s]) for s in (1, -1)) <= crossings(arcs)


@given(st.integers(2, 7), st.randoms(use_true_random=False), st.booleans())
def test_a_block_diagram_has_every_block_and_edge_within_its_frame(n, random, down):
    mask = np.tri(n, k=-1, dtype=bool) & np.array([[random.random() < 0.5 for _ in range(n)] for _ in range(n)])
    widths = [random.randint(1, 500) for _ in range(n)]
    diagram = block_diagram(widths, ["relu"] * n, mask, down=down)
    assert {(int(line.target), int(line.source)) for line in diagram.lines} == set(zip(*np.nonzero(mask), strict=True))
    assert all(line.shortcut == (int(line.target) > int(line.source) + 1) for line in diagram.lines)
    boxes = {box.key: box for box in diagram.boxes}
    assert list(boxes) == [str(i) for i in range(n)]
    for box in diagram.boxes:
        assert diagram.left <= box.x - box.width / 2
        assert box.x + box.width / 2 <= diagram.left + diagram.width
        assert diagram.top <= box.y - box.height / 2
        assert box.y + box.height / 2 <= diagram.top + diagram.height
    for a, b in combinations(diagram.boxes, 2):
        assert abs(a.x - b.x) >= (a.width + b.width) / 2 or abs(a.y - b.y) >= (a.height + b.height) / 2
    for line in diagram.lines:
        target, (x, y) = boxes[line.target], map(float, line.head.split()[0].split(","))
        inside = max(abs(x - target.x) - target.width / 2, abs(y - target.y) - target.height / 2)
        assert abs(inside) < 0.1, "the tip of an arrow is on the border of the block that it enters"


def test_a_block_says_what_it_hears_and_feeds():
    mask = shortcut_mask([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]], 4)
    boxes = block_diagram((8, 16, 32, 2), ("identity", "relu", "tanh", "identity"), mask, down=False).boxes
    assert [box.says for box in boxes] == [
        "Input: 8 features; feeds block 1 and block 2.",
        "Block 1: 16 units, relu; hears the input, feeds block 2 and the output.",
        "Block 2: 32 units, tanh; hears the input and block 1, feeds the output.",
        "Output: 2 units; hears block 1 and block 2.",
    ]


def test_a_block_says_at_which_lags_it_hears_the_past():
    masks = np.zeros((3, 4, 4), dtype=bool)
    masks[0] = shortcut_mask("sequential", 4)
    masks[1:, 1, 1] = masks[2, 1, 2] = masks[1, 3, 1] = True
    diagram = block_diagram((1, 8, 8, 1), ("identity", "relu", "relu", "identity"), masks, down=False)
    assert [box.says for box in diagram.boxes[1:]] == [
        "Block 1: 8 units, relu; "
        "hears the input, itself (lags 1, 2) and block 2 (lag 2), feeds block 2 and the output.",
        "Block 2: 8 units, relu; hears block 1, feeds block 1 and the output.",
        "Output: 1 units; hears block 1 (lag 1) and block 2.",
    ]
    assert [box.detail for box in diagram.boxes] == ["1", "8 relu ↺", "8 relu", "1"]
    assert {(line.source, line.target) for line in diagram.lines} == {("0", "1"), ("1", "2"), ("2", "3"), ("1", "3")}


def test_a_machine_diagram_is_the_dependency_graph():
    graph = mg.DenseMachine((3, 4, 4, 2)).architecture.graph
    for down in (False, True):
        diagram = machine_diagram(graph, down=down)
        assert {(line.source, line.target) for line in diagram.lines} == set(graph.edges)
        places = {box.key: box.y if down else box.x for box in diagram.boxes}
        assert all(places[a] < places[b] for a, b in graph.edges)
    (w2,) = [box for box in diagram.boxes if box.key == "w_2"]
    assert w2.says == "w₂, level 4: reads z₀ and z₁, writes y₂; hears σ₀ and σ₁, feeds σ₂."


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30))
def test_lower_losses_stand_lower_and_ticks_are_on_the_scale(losses):
    scale = loss_scale(losses)
    places = [scale(loss) for loss in sorted(losses)]
    assert places == sorted(places, reverse=True)
    assert all(0 <= place <= 1000 for place in places)
    assert places[0] > scale(math.nan) == scale(math.inf) == 0
    assert all(scale.low <= tick <= scale.high or tick == pytest.approx(scale.low) for tick in scale.ticks)
    assert len(scale.ticks) <= 14


def test_a_scale_of_equal_numbers_still_has_room():
    scale = loss_scale([0.5, 0.5, math.nan])
    assert scale.low < 0.5 < scale.high
    assert Scale(0, 4)(1) == 250
