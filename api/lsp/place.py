"""Where in a spec does the cursor stand? A path in the tree, the terms open there, and the word begun.

It is read off the text before the cursor alone, so that it is known in a text that does not parse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lpc.specs.tree import Path

# A key of the mapping at the path; a value there; at the start of a line either; an argument's name or value.
Slot = Literal["key", "value", "either", "argument", "nothing"]


@dataclass(frozen=True)
class Call:
    """A term whose bracket is open: its name, the argument in writing (by `key` or position), and the names given."""

    name: str
    key: str | None = None
    index: int = 0
    given: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """What is being written: `typed` begins at the offset `start`; `given` are the keys the mapping has before it."""

    path: Path
    slot: Slot
    start: int
    typed: str
    calls: tuple[Call, ...] = ()
    given: tuple[str, ...] = ()
