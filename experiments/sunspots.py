"""Yearly sunspots, one step ahead, by a recurrent machine, beside the usual baselines.

309 values (1700 to 2008); each year is predicted from the 11 before it; the last fifth (61 years, from 1948) is the
test. A shortcut from the input to the output at all lags makes every machine here contain the linear autoregression; a
hidden block with a past of its own adds to it.

Nothing is chosen by the test years. The scale is the likeliest of a linear autoregression of the years before them (Box
and Cox); width, weight decay and what the hidden block hears have the least error on the last 124 of those years, in
four folds, each predicted from the years before its fold. Then five machines with other first weights are trained on
all years before the test, which is looked at once.

    python -m experiments.sunspots            about a minute
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

import machgraph as mg
from experiments.results import write

Values = NDArray[np.float64]

LAGS, TEST_YEARS, FOLD_YEARS, FOLDS, VALIDATION_SEEDS = 11, 61, 31, 4, 3
FIRST_YEAR = 1700
SCALES: dict[str, tuple[Callable[[Values], Values], Callable[[Values], Values]]] = {
    "raw": (lambda x: x, lambda x: x),
    "square root": (np.sqrt, lambda x: np.maximum(x, 0) ** 2),
    "logarithm": (lambda x: np.log(x + 0.5), lambda x: np.exp(x) - 0.5),
}


@dataclass(frozen=True)
class Setting:
    """What is chosen on the years before the test."""

    scale: str
    width: int  # of the hidden block
    decay: float  # of the weights, as in AdamW
    hears: int  # how many years the hidden block hears directly; its own past tells it of the others


WIDTHS, DECAYS, HEARS = (4, 8, 16), (0.1, 0.3), (1, LAGS)


def series() -> Values:
    """Sunspots by year, 1700 to 2008."""
    try:
        from statsmodels.datasets import sunspots
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("statsmodels holds the data: pip install 'machgraph[experiments]'") from error
    return sunspots.load().data["SUNACTIVITY"].to_numpy(dtype=float)


def windows(x: Values) -> tuple[Values, Values]:
    """The years before each year, ``(years - LAGS, LAGS)`` from the oldest, and that year's value."""
    return np.lib.stride_tricks.sliding_window_view(x[:-1], LAGS), x[LAGS:]


# ---- the machine -------------------------------------------------------------------------------------------------


def machine(setting: Setting, seed: int) -> mg.RecurrentMachine:
    """Blocks input, hidden, output; the output hears the input at all lags and the hidden block of the same year."""
    mask = np.zeros((LAGS, 3, 3), dtype=bool)
    mask[:, 2, 0] = True
    mask[: setting.hears, 1, 0] = True
    mask[1, 1, 1] = True
    mask[0, 2, 1] = True
    return mg.RecurrentMachine(
        (1, setting.width, 1),
        LAGS - 1,
        activation=("identity", "tanh", "identity"),
        shortcuts=mask,
        generator=torch.Generator().manual_seed(seed),
    )


def predictions(
    x: Values, setting: Setting, starts: list[int], seeds: range, steps: int = 300, rate: float = 0.01
) -> Values:
    """What machines say of every year, ``(starts, seeds, years)``: trained on the years before each start alone.

    All of them, one for each start and seed, are trained as one population.
    """
    to_scale, from_scale = SCALES[setting.scale]
    inputs, answers = windows(to_scale(x))
    known = np.array([[LAGS + k < start for k in range(len(answers))] for start in starts])
    means = np.array([answers[before].mean() for before in known])[:, None]
    sds = np.array([answers[before].std() for before in known])[:, None]  # of known years alone, as the means

    def of_each(values: Values) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).repeat_interleave(len(seeds), dim=0)

    X = of_each((inputs - means[..., None]) / sds[..., None])[:, :, None]  # (population, years, 1, LAGS)
    Y, weights = of_each((answers - means) / sds), of_each(known / known.sum(axis=1, keepdims=True))
    machines = [machine(setting, seed) for _ in starts for seed in seeds]
    state, _ = stack_module_state(machines)
    forward = vmap(lambda parameters, x: functional_call(machines[0], parameters, (x,))[:, -1, -1])
    parameters = {name: value.detach().requires_grad_() for name, value in state.items()}
    optimizer = torch.optim.AdamW(
        [{"params": parameters["weight"], "weight_decay": setting.decay}, {"params": parameters["bias"]}],
        lr=rate,
        betas=(0.9, 0.99),
        weight_decay=0.0,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (weights * (forward(parameters, X) - Y) ** 2).sum().backward()  # a sum: no machine hears of another
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        outputs = forward(parameters, X).double().numpy().reshape(len(starts), len(seeds), -1)
    return from_scale(outputs * sds[:, None] + means[:, None])


def likelihood(x: Values, scale: str) -> float:
    """Log-likelihood of a linear autoregression on this scale, as a density of raw values (Box and Cox, 1964)."""
    to_scale = SCALES[scale][0]
    x, h = x + 0.5, 1e-4  # years without sunspots would have an infinite density
    slope = (to_scale(x + h) - to_scale(x - h)) / (2 * h)
    inputs, answers = windows(to_scale(x))
    residuals = answers - linear_fit(inputs, answers)(inputs)
    return float(np.log(slope[LAGS:]).sum() - len(answers) / 2 * np.log(np.mean(residuals**2)))


def validation_error(x: Values, setting: Setting, seeds: range, steps: int = 300) -> float:
    """RMSE over folds of the years before the test, and over the seeds."""
    starts = [len(x) - TEST_YEARS - FOLD_YEARS * (FOLDS - k) for k in range(FOLDS)]
    outputs = predictions(x, setting, starts, seeds, steps)
    folds = [slice(start - LAGS, start - LAGS + FOLD_YEARS) for start in starts]
    errors = [fold_outputs[:, fold] - windows(x)[1][fold] for fold_outputs, fold in zip(outputs, folds, strict=True)]
    return float(np.sqrt(np.mean(np.square(errors))))


# ---- the baselines -----------------------------------------------------------------------------------------------


def linear_fit(inputs: Values, answers: Values) -> Callable[[Values], Values]:
    """Least squares with a constant."""
    with_constant = np.column_stack([inputs, np.ones(len(inputs))])
    weights = np.linalg.lstsq(with_constant, answers, rcond=None)[0]
    return lambda x: x @ weights[:-1] + weights[-1]


def baselines(x: Values, seeds: range) -> dict[str, list[float]]:
    """RMSE on the test years of each baseline, one for each seed where it matters."""
    from sklearn.linear_model import RidgeCV
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    inputs, answers = windows(x)
    train, test = slice(None, -TEST_YEARS), slice(-TEST_YEARS, None)

    def error(outputs: Values) -> float:
        return rmse(outputs, answers[test])

    roots, root_answers = windows(np.sqrt(x))
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 25))).fit(inputs[train], answers[train])
    networks = [
        make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(100,), max_iter=5000, random_state=seed))
        for seed in seeds
    ]
    return {
        "persistence": [error(inputs[test, -1])],
        "AR(11)": [error(linear_fit(inputs[train], answers[train])(inputs[test]))],
        "ridge": [error(ridge.predict(inputs[test]))],
        "MLP(100)": [error(network.fit(inputs[train], answers[train]).predict(inputs[test])) for network in networks],
        "linear fit of square roots": [error(linear_fit(roots[train], root_answers[train])(roots[test]) ** 2)],
    }


def rmse(outputs: Values, answers: Values) -> float:
    """On the raw scale: sunspots."""
    return float(np.sqrt(np.mean((outputs - answers) ** 2)))


# ---- all of it ---------------------------------------------------------------------------------------------------


def main(
    *,
    seeds: int = 5,
    steps: int = 300,
    widths: tuple[int, ...] = WIDTHS,
    decays: tuple[float, ...] = DECAYS,
    hears: tuple[int, ...] = HEARS,
) -> dict[str, Any]:
    """RMSE of the machine chosen and of the baselines, the choice, and what was said of the test years."""
    torch.set_num_threads(1)
    x = series()
    before, each = x[:-TEST_YEARS], range(seeds)
    likelihoods = {scale: round(likelihood(before, scale), 1) for scale in SCALES}
    scale = max(likelihoods, key=likelihoods.__getitem__)
    candidates = [Setting(scale, *values) for values in product(widths, decays, hears)]
    validation = [round(validation_error(x, setting, range(VALIDATION_SEEDS), steps), 2) for setting in candidates]
    chosen = candidates[int(np.argmin(validation))]
    outputs = predictions(x, chosen, [len(before)], each, steps)[0, :, -TEST_YEARS:]
    errors = {**baselines(x, each), "machine": [rmse(output, x[-TEST_YEARS:]) for output in outputs]}
    return {
        "test": {
            name: {"rmse": round(fmean(of_seeds), 2)}
            | ({"sd": round(stdev(of_seeds), 2), "seeds": [round(e, 2) for e in of_seeds]} if len(of_seeds) > 1 else {})
            for name, of_seeds in errors.items()
        },
        "chosen": asdict(chosen),
        "parameters": machine(chosen, 0).parameter_count(),
        "likelihood": likelihoods,
        "validation": [
            asdict(setting) | {"rmse": error} for setting, error in zip(candidates, validation, strict=True)
        ],
        "years": list(range(FIRST_YEAR + len(before), FIRST_YEAR + len(x))),
        "truth": x[-TEST_YEARS:].tolist(),
        "outputs": outputs.round(2).tolist(),
    }


if __name__ == "__main__":
    result = main()
    for name, row in sorted(result["test"].items(), key=lambda item: -item[1]["rmse"]):
        print(
            f"{name:28} {row['rmse']:5.2f}"
            + (f" ± {row['sd']:.2f} over {len(row['seeds'])} seeds" if "sd" in row else "")
        )
    print(f"chosen before the test: {result['chosen']}, {result['parameters']} parameters")
    print("61 test years are few: differences of less than about 2 are noise")
    print(write("sunspots", "python -m experiments.sunspots", result))
