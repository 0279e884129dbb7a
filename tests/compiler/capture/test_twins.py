"""Does a block that takes over its twin's kernels get the very ones that it would have been traced to?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

import lpc
from lpc.compiler.capture import stage
from lpc.compiler.capture.likeness import likeness, module_likeness

LABEL = "fields: {label: {shape: [], dtype: int64}}\nloss: cross_entropy\n"
LAYERS = ", ".join(f"fc{i}: linear(6), relu" for i in range(4))
DENSE = f"network: {{inputs: {{x: [6]}}, layers: [{LAYERS}, out: linear(3)]}}\n{LABEL}"
GREEDY = 'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: sgd(lr=0.1)}]\n'
PLAIN = 'learn: [{blocks: "*", optimizer: adam(lr=0.1)}]\n'
NORMS = """\
network:
  inputs: {x: [6]}
  layers: [fc0: linear(6), relu, n0: layer_norm, fc1: linear(6), relu, n1: layer_norm, n2: layer_norm, fc2: linear(6),
           relu, out: linear(3)]
decompose: {blocks: {a: [fc0, n0], b: [fc1, n1], c: [n2, fc2], out: out}, links: stop}
"""
ELMAN = """\
network: {zoo: elman, args: {image: [1, 8, 8], steps: 4, hidden: 3}}
data: {source: digits, batch: 16}
decompose: {blocks: unroll("cell"), shared: sum}
run: {epochs: 1}
"""
LLAMA = """\
network:
  module: "transformers:LlamaForCausalLM"
  config: {num_hidden_layers: 3, hidden_size: 8, intermediate_size: 12, num_attention_heads: 2, vocab_size: 11,
           max_position_embeddings: 16}
  inputs: {input_ids: {shape: [7], dtype: int64}}
  output: logits
loss: cross_entropy(target=input_ids, shift=1)
decompose: {blocks: {embed: model.embed_tokens, "*": each("model.layers.*"), head: [model.norm, lm_head]},
            links: gradient}
run: {target: cpu}
"""
# A spec, and how many of its blocks are traced.
CASES: dict[str, tuple[str, int]] = {
    "heads": (f"{DENSE}{GREEDY}decompose: {{blocks: per_layer, links: stop}}\n", 2),
    "gradients": (f"{DENSE}{PLAIN}decompose: {{blocks: per_layer, links: gradient}}\n", 3),
    "another order": (f"{NORMS}{LABEL}{GREEDY}", 3),
    "time steps": (f"loss: cross_entropy\n{ELMAN.replace('sum}', 'sum, links: gradient}')}{PLAIN}", 4),
    "variables": (f"recipe: altmin\n{ELMAN}", 4),
    "transformer": (f"{LLAMA}{PLAIN}", 4),
}


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The blocks whose steps in training are traced, in order."""
    found: list[str] = []
    trace: Callable[..., Any] = stage.trace_training

    def noted(problem: Any, *rest: Any) -> Any:
        found.append(problem.block)
        return trace(problem, *rest)

    monkeypatch.setattr(stage, "trace_training", noted)
    return found


@pytest.mark.parametrize("name", CASES)
def test_twins_have_the_kernels_that_they_would_be_traced_to(
    name: str, traced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "transformer":
        pytest.importorskip("transformers")
    text, steps = CASES[name]
    shared = lpc.build(text).data
    assert len(traced) == steps
    monkeypatch.setattr(stage, "form_of", lambda step: None)
    alone = lpc.build(text).data
    assert len(traced) > 2 * steps
    assert shared.kernels == alone.kernels
    assert shared.program == alone.program


def test_what_differs_by_an_attribute_is_not_alike() -> None:
    """Modules of one class, and functions of one text, that do not do the same."""
    alike = [nn.Linear(2, 3), nn.Linear(2, 3)]
    assert module_likeness(alike[0]) == module_likeness(alike[1])
    other = [nn.Linear(2, 3, bias=False), nn.Linear(3, 2), nn.Linear(2, 3).double(), nn.Sequential(nn.Linear(2, 3))]
    assert all(module_likeness(alike[0]) != module_likeness(module) for module in other)
    assert module_likeness(nn.LeakyReLU(0.1)) != module_likeness(nn.LeakyReLU(0.2))
    assert module_likeness(nn.Dropout(0.5)) != module_likeness(nn.Dropout(0.5).eval())

    def scaled(factor: float) -> Callable[[float], float]:
        return lambda x: factor * x

    assert likeness(scaled(2.0)) == likeness(scaled(2.0))
    assert likeness(scaled(2.0)) != likeness(scaled(3.0))
    assert likeness({"a": 1}) != likeness({"a": 1.0})
    assert likeness(object()) != likeness(object())
