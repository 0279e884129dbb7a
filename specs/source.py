"""Where does a value come from? A source text and spans of characters in it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

WIDEST = 160  # characters of a line that an excerpt shows


@dataclass(frozen=True)
class Source:
    """A named text: a file, a `--set` argument, or text given through Python.

    `origin` says how the text came in, where that is not by being the spec itself; diagnostics show it.
    """

    name: str
    text: str = field(repr=False)
    origin: str | None = field(default=None, repr=False, compare=False)

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        return 0, *(match.end() for match in re.finditer("\n", self.text))

    def position(self, offset: int) -> tuple[int, int]:
        """Return the line and the column of an offset; the nearest one for an offset outside the text."""
        offset = min(max(offset, 0), len(self.text))
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    @cached_property
    def _lines(self) -> tuple[str, ...]:
        return tuple(self.text.splitlines(keepends=True))

    @cached_property
    def _offsets(self) -> tuple[int, ...]:
        return tuple(accumulate(map(len, self._lines), initial=0))

    def offset(self, line: int, column: int) -> int:
        """Return the offset of a place."""
        return self._offsets[min(line - 1, len(self._lines))] + column - 1

    def line(self, number: int) -> str:
        """Return line `number` (from 1) without its line break; empty beyond the end."""
        return self._lines[number - 1].splitlines()[0] if 0 < number <= len(self._lines) else ""


@dataclass(frozen=True)
class Span:
    """A range of characters on one line or over several; lines and columns count from 1, the end is exclusive.

    `note` says what the text there does not: that a value is a default; diagnostics show it.
    """

    source: Source
    line: int
    column: int
    end_line: int
    end_column: int
    note: str | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"

    def excerpt(self) -> str:
        """Return the first line of the span with carets under it."""
        text = self.source.line(self.line)
        if not text:
            return ""
        end = self.end_column if self.end_line == self.line else len(text) + 1
        width = max(1, min(end, len(text) + 1) - self.column)
        number, column = str(self.line), self.column
        if len(text) > WIDEST:
            start = max(0, column - 1 - WIDEST // 2)
            column, width = column - start, min(width, WIDEST // 2)
            text = text[start : start + WIDEST]
        lead = "".join(c if c == "\t" else " " for c in text[: column - 1])
        return f"{number} | {text}\n{' ' * len(number)} | {lead}{'^' * width}"


Locate = Callable[[int, int], Span | None]


def locate_in(source: Source) -> Callable[[int, int], Span]:
    """Return a function from offsets in the source's text to spans."""
    return lambda start, end: Span(source, *source.position(start), *source.position(end))
