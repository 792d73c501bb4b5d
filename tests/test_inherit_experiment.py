"""Evolution with and without inherited weights: a short comparison, its arithmetic, and the file that is committed."""

import json

import pytest
import torch

from experiments import inherit
from experiments.results import FOLDER


@pytest.fixture(autouse=True)
def alone():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_search_ends_with_its_epochs_and_pairs_begin_alike():
    found = inherit.compared("breast_cancer", 0, 8, (0.5,), 40)  # schedules of one epoch, generations of 8
    plain, inherited = found[inherit.PLAIN], found["inherited, share 0.5"]
    assert plain.keys() == inherited.keys() == set(inherit.MEASURES)
    assert plain["trials"] == inherited["trials"] == 8  # all are founders, and the same
    assert plain == inherited


def test_differences_are_those_of_pairs():
    plain, other = ([dict.fromkeys(inherit.MEASURES, value) for value in values] for values in ((1, 2, 3), (2, 2, 5)))
    assert inherit.summary(plain, plain) == {"mean": dict.fromkeys(inherit.MEASURES, 2)}
    differences = inherit.summary(other, plain)["difference"]
    assert differences["test"] == {"mean": 1, "error": round(3**-0.5, 4)}  # of 1, 0, 2
    found = {("digits", seed): {inherit.PLAIN: plain[seed], "other": other[seed]} for seed in (2, 0, 1)}
    told = inherit.summaries(found, {"digits": 9})["digits"]
    assert told["epochs"] == 9
    assert told["ways"]["other"] == inherit.summary(other, plain)


def test_the_committed_comparison_has_both_data_sets_and_pairs_enough():
    committed = json.loads((FOLDER / "inherit.json").read_text())["result"]
    assert committed["seeds"] >= 5
    assert set(committed["data"]) == {"digits", "breast_cancer"}
    for data in committed["data"].values():
        assert data["ways"].keys() == {inherit.PLAIN, *(f"inherited, share {share}" for share in inherit.SHARES)}
