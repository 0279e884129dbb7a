"""What does each block minimise? One local problem per block, read from the spec's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import torch
from torch import Tensor, fx, nn

from lpc.compiler.blocks import outside_readers
from lpc.compiler.capture.types import dtype_of
from lpc.compiler.credit import Passage, crossed, horizon, passages
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.heads import HEADS, Setting, class_axis
from lpc.compiler.losses import LOSSES, LossFunction
from lpc.compiler.rules import stated, stated_at
from lpc.compiler.solver import solver
from lpc.specs import signatures
from lpc.specs.diagnostics import Diagnostic, LpcError, one_of
from lpc.specs.model import Spec
from lpc.specs.plan.kernel import TensorType
from lpc.specs.plan.plan import Optimizer
from lpc.specs.term import Term

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class LocalLoss:
    """One term of a block's objective: `weight * function(prediction, batch[target])`."""

    name: str
    function: LossFunction
    target: str
    weight: float
    options: dict[str, Any]
    classifies: bool


@dataclass(frozen=True)
class Arrival:
    """A cotangent that comes back for the value that the node `value` gives `consumer`; its age as in `credit`."""

    value: str
    consumer: str
    age: int = 0


@dataclass(frozen=True)
class LocalProblem:
    """A block's variables, objective and solver.

    `feature` is the node (per mode) that the head reads. `trainable` are the network parameters that get a
    gradient here, by canonical name. `receives` are the cotangents that may come back; `sends` the outside
    tensors whose cotangents this block computes, each with the passage of its boundary, under the network's
    `horizon`. With `furthest` only the oldest cotangents train the parameters, and the head's own loss the head.
    """

    block: str
    feature: dict[str, str]
    head: nn.Module | None
    losses: tuple[LocalLoss, ...]
    trainable: tuple[str, ...]
    receives: tuple[Arrival, ...]
    sends: Mapping[str, Passage]
    optimizer: Optimizer | None
    memory: str = "immediate"
    horizon: int = 0
    furthest: bool = False
    warnings: tuple[str, ...] = field(default=())


def localize(
    spec: Spec, traced: Traced, graph: nx.DiGraph[str], fields: Mapping[str, TensorType]
) -> dict[str, LocalProblem]:
    """Return the local problem of every block, in topological order.

    `fields` are the batch fields with the batch axis first. Raises LpcError for a block that could not learn.
    """
    _ensure_chain(spec, graph)
    writer = _Localizer(spec, traced, graph, fields)
    return {block: writer.problem(block) for block in graph.nodes}


@dataclass
class _Localizer:
    spec: Spec
    traced: Traced
    graph: nx.DiGraph[str]
    fields: Mapping[str, TensorType]

    def problem(self, block: str) -> LocalProblem:
        is_output = block == self.graph.graph["output_block"]
        feature = {mode: self.feature(block, mode, is_output) for mode in ("train", "eval")}
        terms = self.loss_terms(block, is_output)
        losses = tuple(self.local_loss(block, term, i, len(terms)) for i, term in enumerate(terms))
        head = self.head(block, is_output, feature["train"], losses)
        receives, sends = self.gradient_links(block)
        trainable = self.trainable(block)
        learns = bool(trainable) or head is not None
        if learns and not losses and not receives:
            raise LpcError(self.no_objective(block))
        optimizer = self.optimizer(block, trainable, head) if learns else None
        memory = stated(self.spec, block, "memory") or "immediate"
        return LocalProblem(
            block,
            feature,
            head,
            losses,
            trainable,
            receives,
            sends,
            optimizer,
            str(memory),
            horizon(self.graph),
            any(p.furthest for p in passages(self.graph).values()),
        )

    def feature(self, block: str, mode: str, is_output: bool) -> str:
        """The network's output, else the last tensor that leaves the block, else the last it computes."""
        network = _graph_of(self.traced, mode)
        nodes = self.graph.nodes[block]["nodes"][mode]
        if is_output:
            return str(output_node(network).name)
        leaving = outside_readers(network, nodes)
        floating = [n for n in leaving or nodes if _is_floating(network, n)]
        if not floating:
            raise LpcError(Diagnostic("0401", f"block `{block}` computes no floating-point tensor", place=block))
        return str(floating[-1])

    def loss_terms(self, block: str, is_output: bool) -> tuple[Term, ...]:
        if is_output and self.spec.loss:
            return self.spec.loss
        if self.graph.nodes[block].get("frozen") and not is_output:
            return ()
        value = stated(self.spec, block, "loss")
        return value if isinstance(value, tuple) else ()

    def loss_span(self, block: str) -> Any:
        if block == self.graph.graph["output_block"] and self.spec.loss:
            return self.spec.origin("loss")
        return stated_at(self.spec, block, "loss")

    def local_loss(self, block: str, term: Term, index: int, count: int) -> LocalLoss:
        kind = LOSSES[term.name]
        options = signatures.LOSSES[term.name].bind(term)
        target, weight = options.pop("target"), float(options.pop("weight"))
        name = "loss" if count == 1 else f"{term.name}{index}"
        return LocalLoss(
            name, kind.make(options), self.target(block, target), weight, options, kind.classifies
        )

    def target(self, block: str, named: Any) -> str:
        if named is not None:
            if str(named) in self.fields:
                return str(named)
            raise LpcError(
                Diagnostic(
                    "0402",
                    f"the loss of block `{block}` wants the field `{named}`, which batches do not hold",
                    span=self.loss_span(block),
                    notes=(f"batches hold {one_of(list(self.fields))}",),
                )
            )
        candidates = [f for f in self.fields if f not in self.traced.inputs and f != "index"]
        if len(candidates) == 1:
            return candidates[0]
        raise LpcError(
            Diagnostic(
                "0403",
                f"the loss of block `{block}` does not say its target, and batches hold"
                f" {one_of(candidates) if candidates else 'no field besides the inputs'}",
                span=self.loss_span(block),
            )
        )

    def head(
        self, block: str, is_output: bool, feature: str, losses: tuple[LocalLoss, ...]
    ) -> nn.Module | None:
        term = stated(self.spec, block, "head", by_name=is_output)
        if not losses or (term is None and is_output):
            return None
        shape = sample_shape(self.traced.train, feature)
        output = sample_shape(self.traced.train, output_node(self.traced.train).name)
        target = self.fields[losses[0].target].shape[1:]
        kind = LOSSES[(self.loss_terms(block, is_output))[0].name]
        if term is None:
            self.ensure_scores(block, shape, kind.width(target, output), losses)
            return None
        try:
            options = signatures.HEADS[term.name].bind(term)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(_head_seed(self.spec.run.seed, list(self.graph.nodes).index(block)))
                module = HEADS[term.name](Setting(shape, target), kind.width(target, output), options)
        except (ValueError, RuntimeError) as error:
            raise LpcError(
                Diagnostic(
                    "0404",
                    f"head `{term.name}` does not fit block `{block}`, whose output is {list(shape)}: {error}",
                    span=stated_at(self.spec, block, "head"),
                )
            ) from error
        return module.to(dtype_of(self.spec.run.dtype)) if module is not None else None

    def ensure_scores(self, block: str, shape: Shape, classes: int, losses: tuple[LocalLoss, ...]) -> None:
        """0404: without a head, what a classification loss reads as class scores are as many as there are classes."""
        if not any(loss.classifies for loss in losses) or class_axis(shape) == classes:
            return
        raise LpcError(
            Diagnostic(
                "0404",
                f"block `{block}` has the loss `{self.loss_terms(block, False)[0].name}` and no head, so its output"
                f" {list(shape)} would be read as class scores; there are {classes} classes",
                span=self.loss_span(block),
                help="add `head: linear` to this entry, or `head: identity` where that is meant",
            )
        )

    def gradient_links(self, block: str) -> tuple[tuple[Arrival, ...], dict[str, Passage]]:
        limit, links = horizon(self.graph), passages(self.graph)
        receives = [
            Arrival(name, consumer, age)
            for _, consumer, data in self.graph.out_edges(block, data=True)
            for name in self.crossing(data)
            for age in sorted({crossed(a, limit) for a in range(limit + 1) if links[block, consumer].passes(a)})
        ]
        sends = {
            name: links[producer, block]
            for producer, _, data in self.graph.in_edges(block, data=True)
            for name in self.crossing(data)
            if links[producer, block].open
        }
        return tuple(receives), sends

    def crossing(self, boundary: Mapping[str, Any]) -> list[str]:
        return crossing(self.traced, boundary)

    def trainable(self, block: str) -> tuple[str, ...]:
        attributes = self.graph.nodes[block]
        names = list(attributes["parameters"])
        if self.spec.decompose.shared == "sum":
            names += [n for n in attributes.get("borrowed", ()) if n not in names]
        named = self.traced.train.named_parameters(remove_duplicate=False)
        parameters = {self.traced.tied.get(name, name): parameter for name, parameter in named}
        return tuple(n for n in names if parameters[n].requires_grad)

    def optimizer(self, block: str, trainable: tuple[str, ...], head: nn.Module | None) -> Optimizer:
        owned = [n for n in trainable if n in self.graph.nodes[block]["parameters"]]
        heads = [f"heads.{block}.{n}" for n, _ in head.named_parameters()] if head is not None else []
        return solver(self.spec, block, [*owned, *heads])

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


def _ensure_chain(spec: Spec, graph: nx.DiGraph[str]) -> None:
    """`only=furthest` needs one order of distances: a chain of blocks, and one link throughout.

    Raises LpcError (0414).
    """
    links = [p for p in passages(graph).values() if p.open]
    if not any(p.furthest for p in links):
        return
    limited = all(p.reach is not None for p in links)
    chain = all(graph.out_degree(b) <= 1 and graph.in_degree(b) <= 1 for b in graph.nodes)
    if limited and chain and len(set(links)) == 1:
        return
    message = "`only=furthest` needs blocks in a chain, and the same `gradient(reach=n)` on every boundary it crosses"
    raise LpcError(Diagnostic("0414", message, span=spec.origin("decompose", "links")))


def crossing(traced: Traced, boundary: Mapping[str, Any]) -> list[str]:
    """Return the floating-point tensors that cross a boundary, in training."""
    names = [str(tensor["name"]) for tensor in boundary["tensors"]]
    return [name for name in names if _is_floating(traced.train, name)]


def sample_shape(network: fx.GraphModule, name: str) -> Shape:
    """Return the per-sample shape of a node; symbolic lengths by name."""
    node = next(n for n in network.graph.nodes if n.name == name)
    symbols = network.meta.get("symbols", {})
    return tuple(
        symbols.get(str(size), str(size)) if isinstance(size, torch.SymInt) else int(size)
        for size in node.meta["val"].shape[1:]
    )


def output_node(network: fx.GraphModule) -> fx.Node:
    """Return the node that computes the network's output."""
    output = next(n for n in reversed(network.graph.nodes) if n.op == "output")
    node: fx.Node = output.all_input_nodes[0]
    return node


def _graph_of(traced: Traced, mode: str) -> fx.GraphModule:
    return traced.train if mode == "train" else traced.eval


def _is_floating(network: fx.GraphModule, name: str) -> bool:
    node = next(n for n in network.graph.nodes if n.name == name)
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


def _head_seed(seed: int, index: int) -> int:
    return (seed * 1_000_003 + index + 1) % 2**63
