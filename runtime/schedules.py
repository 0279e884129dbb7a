"""By which factor is a learning rate scaled at a step? Warm-up, then a law that ends with the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.plan.laws import ENDING, LAWS
from lpc.specs.signatures.learning import SCHEDULES
from lpc.specs.term import Term
from lpc.specs.term_text import parse_term


def lr_factor(
    schedule: Mapping[str, Any], step: int, total_steps: int | None = None, steps_per_epoch: int | None = None
) -> float:
    """Return the factor on the learning rate at `step` (from 0).

    `schedule` is a dumped `Schedule`: time counts in steps or in whole epochs (`unit`). The factor is
    t / warmup while t < warmup, so 0 at first; the law then runs over the remaining time and would reach its
    floor at the end. Errors: 0650 an unknown law, 0651 the length of the run or of an epoch is not known.
    """
    warmup, term = int(schedule.get("warmup", 0)), law_of(schedule)
    per = needed(steps_per_epoch, "an epoch", "unit: epoch") if schedule.get("unit") == "epoch" else 1
    time = step // per
    if time < warmup:
        return time / warmup
    total = needed(total_steps, "the run", str(term)) if term.name in ENDING else 0
    end = max(-(-total // per) - warmup, 1)
    return float(LAWS[term.name](time - warmup, end, SCHEDULES[term.name].bind(term)))


def law_of(schedule: Mapping[str, Any]) -> Term:
    """Return the term of the law after the warm-up."""
    given = schedule.get("then", "constant")
    term = given if isinstance(given, Term) else parse_term(str(given))
    if term.name in LAWS and _is_sound(term):
        return term
    near = did_you_mean(term.name, LAWS)
    message = f"`{term}` is no schedule law"
    raise LpcError(Diagnostic("0650", message, place="schedule", notes=(near,) if near else ()))


def inner_law(schedule: Mapping[str, Any]) -> Term:
    """Return the law over the inner steps on one batch. Errors: 0650 an unknown law."""
    return law_of({"then": schedule.get("inner", "constant")})


def is_constant(schedule: Mapping[str, Any]) -> bool:
    """Tell whether the factor is 1 at every step."""
    return not schedule.get("warmup") and law_of(schedule).name == "constant"


def needs_lengths(schedule: Mapping[str, Any]) -> bool:
    """Tell whether the factor depends on the length of the run or of an epoch."""
    return not is_constant(schedule) and (law_of(schedule).name in ENDING or schedule.get("unit") == "epoch")


def _is_sound(term: Term) -> bool:
    return term.name != "step" or SCHEDULES["step"].bind(term)["period"] > 0


def needed(value: int | None, what: str, where: str) -> int:
    """Return a length that a law counts in. Errors: 0651 where it is not known."""
    if value is not None and value > 0:
        return value
    message = f"the schedule `{where}` needs the number of steps of {what}, which is not known here"
    raise LpcError(Diagnostic("0651", message, place="schedule"))
