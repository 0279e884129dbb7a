"""How is a plan executed? A loop over instructions that were bound beforehand; it decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain

import torch

from lpc.runtime.handlers import Operation, Section
from lpc.runtime.relaxing import EVERY, EVERY_WITHOUT_EFFECTS
from lpc.runtime.resources import Frame, Resources
from lpc.runtime.tracing import Tape
from lpc.runtime.workers.shards import BETWEEN_RANKS
from lpc.specs.plan.instructions import Instruction, Load, Record, Repeat, Visit
from lpc.specs.ranks.makers import flat


class Machine(Resources):
    """A program on a device, with its sections ready to run; each is bound when it is first needed."""

    def step(self, phase: int = 0) -> tuple[Operation, ...]:
        """Return the step of a phase, counted from 0."""
        return self._bound(phase, True)

    def gradients(self, phase: int = 0) -> tuple[Operation, ...]:
        """Return the step of a phase without its effects."""
        return self._bound(phase, False)

    def _bound(self, phase: int, effects: bool) -> tuple[Operation, ...]:
        key = phase, effects
        if key not in self._steps:
            binders = (EVERY if effects else EVERY_WITHOUT_EFFECTS) | BETWEEN_RANKS
            binders = self._tape.clocked(binders) if self._tape is not None else binders
            self._steps[key] = Section(self, binders).bind(self.program.steps[phase])
        return self._steps[key]

    @contextmanager
    def traced(self) -> Iterator[Tape]:
        """Record the instructions of the steps that run within."""
        self._tape = Tape()
        self._steps.clear()
        try:
            yield self._tape
        finally:
            self._tape = None
            self._steps.clear()

    _tape: Tape | None = None

    @cached_property
    def _steps(self) -> dict[tuple[int, bool], tuple[Operation, ...]]:
        return {}

    @cached_property
    def evaluate(self) -> tuple[Operation, ...]:
        return Section(self, EVERY | BETWEEN_RANKS).bind(self.program.evaluate)

    @cached_property
    def predict(self) -> tuple[Operation, ...]:
        return Section(self, EVERY | BETWEEN_RANKS).bind(self.program.predict)

    @cached_property
    def recorded(self) -> frozenset[str]:
        """The metrics that the steps record."""
        every = [i for body in self.program.steps for i in flat(body)]
        visits = chain.from_iterable(i.metrics for i in every if isinstance(i, Visit))
        return frozenset((*(i.metric for i in every if isinstance(i, Record)), *visits))

    def run(self, section: tuple[Operation, ...], frame: Frame) -> Frame:
        """Run one section on a frame and return the frame."""
        with torch.inference_mode():
            for operation in section:
                operation(frame)
        return frame


def count_loads(body: Sequence[Instruction]) -> int:
    """Return how many batches one run of a section takes."""
    return sum(
        i.count * count_loads(i.body) if isinstance(i, Repeat) else int(isinstance(i, Load)) for i in body
    )


def loaded_fields(body: Sequence[Instruction]) -> tuple[str, ...]:
    """Return the batch fields that a section loads."""
    names: dict[str, None] = {}
    for instruction in body:
        if isinstance(instruction, Load):
            names.update(dict.fromkeys(instruction.fields))
        names.update(dict.fromkeys(loaded_fields(getattr(instruction, "body", ()))))
    return tuple(names)
