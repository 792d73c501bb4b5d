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


def test_expensive_wants_every_component_that_is_read() -> None:
    x = element(("x1", "x2"))
    with pytest.raises(ValueError, match=r"^f3 reads x3, which is absent: give it a tensor; got x1, x2"):
        list(mg.depth_sequence(figure2(), x, strategy="expensive"))


def test_phi_outside_of_the_first_subspace() -> None:
    g = element(COMPONENTS)
    with pytest.raises(ValueError, match=r"^phi holds x1, which is not in V_0: .*, here x3, x4, x5, x6, x7, x8$"):
        mg.depth_sequence(figure2(), g, strategy="expensive", phi={"x1": g["x1"]})


def test_phi_of_another_shape() -> None:
    g = element(COMPONENTS)
    with pytest.raises(ValueError, match=r"^x3 has shape \(2, 3\), and what is added to it has shape \(3,\)$"):
        list(mg.depth_sequence(figure2(), g, strategy="expensive", phi={"x3": torch.ones(3)}))


def test_phi_is_for_expensive_and_other_words_are_refused() -> None:
    g = element(COMPONENTS)
    with pytest.raises(ValueError, match=r'^got phi with strategy="optimized"'):
        mg.depth_sequence(figure2(), g, phi={})
    with pytest.raises(ValueError, match=r"^got strategy='fast': give \"optimized\" or \"expensive\"$"):
        mg.depth_sequence(figure2(), g, strategy="fast")


def test_a_nilpotent_machine_has_depth_sequences_too() -> None:
    f = mg.NilpotentMachine(torch.diag(torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64), -1))
    g = torch.arange(8.0, dtype=torch.float64).reshape(2, 4)
    v0 = f.cofiltration[0]
    phi = torch.ones(2, v0.shape[1], dtype=torch.float64) @ v0.T
    for options in ({}, {"strategy": "expensive"}, {"strategy": "expensive", "phi": phi}):
        elements = list(mg.depth_sequence(f, g, **options))
        assert len(elements) == f.depth + 1 == 4
        for v, h_i in zip(f.cofiltration, elements, strict=True):
            wrong = h_i - f.resolvent(g)
            torch.testing.assert_close(wrong, wrong @ v @ v.T)
    with pytest.raises(ValueError, match=r"^phi is not in V_0"):
        mg.depth_sequence(f, g, strategy="expensive", phi=torch.ones(4, dtype=torch.float64))
