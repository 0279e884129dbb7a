"""Who reads a value inside a kernel, and who reads it last?"""

from __future__ import annotations

from lpc.specs.plan.kernel import Kernel, Node
from lpc.specs.plan.wellformed import references


def reads(node: Node) -> list[str]:
    """Return the names of the values that a node reads, in order, as often as it names them."""
    return list(references([*node.args, *node.kwargs.values()]))


def readers(kernel: Kernel) -> dict[str, list[Node]]:
    """Return the nodes that read each value, in order."""
    found: dict[str, list[Node]] = {}
    for node in kernel.nodes:
        for name in dict.fromkeys(reads(node)):
            found.setdefault(name, []).append(node)
    return found


def last_readers(kernel: Kernel) -> dict[str, int]:
    """Return the index of the last reader of every value that is read; results live to the end."""
    last = {name: index for index, node in enumerate(kernel.nodes) for name in reads(node)}
    last.update((port.value, len(kernel.nodes)) for bundle in kernel.results for port in bundle.ports)
    return last
