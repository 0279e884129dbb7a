"""What arguments does a term take? Parameters with types, defaults and meaning, and terms bound to them.

A type is written as text and read as alternatives: `int`, `natural` (from 0), `size` (from 1), `float` (finite;
takes whole numbers too), `rate` (from 0), `positive`, `share` (0 to 1), `bool`, `str`, `dict`, `term`, `any`,
`none`, `[T]` (a list of T), or a quoted word, one allowed choice: `int | 'same'`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from lpc.specs.term import Term, Value


class Required(Enum):
    """The default of a parameter that has none."""

    REQUIRED = "required"


REQUIRED: Final = Required.REQUIRED


@dataclass(frozen=True)
class Parameter:
    """One argument: its name, its type as text, its default (or `REQUIRED`) and one line of meaning."""

    name: str
    type: str
    default: Value | Required = REQUIRED
    doc: str = ""

    def accepts(self, value: object) -> bool:
        """Tell whether `value` is of this parameter's type."""
        return any(_fits(alternative, value) for alternative in self.alternatives)

    @property
    def alternatives(self) -> tuple[str, ...]:
        """The types that the parameter takes, one by one."""
        return tuple(part.strip() for part in self.type.split(" | "))

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that the parameter takes by name."""
        return tuple(part[1:-1] for part in self.alternatives if part.startswith("'"))


@dataclass(frozen=True)
class Signature:
    """A name of a vocabulary with its parameters and one line of meaning.

    `open`: further named arguments are those of a class that only the compiler looks at.
    """

    name: str
    parameters: tuple[Parameter, ...] = ()
    doc: str = ""
    open: bool = False

    def parameter(self, name: str) -> Parameter | None:
        """Return the parameter of that name, or None."""
        return next((parameter for parameter in self.parameters if parameter.name == name), None)

    def bind(self, term: Term) -> dict[str, Any]:
        """Return every argument of `term` by name, defaults filled in; `term` must have passed `check`."""
        values: dict[str, Any] = {p.name: p.default for p in self.parameters if p.default is not REQUIRED}
        values |= zip((p.name for p in self.parameters), term.args, strict=False)
        return values | term.kwargs


Vocabulary = Mapping[str, Signature]


def vocabulary(signatures: Iterable[Signature]) -> dict[str, Signature]:
    """Return signatures by name; a name that occurs twice is a programming error."""
    table: dict[str, Signature] = {}
    for signature in signatures:
        if signature.name in table:
            raise KeyError(f"{signature.name} is listed twice")
        table[signature.name] = signature
    return table


def _int(value: object, low: float = -math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _float(value: object, low: float = -math.inf, high: float = math.inf) -> bool:
    number = _int(value) or isinstance(value, float)
    return number and math.isfinite(value) and low <= value <= high  # type: ignore[arg-type,operator]


_TYPES: dict[str, Callable[[object], bool]] = {
    "any": lambda value: True,
    "none": lambda value: value is None,
    "int": _int,
    "natural": lambda value: _int(value, 0),
    "size": lambda value: _int(value, 1),
    "float": _float,
    "rate": lambda value: _float(value, 0.0),
    "positive": lambda value: _float(value, 0.0) and value != 0,
    "share": lambda value: _float(value, 0.0, 1.0),
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "dict": lambda value: isinstance(value, dict),
    "term": lambda value: isinstance(value, Term),
}


def _fits(alternative: str, value: object) -> bool:
    if alternative.startswith("'"):
        return value == alternative[1:-1]
    if alternative.startswith("["):
        return isinstance(value, list) and all(_fits(alternative[1:-1], item) for item in value)
    return _TYPES[alternative](value)
