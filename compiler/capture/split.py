"""Which kernels does a layer need that is split from the others? How its variables begin, and all of its solutions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from lpc.compiler.capture.cut import ports
from lpc.compiler.capture.joint import LocalGraph, Slot, Step, state_slot, value_slot
from lpc.compiler.capture.lower import lower
from lpc.compiler.capture.relaxed import Watched
from lpc.compiler.capture.tracing import LabelledRun
from lpc.compiler.least_squares import fitted
from lpc.compiler.split_formulas import PROXIMAL, activity, bent, held, preactivity
from lpc.compiler.split_schedule import SplitKernels
from lpc.compiler.splitting import SplitLayer
from lpc.compiler.state import run_with_state
from lpc.specs.plan.kernel import Kernel, TensorType
from lpc.specs.plan.plan import Noise

WEIGHTS, OBJECTIVE = "weights", "objective"
BEGUN = "begun."  # in front of a variable's name: its first value
Given = Mapping[Slot, Tensor]


@dataclass
class _State:
    """A layer's values while they are solved, one after another."""

    rows: Tensor
    weights: list[Tensor]
    values: dict[str, Tensor]

    def computed(self) -> Tensor:
        """Return what the layer makes of what it reads."""
        return F.linear(self.rows, *self.weights)


@dataclass
class SplitStep(Step):
    """Traces the first values of a layer's variables and one solution of each, with its weights."""

    watched: Watched | None = None
    sites: dict[str, Noise] = field(default_factory=dict)

    @property
    def layer(self) -> SplitLayer:
        assert self.problem.split is not None
        return self.problem.split

    def interpreter(self, bound: Given) -> LabelledRun:
        self.watched = Watched(self.block.module)
        self.watched.node = self.layer.node
        return self.watched

    def collect(self, mode: str) -> None:
        super().collect("eval")  # no seeds: nothing is differentiated
        if mode != "train":
            return
        above = self.problem.above
        for name, size in above.parameters.items() if above is not None else ():
            self.arguments.add(state_slot(name), self.types.values[self.layer.node][0], size)
        values = {**self.layer.variables, **({above.z: above.node} if above is not None else {})}
        for name, node in values.items():
            self.arguments.add(value_slot(name), *self.types.values[node])
        for name, node in self.layer.variables.items() if self.layer.split.init == "normal" else ():
            if name != self.layer.multiplier:
                dtype, shape = self.types.values[node]
                kind = TensorType(str(dtype).removeprefix("torch."), shape)
                self.sites[name] = self.drawn[name] = Noise(name, "normal", (0.0, 1.0), kind)
                self.arguments.add(Slot("random", f"noise_{name}", name), dtype, shape)

    def train(self, tensors: dict[Slot, Tensor]) -> list[Tensor]:
        with torch.no_grad():
            inputs = [tensors[value_slot(v)] for v in self.block.inputs]
            own = {n: tensors[state_slot(self.aliases.get(n, n))] for n in self.network_state()}
            run_with_state(self.interpreter(tensors), own, inputs)
            assert self.watched is not None
            assert self.watched.seen is not None
            weights = [tensors[state_slot(n)] for n in self.layer.parameters]
            state = _State(self.watched.seen, weights, {n: tensors[value_slot(n)] for n in self.layer.variables})
            return [*self.begun(tensors, state), *self.grown(state), *self.solved(tensors, state)]

    def begun(self, tensors: Given, state: _State) -> list[Tensor]:
        """Return the variables' first values."""
        layer, made = self.layer, state.computed()
        first = {layer.z: made, layer.a: bent(made, layer.slope), layer.multiplier: torch.zeros_like(made)}
        first |= {name: tensors[Slot("random", f"noise_{name}", name)].clone() for name in self.sites}
        self.results += [Slot("output", f"{BEGUN}{name}", name) for name in layer.variables]
        return [first[name] for name in layer.variables]

    def grown(self, state: _State) -> list[Tensor]:
        """Return the multiplier after a step of its own."""
        layer = self.layer
        if layer.multiplier not in layer.variables:
            return []
        self.results.append(Slot("output", layer.multiplier, layer.multiplier))
        residual = state.values[layer.z] - state.computed()
        return [state.values[layer.multiplier] + layer.split.beta * residual]

    def solved(self, tensors: Given, state: _State) -> list[Tensor]:
        """Return the solutions in their order, and the layer's part of the objective afterwards."""
        layer = self.layer
        turns = [self.solve_weights, *([self.solve_a] if layer.above is not None else []), self.solve_z]
        for turn in turns if layer.split.order == "forward" else [*turns[1:], turns[0]]:
            turn(tensors, state)
        names = [n for n in layer.variables if n != layer.multiplier]
        self.results += [Slot("buffers", WEIGHTS, n) for n in layer.parameters]
        self.results += [Slot("output", n, n) for n in names]
        self.results.append(Slot("metric", OBJECTIVE, OBJECTIVE))
        return [*state.weights, *(state.values[n] for n in names), self.objective(tensors, state)]

    def solve_weights(self, tensors: Given, state: _State) -> None:
        split = self.layer.split
        state.weights = fitted(state.rows, state.values[self.layer.z], state.weights, split.hold / split.beta)

    def solve_a(self, tensors: Given, state: _State) -> None:
        above, split, layer = self.problem.above, self.layer.split, self.layer
        assert above is not None
        weights = [tensors[state_slot(n)] for n in above.parameters]
        made = bent(state.values[layer.z], layer.slope)
        target, before = tensors[value_slot(above.z)], state.values[layer.a]
        state.values[layer.a] = activity(weights, target, made, before, split.beta, split.gamma, split.hold)

    def solve_z(self, tensors: Given, state: _State) -> None:
        layer, split = self.layer, self.layer.split
        mean, before = state.computed(), state.values[layer.z]
        if layer.above is not None:
            a = state.values[layer.a]
            state.values[layer.z] = preactivity(a, mean, before, layer.slope, split.beta, split.gamma, split.hold)
            return
        mean, beta = held(mean, before, split.beta, split.hold)
        if layer.multiplier in state.values:
            mean = mean - state.values[layer.multiplier] / (2.0 * beta)
        truth = tensors[value_slot(self.problem.losses[0].target["train"])]
        state.values[layer.z] = PROXIMAL[layer.loss](mean, truth, self.counts(mean), beta)

    def counts(self, z: Tensor) -> Tensor:
        """Return what an element counts in the loss."""
        loss = self.problem.losses[0]
        parts = {"sum": z[0, 0], "batchmean": z[:, 0], "mean": z}
        return loss.weight / torch.ones_like(parts[str(loss.options["reduction"])]).sum()

    def objective(self, tensors: Given, state: _State) -> Tensor:
        """Return the layer's part of what is minimised."""
        layer, split, z = self.layer, self.layer.split, state.values[self.layer.z]
        total = split.beta * ((z - state.computed()) ** 2).sum()
        if layer.above is not None:
            return total + split.gamma * ((state.values[layer.a] - bent(z, layer.slope)) ** 2).sum()
        if layer.multiplier in state.values:
            total = total + (z * state.values[layer.multiplier]).sum()
        judged = self.judge(z, dict(tensors), "train")
        return total + sum(one.value for one in judged.values())


def split_kernels(local: LocalGraph, layer: SplitLayer) -> SplitKernels:
    """Cut a layer's graph into what the step calls."""
    whole = ports(local)

    def kernel(kind: str, wanted: set[str]) -> Kernel:
        results = [(s, n) for s, n in whole.results if s.bundle in wanted]
        return lower(f"{layer.block}.{kind}", layer.block, local.graph, whole.arguments, results, local.symbols)

    solved = {WEIGHTS, OBJECTIVE, layer.z, layer.a}
    grows = layer.multiplier in layer.variables
    return SplitKernels(
        kernel("begin", {f"{BEGUN}{n}" for n in layer.variables}),
        kernel("solve", solved),
        kernel("grow", {layer.multiplier}) if grows else None,
    )
