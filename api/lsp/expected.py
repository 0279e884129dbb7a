"""What may stand at a path of a spec? Keys, words and terms with their meaning, read off the language's JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from lpc.specs.json_schema import json_schema
from lpc.specs.signatures import FROM, VOCABULARIES, Parameter, Signature
from lpc.specs.tree import Path

Schema = dict[str, Any]

# Paths bear names and positions, so that there is no end of them.
PATHS = 1024

_LISTS = {"layers": ("layer", "structure"), "named": ("layer", "structure")}
_VOCABULARIES = {name.replace(" ", "_"): (name,) for name in VOCABULARIES} | _LISTS


@dataclass(frozen=True)
class Choice:
    """One of the forms that a value may have, and the definition that it is part of."""

    schema: Schema
    definition: str = ""


@lru_cache(PATHS)
def choices(path: Path) -> tuple[Choice, ...]:
    """Return the forms that the value at a path may have; none for a path that the language does not have."""
    found = tuple(_forms(_schema(), ""))
    for key in path:
        found = tuple(form for choice in found for form in _inside(choice, key))
    return found


@lru_cache(PATHS)
def described(path: Path) -> Schema | None:
    """Return the schema of the key at the end of a path, with its line of meaning."""
    if not path:
        return None
    for choice in choices(path[:-1]):
        found = choice.schema.get("properties", {}).get(path[-1])
        if found is not None:
            return dict(found)
    return None


@lru_cache(PATHS)
def keys(path: Path) -> dict[str, str]:
    """Return the keys of the mapping at a path, and what they mean."""
    table: dict[str, str] = {}
    for choice in choices(path):
        for key, schema in choice.schema.get("properties", {}).items():
            table.setdefault(key, schema.get("description", ""))
    return table


@lru_cache(PATHS)
def words(path: Path) -> dict[str, str]:
    """Return the words that the value at a path may be, and what they mean."""
    table = {word.name: word.doc for word in signatures(path)}
    for choice in choices(path):
        schema = choice.schema
        listed = schema.get("enum", [schema["const"]] if "const" in schema else [])
        for word in (word for word in listed if isinstance(word, str)):
            table.setdefault(word, schema.get("description", ""))
        for snippet in schema.get("defaultSnippets", ()):
            table.setdefault(snippet["label"], snippet["description"])
    return table


@lru_cache(PATHS)
def signatures(path: Path) -> tuple[Signature, ...]:
    """Return the terms that may stand at a path, operators with the argument that they all take."""
    names = dict.fromkeys(name for choice in choices(path) for name in _VOCABULARIES.get(choice.definition, ()))
    return tuple(_complete(name, word) for name in names for word in VOCABULARIES[name].values())


def of_argument(parameter: Parameter) -> Path:
    """Return a path at which the same may stand as in an argument: the key of `learn` that bears its name."""
    takes = any(kind.strip("[]") in ("term", "any") for kind in parameter.alternatives)
    return ("learn", 0, parameter.name) if takes else ("", "")


def is_section(path: Path, key: str | None = None) -> bool:
    """Tell whether the value at a path is a mapping with keys, and whether `key` is one of them."""
    if key is not None:
        return key in keys(path)
    return any(choice.schema.get("type") == "object" and not choice.definition for choice in choices(path))


@cache
def _schema() -> Schema:
    return json_schema()


def _complete(vocabulary: str, word: Signature) -> Signature:
    if vocabulary != "layer" or word.parameter(FROM.name):
        return word
    return Signature(word.name, (*word.parameters, FROM), word.doc)


def _forms(schema: Schema, definition: str) -> Iterator[Choice]:
    """Yield the forms of a schema, through references and alternatives."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        yield from _forms(_schema()["definitions"][name], name)
        return
    inner = [*schema.get("anyOf", ()), *schema.get("allOf", ())]
    if not inner or "properties" in schema:
        yield Choice(schema, definition)
    for part in inner:
        yield from _forms(part, definition)


def _inside(choice: Choice, key: str | int) -> Iterable[Choice]:
    schema = choice.schema
    if isinstance(key, int):
        # One value stands for a list of one, so that the value itself may be what is meant.
        return _forms(schema.get("items", {}), choice.definition if "items" in schema else "")
    if key in schema.get("properties", {}):
        return _forms(schema["properties"][key], "")
    for pattern, inner in schema.get("patternProperties", {}).items():
        if re.search(pattern, key):
            return _forms(inner, "")
    inner = schema.get("additionalProperties")
    return _forms(inner, "") if isinstance(inner, dict) else ()
