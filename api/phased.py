"""What should a phase compute? The network with some blocks as in training and the others as in evaluation.

Independent of the plan's sections: one graph is made of the two traced ones, and each block's problem that has no turn
is taken away; the rest is the reference of any step.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import networkx as nx
from torch import fx, nn

from lpc.compiler.build import Build
from lpc.compiler.estimator import Estimator
from lpc.compiler.frontend.trace import Traced
from lpc.compiler.local_loss import LocalModules


def phased(build: Build, trains: Collection[str]) -> Build:
    """Return the build in which only these blocks and readouts learn."""
    assert build.traced is not None
    assert build.graph is not None
    graph = build.graph.copy()
    asleep = [block for block in graph.nodes if block not in trains]
    for block in asleep:
        nodes = graph.nodes[block]["nodes"]
        graph.nodes[block]["nodes"] = {**nodes, "train": nodes["eval"]}
    nothing = {
        "losses": (), "trainable": (), "heads": LocalModules(), "optimizer": None, "estimator": Estimator()
    }  # fmt: skip
    idle = {block: replace(build.problems[block], **nothing) for block in asleep}  # type: ignore[arg-type]
    corrected = build.corrected
    return replace(
        build,
        traced=replace(build.traced, train=_merged(build.traced, build.graph, asleep)),
        graph=graph,
        problems={**build.problems, **idle},
        probes={name: probe for name, probe in build.probes.items() if name in trains or not probe.learns},
        corrected=corrected if corrected is not None and not set(corrected.by_block).isdisjoint(trains) else None,
    )


def _merged(traced: Traced, graph: nx.DiGraph[str], asleep: Collection[str]) -> fx.GraphModule:
    """Return the training graph with the nodes of some blocks taken from that of evaluation."""
    merging = _Merging(traced, {n: b for b, a in graph.nodes(data=True) if b in asleep for n in a["nodes"]["eval"]})
    for node in traced.train.graph.nodes:
        if node.op == "placeholder":
            merging.take(node)
    (output,) = (node for node in traced.train.graph.nodes if node.op == "output")
    learning = [n for b, a in graph.nodes(data=True) if b not in asleep for n in a["nodes"]["train"]]
    for name in learning:
        merging.named(name)
    merging.take(output)
    merged = fx.GraphModule(merging.targets, merging.graph)
    merged.meta.update(traced.train.meta)
    return merged


class _Merging:
    """Copies nodes after all that they read, those named in `asleep` from the graph of evaluation."""

    def __init__(self, traced: Traced, asleep: Mapping[str, str]) -> None:
        self.asleep = asleep
        self.graph = fx.Graph()
        self.copies: dict[str, fx.Node] = {}
        self.targets: dict[str, Any] = {}
        self.networks = {False: traced.train, True: traced.eval}
        self.nodes = {mode: {n.name: n for n in network.graph.nodes} for mode, network in self.networks.items()}

    def named(self, name: str) -> fx.Node:
        """Return the copy of the node that bears this name where its block takes it from."""
        return self.copies[name] if name in self.copies else self.take(self.nodes[name in self.asleep][name])

    def take(self, node: fx.Node) -> fx.Node:
        sources = {source: self.named(source.name) for source in node.all_input_nodes}
        if node.op in ("call_module", "get_attr"):
            self.targets[str(node.target)] = self.target(str(node.target), node.name in self.asleep)
        self.copies[node.name] = copied = self.graph.node_copy(node, lambda source: sources[source])
        return copied

    def target(self, path: str, asleep: bool) -> Any:
        found: Any = self.networks[asleep]
        for part in path.split("."):
            found = getattr(found, part)
        return copy.deepcopy(found).eval() if asleep and isinstance(found, nn.Module) else found
