"""How does a rank receive values in another order than they were sent in? What comes early waits here, by its stamp.

Steps that overlap send and receive in whatever order their halves run. Each message tells how many steps the weights
knew that it was made with; the box keeps the oldest of what a half has used.
"""

from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lpc.runtime.workers.transport import MEETING, GoneError, Key, Message, Stamp, Together, Transport, lost, silent
from lpc.specs.diagnostics import Diagnostic, LpcError

MARK = "the first half is over"
NONE = -1  # the version of what no step uses: in an evaluation


class Mailbox(Together):
    """A transport on top of another one, whose rank takes messages in any order."""

    def __init__(self, transport: Transport, staleness: int) -> None:
        self.transport, self.staleness = transport, staleness
        self.rank, self.size, self.patience = transport.rank, transport.size, transport.patience
        self.boxes: dict[int, dict[Key, deque[Message]]] = {}
        self.marks: dict[int, int] = {}  # source -> the last step of which it has done the first half
        self.oldest = NONE  # of the weights that the current half has used, its own and others'
        self.consumed: dict[str, int] = {}  # value -> version of its weights, of the current half

    def send(self, to: int, stamp: Stamp, tensors: Sequence[Tensor]) -> None:
        self.transport.send(to, stamp._replace(version=self.oldest), tensors)

    def receive(self, source: int, stamp: Stamp) -> list[Tensor]:
        deadline = time.monotonic() + self.patience
        try:
            while not (waiting := self.box(source).get(stamp.key)):
                self.file(source, self.transport.take(source, max(deadline - time.monotonic(), 0.0)))
                if time.monotonic() > deadline and stamp.key not in self.box(source):
                    raise silent(self.rank, source, stamp, self.patience)
        except GoneError as error:
            raise lost(self.rank, source, stamp, error) from None
        found = waiting.popleft()
        if not waiting:
            del self.box(source)[stamp.key]
        if found.version != NONE:
            self.ensure_fresh(stamp, source, found.version)
            self.oldest = min(self.oldest, found.version)
            self.consumed[stamp.value] = min(self.consumed.get(stamp.value, found.version), found.version)
        return found.tensors

    def ensure_fresh(self, stamp: Stamp, source: int, version: int) -> None:
        """Refuse (0683) what was made with weights that are older than the plan allows."""
        if stamp.step - version > self.staleness:
            made = f"{stamp} came from rank {source}, made with the weights of {version} steps"
            message = f"{made}: they may lag behind by {self.staleness}"
            raise LpcError(Diagnostic("0683", message, place=f"rank {self.rank}"))

    def settle(self, ranks: Sequence[int]) -> None:
        self.transport.settle(ranks)

    def take(self, source: int, seconds: float) -> Message | None:
        return self.transport.take(source, seconds)

    def exchange(self, item: Any, what: Stamp = MEETING) -> list[Any]:
        return self.transport.exchange(item, what)

    def close(self) -> None:
        self.transport.close()

    def mark(self, to: int, step: int) -> None:
        """Tell another rank that all of this rank's first half of a step is on its way."""
        self.send(to, Stamp(step, 0, MARK), [])

    def marked(self, source: int, step: int) -> bool:
        """Tell whether all that another rank sends in its first half of a step is here, or nothing more will come."""
        return self.look(source) or self.marks.get(source, -1) >= step

    def has(self, source: int, step: int, value: str) -> bool:
        """Tell whether a value of a step is here, or nothing more will come: who receives it is told."""
        name = zlib.crc32(value.encode())
        return self.look(source) or any(key[0] == step and key[2] == name for key in self.box(source))

    def look(self, source: int) -> bool:
        """File what has come, without waiting; tell whether the other rank is gone."""
        try:
            while (found := self.transport.take(source, 0.0)) is not None:
                self.file(source, found)
        except GoneError:
            return True
        return False

    def file(self, source: int, found: Message | None) -> None:
        if found is None:
            return
        if found.key == Stamp(found.key[0], 0, MARK).key:
            self.marks[source] = max(found.key[0], self.marks.get(source, -1))
        else:
            self.box(source).setdefault(found.key, deque()).append(found)

    def box(self, source: int) -> dict[Key, deque[Message]]:
        return self.boxes.setdefault(source, {})
