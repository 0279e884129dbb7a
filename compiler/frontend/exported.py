"""How is a network traced whose own forward resists fx? By torch.export without a compiler front end.

The exported program is turned back into a graph that fetches the network's own parameters by name; guards
and assertions go, regions without gradients are inlined with their results detached. torch.export loses the
backward of custom autograd functions without a word, therefore networks with such functions are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, fx
from torch._higher_order_ops.wrap import wrap_with_autocast, wrap_with_set_grad_enabled
from torch.autograd import Function
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_unflatten

from lpc.compiler.frontend.chance import python_state
from lpc.compiler.frontend.customs import Apply, custom_functions
from lpc.compiler.frontend.fakes import SymbolicShapes
from lpc.compiler.frontend.network import BuiltNetwork
from lpc.compiler.frontend.outputs import select
from lpc.compiler.frontend.places import recorded_at, running_at
from lpc.compiler.frontend.quiet import quiet
from lpc.compiler.frontend.stack import placeholder

_LARGE_BATCH = 2**16
_CALL = re.compile(r"@(\d+)$")
_CHECKS = re.compile(r"^aten\.(_assert|sym_constrain|_functional_assert|_functional_sym_constrain)")


class ExportError(Exception):
    """torch.export would record something else than what the network computes; `code` is the diagnostic's."""

    def __init__(self, text: str, code: str = "0209") -> None:
        super().__init__(text)
        self.code = code


@dataclass
class Exported:
    """An exported graph with `path`, `call` and `place` on every node, and the constants it fetches."""

    graph: fx.Graph
    constants: dict[str, Tensor]


def trace_exported(network: BuiltNetwork) -> Exported:
    """Export the network in its present mode. Raises ExportError, or whatever torch.export raises."""
    shapes = SymbolicShapes(network.inputs, 3)
    examples = {
        name: torch.zeros(
            [shapes.hints[d] if isinstance(d, str) else d for d in ("B", *t.shape)],
            dtype=getattr(torch, t.dtype),
        )
        for name, t in network.inputs.items()
    }
    dynamic = {
        name: {axis: Dim.DYNAMIC for axis, d in enumerate(("B", *t.shape)) if isinstance(d, str)}
        for name, t in network.inputs.items()
    }
    before = python_state()
    with quiet(), torch.enable_grad(), custom_functions(_refuse):
        program = torch.export.export(network.module, (), examples, dynamic_shapes=dynamic, strict=False)
    if python_state() != before:
        text = "it draws from Python's or NumPy's random generator; tracing would freeze the numbers"
        raise ExportError(text, "0214")
    _check_batch(program)
    return _Unlift(program, network).run()


def _check_batch(program: ExportedProgram) -> None:
    """Refuse a network whose own comparisons bound the batch size."""
    first = next(n for n in program.graph.nodes if n.name in program.graph_signature.user_inputs)
    batch = first.meta["val"].shape[0]
    bounds = program.range_constraints.get(batch.node.expr)
    if bounds is not None and (bounds.lower > 2 or bounds.upper < _LARGE_BATCH):
        text = f"it compares the batch size with a number: {bounds.lower} to {bounds.upper} take this path"
        raise ExportError(text, "0211")


def _refuse(function: type[Function], apply: Apply, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
    raise ExportError(
        f"it calls the custom autograd function `{function.__qualname__}` at {running_at()}, whose backward "
        "torch.export would drop",
        "0212",
    )


@dataclass
class _Unlift:
    """Copies an exported program into a graph over the network's own parameters."""

    program: ExportedProgram
    network: BuiltNetwork
    graph: fx.Graph = field(default_factory=fx.Graph)
    constants: dict[str, Tensor] = field(default_factory=dict)

    def run(self) -> Exported:
        copies = self.inputs()
        results = self.body(self.program.graph_module, copies)
        spec = self.program.call_spec.out_spec
        assert spec is not None
        kept = results[len(results) - spec.num_leaves :]
        self.graph.output(select(tree_unflatten(kept, spec), self.network.output))
        return Exported(self.graph, self.constants)

    def inputs(self) -> dict[fx.Node, Any]:
        """Add the network's inputs, and fetch parameters, buffers and constants by name."""
        for name in self.network.inputs:
            placeholder(self.graph, name)
        ours: dict[str, fx.Node] = {str(node.target): node for node in self.graph.nodes}
        copies: dict[fx.Node, Any] = {}
        names = iter(self.network.inputs)
        theirs = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        for node, entry in zip(theirs, self.program.graph_signature.input_specs, strict=True):
            if entry.kind is InputKind.USER_INPUT:
                copies[node] = ours[next(names)]
            elif entry.kind in (InputKind.PARAMETER, InputKind.BUFFER):
                copies[node] = self.fetch(str(entry.target))
            else:
                copies[node] = self.constant(str(entry.target))
        return copies

    def constant(self, name: str) -> fx.Node:
        tensor = self.program.constants[name]
        if not isinstance(tensor, Tensor):
            raise ExportError(f"it holds the constant `{name}`, which is no tensor")
        kept = name.replace(".", "_")
        self.constants[kept] = tensor
        return self.fetch(kept)

    def fetch(self, name: str) -> fx.Node:
        # The graph's own constructor checks that the attribute exists, and there is no module yet.
        node = self.graph.create_node("get_attr", name)
        node.meta.update(path="", call=0, place=None)
        return node

    def body(self, module: fx.GraphModule, copies: dict[fx.Node, Any]) -> list[Any]:
        """Copy a graph's nodes; return what it returns."""
        for node in module.graph.nodes:
            if node.op == "output":
                return [self.copied(a, copies) for a in node.args[0]]
            if node.op != "placeholder" and not _is_check(node):
                copies[node] = self.node(node, module, copies)
        return []

    def node(self, node: fx.Node, module: fx.GraphModule, copies: dict[fx.Node, Any]) -> Any:
        if node.op == "get_attr":
            return self.attribute(module, str(node.target))
        inline = INLINED.get(node.target)
        if inline is not None:
            return inline(self, node, copies)
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise ExportError(f"it uses `{node.target}` at {recorded_at(node.stack_trace)}")
        args = self.copied(node.args, copies)
        if any(isinstance(a, tuple | list) for a in args) and _takes_element(node):
            return args[0][args[1]]
        return self.add(node, node.target, args, self.copied(node.kwargs, copies))

    def add(self, like: fx.Node, target: Any, args: Any, kwargs: Any = None) -> fx.Node:
        made = self.graph.create_node("call_function", target, tuple(args), dict(kwargs or {}), name=like.name)
        scopes = _scopes(like)
        path, call = scopes[-1] if scopes else ("", 0)
        made.meta.update(path=path, call=call, scopes=scopes, place=recorded_at(like.stack_trace))
        return made

    def attribute(self, module: fx.GraphModule, name: str) -> Any:
        value: Any = module
        for part in name.split("."):
            value = getattr(value, part)
        if not isinstance(value, Tensor):
            return value
        self.constants[name.replace(".", "_")] = value
        return self.fetch(name.replace(".", "_"))

    def copied(self, value: Any, copies: dict[fx.Node, Any]) -> Any:
        return fx.node.map_arg(value, copies.__getitem__)

    def inline(self, module: fx.GraphModule, operands: tuple[Any, ...]) -> list[Any]:
        inner = [node for node in module.graph.nodes if node.op == "placeholder"]
        return self.body(module, dict(zip(inner, operands, strict=True)))


def _without_gradient(unlift: _Unlift, node: fx.Node, copies: dict[fx.Node, Any]) -> Any:
    """Inline a region run with gradients switched on or off; off means that its results are detached."""
    enabled, module, *operands = cast(Any, node.args)
    results = unlift.inline(copies[module], unlift.copied(tuple(operands), copies))
    if enabled:
        return results
    detach = torch.ops.aten.detach.default
    return [unlift.add(node, detach, (r,)) if isinstance(r, fx.Node) else r for r in results]


def _without_autocast(unlift: _Unlift, node: fx.Node, copies: dict[fx.Node, Any]) -> Any:
    """Inline a region that switches autocast off: it is off already."""
    _device, _dtype, enabled, _cache, module, *operands = cast(Any, node.args)
    if enabled:
        raise ExportError(f"it switches autocast on at {recorded_at(node.stack_trace)}; use `run.precision` instead")
    return unlift.inline(copies[module], unlift.copied(tuple(operands), copies))


Inline = Callable[[_Unlift, fx.Node, dict[fx.Node, Any]], Any]

INLINED: dict[Any, Inline] = {
    wrap_with_set_grad_enabled: _without_gradient,
    wrap_with_autocast: _without_autocast,
}


def _is_check(node: fx.Node) -> bool:
    return bool(_CHECKS.match(str(node.target))) or (node.op == "call_module" and "guard" in str(node.target))


def _takes_element(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", "") == "getitem"


def _scopes(node: fx.Node) -> tuple[tuple[str, int], ...]:
    """Return the modules around a node, the innermost last, each with the number of its call.

    The root is none of them, nor does it hold what export adds.
    """
    stack = list((node.meta.get("nn_module_stack") or {}).items())
    if not stack or stack[-1][0].startswith("_empty_"):
        return ()
    found = [(_CALL.sub("", path), _CALL.search(key)) for key, (path, _) in stack]
    return tuple((path, int(number[1]) if number else 0) for path, number in found if path)
