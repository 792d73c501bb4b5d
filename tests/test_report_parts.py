"""The parts of a report, each against what it must be: steps, cofiltration, charts, fronts, importance, colours."""

import math
import re
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report import Parsed, made_up

import machgraph as mg
from machgraph import graph
from machgraph.draw.canvas import COLOURS
from machgraph.draw.page import asset
from search import report
from search.objectives import fronts
from search.optimize import optimize
from search.point import Point
from search.report import pictures
from search.report.charts import FAINT, chance, curves, history, surpassed_by_none, tradeoffs
from search.report.colours import STATUSES
from search.report.diagrams import machine_diagram
from search.report.importance import FEWEST, importance
from search.report.network import stairs, steps
from search.report.scales import bends
from search.shape import Shape
from search.space import Space

MACHINES = {
    "dense": mg.DenseMachine((3, 4, 4, 4, 2)),
    "sequential": mg.DenseMachine((3, 4, 2), shortcuts="sequential"),
    "pooled": mg.ConvMachine((1, 4, 4, 2), kernel_size=(3, 3), scales=(0, 0, 1, 2), pooling="max", activation="relu"),
    "recurrent": mg.RecurrentMachine((2, 4, 4, 1), lags=2, activation="tanh"),
}


def turn(machine):
    return machine.architecture.turn if machine.shortcuts.ndim == 3 else machine.architecture.graph


# --- the resolvent, step by step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MACHINES)
def test_steps_are_the_order_and_what_is_not_known_is_in_the_cofiltration(name):
    architecture, played = MACHINES[name].architecture, steps(turn(MACHINES[name]))
    nodes = turn(MACHINES[name]).nodes
    components = [component for component, _ in played["components"]]
    spelled = dict(zip(components, played["components"], strict=True))
    assert [key for key, *_ in played["machines"]] == architecture.order
    assert len(components) == len(set(components)) == len(architecture.components)
    for k in range(len(architecture.order) + 1):
        done, ahead = architecture.order[:k], architecture.order[k:]
        unknown = {c for c in architecture.components if any(c in nodes[name]["writes"] for name in ahead)}
        told = {component for component, final in played["components"] if final > k}
        assert len(told) == len(unknown)
        v = sum(end <= k for end in played["levels"])
        assert all(name in done for row in architecture.levels[:v] for name in row)
        assert v == architecture.depth or any(name in ahead for name in architecture.levels[v])
        assert unknown <= architecture.cofiltration[v]
    for key, _, level, reads, writes in played["machines"]:
        assert key in architecture.levels[level - 1]
        for numbers, role in ((reads, "reads"), (writes, "writes")):
            assert len(numbers) == len(nodes[key][role])
        assert all(spelled[components[i]][1] > 0 for i in writes)


@pytest.mark.parametrize("name", MACHINES)
def test_bars_are_the_cofiltration(name):
    architecture, drawn = MACHINES[name].architecture, stairs(turn(MACHINES[name]))
    assert drawn["sizes"] == [len(v) for v in architecture.cofiltration]
    assert sorted(last for _, last in drawn["rows"]) == [last for _, last in drawn["rows"]]
    assert len(drawn["rows"]) == len(architecture.components)
    places = [drawn["wide"] * column for column in drawn["columns"]]
    assert all(b - a >= 26 for a, b in pairwise(places)), "labels have room"


def test_a_machine_that_is_done_out_of_its_level_ends_no_level_early():
    f = mg.Machine(lambda x: x, ("x",), ("a",), "f") + mg.Machine(lambda a: a, ("a",), ("b",), "g")
    f = f + mg.Machine(lambda x: x, ("x",), ("c",), "late")  # level 1, and last in the order
    assert f.order == ["f", "g", "late"]
    assert steps(f.graph)["levels"] == [3, 3]


def test_a_column_has_every_machine_below_the_one_before():
    mask = np.tri(40, k=-1, dtype=bool)
    machine = mg.DenseMachine((2,) * 40, shortcuts=mask)
    diagram = machine_diagram(machine.architecture.graph, down=False)
    assert [box.key for box in diagram.boxes] == graph.order(machine.architecture.graph)
    assert {(line.source, line.target) for line in diagram.lines} == set(machine.architecture.graph.edges)
    assert all(b.y - a.y >= (a.height + b.height) / 2 for a, b in pairwise(diagram.boxes))
    assert all(line.shortcut for line in diagram.lines if line.source == "σ_0" and line.target != "w_1")


# --- charts ----------------------------------------------------------------------------------------------------------

PAIRS = st.dictionaries(st.integers(0, 99), st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1)


@given(PAIRS, st.sampled_from([(1, 1), (1, -1), (-1, 1), (-1, -1)]))
def test_the_front_is_what_none_surpasses(pairs, signs):
    found = surpassed_by_none(pairs, signs)
    places = fronts([(signs[0] * a, signs[1] * b) for a, b in pairs.values()])
    assert set(found) == {number for number, place in zip(pairs, places, strict=True) if place == 0}
    values = [(signs[0] * pairs[number][0], signs[1] * pairs[number][1]) for number in found]
    assert values == sorted(values)


def with_objectives(*objectives, maximize=()):
    run = made_up(60)

    def measured(record):
        point = record.canonical
        return {"parameters": point.parameters(run.facts.shape), "depth": point.depth, "value": record.number % 7}

    records = [replace(record, measures=measured(record)) for record in run.records]
    return replace(run.settings, objectives=objectives, maximize=maximize), run.facts, records


def test_an_objective_of_ones_own_is_told_as_such_and_measures_have_columns(tmp_path):
    folder = tmp_path / "run"
    found = optimize(
        lambda machine: {"value": machine.parameter_count() % 7, "cost": 2.0},
        Space(max_blocks=2, widths=(4, 8)), Shape(3, 2), trials=8, objectives=("value", "cost", "memory"),
        maximize=("value",), out=folder,
    )  # fmt: skip
    page = Parsed(report.write(folder).read_text())
    text = " ".join(" ".join(page.texts).split())
    assert "The best minus value, " in text
    assert "held-out" not in text
    assert "Validation" not in text
    trials = [dict(zip(page.data["fields"], values, strict=True)) for values in page.data["trials"]]
    for trial, record in zip(trials, found.records, strict=True):
        assert (trial["cost"], trial["memory"]) == (2.0, record.measures["memory"])
        assert trial["value"] == trial["score"]
    assert {"front", "cost", "memory"} <= set(page.data["columns"])
    assert "value" not in page.data["columns"], "it is the score"


def test_each_further_objective_has_a_chart_and_a_single_one_has_its_costs():
    for objectives, fields in (
        (("loss",), ["parameters", "flops"]),
        (("loss", "parameters"), ["parameters"]),
        (("parameters", "loss", "depth"), ["parameters", "depth"]),
    ):
        charts = tradeoffs(*with_objectives(*objectives))
        assert [chart.field for chart in charts] == fields
        assert {chart.y_field for chart in charts} == {"loss"}
    (chart,) = tradeoffs(*with_objectives("loss", "value", maximize=("value",)))
    assert chart.title == "value (larger is better)"


@pytest.mark.parametrize("objectives", [("loss", "parameters"), ("loss", "parameters", "depth")])
def test_the_front_on_the_page_is_that_of_all_objectives(objectives):
    wish, facts, records = with_objectives(*objectives)
    trained = [record for record in records if record.is_valid and record.duplicate_of is None]
    places = fronts([[record.loss, *(record.measures[name] for name in objectives[1:])] for record in trained])
    for chart in tradeoffs(wish, facts, records):
        assert chart.front.count("M") == (places == 0).sum()
        assert chart.front.count("M") + chart.dots.count("M") == len(trained)
        assert bool(chart.line) == (len(objectives) == 2)


def test_the_picture_of_the_front_has_every_network_and_the_line_under_them():
    wish, facts, records = with_objectives("loss", "parameters")
    (chart,) = tradeoffs(wish, facts, records)
    rest, best, line = pictures.front(chart).lines
    assert len(best.get_xdata()) == chart.front.count("M")
    assert len(rest.get_xdata()) + len(best.get_xdata()) == len(chart.points)
    corners = list(zip(line.get_xdata(), line.get_ydata(), strict=True))
    for x, y in chart.points:
        assert all(x > a or y >= b for a, b in corners), "none is below the front"
    assert pictures.front(chart).get_xlim() == (chart.x.low, chart.x.high)


def test_chance_is_the_random_rival_or_else_the_beginnings_of_the_run():
    run = made_up()
    (random,) = [row for row in run.rows if "random" in row.name]
    assert chance(run.settings, run.records, random)[:2] == (random.loss, random.name)
    first = sorted(r.loss for r in run.records[:16] if r.is_valid and r.duplicate_of is None)
    loss, name, _ = chance(run.settings, run.records, None)
    assert (loss, name) == (first[len(first) // 2], "median of the first 16 trials")
    assert chance(replace(run.settings, strategy="differentiable"), run.records, None) is None
    every = chance(replace(run.settings, strategy="random"), run.records, None)
    assert every[1] == "median of the first 40 trials"
    assert "Dashed" not in history(replace(run.settings, strategy="differentiable"), run.facts, run.records, None).says


def test_of_many_curves_some_are_named_and_so_many_faint():
    run = made_up(40)
    trained = [record for record in run.records if record.is_valid and record.curve]
    many = [replace(record, number=i) for i, record in enumerate(trained * 30)]
    drawn = curves(run.facts, many, many[0])
    assert [line["winner"] for line in drawn["lines"]] == [True] + [False] * 9
    assert f"Faint: {FAINT} others of" in drawn["says"]
    assert 0 < drawn["faint"].count("M") <= 2 * FAINT
    assert len(drawn["faint"]) < 100_000


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1000)), min_size=2, max_size=80), st.integers(2, 50))
def test_a_faint_line_keeps_its_ends(points, most):
    numbers = [int(number) for number in bends(points, most).replace("M", "").replace("l", " ").split()]
    places = np.array(numbers).reshape(-1, 2).cumsum(axis=0)
    assert len(places) <= most
    assert np.abs(places[[0, -1]] - np.array([points[0], points[-1]])).max() <= 0.5


# --- importance ------------------------------------------------------------------------------------------------------


def planted(count, loss, seed=0):
    run, rng = made_up(1), np.random.default_rng(seed)
    records = []
    for number in range(count):
        blocks = int(rng.integers(1, 4))
        mask = np.tri(blocks + 2, k=-1, dtype=bool)
        point = Point(
            tuple(int(w) for w in rng.choice((16, 32, 64), blocks)), (str(rng.choice(["relu", "tanh"])),) * blocks,
            mask, float(rng.choice((1e-3, 2e-3, 4e-3, 8e-3))), weight_decay=float(rng.choice((0.1, 1.0))),
        )  # fmt: skip
        found = {"point": point, "canonical": point, "loss": loss(point, rng), "status": "complete", "curve": (1.0,)}
        records.append(replace(run.records[0], number=number, duplicate_of=None, **found))
    return records


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("learning rate", lambda point: -math.log(point.learning_rate)),
        ("activation of most blocks", lambda point: 2.0 * (point.activations[0] == "relu")),
        ("number of hidden blocks", lambda point: point.blocks),
    ],
)
def test_what_was_planted_is_found_and_the_shares_add_up(name, effect):
    found = importance(planted(60, lambda point, rng: effect(point) + 0.2 * rng.random()))
    assert found.shares[0][0] == name
    assert found.shares[0][1] > 0.6
    assert sum(share for _, share in found.shares) == pytest.approx(1)
    assert importance(planted(60, lambda point, rng: effect(point) + 0.2 * rng.random())) == found


def test_regularizers_have_their_share():
    records = planted(60, lambda point, rng: rng.random())
    strengths = [0.1 * (number % 3) for number in range(60)]
    told = [
        replace(record, canonical=replace(record.canonical, block_penalty=strength), loss=strength)
        for record, strength in zip(records, strengths, strict=True)
    ]
    (name, share), *_ = importance(told).shares
    assert name == "group lasso over shortcuts"
    assert share > 0.6
    none = [
        replace(one, canonical=replace(one.canonical, smoothing=None if i % 2 else 0.1)) for i, one in enumerate(told)
    ]
    assert importance(none).shares[0][0] == name  # what not all have is left out


def test_one_loss_that_is_far_off_decides_nothing():
    records = planted(60, lambda point, rng: -math.log(point.learning_rate) + 0.2 * rng.random())
    odd = replace(records[7], loss=1e9)
    assert importance([*records[:7], odd, *records[8:]]).shares[0][0] == "learning rate"


def test_where_there_is_too_little_to_tell_importance_says_why():
    few = importance(planted(FEWEST - 1, lambda point, rng: rng.random()))
    assert few.shares == ()
    assert few.says == "Told from 20 trained trials on; this search has 19."
    same = importance(planted(FEWEST, lambda point, rng: 0.5))
    assert same.shares == ()
    assert same.says.startswith("Nothing to compare")


# --- colours ---------------------------------------------------------------------------------------------------------

PAPER = ("#FFFFFF", "#12151A")
MACHADO = {  # Machado, Oliveira and Fernandes 2009, table 1, severity 1
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def linear(colour):
    s = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    """WCAG 2.2."""
    light, dark = sorted((float(linear(c) @ (0.2126, 0.7152, 0.0722)) for c in (a, b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


OKLAB = (  # Ottosson 2020: to the cones, and from their cube roots to lightness and two opponent colours
    ((0.41222147, 0.53633254, 0.05144599), (0.21190350, 0.68069955, 0.10739696), (0.08830246, 0.28171884, 0.62997870)),
    (
        (0.21045426, 0.79361779, -0.00407205),
        (1.97799850, -2.42859221, 0.45059371),
        (0.02590404, 0.78277177, -0.80867577),
    ),
)


def oklab(rgb):
    cones, opponents = map(np.array, OKLAB)
    return opponents @ np.cbrt(cones @ np.clip(rgb, 0, 1))


@pytest.mark.parametrize("theme", [0, 1])
def test_dots_stand_out_from_the_paper_and_can_be_told_apart_with_any_sight(theme):
    colours = {status: pair[theme] for status, pair in STATUSES.items()}
    for status, colour in colours.items():
        assert contrast(colour, PAPER[theme]) >= 3, status
    for sight, matrix in {"full": np.eye(3), **MACHADO}.items():
        for (a, first), (b, second) in combinations(colours.items(), 2):
            apart = np.linalg.norm(oklab(np.array(matrix) @ linear(first)) - oklab(np.array(matrix) @ linear(second)))
            assert apart > 0.045, f"{a} and {b} look alike with {sight} sight"


@pytest.mark.parametrize("theme", [0, 1])
def test_words_and_lines_stand_out_from_whatever_is_behind_them(theme):
    style = asset("theme.css")
    pairs = {name: pair for name, *pair in re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", style)}
    colours = {name: re.sub(r"^#(\w)(\w)(\w)$", r"#\1\1\2\2\3\3", pair[theme]) for name, pair in pairs.items()}
    for paper in ("paper", "panel", "box"):
        for name in ("ink", "soft", "accent", "feeds", "hears"):
            assert contrast(colours[name], colours[paper]) >= 4.5, f"{name} on {paper}"
        assert contrast(colours["edge"], colours[paper]) >= 3


def test_levels_are_told_apart_with_any_sight():
    for matrix in (np.eye(3), *map(np.array, MACHADO.values())):
        for first, second in pairwise((*COLOURS, COLOURS[0])):  # neighbours in a staircase
            assert np.linalg.norm(oklab(matrix @ linear(first)) - oklab(matrix @ linear(second))) > 0.07
