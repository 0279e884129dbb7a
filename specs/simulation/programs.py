"""What does each rank of a plan do in a step, and how long does it take? Its instructions as work of known cost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lpc.specs.cost import pieces
from lpc.specs.flops import kernel_flops
from lpc.specs.memory.sizes import Lengths, nbytes
from lpc.specs.plan.instructions import (
    Call,
    Due,
    Every,
    Gather,
    Instruction,
    Lag,
    Later,
    Lend,
    Load,
    Offer,
    Only,
    Parallel,
    Part,
    Receive,
    Reduce,
    ReduceScatter,
    Relax,
    Repeat,
    Send,
    Update,
)
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.plan import Plan
from lpc.specs.plan.shards import held, part_size, sharded
from lpc.specs.ranks.lagging import Body, awaited, halves, neighbours
from lpc.specs.ranks.makers import flat
from lpc.specs.simulation.engine import (
    Compute,
    Done,
    Give,
    Mark,
    Network,
    Pick,
    Simulation,
    Take,
    Work,
    simulate,
)

STEPS = 8


@dataclass(frozen=True)
class Rates:
    """A device by assumption: operations a second, seconds for a call besides, bytes of parameters stepped a second."""

    flops: float = 1e12
    overhead: float = 2e-5
    updated: float = 1e11


Costs = Callable[[Plan, Call | Update, Lengths], float]  # seconds that an instruction of a rank's plan takes


def estimated(rates: Rates) -> Costs:
    """Return costs by operations: of a call those of its kernel, of an update the bytes of its block's parameters."""

    def seconds(plan: Plan, instruction: Call | Update, lengths: Lengths) -> float:
        if isinstance(instruction, Call):
            flops = sum(kernel_flops(plan.kernels["native"][instruction.kernel], lengths).values())
            return flops / rates.flops + rates.overhead
        names = (n for g in plan.program.optimizers[instruction.block].groups for n in g.parameters)
        types = held(plan.program)
        size = sum(nbytes(types[name], lengths) for name in names)
        return size / rates.updated + rates.overhead

    return seconds


def named(instruction: Call | Update) -> str:
    """Return what an instruction's time is told under: its kernel, or `update BLOCK`."""
    return instruction.kernel if isinstance(instruction, Call) else f"update {instruction.block}"


def simulated(
    plans: Sequence[Plan],
    lengths: Lengths,
    costs: Costs,
    network: Network,
    steps: int = STEPS,
    phase: int = 0,
) -> Simulation:
    """Return how some steps of the ranks' plans go (see `specs.ranks.plan.rank_plans`); more of them if they overlap.

    Errors: 0562 a length that is not given.
    """
    lags = [one.steps for plan in plans for one in plan.program.steps[phase] if isinstance(one, Lag)]
    steps *= 1 + max(lags, default=0)  # they come in turns of so many
    ranks = [_Program(plan, rank, dict(lengths), costs) for rank, plan in enumerate(plans)]
    programs = [rank.paced(steps, phase) if lags else rank.steps(steps, phase) for rank in ranks]
    return simulate([_handled(program, *network.handling) for program in programs], network)


def _handled(program: Iterator[Work], seconds: float, of_a_byte: float) -> Iterator[Work]:
    """Yield a rank's work with that of giving and taking values."""
    for work in program:
        if isinstance(work, Give):
            yield Compute(seconds + of_a_byte * work.size)
        yield work
        if isinstance(work, Take):
            yield Compute(seconds + of_a_byte * work.size)


def _mark(step: int) -> str:
    """Return what tells others that a first half is over."""
    return f"{step} begun"


@dataclass
class _Program:
    plan: Plan
    rank: int
    lengths: dict[str, int]
    costs: Costs
    types: dict[str, list[TensorType]] = field(default_factory=dict)  # of what the rank has made
    known: dict[tuple[str, int], float] = field(default_factory=dict)
    sources: dict[str, list[str]] = field(default_factory=dict)  # of the gradients that it has made
    named: bool = False  # are values taken by name, as where steps overlap, or as they come?
    open: deque[int] = field(default_factory=deque)  # steps whose second half is to come

    @cached_property
    def offered(self) -> set[str]:
        """Values that are given to those who add them up before they are added up here."""
        return {one.value for body in self.plan.program.steps for one in flat(body) if isinstance(one, Offer)}

    @cached_property
    def held(self) -> dict[str, TensorType]:
        return held(self.plan.program)

    def steps(self, count: int, phase: int) -> Iterator[Work]:
        for step in range(count):
            yield from self.body(self.plan.program.steps[phase], step, self.lengths["B"])
            yield Done()

    def paced(self, count: int, phase: int) -> Iterator[Work]:
        """Go through steps that overlap, in the order in which values come (see `runtime.workers.pace`)."""
        body = self.plan.program.steps[phase]
        first, second = halves(body)
        ahead = next((one.steps for one in body if isinstance(one, Lag)), 0)
        receives, targets = neighbours(first)
        self.named = True
        for step in range(count):
            marks = tuple((rank, _mark(step)) for rank in receives)
            while self.open and (len(self.open) > ahead or (yield from self.late(first, second, marks))):
                yield from self.end(second)
            self.open.append(step)
            yield from self.body(first, step, self.lengths["B"])
            yield from (Mark(rank, _mark(step)) for rank in targets if rank != self.rank)
            if not second:
                yield from self.end(second)
        while self.open:
            yield from self.end(second)

    def late(self, first: Body, second: Body, marks: tuple[tuple[int, str], ...]) -> Generator[Work, None, bool]:
        """Wait for what the oldest second half waits for or for marks; tell whether it was the former."""
        pick = Pick(self.awaited(first, second), marks)
        yield pick
        return pick.late

    def end(self, second: Body) -> Iterator[Work]:
        """Go through the oldest second half that is left."""
        yield from self.body(second, self.open[0], self.lengths["B"])
        self.open.popleft()
        yield Done()

    def awaited(self, first: Body, second: Body) -> tuple[tuple[int, str], ...]:
        """Return what the oldest second half waits for first, by rank and name."""
        step, offered = self.open[0], {one.value for one in flat(first) if isinstance(one, Offer)}
        match awaited(second, offered):
            case Receive(value=value, rank=rank):
                return ((rank, self.name(step, value)),)
            case Reduce(value=value, ranks=ranks):
                return tuple((rank, self.name(step, f"sum {value}")) for rank in ranks if rank != self.rank)
            case None:
                return ()

    def name(self, step: int, value: str) -> str:
        """Return what a value of a step is called on an edge."""
        return f"{step} {value}" if self.named else ""

    def body(self, body: Sequence[Instruction], step: int, size: int) -> Iterator[Work]:
        for instruction in body:
            match instruction:
                case Call() | Update():
                    yield self.compute(instruction, step, size)
                case Load(values=values, fields=fields):
                    self.types |= {v: [self.plan.program.fields[f]] for v, f in zip(values, fields, strict=True)}
                case Send(value=value, rank=rank):
                    yield Give(rank, self.size(value, size), self.name(step, value))
                case Receive(value=value, rank=rank):
                    yield Take(rank, self.name(step, value))
                case Lend(block=block, ranks=ranks):
                    size_of_part = sum(nbytes(self.held[e.name], {}) for e in sharded(self.plan.program, block))
                    yield from (Give(rank, float(size_of_part)) for rank in ranks)
                case Gather(ranks=ranks):
                    yield from (Take(rank) for rank in ranks if rank != self.rank)
                case ReduceScatter(value=value, ranks=ranks):
                    yield from (Give(r, self.part_for(value, i)) for i, r in enumerate(ranks) if r != self.rank)
                    yield from (Take(rank) for rank in ranks if rank != self.rank)
                case Offer(value=value, ranks=ranks):
                    yield from self.offer(value, ranks, step, size)
                case Reduce(value=value, ranks=ranks):
                    if value not in self.offered:
                        yield from self.offer(value, ranks, step, size)
                    yield from (Take(rank, self.name(step, f"sum {value}")) for rank in ranks if rank != self.rank)
                case Part():
                    yield from self.part(instruction, step, size)
                case Repeat(count=count, body=inner):
                    for _ in range(count):
                        yield from self.body(inner, step, size)
                case Every(period=period, phase=phase, body=inner):
                    yield from self.body(inner, step, size) if step >= phase and (step - phase) % period == 0 else ()
                case Relax(body=inner) | Parallel(body=inner) | Due(body=inner):
                    yield from self.body(inner, step, size)

    def offer(self, value: str, ranks: Sequence[int], step: int, size: int) -> Iterator[Work]:
        """Give a bundle to all others that add it up."""
        for rank in ranks:
            if rank != self.rank:
                yield Give(rank, self.size(value, size), self.name(step, f"sum {value}"))

    def part(self, part: Part, step: int, size: int) -> Iterator[Work]:
        """Go through the pieces, the second half of the body some pieces behind the first."""
        own = next((one.piece for one in part.body if isinstance(one, Only)), None)
        cut = next((i for i, one in enumerate(part.body) if isinstance(one, Later)), len(part.body))
        turns = sum(one.turns for one in part.body if isinstance(one, Later))
        found = [piece for index, piece in enumerate(pieces(part, size)) if own in (None, index)]
        for value, source in zip(part.values, part.sources, strict=True):
            self.types[value] = self.types.get(source, [])
        for turn in range(len(found) + turns):
            yield from self.body(part.body[:cut], step, found[turn]) if turn < len(found) else ()
            yield from self.body(part.body[cut:], step, found[turn - turns]) if turn >= turns else ()

    def compute(self, instruction: Call | Update, step: int, size: int) -> Compute:
        ahead = step - self.open[0] if self.open else 0
        key = (str(instruction), size)
        if key not in self.known:
            self.known[key] = self.costs(self.plan, instruction, {**self.lengths, "B": size})
        if isinstance(instruction, Update):
            return Compute(self.known[key], instruction.block, ahead)
        kernel = self.plan.kernels["native"][instruction.kernel]
        for value, bundle in zip(instruction.values, kernel.results, strict=True):
            self.types[value] = [port.type for port in bundle.ports]
            if bundle.role == "gradients":
                self.sources[value] = [port.source for port in bundle.ports]
        return Compute(self.known[key], kernel.block, ahead)

    def part_for(self, value: str, index: int) -> float:
        """Return the bytes of gradients that another rank adds up: its part, or all of what is not sharded."""
        program = self.plan.program
        names = self.sources.get(value) or self.sources.get(value.removesuffix(".pieces"), [])
        sizes = (part_size(program, n, index) if n in program.shards else nbytes(self.held[n], {}) for n in names)
        return float(sum(sizes))

    def size(self, value: str, size: int) -> float:
        """Return the bytes of a value that this rank gives away; sums of gradients are as large as one of them."""
        lengths = {**self.lengths, "B": size}
        for suffix in ("", ".pieces"):
            name = value.removesuffix(suffix) if suffix else value
            if name in self.types:
                return float(sum(nbytes(kind, lengths) for kind in self.types[name]))
        variable = self.plan.program.variables.get(value)
        return float(nbytes(variable.type, lengths)) if variable is not None else 0.0
