"""Estimators of tables: scikit-learn's own checks, what it does with them, files, data frames, and searches."""

import copy
import gc
import pickle
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import machgraph as mg
from search import (
    ArchitectureSearchClassifier,
    ArchitectureSearchRegressor,
    MachineClassifier,
    MachineRegressor,
)
from search.data import table
from search.estimators.searching import one_thread
from search.objectives import measures
from search.predict import answer
from search.run import read_leaderboard, read_records
from search.space import Space
from search.training.machine import answers

SMALL = Space(
    max_blocks=1, min_blocks=1, widths=(8,), activations=("relu",), learning_rates=(0.01,), weight_decays=(0.1,),
    batch_sizes=(16,),
)  # fmt: skip
QUICK = {"n_trials": 1, "epochs": 15, "finalists": 1, "seeds": 1, "folds": 2, "space": SMALL}
MACHINE = {"hidden": (8,), "learning_rate": 0.02, "weight_decay": 0.1, "epochs": 30}
WIDE = Space(max_blocks=2, min_blocks=1, widths=(4, 8), activations=("relu", "tanh"), learning_rates=(0.02,))
SEARCH = {"n_trials": 6, "epochs": 10, "finalists": 3, "seeds": 2, "folds": 2, "space": WIDE, "random_state": 0}


@pytest.fixture(autouse=True, scope="module")
def _in_memory(tmp_path_factory):
    """Temporary runs where a commit waits for no disk; finalists on few folds."""
    tmp_path_factory.getbasetemp()  # it stays where it is
    with pytest.MonkeyPatch.context() as patch:
        if Path("/dev/shm").is_dir():
            patch.setattr("tempfile.tempdir", "/dev/shm")
        patch.setattr("search.comparison.finalists.FOLDS", 2)
        yield


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def searched(iris):
    """A search, and an ensemble."""
    return ArchitectureSearchClassifier(**SEARCH, ensemble=True).fit(*iris)


def people(rows=60):
    """Numbers with gaps, a category, dates; what is asked depends on all of them."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "age": rng.integers(18, 80, rows).astype(float),
            "city": rng.choice(["Rome", "Oslo", "Lima"], rows).tolist(),
            "since": pl.date_range(date(2020, 1, 1), date(2020, 1, 1) + pd.Timedelta(days=rows - 1), eager=True),
        }
    )
    answers = (frame["age"] > 50).to_numpy() ^ (frame["city"] == "Oslo").to_numpy()
    gaps = pl.Series([i % 7 == 0 for i in range(rows)])
    return frame.with_columns(age=pl.when(gaps).then(None).otherwise(pl.col("age"))), np.where(answers, "yes", "no")


# ---- scikit-learn ----------------------------------------------------------------------------------------------------


@parametrize_with_checks(
    [
        MachineClassifier(**MACHINE),
        MachineRegressor(**MACHINE),
        ArchitectureSearchClassifier(**QUICK),
        ArchitectureSearchRegressor(**QUICK),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_pipelines_grids_and_cross_validation(iris):
    scaled = StandardScaler().set_output(transform="pandas")
    grid = GridSearchCV(make_pipeline(scaled, MachineClassifier(random_state=0, epochs=20)), {
        "machineclassifier__hidden": [(2,), (16,)], "machineclassifier__shortcuts": [None, "sequential"],
    }, cv=3).fit(*iris)  # fmt: skip
    assert grid.best_score_ > 0.85
    assert grid.best_estimator_[-1].feature_names_in_.tolist() == list(scaled.fit(iris[0]).get_feature_names_out())
    scores = cross_val_score(ArchitectureSearchClassifier(**QUICK, random_state=0), *iris, cv=3)
    assert scores.min() > 0.6


def test_the_same_random_state_gives_the_same_machine(iris):
    one, other = (MachineClassifier(**MACHINE, random_state=3).fit(*iris) for _ in range(2))
    assert torch.equal(one.machine_.weight, other.machine_.weight)
    assert not torch.equal(one.machine_.weight, MachineClassifier(**MACHINE, random_state=4).fit(*iris).machine_.weight)
    generator = np.random.RandomState(0)
    drawn = [MachineClassifier(**MACHINE, random_state=generator).fit(*iris).machine_.weight for _ in range(2)]
    assert not torch.equal(*drawn)


def test_threads_of_torch_are_as_they_were():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), one_thread():  # noqa: PT012
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_the_machine_is_the_one_that_was_asked_for(iris):
    mask = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]], dtype=bool)
    model = MachineClassifier((8, 4), ("tanh", "relu"), mask, epochs=5, random_state=0).fit(*iris)
    machine = model.machine_
    assert machine.partition.widths == (4, 8, 4, 3)
    assert [activation.name for activation in machine.activation] == ["identity", "tanh", "relu", "identity"]
    assert np.array_equal(machine.shortcuts, mask)
    x = (iris[0] - iris[0].mean(0)) / iris[0].std(0)
    with torch.no_grad():
        outputs = machine.output(copy.deepcopy(machine).double()(torch.from_numpy(x)))
    np.testing.assert_allclose(model.predict_proba(iris[0]), torch.softmax(outputs, 1), atol=1e-5)


def test_a_linear_machine_finds_a_line():
    x, y = make_regression(200, 5, n_informative=5, random_state=0)
    model = MachineRegressor(hidden=(), learning_rate=0.05, weight_decay=0.0, random_state=0).fit(x, y)
    assert model.score(x, y) > 0.999


# ---- what is given ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["polars", "pandas", "mapping"])
def test_data_frames_with_categories_dates_and_gaps(library):
    frame, y = people()
    given = {"polars": lambda f: f, "pandas": lambda f: pd.DataFrame(f.to_dict(as_series=False)), "mapping": dict}
    make = {**given, "mapping": lambda f: f.to_dict(as_series=False)}[library]
    model = MachineClassifier((16,), learning_rate=0.02, epochs=60, random_state=0).fit(make(frame), y)
    assert model.feature_names_in_.tolist() == ["age", "city", "since"]
    assert any(note.startswith("Categories") and "city" in note for note in model.notes_)
    assert model.score(make(frame), y) > 0.8
    strange = make(frame.with_columns(pl.lit("Nowhere").alias("city"), age=pl.lit(None, dtype=pl.Float64))[:3])
    assert np.isfinite(model.predict_proba(strange)).all()


def test_gaps_in_arrays_are_filled_by_the_median_and_marked():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    y = np.isnan(np.where(x[:, 0] > 0.5, np.nan, 0)).astype(int)
    x[y == 1, 1] = np.nan  # the gap alone tells
    model = MachineClassifier(**MACHINE, random_state=0).fit(x[:, 1:], y)
    assert model.score(x[:, 1:], y) > 0.95


@pytest.mark.parametrize("labels", [["b", "a", "c"], [True, False], [7, -2], [1.0, 0.0], [3, 5, 4]])
def test_labels_come_back_as_they_were(labels):
    labels = np.array(labels)
    x = np.repeat(np.arange(len(labels)), 10)[:, None] + np.random.default_rng(0).normal(size=(10 * len(labels), 1)) / 9
    y = np.repeat(labels, 10)
    model = MachineClassifier(learning_rate=0.02, epochs=60, weight_decay=0.0, random_state=0).fit(x, y)
    assert np.array_equal(model.classes_, np.unique(y))
    assert model.classes_.dtype == y.dtype == model.predict(x).dtype
    assert model.score(x, y) > 0.9


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((20, 2)), [0, 1] * 10, "no column is left to learn from. Dropped, as the same in every training row"),
        (np.eye(20), [0] * 20, "got one class alone, 0: there is nothing to learn"),
        (np.eye(20), [0] * 19 + [1], r"got classes of a single row \(1; 2 classes in 20 rows\): each class needs two"),
        (np.eye(9), [0, 1, 0] * 3, "Found array with 9 sample.*minimum of 10 is required by MachineClassifier"),
        ({"a": [1, 2, 3]}, [0, 1, 0], "got n_samples=3: at least 10 rows are needed"),
        ({"a": range(20)}, [0, 1], "inconsistent numbers of samples"),
        (np.full((20, 1), "text"), [0, 1] * 10, "not compatible with arrays of bytes/strings"),
        (np.full((20, 1), np.inf), [0, 1] * 10, "Input X contains infinity"),
        (np.eye(20), [0.5 * k for k in range(20)], "Unknown label type: continuous"),
    ],
)
def test_what_cannot_be_learned_is_told(x, y, message):
    with pytest.raises((ValueError, TypeError), match=message):
        MachineClassifier(epochs=1).fit(x, y)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (MachineRegressor(activation="rely"), "rely"),
        (MachineRegressor(hidden=(4, 0)), "width 0"),
        (MachineRegressor(shortcuts=[[1]]), "got shortcuts of shape"),
        (MachineRegressor(learning_rate=-1), "got learning_rate=-1"),
        (MachineRegressor(learning_rate=1e30), "got learning_rate=1e.30, at which the training diverged"),
        (MachineRegressor(random_state=-1), "Seed must be between 0"),
        (ArchitectureSearchRegressor(n_trials=None), "got n_trials=None and time=None: give at least one"),
        (ArchitectureSearchRegressor(n_trials=0), "got trials=0"),
        (ArchitectureSearchRegressor(strategy="evolve"), "did you mean 'evolution'"),
        (ArchitectureSearchRegressor(constraints={"parameters": 1}), "none of 1,000 points"),
        (ArchitectureSearchRegressor(objectives=("los",)), "did you mean 'loss'"),
        (ArchitectureSearchRegressor(image=(1, 3, 3)), "got 2 columns for an image"),
    ],
)
def test_parameters_that_do_not_fit_are_told_and_leave_no_folder(model, message, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    x = np.random.default_rng(0).normal(size=(30, 2))
    with pytest.raises(ValueError, match=message):
        model.fit(x, x[:, 0])
    assert list(tmp_path.iterdir()) == []


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [np.array(["x", "y"]), np.array(["x", "y"], dtype=object), np.array([3, -1])])
def test_a_saved_classifier_answers_the_same_to_the_last_bit(names, iris, tmp_path):
    x, y = iris
    model = MachineClassifier(**MACHINE, shortcuts=np.tri(3, k=-1, dtype=bool)).fit(x, names[y % 2])
    model.save(tmp_path / "model.machgraph")
    loaded = MachineClassifier.load(tmp_path / "model.machgraph")
    assert np.array_equal(loaded.predict_proba(x), model.predict_proba(x))
    assert loaded.classes_.dtype == names.dtype
    assert np.array_equal(loaded.predict(x), model.predict(x))
    assert (loaded.n_features_in_, loaded.notes_) == (4, model.notes_)
    parameters = {**model.get_params(), "shortcuts": None}
    assert {**loaded.get_params(), "shortcuts": None} == parameters
    assert np.array_equal(loaded.get_params()["shortcuts"], model.shortcuts)
    clone(loaded).fit(x, y)
    with pytest.raises(ValueError, match="X has 2 features, but MachineClassifier is expecting 4"):
        loaded.predict(x[:, :2])


def test_a_saved_estimator_of_a_frame_knows_its_columns_and_is_read_by_machgraph(tmp_path, capsys):
    frame, y = people()
    model = MachineClassifier(**MACHINE, random_state=0).fit(frame, pd.Series(y, name="bought"))
    model.save(tmp_path / "model.machgraph")
    loaded = MachineClassifier.load(tmp_path / "model.machgraph")
    assert np.array_equal(loaded.predict_proba(frame), model.predict_proba(frame))
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame.rename({"age": "years"}))
    frame.write_csv(tmp_path / "new.csv")
    answer(tmp_path / "model.machgraph", tmp_path / "new.csv", sys.stdout)
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "bought,p(no),p(yes)"
    np.testing.assert_array_equal([line.split(",")[0] for line in lines], model.predict(frame))
    assert isinstance(mg.load(tmp_path / "model.machgraph"), mg.DenseMachine)


def test_a_saved_search_and_ensemble(searched, iris, tmp_path):
    searched.save(tmp_path / "ensemble")
    assert sorted(file.name for file in (tmp_path / "ensemble").iterdir()) == [f"{k}.machgraph" for k in (1, 2, 3)]
    loaded = ArchitectureSearchClassifier.load(tmp_path / "ensemble")
    assert np.array_equal(loaded.predict_proba(iris[0]), searched.predict_proba(iris[0]))
    assert loaded.best_point_ == searched.best_point_
    assert loaded.get_params() == searched.get_params()
    with pytest.raises(AttributeError, match="a loaded estimator knows nothing of its search"):
        _ = loaded.study_
    searched.save(tmp_path / "ensemble")  # over the old one
    with pytest.raises(ValueError, match=r"it by ArchitectureSearchClassifier\.load"):
        MachineClassifier.load(tmp_path / "ensemble")


def test_files_that_are_no_estimators_are_told(tmp_path, iris):
    mg.save(mg.DenseMachine((2, 1)), tmp_path / "bare.machgraph")
    (tmp_path / "empty").mkdir()
    for path, error, message in [
        ("bare.machgraph", ValueError, "holds a machine and no estimator"),
        ("empty", FileNotFoundError, "no estimator is in the folder"),
        ("none", FileNotFoundError, "is not a file"),
    ]:
        with pytest.raises(error, match=message):
            MachineClassifier.load(tmp_path / path)
    with pytest.raises(NotFittedError):
        MachineClassifier().save(tmp_path / "new.machgraph")
    for name in ("machine_", "best_machine_", "best_architecture_", "leaderboard_", "study_"):
        assert not any(hasattr(model, name) for model in (MachineClassifier(), ArchitectureSearchClassifier()))
    with pytest.raises(ValueError, match="is a folder: give the path of a file"):
        MachineClassifier(**MACHINE).fit(*iris).save(tmp_path / "empty")


def test_copies_and_pickles_answer_the_same(searched, iris):
    for other in (copy.deepcopy(searched), pickle.loads(pickle.dumps(searched))):
        assert np.array_equal(other.predict_proba(iris[0]), searched.predict_proba(iris[0]))
        assert other.leaderboard_.equals(searched.leaderboard_)
        folder = other.run_
        del other
        gc.collect()
        assert folder.exists()  # it is the original's


# ---- searches --------------------------------------------------------------------------------------------------------


def test_what_a_search_tells(searched, iris):
    assert len(searched.study_.trials) == 6
    board = searched.leaderboard_
    assert board["name"].to_list() == ["winner", "second", "third"]
    assert board["loss"].is_sorted()
    winner = searched.best_machine_
    assert board["parameters"][0] == winner.parameter_count()
    assert board["depth"][0] == searched.best_point_.depth == searched.best_architecture_.depth
    assert winner.partition.widths == (4, *searched.best_point_.widths, 3)
    assert searched.score(*iris) > 0.8


def test_an_ensemble_answers_by_the_mean_of_its_members(searched, iris):
    x = (iris[0] - searched._members[0].encoder.mean) / searched._members[0].encoder.scale
    said = []
    for member in searched._members:
        with torch.no_grad():
            outputs = answers(copy.deepcopy(member.machine).double(), torch.from_numpy(x), member.shape)
        said.append(torch.softmax(member.sharpness * outputs, 1).numpy())
    assert len(said) == 3
    np.testing.assert_allclose(searched.predict_proba(iris[0]), np.mean(said, axis=0), atol=1e-5)


def test_a_temporary_run_ends_with_its_estimator(iris):
    model = ArchitectureSearchClassifier(**QUICK, random_state=0).fit(*iris)
    first = model.run_
    assert (first / "study.db").exists()
    model.fit(*iris)
    second = model.run_
    assert not first.exists()
    assert second.exists()
    orphan = copy.deepcopy(model)
    del model
    gc.collect()
    assert not second.exists()
    assert orphan.predict(iris[0]).shape == (150,)
    with pytest.raises(FileNotFoundError, match="the folder of the run was moved or removed"):
        _ = orphan.study_


def test_a_run_of_ones_own_stays_and_is_not_written_over(iris, tmp_path):
    model = ArchitectureSearchClassifier(**{**QUICK, "n_trials": 3}, random_state=0, out=tmp_path / "run")
    folders = [model.fit(*iris).run_, clone(model).fit(*iris).run_]
    assert folders == [tmp_path / "run", tmp_path / "run-2"]
    del model
    gc.collect()
    records, rows = read_records(folders[0]), read_leaderboard(folders[0])
    assert len(records) == 3
    assert rows[0].name == "winner"
    assert rows[0].test_score is None
    assert [(r.key, r.loss) for r in records] == [(r.key, r.loss) for r in read_records(folders[1])]


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(iris, tmp_path):
    wish = {**SEARCH, "population": 2, "finalists": 2, "seeds": 1}
    whole = ArchitectureSearchClassifier(**wish, out=tmp_path / "whole").fit(*iris)
    part = ArchitectureSearchClassifier(**{**wish, "n_trials": 2}, out=tmp_path / "part", resume=True).fit(*iris)
    assert len(part.study_.trials) == 2
    part.set_params(n_trials=6).fit(*iris)
    assert part.run_ == tmp_path / "part"
    both = [[(r.key, r.loss) for r in read_records(model.run_)] for model in (whole, part)]
    assert both[0] == both[1]
    assert np.array_equal(whole.predict_proba(iris[0]), part.predict_proba(iris[0]))
    for change, message in [
        ({"strategy": "random"}, "was begun with strategy='evolution', and not 'random'"),
        ({"random_state": 1}, "was begun with other rows, or another random_state"),
        ({"epochs": 9}, "was begun with recipe="),
        ({"out": None}, "got resume=True and out=None"),
    ]:
        with pytest.raises(ValueError, match=message):
            clone(part).set_params(**change).fit(*iris)


def test_constraints_are_kept_and_objectives_are_columns():
    x, y = load_breast_cancer(return_X_y=True)
    x, y = x[:80], y[:80]
    model = ArchitectureSearchClassifier(
        **{**SEARCH, "seeds": 1}, objectives=("loss", "parameters"), constraints={"parameters": 500}
    ).fit(x, y)
    assert model.best_machine_.parameter_count() <= 500
    assert measures(model.best_point_, model._members[0].shape, ["parameters"])["parameters"] <= 500
    assert len(model.study_.directions) == 2
    assert set(model.leaderboard_["name"]) <= {"winner", "front"}


def test_pixels_are_searched_with_convolutions_too():
    x, y = load_digits(return_X_y=True)
    model = ArchitectureSearchClassifier(
        n_trials=2, population=2, epochs=2, finalists=1, seeds=1, folds=1, image=(1, 8, 8), random_state=0
    ).fit(x[:200], y[:200])
    assert "convolution" in {trial.user_attrs["record"]["point"]["kind"] for trial in model.study_.trials}
    assert model.predict_proba(x[:5]).shape == (5, 10)


def test_a_search_ends_with_its_time():
    x = np.random.default_rng(0).normal(size=(30, 2))
    model = ArchitectureSearchRegressor(**{**QUICK, "space": WIDE, "n_trials": None}, time=0.3, random_state=0)
    records = read_records(model.fit(x, x[:, 0]).run_)
    assert 8 <= len(records) < 2000
    assert model.best_point_ in [record.canonical for record in records]


def test_a_search_is_shown_on_request(capsys):
    x = np.random.default_rng(0).normal(size=(30, 2))
    ArchitectureSearchRegressor(**QUICK, random_state=0).fit(x, x[:, 0])
    assert capsys.readouterr() == ("", "")
    model = ArchitectureSearchRegressor(**QUICK, random_state=0, verbose=1).fit(x, x[:, 0])
    out = capsys.readouterr().out
    assert "30 rows, 2 columns used" in out
    assert model.leaderboard_["architecture"][0].split(" ")[0] in out


# ---- imports ---------------------------------------------------------------------------------------------------------


def test_torch_is_loaded_by_fit_and_not_by_import():
    code = (
        "import sys, search; assert 'sklearn' not in sys.modules; from search import ArchitectureSearchClassifier, "
        "ArchitectureSearchForecaster, MachineRegressor; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_scikit_learn_is_told(monkeypatch):
    import search

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(table, "import_module", missing)
    monkeypatch.delitem(vars(search), "MachineClassifier")
    with pytest.raises(
        ImportError, match=r"estimators need scikit-learn, which is not installed: pip install 'machgraph"
    ):
        _ = search.MachineClassifier
    with pytest.raises(AttributeError, match="module 'search' has no attribute 'Machine'"):
        _ = search.Machine
