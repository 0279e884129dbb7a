"""What does one block compute? The block's own fx module, cut out of the network's graph.

Tensors that come from outside become placeholders. Everything else that comes from outside (sizes, numbers,
dtypes) is recomputed inside from the block's own tensors, so that only tensors ever cross a boundary.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch import Tensor, fx


@dataclass(frozen=True)
class BlockModule:
    """A block of one mode: its module, the outside tensors it reads and the tensors others read of it.

    `inputs` and `outputs` are node names of the network's graph; `module(*inputs)` returns a tuple.
    """

    module: fx.GraphModule
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def outside_readers(network: fx.GraphModule, nodes: Sequence[str]) -> tuple[str, ...]:
    """Return, in graph order, the block's tensor nodes that another block or the network's output reads."""
    own = set(nodes)
    return tuple(
        node.name
        for node in network.graph.nodes
        if node.name in own
        and isinstance(node.meta.get("val"), Tensor)
        and any(_carries(user, own) for user in node.users)
    )


def extract(
    network: fx.GraphModule, nodes: Sequence[str], outputs: Sequence[str]
) -> BlockModule:
    """Cut `nodes` out of `network` as a module of their own that returns `outputs`."""
    by_name = {node.name: node for node in network.graph.nodes}
    cut = _Cut(network, fx.Graph())
    for node in outside_tensors(network, nodes):
        cut.add_input(node)
    for name in nodes:
        cut.copy(by_name[name])
    cut.graph.output(tuple(cut.copies[by_name[name]] for name in outputs))
    module = fx.GraphModule(network, cut.graph)
    return BlockModule(module, tuple(cut.input_names), tuple(outputs))


def _carries(user: fx.Node, own: set[str]) -> bool:
    """A size read by another block is recomputed there from a tensor it has; that is no reader of this one."""
    if user.name in own:
        return False
    return user.op == "output" or _holds_tensor(user.meta.get("val"))


def outside_tensors(network: fx.GraphModule, nodes: Sequence[str]) -> list[fx.Node]:
    """Return the tensors that a block reads from outside, in the order in which it first reads them."""
    by_name = {node.name: node for node in network.graph.nodes}
    return _tensor_inputs([by_name[name] for name in nodes], set(nodes))


def _tensor_inputs(nodes: Sequence[fx.Node], own: set[str]) -> list[fx.Node]:
    found: dict[fx.Node, None] = {}
    for node in nodes:
        if not _holds_tensor(node.meta.get("val")) and not any(u.name in own for u in node.users):
            continue
        for source in node.all_input_nodes:
            if source.name not in own and isinstance(source.meta.get("val"), Tensor):
                found.setdefault(source)
    return list(found)


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_holds_tensor(v) for v in value)
    if isinstance(value, dict):
        return any(_holds_tensor(v) for v in value.values())
    return isinstance(value, Tensor)


@dataclass
class _Cut:
    """The state of one extraction: the new graph and where each outside node went."""

    network: fx.GraphModule
    graph: fx.Graph
    copies: dict[fx.Node, Any] = field(default_factory=dict)
    input_names: list[str] = field(default_factory=list)
    placeholders: list[fx.Node] = field(default_factory=list)

    def add_input(self, node: fx.Node) -> fx.Node:
        with self.graph.inserting_after(self.placeholders[-1] if self.placeholders else self.graph._root):
            placeholder = self.graph.placeholder(node.name)
        placeholder.meta = dict(node.meta)
        self.copies[node] = placeholder
        self.input_names.append(node.name)
        self.placeholders.append(placeholder)
        return placeholder

    def copy(self, node: fx.Node) -> None:
        for source in node.all_input_nodes:
            if source not in self.copies:
                self.copies[source] = self.rebuild(source.meta.get("val"))
        copied = self.graph.create_node(
            node.op,
            node.target,
            fx.node.map_arg(node.args, self.copies.__getitem__),
            fx.node.map_arg(node.kwargs, self.copies.__getitem__),
            name=node.name,
        )
        copied.meta = dict(node.meta)
        self.copies[node] = copied

    def rebuild(self, value: Any) -> Any:
        """Return the value of an outside node that is no tensor: a constant, or arithmetic over sizes."""
        if isinstance(value, tuple | list):
            return type(value)(self.rebuild(v) for v in value) if type(value) in (tuple, list) else tuple(
                self.rebuild(v) for v in value
            )
        if isinstance(value, torch.SymInt):
            return self.arithmetic(value.node.expr)
        return value

    def arithmetic(self, expression: sympy.Expr) -> Any:
        if expression.is_Integer:
            return int(expression)
        if expression.is_Symbol:
            return self.size_of(expression)
        rule = ARITHMETIC.get(type(expression).__name__)
        if rule is None:
            raise ValueError(f"a size crosses a block's border as `{expression}`, which cannot be recomputed")
        terms = [self.arithmetic(argument) for argument in expression.args]
        result = terms[0]
        for term in terms[1:]:
            result = self.graph.call_function(rule, (result, term))
        return result

    def size_of(self, symbol: sympy.Symbol) -> fx.Node:
        """Read a symbolic length from a tensor that the block has, else from a network input."""
        candidates = [*self.placeholders, *(n for n in self.network.graph.nodes if n.op == "placeholder")]
        for node in candidates:
            axis = _axis_of(node.meta.get("val"), symbol)
            if axis is None:
                continue
            source = node if node in self.placeholders else self.add_input(node)
            return self.graph.call_function(torch.ops.aten.sym_size.int, (source, axis))
        raise ValueError(f"no tensor of the block has the length `{symbol}`")


ARITHMETIC: dict[str, Callable[..., Any]] = {
    "Add": operator.add,
    "Mul": operator.mul,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "Pow": operator.pow,
}


def expression_of(size: Any) -> sympy.Expr | None:
    """Return the expression of a symbolic length; None for a number."""
    return size.node.expr if isinstance(size, torch.SymInt) else None


def _axis_of(value: Any, symbol: sympy.Symbol) -> int | None:
    if not isinstance(value, Tensor):
        return None
    for axis, size in enumerate(value.shape):
        if expression_of(size) == symbol:
            return axis
    return None
