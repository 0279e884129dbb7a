"""How is a network split into its layers? Each linear layer, its activation, and the variables around these.

`BLOCK.z` is what the layer computes, `BLOCK.a` what its activation makes of it, for every sample; the output's layer
has no `a`, and with a multiplier `BLOCK.multiplier`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NoReturn

import networkx as nx
from torch import fx, nn

from lpc.compiler.companions import misplaced
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.rules import stated, stated_at
from lpc.compiler.split_formulas import PROXIMAL
from lpc.specs import signatures
from lpc.specs.check_terms import NOTHING
from lpc.specs.diagnostics import Diagnostic, LpcError, one_of
from lpc.specs.model import Spec
from lpc.specs.source import Span
from lpc.specs.term import Term

LINK = "split"
SOLVED = ("optimizer", "solver", "steps", "head", "prox", "outer", "correct", "estimator", "schedule", "clip", "state")


@dataclass(frozen=True)
class Split:
    """What the link says of all layers."""

    beta: float
    gamma: float
    order: str
    multiplier: bool
    warmup: int
    hold: float
    init: str


@dataclass(frozen=True)
class SplitLayer:
    """A block: its linear layer's node, its parameters, and the slope of its activation below 0 (1: there is none).

    `above` is the next block, None for the output's, which has a `loss`; `parameters` are the weight [o, i] and perhaps
    the bias, with their sizes.
    """

    block: str
    node: str
    activation: str
    parameters: Mapping[str, tuple[int, ...]]
    slope: float
    above: str | None
    split: Split
    loss: str = ""

    @property
    def z(self) -> str:
        return f"{self.block}.z"

    @property
    def a(self) -> str:
        return f"{self.block}.a"

    @property
    def multiplier(self) -> str:
        return f"{self.block}.multiplier"

    @property
    def variables(self) -> dict[str, str]:
        """The nodes whose values the variables stand for, by the variables' names."""
        if self.above is not None:
            return {self.z: self.node, self.a: self.activation}
        return {self.z: self.node} | ({self.multiplier: self.node} if self.split.multiplier else {})


def split_layers(spec: Spec, traced: Traced, graph: nx.DiGraph[str]) -> dict[str, SplitLayer]:
    """Return the layers of a network whose boundaries are split, in order; none where no boundary is.

    Raises LpcError (0438) for a network, or for what a spec says beside the link, that formulas do not solve.
    """
    links = [data["link"] for *_, data in graph.edges(data=True)]
    if not any(link.name == LINK for link in links):
        return {}
    return _Reader(spec, traced, graph).layers(links)


@dataclass
class _Reader:
    spec: Spec
    traced: Traced
    graph: nx.DiGraph[str]

    def layers(self, links: list[Term]) -> dict[str, SplitLayer]:
        """Return the layers, first to last."""
        blocks = list(self.graph.nodes)
        if any(link != links[0] for link in links):
            self.refuse("a network is split at all boundaries alike, and links differ", self.link())
        if set(self.graph.edges) != set(pairwise(blocks)):
            self.refuse("a network that is split is a chain of layers, and blocks here are no chain", self.link())
        self.ensure_alone()
        split = Split(**signatures.LINKS[LINK].bind(links[0]))
        if split.warmup and not split.multiplier:
            self.refuse("`warmup` is for the multiplier, and there is none", self.link())
        loss = self.loss(blocks[-1])
        above = [*blocks[1:], None]
        found = {b: self.layer(b, up, b == blocks[0], split) for b, up in zip(blocks, above, strict=True)}
        return {b: layer if layer.above is not None else replace(layer, loss=loss) for b, layer in found.items()}

    def layer(self, block: str, above: str | None, first: bool, split: Split) -> SplitLayer:
        self.ensure_unsaid(block, above is None)
        network = self.traced.train
        own = set(self.graph.nodes[block]["nodes"]["train"])
        nodes = [n for n in network.graph.nodes if n.name in own]
        place = next((i for i, n in enumerate(nodes) if isinstance(_module(network, n), nn.Linear)), None)
        if place is None:
            self.refuse(f"block `{block}` has no linear layer", self.blocks())
        before, node, after = nodes[:place], nodes[place], nodes[place + 1 :]
        if before and not first:
            self.refuse(f"`{before[0].name}` stands before the linear layer of block `{block}`", self.blocks())
        if len(node.meta["val"].shape) != 2:
            self.refuse(f"the linear layer of block `{block}` has more than one value for each feature", self.blocks())
        slopes = [self.slope(block, n) for n in after]
        if len(after) > 1 or (after and above is None):
            what = "nothing follows the output's layer" if above is None else "at most one activation follows a layer"
            self.refuse(f"{what}, and in block `{block}` there is `{after[-1].name}`", self.blocks())
        named = dict(network.named_parameters(remove_duplicate=False))
        names = [f"{node.target}.weight", f"{node.target}.bias"]
        sizes = {self.traced.tied.get(n, n): tuple(named[n].shape) for n in names if n in named}
        if set(sizes) != set(self.graph.nodes[block]["parameters"]) or not all(named[n].requires_grad for n in sizes):
            self.refuse(f"block `{block}` has other parameters than its linear layer's, or frozen ones", self.blocks())
        return SplitLayer(block, node.name, (after or [node])[0].name, sizes, (slopes or [1.0])[0], above, split)

    def slope(self, block: str, node: fx.Node) -> float:
        """Return the slope below 0 of an activation that has one."""
        module = _module(self.traced.train, node)
        if isinstance(module, nn.ReLU):
            return 0.0
        if isinstance(module, nn.LeakyReLU) and 0.0 <= module.negative_slope <= 1.0:
            return float(module.negative_slope)
        message = f"`{node.name}` of block `{block}` is not solved by a formula: activations are relu and leaky_relu"
        self.refuse(message, self.blocks())

    # What cannot be

    def ensure_alone(self) -> None:
        for key, path in misplaced(self.spec):
            self.refuse(f"`{key}` does not go with a network that is split", self.spec.origin(*path))
        if self.spec.decompose.shared != "forbid":
            span = self.spec.origin("decompose", "shared")
            self.refuse("`shared` does not go with a network that is split: a formula solves for one block", span)
        if self.spec.run.clip is not None:
            span = self.spec.origin("run", "clip")
            self.refuse("`clip` is for gradients, and a network that is split has none", span)

    def ensure_unsaid(self, block: str, output: bool) -> None:
        """What speaks of gradient steps, or of another objective, has nothing to do here."""
        for key in (*SOLVED, *(() if output and not self.spec.loss else ("loss",))):
            value = stated(self.spec, block, key)
            if value not in (None, NOTHING, ()):
                message = f"`{key}` of block `{block}` has nothing to do: its layer is solved by a formula"
                self.refuse(message, stated_at(self.spec, block, key))

    def loss(self, output: str) -> str:
        """Return the name of the output's only loss, whose minimiser beside a square is known."""
        losses: Any = self.spec.loss or stated(self.spec, output, "loss") or ()
        if len(losses) == 1 and losses[0].name in PROXIMAL and losses[0].kwargs.get("scale", 1.0) == 1.0:
            return str(losses[0].name)
        found = one_of([str(loss) for loss in losses]) if losses else "none"
        message = f"the output of a network that is split has the loss {one_of(list(PROXIMAL))}, and here {found}"
        span = self.spec.origin("loss") or stated_at(self.spec, output, "loss")
        self.refuse(message, span or self.link())

    def link(self) -> Span | None:
        return self.spec.origin("decompose", "links", "*") or self.spec.origin("decompose", "links")

    def blocks(self) -> Span | None:
        return self.spec.origin("decompose", "blocks") or self.link()

    def refuse(self, message: str, span: Span | None) -> NoReturn:
        raise LpcError(Diagnostic("0438", message, span=span))


def _module(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None

