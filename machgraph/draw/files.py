"""Dependency graphs as text that other programs read: DOT for Graphviz, GraphML for Gephi, yEd, igraph and the like."""

from typing import Any

import networkx as nx

from machgraph.draw.canvas import graph_of, level_colour, levels_of

_WORDS = ("reads", "writes", "components", "lags")  # tuples, which the files hold as words between commas


def dot(architecture: Any) -> str:
    """The dependency graph in Graphviz's language, one rank for each level, in the colours of the pictures.

    Parameters
    ----------
    architecture : an architecture, a parametric machine, or a graph: nodes with ``reads`` and ``writes``, edges with
        ``components``. Those are attributes of the file, with the ``level`` of each machine, and of a folded recurrence
        the ``lags`` of each edge; what comes from earlier turns alone is dashed, and moves no machine to another rank.

    Raises
    ------
    TypeError : neither an architecture nor a graph.

    Examples
    --------
    >>> print(dot(nx.DiGraph([("f", "g")])))
    digraph machines {
      rankdir=LR;
      node [shape=box, style=rounded];
      { rank=same;
        "f" [level=1, color="#0072B2"];
      }
      { rank=same;
        "g" [level=2, color="#D55E00"];
      }
      "f" -> "g";
    }
    <BLANKLINE>
    """
    graph = _plain(architecture)
    lines = ["digraph machines {", "  rankdir=LR;", "  node [shape=box, style=rounded];"]
    ranks: dict[int, list[str]] = {}
    for name, values in graph.nodes(data=True):
        ranks.setdefault(values["level"], []).append(name)
    for level in sorted(ranks):
        lines.append("  { rank=same;")
        for name in ranks[level]:
            values = {**graph.nodes[name], "color": level_colour(level)}
            lines.append(f"    {_quoted(name)}{_attributes(values)};")
        lines.append("  }")
    for a, b, edge in graph.edges(data=True):
        values = {name: value for name, value in edge.items() if name != "back"}
        values |= {"label": values["lags"]} if values.get("lags", "0") != "0" else {}
        values |= {"style": "dashed", "constraint": "false"} if edge.get("back") else {}
        lines.append(f"  {_quoted(a)} -> {_quoted(b)}{_attributes(values)};")
    return "\n".join([*lines, "}", ""])


def graphml(architecture: Any) -> str:
    """The dependency graph as GraphML, with the attributes that ``dot`` gives; networkx reads it back.

    Raises
    ------
    TypeError : neither an architecture nor a graph.

    Examples
    --------
    >>> text = graphml(nx.DiGraph([("f", "g")]))
    >>> nx.parse_graphml(text).nodes(data="level")
    NodeDataView({'f': 1, 'g': 2}, data='level')
    """
    return "\n".join([*nx.generate_graphml(_plain(architecture)), ""])


def _plain(architecture: Any) -> "nx.DiGraph[str]":
    """A graph whose attributes are words and numbers."""
    graph = graph_of(architecture)
    level = levels_of(graph)
    plain: nx.DiGraph[str] = nx.DiGraph()
    for name, values in graph.nodes(data=True):
        plain.add_node(name, **_words(values), level=level[name])
    for a, b, values in graph.edges(data=True):
        back = {"back": True} if values.get("back") else {}
        plain.add_edge(a, b, **_words(values), **back)
    return plain


def _words(values: dict[str, Any]) -> dict[str, str]:
    return {name: ", ".join(map(str, values[name])) for name in _WORDS if name in values}


def _attributes(values: dict[str, Any]) -> str:
    said = ", ".join(f"{name}={_quoted(v) if isinstance(v, str) else v}" for name, v in values.items())
    return f" [{said}]" if said else ""


def _quoted(text: str) -> str:
    """As one word of the language, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
