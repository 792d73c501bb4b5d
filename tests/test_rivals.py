"""What a winner is measured against: luck, a plain network of its size, and scikit-learn called by hand."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import accuracy_score, r2_score
from sklearn.svm import SVC, SVR

from search.comparison import rivals
from search.data import from_arrays, load
from search.isomorphism.canonical import canonical
from search.point import hyperparameters
from search.recipe import Recipe
from search.run import Settings
from search.shape import Shape
from search.space import Space

FREE = {"widths": (1, 8, 64), "activations": ("relu", "tanh"), "weight_decays": (0.1, 1.0), "batch_sizes": (16, 32)}
DENSE = Space(**FREE)
CONVOLUTION = Space(**FREE, kind="convolution", kernels=(1, 3), dilations=(1, 2), max_scale=2, heads=(2, 3))

RECURRENCE = Space(2, **FREE, kind="recurrence", lags=(2, 3), timeblocks=(1, 2))

shapes = st.builds(
    lambda channels, size, outputs: Shape(channels * int(np.prod(size)), outputs, (channels, *size)),
    st.integers(1, 5),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.integers(1, 20),
)


@pytest.mark.parametrize("space", [DENSE, CONVOLUTION], ids=lambda space: space.kind)
@given(seed=st.integers(0, 2**32), shape=shapes)
def test_plain_network_is_as_near_in_parameters_as_one_width_allows(space, seed, shape):
    point = canonical(space.sample(np.random.default_rng(seed)))
    plain = rivals.plain(point, shape)
    assert hyperparameters(plain) == hyperparameters(point)
    assert (plain.kind, plain.kernel, plain.dilation) == (point.kind, point.kernel, point.dilation)
    assert plain.blocks == max(1, point.blocks)
    assert np.array_equal(plain.mask, np.eye(plain.blocks + 2, k=-1, dtype=bool))
    assert len(set(plain.widths)) == len(set(plain.activations)) == 1
    assert plain.activations[0] in (point.activations or ("relu",))
    assert plain.scales == (point.scales if point.blocks or space is DENSE else (0, *point.scales))

    def distance(width):
        other = replace(plain, widths=(width,) * plain.blocks)
        return abs(other.parameters(shape) - point.parameters(shape))

    width = plain.widths[0]
    assert distance(width) <= min(distance(width + 1), distance(max(1, width - 1)))


@given(seed=st.integers(0, 2**32), steps=st.integers(1, 9), channels=st.integers(1, 4))
def test_plain_recurrence_hears_the_block_before_now_and_itself_in_the_past(seed, steps, channels):
    shape = Shape(channels * steps, 1, (channels, steps))
    point = canonical(RECURRENCE.sample(np.random.default_rng(seed)))
    plain = rivals.plain(point, shape)
    assert (plain.kind, plain.timeblock, plain.blocks) == ("recurrence", point.timeblock, max(1, point.blocks))
    assert hyperparameters(plain) == hyperparameters(point)
    assert np.array_equal(plain.mask, np.eye(plain.blocks + 2, k=-1, dtype=bool))
    own = np.eye(plain.blocks + 2, dtype=bool)
    own[0] = False
    heard = [np.array_equal(mask, own) for mask in plain.masks[1:]]
    assert heard == [lag >= point.timeblock for lag in range(1, len(heard) + 1)]
    assert any(heard)
    assert plain.masks[1:].sum() == sum(heard) * (plain.blocks + 1)
    nearest = abs(plain.parameters(shape) - point.parameters(shape))
    for width in (plain.widths[0] + 1, max(1, plain.widths[0] - 1)):
        other = replace(plain, widths=(width,) * plain.blocks)
        assert nearest <= abs(other.parameters(shape) - point.parameters(shape))


def test_draws_are_uniform_ones_that_no_trial_sees():
    settings = Settings("digits", None, None, 7, "random", 9, None, 3, DENSE, Recipe())
    rng = np.random.default_rng((7, 2**32))
    assert rivals.draws(settings, Shape(64, 10), 5) == [canonical(DENSE.sample(rng)) for _ in range(5)]
    assert rivals.draws(replace(settings, seed=8), Shape(64, 10), 5) != rivals.draws(settings, Shape(64, 10), 5)


# ---- scikit-learn ------------------------------------------------------------------------------------------------

MODELS = {
    "breast_cancer": {
        "linear": LogisticRegression(max_iter=1000), "trees": ExtraTreesClassifier(300, random_state=0), "SVM": SVC(),
    },
    "diabetes": {"linear": RidgeCV(), "trees": ExtraTreesRegressor(300, random_state=0), "SVM": SVR()},
}  # fmt: skip


def by_hand(model, train, part, classes):
    answers = model.fit(train.x, train.y).predict(part.x)
    return accuracy_score(part.y, answers) if classes else r2_score(part.y, answers)


@pytest.mark.parametrize("most", [None, 100], ids=["all", "too many rows for an SVM"])
@pytest.mark.parametrize("source", MODELS)
def test_reference_is_the_best_of_scikit_learn_by_validation(source, most, monkeypatch):
    dataset, models = load(source, seed=1), dict(MODELS[source])
    if most:
        monkeypatch.setattr(rivals, "MOST_ROWS", most)
        del models["SVM"]
    few = rivals._some(dataset.train, most or len(dataset.train))
    assert len(few) == (most or len(dataset.train))
    validated = {name: by_hand(model, few, dataset.validation, dataset.classes) for name, model in models.items()}
    best = max(validated, key=validated.get)
    row = rivals.reference(dataset)
    assert row.name == f"scikit-learn ({best})"
    assert row.score == pytest.approx(validated[best])
    rows = dataset.train.joined(dataset.validation)
    assert row.test_score == pytest.approx(by_hand(models[best], rows, dataset.test, dataset.classes))
    assert (row.trial, row.point, row.loss, row.test_loss) == (None,) * 4
    assert row.seconds > 0


def test_reference_is_fitted_to_as_many_rows_as_there_is_time_for(monkeypatch):
    monkeypatch.setattr(rivals, "MOST_ROWS", 100)
    dataset = load("diabetes", seed=1)
    fitted = []

    class Mean:
        def fit(self, x, y):
            fitted.append(len(x))
            time.sleep(0.05)
            self.mean = y.mean()
            return self

        def predict(self, x):
            return np.full(len(x), self.mean)

    monkeypatch.setattr(rivals, "_models", lambda dataset: {"mean": Mean()})
    whole = len(dataset.train) + len(dataset.validation)
    names = [rivals.reference(dataset, seconds).name for seconds in (math.inf, 60.0, 0.1, 1e-9)]
    assert fitted[:4] == [100, whole, 100, whole]
    assert 100 < fitted[5] < whole  # no more than twice as many
    assert fitted[5] % 10 == 0
    assert fitted[7] == 100
    assert names == ["scikit-learn (mean)"] * 2 + [f"scikit-learn (mean of {rows} rows)" for rows in fitted[5::2]]


@pytest.mark.parametrize("target", [np.repeat([0, 1, 2], 200), np.sort(np.random.default_rng(0).normal(size=600))])
def test_reference_takes_rows_from_anywhere(target, monkeypatch):
    """The file is in the order of its target, of which the first rows tell nothing."""
    monkeypatch.setattr(rivals, "MOST_ROWS", 150)
    x = target[:, None] + np.random.default_rng(1).normal(size=(600, 3)) / 4
    row = rivals.reference(from_arrays(x, target))
    assert row.score > 0.8


def test_reference_without_a_model_that_can_be_fitted_is_none(monkeypatch):
    class Unable:
        def fit(self, x, y):
            raise ValueError("needs 2 classes")

    monkeypatch.setattr(rivals, "_models", lambda dataset: {"linear": Unable()})
    assert rivals.reference(load("diabetes", seed=1)) is None


def test_reference_is_scored_in_the_unit_of_the_target_whatever_is_learned():
    dataset = load("diabetes", seed=1).transformed("log")
    row, known = rivals.reference(dataset), dataset.values(dataset.test)
    model, whole = MODELS["diabetes"][row.name.split("(")[1][:-1]], dataset.whole().train
    said = dataset.encoder.decode(model.fit(whole.x, whole.y).predict(dataset.test.x)[:, None]).values
    assert row.test_score == pytest.approx(r2_score(known, said))
    assert row.test_score != pytest.approx(by_hand(model, whole, dataset.test, ()), abs=1e-6)


def test_reference_without_a_validation_part_is_chosen_on_a_fold():
    dataset = load("diabetes", seed=1).whole()
    (fold, *_), models = dataset.folds(5), MODELS["diabetes"]
    found = {name: by_hand(model, fold.train, fold.validation, ()) for name, model in models.items()}
    row = rivals.reference(dataset)
    assert row.name == f"scikit-learn ({max(found, key=found.get)})"
    assert row.score == pytest.approx(max(found.values()))


def test_held_out_part_has_no_say_in_which_it_is():
    dataset = load("diabetes", seed=1)
    other = replace(dataset, test=replace(dataset.test, x=np.zeros_like(dataset.test.x)))
    one, two = rivals.reference(dataset), rivals.reference(other)
    assert (one.name, one.score) == (two.name, two.score)
    assert one.test_score != two.test_score


def test_without_scikit_learn_there_is_no_reference(monkeypatch):
    monkeypatch.setattr(rivals, "find_spec", lambda name: None)
    assert rivals.reference(load("diabetes")) is None
