"""How is a DSL text parsed? Indentation to bodies, the grammar in grammar.lark, and messages where that fails."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import ClassVar, TypeAlias

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput
from lark.indenter import DedentError

from lpc.specs.diagnostics import Diagnostic, Fix, LpcError, nearest
from lpc.specs.dsl_errors import HELP, MESSAGES, PARTICULAR, TEACHING, stopped
from lpc.specs.dsl_words import first_words
from lpc.specs.grammars import Blocks, parser
from lpc.specs.source import Locate, Source

MAX_DEPTH = 64
MAX_BRACKETS = 32

# The parser's innermost states, and the kind of token at which it stopped; None is any.
Stop: TypeAlias = tuple[tuple[object, ...], str | None]

_WORD = re.compile(r"[ \t]*([A-Za-z_]\w*)")
_OPAQUE = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\'\'|[^\'\n])*\'|#[^\n]*')


@dataclass(frozen=True)
class Statement:
    """A statement at the margin: its text, where that begins, and its parse tree.

    The tree's offsets count from one line break before the statement's text.
    """

    start: int
    text: str
    tree: Tree[Token]


class _Memory:
    """The parse trees of the text that was read last: an editor reads a text again that differs in one statement."""

    trees: ClassVar[Mapping[str, Tree[Token]]] = {}


def parse_dsl(source: Source, locate: Locate) -> list[Statement]:
    """Return the statements of a DSL text; their trees are not to be changed.

    Raises:
        LpcError: 0108 for each statement that cannot be read, 0103 nested too deep.
    """
    _bounded(source.text, locate)
    known, trees = _Memory.trees, {}
    statements, problems = [], []
    for start, text in _statements(source.text):
        try:
            trees[text] = tree = known.get(text) or _parsed(text)
        except (UnexpectedInput, DedentError) as error:
            problems.append(_problem(text, error, moved(locate, start)))
        else:
            statements.append(Statement(start, text, tree))
    _Memory.trees = trees
    if problems:
        raise LpcError(problems)
    return statements


@cache
def grammar() -> Lark:
    """Return the parser of the DSL. Texts begin with a line break, so that a first indentation is seen."""
    return parser("grammar")


def _parsed(text: str) -> Tree[Token]:
    return grammar().parse(f"\n{text}\n")


def _bounded(text: str, locate: Locate) -> None:
    """Refuse a text whose brackets or bodies nest so deep that reading would not end well."""
    depth, bodies = 0, [0]
    for start, line in _lines(_OPAQUE.sub(lambda match: " " * len(match[0]), text)):
        if not depth and line.strip():
            width = _width(line)
            bodies = [*(body for body in bodies if body < width), width]
        for character in line:
            depth = max(0, depth + (character in "([{") - (character in ")]}"))
            if depth > MAX_BRACKETS or len(bodies) > MAX_DEPTH:
                limit = MAX_BRACKETS if depth > MAX_BRACKETS else MAX_DEPTH
                message = f"nested deeper than {limit} levels"
                raise LpcError(Diagnostic("0103", message, locate(start, start + len(line.rstrip()))))


def _width(line: str) -> int:
    """Return how far a line is indented, as the parser counts."""
    lead = line[: len(line) - len(line.lstrip())]
    return len(lead) + lead.count("\t") * (Blocks.tab_len - 1)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for line in text.splitlines(keepends=True):
        yield start, line
        start += len(line)


def moved(locate: Locate, by: int) -> Locate:
    """Return a function that places the offsets of a part of a text, which begins at `by`."""
    return lambda start, end: locate(by + start, by + end)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield the statements of a text with their offsets: lines from one at the margin up to the next."""
    depth, begin = 0, 0
    for start, line in _lines(_OPAQUE.sub(lambda match: "_" * len(match[0]), text)):
        if start and not depth and line[:1] not in " \t\r\n_#)]}":
            yield begin, text[begin:start]
            begin = start
        depth = max(0, depth + sum(map(line.count, "([{")) - sum(map(line.count, ")]}")))
    yield begin, text[begin:]


def _problem(text: str, error: Exception, locate: Locate) -> Diagnostic:
    if isinstance(error, DedentError):
        start = _dedent(text)
        return Diagnostic("0108", MESSAGES["dedent"], locate(start, start + 1), help=HELP["dedent"])
    assert isinstance(error, UnexpectedInput)
    start, end, found = stopped(text, error)
    misspelt = _misspelt(text, start, locate)
    if misspelt is not None:
        return misspelt
    kind = "quote" if text[start:end] in ('"', "'") else _lesson(error)
    message = MESSAGES[kind].format(found=found) if kind else f"unexpected {found}"
    return Diagnostic("0108", message, locate(start, end), help=HELP[kind] if kind else None)


def _misspelt(text: str, stop: int, locate: Locate) -> Diagnostic | None:
    """Return the diagnostic of a statement's first word, if reading gets further with the word that it is near to.

    It is that of the statement at the margin, or of the line at which reading stopped.
    """
    head = _WORD.match(text)
    inner = _WORD.match(text, text.rfind("\n", 0, stop) + 1)
    section = (head[1],) if head else ()
    for word, path in ((head, ()), (inner, section)):
        near = nearest(word[1], first_words(path)) if word else None
        if word is None or near is None or near == word[1]:
            continue
        if _stop(text[: word.start(1)] + near + text[word.end(1) :]) > stop + len(near) - len(word[1]):
            span = locate(word.start(1), word.end(1))
            message, help = f"there is no statement `{word[1]}` here", f"did you mean `{near}`?"
            return Diagnostic("0108", message, span, help=help, fix=Fix(span, near) if span else None)
    return None


def _stop(text: str) -> float:
    """Return the offset at which reading stops."""
    try:
        _parsed(text)
    except UnexpectedInput as error:
        return stopped(text, error)[0]
    except DedentError:
        return -inf
    return inf


def _lesson(error: UnexpectedInput) -> str | None:
    """Return the kind of mistake of the example that stops the parser as this text does, or nearly so."""
    lessons = _lessons()
    return next((lessons[stop] for stop in _stops(error) if stop in lessons), None)


@cache
def _lessons() -> dict[Stop, str]:
    """Return the kind of mistake by where and at what the parser stops."""
    lessons: dict[Stop, str] = {}
    for kind, examples in TEACHING.items():
        for example in examples:
            try:
                _parsed(example)
            except UnexpectedInput as error:
                exact, near, anything = _stops(error)
                lessons.setdefault(exact, kind)
                lessons.setdefault(near, kind)
                if kind not in PARTICULAR:
                    lessons.setdefault(anything, kind)
    return lessons


def _stops(error: UnexpectedInput) -> tuple[Stop, Stop, Stop]:
    """Return the parser's last two states and the kind of token found; less exact: one state, any token."""
    token = getattr(error, "token", None)
    found = token.type if isinstance(token, Token) else "a character"
    stack = tuple(getattr(error.state, "state_stack", (error.state,)))
    return (stack[-2:], found), (stack[-1:], found), (stack[-2:], None)


def _dedent(text: str) -> int:
    """Return the offset of the first line whose indentation fits no line before it."""
    bodies = [0]
    for start, line in _lines(_OPAQUE.sub(lambda match: " " * len(match[0]), text)):
        if not line.strip():
            continue
        width = _width(line)
        if width < bodies[-1] and width not in bodies:
            return start + len(line) - len(line.lstrip())
        bodies = [*(body for body in bodies if body < width), width]
    return 0
