"""Where does the cursor stand in a YAML text? Indentation and brackets before it tell, whether or not they parse."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lpc.lsp.brackets import TOKEN, Brackets, place_at, place_inside, unquoted
from lpc.lsp.place import Place
from lpc.specs.tree import Path

_DASH = re.compile(r"- *(?=\S|$)|-$")


@dataclass
class Level:
    """A mapping, or a list where there is no `given`, that is written over lines at one indentation."""

    indent: int
    listed: bool
    index: int = 0
    key: str = ""
    given: list[str] = field(default_factory=list)


def yaml_place(text: str, offset: int) -> Place:
    """Return the place at an offset of a YAML text."""
    reader = _Reader(text[:offset])
    begin = 0
    lines = text[:offset].split("\n")
    for number, line in enumerate(lines, 1):
        if line.strip() or number == len(lines):
            reader.line(line.rstrip("\r"), begin)
        begin += len(line) + 1
    return reader.place()


class _Reader:
    """Holds what is open at the end of the lines read so far."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.brackets = Brackets(text)
        self.levels: list[Level] = []
        self.start: int | None = None
        self.column = 0
        self.valued = False
        self.commented = False

    def line(self, line: str, begin: int) -> None:
        """Read one line, which begins at an offset of the text."""
        at = 0
        if self._goes_on(line):
            self.brackets.start = self.brackets.start if line.strip() else None
        else:
            at = self._margin(line)
        for token in TOKEN.finditer(self.text, begin + at, begin + len(line)):
            self._token(token)

    def _goes_on(self, line: str) -> bool:
        """Tell whether a line is inside brackets; YAML indents what is, so that other lines end what was left open."""
        if not self.brackets.opens:
            return False
        indent = len(line) - len(line.lstrip())
        if line.strip()[:1] not in ("]", "}", ")") and indent <= (self.levels[-1].indent if self.levels else 0):
            self.brackets = Brackets(self.text)
            return False
        return True

    def _margin(self, line: str) -> int:
        """Close what the line's indentation ends, open the lists that it begins; return where its content begins."""
        at = len(line) - len(line.lstrip(" "))
        while dash := _DASH.match(line, at):
            while self.levels and self.levels[-1].indent > at:
                self.levels.pop()
            if self.levels and self.levels[-1].listed and self.levels[-1].indent == at:
                self.levels[-1].index += 1
            else:
                self.levels.append(Level(at, True))
            at = dash.end() if dash[0] != "-" else at + 1
        while self.levels and self.levels[-1].indent >= at + (not self.levels[-1].listed):
            self.levels.pop()
        self.start, self.valued, self.commented, self.column = None, False, False, at
        return at

    def _token(self, token: re.Match[str]) -> None:
        self.commented = bool(token["comment"])
        if self.brackets.opens:
            self.brackets.feed(token)
            return
        here, mark = token.start(), token["mark"]
        if token["space"] or token["comment"]:
            return
        called = mark == "(" and self.start is not None and re.match(r"[\w.]", self.text[here - 1])
        if called or (mark in ("[", "{") and self.start is None):
            self.brackets.start = self.start
            self.brackets.feed(token)
        elif mark == ":" and self.start is not None and not self.valued and not self.text[here + 1 : here + 2].strip():
            self._key(unquoted(self.text[self.start : here].strip()))
        if self.start is None and mark != ":":
            self.start = here

    def _key(self, key: str) -> None:
        if not self.levels or self.levels[-1].listed or self.levels[-1].indent != self.column:
            self.levels.append(Level(self.column, False))
        self.levels[-1].key = key
        self.levels[-1].given.append(key)
        self.start, self.valued = None, True

    def place(self) -> Place:
        """Return the place at the end of the text."""
        path = _path(self.levels)
        if self.commented:
            return place_at(path, "nothing", None, self.text)
        if self.brackets.opens:
            return place_inside(path, self.brackets)
        if self.valued:
            return place_at(path, "value", self.start, self.text)
        top = self.levels[-1] if self.levels else Level(self.column, False)
        if not top.listed and top.indent == self.column:
            return place_at(_path(self.levels[:-1]), "key", self.start, self.text, tuple(top.given))
        return place_at(path, "either", self.start, self.text)


def _path(levels: list[Level]) -> Path:
    return tuple(level.index if level.listed else level.key for level in levels)
