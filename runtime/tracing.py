"""When did each rank compute, and when did it wait? The instructions of some steps, as a Chrome trace of all ranks."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from lpc.runtime.handlers import Binder, Operation, Section
from lpc.runtime.resources import Frame
from lpc.runtime.workers.transport import Stamp, Transport
from lpc.specs.files import write_atomically
from lpc.specs.plan.instructions import (
    Call,
    Free,
    Gather,
    Instruction,
    Lend,
    Offer,
    Receive,
    Reduce,
    ReduceScatter,
    Send,
    Update,
)
from lpc.specs.simulation.programs import named

if TYPE_CHECKING:
    from lpc.runtime.engine import Engine

FILE = "trace.json"
FIRST, STEPS = 2, 20  # steps of the process before the first that is traced, and how many are
# What an instruction does; anything else computes.
WAITS: Mapping[type, str] = {
    Receive: "wait", Reduce: "wait", Gather: "wait", ReduceScatter: "wait", Offer: "send", Send: "send", Lend: "send",
}  # fmt: skip
COMPUTES = "compute"


class Span(NamedTuple):
    """One instruction of one step: what it does, whose it is, when it began and for how long, in seconds."""

    name: str
    kind: str
    block: str
    step: int
    start: float
    seconds: float


class Tape:
    """What is recorded of a rank's steps."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def clocked(self, binders: Mapping[type, Binder]) -> dict[type, Binder]:
        """Return binders whose operations record themselves. A body's are recorded one by one."""
        return {kind: binder if kind is Free else self._clocked(binder) for kind, binder in binders.items()}

    def _clocked(self, binder: Binder) -> Binder:
        def bind(section: Section, instruction: Instruction) -> Operation:
            operation = binder(section, instruction)
            if hasattr(instruction, "body"):
                return operation
            name, block = _named(section, instruction)
            return self._timed(operation, name, WAITS.get(type(instruction), COMPUTES), block, section.resources.device)

        return bind

    def _timed(self, operation: Operation, name: str, kind: str, block: str, device: torch.device) -> Operation:
        append, clock = self.spans.append, time.perf_counter

        def timed(frame: Frame) -> None:
            start = clock()
            operation(frame)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            append(Span(name, kind, block, frame.step, start, clock() - start))

        return timed


def _named(section: Section, instruction: Instruction) -> tuple[str, str]:
    """Return what an instruction is called in a trace, and its block."""
    if isinstance(instruction, Call):
        return named(instruction), section.resources.kernel(instruction.kernel).block
    if isinstance(instruction, Update):
        return named(instruction), instruction.block
    name = type(instruction).__name__.lower()
    if isinstance(instruction, Send):
        return f"send {instruction.value} to {instruction.rank}", ""
    if isinstance(instruction, Receive):
        return f"receive {instruction.value} from {instruction.rank}", ""
    return name, str(getattr(instruction, "block", "") or "")


class Tracer:
    """Records some steps of a run, and tells of them at its end."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.stack, self.tape, self.steps = engine, ExitStack(), Tape(), 0

    def turn(self) -> None:
        """Begin or end recording, if the next step is the one to do so."""
        if self.steps == FIRST:
            self.tape = self.stack.enter_context(self.engine.machine.traced())
        if self.steps == FIRST + STEPS:
            self.stack.close()
        self.steps += 1

    def summary(self, folder: Path | None) -> dict[str, Any]:
        """Return how many ranks computed at a time, and which share each waited; rank 0 writes the trace."""
        self.stack.close()
        ranks = gathered(self.tape.spans, self.engine.transport)
        if folder is not None and self.engine.transport.rank == 0:
            write_atomically(folder / FILE, chrome(ranks).encode())
        found = {"overlap": round(overlap(ranks), 4), "waiting": [round(waiting(own), 4) for own in ranks]}
        return {"trace": found}


def gathered(spans: Sequence[Span], transport: Transport) -> list[list[Span]]:
    """Return the spans of all ranks, by rank, on one clock; all ranks call this.

    Processes of one machine share a clock. Others are set to that of rank 0 by when they leave a common act.
    """
    act = Stamp(-1, 0, "trace")
    transport.exchange(None, act)
    now, host = time.perf_counter(), socket.gethostname()
    found = transport.exchange((host, now, [tuple(span) for span in spans]), act)
    home, zero, _ = found[0]
    shifts = [0.0 if host == home else zero - now for host, now, _ in found]
    return [
        [span._replace(start=span.start + shift) for span in map(Span._make, own)]
        for shift, (_, _, own) in zip(shifts, found, strict=True)
    ]


def overlap(ranks: Sequence[Iterable[Span]]) -> float:
    """Return how many ranks compute at a time, on average over the time in which any does; 0 without spans."""
    busy = [(span.start, span.start + span.seconds) for own in ranks for span in own if span.kind == COMPUTES]
    union, end = 0.0, float("-inf")
    for start, stop in sorted(busy):
        union += max(stop - max(start, end), 0.0)
        end = max(end, stop)
    return sum(stop - start for start, stop in busy) / union if union else 0.0


def waiting(own: Sequence[Span]) -> float:
    """Return the share of a rank's time, from its first span to its last, in which it does not compute."""
    if not own:
        return 0.0
    whole = max(span.start + span.seconds for span in own) - own[0].start
    return 1 - sum(span.seconds for span in own if span.kind == COMPUTES) / whole


def chrome(ranks: Sequence[Sequence[Span]]) -> str:
    """Return a Chrome trace (Perfetto), with a process for each rank."""
    origin = min((span.start for own in ranks for span in own), default=0.0)
    events: list[dict[str, Any]] = []
    for rank, own in enumerate(ranks):
        events.append({"name": "process_name", "ph": "M", "pid": rank, "tid": 0, "args": {"name": f"rank {rank}"}})
        events += (_event(span, rank, origin) for span in own)
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})


def _event(span: Span, rank: int, origin: float) -> dict[str, Any]:
    return {
        "name": span.name, "cat": span.kind, "ph": "X", "pid": rank, "tid": 0, "ts": (span.start - origin) * 1e6,
        "dur": span.seconds * 1e6, "args": {"step": span.step, "block": span.block},
    }  # fmt: skip
