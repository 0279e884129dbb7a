"""Who computes when? The calls of a few steps on one or more devices, a time unit for each floating-point operation.

A device runs the calls of its blocks in the order of the program, step after step, each as soon as the values that it
reads are there. It knows no transfers and no kernels' overheads: it shows what the links alone let overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lpc.specs.cost import leaves
from lpc.specs.flops import kernel_flops
from lpc.specs.memory.sizes import Lengths
from lpc.specs.plan.flow import made, read
from lpc.specs.plan.instructions import Call, StepVariable
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.plan import Program

STEPS = 4


@dataclass(frozen=True)
class Slot:
    """One call on a device: its kernel and block, the step it belongs to, when it begins and ends."""

    device: int
    step: int
    kernel: str
    block: str
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """Calls in the order of the program. `placement` gives each block's device, `period` the time from step to step.

    `path` is the longest chain of calls of one step that wait for each other, if there were a device for each block.
    """

    placement: Mapping[str, int]
    slots: tuple[Slot, ...]
    period: float
    work: float
    path: float

    @property
    def devices(self) -> int:
        """How many devices have a block."""
        return len(set(self.placement.values()))

    @property
    def speedup(self) -> float:
        """Steps in the time of one step on one device."""
        return self.work / self.period if self.period else 1.0


def timeline(
    program: Program, kernels: Mapping[str, Kernel], lengths: Lengths, devices: int = 1, phase: int = 0
) -> Timeline:
    """Return the timeline of a few steps, blocks placed on devices in order so that the largest load is least.

    Errors: 0562 a length that is not given.
    """
    rows = _rows(program, kernels, lengths, phase)
    loads: dict[str, float] = {}
    for row in rows:
        if row.kernel:
            loads[row.block] = loads.get(row.block, 0.0) + row.time
    placement = dict(zip(loads, placed(list(loads.values()), devices), strict=True))
    slots = tuple(_run(rows, placement, STEPS))
    path = _span(tuple(_run(rows, {block: index for index, block in enumerate(loads)}, 1)))
    return Timeline(placement, slots, _period(slots), sum(loads.values()), path)


def placed(loads: Sequence[float], devices: int) -> list[int]:
    """Return for each load its device: consecutive ones together, so that the largest sum is least."""
    low, high = max(loads, default=0.0), sum(loads)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if _filled(loads, middle)[-1:] < [devices] else (middle, high)
    return _filled(loads, high)


def _filled(loads: Sequence[float], room: float) -> list[int]:
    """Fill one device after the other, each up to `room`."""
    found: list[int] = []
    device, left = 0, room
    for load in loads:
        if load > left * (1 + 1e-9) and found:
            device, left = device + 1, room
        left -= load
        found.append(device)
    return found


@dataclass(frozen=True)
class _Row:
    """One instruction of a step: the values it makes and reads; of a call also its kernel, and how long it takes."""

    made: tuple[str, ...]
    read: tuple[str, ...]
    kernel: str = ""
    block: str = ""
    time: float = 0.0


def _rows(program: Program, kernels: Mapping[str, Kernel], lengths: Lengths, phase: int) -> list[_Row]:
    found, flops = [], dict[tuple[str, int], int]()
    for one, weight, here in leaves(program.steps[phase], lengths):
        if not isinstance(one, Call):
            changed = (one.variable,) if isinstance(one, StepVariable) else made(one)
            found.append(_Row(changed, read(one)))
            continue
        key = (one.kernel, here["B"])
        if key not in flops:
            flops[key] = sum(kernel_flops(kernels[one.kernel], here).values())
        found.append(_Row(one.values, one.arguments, one.kernel, kernels[one.kernel].block, weight * flops[key]))
    return found


@dataclass
class _Clock:
    free: dict[int, float] = field(default_factory=dict)
    ready: dict[tuple[int, str], float] = field(default_factory=dict)


def _run(rows: Sequence[_Row], placement: Mapping[str, int], steps: int) -> list[Slot]:
    clock, slots = _Clock(), list[Slot]()
    for step in range(steps):
        for row in rows:
            start = max([0.0, *(clock.ready.get((step, value), 0.0) for value in row.read)])
            if row.kernel:
                device = placement[row.block]
                start = max(start, clock.free.get(device, 0.0))
                clock.free[device] = start + row.time
                slots.append(Slot(device, step, row.kernel, row.block, start, start + row.time))
            clock.ready.update({(step, value): start + row.time for value in row.made})
    return slots


def _span(slots: Sequence[Slot]) -> float:
    return max((slot.end for slot in slots), default=0.0)


def _period(slots: Sequence[Slot]) -> float:
    """Return the time between the ends of the last two steps."""
    last = max((slot.step for slot in slots), default=0)
    ends = [_span([slot for slot in slots if slot.step == step]) for step in (last - 1, last)]
    return ends[1] - ends[0]
