from collections import Counter
from itertools import pairwise

import pytest
import torch
from helpers import COMPONENTS, architecture, element, figure2, figure2_by_hand, nodes
from hypothesis import given, settings
from hypothesis import strategies as st

import machgraph as mg
from machgraph.cofiltration import cofiltration
from machgraph.graph import Node


def test_figure_2() -> None:
    f = figure2()
    sets = [
        {"x3", "x4", "x5", "x6", "x7", "x8"},
        {"x4", "x5", "x6", "x7", "x8"},
        {"x5", "x6", "x7", "x8"},
        {"x8"},
        set(),
    ]
    assert cofiltration(f.levels, {m.name: m.writes for m in f.machines}) == sets
    assert f.cofiltration == sets


@given(nodes())
def test_it_is_a_depth_cofiltration(machines: list[Node]) -> None:
    """Definition 2: it falls to 0, V_0 holds the image of f, and f outside V_i looks at nothing inside V_(i-1)."""
    f = architecture(machines)
    v = f.cofiltration
    assert len(v) == f.depth + 1
    assert all(small < large for large, small in pairwise(v))
    assert v[0] == {c for node in machines for c in node.writes}
    assert v[-1] == set()
    for i in range(1, len(v)):
        for node in machines:
            if not set(node.writes) <= v[i]:
                assert not set(node.reads) & v[i - 1]


@settings(deadline=None, max_examples=40)
@given(nodes(), st.integers(0, 99))
def test_every_element_is_right_outside_its_subspace(machines: list[Node], seed: int) -> None:
    f = architecture(machines, seed)
    g = element(f.components, seed=seed)
    h = f.resolvent(g)
    v0 = sorted(f.cofiltration[0])
    sequences = [
        mg.depth_sequence(f, g),
        mg.depth_sequence(f, g, phi=element(v0, seed=seed + 1)),
        mg.depth_sequence(f, g, phi=lambda g: {c: 5 * g[c] for c in v0[:1]}),
        mg.depth_sequence(f, g, strategy="expensive"),
        mg.depth_sequence(f, g, strategy="expensive", phi=element(v0, seed=seed + 1)),
        mg.depth_sequence(f, g, strategy="expensive", phi=lambda g: {c: 5 * g[c] for c in v0[:1]}),
    ]
    for sequence in sequences:
        elements = list(sequence)
        assert len(elements) == f.depth + 1
        for v, h_i in zip(f.cofiltration, elements, strict=True):
            assert h_i.keys() == h.keys()
            for c in h.keys() - v:
                torch.testing.assert_close(h_i[c], h[c])


def counted(calls: Counter[str]) -> mg.Architecture:
    def machine(m: mg.Machine) -> mg.Machine:
        def function(*xs: torch.Tensor) -> object:
            calls[m.name] += 1
            return m.function(*xs)

        return mg.Machine(function, m.reads, m.writes, m.name)

    return mg.Architecture(map(machine, figure2().machines))


def test_optimized_evaluates_each_machine_once_and_expensive_every_time() -> None:
    calls: Counter[str] = Counter()
    f = counted(calls)
    g = element(f.components)
    sequence = mg.depth_sequence(f, g)
    next(sequence)
    assert not calls  # computed as they are asked for
    next(sequence)
    assert calls == {"f1": 1, "f2": 1}
    *_, last = sequence
    assert calls == dict.fromkeys(f.order, 1)
    torch.testing.assert_close(last, figure2_by_hand(g))
    calls.clear()
    *_, last = mg.depth_sequence(f, g, strategy="expensive")
    assert calls == dict.fromkeys(f.order, f.depth)
    torch.testing.assert_close(last, figure2_by_hand(g))


def test_optimized_takes_absent_components_for_0() -> None:
    x = element(COMPONENTS)
    g = {c: x[c] if c in ("x1", "x2") else torch.zeros_like(x[c]) for c in COMPONENTS}
    *_, last = mg.depth_sequence(figure2(), {"x1": x["x1"], "x2": x["x2"]})
    torch.testing.assert_close(last, figure2_by_hand(g))


@settings(deadline=None, max_examples=30)
@given(nodes(), st.integers(0, 99), st.data())
def test_expensive_takes_absent_components_for_0(machines: list[Node], seed: int, data: st.DataObject) -> None:
    f = architecture(machines, seed)
    g = element(f.components, seed=seed)
    absent = data.draw(st.sets(st.sampled_from(sorted(f.cofiltration[0]))))
    zeros = {c: torch.zeros_like(g[c]) for c in absent}
    phi = data.draw(st.sampled_from([None, element(sorted(f.cofiltration[0]), seed=seed + 1)]))
    present = {c: x for c, x in g.items() if c not in absent}
    found = list(mg.depth_sequence(f, present, "expensive", phi))
    assert found[0].keys() == g.keys()
    torch.testing.assert_close(found, list(mg.depth_sequence(f, {**g, **zeros}, "expensive", phi)))


def test_a_component_that_is_read_absent_and_not_written() -> None:
    for strategy in ("optimized", "expensive"):
        with pytest.raises(ValueError, match=r"^f1 reads x2, which is absent and no machine writes: give it a tensor"):
            list(mg.depth_sequence(figure2(), element(("x1",)), strategy))


@settings(deadline=None, max_examples=30)
@given(nodes(), st.integers(0, 99))
def test_optimized_holds_phi_where_it_is_not_final(machines: list[Node], seed: int) -> None:
    f = architecture(machines, seed)
    g, phi = element(f.components, seed=seed), element(sorted(f.cofiltration[0]), seed=seed + 1)
    without, with_phi = mg.depth_sequence(f, g), mg.depth_sequence(f, g, phi=phi)
    for v, h, h_phi in zip(f.cofiltration, without, with_phi, strict=True):
        torch.testing.assert_close(h_phi, {c: x + phi[c] if c in v else x for c, x in h.items()})


@pytest.mark.parametrize("strategy", ["optimized", "expensive"])
@pytest.mark.parametrize("phi", [False, True])
def test_what_is_yielded_shares_no_memory(strategy: str, phi: bool) -> None:
    g = element([*COMPONENTS, "untouched"])
    phi_given = element(("x3", "x8"), seed=1) if phi else None
    kept = {c: x.clone() for c, x in g.items()}
    expected = list(mg.depth_sequence(figure2(), g, strategy, phi_given))
    for h, right in zip(mg.depth_sequence(figure2(), g, strategy, phi_given), expected, strict=True):
        torch.testing.assert_close(h, right)
        for x in h.values():
            x.zero_()
    torch.testing.assert_close(g, kept)
    nilpotent = mg.NilpotentMachine(torch.diag(torch.ones(2), -1))
    next(mg.depth_sequence(nilpotent, x := torch.ones(3))).zero_()
    assert torch.equal(x, torch.ones(3))


def test_phi_outside_of_the_first_subspace() -> None:
    g = element(COMPONENTS)
    with pytest.raises(ValueError, match=r"^phi holds x1, which is not in V_0: .*, here x3, x4, x5, x6, x7, x8$"):
        mg.depth_sequence(figure2(), g, strategy="expensive", phi={"x1": g["x1"]})


@pytest.mark.parametrize("strategy", ["optimized", "expensive"])
def test_phi_of_another_shape_or_dtype(strategy: str) -> None:
    g = element(COMPONENTS)
    for x in (torch.ones(3, dtype=torch.float64), torch.ones(2, 3)):
        with pytest.raises(ValueError, match=r"^x3 has shape \(2, 3\) \(torch.float64, cpu\), and what is added"):
            list(mg.depth_sequence(figure2(), g, strategy, {"x3": x}))
        with pytest.raises(ValueError, match=r"^x3 has shape .*, and what is added .*: give both the same"):
            list(mg.depth_sequence(figure2(), {**g, "x3": x}, strategy, {"x3": g["x3"]}))
    f = mg.NilpotentMachine(torch.diag(torch.ones(2, dtype=torch.float64), -1))
    with pytest.raises(ValueError, match=r"^the vector has shape \(3,\) \(torch.float64, cpu\), and what is added"):
        list(mg.depth_sequence(f, torch.ones(3, dtype=torch.float64), phi=torch.zeros(2, 3, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("f", "g", "options", "sentence"),
    [
        (figure2(), {}, {"strategy": "fast"}, r"^got strategy='fast': give \"optimized\" or \"expensive\"$"),
        (torch.sin, {}, {}, r"^got builtin_function_or_method for f: give a sum of machines or a NilpotentMachine$"),
        (mg.DenseMachine((2, 1)), {}, {}, r"^got DenseMachine for f: give its sum, \.architecture$"),
        (figure2(), torch.ones(2), {}, r"^got Tensor for g: give a mapping from the names of components to tensors$"),
        (figure2(), {"x1": 1.0}, {}, r"^got float in g: give a tensor$"),
        (figure2(), {}, {"phi": torch.ones(2)}, r"^got Tensor for phi: give a mapping"),
        (mg.NilpotentMachine(torch.zeros(2, 2)), {"x": torch.ones(2)}, {}, r"^got dict in g: give a tensor$"),
    ],
)
def test_what_has_no_depth_sequence(f: object, g: object, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        mg.depth_sequence(f, g, **options)


def test_a_nilpotent_machine_has_depth_sequences_too() -> None:
    f = mg.NilpotentMachine(torch.diag(torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64), -1))
    g = torch.arange(8.0, dtype=torch.float64).reshape(2, 4)
    v0 = f.cofiltration[0]
    phi = torch.ones(2, v0.shape[1], dtype=torch.float64) @ v0.T
    for options in ({}, {"phi": phi}, {"strategy": "expensive"}, {"strategy": "expensive", "phi": phi}):
        elements = list(mg.depth_sequence(f, g, **options))
        assert len(elements) == f.depth + 1 == 4
        for v, h_i in zip(f.cofiltration, elements, strict=True):
            wrong = h_i - f.resolvent(g)
            torch.testing.assert_close(wrong, wrong @ v @ v.T)
    with pytest.raises(ValueError, match=r"^phi is not in V_0"):
        mg.depth_sequence(f, g, strategy="expensive", phi=torch.ones(4, dtype=torch.float64))
