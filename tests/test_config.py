"""Searches in TOML: what is read, what follows from the data, what is refused, and that writing is reading undone."""

import inspect
import json
import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from search import config
from search.config import KEYS, Config, completed, parse, prepared, space_from_toml, space_to_toml, to_toml, wished
from search.data import from_arrays, load
from search.defaults import default_recipe, space_for
from search.loading import Loading, dataset_of
from search.one_of import OneOf
from search.recipe import Recipe, rungs_of
from search.record import Settings
from search.space import Space

DOCS = (Path(__file__).parents[1] / "docs" / "config.md").read_text()
RNG = np.random.default_rng(0)
TABLE = from_arrays(RNG.normal(size=(60, 3)), RNG.integers(2, size=60))
IMAGES = from_arrays(RNG.normal(size=(60, 1, 8, 8)), RNG.integers(2, size=60))
GRID = {"kind": "convolution", "kernels": (3, 5), "dilations": (1, 2), "max_scale": 1, "heads": (1, 2)}
PAST = {"kind": "recurrence", "lags": (2, 4), "timeblocks": (1, 2), "recurrences": "own"}
SPACES = {
    "default": Space(),
    "numbers": Space(1, (3, 5), ("relu", "tanh"), (1e-5, 0.1), (0.0, 3.0), (1, 8), ("given", "log"), 1),
    "wiring": Space(max_span=2, density=(0.25, 1)),
    "sequential": Space(shortcuts="sequential"),
    "mask": Space(max_blocks=1, min_blocks=1, shortcuts=((0, 0, 0), (1, 0, 0), (1, 1, 0))),
    "convolution": Space(**GRID),
    "recurrence": Space(**PAST),
    "several": OneOf((Space(**PAST), Space(max_blocks=2), Space(**GRID))),
}


def of(text, dataset=TABLE):
    asked = parse(text, "f.toml").over({"source": "digits"}, {})
    return completed(wished(asked), asked, dataset)


# ---- keys -----------------------------------------------------------------------------------------------------------


def test_the_keys_are_the_parameters():
    loaded = set(inspect.signature(load).parameters) - {"seed"}
    assert set(KEYS["data"]) == loaded == {"source", "target", "task", *(one.name for one in fields(Loading))}
    assert set(KEYS["recipe"]) == {one.name for one in fields(Recipe)}
    assert set(KEYS["space"]) == {one.name for one in fields(Space)}
    settings = {"time" if one.name == "seconds" else one.name for one in fields(Settings)}
    assert set(KEYS["search"]) == settings - set(KEYS["data"]) - {"loading", "space", "recipe"} | {"time"}


def test_a_bundled_name_is_no_folder_that_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    assert wished(parse('data.source = "digits"')).source == "digits"


def test_numbers_of_numpy_are_written_as_ours():
    space = Space(
        max_blocks=np.int64(2), widths=2 ** np.arange(3, 5), learning_rates=(np.float64(0.01),),
        density=np.array([0.25, 1.0]),
    )  # fmt: skip
    recipe = Recipe(epochs=np.int64(5), rungs=np.array([1, 2]), label_smoothing=np.float32(0.25))
    settings = Settings(
        "digits", None, None, np.int64(3), "random", np.int64(8), np.float32(2.0), np.int64(4), space, recipe,
        constraints={"parameters": np.int64(20_000)},
    )  # fmt: skip
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert space_from_toml(space_to_toml(space)) == space
    assert "trials = 8\n" in to_toml(settings)


def test_what_is_not_set_is_written_as_a_comment():
    text = to_toml(of("[search]\ntrials = 5"))
    assert "\n# time = (not set)\n" in text
    for name in ("data", "search", "recipe"):
        (table,) = [part for part in text.split("\n\n") if part.startswith(f"[{name}]")]
        assert {line.removeprefix("# ").split(" = ")[0] for line in table.strip().splitlines()[1:]} == set(KEYS[name])


@pytest.mark.parametrize("table", KEYS)
def test_the_documentation_has_each_key_where_it_belongs(table):
    (section,) = [part for part in DOCS.split("\n## ") if part.startswith(f"`[{table}]`")]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in row.replace("`", "").replace(" ", "").split(",")} == set(KEYS[table])


def test_the_example_of_the_documentation_is_read():
    example = DOCS.split("```toml\n")[1].split("```")[0]
    asked = parse(example)
    assert {name for name in KEYS if getattr(asked, "spaces" if name == "space" else name)} == set(KEYS)


# ---- what follows from the data -------------------------------------------------------------------------------------


def test_nothing_asked_is_what_the_data_suggest():
    settings = of("")
    assert settings.space == space_for(TABLE)
    assert settings.recipe == default_recipe(len(TABLE.train))
    assert (settings.trials, settings.seconds, settings.seed, settings.strategy) == (None, 30.0, 0, "evolution")
    assert (settings.population, settings.folds, settings.objectives) == (8, 5, ("loss",))


def test_a_key_changes_itself_alone():
    before = of("")
    assert of("[search]\ntrials = 7") == replace(before, trials=7, seconds=None)
    assert of("[search]\ntime = 7") == replace(before, seconds=7.0)
    assert of("[search]\nfolds = 1") == replace(before, folds=1)
    assert of("[search]\nobjectives = ['loss', 'depth']") == replace(before, objectives=("loss", "depth"))
    assert of("[search]\nconstraints = ['flops <= 2k']") == replace(before, constraints={"flops": 2000.0})
    assert of("[recipe]\nbatches = 3") == replace(before, recipe=replace(before.recipe, batches=3))
    assert of("[space]\nmax_blocks = 2") == replace(before, space=replace(before.space, max_blocks=2))
    assert of("[space]\nkind = 'dense'\nwidths = [3]") == replace(before, space=replace(before.space, widths=(3,)))


@pytest.mark.parametrize("epochs", [1, 10, 500])
def test_a_schedule_of_another_length_is_halved_where_that_length_is(epochs):
    assert of(f"[recipe]\nepochs = {epochs}").recipe.rungs == rungs_of(epochs)
    assert of(f"[recipe]\nepochs = {epochs}\nrungs = []").recipe.rungs == ()


def test_a_space_without_a_kind_changes_every_kind_in_what_it_has():
    dense, grid = space_for(IMAGES).spaces
    found = of("[space]\nmax_blocks = 2\nkernels = [3, 5]", IMAGES).space
    assert found == OneOf((replace(dense, max_blocks=2), replace(grid, max_blocks=2, kernels=(3, 5))))


def test_a_space_with_a_kind_is_the_only_one_and_several_are_these():
    dense, grid = space_for(IMAGES).spaces
    assert of("[space]\nkind = 'convolution'\nkernels = [5]", IMAGES).space == replace(grid, kernels=(5,))
    assert of("[[space]]\nkind = 'convolution'\n[[space]]\nkind = 'dense'", IMAGES).space == OneOf((grid, dense))


def test_a_series_is_searched_for_recurrences_where_the_kind_is_given():
    series = load("sunspots")
    assert of("[space]\nkind = 'recurrence'\nlags = [1, 2]", series).space.lags == (1, 2)
    with pytest.raises(ValueError, match=r'got lags without a kind.*add kind = "recurrence"'):
        of("[space]\nlags = [1, 2]", series)
    with pytest.raises(ValueError, match="where the data suggest convolution and dense machines alone"):
        of("[space]\nlags = [1, 2]", IMAGES)


def test_flags_win_over_the_file():
    asked = parse("[search]\ntrials = 9\nseed = 4\n[data]\nsource = 'digits'\ntarget = 'digit'")
    flags = {"trials": 5, "seed": None, "objectives": ["loss", "flops"], "constraints": []}
    over = asked.over({"target": None, "source": "diabetes"}, flags, {"epochs": 3})
    assert over.recipe == {"epochs": 3}
    settings = wished(over)
    assert (settings.trials, settings.seed, settings.source, settings.target) == (5, 4, "diabetes", "digit")
    assert settings.objectives == ("loss", "flops")


def test_files_are_looked_for_beside_the_configuration(tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    rows = "a,b\n" + "".join(f"{k},{k % 3}\n" for k in range(40))
    for name in ("table.csv", "rest.csv"):
        (tmp_path / "conf" / name).write_text(rows)
    file = tmp_path / "conf" / "search.toml"
    file.write_text('[data]\nsource = "table.csv"\nheld_out = "rest.csv"\ntarget = "a"\ntask = "regression"\n')
    monkeypatch.chdir(tmp_path)
    settings, dataset = prepared(config.read("conf/search.toml"))
    assert settings.source == str(tmp_path / "conf" / "table.csv")
    assert settings.loading.held_out == str(tmp_path / "conf" / "rest.csv")
    assert (dataset.task, len(dataset.test)) == ("regression", 40)
    file.write_text('[data]\nsource = "digit"\n')  # no file, but a slip
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        prepared(config.read("conf/search.toml"))


# ---- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_a_space_that_is_written_is_read_as_it_was(name):
    text = space_to_toml(SPACES[name])
    assert space_from_toml(text) == SPACES[name]
    tomllib.loads(text)


@pytest.mark.parametrize("name", SPACES)
def test_settings_that_are_written_are_read_as_they_were(name):
    loading = Loading("sqrt", lags=5, time="year", exogenous=(), validation=0.25, test=0.125)
    settings = Settings(
        "sunspots", "sunspots", "regression", 3, "random", 9, 0.1, 4, SPACES[name],
        Recipe(20, 7, 0.0, 0.5, 3, (4, 9), 3, True), 3, 2, 1, ("loss", "depth"), ("depth",),
        {"parameters": 1e21, "latency": 1e-7, "depth": 12.0}, 2, 3, loading,
    )  # fmt: skip
    asked = parse(to_toml(settings))
    dataset = dataset_of(settings)
    assert wished(asked) == replace(settings, space=Space(), recipe=Recipe())
    found, _ = prepared(replace(asked, spaces=()))
    assert found == replace(settings, space=space_for(dataset))
    assert space_from_toml(to_toml(settings)) == settings.space


def test_names_are_written_whatever_they_hold(tmp_path):
    name = 'a "b"\\c\td\x7fé😀.csv'
    (tmp_path / name).write_text("")
    loading = Loading(image=(1, 2, 2), held_out=str(tmp_path / name))
    settings = Settings(str(tmp_path / name), name, None, 0, "random", 1, None, 1, Space(), Recipe(), loading=loading)
    again = wished(parse(to_toml(settings)))
    assert (again.source, again.target, again.loading) == (settings.source, settings.target, loading)


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[search", "f.toml is not TOML: expected ']' at the end of a table declaration"),
        ("[serch]", "f.toml has 'serch' (did you mean 'search'?): its tables are data, search, recipe, space"),
        ("trials = 3", "f.toml has 'trials', which belongs in [search]"),
        ("space = 3", "f.toml has space = 3: write it as a table, [space]"),
        ("space = [1, 2]", "f.toml has space = 1: write it as a table, [space]"),
        ("recipe = 'long'", 'f.toml has recipe = "long": write it as a table, [recipe]'),
        ("[search]\ntrails = 3", "f.toml has 'trails' in [search] (did you mean 'trials'?): its keys are seed, "),
        ("[search]\nmax_blocks = 3", "f.toml has 'max_blocks' in [search], which belongs in [space]"),
        ("[data]\nlag = 3", "f.toml has 'lag' in [data] (did you mean 'lags'?)"),
        ("[recipe]\nepoch = 3", "f.toml has 'epoch' in [recipe] (did you mean 'epochs'?)"),
        ("[[space]]\nwidth = [3]", "f.toml has 'width' in [space] (did you mean 'widths'?)"),
        ("[search]\ntrials = 'many'", 'f.toml has trials = "many" in [search]: it should be a whole number'),
        ("[search]\ntrials = true", "f.toml has trials = true in [search]: it should be"),
        ("[search]\ntrials = 2.0", "f.toml has trials = 2.0 in [search]: it should be"),
        ("[search]\ntime = 2026-01-01", 'f.toml has time = "2026-01-01" in [search]: it should be a number'),
        ("[space]\nwidths = 8", "f.toml has widths = 8 in [space]: it should be a list"),
        (
            "[space]\nwidths = [8, 'x']",
            'f.toml has widths = [8, "x"] in [space]: item 2 of it should be a whole number',
        ),
        ("[space]\nkind = 'dens'", "f.toml has kind = \"dens\" in [space]: it should be 'dense', 'convolution' or"),
        ("[space]\nshortcuts = 'al'", "it should be 'free', 'all', 'sequential', or a list of lists of 0 and 1"),
        ("[space]\nshortcuts = [[0, 'x']]", 'has shortcuts = [[0, "x"]] in [space]: it should be'),
        ("[space]\ndensity = [0.5]", "f.toml has density = [0.5] in [space]: item 2 of it should be there"),
        ("[space]\ndensity = [0, 1, 2]", "f.toml has density = [0, 1, 2] in [space]: it should be shorter"),
        ("[data]\ntarget = 3", "f.toml has target = 3 in [data]: it should be a text"),
        ("[recipe]\nhyperband = 1", "f.toml has hyperband = 1 in [recipe]: it should be true or false"),
        ("[search]\nconstraints = {depth = 3}", "in [search]: it should be a list"),
        ("[search]\nconstraints = ['depth < 3']", "got the constraint 'depth < 3': give a measure and its most"),
        ("[search]\nconstraints = ['dept <= 3']", "no constraint is called 'dept' (did you mean 'depth'?)"),
        ("[search]\nconstraints = ['depth <= 3', 'depth <= 4']", "got two constraints on depth: give one"),
        ("[search]\nobjectives = ['los']", "no objective is called 'los' (did you mean 'loss'?)"),
        ("[search]\nobjectives = []", "got objectives=(): give at least one"),
        ("[search]\nstrategy = 'evolve'", "did you mean 'evolution'"),
        ("[search]\ntrials = 0", "got trials=0: it must be at least 1"),
        ("[search]\nfolds = 0", "got folds=0: it must be at least 1"),
        ("[search]\ntime = nan", "the time must be positive and finite"),
        ("[data]\ntask = 'ranking'", "got the task 'ranking': it is classification or regression"),
        ("[data]\nvalidation = 0.5\ntest = 0.5", "got validation=0.5, test=0.5: both are shares"),
        ("[recipe]\nepochs = 0", "f.toml, [recipe]: got epochs=0: it must be at least 1"),
        ("[recipe]\nwarm_up = 1", "f.toml, [recipe]: got warm_up=1.0: it must be a fraction"),
        ("[space]\nwidths = []", "f.toml, [space]: got widths=(): give a tuple with at least one choice"),
        ("[space]\nactivations = ['rely']", "f.toml, [space]: got activation 'rely': did you mean 'relu'?"),
        (
            "[space]\nkernels = [3]",
            "f.toml, [space]: got kernels without a kind, where the data suggest dense machines alone: only a "
            'convolution has these, so add kind = "convolution"',
        ),
        ("[space]\nlags = [1, 2]", 'only a recurrence has these, so add kind = "recurrence"'),
        ("[space]\nkind = 'convolution'", "f.toml, [space]: got a space of kind 'convolution' for a table"),
        ("[[space]]\nkind = 'recurrence'", "f.toml, [space]: got a space of kind 'recurrence' for a table"),
        ("[[space]]\nkind = 'dense'\n[[space]]", "f.toml, [space]: got several tables of which one has no kind"),
        ("[[space]]\nkind = 'dense'\n[[space]]\nkind = 'dense'", "f.toml, [space]: got spaces of kind dense, dense"),
    ],
)
def test_what_is_refused(text, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
        of(text)
    assert "\n" not in str(raised.value)


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no configuration is at none.toml: give a TOML file"):
        config.read("none.toml")
    with pytest.raises(ValueError, match="is a folder: give a TOML file"):
        config.read(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"[data]\ntarget = '\xe9'")
    with pytest.raises(ValueError, match=r"latin.toml is not TOML: it must be text in UTF-8"):
        config.read(tmp_path / "latin.toml")
    with pytest.raises(ValueError, match="missing DATA: give a bundled name, a file, or a configuration"):
        wished(Config())
    with pytest.raises(ValueError, match=r"without a space: write it as a table, \[space\]"):
        space_from_toml("[search]\ntrials = 3")
