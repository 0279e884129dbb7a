"""How far is a plan from what should come out? Relative errors by name, of all that a step and an evaluation give."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import safetensors.torch
import torch
from torch import Tensor

from lpc.compiler.build import Build
from lpc.compiler.reference import Reference
from lpc.evaluated import evaluated
from lpc.expected import computing, expected_output, reference
from lpc.phased import phased
from lpc.precise import sample_batch, sample_noise
from lpc.runtime.meter import combine
from lpc.runtime.optimizers import BlockOptimizer
from lpc.runtime.resources import Frame
from lpc.runtime.trainer import Trainer
from lpc.specs.plan.optimizers import is_class

NEGLIGIBLE = 1e-6  # of the largest gradient: a key bias before a softmax has none, but for rounding


@dataclass
class Deviations:
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
        state = safetensors.torch.load(bytes(precise.plan.weights))
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

    def stepped(
        self, precise: Trainer, index: int, found: Mapping[str, Tensor], before: Mapping[str, Tensor],
        factors: Mapping[str, Tensor],
    ) -> None:  # fmt: skip
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
                    if optimizer.moments:
                        optimizer.observe([factors.get(name) for name in optimizer.moments])
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
        self.stepped(precise, index, found, before, wanted.factors)
        precise.load_state_dict(before)


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
