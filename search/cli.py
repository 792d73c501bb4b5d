"""The command line. What is heavy is imported inside the commands: ``machgraph --help`` loads no torch."""

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

if TYPE_CHECKING:
    from collections.abc import Sequence

DATA, OUTPUT = "Data", "Output"  # panels of the help
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
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Say nothing of how it goes; results alone.", rich_help_panel=OUTPUT)
]
Json = Annotated[bool, typer.Option("--json", help="The result as one JSON document.", rich_help_panel=OUTPUT)]
Given = Annotated[
    str | None, typer.Option("--space", metavar="MODULE:NAME", help="The graph space of yours that was searched.")
]
Place = Annotated[Path, typer.Argument(metavar="RUN|FILE", help="Folder of a run, or a .machgraph file.")]


def main(arguments: "Sequence[str] | None" = None) -> None:
    """Run the command line; bad input ends in one sentence and exit code 2, a bug in its traceback."""
    try:
        sys.exit(app(arguments, prog_name="machgraph", standalone_mode=False))
    except TyperException as error:  # of words that the command line does not know
        said = re.sub(r"\. Did you mean (.*)\?$", r" (did you mean \1?)", error.format_message().rstrip("."))
        if said:  # without a command, the help has been shown
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
        str | None,
        typer.Argument(metavar="DATA", help="digits, breast_cancer, diabetes, sunspots, or a CSV or Parquet file."),
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML with all of this; flags win.")] = None,
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="What to predict.", rich_help_panel=DATA)] = None,
    task: Annotated[
        str | None, typer.Option(metavar="NAME", help="classification or regression.", rich_help_panel=DATA)
    ] = None,
    transform: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the target: sqrt, log, yeo-johnson.", rich_help_panel=DATA)
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="SIZES", help="Columns are pixels, as 1,28,28.", rich_help_panel=DATA)
    ] = None,
    lags: Annotated[
        int | None, typer.Option(metavar="N", help="A series, each step from N before it.", rich_help_panel=DATA)
    ] = None,
    time_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The order of a series.", rich_help_panel=DATA)
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows for the test, not a share.", rich_help_panel=DATA)
    ] = None,
    trials: Annotated[int | None, typer.Option(metavar="N", help="End after so many trials.")] = None,
    time: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Of searching; the end may take as long again; 30.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="With --trials, repeats the result; 0.")] = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="evolution, tpe, nsga2, random, differentiable.")
    ] = None,
    population: Annotated[int | None, typer.Option(metavar="N", help="Candidates trained together; 8.")] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Processes, a population each; none.")] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Workers on a Ray cluster, as auto.")] = None,
    gpus: Annotated[float | None, typer.Option(metavar="SHARE", help="Of a GPU for each worker there; 0.")] = None,
    folds: Annotated[int | None, typer.Option(metavar="N", help="Of validation; 5 if rows are few.")] = None,
    inherit: Annotated[bool, typer.Option("--inherit", help="Children begin with weights of parents.")] = False,
    space: Annotated[
        str | None, typer.Option(metavar="MODULE:NAME", help="A graph space, nets:space of nets.py.")
    ] = None,
    objective: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="loss, parameters, flops ...; repeatable.")
    ] = None,
    constraint: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="As 'parameters <= 20k'; repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run; runs/NAME, or NAME-2 ...", rich_help_panel=OUTPUT)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be done, as TOML.", rich_help_panel=OUTPUT)
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Search an architecture on DATA, compare it with rivals, and write the run's folder.

    Example: machgraph search iris.csv --target species --time 60
    """
    from search.config import Config, completed, read, to_toml, wished
    from search.data import BUNDLED
    from search.facts import facts_of
    from search.loading import dataset_of
    from search.parallel.workers import manned
    from search.run import free_folder, refuse_used
    from search.storage.database import database
    from search.terminal.progress import known, planned
    from search.terminal.session import print_json, sit, told

    asked = (Config() if config is None else read(config)).over(
        {
            "source": data, "target": target, "task": task, "transform": transform, "image": _sizes(image),
            "lags": lags, "time": time_column, "held_out": held_out and str(held_out),
        },
        {
            "trials": trials, "time": time, "seed": seed, "strategy": strategy, "population": population,
            "workers": workers, "gpus": gpus, "folds": folds, "graph": space, "objectives": objective,
            "constraints": constraint,
        },
        {"inherit": inherit or None},
    )  # fmt: skip
    wish = wished(asked)
    database()  # refuses an address that is none
    wish = wish if dry_run else manned(wish, ray)
    name = wish.source if wish.source in BUNDLED else Path(wish.source).stem
    folder = out or free_folder(Path("runs", name))
    if not dry_run:
        refuse_used(folder)
    dataset = dataset_of(wish)
    wish = completed(wish, asked, dataset)

    import torch

    from search import study
    from search.training import pace

    torch.set_num_threads(wish.threads)
    study.refuse_unfit(wish, dataset)
    facts = facts_of(dataset, wish)
    console = told(quiet=quiet, as_json=as_json)
    console.print(known(wish, facts))
    settings = wish if dry_run else pace.paced(wish, dataset)
    console.print(planned(settings, pace.note(wish, settings)))
    console.print()
    if not dry_run:
        sit(
            folder, settings, facts, lambda listen: study.run(settings, dataset, folder, listen, ray=ray),
            quiet=quiet, as_json=as_json,
        )  # fmt: skip
    elif as_json:
        print_json({"folder": str(folder), "settings": settings.to_dict(), "facts": asdict(facts)})
    else:
        console.print("Nothing is run. What would be, as a file for --config:\n")
        print(to_toml(settings), end="")


@app.command()
def resume(
    run: Run,
    trials: Annotated[
        int | None, typer.Option(metavar="N", help="So many trials more, whatever the limits were.")
    ] = None,
    time: Annotated[float | None, typer.Option(metavar="SECONDS", help="So much searching more.")] = None,
    space: Given = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Go on with workers on this Ray cluster.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Go on with a search that was stopped, exactly as it would have gone on; or extend one that has ended.

    At the end of an extended one the held-out part is looked at again, and it is said how often that was.

    Example: machgraph resume runs/digits --time 60
    """
    from search.run import RUN, read_facts, read_settings

    if not (run / RUN).exists():
        from search.storage.store import restore

        restore(run)
    settings, facts = read_settings(run), read_facts(run)

    from search import study
    from search.graph.named import given
    from search.terminal.session import sit

    nets = given(space)
    sit(
        run, settings, facts,
        lambda listen: study.resume(run, listen, space=nets, trials=trials, seconds=time, ray=ray),
        quiet=quiet, as_json=as_json,
    )  # fmt: skip


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
    html: Annotated[bool, typer.Option("--html", help="The graph as a page to look around in; FILE.html.")] = False,
) -> None:
    """Draw a machine, and tell its order, levels and depth cofiltration.

    A description is JSON such as {"widths": [64, 32, 10], "activation": "relu", "shortcuts": null}.

    Example: machgraph show runs/digits --out net.svg
    """
    from search.show import describe, draw, picture_file, read_machine
    from search.terminal.progress import labelled, terminal

    machine = read_machine(place)
    picture = picture_file(place, out, page=html)
    draw(machine, picture)
    terminal().print(labelled([*describe(machine), ("picture", str(picture))]))


@app.command()
def predict(
    place: Place,
    table: Annotated[Path, typer.Argument(metavar="NEW.csv", help="A CSV or Parquet file with the same columns.")],
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="All finalists of the run answer together, not the winner alone.")
    ] = False,
    space: Given = None,
) -> None:
    """Answer every row of a table, as CSV on the standard output: the answer, and for classes their probabilities.

    Of a series: every step that has enough before it, with its time, and the next one after the last.

    Example: machgraph predict runs/digits new.csv > answers.csv
    """
    from search.graph.named import given
    from search.predict import answer

    answer(place, table, sys.stdout, ensemble=ensemble, space=given(space))


@app.command()
def export(
    place: Place,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ends in .pt2, .onnx, .py or .machgraph; best.pt2 if not given.")
    ] = None,
    space: Given = None,
) -> None:
    """Write the best machine as a program that runs without machgraph.

    From the features of rows to what predict says of them; how features are made of columns is in the file as JSON. A
    .py file is plain torch to be read, from the cells of a table on; its weights are beside it.

    Example: machgraph export runs/digits --out digits.onnx
    """
    from search.export.program import export
    from search.graph.named import given

    print(export(place, out, space=given(space)))


@app.command()
def dashboard(
    run: Run,
    port: Annotated[int, typer.Option(metavar="N", help="Of this machine; 0 for any that is free.")] = 8080,
) -> None:
    """Open optuna-dashboard on a copy of a run's trials, with a picture of each network; Ctrl-C ends it.

    Only this machine can see it. Trials that are finished later are in it when it is started again.

    Example: machgraph dashboard runs/digits
    """
    import optuna

    from search.dashboard import HOST, serving

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with serving(run, port) as server:
        print(f"http://{HOST}:{server.server_port}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # that is how it ends
            print()


def _sizes(text: str | None) -> tuple[int, ...] | None:
    """Channels and extents, as in 1,28,28 or 1x28x28."""
    if text is None:
        return None
    try:
        return tuple(map(int, text.lower().replace("x", ",").split(",")))
    except ValueError:
        raise ValueError(f"got the image {text!r}: give channels, then the extent of each axis, as 1,28,28") from None


if __name__ == "__main__":
    main()
