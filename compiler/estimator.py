"""How does a block estimate the gradient of its objective? The spec's term, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lpc.compiler.rules import stated, stated_at
from lpc.specs import signatures
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec

BACKPROP, FORWARD, ALIGNMENT = "backprop", "forward", "feedback_alignment"


@dataclass(frozen=True)
class Estimator:
    """An estimator by name with all its options, and the run's seed for what it draws once."""

    name: str = BACKPROP
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def perturbs(self) -> bool:
        """Does the block's forward pass carry tangents, the directions of its noise?"""
        return self.name == FORWARD


def estimator(spec: Spec, block: str) -> Estimator:
    """Return what `learn` says, `backprop` where it says nothing. Raises LpcError (0420) for what excludes itself."""
    term = stated(spec, block, "estimator")
    if term is None:
        return Estimator(seed=spec.run.seed)
    options = signatures.ESTIMATORS[term.name].bind(term)
    found = Estimator(term.name, options, spec.run.seed)
    message = _contradiction(spec, found)
    if message:
        raise LpcError(Diagnostic("0420", message, span=stated_at(spec, block, "estimator")))
    return found


def _contradiction(spec: Spec, found: Estimator) -> str | None:
    options = found.options
    if not found.perturbs or options["perturb"] == "activity":
        return None
    if options["noise"] == "independent":
        return "`perturb=weight` draws one direction for the whole batch: `noise=independent` is for activities"
    return None
