"""Is every way of solving auxiliary variables what the reference in eager mode computes? `verify`, over mixed specs."""

from __future__ import annotations

from dataclasses import replace

import pytest

import lpc
from lpc.specs.plan.parse import parse
from lpc.specs.plan.text import print_sections, sections_of
from lpc.specs.plan.verify import verify

SPEC = """
network:
  inputs: {{x: [6]}}
  layers:
    [f1: linear(7), {norm} t1: tanh, dropout(0.3), f2: linear(5, bias={bias}), t2: relu,
     f3: linear(4, bias={bias}), t3: tanh, f4: linear(3)]
data: none
fields: {{y: {{shape: [], dtype: int64}}}}
loss: {loss}
decompose: {{blocks: per_layer, at: {at}, links: variable({link})}}
learn: [{{blocks: "*", optimizer: sgd(lr=0.5) {learn}}}]
run: {{epochs: 1, clip: {clip}}}
"""

PLAIN = {
    "norm": "n1: batch_norm,", "at": "activation", "learn": "", "bias": "true", "clip": "none", "loss": "cross_entropy"
}  # fmt: skip
MEANS = (
    "penalty=squared(weight=0.03, reduction=mean), optimizer=sgd(lr=0.03, momentum=0.9, nesterov=true), steps=3,"
    " anchor=false, divide_by_weight=true, buffers=every"
)
CASES: dict[str, dict[str, str]] = {
    "defaults": {"norm": "", "link": ""},
    "summed": {"norm": "", "link": "steps=2", "loss": "cross_entropy(reduction=sum)"},
    "means": {"at": "preactivation", "link": MEANS, "learn": ", loss: consistency(weight=1.0)"},
    "huber": {
        "at": "preactivation",
        "link": "penalty=huber(weight=0.3, delta=0.01), optimizer=adam(lr=0.1), steps=3, sweeps=2, buffers=every",
        "clip": "1.0",
    },
    "l1": {
        "link": "penalty=squared(weight=0.3, reduction=sample), optimizer=sgd(lr=0.1), steps=3, sweep=jacobi, l1=0.1",
        "learn": ", loss: consistency(l1=0.01)",
    },
    "jacobi": {"link": "optimizer=sgd(lr=0.1), steps=3, sweep=jacobi, sweeps=2, buffers=every"},
    "forward_input": {"link": "optimizer=sgd(lr=0.1), steps=2, weights_input=forward"},
    "cache": {"link": "optimizer=sgd(lr=0.1), steps=2, init=cache, refresh=2"},
    "cache_every": {"link": "optimizer=sgd(lr=0.1), steps=2, init=cache, refresh=2, buffers=every"},
    "laws": {
        "link": "penalty=squared(weight=grow(0.3, add=0.1)), scale=grow(2.0, factor=0.5, unit=epoch),"
        " optimizer=sgd(lr=0.1), steps=2, divide_by_weight=true"
    },
    "remembered": {"link": "optimizer=adam(lr=0.1), steps=2, sweeps=2, state=persistent"},
    "remembered_of_samples": {
        "link": "optimizer=sgd(lr=0.1, momentum=0.9), steps=2, sweeps=2, sweep=jacobi, init=cache, state=persistent"
    },
    "inner_steps": {"link": "optimizer=sgd(lr=0.1)", "learn": ", steps: 3, prox: 2.0"},
    "memory": {
        "norm": "",
        "bias": "false",
        "at": "preactivation",
        "link": MEANS,
        "learn": "}, {blocks: [f2, f3], solver: memory(forget=0.3, sweeps=3)",
    },
    "shrinking_memory": {
        "norm": "",
        "bias": "false",
        "at": "preactivation",
        "link": MEANS,
        "learn": "}, {blocks: f2, solver: memory(shrink=0.01, sweeps=2)}, {blocks: f3, solver: memory",
    },
    "local_losses": {
        "link": "optimizer=sgd(lr=0.1), steps=2",
        "learn": ", head: linear, loss: [cross_entropy(weight=0.5), consistency(weight=2.0)]",
    },
}


@pytest.mark.parametrize("case", CASES)
def test_a_plan_is_its_reference(case: str) -> None:
    plan = lpc.build(SPEC.format(**{**PLAIN, **CASES[case]}))
    report = lpc.verify(plan)
    assert report.ok, report
    assert report.worst < 1e-12
    parameters = {n for n, e in plan.data.program.state.items() if e.kind == "parameter"}
    solved = {f"{b}.weight" for b in ("f2", "f3") if f"memory.{b}.A" in plan.data.program.state}
    assert report.gradients.keys() == parameters - solved
    assert solved <= report.buffers.keys()


RESIDUAL = """
network:
  inputs: {{x: [2, 6, 6]}}
  layers:
    - conv1: conv(4, 3, padding=1, bias=false)
    - bn1: batch_norm
    - relu
    - r1: {{residual: [c2: conv(4, 3, padding=1), bn2: batch_norm, relu, c3: conv(4, 3, padding=1)]}}
    - relu
    - global_avg_pool
    - out: linear(3)
data: none
fields: {{y: {{shape: [], dtype: int64}}}}
loss: cross_entropy
decompose: {{blocks: per_layer, at: preactivation, links: variable({link})}}
learn: [{{blocks: "*", optimizer: sgd(lr=0.1)}}]
run: {{epochs: 1}}
"""


@pytest.mark.parametrize("link", ["steps=2", "sweep=jacobi, steps=2, buffers=every", "init=cache, sweeps=2"])
def test_a_skip_connection_has_a_variable_for_each_tensor_that_crosses(link: str) -> None:
    plan = lpc.build(RESIDUAL.format(link=link))
    assert len(plan.data.program.variables) == 4
    report = lpc.verify(plan)
    assert report.ok, report
    assert report.worst < 1e-12


def test_what_a_variable_carries_is_told_apart_from_gradients() -> None:
    report = lpc.verify(lpc.build(SPEC.format(**{**PLAIN, "link": ""})))
    assert report.influence["f1.weight"] == {"f1.loss"}
    assert report.indirect["f1.weight"] == {"f2.loss", "f3.loss", "f4.loss"}
    assert report.influence["f4.weight"] == {"f4.loss"}
    assert "f4.weight" in report.indirect  # its input is a variable that its own loss has moved


@pytest.mark.parametrize(
    ("link", "found", "instead"),
    [
        ("", "relax f1->f2 {", "relax f2->f3 {"),
        ("sweep=jacobi", "step_variable f1->f2 <- f2.slope_dropout1", "step_variable f1->f2 <- f3.slope_t2"),
        ("init=cache", "due index every 1 {", "parallel {"),
    ],
)
def test_what_is_stepped_or_stored_out_of_place_is_told(link: str, found: str, instead: str) -> None:
    plan = lpc.build(SPEC.format(**{**PLAIN, "link": link})).data
    text = print_sections(sections_of(plan.program))
    assert text.count(found) == 1
    step = parse(text.replace(found, instead)).step
    problems = verify(replace(plan, program=replace(plan.program, step=step)))
    assert [problem.code for problem in problems] == ["0564"]


def warnings_of(hidden: int, width: int, link: str, batch: int = 200) -> list[str]:
    layers = ", ".join(f"f{i}: linear({width}), r{i}: relu" for i in range(hidden))
    spec = f"""
network: {{inputs: {{image: [1, 8, 8]}}, layers: [flatten, {layers}, out: linear(10)]}}
data: {{source: digits, batch: {batch}}}
loss: cross_entropy
decompose: {{blocks: per_layer, at: preactivation, links: variable({link})}}
learn: [{{blocks: "*", optimizer: adam(lr=0.008)}}]
run: {{epochs: 1}}
"""
    return list(lpc.build(spec).data.report["warnings"])


RELEASED = (
    "penalty=squared(weight=0.003, reduction=mean), optimizer=sgd(lr=0.3, momentum=0.9, nesterov=true), steps=5,"
    " anchor=false, divide_by_weight=true"
)


def test_what_means_let_vanish_is_told() -> None:
    """A4: of five layers of 100 units the released code freezes the first two, and trains two layers well."""
    told = warnings_of(5, 100, RELEASED)
    assert [f"`f{i}` hardly learns" in " ".join(told) for i in range(5)] == [True, True, False, False, False]
    assert warnings_of(2, 100, RELEASED) == []
    assert warnings_of(5, 100, "penalty=squared(weight=1.0, reduction=sum), optimizer=sgd(lr=0.3)") == []


@pytest.mark.parametrize(("rate", "grows"), [(0.9, False), (1.1, True)])
def test_a_step_that_is_too_large_for_its_penalty_is_told(rate: float, grows: bool) -> None:
    """B6: stable for rates times weights between 0 and 1."""
    told = warnings_of(1, 10, f"penalty=squared(weight=1.0), optimizer=sgd(lr={rate}), steps=3")
    assert any("diverges" in text for text in told) == grows


@pytest.mark.parametrize(
    ("rate", "link", "grows"),
    [
        (0.1, "init=cache, refresh=5", True),
        (0.02, "init=cache, refresh=5", False),
        (0.1, "init=cache, refresh=1", False),
        (0.1, "penalty=squared(reduction=sample), init=cache, refresh=5", False),
    ],
)
def test_weights_that_move_away_from_a_variable_that_stays_are_told(rate: float, link: str, grows: bool) -> None:
    """Of 36 positions a rate below 1/36 is stable: a bias alone has the curvature 2 * 36."""
    plan = lpc.build(RESIDUAL.replace("lr=0.1", f"lr={rate}").format(link=link))
    told = [text for text in plan.data.report["warnings"] if "moves away" in text]
    assert all("36 positions" in text for text in told)
    assert bool(told) == grows


def test_a_weight_that_only_rescales_a_rate_is_noted() -> None:
    spec = SPEC.format(**{**PLAIN, "norm": "", "link": ""})
    plan = lpc.build(spec.replace("per_layer", "{b1: [f1, f2], b2: [f3, f4]}"))
    assert plan.data.report["notes"] == ["the weight of b1->b2 only rescales the learning rate of block `b1`"]


def test_an_optimizer_that_has_nothing_to_remember_is_noted() -> None:
    plan = lpc.build(SPEC.format(**{**PLAIN, "norm": "", "link": "state=persistent"}))
    assert len(plan.data.report["notes"]) == 3
    assert all("sgd` without momentum remembers nothing" in note for note in plan.data.report["notes"])
