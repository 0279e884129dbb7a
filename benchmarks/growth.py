"""How much private memory does a process take in a while? Looked at every two milliseconds."""

from __future__ import annotations

import threading

import psutil


class Growth:
    """The most that a process's private memory is above what it was, and what it is above that in the end."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.first = self.most = self.now()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def now(self) -> int:
        return int(self.process.memory_full_info().uss)

    def look(self) -> None:
        while not self.over.wait(0.002):
            self.most = max(self.most, self.now())

    def end(self) -> tuple[int, int]:
        """Return both, in bytes."""
        self.over.set()
        self.thread.join()
        kept = self.now()
        return max(self.most, kept) - self.first, kept - self.first
