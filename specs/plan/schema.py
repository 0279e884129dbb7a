"""What do the fields of a plan's dataclasses hold? Type hints, read once for encoder and decoder alike."""

from __future__ import annotations

from dataclasses import MISSING, fields
from functools import cache
from typing import Any, get_type_hints

# The one-key object that stands for a float that JSON has no number for.
NON_FINITE = {"inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}


class JsonValue:
    """Stands for the recursive alias `kernel.Json` in hints: a value that is JSON already."""


@cache
def hints(kind: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields by name, sorted by name."""
    found = get_type_hints(kind, localns={"Json": JsonValue})
    return {field.name: found[field.name] for field in sorted(fields(kind), key=lambda field: field.name)}


@cache
def required(kind: type) -> frozenset[str]:
    """Return the names of a dataclass's fields without a default."""
    return frozenset(
        field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING
    )


@cache
def sparse(kind: type) -> frozenset[str]:
    """Return the names of a dataclass's fields that are left out of the JSON where they are empty."""
    return frozenset(field.name for field in fields(kind) if field.metadata.get("sparse"))
