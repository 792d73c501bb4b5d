"""The command line. What is heavy is imported inside the commands: ``machgraph --help`` loads no torch."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from search.run import Facts, Settings
    from search.study import Event, Result

SECONDS = 30.0  # of searching when no limit is given: with all the rest the command ends within a minute
OWN = ("machgraph", "search")  # packages whose errors are sentences for the user
BAD_INPUT = (ValueError, ImportError, OSError)

app = typer.Typer(
    name="machgraph",
    help="Search for an architecture with shortcuts on your data.\n\nBegin with: machgraph search digits",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, as runs/digits.")]
Place = Annotated[Path, typer.Argument(metavar="RUN|FILE", help="Folder of a run, or a .machgraph file.")]


def main(arguments: "Sequence[str] | None" = None) -> None:
    """Run the command line; bad input ends in one sentence and exit code 2, a bug in its traceback."""
    try:
        sys.exit(app(arguments, prog_name="machgraph", standalone_mode=False))
    except TyperException as error:  # of words that the command line does not know
        if said := error.format_message().rstrip("."):  # without a command, the help has been shown
            print(f"machgraph: {said[0].lower()}{said[1:]}: see machgraph --help", file=sys.stderr)
        sys.exit(error.exit_code)
    except BAD_INPUT as error:
        if not _is_said_by_us(error):
            raise
        print(f"machgraph: {_sentence(error)}", file=sys.stderr)
        sys.exit(2)


def _is_said_by_us(error: Exception) -> bool:
    """Whether the error was raised in our own code, or comes from the operating system: anything else is a bug."""
    if isinstance(error, OSError):
        return True
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_globals["__name__"].split(".")[0] in OWN


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _version(wanted: bool) -> None:
    if wanted:
        import machgraph

        print(f"machgraph {machgraph.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """See the app's help."""


@app.command()
def search(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="digits, breast_cancer, diabetes, sunspots, or a CSV or Parquet file."),
    ],
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="What to predict; a file needs it.")] = None,
    task: Annotated[
        str | None, typer.Option(help="classification or regression; inferred from the target if not given.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="End after so many trials.")] = None,
    time: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help=f"End after so much searching; {SECONDS:.0f} if no limit is given."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed and --trials give the same result.")] = 0,
    strategy: Annotated[str, typer.Option(metavar="NAME", help="evolution, tpe, nsga2 or random.")] = "evolution",
    population: Annotated[int, typer.Option(help="Candidates trained together.")] = 8,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run's folder; runs/NAME, or NAME-2 ... if not given.")
    ] = None,
) -> None:
    """Search an architecture on DATA, compare it with rivals, and write the run's folder.

    Example: machgraph search iris.csv --target species --time 60
    """
    from search.data import BUNDLED, load
    from search.defaults import default_folds, default_recipe, space_for
    from search.facts import facts_of
    from search.progress import heading, terminal
    from search.run import Settings, free_folder, refuse_used
    from search.space import Space
    from search.suggest import sampler

    path = Path(data)
    folder = out or free_folder(Path("runs", data if data in BUNDLED else path.stem))
    refuse_used(folder)
    if task not in (None, "classification", "regression"):
        raise ValueError(f"got --task {task}: it is classification or regression, or left out to be inferred")
    sampler(strategy, seed=seed, space=Space())  # refuses what it does not know, before anything is read
    source = str(path.resolve()) if data not in BUNDLED and path.exists() else data
    dataset = load(source, target, seed, task=task)  # type: ignore[arg-type]  # it is one of the two
    space = space_for(dataset)
    seconds = SECONDS if trials is None and time is None else time
    recipe = default_recipe(len(dataset.train))
    folds = default_folds(len(dataset.train))
    wish = Settings(source, target, task, seed, strategy, trials, seconds, population, space, recipe, folds)

    import torch

    from search import pace, study

    torch.set_num_threads(wish.threads)
    settings = pace.paced(wish, dataset)
    facts = facts_of(dataset, settings)
    terminal().print(heading(settings, facts, pace.told(wish, settings)))
    _searching(folder, settings, facts, lambda listen: study.run(settings, dataset, folder, listen))


@app.command()
def resume(
    run: Run,
    trials: Annotated[int | None, typer.Option(help="So many trials more, whatever the limits were.")] = None,
    time: Annotated[float | None, typer.Option(metavar="SECONDS", help="So much searching more.")] = None,
) -> None:
    """Go on with a search that was stopped, exactly as it would have gone on; or extend one that has ended.

    Example: machgraph resume runs/digits --time 60
    """
    from search.run import read_facts, read_settings

    settings, facts = read_settings(run), read_facts(run)

    from search import study

    _searching(run, settings, facts, lambda listen: study.resume(run, listen, trials=trials, seconds=time))


@app.command()
def report(run: Run) -> None:
    """Write report.html and the pictures of a run anew, from what its folder holds.

    Example: machgraph report runs/digits
    """
    from search.report import write

    print(write(run))


@app.command()
def show(
    place: Annotated[
        Path, typer.Argument(metavar="RUN|FILE", help="Folder of a run, a .machgraph file, or a description in JSON.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PICTURE",
            help="A picture, as net.svg, or the graph, as net.dot or net.graphml; FILE.svg if not given.",
        ),
    ] = None,
) -> None:
    """Draw a machine, and tell its order, levels and depth cofiltration.

    A description is JSON such as {"widths": [64, 32, 10], "activation": "relu", "shortcuts": null}.

    Example: machgraph show runs/digits --out net.svg
    """
    from search.progress import labelled, terminal
    from search.show import describe, draw, machine_file, read_machine

    machine = read_machine(place)
    picture = out or machine_file(place).with_suffix(".svg")
    draw(machine, picture)
    terminal().print(labelled([*describe(machine), ("picture", str(picture))]))


@app.command()
def predict(
    place: Place,
    table: Annotated[Path, typer.Argument(metavar="NEW.csv", help="A CSV or Parquet file with the same columns.")],
) -> None:
    """Answer every row of a table, as CSV on the standard output: the answer, and for classes their probabilities.

    Example: machgraph predict runs/digits new.csv > answers.csv
    """
    from search.show import answer

    answer(place, table, sys.stdout)


def _searching(
    folder: Path, settings: "Settings", facts: "Facts", search: "Callable[[Callable[[Event], None]], Result]"
) -> None:
    """Search before the user's eyes, then write and say what was found."""
    import optuna
    import torch

    from search import progress
    from search.report import write

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(settings.threads)
    console, last = progress.terminal(), list["Event"]()
    console.print()
    try:
        with progress.shown(console, facts, settings.recipe.epochs) as listen:

            def on_event(event: "Event") -> None:
                last[:] = [event]
                listen(event)

            result = search(on_event)
        if result.records:
            write(folder)
    except KeyboardInterrupt:
        print(progress.stopped(folder, last[-1] if last else None), file=sys.stderr)
        raise typer.Exit(130) from None
    console.print(progress.ending(result, console.width))


if __name__ == "__main__":
    main()
