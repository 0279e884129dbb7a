"""Where does the cursor stand in a DSL text? The statement, what it is under, and the words before it tell."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lpc.lsp.brackets import TOKEN, Brackets, place_at, place_inside, unquoted
from lpc.lsp.expected import is_section
from lpc.lsp.place import Place, Slot
from lpc.specs.tree import Path

# What may follow: where that stands in the tree.
Next = tuple[Path, Slot, tuple[str, ...]]

LAYER: Path = ("network", "layers", 0)


@dataclass(frozen=True)
class Body:
    """What a line stands under: the `kind` of lines there, and the path of the mapping that they fill."""

    indent: int
    kind: str
    path: Path = ()


def dsl_place(text: str, offset: int) -> Place:
    """Return the place at an offset of a DSL text."""
    before = text[:offset]
    reader = _Reader(before)
    for line in re.finditer(r"[^\n]*(\n|$)", before):
        if line[0].strip() or line.end() == len(before):
            reader.line(line)
        if line.end() == len(before):
            break
    return reader.place()


class _Reader:
    """Holds the bodies that are open, and the parts of the statement in reading."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.brackets = Brackets(text)
        self.bodies = [Body(-1, "top")]
        self.parts: list[str] = []
        self.last = (0, 0)
        self.entries = -1
        self.indent = 0
        self.commented = False

    def line(self, line: re.Match[str]) -> None:
        """Read one line; inside brackets it goes on the one before, unless it begins with a section's name."""
        word = re.match(r"[a-z_]+", line[0])
        if not self.brackets.opens or (word and (word[0] == "learn" or is_section((word[0],)))):
            self._begin(len(line[0]) - len(line[0].lstrip(" \t")))
        for token in TOKEN.finditer(self.text, line.start(), line.end()):
            self._token(token)

    def _begin(self, indent: int) -> None:
        """Begin a statement: what the one before holds is its body, if this one is indented further."""
        if self.parts:
            self.bodies.append(self._body())
        self.brackets = Brackets(self.text)
        self.parts, self.last, self.indent, self.commented = [], (0, 0), indent, False
        while self.bodies[-1].indent >= indent:
            self.bodies.pop()

    def _body(self) -> Body:
        head, under = self.parts[0], self.bodies[-1]
        if under.kind == "top" and head in ("network", "decompose"):
            return Body(self.indent, head, (head,))
        if under.kind == "top":
            return Body(self.indent, "keys", ("learn", self.entries) if head == "learn" else (head,))
        return Body(self.indent, "layers" if under.kind in ("network", "layers") else "nothing")

    def _token(self, token: re.Match[str]) -> None:
        inside, here = bool(self.brackets.opens), token.start()
        self.commented = bool(token["comment"])
        opening = not inside and token["mark"] in ("(", "[", "{")
        called = token["mark"] in ("(", "[") and self.last[1] == here and self.parts
        if inside or opening:
            self.brackets.start = self.last[0] if called and opening else self.brackets.start
            self.brackets.feed(token)
            if opening and not called:
                self._part("", token)
            elif inside and not self.brackets.opens:
                self.last = (self.last[0], token.end())
                self.brackets.start = None
        elif not (token["space"] or token["comment"]):
            self._part(token[0], token)

    def _part(self, text: str, token: re.Match[str]) -> None:
        if not self.parts and self.bodies[-1].kind == "top" and text == "learn":
            self.entries += 1
        self.parts.append(unquoted(text))
        self.last = token.span()

    def place(self) -> Place:
        """Return the place at the end of the text."""
        parts, start = self.parts, None
        if self.commented:
            return place_at((), "nothing", None, self.text)
        if self.brackets.opens:
            path, _, _ = _next(self.bodies[-1], parts[:-1], max(self.entries, 0))
            return place_inside(LAYER if path == ("network",) else path, self.brackets)
        if parts and self.last[1] == len(self.text) and parts[-1] not in (":", "=", ",", ">>", "->"):
            parts, start = parts[:-1], self.last[0]
        path, slot, given = _next(self.bodies[-1], parts, max(self.entries, 0))
        return place_at(path, slot, start, self.text, given)


def _next(body: Body, parts: list[str], entry: int) -> Next:
    """Return what may follow the parts of a statement."""
    if body.kind == "top":
        return _top(parts, entry)
    if body.kind == "network" and (not parts or parts[0] in ("input", "init") or _is_key(parts, ("network",))):
        return _network(parts)
    if body.kind in ("network", "layers"):
        return (LAYER, "either" if not parts else "value" if parts[-1] in ("=", ">>") else "nothing", ())
    if body.kind == "decompose" and parts and parts[0] in ("block", "link"):
        return _decompose(parts)
    return _keys(body.path, parts) if body.path else ((), "nothing", ())


def _is_key(parts: list[str], path: Path) -> bool:
    return is_section(path, parts[0]) and parts[1:2] not in (["="], [">>"])


def _top(parts: list[str], entry: int) -> Next:
    if not parts:
        return (), "key", ()
    head, rest = parts[0], parts[1:]
    if head == "spec":
        return ("name",), "value", ()
    if head == "field":
        return _tensor(("fields",), rest)
    if head == "learn":
        return _learn(("learn", entry), rest)
    if head == "data":
        return _keys(("data",), ["source", *rest])
    return _keys((head,), rest) if is_section((head,)) else ((head,), "value", ())


def _learn(path: Path, parts: list[str]) -> Next:
    if ":" in parts:
        return _keys(path, parts[parts.index(":") + 1 :])
    key = "params" if "params" in parts else "blocks"
    return (*path, key, parts.count(",")), "value", ()


def _network(parts: list[str]) -> Next:
    if parts[:1] == ["input"]:
        return _tensor(("network", "inputs"), parts[1:])
    if parts[:1] == ["init"]:
        return _assigned(("network", "init"), parts[1:])
    return _keys(("network",), parts)


def _decompose(parts: list[str]) -> Next:
    if parts[0] == "link":
        return _assigned(("decompose", "links"), parts[1:])
    path, slot, given = _assigned(("decompose", "blocks"), parts[1:])
    return (*path, parts.count(",")) if slot == "value" else path, slot, given


def _assigned(path: Path, parts: list[str]) -> Next:
    """Read `KEY = value`."""
    if "=" in parts:
        return (*path, "".join(parts[: parts.index("=")])), "value", ()
    return path, "key", ()


def _tensor(path: Path, parts: list[str]) -> Next:
    """Read `NAME: dtype[shape]`."""
    return ((*path, parts[0], "dtype"), "value", ()) if ":" in parts else (path, "nothing", ())


def _keys(path: Path, parts: list[str]) -> Next:
    """Read `key value`, and again, with or without commas."""
    words = [part for part in parts if part != ","]
    if len(words) % 2:
        return (*path, words[-1]), "value", ()
    return path, "key", tuple(words[::2])
