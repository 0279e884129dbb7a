"""In which order does a rank run the halves of steps that overlap? As values come, or as it was recorded.

The first half of a step may run while the second ones of up to `staleness` steps before it wait for other ranks; these
then end in their order. How many second halves were over when each step began is the whole order, and is recorded.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lpc.runtime.handlers import Operation
from lpc.runtime.machine import Machine
from lpc.runtime.meter import Reading
from lpc.runtime.resources import Frame
from lpc.runtime.workers.mailbox import NONE, Mailbox
from lpc.runtime.workers.transfers import reduction
from lpc.runtime.workers.transport import Stamp, silent
from lpc.specs.plan.instructions import Instruction, Offer, Receive, Reduce, Update
from lpc.specs.ranks.lagging import awaited, halves, neighbours
from lpc.specs.ranks.makers import flat

GLANCE = 0.0005  # seconds between looks at what has come


@dataclass
class Overlap:
    """What one rank did in one step: at which version it began, what it used, what it updated.

    `version` counts the second halves that were over. `consumed` holds for each value from another rank the version of
    the oldest weights that it was made with, directly or by way of other values. `staleness` says of each block that
    was updated how many steps older the oldest weights were, of all that had come into it, than in the synchronous
    order.
    """

    step: int
    version: int
    consumed: dict[str, int] = field(default_factory=dict)
    staleness: dict[str, int] = field(default_factory=dict)

    def row(self, rank: int) -> dict[str, Any]:
        """Return it as a line of the journal."""
        return {
            "step": self.step, "rank": rank, "version": self.version, "consumed": self.consumed,
            "staleness": self.staleness,
        }  # fmt: skip


@dataclass
class _Half:
    """One half of a step: its operations, the blocks that it updates, the ranks that it sends to and receives from."""

    operations: tuple[Operation, ...]
    body: Sequence[Instruction]
    offered: Collection[str] = ()  # what others have of its reductions

    def __post_init__(self) -> None:
        inside = list(flat(self.body))
        self.updates = list(dict.fromkeys(one.block for one in inside if isinstance(one, Update)))
        self.sources, self.targets = neighbours(tuple(self.body))
        self.offers = frozenset(one.value for one in inside if isinstance(one, Offer))

    @cached_property
    def awaited(self) -> list[tuple[int, str]]:
        """What it waits for first, from which ranks; nothing where others wait for what it sends before."""
        match awaited(tuple(self.body), self.offered):
            case Receive(value=value, rank=rank):
                return [(rank, value)]
            case Reduce(value=value, ranks=ranks):
                return [(rank, reduction(value, ranks)) for rank in ranks]
            case None:
                return []


@dataclass
class _Open:
    """A step whose second half has not run."""

    frame: Frame
    half: _Half
    overlap: Overlap
    oldest: int


class Pace:
    """Runs the steps of one rank. `recorded` gives the version at which each step began, where an order is replayed."""

    def __init__(
        self, machine: Machine, mailbox: Mailbox, staleness: int, recorded: Mapping[int, int] | None = None
    ) -> None:
        self.machine, self.mailbox, self.staleness, self.recorded = machine, mailbox, staleness, recorded
        self.open: deque[_Open] = deque()
        self.overlaps: list[Overlap] = []  # of steps that are over, until somebody takes them
        self.readings: list[Reading] = []
        self.returned: dict[str, Any] = {}
        self._of: tuple[int, tuple[Operation, ...]] = (-1, ())
        self._halves = _Half((), ()), _Half((), ())

    def advance(self, frame: Frame, phase: int) -> list[Reading]:
        """Run the first half of a step, and the second halves that come before it; return the readings of all."""
        first, second = self.halves(phase)
        self.make_way(frame.step, first)
        version = frame.step - len(self.open)
        overlap = Overlap(frame.step, version)
        oldest = self.run(first, frame, overlap, version)
        for rank in first.targets:
            if rank != self.mailbox.rank:
                self.mailbox.mark(rank, frame.step)
        self.open.append(_Open(frame, second, overlap, oldest))
        if not second.operations:
            self.end()
        return self.given()

    def settle(self) -> list[Reading]:
        """Run all second halves that are left, and return the readings."""
        while self.open:
            self.end()
        return self.given()

    def halves(self, phase: int) -> tuple[_Half, _Half]:
        """Return both halves of a phase's step, as it is bound now."""
        operations = self.machine.step(phase)
        if self._of != (phase, operations):
            early, late = halves(self.machine.program.steps[phase])
            first = _Half(operations[: len(early)], early)
            second = _Half(operations[len(early) + 1 :], late, first.offers)
            self._of, self._halves = (phase, operations), (first, second)
        return self._halves

    def make_way(self, step: int, first: _Half) -> None:
        """Run second halves until a step may begin."""
        if self.recorded is not None:
            while step - len(self.open) < self.recorded[step]:
                self.end()
            return
        deadline = time.monotonic() + self.mailbox.patience
        while self.open:
            if len(self.open) > self.staleness or self.is_ready(self.open[0]):
                self.end()
            elif all(self.mailbox.marked(source, step) for source in first.sources):
                return
            elif time.monotonic() > deadline:
                (source, value), late = self.open[0].half.awaited[0], self.open[0].frame.step
                raise silent(self.mailbox.rank, source, Stamp(late, 0, value), self.mailbox.patience)
            else:
                time.sleep(GLANCE)

    def is_ready(self, waiting: _Open) -> bool:
        """Has come what a second half waits for first? It may have to wait for more."""
        box, step = self.mailbox, waiting.frame.step
        return all(rank == box.rank or box.has(rank, step, value) for rank, value in waiting.half.awaited)

    def end(self) -> None:
        """Run the oldest second half that is left."""
        done = self.open.popleft()
        self.run(done.half, done.frame, done.overlap, done.oldest)
        self.overlaps.append(done.overlap)
        self.readings += done.frame.readings
        self.returned = done.frame.returned

    def run(self, half: _Half, frame: Frame, overlap: Overlap, oldest: int) -> int:
        """Run a half, note what it used and updated, and return the oldest version that has come into the step."""
        box = self.mailbox
        box.oldest, box.consumed = oldest, overlap.consumed
        self.machine.run(half.operations, frame)
        oldest = box.oldest
        overlap.staleness.update(dict.fromkeys(half.updates, frame.step - oldest))
        box.oldest, box.consumed = NONE, {}
        return oldest

    def given(self) -> list[Reading]:
        found, self.readings = self.readings, []
        return found

    def taken(self) -> list[Overlap]:
        """Return what is known of the steps that have ended since this was asked last."""
        found, self.overlaps = self.overlaps, []
        return found
