"""Lines of Python, laid out as ``ruff format`` does it at its own line length and at any longer one.

What does not fit in a line gets one line an item, with a comma after the last.
"""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

LINE = 88  # characters, as ruff and black have it unless told otherwise
IMPORTS: tuple[
    tuple[str, dict[str, str]], ...
] = (  # in the order of isort: a module, the names of it, and what shows that one is used
    ("collections.abc", {"Mapping": r"\bMapping\[", "Sequence": r"\bSequence\["}),
    ("dataclasses", {"dataclass": r"@dataclass"}),
    ("datetime", {"UTC": r"=UTC\b", "datetime": r"\bdatetime\.fromisoformat"}),
    ("functools", {"partial": r"= partial\("}),
    ("math", {"nan": r"return nan\b", "pi": r"\* pi \*"}),
    ("pathlib", {"Path": r"\bPath\("}),
    ("", {}),
    ("torch", {"": r"\btorch\."}),
    ("safetensors.torch", {"load_file": r"\bload_file\("}),
    ("torch", {"Tensor": r"\bTensor\b", "nn": r"\bnn\."}),
    ("torch.nn", {"functional as F": r"\bF\.\w+\("}),
)


def module(opening: Sequence[str], parts: Sequence[Sequence[str]]) -> str:
    """The text of a module: a docstring, the imports that its parts need, and the parts two empty lines apart."""
    body = "\n\n\n".join("\n".join(part) for part in parts if part)
    imports = []
    for name, members in IMPORTS:
        used = [member for member, sign in members.items() if re.search(sign, body)]
        if used == [""]:
            imports.append(f"import {name}")
        elif used or not members:  # no module at all parts the standard library from the rest
            imports.append(f"from {name} import {', '.join(used)}" if used else "")
    return "\n".join([*opening, "", *imports, "", body, ""])


def docstring(first: str, *paragraphs: Sequence[str]) -> list[str]:
    """The lines of a module's docstring."""
    lines = [f'"""{first}']
    for paragraph in paragraphs:
        lines += ["", *paragraph] if paragraph else []
    return [*lines, '"""']


@dataclass(frozen=True)
class Group:
    """Items between brackets: of a call, a list or a tuple, which has a comma after an only item."""

    opening: str
    items: "Sequence[Item]"
    closing: str
    is_tuple: bool = False

    def __str__(self) -> str:
        only = "," * (self.is_tuple and len(self.items) == 1)
        return f"{self.opening}{', '.join(map(str, self.items))}{only}{self.closing}"


Item = str | Group


def fitted(opening: str, items: Sequence[Item], closing: str, indent: int = 0) -> list[str]:
    """A statement in one line, or with one line an item where that is too long.

    >>> fitted("f(", ["a", "b"], ")")
    ['f(a, b)']
    >>> fitted("f(", ["a" * 50, Group("(", ["b" * 50], ")", is_tuple=True)], ")")
    ['f(', '    aaaaa...', '    (bbbbb...,),', ')']
    """
    return laid(Group(opening, items, closing), indent)


def laid(group: Group, indent: int = 0) -> list[str]:
    """The lines of a group, so far to the right."""
    line = str(group)
    if indent + len(line) <= LINE or not group.items or not group.opening.endswith(("(", "[", "{")):
        return [line]
    lines = [group.opening]
    for item in group.items:
        *before, last = laid(item, indent + 4) if isinstance(item, Group) else [item]
        lines += indented([*before, f"{last},"])
    return [*lines, group.closing]


def indented(lines: Sequence[str], spaces: int = 4) -> list[str]:
    """Lines further to the right; empty ones stay empty."""
    return [" " * spaces + line if line else "" for line in lines]


def wrapped(sentence: str) -> list[str]:
    """A sentence of a docstring."""
    return textwrap.wrap(sentence, LINE)


def comment(sentence: str) -> list[str]:
    """A sentence as a comment, which is not further to the right than the body of a loop in a method."""
    return textwrap.wrap(sentence, LINE - 12, initial_indent="# ", subsequent_indent="# ")


def listed(words: Sequence[str]) -> str:
    """Words in a row.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def literal(value: str) -> str:
    """A text as a literal, in double quotes unless it has some.

    >>> print(literal("it's"), literal('a "b"'))
    "it's" 'a "b"'
    """
    text = repr(value)
    return text if '"' in text else f'"{text[1:-1]}"'
