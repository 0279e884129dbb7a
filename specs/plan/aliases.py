"""Does a value share memory with what changes under it? Views of parameters and buffers that leave a kernel.

A kernel may give away a view of its state, such as a position embedding that the next block reads. Whoever reads it
after the block's update or write gets another value than was meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lpc.specs.diagnostics import Diagnostic
from lpc.specs.memory.layout import layout
from lpc.specs.plan.flow import made, read
from lpc.specs.plan.instructions import Adopt, Call, Free, Instruction, Update, Write
from lpc.specs.plan.kernel import Bundle, Kernel
from lpc.specs.plan.plan import Program
from lpc.specs.plan.text import line

Names = frozenset[str]


def check_aliases(
    place: str, body: Sequence[Instruction], program: Program, kernels: Mapping[str, Kernel]
) -> Iterator[Diagnostic]:
    """Yield every read of a value whose memory has changed since it was made (0571)."""
    yield from _Walk(program, kernels).body(body, place)


@dataclass
class _Walk:
    program: Program
    kernels: Mapping[str, Kernel]
    shared: dict[str, Names] = field(default_factory=dict)  # of each live value: the state it is memory of
    stale: dict[str, str] = field(default_factory=dict)  # value -> what changed it
    changes: dict[str, Names] = field(default_factory=dict)  # the buffers that a bundle writes
    known: dict[str, tuple[frozenset[int], ...]] = field(default_factory=dict)

    def body(self, body: Sequence[Instruction], place: str) -> Iterator[Diagnostic]:
        for index, instruction in enumerate(body):
            inner = getattr(instruction, "body", None)
            if inner is not None:
                yield from self.body(inner, f"{place}[{index}].body")
                continue
            if not isinstance(instruction, Free):
                yield from self.told(instruction, f"{place}[{index}]")
            self.step(instruction)

    def told(self, instruction: Instruction, place: str) -> Iterator[Diagnostic]:
        for value in read(instruction):
            if value in self.stale:
                message = f"`{value}` is memory that {self.stale[value]} has changed before it is read"
                yield Diagnostic("0571", message, place=place, notes=(f"in `{line(instruction)}`",))

    def step(self, instruction: Instruction) -> None:
        for value in made(instruction):
            self.shared.pop(value, None)
            self.stale.pop(value, None)
        if isinstance(instruction, Call) and instruction.kernel in self.kernels:
            self.call(instruction, self.kernels[instruction.kernel])
        elif isinstance(instruction, Update):
            optimizer = self.program.optimizers.get(instruction.block)
            groups = optimizer.groups if optimizer is not None else ()
            self.changed(frozenset(n for g in groups for n in g.parameters), f"`{line(instruction)}`")
        elif isinstance(instruction, Write | Adopt):
            self.changed(self.changes.get(instruction.value, frozenset()), f"`{line(instruction)}`")

    def changed(self, names: Names, what: str) -> None:
        self.stale.update((value, what) for value, shared in self.shared.items() if shared & names)

    def call(self, call: Call, kernel: Kernel) -> None:
        sources = [names for bundle in self.given(call, kernel) for names in bundle]
        if kernel.name not in self.known:
            self.known[kernel.name] = _results(kernel)
        for value, bundle, ports in zip(call.values, kernel.results, self.known[kernel.name], strict=False):
            if bundle.role in ("output", "residuals", "input"):
                self.shared[value] = frozenset().union(*(sources[port] for port in ports if port < len(sources)))
            elif bundle.role == "buffers":
                self.changes[value] = frozenset(port.source for port in bundle.ports)

    def given(self, call: Call, kernel: Kernel) -> Iterator[list[Names]]:
        """Yield for each port of each argument the state that it is memory of."""
        values = iter(call.arguments)
        for bundle in kernel.arguments:
            if bundle.role == "state":
                yield [frozenset({port.source}) for port in bundle.ports]
            elif bundle.role == "seed":
                yield [frozenset() for _ in bundle.ports]
            else:
                yield [self.shared.get(next(values, ""), frozenset())] * len(bundle.ports)


def _results(kernel: Kernel) -> tuple[frozenset[int], ...]:
    """Return for each result the arguments' ports that it is memory of."""
    if kernel.nodes and not any(node.types for node in kernel.nodes):
        return tuple(frozenset() for _ in kernel.results)
    arguments = sum(len(bundle.ports) for bundle in kernel.arguments)
    slots = iter(layout(kernel).results)
    return tuple(_ports(bundle, slots, arguments) for bundle in kernel.results)


def _ports(bundle: Bundle, slots: Iterator[int], arguments: int) -> frozenset[int]:
    return frozenset(slot for slot in (next(slots) for _ in bundle.ports) if slot < arguments)
