"""How do ranks talk inside one process? Over queues between threads; tensors are handed over as they are."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from lpc.runtime.workers.transport import MEETING, PATIENCE, ROOM, Message, Stamp, Together, absent, silent, taken
from lpc.specs.ranks.wiring import Edge

Queue = queue.Queue[tuple[Stamp, list[Tensor]]]


class Hub:
    """The queues of all edges, and the place where all ranks meet."""

    def __init__(self, size: int, edges: Iterable[Edge], room: int = ROOM, patience: float = PATIENCE) -> None:
        self.size, self.patience = size, patience
        self.queues: dict[Edge, Queue] = {edge: queue.Queue(room) for edge in edges}
        self.barrier = threading.Barrier(size)
        self.items: list[Any] = [None] * size
        self.acts = [0] * size  # how many meetings each rank has come to
        self.failed = False

    def transport(self, rank: int) -> Threads:
        """Return a rank's transport."""
        return Threads(self, rank)

    def abort(self) -> None:
        """Let no rank wait for one that has failed."""
        self.failed = True
        self.barrier.abort()


class Threads(Together):
    """One rank's transport; its thread alone uses it."""

    def __init__(self, hub: Hub, rank: int) -> None:
        self.hub, self.rank, self.size, self.patience = hub, rank, hub.size, hub.patience

    def send(self, to: int, stamp: Stamp, tensors: Sequence[Tensor]) -> None:
        try:
            self.hub.queues[self.rank, to].put((stamp, list(tensors)), timeout=self.patience)
        except queue.Full:
            raise silent(self.rank, to, stamp, self.patience, sending=True) from None

    def receive(self, source: int, stamp: Stamp) -> list[Tensor]:
        return taken(self, source, stamp)

    def settle(self, ranks: Sequence[int]) -> None:
        """What was sent is the receivers' already."""

    def take(self, source: int, seconds: float) -> Message | None:
        waiting = self.hub.queues[source, self.rank]
        try:
            stamp, tensors = waiting.get(timeout=seconds) if seconds else waiting.get_nowait()
        except queue.Empty:
            return None
        return Message(stamp.key, stamp.version, tensors)

    def exchange(self, item: Any, what: Stamp = MEETING) -> list[Any]:
        hub = self.hub
        hub.items[self.rank] = json.dumps(item)
        hub.acts[self.rank] += 1
        try:
            hub.barrier.wait(hub.patience)
            found = [json.loads(word) for word in hub.items]
            hub.barrier.wait(hub.patience)
        except threading.BrokenBarrierError:
            missing = [rank for rank, acts in enumerate(hub.acts) if acts < hub.acts[self.rank]]
            reason = "a rank has failed" if hub.failed else "timed out"
            raise absent(self.rank, self.size, missing, what, hub.patience, reason) from None
        return found

    def close(self) -> None:
        self.exchange(None)
