"""How does a traced graph become a kernel? Slots become bundles of ports, fx nodes become plain data."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from lpc.compiler.capture.joint import Slot
from lpc.compiler.capture.types import dtype_name, tensor_type
from lpc.specs.plan.kernel import NO_TENSOR, Bundle, Json, Kernel, Node, Port, TensorType

# Roles whose slots are gathered in one bundle each; the others stand alone.
GATHERED = ("state", "residuals", "gradients", "factors", "buffers", "target")

ARITHMETIC = {
    operator.add: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.floordiv: "floordiv",
    operator.mod: "mod",
    operator.pow: "pow",
    operator.neg: "neg",
    operator.getitem: "getitem",
    torch.sym_max: "sym_max",
    torch.sym_min: "sym_min",
}


def lower(
    name: str,
    block: str,
    graph: fx.Graph,
    arguments: Sequence[tuple[Slot, fx.Node]],
    results: Sequence[tuple[Slot, fx.Node]],
    symbols: Mapping[str, str],
) -> Kernel:
    """Write the part of `graph` that `results` need as a kernel; arguments that nothing reads are dropped."""
    needed = ancestors([node for _, node in results])
    kept = [(slot, node) for slot, node in arguments if node in needed]
    names = _names(graph, needed, [node for _, node in kept])
    nodes = [_node(n, names, symbols) for n in graph.nodes if n in needed and n.op == "call_function"]
    return Kernel(
        name=name,
        block=block,
        arguments=_bundles(kept, names, symbols),
        nodes=tuple(nodes),
        results=_bundles(results, names, symbols),
        device=device_of(graph, needed),
    )


def ancestors(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Return the nodes and everything that they are computed from."""
    found: set[fx.Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += node.all_input_nodes
    return found


def device_of(graph: fx.Graph, needed: set[fx.Node]) -> str:
    """Return `cpu` or `cuda` where an operator exists there only, else `any`."""
    for node in graph.nodes:
        if node in needed and node.op == "call_function":
            text = str(node.target)
            if "_for_cpu" in text or "mkldnn" in text:
                return "cpu"
            if any(word in text for word in ("cudnn", "_flash_attention", "_efficient_attention", "cuda")):
                return "cuda"
    return "any"


def _names(graph: fx.Graph, needed: set[fx.Node], placeholders: list[fx.Node]) -> dict[fx.Node, str]:
    names = {node: f"a{i}" for i, node in enumerate(placeholders)}
    computed = (n for n in graph.nodes if n in needed and n.op == "call_function")
    names.update({node: f"n{i}" for i, node in enumerate(computed)})
    return names


def _bundles(
    slots: Sequence[tuple[Slot, fx.Node]], names: Mapping[fx.Node, str], symbols: Mapping[str, str]
) -> tuple[Bundle, ...]:
    bundles: dict[tuple[str, str], list[Port]] = {}
    for slot, node in slots:
        port = Port(names[node], tensor_type(node.meta["val"], symbols), slot.source)
        bundles.setdefault((slot.role, slot.role if slot.role in GATHERED else slot.bundle), []).append(port)
    return tuple(
        Bundle(name, role, tuple(ports))  # type: ignore[arg-type]
        for (role, name), ports in bundles.items()
    )


def _node(node: fx.Node, names: Mapping[fx.Node, str], symbols: Mapping[str, str]) -> Node:
    target: Any = node.target
    return Node(
        name=names[node],
        op=ARITHMETIC[target] if target in ARITHMETIC else str(target),
        args=tuple(_json(a, names) for a in node.args),
        kwargs={k: _json(v, names) for k, v in node.kwargs.items()},
        origin=str(node.meta.get("origin", "")),
        types=tuple(_types(node.meta["val"], symbols)),
    )


def _types(value: Any, symbols: Mapping[str, str]) -> Iterator[TensorType]:
    """Yield the types of the tensors in a value; an item that is no tensor has dtype `none`."""
    if isinstance(value, torch.Tensor):
        yield tensor_type(value, symbols)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _types(item, symbols) if isinstance(item, torch.Tensor) else [NO_TENSOR]


def _json(value: Any, names: Mapping[fx.Node, str]) -> Json:
    if isinstance(value, fx.Node):
        return {"ref": names[value]}
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list | tuple):
        return [_json(v, names) for v in value]
    if isinstance(value, torch.dtype):
        return {"dtype": dtype_name(value)}
    if isinstance(value, torch.device):
        return {"device": "plan"}
    if isinstance(value, torch.layout):
        return {"layout": str(value).removeprefix("torch.")}
    if isinstance(value, torch.memory_format):
        return {"memory_format": str(value).removeprefix("torch.").removesuffix("_format")}
    raise TypeError(f"an argument of type {type(value).__name__} cannot stand in a plan")
