"""Can this plan be trusted? Its structure, the losses that reach each parameter, and its numbers against autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from lpc.agreement import disagreements
from lpc.compiler.build import Build, learning, localize, network, partition, run_pipeline, trace
from lpc.compiler.isolation import declared_by_targets, declared_influence
from lpc.deviation import Deviations
from lpc.plan import Plan
from lpc.precise import promote
from lpc.report import Report
from lpc.runtime.trainer import Trainer
from lpc.specs import load_spec
from lpc.specs.plan.plan import Plan as PlanData
from lpc.specs.plan.verify import indirect_influence, influence, influence_by_targets
from lpc.specs.plan.verify import verify as verify_structure

TOLERANCE = 1e-9  # relative; float64 sums in another order differ by about 1e-15 for each of 10^4 terms
MIXED_TOLERANCE = 2.0**-7  # the spacing of bfloat16 numbers next to 1
NOISY_TOLERANCE = 2.0**-3  # of estimates in bfloat16: credits sum terms of both signs, rounded as the largest is


def verify(plan: Plan, *, allow: Sequence[str] = (), seed: int = 0) -> Report:
    """Check a plan: its structure, its isolation, and one step (of each phase) in float64 against eager autograd.

    Rebuilds the network from the plan's own spec; gradients, losses and buffers come from the plan's own
    kernels, with every float32 in them read as float64. A plan with `precision: bf16` is compared as it is with
    eager autocast, to the precision of bfloat16. `allow` is as in `build`; `seed` draws the batch.
    Raises LpcError where the network cannot be built again.
    """
    build = rebuild(plan.data, allow)
    assert build.graph is not None
    mixed = build.spec.run.precision != "none"
    errors = Deviations(mixed)
    for kernels in plan.data.kernels.values():
        own = replace(plan.data, kernels={"native": {**plan.data.kernels["native"], **kernels}})
        precise = Trainer(own if mixed else promote(own), device="cpu")
        errors.look(build, precise, torch.Generator().manual_seed(seed))
    return Report(
        diagnostics=(*verify_structure(plan.data), *disagreements(plan.data, build, errors.laws)),
        influence={n: frozenset(s) for n, s in influence(plan.data).items()},
        declared=declared_influence(build.graph, learning(build)),
        gradients=errors.gradients,
        losses=errors.losses,
        buffers=errors.buffers,
        output=errors.output,
        tolerance=_tolerance(mixed, bool(plan.data.report.get("estimators"))),
        estimators=dict(plan.data.report.get("estimators", {})),
        targets={n: s for n, s in influence_by_targets(plan.data).items() if s},
        declared_targets=declared_by_targets(build.graph, build.problems),
        indirect={n: losses for n, losses in indirect_influence(plan.data).items() if losses},
        weights=errors.weights,
        evaluation=errors.evaluation,
        metrics=errors.metrics,
        seed=seed,
    )


def _tolerance(mixed: bool, noisy: bool) -> float:
    return TOLERANCE if not mixed else NOISY_TOLERANCE if noisy else MIXED_TOLERANCE


def rebuild(plan: PlanData, allow: Sequence[str]) -> Build:
    """Build network, trace, partition and local problems again from the plan's spec, without capture."""
    start = Build(load_spec(plan.spec), tuple(allow), plan.program.fields)
    return run_pipeline(start, (network, trace, partition, localize))
