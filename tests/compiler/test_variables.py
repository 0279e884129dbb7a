"""Is every spec refused whose variables could not be solved as it says, at its place and with a reason?"""

from __future__ import annotations

import pytest

import lpc

SPEC = {
    "network": "{inputs: {x: [4]}, layers: [f1: linear(5), tanh, f2: linear(5), tanh, f3: linear(3)]}",
    "data": "none",
    "fields": "{y: {shape: [], dtype: int64}}",
    "loss": "cross_entropy",
    "decompose": '{blocks: per_layer, links: {"*": variable}}',
    "learn": '[{blocks: "*", optimizer: sgd(lr=0.1)}]',
    "run": "{epochs: 1}",
}
BOTH = '{{blocks: per_layer, links: {{"f1->f2": {}, "f2->f3": {}}}}}'
ALL = '{{blocks: per_layer, links: {{"*": {}}}}}'
RULE = '[{{blocks: "*", optimizer: sgd(lr=0.1), {}}}]'

REFUSED = [
    ("decompose", BOTH.format("feedback", "variable"), "`feedback`, beside links with variables"),
    ("decompose", BOTH.format("variable(sweeps=2)", "variable"), "it holds for all of them"),
    ("decompose", BOTH.format("variable(sweep=jacobi, steps=2)", "variable(sweep=jacobi)"), "differ in `steps`"),
    ("decompose", ALL.format("variable(refresh=2)"), "`refresh` is for `init=cache`"),
    ("decompose", ALL.format("variable(init=cache, weights_input=forward)"), "no forward pass"),
    ("decompose", BOTH.format("variable(init=cache)", "stop"), "every boundary needs a variable"),
    ("run", "{epochs: 1, accumulate: 2}", "`accumulate` does not go"),
    ("run", "{epochs: 1, memory: summed}", "`memory: summed` does not go"),
    ("run", "{epochs: 1, precision: bf16}", "`precision: bf16` does not go"),
    ("run", "{phases: [{epochs: 1, train: f1}]}", "`phases` does not go"),
    ("readouts", "{r: {from: f1, optimizer: sgd(lr=0.1)}}", "`readouts` does not go"),
    ("learn", RULE.format("correct: bp_offset"), "`correct: bp_offset` of block `f1`"),
    ("learn", RULE.format("estimator: forward"), "`estimator: forward` of block `f1`"),
    ("learn", RULE.format("memory: recompute"), "`memory: recompute` of block `f1`"),
    ("learn", RULE.format("head: linear, loss: cross_entropy"), "do not fit it to that"),
    ("learn", RULE.format("solver: memory"), "take `at: preactivation`"),
    ("learn", RULE.format("solver: least_squares"), "cannot be solved by least squares: the variable after it"),
]


@pytest.mark.parametrize(("key", "value", "reason"), REFUSED)
def test_what_cannot_be_solved_is_told(key: str, value: str, reason: str) -> None:
    spec = "".join(f"{name}: {text}\n" for name, text in {**SPEC, key: value}.items())
    with pytest.raises(lpc.LpcError) as caught:
        lpc.build(spec)
    (problem,) = caught.value.diagnostics
    assert problem.code == "0423"
    assert reason in problem.message
    assert problem.span is not None


def test_a_block_without_a_variable_has_no_consistency() -> None:
    spec = "".join(f"{name}: {text}\n" for name, text in {**SPEC, "decompose": ALL.format("stop")}.items())
    with pytest.raises(lpc.LpcError) as caught:
        lpc.build(spec.replace("sgd(lr=0.1)}", "sgd(lr=0.1), loss: consistency}"))
    assert caught.value.diagnostics[0].code == "0416"
    assert "no boundary after the block has a `variable` link" in str(caught.value)


WRONG = ("squared(weight=0)", "squared(weight=-1.0)", "huber(delta=0)", "cubed", "squared(x=1)")


@pytest.mark.parametrize("penalty", WRONG)
def test_a_penalty_that_is_none_is_told_where_it_is_written(penalty: str) -> None:
    spec = "".join(
        f"{name}: {text}\n" for name, text in {**SPEC, "decompose": ALL.format(f"variable(penalty={penalty})")}.items()
    )
    with pytest.raises(lpc.LpcError) as caught:
        lpc.check(spec)
    assert {problem.code for problem in caught.value.diagnostics} <= {"0120", "0121", "0123"}
    assert all(problem.span is not None for problem in caught.value.diagnostics)
