"""Does one sample of a batch move another one's values, and in which operator? Found by differentiating one sample.

The derivative of the first sample's part of a value says which samples move it. What is the same for all samples, such
as a mask without an axis for them, is no sample of its own; a value without one that samples move couples them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lpc.compiler.blocks import BlockModule
from lpc.compiler.capture.tracing import LabelledRun
from lpc.compiler.samples import SAMPLES, Types, examples
from lpc.compiler.state import named_state, run_with_state

BATCH = re.compile(r"\bB\b")


def coupling(block: BlockModule, types: Types) -> str | None:
    """Return the operator in which a sample's input moves another sample's output, or that this is not known.

    None where every sample is apart.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        state = {n: t.detach().cpu().clone() for n, t in named_state(block.module).items()}
        inputs = dict(zip(block.inputs, examples(block, types, state), strict=True))
        moving = {name: x.requires_grad_() for name, x in inputs.items() if x.is_floating_point()}
        run = KeptRun(block.module)
        run_with_state(run, state, [x.clone() if x.requires_grad else x for x in inputs.values()])
        return Samples(run, types, moving).told(block.outputs)


class KeptRun(LabelledRun):
    """Runs a block's graph and keeps the tensors that its nodes give, by name."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.given: dict[str, Tensor] = {}
        self.nodes: dict[str, fx.Node] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.given[n.name], self.nodes[n.name] = result, n
        return result


@dataclass(frozen=True)
class Samples:
    """What a run has computed, and its `leaves`, by the names of nodes, whose samples may move others."""

    run: KeptRun
    types: Types
    leaves: Mapping[str, Tensor]

    def told(self, outputs: Sequence[str]) -> str | None:
        """Return what couples the samples on the way to some outputs, as a clause of a sentence."""
        if not any(self.mixes(name) for name in outputs):
            return None
        first = next(name for name in self.run.given if self.mixes(name))
        node = self.run.nodes[first]
        place = node.meta.get("path") or first
        if any(bool(g.isnan().any()) for g in self.slopes(first).values()):
            return f"lpc cannot tell whether `{place}` keeps samples apart, as its derivative is no number here"
        return f"`{place}` couples the samples"

    def mixes(self, name: str) -> bool:
        """Does a sample's leaf move what a node gives for another sample, or for all?"""
        value = self.run.given[name]
        if name not in self.types or not value.requires_grad:
            return False
        everyone = self.part(name, value) is None
        return any(bool(self.others(n, g, everyone).any()) for n, g in self.slopes(name).items())

    def others(self, leaf: str, slope: Tensor, everyone: bool) -> Tensor:
        """Return the derivatives by other samples than the first, or by every one."""
        part = self.part(leaf, slope)
        if part is None or everyone:
            return slope
        axis, rows = part
        return slope.narrow(axis, rows, slope.shape[axis] - rows)

    def slopes(self, name: str) -> dict[str, Tensor]:
        """Return the derivatives of the first sample's part of a value, or of all, by the leaves that have samples."""
        value, part = self.run.given[name], self.part(name, self.run.given[name])
        mask = torch.ones_like(value)
        if part is not None:
            axis, rows = part
            mask.narrow(axis, rows, value.shape[axis] - rows).zero_()
        leaves = {n: leaf for n, leaf in self.leaves.items() if self.part(n, leaf) is not None}
        found = torch.autograd.grad(
            value, list(leaves.values()), torch.randn_like(value) * mask, allow_unused=True, retain_graph=True
        )
        return {n: g for n, g in zip(leaves, found, strict=True) if g is not None}

    def part(self, name: str, value: Tensor) -> tuple[int, int] | None:
        """Return the axis of a value's samples, and how many rows are the first one's; None where it has none."""
        lengths = enumerate(self.types[name][1])
        axis = next((a for a, length in lengths if isinstance(length, str) and BATCH.search(length)), None)
        return None if axis is None else (axis, value.shape[axis] // SAMPLES)
