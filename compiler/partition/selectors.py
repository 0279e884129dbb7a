"""Which module paths does a selector name? Globs matched one path segment at a time.

`layer1` is that module and everything below it; `blocks.*` is every child of `blocks` (again with everything
below); `*`, `?` and `[...]` never match a dot. A table of many selectors is a trie over segments, so that
looking up a path takes time in its depth and not in the number of selectors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class SelectorTable(Generic[T]):
    """Selectors with an entry each; `find(path)` lists the matches, each with the path that matched."""

    _exact: dict[str, SelectorTable[T]] = field(default_factory=dict)
    _globs: dict[str, SelectorTable[T]] = field(default_factory=dict)
    _entries: list[T] = field(default_factory=list)

    def add(self, selector: str, entry: T) -> None:
        """Enter a selector; the same selector may be entered several times."""
        table = self
        for segment in selector.split("."):
            branch = table._globs if is_glob(segment) else table._exact
            table = branch.setdefault(segment, SelectorTable())
        table._entries.append(entry)

    def find(self, path: str) -> list[tuple[str, T]]:
        """Return `(matched path, entry)` for every selector that matches `path` or a module above it."""
        found: list[tuple[str, T]] = []
        if path:
            self._walk(path.split("."), 0, found)
        return found

    def _walk(self, segments: list[str], depth: int, found: list[tuple[str, T]]) -> None:
        if self._entries:
            matched = ".".join(segments[:depth])
            found.extend((matched, entry) for entry in self._entries)
        if depth == len(segments):
            return
        segment = segments[depth]
        if segment in self._exact:
            self._exact[segment]._walk(segments, depth + 1, found)
        for pattern, table in self._globs.items():
            if fnmatchcase(segment, pattern):
                table._walk(segments, depth + 1, found)


def is_glob(text: str) -> bool:
    """Return whether a selector has a wildcard."""
    return any(c in text for c in "*?[")


def with_parents(paths: Iterable[str]) -> list[str]:
    """Return every path and every module above one, in order of appearance: all that a selector can match."""
    known: dict[str, None] = {}
    for path in paths:
        segments = path.split(".") if path else []
        for depth in range(1, len(segments) + 1):
            known.setdefault(".".join(segments[:depth]))
    return list(known)
