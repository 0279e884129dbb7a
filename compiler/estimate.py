"""What would a plan need? Everything of it but the weights, which are never made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lpc.compiler.build import (
    Build,
    capture,
    kernels_by_name,
    localize,
    network,
    partition,
    program,
    report,
    run_pipeline,
    schedule,
    trace,
)
from lpc.compiler.partition import to_data
from lpc.compiler.unwritten import Unwritten
from lpc.specs.model import Network, Spec
from lpc.specs.plan.kernel import Kernel, TensorType
from lpc.specs.plan.plan import Program


@dataclass(frozen=True)
class Outline:
    """A plan without weights: enough to predict memory and to count operations."""

    program: Program
    kernels: Mapping[str, Kernel]
    partition: Mapping[str, Any]
    report: Mapping[str, Any]


def outline(spec: Spec, *, allow: Sequence[str] = (), fields: Mapping[str, TensorType] | None = None) -> Outline:
    """Return the outline of a spec's plan, whose weights are not read. Raises LpcError as `build_plan` does."""
    bare: Network = spec.network.model_copy(update={"weights": "random", "init": {}})
    run = spec.run.model_copy(update={"target": "cpu"})  # kernels for further devices would only take time
    start = Build(spec.model_copy(update={"network": bare, "run": run}), tuple(allow), dict(fields or {}))
    with Unwritten():  # type: ignore[no-untyped-call]
        made = run_pipeline(start, (network,))
    cut = run_pipeline(made, (trace, partition))
    with Unwritten():  # type: ignore[no-untyped-call]
        posed = run_pipeline(cut, (localize,))
    build = run_pipeline(posed, (capture, schedule))
    assert build.graph is not None
    return Outline(program(build), kernels_by_name(build)["native"], to_data(build.graph), report(build))
