"""Is a step that holds a length fast told at the key that asks for it: an estimator, a readout, or a block?"""

from __future__ import annotations

import pytest

from lpc.compiler.asking import asking
from lpc.compiler.capture.tracing import HeldLengthError
from lpc.specs import LpcError, load_spec

SPEC = """\
network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), relu, out: linear(10)]}
data: {source: digits}
loss: cross_entropy
decompose: {blocks: {b1: fc1, head: out}}
learn:
  - {blocks: "*", head: linear, loss: cross_entropy, optimizer: sgd(lr=0.1)}
  - {blocks: b1, estimator: ESTIMATOR}
readouts: {probe: {from: [b1], head: linear, loss: cross_entropy, optimizer: sgd(lr=0.1)}}
run: {epochs: 1}
"""


@pytest.mark.parametrize(
    ("estimator", "name", "place"),
    [
        ("backprop", "b1", (4, 22)),
        ("backprop", "head", (4, 31)),
        ("forward", "b1", (7, 18)),
        ("forward", "head", (4, 31)),
        ("forward", "probe", (8, 12)),
    ],
)
def test_the_key_that_asks_for_the_step_is_shown(estimator: str, name: str, place: tuple[int, int]) -> None:
    spec = load_spec(SPEC.replace("ESTIMATOR", estimator))
    with pytest.raises(LpcError) as caught, asking(spec, name):
        raise HeldLengthError("B")
    [problem] = caught.value.diagnostics
    assert problem.code == "0412"
    assert f"`{name}` holds the length `B` fast" in problem.message
    assert problem.span is not None
    assert (problem.span.line, problem.span.column) == place
