"""What is known of every node? Shape, cost, parameters and a key, found by a run on fake tensors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from lpc.compiler.frontend.chance import python_state
from lpc.compiler.frontend.fakes import SymbolicShapes, each_tensor, nbytes, shape_text
from lpc.compiler.frontend.flops import FlopCount
from lpc.compiler.frontend.network import BuiltNetwork
from lpc.compiler.frontend.places import first_line, raised_at
from lpc.compiler.frontend.quiet import quiet
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.model import Path, Spec

_FOUND = ("val", "flops", "bytes", "parameters", "buffers")
_FIXED_HELP = "let sizes follow the input, as in `x.view(x.shape[0], -1)`"


@dataclass(frozen=True)
class Names:
    """The canonical name of every parameter and buffer of a network, by identity."""

    parameters: dict[int, str]
    buffers: dict[int, str]

    @classmethod
    def of(cls, network: nn.Module, graph: fx.GraphModule) -> Names:
        """Collect the names; constants that only the graph has count as buffers."""
        own = {id(t): n for n, t in network.named_buffers()}
        made = {id(t): n for n, t in graph.named_buffers() if id(t) not in own}
        return cls({id(p): n for n, p in network.named_parameters()}, {**made, **own})


def annotate(module: fx.GraphModule, network: BuiltNetwork, spec: Spec, hint_batch: int) -> None:
    """Write `val`, `flops`, `bytes`, `parameters`, `buffers` and `key` to every node's meta, in place.

    The graph module's meta gets `symbols` (sympy symbol -> `B` or a named length), `hint_batch` and
    `parameters` (elements of each by name, in order), and `network`, the module that it was traced from. Raises
    LpcError, at the node's source line, if the network fails on its inputs, fixes the batch size, or draws random
    numbers outside torch.
    """
    shapes = SymbolicShapes(network.inputs, hint_batch)
    inputs = [shapes.batch(tensor) for tensor in network.inputs.values()]
    before = python_state()
    with shapes.active():
        state = [
            *module.named_parameters(remove_duplicate=False),
            *module.named_buffers(remove_duplicate=False),
        ]
        fakes = each_tensor(state, shapes.like)
    run = _Run(module, shapes, spec, Names.of(network.module, module))
    bound = {f"inner.{name}": fake for name, fake in fakes.items()}
    with quiet(), shapes.active(), torch.enable_grad():
        functional_call(run, bound, tuple(inputs))
    if python_state() != before:
        raise _problem(spec, "0214", "the network draws from Python's or NumPy's random generator", None)
    module.meta["symbols"] = shapes.symbols
    module.meta["hint_batch"] = hint_batch
    module.meta["parameters"] = {name: p.numel() for name, p in network.module.named_parameters()}
    module.meta["network"] = network.module
    _check_output(module, spec, shapes)
    set_keys(module.graph)


def annotate_alike(module: fx.GraphModule, like: fx.GraphModule) -> None:
    """Write to a graph what is known of another one with the same nodes, which computes the same."""
    for node, known in zip(module.graph.nodes, like.graph.nodes, strict=True):
        node.meta.update({key: known.meta[key] for key in _FOUND if key in known.meta})
    module.meta.update({key: like.meta[key] for key in ("symbols", "hint_batch", "parameters")})
    set_keys(module.graph)


def set_keys(graph: fx.Graph) -> None:
    """Write `key`: path, call, operator and its number in that call; a site has the same in both modes."""
    counts: Counter[tuple[str, int, str]] = Counter()
    for node in graph.nodes:
        site = (node.meta.setdefault("path", ""), node.meta.setdefault("call", 0), _op_text(node))
        node.meta["key"] = (*site, counts[site])
        counts[site] += 1


class _Run(nn.Module):
    """Runs a graph node by node; a module, so that its state can be replaced by fakes."""

    def __init__(self, inner: fx.GraphModule, shapes: SymbolicShapes, spec: Spec, names: Names) -> None:
        super().__init__()
        self.inner = inner
        self.annotator = _Annotator(inner, shapes, spec, names)

    def forward(self, *inputs: Tensor) -> Any:
        with self.annotator.flops:
            return self.annotator.run(*inputs)


@dataclass
class _Uses:
    """What a node reads of the network's state."""

    parameters: dict[str, None] = field(default_factory=dict)
    buffers: dict[str, None] = field(default_factory=dict)


class _Annotator(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, shapes: SymbolicShapes, spec: Spec, names: Names) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.shapes, self.spec = shapes, spec
        self.flops = FlopCount()
        self.uses = _state_uses(module, names)

    def run_node(self, n: fx.Node) -> Any:
        try:
            result = super().run_node(n)
        except Exception as error:
            text = f"the network fails at {describe(n)}, with an input of shape {self.shape_of(n)}"
            raise self.problem("0210", text, n, error, first_line(error)) from error
        for name, condition in self.shapes.fixed_lengths():
            what = "batch size" if name == "B" else f"length `{name}`"
            text = f"the network fixes its {what} at {describe(n)}: it needs {self.named(condition)}"
            raise self.problem("0211", text, n, None)
        uses = self.uses.get(n, _Uses())
        flops = self.flops.take()
        n.meta.update(
            val=self.shapes.plain(result),
            flops=flops,
            bytes=0 if n.op in ("get_attr", "output") else nbytes(result),
            parameters=tuple(uses.parameters),
            buffers=tuple(uses.buffers),
        )
        return result

    def shape_of(self, n: fx.Node) -> str:
        values = [m.meta.get("val") for m in n.all_input_nodes if m.op != "get_attr"]
        found = [shape_text(v, self.shapes.symbols) for v in values if isinstance(v, Tensor)]
        return " and ".join(found) or "no tensor"

    def named(self, condition: str) -> str:
        for symbol, name in self.shapes.symbols.items():
            condition = condition.replace(symbol, name)
        return condition

    def problem(self, code: str, text: str, n: fx.Node, error: Exception | None, *notes: str) -> LpcError:
        place = (raised_at(error) if error is not None else None) or n.meta.get("place")
        return _problem(self.spec, code, text, place, *notes, at=n.meta.get("spec"))


def describe(n: fx.Node) -> str:
    """Name a node for a message: its module and operator."""
    path = n.meta.get("path", "")
    return f"`{path}` ({_op_text(n)})" if path else f"`{_op_text(n)}`"


def _check_output(module: fx.GraphModule, spec: Spec, shapes: SymbolicShapes) -> None:
    output = next(iter(reversed(module.graph.nodes)))
    source = output.args[0]
    value = source.meta.get("val") if isinstance(source, fx.Node) else None
    if not isinstance(value, Tensor):
        found = type(value if isinstance(source, fx.Node) else source).__name__
        text = f"the network's output is no tensor but `{found}`"
        raise _problem(spec, "0213", text, None, at=("network", "output"))
    batched = value.dim() > 0 and "B" in shape_text(value, shapes.symbols)
    if not batched:
        found = shape_text(value, shapes.symbols)
        text = f"the network's output of shape {found} does not follow the batch size"
        assert isinstance(source, fx.Node)
        raise _problem(spec, "0211", text, source.meta.get("place"), f"it is computed at {describe(source)}")


def _state_uses(module: fx.GraphModule, names: Names) -> dict[fx.Node, _Uses]:
    """Find what every node reads, before the state is replaced by fakes."""
    found: dict[fx.Node, _Uses] = {}
    for node in module.graph.nodes:
        uses = _Uses()
        for tensor in _own_state(node, module):
            if id(tensor) in names.parameters:
                uses.parameters.setdefault(names.parameters[id(tensor)])
            elif id(tensor) in names.buffers:
                uses.buffers.setdefault(names.buffers[id(tensor)])
        found[node] = uses
    return found


def _own_state(node: fx.Node, module: fx.GraphModule) -> list[Tensor]:
    if node.op == "call_module":
        part = module.get_submodule(str(node.target))
        return [*part.parameters(), *part.buffers()]
    if node.op == "get_attr":
        return [_attribute(module, str(node.target))]
    return [_attribute(module, str(n.target)) for n in node.all_input_nodes if n.op == "get_attr"]


def _attribute(module: nn.Module, name: str) -> Tensor:
    owner, _, last = name.rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(owner), last)
    return tensor


def _op_text(node: fx.Node) -> str:
    if node.op == "call_module":
        owner = node.graph.owning_module
        return type(owner.get_submodule(str(node.target))).__name__ if owner is not None else "module"
    if node.op == "call_function":
        target: Any = node.target
        return str(target) if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", str(target))
    return f"{node.op}:{node.target}" if node.op == "get_attr" else str(node.target)


def _problem(spec: Spec, code: str, text: str, place: str | None, *notes: str, at: Path | None = None) -> LpcError:
    """A diagnostic at the layer or at the user's Python line where one is known, else at the network."""
    network = spec.network
    own = "zoo" if network.zoo else "layers" if network.layers is not None else "module"
    span = spec.origin(*(at or ("network", own))) if at or not place else None
    help = _FIXED_HELP if code == "0211" else None
    return LpcError(Diagnostic(code, text, span, None if span else place or "spec: network", notes, help))
