"""Where does a step spend its time? Each instruction measured over some steps, beside what the plan predicts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from lpc.plan import Plan
from lpc.runtime.batch import Batch
from lpc.runtime.data import batches
from lpc.runtime.decode import dtype_of
from lpc.runtime.stopwatch import Lap, Stopwatch
from lpc.specs.flops import kernel_flops
from lpc.specs.memory.relaxing import RelaxedWalk
from lpc.specs.memory.sizes import shape_of
from lpc.specs.plan.instructions import Call, Due, Every, Free, Instruction
from lpc.specs.plan.text import line
from lpc.trainer import Trainer

WARM_UP = 3  # steps before those that are measured


@dataclass(frozen=True)
class Measured:
    """One instruction of the step: its text, block, usual seconds, operations, and the bytes held meanwhile."""

    line: str
    block: str
    seconds: float
    flops: int
    held: int


@dataclass(frozen=True)
class Profile:
    """The instructions of a step in order, with figures; `events` are all that was timed, for a trace."""

    name: str
    device: str
    steps: int
    batch: int
    rows: tuple[Measured, ...]
    events: tuple[tuple[str, str, int, float, float], ...]  # name, block, row, start, seconds

    @property
    def seconds(self) -> float:
        """The time of a step, without what is between instructions."""
        return sum(row.seconds for row in self.rows)

    @property
    def largest(self) -> tuple[Measured, ...]:
        """The three instructions that take longest."""
        return tuple(sorted(self.rows, key=lambda row: -row.seconds)[:3])

    @property
    def blocks(self) -> dict[str, float]:
        """Seconds of a step by block; what belongs to no block is under an empty name."""
        found: dict[str, float] = {}
        for row in self.rows:
            found[row.block] = found.get(row.block, 0.0) + row.seconds
        return found

    def trace(self) -> str:
        """Return a Chrome trace (chrome://tracing, Perfetto): a row for each block, times in microseconds."""
        lanes = {block: index for index, block in enumerate(dict.fromkeys(event[1] for event in self.events))}
        named = [
            {"name": "thread_name", "ph": "M", "pid": 0, "tid": lane, "args": {"name": block or "step"}}
            for block, lane in lanes.items()
        ]
        timed = [
            {"name": name, "ph": "X", "pid": 0, "tid": lanes[block], "ts": start * 1e6, "dur": seconds * 1e6,
             "args": {"flops": self.rows[row].flops, "bytes": self.rows[row].held}}
            for name, block, row, start, seconds in self.events
        ]  # fmt: skip
        return json.dumps({"traceEvents": [*named, *timed], "displayTimeUnit": "ms"})


def profile(plan: Plan, steps: int = 20, device: str = "auto", batch: int | None = None) -> Profile:
    """Train for some steps and time each instruction of the first phase's step.

    The plan's own data are used where its spec names any, else random numbers of the right shapes. With `batch` the
    batches are random and of that size. The plan's weights stay as they are. Raises LpcError as `Trainer` does.
    """
    trainer = Trainer(plan, device)
    watch = Stopwatch(trainer.machine, trainer.device)
    trainer.machine = watch  # type: ignore[assignment]
    for count, group in enumerate(islice(groups_of(trainer, plan, batch), WARM_UP + steps)):
        if count == WARM_UP:
            watch.laps.clear()
        if plan.data.program.phases:
            trainer.steps_done = 0  # further phases have steps of their own
        trainer.advance(group)
    size = batch or plan.spec.batch_size
    return _profile(plan, watch.laps, size, str(trainer.device), steps)


def groups_of(trainer: Trainer, plan: Plan, batch: int | None) -> Iterator[Sequence[Batch]]:
    """Yield the batches of one step after the other, without end."""
    found = _of_data(trainer) if batch is None and plan.spec.data is not None else _random(plan, batch)
    while True:
        yield list(islice(found, trainer.per_step))


def _of_data(trainer: Trainer) -> Iterator[Batch]:
    epoch = 0
    while True:
        split, size, seed = trainer.splits.train, trainer.batch_size, trainer.spec.run.seed
        yield from batches(
            split, size, seed=seed, epoch=epoch, shuffle=True, drop_last=True, device=trainer.device
        )
        epoch += 1


def _random(plan: Plan, batch: int | None) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(plan.spec.run.seed)
    lengths = _lengths(plan, batch)
    made: dict[str, Tensor] = {}
    for name, kind in plan.data.program.fields.items():
        dtype, shape = dtype_of(kind.dtype, name), shape_of(kind, lengths)
        zeros = torch.zeros(shape, dtype=dtype)
        made[name] = zeros.normal_(generator=generator) if dtype.is_floating_point else zeros
    if "index" in made:
        made["index"] = torch.arange(lengths["B"])
    while True:
        yield made


def _lengths(plan: Plan, batch: int | None) -> dict[str, int]:
    """Other lengths than the batch's are 16: what a profile without data takes for a length."""
    axes = (axis for kind in plan.data.program.fields.values() for axis in kind.shape if isinstance(axis, str))
    return {**{axis: 16 for axis in axes if axis != "B"}, **plan.lengths(batch)}


def _profile(plan: Plan, laps: Iterable[Lap], batch: int, device: str, steps: int) -> Profile:
    body = plan.data.program.steps[0]
    times: dict[int, list[float]] = {}
    laps = list(laps)
    for lap in laps:
        times.setdefault(lap.index, []).append(lap.seconds)
    lengths = _lengths(plan, batch)
    held = _held(plan, lengths)
    shown = {index: i for i, index in enumerate(index for index, one in enumerate(body) if not isinstance(one, Free))}
    rows = tuple(_row(plan, body[index], times.get(index, [0.0]), held, lengths) for index in shown)
    start = min((lap.start for lap in laps), default=0.0)
    events = tuple(
        (rows[shown[lap.index]].line, rows[shown[lap.index]].block, shown[lap.index], lap.start - start, lap.seconds)
        for lap in laps
        if lap.index in shown
    )
    return Profile(plan.spec.name, device, steps, batch, rows, events)


def _held(plan: Plan, lengths: Mapping[str, int]) -> dict[str, int]:
    walk = RelaxedWalk(plan.data.program, plan.data.kernels["native"], lengths)
    walk.run(plan.data.program.steps[0])
    held: dict[str, int] = {}
    for mark in walk.heap.marks:
        held[mark.line] = max(mark.size, held.get(mark.line, 0))
    return held


def _row(
    plan: Plan, one: Instruction, seconds: Sequence[float], held: Mapping[str, int], lengths: Mapping[str, int]
) -> Measured:
    kernels: Mapping[str, Any] = plan.data.kernels["native"]
    called = kernels[one.kernel] if isinstance(one, Call) else None
    block = called.block if called is not None else str(getattr(one, "block", ""))
    flops = sum(kernel_flops(called, lengths).values()) if called is not None else 0
    usual = fmean if isinstance(one, Every | Due) else median  # what is not due at each step costs its share
    return Measured(line(one), block, usual(seconds), flops, held.get(line(one), 0))
