"""What is a local step that estimates its gradient by forward derivatives? Noise, tangents, and their credit.

The block runs once with tangents: every site's noise moves what follows it. The exact derivative of the losses by the
block's output, times the output's tangent, is the losses' derivative along the noise; summed over what belongs to one
unit it is that unit's *credit*. It is the same number as the derivative of the unit's own replicated loss, which
differs from the block's in what is held fixed alone, so no copy is ever made (Ren et al. 2023, eq. 4-5). The estimate
is credit times noise: at a site it is the cotangent with which the site's segment is differentiated, of a weight the
gradient itself. Noise that a rectifier stops moves no loss: there the estimate is zero, as the gradient is. Heads learn
from their exact gradients.

Between blocks that perturb, a gradient link carries tangents forwards and each sample's credit back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lpc.compiler.capture.duals import DualRun, Tangents
from lpc.compiler.capture.joint import Outcome, Slot, Step, cotangent_slot, seed_slot, state_slot, value_slot
from lpc.compiler.capture.redraw import Redraw
from lpc.compiler.capture.sites import NoiseSite, noise_sites
from lpc.compiler.capture.types import dtype_name
from lpc.compiler.incidence import Incidence, incidence
from lpc.compiler.localize import credit_of, tangent_of
from lpc.compiler.state import run_with_state
from lpc.compiler.units import Assignment, spread
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.plan import Noise

LAWS: Mapping[str, tuple[float, ...]] = {"normal": (0.0, 1.0), "rademacher": ()}


@dataclass
class Pass:
    """One run with the tangents of one draw of noise.

    Outputs are cut off the tape; `tangents` say how they move, `seen` what sites saw, and `alive` where their noise
    passes the rectifier behind them.
    """

    noise: Mapping[str, Tensor]
    outputs: dict[str, Tensor]
    tangents: Mapping[str, Tensor | None]
    seen: Mapping[str, Tensor]
    alive: Mapping[str, Tensor]


@dataclass(frozen=True)
class Credit:
    """Derivatives of losses along the noise: of a block's own by unit [B, patches, groups], of others by sample [B]."""

    units: Tensor | None = None
    sample: Tensor | None = None

    @property
    def known(self) -> bool:
        return self.units is not None or self.sample is not None

    def __add__(self, other: Credit) -> Credit:
        return Credit(_sum(self.units, other.units), _sum(self.sample, other.sample))

    def total(self) -> Tensor:
        """Return the credit of every whole sample: [B]."""
        own = None if self.units is None else self.units.sum((1, 2))
        found = _sum(own, self.sample)
        assert found is not None
        return found

    def at(self, assignment: Assignment, shape: Sequence[Any]) -> Tensor:
        """Return what every element of a perturbed activity earns, with its axes."""
        own = None if self.units is None else spread(self.units, assignment, shape)
        whole = None if self.sample is None else self.sample.reshape([-1] + [1] * (len(shape) - 1))
        found = _sum(own, whole)
        assert found is not None
        return found

    def of(self, assignment: Assignment, shape: Sequence[Any]) -> Tensor:
        """Return what every element of a perturbed weight earns: summed over samples and patches."""
        own = None
        if self.units is not None:
            every = self.units.sum((0, 1))[None, None]
            shifted = Assignment((), None if assignment.group_axis is None else assignment.group_axis + 1)
            own = spread(every, shifted, (1, *shape))[0]
        found = _sum(own, None if self.sample is None else self.sample.sum())
        assert found is not None
        return found


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other


@dataclass
class ForwardStep(Step):
    """A block's step whose gradient is estimated from directional derivatives."""

    sites: tuple[NoiseSite, ...] = ()
    shapes: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    incidence: Incidence = field(default_factory=lambda: Incidence({}))

    shares = True

    @property
    def options(self) -> Mapping[str, Any]:
        return self.problem.estimator.options

    @property
    def draws(self) -> range:
        return range(self.options["passes"])

    @property
    def perturbs_weights(self) -> bool:
        return bool(self.options["perturb"] == "weight")

    def own_parameters(self) -> list[str]:
        """Return the names in the block's module of what is trained."""
        wanted = set(self.problem.trainable)
        names = [n for n, _ in self.block.module.named_parameters(remove_duplicate=False)]
        return [n for n in names if self.aliases.get(n, n) in wanted]

    # What goes in

    def collect(self, mode: str) -> None:
        super().collect(mode)
        self.place_noise()
        for index in self.draws:
            for value in self.problem.moves_in:
                self.arguments.add(value_slot(tangent_of(value, index)), *self.types.values[value])
            for name, shape in self.shapes.items():
                noise = self.noise(name, index)
                self.arguments.add(_noise_slot(noise), self.type_of(name), shape)
                self.drawn[noise.site] = noise

    def place_noise(self) -> None:
        """Find where noise enters, and the units that it moves."""
        parameters = self.own_parameters()
        tensors = self.network_state()
        if self.perturbs_weights:
            self.shapes = {name: tuple(tensors[name].shape) for name in parameters}
        else:
            self.sites = noise_sites(self.block.module.graph, parameters, self.options["site"])
            first = (1,) if self.options["noise"] == "shared" else ()
            found = {site.name: self.types.values[site.end.name][1] for site in self.sites}
            self.shapes = {name: (*first, *shape[len(first) :]) for name, shape in found.items()}
        self.ensure_rows()
        self.incidence = incidence(
            self.block,
            self.problem.feature["train"],
            self.types.values,
            self.sites,
            parameters if self.perturbs_weights else (),
            self.problem.units,
            self.options["credit"],
        )
        self.stamp = self.judgement()

    def ensure_rows(self) -> None:
        """Refuse (0420) to give credit for what has other rows than the losses: it is summed for each row."""
        problem, types = self.problem, self.types.values
        read = [problem.feature["train"]] if problem.losses else []
        read += [arrival.value for arrival in problem.receives if arrival.consumer]
        rows = {name: types[name][1][:1] for name in read} | {s.name: types[s.end.name][1][:1] for s in self.sites}
        by_sample = bool(problem.credits) or problem.sends_credit
        wanted = ("B",) if by_sample or not read else rows[read[0]]
        odd = next((name for name, found in rows.items() if found != wanted), None)
        if odd is not None:
            message = f"`{odd}` has no row for each sample, by which block `{problem.block}` would be given its credit"
            help = "give what computes it a block of its own, with `estimator: backprop` and a loss of its own"
            raise LpcError(Diagnostic("0420", message, help=help))

    def judgement(self) -> str:
        """Say whether the estimate is unbiased, and how much its noise adds to the variance of a gradient.

        With D elements of noise in one loss the variance of an estimate is about (D + kappa - 2) times the square of
        the gradient; kappa, the fourth moment of the noise, is 3 or 1 (Ren et al. 2023, table 1).
        """
        biases = (*self.incidence.biases, *self.problem.coupled)
        told = f"biased because {'; '.join(biases)}" if biases else "unbiased"
        size = sum(self.elements(name) for name in self.shapes)
        factor = (size + (1 if self.options["law"] == "normal" else -1)) / len(self.draws)
        losses = self.problem.units.count
        return f"{told}; {size} elements of noise in each of {losses} losses, variance factor {factor:g}"

    def elements(self, name: str) -> int:
        """Return how many elements of a site's or parameter's noise move one loss of a sample, at most."""
        shape = self.shapes[name] if self.perturbs_weights else self.shapes[name][1:]
        count = math.prod(int(size) for size in shape if not isinstance(size, str))
        owned, units = self.incidence.assignments[name], self.problem.units
        share = (units.patches if owned.patch_axes else 1) * (units.groups if owned.group_axis is not None else 1)
        return count // share

    def noise(self, name: str, index: int) -> Noise:
        """Return the noise of a site or parameter in a pass."""
        law = self.options["law"]
        outside = self.aliases.get(name, name)
        kind = TensorType(dtype_name(self.type_of(name)), self.shapes[name])
        return Noise(f"{outside}:{index}" if index else outside, law, LAWS[law], kind)

    def type_of(self, name: str) -> torch.dtype:
        ends = {site.name: site.end.name for site in self.sites}
        return self.types.values[ends[name]][0] if name in ends else self.network_state()[name].dtype

    # What happens

    def train(self, tensors: dict[Slot, Tensor]) -> list[Tensor]:
        trained = frozenset([*map(state_slot, self.problem.trainable), *self.head_slots()])
        with torch.enable_grad():
            bound = self.bind(tensors, trained)
            with self.target.autocast():
                passes = self.run_passes(tensors, bound)
                outcome = Outcome(passes[0].outputs)
                self.judge_outcome(outcome, bound)
        values = outcome.results(self)
        values += self.errors(tensors, outcome)
        values += self.directions(passes)
        values += self.estimates(tensors, bound, outcome, passes)
        return values + self.buffer_updates(tensors, bound)

    def run_passes(self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor]) -> list[Pass]:
        """Run the block for each draw of noise, always with the same dropout: all move the same losses."""
        redraw, passes = Redraw(), []
        for index in self.draws:
            with redraw.run():
                passes.append(self.run_pass(tensors, bound, index))
        return passes

    def run_pass(self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], index: int) -> Pass:
        """Run the block's graph with the tangents of one draw of noise. Only the first writes buffers."""
        tangents = Tangents()
        views = self.problem.estimator.views
        noise = {name: alike(tensors[_noise_slot(self.noise(name, index))], views) for name in self.shapes}
        inputs = {value: bound[value_slot(value)].clone() for value in self.block.inputs}
        for value in self.problem.moves_in:
            tangents.set(inputs[value], tensors[value_slot(tangent_of(value, index))])
        state = {n: bound[state_slot(self.aliases.get(n, n))] for n in self.network_state()}
        if index:
            state = {n: t if t.requires_grad else t.clone() for n, t in state.items()}
        for name in self.shapes if self.perturbs_weights else ():
            tangents.set(state[name], noise[name])
        exact = self.options["norm_gradient"] == "exact"
        run = DualRun(self.block.module, self.sites, {} if self.perturbs_weights else noise, tangents, exact)
        made = dict(zip(self.block.outputs, run_with_state(run, state, list(inputs.values())), strict=True))
        outputs = {name: value.detach() for name, value in made.items()}
        return Pass(noise, outputs, {name: tangents.of(value) for name, value in made.items()}, run.seen, run.alive)

    def judge_outcome(self, outcome: Outcome, bound: dict[Slot, Tensor]) -> None:
        """Evaluate heads and losses on the output, where the exact part of the tape starts."""
        if self.problem.losses:
            feature = outcome.outputs[self.problem.feature["train"]].requires_grad_()
            outcome.take(self.judge(feature, bound, "train"), self)

    # What comes out

    def directions(self, passes: list[Pass]) -> list[Tensor]:
        """Return the tangents of what leaves for other blocks that perturb."""
        values = []
        for index, one in enumerate(passes):
            for value in self.problem.moves_out:
                name, moved = tangent_of(value, index), one.tangents[value]
                self.results.append(Slot("output", name, name))
                values.append(torch.zeros_like(one.outputs[value]) if moved is None else moved)
        return values

    def estimates(
        self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], outcome: Outcome, passes: list[Pass]
    ) -> list[Tensor]:
        """Return exact gradients of heads, estimates for the network's parameters, and credit for blocks before."""
        derivative, values = self.exact(tensors, bound, outcome)
        credits = []
        for index, one in enumerate(passes):
            own = self.own_credit(tensors, one, derivative)
            if self.problem.sends_credit and own.known:
                self.results.append(cotangent_slot(credit_of(self.problem.block, index)))
                values.append(own.total())
            credits.append(own + self.sent_credit(tensors, index))
        if not all(credit.known for credit in credits):
            self.unreached += self.problem.trainable
            return values
        found = self.of_weights if self.perturbs_weights else self.of_activities
        for name, gradient in found(bound, passes, credits).items():
            self.results.append(Slot("gradients", "gradients", name))
            values.append(gradient.detach())
        return values

    def exact(
        self, tensors: dict[Slot, Tensor], bound: dict[Slot, Tensor], outcome: Outcome
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Return the losses' derivative by the block's output, and the gradients of the heads."""
        losses = [(outcome.losses[loss.name], tensors[seed_slot(loss.name)]) for loss in self.problem.losses]
        if not losses:
            return None, []
        slots = self.head_slots()
        leaves = [outcome.outputs[self.problem.feature["train"]], *(bound[slot] for slot in slots)]
        seeds = [seed.to(loss.dtype) for loss, seed in losses]
        first, *rest = torch.autograd.grad([loss for loss, _ in losses], leaves, seeds, allow_unused=True)
        kept = [(slot, g) for slot, g in zip(slots, rest, strict=True) if g is not None]
        self.results += [Slot("gradients", "gradients", slot.source) for slot, _ in kept]
        return first, [g.detach() for _, g in kept]

    def own_credit(self, tensors: dict[Slot, Tensor], one: Pass, derivative: Tensor | None) -> Credit:
        """Return the credit of the own losses by units, and that of what blocks behind send back exactly."""
        credit = Credit()
        moved = one.tangents[self.problem.feature["train"]] if derivative is not None else None
        if moved is not None and derivative is not None:
            credit += Credit(self.problem.units.credit(self.wide(moved) * derivative))
        sent = [(a.value, tensors[cotangent_slot(a)]) for a in self.problem.receives if a.consumer]
        sent += [(f.value, self.fed_back(f, tensors, one.outputs[f.value])) for f in self.problem.feedback]
        for value, cotangent in sent:
            tangent = one.tangents[value]
            if tangent is not None:
                credit += Credit(sample=(self.wide(tangent) * cotangent).flatten(1).sum(1))
        return credit

    def wide(self, tangent: Tensor) -> Tensor:
        """Return a tangent as credits are counted: in the run's dtype, whatever autocast computes in."""
        dtype, _ = self.types.values[credit_of(self.problem.block, 0).value]
        return tangent.to(dtype)

    def sent_credit(self, tensors: dict[Slot, Tensor], index: int) -> Credit:
        """Return what blocks behind, which perturb too, send of their credit."""
        credit = Credit()
        for arrival in self.problem.receives:
            if arrival in (credit_of(block, index) for block in self.problem.credits):
                credit += Credit(sample=tensors[cotangent_slot(arrival)])
        return credit

    def of_activities(
        self, bound: Mapping[Slot, Tensor], passes: list[Pass], credits: list[Credit]
    ) -> dict[str, Tensor]:
        """Differentiate every site's segment with credit times noise, averaged over the passes, as its cotangent."""
        names = [self.aliases.get(n, n) for n in self.own_parameters()]
        roots = [(site, passes[0].seen[site.name]) for site in self.sites]
        roots = [(site, root) for site, root in roots if root.requires_grad]
        cotangents = []
        for site, root in roots:
            assignment = self.incidence.assignments[site.name]
            drawn = [c.at(assignment, root.shape) * p.noise[site.name] for c, p in zip(credits, passes, strict=True)]
            alive = passes[0].alive.get(site.name)
            earned = _mean(drawn) if alive is None else _mean(drawn) * alive
            cotangents.append(earned.expand_as(root).to(root.dtype))
        leaves = [bound[state_slot(name)] for name in names]
        found = torch.autograd.grad([root for _, root in roots], leaves, cotangents, allow_unused=True)
        self.unreached += [name for name, g in zip(names, found, strict=True) if g is None]
        return {name: g for name, g in zip(names, found, strict=True) if g is not None}

    def of_weights(
        self, bound: Mapping[Slot, Tensor], passes: list[Pass], credits: list[Credit]
    ) -> dict[str, Tensor]:
        """Multiply every parameter's direction with the credit of the units that it moves."""
        made = {}
        for name, shape in self.shapes.items():
            group = self.incidence.assignments[name]
            drawn = [c.of(group, shape) * p.noise[name] for c, p in zip(credits, passes, strict=True)]
            made[self.aliases.get(name, name)] = _mean(drawn)
        return made


def alike(noise: Tensor, views: int) -> Tensor:
    """Give all views of a sample, parts of the batch one after another, the noise of the first one."""
    if views == 1:
        return noise
    size = noise.shape[0]
    return noise.index_select(0, torch.arange(size, device=noise.device) % (size // views))


def _mean(values: list[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total if len(values) == 1 else total / len(values)


def _noise_slot(noise: Noise) -> Slot:
    return Slot("random", f"noise_{noise.site}", noise.site)
