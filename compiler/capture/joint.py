"""What is a block's whole local step? Forward, losses and gradients, traced as one graph.

Every loss enters the backward pass with its own cotangent argument (its *seed*), and so does every output for
each consumer that sends a cotangent back. Which loss reaches which parameter is then plain reachability.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functional_call

from lpc.compiler.blocks import BlockModule
from lpc.compiler.capture.randomness import Lifted, hides_its_mask, lift_randomness
from lpc.compiler.capture.simplify import simplify
from lpc.compiler.capture.tracing import Argument, LabelledRun, TracedFunction, origin, trace_function
from lpc.compiler.localize import LocalProblem
from lpc.compiler.losses import METRICS
from lpc.compiler.state import named_state, run_with_state
from lpc.specs.plan.kernel import Role


@dataclass(frozen=True)
class Slot:
    """One tensor into or out of a graph: its role, its bundle's name, and its name outside the kernel."""

    role: Role
    bundle: str
    source: str


@dataclass(frozen=True)
class LocalGraph:
    """A traced local step: the graph, and what each placeholder and each output means.

    The graph's placeholders are `arguments` in order, then the lifted random ones.
    """

    block: str
    graph: fx.Graph
    symbols: dict[str, str]
    arguments: tuple[Slot, ...]
    results: tuple[Slot, ...]
    random: tuple[Lifted, ...]
    unreached: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaptureTarget:
    """What a kernel is captured for: a device's own operators, or those that every device has."""

    device: torch.device
    portable: bool = False
    precision: str = "none"

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "none":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False)


@dataclass
class _Arguments:
    """Collects placeholders: their slots and types; hands each tensor back by slot at trace time."""

    slots: list[Slot] = field(default_factory=list)
    types: list[Argument] = field(default_factory=list)

    def add(self, slot: Slot, dtype: torch.dtype, shape: Sequence[int | str]) -> None:
        if slot not in self.slots:
            self.slots.append(slot)
            self.types.append(Argument(slot.source, dtype, tuple(shape)))


@dataclass(frozen=True)
class Inputs:
    """Types of everything a block may read from outside, batch axis first: values, fields."""

    values: Mapping[str, tuple[torch.dtype, tuple[int | str, ...]]]


def trace_training(
    problem: LocalProblem,
    block: BlockModule,
    types: Inputs,
    metrics: Sequence[str],
    aliases: Mapping[str, str],
    differentiable: frozenset[str],
    target: CaptureTarget,
) -> LocalGraph:
    """Trace forward, losses, metrics, parameter gradients and input cotangents of one block.

    `differentiable` are the outside values whose producers want a cotangent. `aliases` maps tied parameter
    names to the canonical one.
    """
    step = _Step(problem, block, types, tuple(metrics), aliases, target, differentiable)
    return step.trace("train")


def trace_inference(
    problem: LocalProblem,
    block: BlockModule,
    types: Inputs,
    metrics: Sequence[str],
    aliases: Mapping[str, str],
    target: CaptureTarget,
) -> LocalGraph:
    """Trace forward, losses and metrics of one block as in evaluation: no gradients, no buffer updates."""
    return _Step(problem, block, types, tuple(metrics), aliases, target, frozenset()).trace("eval")


@dataclass
class _Step:
    problem: LocalProblem
    block: BlockModule
    types: Inputs
    metrics: tuple[str, ...]
    aliases: Mapping[str, str]
    target: CaptureTarget
    differentiable: frozenset[str]
    arguments: _Arguments = field(default_factory=_Arguments)
    results: list[Slot] = field(default_factory=list)
    unreached: list[str] = field(default_factory=list)

    def trace(self, mode: str) -> LocalGraph:
        self.collect(mode)
        run = self.train if mode == "train" else self.infer
        head = self.problem.head
        if head is not None:
            head.train(mode == "train")
        portable = self.target.portable or hides_its_mask(self.block.module.graph)
        traced = self.trace_with(run, portable)
        if not portable and hides_its_mask(traced.graph):  # inside a module that is opaque, or in the head
            traced = self.trace_with(run, True)
        simplify(traced.graph)
        random = lift_randomness(traced.graph, traced.symbols, self.problem.block)
        simplify(traced.graph)
        return LocalGraph(
            self.problem.block,
            traced.graph,
            traced.symbols,
            tuple(self.arguments.slots),
            tuple(self.results),
            tuple(random),
            tuple(self.unreached),
        )

    def trace_with(self, run: Callable[[dict[Slot, Tensor]], list[Tensor]], portable: bool) -> TracedFunction:
        self.results.clear()
        self.unreached.clear()
        return trace_function(
            lambda *tensors: run(dict(zip(self.arguments.slots, tensors, strict=True))),
            self.arguments.types,
            device=self.target.device,
            portable=portable,
        )

    # What goes in

    def collect(self, mode: str) -> None:
        for name, tensor in self.network_state().items():
            self.arguments.add(_state(self.aliases.get(name, name)), tensor.dtype, tensor.shape)
        for name, tensor in self.head_state().items():
            self.arguments.add(_state(f"heads.{self.problem.block}.{name}"), tensor.dtype, tensor.shape)
        for value in self.block.inputs:
            self.arguments.add(_value(value), *self.types.values[value])
        for loss in self.problem.losses:
            self.arguments.add(_value(loss.target), *self.types.values[loss.target])
        if mode != "train":
            return
        for loss in self.problem.losses:
            self.arguments.add(_seed(loss.name), torch.get_default_dtype(), ())
        for value, consumer in self.problem.receives:
            self.arguments.add(_cotangent(value, consumer), *self.types.values[value])

    def network_state(self) -> dict[str, Tensor]:
        return named_state(self.block.module)

    def head_state(self) -> dict[str, Tensor]:
        return named_state(self.problem.head) if self.problem.head is not None else {}

    # What happens

    def infer(self, tensors: dict[Slot, Tensor]) -> list[Tensor]:
        with torch.no_grad(), self.target.autocast():
            return self.forward(tensors, self.bind(tensors, frozenset()), "eval").results(self)

    def train(self, tensors: dict[Slot, Tensor]) -> list[Tensor]:
        trainable = frozenset(self.trainable_slots())
        with torch.enable_grad():
            bound = self.bind(tensors, trainable)
            with self.target.autocast():
                outcome = self.forward(tensors, bound, "train")
        values = outcome.results(self)
        values += self.gradients(tensors, bound, outcome)
        return values + self.buffer_updates(tensors, bound)

    def trainable_slots(self) -> list[Slot]:
        head = self.problem.head
        names = list(self.problem.trainable)
        if head is not None:
            names += [f"heads.{self.problem.block}.{n}" for n, p in head.named_parameters() if p.requires_grad]
        slots = [_state(n) for n in names]
        return slots + [_value(v) for v in self.block.inputs if v in self.differentiable]

    def bind(self, tensors: dict[Slot, Tensor], trainable: frozenset[Slot]) -> dict[Slot, Tensor]:
        """Make each trainable argument a leaf; everything else carries no gradient."""
        return {
            slot: t.detach().requires_grad_() if slot in trainable else t.detach()
            for slot, t in tensors.items()
        }

    def forward(self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], mode: str) -> _Outcome:
        inputs = [_defended(bound[_value(v)]) for v in self.block.inputs]
        state = {n: bound[_state(self.aliases.get(n, n))] for n in self.network_state()}
        outputs = run_with_state(LabelledRun(self.block.module), state, inputs)
        named = dict(zip(self.block.outputs, outputs, strict=True))
        feature = named[self.problem.feature[mode]] if self.problem.losses else None
        outcome = _Outcome(named)
        if feature is None:
            return outcome
        prediction = self.predict(feature, bound)
        for loss in self.problem.losses:
            target = bound[_value(loss.target)]
            with origin(f"{self.problem.block}.{loss.name}"):
                value = loss.function(prediction, target)
                outcome.losses[loss.name] = value if loss.weight == 1.0 else loss.weight * value
            outcome.objective = outcome.objective + outcome.losses[loss.name].detach()
        self.measure(outcome, prediction.detach(), bound)
        return outcome

    def predict(self, feature: Tensor, bound: dict[Slot, Tensor]) -> Tensor:
        head = self.problem.head
        if head is None:
            return feature
        prefix = f"heads.{self.problem.block}"
        state = {n: bound[_state(f"{prefix}.{n}")] for n in self.head_state()}
        with origin(prefix):
            return functional_call(head, state, (feature,))  # type: ignore[no-any-return]

    def measure(self, outcome: _Outcome, prediction: Tensor, bound: dict[Slot, Tensor]) -> None:
        loss = self.problem.losses[0]
        if not loss.classifies:
            return
        with torch.no_grad():
            for name in self.metrics:
                if name in METRICS:
                    target = bound[_value(loss.target)]
                    outcome.metrics[name] = METRICS[name](prediction, target, loss.options)

    # What comes out

    def gradients(
        self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], outcome: _Outcome
    ) -> list[Tensor]:
        roots, cotangents = self.roots(tensors, outcome)
        leaves = [s for s in self.trainable_slots() if bound[s].requires_grad]
        if not roots or not leaves:
            self.unreached += [s.source for s in leaves]
            return []
        found = torch.autograd.grad(
            roots, [bound[s] for s in leaves], cotangents, allow_unused=True
        )
        self.unreached += [s.source for s, g in zip(leaves, found, strict=True) if g is None]
        kept = [(s, g.detach()) for s, g in zip(leaves, found, strict=True) if g is not None]
        self.results += [self.gradient_slot(slot) for slot, _ in kept]
        return [g for _, g in kept]

    def gradient_slot(self, slot: Slot) -> Slot:
        if slot.role == "state":
            return Slot("gradients", "gradients", slot.source)
        return _cotangent(slot.source, self.problem.block)

    def roots(self, tensors: dict[Slot, Tensor], outcome: _Outcome) -> tuple[list[Tensor], list[Tensor]]:
        pairs = [(outcome.losses[loss.name], tensors[_seed(loss.name)]) for loss in self.problem.losses]
        pairs += [(outcome.outputs[v], tensors[_cotangent(v, c)]) for v, c in self.problem.receives]
        used = [(root, cotangent) for root, cotangent in pairs if root.requires_grad]
        return [r for r, _ in used], [c.to(r.dtype) for r, c in used]

    def buffer_updates(self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor]) -> list[Tensor]:
        names = [_state(self.aliases.get(n, n)) for n, _ in self.block.module.named_buffers()]
        if self.problem.head is not None:
            names += [_state(f"heads.{self.problem.block}.{n}") for n, _ in self.problem.head.named_buffers()]
        self.results += [Slot("buffers", "buffers", s.source) for s in names]
        return [bound[s] for s in names]


@dataclass
class _Outcome:
    """What a forward pass computed."""

    outputs: dict[str, Tensor]
    losses: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)
    objective: Any = 0.0

    def results(self, step: _Step) -> list[Tensor]:
        """Register the result slots on `step` and return the tensors in the same order."""
        slots = [Slot("output", name, name) for name in self.outputs]
        values = [t.detach() for t in self.outputs.values()]
        slots += [Slot("loss", name, name) for name in self.losses]
        values += [t.detach() for t in self.losses.values()]
        slots += [Slot("metric", name, name) for name in self.metrics]
        values += list(self.metrics.values())
        if len(self.losses) > 1:
            slots.append(Slot("metric", "loss", "loss"))
            values.append(self.objective)
        step.results += slots
        return values


def _defended(value: Tensor) -> Tensor:
    """An in-place operator on a leaf is an error in eager mode; on a copy it is not, and simplify drops the copy."""
    return value.clone() if value.requires_grad else value


def _state(name: str) -> Slot:
    return Slot("state", "state", name)


def _seed(loss: str) -> Slot:
    return Slot("seed", f"seed_{loss}", loss)


def _value(name: str) -> Slot:
    return Slot("input", name, name)


def _cotangent(value: str, consumer: str) -> Slot:
    return Slot("cotangent", f"d_{value}_{consumer}", f"{value}@{consumer}")
