"""What does a training step cost? Floating-point operations of each kernel, and the bytes that cross boundaries.

A mean over steps: a body of `every n` counts an n-th, one of `repeat n` n times, a `part` with its share of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from lpc.specs.flops import kernel_flops
from lpc.specs.memory.sizes import Lengths, nbytes
from lpc.specs.plan.instructions import Call, Due, Every, Instruction, Only, Part, Repeat
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.plan import Program

SENT = ("output", "cotangent")  # the results that other blocks read


@dataclass(frozen=True)
class KernelCost:
    """One kernel in a step: how often it is called, its operations, and the bytes that it gives other blocks."""

    kernel: str
    block: str
    calls: float
    flops: int
    traffic: int


@dataclass(frozen=True)
class Cost:
    """The operations and bytes of a training step, kernel by kernel in the order of their first calls.

    `phase` counts the run's phases from 0: it is the costliest where none was asked for.
    """

    lengths: Lengths
    phase: int
    kernels: tuple[KernelCost, ...]

    @property
    def flops(self) -> int:
        """Operations of a step."""
        return sum(kernel.flops for kernel in self.kernels)

    @property
    def traffic(self) -> int:
        """Bytes of a step that cross boundaries."""
        return sum(kernel.traffic for kernel in self.kernels)

    @property
    def blocks(self) -> dict[str, int]:
        """Operations by block."""
        found: dict[str, int] = {}
        for kernel in self.kernels:
            found[kernel.block] = found.get(kernel.block, 0) + kernel.flops
        return found


def cost(program: Program, kernels: Mapping[str, Kernel], lengths: Lengths, phase: int | None = None) -> Cost:
    """Return the cost of a training step; `lengths` gives the batch size `B` and every other symbolic length.

    Errors: 0562 a length that is not given.
    """
    phases = range(len(program.steps)) if phase is None else (phase,)
    return max((_cost(program, kernels, lengths, index) for index in phases), key=lambda found: found.flops)


def calls(
    body: tuple[Instruction, ...], lengths: Lengths, weight: float = 1.0
) -> Iterator[tuple[Call, float, Lengths]]:
    """Yield a body's calls, each with how often it runs in a step, and with the lengths it sees."""
    for instruction, times, here in leaves(body, lengths, weight):
        if isinstance(instruction, Call):
            yield instruction, times, here


def leaves(
    body: tuple[Instruction, ...], lengths: Lengths, weight: float = 1.0
) -> Iterator[tuple[Instruction, float, Lengths]]:
    """Yield a body's instructions that have no body, as `calls` does."""
    for instruction in body:
        inner = getattr(instruction, "body", None)
        if inner is None:
            yield instruction, weight, lengths
        elif isinstance(instruction, Part):
            own = next((one.piece for one in inner if isinstance(one, Only)), None)
            for index, piece in enumerate(pieces(instruction, lengths["B"])):
                if own not in (None, index):
                    continue
                yield from leaves(inner, {**lengths, "B": piece}, weight)
        else:
            yield from leaves(inner, lengths, weight * _times(instruction))


def pieces(part: Part, size: int) -> list[int]:
    """Return how many samples each piece of a part has, of a batch of `size`; an empty one is left out."""
    count = min(max(round(part.share * size) if part.share <= 1 else int(part.share), 1), size)
    bounds = [count * index // part.pieces for index in range(part.pieces + 1)]
    return [last - first for first, last in pairwise(bounds) if last > first]


def _times(instruction: Instruction) -> float:
    """How often a body runs in a step, in the long run; what is due at a sample's first visit alone is no more then."""
    if isinstance(instruction, Repeat):
        return instruction.count
    if isinstance(instruction, Due):
        return 1 / instruction.period if instruction.period else 0.0
    return 1 / instruction.period if isinstance(instruction, Every) else 1.0


@dataclass
class _Sum:
    calls: float = 0.0
    flops: float = 0.0
    traffic: float = 0.0


@dataclass
class _Counter:
    """Counts each kernel once for each batch size."""

    kernels: Mapping[str, Kernel]
    known: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)

    def of(self, name: str, lengths: Lengths) -> tuple[int, int]:
        key = (name, lengths["B"])
        if key not in self.known:
            kernel = self.kernels[name]
            sent = (port for bundle in kernel.results if bundle.role in SENT for port in bundle.ports)
            traffic = sum(nbytes(port.type, lengths) for port in sent)
            self.known[key] = sum(kernel_flops(kernel, lengths).values()), traffic
        return self.known[key]


def _cost(program: Program, kernels: Mapping[str, Kernel], lengths: Lengths, phase: int) -> Cost:
    counter, sums = _Counter(kernels), dict[str, _Sum]()
    for call, weight, here in calls(program.steps[phase], lengths):
        flops, traffic = counter.of(call.kernel, here)
        one = sums.setdefault(call.kernel, _Sum())
        one.calls += weight
        one.flops += weight * flops
        one.traffic += weight * traffic
    rows = (
        KernelCost(name, kernels[name].block, one.calls, round(one.flops), round(one.traffic))
        for name, one in sums.items()
    )
    return Cost(dict(lengths), phase, tuple(rows))
