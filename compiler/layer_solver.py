"""Whose weights follow from a formula, layer by layer? The solvers of one linear layer before its variable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import networkx as nx
import torch
from torch import Tensor, fx, nn

from lpc.compiler.frontend.trace import Traced
from lpc.compiler.least_squares import LeastSquares
from lpc.compiler.memory import Memory
from lpc.compiler.rules import stated, stated_at
from lpc.compiler.variables import Variable
from lpc.specs import signatures
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Spec


class LayerSolver(Protocol):
    """How a block's linear layer is solved: the state that it rewrites, and what that is after a batch."""

    @property
    def block(self) -> str: ...

    @property
    def node(self) -> str:
        """The layer's node in the training graph."""

    @property
    def kept(self) -> Mapping[str, tuple[int, ...]]:
        """The sizes of what it keeps beside the weights, by names in the state."""

    @property
    def weights(self) -> tuple[str, ...]:
        """The layer's parameters, the weight first."""

    def after(self, a: Tensor, c: Tensor, old: Sequence[Tensor]) -> list[Tensor]:
        """Return what is kept, then the weights, after the rows of a batch: inputs a [B, i], variables c [B, o]."""


def _memory(block: str, layer: nn.Linear, node: str, weights: tuple[str, ...], given: Mapping[str, Any]) -> LayerSolver:
    forget, shrink = float(given["forget"]), float(given["shrink"])
    return Memory(block, node, weights[0], layer.out_features, layer.in_features, forget, shrink, given["sweeps"])


def _least_squares(
    block: str, layer: nn.Linear, node: str, weights: tuple[str, ...], given: Mapping[str, Any]
) -> LayerSolver:
    return LeastSquares(block, node, weights, float(given["hold"]))


# By the solver's word: how it is made, and whether it finds a bias too.
KINDS: Mapping[str, tuple[Callable[..., LayerSolver], bool]] = {
    "memory": (_memory, False),
    "least_squares": (_least_squares, True),
}


def layer_solver(
    spec: Spec, traced: Traced, graph: nx.DiGraph[str], block: str, trainable: Sequence[str], makes: Sequence[Variable]
) -> LayerSolver | None:
    """Return what `solver` says of a block whose layer is solved by a formula; None where it is solved otherwise.

    Raises LpcError (0423) for a block that is not one linear layer that fits, right before its variable.
    """
    term = stated(spec, block, "solver")
    if term is None or term.name not in KINDS:
        return None
    make, biased = KINDS[term.name]
    node = _layer(traced.train, graph.nodes[block]["nodes"]["train"])
    reason = _obstacle(spec, traced, block, node, trainable, makes, biased)
    if reason is not None or node is None:
        what = "memory matrices" if term.name == "memory" else "least squares"
        message = f"block `{block}` cannot be solved by {what}: {reason}"
        raise LpcError(Diagnostic("0423", message, span=stated_at(spec, block, "solver")))
    layer = traced.train.get_submodule(str(node.target))
    assert isinstance(layer, nn.Linear)
    ordered = tuple(sorted(trainable, key=lambda name: not name.endswith("weight")))
    return make(block, layer, node.name, ordered, signatures.SOLVERS[term.name].bind(term))


def solved_state(rule: LayerSolver, a: Tensor, c: Tensor, old: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return what a solver rewrites, by names in the state."""
    with torch.no_grad():
        return dict(zip((*rule.kept, *rule.weights), rule.after(a, c, old), strict=True))


def _layer(network: fx.GraphModule, nodes: Sequence[str]) -> fx.Node | None:
    own = set(nodes)
    called = [n for n in network.graph.nodes if n.name in own and n.op == "call_module"]
    linear = [n for n in called if isinstance(network.get_submodule(str(n.target)), nn.Linear)]
    return linear[0] if len(linear) == 1 else None


def _obstacle(
    spec: Spec, traced: Traced, block: str, node: fx.Node | None, trainable: Sequence[str],
    makes: Sequence[Variable], biased: bool,
) -> str | None:  # fmt: skip
    if node is None:
        return "it needs one linear layer"
    if [v.value for v in makes] != [node.name]:
        return "the variable after it does not stand for what its linear layer computes: take `at: preactivation`"
    own = [traced.tied.get(n, n) for n in (f"{node.target}.weight", f"{node.target}.bias")]
    fits = own[0] in trainable and set(trainable) <= set(own if biased else own[:1])
    if not fits and biased:
        return "it trains other parameters than the layer's weight and bias"
    if not fits:
        return "it trains more than the layer's weight: take `linear(n, bias=false)`, and no norm"
    if (stated(spec, block, "steps") or 1) > 1:
        return "it takes no further steps on a batch"
    return None
