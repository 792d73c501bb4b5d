"""The repository's figures on the pages, and nothing from elsewhere.

Figures lie in ``figures/``, beside ``docs/``, and pages link to them there.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

FIGURES = Path(__file__).parents[2] / "figures"
OUTSIDE = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*(?:src|href)=["']?((?:https?:)?//[^"' >]+)""")


def on_files(files: Files, *, config: Any) -> Files:
    """Add every figure as if it were in ``docs/figures/``."""
    for path in sorted(FIGURES.glob("*.svg")):
        files.append(File.generated(config, f"figures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Find them there: links work in the repository as they are."""
    return markdown.replace("](../figures/", "](figures/")


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """PluginError: a page would request something from elsewhere."""
    if found := OUTSIDE.search(output):
        raise PluginError(f"{page.file.src_uri} requests {found[1]}: keep it beside the pages")
    return output
