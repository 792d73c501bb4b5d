"""A schedule that fits into the time."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.data import load
from search.defaults import default_recipe
from search.one_of import OneOf
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
    assert pace.told(settings(None), settings(None)) == ""


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
    assert (pace.told(before, after) == "") == (before == after)


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


def test_what_was_made_shorter_is_told_in_a_sentence():
    wish = settings(1.0)
    few = replace(wish, recipe=replace(wish.recipe, epochs=5, batches=2, rungs=(1, 2)))
    assert pace.told(wish, few).startswith("5 epochs of 2 steps instead of 60, so that a few generations fit")
    one = replace(few, recipe=replace(few.recipe, batches=1))
    assert pace.told(wish, one).startswith("5 epochs of 1 step instead of 60, ")
