"""A search over dense and recurrent machines on a series, to its report and its predictions."""

from dataclasses import replace

import numpy as np
import pytest

from machgraph.io import load as load_machine
from search import report, study
from search.data import load
from search.isomorphism.canonical import canonical
from search.one_of import OneOf
from search.population import evaluate, train
from search.recipe import Recipe
from search.run import BEST, LEDGER, Settings, read_leaderboard, read_records
from search.space import Space
from search.strategies.evolution import beginning
from search.training.machine import build

pytest.importorskip("statsmodels")
WILD = Space(1, (2, 4), ("tanh",), learning_rates=(1e4, 3e4))
SMALL = Space(
    2, (2, 4), ("tanh", "relu"), (1e-2, 3e-2), batch_sizes=(16, 32), min_blocks=1, kind="recurrence", lags=(2,),
    timeblocks=(1, 2),
)  # fmt: skip
SETTINGS = Settings(
    "sunspots", None, None, 1, "evolution", 18, None, 6, OneOf((WILD, SMALL)), Recipe(epochs=3, rungs=(1,)),
    finalists=3, seeds=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def sunspots():
    return load("sunspots")


@pytest.fixture(scope="module")
def folder(sunspots, tmp_path_factory):
    place = tmp_path_factory.mktemp("series") / "run"
    study.run(SETTINGS, sunspots, place)
    return place


def test_winner_is_a_recurrence_and_a_plain_one_its_rival(folder, sunspots):
    records, rows = read_records(folder), read_leaderboard(folder)
    assert {record.point.kind for record in records} == {"dense", "recurrence"}
    assert rows[0].point.kind == "recurrence"  # for dense machines have wild learning rates
    assert "plain RNN" in [row.name for row in rows]
    machine = load_machine(folder / BEST)
    assert machine.parameter_count() == rows[0].parameters
    assert sunspots.shape.image[1] * machine.flops() == rows[0].flops
    assert machine.architecture.depth == rows[0].depth


def test_the_ledger_tells_the_recurrences(folder):
    header, *lines = (folder / LEDGER).read_text(encoding="utf-8").splitlines()
    place = header.split(",").index("recurrences")
    for line, record in zip(lines, read_records(folder), strict=True):
        edges = [edge.replace("@", ">").split(">") for edge in line.split(",")[place].split()]
        masks = np.zeros_like(record.canonical.masks)
        for source, out, lag in edges:
            masks[int(lag), int(out), int(source)] = True
        assert np.array_equal(masks[1:], record.canonical.masks[1:])


def test_a_report_is_written(folder):
    page = report.write(folder).read_text(encoding="utf-8")
    assert "in one turn of the loop over time" in page
    assert (folder / "pictures" / "winner-graph.svg").exists()


@pytest.mark.parametrize("seed", range(3))
def test_training_together_is_measured_at_the_last_step(sunspots, seed):
    point = canonical(beginning(SMALL, np.random.default_rng(seed)))
    (outcome,) = train([point], (sunspots,), replace(SETTINGS.recipe, rungs=()), seed)
    assert (outcome.loss, outcome.score) == pytest.approx(
        evaluate(outcome.machine, sunspots, sunspots.validation), rel=1e-4
    )
    begun = evaluate(build(point, sunspots.shape, seed), sunspots, sunspots.validation)[0]
    assert outcome.loss < begun
