"""Of which layers does a block's optimizer get the Kronecker factors? Linear and convolution layers that it trains.

Everything else that the block trains is stepped by its plain gradient, which the plan's notes say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
from torch import fx

from lpc.compiler.capture.design import Design, UnlikeProductError, layer_design
from lpc.compiler.credit import horizon
from lpc.compiler.estimator import BACKPROP
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.rules import stated, stated_at
from lpc.specs.check_terms import NOTHING
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec
from lpc.specs.plan.plan import Factored, Optimizer
from lpc.specs.signatures import BY_FACTORS


@dataclass(frozen=True)
class FactoredLayer:
    """A layer by its node, as a product, and with the sizes of its factors."""

    node: str
    design: Design
    sizes: Factored


def factored_layers(
    spec: Spec, traced: Traced, graph: nx.DiGraph[str], block: str, optimizer: Optimizer | None, estimator: str,
    other: str | None,
) -> tuple[FactoredLayer, ...]:  # fmt: skip
    """Return the layers of a block whose optimizer takes factors; none where it takes gradients alone.

    `other` says what makes another problem of the block's than its losses' descent. Raises LpcError (0437).
    """
    if optimizer is None or optimizer.name not in BY_FACTORS:
        return ()
    own = {n for group in optimizer.groups for n in group.parameters}
    found = tuple(_layers(traced, set(graph.nodes[block]["nodes"]["train"]), own))
    reasons = [*_obstacles(spec, graph, block, optimizer, estimator), *([other] if other else [])]
    if not found:
        reasons.append("it trains no linear or convolution layer that is used once")
    if reasons:
        message = f"`{optimizer.name}` cannot step block `{block}`: {reasons[0]}"
        raise LpcError(Diagnostic("0437", message, span=stated_at(spec, block, "optimizer")))
    return found


def plain_notes(optimizers: Mapping[str, Optimizer]) -> list[str]:
    """Say which parameters an optimizer by factors steps by their gradients alone."""
    notes = []
    for block, optimizer in optimizers.items():
        inside = {n for layer in optimizer.factors for n in (layer.weight, layer.bias)}
        plain = [n for group in optimizer.groups for n in group.parameters if n not in inside]
        if optimizer.factors and plain:
            notes.append(f"block {block}: `{optimizer.name}` has no factors for {', '.join(plain)}: plain gradients")
    return notes


def _layers(traced: Traced, nodes: set[str], own: set[str]) -> Iterator[FactoredLayer]:
    network, tied = traced.train, traced.tied
    named = dict(network.named_parameters(remove_duplicate=False))
    known = {n: tied.get(n, n) for n in named}
    trained = {n: first for n, first in known.items() if first in own}
    read = [known[n] for node in network.graph.nodes for n in _parameters(node, named)]
    for node in network.graph.nodes:
        if node.name not in nodes:
            continue
        try:
            design = layer_design(network, node, trained)
        except UnlikeProductError:
            continue
        if read.count(design.weight) > 1:
            continue
        weight = named[f"{node.target}.weight"]
        inputs = weight[0].numel() + (design.bias is not None)
        yield FactoredLayer(node.name, design, Factored(design.weight, design.bias or "", inputs, weight.shape[0]))


def _parameters(node: fx.Node, named: Mapping[str, object]) -> list[str]:
    """Return the names of the parameters that a node reads."""
    if node.op == "get_attr":
        return [n for n in named if n == node.target]
    return [n for n in named if n.startswith(f"{node.target}.")] if node.op == "call_module" else []


def _obstacles(
    spec: Spec, graph: nx.DiGraph[str], block: str, optimizer: Optimizer, estimator: str
) -> Iterator[str]:
    correct: object = stated(spec, block, "correct")
    if estimator != BACKPROP:
        yield f"the factors are those of exact derivatives, and it learns by `{estimator}`"
    if optimizer.steps > 1:
        yield "factors are taken once on a batch, and it takes further steps"
    for key in spec.run.splits:
        yield f"`{key}` makes one step of {getattr(spec.run, key)} {'batches' if key == 'accumulate' else 'pieces'}"
    if correct not in (None, NOTHING):
        yield "`correct` makes other gradients than those of which the factors are made"
    if horizon(graph):
        yield "a link of limited `reach` makes several derivatives by one output"


def borrowers(graph: nx.DiGraph[str], block: str, names: Sequence[str]) -> str | None:
    """Return why parameters that other blocks use have no factors of their own; None where there are none."""
    for other, attributes in graph.nodes(data=True):
        mixed = [n for n in attributes.get("borrowed", ()) if n in names]
        if mixed and other != block:
            return f"block `{other}` uses `{mixed[0]}` too"
    return None
