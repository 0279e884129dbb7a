"""Which JSON stands for a part of a plan? One text for each content, byte for byte.

Keys of dataclasses and of free-form objects are sorted; tables of the program keep their order, which is
content. Floats are written as Python's shortest exact form; those that JSON has no number for are
`{"float": "inf"}`, `{"float": "-inf"}` and `{"float": "nan"}`. An instruction has its word as `do`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, get_args, get_origin

from lpc.specs.plan.instructions import KINDS
from lpc.specs.plan.schema import JsonValue, hints, sparse

Encode = Callable[[Any], Any]
_WORDS = {kind: word for word, kind in KINDS.items()}


def canonical(value: object, kind: Any, indent: int | None = None) -> bytes:
    """Return the canonical JSON of `value`, which is of type `kind` (a dataclass or any annotation of one).

    Raises TypeError for a value that has no JSON, such as a tensor among an optimizer's options.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(encoder(kind)(value), indent=indent, separators=separators, allow_nan=False)
    return text.encode() + b"\n"


@cache
def encoder(kind: Any) -> Encode:
    """Return the function from values of type `kind` to JSON values."""
    if kind is Any or kind is JsonValue:
        return _free
    if kind is float:
        return lambda value: _number(float(value))
    if is_dataclass(kind) and isinstance(kind, type):
        return _record_encoder(kind)
    arguments = get_args(kind)
    origin = get_origin(kind)
    if origin is tuple:
        return lambda value: [encoder(arguments[0])(item) for item in value]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _table_encoder(arguments[1])
    if any(is_dataclass(argument) for argument in arguments):
        return lambda value: {"do": _WORDS[type(value)], **_instruction(value)}
    if float in arguments:
        return lambda value: encoder(float)(value) if isinstance(value, int | float) else value
    return lambda value: value


def _instruction(value: Any) -> Any:
    kind: Any = type(value)
    return encoder(kind)(value)


def _record_encoder(kind: Any) -> Encode:
    left_out = sparse(kind)

    def encode(value: Any) -> Any:
        found = {name: getattr(value, name) for name in hints(kind)}
        told = {name: one for name, one in found.items() if one or name not in left_out}
        return {name: encoder(hints(kind)[name])(one) for name, one in told.items()}

    return encode


def _table_encoder(kind: Any) -> Encode:
    if kind is Any or kind is JsonValue:
        return _free
    return lambda value: {name: encoder(kind)(item) for name, item in value.items()}


def _number(value: float) -> Any:
    if math.isfinite(value):
        return value
    return {"float": "nan" if math.isnan(value) else str(value)}


def _free(value: Any) -> Any:
    """Encode a free-form value: sorted keys, tuples as lists."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, (list, tuple)):
        return [_free(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _free(value[key]) for key in sorted(value)}
    raise TypeError(f"a plan holds JSON only; {type(value).__name__} has none: {value!r}")
