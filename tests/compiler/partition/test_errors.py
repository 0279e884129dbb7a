"""What does a user read who cuts a network wrongly? A bad example for each 03xx code, and the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import lpc
from lpc.compiler.partition import partition
from lpc.compiler.partition.cycles import moved, quotient, shortest_cycle, smallest_move
from lpc.compiler.partition.view import view
from lpc.specs import load_spec
from lpc.specs.codes import CODES
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.term import Term

Make = Callable[..., Any]


class Chain(nn.Module):
    """Three convolution-like layers under one name, and a head that is tied to the first."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.head = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(self.head(self.body(x)), self.body[0].weight)


def balanced(**options: Any) -> Term:
    return Term("balanced", (), options)


# (code, blocks, other decompose keys, what the rendered message holds)
BAD: list[tuple[str, Any, dict[str, Any], list[str]]] = [
    (
        "0301",
        {"a": "boddy"},
        {},
        ["`boddy` matches no module", "top level is `body`, `head`", "did you mean `body`"],
    ),
    ("0301", {"a": "body", "b": "head.*"}, {}, ["`head.*` matches no module"]),
    ("0301", Term("each", ("layers.*",)), {}, ["`layers.*` matches no module"]),
    (
        "0302",
        {"a": "body", "b": "body.2"},
        {},
        ["`body.2` belongs to two blocks, `a` and `b`", "with `body.2`"],
    ),
    ("0302", {"*": Term("each", ("body.*",)), "b": "body.4"}, {}, ["`body.4` belongs to two blocks"]),
    (
        "0303",
        {"a": "body"},
        {},
        ["`head.weight`, `head.bias`", "`a` would be the natural block", "add `head` to"],
    ),
    (
        "0305",
        {"a": "body", "b": ["head", "linear"]},
        {},
        ["`body.0.weight` is used by two blocks, `a` and `b`"],
    ),
    (
        "0306",
        balanced(count=9),
        {"shared": "sum"},
        ["need 8 cut points, and the network has 6", "after `body.0`"],
    ),
    ("0307", Term("per_block"), {}, ["`per_block` is no way", "`per_layer`, `each`, `balanced` or `unroll`"]),
    ("0307", balanced(count=2, by="speed"), {}, ["`params`, `flops` or `memory`"]),
    ("0307", balanced(by="params"), {}, ["needs a number of blocks"]),
    ("0307", balanced(count=2, depth=3), {}, ["more than `count` and `by`"]),
    ("0307", Term("each"), {}, ["takes one or more patterns"]),
    ("0307", {"*": "body"}, {}, ["`body` cannot name its own blocks"]),
    ("0307", {"a": Term("each", ("body.*",))}, {}, ["is no selector of block `a`"]),
    (
        "0309",
        {"a": ["body", "head"]},
        {"links": {"a->b": Term("stop")}},
        ["`a->b` names no boundary", "one block"],
    ),
]


@pytest.mark.parametrize(("code", "blocks", "more", "expected"), BAD)
def test_bad_partitions(
    trace: Make, spec: Make, code: str, blocks: Any, more: dict[str, Any], expected: list[str]
) -> None:
    diagnostic = failure(trace(Chain()), spec(blocks, **more))
    assert diagnostic.code == code
    for text in expected:
        assert text in diagnostic.render()


def test_every_code_has_a_bad_example() -> None:
    tested = {code for code, *_ in BAD} | {"0304", "0308"}
    assert tested == {code for code in CODES if code.startswith("03")}


def test_a_network_without_layers(trace: Make, spec: Make) -> None:
    assert (
        failure(trace(nn.Sequential(nn.ReLU()), input=torch.zeros(4)), spec(Term("per_layer"))).code == "0308"
    )


def test_a_cycle_names_its_edges_and_the_way_out(trace: Make, spec: Make) -> None:
    blocks = {"a": ["body.0", "body.4"], "b": ["body.2", "head", "linear"]}
    assert failure(trace(Chain()), spec(blocks, shared="sum")).render().splitlines() == [
        "error[LPC0304]: blocks feed each other in a circle: a -> b -> a",
        "  note: a -> b: `body_1` (body.1) -> `body_2` (body.2)",
        "  note: b -> a: `body_3` (body.3) -> `body_4` (body.4)",
        "  help: move `body_4` (body.4) from `a` to `b`: that opens the circle",
    ]


def test_the_move_that_is_named_opens_a_circle_of_three(trace: Make, spec: Make) -> None:
    """Blocks a, b, c around a chain of six layers: the move is tried on the quotient graph."""
    network = nn.Sequential(*(nn.Linear(4, 4) for _ in range(7)))
    seen = view(trace(network, input=torch.zeros(4)).train)
    blocks = list("aabbcca")
    cycle = shortest_cycle(quotient(seen, blocks))
    assert cycle == ["a", "b", "c"]
    move = smallest_move(seen, blocks, cycle)
    assert move is not None
    assert len(move.sites) == 1
    assert moved(seen, blocks, move) == list("aabbccc")


def test_circles_beyond_one_move_are_to_be_joined(trace: Make, spec: Make) -> None:
    network = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))
    blocks = {"a": ["0", "2"], "b": "1", "c": ["3", "5"], "d": "4"}
    diagnostic = failure(trace(network, input=torch.zeros(4)), spec(blocks))
    assert "join the blocks" in diagnostic.render()


def failure(traced: Any, spec: Any) -> Diagnostic:
    """Return the first diagnostic of a partition that must fail."""
    with pytest.raises(LpcError) as caught:
        partition(traced, spec)
    return caught.value.diagnostics[0]


def test_the_place_in_the_spec_is_shown(trace: Make) -> None:
    text = """
network: {layers: [linear(4)], inputs: {x: [4]}}
decompose:
  blocks:
    a: body
    b: [head, haed]
learn: [{blocks: "*", loss: mse, optimizer: sgd(lr=0.1)}]
loss: mse
fields: {y: {shape: [4]}}
run: {steps: 1}
"""
    diagnostic = failure(trace(Chain()), load_spec(text))
    assert diagnostic.span is not None
    assert (diagnostic.span.line, diagnostic.span.column) == (6, 15)
    assert "did you mean `head`?" in diagnostic.render()


class Renamed(nn.Module):
    """One embedding with two names, a map with the weight of another, and layers that nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.encoder = nn.Module()
        self.encoder.embed = self.shared
        self.tied, self.head = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.tied.weight = self.head.weight
        self.steps = nn.ModuleList([nn.Linear(4, 4)])
        self.idle = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.steps[0](self.encoder.embed(x)))  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize(
    ("block", "found", "note", "help"),
    [
        ('a: "encoder.embed"', "encoder.embed", "it is called as `shared`", "select `shared` instead"),
        ('a: "enc*.embed"', "encoder.embed", "it is called as `shared`", "select `shared` instead"),
        ("a: tied", "tied", "it shares its parameters with `head`", "select `head` instead"),
        ("a: idle", "idle", None, "leave it out: the network runs without it"),
        ('"*": unroll("steps")', "steps", "inside it are called `steps.0`", "select `steps.0` instead"),
    ],
)
def test_a_module_that_runs_under_another_name_is_told(block: str, found: str, note: str | None, help: str) -> None:
    text = f"""
network: {{module: "test_errors:Renamed", inputs: {{x: [4]}}}}
fields: {{label: {{shape: [], dtype: int64}}}}
loss: cross_entropy
decompose: {{blocks: {{{block}, b: head}}, links: gradient}}
learn: [{{blocks: "*", optimizer: adam}}]
"""
    with pytest.raises(LpcError) as caught:
        lpc.build(text, allow=[__file__])
    problem = caught.value.diagnostics[0]
    assert problem.code == "0301"
    assert problem.message == f"`{found}` is a module of the network, and is not called under that name"
    assert problem.notes == (() if note is None else (note,))
    assert problem.help == help
    assert problem.span is not None
    assert problem.span.line == 5
