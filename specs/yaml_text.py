"""How is YAML read? Text to a tree in which every value and every key knows its place.

YAML 1.2 with its core types and one addition: a term such as `conv(64, 3)` is one scalar wherever it stands,
so that its commas need no quotes inside `[ ]` and `{ }`. Tags and merge keys are not part of the language.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scanner import Scanner
from ruamel.yaml.tokens import ScalarToken

from lpc.specs.diagnostics import Diagnostic, Label, LpcError
from lpc.specs.source import Source, Span
from lpc.specs.tree import Node, Scalar
from lpc.specs.yaml_errors import explained

MAX_DEPTH = 64
MAX_NODES = 100_000
MAX_TERM = 10_000  # characters

_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Scalar] = {
    "": None, "~": None, "null": None, "true": True, "false": False,
    ".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan"),
}  # fmt: skip


def read_yaml(source: Source) -> Node:
    """Return the tree of a YAML text with one document.

    Raises:
        LpcError: 0101 syntax, 0102 a key given twice, 0103 nested too deep or expanding to too many values.
    """
    try:
        return _Builder(source).document()
    except MarkedYAMLError as error:
        raise LpcError(explained(error, source)) from None
    except ReaderError as error:
        before = source.text[: error.position]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        span = Span(source, line, column, line, column + 1)
        message = f"a character that YAML does not allow: {error.reason}"
        raise LpcError(Diagnostic("0101", message, span)) from None
    except YAMLError as error:
        raise LpcError(Diagnostic("0101", str(error).splitlines()[0], place=source.name)) from None


def _span(source: Source, start: Any, end: Any) -> Span:
    return Span(source, start.line + 1, start.column + 1, end.line + 1, end.column + 1)


class TermScanner(Scanner):
    """ruamel's scanner, for which a term with balanced parentheses is one plain scalar."""

    def scan_plain(self) -> Any:
        length = self._term_length()
        if not length:
            return super().scan_plain()
        start = self.reader.get_mark()
        text = self.reader.prefix(length)
        self.reader.forward(length)
        return ScalarToken(text, True, start, self.reader.get_mark())

    def _term_length(self) -> int:
        """Return the length of the term that starts here, or 0."""
        peek = self.reader.peek
        end = 0
        while peek(end).isalnum() or peek(end) in "_.":
            end += 1
        if end == 0 or peek(end) != "(":
            return 0
        end = self._closing(end)
        after = end
        while peek(after) in " \t":
            after += 1
        ends = "\0\r\n:,]}" if self.flow_level else "\0\r\n:"
        return end if peek(after) in ends or (peek(after) == "#" and after > end) else 0

    def _closing(self, start: int) -> int:
        """Return the offset after the bracket that closes the one at `start`; 0 if there is none."""
        peek = self.reader.peek
        depth, quote, end = 0, "", start
        while (character := peek(end)) != "\0" and end < MAX_TERM:
            if quote:
                end += quote == '"' and character == "\\"
                quote = "" if character == quote else quote
            elif character in "\"'":
                quote = character
            else:
                depth += (character in "([{") - (character in ")]}")
            end += 1
            if depth == 0:
                return end
        return 0


class _Builder:
    """Builds nodes from YAML events; holds the anchors and the number of values they expand to."""

    def __init__(self, source: Source) -> None:
        self.source = source
        reader = YAML(typ="safe", pure=True)
        reader.Scanner = TermScanner
        self.events: Iterator[Any] = reader.parse(source.text)
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.count = 0

    def document(self) -> Node:
        """Return the tree of the only document; an empty text is an empty mapping."""
        root: Node | None = None
        for event in self.events:
            if not isinstance(event, DocumentStartEvent):
                continue
            if root is not None:
                self._fail("0101", "a second document starts here; a spec is one document", event)
            root = self.node(next(self.events), 0)
        if root is None or (root.value is None and not root.quoted):
            return Node({}, Span(self.source, 1, 1, 1, 1))
        return root

    def node(self, event: Any, depth: int) -> Node:
        """Return the node that starts with `event`."""
        if depth > MAX_DEPTH:
            self._fail("0103", f"nested deeper than {MAX_DEPTH} levels", event)
        if isinstance(event, AliasEvent):
            return self._alias(event)
        if event.tag is not None:
            self._fail("0101", f"the tag `{event.tag}` is not part of the language", event)
        before = self.count
        self._add(1, event)
        node = self._made(event, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = node, self.count - before
        return node

    def _made(self, event: Any, depth: int) -> Node:
        if isinstance(event, SequenceStartEvent):
            return self._sequence(event, depth)
        if isinstance(event, MappingStartEvent):
            return self._mapping(event, depth)
        plain = event.style is None
        value = _scalar(event.value) if plain else event.value
        return Node(value, _span(self.source, event.start_mark, event.end_mark), quoted=not plain)

    def _sequence(self, start: Any, depth: int) -> Node:
        items: list[Node] = []
        event = next(self.events)
        while not isinstance(event, SequenceEndEvent):
            items.append(self.node(event, depth + 1))
            event = next(self.events)
        return Node(tuple(items), _span(self.source, start.start_mark, event.end_mark))

    def _mapping(self, start: Any, depth: int) -> Node:
        items: dict[str, Node] = {}
        event = next(self.events)
        while not isinstance(event, MappingEndEvent):
            key = self._key(event, items)
            child = self.node(next(self.events), depth + 1)
            items[key] = replace(child, key=_span(self.source, event.start_mark, event.end_mark))
            event = next(self.events)
        return Node(items, _span(self.source, start.start_mark, event.end_mark))

    def _key(self, event: Any, items: dict[str, Node]) -> str:
        if not isinstance(event, ScalarEvent) or event.tag is not None:
            self._fail("0101", "a key must be a word or a text", event)
        key = str(event.value)
        if key == "<<" and event.style is None:
            self._fail("0101", "merge keys are not part of the language; use `extends`", event)
        if key in items:
            self._fail("0102", f"the key `{key}` is given twice", event, items[key].key)
        return key

    def _alias(self, event: Any) -> Node:
        if event.anchor not in self.anchors:
            self._fail("0101", f"the alias `*{event.anchor}` names nothing that is complete before it", event)
        node, size = self.anchors[event.anchor]
        self._add(size, event)
        return node

    def _add(self, size: int, event: Any) -> None:
        self.count += size
        if self.count > MAX_NODES:
            self._fail("0103", f"the spec expands to more than {MAX_NODES} values", event)

    def _fail(self, code: str, message: str, event: Any, first: Span | None = None) -> NoReturn:
        span = _span(self.source, event.start_mark, event.end_mark)
        labels = (Label(first, "first given here"),) if first else ()
        raise LpcError(Diagnostic(code, message, span, labels=labels))


def _scalar(text: str) -> Scalar:
    """Return a plain scalar by the YAML 1.2 core types."""
    folded = text.lower() if text.lower() in _WORDS else text
    if folded in _WORDS:
        return _WORDS[folded]
    if _INT.fullmatch(text):
        return int(text) if len(text) < 1000 else text
    if _BASED.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text
