"""What do `norms` and `scale` do? They clip the whole gradient where each rank has a part of it."""

from __future__ import annotations

from itertools import chain

from lpc.runtime.gradients import Gradients, collect, norms, scaled, total
from lpc.runtime.handlers import Binder, Operation, Section, gathered, replaced
from lpc.runtime.resources import Frame
from lpc.specs.plan.instructions import Norms, Scale


def _bind_norms(section: Section, instruction: Norms) -> Operation:
    found, value = gathered(section, instruction.gradients), instruction.value

    def take(frame: Frame) -> None:
        frame.env[value] = norms(collect(frame.env, found))

    return take


def _bind_scale(section: Section, instruction: Scale) -> Operation:
    def scale(frame: Frame, gradients: Gradients) -> Gradients:
        every = list(chain.from_iterable(frame.env[name] for name in instruction.norms))
        return scaled(gradients, instruction.norm, total(every)) if every else gradients

    return replaced(section, instruction.gradients, scale)


CLIPPING: dict[type, Binder] = {Norms: _bind_norms, Scale: _bind_scale}
