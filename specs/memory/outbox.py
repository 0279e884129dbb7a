"""What does a rank keep of what it sends? All since the last checkpoint, for a process that is started again alone.

Messages are kept by reference, so that memory which is sent to several ranks, or twice, is kept once. What may change
before it has to be sent again is copied (`runtime.workers.transfers` and `shards`), and kept apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from lpc.specs.kept import LIMIT
from lpc.specs.memory.heap import Storage
from lpc.specs.memory.relaxing import RelaxedWalk
from lpc.specs.memory.section import Handler, Held
from lpc.specs.memory.sizes import Lengths, nbytes
from lpc.specs.model import Run
from lpc.specs.plan.instructions import Every, Instruction, Lend, Offer, Reduce, ReduceScatter, Repeat, Send
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.plan import Program
from lpc.specs.plan.shards import part_size, sharded


@dataclass(frozen=True)
class Outbox:
    """The bytes that a rank sends and keeps: in a step, in a batch of an evaluation. They are kept up to `limit`.

    `steps` are those from one checkpoint to the next, None where the length of an epoch says it, which is no part of
    a plan. A step is one of the phase that sends most; what is not sent in each step counts by its share, and kept
    variables as if those of all samples were due.
    """

    step: int
    batch: int
    steps: int | None
    limit: int = LIMIT

    @property
    def most(self) -> int:
        """The most bytes of steps that are kept at a time; the limit where the steps are not known."""
        return self.limit if self.steps is None else min(self.limit, self.steps * self.step)

    @property
    def room(self) -> int:
        """The steps whose messages can be kept at a time."""
        return self.limit // self.step if self.step else 0


def outbox(program: Program, kernels: Mapping[str, Kernel], lengths: Lengths, run: Run) -> Outbox | None:
    """Return what a rank keeps of what it sends; None where it sends nothing, or its steps overlap."""
    step = max(_sent(program, kernels, lengths, body) for body in program.steps)
    batch = _sent(program, kernels, lengths, program.evaluate)
    if run.staleness or not (step or batch):
        return None
    return Outbox(step, batch, between(run))


def between(run: Run) -> int | None:
    """Return how many steps there are at most from one checkpoint to the next; None where an epoch's length says it."""
    whole = [phase.steps for phase in run.phases] if run.phases else [run.steps]
    total = sum(n for n in whole if n is not None) if None not in whole else None
    term = run.checkpoint
    given = next(iter((*term.args, *term.kwargs.values())), None)
    period = given if isinstance(given, int) else 1 if str(given) == "step" else None
    found = [n for n in (period, total) if n is not None]
    return min(found, default=None)


def _sent(program: Program, kernels: Mapping[str, Kernel], lengths: Lengths, body: Sequence[Instruction]) -> int:
    walk = SendingWalk(program, kernels, lengths)
    walk.run(body)
    return ceil(walk.sent)


@dataclass
class SendingWalk(RelaxedWalk):
    """Goes through a section and adds up what is sent in it."""

    sent: float = 0.0
    rate: float = 1.0  # how often the current body runs in a step
    known: set[Storage] = field(default_factory=set)

    def handler(self, kind: type[Any]) -> Handler:
        return _SENDING.get(kind) or super().handler(kind)

    def add(self, size: int) -> None:
        self.sent += self.rate * size

    def keep(self, value: Sequence[Held], copied: bool = False) -> None:
        """A value is sent; what is resident is copied."""
        for held in value:
            if copied or held.storage is None:
                self.add(held.size)
            elif held.storage not in self.known:
                self.known.add(held.storage)
                self.add(held.storage.size)

    def send(self, send: Send) -> None:
        variable = self.program.variables.get(send.value)
        self.keep(self.env[send.value], copied=variable is not None and bool(variable.optimizer))

    def offer(self, offer: Offer | Lend) -> None:
        if isinstance(offer, Offer):
            self.keep(self.env[offer.value])
        else:
            self.add(sum(part_size(self.program, e.name, self.index) for e in sharded(self.program, offer.block)))

    def reduce(self, reduce: Reduce) -> None:
        self.keep(self.env[reduce.value])
        super().reduce(reduce)

    def reduce_scatter(self, reduce: ReduceScatter) -> None:
        """Each of the others is given a copy of its part, or of all that is not sharded."""
        for index in range(len(reduce.ranks)):
            for name in (held.source for held in self.env[reduce.value] if index != self.index):
                whole = name not in self.program.shards
                self.add(nbytes(self.types[name], {}) if whole else part_size(self.program, name, index))
        super().reduce_scatter(reduce)

    @property
    def index(self) -> int:
        """Which part of what is sharded this rank has."""
        return next(iter(self.program.shards.values())).index

    def repeat(self, repeat: Repeat) -> None:
        rate = self.rate
        self.run(repeat.body)
        self.rate = rate * (repeat.count - 1)
        if repeat.count > 1:
            self.run(repeat.body)
        self.rate = rate

    def every(self, every: Every) -> None:
        rate = self.rate
        self.rate = rate / every.period
        super().every(every)
        self.rate = rate


_SENDING: dict[type[Any], Callable[[Any, Any], None]] = {
    Send: SendingWalk.send,
    Offer: SendingWalk.offer,
    Lend: SendingWalk.offer,
    Reduce: SendingWalk.reduce,
    ReduceScatter: SendingWalk.reduce_scatter,
    Repeat: SendingWalk.repeat,
    Every: SendingWalk.every,
}
