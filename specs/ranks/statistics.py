"""Which buffers does a step change that also change what it computes? Not a batch norm's: it only keeps them.

Such buffers tie pieces of a batch together: a piece needs what the one before has written.
"""

from __future__ import annotations

from collections.abc import Iterable

from lpc.specs.plan.kernel import Kernel, Node
from lpc.specs.plan.wellformed import references

# Operators with running statistics: where these stand among the arguments, where the flag of training does,
# and the first result that depends on them while it is on.
KEPT: dict[str, tuple[tuple[int, ...], int, int]] = {
    "aten._native_batch_norm_legit_functional.default": ((3, 4), 5, 3),
    "aten.native_batch_norm.default": ((3, 4), 5, 3),
    "aten.native_batch_norm_backward.default": ((3, 4), 7, 3),
}


Names = frozenset[str]
NOTHING: Names = frozenset()


def live_buffers(kernels: Iterable[Kernel]) -> list[tuple[str, str]]:
    """Return (block, buffer) where a kernel's results follow from a buffer that one of the kernels changes.

    Residuals are results only as far as the backward kernel computes with them.
    """
    own = sorted(kernels, key=lambda kernel: any(bundle.role == "residuals" for bundle in kernel.arguments))
    changed = frozenset(p.source for k in own for bundle in k.results if bundle.role == "buffers" for p in bundle.ports)
    kept: dict[str, list[Names]] = {}  # block -> what each of its residuals follows from
    found: dict[tuple[str, str], None] = {}
    for kernel in own:
        reached = _reached(kernel, changed, kept.get(kernel.block, []))
        for bundle in kernel.results:
            names = [reached.get(port.value, NOTHING) for port in bundle.ports]
            if bundle.role == "residuals":
                kept[kernel.block] = names
            elif bundle.role != "buffers":
                found.update(dict.fromkeys((kernel.block, name) for one in names for name in sorted(one)))
    return list(found)


def _reached(kernel: Kernel, changed: Names, residuals: Iterable[Names]) -> dict[str, Names]:
    """Return for each value in a kernel the changed buffers that it follows from."""
    reached: dict[str, Names] = {}
    for bundle in kernel.arguments:
        if bundle.role == "state":
            reached |= {port.value: frozenset({port.source}) & changed for port in bundle.ports}
        elif bundle.role == "residuals":
            reached |= {port.value: names for port, names in zip(bundle.ports, residuals, strict=False)}
    nodes = {node.name: node for node in kernel.nodes}
    for node in kernel.nodes:
        reached[node.name] = NOTHING.union(*(reached.get(name, NOTHING) for name in _read(node, nodes)))
    return reached


def _read(node: Node, nodes: dict[str, Node]) -> list[str]:
    """Return the names that a node's result follows from."""
    if node.op == "getitem":
        maker = nodes.get(next(iter(references([node.args[0]])), ""))
        if maker is not None and maker.op in KEPT:
            return _of_norm(maker, node.args[1])
    return list(references([*node.args, *node.kwargs.values()]))


def _of_norm(node: Node, index: object) -> list[str]:
    kept, flag, first = KEPT[node.op]
    training = node.args[flag] is True
    idle = training and isinstance(index, int) and index < first
    return list(references([value for place, value in enumerate(node.args) if not (idle and place in kept)]))
