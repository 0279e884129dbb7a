"""Which factor has each law of a schedule? Functions of time, which compiler and runtime share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from lpc.specs.signatures.learning import SCHEDULES
from lpc.specs.term import Term


def _half_cosine(share: float) -> float:
    return (1.0 + math.cos(math.pi * share)) / 2.0


# (time since the warm-up, time that the law has, its arguments) -> factor
LAWS: dict[str, Callable[[float, float, Mapping[str, Any]], float]] = {
    "constant": lambda t, end, a: 1.0,
    "linear": lambda t, end, a: 1.0 + (a["floor"] - 1.0) * min(t / end, 1.0),
    "cosine": lambda t, end, a: a["floor"] + (1.0 - a["floor"]) * _half_cosine(min(t / end, 1.0)),
    "step": lambda t, end, a: a["gamma"] ** (t // a["period"]),
    "exponential": lambda t, end, a: a["gamma"] ** t,
}
ENDING = frozenset({"linear", "cosine"})


def inner_factor(law: Term, step: int, steps: int) -> float:
    """Return the factor at an inner step (from 0) of `steps`; a linear law is max(1 - step / steps, floor)."""
    options = SCHEDULES[law.name].bind(law)
    if law.name == "linear":
        return float(max(1.0 - step / steps, options["floor"]))
    return float(LAWS[law.name](step, steps, options))
