"""What is the step of a block to whose target inverses carry? Its own gradient, and the difference that it sends on.

Of the difference d that comes back follow the target, h - d, the gradient of |h - target|^2 by the weights, and for
the block before g(h) - g(h - d). The head g learns from what the block makes of its input with noise on it, and from
nothing else; the block runs on both inputs with the same masks, and its buffers move once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lpc.compiler.capture.joint import Outcome, Slot, Step, cotangent_slot, seed_slot, state_slot, value_slot
from lpc.compiler.capture.redraw import Redrop
from lpc.compiler.capture.target import reduced, target_slot
from lpc.compiler.capture.tracing import origin
from lpc.compiler.local_loss import Judged, judge
from lpc.compiler.localize import Arrival
from lpc.compiler.targets import Carrying, Target


@dataclass
class DifferenceStep(Step):
    """Forward, the loss of the inverse, the target, the weights' gradient towards it, and what leaves for others."""

    redraw: Redrop = field(default_factory=Redrop)

    shares = True  # what is not random is the same on both inputs where there is no noise

    @property
    def goal(self) -> Target:
        assert self.problem.target is not None, "the step of a block with a target"
        return self.problem.target

    def trainable_slots(self) -> list[Slot]:
        return [*map(state_slot, self.problem.trainable), *self.head_slots()]

    def train(self, tensors: dict[Slot, Tensor]) -> list[Tensor]:
        self.redraw = Redrop()
        return super().train(tensors)

    def outputs(self, bound: Mapping[Slot, Tensor]) -> dict[str, Tensor]:
        copies = {value_slot(v): bound[value_slot(v)].clone() for v in self.block.inputs}  # for operators in place
        with self.redraw.run():
            return super().outputs({**bound, **copies})

    def judge(self, feature: Tensor, bound: dict[Slot, Tensor], mode: str) -> dict[str, Judged]:
        """In training judge the head by the block's input with noise; in evaluation by the input as it is."""
        carrying = self.goal.carrying
        if mode != "train" or carrying is None:
            return super().judge(feature, bound, mode)
        problem = self.problem
        with torch.no_grad():
            noisy = self.noisy(carrying, bound[value_slot(carrying.read)])
            again = self.outputs({**self.apart(bound), value_slot(carrying.read): noisy})[self.goal.node]
        state = {n: bound[self.head_state(n)] for n in problem.heads.state()}
        targets = {carrying.inverse: noisy}
        return judge(problem.block, problem.losses, problem.heads, state, again, targets, origin)

    def noisy(self, carrying: Carrying, x: Tensor) -> Tensor:
        """Return the block's input with noise, which is drawn at the site of the loss."""
        loss = next(loss for loss in self.problem.losses if loss.name == carrying.inverse)
        deviation = float(loss.options["noise"])
        with origin(f"{self.problem.block}.{loss.name}"):
            return x + deviation * torch.randn_like(x) if deviation else x

    def apart(self, bound: Mapping[Slot, Tensor]) -> dict[Slot, Tensor]:
        """Return all arguments off the tape; buffers that move are copies."""
        return {slot: t.detach() if t.requires_grad else t.clone() for slot, t in bound.items()}

    def gradients(
        self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], outcome: Outcome
    ) -> list[Tensor]:
        """Return the head's gradients, and where something comes back what leaves, the target, the weights' own."""
        values = self.of_heads(tensors, bound, outcome)
        arrived = [tensors[cotangent_slot(a)] for a in self.problem.receives]
        if not arrived:
            self.unreached += self.problem.trainable
            return values
        h = outcome.outputs[self.goal.node]
        left = self.goal.step * sum(arrived[1:], arrived[0])
        carrying = self.goal.carrying
        if carrying is not None and carrying.read in self.differentiable:
            self.results.append(cotangent_slot(Arrival(carrying.read, self.problem.block)))
            values.append(self.carried(carrying, tensors, h.detach(), left))
        self.results.append(target_slot(self.goal))
        values.append(h.detach() - left)
        weights = [state_slot(name) for name in self.problem.trainable]
        return values + self.learned(weights, bound, h, reduced(self.goal, 2.0 * left))

    def of_heads(self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], outcome: Outcome) -> list[Tensor]:
        found: list[Tensor] = []
        for loss in self.problem.losses:
            value = outcome.losses[loss.name]
            found += self.learned(self.head_slots(), bound, value, tensors[seed_slot(loss.name)].to(value.dtype))
        return found

    def learned(self, slots: list[Slot], bound: Mapping[Slot, Tensor], root: Tensor, cotangent: Tensor) -> list[Tensor]:
        """Return the gradients by those arguments that a root depends on."""
        if not root.requires_grad or not slots:
            self.unreached += [slot.source for slot in slots]
            return []
        leaves = [bound[slot] for slot in slots]
        found = torch.autograd.grad([root], leaves, [cotangent], allow_unused=True, retain_graph=True)
        self.unreached += [slot.source for slot, g in zip(slots, found, strict=True) if g is None]
        kept = [(slot, g.detach()) for slot, g in zip(slots, found, strict=True) if g is not None]
        self.results += [Slot("gradients", "gradients", slot.source) for slot, _ in kept]
        return [g for _, g in kept]

    def carried(self, carrying: Carrying, tensors: Mapping[Slot, Tensor], h: Tensor, left: Tensor) -> Tensor:
        """Return g(h) - g(h - d), with the shape and the dtype of the block's input."""
        x = tensors[value_slot(carrying.read)]
        with torch.no_grad(), self.target.autocast():
            here, there = (self.taken_back(carrying, tensors, value) for value in (h, h - left))
            return (here - there).reshape(x.shape).to(x.dtype)

    def taken_back(self, carrying: Carrying, tensors: Mapping[Slot, Tensor], value: Tensor) -> Tensor:
        state = {n: tensors[self.head_state(n)].clone() for n in self.problem.heads.state()}
        return self.problem.heads.call(carrying.inverse, state, value)
