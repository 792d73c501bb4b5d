"""How fast: machgraph against what a user would write in its place, each row a ratio that was measured in one run.

The peers: plain torch modules with autograd and a fused AdamW under Optuna, in two processes of one thread each; the
same by ``torch.compile``; ``torch.func.vmap`` over stacked modules of one architecture; ``nn.RNN``; layers on
concatenations; and the limit, which is a step's operations at the rate of a large product of this machine. Contenders
take turns, so that what else the machine does falls on all of them; each figure is a median over the rounds, and the
result holds the quartiles, and for each target whether it is met.

    python -m experiments.speed                    about 5 minutes on 2 cores
    python -m experiments.speed --compile 0        without torch.compile
    python -m experiments.speed --quick            a minute, roughly, and writes no result
    python -m experiments.speed --device cuda      on one GPU, through the stacked populations
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from experiments import speed_search, speed_solve, speed_steps
from experiments.results import FOLDER, write
from experiments.speed_rows import CUDA, QUICK, Effort, Row
from experiments.timing import seconds_of_others, threads

WIDTH = 80
SECTIONS = ("search", "steps", "compile", "machines", "recurrences", "layers", "beginnings", "starts")


def main(
    *,
    device: str = "cpu",
    sections: Sequence[str] = SECTIONS,
    effort: Effort | None = None,
    compile_budget: float = 90.0,
    workers: int = 2,
    tell: Callable[[str], object] = lambda text: None,
) -> dict[str, Any]:
    """Rows by section.

    Parameters
    ----------
    device : ``cpu`` or ``cuda``.
    sections : some of ``SECTIONS``.
    compile_budget : seconds after which ``torch.compile`` is given up; 0: it is left out.
    workers : threads of ours, and processes of plain torch.
    tell : what is told after each section.
    """
    effort = effort or Effort()
    notes: list[str] = []

    def compiling() -> dict[str, list[Row]]:
        rows, told = speed_steps.compiled(effort, device, compile_budget)
        notes.extend(told)
        return {"compile": rows}

    types = (torch.float32, torch.float64) if device == "cpu" else (torch.float32,)
    measure: dict[str, Callable[[], dict[str, list[Row]]]] = {
        "search": lambda: {"search": speed_search.search(effort, device, workers)},
        "steps": lambda: {"steps": speed_steps.steps(effort, device, workers)},
        "compile": compiling,
        "machines": lambda: {
            f"machines, {str(dtype).partition('.')[2]}": speed_solve.machines(effort, device, dtype) for dtype in types
        },
        "recurrences": lambda: {"recurrences": speed_solve.recurrences(effort, device)},
        "layers": lambda: {"layers": speed_solve.layers(effort, device)},
        "beginnings": lambda: {"beginnings": speed_search.beginnings(effort, device)},
        "starts": lambda: {"starts": speed_search.starts(effort, device)},
    }
    rows: dict[str, list[Row]] = {}
    began, others = perf_counter(), seconds_of_others()
    with threads(1):
        for section in sections:
            rows |= measure[section]()
            tell(f"{section}: done after {perf_counter() - began:.0f} s")
    took, after = perf_counter() - began, seconds_of_others()
    others = None if others is None or after is None else round(max(0.0, after - others) / took, 2)
    if others is not None and others > 0.1:
        notes.append(f"Other processes used {others:.1f} cores meanwhile: measure again when the machine is idle.")
    if device != "cpu":  # the targets are those of two cores
        notes.append(
            "Each in torch's default precision: cuDNN's convolutions and nn.RNN may use TF32, machgraph does not."
        )
        rows = {section: [_without_targets(row) for row in of_section] for section, of_section in rows.items()}
    return {
        "device": device,
        "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "workers": workers,
        "cores_used_by_others": others,
        "effort": asdict(effort),
        "sections": rows,
        "missed": missed(rows),
        "seconds": round(took, 1),
        "notes": notes,
    }


def missed(sections: Mapping[str, Sequence[Row]]) -> list[str]:
    """The targets that were not met, each with what was measured."""
    found = []
    for section, rows in sections.items():
        for row in rows:
            for what, value, target in _targets(row):
                if not target["met"]:
                    found.append(
                        f"{section}, {row['row']}{what}: {value:.3g}, to be {target['kind']} {target['bound']:g}"
                    )
    return found


def _without_targets(row: Row) -> Row:
    return {name: None if name.startswith("target") else value for name, value in row.items()}


def _targets(row: Row) -> list[tuple[str, float, Row]]:
    """Each figure of a row that has a target: what it is, its value, the target."""
    value = row["ratio"] if "ratio" in row else row["time"]
    figures = [("", value["median"], row["target"])]
    if "ratio_with_weights" in row:
        figures.append((" with the gradient of W", row["ratio_with_weights"]["median"], row["target_with_weights"]))
        passes = row["backward_over_forward"]["ours"]["median"]
        figures.append((", backward over forward", passes, row["target_of_passes"]))
    return [(what, float(value), target) for what, value, target in figures if target is not None]


# ---- the table ---------------------------------------------------------------------------------------------------

Column = tuple[str, Callable[[Row], str]]


def tables(result: dict[str, Any]) -> list[Table]:
    """A table for each section, at most 80 columns wide."""
    workers, found = result["workers"], []
    for section, rows in result["sections"].items():
        if not rows:
            continue
        title, caption, columns = _section(section, rows, workers)
        shown = Table(
            title=title,
            caption=caption,
            title_justify="left",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            width=WIDTH,
        )
        shown.add_column("", no_wrap=True, ratio=1)
        for name, _ in columns:
            shown.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            shown.add_row(row["row"], *[show(row) for _, show in columns])
        found.append(shown)
    return found


def _section(section: str, rows: Sequence[Row], workers: int) -> tuple[str, str, list[Column]]:
    """Title, caption and columns."""
    if section == "search":
        return (
            "A search: architectures trained a minute, on digits",
            f"Plain torch modules, autograd and AdamW under Optuna, {workers} processes of 1 thread; ours {workers} "
            f"threads. The same {rows[0]['candidates']} architectures, first weights, batches of {rows[0]['batch']} "
            f"and schedule of {rows[0]['epochs']} epochs; Δ: largest difference of validation losses, which are from "
            f"{min(row['losses'][0] for row in rows):.2f} to {max(row['losses'][2] for row in rows):.2f}.",
            [
                ("plain torch", lambda row: _number(60 / _of(row, "plain torch, Optuna"))),
                ("ours", lambda row: _number(60 / _of(row, "ours"))),
                ("ratio", _ratio),
                *_TARGET,
                ("Δ", lambda row: f"{row['loss_difference']['largest']:.0e}"),
            ],
        )
    if section == "steps":
        rate = rows[0]["operations"] / _of(rows[0], "limit") / 1e9
        alone = "ratio_of_one_thread" in rows[0]  # else there are populations of two sizes
        of = f" of {rows[0]['candidates']}" if alone else ""
        columns: list[Column] = [
            ("plain", lambda row: _micro(row, "plain torch, one alone")),
            ("vmap", lambda row: _number(1e6 * min(_of(row, n) for n in row["seconds"] if n.startswith("vmap")))),
            ("ours", lambda row: _micro(row, "ours")),
            ("limit", lambda row: _micro(row, "limit")),
            ("/limit", _ratio),
            *_TARGET,
        ]
        one: list[Column] = [("1 thread", lambda row: f"{row['ratio_of_one_thread']['median']:.2f}×")]
        return (
            f"A training step of a candidate in a population{of}, μs, batch {rows[0]['batch']}",
            "With the optimizer. plain: one network alone in one process and thread. vmap: as many networks of the one "
            f"architecture, with 1 or {workers} threads, the better. ours, limit: {workers} threads. limit: 2WB "
            "operations forward, 2WB for the gradient of W, 2W'B for the dual (W' without the columns of the input), "
            f"at the rate of torch.mm of 1024 × 1024, {rate:.0f} GFLOP/s in the first row; one could also count 6WB.",
            columns + one * alone,
        )
    if section == "compile":
        return (
            "torch.compile of the plain network: time of a step over the uncompiled one's, 1 thread",
            f"It took {rows[0]['compile_seconds']:.0f} s for this one architecture, and each other takes its own.",
            [
                ("plain μs", lambda row: _micro(row, "plain torch")),
                ("compiled μs", lambda row: _micro(row, "torch.compile")),
                ("ratio", _ratio),
            ],
        )
    if section.startswith("machines"):
        return (
            f"Table 1's machines, {rows[0]['dtype']}: forward + backward, μs, 1 thread",
            "To y0 and z0, and with W to all weights, against autograd over concatenations. b/f: ours, backward over "
            f"forward without W; inside: the same less an empty autograd.Function, which takes "
            f"{_micro(rows[0], 'nothing, forward')} forward and {_micro(rows[0], 'nothing, backward')} backward.",
            [
                ("concat.", lambda row: _micro(row, "concatenations")),
                ("ours", lambda row: _micro(row, "ours")),
                ("ratio", _ratio),
                ("with W", lambda row: f"{row['ratio_with_weights']['median']:.2f}×"),
                *_TARGET,
                ("b/f", lambda row: _passes(row)),
                ("inside", lambda row: f"{row['backward_over_forward']['ours_inside_torch']['median']:.2f}"),
            ],
        )
    if section == "recurrences":
        return (
            "A recurrence, forward + backward to all weights, over nn.RNN's time; 1 thread",
            f"The same weights; {rows[0]['inputs']} inputs, batch {rows[0]['batch']}, {rows[0]['steps']} steps; the "
            f"outputs differ by {max(row['largest_difference'] for row in rows):.0e} at most.",
            [
                ("nn.RNN μs", lambda row: _micro(row, "nn.RNN")),
                ("ours μs", lambda row: _micro(row, "ours")),
                ("ratio", _ratio),
                *_TARGET,
            ],
        )
    if section == "layers":
        return (
            "nn.Linear or nn.Conv1d, cat and tanh, with autograd, over our time; 1 thread",
            "Five blocks with all shortcuts, input in the first, output from the last; forward, and backward to all "
            "weights. small and medium: Table 1's sizes; long: 8 channels, batch 32, 64 positions. Outputs differ by "
            f"{max(row['largest_difference'] for row in rows):.0e} at most.",
            [
                ("layers μs", lambda row: _micro(row, "layers")),
                ("ours μs", lambda row: _micro(row, "ours")),
                ("ratio", _ratio),
                *_TARGET,
            ],
        )
    title = {
        "beginnings": "From a new architecture to the end of its first training step, ms",
        "starts": "From the start of a process to the end of its first training step, s",
    }[section]
    return (
        title,
        "Compiled code is loaded from the cache, but for the first time ever, when it is compiled."
        if section == "starts"
        else "Different architectures of the default space for digits, one batch of 64.",
        [
            ("median", lambda row: _number(row["time"]["median"])),
            ("most", lambda row: _number(row["most"])),
            *_TARGET,
        ],
    )


def _of(row: Row, name: str) -> float:
    return float(row["seconds"][name]["median"])


def _micro(row: Row, name: str) -> str:
    return _number(1e6 * _of(row, name))


def _number(x: float) -> str:
    """Three digits or more."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def _ratio(row: Row) -> str:
    return f"{row['ratio']['median']:.2f}×"


def _passes(row: Row) -> str:
    target = row["target_of_passes"]
    mark = "" if target is None else " ✓" if target["met"] else " ✗"
    return f"{row['backward_over_forward']['ours']['median']:.2f}{mark}"


def _target(row: Row) -> str:
    """The bound and, in brackets, the aim."""
    target = row["target"]
    if target is None:
        return ""
    aim = f" ({target['aim']:g})" if target["aim"] is not None else ""
    return f"{'≥' if target['kind'] == 'at least' else '≤'} {target['bound']:g}{aim}"


def _met(row: Row) -> str:
    targets = [row["target"], row.get("target_with_weights")]
    met = [target["met"] for target in targets if target is not None]
    return "" if not met else "✓" if all(met) else "✗"


_TARGET: list[Column] = [("target", _target), ("", _met)]


def command(arguments: Sequence[str] | None = None, out: Path = FOLDER) -> int:
    """What ``python -m experiments.speed`` does."""
    parser = argparse.ArgumentParser(prog="python -m experiments.speed", description="How fast, against whom.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="few rounds and epochs, to try it")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, help="only these")
    parser.add_argument(
        "--compile",
        type=float,
        default=90.0,
        metavar="SECONDS",
        help="after which torch.compile is given up (default 90; 0: without it)",
    )
    parser.add_argument("--workers", type=int, default=2, help="threads of ours, processes of plain torch (default 2)")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("torch finds no CUDA here: run this on a machine with a GPU, or with --device cpu.", file=sys.stderr)
        return 2
    result = main(
        device=given.device,
        sections=given.sections,
        effort=QUICK if given.quick else Effort() if given.device == "cpu" else CUDA,
        compile_budget=given.compile,
        workers=given.workers,
        tell=lambda text: print(text, file=sys.stderr, flush=True),
    )
    console = Console(width=WIDTH)
    for table in tables(result):
        console.print(table)
    for text in result["notes"] + [f"Missed: {text}" for text in result["missed"]]:
        console.print(text, highlight=False)
    if not given.quick and set(given.sections) == set(SECTIONS):
        name = "speed" if given.device == "cpu" else f"speed_{given.device}"
        asked = " --device cuda" if given.device == "cuda" else ""
        console.print(str(write(name, f"python -m experiments.speed{asked}", result, out)))
    return 0


if __name__ == "__main__":
    sys.exit(command())
