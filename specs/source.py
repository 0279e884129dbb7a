"""Where does a value come from? A source text and spans of characters in it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Source:
    """A named text: a file, a `--set` argument, or text given through Python.

    `origin` says how the text came in, where that is not by being the spec itself; diagnostics show it.
    """

    name: str
    text: str = field(repr=False)
    origin: str | None = field(default=None, repr=False, compare=False)

    def line(self, number: int) -> str:
        """Return line `number` (from 1) without its line break; empty beyond the end."""
        lines = self.text.splitlines()
        return lines[number - 1] if 0 < number <= len(lines) else ""


@dataclass(frozen=True)
class Span:
    """A range of characters on one line or over several; lines and columns count from 1, the end is exclusive."""

    source: Source
    line: int
    column: int
    end_line: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"

    def excerpt(self) -> str:
        """Return the first line of the span with carets under it."""
        text = self.source.line(self.line)
        if not text:
            return ""
        end = self.end_column if self.end_line == self.line else len(text) + 1
        width = max(1, min(end, len(text) + 1) - self.column)
        number = str(self.line)
        lead = "".join(c if c == "\t" else " " for c in text[: self.column - 1])
        return f"{number} | {text}\n{' ' * len(number)} | {lead}{'^' * width}"
