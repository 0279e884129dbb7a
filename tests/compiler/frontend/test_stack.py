"""Are written layers named, wired and nested as the language says?"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from lpc.compiler.frontend.network import build_network
from lpc.compiler.frontend.trace import trace
from lpc.specs.term import Term


def test_names_count_by_operator_and_leave_given_names_out(tools: Any) -> None:
    ops = [tools.layer("relu"), tools.layer("linear", 8, name="relu2"), tools.layer("relu"), tools.layer("tanh")]
    built = build_network(tools.spec_of({"layers": tuple(ops)}))
    assert [name for name, _ in built.module.named_children()] == ["relu1", "relu2", "relu3", "tanh1"]


def test_structures_become_paths_and_compute(tools: Any) -> None:
    layer = tools.layer
    inner = layer("residual", body=[layer("layer_norm", name="norm"), layer("linear", 8), layer("relu")])
    layers = (
        layer("linear", 8, name="stem"),
        layer("repeat", 2, name="stack", body=[inner]),
        layer("branch", merge="concat", branches={"a": (layer("linear", 3),), "b": (layer("linear", 4, name="wide"),)}),
        layer("linear", 7, name="side", from_="stem"),
        layer("add", name="mix", from_=["side", "branch1"]),
        layer("linear", 2, name="out"),
    )
    spec = tools.spec_of({"layers": layers})
    built = build_network(spec)
    p = dict(built.module.named_parameters())
    assert {"stack.0.residual1.norm.weight", "stack.1.residual1.linear1.bias", "branch1.b.wide.weight"} <= set(p)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    x = torch.randn(5, 8, dtype=torch.float64)
    h = stem = linear(x, "stem")
    for number in range(2):
        at = f"stack.{number}.residual1"
        h = h + linear(F.layer_norm(h, (8,), p[f"{at}.norm.weight"], p[f"{at}.norm.bias"]), f"{at}.linear1").relu()
    h = torch.cat([linear(h, "branch1.a.linear1"), linear(h, "branch1.b.wide")], 1)
    expected = linear(linear(stem, "side") + h, "out")
    traced = trace(built, spec)
    torch.testing.assert_close(traced.train(x), expected, rtol=1e-12, atol=1e-12)
    paths = [node.meta["path"] for node in traced.train.graph.nodes if node.op == "call_function"]
    assert paths == ["stack.0.residual1", "stack.1.residual1", "branch1"]
    tools.assert_same(built, traced)


def test_two_inputs_and_an_inner_output(tools: Any) -> None:
    layers = (
        tools.layer("linear", 4, name="a"),
        tools.layer("linear", 4, name="b", from_="y"),
        tools.layer("multiply", name="both", from_=["a", "b"]),
        tools.layer("linear", 2, name="unread"),
    )
    spec = tools.spec_of({"layers": layers, "shapes": {"x": [3], "y": [5]}, "output": "both"})
    built = build_network(spec)
    traced = trace(built, spec)
    assert traced.inputs == ("x", "y")
    assert traced.rung == "layers"
    assert built.native
    assert traced.train(torch.randn(2, 3).double(), torch.randn(2, 5).double()).shape == (2, 4)
    assert "unread" not in [node.meta["path"] for node in traced.train.graph.nodes]


def test_seed_and_dtype_decide_the_weights_and_global_randomness_stays(tools: Any) -> None:
    def weights(seed: int, dtype: str = "float32") -> torch.Tensor:
        spec = tools.spec_of({"layers": (tools.layer("linear", 4),)}, dtype=dtype, seed=seed)
        return build_network(spec).module.linear1.weight.detach()

    before = torch.get_rng_state()
    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert torch.equal(weights(1).double(), weights(1, "float64"))
    assert torch.equal(before, torch.get_rng_state())


def test_init_laws_the_last_match_wins(tools: Any) -> None:
    laws = {"*": Term("constant", (2.0,)), "*.bias": Term("zeros"), "b.weight": Term("orthogonal")}
    layers = (tools.layer("linear", 8, name="a"), tools.layer("linear", 8, name="b"))
    module = build_network(tools.spec_of({"layers": layers, "init": laws})).module
    assert bool((module.a.weight == 2).all())
    assert not bool(module.b.bias.any())
    torch.testing.assert_close(module.b.weight @ module.b.weight.T, torch.eye(8).double(), rtol=0, atol=1e-6)


def test_a_law_fills_the_matrix_of_each_group(tools: Any) -> None:
    layers = (tools.layer("grouped_linear", 8, name="it"),)
    spec = tools.spec_of({"layers": layers, "shapes": {"x": [3, 5]}, "init": {"it.weight": Term("orthogonal")}})
    weight = build_network(spec).module.it.weight
    assert weight.shape == (3, 8, 5)
    torch.testing.assert_close(weight.mT @ weight, torch.eye(5, dtype=weight.dtype).expand(3, 5, 5))


def test_every_init_law_fills_a_matrix(tools: Any) -> None:
    from lpc.compiler.frontend.initial import LAWS
    from lpc.specs.signatures import INITS

    assert set(LAWS) == set(INITS)
    arguments = {"constant": (0.5,), "sparse": (0.5,)}
    for law in INITS:
        name = "conv1" if law == "dirac" else "linear1"
        layers = (tools.layer("conv", 3, 3), tools.layer("linear", 8))
        init = {f"{name}.weight": Term(law, arguments.get(law, ()))}
        spec = tools.spec_of({"layers": layers, "shapes": {"x": [3, 8, 8]}, "init": init})
        assert torch.isfinite(build_network(spec).module.get_submodule(name).weight).all()
