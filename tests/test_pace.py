"""A schedule that fits into the time."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search import pace
from search.data import load
from search.recipe import default_recipe
from search.run import Settings
from search.space import Space

SPACE = Space(max_blocks=1, widths=(2,), activations=("relu",), learning_rates=(1e-2,))


@pytest.fixture(scope="module")
def dataset():
    return load("diabetes")


def settings(seconds, n_samples=300):
    return Settings("diabetes", None, None, 0, "random", 10, seconds, 4, SPACE, default_recipe(n_samples))


def test_without_a_limit_of_time_nothing_changes_and_nothing_is_measured(dataset, monkeypatch):
    monkeypatch.setattr(pace, "generation_seconds", None)
    assert pace.paced(settings(None), dataset) == settings(None)
    assert pace.told(settings(None), settings(None)) == ""


@given(seconds=st.floats(0.1, 1000), generation=st.floats(0.01, 1e5), n_samples=st.integers(10, 10**6))
def test_the_generations_fit_or_the_schedule_is_as_short_as_can_be(dataset, seconds, generation, n_samples):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace, "generation_seconds", lambda settings, dataset: generation)
        before = settings(seconds, n_samples)
        after = pace.paced(before, dataset)
    assert replace(after, recipe=before.recipe) == before  # nothing else is touched
    rows = len(dataset.train)
    work = after.recipe.epochs * after.recipe.steps(rows) / (before.recipe.epochs * before.recipe.steps(rows))
    if pace.GENERATIONS * generation <= seconds:
        assert after == before
    elif after.recipe.epochs > pace.LEAST_EPOCHS or after.recipe.batches > 1:
        assert pace.GENERATIONS * generation * work <= seconds * (1 + 1e-9)
    assert (pace.told(before, after) == "") == (before == after)


def test_time_of_a_generation_is_that_of_its_batches(dataset, monkeypatch):
    """With a clock that counts the rows seen: those of all steps, and of all validations."""
    clock = [0]

    def counting(points, few, recipe, seed):
        clock[0] += len(points) * (recipe.steps(len(few.train)) * recipe.batch_size + len(few.validation))
        assert (recipe.epochs, recipe.rungs) == (1, ())

    monkeypatch.setattr(pace, "train", counting)
    monkeypatch.setattr(pace, "perf_counter", lambda: clock[0])
    wish = settings(1.0)
    recipe = wish.recipe
    an_epoch = wish.population * (recipe.steps(len(dataset.train)) * recipe.batch_size + len(dataset.validation))
    assert pace.generation_seconds(wish, dataset) == pytest.approx(an_epoch * recipe.mean_epochs, rel=0.05)
