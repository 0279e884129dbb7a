"""Who computes, sends and waits when? A deterministic simulation of events: ranks, edges between them, cores.

A rank does one thing after another. What it gives to an edge leaves while it goes on, one value after another, and it
waits only where the edge has no room; what it takes from an edge it waits for. The same programs give the same times.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Edge = tuple[int, int]  # from rank, to rank


@dataclass(frozen=True, slots=True)
class Compute:
    """Be busy for some seconds with a block."""

    seconds: float
    block: str = ""


@dataclass(frozen=True, slots=True)
class Give:
    """Give so many bytes to another rank."""

    rank: int
    size: float


@dataclass(frozen=True, slots=True)
class Take:
    """Wait for the next value of another rank."""

    rank: int


@dataclass(frozen=True, slots=True)
class Done:
    """A step is over."""


Work: TypeAlias = Compute | Give | Take | Done


@dataclass(frozen=True)
class Network:
    """What lies between ranks: seconds until a value begins to arrive, bytes a second, values that an edge holds.

    `cores`: so many ranks compute at a time, the others wait for their turn (None: each has one of its own).
    """

    latency: float = 0.0
    bandwidth: float = float("inf")
    room: int = 4
    cores: int | None = None


@dataclass(frozen=True, slots=True)
class Busy:
    """One stretch in which a rank computed."""

    rank: int
    step: int
    block: str
    start: float
    end: float


@dataclass(frozen=True)
class Simulation:
    """`busy` in order of their starts; `ends[rank][step]` in seconds; `sent` bytes of all steps over each edge."""

    busy: tuple[Busy, ...]
    ends: tuple[tuple[float, ...], ...]
    sent: dict[Edge, float]

    @property
    def steps(self) -> int:
        return len(self.ends[0])

    @property
    def period(self) -> float:
        """Seconds from step to step once all ranks are at work: over the second half of the steps."""
        last: list[float] = [max(ends) for ends in zip(*self.ends, strict=True)]
        half = (self.steps - 1) // 2
        return (last[-1] - last[half]) / (self.steps - 1 - half) if self.steps > 1 else last[-1]

    @property
    def first(self) -> float:
        """Seconds until the first step is over on all ranks."""
        return max(ends[0] for ends in self.ends)

    @property
    def work(self) -> float:
        """Seconds of computation in a step, on all ranks together."""
        return sum(one.end - one.start for one in self.busy) / self.steps

    @property
    def bubble(self) -> float:
        """The share of the ranks' time in which they wait."""
        return 1 - self.work / (self.period * len(self.ends)) if self.period else 0.0

    @property
    def traffic(self) -> float:
        """Bytes sent in a step."""
        return sum(self.sent.values()) / self.steps


class LockedError(RuntimeError):
    """Ranks wait for each other for ever."""


def simulate(programs: Sequence[Iterator[Work]], network: Network) -> Simulation:
    """Run each rank's program. Raises LockedError where ranks wait for values that nobody sends."""
    return _World(programs, network).run()


@dataclass
class _Edge:
    """Values on the way, by when they arrive; the line is free again at `free`."""

    arrivals: deque[float] = field(default_factory=deque)
    free: float = 0.0
    sent: float = 0.0
    taker: bool = False  # the other rank waits for a value
    giver: bool = False  # this rank waits for room


class _World:
    def __init__(self, programs: Sequence[Iterator[Work]], network: Network) -> None:
        self.programs, self.network = programs, network
        self.next: list[Work | None] = [next(program, None) for program in programs]
        self.edges: dict[Edge, _Edge] = {}
        self.ends: list[list[float]] = [[] for _ in programs]
        self.busy: list[Busy] = []
        self.computing: dict[int, Compute] = {}
        self.waiting: deque[int] = deque()  # for a core
        self.events: list[tuple[float, int, int]] = [(0.0, rank, rank) for rank in range(len(programs))]
        self.count = len(programs)

    def run(self) -> Simulation:
        heapq.heapify(self.events)
        while self.events:
            now, _, rank = heapq.heappop(self.events)
            if rank in self.computing:
                self.finish(rank, now)
            while self.advance(rank, now):
                self.next[rank] = next(self.programs[rank], None)
        stuck = [rank for rank, work in enumerate(self.next) if work is not None]
        if stuck:
            raise LockedError(f"rank {stuck[0]} waits for ever at {self.next[stuck[0]]}")
        sent = {edge: one.sent for edge, one in sorted(self.edges.items())}
        return Simulation(tuple(sorted(self.busy, key=lambda b: b.start)), tuple(map(tuple, self.ends)), sent)

    def at(self, time: float, rank: int) -> None:
        self.count += 1
        heapq.heappush(self.events, (time, self.count, rank))

    def advance(self, rank: int, now: float) -> bool:
        """Do a rank's next thing, if it can be done in no time."""
        match self.next[rank]:
            case Compute(seconds=seconds):
                if seconds == 0:
                    return True
                self.compute(rank, now)
                return False
            case Give(rank=other, size=size):
                return self.give(rank, other, size, now)
            case Take(rank=other):
                return self.take(rank, other, now)
            case Done():
                self.ends[rank].append(now)
                return True
            case None:
                return False

    def compute(self, rank: int, now: float) -> None:
        work, cores = self.next[rank], self.network.cores
        assert isinstance(work, Compute)
        if cores is not None and len(self.computing) >= cores:
            self.waiting.append(rank)
            return
        self.computing[rank] = work
        self.busy.append(Busy(rank, len(self.ends[rank]), work.block, now, now + work.seconds))
        self.at(now + work.seconds, rank)

    def finish(self, rank: int, now: float) -> None:
        """A rank that is done gives its core to the one that waits longest."""
        del self.computing[rank]
        self.next[rank] = next(self.programs[rank], None)
        if self.waiting:
            self.compute(self.waiting.popleft(), now)

    def give(self, rank: int, other: int, size: float, now: float) -> bool:
        edge = self.edges.setdefault((rank, other), _Edge())
        if len(edge.arrivals) >= self.network.room:
            edge.giver = True
            return False
        edge.free = max(now, edge.free) + size / self.network.bandwidth
        edge.arrivals.append(edge.free + self.network.latency)
        edge.sent += size
        if edge.taker:
            edge.taker = False
            self.at(max(now, edge.arrivals[0]), other)
        return True

    def take(self, rank: int, other: int, now: float) -> bool:
        edge = self.edges.setdefault((other, rank), _Edge())
        if not edge.arrivals:
            edge.taker = True
            return False
        if edge.arrivals[0] > now:
            self.at(edge.arrivals[0], rank)
            return False
        edge.arrivals.popleft()
        if edge.giver:
            edge.giver = False
            self.at(now, other)
        return True
