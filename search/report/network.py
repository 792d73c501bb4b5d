"""The machine of a report: its graph in two forms, its shortcuts, and the steps in which it is solved."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from machgraph import cofiltration, graph
from machgraph.naming import indexed
from machgraph.partition import Mask, lag_words
from search.report.diagrams import Diagram, block_diagram, block_name, machine_diagram

if TYPE_CHECKING:
    import networkx as nx

FORMS = ("wide", "tall")  # for the two widths of page
STAIRS = 300  # px, that all V_i take if they can: what fits a narrow page beside the names
NARROW, WIDE = 13, 28  # px, from one V_i to the next
ROW = 24  # px


def network(machine: Any) -> dict[str, Any]:
    """What the template is told of a machine. A recurrence is shown by one turn of its loop over time.

    An architecture of a graph space has no blocks.
    """
    from machgraph.architecture import Architecture  # here, for torch takes seconds to import

    if isinstance(machine, Architecture):
        turn = machine.graph
        graphs = _forms(*(machine_diagram(turn, down=form == "tall") for form in FORMS))
        told = {"lagged": False, "count": len(turn), "depth": machine.depth, "blocks": None, "mask": None}
        return {**told, "machines": graphs, "stairs": stairs(turn), "steps": steps(turn)}
    lagged = machine.shortcuts.ndim == 3
    architecture = machine.architecture
    turn = architecture.turn if lagged else architecture.graph
    activations = [activation.name for activation in machine.activation]
    widths, mask = machine.partition.widths, machine.shortcuts
    return {
        "lagged": lagged,
        "count": len(turn),
        "depth": architecture.depth,
        "blocks": _forms(*(block_diagram(widths, activations, mask, down=form == "tall") for form in FORMS)),
        "machines": _forms(*(machine_diagram(turn, down=form == "tall") for form in FORMS)),
        "stairs": stairs(turn),
        "mask": _mask(mask),
        "steps": steps(turn),
    }


def _forms(wide: Diagram, tall: Diagram) -> dict[str, Diagram]:
    """One for both widths where they do not differ."""
    return {"both": wide} if wide == tall else {"wide": wide, "tall": tall}


def steps(turn: "nx.DiGraph[str]") -> dict[str, Any]:
    """How the resolvent is computed, ``R_f = R_fn ... R_f1``, as the page's script plays it.

    Returns
    -------
    ``machines``: name, spelling, level, and the numbers of the components that it reads and writes, in the order of
    execution; ``components``: name, and after how many steps it is final, 0 for what is given; ``levels``: after how
    many steps all machines up to each level have run, so that from there on ``V_i`` holds what is not known.
    """
    order, rows = graph.order(turn), graph.levels(turn)
    level = {name: i for i, row in enumerate(rows, 1) for name in row}
    place = {name: i for i, name in enumerate(order, 1)}
    components = [component for component, _ in last_writers(turn)]
    number = {component: i for i, component in enumerate(components)}
    final = dict.fromkeys(components, 0)
    for name in order:
        final |= dict.fromkeys(turn.nodes[name]["writes"], place[name])

    def numbers(name: str, key: str) -> list[int]:
        return [number[component] for component in turn.nodes[name][key]]

    done, after = 0, []
    for row in rows:
        done = max(done, *(place[name] for name in row))
        after.append(done)
    return {
        "machines": [
            [name, indexed(name), level[name], numbers(name, "reads"), numbers(name, "writes")] for name in order
        ],
        "components": [[indexed(component), final[component]] for component in components],
        "levels": after,
    }


def last_writers(turn: "nx.DiGraph[str]") -> list[tuple[str, int]]:
    """The components, and the level of the last machine that writes each: it is in ``V_i`` for all lower ``i``."""
    writes = {name: turn.nodes[name]["writes"] for name in turn}
    chain = cofiltration.cofiltration(graph.levels(turn), writes)
    components = dict.fromkeys(c for name in turn for key in ("reads", "writes") for c in turn.nodes[name][key])
    return sorted(((c, sum(c in v for v in chain)) for c in components), key=lambda item: item[1])


def stairs(turn: "nx.DiGraph[str]") -> dict[str, Any]:
    """The cofiltration as bars: a component, in rows, is in ``V_i`` as far as its bar goes."""
    rows = last_writers(turn)
    depth = len(graph.levels(turn))
    wide = min(max(STAIRS // (depth + 1), NARROW), WIDE)
    left = 7.2 * max(len(indexed(component)) for component, _ in rows) + 30  # of letters, and the sign before them
    every = next(step for step in (1, 2, 5, 10, 20, 50, 100) if step * wide >= 26)
    return {
        "left": left,
        "wide": wide,
        "row": ROW,
        "width": left + wide * (depth + 1) + 4,
        "height": ROW * (len(rows) + 1),
        "columns": [i for i in range(depth + 1) if i % every == 0],
        "depth": depth,
        "rows": [(indexed(component), last) for component, last in rows],
        "sizes": [sum(last > i for _, last in rows) for i in range(depth + 1)],
    }


def _mask(mask: Mask) -> dict[str, Any]:
    lagged = mask if mask.ndim == 3 else mask[None]
    mask = lagged.max(axis=0)
    names = [block_name(i, len(mask)) for i in range(len(mask))]

    def cell(i: int, j: int) -> tuple[str, str, str]:
        if not mask[i, j] and (i <= j if len(lagged) == 1 else i == 0 or j == len(mask) - 1):
            return "never", "", ""
        lags = lagged[:, i, j]
        kind = "off" if not mask[i, j] else "next" if i == j + 1 and lags[0] else "on"
        at = f" at {lag_words(lags)}" if lags[1:].any() else ""
        said = f"{names[i]} {'hears' if mask[i, j] else 'does not hear'} {names[j]}{at}"
        return kind, said, said if mask[i, j] else "no"

    short = [{"input": "in", "output": "out"}.get(name, str(i)) for i, name in enumerate(names)]
    rows: Sequence[Any] = [(name, [cell(i, j) for j in range(len(mask))]) for i, name in enumerate(names)]
    return {"columns": list(zip(names, short, strict=True)), "rows": rows}
