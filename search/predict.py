"""What a saved machine answers to new rows: ``machgraph predict``."""

import csv
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from search.graph.space import GraphSpace
from search.run import ENSEMBLE
from search.show import machine_file


def answer(
    place: str | os.PathLike[str],
    table: str | os.PathLike[str],
    out: TextIO,
    *,
    ensemble: bool = False,
    space: GraphSpace | None = None,
) -> None:
    """Write what a saved machine answers to each row of a table as CSV: the prediction, then a probability a class.

    Before the answers to a series with a column of time is the time that each is of; that after the last has none.
    Levels of categories that no training row had are told on the standard error.

    Parameters
    ----------
    ensemble : whether all finalists of a run answer together: by the mean of their probabilities, or of their values.
    space : of a graph space, that which was searched.

    Raises
    ------
    FileNotFoundError : no such machine or table, or no ensemble in the run's folder.
    ValueError : a machine without an encoder, or a table that its encoder refuses; a graph space that is missing,
        needless or another.
    """
    from search.data.table import listing, shown
    from search.data.table import read as read_table
    from search.data.windows import times_of
    from search.trained import answered, read

    files = [machine_file(place)]
    if ensemble:
        files = sorted(Path(place, ENSEMBLE).glob("*.machgraph"), key=lambda path: int(path.stem))
        if not files:
            raise FileNotFoundError(f"{place} has no ensemble: give the folder of a run that has come to its end")
    members = [read(path, space) for path in files]
    encoder, (frame, _) = members[0].encoder, read_table(table)
    found = answered(members, frame)
    rows: Any = [[value] for value in found.values.tolist()]
    if found.probabilities is not None:
        rows = [row + probabilities for row, probabilities in zip(rows, found.probabilities.tolist(), strict=True)]
    names = [encoder.target, *(f"p({label})" for label in encoder.classes)]
    if encoder.time and encoder.time in frame.columns:
        names, times = [encoder.time, *names], times_of(frame, encoder.time)[encoder.lags :]
        rows = [[time, *row] for time, row in zip([*times, ""], rows, strict=True)]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    if encoder.layout != "pixels" and (unseen := encoder.unseen(frame)):
        each = [f"{shown(name)} ({listing(map(repr, levels), 3)})" for name, levels in unseen.items()]
        print(f"note: no training row had these, so nothing tells them: {listing(each)}", file=sys.stderr)
