"""Is a kernel plain data of allowed operators? Arguments as JSON, names, devices, dead arguments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx

import lpc
from lpc.compiler.capture.joint import Slot
from lpc.compiler.capture.lower import ancestors, device_of, lower
from lpc.specs.plan.operators import is_allowed
from lpc.specs.plan.verify import verify

aten = torch.ops.aten


def kernel_of(function: Any, tools: Any, *shapes: Any) -> Any:
    traced = tools.trace(function, *shapes)
    nodes = list(traced.graph.nodes)
    places = [n for n in nodes if n.op == "placeholder"]
    arguments = [(Slot("input", n.name, n.name), n) for n in places]
    results = [(Slot("output", f"y{i}", f"y{i}"), n) for i, n in enumerate(nodes[-1].args[0])]
    return lower("b.eval", "b", traced.graph, arguments, results, traced.symbols)


def test_a_kernel_is_named_and_typed(tools: Any) -> None:
    kernel = kernel_of(lambda x, y: (x.exp() + 1.0, x), tools, ("B", 6), ("B", 2))
    assert [n.op for n in kernel.nodes] == ["aten.exp.default", "aten.add.Tensor"]
    assert [n.name for n in kernel.nodes] == ["n0", "n1"]
    assert kernel.nodes[1].args == ({"ref": "n0"}, 1.0)
    assert [str(p.type) for b in kernel.arguments for p in b.ports] == ["float64[B, 6]"]  # nothing reads the other
    assert [(p.value, str(p.type)) for b in kernel.results for p in b.ports] == [
        ("n1", "float64[B, 6]"),
        ("a0", "float64[B, 6]"),
    ]


def test_every_kind_of_argument_becomes_json() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    values = (True, 2, 0.5, float("inf"), "relu", None, torch.float32, torch.device("cpu"), torch.strided)
    kwargs = {"memory_format": torch.contiguous_format, "list": [x, (1, 2)]}
    node = graph.call_function(aten.exp.default, (x, *values), kwargs)
    graph.output([node])
    x.meta["val"] = node.meta["val"] = torch.zeros(2)
    slots = [(Slot("output", "y", "y"), node)]
    written = lower("b.eval", "b", graph, [(Slot("input", "x", "x"), x)], slots, {}).nodes[0]
    assert written.args == (
        {"ref": "a0"}, True, 2, 0.5, {"float": "inf"}, "relu", None,
        {"dtype": "float32"}, {"device": "plan"}, {"layout": "strided"},
    )  # fmt: skip
    assert written.kwargs == {"memory_format": {"memory_format": "contiguous"}, "list": [{"ref": "a0"}, [1, 2]]}


def test_an_object_is_no_argument() -> None:
    graph = fx.Graph()
    node = graph.call_function(aten.exp.default, (object(),))
    node.meta["val"] = torch.zeros(2)
    with pytest.raises(TypeError, match="object"):
        lower("b.eval", "b", graph, [], [(Slot("output", "y", "y"), node)], {})


def test_ancestors_are_what_a_value_is_computed_from(tools: Any) -> None:
    graph = tools.trace(lambda x, y: (x.exp(), y.sin() + x), ("B", 6), ("B", 6)).graph
    x, y = (n for n in graph.nodes if n.op == "placeholder")
    first, second = next(n for n in reversed(graph.nodes)).args[0]
    assert ancestors([first]) == {x, first}
    assert ancestors([second]) == {x, y, second, second.args[0]}


@pytest.mark.parametrize(
    ("operator", "device"),
    [
        (aten._scaled_dot_product_flash_attention_for_cpu.default, "cpu"),
        (aten._scaled_dot_product_efficient_attention.default, "cuda"),
        (aten._scaled_dot_product_flash_attention.default, "cuda"),
        (aten.convolution.default, "any"),
        (aten.native_batch_norm.default, "any"),
    ],
)
def test_an_operator_of_one_device_binds_its_kernel(operator: Any, device: str) -> None:
    graph = fx.Graph()
    node = graph.call_function(operator, (graph.placeholder("x"),))
    graph.output([node])
    assert device_of(graph, set(graph.nodes)) == device
    assert device_of(graph, set()) == "any"


NETWORKS: dict[str, Any] = {
    "convolutions": (
        [2, 8, 8],
        [{"a": "conv(4, 3)"}, {"na": "batch_norm"}, "relu", "max_pool(2)", {"b": "conv(4, 2)"}, {"nb": "group_norm(2)"},
         "silu", "avg_pool(2)", "flatten", {"out": "linear(3)"}],
    ),
    "tokens": (
        [5, 4],
        [{"a": "attention(2, dropout=0.1)"}, {"na": "layer_norm"}, {"b": "linear(8)"}, "gelu", "dropout(0.2)",
         {"nb": "rms_norm"}, "mean(1)", {"out": "linear(3)"}],
    ),
    "volumes": (
        [2, 4, 4, 4],
        [{"a": "conv(3, 2)"}, "elu", {"b": "conv_transpose(2, 2)"}, "instance_norm", "upsample(2)",
         "adaptive_avg_pool(2)", "flatten", {"out": "linear(3)"}],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("convolutions", ("cnn(layers=1)", "mlp(layers=1)")),
        ("tokens", ("mlp(layers=1)", "mlp(layers=1)")),
        ("volumes", ("linear", "linear")),
    ],
)
def test_every_operator_of_a_plan_is_allowed(name: str, heads: tuple[str, str]) -> None:
    """In every kernel and for every target, whatever the layers and heads."""
    shape, layers = NETWORKS[name]
    named = {next(iter(layer)) for layer in layers if isinstance(layer, dict)}
    blocks = {"first": sorted(named & {"a", "na"}), "second": sorted(named & {"b", "nb"}), "last": "out"}
    plan = lpc.build(
        {
            "network": {"inputs": {"x": shape}, "layers": layers},
            "data": None,
            "fields": {"label": {"shape": [], "dtype": "int64"}},
            "loss": "cross_entropy",
            "decompose": {"blocks": blocks, "links": {"first->second": "gradient"}},
            "learn": [
                {"blocks": "*", "head": heads[0], "loss": "cross_entropy", "optimizer": "sgd(lr=0.1)"},
                {"blocks": "second", "head": heads[1]},
            ],
        }
    )
    kernels = [k for target in plan.data.kernels.values() for k in target.values()]
    assert not {n.op for k in kernels for n in k.nodes if not is_allowed(n.op)}
    assert [d for d in verify(plan.data) if d.severity == "error"] == []
    assert lpc.verify(plan).ok
