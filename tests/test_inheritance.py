"""Children that begin with their parents' weights: the right ones, and where it can be, the same function."""

import errno
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import torch
from sklearn.neighbors import NearestCentroid
from test_graph_search import SPACE as GRAPHS
from test_study import Cut, cut_at, ledger, same, settings

from machgraph.io import load as load_machine
from search import driver, study, work
from search.comparison import rivals
from search.comparison.final import final
from search.comparison.leaderboard import ranking
from search.data import from_arrays, load
from search.isomorphism.canonical import canonical, members
from search.one_of import OneOf
from search.population import train
from search.recipe import Recipe
from search.record import Settings
from search.run import BEST, read_facts, read_records
from search.shape import Shape
from search.space import Space
from search.storage.store import Store
from search.strategies import heirs, mutation
from search.strategies.evolution import Evolution
from search.strategies.heirs import FOLDER, Parents, begun
from search.strategies.inheritance import PARENT, Descent
from search.strategies.mutation import NEW, mutant
from search.strategies.strategy import Proposal
from search.training.machine import answers, build

SHAPE = Shape(32, 3, (2, 16))
DENSE = Space(max_blocks=4, widths=(2, 4, 8), activations=("tanh", "relu"))
GRID = replace(DENSE, kind="convolution", kernels=(1, 3, 5), max_scale=2, heads=(2, 3))
SERIES = replace(DENSE, max_blocks=3, kind="recurrence", lags=(2, 3), timeblocks=(1, 2))
SPACES = {space.kind: space for space in (DENSE, GRID, SERIES)}
INHERIT = Recipe(epochs=4, rungs=(1,), inherit=True, child_share=0.5)

every_kind = pytest.mark.parametrize("kind", SPACES)


@pytest.fixture(autouse=True, scope="module")
def quiet():
    threads, verbosity = torch.get_num_threads(), optuna.logging.get_verbosity()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rivals, "_models", lambda dataset: {"linear": NearestCentroid()})
        patch.setattr("search.comparison.finalists.DRAWS", 1)
        patch.setattr("search.comparison.finalists.FOLDS", 2)
        for name, few in (("population", 6), ("tournament", 3)):
            patch.setitem(Evolution.__init__.__kwdefaults__, name, few)
        yield
    torch.set_num_threads(threads)
    optuna.logging.set_verbosity(verbosity)


def learned(point, seed):
    """A machine of the canonical form whose weights and biases are nowhere 0 but where the mask is."""
    machine = build(canonical(point), SHAPE, seed)
    with torch.no_grad():
        machine.bias += 0.1
    return machine


def child_of(parent, child, origin, machine, seed=9):
    """The child's machine, begun with the weights of the parent's."""
    alignment = Descent(child, 0, origin).alignment(parent)
    return begun(canonical(child), SHAPE, seed, alignment, (machine.weight.detach(), machine.bias.detach()))


def cases(name, kind, monkeypatch, number=16):
    """Parents and children of one kind of mutation."""
    space, rng = SPACES[kind], np.random.default_rng(5)
    few = replace(space, max_blocks=space.max_blocks - 1, lags=space.lags[:1])  # so that there is room
    monkeypatch.setattr(mutation, "_MUTATIONS", (getattr(mutation, name),))
    for _ in range(number):
        parent = few.sample(rng)
        yield parent, *mutant(parent, space, rng)


# ---- the same function ---------------------------------------------------------------------------------------------


def is_larger(parent, child):
    """Whether nothing was taken away: no channel, no edge."""
    return sum(child.widths) >= sum(parent.widths) and (
        child.blocks > parent.blocks
        or (
            all(a <= b for a, b in zip(parent.widths, child.widths, strict=True))
            and (parent.masks <= child.masks).all()
        )
    )


@every_kind
@pytest.mark.parametrize("name", ["_add_block", "_split_block", "_resize_block", "_toggle_shortcut"])
def test_a_child_that_has_more_begins_as_what_its_parent_is(monkeypatch, kind, name):
    x, seen = torch.randn(6, 32, generator=torch.Generator().manual_seed(0)), 0
    for i, (parent, child, origin) in enumerate(cases(name, kind, monkeypatch, 24)):
        if child == parent or not is_larger(parent, child):
            continue
        machine = learned(parent, i)
        begins = child_of(parent, child, origin, machine)
        expected = answers(machine, x, SHAPE)
        torch.testing.assert_close(answers(begins, x, SHAPE), expected, rtol=1e-4, atol=1e-5)
        seen += canonical(child) != canonical(parent) and bool((expected != expected[:1]).any())
    assert seen >= 3


@pytest.mark.parametrize("name", ["_toggle_recurrence", "_step_lags"])
def test_more_recurrences_and_lags_change_nothing_at_first(monkeypatch, name):
    x, seen = torch.randn(6, 32, generator=torch.Generator().manual_seed(0)), 0
    for i, (parent, child, origin) in enumerate(cases(name, "recurrence", monkeypatch)):
        if len(child.masks) < len(parent.masks) or (parent.masks & ~child.masks[: len(parent.masks)]).any():
            continue
        machine = learned(parent, i)
        begins = child_of(parent, child, origin, machine)
        torch.testing.assert_close(answers(begins, x, SHAPE), answers(machine, x, SHAPE), rtol=1e-4, atol=1e-5)
        seen += 1
    assert seen >= 3


def test_a_wider_kernel_begins_with_the_narrow_one_in_its_middle():
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    parent = replace(GRID.sample(np.random.default_rng(3)), kernel=1)
    for small, large in ((1, 2), (1, 3), (2, 3), (2, 4), (3, 5), (4, 5), (2, 5)):
        narrow, wide = replace(parent, kernel=small), replace(parent, kernel=large)
        machine = learned(narrow, 1)
        begins = child_of(narrow, wide, np.arange(sum(parent.widths)), machine)
        torch.testing.assert_close(answers(begins, x, SHAPE), answers(machine, x, SHAPE), rtol=1e-4, atol=1e-5)
    cut = child_of(wide, replace(parent, kernel=1), np.arange(sum(parent.widths)), begins)
    old = slice(0, 2), slice(0, 2)
    torch.testing.assert_close(cut.weight[old][..., 0], begins.weight[old][..., 2])


# ---- the right weights ---------------------------------------------------------------------------------------------


def names_of(point):
    """The hidden channels of the canonical form, as (block, channel) of the point itself."""
    return [(block, c) for blocks in members(point) for block in blocks for c in range(point.widths[block - 1])]


@every_kind
def test_what_parent_and_child_share_is_copied_and_nothing_else(kind):
    """Over chains of all mutations, entry by entry."""
    space, rng, copied = SPACES[kind], np.random.default_rng(7), 0
    for start in range(6):
        parent = space.sample(rng)
        descent = Descent.unchanged(parent, 0)
        for _ in range(1 + start % 3):
            descent = descent.then(*mutant(descent.point, space, rng))
        child, machine = descent.point, learned(parent, start)
        begins, drawn = child_of(parent, child, descent.origin, machine), build(canonical(child), SHAPE, 9)
        flat = [(block, c) for block, width in enumerate(parent.widths, start=1) for c in range(width)]
        hidden = np.cumsum((0, *child.widths))
        first, known = machine.partition.widths[0], {name: i for i, name in enumerate(names_of(parent))}
        sources = list(range(first))
        for block, c in names_of(child):
            origin = descent.origin[hidden[block - 1] + c]
            place = known.get(flat[origin]) if origin != NEW else None
            sources.append(None if place is None else first + place)
        sources += [len(machine.bias) - 3 + k for k in range(3)]
        shift = (
            begins.weight.shape[2:].numel() // 2 - machine.weight.shape[2:].numel() // 2 if kind == "convolution" else 0
        )
        expected = torch.zeros_like(begins.weight)
        for o, i in np.ndindex(*expected.shape[:2]):
            if sources[o] is None:
                expected[o, i] = drawn.weight[o, i]
                continue
            if sources[i] is None:
                continue
            for t in np.ndindex(*expected.shape[2:]):
                there = tuple(k - shift for k in t)
                if all(0 <= k < n for k, n in zip(there, machine.weight.shape[2:], strict=True)):
                    expected[(o, i, *t)] = machine.weight[(sources[o], sources[i], *there)]
        expected *= torch.from_numpy(begins.weight_mask)
        assert torch.equal(begins.weight, expected)
        bias = [drawn.bias[o] if source is None else machine.bias[source] for o, source in enumerate(sources)]
        assert torch.equal(begins.bias, torch.stack(bias))
        copied += sum(source is not None for source in sources[first:-3])
        again = Descent.from_dict(child, descent.to_dict())
        assert np.array_equal(again.origin, descent.origin)
    assert copied > 20


def test_both_halves_of_a_split_and_the_sum_of_a_merge_have_all_channels(monkeypatch):
    seen = set()
    for name in ("_split_block", "_merge_blocks"):
        for parent, child, origin in cases(name, "dense", monkeypatch, number=40):
            assert len(origin) == sum(child.widths)
            old = origin[origin != NEW].tolist()
            assert len(old) == len(set(old))
            if sum(child.widths) == sum(parent.widths) and child != parent:
                assert sorted(old) == list(range(sum(parent.widths)))
                seen.add(name)
    assert len(seen) == 2


# ---- in a search ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    labels = np.where(x[:, 0] * x[:, 1] + 0.3 * x[:, 2] > 0, "up", "down")
    path = tmp_path_factory.mktemp("data") / "signs.csv"
    lines = ["a,b,c,sign", *(f"{a:.6f},{b:.6f},{c:.6f},{label}" for (a, b, c), label in zip(x, labels, strict=True))]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture(scope="module")
def dataset(source):
    return load(source, "sign")


def inheriting(source, **changes):
    return settings(source, trials=20, recipe=INHERIT, folds=2, finalists=1, seeds=1, **changes)


@pytest.fixture(scope="module")
def whole(source, dataset, tmp_path_factory):
    """A search that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    study.run(inheriting(source), dataset, folder)
    return folder


def weights(folder):
    return {path.name: path.read_bytes() for path in (folder / FOLDER).iterdir()}


def test_children_name_their_parents_and_train_for_their_share(whole):
    records = read_records(whole)
    assert [record.parent for record in records[:6]] == [None] * 6  # generations of 6, a population of 6
    for record in records[6:]:
        generation = record.number - record.number % 6
        assert generation - 6 <= record.parent < generation
        assert record.epochs <= 2
    assert max(record.epochs for record in records[:6]) == 4
    header, *lines = ledger(whole)
    assert [line[header.index("parent")] for line in lines] == [
        "" if record.parent is None else str(record.parent) for record in records
    ]


def test_only_the_living_population_has_its_weights_kept(whole):
    alive = read_records(whole)[-6:]
    trained = {record.number if record.duplicate_of is None else record.duplicate_of for record in alive}
    assert set(weights(whole)) == {f"{number}.safetensors" for number in trained}


def test_each_fold_begins_with_what_the_parent_learned_on_it(source, dataset, tmp_path, monkeypatch):
    begins, real = [], work.begun

    def begun(point, shape, seed, alignment, weights):
        begins.append((point, weights))
        return real(point, shape, seed, alignment, weights)

    monkeypatch.setattr(work, "begun", begun)
    wish = replace(inheriting(source), recipe=replace(INHERIT, rungs=()))
    result = study.run(wish, dataset, tmp_path / "run")
    folds = study.OnData(wish, result.facts, dataset, tmp_path).folds
    children = [r for r in result.records if r.parent is not None and r.duplicate_of is None]
    assert len(begins) == 2 * len(children)
    founders = [(i, r) for i, r in enumerate(children) if result.records[r.parent].parent is None]
    place, child = next((i, r) for i, r in founders if result.records[r.parent].duplicate_of is None)
    parent = result.records[child.parent]
    (outcome,) = train([parent.canonical], folds, wish.recipe, 0)
    for (point, (weight, bias)), machine in zip(begins[2 * place : 2 * place + 2], outcome.machines, strict=True):
        assert point == child.canonical
        assert torch.equal(weight, machine.weight)
        assert torch.equal(bias, machine.bias)
    assert not torch.equal(begins[2 * place][1][0], begins[2 * place + 1][1][0])


@pytest.mark.parametrize("cut", [("proposing", 6), ("training", 12, 1)], ids=str)
def test_resumed_search_is_the_uninterrupted_one(whole, source, dataset, tmp_path, cut):
    with pytest.raises(Cut):
        study.run(inheriting(source), dataset, tmp_path, cut_at(*cut))
    study.resume(tmp_path)
    same(tmp_path, whole)
    assert weights(tmp_path) == weights(whole)


@pytest.mark.parametrize("when", ["before it is stored", "before the dead have left"])
def test_generation_that_was_cut_off_finds_its_parents_again(whole, source, dataset, tmp_path, monkeypatch, when):
    append, leave = Store.append, heirs.Parents.leave

    def first(self, trials, waiting):
        if trials[0].generation.first == 12:
            raise Cut
        append(self, trials)

    def cut(self, living):
        if len(read_records(tmp_path)) == 18:
            raise Cut
        leave(self, living)

    with monkeypatch.context() as patch:
        if when == "before it is stored":
            patch.setattr(Store, "append", first)
        else:
            patch.setattr(heirs.Parents, "leave", cut)
        with pytest.raises(Cut):
            study.run(inheriting(source), dataset, tmp_path)
    study.resume(tmp_path)
    same(tmp_path, whole)
    assert weights(tmp_path) == weights(whole)


def test_each_kind_inherits_from_its_own(tmp_path):
    series = load("sunspots", seed=0)
    few = {"max_blocks": 1, "widths": (2, 4), "activations": ("tanh",), "batch_sizes": (64,)}
    both = OneOf((Space(**few), Space(**few, kind="recurrence", lags=(1, 2))))
    wish = Settings("sunspots", None, None, 0, "evolution", 24, None, 8, both, INHERIT, finalists=1, seeds=1)
    with pytest.raises(Cut):
        study.run(wish, series, tmp_path, cut_at("rivals", 24))
    records = read_records(tmp_path)
    children = [record for record in records if record.parent is not None]
    assert {record.canonical.kind for record in children} == {"dense", "recurrence"}
    for record in children:
        assert records[record.parent].point.kind == record.point.kind
    alive = [[r for r in records if r.is_valid and r.point.kind == kind][-6:] for kind in both.kinds]
    kept = {r.number if r.duplicate_of is None else r.duplicate_of for some in alive for r in some}
    assert set(weights(tmp_path)) == {f"{number}.safetensors" for number in kept}


def test_weights_that_are_gone_are_told(source, dataset, tmp_path):
    with pytest.raises(Cut):
        study.run(inheriting(source), dataset, tmp_path, cut_at("storing", 6))
    for path in (tmp_path / FOLDER).iterdir():
        path.unlink()
    with pytest.raises(OSError, match=r"safetensors is missing, and children of trial \d+ begin with its weights"):
        study.resume(tmp_path)
    assert len(read_records(tmp_path)) == 6


def test_a_duplicate_of_one_that_has_died_has_no_weights_to_give(whole, tmp_path):
    first = read_records(whole)[0]
    again = replace(first, number=1, status="duplicate", duplicate_of=0)
    trained = partial(driver._Driver.trained, searching := SimpleNamespace(records=[first, again]))
    vars(searching).update(parents=Parents(tmp_path), settings=SimpleNamespace(seed=0), trained=trained)
    born = Proposal(again.point, {}, {PARENT: Descent.unchanged(again.point, 1).to_dict()})
    assert driver._Driver.inheritance(searching, 2, born) is None
    Parents(tmp_path).write(0, [build(first.canonical, Shape(3, 2), seed=0)])
    assert driver._Driver.inheritance(searching, 2, born) is not None


def test_a_full_disk_is_told_and_loses_nothing(whole, source, dataset, tmp_path, monkeypatch):
    real = heirs.save

    def save(tensors):
        if len(read_records(tmp_path)) == 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(tensors)

    with monkeypatch.context() as patch:
        patch.setattr(heirs, "save", save)
        with pytest.raises(OSError, match=r"No space left on device\); all generations before are kept"):
            study.run(inheriting(source), dataset, tmp_path)
    assert len(read_records(tmp_path)) == 12
    study.resume(tmp_path)
    same(tmp_path, whole)


def test_the_end_trains_from_scratch(whole, source, dataset):
    plain = replace(inheriting(source), recipe=replace(INHERIT, inherit=False))
    ranked = ranking(read_records(whole), plain)
    ended = final(ranked, plain, dataset, read_facts(whole))
    assert torch.equal(load_machine(whole / BEST).weight, ended.finalists[0].machines[0].weight)


def test_a_search_without_it_keeps_no_weights(source, dataset, tmp_path):
    study.run(settings(source, trials=6), dataset, tmp_path)
    assert not (tmp_path / FOLDER).exists()


def test_only_strategies_with_parents_can_inherit(source):
    with pytest.raises(ValueError, match=r"inherit with the strategy 'tpe': only children of evolution"):
        settings(source, "tpe", recipe=INHERIT)
    with pytest.raises(ValueError, match=r"inherit for a space of graphs, whose machines have no blocks"):
        settings(source, space=GRAPHS, recipe=INHERIT)
    with pytest.raises(ValueError, match=r"child_share=0: it must be a fraction"):
        Recipe(child_share=0)


def test_machines_that_are_given_are_trained_on():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    data = from_arrays(x, np.where(x[:, 0] * x[:, 1] > 0, "up", "down"), seed=0)
    point = canonical(replace(DENSE.sample(np.random.default_rng(1)), batch_size=16))
    recipe = Recipe(epochs=3, rungs=())
    (given,) = train([point], (data,), recipe, seed=1, machines=[[build(point, data.shape, 5)]])
    (drawn,) = train([point], (data,), recipe, seed=1, seeds=[5])
    assert given == replace(drawn, seconds=given.seconds)
    assert torch.equal(given.machine.weight, drawn.machine.weight)
