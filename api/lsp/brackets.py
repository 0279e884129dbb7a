"""Which brackets are open? Both spellings write terms, lists and mappings in brackets alike."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lpc.lsp.place import Call, Place, Slot
from lpc.specs.tree import Path

TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\\n])*"?|'(?:''|[^'\n])*'?)|(?P<comment>(?<!\S)\#[^\n]*)|(?P<space>\s+)"""
    r"""|(?P<mark>>>|->|[\[\]{}(),:=])|(?P<word>(?:(?!->|>>)[^\s"'\[\]{}(),:=]|(?<=[\w*?\]])\[[^\]\s,]+\])+)"""
)

_NAME = re.compile(r"[\w.]+$")
_CLOSED = {")": "(", "]": "[", "}": "{"}


@dataclass
class Open:
    """An open bracket; `begin` is where the value that it belongs to begins, a term's name or the bracket itself."""

    mark: str
    begin: int
    name: str = ""
    index: int = 0
    key: str | None = None
    given: list[str] = field(default_factory=list)


class Brackets:
    """The open brackets of a text, innermost last; `start` is where the scalar in writing begins, if one does."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.opens: list[Open] = []
        self.start: int | None = None

    def feed(self, token: re.Match[str]) -> None:
        """Read one token inside brackets, or the bracket that opens the first."""
        mark, here = token["mark"], token.start()
        if token["space"] or token["comment"]:
            return
        if mark in ("(", "[", "{"):
            self._open(mark, here)
        elif mark in _CLOSED:
            self._close(_CLOSED[mark])
        elif mark == ",":
            self._next()
        elif self.start is not None and self._names(mark, token.end()):
            self._name(here)
        elif self.start is None:
            self.start = here

    def _open(self, mark: str, here: int) -> None:
        name = _NAME.search(self.text[self.start : here]) if mark == "(" and self.start is not None else None
        self.opens.append(Open(mark, name.start() + (self.start or 0) if name else here, name[0] if name else ""))
        self.start = None

    def _close(self, mark: str) -> None:
        while self.opens:
            closed = self.opens.pop()
            self.start = closed.begin
            if closed.mark == mark:
                return

    def _next(self) -> None:
        self.opens[-1].index += 1
        self.opens[-1].key = self.start = None

    def _names(self, mark: str, after: int) -> bool:
        """Tell whether a sign ends an argument's name or a key; `package:Class` is no key."""
        if self.opens[-1].mark == "(":
            return mark == "="
        return mark == ":" and not re.match(r"[^\s\[{\"']", self.text[after : after + 1])

    def _name(self, here: int) -> None:
        key = unquoted(self.text[self.start : here].strip())
        self.opens[-1].key = key
        self.opens[-1].given.append(key)
        self.start = None


def unquoted(text: str) -> str:
    """Return a scalar without the quotes around it, also where the last is not written yet."""
    if text[:1] not in ("'", '"'):
        return text
    return text[1:].removesuffix(text[0])


def place_at(path: Path, slot: Slot, start: int | None, before: str, given: tuple[str, ...] = ()) -> Place:
    """Return the place at the end of the text `before`, where the scalar in writing begins at `start`."""
    start = len(before) if start is None else start
    typed = before[start:]
    quote = typed[:1] in ("'", '"')
    return Place(path, slot, start + quote, unquoted(typed), given=given)


def place_inside(path: Path, brackets: Brackets) -> Place:
    """Return the place inside the brackets that are open in the value at `path`."""
    calls: list[Call] = []
    slot: Slot = "value"
    given: tuple[str, ...] = ()
    for found in brackets.opens:
        if found.mark == "(":
            calls.append(Call(found.name, found.key, found.index, tuple(found.given)))
            slot = "argument" if found.key is None else "value"
        elif calls:
            slot = "nothing" if found.mark == "{" else "value"
        else:
            path = (*path, found.index) if found.mark == "[" else path
            path = path if found.key is None else (*path, found.key)
            slot = "key" if found.mark == "{" and found.key is None else "value"
        given = tuple(found.given)
    place = place_at(path, slot, brackets.start, brackets.text, given)
    return Place(place.path, place.slot, place.start, place.typed, tuple(calls), given)
