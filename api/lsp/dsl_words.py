"""Which words does the DSL write that YAML does not? A statement's first word, and the key that it stands for."""

from __future__ import annotations

from lpc.lsp.dsl_place import LAYER
from lpc.lsp.expected import keys, words
from lpc.specs.keys import KEYS
from lpc.specs.tree import Path

# By the path of the mapping that a statement is in: its first word, and the key that it fills.
STATEMENTS: dict[Path, dict[str, str]] = {
    (): {"spec": "name", "field": "fields"},
    ("network",): {"input": "inputs", "init": "init"},
    ("decompose",): {"block": "blocks", "link": "links"},
}

# Keys that are only written as statements, or as what stands before the colon of `learn`.
_REPLACED: dict[Path, frozenset[str]] = {
    (): frozenset({"name", "fields"}),
    ("network",): frozenset({"inputs", "layers", "init"}),
    ("learn",): frozenset({"blocks", "params"}),
}


def dsl_keys(path: Path) -> dict[str, str]:
    """Return the words with which a statement, or a key and its value, may begin in the DSL."""
    if path == LAYER:
        return dict(words(LAYER))
    place = path[:1] if path[:1] == ("learn",) else path
    replaced = _REPLACED.get(place, frozenset())
    section = path[-1] if path else ""
    table = {word: KEYS[str(section)][key] for word, key in STATEMENTS.get(path, {}).items()}
    table |= {key: doc for key, doc in keys(path).items() if key not in replaced}
    return table | (words(LAYER) if path == ("network",) else {})
