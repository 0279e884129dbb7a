"""How do ranks of several processes talk? Over gloo: a process group for each edge, which a thread reads ahead.

A message is a header of numbers and the bytes of each tensor. Sends are posted and not waited for, until as many of
them as an edge has room for are on the way. Memory for what usually comes next is ready before it comes: gloo asks the
receiver else, and its answer waits for a core of the sender, who computes. Tensors of a GPU travel by way of the CPU.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lpc.runtime.workers.habit import Habit
from lpc.runtime.workers.packing import dense, describe, pack, unpack
from lpc.runtime.workers.roll import Roll
from lpc.runtime.workers.transport import (
    MEETING,
    PATIENCE,
    ROOM,
    GoneError,
    Message,
    Stamp,
    absent,
    lost,
    silent,
    taken,
    told_of_time,
)
from lpc.specs.diagnostics import LpcError
from lpc.specs.ranks.wiring import Edge

HEADER = 48  # numbers in the first part of a message; what does not fit follows in a second one
FIXED = 6  # step, part, name, version, whether what follows is as expected, how many numbers follow
FOREVER = timedelta(days=7)  # an edge is read ahead: it may be idle, and patience is the transport's own
END = -1
JOINING, LEAVING = Stamp(-1, 0, "the wiring of all ranks"), Stamp(-1, 0, "the end of all ranks")

Found = Message | BaseException | None


class Gloo:
    """One rank's transport, in a process that has joined the default process group.

    `roll` tells which ranks have not come where a common act fails. Errors: 0681 and 0682, ranks that do not come.
    """

    def __init__(
        self, edges: Iterable[Edge], device: torch.device, patience: float = PATIENCE, room: int = ROOM,
        roll: Roll | None = None,
    ) -> None:
        self.rank, self.size, self.patience, self.roll = dist.get_rank(), dist.get_world_size(), patience, roll
        self.out: dict[int, _Outgoing] = {}
        self.incoming: dict[int, _Incoming] = {}
        limit = timedelta(seconds=patience)
        self.call()
        for source, target in edges:  # in one order: making a group is a common act of all ranks
            try:
                group = dist.new_group([source, target], timeout=limit, backend="gloo")
            except RuntimeError as error:
                raise self.absent(JOINING, error) from None
            if self.rank == source:
                self.out[target] = _Outgoing(group, target, room)
            if self.rank == target:
                self.incoming[source] = _Incoming(group, source, device, room)
        self.exchange(None, JOINING)

    def send(self, to: int, stamp: Stamp, tensors: Sequence[Tensor]) -> None:
        try:
            self.out[to].send(stamp, tensors, self.patience)
        except TimeoutError:
            raise silent(self.rank, to, stamp, self.patience, sending=True) from None
        except RuntimeError as error:
            raise lost(self.rank, to, stamp, error) from None

    def receive(self, source: int, stamp: Stamp) -> list[Tensor]:
        return taken(self, source, stamp)

    def take(self, source: int, seconds: float) -> Message | None:
        waiting = self.incoming[source].queue
        try:
            found = waiting.get(timeout=seconds) if seconds else waiting.get_nowait()
        except queue.Empty:
            return None
        if found is None or isinstance(found, BaseException):
            waiting.put(found)  # for whoever asks again
            raise GoneError(found or "it has left")
        return found

    def exchange(self, item: Any, what: Stamp = MEETING) -> list[Any]:
        found: list[Any] = [None] * self.size
        self.call()
        try:
            dist.all_gather_object(found, item)
        except RuntimeError as error:
            raise self.absent(what, error) from None
        return found

    def call(self) -> None:
        """Answer the roll before a common act."""
        if self.roll is not None:
            self.roll.answer()

    def absent(self, what: Stamp, error: RuntimeError) -> LpcError:
        """Return what is told where a common act failed."""
        missing = [] if self.roll is None else self.roll.missing()
        return absent(self.rank, self.size, missing, what, self.patience, error)

    def close(self) -> None:
        for target, outgoing in self.out.items():
            try:
                outgoing.end(self.patience)
            except TimeoutError:
                raise silent(self.rank, target, LEAVING, self.patience, sending=True) from None
            except RuntimeError as error:
                raise lost(self.rank, target, LEAVING, error) from None
        for source, incoming in self.incoming.items():
            incoming.thread.join(self.patience)
            if incoming.thread.is_alive():
                raise silent(self.rank, source, LEAVING, self.patience)
        self.exchange(None, LEAVING)
        dist.destroy_process_group()


class _Outgoing:
    """Sends over one edge. What is on the way is kept until it has arrived."""

    def __init__(self, group: Any, target: int, room: int) -> None:
        self.group, self.target, self.room = group, target, room
        self.pending: deque[list[tuple[Any, Tensor]]] = deque()
        self.habit = Habit()

    def send(self, stamp: Stamp, tensors: Sequence[Tensor], patience: float) -> None:
        while len(self.pending) >= self.room:
            self.settle(patience)
        held = [dense(tensor) for tensor in tensors]
        self.post((*stamp.key, stamp.version), describe(held), [pack(tensor).cpu() for tensor in held])

    def post(self, fixed: Sequence[int], numbers: Sequence[int], payloads: Sequence[Tensor]) -> None:
        """Send the parts of a message: a header, more numbers if they do not fit there, and what has bytes.

        Where the receiver has made ready for other sizes, these are used up first.
        """
        room = HEADER - FIXED
        rest = [torch.tensor(numbers[room:]).view(torch.uint8)] if len(numbers) > room else []
        parts = [*rest, *(payload for payload in payloads if payload.numel())]
        sizes, expected = [part.numel() for part in parts], self.habit.expected()
        header = [*fixed, int(sizes == expected), len(numbers), *numbers[:room], *[0] * (room - len(numbers))]
        wasted = [] if sizes == expected else [torch.empty(size, dtype=torch.uint8) for size in expected]
        messages = [torch.tensor(header), *wasted, *parts]
        self.pending.append([(dist.isend(m, self.target, self.group), m) for m in messages])
        self.habit.follow(tuple(fixed[1:3]), sizes)

    def settle(self, patience: float) -> None:
        """Wait until the oldest value has arrived."""
        for work, _ in self.pending[0]:
            try:
                work.wait(timedelta(seconds=patience))
            except RuntimeError as error:
                if told_of_time(error):
                    raise TimeoutError from None
                raise
        self.pending.popleft()

    def end(self, patience: float) -> None:
        self.post((END, 0, 0, 0), [0], [])
        while self.pending:
            self.settle(patience)


class _Incoming:
    """Reads one edge ahead, in a thread of its own."""

    def __init__(self, group: Any, source: int, device: torch.device, room: int) -> None:
        self.group, self.source, self.device = group, source, device
        self.queue: queue.Queue[Found] = queue.Queue(room)
        self.habit = Habit()
        self.thread = threading.Thread(target=self.read, name=f"edge from rank {source}", daemon=True)
        self.thread.start()

    def read(self) -> None:
        try:
            while (found := self.message()) is not None:
                self.queue.put(found)
            self.queue.put(None)
        except RuntimeError as error:
            self.queue.put(error)

    def message(self) -> Message | None:
        head = torch.empty(HEADER, dtype=torch.int64)
        ready = [torch.empty(size, dtype=torch.uint8) for size in self.habit.expected()]
        for arrived in [self.begun(memory) for memory in (head, *ready)]:
            arrived.wait(FOREVER)
        numbers: list[int] = head.tolist()
        (step, part, name, version, expected, count), numbers = numbers[:FIXED], numbers[FIXED:]
        if step == END:
            return None
        come, sizes = deque(ready if expected else ()), list[int]()

        def filled(size: int) -> Tensor:
            sizes.append(size)
            if come:
                return come.popleft()
            memory = torch.empty(size, dtype=torch.uint8)
            self.begun(memory).wait(FOREVER)
            return memory

        if count > len(numbers):
            numbers += filled((count - len(numbers)) * head.itemsize).view(torch.int64).tolist()
        tensors = [tensor.to(self.device) for tensor in unpack(numbers, filled)]
        self.habit.follow((part, name), sizes)
        return Message((step, part, name), version, tensors)

    def begun(self, memory: Tensor) -> Any:
        return dist.irecv(memory, self.source, self.group)
