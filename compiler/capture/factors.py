"""What is the step of a block whose optimizer takes Kronecker factors? The usual one, with two moments a layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from lpc.compiler.capture.joint import Outcome, Slot, Step, state_slot
from lpc.compiler.capture.tracing import LabelledRun
from lpc.compiler.factored import FactoredLayer


class WatchedRun(LabelledRun):
    """Runs a block's graph and keeps what some layers read and return, safe from operators in place."""

    def __init__(self, module: fx.GraphModule, watched: Collection[str]) -> None:
        super().__init__(module)
        self.watched = frozenset(watched)
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name not in self.watched:
            return result
        self.inputs[n.name], self.outputs[n.name] = self.env[n.all_input_nodes[0]], result
        return result.clone()


class FactorStep(Step):
    """Forward, losses, gradients and cotangents as ever; the derivatives by layers' outputs as their second moments."""

    run: WatchedRun

    def interpreter(self, bound: Mapping[Slot, Tensor]) -> LabelledRun:
        self.run = WatchedRun(self.block.module, {layer.node for layer in self.problem.factored})
        return self.run

    def passes(self, ages: frozenset[int]) -> dict[frozenset[int], dict[Slot, Slot]]:
        found = super().passes(ages)
        for layer in self.problem.factored:
            slot = errors_slot(layer)
            found.setdefault(ages, {})[slot] = slot
        return found

    def gradients(
        self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], outcome: Outcome
    ) -> list[Tensor]:
        start, layers = len(self.results), {errors_slot(layer): layer for layer in self.problem.factored}
        outputs = {slot: self.run.outputs[layer.node] for slot, layer in layers.items()}
        values = super().gradients(tensors, {**bound, **outputs}, outcome)
        own = {slot.source for slot in layers}
        self.unreached = [name for name in self.unreached if name not in own]  # its weights are told
        for index, slot in enumerate(self.results[start:]):
            if slot in layers:
                values[index] = errors_moment(layers[slot], values[index], tensors)
        for slot, layer in layers.items():
            if slot in self.results:
                self.results.append(inputs_slot(layer))
                values.append(inputs_moment(layer, self.run.inputs[layer.node].detach(), tensors))
        return values


def inputs_moment(layer: FactoredLayer, x: Tensor, tensors: Mapping[Slot, Tensor]) -> Tensor:
    """Return the mean over samples of x x', summed over positions, with a one behind x where there is a bias."""
    rows = layer.design.rows(x.to(_dtype(layer, tensors)))
    return (rows.t() @ rows) / x.shape[0]


def errors_moment(layer: FactoredLayer, g: Tensor, tensors: Mapping[Slot, Tensor]) -> Tensor:
    """Return the mean over samples and positions of g g'; a sample's loss enters the gradient by 1/B."""
    rows = layer.design.columns(g.to(_dtype(layer, tensors)))
    positions = math.prod(g.shape[1:]) // layer.sizes.outputs
    return (rows.t() @ rows) * g.shape[0] / positions


def inputs_slot(layer: FactoredLayer) -> Slot:
    """Return where the second moments of a layer's inputs go."""
    return Slot("factors", "factors", layer.sizes.sources[0])


def errors_slot(layer: FactoredLayer) -> Slot:
    """Return where the second moments of the derivatives by its outputs go."""
    return Slot("factors", "factors", layer.sizes.sources[1])


def _dtype(layer: FactoredLayer, tensors: Mapping[Slot, Tensor]) -> torch.dtype:
    return tensors[state_slot(layer.design.weight)].dtype
