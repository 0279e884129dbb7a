"""What should come out of a step, and of a prediction? The eager network's numbers, in the precision of the plan."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from lpc.compiler.build import Build
from lpc.compiler.capture.types import dtype_of
from lpc.compiler.frontend.network import call
from lpc.compiler.frontend.outputs import select
from lpc.compiler.reference import Reference, reference_step
from lpc.compiler.rehearsal import Promoting
from lpc.compiler.relaxed_reference import relaxed_reference
from lpc.compiler.split_reference import split_reference
from lpc.corrected import corrected
from lpc.hardened import hardened
from lpc.precise import in_double
from lpc.probed import predicted, probed
from lpc.specs import Spec
from lpc.specs.plan.plan import Noise, Plan, Program


def reference(
    build: Build, precise: Plan, batches: Sequence[Mapping[str, Tensor]], noise: Sequence[Mapping[str, Tensor]]
) -> Reference:
    """Return the mean of the batches' reference steps, gradients clipped as the optimizers receive them."""
    state: dict[str, Tensor] = dict(safetensors.torch.load(bytes(precise.weights)))
    steps: list[Reference] = []
    kept: dict[str, Tensor] = {}
    for batch, drawn, first in _pieces(build.spec, precise.program, batches, noise):
        step = _one_step(build, precise.program, state, batch, drawn)
        kept |= step.buffers if first else {}
        state |= kept
        steps.append(step)
    gradients = {n: _mean([s.gradients[n] for s in steps]) for n in steps[0].gradients}
    losses, metrics = (
        {n: _mean([getattr(s, table)[n] for s in steps]) for n in getattr(steps[0], table)}
        for table in ("losses", "metrics")
    )
    gradients = clipped(precise.program, build, gradients)
    return replace(steps[-1], gradients=gradients, losses=losses, metrics=metrics, buffers=kept)


Values = Mapping[str, Tensor]


def _pieces(
    spec: Spec, program: Program, batches: Sequence[Values], noise: Sequence[Values]
) -> Iterator[tuple[Values, Values, bool]]:
    """Yield the equal pieces of each batch with their noise, and whether a piece is of the first shard."""
    count = spec.run.microbatches * spec.run.replicas
    for batch, drawn in zip(batches, noise, strict=True):
        rows = {name: tensor.chunk(count) for name, tensor in batch.items()}
        own = {site: _chunks(drawn[site], program.noise[site], count) for site in drawn}
        for index in range(count):
            first = index < spec.run.microbatches
            yield {n: r[index] for n, r in rows.items()}, {s: r[index] for s, r in own.items()}, first


def _chunks(drawn: Tensor, noise: Noise, count: int) -> Sequence[Tensor]:
    """Cut noise along the axis of the samples, if it has one."""
    axes = [axis for axis, length in enumerate(noise.type.shape) if re.search(r"\bB\b", str(length))]
    return drawn.chunk(count, axes[0]) if axes else [drawn] * count


def _one_step(
    build: Build,
    program: Program,
    state: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    noise: Mapping[str, Tensor],
) -> Reference:
    traced, graph, shared = build.traced, build.graph, build.spec.decompose.shared
    assert traced is not None
    assert graph is not None
    with computing(build.spec):
        if any(problem.split is not None for problem in build.problems.values()):
            return split_reference(traced, graph, build.problems, state, batch, noise)
        if build.variables:
            return relaxed_reference(traced, graph, build.problems, build.variables, state, batch, noise)
        batch = hardened(build, state, batch, noise)
        measures = build.spec.run.metrics
        step = reference_step(traced, graph, build.problems, shared, state, batch, noise, measures)
        beside = probed(build, step, state, batch)
        gradients = step.gradients | beside
        if build.corrected is not None:
            gradients = corrected(build, program.noise, gradients, state, batch, noise)
        return replace(step, gradients=gradients, buffers={n: t for n, t in step.buffers.items() if n not in beside})


@contextmanager
def computing(spec: Spec) -> Iterator[None]:
    """Compute in float64; with `precision: bf16` in float32 under autocast."""
    before, mixed = torch.get_default_dtype(), spec.run.precision != "none"
    torch.set_default_dtype(torch.float32 if mixed else torch.float64)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed, cache_enabled=False), ExitStack() as stack:
            if not mixed:
                stack.enter_context(_Norms(torch.finfo(dtype_of(spec.run.dtype)).eps))
                stack.enter_context(Promoting())  # type: ignore[no-untyped-call]
            yield
    finally:
        torch.set_default_dtype(before)


def clipped(program: Program, build: Build, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scale gradients as `run.clip` and then each block's `clip` say."""
    scaled = dict(gradients)
    groups = [(list(scaled), build.spec.run.clip)]
    for optimizer in program.optimizers.values():
        groups.append(([n for group in optimizer.groups for n in group.parameters], optimizer.clip))
    for names, norm in groups:
        if norm is not None:
            inside = [n for n in names if n in scaled]
            if not inside:  # of a block that does not learn in this phase
                continue
            total = torch.linalg.vector_norm(torch.stack([scaled[n].norm() for n in inside]))
            factor = torch.clamp(norm / (total + 1e-6), max=1.0)
            scaled.update({n: scaled[n] * factor for n in inside})
    return scaled


def expected_output(build: Build, precise: Plan, batch: Mapping[str, Tensor]) -> Tensor:
    """Return what should be predicted: by the original module, or by what the spec predicts with instead."""
    with computing(build.spec), torch.no_grad():
        shown = predicted(build, safetensors.torch.load(bytes(precise.weights)), batch)
    return eager_output(build, precise, batch) if shown is None else shown


def eager_output(build: Build, precise: Plan, batch: Mapping[str, Tensor]) -> Tensor:
    """Return what the original module computes in evaluation, with the plan's weights, in float64."""
    built = build.network
    assert built is not None
    state = safetensors.torch.load(bytes(precise.weights))
    was_training = built.module.training
    built.module.eval()
    try:
        own = {**dict(built.module.named_parameters()), **dict(built.module.named_buffers())}
        holder = _Called(built.module)
        # What the output does not need is in no plan, and is computed all the same.
        given = {f"module.{n}": state[n] if n in state else in_double(t) for n, t in own.items()}
        values = {n: batch[n] for n in built.inputs}
        with torch.no_grad(), computing(build.spec):
            return select(functional_call(holder, given, (values,)), built.output)  # type: ignore[no-any-return]
    finally:
        built.module.train(was_training)


class _Norms(TorchFunctionMode):
    """Gives RMS norms that name no eps that of the dtype in which the plan computes, as its kernels have it."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in _RMS_NORMS and (*args[3:], given.get("eps"))[0] is None:
            args, given = args[:3], given | {"eps": self.eps}
        return func(*args, **given)


_RMS_NORMS = (nn.functional.rms_norm, torch.rms_norm, torch.ops.aten.rms_norm.default)


class _Called(nn.Module):
    """Lets functional_call swap the state of a module that takes its inputs by name."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, values: Mapping[str, Tensor]) -> Any:
        return call(self.module, values)


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors)).mean(0)
