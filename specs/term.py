"""What is a term? `name` or `name(arg, key=value, ...)`, the one way to name a thing with options."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic_core import CoreSchema, core_schema

Value: TypeAlias = "bool | int | float | str | Term | list[Value] | dict[str, Value] | None"

WORD = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)
RESERVED = frozenset({"true", "false", "none", "null"})


@dataclass(frozen=True)
class Term:
    """A name with positional and named arguments; prints as it is written.

    `str(term)` is canonical and parses back to an equal term. Inside another term a term without
    arguments prints as `name()`, because a bare word there is a string.
    """

    name: str
    args: tuple[Value, ...] = ()
    kwargs: dict[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        return print_value(self) if self.args or self.kwargs else self.name

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        """Let models hold terms as they are: the loader has already read them from text."""
        return core_schema.is_instance_schema(cls, serialization=core_schema.to_string_ser_schema())


def print_value(value: Value) -> str:
    """Return the canonical text of an argument; reading it gives an equal value."""
    if isinstance(value, Term):
        arguments = [print_value(a) for a in value.args]
        arguments += [f"{key}={print_value(a)}" for key, a in value.kwargs.items()]
        return f"{value.name}({', '.join(arguments)})"
    if isinstance(value, list):
        return f"[{', '.join(map(print_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_word(key)}: {print_value(item)}' for key, item in value.items())}}}"
    return _word(value) if isinstance(value, str) else print_scalar(value)


def print_scalar(value: bool | int | float | None) -> str:
    """Return a scalar that is no string, as terms and YAML both read it."""
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return repr(value)


def quote(text: str) -> str:
    """Return text in double quotes with the escapes that JSON and YAML share."""
    return "".join(['"', *map(_escape, text), '"'])


def unquote(token: str) -> str:
    """Return the text of a quoted token: JSON escapes in double quotes, `''` for a quote in single ones.

    Raises:
        ValueError: an escape that JSON does not have.
    """
    if token.startswith("'"):
        return token[1:-1].replace("''", "'")
    text = json.loads(token, strict=False)
    assert isinstance(text, str)
    return text


def _escape(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    # JSON writes characters beyond 16 bits as two escapes, which YAML reads as two characters.
    raw = character.isprintable() or ord(character) > 0xFFFF
    return character if raw else f"\\u{ord(character):04x}"


def _word(text: str) -> str:
    return text if WORD.fullmatch(text) and text.lower() not in RESERVED else quote(text)
