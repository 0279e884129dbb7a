"""Which step is it? Counted from the run's beginning for random numbers, from the phase's for schedules."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """A step of a run: its number, the step at which its phase began, the phase's steps, and those of an epoch."""

    step: int = 0
    start: int = 0
    total: int = 1
    per_epoch: int = 1

    @property
    def time(self) -> int:
        """Steps since the phase began."""
        return self.step - self.start

    def every(self, period: int, first: int = 0) -> bool:
        """Is something due that happens at every `period`-th step from step `first` on?"""
        return self.time >= first and (self.time - first) % period == 0
