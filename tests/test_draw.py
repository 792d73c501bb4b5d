"""Pictures, checked by numbers: no label on another, no line through a box that it does not end at."""

import io
from itertools import combinations, pairwise

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle

import machgraph as mg
from machgraph.draw.canvas import PALE
from machgraph.draw.charts import LEGAL, SEQUENTIAL, SHORTCUT
from machgraph.graph import Node, dependency_graph, levels
from machgraph.grouping import between, cut, tree
from machgraph.partition import Partition


@pytest.fixture(autouse=True)
def _no_figure_left():
    matplotlib.use("Agg")
    yield
    plt.close("all")


def figure2():
    return dependency_graph(
        [
            Node("f1", ("x1", "x2"), ("x3",)),
            Node("f2", ("x1",), ("x5",)),
            Node("f3", ("x3",), ("x4",)),
            Node("f4", ("x4",), ("x5", "x6", "x7")),
            Node("f5", ("x6",), ("x8",)),
        ]
    )


def random_graph(n, seed=0):
    rng = np.random.default_rng(seed)
    nodes = [Node("machine 0", ("input",), ("c0",))]
    for i in range(1, n):
        reads = sorted({f"c{k}" for k in rng.integers(0, i, rng.integers(1, 4))})
        nodes.append(Node(f"machine {i}", tuple(reads), (f"c{i}",)))
    return dependency_graph(nodes)


def parametric(blocks):
    """The machines of a dense machine with all shortcuts."""
    nodes = [Node("σ_0", ("y_0",), ("z_0",))]
    for i in range(1, blocks):
        nodes += [
            Node(f"w_{i}", tuple(f"z_{j}" for j in range(i)), (f"y_{i}",)),
            Node(f"σ_{i}", (f"y_{i}",), (f"z_{i}",)),
        ]
    return dependency_graph(nodes)


def residual(*blocks):
    """Names and edges of a residual network: stages of so many blocks, each with its input added to its output."""
    nodes, before = [Node("conv1", ("input",), ("conv1",))], "conv1"
    for i, count in enumerate(blocks, 1):
        for k in range(count):
            block = f"layer{i}.{k}"
            names = [f"{block}.{name}" for name in ("conv1", "bn1", "relu", "conv2", "bn2")]
            nodes += [Node(b, (a,), (b,)) for a, b in pairwise([before, *names])]
            nodes.append(Node(f"{block}.add", (before, names[-1]), (f"{block}.add",)))
            before = f"{block}.add"
    return dependency_graph([*nodes, Node("fc", (before,), ("fc",))])


GRAPHS = {
    "8 machines": random_graph(8),
    "figure 2": figure2(),
    "40 machines": random_graph(40),
    "17 parametric machines": parametric(9),
    "one machine": dependency_graph([Node("alone", ("x",), ("y",))]),
    "no edges": dependency_graph([Node(f"f{i}", ("x",), (f"y{i}",)) for i in range(6)]),
    "long names": dependency_graph([Node("a $ign_and_a_very_long_name", (), ("y",)), Node("b", ("y",), ("z",))]),
}

LARGE = {
    "38 machines in modules": residual(2, 2, 2),
    "300 machines in modules": residual(8, 12, 16, 14),
    "300 machines": random_graph(300),
}


def shown_of(graph):
    """The graph between what is drawn by default."""
    return between(graph, cut(tree(graph), "auto"))


def extents(ax):
    ax.figure.draw_without_rendering()
    return [(text.get_text(), text.get_window_extent()) for text in ax.texts if text.get_text()]


def assert_apart(ax):
    boxes = extents(ax)
    for (a, first), (b, second) in combinations(boxes, 2):
        assert not first.overlaps(second), f"{a} overlaps {b}"
    for label, box in boxes:
        assert box.x0 >= 0, f"{label} is cut"
        assert box.y0 >= 0, f"{label} is cut"
        assert box.x1 <= ax.figure.bbox.x1, f"{label} is cut"
        assert box.y1 <= ax.figure.bbox.y1, f"{label} is cut"


def boxes_of(ax):
    boxes = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch) and patch.get_gid()]
    return {box.get_gid(): (box.get_x(), box.get_y(), box.get_width(), box.get_height()) for box in boxes}


def lines_of(ax):
    """By the name of the machine where they start: points on the lines."""
    lines = [patch for patch in ax.patches if isinstance(patch, PathPatch) and patch.get_gid()]
    return {
        line.get_gid().removeprefix("from "): np.concatenate(line.get_path().to_polygons(closed_only=False))
        for line in lines
    }


@pytest.mark.parametrize("direction", ["right", "down"])
@pytest.mark.parametrize("components", [False, True])
@pytest.mark.parametrize("name", GRAPHS)
def test_labels_are_apart_and_within_their_boxes(name, components, direction):
    graph = GRAPHS[name]
    ax = mg.draw.dependency_graph(graph, components=components, direction=direction)
    assert_apart(ax)
    spelled = {mg.draw.spelled(gid)[0]: box for gid, box in boxes_of(ax).items()}
    assert {mg.draw.spelled(machine)[0] for machine in graph} <= spelled.keys()
    for label, extent in extents(ax):
        if label in spelled:
            x, y, w, h = spelled[label]
            (x0, y1), (x1, y0) = ax.transData.transform([(x, y), (x + w, y + h)])
            assert x0 < extent.x0
            assert extent.x1 < x1
            assert y0 < extent.y0
            assert extent.y1 < y1


@pytest.mark.parametrize("direction", ["right", "down"])
@pytest.mark.parametrize("name", LARGE)
def test_large_graphs_fit_a_page_and_their_labels_are_apart(name, direction):
    ax = mg.draw.dependency_graph(LARGE[name], direction=direction)
    assert_apart(ax)
    across = 0 if direction == "right" else 1
    assert ax.figure.get_size_inches()[across] < (7.4 if across == 0 else 9.2)
    assert boxes_of(ax).keys() == set(shown_of(LARGE[name]))
    assert len(boxes_of(ax)) <= 40
    for label, extent in extents(ax):
        held = [ax.transData.transform([(x, y + h), (x + w, y)]) for x, y, w, h in boxes_of(ax).values()]
        inside = [(low <= extent.min).all() and (extent.max <= high).all() for low, high in held]
        assert sum(inside) == (not label.startswith("×")), label


@pytest.mark.parametrize("direction", ["right", "down"])
@pytest.mark.parametrize("name", [*GRAPHS, *LARGE])
def test_no_line_crosses_a_machine_that_it_does_not_end_at(name, direction):
    whole = (GRAPHS | LARGE)[name]
    graph = shown_of(whole)
    ax = mg.draw.dependency_graph(whole, labels=False, direction=direction)
    boxes, lines = boxes_of(ax), lines_of(ax)
    assert boxes.keys() == set(graph)
    assert lines.keys() == {machine for machine in graph if graph.out_degree(machine)}
    for start, points in lines.items():
        for machine in set(graph) - {start, *graph.successors(start)}:
            x, y, w, h = boxes[machine]
            inside = (points > (x - 2, y - 2)).all(axis=1) & (points < (x + w + 2, y + h + 2)).all(axis=1)
            assert not inside.any(), f"the line from {start} crosses {machine}"


@pytest.mark.parametrize("size", [(2, 1.5), (5, 4), (12, 3)])
def test_labels_shrink_and_grow_with_the_axes(size):
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, graph in zip(axes, (figure2(), random_graph(20)), strict=True):
        assert mg.draw.dependency_graph(graph, ax) is ax
        assert_apart(ax)
    sizes = {text.get_fontsize() for text in axes[1].texts}
    figure.set_size_inches(2 * size[0], 2 * size[1])
    figure.draw_without_rendering()
    assert min(text.get_fontsize() for text in axes[1].texts) > max(sizes)


def test_given_axes_need_no_pyplot_and_own_figures_fit_the_picture():
    ax = Figure().add_subplot()
    mask = np.tri(3, k=-1, dtype=bool)
    for draw, what in (
        (mg.draw.dependency_graph, figure2()),
        (mg.draw.cofiltration, figure2()),
        (mg.draw.shortcuts, mask),
        (mg.draw.depth_sequence, [[1.0], [2.0]]),
    ):
        assert draw(what, ax) is ax
        assert plt.get_fignums() == []
        assert draw(what).figure.number in plt.get_fignums()
        plt.close("all")


def test_architectures_and_parametric_machines_are_drawn_by_their_graph():
    f = mg.Machine(torch.sin, reads=("x",), writes=("y",), name="f") + mg.Machine(
        torch.cos, reads=("y",), writes=("z",), name="g"
    )
    for draw in (mg.draw.dependency_graph, mg.draw.cofiltration):
        drawn, same = draw(f), draw(f.graph)
        assert [text.get_text() for text in drawn.texts] == [text.get_text() for text in same.texts]
    with pytest.raises(TypeError, match="got a str: give an architecture, or its graph"):
        mg.draw.dependency_graph("f")
    with pytest.raises(ValueError, match="got direction='left'"):
        mg.draw.dependency_graph(f, direction="left")


def test_small_graphs_say_what_their_edges_carry():
    texts = [text.get_text() for text in mg.draw.dependency_graph(figure2()).texts]
    assert sorted(texts) == sorted([f"$f_{{{i}}}$" for i in range(1, 6)] + ["$x_{3}$", "$x_{4}$", "$x_{6}$"])
    assert len(mg.draw.dependency_graph(figure2(), labels=False).texts) == 5
    assert len(mg.draw.dependency_graph(random_graph(20)).texts) == 20


def test_components_are_drawn_once_each():
    ax = mg.draw.dependency_graph(figure2(), components=True)
    assert boxes_of(ax).keys() == {f"f{i}" for i in range(1, 6)} | {f"x{i}" for i in range(1, 9)}
    place = {name: x + w / 2 for name, (x, _, w, _) in boxes_of(ax).items()}
    for machine, data in figure2().nodes(data=True):
        assert all(place[component] < place[machine] for component in data["reads"])
        assert all(place[component] > place[machine] for component in data["writes"])


def test_a_level_has_one_colour_in_every_picture():
    graph = figure2()
    boxes = [patch for patch in mg.draw.dependency_graph(graph).patches if isinstance(patch, FancyBboxPatch)]
    colour = {box.get_gid(): to_hex(box.get_edgecolor()) for box in boxes}
    for i, level in enumerate(levels(graph), 1):
        assert {colour[machine] for machine in level} == {mg.draw.level_colour(i).lower()}
    filled = {
        to_hex(cell.get_facecolor()) for cell in mg.draw.cofiltration(graph).patches if isinstance(cell, Rectangle)
    }
    assert filled == {PALE.lower(), *colour.values()}
    assert len({mg.draw.level_colour(i) for i in range(7)}) == 7


@pytest.mark.parametrize("name", GRAPHS)
def test_the_cofiltration_is_a_staircase(name):
    graph = GRAPHS[name]
    ax = mg.draw.cofiltration(graph)
    assert_apart(ax)
    cells = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    columns = sorted({round(cell.get_x(), 6) for cell in cells})
    drawn = [
        sum(round(cell.get_x(), 6) == x and to_hex(cell.get_facecolor()) != PALE.lower() for cell in cells)
        for x in columns
    ]
    writes = [{c for machine in level for c in graph.nodes[machine]["writes"]} for level in levels(graph)]
    assert drawn == [len(set().union(*writes[i:])) for i in range(len(writes) + 1)]


@pytest.mark.parametrize("n", [1, 2, 6, 30])
def test_the_mask_is_drawn_cell_by_cell(n):
    mask = np.tril(np.random.default_rng(n).random((n, n)) < 0.5, -1)
    ax = mg.draw.shortcuts(mask)
    assert_apart(ax)
    cells = [(to_hex(p.get_facecolor()).upper(), to_hex(p.get_edgecolor()).upper()) for p in ax.patches][: n * n]
    picture = np.array([face for face, _ in cells]).reshape(n, n)
    assert ((picture == SHORTCUT) | (picture == SEQUENTIAL)).tolist() == mask.tolist()
    assert (picture == SEQUENTIAL).sum() == np.diag(mask, -1).sum()
    assert (picture == PALE).tolist() == np.triu(np.ones((n, n), dtype=bool)).tolist()
    assert sum(edge == LEGAL for _, edge in cells) == n * (n - 1) // 2 - mask.sum()


def test_blocks_are_labelled_with_names_and_widths():
    class Machine:
        shortcuts = np.eye(3, k=-1, dtype=bool)
        partition = Partition((64, 32, 10))

    ax = mg.draw.shortcuts(Machine(), names=["input", "hidden", "output"])
    assert_apart(ax)
    texts = [text.get_text() for text in ax.texts]
    assert {"64", "32", "10"} <= set(texts)
    assert texts.count("hidden") == 2
    assert [text.get_text() for text in mg.draw.shortcuts(Machine()).texts].count("$I_{2}$") == 2


@pytest.mark.parametrize(
    ("mask", "names", "sentence"),
    [
        (np.zeros((2, 3), dtype=bool), None, r"got a mask of shape \(2, 3\)"),
        (np.eye(3, dtype=bool), None, "a block may only hear earlier blocks"),
        (np.zeros((2, 2), dtype=bool), ["a"], "got 1 names for 2 blocks"),
    ],
)
def test_masks_that_make_no_sense_are_refused(mask, names, sentence):
    with pytest.raises(ValueError, match=sentence):
        mg.draw.shortcuts(mask, names=names)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_increments_add_up_to_the_last_state(sign):
    states = [torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1.0, 3.0, 1.0]), torch.tensor([1.0, 2.5 * sign, 4.0])]
    ax = mg.draw.depth_sequence(states)
    total = dict.fromkeys(range(3), 0.0)
    for bar in ax.patches:
        total[round(bar.get_x() + bar.get_width() / 2)] += bar.get_height()
    assert list(total.values()) == pytest.approx([1, 2.5 * sign, 4])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["step", "0", "1", "2"]


def test_states_may_be_mappings_whose_tensors_hold_gradients():
    first = {"x": torch.tensor(1.0, requires_grad=True)}
    last = {"x": torch.tensor(1.0), "y1": torch.tensor([[2.0, 3.0]])}
    ax = mg.draw.depth_sequence([first, last], legend=False)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["x", "y1[0]", "y1[1]"]
    assert ax.get_legend() is None
    assert sorted(bar.get_height() for bar in ax.patches) == [1, 2, 3]


def test_depth_sequences_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="got no states"):
        mg.draw.depth_sequence([])
    with pytest.raises(ValueError, match="state 0 has an entry 1 that the last state has not"):
        mg.draw.depth_sequence([[1.0, 2.0], [1.0]])


def test_the_same_graph_gives_the_same_bytes():
    def picture():
        buffer = io.BytesIO()
        figure = mg.draw.dependency_graph(random_graph(15)).figure
        with matplotlib.rc_context({"svg.hashsalt": "same"}):
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()

    assert picture() == picture()


# ---- recurrences -------------------------------------------------------------------------------------------------


def recurrences():
    mask = np.zeros((3, 4, 4), dtype=bool)
    for entry in [(0, 1, 0), (0, 3, 0), (0, 2, 1), (2, 2, 1), (0, 3, 2), (1, 1, 1), (1, 1, 2), (1, 2, 2), (1, 3, 1)]:
        mask[entry] = True
    return {
        "rnn": mg.RecurrentMachine((2, 3, 3, 1), lags=1, shortcuts="sequential"),
        "all": mg.RecurrentMachine((2, 3, 3, 1), lags=6, timeblock=2),
        "many": mg.RecurrentMachine((1,) * 8, lags=1),
        "some": mg.RecurrentMachine((2, 3, 3, 1), lags=2, shortcuts=mask),  # one arc leads on
    }


@pytest.mark.parametrize("direction", ["right", "down"])
@pytest.mark.parametrize("components", [False, True])
@pytest.mark.parametrize("name", ["rnn", "all", "many", "some"])
def test_a_folded_recurrence_says_its_lags(name, components, direction):
    machine = recurrences()[name]
    ax = mg.draw.dependency_graph(machine, components=components, direction=direction)
    assert_apart(ax)
    graph, boxes = machine.architecture.graph, boxes_of(ax)
    assert set(graph) <= boxes.keys()
    arcs = [patch for patch in ax.patches if str(patch.get_gid()).startswith("back from")]
    back = [edge for edge, goes_back in graph.edges.items() if goes_back["back"]]
    assert len(arcs) == len(back)
    across = 1 if direction == "right" else 0
    beyond = max(box[across] + box[across + 2] for box in boxes.values())
    for arc in arcs:
        points = arc.get_path().vertices
        assert (points[:, across] > beyond).any()  # round all boxes, and through none
        interpolated = arc.get_path().interpolated(50).vertices
        for x, y, w, h in boxes.values():
            inside = (interpolated > (x + 0.1, y + 0.1)) & (interpolated < (x + w - 0.1, y + h - 0.1))
            assert not inside.all(axis=1).any()
        (x0, x1), (y1, y0) = ax.get_xlim(), ax.get_ylim()
        assert ((points > (x0, y0)) & (points < (x1, y1))).all()
    words = [label for label, _ in extents(ax) if label.startswith("lag")]
    if name == "rnn":
        assert words == ["lag 1"] * 3
    if name == "all":
        assert set(words) == {"lags 2–6", "lags 0–6"}
        assert words.count("lags 2–6") == len(back) == 10
    if name == "some":
        assert sorted(words) == ["lag 1"] * 4 + ["lags 0, 2"]


def test_the_cofiltration_of_a_recurrence_is_that_of_one_turn():
    ax = mg.draw.cofiltration(recurrences()["rnn"])
    assert_apart(ax)
    assert {f"$V_{{{i}}}$" for i in range(8)} <= {label for label, _ in extents(ax)}


def test_an_unrolled_recurrence_is_a_graph_like_others():
    ax = mg.draw.dependency_graph(recurrences()["rnn"].unroll(3))
    assert_apart(ax)
    assert "$w_{1}$[t=0]" in {label for label, _ in extents(ax)}


@pytest.mark.parametrize("name", ["rnn", "all", "many", "some"])
def test_shortcuts_of_a_recurrence_say_their_lags(name):
    machine = recurrences()[name]
    ax = mg.draw.shortcuts(machine)
    assert_apart(ax)
    words = [label for label, _ in extents(ax)]
    assert "from, at lags" in words
    if name == "rnn":
        assert (words.count("0"), words.count("1")) == (3, 3 + 1)  # one block is 1 wide
    if name == "all":
        assert (words.count("0–6"), words.count("2–6")) == (6, 10)


def test_what_is_not_possible_at_any_lag_is_pale():
    ax = mg.draw.shortcuts(mg.RecurrentMachine((2, 3, 1), lags=1, timeblock=2))
    squares = [to_hex(patch.get_facecolor()) for patch in ax.patches if isinstance(patch, Rectangle)]
    assert squares.count(PALE.lower()) == 6 + 1  # and one in the legend


# ---- groups ------------------------------------------------------------------------------------------------------


def test_groups_say_how_many_machines_they_have_and_how_much_they_pass_on():
    nodes = [Node("a.p", ("x",), ("u", "v")), Node("a.q", ("u",), ("w",)), Node("b.p", ("v", "w"), ("s",))]
    graph = dependency_graph([*nodes, Node("b.q", ("s",), ("t",))])
    texts = [text.get_text() for text in mg.draw.dependency_graph(graph, group=1).texts]
    assert sorted(texts) == ["2 machines", "2 machines", "a", "b", "×2"]
    assert boxes_of(mg.draw.dependency_graph(graph)).keys() >= set(graph)
    with pytest.raises(ValueError, match="got group=0"):
        mg.draw.dependency_graph(graph, group=0)


@pytest.mark.parametrize("components", [False, True])
@pytest.mark.parametrize("group", [1, 2, None])
def test_labels_of_groups_are_apart_at_any_detail(group, components):
    ax = mg.draw.dependency_graph(residual(2, 1), group=group, components=components)
    assert_apart(ax)
    assert ax.figure.get_size_inches()[0] <= 7.2 + 2 * 4 / 72
    boxes = set(boxes_of(ax))
    assert {1: "layer1", 2: "layer1.1", None: "layer1.1.bn2"}[group] in boxes


def test_one_row_on_request():
    wide, high = mg.draw.dependency_graph(residual(2, 1), group=None, wrap=np.inf).figure.get_size_inches()
    assert wide > 10 * high


def test_long_names_are_broken_into_lines():
    name = "layers.0.self_attn.scaled_dot_product_attention"
    ax = mg.draw.dependency_graph(dependency_graph([Node(name, ("x",), ("y",)), Node("b", ("y",), ("z",))]))
    lines = [label for label, _ in extents(ax)]
    assert "".join(line for line in lines if len(line) > 2) == name
    assert max(map(len, lines)) <= 20
    (x0, y1), (x1, y0) = (
        ax.transData.transform(p)
        for p in (boxes_of(ax)[name][:2], np.add(boxes_of(ax)[name][:2], boxes_of(ax)[name][2:]))
    )
    inside = [e for label, e in extents(ax) if len(label) > 2]
    assert all(x0 < e.x0 and e.x1 < x1 and y0 < e.y0 and e.y1 < y1 for e in inside)
    assert len(inside) == 3
