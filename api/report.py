"""What did a verification find? Influence and errors by name, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lpc.specs.diagnostics import Diagnostic

METRIC_TOLERANCE = 1e-6  # metrics are shares in float32


@dataclass(frozen=True)
class Report:
    """What `verify` found. `gradients`, `losses` and `buffers` hold relative errors by name, the largest of all phases.

    `influence` is the set of losses that reach each parameter, computed from the kernels; `declared` the set
    that the spec's links allow. `output` is the relative error of the network's output in evaluation. `estimators`
    tells of each block whose gradient is estimated from noise whether that is unbiased, or why not. `targets` are the
    losses that make the target by which a parameter learns, `declared_targets` those that may come back to its block.
    `indirect` are the losses that reach a parameter through auxiliary variables: no gradient of theirs does.
    tells of each block whose gradient is estimated from noise whether that is unbiased, or why not. `weights` are
    errors of what a step makes of the parameters, against each optimizer stepping once with the gradients, `evaluation`
    those of the losses in evaluation, `metrics` those of metrics in both.
    """

    diagnostics: tuple[Diagnostic, ...]
    influence: dict[str, frozenset[str]]
    declared: dict[str, frozenset[str]]
    gradients: dict[str, float]
    losses: dict[str, float]
    buffers: dict[str, float]
    output: float
    tolerance: float
    estimators: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    declared_targets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    indirect: Mapping[str, frozenset[str]] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    evaluation: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0

    @property
    def unreached(self) -> tuple[str, ...]:
        """Parameters that a loss should reach and none does."""
        return tuple(name for name, losses in self.influence.items() if not losses and self.declared.get(name))

    @property
    def leaks(self) -> dict[str, frozenset[str]]:
        """Parameters that a loss reaches, or makes the target of, although the spec stops its gradient."""
        extra = {
            n: (s - self.declared.get(n, frozenset()))
            | (self.targets.get(n, frozenset()) - self.declared_targets.get(n, frozenset()))
            for n, s in self.influence.items()
        }
        return {n: s for n, s in extra.items() if s}

    @property
    def worst(self) -> float:
        """The largest relative error of all."""
        return max([self.output, *(error for table in self.errors.values() for error in table.values())])

    @property
    def errors(self) -> dict[str, Mapping[str, float]]:
        """All tables of errors by what is compared."""
        names = ("gradients", "losses", "buffers", "weights", "evaluation")
        return {name: getattr(self, name) for name in names}

    @property
    def ok(self) -> bool:
        """True when the structure holds, no gradient leaks, and every number agrees."""
        structure = not any(d.severity == "error" for d in self.diagnostics)
        counted = all(error <= METRIC_TOLERANCE for error in self.metrics.values())
        return structure and counted and not self.leaks and not self.unreached and self.worst <= self.tolerance
