"""Which names does the language have that this version lacks? They get an error of their own."""

from __future__ import annotations

_NAMES: dict[str, frozenset[str]] = {
    "data source": frozenset({"module"}),
    "network": frozenset({"vgg"}),
}


def name_comes_later(vocabulary: str, name: str) -> bool:
    """Tell whether a name of a vocabulary belongs to the language but not to this version."""
    return name in _NAMES.get(vocabulary, ())
