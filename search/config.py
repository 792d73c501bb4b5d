"""A search written down in TOML: the tables data, search, recipe and space, of which each key may be left out.

``docs/config.md`` has all the keys. They are the parameters of ``search.loading.Loading``, ``search.record.Settings``,
``search.recipe.Recipe`` and ``search.space.Space``, so that nothing can be asked for here alone, or there alone.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from search.data import BUNDLED
from search.data.parts import Dataset
from search.data.table import nearest
from search.defaults import default_folds, default_recipe, space_for, space_of_kind, transforms_for
from search.graph.named import named_space
from search.graph.space import GraphSpace
from search.loading import Loading, dataset_of, is_loadable
from search.objectives import limit, refuse_unknown
from search.one_of import AnySpace, OneOf
from search.recipe import Recipe, rungs_of
from search.record import Settings
from search.space import OWNERS, Space

SECONDS = 30.0  # of searching when no limit is given: with all the rest a search ends within a minute
USUAL: Mapping[str, Any] = {"seed": 0, "strategy": "evolution", "population": 8}
ON_GPUS = 64  # candidates in one tensor program: small machines leave a GPU idle else

_SETTINGS = get_type_hints(Settings)
_GIVEN = ("source", "target", "task")  # settings that belong to the data
_OWN = {*_GIVEN, "loading", "recipe", "space"}
_RENAMED = {"seconds": "time"}  # as the command line calls it

KEYS: Mapping[str, Mapping[str, Any]] = {  # of each table: the keys and their types
    "data": {**{name: _SETTINGS[name] for name in _GIVEN}, **get_type_hints(Loading)},
    "search": {_RENAMED.get(name, name): hint for name, hint in _SETTINGS.items() if name not in _OWN}
    | {"constraints": tuple[str, ...]},
    "recipe": get_type_hints(Recipe),
    "space": get_type_hints(Space),
}
WISHES: Mapping[str, str] = {  # of pydantic's types of errors
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "missing": "there",
    "too_long": "shorter",
}
SHORTCUTS = "'free', 'all', 'sequential', or a list of lists of 0 and 1"


@dataclass(frozen=True)
class Config:
    """What a search is asked for; all that is left out follows from the data, or is usual.

    Parameters
    ----------
    data, search, recipe : keys and values of the tables.
    spaces : one table, or one for each kind of machine.
    place : where they stand, for sentences about them.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    spaces: tuple[Mapping[str, Any], ...] = ()
    place: str = "the configuration"

    def over(
        self, data: Mapping[str, Any], search: Mapping[str, Any], recipe: Mapping[str, Any] | None = None
    ) -> "Config":
        """The same with these in place of what was there; ``None`` and empty lists stand for nothing.

        >>> Config(search={"trials": 9, "seed": 3}).over({}, {"trials": 20, "seed": None}).search
        {'trials': 20, 'seed': 3}
        """

        def merged(before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
            return {**before, **{name: value for name, value in given.items() if value not in (None, [])}}

        return replace(
            self,
            data=merged(self.data, data),
            search=merged(self.search, search),
            recipe=merged(self.recipe, recipe or {}),
        )


# ---- reading ---------------------------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> Config:
    """The configuration in a TOML file; files that it names are looked for beside it.

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : no TOML, an unknown table or key (with the nearest name), or a value of another type.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"no configuration is at {path}: give a TOML file, as docs/config.md has it") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder: give a TOML file, as docs/config.md has it") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not TOML: it must be text in UTF-8") from None
    config = parse(text, str(path))
    data = {
        name: str(path.parent / value) if name in ("source", "held_out") and _is_path(value) else value
        for name, value in config.data.items()
    }
    return replace(config, data=data)


def parse(text: str, place: str = "the configuration") -> Config:
    """The configuration in a text; ValueError as of ``read``.

    >>> parse("[search]\\ntrails = 8")
    Traceback (most recent call last):
    ValueError: the configuration has 'trails' in [search] (did you mean 'trials'?): its keys are seed, strategy, ...
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{place} is not TOML: {str(error)[:1].lower()}{str(error)[1:]}") from None
    for name in tables:
        if name not in KEYS:
            owner = next((table for table, keys in KEYS.items() if name in keys), None)
            hint = nearest(name, KEYS) if owner is None else f", which belongs in [{owner}]"
            raise ValueError(f"{place} has {name!r}{hint}: its tables are {', '.join(KEYS)}")
    spaces = tables.pop("space", [])
    found = {name: _checked(table, name, place) for name, table in tables.items()}
    several = spaces if isinstance(spaces, list) else [spaces]
    return Config(**found, spaces=tuple(_checked(space, "space", place) for space in several), place=place)


def _checked(table: Any, name: str, place: str) -> dict[str, Any]:
    """The values of a table, lists as tuples."""
    if not isinstance(table, dict):
        raise ValueError(f"{place} has {name} = {_shown(table)}: write it as a table, [{name}]")
    return {key: _typed(value, key, name, place) for key, value in table.items()}


def _typed(value: Any, key: str, name: str, place: str) -> Any:
    """The value as the type of the key has it: JSON's strictness is TOML's, with whole numbers where any may stand."""
    from pydantic import TypeAdapter, ValidationError

    if key not in KEYS[name]:
        owner = next((table for table, keys in KEYS.items() if key in keys), None)
        hint = nearest(key, KEYS[name]) or (f", which belongs in [{owner}]" if owner else "")
        raise ValueError(f"{place} has {key!r} in [{name}]{hint}: its keys are {', '.join(KEYS[name])}")
    try:
        return TypeAdapter(KEYS[name][key]).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        item = "".join(f"item {index + 1} of " for index in reversed(first["loc"]) if isinstance(index, int))
        wish = WISHES.get(first["type"]) or first["msg"].removeprefix("Input should be ")
        if key == "shortcuts":
            item, wish = "", SHORTCUTS
        raise ValueError(f"{place} has {key} = {_shown(value)} in [{name}]: {item}it should be {wish}") from None


def _shown(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def _is_path(value: str) -> bool:
    """Whether it can only be a file: a bundled name is none, nor a slip in one."""
    return bool(Path(value).suffix) or os.sep in value


# ---- what is asked for, with what follows from the data --------------------------------------------------------------


def prepared(config: Config) -> tuple[Settings, Dataset]:
    """The settings of a search and its data, for ``search.study.run``.

    Raises
    ------
    ValueError : what does not fit together, or not the data, each in a sentence of its own.
    FileNotFoundError, ImportError : as of ``search.data.load``.

    Examples
    --------
    >>> settings, dataset = prepared(parse('data.source = "sunspots"\\nspace.max_blocks = 2'))
    >>> settings.space.kind, settings.space.max_blocks, settings.seconds
    ('dense', 2, 30.0)
    """
    wish = wished(config)
    dataset = dataset_of(wish)
    return completed(wish, config, dataset), dataset


def wished(config: Config) -> Settings:
    """The settings as far as they are known without the data, so that what is wrong is told before these are read.

    A graph space is imported by its name, which only who asks for the search has given.
    """
    usual = {**USUAL, "population": ON_GPUS} if config.search.get("gpus") else USUAL
    data, search = dict(config.data), {**usual, **config.search}
    if "source" not in data:
        raise ValueError("missing DATA: give a bundled name, a file, or a configuration whose [data] has a source")
    source, target, task = str(data.pop("source")), data.pop("target", None), data.pop("task", None)
    if task not in (None, "classification", "regression"):
        raise ValueError(f"got the task {task!r}: it is classification or regression, or left out to be inferred")
    if is_loadable(source) and source not in BUNDLED and Path(source).exists():
        source = str(Path(source).resolve())  # found again from anywhere
    if (held_out := data.get("held_out")) is not None:
        data["held_out"] = str(Path(held_out).resolve())
    trials, seconds = search.pop("trials", None), search.pop("time", None)
    if trials is None and seconds is None:
        seconds = SECONDS
    constraints: dict[str, float] = {}
    for text in search.pop("constraints", ()):
        measure, most = limit(text)
        if measure in constraints:
            raise ValueError(f"got two constraints on {measure}: give one")
        constraints[measure] = most
    graph = search.get("graph")
    if graph is not None and config.spaces:
        raise ValueError(f"got the graph space {graph!r} and a [space] of {config.place}: leave one of the two out")
    settings = Settings(
        source, target, task,
        **search, trials=trials, seconds=seconds, constraints=constraints,
        space=Space() if graph is None else named_space(graph), recipe=Recipe(), loading=Loading(**data),
    )  # fmt: skip
    refuse_unknown(settings.objectives, "objective", ("loss",))
    from search.suggest import sampler  # which takes a while to import

    sampler(settings.strategy, seed=settings.seed, space=settings.space)  # refuses what it does not know
    return settings


def completed(wish: Settings, config: Config, dataset: Dataset) -> Settings:
    """The settings with space, recipe and folds: as asked for, and as the data suggest where nothing is asked."""
    rows = len(dataset.train)
    recipe, asked = default_recipe(rows), dict(config.recipe)
    if "epochs" in asked:  # halved where that length is; a number that is none is refused below
        asked.setdefault("rungs", rungs_of(max(1, asked["epochs"])))
    with _of_table("recipe", config.place):
        recipe = replace(recipe, **asked)
    with _of_table("space", config.place):
        space = wish.space if wish.graph is not None else _space(config.spaces, dataset)
    folds = min(default_folds(rows, has_validation=len(dataset.validation) > 0), dataset.most_folds)
    return replace(wish, space=space, recipe=recipe, folds=config.search.get("folds", folds))


def _space(tables: tuple[Mapping[str, Any], ...], dataset: Dataset) -> AnySpace:
    """The default space, changed.

    A single table without a kind changes all kinds of the default, each in the fields that it has; one with a kind is
    the only kind that is searched.
    """
    default = space_for(dataset)
    if not tables:
        return default
    if len(tables) == 1 and "kind" not in tables[0]:
        assert not isinstance(default, GraphSpace)  # of data it never is
        spaces = default.spaces if isinstance(default, OneOf) else (default,)
        kinds = {space.kind for space in spaces}
        for name in tables[0]:
            if (owner := OWNERS.get(name, spaces[0].kind)) not in kinds:
                raise ValueError(
                    f"got {name} without a kind, where the data suggest {' and '.join(sorted(kinds))} machines alone: "
                    f'only a {owner} has these, so add kind = "{owner}", or leave them out'
                )
        changed = []
        for space in spaces:
            others = {name for name, kind in OWNERS.items() if kind in kinds - {space.kind}}
            changed.append(replace(space, **{name: value for name, value in tables[0].items() if name not in others}))
    elif not all("kind" in table for table in tables):
        raise ValueError('got several tables of which one has no kind: give each its own, as kind = "dense"')
    else:
        parts = dataset.shape, len(dataset.train), transforms_for(dataset)
        changed = [replace(space_of_kind(table["kind"], *parts), **table) for table in tables]
    _refuse_unknown_activations(changed)
    return changed[0] if len(changed) == 1 else OneOf(tuple(changed))


def _refuse_unknown_activations(spaces: list[Space]) -> None:
    from machgraph.activation import as_activation  # here, for it imports torch

    for name in {name for space in spaces for name in space.activations}:
        as_activation(name)


@contextmanager
def _of_table(name: str, place: str) -> Iterator[None]:
    """What is wrong with values is told with where they stand."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}, [{name}]: {error}") from None


# ---- writing ---------------------------------------------------------------------------------------------------------


def is_written(settings: Settings) -> bool:
    """Whether ``to_toml`` can write it: its data can be loaded again, and its space is of machines alone, or named."""
    return is_loadable(settings.source) and (settings.graph is not None or isinstance(settings.space, Space | OneOf))


def to_toml(settings: Settings) -> str:
    """A search as a text that ``read`` takes, in every key."""
    loading, names = settings.loading, [name for name in _SETTINGS if name not in _OWN]
    source = settings.source
    files: dict[str, Any] = {"source": str(Path(source).resolve()) if _is_path(source) else source}
    if loading.held_out is not None:
        files["held_out"] = str(Path(loading.held_out).resolve())
    data = {name: getattr(settings, name) for name in _GIVEN} | loading.options() | files
    search = {_RENAMED.get(name, name): getattr(settings, name) for name in names}
    search["constraints"] = [
        f"{name} <= {int(most) if most == int(most) else most!r}" for name, most in settings.constraints.items()
    ]
    recipe = {one.name: getattr(settings.recipe, one.name) for one in fields(Recipe)}
    tables = [("[data]", data), ("[search]", search), ("[recipe]", recipe)]
    space = "" if settings.graph is not None else "\n" + space_to_toml(settings.space)
    return "\n".join(_table(title, values) for title, values in tables) + space


def space_to_toml(space: AnySpace) -> str:
    """A space as text, one table for each kind of machine; ``space_from_toml`` reads it back.

    >>> print(space_to_toml(Space(max_blocks=2)).splitlines()[1])
    max_blocks = 2
    """
    if isinstance(space, GraphSpace):
        raise ValueError("got a graph space, whose modules Python makes: TOML can't hold it")
    spaces = space.spaces if isinstance(space, OneOf) else (space,)
    title = "[space]" if len(spaces) == 1 else "[[space]]"
    return "\n".join(
        _table(
            title,
            {one.name: getattr(part, one.name) for one in fields(part) if OWNERS.get(one.name, part.kind) == part.kind},
        )
        for part in spaces
    )


def space_from_toml(text: str) -> AnySpace:
    """The space in a text; what is left out is as ``Space`` has it. ValueError: as of ``parse``, or there is none."""
    config = parse(text)
    if not config.spaces:
        raise ValueError("got a text without a space: write it as a table, [space]")
    with _of_table("space", config.place):
        spaces = tuple(Space(**table) for table in config.spaces)
        return spaces[0] if len(spaces) == 1 else OneOf(spaces)


def _table(title: str, values: Mapping[str, Any]) -> str:
    """TOML writes numbers, texts and flat lists as JSON does, but for one character; what is not set is a comment."""
    lines = [
        f"# {name} = (not set)" if value is None else f"{name} = {_shown(value)}" for name, value in values.items()
    ]
    return "\n".join([title, *lines, ""]).replace("\x7f", "\\u007f")
