"""Is a block refused whose head cannot see all that it hands on, and is what is asked for instead verified?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import lpc
from lpc.views.verification import verdict

PARALLEL = ["stem: linear(6)", "left: linear(5)", "l: relu", "right: linear(7, from=stem)", "r: relu",
            "both: concat(from=[l, r])", "out: linear(4)"]  # fmt: skip
U_NET = ["down: conv(3, 3, padding=1)", "d: relu", "across: conv(2, 1, from=d)", "pool: max_pool(2, from=d)",
         "deep: conv(5, 3, padding=1)", "back: upsample(2)", "both: concat(from=[across, back])",
         "up: conv(2, 3, padding=1)", "flatten", "out: linear(4)"]  # fmt: skip


def spec(layers: list[str], inputs: list[int], blocks: dict[str, list[str]], links: Any = "stop") -> str:
    written = "\n".join(f"    - {layer}" for layer in layers)
    named = "\n".join(f"    {name}: [{', '.join(parts)}]" for name, parts in blocks.items())
    return (
        f"network:\n  inputs: {{x: {inputs}}}\n  layers:\n{written}\nfields: {{label: {{shape: [], dtype: int64}}}}\n"
        f"loss: cross_entropy\ndecompose:\n  links: {links}\n  blocks:\n{named}\n"
        'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: sgd(lr=0.1)}]\n'
    )


ONE = {"b1": ["stem", "left", "l", "right", "r"], "head": ["both", "out"]}
OWN = {"b1": ["stem"], "b2": ["left", "l"], "b3": ["right", "r"], "head": ["both", "out"]}
ENCODER = {"b1": ["down", "d", "across", "pool"], "b2": ["deep", "back"], "head": ["both", "up", "out"]}
SKIP = {"b1": ["down", "d", "pool"], "b2": ["deep", "back"], "head": ["across", "both", "up", "out"]}


@pytest.mark.parametrize(
    ("text", "missed", "read", "owner"),
    [
        (spec(PARALLEL, [8], ONE), "`left.weight`, `left.bias` of block `b1`", "as `l`, and its losses read", "left"),
        (spec(U_NET, [1, 8, 8], ENCODER), "`across.weight`, `across.bias`", "as `across`, and", "across"),
    ],
)
def test_what_leaves_beside_the_head_is_refused(text: str, missed: str, read: str, owner: str) -> None:
    with pytest.raises(lpc.LpcError) as caught:
        lpc.build(text)
    [problem] = caught.value.diagnostics
    assert problem.code == "0439"
    assert missed in problem.message
    assert read in problem.message
    assert f"give `{owner}` a block" in (problem.help or "")
    assert problem.span is not None
    assert problem.span.excerpt().splitlines()[0].strip().endswith(text.split("blocks:\n    ")[1].splitlines()[0])
    assert problem.span.column == 5, "the block's name"


@pytest.mark.parametrize(
    "text",
    [spec(PARALLEL, [8], OWN), spec(PARALLEL, [8], ONE, "gradient"), spec(U_NET, [1, 8, 8], SKIP)],
    ids=["blocks of their own", "gradient", "a skip of what the head sees"],
)
def test_what_may_be_written_instead_is_verified(text: str) -> None:
    report = lpc.verify(lpc.build(text))
    assert report.ok
    assert all(report.influence.values())


def test_what_no_gradient_comes_back_for_is_refused() -> None:
    """Of the links of a block without a loss of its own one stops."""
    layers = ["stem: linear(6)", "left: linear(5)", "right: linear(7, from=stem)", "m: linear(3)"]
    layers += ["both: concat(from=[left, m])", "out: linear(4)"]
    blocks = {"b1": ["stem", "left", "right"], "b2": ["m"], "head": ["both", "out"]}
    text = spec(layers, [8], blocks, '{"b1->b2": gradient, "*": stop}')
    text = text.replace("learn: [", 'learn: [{blocks: "*", optimizer: sgd(lr=0.1)}, ').replace('"*", head', "b2, head")
    with pytest.raises(lpc.LpcError, match="as `left`, and no gradient comes back for that") as caught:
        lpc.build(text)
    assert caught.value.diagnostics[0].notes == ("block `b1` hands on `left`, `right`",)


class Detached(nn.Module):
    """Keeps gradients from a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.b = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x) + self.gate(x).detach())  # type: ignore[no-any-return]


def test_what_the_network_itself_keeps_from_learning_is_told_with_its_remedy() -> None:
    text = spec([], [8], {"b1": ["a", "gate"], "head": ["b"]})
    text = text.replace("network:\n", "network:\n  module: test_missed:Detached\n").replace("  layers:\n\n", "")
    plan = lpc.build(text, allow=[__file__])
    remedy = '{params: "gate.weight", train: false}'
    told = f"block b1: no loss reaches `gate.weight`; it is not trained: say so by `{remedy}`"
    assert told in plan.data.report["warnings"]
    assert "no entry of `learn` says so by `train: false`" in verdict(lpc.verify(plan, allow=[__file__]))
    frozen = text.replace("learn: [", 'learn: [{params: "gate.*", train: false}, ')
    assert lpc.verify(lpc.build(frozen, allow=[__file__]), allow=[__file__]).ok
