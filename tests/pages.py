"""Pages of the documentation as programs: their code is run block by block, and what it prints is compared.

A fence of ``python`` or ``sh`` is code; a fence of ``text`` right after it is what it prints, where ``...`` stands for
anything. What follows from training differs a little from processor to processor: with ``title="for example"`` numbers
may be others, and the words may not. Of ``sh`` the commands of machgraph are run, in this process, with ``> FILE``. A
fence with ``title="FILE.toml"``, or ``.py``, is written to that file.

``python tests/pages.py FOLDER`` writes the outputs of all guides anew into the pages, and the pictures beside them;
what has ``...`` is left as it is.
"""

import doctest
import io
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
GUIDES = sorted((DOCS / "guides").glob("*.md"))
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
NUMBERS = re.compile(r"-?\.?\b\d[\d.,]*([eE][-+]?\d+)?[kM]?\b([-\s]+-?\.?\d[\d.,]*([eE][-+]?\d+)?[kM]?\b)*")
TITLE = re.compile(r'title="([\w.]+)"')
EXAMPLE = 'title="for example"'


@dataclass(frozen=True)
class Block:
    """Code of a page, and the output that the page shows for it, if any."""

    language: str
    code: str
    line: int
    shown: str | None = None
    is_example: bool = False
    span: tuple[int, int] = (0, 0)  # of the output in the page
    file: str = ""  # that the code is written to, and not run


def blocks(text: str) -> Iterator[Block]:
    """The code of a page in its order."""
    fences = list(FENCE.finditer(text))
    for i, fence in enumerate(fences):
        title = TITLE.search(fence[2]) if fence[1] in ("python", "toml") else None
        file = title[1] if title else ""
        if fence[1] not in ("python", "sh") and not file:
            continue
        line = text[: fence.start()].count("\n") + 2
        after = fences[i + 1] if i + 1 < len(fences) else None
        if after and after[1] == "text" and not text[fence.end() : after.start()].strip():
            yield Block(fence[1], fence[3], line, after[3], EXAMPLE in after[2], after.span(3))
        else:
            yield Block(fence[1], fence[3], line, file=file)


def run(block: Block, path: Path, names: dict[str, Any]) -> str:
    """What the code prints; its names stay in ``names``."""
    if block.file:
        Path(block.file).write_text(block.code)
        return ""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.code, str(path), "exec"), names)
        else:
            for command in block.code.replace("\\\n", " ").splitlines():
                machgraph(command)
    return "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines())


def machgraph(command: str) -> None:
    """One line as a shell has it."""
    from search.cli import main

    words = shlex.split(command, comments=True)
    if not words:
        return
    assert words[0] == "machgraph", f"{command}: the pages' commands are those of machgraph"
    target = io.StringIO()
    written = words[-1] if ">" in words else None
    code: Any = 0
    try:
        with redirect_stdout(target if written else sys.stdout):
            main(words[1 : words.index(">") if written else None])
    except SystemExit as end:
        code = end.code
    assert not code, f"{command} ended with {code}"
    if written:
        Path(written).write_text(target.getvalue())


def agrees(block: Block, printed: str) -> bool:
    """Whether the page shows what was printed."""
    shown = block.shown or ""
    if block.is_example:
        shown, printed = (NUMBERS.sub("#", re.sub(r"[─\s]+", " ", text)).strip() for text in (shown, printed))
    return doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS)


def pictures(text: str) -> list[str]:
    """The pictures that a page shows from its own folder."""
    return re.findall(r"!\[[^\]]*\]\(([\w-]+\.svg)\)", text)


def renew(folder: Path) -> None:
    """Write outputs and pictures of all guides anew, which run in ``folder``."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "machgraph"  # the same picture is the same file
    os.environ["SOURCE_DATE_EPOCH"] = "0"
    os.environ["COLUMNS"] = "80"
    for path in GUIDES:
        text, names, place = path.read_text(), {"__name__": "__main__"}, folder / path.stem
        place.mkdir(parents=True)
        new, end = "", 0
        with chdir(place):
            for block in blocks(text):
                printed = run(block, path, names)
                if block.shown is not None and "..." not in block.shown:
                    new, end = new + text[end : block.span[0]] + printed, block.span[1]
        path.write_text(new + text[end:])
        for name in pictures(text):
            path.with_name(name).write_bytes((place / name).read_bytes())


if __name__ == "__main__":
    renew(Path(sys.argv[1]))
