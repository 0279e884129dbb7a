"""What would a plan need, on how many devices, if it were built? Known without weights, and without their memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lpc.compiler.estimate import Outline, outline
from lpc.reading import Overrides, Source, check
from lpc.runtime.data import describe, ensure_classes
from lpc.specs.cost import Cost, cost
from lpc.specs.memory.prediction import Memory, predict
from lpc.specs.timeline import timeline


@dataclass(frozen=True)
class Device:
    """What a device holds: its blocks, the bytes that stay there, and the most that one block needs beside them."""

    blocks: tuple[str, ...]
    resident: int
    peak: int

    @property
    def total(self) -> int:
        """Bytes at the device's peak."""
        return self.resident + self.peak


@dataclass(frozen=True)
class Estimate:
    """The memory and the operations of a step, and what each device would hold with the blocks placed in order.

    Devices are estimated as if each computed alone: what waits between them for its reader is not counted.
    """

    name: str
    memory: Memory
    cost: Cost
    devices: tuple[Device, ...]
    partition: Mapping[str, Any]
    report: Mapping[str, Any]


def estimate(
    source: Source,
    overrides: Overrides = (),
    *,
    allow: Sequence[str] = (),
    batch: int | None = None,
    lengths: Mapping[str, int] | None = None,
    devices: int = 1,
) -> Estimate:
    """Estimate the plan of a spec, as `build` takes it, without allocating weights.

    `batch` and `lengths` are as in `Plan.memory`. Raises LpcError as `build` does, and 0562 where a size is not known.
    """
    spec = check(source, overrides)
    fields = describe(spec.data, spec.origin) if spec.data is not None else {}
    ensure_classes(spec, fields)
    found = outline(spec, allow=allow, fields=fields)
    known = {**(lengths or {}), "B": spec.batch_size if batch is None else batch}
    memory, spent = predict(found.program, found.kernels, known), cost(found.program, found.kernels, known)
    placed = _devices(found, memory, known, devices)
    return Estimate(spec.name, memory, spent, placed, found.partition, found.report)


def _devices(found: Outline, memory: Memory, lengths: Mapping[str, int], devices: int) -> tuple[Device, ...]:
    placement = timeline(found.program, found.kernels, lengths, devices, memory.phase).placement
    held: dict[int, list[str]] = {}
    for row in memory.blocks:
        held.setdefault(placement.get(row.block, 0), []).append(row.block)
    return tuple(_device(tuple(blocks), memory) for _, blocks in sorted(held.items()))


def _device(blocks: tuple[str, ...], memory: Memory) -> Device:
    rows = [row for row in memory.blocks if row.block in blocks]
    resident = memory.batch + sum(row.parameters + row.optimizer + row.offsets for row in rows)
    return Device(blocks, resident, max((row.peak for row in rows), default=0))
