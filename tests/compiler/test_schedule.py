"""In what order does a step run? Immediate, summed, accumulated; updates after the last reader; values freed."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

import lpc
from lpc.specs.plan.instructions import Accumulate, Call, Clip, Free, Load, Record, Repeat, Update, Write
from lpc.specs.plan.verify import verify

LAYERS = [
    {"fc1": "linear(6)"},
    {"n1": "batch_norm"},
    {"a1": "tanh"},
    {"fc2": "linear(6)"},
    {"a2": "tanh"},
    {"fc3": "linear(6)"},
    {"s": "add(from=[fc3, a1])"},
    {"out": "linear(3)"},
]


def plan(links: Any, *rules: dict[str, Any], **run: Any) -> lpc.Plan:
    return made(json.dumps(
        {
            "network": {"inputs": {"x": [4]}, "layers": LAYERS},
            "data": None,
            "fields": {"label": {"shape": [], "dtype": "int64"}},
            "loss": "cross_entropy",
            "decompose": {"blocks": {"a": ["fc1", "n1"], "b": "fc2", "c": "fc3", "d": "out"}, "links": links},
            "learn": [
                {"blocks": "*", "head": "linear", "loss": "cross_entropy", "optimizer": "sgd(lr=0.1)"},
                *rules,
            ],
            "run": {"target": "cpu", **run},
        }
    ))  # fmt: skip


@cache
def made(text: str) -> lpc.Plan:
    """The plan of a spec in JSON, built once."""
    return lpc.build(json.loads(text))


def order(built: lpc.Plan) -> list[str]:
    """Calls and updates in words: `a.local`, `update a`."""
    assert [d for d in verify(built.data) if d.severity == "error"] == []
    words = []
    for instruction in flat(built.data.program.step):
        if isinstance(instruction, Call):
            words.append(instruction.kernel)
        if isinstance(instruction, Update):
            words.append(f"update {instruction.block}")
    return words


def flat(body: Any) -> list[Any]:
    return [i for entry in body for i in (flat(entry.body) if isinstance(entry, Repeat) else [entry])]


SILENT = {"blocks": ["a", "b", "c"], "loss": "none"}

# name -> links, rules, run, and the order of calls and updates
ORDERS: dict[str, tuple[Any, list[Any], dict[str, Any], str]] = {
    "each block learns before the next runs": (
        "stop", [], {}, "a.local|update a|b.local|update b|c.local|update c|d.local|update d"
    ),
    "backpropagation is forwards, then backwards": (
        "gradient", [SILENT], {},
        "a.forward|b.forward|c.forward|d.local|update d|c.backward|update c|b.backward|update b|a.backward|update a",
    ),
    "only what waits is kept": (
        {"*": "stop", "b->c": "gradient"}, [], {},
        "a.local|update a|b.forward|c.local|update c|b.backward|update b|d.local|update d",
    ),
    "a skip makes its producer wait": (
        {"*": "stop", "a->c": "gradient"}, [], {},
        "a.forward|b.local|update b|c.local|update c|a.backward|update a|d.local|update d",
    ),
    "summed is all forwards, then all backwards": (
        "stop", [], {"memory": "summed"},
        "a.forward|b.forward|c.forward|d.forward|"
        "d.backward|update d|c.backward|update c|b.backward|update b|a.backward|update a",
    ),
    "recompute runs the forward part again": (
        {"*": "stop", "a->b": "gradient"}, [{"blocks": "a", "memory": "recompute"}], {},
        "a.forward|b.local|update b|a.vjp|update a|c.local|update c|d.local|update d",
    ),
    "clipping the whole net waits for all gradients": (
        "gradient", [SILENT], {"clip": 1.0},
        "a.forward|b.forward|c.forward|d.local|c.backward|b.backward|a.backward|update d|update c|update b|update a",
    ),
    "accumulating updates once": (
        "stop", [], {"accumulate": 2}, "a.local|b.local|c.local|d.local|update a|update b|update c|update d"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_order(name: str) -> None:
    links, rules, run, wanted = ORDERS[name]
    assert order(plan(links, *rules, **run)) == wanted.split("|")


def test_accumulation_averages_inside_and_clips_outside() -> None:
    built = plan("gradient", SILENT, accumulate=4, clip=1.0)
    repeat, *tail = built.data.program.step
    assert isinstance(repeat, Repeat)
    assert repeat.count == 4
    sums = [i for i in repeat.body if isinstance(i, Accumulate)]
    assert len(sums) == 4
    assert {i.scale for i in sums} == {0.25}
    assert isinstance(repeat.body[0], Load)
    assert isinstance(tail[0], Clip)
    assert {type(i) for i in tail} == {Clip, Update, Free}
    assert any(isinstance(i, Write) for i in repeat.body)


def test_a_value_is_freed_before_the_next_call_after_its_last_use() -> None:
    """So that only one block's activations are alive."""
    body = plan("stop").data.program.step
    free = [set(i.values) for i in body if isinstance(i, Free)]
    calls = [i for i in body if isinstance(i, Call)]
    assert len(free) == len(calls)
    defined = {v for i in body if isinstance(i, Call | Load) for v in i.values}
    assert set().union(*free) == defined
    for call, freed in zip(calls, free, strict=True):
        later = {a for c in calls[calls.index(call) + 1 :] for a in c.arguments}
        assert {v for v in (*call.values, *call.arguments) if v not in later} <= freed


def test_every_loss_is_recorded_and_every_buffer_written() -> None:
    body = plan("stop").data.program.step
    recorded = {i.metric for i in body if isinstance(i, Record)}
    assert recorded == {f"{block}.{metric}" for block in "abcd" for metric in ("loss", "accuracy")}
    assert [i.value for i in body if isinstance(i, Write)] == ["a.buffers"]


def test_a_shared_parameter_is_updated_after_its_last_reader(tmp_path: Any) -> None:
    source = tmp_path / "tied_network.py"
    source.write_text(
        "from torch import nn\n"
        "class Tied(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)\n"
        "        self.b.weight = self.a.weight\n"
        "    def forward(self, x):\n"
        "        return self.c(self.b(self.a(x).tanh()).tanh())\n"
    )
    spec: dict[str, Any] = {
        "network": {"module": "tied_network:Tied", "inputs": {"x": [4]}},
        "data": None,
        "fields": {"label": {"shape": [], "dtype": "int64"}},
        "loss": "cross_entropy",
        "decompose": {"blocks": {"a": "a", "b": "b", "c": "c"}, "links": "stop", "shared": "sum"},
        "learn": [{"blocks": "*", "head": "linear", "loss": "cross_entropy", "optimizer": "sgd(lr=0.1)"}],
        "run": {"target": "cpu"},
    }
    built = lpc.build(spec, allow=[str(source)])
    assert order(built) == ["a.local", "b.local", "update a", "update b", "c.local", "update c"]
    update = next(i for i in built.data.program.step if isinstance(i, Update) and i.block == "a")
    assert update.gradients == ("a.gradients", "b.gradients")
    owner = lpc.build(spec, {"decompose.shared": "owner"}, allow=[str(source)])
    update = next(i for i in owner.data.program.step if isinstance(i, Update) and i.block == "a")
    assert update.gradients == ("a.gradients",)
    assert order(owner)[:3] == ["a.local", "b.local", "update a"]
