"""What does a JSON text of a plan say? Strict reading into dataclasses, with the place of every mistake.

Nothing is guessed or converted: unknown, missing and repeated keys and values of another type are errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, Literal, NoReturn, TypeVar, cast, get_args, get_origin

from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.plan.instructions import KINDS
from lpc.specs.plan.schema import NON_FINITE, JsonValue, hints, required

T = TypeVar("T")
Decode = Callable[[Any], Any]

_NAMES = {dict: "an object", list: "a list", str: "a string", int: "an integer", float: "a number"}
_NAMES |= {bool: "true or false", type(None): "null"}


class MismatchError(Exception):
    """A value that does not fit its type; gathers the path to it on the way out."""

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.suggestion = suggestion
        self.path = ""

    def inside(self, step: str | int) -> MismatchError:
        """Return self, with one more step in front of the path."""
        self.path = (f"[{step}]" if isinstance(step, int) else f".{step}") + self.path
        return self


def decode(data: bytes, kind: type[T], file: str) -> T:
    """Read canonical or hand-written JSON bytes as a `kind`.

    Raises LpcError (0503) that names the file and the JSON path: `plan.json: $.program.step[3].kernel`.
    """
    try:
        return cast(T, decoder(cast(Any, kind))(parse_json(data)))
    except MismatchError as problem:
        raise LpcError(_malformed(str(problem), f"{file}: ${problem.path}", problem.suggestion)) from None
    except RecursionError:
        raise LpcError(_malformed("the JSON is nested too deeply", f"{file}: $")) from None


def parse_json(data: bytes) -> Any:
    """Read JSON strictly: UTF-8, no repeated key, no NaN or Infinity literal. Raises MismatchError."""
    try:
        return json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as problem:
        raise MismatchError(f"this is no valid JSON: {problem}") from None


def _malformed(message: str, place: str, suggestion: str | None = None) -> Diagnostic:
    return Diagnostic("0503", message, place=place, notes=(suggestion,) if suggestion else ())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    keys = [key for key, _ in pairs]
    raise MismatchError(
        f"key `{next(key for key in keys if keys.count(key) > 1)}` is there twice in one object"
    )


def _no_constant(word: str) -> NoReturn:
    raise MismatchError(f"`{word}` is no JSON number")


@cache
def decoder(kind: Any) -> Decode:
    """Return the function from JSON values to values of type `kind`; it raises MismatchError."""
    if kind is JsonValue:
        return lambda raw: raw
    if kind is Any:
        return _free
    if kind is float:
        return _float
    if kind in (str, int, bool, type(None)):
        return _scalar_decoder(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return _record_decoder(kind)
    arguments = get_args(kind)
    origin = get_origin(kind)
    if origin is tuple:
        return _list_decoder(arguments[0])
    if origin is Literal:
        return _word_decoder(arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _table_decoder(arguments[1])
    if any(is_dataclass(argument) for argument in arguments):
        return _instruction
    return _union_decoder(arguments)


def _expected(what: str, raw: Any) -> MismatchError:
    shown = json.dumps(raw)
    return MismatchError(f"expected {what}, found {shown if len(shown) <= 40 else _NAMES[type(raw)]}")


def _scalar_decoder(kind: type) -> Decode:
    def read(raw: Any) -> Any:
        if type(raw) is not kind:
            raise _expected(_NAMES[kind], raw)
        return raw

    return read


def _float(raw: Any) -> float:
    if type(raw) in (int, float):
        try:
            return float(raw)
        except OverflowError:
            raise _expected("a number that a float can hold", raw) from None
    if (
        type(raw) is dict
        and list(raw) == ["float"]
        and type(word := raw["float"]) is str
        and word in NON_FINITE
    ):
        return NON_FINITE[word]
    raise _expected("a number", raw)


def _free(raw: Any) -> Any:
    """Read a free-form value: JSON as it is, except for floats that JSON has no number for."""
    if type(raw) is list:
        return [_free(item) for item in raw]
    if type(raw) is not dict:
        return raw
    if list(raw) == ["float"]:
        return _float(raw)
    return {key: _free(item) for key, item in raw.items()}


def _word_decoder(words: tuple[str, ...]) -> Decode:
    def read(raw: Any) -> Any:
        if type(raw) is not str or raw not in words:
            raise _expected("one of " + ", ".join(f"`{word}`" for word in words), raw)
        return raw

    return read


def _list_decoder(kind: Any) -> Decode:
    def read(raw: Any) -> Any:
        if type(raw) is not list:
            raise _expected("a list", raw)
        inner = decoder(kind)
        found = []
        for index, item in enumerate(raw):
            try:
                found.append(inner(item))
            except MismatchError as problem:
                raise problem.inside(index) from None
        return tuple(found)

    return read


def _table_decoder(kind: Any) -> Decode:
    def read(raw: Any) -> Any:
        if type(raw) is not dict:
            raise _expected("an object", raw)
        inner = decoder(kind)
        return {key: _member(inner, raw, key) for key in raw}

    return read


def _record_decoder(kind: type) -> Decode:
    def read(raw: Any) -> Any:
        if type(raw) is not dict:
            raise _expected("an object", raw)
        types = hints(kind)
        for key in raw:
            if key not in types:
                raise MismatchError(f"unknown key `{key}`", did_you_mean(key, types)).inside(key)
        for name in required(kind):
            if name not in raw:
                raise MismatchError(f"key `{name}` is missing")
        return kind(**{key: _member(decoder(types[key]), raw, key) for key in raw})

    return read


def _instruction(raw: Any) -> Any:
    if type(raw) is not dict or type(raw.get("do")) is not str:
        raise _expected("an instruction: an object with `do`", raw)
    word = raw["do"]
    if word not in KINDS:
        raise MismatchError(f"unknown instruction `{word}`", did_you_mean(word, KINDS)).inside("do")
    return decoder(KINDS[word])({key: value for key, value in raw.items() if key != "do"})


def _union_decoder(kinds: tuple[Any, ...]) -> Decode:
    def read(raw: Any) -> Any:
        for kind in kinds:
            try:
                return decoder(kind)(raw)
            except MismatchError:
                continue
        raise _expected(" or ".join(_NAMES[kind] for kind in kinds), raw)

    return read


def _member(inner: Decode, raw: dict[str, Any], key: str) -> Any:
    try:
        return inner(raw[key])
    except MismatchError as problem:
        raise problem.inside(key) from None
