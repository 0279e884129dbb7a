"""Where is a block's activity perturbed? At its layers' outputs, or after the norms behind them.

A site is a value of the block's graph, and the *segment* of nodes before it: a layer, with the norm behind it for
`after_norm`. Seen from the site, the segment's parameters act on inputs that are held fixed, so their gradient is the
segment's own vjp. A parameter outside every layer's segment (of a norm, a position embedding) has a site of its own.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor, fx

from lpc.compiler.capture.tracing import site_name
from lpc.compiler.partition.layers import FOLLOWER, NORM, node_op_name

# Methods and functions that move elements about.
MOVES = frozenset({"transpose", "permute", "reshape", "view", "flatten", "unflatten", "movedim", "contiguous", "mT"})

RECTIFIER = re.compile(r"(relu6?|hardtanh|threshold|hardsigmoid)(_?|\.default)", re.IGNORECASE)
SUM = re.compile(r"i?add_?(\.Tensor)?", re.IGNORECASE)

Call = tuple[str, int]  # a module's path and which of its calls


@dataclass(frozen=True)
class NoiseSite:
    """A perturbed value: the nodes that end the layer (what its norm reads) and the segment, and its parameters."""

    name: str
    layer: fx.Node
    end: fx.Node
    parameters: tuple[str, ...]

    @property
    def rectifier(self) -> fx.Node | None:
        """The rectifier that alone reads the value, with something added or not; noise that it stops is dead."""
        node = self.end
        while len(node.users) == 1:
            node = next(iter(node.users))
            name = node_op_name(node)
            if RECTIFIER.fullmatch(name):
                return node
            if not SUM.fullmatch(name):
                return None
        return None


def noise_sites(graph: fx.Graph, trainable: Iterable[str], site: str) -> tuple[NoiseSite, ...]:
    """Return the sites at which all `trainable` parameters of a block's graph are seen, in graph order.

    `site` is `output` or `after_norm`. A parameter that only several calls share is seen at each of them.
    """
    wanted, covered = frozenset(trainable), set[str]()
    calls = _calls(graph)
    found: dict[fx.Node, NoiseSite] = {}
    layers = [n for n in graph.nodes if _is_layer(n) and wanted & _parameters(n)]
    for node in layers:
        nodes = calls[_call(node)] if _call(node)[0] else [node]
        for output in _outputs(nodes[-1]):
            made = _site(nodes, output, calls, wanted, site == "after_norm")
            found.setdefault(made.end, made)
            covered |= {*made.parameters}
    for node in graph.nodes:
        rest = (wanted & _parameters(node)) - covered
        if rest and node.op != "get_attr" and isinstance(node.meta.get("val"), Tensor):
            found.setdefault(node, NoiseSite(_name(node), node, node, tuple(sorted(rest))))
    order = {node: i for i, node in enumerate(graph.nodes)}
    return tuple(_distinct(sorted(found.values(), key=lambda s: order[s.end])))


def _outputs(node: fx.Node) -> list[fx.Node]:
    """The floating-point tensors that a layer gives: itself, or what is read of its tuple."""
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        return [node] if value.is_floating_point() else []
    return [found for user in node.users if user.target is operator.getitem for found in _outputs(user)]


def _site(
    nodes: list[fx.Node],
    output: fx.Node,
    calls: Mapping[Call, list[fx.Node]],
    wanted: frozenset[str],
    after_norm: bool,
) -> NoiseSite:
    norm = (_norm_behind(output, calls) if after_norm else None) or []
    segment = [*nodes, *([] if output in nodes else [output]), *norm]
    used = {p for n in segment for p in _parameters(n) & wanted}
    read = next((n for n in reversed(segment) if not _is_norm(n)), output)
    return NoiseSite(_name(nodes[0]), read, segment[-1], tuple(sorted(used)))


def _norm_behind(end: fx.Node, calls: Mapping[Call, list[fx.Node]]) -> list[fx.Node] | None:
    """The nodes up to the end of a norm that alone reads a layer's output, transposed or reshaped or not."""
    readers = {_call(user) for user in end.users}
    first = next(iter(end.users), None)
    if first is None or len(readers) != 1:
        return None
    if _is_norm(first):
        return calls[_call(first)] if _call(first)[0] else [first]
    if len(end.users) > 1 or node_op_name(first) not in MOVES:
        return None
    behind = _norm_behind(first, calls)
    return None if behind is None else [first, *behind]


def _calls(graph: fx.Graph) -> dict[Call, list[fx.Node]]:
    found: dict[Call, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op in ("call_module", "call_function", "call_method"):
            found.setdefault(_call(node), []).append(node)
    return found


def _call(node: fx.Node) -> Call:
    return str(node.meta.get("path", "")), int(node.meta.get("call", 0))


def _name(node: fx.Node) -> str:
    path, call = _call(node)
    return site_name(path, call) if path else node.name


def _parameters(node: fx.Node) -> frozenset[str]:
    return frozenset(node.meta.get("parameters", ()))


def _is_layer(node: fx.Node) -> bool:
    if node.op == "get_attr" or not _parameters(node):
        return False
    return not FOLLOWER.search(node_op_name(node)) and not _is_norm(node)


def _is_norm(node: fx.Node) -> bool:
    last = str(node.meta.get("path", "")).rpartition(".")[2]
    return bool(NORM.search(node_op_name(node)) or NORM.search(last))


def _distinct(sites: list[NoiseSite]) -> list[NoiseSite]:
    """Number sites of equal name, as calls are numbered: `name`, `name#1`."""
    taken = {one.name for one in sites}
    seen, made = set[str](), []
    for one in sites:
        free = (site_name(one.name, count) for count in itertools.count(1))
        name = one.name if one.name not in seen else next(n for n in free if n not in taken)
        seen.add(name)
        taken.add(name)
        made.append(replace(one, name=name))
    return made


def norm_calls(graph: fx.Graph) -> list[tuple[fx.Node, fx.Node]]:
    """Return the first and the last node of every norm in a graph."""
    calls = [nodes for (path, _), nodes in _calls(graph).items() if path and _is_norm(nodes[-1])]
    alone = [[n] for n in graph.nodes if n.op == "call_function" and not n.meta.get("path") and _is_norm(n)]
    return [(nodes[0], nodes[-1]) for nodes in (*calls, *alone)]
