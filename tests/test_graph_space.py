"""Graph spaces: every code is a graph without a cycle, equal networks have one form, and what is built computes it."""

from collections import Counter
from functools import partial
from itertools import permutations, product

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from search import Candidate, GraphSpace
from search.graph.count import count_wirings
from search.graph.mutation import mutate_graph
from search.graph.point import GraphPoint, Placed
from search.isomorphism.canonical import canonical, key
from search.point import point_of
from search.record import Settings

FEW = {"learning_rates": (1e-2, 3e-2), "batch_sizes": (8, 16)}


def linear(inputs, outputs):
    return partial(nn.Linear, inputs, outputs)


class Gate(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, signal, gate):
        return signal * torch.sigmoid(self.inner(gate))


SPACE = GraphSpace(
    (
        Candidate("stem", linear(3, 4), ("x",), ("h", "g")),
        Candidate("bend", nn.Tanh, ("h", "g"), ("h", "g", "k"), copies=2, max_writes=2),
        Candidate("gate", partial(Gate, 4), (("h", "g"), ("g", "k")), ("h", "k")),
        Candidate("head", linear(4, 2), ("h", "g", "k"), ("y",), required=True, max_reads=2),
    ),
    shapes={"x": (3,), "h": (4,), "g": (4,), "k": (4,), "y": (2,)},
    **FEW,
)

names = st.lists(st.sampled_from("xhky"), min_size=1, max_size=4, unique=True).map(tuple)


@st.composite
def spaces(draw):
    """Up to three candidates over four components, with up to two arguments; the output may be read too."""
    candidates = []
    for name in "fgd"[: draw(st.integers(1, 3))]:
        ports, writes = draw(st.lists(names, min_size=1, max_size=2)), draw(names)
        most, required = st.one_of(st.none(), st.integers(1, 2)), draw(st.booleans())
        if required:  # one that may lead from the input to the output, else there might be no network
            ports, writes = (
                [("x", *(c for c in port if c != "x")) for port in ports],
                tuple({"y": 0, **dict.fromkeys(writes)}),
            )
        candidates.append(
            Candidate(
                name, nn.Identity, tuple(ports) if len(ports) > 1 else ports[0], writes, required=required,
                copies=draw(st.integers(1, 2)), max_reads=draw(most), max_writes=draw(most), described=name,
            )
        )  # fmt: skip
    ends = Candidate("ends", nn.Identity, ("x", "h", "k"), ("h", "k", "y"), described="ends")
    return GraphSpace((*candidates, ends), **FEW)


def codes(space):
    return st.fixed_dictionaries({name: st.sampled_from(choices) for name, choices in space.parameters.items()})


def components(point):
    """Which component depends on which, by the definition."""
    graph = nx.DiGraph()
    for machine in point.machines:
        graph.add_edges_from(product({c for port in machine.reads for c in port}, machine.writes))
    return graph


def check_held(point, space):
    """What a point of the space must be, by its definition."""
    assert nx.is_directed_acyclic_graph(components(point))
    there = Counter(machine.candidate for machine in point.machines)
    for candidate in space.candidates:
        assert there[candidate.name] <= candidate.copies
    for machine in point.machines:
        candidate = next(c for c in space.candidates if c.name == machine.candidate)
        for some, possible, most in (
            *((port, own, candidate.max_reads) for port, own in zip(machine.reads, candidate.ports, strict=True)),
            (machine.writes, candidate.writes, candidate.max_writes),
        ):
            assert set(some) <= set(possible)
            assert 0 < len(some) == len(set(some)) <= (most or len(some))


# ---- codes, mutations, counts ----------------------------------------------------------------------------------------


@given(spaces().flatmap(lambda space: st.tuples(st.just(space), codes(space), st.integers(0, 2**20))))
@settings(max_examples=25)
def test_every_code_is_a_graph_without_a_cycle_and_mutations_stay_in_the_space(found):
    space, code, seed = found
    point = space.decode(code)
    check_held(point, space)
    assert space.decode(space.encode(point)) == point
    assert point_of(point.to_dict()) == point
    rng = np.random.default_rng(seed)
    for _ in range(8):
        changed = mutate_graph(point, space, rng)
        assert changed != point  # there are two learning rates to step between
        check_held(changed, space)
        assert space.decode(space.encode(changed)) == changed
        point = changed


@given(spaces().flatmap(lambda space: st.tuples(st.just(space), codes(space))))
@settings(max_examples=25)
def test_the_canonical_form_is_its_own_and_all_in_it_is_on_a_way(found):
    space, code = found
    point = space.decode(code)
    form = canonical(point)
    assert canonical(form) == form
    assert key(form, seed=0, budget=1) == key(point, seed=0, budget=1)
    graph = components(form)
    for machine in form.machines:
        for port in machine.reads:
            assert any("x" in (c, *nx.ancestors(graph, c)) for c in port)
        assert any("y" in (c, *nx.descendants(graph, c)) for c in machine.writes)
    assert [m.name for m in form.machines] == [name for level in form.levels for name in level] or len(form.levels) < 3
    assert form.depth == len(form.levels) == point.depth


def all_wirings(space):
    """All choices of machines, reads and writes without a cycle, one after the other."""

    def subsets(some, most):
        bits = product((False, True), repeat=len(some))
        found = [tuple(c for c, there in zip(some, bit, strict=True) if there) for bit in bits]
        return [one for one in found if 0 < len(one) <= (most or len(one))]

    ways = []
    for candidate in space.candidates:
        for copy in range(1, candidate.copies + 1):
            ports = [subsets(port, candidate.max_reads) for port in candidate.ports]
            own = [
                Placed(candidate.name, copy, tuple(reads), writes)
                for *reads, writes in product(*ports, subsets(candidate.writes, candidate.max_writes))
            ]
            ways.append(own if candidate.required else [None, *own])
    for machines in product(*ways):
        graph = nx.DiGraph()
        for machine in filter(None, machines):
            graph.add_edges_from(product({c for port in machine.reads for c in port}, machine.writes))
        if nx.is_directed_acyclic_graph(graph):
            yield tuple(filter(None, machines))


COUNTED = [
    (Candidate("f", nn.Tanh, ("x", "h"), ("h", "y"), copies=2), Candidate("g", nn.Tanh, ("h", "k"), ("k", "y"))),
    (Candidate("f", nn.Tanh, ("x", "h", "k"), ("h", "k", "y"), max_writes=1), Candidate("g", nn.Tanh, ("h",), ("k",))),
    (
        Candidate("f", nn.Tanh, (("x", "h"), ("k", "x")), ("h", "k", "y"), max_writes=2),
        Candidate("g", nn.Tanh, ("y", "h", "x"), ("k", "h"), required=True, max_reads=1),
    ),
    (Candidate("f", nn.Tanh, ("x", "h"), ("x", "h", "y")), Candidate("g", nn.Tanh, ("h", "x"), ("y", "x"))),
]


@pytest.mark.parametrize("candidates", COUNTED)
def test_counts_are_those_of_all_wirings(candidates):
    space = GraphSpace(candidates, **FEW)
    points = {GraphPoint(machines, ("x",), ("y",), 1e-2, batch_size=8) for machines in all_wirings(space)}
    assert {frozenset(p.machines) for p in space.wirings()} == {frozenset(p.machines) for p in points}
    assert space.count() == 4 * len(points)
    assert space.count_classes() == 4 * len({canonical(p) for p in points if not space.refusal(p)})
    for point in list(points)[::7]:
        ordered = space.arranged(point.machines, point)
        assert space.decode(space.encode(ordered)) == ordered


@given(spaces())
@settings(max_examples=15)
def test_counts_of_any_space_are_those_of_its_wirings(space):
    if (count := count_wirings(space.candidates, space.fits)) < 2000:
        assert count == len(space.wirings())


def test_what_is_not_counted_is_said():
    many = tuple("abcdefgh")
    space = GraphSpace((Candidate("bend", nn.Tanh, ("x", *many), (*many, "y")),))
    assert space.count() is None is space.count_classes()
    assert space.refusal(space.sample(np.random.default_rng(0))) == ""


def test_networks_are_drawn_uniformly():
    space = GraphSpace(COUNTED[1], learning_rates=(1e-2,))
    networks = [point for point in space.wirings() if not space.refusal(point)]
    drawn = Counter(space.sample(np.random.default_rng(seed)) for seed in range(40 * len(networks)))
    assert drawn.keys() == set(networks)
    chi = sum((number - 40) ** 2 / 40 for number in drawn.values())
    assert chi < len(networks) - 1 + 4 * np.sqrt(2 * (len(networks) - 1))  # four standard deviations


# ---- one form for one network ----------------------------------------------------------------------------------------


def answers(point):
    """What a point computes at one number, for each way to give two functions to the copies of each candidate."""
    functions = {("f", 1): (0.7, 0.31), ("f", 2): (-1.3, 0.17), ("g", 1): (0.9, -0.43), ("g", 2): (1.7, 0.53)}
    found = set()
    for order_f, order_g in product(permutations((1, 2)), repeat=2):
        h, left = {"x": 0.37}, list(point.machines)
        while left:
            pending = {c for machine in left for c in machine.writes}
            machine = next(m for m in left if not pending & {c for port in m.reads for c in port})
            left.remove(machine)
            arguments = [[h[c] for c in port if c in h] for port in machine.reads]
            if all(arguments):
                order = order_f if machine.candidate == "f" else order_g
                a, b = functions[machine.candidate, order[machine.copy - 1]]
                y = np.sin(sum(a**i * sum(some) for i, some in enumerate(arguments, start=1)) + b)
                for c in machine.writes:
                    h[c] = h.get(c, 0.0) + y
        found.add(round(float(h["y"]), 9) if "y" in h else None)
    return frozenset(found)


@pytest.mark.parametrize(
    "candidates",
    [
        (Candidate("f", nn.Tanh, ("x", "h"), ("h", "y"), copies=2), Candidate("g", nn.Tanh, ("x", "h"), ("h", "y"))),
        (Candidate("f", nn.Tanh, ("x", "h", "k"), ("h", "k", "y"), copies=2, max_writes=2),),
        (
            Candidate("f", nn.Tanh, (("x", "h"), ("x", "k")), ("h", "y")),
            Candidate("g", nn.Tanh, ("x", "h"), ("k", "h"), copies=2),
        ),
    ],
    ids=["two candidates", "copies", "arguments"],
)
def test_canonical_forms_are_equal_iff_networks_are(candidates):
    space = GraphSpace(candidates, learning_rates=(1e-2,))
    by_form, by_answers = {}, {}
    for point in space.wirings():
        form, said = canonical(point), answers(point)
        assert answers(form) == said
        assert by_form.setdefault(form, said) == said
        assert by_answers.setdefault(said, form) == form
    assert space.count_classes() == len(by_form) - (frozenset([None]) in by_answers)


# ---- what is built ---------------------------------------------------------------------------------------------------


class Hand(nn.Module):
    """``gate(stem(x) + stem_2(x), stem(x)) + bend(stem(x))`` through the head, written by hand."""

    def __init__(self, f):
        super().__init__()
        self.stem, self.stem_2, self.gate, self.head = (
            getattr(f, name).module for name in ("stem", "stem_2", "gate", "head")
        )

    def forward(self, x):
        first = self.stem(x)
        return self.head(self.gate(first + self.stem_2(x), first) + torch.tanh(first))


def test_the_architecture_is_the_network_written_by_hand():
    space = GraphSpace(
        (
            Candidate("stem", linear(3, 4), ("x",), ("h", "g"), copies=2),
            Candidate("bend", nn.Tanh, ("h", "g"), ("k",)),
            Candidate("gate", partial(Gate, 4), (("h", "g"), ("h", "g")), ("k",)),
            Candidate("head", linear(4, 2), ("h", "k"), ("y",)),
        )
    )
    machines = (
        Placed("stem", 1, (("x",),), ("h", "g")),
        Placed("stem", 2, (("x",),), ("h",)),
        Placed("bend", 1, (("g",),), ("k",)),
        Placed("gate", 1, (("h",), ("g",)), ("k",)),
        Placed("head", 1, (("k",),), ("y",)),
    )
    point = GraphPoint(machines, ("x",), ("y",), 1e-3)
    f, x = space.build(point, seed=3), torch.randn(5, 3)
    gate = next(machine for machine in canonical(point).machines if machine.name == "gate")
    assert gate.reads[0] == ("stem", "stem_2")
    hand = Hand(f)
    if gate.reads[1] == ("stem_2",):  # which of two machines of one candidate is called the second makes no difference
        hand.stem, hand.stem_2 = hand.stem_2, hand.stem
    y = f.resolvent({"x": x})["y"]
    torch.testing.assert_close(y, hand(x))
    weights = list(hand.parameters())
    for own, other in zip(
        torch.autograd.grad(y.sum(), weights), torch.autograd.grad(hand(x).sum(), weights), strict=True
    ):
        torch.testing.assert_close(own, other)
    assert (f.depth, set(f.graph)) == (3, {"stem", "stem_2", "bend", "gate", "head"})
    assert f.levels == canonical(point).levels


def test_weights_are_those_of_the_seed_whatever_else_there_is():
    torch.manual_seed(9)
    before = torch.get_rng_state()
    rng, first, again, other = np.random.default_rng(0), {}, 0, 0
    for _ in range(12):
        point = SPACE.sample(rng)
        for seed, known in ((0, first), (1, {})):
            for name, weight in SPACE.build(point, seed).state_dict().items():
                if name in first:
                    again += seed == 0 and torch.equal(first[name], weight)
                    other += seed == 1 and torch.equal(first[name], weight)
                    assert seed == 1 or torch.equal(first[name], weight)
                known.setdefault(name, weight)
    assert again > 10
    assert other == 0
    assert torch.equal(torch.get_rng_state(), before)  # the caller's random numbers go on as if nothing had been


@pytest.mark.parametrize("seed", range(12))
def test_what_fits_is_found_and_nothing_else_is_proposed(seed):
    everything = tuple("xhgky")
    shapes = {"x": (3,), "h": (4,), "g": (4,), "k": (2, 2), "y": (2,)}
    space = GraphSpace(
        (
            Candidate("stem", linear(3, 4), everything, everything),
            Candidate("bend", nn.Tanh, everything, everything, copies=2),
            Candidate("fold", partial(nn.Unflatten, 1, (2, 2)), everything, everything),
            Candidate("gate", partial(Gate, 4), (everything, everything), everything),
            Candidate("head", linear(4, 2), everything, everything, required=True),
            Candidate("rest", nn.Flatten, everything, everything),
        ),
        shapes=shapes,
        **FEW,
    )
    rng = np.random.default_rng(seed)
    point = space.decode(space.draw(rng))
    for drawn in (point, space.sample(rng), mutate_graph(point, space, rng)):
        for machine in drawn.machines:
            assert len({shapes[c] for c in machine.writes}) == 1
            assert all(len({shapes[c] for c in port}) == 1 for port in machine.reads)
        if not space.refusal(drawn):
            assert space.build(drawn).resolvent({"x": torch.randn(5, 3)})["y"].shape == (5, 2)


# ---- as a value ------------------------------------------------------------------------------------------------------


def test_a_space_is_told_and_read_back_equal_but_for_its_factories():
    told = GraphSpace.from_dict(SPACE.to_dict())
    assert told == SPACE
    assert hash(told) == hash(SPACE)
    wider = (Candidate("stem", linear(3, 5), ("x",), ("h", "g")), *SPACE.candidates[1:])
    assert GraphSpace(wider, shapes=(), **FEW) != GraphSpace(SPACE.candidates, **FEW)
    few = Settings("data", None, None, 0, "random", 3, None, 1, SPACE, SETTINGS.recipe)
    assert Settings.from_dict(few.to_dict()) == few
    with pytest.raises(
        ValueError, match="a function of Python, which no run's folder holds: give the graph space again"
    ):
        told.build(SPACE.sample(np.random.default_rng(0)))


SETTINGS = Settings.from_dict(
    {"source": "data", "target": None, "task": None, "seed": 0, "strategy": "random", "trials": 1, "seconds": None,
     "population": 1, "space": {}, "recipe": {}}
)  # fmt: skip


def f(name="f", reads=("x",), writes=("y",), make=nn.Tanh, **more):
    return Candidate(name, make, reads, writes, **more)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: f("two words"), "'two words' as the name of a candidate: give a name as Python has them"),
        (lambda: f(reads="x"), r'f has reads="x", a bare string: give a tuple, \("x",\)'),
        (lambda: f(writes="y"), r'f has writes="y", a bare string: give a tuple of names'),
        (lambda: f(reads=()), "f may read nothing"),
        (lambda: f(reads=(("x",), ())), "f has an argument that may read nothing"),
        (lambda: f(writes=()), "f writes nothing"),
        (lambda: f(copies=0), "f has copies=0: it must be at least 1"),
        (lambda: f("x"), "x is a candidate and a component"),
        (lambda: f(reads=tuple(f"h{i}" for i in range(30))), "in more than 1,048,576 ways: give max_reads"),
        (lambda: f(make=lambda: 3), "the factory of f returned int: it must return a torch.nn.Module"),
        (lambda: f(make=nn.Linear(3, 3)), r"f has a module for a factory: .*functools.partial\(nn.Linear, ...\)"),
        (lambda: f(make=3), "f has int for a factory: give a function that returns a module"),
        (lambda: GraphSpace(()), r"got candidates=\(\): give a tuple with at least one"),
        (lambda: GraphSpace(f()), r"got the candidate f alone: give a tuple of candidates, as \(f,\)"),
        (lambda: GraphSpace(3), "got candidates=3: give a tuple with at least one"),
        (lambda: GraphSpace((f(),), shapes={"x": 4}), r"got the shape 4 of x: give a tuple .*, as \(4,\)"),
        (lambda: GraphSpace((f(),), shapes={"x": "44"}), r"got the shape '44' of x: give a tuple of whole numbers"),
        (lambda: GraphSpace((f(),), shapes={"x": (0,)}), r"got the shape \(0,\) of x: .* numbers from 1 on"),
        (lambda: GraphSpace((f(),), shapes={"x": (1.5,)}), r"got the shape \(1.5,\) of x: .* whole numbers"),
        (lambda: GraphSpace((f(),), shapes=(3, 4)), r"got shapes=\(3, 4\): give a mapping from components to tuples"),
        (lambda: GraphSpace((nn.Tanh,)), "got type among the candidates: give search.Candidate"),
        (lambda: GraphSpace((f(), f())), "two machines are called f, copies among them"),
        (lambda: GraphSpace((f(copies=2), f("f_2"))), "two machines are called f_2, copies among them"),
        (lambda: GraphSpace((f(), f("g", writes=("f",)))), "f is a machine and a component"),
        (lambda: GraphSpace((f(),), inputs=("x", "z")), "no candidate may read the input z"),
        (lambda: GraphSpace((f(),), outputs=("yy",)), "no candidate may write the output yy; did you mean y"),
        (lambda: GraphSpace((f(reads=("x", "h")),)), "h may be read, but no candidate may write it"),
        (lambda: GraphSpace((f(reads=("x", "y")),), inputs=("x", "y")), "y is an input and an output"),
        (lambda: GraphSpace((f(),), shapes={"z": (3,)}), "got a shape of z, which no candidate reads or writes"),
        (lambda: GraphSpace((f(),), learning_rates=(1e-2, 1e-3)), "give them in increasing order"),
        (
            lambda: GraphSpace((f(make=linear(3, 2)),), shapes={"x": (4,), "y": (2,)}),
            r"f fits nowhere: on \(4,\) it fails \(mat1 and mat2 .*it may write to y \(2,\)",
        ),
        (
            lambda: GraphSpace((f(make=linear(3, 2)),), shapes={"x": (3,), "y": (4,)}),
            r"f fits nowhere: on \(3,\) it returns \(2,\); it may write to y \(4,\)",
        ),
        (
            lambda: GraphPoint((Placed("f", 1, (("a",),), ("b",)), Placed("g", 1, (("b",),), ("a",))), "x", "y", 1e-3),
            "f and g depend on each other",
        ),
        (
            lambda: GraphSpace(tuple(f(f"f_{i}", reads=("x",), writes=("y", f"h_{i}")) for i in range(61))),
            "got 63 components: at most 62 can be wired",
        ),
        (lambda: SPACE.decode({}), "got a code without .*: give every name of GraphSpace.parameters"),
        (
            lambda: SPACE.encode(GraphPoint((Placed("stem", 1, (("x",),), ("h",)),), "x", "y", 1e-2, batch_size=8)),
            "which is not in the space as it is written",
        ),
        (
            lambda: SPACE.build(GraphPoint((Placed("stem", 1, (("x",),), ("h",)),), ("x",), ("y",), 1e-2)),
            "no network of the space: no way leads from x to y",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told(make, said):
    with pytest.raises(ValueError, match=said):
        make()
