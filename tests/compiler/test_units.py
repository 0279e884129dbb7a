"""Are units told that split no block, or whose split changes no gradient?"""

from __future__ import annotations

import pytest

import lpc

SPEC = """\
network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), relu, out: linear(10)]}
data: {source: digits}
loss: cross_entropy
decompose: {blocks: {b1: fc1, head: out}, units: {groups: 4}}
learn:
  - {blocks: "*", head: linear, loss: cross_entropy, optimizer: sgd(lr=0.1)}
  - {blocks: b1, RULE}
run: {epochs: 1}
"""


@pytest.mark.parametrize("rule", ["aggregate: mean", "estimator: forward"])
def test_units_that_split_no_block_are_refused(rule: str) -> None:
    with pytest.raises(lpc.LpcError) as caught:
        lpc.build(SPEC.replace("RULE", rule))
    [problem] = caught.value.diagnostics
    assert problem.code == "0422"
    assert "`units` splits no block" in problem.message
    assert problem.span is not None
    assert (problem.span.line, problem.span.column) == (4, 43)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("aggregate: replicated", ["block b1: under `estimator: backprop` replicated losses have"]),
        ("aggregate: replicated, estimator: forward", []),
    ],
)
def test_units_that_change_no_gradient_are_told(rule: str, told: list[str]) -> None:
    notes = lpc.build(SPEC.replace("RULE", rule)).data.report["notes"]
    assert [note[: len(text)] for note, text in zip(notes, told, strict=True)] == told
