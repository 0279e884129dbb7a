"""Which keys and names does the language have that this version lacks? They get an error of their own."""

from __future__ import annotations

from lpc.specs.tree import Path

# By the path of the mapping, list positions written as "*".
_KEYS: dict[tuple[str, ...], frozenset[str]] = {
    ("run",): frozenset({"microbatches"}),
}

_NAMES: dict[str, frozenset[str]] = {
    "block rule": frozenset({"unroll"}),
    "data source": frozenset({"module"}),
    "network": frozenset({"elman", "vgg"}),
}


def key_comes_later(path: Path) -> bool:
    """Tell whether the key at the end of `path` belongs to the language but not to this version."""
    parent = tuple("*" if isinstance(key, int) else key for key in path[:-1])
    return path[-1] in _KEYS.get(parent, ())


def name_comes_later(vocabulary: str, name: str) -> bool:
    """Tell whether a name of a vocabulary belongs to the language but not to this version."""
    return name in _NAMES.get(vocabulary, ())
