"""By which factor is a learning rate scaled at a step? A warm-up from 0, then a law over the time that is left."""

from __future__ import annotations

import math
from collections.abc import Callable

from lpc.ejecting.parts.clock import Clock

Law = Callable[[float, float], float]
"""From the time since the warm-up, and the time that the law has, to the factor."""


def constant() -> Law:
    """The factor is 1."""
    return lambda time, end: 1.0


def linear(floor: float) -> Law:
    """From 1 to `floor` at the end."""
    return lambda time, end: 1.0 + (floor - 1.0) * min(time / end, 1.0)


def cosine(floor: float) -> Law:
    """Half a wave of a cosine from 1 to `floor`."""
    return lambda time, end: floor + (1.0 - floor) * ((1.0 + math.cos(math.pi * min(time / end, 1.0))) / 2.0)


def step(period: int, gamma: float) -> Law:
    """Times `gamma` after every `period`."""
    return lambda time, end: float(gamma ** (time // period))


def exponential(gamma: float) -> Law:
    """Times `gamma` at every step."""
    return lambda time, end: float(gamma**time)


def falling(floor: float) -> Law:
    """Over the steps on one batch: from 1 towards 0, not below `floor`."""
    return lambda time, end: float(max(1.0 - time / end, floor))


def schedule(law: Law, warmup: int = 0, by_epoch: bool = False) -> Callable[[Clock], float]:
    """Return the factor as a function of the step; time counts in steps or in whole epochs."""

    def factor(clock: Clock) -> float:
        per = clock.per_epoch if by_epoch else 1
        time = clock.time // per
        if time < warmup:
            return time / warmup
        return float(law(time - warmup, max(-(-clock.total // per) - warmup, 1)))

    return factor


def growing(clock: Clock, start: float, add: float, factor: float, until: float | None, by_epoch: bool) -> float:
    """Return w after a turn for every step or epoch: w <- (w + add) * factor while w < until."""
    value = start
    for _ in range(clock.time // clock.per_epoch if by_epoch else clock.time):
        if until is not None and value >= until:
            break
        value = (value + add) * factor
    return value
