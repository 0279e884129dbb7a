"""When is something due? `every(n)` steps, `every(epoch)` or never."""

from __future__ import annotations

from collections.abc import Callable

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.term import Term

Due = Callable[[int], bool]


def due(term: Term | None, steps_per_epoch: int, place: str) -> Due:
    """Return the function that tells whether something is due after a number of steps."""
    if term is None or term.name == "none":
        return lambda step: False
    words = {"epoch": steps_per_epoch, "step": 1}
    given = next(iter((*term.args, *term.kwargs.values())), None)
    period = given if isinstance(given, int) else words.get(str(given), 0)
    if term.name != "every" or period < 1:
        raise LpcError(Diagnostic("0668", f"`{term}` is no period", place=place))
    return lambda step: step % period == 0
