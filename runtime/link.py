"""How does a kernel become something to call? Straight-line Python, one line a node, compiled once.

No text of the plan enters the source: values are `v0, v1, ...`, constants `c0, ...` and operators `f0, ...`,
all bound in the namespace of the generated function; keyword names come from the operator's own schema.
"""

from __future__ import annotations

from collections.abc import Callable
from keyword import iskeyword
from types import TracebackType
from typing import Any

import torch

from lpc.runtime.decode import decode
from lpc.runtime.operators import IDENTITIES, INTEGER_ARITHMETIC, overload, quickest
from lpc.runtime.reuse import reuses
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.kernel import Json, Kernel, Node
from lpc.specs.plan.operators import GETITEM
from lpc.specs.plan.readers import last_readers, reads
from lpc.specs.plan.wellformed import references

Linked = Callable[[list[Any]], list[Any]]
HEADER = 3  # lines before the first node: def, unpacking, clearing


def link(kernel: Kernel, device: torch.device | str) -> Linked:
    """Return the kernel as a function from its arguments' ports, flat and in order, to its results' ports.

    The list of arguments is emptied by the call, and every value is dropped after its last reader, so that a
    tensor that nobody else holds is freed inside the kernel, or written over where its memory fits.
    """
    writer = _Writer(kernel, torch.device(device))
    source = writer.source()
    exec(compile(source, f"<kernel {kernel.name}>", "exec"), writer.namespace)
    function: Linked = writer.namespace["kernel"]
    return function


def node_at(kernel: Kernel, traceback: TracebackType | None) -> Node | None:
    """Return the node that a traceback through the linked kernel points at, if any."""
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == f"<kernel {kernel.name}>":
            index = traceback.tb_lineno - HEADER - 1
            return kernel.nodes[index] if 0 <= index < len(kernel.nodes) else None
        traceback = traceback.tb_next
    return None


class _Writer:
    """Collects the source and the namespace of one kernel."""

    def __init__(self, kernel: Kernel, device: torch.device) -> None:
        self.kernel = kernel
        self.device = device
        self.namespace: dict[str, Any] = {}
        self.values: dict[str, str] = {}
        self.operators: dict[str, tuple[str, Any]] = {}
        self.constants: dict[tuple[str, str], str] = {}
        self.in_place = reuses(kernel)

    def source(self) -> str:
        arguments = [self.new_value(p.value, "argument") for b in self.kernel.arguments for p in b.ports]
        last = last_readers(self.kernel)
        unread = [self.values[name] for name in self.values if name not in last]
        unpack = f"({', '.join(arguments)},) = values" if arguments else "pass"
        clear = f"values.clear(); del {', '.join(unread)}" if unread else "values.clear()"
        lines = ["def kernel(values):", f" {unpack}", f" {clear}"]
        lines += [" " + self.line(index, node, last) for index, node in enumerate(self.kernel.nodes)]
        results = [self.value(p.value, "results") for b in self.kernel.results for p in b.ports]
        return "\n".join([*lines, f" return [{', '.join(results)}]"]) + "\n"

    def line(self, index: int, node: Node, last: dict[str, int]) -> str:
        """Return the one line of source that runs a node and drops what nobody reads any more."""
        expression = self.expression(node)
        target = self.new_value(node.name, f"node {index}")
        dead = [self.values[name] for name in dict.fromkeys(reads(node)) if last[name] == index]
        dead += [] if node.name in last else [target]
        return f"{target} = {expression}" + (f"; del {', '.join(dead)}" if dead else "")

    def expression(self, node: Node) -> str:
        place = f"kernel {self.kernel.name}, node {node.name}"
        arguments = [self.argument(value, place) for value in node.args]
        if node.op == GETITEM and len(arguments) == 2:
            return f"{arguments[0]}[{arguments[1]}]"
        if node.op in INTEGER_ARITHMETIC:
            return f"{self.bind(node.op, INTEGER_ARITHMETIC[node.op], None)}({', '.join(arguments)})"
        if node.op in self.operators:
            name, found = self.operators[node.op]
        else:
            found = overload(node.op, place)
            name = self.bind(node.op, quickest(node.op, found), found)
        if node.op in IDENTITIES:
            return arguments[0]
        if node.name in self.in_place:
            function = self.in_place[node.name]
            return f"{self.bind(function.__name__, function, found)}({', '.join(arguments)})"
        arguments += self.keywords(node, found, place)
        return f"{name}({', '.join(arguments)})"

    def keywords(self, node: Node, found: Any, place: str) -> list[str]:
        known = {argument.name for argument in found._schema.arguments}
        for key in node.kwargs:
            if key not in known or iskeyword(key):
                raise LpcError(Diagnostic("0641", f"`{node.op}` takes no argument `{key}`", place=place))
        return [f"{key}={self.argument(value, place)}" for key, value in node.kwargs.items()]

    def argument(self, value: Json, place: str) -> str:
        names = list(references(value))
        if not names:
            return self.constant(decode(value, self.device, place))
        if isinstance(value, list):
            return f"[{', '.join(self.argument(item, place) for item in value)}]"
        return self.value(names[0], place)

    def bind(self, op: str, function: Any, found: Any) -> str:
        name = self.operators.setdefault(op, (f"f{len(self.operators)}", found))[0]
        self.namespace[name] = function
        return name

    def constant(self, value: Any) -> str:
        key = (type(value).__name__, repr(value))
        name = self.constants.setdefault(key, f"c{len(self.constants)}")
        self.namespace.setdefault(name, value)
        return name

    def new_value(self, name: str, what: str) -> str:
        if name in self.values:
            raise self.malformed(f"{what} defines `{name}` a second time")
        return self.values.setdefault(name, f"v{len(self.values)}")

    def value(self, name: str, where: str) -> str:
        if name not in self.values:
            raise self.malformed(f"{where} reads `{name}` before it is defined")
        return self.values[name]

    def malformed(self, message: str) -> LpcError:
        return LpcError(Diagnostic("0643", message, place=f"kernel {self.kernel.name}"))
