"""What is alive while a section runs? Its instructions are gone through in order, on storages in place of tensors.

Each handler says which memory its instruction makes, keeps and gives back, as the runtime executes it. A body of
`every` runs each time: the peak is that of a step in which everything is due. What outlives the step is resident
and not counted here: state, optimizer state, offsets, the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lpc.specs.cost import pieces
from lpc.specs.memory.heap import GRADIENTS, TEMPORARY, Heap, Storage
from lpc.specs.memory.layout import Layout, layout
from lpc.specs.memory.optimizers import made as made_by
from lpc.specs.memory.sizes import WIDTHS, Lengths, nbytes, wide
from lpc.specs.plan.flow import made, used_last
from lpc.specs.plan.instructions import (
    Accumulate,
    Adopt,
    Call,
    Clip,
    Correct,
    Every,
    Free,
    Gather,
    Instruction,
    Lag,
    Later,
    Lend,
    Load,
    Norms,
    Offer,
    Offset,
    Only,
    Part,
    Random,
    Receive,
    Record,
    Reduce,
    ReduceScatter,
    Repeat,
    Return,
    Scale,
    Send,
    Shift,
    Update,
    Write,
)
from lpc.specs.plan.kernel import Kernel, TensorType
from lpc.specs.plan.optimizers import is_class
from lpc.specs.plan.plan import Correction, Program
from lpc.specs.plan.shards import held as held_types
from lpc.specs.plan.shards import part_size, sharded
from lpc.specs.plan.text import line

Handler = Callable[[Any, Any], None]


@dataclass(frozen=True)
class Held:
    """One tensor of a value: its memory (None for what is resident), its bytes, its outside name."""

    storage: Storage | None
    size: int
    source: str


@dataclass
class Walk:
    """Goes through a section; `heap` then knows the peak and what was alive."""

    program: Program
    kernels: Mapping[str, Kernel]
    lengths: Lengths
    heap: Heap = field(default_factory=Heap)
    env: dict[str, list[Held]] = field(default_factory=dict)
    layouts: dict[str, Layout] = field(default_factory=dict)
    piece: int | None = None  # samples of the current piece of a `part`
    taken: frozenset[str] = frozenset()
    recorded: int = 0  # bytes of metrics
    lagging: int = 0  # bytes of steps that have begun and are not over
    ahead: Sequence[Instruction] = ()  # what comes after the current instruction of the body

    def run(self, body: Sequence[Instruction], rest: Sequence[Instruction] = ()) -> None:
        """Go through a body; `rest` is what follows it in the same body, later."""
        body, count = [*body, *rest], len(body)
        for index, instruction in enumerate(body[:count]):
            self.taken = used_last(body, index) if isinstance(instruction, Call) else frozenset()
            self.ahead = body[index + 1 :]
            self.heap.enter(self.block_of(instruction), line(instruction))
            self.handler(type(instruction))(self, instruction)

    def handler(self, kind: type[Any]) -> Handler:
        """Return what a kind of instruction does to the walk."""
        return HANDLERS[kind]

    def block_of(self, instruction: Instruction) -> str | None:
        if isinstance(instruction, Call):
            return self.kernels[instruction.kernel].block
        return getattr(instruction, "block", None)

    def load(self, load: Load) -> None:
        for value, name in zip(load.values, load.fields, strict=True):
            self.env[value] = [Held(None, nbytes(self.program.fields[name], self.lengths), name)]

    def random(self, random: Random) -> None:
        """The whole batch's noise; a piece keeps rows of it, which are a copy where the batch is not its first axis."""
        kind = self.program.noise[random.site].type
        whole = self.heap.make(nbytes(kind, self.lengths), random.value, "random")
        if self.piece is None or not _is_batched(kind) or _is_batched(TensorType(kind.dtype, kind.shape[:1])):
            self.env[random.value] = [Held(whole, whole.size, random.site)]
            return
        rows = self.heap.make(nbytes(kind, self.here), random.value, "random")
        self.heap.drop(whole)
        self.env[random.value] = [Held(rows, rows.size, random.site)]

    @property
    def here(self) -> Lengths:
        """The lengths that a kernel sees: of the batch, or of a piece of it."""
        return self.lengths if self.piece is None else {**self.lengths, "B": self.piece}

    def call(self, call: Call) -> None:
        kernel = self.kernels[call.kernel]
        if call.kernel not in self.layouts:
            self.layouts[call.kernel] = layout(kernel)
        found, heap = self.layouts[call.kernel], self.heap
        storages: dict[int, Storage | None] = dict(enumerate(self.given(kernel, call.arguments)))
        heap.drop_all(storages[slot] for slot in found.unread)
        for event in found.events:
            heap.node = event.node
            for slot, kind in event.made:
                storages[slot] = heap.make(nbytes(kind, self.here), *found.labels[slot])
            heap.drop_all(storages[slot] for slot in event.dropped)
        self.returned(call, kernel, [storages[slot] for slot in found.results])
        heap.drop_all(storages[slot] for slot in dict.fromkeys(found.results))

    def given(self, kernel: Kernel, arguments: Sequence[str]) -> list[Storage | None]:
        """Return the memory of a kernel's arguments, each held once for the kernel; what it takes over is its own."""
        values = list(arguments)
        storages: list[Storage | None] = []
        for bundle in kernel.arguments:
            if bundle.role in ("state", "seed"):
                storages += [None] * len(bundle.ports)
                continue
            name = values.pop(0)
            own = [held.storage for held in self.env[name]]
            for storage in own:
                self.heap.hold(storage)
            storages += own
            if name in self.taken and name not in values:
                self.forget(name)
        return storages

    def returned(self, call: Call, kernel: Kernel, storages: Iterable[Storage | None]) -> None:
        found = iter(storages)
        for value, bundle in zip(call.values, kernel.results, strict=True):
            self.env[value] = [Held(next(found), nbytes(p.type, self.here), p.source) for p in bundle.ports]
            for held in self.env[value]:
                self.heap.hold(held.storage)

    def forget(self, value: str) -> None:
        self.heap.drop_all(held.storage for held in self.env.pop(value, ()))

    def accumulate(self, accumulate: Accumulate) -> None:
        if accumulate.target not in self.env:
            self.env[accumulate.target] = [self.gradient(h.size, h.source) for h in self.env[accumulate.value]]

    def gradient(self, size: int, name: str) -> Held:
        return Held(self.heap.make(size, name, GRADIENTS), size, name)

    def collected(
        self, values: Iterable[str], names: Sequence[str] | None = None
    ) -> tuple[dict[str, int], list[Storage]]:
        """Return the bytes of each gradient by name, and the sums of those that are spread over several values.

        Given `names`, of these alone, one after another.
        """
        sizes: dict[str, int] = {}
        sums: dict[str, Storage] = {}
        every = [held for value in dict.fromkeys(values) for held in self.env[value]]
        if names is not None:
            rank = {name: index for index, name in enumerate(names)}
            every = sorted((held for held in every if held.source in rank), key=lambda held: rank[held.source])
        for held in every:
            if held.source in sizes:
                before = sums.get(held.source)
                sums[held.source] = self.heap.make(held.size, held.source, GRADIENTS)
                self.heap.drop(before)
            sizes[held.source] = held.size
        return sizes, list(sums.values())

    def replaced(self, values: Sequence[str], made: Mapping[str, int]) -> None:
        """New gradients take the place of the old ones, each in the first value that had it."""
        fresh = {name: self.gradient(size, name) for name, size in made.items()}
        for value in values:
            old = self.env[value]
            self.env[value] = [fresh.pop(h.source) if h.source in fresh else h for h in old if h.source in made]
            self.heap.drop_all(held.storage for held in old)

    def clip(self, clip: Clip | Scale) -> None:
        sizes, sums = self.collected(clip.gradients)
        sums.append(self.clip_factor(sizes))
        self.replaced(clip.gradients, sizes)
        self.heap.drop_all(sums)

    def norms(self, norms: Norms) -> None:
        sizes, sums = self.collected(norms.gradients)
        widths = {name: WIDTHS[self.types[name].dtype] for name in sizes}
        self.env[norms.value] = [Held(self.heap.make(w, "norm", TEMPORARY), w, name) for name, w in widths.items()]
        self.heap.drop_all(sums)

    def clip_factor(self, names: Iterable[str]) -> Storage:
        """The number by which gradients of these names are scaled."""
        dtypes = {self.types[name].dtype for name in names}
        return self.heap.make(max((WIDTHS[dtype] for dtype in dtypes), default=0), "factor of clip", TEMPORARY)

    def update(self, update: Update) -> None:
        optimizer = self.program.optimizers[update.block]
        own = [name for group in optimizer.groups for name in group.parameters]
        _, sums = self.collected(update.gradients, own)
        held = [h for value in update.gradients for h in self.env[value] if h.source in own]
        clipped = optimizer.clip is not None and optimizer.clip != float("inf")
        sums += [self.clip_factor(h.source for h in held)] if clipped else []
        for _ in range(clipped + is_class(optimizer.name)):  # a class of a package gets gradients of its own
            sums += [self.heap.make(h.size, h.source, GRADIENTS) for h in held]
        self.heap.pulse(made_by(optimizer, self.types), f"step of {optimizer.name}")
        self.heap.drop_all(sums)

    @cached_property
    def types(self) -> dict[str, TensorType]:
        return held_types(self.program)

    def free(self, free: Free) -> None:
        for value in free.values:
            self.forget(value)

    def record(self, record: Record) -> None:
        """Kept until the step is over."""
        held = self.env[record.value][0]
        self.heap.hold(held.storage)
        self.recorded += held.size

    def give(self, give: Return) -> None:
        self.heap.hold(self.env[give.value][0].storage)

    def repeat(self, repeat: Repeat) -> None:
        """Every turn but the first is like the second, apart from the metrics that those between have left."""
        before = self.recorded
        self.run(repeat.body)
        if repeat.count > 1:
            self.heap.make((repeat.count - 2) * (self.recorded - before), "metrics", "metric")
            self.run(repeat.body)

    def every(self, every: Every) -> None:
        self.run(every.body)

    def part(self, part: Part) -> None:
        around, size = self.piece, self.lengths["B"] if self.piece is None else self.piece
        cut = next((i for i, one in enumerate(part.body) if isinstance(one, Later)), len(part.body))
        turns = sum(one.turns for one in part.body if isinstance(one, Later))
        own = next((one.piece for one in part.body if isinstance(one, Only)), None)
        found = [piece for index, piece in enumerate(pieces(part, size)) if own in (None, index)]
        outer, waiting = self.env, dict[int, dict[str, list[Held]]]()
        for turn in range(len(found) + turns):
            if turn < len(found):
                self.piece, self.env = found[turn], dict(outer) if turns else outer
                self.cut_out(part, size)
                self.run(part.body[:cut], part.body[cut:])
                waiting[turn] = self.shared(part, outer)
            if turn >= turns and cut < len(part.body):
                self.piece, self.env = found[turn - turns], waiting.pop(turn - turns)
                self.env.update((name, outer[name]) for name in made(part) if name in outer)
                self.run(part.body[cut:])
                self.shared(part, outer)
        self.piece, self.env = around, outer

    def cut_out(self, part: Part, size: int) -> None:
        assert self.piece is not None
        for value, source in zip(part.values, part.sources, strict=True):
            held = self.env[source][0]
            self.heap.hold(held.storage)
            self.env[value] = [Held(held.storage, held.size * self.piece // size, held.source)]

    def shared(self, part: Part, outer: dict[str, list[Held]]) -> dict[str, list[Held]]:
        """Give the sums of a piece to all of them, and return the piece's values."""
        outer.update((name, self.env[name]) for name in made(part) if name in self.env)
        return self.env

    def reduce(self, reduce: Reduce) -> None:
        """The others' bundles are there together, beside the sum."""
        own = self.env[reduce.value]
        given = [self.heap.make(h.size, h.source, GRADIENTS) for h in own for _ in reduce.ranks[1:]]
        self.env[reduce.target] = [self.gradient(h.size, h.source) for h in own]
        self.heap.drop_all(given)

    def gather(self, gather: Gather) -> None:
        """Whole parameters, into which the others' parts are copied one by one as they come."""
        entries = sharded(self.program, gather.block)
        sizes = {entry.name: nbytes(entry.type, {}) for entry in entries}
        self.env[gather.value] = [Held(self.heap.make(size, n, "gathered"), size, n) for n, size in sizes.items()]
        own = {self.program.shards[name].index for name in sizes}
        others = [index for index in range(len(gather.ranks)) if index not in own]
        parts = (sum(part_size(self.program, name, index) for name in sizes) for index in others)
        self.heap.pulse(max(parts, default=0), "received part")

    def reduce_scatter(self, reduce: ReduceScatter) -> None:
        """The others' parts come one by one, beside the sum; this rank's is a view of its bundle."""
        own = [(h.source, nbytes(self.types[h.source], {})) for h in self.env[reduce.value]]
        given = [self.heap.make(size, name, GRADIENTS) for name, size in own]
        self.env[reduce.target] = [self.gradient(size, name) for name, size in own]
        self.heap.drop_all(given)

    def offset(self, offset: Offset) -> None:
        """The new offset is made beside the old one, which is resident; gradients are scaled one at a time."""
        correction = self.program.corrections[offset.block]
        (exact, sums), (local, more) = self.collected(offset.exact), self.collected(offset.local)
        new = []
        for name in correction.parameters:
            if name in exact or name in local:
                size = wide(self.types[name])
                scaled = self.heap.make(size if name in local else 0, name, "offset")
                new.append(self.heap.make(size, name, "offset"))
                self.heap.drop(scaled)
        self.heap.drop_all([*new, *sums, *more])

    def correct(self, correct: Correct) -> None:
        correction = self.program.corrections[correct.block]
        found, sums = self.collected(correct.gradients)
        sizes = {name: size for name, size in found.items() if name in correction.parameters}
        if not _is_one(correction.alpha):
            sums += [self.heap.make(size, name, GRADIENTS) for name, size in sizes.items()]
        if correction.where == "gradient" or not _is_one(correction.alpha):
            self.corrected(correct, correction, sizes)
        self.heap.drop_all(sums)

    def corrected(self, correct: Correct, correction: Correction, sizes: Mapping[str, int]) -> None:
        largest = max((wide(self.types[name]) for name in sizes), default=0)
        fresh = [self.gradient(size, name) for name, size in sizes.items()]
        if correction.where == "gradient":
            self.heap.pulse(largest, "offset", "offset")
        self.heap.drop_all(held.storage for held in fresh)
        self.place(correct.gradients, sizes)

    def place(self, values: Sequence[str], sizes: Mapping[str, int]) -> None:
        """Gradients of some names are replaced by ones of their own."""
        left = dict(sizes)
        for value in values:
            for index, held in enumerate(self.env[value]):
                if held.source in sizes:
                    self.heap.drop(held.storage)
                    size = left.pop(held.source, 0)
                    self.env[value][index] = self.gradient(size, held.source)

    def shift(self, shift: Shift) -> None:
        names = self.program.corrections[shift.block].parameters
        self.heap.pulse(max((wide(self.types[name]) for name in names), default=0), "shift")

    def write(self, write: Write | Adopt) -> None:
        """Copied in place."""

    def lag(self, lag: Lag) -> None:
        """What is held here is there once more for each step that has begun: it is made at the walk's beginning."""
        alive = {held.storage: held.storage.size for value in self.env.values() for held in value if held.storage}
        self.lagging = lag.steps * sum(alive.values())

    def offer(self, offer: Offer | Lend) -> None:
        """As `send`."""

    def mark(self, mark: Later | Only) -> None:
        """Of the part around, which goes through its pieces accordingly."""

    def send(self, send: Send) -> None:
        """Kept until it has arrived, which may be later: what is on the way is not counted."""

    def receive(self, receive: Receive) -> None:
        """Whoever reads it tells its type; a value that is only given to the caller is not counted."""
        self.forget(receive.value)
        types = expected(self.ahead, self.kernels, receive.value)
        made = [self.heap.make(nbytes(kind, self.here), receive.value, "received") for kind in types]
        held = [Held(storage, storage.size, receive.value) for storage in made]
        self.env[receive.value] = held or [Held(None, 0, receive.value)]


def expected(body: Sequence[Instruction], kernels: Mapping[str, Kernel], value: str) -> list[TensorType]:
    """Return the types of a value's tensors as the first call in a body takes it that reads it."""
    for instruction in body:
        if isinstance(instruction, Call) and value in instruction.arguments:
            listed = [b for b in kernels[instruction.kernel].arguments if b.role not in ("state", "seed")]
            return [port.type for port in listed[instruction.arguments.index(value)].ports]
        found = expected(getattr(instruction, "body", ()), kernels, value)
        if found:
            return found
    return []


def _is_batched(kind: TensorType) -> bool:
    return any(isinstance(axis, str) and "B" in axis for axis in kind.shape)


def _is_one(factor: float | str) -> bool:
    return factor == 1.0


HANDLERS: dict[type[Any], Handler] = {
    Load: Walk.load,
    Random: Walk.random,
    Call: Walk.call,
    Accumulate: Walk.accumulate,
    Update: Walk.update,
    Clip: Walk.clip,
    Norms: Walk.norms,
    Scale: Walk.clip,
    Write: Walk.write,
    Free: Walk.free,
    Record: Walk.record,
    Return: Walk.give,
    Repeat: Walk.repeat,
    Every: Walk.every,
    Part: Walk.part,
    Lag: Walk.lag,
    Lend: Walk.offer,
    Gather: Walk.gather,
    ReduceScatter: Walk.reduce_scatter,
    Offer: Walk.offer,
    Later: Walk.mark,
    Only: Walk.mark,
    Adopt: Walk.write,
    Reduce: Walk.reduce,
    Offset: Walk.offset,
    Correct: Walk.correct,
    Shift: Walk.shift,
    Send: Walk.send,
    Receive: Walk.receive,
}
