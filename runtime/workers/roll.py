"""Which ranks have come to a common act? Each calls out, in the store where they met, how many it has come to.

A collective operation only tells that it failed; the roll tells by whom.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any


class Roll:
    """One rank's view of the roll. `store` is any store of torch.distributed that all ranks reach."""

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self.store, self.rank, self.size = store, rank, size
        self.acts = 0

    def answer(self) -> None:
        """Tell that this rank has come to the next common act."""
        self.acts += 1
        with suppress(RuntimeError):  # a store that is gone is told by the act itself
            self.store.set(self._key(self.rank), str(self.acts))

    def missing(self) -> list[int]:
        """Return the ranks that have not come to the act that this one has come to; none where nobody can tell."""
        with suppress(RuntimeError, ValueError):
            return [rank for rank in range(self.size) if self._acts(rank) < self.acts]
        return []

    def _acts(self, rank: int) -> int:
        return int(self.store.get(self._key(rank))) if self.store.check([self._key(rank)]) else 0

    def _key(self, rank: int) -> str:
        return f"acts of {rank}"
