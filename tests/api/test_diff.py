"""Does a difference tell what moved, which gradients came and went, and by how much figures changed?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lpc as api
from lpc.difference import Gradients, Moved
from lpc.views.difference import page

Command = Callable[..., Any]
SPEC = """name: NAME
network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), relu, fc2: linear(16), relu, out: linear(10)]}
data: {source: digits, batch: 16}
loss: cross_entropy
decompose: {blocks: {b1: fc1, b2: fc2, head: out}, links: stop}
learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: sgd(lr=0.1)}]
run: {epochs: 1}
"""
OTHER = SPEC.replace("b1: fc1, b2: fc2, head: out", "b1: fc1, head: [fc2, out]").replace("stop", "gradient")


@pytest.fixture(scope="module")
def plans() -> tuple[api.Plan, api.Plan]:
    return api.build(SPEC), api.build(OTHER)


def test_what_moved_and_which_gradients_changed(plans: tuple[api.Plan, api.Plan]) -> None:
    found = api.diff(*plans)
    assert not found.same
    assert found.blocks == {"gone": ("b2",)}
    assert Moved("b2", "head", ("fc2.weight", "fc2.bias")) in found.moved
    assert Moved("b2", "", ("heads.b2.weight", "heads.b2.bias")) in found.moved
    assert found.links["b1 -> head"] == ("", "gradient")
    assert Gradients("b1", ("fc1.weight", "fc1.bias"), ("head.loss",), ()) in found.gradients
    assert Gradients("head", ("fc2.weight", "fc2.bias"), ("head.loss",), ("b2.loss",)) in found.gradients
    assert found.totals["memory"] == (plans[0].memory().total, plans[1].memory().total)
    assert found.flops["head"] == (plans[0].cost().blocks["head"], plans[1].cost().blocks["head"])
    assert '-  links: {"*": stop}' in found.spec


def test_there_and_back_is_the_reverse(plans: tuple[api.Plan, api.Plan]) -> None:
    there, back = api.diff(*plans), api.diff(plans[1], plans[0])
    assert {name: pair[::-1] for name, pair in there.totals.items()} == back.totals
    assert {(m.after, m.before, m.parameters) for m in there.moved} == {tuple(vars(m).values()) for m in back.moved}
    swapped = {(g.parameters, g.lost, g.gained) for g in there.gradients}
    assert swapped == {(g.parameters, g.gained, g.lost) for g in back.gradients}


def test_a_plan_does_not_differ_from_itself(plans: tuple[api.Plan, api.Plan]) -> None:
    found = api.diff(plans[0], plans[0])
    assert found.same
    assert not any((found.moved, found.gradients, found.links, found.flops, found.spec))


def test_options_of_an_optimizer_are_told(plans: tuple[api.Plan, api.Plan]) -> None:
    changed = SPEC.replace("optimizer: sgd(lr=0.1)", "optimizer: sgd(lr=0.2), clip: 1.0")
    found = api.diff(plans[0], api.build(changed))
    assert found.optimizers["b1"] == ("sgd(lr=0.1)", "sgd(lr=0.2), clip 1.0")
    assert not found.gradients


def test_the_command_takes_specs_and_plans(lpc: Command, plans: tuple[api.Plan, api.Plan], tmp_path: Path) -> None:
    plans[0].save(tmp_path / "a.plan")
    Path("b.yaml").write_text(OTHER)
    shown = lpc("diff", "a.plan", "b.yaml").out
    assert "b1 -> head  -       gradient" in shown
    assert "+  links: {\"*\": gradient}" in shown
    told = json.loads(lpc("diff", "a.plan", "b.yaml", "--json").out)
    assert told["blocks"] == {"gone": ["b2"]}
    assert lpc("diff", "a.plan", "a.plan").out == "the plans are the same, byte for byte\n"
    assert lpc("diff", "a.plan", "b.yaml", "--html", "out/d.html").code == 0
    assert "b1 -&gt; head" in Path("out/d.html").read_text()
    assert lpc("diff", "a.plan", "absent.yaml").code == 2


def test_text_of_a_spec_cannot_become_markup() -> None:
    text = page(api.diff(*(api.build(s.replace("NAME", '"<script>x"')) for s in (SPEC, OTHER))))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
