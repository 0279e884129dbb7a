"""Does an edge bring each message once, in order, whoever dies wherever? Both ends in threads, wires that break."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lpc.runtime.workers.streams import AHEAD, ForgottenError, Incoming, Outgoing, StaleError, Stream
from lpc.runtime.workers.transport import Message
from lpc.runtime.workers.wire import Parcel

SECONDS = 20.0
SENDER, RECEIVER = 0, 1
ROOM = 2


class Line:
    """What both ends of a wire share."""

    def __init__(self) -> None:
        self.turn = threading.Condition()
        self.cut = False
        self.values: list[Parcel] = []
        self.read = 0
        self.greetings: tuple[list[list[int]], list[list[int]]] = [], []

    def wait(self, there: Callable[[], bool], seconds: float | None = SECONDS) -> None:
        assert self.turn.wait_for(lambda: there() or self.cut, seconds)
        if not there():
            raise RuntimeError("Connection closed by peer")


@dataclass
class End:
    """One end of a wire; what is posted has arrived when it was read."""

    line: Line
    number: int
    greeted: int = 0

    def post(self, sent: Parcel) -> Any:
        with self.line.turn:
            if self.line.cut:
                raise RuntimeError("Connection closed by peer")
            self.line.values.append(sent)
            self.line.turn.notify_all()
            return [(Work(self.line, len(self.line.values)), None)]

    def read(self) -> Message | None:
        with self.line.turn:
            self.line.wait(lambda: self.line.read < len(self.line.values), None)
            self.line.read += 1
            self.line.turn.notify_all()
            found = self.line.values[self.line.read - 1]
        return Message(found.fixed[:3], found.fixed[3], [])

    def greet(self, numbers: Sequence[int], seconds: float) -> list[int]:
        with self.line.turn:
            self.greeted += 1
            self.line.greetings[self.number].append(list(numbers))
            self.line.turn.notify_all()
            theirs = self.line.greetings[1 - self.number]
            self.line.wait(lambda: len(theirs) >= self.greeted)
            return theirs[self.greeted - 1]


@dataclass
class Work:
    line: Line
    number: int

    def wait(self, limit: timedelta) -> None:
        with self.line.turn:
            self.line.wait(lambda: self.line.read >= self.number)


class KilledError(Exception):
    """What ends a life."""


@dataclass
class World:
    """Two ends that go through intervals of messages, with a commit after each, and die where it is said.

    A death is (who, interval, place): before a message, before the word that all of an interval is done (at the number
    of messages), or after it. An end that has to begin again dies as well.
    """

    intervals: int
    messages: int
    deaths: set[tuple[int, int, int]]
    turn: threading.Condition = field(default_factory=threading.Condition)
    said: set[tuple[int, int]] = field(default_factory=set)
    got: dict[int, list[int]] = field(default_factory=dict)
    ended: queue.Queue[tuple[int, bool]] = field(default_factory=queue.Queue)
    streams: list[Any] = field(default_factory=lambda: [None, None])
    lines: list[Line] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)

    @property
    def committed(self) -> int:
        return next(i for i in range(self.intervals + 1) if {(0, i), (1, i)} - self.said)

    def run(self) -> None:
        """Live until both ends are through."""
        for who in (SENDER, RECEIVER):
            self.begin(who)
        self.connect()
        through: set[int] = set()
        while len(through) < 2:
            who, dead = self.ended.get(timeout=SECONDS)
            if not dead:
                through.add(who)
                continue
            through.discard(who)
            with self.lines[-1].turn:
                self.lines[-1].cut = True
                self.lines[-1].turn.notify_all()
            self.begin(who)
            self.connect()

    def begin(self, who: int) -> None:
        self.streams[who] = Outgoing(ROOM) if who == SENDER else Incoming(ROOM, "edge")
        threading.Thread(target=self.live, args=(who, self.streams[who]), daemon=True).start()

    def connect(self) -> None:
        self.lines.append(Line())
        for who, stream in enumerate(self.streams):
            line = self.lines[-1]
            threading.Thread(target=self.join, args=(stream, End(line, who), len(self.lines)), daemon=True).start()

    def join(self, stream: Any, end: End, generation: int) -> None:
        try:
            stream.adopt(end, generation, SECONDS)
        except RuntimeError:
            pass  # one of both has died again
        except StaleError:
            self.ended.put((end.number, True))
        except BaseException as error:
            self.failed.append(error)

    def live(self, who: int, stream: Any) -> None:
        with self.turn:
            base = self.committed
        try:
            stream.commit(base, True)
            for interval in range(base, self.intervals):
                self.interval(who, stream, interval)
                stream.commit(interval + 1, True)
            self.ended.put((who, False))
        except KilledError:
            self.ended.put((who, True))
        except BaseException as error:
            if stream is self.streams[who]:
                self.failed.append(error)
                self.ended.put((who, False))

    def interval(self, who: int, stream: Any, interval: int) -> None:
        got: list[int] = []
        for place in range(self.messages):
            self.pass_by(who, interval, place)
            if who == SENDER:
                stream.send(Parcel((interval, 0, place, 0), [0], []), SECONDS)
            else:
                found = stream.take(SECONDS)
                assert found is not None
                got.append(found.key[2] if found.key[0] == interval else -1)
        stream.complete()
        self.pass_by(who, interval, self.messages)
        with self.turn:
            if who == RECEIVER:  # what a checkpoint holds, or would hold once more
                assert self.got.setdefault(interval, got) == got
            self.said.add((who, interval))
            self.turn.notify_all()
        self.pass_by(who, interval, self.messages + 1)
        with self.turn:
            assert self.turn.wait_for(lambda: self.committed > interval, SECONDS)

    def pass_by(self, *place: int) -> None:
        if place in self.deaths:
            self.deaths.remove(place)
            raise KilledError


@settings(max_examples=150, deadline=None)
@given(
    messages=st.integers(0, 4),
    places=st.sets(st.tuples(st.sampled_from([SENDER, RECEIVER]), st.integers(0, 2), st.integers(0, 5)), max_size=5),
)
def test_each_message_comes_once(messages: int, places: set[tuple[int, int, int]]) -> None:
    world = World(3, messages, {place for place in places if place[2] <= messages + 1})
    world.run()
    assert world.failed == []
    assert world.got == {interval: list(range(messages)) for interval in range(3)}
    assert world.deaths == set()


class Greeted(End):
    """A wire over which the other end is where it is said to be, once and again."""

    def __init__(self, *others: tuple[int, int]) -> None:
        super().__init__(Line(), 0)
        self.line.greetings[1].extend([*other] for other in others)


def sent(count: int) -> tuple[Outgoing, Line]:
    """A stream at the checkpoint of step 3 that has sent some messages since."""
    stream, line = Outgoing(10), Line()
    stream.commit(3, True)
    stream.start(End(line, 0))
    for number in range(count):
        stream.send(Parcel((3, 0, number, 0), [0], []), SECONDS)
    return stream, line


def test_who_is_behind() -> None:
    """An end that has only to commit is waited for; one that lacks what nobody keeps has to begin again."""
    stream, _ = sent(3)
    stream.adopt(wire := Greeted((3, 2)), 1, 1)
    assert [one.fixed[2] for one in wire.line.values] == [2]
    stream.adopt(wire := Greeted((0, 7), (3, 1)), 2, 1)  # it has committed, and read one message ahead
    assert [one.fixed[2] for one in wire.line.values] == [1, 2]
    with pytest.raises(StaleError):
        stream.adopt(Greeted((6, 0)), 3, 1)
    stream.complete()
    threading.Timer(0.05, stream.commit, (6, True)).start()
    stream.adopt(wire := Greeted((6, 0), (6, 0)), 4, SECONDS)
    assert (wire.line.values, stream.has, stream.wire) == ([], 0, wire)
    stream.adopt(Greeted((6, 0)), 3, 1)  # an earlier wire comes to nothing
    assert stream.wire is wire
    stream.forget()
    with pytest.raises(ForgottenError):
        stream.adopt(Greeted((6, 0)), 5, 1)


@pytest.mark.parametrize("keeps", [False, True])
def test_a_broken_wire_is_told_unless_somebody_may_come(keeps: bool) -> None:
    stream, line = sent(0)
    stream.keeps = keeps
    with line.turn:
        line.cut = True
    message = Parcel((3, 0, 0, 0), [0], [])
    if keeps:  # for who may come
        assert stream.send(message, 0.05)
    with pytest.raises(RuntimeError, match="Connection closed"):
        stream.send(message, 0.05)
    assert len(stream.log) == keeps
    assert isinstance(stream, Stream)


class Endless(End):
    """A wire that brings one message of some bytes after another; `brought` counts them."""

    def __init__(self, size: int) -> None:
        super().__init__(Line(), 1)
        self.size, self.brought = size, threading.Semaphore(0)

    def read(self) -> Message:
        self.brought.release()
        return Message((0, 0, 0), 0, [torch.empty(self.size, dtype=torch.uint8)])


@pytest.mark.parametrize(("size", "ahead"), [(0, 5), (AHEAD // 4, 4), (AHEAD // 4 + 1, 4), (AHEAD // 2, 2), (AHEAD, 1)])
def test_large_messages_are_not_read_far_ahead(size: int, ahead: int) -> None:
    """However large, one is; each that is taken makes room for the next."""
    stream, wire = Incoming(4, "edge"), Endless(size)
    stream.start(wire)
    for _ in range(3):
        assert all(wire.brought.acquire(timeout=SECONDS) for _ in range(ahead))
        assert not wire.brought.acquire(timeout=0.05)
        for _ in range(ahead):
            assert stream.take(SECONDS) is not None


class Left(Endless):
    """An endless wire whose other end is gone once `gone` is set, and which greets an end that has sent nothing."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.gone = threading.Event()
        self.line.greetings[0].append([3, 0])

    def read(self) -> Message:
        if self.gone.is_set():
            raise RuntimeError("Connection closed by peer")
        return super().read()


def test_a_reader_of_a_wire_that_was_left_takes_no_other_ones_turn() -> None:
    """Both wait for room, as one large message is there; when it is taken, the later wire is read."""
    stream, old, new = Incoming(4, "edge"), Left(AHEAD), Left(AHEAD)
    stream.commit(3, True)
    stream.start(old)
    with stream.space:
        assert stream.space.wait_for(lambda: stream.waiting == 1, SECONDS)
    old.gone.set()
    stream.adopt(new, 1, SECONDS)
    assert not new.brought.acquire(timeout=0.1)
    assert stream.take(SECONDS) is not None
    assert new.brought.acquire(timeout=SECONDS)
