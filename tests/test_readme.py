"""What the README shows works: its Python runs, its links and pictures are there, its commands are the real ones."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        exec(block, names)
    assert names["x1"].grad == 9
    assert names["logits"].shape == (128, 10)
    assert "[['f1', 'f2'], ['f3'], ['f4'], ['f5']] 4" in capsys.readouterr().out
    assert {"figure2.svg", "net.machgraph"} <= {path.name for path in tmp_path.iterdir()}
    torch.testing.assert_close(names["mg"].load("net.machgraph").weight, names["machine"].weight)


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)]+)\)", README))
def test_what_it_links_to_is_there(path):
    assert (ROOT / path).exists()


def test_it_is_short_and_begins_with_the_two_commands():
    lines = README.splitlines()
    assert len(lines) < 130
    assert "TABLE" not in README
    assert [line.split("  ")[0] for line in lines if line.startswith("make ")] == ["make search", "make test"]
    assert lines.index(next(line for line in lines if line.startswith("make search"))) < 20
