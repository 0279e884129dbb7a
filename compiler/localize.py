"""What does each block minimise? One local problem per block, read from the spec's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import networkx as nx
import torch
from torch import Tensor, fx

from lpc.compiler.blocks import outside_readers
from lpc.compiler.credit import Passage, crossed, horizon, passages
from lpc.compiler.differences import differences
from lpc.compiler.directions import Directions, is_feedback
from lpc.compiler.estimator import Estimator
from lpc.compiler.factored import FactoredLayer, borrowers, factored_layers
from lpc.compiler.formulas import formula_optimizer
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.groups import Group, groups
from lpc.compiler.inner import ensure_inner
from lpc.compiler.layer_solver import LayerSolver, layer_solver
from lpc.compiler.learned import learned
from lpc.compiler.local_loss import Judged, LocalLoss, LocalModules
from lpc.compiler.objective import Objectives, output_node
from lpc.compiler.partition.layers import is_spatial
from lpc.compiler.rules import stated, stated_at
from lpc.compiler.solver import solver
from lpc.compiler.splitting import SplitLayer
from lpc.compiler.targets import Target, targets
from lpc.compiler.units import UnitLayout, ensure_splits, unit_layout
from lpc.compiler.variables import Consistency, Variable, Variables, consistency
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.plan import Optimizer
from lpc.specs.signatures import LINKS


@dataclass(frozen=True)
class Arrival:
    """A cotangent that comes back for the value that the node `value` gives `consumer`; its age as in `credit`.

    Without a consumer it is no cotangent of a value, but one that any block may read, under the name `value`.
    """

    value: str
    consumer: str
    age: int = 0


@dataclass(frozen=True)
class Feedback:
    """What a value of the block gets back instead of a cotangent: the output's error, projected by a fixed matrix."""

    value: str
    state: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class LocalProblem:
    """A block's variables, objective and solver.

    `feature` is the node (per mode) that the head reads. `trainable` are the network parameters that get a
    gradient here, by canonical name. `receives` are the cotangents that may come back; `sends` the outside
    tensors whose cotangents this block computes, each with the passage of its boundary, under the network's
    `horizon`. With `furthest` only the oldest cotangents train the parameters, and the head's own loss the head.

    A block that perturbs (`estimator`) reads tangents of the values `moves_in`, hands on those of `moves_out`, takes
    the credit of the blocks in `credits`, and sends its own if `sends_credit`; its own losses' by its `units`.
    `coupled` tells where in those of `credits` a sample moves another's losses; what that would earn is not told.
    With a `target` what comes back teaches no parameter: it makes the target of a problem of the block's own.
    `feedback` are the values that get a projection of the output's error, which the output's block sends (`errors`).
    Of the layers in `factored` its optimizer gets the Kronecker factors.
    In a network that is split it is a layer (`split`), with the next one `above`.
    Auxiliary variables stand for what it computes (`makes`) and reads (`reads`); `consistency` says how it fits them.
    In a `group` gradient links join it to other blocks between them.
    """

    block: str
    feature: dict[str, str]
    losses: tuple[LocalLoss, ...]
    trainable: tuple[str, ...]
    receives: tuple[Arrival, ...]
    sends: Mapping[str, Passage]
    optimizer: Optimizer | None
    heads: LocalModules = field(default_factory=LocalModules)
    memory: str = "immediate"
    horizon: int = 0
    furthest: bool = False
    estimator: Estimator = field(default_factory=Estimator)
    units: UnitLayout = field(default_factory=UnitLayout)
    moves_in: tuple[str, ...] = ()
    moves_out: tuple[str, ...] = ()
    credits: tuple[str, ...] = ()
    sends_credit: bool = False
    feedback: tuple[Feedback, ...] = ()
    errors: bool = False
    warnings: tuple[str, ...] = field(default=())
    coupled: tuple[str, ...] = ()
    target: Target | None = None
    makes: tuple[Variable, ...] = ()
    reads: tuple[Variable, ...] = ()
    consistency: Consistency = field(default_factory=Consistency)
    layer_solver: LayerSolver | None = None
    factored: tuple[FactoredLayer, ...] = ()
    split: SplitLayer | None = None
    above: SplitLayer | None = None
    group: Group | None = None

    def measured(self, judged: Mapping[str, Judged], names: Sequence[str]) -> dict[str, Tensor]:
        """Return the metrics called `names` of the first loss that has any."""
        loss = next((loss for loss in self.losses if loss.classifies), None)
        if loss is None:
            return {}
        sight = judged[loss.name].sight
        seen = replace(sight, prediction=sight.prediction.detach(), feature=sight.feature.detach())
        with torch.no_grad():
            return {name: loss.metrics[name](seen, loss.options) for name in names if name in loss.metrics}

    @property
    def around(self) -> tuple[Variable, ...]:
        """The variables of the problem that it is, or is a piece of."""
        return (*self.group.makes, *self.group.reads) if self.group is not None else (*self.makes, *self.reads)

    @property
    def moves(self) -> bool:
        """Is it a piece of a group, and does what it computes depend on variables?"""
        return self.group is not None and self.group.moves(self.block)

    @property
    def by_formula(self) -> bool:
        """Is its target's problem solved by a formula, in a kernel of its own?"""
        return self.target is not None and self.target.formula.known


def localize(
    spec: Spec,
    traced: Traced,
    graph: nx.DiGraph[str],
    fields: Mapping[str, TensorType],
    variables: Variables | None = None,
    layers: Mapping[str, SplitLayer] | None = None,
) -> dict[str, LocalProblem]:
    """Return the local problem of every block, in topological order.

    `fields` are the batch fields with the batch axis first. Raises LpcError for a block that could not learn.
    """
    _ensure_chain(spec, graph)
    flow = Directions(spec, graph)
    flow.ensure_sound()
    objectives = Objectives(spec, traced, graph, fields)
    aims = {**targets(spec, traced, graph), **differences(spec, traced, graph)}
    between = variables or Variables()
    joined = groups(spec, graph, between)
    writer = _Localizer(spec, traced, graph, objectives, flow, aims, between, layers or {}, joined)
    problems = {block: writer.problem(block) for block in graph.nodes}
    ensure_splits(spec, [problem.units for problem in problems.values()])
    return problems


@dataclass
class _Localizer:
    spec: Spec
    traced: Traced
    graph: nx.DiGraph[str]
    objectives: Objectives
    flow: Directions
    aims: Mapping[str, Target]
    variables: Variables
    layers: Mapping[str, SplitLayer]
    groups: Mapping[str, Group]

    @cached_property
    def passages(self) -> dict[tuple[str, str], Passage]:
        return passages(self.graph)

    @cached_property
    def limit(self) -> int:
        return horizon(self.graph)

    @cached_property
    def furthest(self) -> bool:
        return any(passage.furthest for passage in self.passages.values())

    def problem(self, block: str) -> LocalProblem:
        feature = {mode: self.feature(block, mode) for mode in ("train", "eval")}
        makes, reads = self.variables.made_by(block), self.variables.read_by(block)
        objective = self.objectives.of(block, feature, fits=bool(makes))
        losses, heads = objective.losses, objective.heads
        receives, sends = self.gradient_links(block)
        feedback = self.feedback(block)
        trainable = self.trainable(block)
        by_formula = layer_solver(self.spec, self.traced, self.graph, block, trainable, makes)
        split = self.layers.get(block)
        trainable = trainable if by_formula is None and split is None else ()
        learns = bool(trainable) or any(True for _ in heads.named_parameters())
        if learns and not losses and not receives and not makes:
            raise LpcError(self.no_objective(block))
        steps = learns and self.steps(block, trainable, heads)
        optimizer = self.optimizer(block, trainable, heads) if steps else None
        factored = self.factored(block, trainable, optimizer)
        if optimizer is not None and factored:
            optimizer = replace(optimizer, factors=tuple(layer.sizes for layer in factored))
        memory = stated(self.spec, block, "memory") or "immediate"
        return LocalProblem(
            block,
            feature,
            losses,
            trainable,
            receives,
            sends,
            optimizer,
            heads,
            str(memory),
            self.limit,
            self.furthest,
            self.flow.estimators[block],
            self.units(block, feature["train"]),
            tuple(self.tangents(self.flow.movers(block), block)),
            tuple(dict.fromkeys(v for c in self.flow.moved(block) for v in self.tangents([block], c))),
            self.flow.ahead(block),
            bool(self.flow.movers(block)),
            feedback,
            self.objectives.is_output(block) and any(is_feedback(d) for *_, d in self.graph.edges(data=True)),
            target=self.aims.get(block),
            layer_solver=by_formula,
            split=split,
            above=self.layers.get(split.above or "") if split is not None else None,
            makes=makes,
            reads=reads,
            consistency=consistency(self.spec, block) if makes else Consistency(),
            group=self.groups.get(block),
            factored=factored,
        )

    def units(self, block: str, feature: str) -> UnitLayout:
        """Return the units of a block's output."""
        shape, nodes = self.objectives.type(feature).shape[1:], set(self.graph.nodes[block]["nodes"]["train"])
        spatial = any(n.name in nodes and is_spatial(n) for n in self.traced.train.graph.nodes)
        return unit_layout(self.spec, block, shape, spatial and len(shape) == 3, self.objectives.is_output(block))

    def tangents(self, producers: Sequence[str], consumer: str) -> list[str]:
        """Return the values whose tangents cross from producers to a consumer."""
        return [name for p in producers for name in self.crossing(self.graph.edges[p, consumer])]

    def feedback(self, block: str) -> tuple[Feedback, ...]:
        """Return what of the block's output is taught by the error of the network's output.

        What the block computes from a value that is taught already needs no second lesson.
        """
        terms = {
            name: data["link"]
            for *_, data in self.graph.out_edges(block, data=True)
            if is_feedback(data)
            for name in self.crossing(data)
        }
        terms = {name: terms[name] for name in self.first(block, list(terms))}
        single = len(terms) == 1
        return tuple(
            Feedback(name, f"feedback.{block}" if single else f"feedback.{block}.{name}", LINKS["feedback"].bind(term))
            for name, term in terms.items()
        )

    def feature(self, block: str, mode: str) -> str:
        """The network's output, else the last tensor that leaves the block, else the last it computes."""
        network = _graph_of(self.traced, mode)
        nodes = self.graph.nodes[block]["nodes"][mode]
        if self.objectives.is_output(block):
            return str(output_node(network).name)
        leaving = outside_readers(network, nodes)
        floating = [n for n in leaving or nodes if _is_floating(network, n)]
        if not floating:
            message = f"block `{block}` computes no floating-point tensor"
            raise LpcError(Diagnostic("0401", message, span=self.spec.key_origin("decompose", "blocks", block)))
        return str(floating[-1])

    def gradient_links(self, block: str) -> tuple[tuple[Arrival, ...], dict[str, Passage]]:
        limit, links = self.limit, self.passages
        receives = [
            Arrival(name, consumer, age)
            for _, consumer, data in self.graph.out_edges(block, data=True)
            for name in self.crossing(data)
            if consumer not in self.flow.moved(block)
            for age in sorted({crossed(a, limit) for a in range(limit + 1) if links[block, consumer].passes(a)})
        ]
        receives += [credit_of(b, i) for b in self.flow.ahead(block) for i in range(self.flow.passes(block))]
        if any(is_feedback(data) for *_, data in self.graph.out_edges(block, data=True)):
            receives.append(error_of(str(self.graph.graph["output_block"])))
        sends = {
            name: links[producer, block]
            for producer, _, data in self.graph.in_edges(block, data=True)
            for name in self.crossing(data)
            if links[producer, block].open
        }
        return tuple(receives), sends

    def first(self, block: str, values: Sequence[str]) -> list[str]:
        """Return the values that the block does not compute from others of them."""
        own = set(self.graph.nodes[block]["nodes"]["train"])
        derived: set[str] = set()
        for node in self.traced.train.graph.nodes:
            if node.name in own and any(n.name in derived or n.name in values for n in node.all_input_nodes):
                derived.add(node.name)
        return [value for value in values if value not in derived]

    def crossing(self, boundary: Mapping[str, Any]) -> list[str]:
        return crossing(self.traced, boundary)

    def trainable(self, block: str) -> tuple[str, ...]:
        attributes = self.graph.nodes[block]
        names = list(attributes["parameters"])
        if self.spec.decompose.shared == "sum":
            names += [n for n in attributes.get("borrowed", ()) if n not in names]
        named = self.traced.train.named_parameters(remove_duplicate=False)
        parameters = {self.traced.tied.get(name, name): parameter for name, parameter in named}
        if self.spec.decompose.shared == "sum":  # whoever owns them: blocks with the same parameters are alike
            rank = {name: index for index, name in enumerate(parameters)}
            names.sort(key=rank.__getitem__)
        return tuple(n for n in names if parameters[n].requires_grad)

    def steps(self, block: str, trainable: tuple[str, ...], heads: LocalModules) -> bool:
        """Has it parameters of its own? What it borrows is stepped by the owner, along the sum of gradients."""
        owned = set(self.graph.nodes[block]["parameters"]).intersection(trainable)
        return bool(owned) or any(True for _ in heads.named_parameters())

    def optimizer(self, block: str, trainable: tuple[str, ...], heads: LocalModules) -> Optimizer:
        owned = [n for n in trainable if n in self.graph.nodes[block]["parameters"]]
        local = [f"heads.{block}.{n}" for n, _ in heads.named_parameters()]
        aim = self.aims.get(block)
        if aim is not None and aim.formula.known:
            ensure_inner(self.spec, self.graph, block, self.flow.estimators[block].name)
            return formula_optimizer(self.spec, block, owned, aim.formula.repeats)
        found = solver(self.spec, block, [*owned, *local])
        if found.steps > 1:
            ensure_inner(self.spec, self.graph, block, self.flow.estimators[block].name)
        return found

    def factored(
        self, block: str, trainable: tuple[str, ...], optimizer: Optimizer | None
    ) -> tuple[FactoredLayer, ...]:
        """Return the layers of which the block's optimizer takes factors."""
        other = borrowers(self.graph, block, trainable)
        if block in self.aims:
            other = "its losses make a target, which its optimizer goes for"
        if self.variables.made_by(block) or self.variables.read_by(block):
            other = "its problem is that of auxiliary variables"
        estimator = self.flow.estimators[block].name
        return factored_layers(self.spec, self.traced, self.graph, block, optimizer, estimator, other)

    def no_objective(self, block: str) -> Diagnostic:
        if block == self.graph.graph["output_block"]:
            return Diagnostic(
                "0406",
                f"block `{block}` owns the network's output, but there is no loss on it",
                span=self.spec.origin("decompose"),
            )
        return Diagnostic(
            "0407",
            f"block `{block}` has no local loss, and no boundary after it carries a gradient back: it cannot learn",
            span=stated_at(self.spec, block, "loss"),
            notes=self.spec.by_default("decompose", "links"),
        )


def credit_of(block: str, index: int) -> Arrival:
    """Return what a block sends of its samples' credit in a pass, to every block before it that perturbs."""
    return Arrival(f"{block}.credit{index or ''}", "")


def error_of(block: str) -> Arrival:
    """Return the derivative of the losses by the network's output, which its block sends."""
    return Arrival(f"{block}.error", "")


def tangent_of(value: str, index: int) -> str:
    """Return the name of a value's tangent in a pass."""
    return f"{value}.tangent{index or ''}"


def is_tangent(name: str) -> bool:
    """Tell whether a name is that of a value's tangent in some pass."""
    return ".tangent" in name


def _ensure_chain(spec: Spec, graph: nx.DiGraph[str]) -> None:
    """`only=furthest` needs one order of distances: a chain of blocks, and one link throughout.

    Raises LpcError (0414).
    """
    links = {edge: p for edge, p in passages(graph).items() if p.open}
    if not any(p.furthest for p in links.values()):
        return
    crossed_by = graph.edge_subgraph(links)
    limited = all(p.reach is not None for p in links.values())
    chain = all(crossed_by.out_degree(b) <= 1 and crossed_by.in_degree(b) <= 1 for b in crossed_by.nodes)
    if limited and chain and len(set(links.values())) == 1:
        return
    message = "`only=furthest` needs blocks in a chain, and the same `gradient(reach=n)` on every boundary it crosses"
    raise LpcError(Diagnostic("0414", message, span=spec.origin("decompose", "links")))


def crossing(traced: Traced, boundary: Mapping[str, Any]) -> list[str]:
    """Return the floating-point tensors that cross a boundary, in training, and depend on parameters."""
    names = [str(tensor["name"]) for tensor in boundary["tensors"]]
    return [name for name in names if name in learned(traced.train) and _is_floating(traced.train, name)]


def _graph_of(traced: Traced, mode: str) -> fx.GraphModule:
    return traced.train if mode == "train" else traced.eval


def _is_floating(network: fx.GraphModule, name: str) -> bool:
    node = next(n for n in network.graph.nodes if n.name == name)
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()
