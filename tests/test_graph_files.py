"""Dependency graphs as DOT and GraphML: read back, they are the graph, whatever its names hold."""

import json
import re
import shutil
import subprocess

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import machgraph as mg
from machgraph import draw
from machgraph.graph import Node, dependency_graph, levels
from search.show import draw as write

WORD = r'"((?:[^"\\]|\\.)*)"'
HOSTILE = ('say "hi"', "back\\slash", "end\\", "a -> b", "<b>&amp;</b>", "{x};", "σ_0, twice")


def words(text: str) -> list[str]:
    return [re.sub(r"\\(.)", r"\1", word) for word in re.findall(WORD, text)]


def parsed(text: str) -> tuple[dict[str, dict[str, str]], dict[tuple[str, str], dict[str, str]]]:
    """Nodes and edges with the attributes that are strings, by a reader that knows no more than the grammar of DOT."""
    nodes, edges = {}, {}
    for line in text.splitlines():
        if not line.strip().startswith('"'):
            continue
        name = re.match(r"\s*" + WORD, line)
        arrow = re.match(r"\s*->\s*" + WORD, line[name.end() :])
        rest = line[name.end() + (arrow.end() if arrow else 0) :]
        values = {k: words(f'"{v}"')[0] for k, v in re.findall(r"(\w+)=" + WORD, rest)}
        values |= dict(re.findall(r"(\w+)=(\d+)", re.sub(WORD, "", rest)))
        ends = [words(match.group())[0] for match in (name, arrow) if match]
        if arrow:
            edges[ends[0], ends[1]] = values
        else:
            nodes[ends[0]] = values
    return nodes, edges


def graphs():
    yield dependency_graph([Node(name, (f"in {name}",), (f"out {name}",)) for name in HOSTILE])
    chain = [Node(name, (f"c{i}",), (f"c{i + 1}", f"d{i}")) for i, name in enumerate(HOSTILE)]
    yield dependency_graph(chain)
    yield mg.DenseMachine((3, 4, 4, 2)).architecture.graph
    yield mg.RecurrentMachine((2, 4, 4, 1), lags=2).architecture.graph


@pytest.mark.parametrize("graph", list(graphs()))
def test_both_hold_machines_levels_reads_and_writes_and_who_depends_on_whom(graph):
    forward = nx.subgraph_view(graph, filter_edge=lambda a, b: not graph.edges[a, b].get("back"))
    level = {name: i for i, row in enumerate(levels(forward), 1) for name in row}
    read = nx.parse_graphml(draw.graphml(graph))
    nodes, edges = parsed(draw.dot(graph))
    assert set(read) == set(nodes) == set(graph)
    assert set(read.edges) == set(edges) == set(graph.edges)
    for name in graph:
        for key in ("reads", "writes"):
            assert read.nodes[name][key] == nodes[name][key] == ", ".join(graph.nodes[name][key])
        assert read.nodes[name]["level"] == int(nodes[name]["level"]) == level[name]
    for a, b, edge in graph.edges(data=True):
        assert read.edges[a, b]["components"] == edges[a, b]["components"] == ", ".join(edge["components"])
        assert read.edges[a, b].get("back", False) == (edges[a, b].get("style") == "dashed") == edge.get("back", False)
        if "lags" in edge:
            assert read.edges[a, b]["lags"] == edges[a, b]["lags"] == ", ".join(map(str, edge["lags"]))


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1), unique=True))
def test_names_come_back_from_dot(names):
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    assert set(parsed(draw.dot(graph))[0]) == set(names)


@pytest.mark.skipif(shutil.which("dot") is None, reason="no graphviz: apt-get install graphviz")
@pytest.mark.parametrize("graph", list(graphs()))
def test_graphviz_reads_the_same_graph(graph):
    said = subprocess.run(["dot", "-Tjson"], input=draw.dot(graph), capture_output=True, text=True, check=True)
    assert said.stderr == ""
    read = json.loads(said.stdout)
    drawn = {item["_gvid"]: item for item in read["objects"] if "level" in item}
    assert len(drawn) == len(graph)
    assert len(read.get("edges", ())) == graph.number_of_edges()
    # Graphviz keeps a backslash as it is written, doubled, until it draws it
    levelled = sorted((item["reads"].replace("\\\\", "\\"), item["level"]) for item in drawn.values())
    level = nx.get_node_attributes(nx.parse_graphml(draw.graphml(graph)), "level")
    assert levelled == sorted((", ".join(graph.nodes[name]["reads"]), str(level[name])) for name in graph)


def test_what_is_no_graph_is_refused():
    for function in (draw.dot, draw.graphml):
        with pytest.raises(TypeError, match="got a list: give an architecture, or its graph"):
            function([1, 2])


@pytest.mark.parametrize("name", ["net.dot", "net.gv", "net.GraphML"])
def test_the_end_of_a_name_says_what_is_written(tmp_path, name):
    machine = mg.DenseMachine((3, 4, 2))
    write(machine, tmp_path / name)
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert text == (draw.graphml if name.endswith("L") else draw.dot)(machine)
    with pytest.raises(ValueError, match=r"ends in one of .*dot, .*graphml, gv"):
        write(machine, tmp_path / "net.doc")
