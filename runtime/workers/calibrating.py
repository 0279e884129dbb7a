"""What do a plan's kernels take here, and what do processes cost each other? Measured by turns, in some rounds.

In a round one process runs a copy of the whole plan while the others wait, then two run one, and so on, which tells how
much slower cores are that all work. One process sleeps between its steps, which tells how slow it is at first when it
wakes: where the core is one of a virtual machine's, that is milliseconds. And values go from one process to another.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from math import ceil

import torch

from lpc.runtime.batch import Batch
from lpc.runtime.engine import Engine
from lpc.runtime.tracing import COMPUTES
from lpc.runtime.workers.transport import Stamp, Transport
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.manifest import plan_hash
from lpc.specs.simulation.calibration import FORMAT, Calibration, Processes, Waking

EDGES = ((0, 1), (1, 0))  # that are needed between ranks
GAPS = (0.003, 0.01, 0.03)  # seconds of sleep
SIZES = (2**12, 2**20)  # bytes of values
VALUES = 12  # of each size that go there and back in a round
STEP = -2  # of what is sent: none of a run


class Calibrator:
    """Measures on all ranks together, which call the same methods in the same order. `data`: the batches of steps."""

    def __init__(self, engine: Engine, data: Sequence[Sequence[Batch]], transport: Transport) -> None:
        self.engine, self.data, self.transport = engine, data, transport
        self.kernels: dict[str, list[float]] = {}
        self.steps: list[list[float]] = []
        self.gaps: list[list[float]] = []
        self.values: list[list[tuple[float, float]]] = []
        self.sent = 0
        self._advance(2)

    def round(self, steps: int) -> None:
        """Measure once, each thing over some steps."""
        meet, first = self.transport.exchange, self.transport.rank == 0
        if first:
            self._trace(steps)
        meet(None)
        self.steps.append([self._beside(count, steps) for count in range(1, self.transport.size + 1)])
        self.gaps.append([self._woken(gap) for gap in GAPS])
        if self.transport.size > 1:
            self.values.append([self._handed(size) for size in SIZES])

    def found(self) -> Calibration:
        """Return what was found on the first rank: medians over the rounds."""
        kernels = {name: statistics.median(seconds) for name, seconds in self.kernels.items()}
        plan, middle = self.engine.plan, statistics.median
        steps = tuple(map(middle, zip(*self.steps, strict=True)))
        extra = [max(middle(gaps), 0.0) for gaps in zip(*self.gaps, strict=True)]
        waking = tuple(Waking(gap, seconds) for gap, seconds in zip(GAPS, extra, strict=True))
        processes = Processes(steps, waking, *self._of_a_value())
        device, version = str(self.engine.device), str(torch.__version__)
        return Calibration(FORMAT, plan_hash(plan), device, version, self.lengths, kernels, processes)

    def _of_a_value(self) -> tuple[float, float, float]:
        """Return the seconds of work for a value and for each byte of it, and those that it is on its way."""
        if not self.values:
            return 0.0, 0.0, 0.0
        middle = statistics.median
        small, large = (middle(work for work, _ in found) for found in zip(*self.values, strict=True))
        byte = max((large - small) / (SIZES[1] - SIZES[0]), 0.0)
        return max(small - byte * SIZES[0], 0.0), byte, max(middle(found[0][1] for found in self.values), 0.0)

    @property
    def lengths(self) -> dict[str, int]:
        """The lengths of the batches, by symbol."""
        return lengths_of(self.engine.plan.program.fields, self.data[0][0])

    def _advance(self, steps: int) -> float:
        """Return the seconds of a step."""
        start = time.perf_counter()
        for index in range(steps):
            if self.engine.plan.program.phases:
                self.engine.steps_done = 0  # further phases have steps of their own
            self.engine.advance(self.data[index % len(self.data)])
        if self.engine.device.type == "cuda":
            torch.cuda.synchronize(self.engine.device)
        return (time.perf_counter() - start) / steps

    def _trace(self, steps: int) -> None:
        with self.engine.machine.traced() as tape:
            self._advance(steps)
        known = self.engine.plan.kernels["native"].keys()
        for span in tape.spans:
            if span.kind == COMPUTES and (span.name in known or span.name.startswith("update ")):
                self.kernels.setdefault(span.name, []).append(span.seconds)

    def _beside(self, count: int, steps: int) -> float:
        """Return the seconds of a step of the slowest where so many ranks run a copy of the plan."""
        own = 0.0
        if self.transport.rank < count:
            self._advance(1)
        self.transport.exchange(None)
        if self.transport.rank < count:
            own = self._advance(steps)
        return float(max(self.transport.exchange(own)))

    def _woken(self, gap: float) -> float:
        """Return how much longer a step of the first rank takes after a sleep than right after another step.

        The second rank computes all the time, as somebody does while a rank of a pipeline waits: where the whole
        machine was idle, it wakes more slowly. Who has met the others comes from a sleep as well, and steps before.
        """
        self.transport.exchange(None)
        if self.transport.rank == 1:
            self._advance(ceil(gap / self.steps[-1][0]) + 5)
        if self.transport.rank:
            return 0.0
        self._advance(1)
        time.sleep(gap)
        slow = self._advance(1)
        return slow - self._advance(1)

    def _handed(self, size: int) -> tuple[float, float]:
        """Return the seconds of work that a value costs each end, and those that it is on its way besides."""
        meet, began = self.transport.exchange, time.process_time()
        times = [self._there_and_back(size) for _ in range(VALUES)]
        work = statistics.fmean(meet((time.process_time() - began) / VALUES)[:2]) / 2  # it gives and takes one
        way = meet(statistics.median(times))[0] / 2
        return work, way - 2 * work

    def _there_and_back(self, size: int) -> float:
        """Send a value from rank 0 to 1 and back; return how long it took there."""
        start, rank = time.perf_counter(), self.transport.rank
        stamp, value = Stamp(STEP, self.sent, "there and back"), torch.zeros(size // 4, device=self.engine.device)
        self.sent += 1
        if rank < 2:
            if rank == 1:
                self.transport.receive(0, stamp)
            self.transport.send(1 - rank, stamp, [value])
            if rank == 0:
                self.transport.receive(1, stamp)
        return time.perf_counter() - start


def lengths_of(fields: Mapping[str, TensorType], batch: Batch) -> dict[str, int]:
    """Return the lengths that a batch gives to the symbols of its fields' shapes."""
    shapes = ((fields[name].shape, batch[name].shape) for name in fields.keys() & batch.keys())
    axes = (axis for symbols, lengths in shapes for axis in zip(symbols, lengths, strict=True))
    return {symbol: length for symbol, length in axes if isinstance(symbol, str) and symbol.isidentifier()}
