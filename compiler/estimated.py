"""What should gradients from forward derivatives be? The network's derivative along its noise, times the noise.

Independent of capture's tangents: the whole eager graph, with zeros added wherever noise enters, is transposed and the
transpose transposed again, which gives every block's tangents at once. Credit is their product with the derivatives of
the losses, which the exact reference takes; in a second run, cut at every site, it becomes the sites' cotangents. Where
noise enters and which units it moves (`noise_sites`, `incidence`) is the method's definition, and shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import networkx as nx
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lpc.compiler.capture.sites import NoiseSite, noise_sites
from lpc.compiler.capture.types import tensor_types
from lpc.compiler.credit import passages
from lpc.compiler.eager import Boundary, Crossing, Walk, stopped
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.incidence import Incidence, incidence
from lpc.compiler.localize import LocalProblem
from lpc.compiler.rehearsal import training_block
from lpc.compiler.units import Assignment, spread

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Arriving:
    """What exact derivatives give blocks that perturb: of own losses by each block's feature, of others' by values."""

    own: Mapping[str, Tensor | None]
    sent: Mapping[str, Sequence[Tensor]]


@dataclass(frozen=True)
class Perturbed:
    """Where a block's noise enters: at sites, or else in parameters (with their names in the block's module)."""

    problem: LocalProblem
    values: tuple[str, ...]
    sites: tuple[NoiseSite, ...]
    parameters: Mapping[str, str]
    incidence: Incidence

    @property
    def passes(self) -> range:
        """The draws of noise."""
        return range(self.problem.estimator.options["passes"])

    def directions(self, noise: Tensors, index: int) -> dict[str, Tensor]:
        """Return the noise of a pass, by site or parameter; none behind the last pass."""
        names = [site.name for site in self.sites] or list(self.parameters)
        drawn = {name: noise[f"{name}:{index}" if index else name] for name in names if index in self.passes}
        views = self.problem.estimator.views
        first = {name: u.chunk(views)[0] for name, u in drawn.items()} if views > 1 else {}
        return {name: torch.cat([first[name]] * views) if first else u for name, u in drawn.items()}

    def roots(self, site: NoiseSite) -> list[str]:
        """Return the nodes that get a site's cotangent; with the norm ignored, the layer before it gets it as well."""
        ignored = self.problem.estimator.options["norm_gradient"] == "ignored"
        return [site.end.name, site.layer.name] if ignored and site.layer is not site.end else [site.end.name]


@dataclass(frozen=True)
class Credit:
    """A block's credit in a pass: of its own losses [B, patches, groups], of all others [B]."""

    units: Tensor
    sample: Tensor

    def at(self, assignment: Assignment, shape: Sequence[int]) -> Tensor:
        """Return the credit of every element of an activity."""
        return spread(self.units, assignment, shape) + self.sample.reshape([-1] + [1] * (len(shape) - 1))

    def total(self) -> Tensor:
        """Return the credit of every whole sample: [B]."""
        return self.units.sum((1, 2)) + self.sample

    def of(self, assignment: Assignment, shape: Sequence[int]) -> Tensor:
        """Return the credit of every element of a weight: that of its group, over all samples and patches."""
        axis, groups = assignment.group_axis, self.units.sum((0, 1))
        if axis is None:
            return groups.sum() + self.sample.sum()
        each = groups.repeat_interleave(shape[axis] // len(groups)) + self.sample.sum()
        return each.reshape([-1 if a == axis else 1 for a in range(len(shape))])


@dataclass
class Estimation:
    """The estimates of the blocks that perturb (`problems`), in eager mode."""

    traced: Traced
    graph: nx.DiGraph[str]
    problems: Mapping[str, LocalProblem]
    state: Tensors
    noise: Tensors
    borrowed: Mapping[str, set[str]]

    def gradients(self, batch: Tensors, arriving: Arriving) -> dict[str, Tensor]:
        """Return the estimates of all parameters, from what exact derivatives give."""
        moving = self.move(batch, arriving)
        cut = self.cut(batch)
        found: dict[str, Tensor] = {}
        for block, one in self.perturbed.items():
            credits = moving.credits(block)
            if not credits:
                continue
            made = self.of_activities(one, credits, moving, cut) if one.sites else self.of_weights(one, credits)
            for name, gradient in made.items():
                found[name] = found[name] + gradient if name in found else gradient
        return found

    @cached_property
    def perturbed(self) -> dict[str, Perturbed]:
        """Return where the noise of every block enters."""
        with _default_dtype(torch.float32):
            return {block: self.find(problem) for block, problem in self.problems.items()}

    def find(self, problem: LocalProblem) -> Perturbed:
        options, feature = problem.estimator.options, problem.feature["train"]
        block, types = training_block(self.traced, self.graph, problem), tensor_types(self.traced.train)
        named = [n for n, _ in block.module.named_parameters(remove_duplicate=False)]
        names = {self.traced.tied.get(n, n): n for n in named if self.traced.tied.get(n, n) in problem.trainable}
        weights = names if options["perturb"] == "weight" else {}
        sites = () if weights else noise_sites(block.module.graph, names.values(), options["site"])
        moved = list(weights.values())
        seen = incidence(block, feature, types, sites, moved, problem.units, options["credit"])
        return Perturbed(problem, block.outputs, sites, weights, seen)

    # The run with tangents

    def move(self, batch: Tensors, arriving: Arriving) -> _Moving:
        """Run the network with zeros where noise enters, connected between blocks as their links are."""
        ends = {site.end.name: site.name for one in self.perturbed.values() for site in one.sites}
        weights = {name for one in self.perturbed.values() for name in one.parameters}
        leaves = {n: t.detach().clone().requires_grad_(n in weights) for n, t in self.state.items()}
        zeros = {name: leaves[name] for name in sorted(weights)}

        def touch(name: str, result: Any) -> Any:
            if name not in ends:
                return result
            zeros[ends[name]] = torch.zeros_like(result).requires_grad_()
            return result + zeros[ends[name]]

        with sdpa_kernel(SDPBackend.MATH):
            values = self.walk(leaves).once(batch, self.crossings(connected=True), touch)
        return _Moving(self.perturbed, values, zeros, self.noise, arriving)

    def crossings(self, connected: bool) -> dict[Boundary, Crossing]:
        links = passages(self.graph)
        both = {(a, b) for a, b in links if a in self.problems and b in self.problems}
        return {e: stopped for e, link in links.items() if not (connected and link.open and e in both)}

    def walk(self, leaves: Tensors) -> Walk:
        return Walk(self.traced, self.graph, self.problems, leaves, self.noise, self.borrowed)

    # The run that is cut at its sites

    def cut(self, batch: Tensors) -> _Cut:
        """Run the network with every site's segment on its own."""
        trained = {name for problem in self.problems.values() for name in problem.trainable}
        leaves = {n: t.detach().clone().requires_grad_(n in trained) for n, t in self.state.items()}
        cut = _Cut(leaves, {})
        ends = {n for one in self.perturbed.values() for site in one.sites for n in one.roots(site)}

        def touch(name: str, result: Any) -> Any:
            if name not in ends:
                return result
            cut.seen[name] = result
            return result.detach()

        self.walk(leaves).once(batch, self.crossings(connected=False), touch)
        return cut

    # Estimates

    def of_activities(
        self, one: Perturbed, credits: Sequence[Credit], moving: _Moving, cut: _Cut
    ) -> dict[str, Tensor]:
        """Differentiate every site's segment, with credit times noise as the site's cotangent."""
        roots: list[tuple[Tensor, Tensor]] = []
        for site in one.sites:
            shape, assignment = cut.seen[site.end.name].shape, one.incidence.assignments[site.name]
            drawn = [c.at(assignment, shape) * one.directions(self.noise, i)[site.name] for i, c in enumerate(credits)]
            cotangent = _mean(drawn).expand(shape) * moving.alive(site)
            roots += [(cut.seen[name], cotangent) for name in one.roots(site) if cut.seen[name].requires_grad]
        names, (values, cotangents) = list(one.problem.trainable), zip(*roots, strict=True)
        leaves = [cut.leaves[name] for name in names]
        found = torch.autograd.grad(values, leaves, cotangents, allow_unused=True, retain_graph=True)
        return {n: g for n, g in zip(names, found, strict=True) if g is not None}

    def of_weights(self, one: Perturbed, credits: Sequence[Credit]) -> dict[str, Tensor]:
        """Multiply every weight's noise with the credit of the units that it moves."""
        made = {}
        for name, inside in one.parameters.items():
            assignment, shape = one.incidence.assignments[inside], self.state[name].shape
            drawn = [c.of(assignment, shape) * one.directions(self.noise, i)[name] for i, c in enumerate(credits)]
            made[name] = _mean(drawn)
        return made


@dataclass
class _Cut:
    """Leaves of the state, and what stands at the ends of segments."""

    leaves: Tensors
    seen: dict[str, Tensor]


@dataclass
class _Moving:
    """The network's values, connected to the zeros that noise moves."""

    perturbed: Mapping[str, Perturbed]
    values: Mapping[str, Any]
    zeros: Tensors
    noise: Tensors
    arriving: Arriving

    def credits(self, block: str) -> list[Credit]:
        """Return a block's credit in each pass, with that of the perturbing blocks ahead; none where nothing moves."""
        one, found = self.perturbed[block], []
        for index in one.passes:
            own, *ahead = (self.own(b, index) for b in (block, *one.problem.credits))
            if own is None and all(c is None for c in ahead):
                return []
            own = own or Credit(torch.zeros(1, one.problem.units.patches, one.problem.units.groups), torch.zeros(1))
            found.append(Credit(own.units, sum((c.total() for c in ahead if c is not None), own.sample)))
        return found

    def own(self, block: str, index: int) -> Credit | None:
        """Return what a block's own losses and those of exact blocks earn it; None where its noise moves none."""
        one, tangents = self.perturbed[block], self.tangents[index]
        layout, feature, derivative = one.problem.units, one.problem.feature["train"], self.arriving.own[block]
        units = torch.zeros(1, layout.patches, layout.groups)
        moves = derivative is not None and feature in tangents
        if derivative is not None and moves:
            units = layout.credit(tangents[feature].to(units.dtype) * derivative)
        sent = [(v, g) for v in one.values for g in self.arriving.sent.get(v, ()) if v in tangents]
        sample = sum(((tangents[v].to(units.dtype) * g).flatten(1).sum(1) for v, g in sent), torch.zeros(1))
        return Credit(units, sample) if moves or sent else None

    @cached_property
    def tangents(self) -> list[dict[str, Tensor]]:
        """The derivatives of values along the noise of each pass, by value: the vjp's own vjp."""
        names = {v for one in self.perturbed.values() for v in (*one.values, one.problem.feature["train"])}
        outputs = {n: self.values[n] for n in sorted(names) if self.values[n].requires_grad}
        duals = {n: torch.zeros_like(v).requires_grad_() for n, v in outputs.items()}
        if not outputs:
            return [{} for _ in range(max(len(one.passes) for one in self.perturbed.values()))]
        transposed = torch.autograd.grad(
            list(outputs.values()), list(self.zeros.values()), list(duals.values()),
            create_graph=True, allow_unused=True,
        )  # fmt: skip
        linear = {n: g for n, g in zip(self.zeros, transposed, strict=True) if g is not None and g.requires_grad}
        found = []
        for index in range(max(len(one.passes) for one in self.perturbed.values())):
            drawn: dict[str, Tensor] = {}
            for one in self.perturbed.values():
                drawn |= one.directions(self.noise, index)
            along = [drawn[n].expand_as(g) if n in drawn else torch.zeros_like(g) for n, g in linear.items()]
            moved = torch.autograd.grad(
                list(linear.values()), list(duals.values()), along, allow_unused=True, retain_graph=True
            )
            found.append({n: t for n, t in zip(duals, moved, strict=True) if t is not None})
        return found

    def alive(self, site: NoiseSite) -> Tensor:
        """Return 1 where the rectifier behind a site lets its noise pass, else 0."""
        if site.rectifier is None:
            return torch.ones(())
        passed, zero = self.values[site.rectifier.name], self.zeros[site.name]
        (slope,) = torch.autograd.grad(passed, zero, torch.ones_like(passed), retain_graph=True)
        return (slope != 0).to(slope.dtype)


def _mean(values: Sequence[Tensor]) -> Tensor:
    return sum(values[1:], values[0]) / len(values)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
