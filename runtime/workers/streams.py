"""How does an edge outlive the process at its other end? As a stream of messages that are counted from a checkpoint.

The sender keeps what it has sent since the last checkpoint that is committed. When the other end has been started
again, both ends tell over a new wire from which checkpoint they count and how far they are: what the receiver lacks is
sent again, and what it has is not. A sender that goes over its steps again makes the same messages, in the same order.

Both ends commit a checkpoint at times of their own. An end that counts from an older one has only to commit, if it has
done all that comes before; else what it would need is kept by nobody, and it has to begin again.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from lpc.runtime.workers.transport import GoneError, Message, told_of_time
from lpc.runtime.workers.wire import LAST, Carrier, Parcel, Posted

FREE = -1  # the checkpoint that is counted from before there is one
AHEAD = 2**24  # bytes that wait on an edge, above which no more is read

Found = Message | BaseException | None


class StaleError(Exception):
    """This process counts from a checkpoint that the others have left behind."""


class ForgottenError(Exception):
    """What the other end would need is not kept."""


class Position(NamedTuple):
    """Where an end of a stream is: at the step of a checkpoint, and how many messages it has sent, or taken, since."""

    base: int
    number: int


class Stream:
    """What both ends have. `keeps`: the other end can come back; it is waited for, and nothing is lost."""

    def __init__(self) -> None:
        self.turn = threading.Condition()
        self.wire: Carrier | None = None
        self.generation = 0  # of the wire: how often either end has been started again
        self.base, self.count, self.whole, self.keeps = FREE, 0, False, False
        self.error: BaseException | None = None  # why there is no wire

    def complete(self) -> None:
        """Tell that all that comes before the next checkpoint is done."""
        with self.turn:
            self.whole = True

    def commit(self, base: int, keeps: bool) -> None:
        """Count from a new checkpoint."""
        self.base, self.keeps, self.whole = base, keeps, False
        self.turn.notify_all()

    def forget(self) -> None:
        """Give up that the other end could come back."""
        with self.turn:
            self.keeps = False
            self.turn.notify_all()

    def greeted(self, wire: Carrier, generation: int, seconds: float) -> tuple[Position, Position] | None:
        """Leave the old wire and greet the other end over a new one, until both count from one checkpoint.

        Returns where both are, this end as it was noted; None where a later wire is being made. Raises StaleError,
        ForgottenError, TimeoutError, and RuntimeError where the other end is gone again.
        """
        with self.turn:
            if generation <= self.generation:
                return None
            self.generation, self.wire = generation, None
            self._wait_for_base(0, seconds)
        while True:
            with self.turn:
                if not self.keeps:
                    raise ForgottenError
                own = self.note()
            other = Position(*wire.greet(own, seconds))
            if other.base == own.base:
                return own, other
            with self.turn:
                if self.base < other.base and not self.whole:
                    raise StaleError
                self._wait_for_base(other.base, seconds)

    def note(self) -> Position:
        """Note where this end is, and what the other one could lack."""
        return Position(self.base, self.count)

    def _wait_for_base(self, base: int, seconds: float) -> None:
        if not self.turn.wait_for(lambda: self.base >= base, seconds):
            raise TimeoutError


class Outgoing(Stream):
    """The end that sends. At most `room` messages are on the way; their memory is kept until they have arrived."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.pending: deque[Posted] = deque()
        self.log: list[Parcel] = []
        self.noted: list[Parcel] = []
        self.has = 0  # messages since the checkpoint that the other end need not be sent

    def start(self, wire: Carrier) -> None:
        """Begin, with an end that begins as well."""
        self.wire = wire

    def send(self, sent: Parcel, patience: float) -> bool:
        """Send a message; waits where too many are on the way. False where the other end has it already.

        Raises TimeoutError where it takes nothing for too long, RuntimeError where it is gone.
        """
        while True:
            self._wait_for_room(patience)
            with self.turn:
                if self.wire is None:
                    continue
                self.count += 1
                if self.keeps:
                    self.log.append(sent)
                if self.count <= self.has:
                    return False
                try:
                    self.pending.append(self.wire.post(sent))
                except RuntimeError as error:
                    self._break(self.wire, error)
                return True

    def settle(self, patience: float) -> bool:
        """Wait until all messages have arrived."""
        while self.wire is None or self.pending:
            self._settle(patience)
        return True

    def end(self, patience: float) -> None:
        """Send the last message, and wait until all have arrived."""
        self.send(LAST, patience)
        self.settle(patience)

    def commit(self, base: int, keeps: bool) -> None:
        with self.turn:
            super().commit(base, keeps)
            self.count, self.has, self.log = 0, 0, []

    def forget(self) -> None:
        super().forget()
        self.log = []

    def adopt(self, wire: Carrier, generation: int, seconds: float) -> None:
        """Go on over a new wire: send what the other end lacks. Errors: as `greeted`."""
        if (found := self.greeted(wire, generation, seconds)) is None:
            return
        own, other = found
        with self.turn:
            if generation != self.generation:
                return
            self.pending = deque(wire.post(sent) for sent in self.noted[other.number :])
            self.has = other.number if self.base == own.base else 0  # a checkpoint was committed meanwhile
            self.wire, self.noted = wire, []
            self.turn.notify_all()

    def note(self) -> Position:
        self.noted = list(self.log)
        return super().note()

    def _wait_for_room(self, patience: float) -> None:
        while self.wire is None or (self.count >= self.has and len(self.pending) >= self.room):
            self._settle(patience)

    def _settle(self, patience: float) -> None:
        """Wait until the oldest message has arrived, or until there is a wire."""
        wire, pending = self.wire, self.pending
        if wire is None:
            self._wait_for_wire(patience)
            return
        if not pending:  # there is a later wire
            return
        try:
            for work, _ in pending[0]:
                work.wait(timedelta(seconds=patience))
        except RuntimeError as error:
            if wire is self.wire and told_of_time(error):
                raise TimeoutError from None
            with self.turn:
                self._break(wire, error)
        else:
            pending.popleft()

    def _wait_for_wire(self, patience: float) -> None:
        with self.turn:
            self.turn.wait_for(lambda: self.wire is not None or not self.keeps, patience)
            if self.wire is None:
                raise RuntimeError(str(self.error or "no connection")) from None

    def _break(self, wire: Carrier, error: RuntimeError) -> None:
        if wire is not self.wire:
            return
        if not self.keeps:
            raise error
        self.wire, self.error = None, error


class Incoming(Stream):
    """The end that receives; `broken` is told why it ends early.

    A thread reads up to `room` messages ahead of the next one, and none while AHEAD bytes or more wait here.
    """

    def __init__(self, room: int, name: str, broken: Callable[[BaseException], None] = lambda error: None) -> None:
        super().__init__()
        self.name, self.broken = name, broken
        self.queue: queue.SimpleQueue[Found] = queue.SimpleQueue()
        self.room, self.space = room, threading.Condition()
        self.waiting, self.held = 0, 0  # messages that nobody has taken, and their bytes
        self.delivered = 0  # of the messages since the checkpoint
        self.ended = threading.Event()

    def start(self, wire: Carrier) -> None:
        """Begin, with an end that begins as well."""
        self.wire = wire
        threading.Thread(target=self._read, args=(wire,), name=self.name, daemon=True).start()

    def take(self, seconds: float) -> Message | None:
        """Return the next message, None where none comes in time. Raises GoneError."""
        try:
            found = self.queue.get(timeout=seconds) if seconds else self.queue.get_nowait()
        except queue.Empty:
            if seconds and self.error is not None and self.wire is None:
                raise GoneError(self.error) from None
            return None
        if not isinstance(found, Message):
            self.queue.put(found)  # for whoever asks again
            raise GoneError(found or "it has left")
        self.delivered += 1
        self._count(found, -1)
        return found

    def commit(self, base: int, keeps: bool) -> None:
        """Count from a new checkpoint: what was delivered belongs before it, what was read ahead behind it."""
        with self.turn:
            self.count -= self.delivered
            self.delivered = 0
            super().commit(base, keeps)

    def forget(self) -> None:
        super().forget()
        with self.turn:
            if self.wire is None and self.error is not None:
                self.queue.put(self.error)

    def adopt(self, wire: Carrier, generation: int, seconds: float) -> None:
        """Go on over a new wire. Errors: as `greeted`."""
        if self.greeted(wire, generation, seconds) is None:
            return
        with self.turn:
            if generation == self.generation:
                self.start(wire)

    def _read(self, wire: Carrier) -> None:
        try:
            while self._file(wire):
                pass
        except RuntimeError as error:
            with self.turn:
                if wire is not self.wire:
                    return
                self.wire, self.error = None, error
                if not self.keeps:
                    self.queue.put(error)
            if not self.keeps:
                self.broken(error)

    def _file(self, wire: Carrier) -> bool:
        """Read a message and count it; False where it was the last one, or came over a wire that has been left."""
        with self.space:
            self.space.wait_for(lambda: not self.waiting or (self.waiting <= self.room and self.held < AHEAD))
        found = wire.read()
        with self.turn:
            if wire is not self.wire:
                return False
            self.count += 1
            self._count(found, 1)
            self.queue.put(found)
        if found is None:
            self.ended.set()
        return found is not None

    def _count(self, message: Message | None, sign: int) -> None:
        with self.space:
            self.waiting += sign
            self.held += sign * sum(tensor.nbytes for tensor in (message.tensors if message else ()))
            self.space.notify_all()  # of two readers one may be of a wire that has been left
