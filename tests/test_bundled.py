"""The bundled data sets: what they hold, and how they are scaled."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import StandardScaler
from test_data import parts

from search.data import load, split
from search.data.encoder import Encoder
from search.shape import Shape


@pytest.mark.parametrize(
    ("name", "rows", "features", "outputs"),
    [("digits", 1797, 64, 10), ("breast_cancer", 569, 53, 2), ("diabetes", 442, 10, 1)],
)
def test_bundled_sets(name, rows, features, outputs):
    dataset = load(name)
    assert (dataset.name, dataset.n_inputs, dataset.n_outputs) == (name, features, outputs)
    assert sum(map(len, parts(dataset))) == rows
    for part, share in zip(parts(dataset), (0.64, 0.16, 0.2), strict=True):
        assert part.x.dtype == np.float32
        assert part.x.shape == (len(part), features)
        assert len(part) == pytest.approx(share * rows, abs=1)
        assert part.y.dtype == (np.float32 if name == "diabetes" else np.int64)
    assert dataset.train.x.mean() == pytest.approx(0, abs=1e-5)
    assert dataset.train.x.std() == pytest.approx(1, abs=1e-5)


def test_a_bundled_table_is_scaled_as_scikit_learn_scales_it():
    bunch = load_breast_cancer()
    dataset = load("breast_cancer", seed=3)
    labels = np.array(["malignant", "benign"])[bunch.target]
    rows = split(labels, 3, 0.16, 0.2)
    scaler = StandardScaler().fit(bunch.data[rows[0]])
    for part, index in zip(parts(dataset), rows, strict=True):
        given = [not name.endswith(", straightened") for name in dataset.features]
        np.testing.assert_allclose(part.x[:, given], scaler.transform(bunch.data[index]), rtol=1e-4, atol=1e-4)
        assert [dataset.classes[label] for label in part.y] == labels[index].tolist()
    assert dataset.classes == ("benign", "malignant")


def test_digits_keep_every_pixel_on_one_scale():
    dataset = load("digits", seed=1)
    pixels, digits = load_digits(return_X_y=True)
    train, validation, _ = split(digits, 1, 0.16, 0.2)
    mean, scale = pixels[train].mean(), pixels[train].std()
    np.testing.assert_allclose(dataset.validation.x, (pixels[validation] - mean) / scale, rtol=1e-5, atol=1e-5)
    assert len(set(dataset.encoder.scale)) == 1


def test_digits_are_an_image_and_tables_are_none():
    """Features of the image are the pixels row by row, as scikit-learn's own images have them."""
    dataset = load("digits", seed=1)
    assert dataset.shape == Shape(64, 10, (1, 8, 8))
    assert dataset.describe()[0] == "digits: 1,797 rows, 64 columns used, 64 features, an image of 8 × 8"
    images = load_digits().images[dataset.test.rows]
    x = dataset.test.x * dataset.encoder.scale[0] + dataset.encoder.mean[0]
    np.testing.assert_allclose(x.reshape(-1, *dataset.shape.image)[:, 0], images, atol=1e-5)
    assert Encoder.from_json(dataset.encoder.to_json()).image == (1, 8, 8)
    assert load("diabetes").shape == Shape(10, 1)


def test_regression_targets_are_in_units_of_the_training_part():
    dataset = load("diabetes")
    assert dataset.train.y.mean() == pytest.approx(0, abs=1e-6)
    assert dataset.train.y.std() == pytest.approx(1, abs=1e-6)
    answers = dataset.encoder.decode(dataset.test.y[:, None])
    assert answers.probabilities is None
    assert answers.values.min() >= 25
    np.testing.assert_allclose(answers.values, np.round(answers.values), atol=1e-3)  # the progression is a whole number
