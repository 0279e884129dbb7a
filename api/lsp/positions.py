"""How do places in a text become an editor's? It counts lines and columns from 0, columns in units of its encoding."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from pathlib import Path

from lsprotocol import types
from pygls import uris
from pygls.workspace import PositionCodec

from lpc.specs.source import Span


class Positions:
    """Turns places of one text into the editor's and back."""

    def __init__(self, text: str, codec: PositionCodec) -> None:
        self.lines = text.splitlines(keepends=True)
        self.codec = codec
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def offset(self, position: types.Position) -> int:
        """Return the offset in the text of an editor's position."""
        if position.line >= len(self.lines):
            return self.starts[-1]
        inside = self.codec.position_from_client_units(self.lines, position)
        return self.starts[inside.line] + inside.character

    def position(self, offset: int) -> types.Position:
        """Return the editor's position of an offset in the text."""
        line = bisect_right(self.starts, offset) - 1
        if line == len(self.lines) and self.lines and not self.lines[-1].endswith(("\n", "\r")):
            line -= 1
        return self._to_client(line, offset - self.starts[line])

    def range(self, span: Span) -> types.Range:
        """Return the editor's range of a span."""
        return types.Range(
            self._to_client(span.line - 1, span.column - 1), self._to_client(span.end_line - 1, span.end_column - 1)
        )

    def first_line(self, span: Span) -> types.Range:
        """Return the editor's range of a span's first line: what is wrong with a section is not shown all over it."""
        if span.end_line == span.line:
            return self.range(span)
        text = self.lines[span.line - 1] if span.line <= len(self.lines) else ""
        return self.range(replace(span, end_line=span.line, end_column=len(text.rstrip("\r\n")) + 1))

    def _to_client(self, line: int, character: int) -> types.Position:
        text = self.lines[line] if line < len(self.lines) else ""
        return types.Position(line, self.codec.client_num_units(text[:character]))


def location(span: Span, codec: PositionCodec) -> types.Location | None:
    """Return the editor's place of a span; None where it is in no file, as in a recipe of the library."""
    path = Path(span.source.name)
    if not path.is_file():
        return None
    return types.Location(uri_of(path), Positions(span.source.text, codec).range(span))


def uri_of(path: Path) -> str:
    """Return a file's URI."""
    return uris.from_fs_path(str(path.resolve())) or ""
