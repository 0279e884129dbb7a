"""Do models of the transformers library trace, and compute the same for every batch size?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lpc.compiler.frontend.network import BuiltNetwork, build_network
from lpc.compiler.frontend.trace import Traced, trace

pytest.importorskip("transformers")

WORDS = {"vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1}
# Tracing takes a second for each layer: two where weights are tied over a repeated one, one elsewhere.
SMALL = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
GPT2 = {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 16, **WORDS}
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "GPT2LMHeadModel": (GPT2, {"input_ids": ["T"]}),
    "LlamaForCausalLM": ({**SMALL, **WORDS}, {"input_ids": [7]}),
    "BertForSequenceClassification": ({**SMALL, "vocab_size": 20}, {"input_ids": [7]}),
    "ViTForImageClassification": ({**SMALL, "image_size": 8, "patch_size": 4}, {"pixel_values": [3, 8, 8]}),
    "ResNetForImageClassification": (
        {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 2], "layer_type": "bottleneck"},
        {"pixel_values": [3, 32, 32]},
    ),
}


def network(name: str) -> dict[str, Any]:
    config, shapes = MODELS[name]
    return {"module": f"transformers:{name}", "config": dict(config), "shapes": shapes, "output": "logits"}


@pytest.fixture(scope="module")
def models() -> Callable[[Any, str], tuple[BuiltNetwork, Traced]]:
    """Build and trace a model, once."""
    made: dict[str, tuple[BuiltNetwork, Traced]] = {}

    def model(tools: Any, name: str) -> tuple[BuiltNetwork, Traced]:
        if name not in made:
            spec = tools.spec_of(network(name), "float32" if name.startswith("Llama") else "float64")
            built = build_network(spec)
            made[name] = built, trace(built, spec)
        return made[name]

    return model


@pytest.mark.parametrize("name", MODELS)
def test_trace_equals_the_model(tools: Any, models: Any, name: str) -> None:
    built, traced = models(tools, name)
    # Llama turns to float32 inside, where gradients of one order of operations differ from those of another.
    assert traced.rung == "export"
    assert traced.obstacles
    if not name.startswith("Llama"):
        tools.assert_same(built, traced, (1, 2, 5) if "ResNet" not in name else (2, 5))
    values = tools.example(built, 3)
    original = built.module.eval()(**values).logits
    assert (traced.eval(*values.values()) - original).abs().max() < 1e-5 * original.abs().max()


def test_paths_are_module_paths_no_guard_is_left_and_tied_embeddings_are_told(tools: Any, models: Any) -> None:
    built, traced = models(tools, "GPT2LMHeadModel")
    targets = [str(n.target) for g in (traced.train, traced.eval) for n in g.graph.nodes]
    assert not [t for t in targets if "assert" in t or "guard" in t or "wrap_with" in t]
    modules = dict(built.module.named_modules())
    paths = {n.meta["path"] for n in traced.train.graph.nodes}
    assert paths <= set(modules)
    assert {"transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_fc", "lm_head"} <= paths
    assert traced.tied == {"lm_head.weight": "transformer.wte.weight"}
    users = {n.meta["path"] for n in traced.train.graph.nodes if "transformer.wte.weight" in n.meta["parameters"]}
    assert users == {"transformer.wte", "lm_head"}
    assert sorted(traced.train.meta["symbols"].values()) == ["B", "T"]
