"""The repository's figures on the pages: they lie in ``figures/``, beside ``docs/``, and pages link to them there."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

FIGURES = Path(__file__).parents[2] / "figures"


def on_files(files: Files, *, config: Any) -> Files:
    """Add every figure as if it were in ``docs/figures/``."""
    for path in sorted(FIGURES.glob("*.svg")):
        files.append(File.generated(config, f"figures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Find them there: links work in the repository as they are."""
    return markdown.replace("](../figures/", "](figures/")
