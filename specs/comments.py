"""Which comments does a text hold, and what do they speak of? Each belongs to a path of the spec.

Empty lines between the parts of a spec count as comments.
A comment on a line of its own belongs to what comes next, a comment after something to what its line begins with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lpc.specs.source import Source, Span
from lpc.specs.tree import Node, Path, walk

_HASH = re.compile(r"(?<!\S)#")
_DSL_HASH = re.compile(r"#")


@dataclass
class Comments:
    """Comments by path: above a line, and at its end; `last` are those after everything."""

    above: dict[Path, list[str]] = field(default_factory=dict)
    after: dict[Path, list[str]] = field(default_factory=dict)
    last: list[str] = field(default_factory=list)

    def inside(self, path: Path) -> bool:
        """Tell whether a comment speaks of a part of what stands at `path`."""
        size = len(path)
        return any(len(other) > size and other[:size] == path for other in (*self.above, *self.after))

    def at(self, path: Path) -> bool:
        """Tell whether a comment speaks of what stands at `path`, or of a part of it."""
        return path in self.above or path in self.after or self.inside(path)


def comments_of(source: Source, written: Node, root: Node, dsl: bool) -> Comments:
    """Return the comments of a text whose tree is `written`, by the paths of `root`, its normal form."""
    found = Comments()
    starts = _starts(root)
    for line, column, text in _comments(source, written, dsl):
        before = source.line(line)[: column - 1].strip()
        here = next((path for at, path in starts if at[0] == line and before), None)
        coming = next((path for at, path in starts if at > (line, column)), None)
        if not text:
            if coming and (len(coming) == 1 or coming[:-1] == ("learn",)):
                found.above.setdefault(coming, []).append(text)
        elif here is not None:
            found.after.setdefault(here, []).append(text)
        elif coming is not None:
            found.above.setdefault(coming, []).append(text)
        else:
            found.last.append(text)
    return found


@dataclass(frozen=True)
class Line:
    """A printed line, and the paths whose values begin on it."""

    text: str
    paths: tuple[Path, ...]


def join(lines: Sequence[Line], comments: Comments) -> str:
    """Return lines as a text, each comment above or at the end of the line that holds its path."""
    above: dict[int, list[str]] = {}
    after: dict[int, list[str]] = {}
    for table, places in ((comments.above, above), (comments.after, after)):
        for path, texts in table.items():
            places.setdefault(_line_of(path, lines), []).extend(texts)
    out: list[str] = []
    for number, line in enumerate(lines):
        pad = " " * (len(line.text) - len(line.text.lstrip()))
        for text in above.get(number, ()):
            if text or (out and out[-1]):
                out.append(pad + text if text else "")
        out.append("  ".join([line.text, " ".join(after[number])]) if number in after else line.text)
    return "".join(f"{text}\n" for text in (*out, *comments.last))


def _line_of(path: Path, lines: Sequence[Line]) -> int:
    """Return the first line that begins something at `path`, or else what holds it most closely."""
    best, length = 0, -1
    for number, line in enumerate(lines):
        for other in line.paths:
            if other[: len(path)] == path:
                return number
            if path[: len(other)] == other and len(other) > length:
                best, length = number, len(other)
    return best


def _starts(root: Node) -> list[tuple[tuple[int, int], Path]]:
    """Return the places where values begin, with their keys, in the order of the text; the outermost first."""
    places = []
    for path, node in walk(root):
        spans = [span for span in (node.key, node.span) if span is not None]
        if path and spans:
            places.append((min((span.line, span.column) for span in spans), len(path), path))
    return [(at, path) for at, _, path in sorted(places, key=lambda place: place[:2])]


def _comments(source: Source, root: Node, dsl: bool) -> Iterator[tuple[int, int, str]]:
    """Yield line, column and text of each comment, which begins with `#` outside of texts and keys; and empty lines."""
    taken: dict[int, list[tuple[int, int]]] = {}
    for _, node in walk(root):
        for span in (node.key, node.span if isinstance(node.value, str) else None):
            for number, start, end in _covered(span):
                taken.setdefault(number, []).append((start, end))
    for number, line in enumerate(source.text.splitlines(), 1):
        if not line.strip():
            yield number, 1, ""
        for match in (_DSL_HASH if dsl else _HASH).finditer(line):
            column = match.start() + 1
            if not any(start <= column < end for start, end in taken.get(number, ())):
                yield number, column, line[match.start() :].rstrip()
                break


def _covered(span: Span | None) -> Iterator[tuple[int, int, int]]:
    """Yield the lines of a span with the columns it takes there."""
    if span is None:
        return
    for line in range(span.line, span.end_line + 1):
        start = span.column if line == span.line else 1
        yield line, start, span.end_column if line == span.end_line else 10**9
