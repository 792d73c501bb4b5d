"""What a report says, that it is whole, and that names which users chose can do no harm in it."""

import base64
import hashlib
import json
import math
import shlex
from dataclasses import dataclass, replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import machgraph as mg
from machgraph.partition import shortcut_mask
from search import config, report
from search.isomorphism.canonical import canonical, key
from search.numbers import grouped
from search.one_of import OneOf
from search.point import Point
from search.recipe import Recipe
from search.report import page as page_module
from search.report import wording
from search.report.colours import STATUSES
from search.run import BEST, Facts, Record, Row, Settings, write_leaderboard, write_run
from search.shape import Shape
from search.space import Space
from search.storage.store import Store
from search.storage.stored_trial import Generation, Stored
from search.training.machine import build

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"'&{{ 7 * 7 }}"


@dataclass(frozen=True)
class Run:
    """A search that never ran: points of a space drawn at random, and results made up."""

    settings: Settings
    facts: Facts
    records: list[Record]
    rows: list[Row]
    machine: mg.DenseMachine

    def page(self) -> str:
        return report.render(self.settings, self.facts, self.records, self.rows, self.machine, Path("runs/made up"))


@cache
def made_up(trials: int = 40, *, name: str = "digits", task: str = "classification", word: str = "tanh") -> Run:
    space = Space(max_blocks=4, activations=("relu", word))
    rng = np.random.default_rng(3)
    classes = tuple(f"{word} {i}" for i in range(3)) if task == "classification" else ()
    settings = Settings(name, word, None, 3, "evolution", trials, None, 8, space, Recipe())
    facts = Facts(
        name, task, Shape(12, len(classes) or 1), classes, (f"the column '{word}' was left out", "100 rows"),
        "0" * 64, space.count(), 4321, {"python": "3.11"},
    )  # fmt: skip
    records: list[Record] = []
    for number in range(trials):
        point = space.sample(rng)
        name_of_run = key(point, seed=3, budget=60)
        first = next((record for record in records if record.key == name_of_run), None)
        if first is not None:
            records.append(
                replace(first, number=number, point=point, status="duplicate", epochs=0, seconds=0.0,
                        duplicate_of=first.duplicate_of or first.number, curve=())
            )  # fmt: skip
            continue
        status = ("complete", "stopped", "halved", "complete", "diverged", "infeasible", "failed")[number % 7]
        epochs = {"complete": 60, "stopped": 41, "halved": 12, "diverged": 2, "infeasible": 0, "failed": 0}[status]
        floor = 0.05 + 0.4 * rng.random()
        curve = tuple(floor * (1 + 4 * math.exp(-epoch / 9)) for epoch in range(epochs))
        loss = math.nan if status in ("diverged", "infeasible", "failed") else min(curve)
        curve = (*curve[:-1], math.inf) if status == "diverged" else curve
        records.append(
            Record(number, name_of_run, point, canonical(point), status, epochs, loss, 1 - loss / 4, 0.25, None, curve)
        )
    best = sorted((r for r in records if r.is_valid and r.duplicate_of is None), key=lambda r: r.loss)

    def row(title: str, record: Record, test: float | None) -> Row:
        p = record.canonical
        trial = None if " " in title else record.number
        return Row(title, trial, p, record.loss, record.score, test and 1 - test, test, p.depth,
                   p.parameters(facts.shape), p.flops(facts.shape), record.seconds,
                   loss_sd=0.01, test_sd=test and 0.02)  # fmt: skip

    tests = {"winner": 0.9712, "second": None, "random (median of 5)": 0.9523, "plain MLP": 0.9801}
    rows = [row(title, record, test) for (title, test), record in zip(tests.items(), best, strict=False)]
    none = dict.fromkeys(("loss", "score", "loss_sd", "test_sd"))
    rows.insert(2, replace(rows[0], name="ensemble", test_score=0.9756, **none))
    rows.append(Row("scikit-learn (trees)", None, None, None, 0.93, None, 0.9412, 0, 0, 0, 0.3))
    p = best[0].canonical
    machine = mg.DenseMachine(
        p.partition(facts.shape).widths,
        activation=("identity", *("relu" if a == word != "tanh" else a for a in p.activations), "identity"),
        shortcuts=p.mask,
    )
    return Run(settings, facts, records, rows, machine)


@cache
def usual_page() -> str:
    return made_up().page()


def saved(run: Run, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_run(folder, run.settings, run.facts)
    generation = Generation(0, len(run.records), 1.0)
    with Store(folder, 1) as store:
        store.append([Stored(record, generation, (), (0.0,)) for record in run.records])
    write_leaderboard(folder, run.rows, run.facts)
    mg.save(run.machine, folder / BEST)
    return folder


class Parsed(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[str | None, str]] = []
        self._script: str | bool | None = False
        self._style = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._style = tag == "style"
        self._script = dict(attrs).get("type") if tag == "script" else False

    def handle_endtag(self, tag: str) -> None:
        self._script = self._style = False

    def handle_data(self, data: str) -> None:
        if self._script is False and not self._style:
            self.texts.append(data)
        elif self._script is not False:
            self.scripts.append((self._script, data))  # type: ignore[arg-type]

    @property
    def data(self) -> dict:
        (block,) = [text for kind, text in self.scripts if kind == "application/json"]
        return json.loads(block, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def unpacked(text: str) -> list[bool]:
    return [bool(int(digit, 16) >> k & 1) for digit in text for k in range(4)]


# --- the page --------------------------------------------------------------------------------------------------------


def test_it_is_written_into_the_folder_of_a_run_and_again_the_same(tmp_path):
    folder = saved(made_up(), tmp_path / "a run")
    path = report.write(folder)
    first = {file.name: file.read_bytes() for file in [path, *(folder / "pictures").iterdir()]}
    assert set(first) == {
        "report.html", "winner-graph.svg", "winner-graph.png", "winner-shortcuts.svg", "winner-shortcuts.png",
        "history.svg", "front.svg",
    }  # fmt: skip
    assert shlex.join(["machgraph", "resume", str(folder)]) in " ".join(Parsed(path.read_text()).texts)
    report.write(folder)
    assert {file.name: file.read_bytes() for file in [path, *(folder / "pictures").iterdir()]} == first


def test_every_trial_is_in_the_data_as_it_was_recorded():
    run = made_up()
    data = Parsed(usual_page()).data
    assert len(data["trials"]) == len(run.records)
    for values, record in zip(data["trials"], run.records, strict=True):
        trial = dict(zip(data["fields"], values, strict=True))
        assert trial["number"] == record.number
        assert data["statuses"][trial["status"]] == record.status
        assert trial["duplicate_of"] == record.duplicate_of
        assert trial["loss"] == (None if math.isnan(record.loss) else pytest.approx(record.loss, rel=1e-5))
        assert trial["parameters"] == record.canonical.parameters(run.facts.shape)
        assert trial["widths"] == [12, *record.canonical.widths, 3]
        edges = iter(unpacked(trial["edges"]))
        mask = [
            [j < i and next(edges, False) for j in range(len(trial["widths"]))] for i in range(len(trial["widths"]))
        ]
        assert mask == record.canonical.mask.tolist()
        assert trial["past"] == ""
    assert {record.status for record in run.records} == set(data["statuses"]) == set(STATUSES), (
        "the made-up run has every status"
    )
    assert data["winner"] == run.rows[0].trial


def test_the_head_says_what_the_winner_and_its_rivals_reach():
    text = " ".join(" ".join(Parsed(usual_page()).texts).split())
    assert (
        "answers 97.12 % of the held-out rows right. Its rivals: random (median of 5) 95.23 %, plain MLP 98.01 %, "
        "scikit-learn (trees) 94.12 %." in text
    )
    assert "1.89 points below the winner" in text
    assert "0.89 points above the winner" in text


def test_regression_is_told_in_its_own_words():
    run = made_up(task="regression")
    page = Parsed(run.page())
    text = " ".join(page.texts)
    assert "an R² of 0.9712 on the held-out rows" in text
    assert "accuracy" not in text
    assert "answers" not in text
    assert page.data["score"] == "R²"


def test_winner_is_the_one_of_the_leaderboard_also_where_another_had_a_lower_loss():
    run = made_up()
    order = sorted((r for r in run.records if r.is_valid and r.duplicate_of is None), key=lambda r: r.loss)
    for winner in (order[3], order[-1]):  # the last is not among the best ten
        other = replace(run, rows=[replace(row, trial=row.trial and winner.number) for row in run.rows])
        page = Parsed(other.page())
        assert page.data["winner"] == winner.number
        text = " ".join(" ".join(page.texts).split())
        assert f"Trial {winner.number}, learning rate {winner.point.learning_rate:g}." in text
        labels = [text for text in page.texts if text.startswith("Trial ") and " · " in text]
        assert [label for label in labels if "(winner)" in label] == [labels[0]]
        assert labels[0].startswith(f"Trial {winner.number} (winner): ")
        assert len(labels) == 10


def test_an_unknown_number_of_networks_is_not_told():
    run = made_up()
    unknown = replace(run, facts=replace(run.facts, architectures=None))
    points = grouped(run.facts.points)
    for page, said in (
        (usual_page(), f"{points} points, which are 4,321 different networks. "),
        (unknown.page(), f"{points} points. "),
    ):
        text = " ".join(" ".join(Parsed(page).texts).split())
        assert f"The space holds {said}Strategy" in text
        assert "None" not in text


def test_what_is_not_there_is_a_dash():
    rows = {row.name: row for row in made_up().rows}
    lines = {name: page_module._line(made_up().facts, row) for name, row in rows.items()}
    assert lines["ensemble"]["numbers"][:3] == ["–", "97.56\N{NO-BREAK SPACE}%", "–"]
    assert lines["scikit-learn (trees)"]["numbers"][:3] == ["93.00\N{NO-BREAK SPACE}%", "94.12\N{NO-BREAK SPACE}%", "–"]
    assert lines["scikit-learn (trees)"]["network"] == "–"
    assert [lines[name]["kind"] for name in ("winner", "ensemble", "plain MLP")] == ["winner", "", "rival"]


def test_settings_of_several_kinds_of_machines_are_told():
    run = made_up()
    both = OneOf((run.settings.space, Space(kind="convolution", kernels=(3, 5), max_scale=1, heads=(1, 2))))
    text = " ".join(" ".join(Parsed(replace(run, settings=replace(run.settings, space=both)).page()).texts).split())
    for said in ("Space: dense", "Space: convolution", "kernels 3, 5", "heads 1, 2"):
        assert said in text
    assert "{" not in text


def test_nothing_is_asked_of_the_network():
    page = Parsed(usual_page())
    (policy,) = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    for tag, attributes in page.elements:
        assert tag not in {"iframe", "img", "object", "embed", "base"}
        for name in ("href", "src", "srcset", "action", "poster", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), f"<{tag} {name}>"
        assert not any(name.startswith("on") for name in attributes)


def test_only_the_one_script_may_run():
    page = Parsed(usual_page())
    (policy,) = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    (script,) = [text for kind, text in page.scripts if kind is None]
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy


def test_names_that_users_chose_are_text_wherever_they_stand():
    hostile = made_up(name=HOSTILE, word=HOSTILE)
    hostile = replace(hostile, rows=[replace(row, name=f"{row.name} {HOSTILE}") for row in hostile.rows])
    page = Parsed(hostile.page())
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == [tag for tag, _ in Parsed(usual_page()).elements].count("script") == 2
    assert "img" not in tags
    assert "alert" not in "".join(text for kind, text in page.scripts if kind is None)
    assert HOSTILE in "".join(page.texts), "shown as it is"
    assert any(HOSTILE in values[page.data["fields"].index("network")] for values in page.data["trials"])


def test_a_run_that_has_not_ended_is_reported_as_such():
    run = replace(made_up(), rows=[])
    text = " ".join(Parsed(run.page()).texts)
    assert "has not come to its end" in text
    assert "machgraph resume 'runs/made up'" in text


def test_a_run_without_a_trial_or_without_its_machine_is_refused_with_what_to_do(tmp_path):
    folder = saved(replace(made_up(3), records=[]), tmp_path / "run")
    with pytest.raises(ValueError, match=r"no trial of .*run has ended yet: go on with machgraph resume"):
        report.write(folder)
    folder = saved(made_up(3), tmp_path / "other")
    (folder / BEST).unlink()
    with pytest.raises(FileNotFoundError, match=r"other has lost its best.machgraph: put it back"):
        report.write(folder)
    with pytest.raises(FileNotFoundError, match="no run is in"):
        report.write(tmp_path / "nothing")


def test_a_run_of_which_no_trial_ended_well_is_reported_as_such(tmp_path):
    run = made_up(12)
    lost = {"status": "diverged", "loss": math.nan, "score": math.nan, "duplicate_of": None}
    records = [replace(record, **lost) for record in run.records]
    folder = saved(replace(run, records=records, rows=[]), tmp_path / "run")
    (folder / BEST).unlink()
    page = Parsed(report.write(folder).read_text())
    text = " ".join(" ".join(page.texts).split())
    for said in (
        "No trial has ended well so far: below is what became of each.",
        "Not written yet: no trial has ended well.",
        "No trial has ended well, so there is nothing to compare.",
        "this search has 0",
    ):
        assert said in text
    assert len(page.data["trials"]) == 12
    targets = {a["href"] for tag, a in page.elements if tag == "a" and a.get("href", "").startswith("#")}
    assert targets <= {f"#{a['id']}" for _, a in page.elements if "id" in a}, "no link to a section that is not there"
    assert "#network" not in targets


def test_one_trial_alone_is_reported(tmp_path):
    run = made_up(1)
    page = Parsed(report.write(saved(replace(run, rows=run.rows[:1]), tmp_path / "run")).read_text())
    text = " ".join(" ".join(page.texts).split())
    assert "found in trial 0 of 1." in text
    assert "Named: the only one." in text
    assert "Of 1 network, 1 on the front" in text


def test_two_thousand_trials_are_less_than_three_megabytes():
    few = made_up(40)
    records = [replace(few.records[i % 40], number=i) for i in range(2000)]
    page = replace(few, records=records).page()
    assert len(page.encode()) < 1_000_000
    assert len(Parsed(page).data["trials"]) == 2000


def test_a_network_of_sixty_blocks_is_shown_as_columns():
    rng = np.random.default_rng(0)
    masks = {
        share: np.tri(60, k=-1, dtype=bool) & ((rng.random((60, 60)) < share) | np.eye(60, k=-1, dtype=bool))
        for share in (0.1, 1.0)
    }
    for mask in masks.values():
        machine = mg.DenseMachine((12, *(4,) * 58, 3), shortcuts=mask)
        page = replace(made_up(), machine=machine).page()
        assert len(page) < 2_000_000
        parsed = Parsed(page)
        boxes = [a for _, a in parsed.elements if a.get("class") == "box"]
        assert len(boxes) == 60 + 119, "each block and each machine once"
        lines = [
            a for _, a in parsed.elements if (a.get("class") or "").startswith("line ") or a.get("class") == "line"
        ]
        assert len(lines) == mask.sum() + machine.architecture.graph.number_of_edges()


def test_the_command_gives_the_same_settings_again(tmp_path):
    found = made_up(name="my data.csv")
    settings = replace(found.settings, target="the $price", task="regression", seconds=90.0)
    folder = tmp_path / "a run"
    folder.mkdir()
    write_run(folder, settings, found.facts)
    *command, file = shlex.split(wording.commands(settings, folder)["search"])
    assert command == ["machgraph", "search", "--config"]
    asked = config.read(file)
    again = config.wished(asked)
    path = str(Path.cwd() / "my data.csv")
    assert replace(again, space=settings.space, recipe=settings.recipe) == replace(settings, source=path)
    assert config.space_from_toml(Path(file).read_text()) == settings.space
    assert Recipe(**asked.recipe) == settings.recipe


def test_a_mask_of_ones_own_is_told_row_by_row():
    run = made_up()
    mask = ((0, 0, 0), (1, 0, 0), (1, 1, 0))
    space = Space(max_blocks=1, min_blocks=1, shortcuts=mask)
    said = str(wording.tables(replace(run.settings, space=space), run.facts))
    assert "000 100 110" in said


def test_data_from_python_have_no_command():
    settings = replace(made_up().settings, source="arrays of mine")
    said = wording.commands(settings, Path("runs/x"))
    assert said["search"] == "study.run(settings, dataset, 'runs/x')"
    assert said["note"].startswith("It was begun from Python, with arrays of mine.")


def test_a_recurrence_is_told_by_one_turn_of_its_loop():
    run, masks = made_up(), np.zeros((2, 3, 3), dtype=bool)
    masks[0] = shortcut_mask("sequential", 3)
    masks[1, 1:, 1] = True
    point = Point((8,), ("tanh",), masks[0], 1e-3, kind="recurrence", recurrences=masks[1:].tolist())
    shape = Shape(12, 3, (2, 6))
    records = [replace(record, point=point, canonical=canonical(point)) for record in run.records]
    rows = [replace(row, point=point) for row in run.rows]
    facts = replace(run.facts, shape=shape)
    page = Parsed(replace(run, facts=facts, records=records, rows=rows, machine=build(point, shape, 0)).page())
    text = " ".join(" ".join(page.texts).split())
    for said in (
        "2 inputs, 1 hidden block, 3 outputs, no shortcuts, 2 recurrences; depth 5 in one turn of the loop over time",
        "2-8-3 · tanh · no shortcuts · 2 recurrences",
        "a sum of 5 machines of depth 1",
        "block 1 hears block 1 at lag 1",
        "output hears block 1 at lags 0, 1",
    ):
        assert said in text


def test_a_point_of_no_hidden_block_can_be_shown():
    run = made_up()
    linear = Point((), (), ((False, False), (True, False)), 1e-3)
    machine = mg.DenseMachine((12, 3), activation="identity", shortcuts=linear.mask)
    assert "no hidden blocks" in replace(run, machine=machine).page()
