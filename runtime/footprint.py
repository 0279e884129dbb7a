"""How much memory does a step really take? Live bytes of tensors on a CPU, the allocator's own count on CUDA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lpc.runtime.batch import Batch, Gate
from lpc.runtime.engine import Engine
from lpc.runtime.ledger import Ledger
from lpc.runtime.machine import loaded_fields
from lpc.runtime.meter import Reading
from lpc.specs.memory.prediction import predict
from lpc.specs.plan.instructions import Due, Every, Instruction


class Footprint:
    """Runs an engine's steps; measures them until every instruction was due, from the second step on.

    The first step makes the optimizers' state, and the first refresh the offsets.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.period = max(longest_period(step) for step in engine.plan.program.steps)
        self.steps = 0
        self.peak = 0
        self.predicted = 0

    def advance(self, group: Sequence[Batch]) -> list[Reading]:
        """Run one training step, and measure it where that is due."""
        self.steps += 1
        if self.steps <= self.period or self.steps > 2 * self.period:
            return self.engine.advance(group)
        self.predicted = max(self.predicted, self.prediction(group[0]))
        return self.measured(group)

    def prediction(self, batch: Batch) -> int:
        """Return the peak that the plan predicts for batches of this size, in bytes."""
        program, phase = self.engine.plan.program, self.engine.phase.index
        gate = Gate(program.fields, loaded_fields(program.steps[phase]), self.engine.device)
        return predict(program, self.engine.machine.kernels, gate.admit(batch).symbols, phase).total

    def measured(self, group: Sequence[Batch]) -> list[Reading]:
        """Run one step; the peak is the most of all that were measured."""
        device = self.engine.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            readings = self.engine.advance(group)
            self.peak = max(self.peak, torch.cuda.max_memory_allocated(device))
            return readings
        with Ledger([*resident(self.engine), *(value for batch in group for value in batch.values())]) as ledger:
            readings = self.engine.advance(group)
        self.peak = max(self.peak, ledger.peak)
        return readings

    def summary(self) -> dict[str, Any]:
        """Return the measured and the predicted peak of a step in bytes; nothing where the run was too short."""
        return {"memory": {"measured": self.peak, "predicted": self.predicted}} if self.predicted else {}


def resident(engine: Engine) -> Iterator[Tensor]:
    """Yield what stays from step to step: parameters, buffers, optimizer states and offsets."""
    machine = engine.machine
    yield from engine.state.own.values()
    for optimizer in machine.optimizers.values():
        yield from (value for _, _, value in optimizer.state() if isinstance(value, Tensor))
    for solver in machine.variables.values():
        yield from (value for _, value in solver.state() if isinstance(value, Tensor))
    for correction in machine.corrections.values():
        yield from (value for _, value in correction.state())


def longest_period(body: Sequence[Instruction]) -> int:
    """Return after how many steps every instruction was due."""
    inner = ((i, getattr(i, "body", ())) for i in body)
    own = (max(longest_period(found), i.period if isinstance(i, Every | Due) else 1) for i, found in inner)
    return max(own, default=1)
