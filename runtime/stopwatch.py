"""How long does each instruction take? A machine whose steps are timed, instruction by instruction."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from lpc.runtime.handlers import Operation
from lpc.runtime.machine import Machine
from lpc.runtime.resources import Frame


@dataclass(frozen=True)
class Lap:
    """One instruction of one step: its place in the step's list, when it began and how long it took, in seconds."""

    index: int
    start: float
    seconds: float


@dataclass
class Stopwatch:
    """Stands for a machine. Its steps wait for the device after every instruction; `laps` says how long each took."""

    machine: Machine
    device: torch.device
    laps: list[Lap] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.machine, name)

    def step(self, phase: int = 0) -> tuple[Operation, ...]:
        """Return the step of a phase, each operation timed. An instruction with a body is timed as a whole."""
        return tuple(self.timed(index, operation) for index, operation in enumerate(self.machine.step(phase)))

    def timed(self, index: int, operation: Operation) -> Operation:
        def run(frame: Frame) -> None:
            start = time.perf_counter()
            operation(frame)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.laps.append(Lap(index, start, time.perf_counter() - start))

        return run
