"""Which units does a perturbed element move? Found by differentiating one unit at a time, on the block itself.

An element that moves a single patch or group takes that unit's credit alone: the others' would be noise. The pattern
is probed at a few patches and groups: an axis is a patch axis if every probed patch depends on its own index there and
on no other. With `credit: unit` the statistics of norms do not count as a way from one element to another: the credit
that they would carry is dropped, as published, and the estimate is then biased.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from lpc.compiler.blocks import BlockModule
from lpc.compiler.capture.sites import NoiseSite, norm_calls
from lpc.compiler.coupling import KeptRun, Samples
from lpc.compiler.samples import Types, examples
from lpc.compiler.state import named_state, run_with_state
from lpc.compiler.units import WHOLE, Assignment, UnitLayout


@dataclass(frozen=True)
class Incidence:
    """What noise moves: the units of every perturbed tensor, and why its credit would be incomplete."""

    assignments: Mapping[str, Assignment]
    biases: tuple[str, ...] = ()


def incidence(
    block: BlockModule,
    feature: str,
    types: Types,
    sites: Sequence[NoiseSite],
    parameters: Sequence[str],
    layout: UnitLayout,
    credit: str,
) -> Incidence:
    """Return the assignment of every site, or of every parameter where there are no sites.

    `feature` is the output that holds the units, `parameters` are names in the block's module. `credit` is `unit`
    (norms are no path), `reach` (they are) or `all` (no element has a unit of its own).
    """
    names = [site.name for site in sites] or list(parameters)
    true = _patterns(block, feature, types, sites, parameters, layout, through_norms=True)
    biases = []
    if sites and true.couples:
        biases.append(true.couples)
    if not layout.split or credit == "all":
        return Incidence(dict.fromkeys(names, WHOLE), tuple(biases))
    reached = true.assignments(bool(sites))
    if credit == "reach":
        return Incidence(reached, tuple(biases))
    own = _patterns(block, feature, types, sites, parameters, layout, through_norms=False).assignments(bool(sites))
    wider = [name for name in names if reached[name] != own[name]]
    if wider:
        named = ", ".join(f"`{name}`" for name in wider[:3]) + (", ..." if len(wider) > 3 else "")
        biases.append(f"norms carry the noise of {named} to other units, whose credit is left out")
    return Incidence(own, tuple(biases))


@dataclass
class _Patterns:
    """For each tensor, where the derivative of each probed patch and group is not zero."""

    layout: UnitLayout
    patches: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    groups: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    couples: str | None = None

    def assignments(self, batched: bool) -> dict[str, Assignment]:
        return {name: self.assignment(name, batched) for name in self.groups}

    def assignment(self, name: str, batched: bool) -> Assignment:
        groups, first = self.groups[name], 1 if batched else 0
        shape = next(iter(groups.values())).shape
        group_axis = None
        if self.layout.groups > 1:
            axes = [a for a in range(first, len(shape)) if shape[a] % self.layout.groups == 0]
            group_axis = next((a for a in axes if self.owns_group(groups, a)), None)
        patch_axes: tuple[int, ...] = ()
        if batched and self.layout.patches > 1:
            count = len(self.layout.positions)
            runs = [tuple(range(a, a + count)) for a in range(first, len(shape) - count + 1)]
            fitting = [r for r in runs if tuple(shape[a] for a in r) == self.layout.positions and group_axis not in r]
            patch_axes = next((r for r in fitting if self.owns_patch(self.patches[name], r)), ())
        return Assignment(patch_axes, group_axis)

    def owns_group(self, patterns: Mapping[int, Tensor], axis: int) -> bool:
        def own(pattern: Tensor, group: int) -> bool:
            size = pattern.shape[axis] // self.layout.groups
            inside = pattern.narrow(axis, group * size, size)
            return bool(inside.any()) and int(inside.sum()) == int(pattern.sum())

        return all(own(pattern, group) for group, pattern in patterns.items())

    def owns_patch(self, patterns: Mapping[int, Tensor], axes: tuple[int, ...]) -> bool:
        def own(pattern: Tensor, patch: int) -> bool:
            flat = pattern.flatten(axes[0], axes[-1])
            inside = flat.select(axes[0], patch)
            return bool(inside.any()) and int(inside.sum()) == int(pattern.sum())

        return all(own(pattern, patch) for patch, pattern in patterns.items())


def _patterns(
    block: BlockModule,
    feature: str,
    types: Types,
    sites: Sequence[NoiseSite],
    parameters: Sequence[str],
    layout: UnitLayout,
    through_norms: bool,
) -> _Patterns:
    run = _Probe(block.module, sites, through_norms)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        state = {n: t.detach().cpu().clone() for n, t in named_state(block.module).items()}
        inputs = examples(block, types, state)
        for name in parameters:
            state[name].requires_grad_(True)
        outputs = run_with_state(run, state, inputs)
        output = dict(zip(block.outputs, outputs, strict=True))[feature]
        leaves = run.leaves if sites else {name: state[name] for name in parameters}
        found = _Patterns(layout)
        pattern = _Differentiated(output, leaves)
        found.couples = Samples(run, types, run.sites).told([feature]) if sites else None
        shape = output.shape[1:]
        for group in _few(layout.groups):
            for name, seen in pattern.of(_group_mask(layout, shape, group)).items():
                found.groups.setdefault(name, {})[group] = seen
        for patch in _few(layout.patches):
            for name, seen in pattern.of(_patch_mask(layout, shape, patch)).items():
                found.patches.setdefault(name, {})[patch] = seen
    return found


@dataclass(frozen=True)
class _Differentiated:
    """The derivatives of parts of an output by some tensors, as patterns of what is not zero."""

    output: Tensor
    leaves: Mapping[str, Tensor]

    def of(self, mask: Tensor) -> dict[str, Tensor]:
        cotangent = torch.randn_like(self.output) * mask
        found = torch.autograd.grad(
            self.output, list(self.leaves.values()), cotangent, allow_unused=True, retain_graph=True
        )
        return {
            name: torch.zeros_like(leaf, dtype=torch.bool) if g is None else g != 0
            for (name, leaf), g in zip(self.leaves.items(), found, strict=True)
        }


class _Probe(KeptRun):
    """Runs a block's graph with a leaf at every site, and norms as the identity unless they are a path."""

    def __init__(self, module: fx.GraphModule, sites: Sequence[NoiseSite], through_norms: bool) -> None:
        super().__init__(module)
        self.ends = {site.end.name: site.name for site in sites}
        self.norms = {} if through_norms else {last.name: first for first, last in norm_calls(module.graph)}
        self.leaves: dict[str, Tensor] = {}

    @property
    def sites(self) -> dict[str, Tensor]:
        """The leaves by the nodes that they are added to."""
        return {end: self.leaves[name] for end, name in self.ends.items()}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        first = self.norms.get(n.name)
        if first is not None:
            source = self.env[first.all_input_nodes[0]]
            if source.shape == result.shape:
                result = result.detach() + (source - source.detach())
        if n.name in self.ends:
            leaf = torch.zeros_like(result).requires_grad_(True)
            self.leaves[self.ends[n.name]] = leaf
            result = self.given[n.name] = result + leaf
        return result


def _few(count: int) -> tuple[int, ...]:
    return tuple(sorted({0, count // 2, count - 1}))


def _group_mask(layout: UnitLayout, shape: Sequence[int], group: int) -> Tensor:
    mask = torch.zeros(tuple(shape))
    size = shape[layout.axis] // layout.groups
    mask.narrow(layout.axis, group * size, size).fill_(1.0)
    return mask


def _patch_mask(layout: UnitLayout, shape: Sequence[int], patch: int) -> Tensor:
    mask = torch.ones(tuple(shape))
    if not layout.positions:
        return mask
    flat = torch.zeros(layout.patches)
    flat[patch] = 1.0
    first = 1 if layout.axis == 0 else 0  # positions stand behind the channels of a map, else before them
    sizes = [layout.positions[a - first] if 0 <= a - first < len(layout.positions) else 1 for a in range(len(shape))]
    return mask * flat.view(sizes)
