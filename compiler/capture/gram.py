"""How do steps on a squared loss go without the samples? Through the second moments of the layer's inputs.

The gradient of s/2 |X W - T|^2 at W is that at W0 plus s X'X (W - W0): after the first step neither X nor T is needed.
A step costs inputs^2 x outputs instead of 2 rows x inputs x outputs products.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lpc.compiler.capture.design import Design, design_of
from lpc.compiler.capture.joint import Slot, state_slot
from lpc.compiler.capture.moments import Moments, anchor_slot, first_slot, moment_slots
from lpc.compiler.capture.target import SolveStep


class GramStep(SolveStep):
    """The gradient at other weights, by the moments."""

    def collect(self, mode: str) -> None:
        super().collect(mode)
        tensors = {self.known(name): name for name in self.problem.trainable}
        state = self.network_state()
        weight = next(state[n] for n in tensors if state[n].dim() > 1)
        inputs = weight[0].numel()
        for slot, shape in zip(moment_slots(self.goal), ((inputs, inputs), (inputs,), ()), strict=True):
            self.arguments.add(slot, weight.dtype, shape)
        for n, name in tensors.items():
            for slot in (anchor_slot(self.goal, name), first_slot(self.goal, name)):
                self.arguments.add(slot, state[n].dtype, state[n].shape)

    def train(self, tensors: dict[Slot, Tensor]) -> list[Tensor]:
        layer = next(n for n in self.block.module.graph.nodes if n.name == self.goal.node)
        trained = {self.known(name): name for name in self.problem.trainable}
        design = design_of(self.block.module, layer, trained)
        known = Moments(*(tensors[slot] for slot in moment_slots(self.goal)))
        gone = {n: tensors[state_slot(n)] - tensors[anchor_slot(self.goal, n)] for n in self.problem.trainable}
        first = {n: tensors[first_slot(self.goal, n)] for n in self.problem.trainable}
        found = moved(design, known, gone, first)
        self.results += [Slot("gradients", "gradients", name) for name in found]
        return list(found.values())


def moved(
    design: Design, known: Moments, gone: Mapping[str, Tensor], first: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the gradients at weights that have `gone` so far from the first ones, whose gradients are `first`."""
    way, start = gone[design.weight].flatten(1), first[design.weight]
    weight = torch.addmm(start.flatten(1), way, known.pairs)
    if design.bias is None:
        return {design.weight: weight.reshape(start.shape)}
    off = gone[design.bias]
    return {
        design.weight: torch.addr(weight, off, known.sums).reshape(start.shape),
        design.bias: first[design.bias] + way @ known.sums + known.count * off,
    }
