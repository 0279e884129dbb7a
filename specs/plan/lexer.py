"""What are the words of a plan's text? Names, bare or quoted, and signs, with their places; `#` comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.source import Source, Span

NAME = r"[\w.@/$+:-][\w.@/$+:#>-]*"
_TOKEN = re.compile(
    rf"""(?P<comment>\#.*)
       | (?P<quoted>"(?:[^"\\]|\\.)*")
       | (?P<sign><-|[,(){{}}=*%\[\]])
       | (?P<name>{NAME})
       | (?P<space>[ \t\r]+)
       | (?P<other>.)""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True)
class Token:
    """One word. `text` is what it means: the content of a quoted name, not its quotes."""

    kind: Literal["name", "quoted", "sign", "end"]
    text: str
    span: Span


def quote(name: str) -> str:
    """Return a name as it is written: bare, or in double quotes where it holds anything unusual."""
    return name if re.fullmatch(NAME, name, re.ASCII) else json.dumps(name)


def lines(source: Source) -> Iterator[list[Token]]:
    """Yield the tokens of every line that holds any, each with an `end` token. Raises LpcError (0520)."""
    for number, line in enumerate(source.text.split("\n"), 1):
        tokens = list(_tokens(source, number, line))
        if tokens:
            end = Span(source, number, len(line) + 1, number, len(line) + 2)
            yield [*tokens, Token("end", "the end of the line", end)]


def _tokens(source: Source, number: int, line: str) -> Iterator[Token]:
    for match in _TOKEN.finditer(line):
        span = Span(source, number, match.start() + 1, number, match.end() + 1)
        word = match[0]
        match match.lastgroup:
            case "name":
                yield Token("name", word, span)
            case "sign":
                yield Token("sign", word, span)
            case "quoted":
                yield Token("quoted", _unquoted(word, span), span)
            case "other":
                fail(f"the character {word!r} has no meaning here", span)


def _unquoted(word: str, span: Span) -> str:
    try:
        return str(json.loads(word))
    except ValueError:
        fail("this quoted name holds a bad escape", span)


def fail(message: str, span: Span, *notes: str) -> NoReturn:
    """Raise the diagnostic of a text that is not understood."""
    raise LpcError(Diagnostic("0520", message, span=span, notes=notes))


@dataclass
class Cursor:
    """A position in one line's tokens."""

    tokens: list[Token]
    position: int = 0

    @property
    def token(self) -> Token:
        """The token at the position."""
        return self.tokens[self.position]

    def at(self, sign: str, ahead: int = 0) -> bool:
        """Tell whether a sign or a bare word is at the position, or `ahead` tokens after it."""
        token = self.tokens[min(self.position + ahead, len(self.tokens) - 1)]
        return token.kind in ("sign", "name") and token.text == sign

    def take(self) -> Token:
        """Return the token at the position and step on; the end is never passed."""
        token = self.token
        self.position = min(self.position + 1, len(self.tokens) - 1)
        return token

    def expect(self, sign: str) -> Token:
        """Take one certain sign or bare word."""
        if not self.at(sign):
            fail(f"expected `{sign}`, found {self.found()}", self.token.span)
        return self.take()

    def name(self) -> str:
        """Take a name, bare or quoted."""
        if self.token.kind not in ("name", "quoted"):
            fail(f"expected a name, found {self.found()}", self.token.span)
        return self.take().text

    def end(self) -> None:
        """Make sure that nothing is left on the line."""
        if self.token.kind != "end":
            fail(f"expected the end of the line, found {self.found()}", self.token.span)

    def found(self) -> str:
        """The token at the position, for a message."""
        return self.token.text if self.token.kind == "end" else f"`{self.token.text}`"
