"""How does memory rise and fall in a step? The most that is held during each instruction, beside what stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lpc.specs.memory.relaxing import walked
from lpc.specs.memory.sizes import Lengths
from lpc.specs.plan.kernel import Kernel
from lpc.specs.plan.plan import Program


@dataclass(frozen=True)
class Moment:
    """One instruction: its block if it has one, its text, the most bytes held meanwhile, how many are gradients."""

    block: str | None
    line: str
    size: int
    gradients: int


def memory_timeline(
    program: Program, kernels: Mapping[str, Kernel], lengths: Lengths, phase: int = 0
) -> tuple[Moment, ...]:
    """Return the instructions of a step in the order in which they run, each turn of a body apart.

    Errors: 0562 where something's size is not known.
    """
    walk = walked(program, kernels, lengths, phase)
    return tuple(Moment(mark.block, mark.line, mark.size, mark.gradients) for mark in walk.heap.marks)
