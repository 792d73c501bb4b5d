import math
import warnings
from dataclasses import replace

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from search.isomorphism.canonical import canonical
from search.one_of import OneOf
from search.point import Point
from search.shape import Shape
from search.space import Space
from search.strategies import evolution
from search.strategies.evolution import beginning
from search.strategies.mutation import mutate
from search.suggest import STRATEGIES, RegularizedEvolution, distributions, sampler, suggest

SPACE = Space(learning_rates=(1e-3, 2e-3, 4e-3, 8e-3), weight_decays=(0.1, 0.3), batch_sizes=(32, 64))
GRID = replace(SPACE, kind="convolution", kernels=(3, 5), max_scale=2, heads=(2, 3))
BOTH = OneOf((SPACE, GRID))
SHAPE = Shape(64, 10, (1, 8, 8))

every_space = pytest.mark.parametrize("space", [SPACE, BOTH], ids=["dense", "several kinds"])


@pytest.fixture(autouse=True)
def quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def loss(point):
    """Cheap, with interactions: best at depth 7, one certain activation each level, a learning rate that suits."""
    form = canonical(point)
    depth = abs(form.depth - 7) / 6
    activations = sum(a != b for a, b in zip(form.activations, ("tanh", "relu", "gelu"), strict=False)) / 3
    size = abs(math.log(form.parameters(SHAPE) / 8000))
    rate = abs(math.log(point.learning_rate / (2e-3 if form.depth > 5 else 8e-3)))
    skips = abs(int(form.mask.sum()) - 6) / 6
    return depth + activations + size * (1 + skips) + rate / 2


def new_study(strategy="random", *, space=SPACE, seed=0, history=(), direction="minimize", storage=None):
    study = optuna.create_study(sampler=sampler(strategy, seed=seed, space=space), direction=direction, storage=storage)
    for trial in history:
        study.add_trial(trial)
    return study


def advance(study, *, until, together, space=SPACE, objective=loss):
    """Ask so many trials, then tell them, again and again, as the driver does."""
    while (done := len(study.trials)) < until:
        asked = []
        for _ in range(min(together, until - done)):
            trial = study.ask()
            asked.append((trial, suggest(trial, space)))
        for trial, point in asked:
            study.tell(trial, objective(point))


def past(point, value, *, space=SPACE, state=TrialState.COMPLETE):
    return create_trial(
        params=space.encode(point),
        distributions={name: optuna.distributions.CategoricalDistribution(c) for name, c in space.parameters.items()},
        values=None if value is None else np.atleast_1d(value).tolist(),
        state=state,
    )


def draws(n, *, seed=0, space=SPACE):
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(n)]


# Every strategy


@pytest.mark.parametrize(("together", "stopped"), [(1, 17), (8, 16)])
@every_space
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_restarted_search_proposes_what_an_uninterrupted_one_does(strategy, space, together, stopped):
    whole = new_study(strategy, space=space)
    advance(whole, until=40, together=together, space=space)
    first = new_study(strategy, space=space)
    advance(first, until=stopped, together=together, space=space)
    second = new_study(strategy, space=space, history=first.trials)
    advance(second, until=40, together=together, space=space)
    assert [t.params for t in second.trials] == [t.params for t in whole.trials]
    assert len({tuple(t.params.values()) for t in whole.trials}) > 20


@every_space
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_search_killed_among_running_trials_goes_on_as_if_it_had_not_been(strategy, space):
    whole = new_study(strategy, space=space)
    advance(whole, until=40, together=8, space=space)

    storage = optuna.storages.InMemoryStorage()
    killed = new_study(strategy, space=space, storage=storage)
    advance(killed, until=24, together=8, space=space)
    asked = [killed.ask() for _ in range(8)]
    points = [suggest(trial, space) for trial in asked]
    for trial, point in list(zip(asked, points, strict=True))[:3]:
        killed.tell(trial, loss(point))

    resumed = optuna.load_study(
        study_name=killed.study_name, storage=storage, sampler=sampler(strategy, seed=0, space=space)
    )
    for trial in resumed.get_trials(states=[TrialState.RUNNING]):
        resumed.tell(trial.number, loss(space.decode(trial.params)))
    advance(resumed, until=40, together=8, space=space)
    assert [t.params for t in resumed.trials] == [t.params for t in whole.trials]


@every_space
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_trial_killed_between_two_parameters_is_completed_as_it_would_have_been(strategy, space):
    history = [past(point, loss(point), space=space) for point in draws(30, space=space)]
    whole = new_study(strategy, space=space, history=history)
    expected = suggest(whole.ask(), space)
    storage = optuna.storages.InMemoryStorage()
    killed = new_study(strategy, space=space, history=history, storage=storage)
    trial = killed.ask()
    for name in list(space.parameters)[:12:4]:
        trial.suggest_categorical(name, space.parameters[name])
    resumed = optuna.load_study(
        study_name=killed.study_name, storage=storage, sampler=sampler(strategy, seed=0, space=space)
    )
    assert suggest(optuna.Trial(resumed, trial._trial_id), space) == expected


@every_space
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_order_in_which_trials_are_asked_and_read_does_not_matter(strategy, space):
    history = [past(point, loss(point), space=space) for point in draws(30, space=space)]
    one, other = new_study(strategy, space=space, history=history), new_study(strategy, space=space, history=history)
    first, second = suggest(one.ask(), space), suggest(one.ask(), space)
    early, late = other.ask(), other.ask()
    assert suggest(early, space) == first
    assert suggest(late, space) == second


@every_space
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_seeds_differ(strategy, space):
    studies = [new_study(strategy, space=space, seed=seed) for seed in (0, 1)]
    for study in studies:
        advance(study, until=3, together=1, space=space)
    assert studies[0].trials[0].params != studies[1].trials[0].params


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_space_with_single_choices_and_one_without_hidden_blocks(strategy):
    single = Space(max_blocks=1, widths=(8,), activations=("relu",), learning_rates=(1e-3,))
    for space in (Space(max_blocks=0), single, replace(single, max_blocks=3, min_blocks=3)):
        study = new_study(strategy, space=space)
        advance(study, until=45, together=5, space=space, objective=lambda point: float(point.mask.sum()))
        assert {tuple(t.params) for t in study.trials} == {tuple(space.parameters)}


@every_space
def test_random_is_the_uniform_draw(space):
    expected = [space.sample(np.random.default_rng((7, number))) for number in range(5)]
    study = new_study("random", seed=7, space=space)
    assert [suggest(study.ask(), space) for _ in range(5)] == expected


@pytest.mark.parametrize(("got", "near"), [("evolve", "evolution"), ("TPE", "tpe"), ("nsga-ii", "nsga2")])
def test_an_unknown_strategy_names_the_four_and_the_nearest(got, near):
    with pytest.raises(ValueError, match=f"did you mean '{near}'. The strategies are random, tpe, nsga2, evolution"):
        sampler(got, seed=0, space=SPACE)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed=-1"):
        sampler("tpe", seed=-1, space=SPACE)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_parameter_outside_the_space_is_refused(strategy):
    with pytest.raises(ValueError, match="got parameter 'momentum': the space has blocks"):
        new_study(strategy).ask().suggest_float("momentum", 0, 1)


# TPE


@every_space
def test_tpe_chooses_all_parameters_together_from_the_first_trial_after_its_start(space):
    # One by one it would ask sample_independent, which refuses (the test above).
    study = new_study("tpe", space=space)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        advance(study, until=20, together=1, space=space)
    assert not [w for w in caught if not issubclass(w.category, optuna.exceptions.ExperimentalWarning)]
    chosen = [t.system_attrs.get("tpe:relative_params:0", "{}") for t in study.trials]
    assert chosen[:10] == ["{}"] * 10
    assert all(f'"{name}"' in text for text in chosen[10:] for name in distributions(space))
    assert len(distributions(space)) > 0.9 * len(space.parameters)  # of few there is one choice


def test_tpe_keeps_away_from_running_trials():
    history = [past(point, loss(point)) for point in draws(30)]
    best = min(history, key=lambda t: t.value).params
    agreement = {}
    for state in (TrialState.RUNNING, TrialState.FAIL):
        more = [past(SPACE.decode(best), None, state=state)] * 8
        studies = [new_study("tpe", seed=seed, history=history + more) for seed in range(20)]
        proposals = [SPACE.encode(suggest(study.ask(), SPACE)) for study in studies]
        agreement[state] = np.mean([sum(code[name] == best[name] for name in code) for code in proposals])
    assert agreement[TrialState.RUNNING] < agreement[TrialState.FAIL] - 1  # of 27 parameters


# Evolution


@pytest.mark.parametrize("sizes", [{"tournament": 0}, {"population": 3, "tournament": 4}])
def test_evolution_needs_sizes_that_make_sense(sizes):
    with pytest.raises(ValueError, match="1 <= tournament <= population must hold"):
        RegularizedEvolution(SPACE, seed=0, **sizes)


def test_of_several_objectives_the_parent_is_of_the_front_and_lonely_there(monkeypatch):
    monkeypatch.setattr(evolution, "mutant", lambda point, space, rng: (point, np.arange(sum(point.widths))))
    points = draws(6)
    values = [(0.0, 9.0), (1.0, 8.0), (9.0, 0.0), (1.0, 9.0), (2.0, 7.5), (9.0, 9.0)]
    for place, shift in ((0, 0.0), (2, -1.0)):  # the ends of the front are the loneliest; of these the earlier wins
        order = points if not shift else points[::-1]
        told = values if not shift else values[::-1]
        study = optuna.create_study(
            directions=["minimize", "minimize"],
            sampler=RegularizedEvolution(SPACE, seed=0, population=6, tournament=6),
        )
        for point, pair in zip(order, told, strict=True):
            study.add_trial(past(point, pair))
        assert suggest(study.ask(), SPACE) == points[place]


def test_what_is_not_accepted_is_not_proposed():
    def accepts(point):
        return canonical(point).blocks <= 1

    for strategy in ("evolution", "random"):
        study = optuna.create_study(sampler=sampler(strategy, seed=0, space=SPACE, accepts=accepts))
        for _ in range(30):
            trial = study.ask()
            assert accepts(suggest(trial, SPACE))
            study.tell(trial, float(trial.number))


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_parent_is_the_best_of_the_living(direction, monkeypatch):
    # Without mutation the child is its parent. Older than the population, failed, pruned and infinite ones are none.
    monkeypatch.setattr(evolution, "mutant", lambda point, space, rng: (point, np.arange(sum(point.widths))))
    points, sign = draws(10), 1 if direction == "minimize" else -1
    best = points[6]
    history = [
        past(points[0], sign * -9.0),  # died of age: five completed ones are younger
        past(points[1], sign * 5.0),
        past(points[2], sign * 4.0),
        past(points[3], None, state=TrialState.FAIL),
        past(points[4], sign * -math.inf),
        past(points[5], sign * 3.0),
        past(best, sign * 1.0),
        past(points[7], sign * -8.0, state=TrialState.PRUNED),
        past(points[8], sign * 2.0),
    ]
    study = optuna.create_study(
        direction=direction, sampler=RegularizedEvolution(SPACE, seed=0, population=5, tournament=5)
    )
    for trial in history:
        study.add_trial(trial)
    assert suggest(study.ask(), SPACE) == best


@every_space
def test_evolution_draws_beginnings_until_it_has_a_population(space):
    history = [past(point, math.inf, space=space) for point in draws(30, space=space)]
    history += [past(point, 1.0, space=space) for point in draws(15, seed=1, space=space)]
    study = new_study("evolution", history=history, space=space)
    rng, seen = np.random.default_rng((0, 45)), {canonical(space.decode(t.params)) for t in history}
    spaces = space.spaces if space is BOTH else (space,)
    one = spaces[rng.integers(len(spaces))]
    assert suggest(study.ask(), space) == next(p for _ in range(20) if canonical(p := beginning(one, rng)) not in seen)


@given(st.integers(0, 2**32 - 1), st.sampled_from([*BOTH.spaces, replace(SPACE, max_span=1)]))
def test_beginnings_are_in_the_space(seed, space):
    point = beginning(space, np.random.default_rng(seed))
    assert space.decode(space.encode(point)) == point


@every_space
def test_evolution_proposes_no_network_twice(space):
    study = new_study("evolution", space=space)
    advance(study, until=120, together=8, space=space)
    bred = [canonical(space.decode(t.params)) for t in study.trials][16:]
    assert len(set(bred)) == len(bred) == 104


def test_each_kind_evolves_by_itself():
    study = new_study("evolution", space=BOTH)
    advance(study, until=120, together=8, space=BOTH, objective=lambda point: loss(point) + (point.kind == "dense"))
    kinds = [BOTH.decode(t.params).kind for t in study.trials]
    assert 35 < kinds.count("convolution") < 85  # however bad the dense ones are
    for kind in ("dense", "convolution"):
        found = [t.value for t, own in zip(study.trials, kinds, strict=True) if own == kind]
        assert np.mean(found[-15:]) < np.mean(found[:15])


def test_evolution_ends_in_a_space_that_it_has_seen_all_of():
    space = Space(max_blocks=0, learning_rates=(1e-3,))
    study = new_study("evolution", space=space)
    advance(study, until=30, together=1, space=space, objective=lambda point: float(point.mask.sum()))
    assert {space.decode(t.params) for t in study.trials} == {
        Point((), (), ((False, False), (edge, False)), 1e-3) for edge in (False, True)
    }


def test_evolution_beats_random():
    found, drawn = [], []
    for seed in range(10):
        study = new_study("evolution", seed=seed)
        advance(study, until=100, together=8)
        found.append(study.best_value)
        # what the strategy "random" proposes, see above
        drawn.append(min(loss(SPACE.sample(np.random.default_rng((seed, number)))) for number in range(100)))
    assert np.mean(found) < 0.7 * np.mean(drawn)


# Mutations


LIMITS = st.sampled_from(
    [{}, {"max_span": 1}, {"max_span": 2}, {"shortcuts": "all"}, {"shortcuts": "sequential"}, {"widths": (8,)}]
)


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), LIMITS, st.sampled_from(BOTH.spaces))
def test_a_mutation_stays_in_the_space(seed, min_blocks, limits, space):
    rng = np.random.default_rng(seed)
    space = replace(space, min_blocks=min_blocks, **limits)
    point = space.decode(space.draw(rng))
    for _ in range(5):
        point = mutate(point, space, rng)
        assert space.decode(space.encode(point)) == point


def test_mutations_reach_every_point():
    one = {"widths": (8,), "activations": ("relu",), "learning_rates": (1e-3,)}
    grid = {"kind": "convolution", "kernels": (1, 3), "dilations": (1, 2), "max_scale": 1, "heads": (1, 2)}
    for space in (
        Space(max_blocks=2, widths=(8,), activations=("relu",), learning_rates=(1e-3,)),
        Space(max_blocks=1, widths=(8, 16), activations=("relu", "tanh"), learning_rates=(1e-3, 1e-2)),
        Space(max_blocks=2, widths=(8,), activations=("relu",), learning_rates=(1e-3,), min_blocks=1),
        Space(max_blocks=2, widths=(8,), activations=("relu",), learning_rates=(1e-3,), min_blocks=2),
        Space(1, **one, weight_decays=(0.1, 0.2, 0.3), batch_sizes=(16, 32)),
        Space(1, **one, **grid),
        Space(2, **one, **{**grid, "kernels": (3,), "dilations": (1,), "heads": (1,), "first_scale": 0}),
        Space(3, **one, max_span=1, min_blocks=2),
    ):
        rng = np.random.default_rng(0)
        point, seen = space.sample(rng), set()
        for _ in range(20_000):  # some are visited rarely
            point = mutate(point, space, rng)
            seen.add(point)
            if len(seen) == space.count():
                break
        assert len(seen) == space.count()


def test_a_space_of_one_learning_rate_and_no_blocks_can_only_toggle():
    space = Space(max_blocks=0, learning_rates=(1e-3,))
    point = Point((), (), ((False, False), (True, False)), 1e-3)
    assert mutate(point, space, np.random.default_rng(0)).shortcuts == ((False, False), (False, False))


def test_distributions_leave_out_what_has_no_choice():
    assert list(distributions(Space(max_blocks=1, widths=(8,), activations=("relu",), learning_rates=(1e-3,)))) == [
        "blocks",
        "shortcut_1_0",
        "shortcut_2_0",
        "shortcut_2_1",
    ]
