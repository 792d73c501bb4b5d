"""Table 1, Figure 3, the demos and the sunspots: what they compute, on short runs, and the files that are committed."""

import json
from io import StringIO

import matplotlib
import numpy as np
import pytest
import torch
from rich.console import Console

import machgraph as mg
from experiments import noisy_sine, polynomial, sunspots, table1
from experiments.results import FOLDER
from figures import figure3
from figures import noisy_sine as noisy_sine_figure
from figures import polynomial as polynomial_figure
from figures import sunspots as sunspots_figure

matplotlib.use("Agg")

PAPERS_RATIOS = {  # the last column of the table as printed: CPU, GPU
    ("dense", "small"): (0.796, 1.162),
    ("dense", "medium"): (0.811, 1.128),
    ("convolution", "small"): (0.928, 1.071),
    ("convolution", "medium"): (0.979, 1.097),
    ("recurrent", "small"): (0.917, 1.026),
    ("recurrent", "medium"): (0.994, 1.008),
}


def committed(name):
    return json.loads((FOLDER / f"{name}.json").read_text())["result"]


# ---- table 1 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", table1.KINDS)
@pytest.mark.parametrize("size", table1.SIZES)
def test_the_networks_compared_are_the_same_network(kind, size):
    case = table1.case(kind, size, seed=1)
    ours = case.machine.solve(case.y0, case.z0)
    theirs = table1.concatenations(case.machine)(case.y0, case.z0)
    for mine, other in zip(
        (*ours, *table1.backward(ours, case)), (*theirs, *table1.backward(theirs, case)), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_the_sizes_are_the_papers():
    for size, n in (("small", 2), ("medium", 32)):
        dense, convolution, recurrence = (table1.case(kind, size) for kind in table1.KINDS)
        assert dense.y0.shape == dense.z0.shape == (n, 5 * n)
        assert convolution.y0.shape == recurrence.z0.shape == (n, 5 * n, 16)
        assert convolution.machine.weight.shape == (5 * n, 5 * n, 7)
        assert (recurrence.machine.lags, recurrence.machine.timeblock) == (6, 5)
        for case in (dense, convolution, recurrence):
            assert case.machine.partition.widths == (n,) * 5
            assert {activation.name for activation in case.machine.activation} == {"tanh"}
            assert case.y0.dtype == torch.float64
            assert not case.machine.weight.requires_grad


def test_published_runtimes_have_the_published_ratios():
    for row in table1.published():
        expected = PAPERS_RATIOS[row["machine"], row["size"]][row["device"] == "cuda"]
        assert row["ratio"] == pytest.approx(expected, abs=1.5e-3)  # both columns are rounded


def test_a_short_run_has_every_row_and_says_what_it_left_out():
    result = table1.main(seconds=0.01, rounds=2, compile_budget=0)
    ours = [row for row in result["rows"] if row["by"] != "published" and row["device"] == "cpu"]
    assert {(row["machine"], row["size"], row["by"]) for row in ours} == {
        (kind, size, by) for kind in table1.KINDS for size in table1.SIZES for by in ("machgraph", "concatenations")
    }
    for row in ours:
        assert row["dtype"] == "float64"
        assert row["ratio"] == pytest.approx(row["backward"]["minimum"] / row["forward"]["minimum"], abs=1e-3)
        for way in ("forward", "backward"):
            assert 0 < row[way]["minimum"] <= row[way]["median"]
            assert row[way]["spread"] >= 0
            assert row[way]["runs"] >= 2
    assert result["threads"] == 1
    assert sum("Not compiled" in note for note in result["notes"]) == 6 * (1 + torch.cuda.is_available())


def test_compiling_ends_with_its_budget_and_a_failure_is_told(monkeypatch):
    def compiled(solve, case):
        if isinstance(case.machine, mg.ConvMachine):
            raise torch._dynamo.exc.TorchDynamoException("no compiler found\nmore of it")
        return solve, 70.0

    monkeypatch.setattr(table1, "compiled", compiled)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = table1.main(sizes=("small",), seconds=0.01, rounds=1, compile_budget=60)
    assert [row["machine"] for row in result["rows"] if "compile_seconds" in row] == ["dense"]
    assert any("Not compiled: convolution" in note for note in result["notes"])
    result = table1.main(kinds=("convolution",), sizes=("small",), seconds=0.01, rounds=1)
    assert any(note.endswith("failed on convolution, small, cpu: no compiler found") for note in result["notes"])


def test_the_table_fits_a_terminal_and_names_the_unit():
    shown = StringIO()
    Console(width=96, file=shown).print(table1.table(committed("table1")))
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 96
    assert "μs (the paper prints its own, which are μs too, as ms)" in lines[0]
    assert any("published" in line and "29,504" in line for line in lines)


# ---- figures -----------------------------------------------------------------------------------------------------


def test_figure3_shows_the_ratios_of_the_file():
    series = figure3.ratios(committed("table1")["rows"])
    assert series["published", "cpu"]["dense", "small"] == pytest.approx(17.6 / 22.1)
    assert set(series["machgraph", "cpu"]) == {(kind, size) for kind in figure3.KINDS for size in figure3.SIZES}


@pytest.mark.parametrize("figure", [figure3, polynomial_figure, noisy_sine_figure, sunspots_figure])
def test_a_figure_is_written_twice_with_the_same_bytes(figure, tmp_path):
    first, second = figure.main(out=tmp_path / "a"), figure.main(out=tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert one.stat().st_size > 10_000


# ---- sunspots ----------------------------------------------------------------------------------------------------


def test_the_series_is_that_of_1700_to_2008():
    x = sunspots.series()
    assert (len(x), x[0], x[-1], x[1957 - 1700]) == (309, 5.0, 2.9, 190.2)


def test_a_window_is_the_eleven_years_before():
    inputs, answers = sunspots.windows(np.arange(20.0))
    assert inputs[0].tolist() == list(range(11))
    assert answers.tolist() == list(range(11, 20))
    assert inputs[-1, -1] == answers[-1] - 1


def test_years_from_the_start_on_do_not_matter_to_what_is_learned():
    x, setting = sunspots.series(), sunspots.Setting("square root", 4, 0.1, 1)
    start, other = 200, x.copy()
    other[start:] = other[start:][::-1] + 40
    before, after = (sunspots.predictions(series, setting, [start], range(2), steps=3) for series in (x, other))
    heard = start - sunspots.LAGS + 1  # up to the year of the start, which is said from earlier ones alone
    np.testing.assert_array_equal(before[..., :heard], after[..., :heard])
    assert not np.array_equal(before[..., heard:], after[..., heard:])


def test_folds_and_seeds_trained_together_are_as_if_alone():
    x, setting = sunspots.series(), sunspots.Setting("raw", 4, 0.3, 11)
    together = sunspots.predictions(x, setting, [150, 248], range(2), steps=5)
    for k, start in enumerate((150, 248)):
        for seed in range(2):
            alone = sunspots.predictions(x, setting, [start], range(seed, seed + 1), steps=5)
            np.testing.assert_allclose(together[k, seed], alone[0, 0], rtol=1e-3, atol=1e-2)


def test_the_machine_contains_the_linear_autoregression():
    x = sunspots.series()
    inputs, answers = sunspots.windows(x)
    fit = sunspots.linear_fit(inputs, answers)
    machine = sunspots.machine(sunspots.Setting("raw", 3, 0.1, 1), seed=0).double()
    constant = fit(np.zeros(sunspots.LAGS))
    with torch.no_grad():
        machine.weight[-1, 0] = torch.tensor([fit(np.eye(sunspots.LAGS)[-1 - lag]) - constant for lag in range(11)])
        machine.weight[-1, 1:-1] = 0
        machine.bias[-1] = constant
        machine.bias[0] = 0
    outputs = machine(torch.from_numpy(inputs.copy())[:, None])[:, -1, -1]
    np.testing.assert_allclose(outputs.detach().numpy(), fit(inputs), rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("scale", sunspots.SCALES)
def test_the_likeliest_scale_is_that_of_the_series(scale):
    rng, values = np.random.default_rng(0), [0.0]
    for _ in range(400):
        values.append(0.7 * values[-1] + rng.normal())
    x = sunspots.SCALES[scale][1](np.array(values) / 2 + 8 * (1 if scale != "logarithm" else 0.3))
    assert (x > 0).all()
    assert max(sunspots.SCALES, key=lambda name: sunspots.likelihood(x, name)) == scale


@pytest.mark.parametrize("scale", sunspots.SCALES)
def test_a_scale_can_be_left_again(scale):
    to_scale, from_scale = sunspots.SCALES[scale]
    x = np.array([0.0, 1.0, 50.0, 190.2])
    np.testing.assert_allclose(from_scale(to_scale(x)), x, rtol=1e-12, atol=1e-12)


def test_a_short_run_has_the_machine_and_every_baseline():
    result = sunspots.main(seeds=1, steps=2, widths=(4,), decays=(0.1,), hears=(1,))
    assert result["chosen"] == {"scale": "square root", "width": 4, "decay": 0.1, "hears": 1}
    assert list(result["years"]) == list(range(1948, 2009))
    rmse = {name: row["rmse"] for name, row in result["test"].items()}
    assert rmse["persistence"] == pytest.approx(np.sqrt(np.mean(np.diff(sunspots.series())[-61:] ** 2)), abs=0.01)
    assert rmse["AR(11)"] == pytest.approx(19.4, abs=0.1)
    assert rmse["linear fit of square roots"] == pytest.approx(16.8, abs=0.1)
    assert set(rmse) == {"persistence", "AR(11)", "ridge", "MLP(100)", "linear fit of square roots", "machine"}


def test_the_committed_forecast_is_as_good_as_it_says():
    result = committed("sunspots")
    errors = np.sqrt(np.mean((np.array(result["outputs"]) - sunspots.series()[-61:]) ** 2, axis=1))
    np.testing.assert_allclose(errors, result["test"]["machine"]["seeds"], atol=0.01)
    assert len(errors) == 5
    assert errors.mean() <= 18.5
    chosen = min(result["validation"], key=lambda row: row["rmse"])
    assert result["chosen"].items() <= chosen.items()


# ---- the demos ---------------------------------------------------------------------------------------------------


def test_the_polynomial_at_the_corners():
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.5, 0.0]])
    assert polynomial.polynomial(corners).tolist() == [-2, 0, -2, 1, -3]


def test_the_plane_leaves_a_residual_that_no_plane_explains():
    points = polynomial.grid(polynomial.TRAIN)
    residual = polynomial.polynomial(points) - polynomial.plane(points)
    assert residual.sum().abs() < 1e-12
    assert (residual @ points).abs().max() < 1e-12


def test_a_short_fit_of_the_polynomial_beats_the_plane():
    result = polynomial.main(seeds=1, steps=150)
    assert result["test"]["all shortcuts"]["rmse"] < result["test"]["plane"]["rmse"]
    assert np.shape(result["prediction"]) == np.shape(result["truth"]) == (21, 21)
    assert result["truth"][20][0] == -2  # x is outer


@pytest.mark.parametrize("shift", [-10, 10])
def test_answers_are_the_series_moved(shift):
    x, y = noisy_sine.series(4, shift, True, torch.Generator().manual_seed(0))
    moved, kept = (y[..., 10:], x[..., :-10]) if shift < 0 else (y[..., :-10], x[..., 10:])
    assert torch.equal(moved, kept)
    x, y = noisy_sine.series(4, shift, False, torch.Generator().manual_seed(0))
    moved, kept = (y[..., 10:], x[..., :-10]) if shift < 0 else (y[..., :-10], x[..., 10:])
    assert (moved - kept).abs().max() <= noisy_sine.NOISE / 2
    assert y.abs().max() <= 1


def test_machines_hear_as_far_as_their_boxes_reach():
    heard = {name: noisy_sine.reach(machine) for name, machine in noisy_sine.machines(0).items()}
    assert heard["causal convolution"] == (9, 0)  # three links of a kernel of 4
    assert heard["causal, dilated by 2"] == (18, 0)
    assert heard["convolution both ways"] == (12, 12)
    assert heard["recurrence"] == (126, 0)  # the beginning of the series


def test_a_short_run_of_the_noisy_sine_and_the_file_agree_on_what_is_heard():
    result, file = noisy_sine.main(steps=2), committed("noisy_sine")
    assert result["machines"] == file["machines"]
    for task, rows in result["tasks"].items():
        for name, row in rows.items():
            assert len(row["rmse_by_step"]) == 63
            assert row["hears_the_step"] == file["tasks"][task][name]["hears_the_step"]


def test_noise_that_is_not_heard_is_not_told():
    file = committed("noisy_sine")
    for row in file["tasks"]["noisy, 10 steps before"].values():
        assert row["hears_the_step"] or row["rmse"] >= 0.95 * file["noise_sd"]
    assert file["tasks"]["noisy, 10 steps before"]["convolution both ways"]["rmse"] < file["noise_sd"] / 2
