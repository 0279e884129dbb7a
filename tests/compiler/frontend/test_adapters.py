"""Are adapters put where they belong? Names, values and trainability, traces, and what cannot be adapted."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
import torch

from lpc.compiler.frontend.adapters import KINDS
from lpc.compiler.frontend.network import BuiltNetwork, build_network
from lpc.compiler.frontend.trace import Traced, trace
from lpc.specs.diagnostics import LpcError
from lpc.specs.signatures import ADAPTERS
from lpc.specs.term import Term

pytest.importorskip("peft")


def lora(targets: Any, **more: Any) -> Term:
    return Term("lora", (), {"targets": targets, **more})


def lokr(targets: Any, **more: Any) -> Term:
    return Term("lokr", (), {"targets": targets, **more})


def made(tools: Any, name: str, *adapters: Term, shape: list[int | str] | None = None, seed: int = 0) -> BuiltNetwork:
    return built_and_traced(tools, name, *adapters, shape=shape, seed=seed, only_build=True)[0]


def built_and_traced(
    tools: Any,
    name: str,
    *adapters: Term,
    shape: list[int | str] | None = None,
    seed: int = 0,
    only_build: bool = False,
) -> tuple[BuiltNetwork, Traced | None]:
    shapes = {"ids" if name == "Tied" else "x": shape or {"Adaptable": [2, 6, 6], "Tied": ["T"]}.get(name, [8])}
    spec = tools.spec_of({"module": f"sample_networks:{name}", "shapes": shapes, "adapters": adapters}, seed=seed)
    built = build_network(spec, [tools.networks])
    return built, None if only_build else trace(built, spec)


def test_every_adapter_is_implemented() -> None:
    assert set(KINDS) == set(ADAPTERS)


def test_names_are_peft_s_and_all_else_is_frozen(tools: Any) -> None:
    module = made(tools, "Small", lora("a", rank=2, train="b.bias")).module
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert trained == {"a.lora_A.default.weight", "a.lora_B.default.weight", "b.bias"}
    assert set(module.state_dict()) == trained | {"a.base_layer.weight", "a.base_layer.bias", "b.weight"}
    assert module.get_submodule("a").scaling["default"] == 1.0
    scaled = made(tools, "Small", lora("a", rank=2, alpha=3.0)).module
    assert scaled.get_submodule("a").scaling["default"] == 1.5


def test_only_the_paths_that_match_are_adapted(tools: Any) -> None:
    module = made(tools, "HasStubborn", lora("*.inner|a", rank=2)).module
    adapted = {name.split(".lora_A")[0] for name in module.state_dict() if "lora_A" in name}
    assert adapted == {"a", "odd.inner"}
    # peft itself would also adapt what merely ends like the path `inner`.
    with pytest.raises(LpcError, match="`inner` matches no layer"):
        made(tools, "HasStubborn", lora("inner"))


def test_the_same_seed_gives_the_same_bytes_and_leaves_the_network_s_own(tools: Any) -> None:
    plain = made(tools, "Adaptable").module.state_dict()
    first, again, other = (
        made(tools, "Adaptable", lora("conv", rank=2), lokr("a|grouped", rank=2), seed=seed).module.state_dict()
        for seed in (0, 0, 1)
    )
    assert list(first) == list(again)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(plain[name], first[name.replace(".base_layer", "")]) for name in plain if name in first)
    drawn = [name for name in first if "lora_A" in name or "lokr_w2" in name]
    assert drawn
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


@pytest.mark.parametrize(
    ("name", "adapters", "rung"),
    [
        ("Small", [lora("a|b", rank=2, dropout=0.5)], "fx"),
        ("StubbornRoot", [lora("a", rank=2, dropout=0.5), lokr("b", rank=1)], "export"),
        ("HasStubborn", [lokr("odd.inner", rank=2)], "fx"),
        ("Twice", [lora("a", rank=2)], "fx"),
        ("Adaptable", [lora("conv|grouped", rank=2), lokr("wide|a", rank=2, factor=2)], "fx"),
    ],
)
def test_trace_equals_the_adapted_network(tools: Any, name: str, adapters: list[Term], rung: str) -> None:
    built, traced = built_and_traced(tools, name, *adapters)
    assert traced is not None
    assert traced.rung == rung
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in built.module.parameters():  # LoRA's B and LoKr's w1 begin at zero, where nothing shows
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    tools.assert_same(built, traced, (2, 3))
    paths = {node.meta["path"] for node in traced.train.graph.nodes}
    assert set(built.adapted) - {"odd.inner"} <= paths
    assert not any(".base_layer" in path or ".lora_" in path for path in paths)


def test_tied_weights_stay_tied(tools: Any) -> None:
    built, traced = built_and_traced(tools, "Tied", lora("head", rank=2))
    assert traced is not None
    assert traced.tied == {"head.base_layer.weight": "embed.weight"}
    with torch.no_grad():
        built.module.get_submodule("head.lora_B.default").weight.fill_(0.5)
    tools.assert_same(built, traced, (2, 3))


def test_transposed_linear_layers_of_transformers(tools: Any) -> None:
    pytest.importorskip("transformers")
    config = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 9, "n_positions": 8}
    network = {"module": "transformers:GPT2Model", "config": config, "output": 0, "shapes": {"input_ids": ["T"]}}
    spec = tools.spec_of({**network, "adapters": [lora("*.c_attn", rank=2)]})
    built = build_network(spec)
    assert built.adapted == ("h.0.attn.c_attn",)
    layer: Any = built.module.get_submodule("h.0.attn.c_attn")
    with torch.no_grad():
        layer.lora_B.default.weight.fill_(0.5)
    x = torch.randn(2, 8, dtype=torch.float64)
    change = layer.lora_B.default.weight @ layer.lora_A.default.weight
    torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ change.T)


MISTAKES: dict[str, tuple[str, list[Term], str, str]] = {
    "misspelt": ("Small", [lora("bb")], "`bb` matches no layer", "did you mean `b`"),
    "glob of nothing": ("Small", [lora("*.query")], r"`\*.query` matches no layer", "`a`, `b`"),
    "one of two": ("Small", [lora("a|c7")], "`c7` matches no layer", "`a`, `b`"),
    "embedding": ("Tied", [lora("embed")], "`embed`: it is of the kind `Embedding`", "`head`"),
    "norm": ("Adaptable", [lokr("norm")], "`norm`: it is of the kind `BatchNorm2d`", "`conv`"),
    "container": ("HasStubborn", [lora("odd")], "`odd`: it is of the kind `Stubborn`", "`odd.inner`"),
    "dilation": ("Adaptable", [lora("wide", rank=2)], r"`wide`: its dilation is \(2, 2\)", "`conv`"),
    "padding": ("Adaptable", [lokr("round")], "`round`: its padding is `circular`", "`conv`"),
    "groups": ("Adaptable", [lora("grouped", rank=3)], "peft refuses `lora`", ""),
    "two places": ("Adaptable", [lora("b")], "`b`: it stands at several places", "`conv`"),
    "attention": ("Adaptable", [lora("attention.out_proj")], "torch's attention reads its weight", "`conv`"),
    "not called": ("ReadsWeight", [lora("b")], "without calling the layer", "leave the layer out"),
    "twice": ("Small", [lora("a"), lokr("*")], "`a` is adapted already, by `lora`", "one adapter"),
    "train nothing": ("Small", [lora("a", train="c.*")], r"`c\.\*` matches no parameter", "`a.weight`"),
    "train misspelt": ("Small", [lora("a", train="b.wieght")], "`b.wieght` matches no parameter", "`b.weight`?"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistake(tools: Any, what: str) -> None:
    name, adapters, message, help = MISTAKES[what]
    with pytest.raises(LpcError) as caught:
        built_and_traced(tools, name, *adapters)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "0217"
    assert re.search(message, diagnostic.message), diagnostic.render()
    assert help in (diagnostic.help or ""), diagnostic.render()
    assert diagnostic.place == f"spec: adapters[{len(adapters) - 1}].{'train' if 'train' in what else 'targets'}"


def test_peft_leaves_dilation_out(tools: Any) -> None:
    """If this fails, peft has learnt it, and `lora` need not refuse dilated convolutions any more."""
    import peft

    network = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 3, padding="same", dilation=2))
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules="0", r=1), network)
    assert network.get_submodule("0.lora_A.default").dilation == (1, 1)


def test_without_peft(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(LpcError, match="`adapters` needs `peft`") as caught:
        made(tools, "Small", lora("a"))
    assert caught.value.diagnostics[0].help == "pip install 'lpc[models]'"
