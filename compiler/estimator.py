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
VIEWS = "views"


@dataclass(frozen=True)
class Estimator:
    """An estimator by name with all its options, and the run's seed for what it draws once.

    `views` is how many parts of a batch, one after another, see the same noise.
    """

    name: str = BACKPROP
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    views: int = 1

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
    found = Estimator(term.name, options, spec.run.seed, _views(spec) if options.get("noise") == VIEWS else 1)
    message = _contradiction(spec, found)
    if message:
        raise LpcError(Diagnostic("0420", message, span=stated_at(spec, block, "estimator")))
    return found


def _views(spec: Spec) -> int:
    """How often a sample stands in a batch; in batches from Python twice."""
    return spec.data.views if spec.data is not None else 2


def _contradiction(spec: Spec, found: Estimator) -> str | None:
    options = found.options
    if not found.perturbs:
        return None
    if options["perturb"] == "weight" and options["noise"] in ("independent", VIEWS):
        return f"`perturb=weight` draws one direction for the whole batch: `noise={options['noise']}` is for activities"
    if options["noise"] == VIEWS and found.views < 2:
        return "`noise=views` is the same for all views of a sample, and `data.views` is 1"
    return None
