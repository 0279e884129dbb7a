"""What does the YAML parser's complaint mean to somebody who writes a spec? Its words in plain ones, with a remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ruamel.yaml.error import MarkedYAMLError

from lpc.specs.diagnostics import Diagnostic, Label
from lpc.specs.source import Source, Span

# A message and one thing to try.
Told = tuple[str, str | None]
Teller = Callable[[re.Match[str], Source, Span], Told]


def explained(error: MarkedYAMLError, source: Source) -> Diagnostic:
    """Return what the parser found wrong, with the bracket, quote or key that it was reading then."""
    problem, context = error.problem or "not YAML", error.context or ""
    begun = _span(source, error.context_mark)
    span = _span(source, error.problem_mark) or begun
    if span is None:
        return Diagnostic("0101", problem, place=source.name)
    for pattern, tell in _TELLERS:
        match = re.search(pattern, f"{problem} ({context})")
        if match is None:
            continue
        message, help = tell(match, source, span)
        if "simple key" in context and begun is not None:
            span = begun
        labels = (Label(begun, "this begins here"),) if begun and re.search("flow|quoted", context) else ()
        return Diagnostic("0101", message, span, help=help, labels=labels)
    return Diagnostic("0101", problem, span)


def _span(source: Source, mark: Any) -> Span | None:
    return None if mark is None else Span(source, mark.line + 1, mark.column + 1, mark.line + 1, mark.column + 1)


def _says(message: str, help: str) -> Teller:
    """Return what tells this; `{0}`, `{1}` are the pattern's groups."""
    return lambda match, source, span: (message.format(*match.groups()), help)


def _colon(match: re.Match[str], source: Source, span: Span) -> Told:
    """Tell why a `:` cannot stand here: its line is indented wrongly, has two, or the line before has none."""
    line = source.line(span.line)
    before = _indentations(source, span.line)
    if re.search(r":\s", line[: span.column - 1]):
        return "a second `: ` on this line", "put the value in quotes, or the inner key on a line of its own"
    if before and _indentation(line) == before[-1][1]:
        number = before[-1][0]
        help = f"write `key: value` on line {number}, a blank after the colon"
        return f"line {number} has no `: ` after its key", help
    return _column(match, source, span)


def _column(match: re.Match[str], source: Source, span: Span) -> Told:
    """Tell that a line begins in a column in which nothing can go on."""
    own = _indentation(source.line(span.line)) + 1
    before = [(number, indentation + 1) for number, indentation in _indentations(source, span.line)]
    if not before or own in (column for _, column in before):
        return "this line does not go on with what is before it", "write `- ` before the items of a list, and no others"
    number, column = min(reversed(before), key=lambda place: abs(place[1] - own))
    message = f"this line begins in column {own}, and no list or mapping around it does"
    return message, f"begin it in column {column}, as line {number} does"


def _indentations(source: Source, end: int) -> list[tuple[int, int]]:
    """Return the number and indentation of the lines before line `end` that are not empty."""
    lines = [(number, source.line(number)) for number in range(1, end)]
    return [(number, _indentation(line)) for number, line in lines if line.strip() and line.lstrip()[0] != "#"]


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


_TELLERS: tuple[tuple[str, Teller], ...] = (
    (r"expected <block end>|expected '<document start>'", _column),
    (r"mapping values are not allowed", _colon),
    (
        r"expected ',' or '(.)', but got",
        _says("expected `,` or `{0}` before this", "close the bracket, or add a comma"),
    ),
    (r"unexpected end of stream .*quoted", _says("a quote is not closed", "close the quote where the text ends")),
    (r"found character '\\t'", _says("a tab, where YAML takes blanks only", "replace the tab by blanks")),
    (r"found character '(.+)' that", _says("a value cannot begin with `{0}`", "put the value in quotes")),
    (r"could not find expected ':'", _says("a line without `: `", "write `key: value`, or `- value` in a list")),
    (
        r"expected the node content, but found '(.+)'",
        _says("a value is missing before `{0}`", "write the value, or remove the comma or bracket"),
    ),
    (r"unknown escape character '(.)'", _says("there is no escape `\\{0}`", "write `\\\\` for a backslash")),
    (r"scanning an (alias|anchor)", _says("an {0} lacks its name", "put the value in quotes, if it is a text")),
)
