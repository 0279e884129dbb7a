"""Which words that are no keys begin a statement of the DSL? Each fills a key, in its own way of writing."""

from __future__ import annotations

from lpc.specs.keys import KEYS
from lpc.specs.tree import Path

# By the path of the mapping that a statement stands in: its first word, and the key that it fills.
STATEMENTS: dict[Path, dict[str, str]] = {
    (): {"spec": "name", "field": "fields"},
    ("network",): {"input": "inputs", "init": "init"},
    ("decompose",): {"block": "blocks", "link": "links"},
}

# Keys that the DSL writes in such a way only.
_REPLACED: dict[Path, frozenset[str]] = {
    (): frozenset({"name", "fields"}),
    ("network",): frozenset({"inputs", "layers", "init"}),
    ("learn",): frozenset({"blocks", "params"}),
}


def first_words(path: Path) -> dict[str, str]:
    """Return the words with which a line may begin in the mapping at a path, and the meaning of each.

    There are none where the keys are free.
    """
    path = tuple(key for key in path if isinstance(key, str))
    meanings = KEYS.get(str(path[-1]) if path else "", {})
    statements = {word: meanings[key] for word, key in STATEMENTS.get(path, {}).items()}
    return statements | {key: doc for key, doc in meanings.items() if key not in _REPLACED.get(path, ())}
