"""How do ranks talk inside one process? Over edges between threads; tensors are handed over as they are.

On a GPU each thread computes in a stream of its own: who takes a value waits in its stream, and not in its thread,
until the stream of the other one has made it.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lpc.runtime.workers.transport import (
    MEETING,
    PATIENCE,
    ROOM,
    GoneError,
    Message,
    Stamp,
    Together,
    absent,
    lost,
    silent,
    taken,
)
from lpc.specs.ranks.wiring import Edge

_cuda: Any = torch.cuda
FAILED = "a rank has failed"


class Given(NamedTuple):
    """What lies on an edge; `made` is the event of the stream that makes the tensors, if one does."""

    stamp: Stamp
    tensors: list[Tensor]
    made: Any


class Between:
    """An edge: what was given and not taken. Python's queue can be closed from 3.13 on only."""

    def __init__(self, room: int) -> None:
        self.room, self.held = room, deque[Given]()
        self.closed = False
        self.changed = threading.Condition()

    def put(self, given: Given, seconds: float) -> bool:
        """Give a value, where there is room in time. Raises GoneError once it is closed."""
        with self.changed:
            there = self.changed.wait_for(lambda: self.closed or len(self.held) < self.room, seconds)
            self._ensure_open()
            if there:
                self.held.append(given)
                self.changed.notify_all()
            return there

    def take(self, seconds: float) -> Given | None:
        """Return the next value, None where none comes in time. Raises GoneError once it is closed."""
        with self.changed:
            there = self.changed.wait_for(lambda: self.closed or bool(self.held), seconds)
            self._ensure_open()
            if not there:
                return None
            self.changed.notify_all()
            return self.held.popleft()

    def close(self) -> None:
        """Let nobody wait any more."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def _ensure_open(self) -> None:
        if self.closed:
            raise GoneError(FAILED)


class Hub:
    """All edges, and the place where all ranks meet."""

    def __init__(
        self, size: int, edges: Iterable[Edge], room: int = ROOM, patience: float = PATIENCE,
        device: torch.device | None = None,
    ) -> None:
        self.size, self.patience = size, patience
        self.device = device if device is not None and device.type == "cuda" else None
        self.edges = {edge: Between(room) for edge in edges}
        self.barrier = threading.Barrier(size)
        self.items: list[Any] = [None] * size
        self.acts = [0] * size  # how many meetings each rank has come to
        self.failed = False

    def transport(self, rank: int) -> Threads:
        """Return a rank's transport."""
        return Threads(self, rank)

    def abort(self) -> None:
        """Let no rank wait for one that has failed, whether it takes or gives."""
        self.failed = True
        self.barrier.abort()
        for edge in self.edges.values():
            edge.close()


class Threads(Together):
    """One rank's transport; its thread alone uses it."""

    def __init__(self, hub: Hub, rank: int) -> None:
        self.hub, self.rank, self.size, self.patience = hub, rank, hub.size, hub.patience

    def send(self, to: int, stamp: Stamp, tensors: Sequence[Tensor]) -> None:
        made = None
        if self.hub.device is not None:
            made = _cuda.Event()
            made.record(_cuda.current_stream(self.hub.device))
        try:
            if not self.hub.edges[self.rank, to].put(Given(stamp, list(tensors), made), self.patience):
                raise silent(self.rank, to, stamp, self.patience, sending=True)
        except GoneError as error:
            raise lost(self.rank, to, stamp, error) from None

    def receive(self, source: int, stamp: Stamp) -> list[Tensor]:
        return taken(self, source, stamp)

    def settle(self, ranks: Sequence[int]) -> None:
        """What was sent is the receivers' already."""

    def take(self, source: int, seconds: float) -> Message | None:
        found = self.hub.edges[source, self.rank].take(seconds)
        if found is None:
            return None
        if found.made is not None:
            stream = _cuda.current_stream(self.hub.device)
            stream.wait_event(found.made)
            for tensor in found.tensors:
                tensor.record_stream(stream)  # their memory is of another one
        return Message(found.stamp.key, found.stamp.version, found.tensors)

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
            reason = FAILED if hub.failed else "timed out"
            raise absent(self.rank, self.size, missing, what, hub.patience, reason) from None
        return found

    def close(self) -> None:
        self.exchange(None)
