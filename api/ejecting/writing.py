"""How is code laid out? Lines of at most 110 signs, lists broken after commas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

WIDTH = 110
INDENT = "    "


def indented(lines: Iterable[str], by: int = 1) -> Iterator[str]:
    """Yield lines, further to the right."""
    return (f"{INDENT * by}{line}" if line else line for line in lines)


def listed(before: str, items: Sequence[str], after: str, depth: int = 0) -> list[str]:
    """Return `before item, item, ... after` on one line, or with the items on lines of their own where it is long.

    `before` ends with an opening bracket, `after` begins with a closing one; `depth` is how far the lines will be
    moved to the right.
    """
    line = f"{before}{', '.join(items)}{after}"
    if len(line) + depth * len(INDENT) <= WIDTH or not items:
        return [line]
    rows = [""]
    for item in items:
        if len(rows[-1]) + len(item) + 2 + (depth + 1) * len(INDENT) > WIDTH and rows[-1]:
            rows.append("")
        rows[-1] += f"{item}, "
    return [before.rstrip(), *(f"{INDENT}{row.rstrip()}" for row in rows), after]


def document(text: str, body: Iterable[str]) -> str:
    """Return a module: its docstring, and what comes after it."""
    return "\n".join([f'"""{text}"""', "", *body]).rstrip() + "\n"
