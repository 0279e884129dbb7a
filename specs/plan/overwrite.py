"""Which nodes may write over one of their arguments? Those that read last what the kernel itself has just made.

A kernel is functional, and large results that die at once cost page faults. Where such a result is dead after
an elementwise node and nothing else can share its memory, the node writes there. Every bit stays the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lpc.specs.plan.kernel import Json, Kernel, Node
from lpc.specs.plan.operators import GETITEM
from lpc.specs.plan.readers import readers

# Operators whose results are always new memory, in no case their argument's.
_FRESH = """
    add.Tensor addmm.default avg_pool2d.default avg_pool2d_backward.default bmm.default convolution.default
    convolution_backward.default gelu.default gelu_backward.default max_pool2d_with_indices.default
    max_pool2d_with_indices_backward.default mm.default mul.Tensor native_batch_norm.default
    native_batch_norm_backward.default _native_batch_norm_legit_functional.default native_layer_norm.default
    native_layer_norm_backward.default relu.default sigmoid.default sigmoid_backward.default sub.Tensor tanh.default
    tanh_backward.default threshold_backward.default
"""
FRESH = frozenset(f"aten.{name}" for name in _FRESH.split())

# Operator -> (number of arguments, positions of those that it can write over, in order of preference).
OVERWRITES: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "aten.relu.default": (1, (0,)),
    "aten.tanh.default": (1, (0,)),
    "aten.sigmoid.default": (1, (0,)),
    "aten.add.Tensor": (2, (0, 1)),
    "aten.sub.Tensor": (2, (0,)),
    "aten.threshold_backward.default": (3, (0,)),
    "aten.tanh_backward.default": (2, (0,)),
}


def overwritten(kernel: Kernel) -> dict[str, int]:
    """Return {node: position of the argument that it may write over}, where the layouts are alike."""
    found: dict[str, int] = {}
    by_value = readers(kernel)
    kept = {port.value for bundle in kernel.results for port in bundle.ports}
    own = {name for name in _made(kernel, by_value) if name not in kept}
    for node in kernel.nodes:
        count, positions = OVERWRITES.get(node.op, (0, ()))
        if len(node.args) != count or node.kwargs:
            continue
        for position in positions:
            name = name_of(node.args[position])
            if name in own and _reads_last(node, by_value[name]):
                found[node.name] = position
                break
    return found


def name_of(value: Json) -> str:
    """Return the name of the value that an argument is, or nothing."""
    return str(value["ref"]) if isinstance(value, dict) and "ref" in value else ""


def _reads_last(node: Node, found: list[Node]) -> bool:
    """Does `node` read the value last, and did nobody before it keep a view?"""
    return found[-1] is node and all(reader.op in FRESH for reader in found)


def _made(kernel: Kernel, by_value: Mapping[str, list[Node]]) -> Iterator[str]:
    """Yield the values that are new memory: results of fresh operators, and items that are taken just once."""
    nodes = {node.name: node for node in kernel.nodes}
    for node in kernel.nodes:
        if node.op in FRESH:
            yield node.name
        elif node.op == GETITEM:
            source = nodes.get(name_of(node.args[0]))
            if source is not None and source.op in FRESH:
                again = [r for r in by_value[source.name] if r.op != GETITEM or r.args[1] == node.args[1]]
                if again == [node]:
                    yield node.name
