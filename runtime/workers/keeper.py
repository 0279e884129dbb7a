"""Who notices that a rank has been started again alone? A thread that waits for word of it from the launcher."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from lpc.runtime.workers.transport import FOREVER

END = "null"


def incarnation(rank: int) -> str:
    """Return where it stands how often a rank has been started again."""
    return f"incarnation {rank}"


def news(rank: int, number: int) -> str:
    """Return where a rank finds the news of a number: which rank has been started again, and how often."""
    return f"news {rank}/{number}"


def announce(store: Any, size: int, number: int, rank: int, times: int) -> None:
    """Tell all ranks, in the news of a number, that one is started again, before it is."""
    store.set(incarnation(rank), str(times))
    for reader in range(size):
        store.set(news(reader, number), json.dumps([rank, times]))


class Keeper:
    """Knows how often each rank has been started again; `renew` is called with a rank when that has changed."""

    def __init__(self, store: Any, rank: int, size: int, renew: Callable[[int], None]) -> None:
        self.store, self.rank, self.renew = store.clone(), rank, renew  # a client waits in one thread
        self.number = 0
        self.times = [self._times(one) for one in range(size)]
        self.thread = threading.Thread(target=self._watch, name="news", daemon=True)

    def start(self) -> None:
        """Begin to read news."""
        self.thread.start()

    def end(self) -> None:
        """Read no more news."""
        self.store.clone().set(news(self.rank, self.number), END)
        self.thread.join(1.0)

    def _times(self, rank: int) -> int:
        key = incarnation(rank)
        return int(self.store.get(key)) if self.store.check([key]) else 0

    def _watch(self) -> None:
        while (found := self._next()) is not None:
            rank, times = found
            if rank != self.rank and times > self.times[rank]:
                self.times[rank] = times
                self.renew(rank)
            self.number += 1

    def _next(self) -> Any:
        key = news(self.rank, self.number)
        try:
            self.store.wait([key], FOREVER)
            return json.loads(self.store.get(key))
        except RuntimeError:  # the launcher is gone, and ends this process
            return None
