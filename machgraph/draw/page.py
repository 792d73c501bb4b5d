"""A dependency graph as a page of its own: groups that open and close, levels, zoom, search."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import networkx as nx

from machgraph.cofiltration import cofiltration
from machgraph.draw.canvas import COLOURS, FONT, graph_of, levels_of, width
from machgraph.draw.sketch import broken
from machgraph.graph import forward, levels
from machgraph.grouping import Group, Part, between, cut, machines_of, modules, tree
from machgraph.layout import layered, transposed
from machgraph.naming import indexed

HERE = Path(__file__).parent
IN, OUT = -1, -2  # where lines enter and leave a group
SCALE = 12.5 / FONT  # a page's letters are larger than a picture's
LINE, PAD, DOT = 16.0, 7.0, 7.0  # px: from one line of a name to the next, around it, and where lines enter a group
BOLD, SIGN = 1.1, 14.0  # how much wider the letters of groups are, and the sign before them is


def html(architecture: Any, title: str | None = None) -> str:
    """The dependency graph as one HTML page, which asks the network for nothing: to be written to a file and opened.

    Groups of machines, by module (``layer1.0.conv1``) or else by neighbourhood, open and close; levels of the depth
    cofiltration are bands; who reads and writes what is told of what is pointed at; names are searched for; all of it
    by mouse, touch or keyboard.

    Parameters
    ----------
    architecture : an architecture, a parametric machine, or a graph as ``dependency_graph`` takes it.
    title : of the page; by default the kind of the architecture.

    Raises
    ------
    TypeError : neither an architecture nor a graph.

    Examples
    --------
    >>> page = html(nx.DiGraph([("encoder.0", "encoder.1"), ("encoder.1", "head")]), title="Two modules")
    >>> page.splitlines()[0], "<title>Two modules</title>" in page
    ('<!doctype html>', True)
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    graph = graph_of(architecture)
    environment = Environment(loader=PackageLoader("machgraph.draw", "."), autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "ensure_ascii": False}
    script = asset("theme.js") + asset("page.js")
    depth = len(levels(forward(graph)))
    return environment.get_template("page.html.jinja").render(
        title=title or type(architecture).__name__,
        says=f"{len(graph):,} machine{'s' * (len(graph) != 1)}, depth {depth}",
        style=asset("theme.css") + asset("page.css"),
        script=script,
        script_hash=f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'",
        data=described(graph),
    )


def asset(name: str) -> str:
    """The text of a file beside this one; the theme is also that of a run's report."""
    return (HERE / name).read_text(encoding="utf-8")


def described(graph: "nx.DiGraph[str]") -> dict[str, Any]:
    """What the page's script is told.

    Returns
    -------
    ``parts``: for each machine and group, the whole first, its ``name``, short ``lines`` of it, its ``parent``, first
    and last ``level``, and ``reads`` and ``writes``; for a group also its ``frame``: its size, the box ``[part, x, y,
    width, height]`` of each member, ``lines`` as ``[from, to, count, points]`` between numbers of parts (-1: what comes
    in, -2: what goes out), and ``rows``, ``[top, bottom, first level, last level]``. ``edges``: pairs of machines.
    ``back``: those that go back in time, with their lags. ``left``: how many components are in each ``V_i``. ``open``:
    the groups that are open at first.
    """
    ahead, level = forward(graph), levels_of(graph)
    root = tree(graph)
    number: dict[Part, int] = {}
    parts: list[dict[str, Any]] = []
    _add(ahead, root, -1, level, number, parts)
    for part, i in list(number.items()):
        if isinstance(part, Group):
            parts[i]["frame"] = _frame(ahead, part, number, parts, whole=part is root)
    writes = {name: graph.nodes[name].get("writes", ()) for name in graph}
    shown = cut(root, "auto")
    opened = [i for part, i in number.items() if isinstance(part, Group) and _holds(part, shown)]
    back = [(a, b) for a, b in graph.edges if not ahead.has_edge(a, b)]
    return {
        "parts": parts,
        "edges": [(number[a], number[b]) for a, b in ahead.edges],
        "back": [(number[a], number[b], graph.edges[a, b].get("words", "")) for a, b in back],
        "left": [len(v) for v in cofiltration(levels(ahead), writes)],
        "open": opened,
        "colours": COLOURS,
    }


def _holds(group: Group, shown: Sequence[Part]) -> bool:
    """Whether the group is above the parts that are shown."""
    inside = set(group.machines)
    return group not in shown and any(machines_of(part)[0] in inside for part in shown)


def _add(
    graph: "nx.DiGraph[str]",
    part: Part,
    parent: int,
    level: Mapping[str, int],
    number: dict[Part, int],
    parts: list[dict[str, Any]],
) -> None:
    """Number a part and all below it, parents first."""
    number[part] = len(parts)
    name = part if isinstance(part, str) else part.name
    above = parts[parent]["name"] if parent >= 0 else ""
    short = name.removeprefix(f"{above}.") if above else name
    inside = machines_of(part)
    seen = graph.nodes[part] if isinstance(part, str) else between(graph, [part]).nodes[name]
    told: dict[str, Any] = {
        "name": name,
        "lines": broken(short if modules(name) else indexed(short)),  # in modules add_2 is a second call
        "parent": parent,
        "level": [min(level[m] for m in inside), max(level[m] for m in inside)],
        "reads": seen.get("reads", ()),
        "writes": seen.get("writes", ()),
    }
    parts.append(told)
    if isinstance(part, Group):
        told |= {"machines": len(inside)}
        for member in part.members:
            _add(graph, member, number[part], level, number, parts)


def _frame(
    graph: "nx.DiGraph[str]", group: Group, number: Mapping[Part, int], parts: Sequence[dict[str, Any]], *, whole: bool
) -> dict[str, Any]:
    """The members of a group laid out downwards, all of them closed; what opens one makes room as it does."""
    links = between(graph, group.members)
    key = {name: number[part] for name, part in zip(links, group.members, strict=True)}
    names = {i: name for name, i in key.items()}
    flow: nx.DiGraph[int] = nx.relabel_nodes(links, key)
    rows = [[key[name] for name in row] for row in levels(links)]
    sizes = {i: _size(parts[i]) for i in key.values()}
    if not whole:
        inside = set(group.machines)
        entered = [i for i in sizes if _others(graph.predecessors, names[i], links, inside)]
        left = [i for i in sizes if _others(graph.successors, names[i], links, inside)]
        if entered:
            rows.insert(0, [IN])
            flow.add_edges_from((IN, i) for i in entered)
        if left:
            rows.append([OUT])
            flow.add_edges_from((i, OUT) for i in left)
        sizes |= {dot: (DOT, DOT) for dot in (IN, OUT) if dot in flow}
    layout = transposed(layered(flow, rows, {i: (h, w) for i, (w, h) in sizes.items()}))
    bands = []
    for row in rows:
        inner = [i for i in row if i >= 0]
        if inner:
            top = min(layout.centres[i][1] - layout.sizes[i][1] / 2 for i in row)
            bottom = max(layout.centres[i][1] + layout.sizes[i][1] / 2 for i in row)
            first, last = min(parts[i]["level"][0] for i in inner), max(parts[i]["level"][1] for i in inner)
            bands.append([round(top, 1), round(bottom, 1), first, last])
    boxes = [
        [i, *(round(v, 1) for v in (x - layout.sizes[i][0] / 2, y - layout.sizes[i][1] / 2, *layout.sizes[i]))]
        for i, (x, y) in layout.centres.items()
    ]
    lines = [
        [a, b, _count(links, names.get(a), names.get(b)), [round(v, 1) for v in chain.from_iterable(route)]]
        for (a, b), route in layout.routes.items()
    ]
    size = (round(layout.width, 1), round(layout.height, 1))
    return {"size": size, "boxes": boxes, "lines": lines, "rows": bands}


def _others(neighbours: Any, name: str, links: "nx.DiGraph[str]", inside: set[str]) -> bool:
    """Whether a member has neighbours outside of its group."""
    machines = links.nodes[name].get("machines") or (name,)
    return any(other not in inside for machine in machines for other in neighbours(machine))


def _count(links: "nx.DiGraph[str]", a: str | None, b: str | None) -> int:
    """How many components an edge carries."""
    return 1 if a is None or b is None else max(len(links.edges[a, b]["components"]), 1)


def _size(part: Mapping[str, Any]) -> tuple[float, float]:
    group = "machines" in part
    words = [*part["lines"], *([f"{part['machines']} machines"] if group else [])]
    wide = max(width(line) for line in words) * SCALE * (BOLD if group else 1) + 2 * PAD + (SIGN if group else 0)
    return max(wide, 34.0), LINE * len(words) + 2 * PAD
