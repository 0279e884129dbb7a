"""Which validation is the best, and when has waiting for a better one been long enough?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lpc.runtime.checkpoint import Progress
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.signatures.data import STOPS
from lpc.specs.source import Span
from lpc.specs.term import Term

HIGHER_IS_BETTER = frozenset({"accuracy", "top5"})


@dataclass(frozen=True)
class Criterion:
    """A metric to compare validations by; `patience` None never stops a run."""

    metric: str
    patience: int | None = None
    min_delta: float = 0.0

    def judge(self, values: Mapping[str, float], progress: Progress) -> bool:
        """Enter a validation into the progress; tell whether it is the best so far."""
        value = values[self.metric]
        if self._better(value, progress.best):
            progress.best, progress.best_step, progress.waited = value, progress.step, 0
            progress.best_values = dict(values)
            return True
        progress.waited += 1
        progress.stopped = self.patience is not None and progress.waited >= self.patience
        return False

    def _better(self, value: float, best: float | None) -> bool:
        if best is None or best != best:
            return value == value  # a metric that is not a number is no best one
        gain = value - best if self.metric.rpartition(".")[2] in HIGHER_IS_BETTER else best - value
        return gain > self.min_delta


def criterion(term: Term | None, names: Sequence[str], span: Span | None = None) -> Criterion:
    """Return the criterion of `early_stop`; without one the best accuracy counts, else the lowest loss.

    Errors: 0672, at `span`, for a metric that is none of `names`.
    """
    if term is None or term.name == "none":
        wanted = next((w for w in ("accuracy", "loss") if find(w, names)), names[0])
        return Criterion(find(wanted, names) or wanted)
    options = STOPS[term.name].bind(term)
    metric = find(str(options["metric"]), names)
    if metric is None:
        message = f"`{options['metric']}` is no metric of this plan"
        notes = (f"it has {', '.join(names)}",)
        raise LpcError(Diagnostic("0672", message, span, "run.early_stop", notes))
    return Criterion(metric, int(options["n"]), float(options["min_delta"]))


def find(metric: str, names: Sequence[str]) -> str | None:
    """Return a metric's full name: its own, or that in the last block that has it."""
    return next((name for name in reversed(names) if name == metric or name.endswith(f".{metric}")), None)
