"""A schedule that fits into the time."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search import study
from search.comparison import final
from search.data import load
from search.defaults import default_recipe
from search.one_of import OneOf
from search.recipe import Recipe, rungs_of
from search.run import Settings
from search.space import Space
from search.training import pace

SPACE = Space(max_blocks=1, widths=(2,), activations=("relu",), learning_rates=(1e-2,))


@pytest.fixture(scope="module")
def dataset():
    return load("diabetes")


def settings(seconds, n_samples=300, space=SPACE, **changes):
    return replace(
        Settings("diabetes", None, None, 0, "random", 10, seconds, 4, space, default_recipe(n_samples)), **changes
    )


def test_without_a_limit_of_time_nothing_changes_and_nothing_is_measured(dataset, monkeypatch):
    monkeypatch.setattr(pace, "generation_seconds", None)
    assert pace.paced(settings(None), dataset) == settings(None)
    assert pace.note(settings(None), settings(None)) == ""


SIZES = [(16,), (64,), (64, 256), (1024,)]
SPACES = [replace(SPACE, batch_sizes=sizes) for sizes in SIZES]
SPACES.append(OneOf((SPACES[2], replace(SPACES[0], kind="convolution"))))


@given(
    seconds=st.floats(0.1, 1000),
    generation=st.floats(0.01, 1e5),
    n_samples=st.integers(10, 10**6),
    space=st.sampled_from(SPACES),
)
def test_the_generations_fit_or_the_schedule_is_as_short_as_can_be(dataset, seconds, generation, n_samples, space):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace, "generation_seconds", lambda settings, dataset: generation)
        before = settings(seconds, n_samples, space)
        after = pace.paced(before, dataset)
    assert replace(after, recipe=before.recipe) == before  # nothing else is touched
    rows, size = len(dataset.train), 16 if isinstance(space, OneOf) else space.batch_sizes[0]
    steps, wished = (recipe.epochs * recipe.steps(rows, size) for recipe in (after.recipe, before.recipe))
    if pace.GENERATIONS * generation <= seconds:
        assert after == before
    elif after.recipe.epochs > pace.LEAST_EPOCHS or after.recipe.batches > 1:
        assert pace.GENERATIONS * generation * steps / wished <= seconds * (1 + 1e-9)
    assert (pace.note(before, after) == "") == (before == after)


@pytest.mark.parametrize(("sizes", "folds"), [((16,), 1), ((64,), 1), ((64,), 5), ((16, 32), 3), ((1000,), 1)], ids=str)
def test_time_of_a_generation_is_that_of_its_batches(dataset, monkeypatch, sizes, folds):
    """With a clock that counts the rows seen: those of all steps, and of all validations, on every fold."""
    clock = [0]

    def seen(points, recipe, data):
        trained = [recipe.steps(len(data.train), p.batch_size) * min(p.batch_size, len(data.train)) for p in points]
        return sum(trained) + len(points) * len(data.validation)

    def counting(points, some, recipe, seed):
        (few,) = some
        clock[0] += seen(points, recipe, few)
        drawn.append(points)
        assert (recipe.epochs, recipe.rungs) == (1, ())
        assert len(few.train) <= pace.TRIED * max(sizes)

    drawn = []
    monkeypatch.setattr(pace, "trainers", lambda space: (counting, None))
    monkeypatch.setattr(pace, "perf_counter", lambda: clock[0])
    wish = settings(1.0, space=replace(SPACE, batch_sizes=sizes), folds=folds)
    told = pace.generation_seconds(wish, dataset)
    assert {point.batch_size for point in drawn[0]} == set(sizes)
    assert len(drawn[0]) == wish.population
    an_epoch = seen(drawn[0], wish.recipe, dataset)
    assert told == pytest.approx(an_epoch * wish.recipe.mean_epochs * folds, rel=0.05 if len(sizes) == 1 else 0.1)


def test_what_it_takes_to_set_up_machines_is_not_counted_with_every_batch(dataset, monkeypatch):
    """With a clock by which that takes 0.05 s, and a step of one candidate 0.1 ms."""
    clock = [0.0]

    def training(points, some, recipe, seed):
        (few,) = some
        steps = sum(recipe.steps(len(few.train), point.batch_size) for point in points)
        clock[0] += 0.05 + 1e-4 * steps * recipe.epochs

    monkeypatch.setattr(pace, "trainers", lambda space: (training, None))
    monkeypatch.setattr(pace, "perf_counter", lambda: clock[0])
    wish = settings(1.0, space=replace(SPACE, batch_sizes=(16,)))
    steps = wish.population * wish.recipe.steps(len(dataset.train), 16)
    told = pace.generation_seconds(wish, dataset)
    assert told == pytest.approx(1e-4 * steps * wish.recipe.mean_epochs * wish.folds)


def paced_recipe(dataset, recipe, seconds):
    """Of a search whose generations take 4 seconds each with the whole schedule."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace, "generation_seconds", lambda settings, dataset: 4.0)
        return pace.paced(replace(settings(seconds), recipe=recipe), dataset).recipe


@given(
    epochs=st.integers(1, 80),
    some=st.sets(st.integers(1, 79), max_size=4),
    seconds=st.floats(0.1, 20),
)
def test_rungs_of_ones_own_are_scaled_and_none_stay_none(dataset, epochs, some, seconds):
    rungs = tuple(sorted(rung for rung in some if rung < epochs))
    after = paced_recipe(dataset, Recipe(epochs, rungs=rungs), seconds)
    assert paced_recipe(dataset, Recipe(epochs, rungs=rungs_of(epochs)), seconds).rungs == rungs_of(after.epochs)
    if rungs == rungs_of(epochs):
        return
    assert len(after.rungs) <= len(rungs)  # and they increase within the schedule, or there would be no recipe
    assert after.rungs or not rungs or rungs[0] * after.epochs / epochs > after.epochs - 1
    for rung, scaled in zip(rungs, after.rungs, strict=False):
        wish = rung * after.epochs / epochs
        assert scaled >= wish - 0.5
        assert scaled <= wish + 0.5 or scaled == 1 or scaled - 1 in after.rungs


@pytest.mark.parametrize(
    ("rungs", "after"), [((), ()), ((30, 45), (5, 8)), ((2, 4), (1, 2)), ((12, 24), (2, 4)), ((58, 59), ())]
)
def test_rungs_by_hand(dataset, rungs, after):
    assert paced_recipe(dataset, Recipe(60, rungs=rungs), 16 / 6) == Recipe(10, rungs=after)


def test_data_without_a_validation_part_are_measured_on_a_fold(monkeypatch):
    whole = load("diabetes", validation=0.0)

    def counting(points, some, recipe, seed):
        (few,) = some
        assert len(few.train)
        assert len(few.validation)
        clock[0] += sum(recipe.steps(len(few.train), 16) for _ in points) * recipe.epochs

    clock, wish = [0.0], settings(1.0, space=replace(SPACE, batch_sizes=(16,)), folds=5)
    monkeypatch.setattr(pace, "trainers", lambda space: (counting, None))
    monkeypatch.setattr(pace, "perf_counter", lambda: clock[0])
    seconds = []
    monkeypatch.setattr(pace, "generation_seconds", told_to(seconds, pace.generation_seconds))
    assert pace.paced(wish, whole).recipe.epochs == pace.LEAST_EPOCHS
    steps = sum(wish.recipe.steps(len(fold.train), 16) for fold in whole.folds(5, wish.seed))
    assert seconds == [pytest.approx(wish.population * steps * wish.recipe.mean_epochs, rel=0.05)]


def told_to(found, function):
    """The function, whose results are also added to a list."""

    def same(*arguments):
        found.append(function(*arguments))
        return found[-1]

    return same


def test_a_search_without_a_validation_part_goes_by_its_folds(tmp_path, monkeypatch):
    monkeypatch.setattr(final, "reference", lambda dataset, seconds: None)
    whole = load("diabetes", validation=0.0)
    wish = settings(0.5, folds=2, finalists=1, seeds=1, recipe=Recipe(2, 2, rungs=()), trials=4)
    result = study.run(pace.paced(wish, whole), whole, tmp_path)
    assert {record.status for record in result.records} == {"complete", "duplicate"}


def test_a_single_fold_without_a_validation_part_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    whole, wish = load("diabetes", validation=0.0), settings(1.0, folds=1, constraints={"depth": 9})
    monkeypatch.setattr(pace, "trainers", None)
    monkeypatch.setattr(study, "refuse_impossible", None)
    for refused in (pace.paced, study.refuse_unfit, lambda *given: study.run(*given, tmp_path / "run")):
        with pytest.raises(ValueError, match="got folds=1 for data without validation rows: take more folds, or a sha"):
            refused(wish, whole)
    assert not (tmp_path / "run").exists()


def test_what_was_made_shorter_is_told_in_a_sentence():
    wish = settings(1.0)
    few = replace(wish, recipe=replace(wish.recipe, epochs=5, batches=2, rungs=(1, 2)))
    assert pace.note(wish, few).startswith("5 epochs of 2 steps instead of 60, so that a few generations fit")
    one = replace(few, recipe=replace(few.recipe, batches=1))
    assert pace.note(wish, one).startswith("5 epochs of 1 step instead of 60, ")
