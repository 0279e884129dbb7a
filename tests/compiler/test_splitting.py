"""Is every spec refused that cannot be split and solved by formulas, at its place and with a reason?"""

from __future__ import annotations

import pytest

import lpc

SPEC = {
    "network": "{inputs: {x: [4]}, layers: [f1: linear(5), relu, f2: linear(5), relu, f3: linear(3)]}",
    "data": "none",
    "fields": "{y: {shape: [], dtype: int64}}",
    "loss": "hinge",
    "decompose": '{blocks: per_layer, links: {"*": split}}',
    "learn": "[]",
    "run": "{epochs: 1}",
}
LAYERS = "{{inputs: {{x: [{}]}}, layers: [{}]}}"

REFUSED = [
    ("network", LAYERS.format("4", "f1: linear(5), tanh, f3: linear(3)"), "activations are relu and leaky_relu"),
    ("network", LAYERS.format("4", "f1: linear(5), relu, f3: linear(3), relu"), "nothing follows the output's layer"),
    ("network", LAYERS.format("4", "f1: linear(5), batch_norm, relu, f3: linear(3)"), "`batch_norm1` of block `f1`"),
    ("network", LAYERS.format("2, 4", "f1: linear(5), relu, flatten, f3: linear(3)"), "more than one value for each"),
    ("loss", "cross_entropy", "has the loss `hinge` or `mse`, and here `cross_entropy`"),
    ("loss", "hinge(scale=2.0)", "here `hinge(scale=2.0)`"),
    ("decompose", '{blocks: per_layer, links: {"f1->f2": split, "f2->f3": stop}}', "links differ"),
    ("decompose", '{blocks: per_layer, links: {"*": "split(multiplier=false, warmup=2)"}}', "`warmup` is for"),
    ("learn", '[{blocks: "*", optimizer: adam}]', "`optimizer` of block `f1` has nothing to do"),
    ("learn", "[{blocks: f1, head: linear, loss: cross_entropy}]", "`head` of block `f1` has nothing to do"),
    ("run", "{epochs: 1, accumulate: 2}", "`accumulate` does not go"),
    ("run", "{epochs: 1, clip: 1.0}", "`clip` is for gradients"),
    ("run", "{epochs: 1, precision: bf16}", "`precision: bf16` does not go"),
    ("run", "{epochs: 1, workers: 2}", "stay together"),
]


@pytest.mark.parametrize(("key", "value", "reason"), REFUSED)
def test_what_cannot_be_split_is_told(key: str, value: str, reason: str) -> None:
    spec = "".join(f"{name}: {text}\n" for name, text in {**SPEC, key: value}.items())
    with pytest.raises(lpc.LpcError) as caught:
        lpc.build(spec)
    (problem,) = caught.value.diagnostics
    assert problem.code == ("0580" if "workers" in value else "0438")
    assert reason in " ".join((problem.message, *problem.notes))
    assert problem.span is not None
