"""How docstrings are read for the pages: ``name : description`` is a name and its description, and no type.

numpydoc takes what follows the colon for a type. Here types stand in the signature alone, so each entry of a section is
rewritten as a name with an indented description, which a parser of numpydoc reads as it is meant.
"""

import re
from collections.abc import Iterator
from typing import Any

import griffe

SECTIONS = ("Parameters", "Attributes", "Raises")  # of names and descriptions
HEADING = re.compile(r"^([A-Z][a-z]+)\n-+\n", flags=re.MULTILINE)
ENTRY = re.compile(r"^(?! )((?:[^\n:]|:(?! ))+?) : (.*(?:\n(?: +.*|(?=\n +)))*)", flags=re.MULTILINE)
EXAMPLE = re.compile(r"^(?=>>> )", flags=re.MULTILINE)


def rewritten(text: str) -> str:
    """A docstring with its sections as numpydoc has them.

    >>> print(rewritten("What.\\n\\nParameters\\n----------\\na, b : of it,\\n    and more.\\nc : last."))
    What.
    <BLANKLINE>
    Parameters
    ----------
    a, b
        of it,
        and more.
    c
        last.
    """
    text, *parts = HEADING.split(text)
    if "Examples" not in parts:  # a short docstring has its doctest right after its line
        text = EXAMPLE.sub("Examples\n--------\n", text, count=1)
    return text + "".join(_sections(parts))


def _sections(parts: list[str]) -> Iterator[str]:
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        yield f"{title}\n{'-' * len(title)}\n"
        if title in SECTIONS:
            yield ENTRY.sub(_entry, body)
        elif title == "Returns":  # a sentence, which has no name and no type
            yield "\n".join(f"    {line}".rstrip() for line in ["", *body.strip().splitlines()][1:]) + "\n\n"
        else:
            yield body


def _entry(match: re.Match[str]) -> str:
    lines = [line.strip() for line in match[2].splitlines()]
    return "\n".join([match[1], *(f"    {line}".rstrip() for line in lines)])


class Docstrings(griffe.Extension):
    """Rewrites every docstring that is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Once the object is there with its docstring."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)
