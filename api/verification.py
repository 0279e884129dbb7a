"""Can this plan be trusted? Its structure, the losses that reach each parameter, and its numbers against autograd."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lpc.agreement import disagreements
from lpc.compiler.build import Build, learning, localize, network, partition, run_pipeline, trace
from lpc.compiler.capture.tracing import length_hints
from lpc.compiler.capture.types import dtype_of
from lpc.compiler.frontend.network import call
from lpc.compiler.frontend.outputs import select
from lpc.compiler.isolation import declared_by_targets, declared_influence
from lpc.compiler.reference import Reference, reference_step
from lpc.compiler.rehearsal import Promoting
from lpc.compiler.relaxation import INDEX
from lpc.compiler.relaxed_reference import relaxed_reference
from lpc.corrected import corrected
from lpc.evaluated import evaluated
from lpc.hardened import hardened
from lpc.phased import phased
from lpc.plan import Plan
from lpc.probed import predicted, probed
from lpc.runtime.meter import combine
from lpc.runtime.noise import LAWS
from lpc.runtime.optimizers import BlockOptimizer
from lpc.runtime.resources import Frame
from lpc.runtime.trainer import Trainer
from lpc.specs import Spec, load_spec
from lpc.specs.diagnostics import Diagnostic
from lpc.specs.plan.instructions import Every, Part
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.optimizers import is_class
from lpc.specs.plan.plan import Noise, Program
from lpc.specs.plan.plan import Plan as PlanData
from lpc.specs.plan.verify import indirect_influence, influence, influence_by_targets
from lpc.specs.plan.verify import verify as verify_structure
from lpc.views.verification import METRIC_TOLERANCE

T = TypeVar("T")

TOLERANCE = 1e-9  # relative; float64 sums in another order differ by about 1e-15 for each of 10^4 terms
MIXED_TOLERANCE = 2.0**-7  # the spacing of bfloat16 numbers next to 1
NOISY_TOLERANCE = 2.0**-3  # of estimates in bfloat16: credits sum terms of both signs, rounded as the largest is
NEGLIGIBLE = 1e-6  # of the largest gradient: a key bias before a softmax has none, but for rounding
BATCH = 4


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


def verify(plan: Plan, *, allow: Sequence[str] = (), seed: int = 0) -> Report:
    """Check a plan: its structure, its isolation, and one step (of each phase) in float64 against eager autograd.

    Rebuilds the network from the plan's own spec; gradients, losses and buffers come from the plan's own
    kernels, with every float32 in them read as float64. A plan with `precision: bf16` is compared as it is with
    eager autocast, to the precision of bfloat16. `allow` is as in `build`; `seed` draws the batch.
    Raises LpcError where the network cannot be built again.
    """
    build = rebuild(plan.data, allow)
    mixed = build.spec.run.precision != "none"
    errors = _Errors(mixed)
    for kernels in plan.data.kernels.values():
        own = replace(plan.data, kernels={"native": {**plan.data.kernels["native"], **kernels}})
        precise = Trainer(own if mixed else promote(own), device="cpu")
        errors.look(build, precise, torch.Generator().manual_seed(seed))
    return Report(
        diagnostics=(*verify_structure(plan.data), *disagreements(plan.data, build, errors.laws)),
        influence={n: frozenset(s) for n, s in influence(plan.data).items()},
        declared=declared_influence(_given(build.graph), learning(build)),
        gradients=errors.gradients,
        losses=errors.losses,
        buffers=errors.buffers,
        output=errors.output,
        tolerance=_tolerance(mixed, bool(plan.data.report.get("estimators"))),
        estimators=dict(plan.data.report.get("estimators", {})),
        targets={n: s for n, s in influence_by_targets(plan.data).items() if s},
        declared_targets=declared_by_targets(_given(build.graph), build.problems),
        indirect={n: losses for n, losses in indirect_influence(plan.data).items() if losses},
        weights=errors.weights,
        evaluation=errors.evaluation,
        metrics=errors.metrics,
        seed=seed,
    )


def _tolerance(mixed: bool, noisy: bool) -> float:
    return TOLERANCE if not mixed else NOISY_TOLERANCE if noisy else MIXED_TOLERANCE


@dataclass
class _Errors:
    """Relative errors by name, gathered step by step; metrics are compared unless precision is `mixed`."""

    mixed: bool
    gradients: dict[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    buffers: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    evaluation: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    output: float = 0.0
    laws: dict[str, tuple[str, tuple[float, ...]]] = field(default_factory=dict)

    def look(self, build: Build, precise: Trainer, generator: torch.Generator) -> None:
        """Compare prediction, evaluation, and the step of each phase."""
        batches = [sample_batch(precise.plan, generator) for _ in range(precise.per_step)]
        noise = [sample_noise(precise.plan, generator) for _ in batches]
        output = precise.predict(batches[0])
        self.output = max(self.output, _error(output, expected_output(build, precise.plan, batches[0])))
        self.evaluate(build, precise, batches[0], noise[0])
        for index, part in enumerate([phased(build, phase.trains) for phase in precise.plan.program.phases] or [build]):
            self.compare(index, precise, reference(part, precise.plan, batches, noise), batches, noise)

    def evaluate(
        self, build: Build, precise: Trainer, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]
    ) -> None:
        """Compare what evaluation records."""
        frame = precise.machine.run(precise.machine.evaluate, Frame(iter([batch]), 0, [noise]))
        found = {reading.metric: reading.value for reading in frame.readings}
        state = safetensors.torch.load(precise.plan.weights)
        with computing(build.spec), torch.no_grad():
            wanted = evaluated(build, state, batch, noise)
        losses = {f"{block}.{loss.name}" for block, problem in build.problems.items() for loss in problem.losses}
        self.told("evaluation", found, {n: v for n, v in wanted.items() if n in losses})
        self.told("metrics", found, {n: v for n, v in wanted.items() if n not in losses and not self.mixed})

    def told(self, table: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
        """Keep the errors of what is wanted, the largest of all looks."""
        held: dict[str, float] = getattr(self, table)
        errors = _errors({name: found[name] for name in wanted if name in found}, wanted)
        held.update({name: max(error, held.get(name, 0.0)) for name, error in errors.items()})

    def stepped(self, precise: Trainer, index: int, found: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> None:
        """Compare the parameters after a step with those that each optimizer makes of the gradients, in one step."""
        after = {n: t.clone() for n, t in precise.state_dict().items()}
        precise.load_state_dict(dict(before))
        names: list[str] = []
        for block, own in precise.plan.program.optimizers.items():
            correction = precise.plan.program.corrections.get(block)
            around = own.steps != 1 or own.prox is not None or own.outer
            if around or index or is_class(own.name) or (correction is not None and correction.where == "update"):
                continue
            optimizer = BlockOptimizer(replace(own, clip=None, schedule={}), precise.machine.state)
            if any(name in found for name in optimizer.names):
                with torch.inference_mode():
                    optimizer.step([found.get(name) for name in optimizer.names], 0)
                names += optimizer.names
        expected = precise.state_dict()
        self.told("weights", {n: after[n] for n in names}, {n: expected[n] for n in names})

    def compare(
        self, index: int, precise: Trainer, wanted: Reference,
        batches: Sequence[Mapping[str, Tensor]], noise: Sequence[Mapping[str, Tensor]],
    ) -> None:  # fmt: skip
        """Run a step with and without its effects, which are undone, and compare both with the reference."""
        machine, before = precise.machine, {n: t.clone() for n, t in precise.state_dict().items()}
        found = machine.run(machine.gradients(index), Frame(iter(batches), 0, noise)).gradients
        frame = machine.run(machine.step(index), Frame(iter(batches), 0, noise))
        metrics = combine(frame.readings, precise.plan.program.metrics)
        losses = {name: value for name, value in metrics.items() if name in wanted.losses}
        buffers = {n: t for n, t in precise.state_dict().items() if n in wanted.buffers}
        for held, one, other in (
            (self.gradients, found, wanted.gradients), (self.losses, losses, wanted.losses),
            (self.buffers, buffers, {n: wanted.buffers[n] for n in buffers}),
        ):  # fmt: skip
            held.update({name: max(error, held.get(name, 0.0)) for name, error in _errors(one, other).items()})
        self.told("metrics", metrics, {} if self.mixed else wanted.metrics)
        self.laws.update(wanted.laws)
        self.stepped(precise, index, found, before)
        precise.load_state_dict(before)


def rebuild(plan: PlanData, allow: Sequence[str]) -> Build:
    """Build network, trace, partition and local problems again from the plan's spec, without capture."""
    start = Build(load_spec(plan.spec), tuple(allow), plan.program.fields)
    return run_pipeline(start, (network, trace, partition, localize))


# Promotion to float64


def promote(plan: PlanData) -> PlanData:
    """Return the plan with every float32, in kernels, types and weights, read as float64.

    Its optimizers have no schedules: one step tells nothing of them, and they may need the length of a run.
    """
    program = _promoted(plan.program)
    optimizers = {name: replace(o, schedule={}) for name, o in program.optimizers.items()}
    weights = {n: _double(t) for n, t in safetensors.torch.load(plan.weights).items()}
    return replace(
        plan,
        program=replace(program, optimizers=optimizers),
        kernels=_promoted(dict(plan.kernels)),
        weights=safetensors.torch.save(weights),
    )


def _promoted(value: Any) -> Any:
    """Rewrite dataclasses, containers and the JSON arguments of nodes; other values stay."""
    if isinstance(value, TensorType):
        return replace(value, dtype="float64") if value.dtype == "float32" else value
    if value == {"dtype": "float32"}:
        return {"dtype": "float64"}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _promoted(getattr(value, f.name)) for f in dataclass_fields(value)})
    if isinstance(value, dict):
        return {key: _promoted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_promoted(item) for item in value)
    return value


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.dtype == torch.float32 else tensor


# Samples


def sample_batch(plan: PlanData, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw a batch: normal numbers, class indices that exist, masks of ones."""
    return {name: _sample(plan, name, kind, generator) for name, kind in plan.program.fields.items()}


def batch_size(program: Program) -> int:
    """Return a number of samples of which the smallest piece of any `part` has two, enough for a batch norm."""
    every = (i for step in program.steps for i in step if isinstance(i, Every))
    parts = (i for one in every for i in one.body if isinstance(i, Part))
    return max([BATCH, *(math.ceil(2 * p.pieces / min(p.share, 1.0)) for p in parts)])


def _sample(plan: PlanData, name: str, kind: TensorType, generator: torch.Generator) -> Tensor:
    shape = _sizes(kind, batch_size(plan.program))
    dtype = dtype_of(kind.dtype)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator, dtype=dtype)
    if name == INDEX:
        return torch.arange(shape[0])
    if "mask" in name:
        return torch.ones(shape, dtype=dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


def sample_noise(plan: PlanData, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw every random site's noise for one batch."""
    batch = batch_size(plan.program)
    return {site: _draw(noise, batch, generator) for site, noise in plan.program.noise.items()}


def _draw(noise: Noise, batch: int, generator: torch.Generator) -> Tensor:
    empty = torch.empty(_sizes(noise.type, batch), dtype=dtype_of(noise.type.dtype))
    return LAWS[noise.law](empty, noise.args, generator)


def _sizes(kind: TensorType, batch: int) -> list[int]:
    """Sizes to verify with: `batch` samples, and every other symbolic length as in tracing."""
    hints = length_hints((size for size in kind.shape if isinstance(size, str)), B=batch)
    return [hints[size] if isinstance(size, str) else size for size in kind.shape]


# What should come out


def reference(
    build: Build, precise: PlanData, batches: Sequence[Mapping[str, Tensor]], noise: Sequence[Mapping[str, Tensor]]
) -> Reference:
    """Return the mean of the batches' reference steps, gradients clipped as the optimizers receive them."""
    state: dict[str, Tensor] = dict(safetensors.torch.load(precise.weights))
    steps: list[Reference] = []
    for batch, drawn in zip(batches, noise, strict=True):
        step = _one_step(build, precise.program, state, batch, drawn)
        state |= step.buffers
        steps.append(step)
    gradients = {n: _mean([s.gradients[n] for s in steps]) for n in steps[0].gradients}
    losses, metrics = (
        {n: _mean([getattr(s, table)[n] for s in steps]) for n in getattr(steps[0], table)}
        for table in ("losses", "metrics")
    )
    gradients = clipped(precise.program, build, gradients)
    return replace(steps[-1], gradients=gradients, losses=losses, metrics=metrics)


def _one_step(
    build: Build,
    program: Program,
    state: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    noise: Mapping[str, Tensor],
) -> Reference:
    graph, shared = _given(build.graph), build.spec.decompose.shared
    with computing(build.spec):
        if build.variables:
            traced, between = _given(build.traced), build.variables
            return relaxed_reference(traced, graph, build.problems, between, state, batch, noise)
        batch = hardened(build, state, batch, noise)
        measures = build.spec.run.metrics
        step = reference_step(_given(build.traced), graph, build.problems, shared, state, batch, noise, measures)
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
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed, cache_enabled=False):
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


def expected_output(build: Build, precise: PlanData, batch: Mapping[str, Tensor]) -> Tensor:
    """Return what should be predicted: by the original module, or by what the spec predicts with instead."""
    with computing(build.spec), torch.no_grad():
        shown = predicted(build, safetensors.torch.load(precise.weights), batch)
    return eager_output(build, precise, batch) if shown is None else shown


def eager_output(build: Build, precise: PlanData, batch: Mapping[str, Tensor]) -> Tensor:
    """Return what the original module computes in evaluation, with the plan's weights, in float64."""
    built = _given(build.network)
    state = {n: t for n, t in safetensors.torch.load(precise.weights).items() if not n.startswith("heads.")}
    was_training = built.module.training
    built.module.eval()
    try:
        known = {n for n, _ in (*built.module.named_parameters(), *built.module.named_buffers())}
        holder = _Called(built.module)
        given = {f"module.{n}": t for n, t in state.items() if n in known}
        values = {n: batch[n] for n in built.inputs}
        promoting = Promoting()  # type: ignore[no-untyped-call]
        with torch.no_grad(), computing(build.spec), promoting:
            return select(functional_call(holder, given, (values,)), built.output)  # type: ignore[no-any-return]
    finally:
        built.module.train(was_training)


class _Called(nn.Module):
    """Lets functional_call swap the state of a module that takes its inputs by name."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, values: Mapping[str, Tensor]) -> Any:
        return call(self.module, values)


def _errors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, float]:
    """Relative errors by name; a name that only one side has is infinitely wrong."""
    missing = dict.fromkeys(set(found) ^ set(wanted), float("inf"))
    largest = max((float(t.double().abs().max()) for t in wanted.values()), default=0.0)
    return {**{n: _error(found[n], wanted[n], NEGLIGIBLE * largest) for n in wanted if n in found}, **missing}


def _error(found: Tensor, wanted: Tensor, floor: float = 0.0) -> float:
    """Return the largest difference over the largest value (at least `floor`), both in float64."""
    if found.shape != wanted.shape:
        return float("inf")
    scale = max(float(wanted.double().abs().max()), floor, 1e-30)
    error = float((found.double() - wanted.double()).abs().max()) / scale
    return error if math.isfinite(error) else float("inf")  # what is no number must not pass for a small one


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors)).mean(0)


def _given(value: T | None) -> T:
    assert value is not None
    return value
