"""Does a trace tell of all ranks who did what when, and change nothing?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lpc
from lpc.runtime import pieces
from lpc.runtime.checkpoint import LAST
from lpc.runtime.tracing import FIRST, STEPS, Span, overlap, waiting

SPEC = """\
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(8), relu, dropout(0.2), fc2: linear(8), relu, out: linear(10)]
data: {source: digits, batch: 64}
loss: cross_entropy
decompose: {blocks: {b1: fc1, b2: fc2, head: out}, links: gradient}
learn: [{blocks: "*", optimizer: sgd(lr=0.1)}]
run: {steps: 25, target: cpu, microbatches: 2}
"""


def span(start: float, seconds: float, kind: str = "compute") -> Span:
    return Span("k", kind, "b1", 0, start, seconds)


@pytest.mark.parametrize(
    ("ranks", "wanted"),
    [
        ([[span(0, 2)], [span(0, 2)]], 2.0),
        ([[span(0, 2)], [span(2, 2)]], 1.0),
        ([[span(0, 2), span(2, 2, "wait")], [span(1, 2)]], 4 / 3),
        ([[span(0, 4), span(4, 1)], [span(1, 1), span(2, 1)]], 7 / 5),
        ([[span(0, 2, "wait")], []], 0.0),
    ],
)
def test_overlap_is_work_over_the_time_in_which_any_rank_works(ranks: list[list[Span]], wanted: float) -> None:
    assert overlap(ranks) == pytest.approx(wanted)


def test_waiting_is_what_is_no_work() -> None:
    assert waiting([span(1, 2), span(3, 1, "wait"), span(4, 1)]) == pytest.approx(0.25)
    assert waiting([]) == 0.0


def test_a_run_tells_of_all_ranks(tmp_path: Path, ranks: Callable[..., list[Any]]) -> None:
    plan = lpc.build(SPEC)
    lpc.Trainer(plan, "cpu").fit(tmp_path / "one")
    found = ranks(plan, 2, lambda worker: worker.fit(tmp_path / "two", trace=True))
    assert found[0]["trace"] == found[1]["trace"]
    assert 1 <= found[0]["trace"]["overlap"] <= 2
    assert len(found[0]["trace"]["waiting"]) == 2
    one, two = (pieces.read(tmp_path / name / LAST).tensors for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one if not name.startswith("meter."))

    events = [e for e in json.loads((tmp_path / "two" / "trace.json").read_text())["traceEvents"] if e["ph"] == "X"]
    assert {event["args"]["step"] for event in events} == set(range(FIRST, FIRST + STEPS))
    assert {event["pid"] for event in events} == {0, 1}
    assert {"update b1", "b1.forward"} <= {event["name"] for event in events if event["pid"] == 0}
    sent = [event["ts"] for event in events if event["pid"] == 0 and event["cat"] == "send"]
    taken = [event for event in events if event["pid"] == 1 and event["cat"] == "wait"]
    assert len(sent) == len(taken) == 2 * STEPS
    assert all(begun <= end["ts"] + end["dur"] for begun, end in zip(sent, taken, strict=True))
