"""How does a message go from one rank to another? A header of numbers, then the memory of each tensor, over gloo.

A wire is a process group of two, which they make by themselves: nobody else has to be there. Memory for what usually
comes next is ready before it comes: gloo asks the receiver else, and its answer waits for a core of the sender, who
computes. Memory of two GPUs has a lane of its own; else tensors of a GPU travel by way of the CPU.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed
from torch import Tensor

from lpc.runtime.workers import lanes
from lpc.runtime.workers.habit import Habit
from lpc.runtime.workers.packing import dense, describe, pack, unpack
from lpc.runtime.workers.transport import FOREVER, Message, Stamp

_dist: Any = torch.distributed  # which does not declare all that it has

HEADER = 48  # numbers in the first part of a message; what does not fit follows in a second one
FIXED = 6  # step, part, name, version, whether what follows is as expected, how many numbers follow
END = -1
VALUES, GREETINGS = 0, 1  # tags

Posted = list[tuple[Any, Tensor]]  # what is on the way, with its memory


class Parcel(NamedTuple):
    """What goes over a wire: step, part, name and version; a description of the tensors; their memory."""

    fixed: tuple[int, int, int, int]
    numbers: list[int]
    payloads: list[Tensor]


LAST = Parcel((END, 0, 0, 0), [0], [])


def parcel(stamp: Stamp, tensors: Sequence[Tensor], direct: bool = False) -> Parcel:
    """Return a value as it travels: in memory of its device where it goes `direct`, else of the CPU.

    What is dense there already is not copied.
    """
    held = [dense(tensor) for tensor in tensors]
    packed = [pack(tensor) if direct else pack(tensor).cpu() for tensor in held]
    return Parcel((*stamp.key, stamp.version), describe(held), packed)


class Carrier(Protocol):
    """What streams need of a wire. Whatever fails because the other end is gone is a RuntimeError."""

    def post(self, sent: Parcel) -> Posted:
        """Send without waiting."""

    def read(self) -> Message | None:
        """Return the next value, None after the last one; waits as long as it takes."""

    def greet(self, numbers: Sequence[int], seconds: float) -> list[int]:
        """Give some numbers to the other end, and return as many of its own."""


class Wire:
    """One end, number 0 or 1; both give the same `name`. Raises RuntimeError where the other does not come."""

    def __init__(self, store: Any, name: str, number: int, device: torch.device, seconds: float) -> None:
        place = _dist.PrefixStore(name, store)
        self.group = _dist.ProcessGroupGloo(place, number, 2, timedelta(seconds=seconds))
        self.other, self.device = 1 - number, device
        self.sent, self.came = Habit(), Habit()
        here = lanes.place_of(device)
        (there,) = self.greet([here], seconds)
        apart = lanes.NOWHERE not in (here, there) and here != there
        group = lanes.nccl(place, number, device, seconds) if apart else None
        self.lane = lanes.Lane(group, self.group, self.other, device) if apart else None

    def post(self, sent: Parcel) -> Posted:
        """Send the parts of a message: a header, more numbers if they do not fit there, and what has bytes.

        Where the receiver has made ready for other sizes, these are used up first.
        """
        numbers, room = sent.numbers, HEADER - FIXED
        rest = [torch.tensor(numbers[room:]).view(torch.uint8)] if len(numbers) > room else []
        payloads = [payload for payload in sent.payloads if payload.numel()]
        parts = [*rest, *(payload.cpu() for payload in payloads)] if self.lane is None else rest
        sizes, expected = [part.numel() for part in parts], self.sent.expected()
        header = [*sent.fixed, int(sizes == expected), len(numbers), *numbers[:room], *[0] * (room - len(numbers))]
        wasted = [] if sizes == expected else [torch.empty(size, dtype=torch.uint8) for size in expected]
        messages = [torch.tensor(header), *wasted, *parts]
        posted = [(self.group.send([m], self.other, VALUES), m) for m in messages]
        self.sent.follow(sent.fixed[1:3], sizes)
        return posted if self.lane is None else [*posted, *((self.lane.send(p), p) for p in payloads)]

    def read(self) -> Message | None:
        head = torch.empty(HEADER, dtype=torch.int64)
        ready = [torch.empty(size, dtype=torch.uint8) for size in self.came.expected()]
        for arrived in [self._begun(memory) for memory in (head, *ready)]:
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
            self._begun(memory).wait(FOREVER)
            return memory

        if count > len(numbers):
            numbers += filled((count - len(numbers)) * head.itemsize).view(torch.int64).tolist()
        found = unpack(numbers, filled if self.lane is None else self.lane.receive)
        tensors = [tensor.to(self.device) for tensor in found]
        self.came.follow((part, name), sizes)
        return Message((step, part, name), version, tensors)

    def greet(self, numbers: Sequence[int], seconds: float) -> list[int]:
        limit, own = timedelta(seconds=seconds), torch.tensor(numbers)
        sending = self.group.send([own], self.other, GREETINGS)
        found = torch.empty_like(own)
        self.group.recv([found], self.other, GREETINGS).wait(limit)
        sending.wait(limit)
        return list(found.tolist())

    def _begun(self, memory: Tensor) -> Any:
        return self.group.recv([memory], self.other, VALUES)
