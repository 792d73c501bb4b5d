"""The documentation's pages: what they show runs and prints that, what they link to is there, and they can be built."""

import doctest
import io
import re
import sys

import matplotlib.pyplot as plt
import optuna
import pytest
import torch
from pages import DOCS, GUIDES, agrees, blocks, pictures, run

import machgraph as mg
import search

PAGES = [path for path in DOCS.rglob("*.md") if "site" not in path.relative_to(DOCS).parts]
ROOT = DOCS.parent
FOLDERS = "machgraph|search|figures|experiments|tests|docs"


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """A page runs in a folder of its own, and leaves nothing behind."""
    threads, verbosity = torch.get_num_threads(), optuna.logging.get_verbosity()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("nets", None)  # that a page has written
    torch.set_num_threads(threads)
    optuna.logging.set_verbosity(verbosity)
    plt.close("all")


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_a_guide_prints_what_it_shows(path, tmp_path):
    text, names = path.read_text(), {"__name__": "__main__"}
    for block in blocks(text):
        printed = run(block, path, names)
        if block.shown is not None:
            assert agrees(block, printed), f"{path}:{block.line} prints\n{printed}and the page has\n{block.shown}"
    drawn = {file.name for file in tmp_path.glob("*.svg")}
    assert set(pictures(text)) <= drawn


def test_the_papers_lines_hold():
    """A fence ends what an example prints, as an empty line does."""
    text = re.sub(r"^```.*$", "", (DOCS / "paper.md").read_text(), flags=re.MULTILINE)
    test = doctest.DocTestParser().get_doctest(text, {}, "paper", str(DOCS / "paper.md"), 0)
    found, told = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS), io.StringIO()
    found.run(test, out=told.write)
    assert found.tries > 60
    assert not found.failures, told.getvalue()


def test_every_public_name_is_in_the_reference():
    written = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    named = re.findall(r"^::: ([\w.]+)$", written, flags=re.MULTILINE)
    public = {f"machgraph.{name}" for name in mg.__all__} | {f"search.{name}" for name in search.__all__}
    assert public <= {*named}
    assert {*mg.draw.__all__} <= {name.rsplit(".", 1)[-1] for name in named if name.startswith("machgraph.draw.")}
    assert len(named) == len({*named})


def test_pages_are_in_the_navigation():
    configuration = (DOCS / "site" / "mkdocs.yml").read_text()
    listed = set(re.findall(r": ([\w/-]+\.md)$", configuration, flags=re.MULTILINE))
    assert {str(path.relative_to(DOCS)) for path in PAGES} == listed


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_what_a_page_names_is_there(path):
    """Links, pictures, and files of the code in code font."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (path.parent / target).exists(), target
    for file in re.findall(rf"`((?:{FOLDERS})/(?:[\w/-]+\.\w+|(?:[\w-]+/)*))`", text):
        assert (ROOT / file).exists(), file
