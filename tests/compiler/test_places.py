"""Is what a mistake is told of the very text at fault: a key that was misnamed, an argument, or a value?"""

from __future__ import annotations

import pytest

import lpc

SPEC = """\
network:
  inputs: {image: [1, 8, 8]}
  layers:
    - flatten
    - fc1: linear(16)
    - relu
    - out: linear(10)
data: {source: digits}
loss: cross_entropy
decompose: {blocks: per_layer, links: stop}
learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: sgd(lr=0.1)}]
run: {epochs: 1}
"""
LAYERS = SPEC[SPEC.index("  inputs") : SPEC.index("data:")]
MODULE = SPEC.replace(LAYERS, "  module: torch.nn:Linear\n  INPUTS\n")
ZOO = SPEC.replace(LAYERS, "  zoo: mlp\n  args: {widths: [64, 10], with: 3}\n")


def module(inputs: str) -> str:
    return MODULE.replace("INPUTS", f"config: {{in_features: 8, out_features: 10}}\n  {inputs}")


def changed(old: str, new: str) -> str:
    assert old in SPEC
    return SPEC.replace(old, new)


@pytest.mark.parametrize(
    ("spec", "code", "at_fault"),
    [
        (changed("- relu", "- relu(from=relu7)"), "0202", "relu7"),
        (changed("- relu", "- a: add(from=[fc1, relu7])"), "0140", "relu7"),
        (changed("- relu", "- {relu: {from: relu7}}"), "0202", "relu7"),
        (changed("- relu", "- relu(from=[fc1, image])"), "0202", "[fc1, image]"),
        (module("inputs: {image: [8]}"), "0203", "image"),
        (module("inputs: {input: [8, B]}"), "0203", "B"),
        (module("inputs: {input: {shape: [8], dtype: float99}}"), "0114", "float99"),
        (ZOO, "0121", "with"),
        (changed("links: stop", 'links: {"out->fc1": stop}'), "0309", '"out->fc1"'),
        (changed("run:", "readouts: {fc1: {from: [fc1], optimizer: adam}}\nrun:"), "0418", "fc1"),
        (changed("run:", "readouts: {p: {from: [fc1, fc9], optimizer: adam}}\nrun:"), "0418", "fc9"),
        (changed("- fc1:", "- label:"), "0409", "label"),
    ],
)
def test_the_text_at_fault_is_shown(spec: str, code: str, at_fault: str) -> None:
    with pytest.raises(lpc.LpcError) as caught:
        lpc.build(spec)
    problem = caught.value.diagnostics[0]
    assert problem.code == code
    assert problem.span is not None
    line = spec.splitlines()[problem.span.line - 1]
    assert line[problem.span.column - 1 : problem.span.end_column - 1] == at_fault
    key = problem.span.column - 1 + len(at_fault)
    assert (line[key : key + 1] == ":") is (code in ("0121", "0309", "0409") or at_fault in ("image", "fc1"))
