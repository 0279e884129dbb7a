"""What does a plan's text say? The inverse of printing, with the place of whatever is not understood."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.plan.instructions import DEPTH, KINDS, Instruction
from lpc.specs.plan.lexer import Cursor, Token, fail, lines
from lpc.specs.plan.plan import Phase
from lpc.specs.plan.text import PHASE, SECTIONS, TEMPLATES, Sections, parts_of
from lpc.specs.source import Source


def parse(program: str, name: str = "plan.txt") -> Sections:
    """Read the sections `step`, or one `phase` after another, `evaluate` and `predict` from a plan's text.

    Raises LpcError (0520, 0521) with line and column; `name` stands for the text in messages.
    """
    rows = [Cursor(tokens) for tokens in lines(Source(name, program))]
    found: dict[str, tuple[Instruction, ...]] = {}
    phases: list[Phase] = []
    position = 0
    while position < len(rows):
        row = rows[position]
        if row.at(PHASE):
            trains = _phase(row, found)
            body, position = _parse_body(rows, position + 1, 0)
            phases.append(Phase(trains, body))
            found["step"] = ()
        else:
            title = _section(row, found)
            found[title], position = _parse_body(rows, position + 1, 0)
    missing = [title for title in SECTIONS if title not in found]
    if missing:
        raise LpcError(Diagnostic("0520", f"the section `{missing[0]}` is missing", place=name))
    return Sections(found["step"], found["evaluate"], found["predict"], tuple(phases))


def _phase(row: Cursor, found: Mapping[str, tuple[Instruction, ...]]) -> tuple[str, ...]:
    """Read the title of a phase: what it trains. A program has phases or a `step`, which is never empty."""
    title = row.take()
    if found.get("step"):
        fail("a program with a `step` has no phases", title.span)
    trains = _names(row)
    row.end()
    return trains


def _section(row: Cursor, found: Mapping[str, object]) -> str:
    title = row.take()
    if title.text not in SECTIONS:
        near = did_you_mean(title.text, SECTIONS)
        fail(f"expected a section, found `{title.text}`", title.span, *([near] if near else []))
    row.end()
    if title.text in found:
        fail(f"the section `{title.text}` is there twice", title.span)
    return title.text


def _is_section(row: Cursor) -> bool:
    if row.at(PHASE):
        return not row.at("=", ahead=1) and not row.at(",", ahead=1)
    return len(row.tokens) == 2 and row.token.kind == "name" and row.token.text in SECTIONS


def _parse_body(rows: list[Cursor], position: int, depth: int) -> tuple[tuple[Instruction, ...], int]:
    """Read instructions up to a closing brace, or at depth 0 up to the next section."""
    body: list[Instruction] = []
    while position < len(rows):
        row = rows[position]
        if _is_section(row):
            break
        if depth > 0 and row.at("}"):
            row.take()
            row.end()
            return tuple(body), position + 1
        instruction, position = _parse_instruction(rows, position, depth)
        body.append(instruction)
    if depth > 0:
        last = position == len(rows)
        found = "the end of the text" if last else f"the section `{rows[position].token.text}`"
        fail(f"expected `}}`, found {found}", rows[-1].tokens[-1].span if last else rows[position].token.span)
    return tuple(body), position


def _parse_instruction(rows: list[Cursor], position: int, depth: int) -> tuple[Instruction, int]:
    row = rows[position]
    word = _word(row)
    values: dict[str, Any] = {}
    position += 1
    for part in parts_of(word):
        if part.kind is None:
            row.expect(part.text)
        elif part.text != "body":
            values[part.text] = _parse_field(row, part.kind)
        else:
            opening = row.expect("{")
            row.end()
            if depth == DEPTH:
                raise LpcError(Diagnostic("0521", f"more than {DEPTH} nested braces", span=opening.span))
            values["body"], position = _parse_body(rows, position, depth + 1)
    row.end()
    return KINDS[word](**values), position


def _word(row: Cursor) -> str:
    """Find the word that says which instruction a line is: the first one, or the one after `=`."""
    signs = [index for index, token in enumerate(row.tokens) if token.kind == "sign" and token.text == "="]
    token = row.tokens[signs[0] + 1] if signs else row.token
    if token.kind == "name" and token.text in TEMPLATES:
        return token.text
    near = did_you_mean(token.text, TEMPLATES)
    shown = token.text if token.kind == "end" else f"`{token.text}`"
    fail(f"expected an instruction, found {shown}", token.span, *([near] if near else []))


def _parse_field(row: Cursor, kind: Any) -> Any:
    if kind is str:
        return row.name()
    if kind in (int, float):
        return _number(row.take(), kind)
    if kind == tuple[int, ...]:
        return _integers(row)
    return _names(row)


def _number(token: Token, kind: Callable[[str], Any]) -> Any:
    try:
        if token.kind == "name":
            return kind(token.text)
    except ValueError:
        pass
    fail(f"expected {'an integer' if kind is int else 'a number'}, found `{token.text}`", token.span)


def _integers(row: Cursor) -> tuple[int, ...]:
    numbers = [_number(row.take(), int)]
    while row.at(","):
        row.take()
        numbers.append(_number(row.take(), int))
    return tuple(numbers)


def _names(row: Cursor) -> tuple[str, ...]:
    if row.at("(") and row.at(")", ahead=1):
        row.take()
        row.take()
        return ()
    if row.at(")"):
        return ()
    names = [row.name()]
    while row.at(","):
        row.take()
        names.append(row.name())
    return tuple(names)
