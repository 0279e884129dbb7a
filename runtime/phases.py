"""Which part of a run is a step in? Phases one after another, or the whole run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Phase, Run


@dataclass(frozen=True)
class Stretch:
    """A phase of a run: its place among them from 0, and its steps, `first` up to `end`, which is None if unknown."""

    index: int
    first: int
    end: int | None

    @property
    def length(self) -> int | None:
        """Number of steps."""
        return None if self.end is None else self.end - self.first


def stretches(run: Run, steps_per_epoch: int | None) -> tuple[Stretch, ...]:
    """Return the phases of a run in order; without phases the run is one.

    Without the steps of an epoch, a run that counts epochs has no known end. Errors: 0651 if it has phases.
    """
    found: list[Stretch] = []
    whole: tuple[Phase | Run, ...] = (run,)
    for index, phase in enumerate(run.phases or whole):
        length = phase.steps
        if length is None and steps_per_epoch is not None:
            length = (phase.epochs or 0) * steps_per_epoch
        first = (found[-1].end or 0) if found else 0
        if length is None and run.phases:
            message = f"phase {index + 1} is as long as some epochs, and without data their length is not known"
            raise LpcError(Diagnostic("0651", message, place="run.phases", help="give the phase `steps`"))
        found.append(Stretch(index, first, None if length is None else first + length))
    return tuple(found)


def stretch_at(found: Sequence[Stretch], step: int) -> Stretch:
    """Return the phase that `step` is in; the last one, where the run is over."""
    return next((one for one in found if one.end is None or step < one.end), found[-1])

