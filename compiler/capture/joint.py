"""What is a block's whole local step? Forward, losses and gradients, traced as one graph.

Every loss enters the backward pass with its own cotangent argument (its *seed*), and so does every output for
each consumer that sends a cotangent back. Which loss reaches which parameter is then plain reachability.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from lpc.compiler.blocks import BlockModule
from lpc.compiler.capture.layout import lay_out
from lpc.compiler.capture.randomness import Lifted, hides_its_mask, lift_randomness
from lpc.compiler.capture.simplify import share_equal, simplify
from lpc.compiler.capture.tracing import Argument, LabelledRun, TracedFunction, origin, trace_function
from lpc.compiler.credit import crossed, furthest_only
from lpc.compiler.feedback import project, projection
from lpc.compiler.local_loss import Judged, judge
from lpc.compiler.localize import Arrival, Feedback, LocalProblem, error_of
from lpc.compiler.state import named_state, run_with_state
from lpc.specs.plan.kernel import Role
from lpc.specs.plan.plan import Noise


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
    drawn: tuple[Noise, ...] = ()
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    stamp: str = ""


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


def trace_inference(
    problem: LocalProblem,
    block: BlockModule,
    types: Inputs,
    metrics: Sequence[str],
    aliases: Mapping[str, str],
    target: CaptureTarget,
) -> LocalGraph:
    """Trace forward, losses and metrics of one block as in evaluation: no gradients, no buffer updates."""
    return Step(problem, block, types, tuple(metrics), aliases, target, frozenset()).trace("eval")


@dataclass
class Step:
    """Traces the steps of one block: `shares` says that what is computed twice shall be computed once."""

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
    drawn: dict[str, Noise] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    stamp: str = ""

    shares: ClassVar[bool] = False

    def trace(self, mode: str) -> LocalGraph:
        self.collect(mode)
        run = self.train if mode == "train" else self.infer
        self.problem.heads.train(mode == "train")
        portable = self.target.portable or hides_its_mask(self.block.module.graph)
        traced = self.trace_with(run, portable)
        if not portable and hides_its_mask(traced.graph):  # inside a module that is opaque, or in the head
            traced = self.trace_with(run, True)
        simplify(traced.graph)
        if self.problem.horizon or self.shares:
            share_equal(traced.graph)
        random = lift_randomness(traced.graph, traced.symbols, self.problem.block, self.drawn)
        simplify(traced.graph)
        lay_out(traced.graph, [slot.role for slot in self.results])
        return LocalGraph(
            self.problem.block,
            traced.graph,
            traced.symbols,
            tuple(self.arguments.slots),
            tuple(self.results),
            tuple(random),
            tuple(self.unreached),
            tuple(self.drawn.values()),
            self.kept_in(traced.graph, [lifted.placeholder for lifted in random]),
            self.stamp,
        )

    def kept_in(self, graph: fx.Graph, lifted: Sequence[fx.Node]) -> dict[str, Tensor]:
        """Return the step's own fixed tensors that it reads."""
        plain = [n for n in graph.nodes if n.op == "placeholder" and n not in set(lifted)]
        read = {slot.source for slot, node in zip(self.arguments.slots, plain, strict=True) if node.users}
        return {name: tensor for name, tensor in self.kept.items() if name in read}

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
            self.arguments.add(state_slot(self.aliases.get(name, name)), tensor.dtype, tensor.shape)
        for name, tensor in self.problem.heads.state().items():
            self.arguments.add(self.head_state(name), tensor.dtype, tensor.shape)
        for value in self.block.inputs:
            self.arguments.add(value_slot(value), *self.types.values[value])
        for value in self.targets(mode).values():
            self.arguments.add(value_slot(value), *self.types.values[value])
        if mode != "train":
            return
        for loss in self.problem.losses:
            self.arguments.add(seed_slot(loss.name), torch.get_default_dtype(), ())
        for arrival in self.problem.receives:
            self.arguments.add(cotangent_slot(arrival), *self.types.values[arrival.value])
        for feedback in self.problem.feedback:
            dtype, shape = self.types.values[feedback.value]
            sizes, seed = [int(s) for s in shape[1:]], self.problem.estimator.seed
            matrix = projection(feedback.options, feedback.state, seed, sizes, self.error_size(), dtype)
            self.keep(feedback.state, matrix)

    def keep(self, name: str, tensor: Tensor) -> None:
        """Add a fixed tensor of the step's own to the state."""
        self.kept[name] = tensor
        self.arguments.add(state_slot(name), tensor.dtype, tensor.shape)

    def error_size(self) -> int:
        error = next(a for a in self.problem.receives if a.value.endswith(".error"))
        return math.prod(int(size) for size in self.types.values[error.value][1][1:])

    def network_state(self) -> dict[str, Tensor]:
        return named_state(self.block.module)

    def targets(self, mode: str) -> dict[str, str]:
        """Return the values that losses compare with, by loss."""
        return {loss.name: loss.target[mode] for loss in self.problem.losses if loss.target}

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
        values += self.errors(tensors, outcome)
        values += self.gradients(tensors, bound, outcome)
        return values + self.buffer_updates(tensors, bound)

    def trainable_slots(self) -> list[Slot]:
        slots = [*map(state_slot, self.problem.trainable), *self.head_slots()]
        return slots + [value_slot(v) for v in self.block.inputs if v in self.differentiable]

    def head_slots(self) -> list[Slot]:
        own = self.problem.heads.named_parameters()
        return [self.head_state(name) for name, _ in own]

    def head_state(self, name: str) -> Slot:
        """Where a head's tensor is: among the block's own, or the network's, tied ones under their first name."""
        source = self.problem.heads.source(self.problem.block, name)
        return state_slot(self.aliases.get(source, source))

    def bind(self, tensors: dict[Slot, Tensor], trainable: frozenset[Slot]) -> dict[Slot, Tensor]:
        """Make each trainable argument a leaf; no argument carries a gradient by itself."""
        return {slot: t.detach().requires_grad_() if slot in trainable else t for slot, t in tensors.items()}

    def forward(self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], mode: str) -> Outcome:
        named = self.outputs(bound)
        feature = named[self.problem.feature[mode]] if self.problem.losses else None
        if feature is not None and self.problem.errors and mode == "train" and not feature.requires_grad:
            # Nothing before it learns here, and other blocks learn from the error all the same.
            feature = named[self.problem.feature[mode]] = feature.detach().requires_grad_()
        outcome = Outcome(named)
        if feature is not None:
            outcome.take(self.judge(feature, bound, mode), self)
        return outcome

    def outputs(self, bound: Mapping[Slot, Tensor]) -> dict[str, Tensor]:
        """Run the block's graph and return its outputs by name."""
        inputs = [_defended(bound[value_slot(v)]) for v in self.block.inputs]
        state = {n: bound[state_slot(self.aliases.get(n, n))] for n in self.network_state()}
        outputs = run_with_state(self.interpreter(bound), state, inputs)
        return dict(zip(self.block.outputs, outputs, strict=True))

    def interpreter(self, bound: Mapping[Slot, Tensor]) -> LabelledRun:
        """Return what runs the block's graph."""
        return LabelledRun(self.block.module)

    def judge(self, feature: Tensor, bound: dict[Slot, Tensor], mode: str) -> dict[str, Judged]:
        """Run the block's heads and losses on its feature."""
        problem = self.problem
        state = {n: bound[self.head_state(n)] for n in problem.heads.state()}
        targets = {loss: bound[value_slot(value)] for loss, value in self.targets(mode).items()}
        return judge(problem.block, problem.losses, problem.heads, state, feature, targets, origin)

    def measure(self, judged: Mapping[str, Judged]) -> dict[str, Tensor]:
        """Return the metrics of the first loss that has any."""
        loss = next((loss for loss in self.problem.losses if loss.classifies), None)
        if loss is None:
            return {}
        sight = judged[loss.name].sight
        seen = replace(sight, prediction=sight.prediction.detach(), feature=sight.feature.detach())
        with torch.no_grad():
            return {n: loss.metrics[n](seen, loss.options) for n in self.metrics if n in loss.metrics}

    # What comes out

    def gradients(
        self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], outcome: Outcome
    ) -> list[Tensor]:
        """One backward pass for each set of ages; what leaves is cotangents by age, and gradients."""
        roots = self.roots(tensors, outcome)
        values: list[Tensor] = []
        unreached: dict[str, None] = {}
        for ages, wanted in self.passes(frozenset(roots)).items():
            wanted = {leaf: slot for leaf, slot in wanted.items() if bound[leaf].requires_grad}
            pairs = [pair for age in sorted(ages) for pair in roots.get(age, ())]
            if not pairs or not wanted:
                unreached.update(dict.fromkeys(leaf.source for leaf in wanted))
                continue
            found = torch.autograd.grad(
                [root for root, _ in pairs],
                [bound[leaf] for leaf in wanted],
                [cotangent for _, cotangent in pairs],
                allow_unused=True,
                retain_graph=True,
            )
            unreached.update(dict.fromkeys(leaf.source for leaf, g in zip(wanted, found, strict=True) if g is None))
            kept = [(slot, g.detach()) for slot, g in zip(wanted.values(), found, strict=True) if g is not None]
            self.results += [slot for slot, _ in kept]
            values += [g for _, g in kept]
        self.unreached += unreached
        return values

    def passes(self, ages: frozenset[int]) -> dict[frozenset[int], dict[Slot, Slot]]:
        """Return {ages to differentiate together: {leaf: the result it gives}}."""
        passes: dict[frozenset[int], dict[Slot, Slot]] = {}
        furthest = self.problem.furthest
        own = furthest_only(ages) if furthest else ages
        trained = [(leaf, own) for leaf in map(state_slot, self.problem.trainable)]
        trained += [(leaf, frozenset({0}) if furthest else ages) for leaf in self.head_slots()]
        for leaf, arriving in trained:
            passes.setdefault(arriving, {})[leaf] = Slot("gradients", "gradients", leaf.source)
        for value in self.block.inputs:
            if value not in self.differentiable:
                continue
            for after, before in self.departures(value, ages).items():
                passes.setdefault(before, {})[value_slot(value)] = cotangent_slot(
                    Arrival(value, self.problem.block, after)
                )
        return passes

    def departures(self, value: str, ages: frozenset[int]) -> dict[int, frozenset[int]]:
        """Return {age beyond the boundary: the ages here that leave at it}."""
        passage, limit = self.problem.sends[value], self.problem.horizon
        leaving: dict[int, set[int]] = {}
        for age in ages:
            if passage.passes(age):
                leaving.setdefault(crossed(age, limit), set()).add(age)
        return {after: frozenset(before) for after, before in sorted(leaving.items())}

    def roots(
        self, tensors: dict[Slot, Tensor], outcome: Outcome
    ) -> dict[int, list[tuple[Tensor, Tensor]]]:
        """Return {age: (root, its cotangent) pairs}: own losses are of age 0."""
        losses = self.problem.losses
        found = [(0, outcome.losses[loss.name], tensors[seed_slot(loss.name)]) for loss in losses]
        crossing = [a for a in self.problem.receives if a.consumer]
        found += [(a.age, outcome.outputs[a.value], tensors[cotangent_slot(a)]) for a in crossing]
        taught = [(f, outcome.outputs[f.value]) for f in self.problem.feedback]
        found += [(0, value, self.fed_back(feedback, tensors, value)) for feedback, value in taught]
        roots: dict[int, list[tuple[Tensor, Tensor]]] = {}
        for age, root, cotangent in found:
            if root.requires_grad:
                roots.setdefault(age, []).append((root, cotangent.to(root.dtype)))
        return roots

    def fed_back(self, feedback: Feedback, tensors: dict[Slot, Tensor], value: Tensor) -> Tensor:
        """Return what a value gets instead of a cotangent."""
        error = next(tensors[cotangent_slot(a)] for a in self.problem.receives if a.value.endswith(".error"))
        return project(error, tensors[state_slot(feedback.state)], value)

    def errors(self, tensors: dict[Slot, Tensor], outcome: Outcome) -> list[Tensor]:
        """Return the derivative of the losses by the network's output, where blocks are fed it back."""
        if not self.problem.errors:
            return []
        output = outcome.outputs[self.problem.feature["train"]]
        losses = [outcome.losses[loss.name] for loss in self.problem.losses]
        seeds = [tensors[seed_slot(loss.name)] for loss in self.problem.losses]
        (found,) = torch.autograd.grad(losses, [output], seeds, retain_graph=True)
        self.results.append(cotangent_slot(error_of(self.problem.block)))
        return [found.detach()]

    def buffer_updates(self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor]) -> list[Tensor]:
        names = [state_slot(self.aliases.get(n, n)) for n, _ in self.block.module.named_buffers()]
        names += [self.head_state(n) for n, _ in self.problem.heads.named_buffers()]
        self.results += [Slot("buffers", "buffers", s.source) for s in names]
        return [bound[s] for s in names]


@dataclass
class Outcome:
    """What a forward pass computed."""

    outputs: dict[str, Tensor]
    losses: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)
    objective: Any = 0.0

    def take(self, judged: Mapping[str, Judged], step: Step) -> None:
        """Take over the losses, and what is measured."""
        self.losses = {name: one.value for name, one in judged.items()}
        for loss in self.losses.values():
            self.objective = self.objective + loss.detach()
        self.metrics = step.measure(judged)

    def results(self, step: Step) -> list[Tensor]:
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


def state_slot(name: str) -> Slot:
    return Slot("state", "state", name)


def seed_slot(loss: str) -> Slot:
    return Slot("seed", f"seed_{loss}", loss)


def value_slot(name: str) -> Slot:
    return Slot("input", name, name)


def cotangent_slot(arrival: Arrival) -> Slot:
    """Cotangents are told apart by age only where links limit their reach; what is for any block bears its own name."""
    if not arrival.consumer:
        return Slot("cotangent", arrival.value, f"{arrival.value}@")
    suffix = f"_{arrival.age}" if arrival.age else ""
    mark = f"#{arrival.age}" if arrival.age or "#" in arrival.consumer else ""
    value, consumer = arrival.value, arrival.consumer
    return Slot("cotangent", f"d_{value}_{consumer}{suffix}", f"{value}@{consumer}{mark}")


def arrival_of(slot: Slot) -> Arrival:
    """Return what a cotangent slot carries."""
    value, _, rest = slot.source.rpartition("@")
    consumer, mark, age = rest.rpartition("#")  # a block may be the second call of a module, `cell#2`
    if not mark:
        return Arrival(value, age)
    return Arrival(value, consumer, int(age or 0))
