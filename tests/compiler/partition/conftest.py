"""How do partition tests get a traced network? Small fx graphs, annotated as the front end annotates them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from lpc.specs.model import Decompose, Network, Spec
from lpc.specs.term import Term

HINT_BATCH = 4


@dataclass(frozen=True)
class Traced:
    """What `partition` reads of a traced network."""

    train: fx.GraphModule
    eval: fx.GraphModule
    rung: str = "modules"
    inputs: tuple[str, ...] = ("x",)


class _Fakes(fx.Interpreter):
    """Runs a graph on fake tensors with a symbolic batch and notes every node's value."""

    def run_node(self, n: fx.Node) -> Any:
        n.meta["val"] = super().run_node(n)
        return n.meta["val"]


def annotate(module: fx.GraphModule, **inputs: torch.Tensor) -> fx.GraphModule:
    """Fill in the metadata of a graph whose inputs are given as one sample each, without the batch axis."""
    shapes = ShapeEnv()
    mode = FakeTensorMode(shape_env=shapes, allow_non_fake_inputs=True)
    fakes = []
    for value in inputs.values():
        batch = value.expand(HINT_BATCH, *value.shape).clone()
        sizes = [DimDynamic.DYNAMIC, *[DimDynamic.STATIC] * value.ndim]
        fakes.append(mode.from_tensor(batch, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes)))
    with mode:
        _Fakes(module).run(*fakes)
    symbols = {str(s): "B" for f in fakes for s in f.shape[0].node.expr.free_symbols}
    module.meta.update(symbols=symbols, hint_batch=HINT_BATCH)
    for node in module.graph.nodes:
        _describe(module, node)
    return module


def _describe(module: fx.GraphModule, node: fx.Node) -> None:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = str(node.target) if node.op == "call_module" else (stack[-1][0] if stack else "")
    owned: list[str] = []
    if node.op == "call_module":
        owned = [f"{path}.{n}" for n, _ in module.get_submodule(path).named_parameters()]
    if node.op == "get_attr":
        owned = [str(node.target)]
    size = _bytes(node.meta.get("val")) if node.op != "get_attr" else 0
    node.meta.update(
        path=path, call=0, key=node.name, parameters=tuple(owned), buffers=(), bytes=size, flops=size
    )


def _bytes(value: Any) -> int:
    if isinstance(value, tuple | list):
        return sum(map(_bytes, value))
    if not isinstance(value, torch.Tensor):
        return 0
    count = 1
    for length in value.shape:
        count *= length.node.hint if isinstance(length, torch.SymInt) else length
    return count * value.element_size()


def trace_network(network: nn.Module, **inputs: torch.Tensor) -> Traced:
    """Trace and annotate a module; `inputs` are single samples and default to `x` of 4 numbers."""
    inputs = inputs or {"x": torch.zeros(4)}
    graphs = [annotate(fx.symbolic_trace(network), **inputs) for _ in range(2)]
    for graph in graphs:
        graph.meta["parameters"] = {name: p.numel() for name, p in network.named_parameters()}
    return Traced(*graphs, inputs=tuple(inputs))


def make_spec(blocks: Any, **decompose: Any) -> Spec:
    """Return a spec of which only `decompose` matters; selectors may be given as one string or a list."""
    if isinstance(blocks, dict):
        blocks = {k: tuple(v) if isinstance(v, list | tuple) else (v,) for k, v in blocks.items()}
    links = decompose.pop("links", {"*": Term("stop")})
    return Spec(network=Network(), decompose=Decompose(blocks=blocks, links=links, **decompose), learn=())


@pytest.fixture
def trace() -> Callable[..., Traced]:
    return trace_network


@pytest.fixture
def spec() -> Callable[..., Spec]:
    return make_spec
