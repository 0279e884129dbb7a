"""Does a trace compute what the network computes, in both modes, whichever rung it took?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lpc.compiler.frontend.device import on_device
from lpc.compiler.frontend.network import build_network
from lpc.compiler.frontend.trace import Traced, trace


def nodes(traced: Traced, path: str) -> list[Any]:
    return [n for n in traced.train.graph.nodes if n.meta["path"] == path and n.op != "get_attr"]


@pytest.mark.parametrize(
    ("name", "output", "rung", "shapes"),
    [
        ("Small", None, "fx", {}),
        ("HasStubborn", None, "fx", {}),
        ("StubbornRoot", None, "export", {}),
        ("Custom", None, "fx", {}),
        ("TwoModes", "y", "fx", {}),
        ("Tied", None, "fx", {"ids": ["T"]}),
        ("Twice", None, "fx", {}),
        ("HasNoGradPart", None, "fx", {}),
        ("Constants", None, "fx", {}),
        ("NamedInput", 1, "fx", {"input": [8]}),
        ("TorchEncoder", None, "export", {"x": [5, 8]}),
        ("Recurrent", None, "fx", {"x": [5, 8]}),
    ],
)
def test_trace_equals_the_network(sample: Any, tools: Any, name: str, output: Any, rung: str, shapes: Any) -> None:
    built, traced = sample(name, output, **shapes)
    assert traced.rung == rung
    tools.assert_same(built, traced)


def test_tensors_are_the_network_s_own(sample: Any) -> None:
    for name in ("HasStubborn", "StubbornRoot", "Twice"):
        built, traced = sample(name)
        ours = {n: id(t) for n, t in [*built.module.named_parameters(), *built.module.named_buffers()]}
        for graph in (traced.train, traced.eval):
            found = {n: id(t) for n, t in [*graph.named_parameters(), *graph.named_buffers()]}
            assert found == ours


def test_an_untraceable_submodule_is_one_leaf_and_reported(sample: Any, tools: Any) -> None:
    _, traced = sample("HasStubborn")
    first, second = nodes(traced, "odd")
    assert (first.op, first.meta["call"], second.meta["call"]) == ("call_module", 0, 1)
    assert first.meta["parameters"] == ("odd.inner.weight", "odd.inner.bias")
    (obstacle,) = traced.obstacles
    assert obstacle.startswith("odd (")
    assert "sample_networks.py:" in obstacle
    assert "opaque leaf" in obstacle


def test_a_custom_backward_is_one_node_and_survives(sample: Any) -> None:
    built, traced = sample("Custom")
    custom = [n for n in traced.train.graph.nodes if str(n.target).endswith("Binarize")]
    assert len(custom) == 2
    x = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(traced.train(x).sum(), x)
    expected = 200 * built.module.b.weight.sum(0) @ built.module.a.weight
    torch.testing.assert_close(gradient, expected.expand(2, 8))


def test_patches_are_undone(sample: Any) -> None:
    before, random = dict(vars(torch.autograd.Function)), torch.get_rng_state()
    sample("Custom")
    assert dict(vars(torch.autograd.Function)) == before
    assert torch.equal(random, torch.get_rng_state())


def test_modes_differ_where_the_network_does_and_keys_agree_elsewhere(sample: Any) -> None:
    _, traced = sample("TwoModes", "y")
    train, evaluation = ({n.meta["key"] for n in g.graph.nodes} for g in (traced.train, traced.eval))
    assert evaluation < train
    assert {key[2] for key in train - evaluation} == {"tanh", "add"}
    assert len(train) == len(traced.train.graph.nodes)


def test_each_graph_keeps_its_mode(sample: Any) -> None:
    built, traced = sample("Twice")
    assert built.module.training
    assert all(m.training for m in traced.train.modules())
    assert not any(m.training for m in traced.eval.modules())


def test_tied_parameters_have_one_name(sample: Any) -> None:
    _, traced = sample("Tied", None, ids=["T"])
    assert traced.tied == {"head.weight": "embed.weight"}
    assert [n.meta["parameters"] for n in nodes(traced, "head")] == [("embed.weight",)]


def test_every_node_is_described(sample: Any) -> None:
    for name in ("Twice", "StubbornRoot"):
        _, traced = sample(name)
        for graph in (traced.train, traced.eval):
            assert graph.meta["hint_batch"] == 8
            assert list(graph.meta["symbols"].values()) == ["B"]
            for node in graph.graph.nodes:
                expected = {"path", "call", "key", "val", "flops", "bytes", "parameters", "buffers"}
                assert expected <= set(node.meta), node


def test_costs_count_the_hint_batch(tools: Any) -> None:
    layers = (tools.layer("linear", 4, name="a"), tools.layer("relu"), tools.layer("batch_norm", name="n"))
    spec = tools.spec_of({"layers": layers}, batch=10)
    traced = trace(build_network(spec), spec)
    a, norm = nodes(traced, "a")[0].meta, nodes(traced, "n")[0].meta
    assert (a["flops"], a["bytes"], a["parameters"]) == (2 * 10 * 8 * 4, 10 * 4 * 8, ("a.weight", "a.bias"))
    assert norm["buffers"] == ("n.running_mean", "n.running_var", "n.num_batches_tracked")


def test_a_parameter_is_fetched_where_it_is_read(sample: Any) -> None:
    """Called twice, a module reads its weight twice: neither call borrows the other's node."""
    _, traced = sample("StubbornRoot")
    fetches = [n for n in traced.train.graph.nodes if n.op == "get_attr" and n.target == "a.weight"]
    assert [n.meta["path"] for n in fetches] == ["a", "a"]
    assert [n.meta["call"] for n in fetches] == [0, 1]
    assert all(len(n.users) == 1 for n in fetches)


def test_constants_stay_out_of_the_state_dict(sample: Any) -> None:
    built, traced = sample("Constants")
    assert set(traced.train.state_dict()) <= set(built.module.state_dict())
    assert not [name for name in vars(built.module) if "constant" in name]
    names = [{n.target for n in g.graph.nodes if n.op == "get_attr"} for g in (traced.train, traced.eval)]
    assert names[0] == names[1] >= {"plain", "hidden"}


def test_placeholders_bear_the_inputs_names(sample: Any) -> None:
    _, traced = sample("NamedInput", 1, input=[8])
    assert [n.name for n in traced.train.graph.nodes if n.op == "placeholder"] == ["input"]
    assert not nodes(traced, "a")


def test_a_no_grad_region_inside_a_module_is_kept(sample: Any) -> None:
    built, traced = sample("HasNoGradPart")
    traced.train(torch.randn(2, 8, dtype=torch.float64)).sum().backward()
    assert built.module.part.inner.weight.grad is None
    assert "no_grad" in traced.obstacles[0]


def test_the_library(tools: Any) -> None:
    counts = {"autoencoder": 2_837_314, "lenet5": 61_706, "resnet18": 11_173_962}
    for name, count in counts.items():
        built = build_network(tools.spec_of({"zoo": name, "shapes": {}}))
        assert sum(p.numel() for p in built.module.parameters()) == count
    spec = tools.spec_of({"zoo": "resnet18", "args": {"stem": "imagenet", "classes": 1000}, "shapes": {}})
    assert sum(p.numel() for p in build_network(spec).module.parameters()) == 11_689_512
    cases: list[tuple[str, dict[str, Any], dict[str, list[int]]]] = [
        ("mlp", {"widths": [16, 8, 4], "dropout": 0.5}, {"image": [1, 4, 4]}),
        ("autoencoder", {"widths": [16, 8, 4, 2, 4, 8, 16], "size": 2.0, "depth": 2}, {}),
        ("lenet5", {"activation": "relu"}, {"image": [1, 32, 32]}),
        ("resnet18", {"width": 4}, {"image": [3, 8, 8]}),
        ("localmixer", {"image": [3, 4, 8], "side": 2, "channels": 8, "groups": 2}, {}),
    ]
    for name, args, shapes in cases:
        spec = tools.spec_of({"zoo": name, "args": args, "shapes": shapes})
        built = build_network(spec)
        tools.assert_same(built, trace(built, spec), (2, 3))


def test_weights_come_from_a_file(tools: Any, tmp_path: Any) -> None:
    import safetensors.torch

    layers = (tools.layer("linear", 4, name="a"),)
    state = {"a.weight": torch.ones(4, 8).double(), "a.bias": torch.zeros(4).double()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    built = build_network(tools.spec_of({"layers": layers, "weights": str(tmp_path / "w.safetensors")}))
    assert torch.equal(built.module.a.weight, state["a.weight"])


def test_a_class_of_torch_needs_no_permission(tools: Any) -> None:
    network = {"module": "torch.nn:Linear", "config": {"in_features": 8, "out_features": 2}, "shapes": {"input": [8]}}
    spec = tools.spec_of(network)
    built = build_network(spec)
    assert isinstance(built.module, nn.Linear)
    tools.assert_same(built, trace(built, spec))


def test_a_graph_creates_its_tensors_where_it_is_told(sample: Any) -> None:
    _, traced = sample("StubbornRoot")
    devices = {str(n.kwargs.get("device")) for n in traced.train.graph.nodes if "rand" in str(n.target)}
    on_device(traced.train, torch.device("meta"))
    moved = {str(n.kwargs.get("device")) for n in traced.train.graph.nodes if "rand" in str(n.target)}
    assert (devices, moved) == ({"cpu"}, {"meta"})
