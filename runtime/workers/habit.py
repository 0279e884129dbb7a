"""What will the next message on an edge look like? As the one that came after the same value the last time.

Both ends of an edge see the same messages, so both know it: memory for the next one is ready before it is sent.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


class Habit:
    """What one end of an edge has seen: after which message a message of which sizes came."""

    def __init__(self) -> None:
        self.after: dict[Hashable, list[int]] = {}
        self.last: Hashable = None

    def expected(self) -> list[int]:
        """Return how many bytes each part of the next message has; none where nothing is known."""
        return self.after.get(self.last, [])

    def follow(self, key: Hashable, sizes: Sequence[int]) -> None:
        """Note a message: what it is called, and its sizes in bytes."""
        self.after[self.last] = list(sizes)
        self.last = key
