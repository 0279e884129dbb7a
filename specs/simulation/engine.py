"""Who computes, sends and waits when? A deterministic simulation of events: ranks, edges between them, cores.

A rank does one thing after another. What it gives to an edge leaves while it goes on, one value after another, and it
waits only where the edge has no room; what it takes from an edge it waits for. Values of one name are taken as they
were given. The same programs give the same times.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

Edge = tuple[int, int]  # from rank, to rank
NEARLY = 0.95  # of what cores do together: the rest is how much measured speeds differ


@dataclass(frozen=True, slots=True)
class Compute:
    """Be busy for some seconds with a block; `ahead`: of a step so many steps after the first that is not over."""

    seconds: float
    block: str = ""
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Give:
    """Give so many bytes to another rank."""

    rank: int
    size: float
    name: str = ""


@dataclass(slots=True)
class Take:
    """Wait for the next value of a name from another rank. `size` is the answer: its bytes."""

    rank: int
    name: str = ""
    size: float = 0.0


@dataclass(frozen=True, slots=True)
class Mark:
    """Let another rank know something, after all that was given to it before; it needs no room."""

    rank: int
    name: str


@dataclass(slots=True)
class Pick:
    """Wait until values are there, or marks, whatever is first. `late` is the answer: was it the values?

    Both are pairs of a rank and a name; values stay where they are, to be taken.
    """

    values: tuple[tuple[int, str], ...]
    marks: tuple[tuple[int, str], ...]
    late: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """A step is over."""


Work: TypeAlias = Compute | Give | Take | Mark | Pick | Done


@dataclass(frozen=True)
class Network:
    """What lies between ranks: seconds until a value begins to arrive, bytes a second, values that an edge holds.

    `handling`: seconds that a rank computes to give a value away, and again to take one, and those for each byte of it.
    `speeds`: how fast each rank computes while one rank does, while two do, and so on; cores that are all at work are
    often slower than one alone. More ranks than are listed share in turn what the last number gives them all together.
    Without numbers each rank has a core of its own. `waking`: a rank is slower at first, by so many seconds of work,
    after so many seconds in which it did not compute and a core was idle; between two gaps in proportion.
    """

    latency: float = 0.0
    bandwidth: float = float("inf")
    room: int = 4
    speeds: tuple[float, ...] = ()
    waking: tuple[tuple[float, float], ...] = ()
    handling: tuple[float, float] = (0.0, 0.0)

    @property
    def together(self) -> float:
        """Seconds of work that all cores do in one, at most."""
        return max(self._totals(), default=float("inf"))

    @property
    def cores(self) -> float:
        """How many ranks compute where no core is idle: the fewest that do about as much as any number together."""
        enough = NEARLY * self.together
        return next((n for n, total in enumerate(self._totals(), 1) if total >= enough), float("inf"))

    def _totals(self) -> list[float]:
        """Return the seconds of work that one rank does in one second, two do together, and so on."""
        return [speed * working for working, speed in enumerate(self.speeds, 1)]

    def speed(self, working: int) -> float:
        """Return the share of its full speed that each of so many computing ranks has."""
        if not self.speeds:
            return 1.0
        listed = min(working, len(self.speeds))
        return self.speeds[listed - 1] * listed / working

    def woken(self, gap: float) -> float:
        """Return the seconds of work that a rank has more after so many seconds of an idle core."""
        before, cost = 0.0, 0.0
        for upto, more in self.waking:
            if gap < upto:
                return cost + (more - cost) * (gap - before) / (upto - before)
            before, cost = upto, more
        return cost


@dataclass(frozen=True, slots=True)
class Busy:
    """One stretch in which a rank computed, taking turns with others where they share cores."""

    rank: int
    step: int
    block: str
    start: float
    end: float
    seconds: float  # of work, which are those between start and end on a core of its own


@dataclass(frozen=True)
class Simulation:
    """`busy` in order of their starts; `ends[rank][step]` in seconds; `sent` bytes of all steps over each edge.

    `speed`: seconds of work that all cores together do in one.
    """

    busy: tuple[Busy, ...]
    ends: tuple[tuple[float, ...], ...]
    sent: dict[Edge, float]
    speed: float = float("inf")

    @property
    def steps(self) -> int:
        return len(self.ends[0])

    @property
    def period(self) -> float:
        """Seconds from step to step once all ranks are at work: over the second half of the steps.

        In the end first ranks are done and leave their share of the cores to others, or have begun all steps and end
        what was left of them, which cannot last.
        """
        last: list[float] = [max(ends) for ends in zip(*self.ends, strict=True)]
        half = (self.steps - 1) // 2
        if self.steps == 1:
            return last[-1]
        return max((last[-1] - last[half]) / (self.steps - 1 - half), self.work / self.speed, self.busiest)

    @property
    def first(self) -> float:
        """Seconds until the first step is over on all ranks."""
        return max(ends[0] for ends in self.ends)

    @property
    def work(self) -> float:
        """Seconds of computation in a step, on all ranks together."""
        return sum(one.seconds for one in self.busy) / self.steps

    @property
    def busiest(self) -> float:
        """Seconds of computation in a step, on the rank that has most."""
        found = [0.0 for _ in self.ends]
        for one in self.busy:
            found[one.rank] += one.seconds
        return max(found) / self.steps

    @property
    def bubble(self) -> float:
        """The share of the ranks' time in which they wait, for each other or for their turn on a core."""
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
    """Values on the way, by name: when they arrive, and their bytes. The line is free again at `free`."""

    arrivals: defaultdict[str, deque[tuple[float, float]]] = field(default_factory=lambda: defaultdict(deque))
    marks: dict[str, float] = field(default_factory=dict)
    held: int = 0
    free: float = 0.0
    sent: float = 0.0
    taker: str | None = None  # the other rank waits for a value of this name
    giver: bool = False  # this rank waits for room

    def arrival(self, name: str) -> float:
        """Return when the next value of a name is there; never, as far as is known, if it was not given."""
        return self.arrivals[name][0][0] if self.arrivals[name] else float("inf")


class _Cores:
    """What computes at present, all at one speed: it ends in the order of a clock that goes at that speed."""

    def __init__(self, network: Network) -> None:
        self.network, self.size = network, network.cores
        self.now = self.clock = 0.0
        self.unused = 0.0  # seconds in which a core was idle
        self.working: list[tuple[float, int, Busy]] = []  # by the clock at its end
        self.count = 0

    def next(self) -> float:
        """Return when the first of them is done, if nothing else begins."""
        if not self.working:
            return float("inf")
        return self.now + (self.working[0][0] - self.clock) / self.network.speed(len(self.working))

    def idle(self, now: float) -> float:
        """Return the seconds until now in which a core was idle."""
        return self.unused + (now - self.now if len(self.working) < self.size else 0.0)

    def start(self, work: Busy) -> None:
        self._pass(work.start)
        self.count += 1
        heapq.heappush(self.working, (self.clock + work.seconds, self.count, work))

    def finish(self) -> Busy:
        """Return what is done first, with its end."""
        end = self.next()
        clock, _, work = self.working[0]
        self._pass(end)
        self.clock = clock
        heapq.heappop(self.working)
        return replace(work, end=end)

    def _pass(self, now: float) -> None:
        self.clock += (now - self.now) * self.network.speed(len(self.working)) if self.working else 0.0
        self.unused = self.idle(now)
        self.now = now


class _World:
    def __init__(self, programs: Sequence[Iterator[Work]], network: Network) -> None:
        self.programs, self.network = programs, network
        self.next: list[Work | None] = [next(program, None) for program in programs]
        self.edges: dict[Edge, _Edge] = {}
        self.ends: list[list[float]] = [[] for _ in programs]
        self.busy: list[Busy] = []
        self.cores = _Cores(network)
        self.idle = [0.0 for _ in programs]  # for how long a core had been idle when each rank last computed
        self.events: list[tuple[float, int, int]] = [(0.0, rank, rank) for rank in range(len(programs))]
        self.count = len(programs)
        self.awake = list(range(self.count))  # the number of the event that each rank waits for

    def run(self) -> Simulation:
        heapq.heapify(self.events)
        while self.events or self.cores.working:
            if self.events and self.events[0][0] <= self.cores.next():
                now, number, rank = heapq.heappop(self.events)
                if number != self.awake[rank]:
                    continue
            else:
                done = self.cores.finish()
                self.busy.append(done)
                self.idle[done.rank] = self.cores.idle(done.end)
                now, rank = done.end, done.rank
                self.next[rank] = next(self.programs[rank], None)
            while self.advance(rank, now):
                self.next[rank] = next(self.programs[rank], None)
        stuck = [rank for rank, work in enumerate(self.next) if work is not None]
        if stuck:
            raise LockedError(f"rank {stuck[0]} waits for ever at {self.next[stuck[0]]}")
        sent = {edge: one.sent for edge, one in sorted(self.edges.items())}
        busy = tuple(sorted(self.busy, key=lambda b: b.start))
        return Simulation(busy, tuple(map(tuple, self.ends)), sent, self.network.together)

    def at(self, time: float, rank: int) -> None:
        self.count += 1
        self.awake[rank] = self.count
        heapq.heappush(self.events, (time, self.count, rank))

    def advance(self, rank: int, now: float) -> bool:
        """Do a rank's next thing, if it can be done in no time."""
        match self.next[rank]:
            case Compute(seconds=seconds, block=block, ahead=ahead):
                if seconds == 0:
                    return True
                whole = seconds + self.network.woken(self.cores.idle(now) - self.idle[rank])
                self.cores.start(Busy(rank, len(self.ends[rank]) + ahead, block, now, now, whole))
                return False
            case Give() as given:
                return self.give(rank, given, now)
            case Take() as wanted:
                return self.take(rank, wanted, now)
            case Mark(rank=other, name=name):
                edge = self.edge(rank, other)
                edge.marks[name] = max(now, edge.free) + self.network.latency
                return self.told(other, now)
            case Pick() as pick:
                return self.pick(rank, pick, now)
            case Done():
                self.ends[rank].append(now)
                return True
            case None:
                return False

    def edge(self, rank: int, other: int) -> _Edge:
        return self.edges.setdefault((rank, other), _Edge())

    def give(self, rank: int, given: Give, now: float) -> bool:
        edge = self.edge(rank, given.rank)
        if edge.held >= self.network.room:
            edge.giver = True
            return False
        edge.free = max(now, edge.free) + given.size / self.network.bandwidth
        edge.arrivals[given.name].append((edge.free + self.network.latency, given.size))
        edge.held += 1
        edge.sent += given.size
        if edge.taker == given.name:
            edge.taker = None
            self.at(max(now, edge.arrival(given.name)), given.rank)
        return self.told(given.rank, now)

    def told(self, rank: int, now: float) -> bool:
        """Let a rank that may have two things to wait for look again."""
        if isinstance(self.next[rank], Pick):
            self.at(now, rank)
        return True

    def take(self, rank: int, wanted: Take, now: float) -> bool:
        other, name, edge = wanted.rank, wanted.name, self.edge(wanted.rank, rank)
        if not edge.arrivals[name]:
            edge.taker = name
            return False
        if edge.arrival(name) > now:
            self.at(edge.arrival(name), rank)
            return False
        wanted.size = edge.arrivals[name].popleft()[1]
        edge.held -= 1
        if edge.giver:
            edge.giver = False
            self.at(now, other)
        return True

    def pick(self, rank: int, pick: Pick, now: float) -> bool:
        values = max((self.edge(other, rank).arrival(name) for other, name in pick.values), default=now)
        never = float("inf")
        marks = max((self.edge(other, rank).marks.get(name, never) for other, name in pick.marks), default=now)
        pick.late = values <= now
        if min(values, marks) <= now:
            return True
        if min(values, marks) < never:
            self.at(min(values, marks), rank)
        return False
