"""What do the reports of `lpc inspect` say, in text and as JSON?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lpc as api
from lpc.specs.timeline import placed, timeline

Command = Callable[..., Any]
SPEC = """
network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), relu, fc2: linear(16), relu, out: linear(10)]}
data: {source: digits, batch: 16}
loss: cross_entropy
decompose: {blocks: {b1: fc1, b2: fc2, head: out}, links: {"b1->b2": stop, "*": gradient}}
learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: sgd(lr=0.1)}]
run: {epochs: 1}
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "a.plan"
    api.build(SPEC).save(path)
    return path


def test_flow(lpc: Command, plan: Path) -> None:
    lines = [line.split() for line in lpc("inspect", plan, "--flow").out.splitlines()]
    assert lines[0] == ["block", "parameters", "b1.loss", "b2.loss", "head.loss"]
    assert ["b2", "fc2.weight,", "fc2.bias", "·", "●", "○"] in lines
    assert ["head", "out.weight,", "out.bias", "·", "·", "●"] in lines
    told = json.loads(lpc("inspect", plan, "--flow", "--json").out)
    assert told["losses"] == ["b1.loss", "b2.loss", "head.loss"]
    assert {"block": "b2", "parameters": ["fc2.weight", "fc2.bias"], "losses": ["b2.loss", "head.loss"]} in told["rows"]


def test_cost(lpc: Command, plan: Path) -> None:
    assert "with B = 8: " in lpc("inspect", plan, "--cost", "--batch", "8").out
    told = json.loads(lpc("inspect", plan, "--cost", "--batch", "8", "--json").out)
    assert told["flops"] == api.load(plan).cost(8).flops
    assert sum(kernel["flops"] for kernel in told["kernels"]) == told["flops"]


def test_timeline(lpc: Command, plan: Path) -> None:
    shown = lpc("inspect", plan, "--timeline", "--devices", "2").out
    assert "  0  A" in shown
    assert "A b1, B b2, C head" in shown
    told = json.loads(lpc("inspect", plan, "--timeline", "--devices", "9", "--json").out)["timelines"]
    assert [one["devices"] for one in told] == [1, 2]  # b2 and head together take less than b1


def test_block(lpc: Command, plan: Path) -> None:
    shown = lpc("inspect", plan, "--block", "b2").out
    for part in ("x = sg[relu1]", "L = cross_entropy(q) + L(head.loss)", "b1 -> b2", "b2: [fc2]", "b2.backward"):
        assert part in shown
    assert json.loads(lpc("inspect", plan, "--block", "b2", "--json").out)["block"] == "b2"
    refused = lpc("inspect", plan, "--block", "b3")
    assert refused.code == 2
    assert "LPC0704" in refused.err


def test_several_reports_are_named_in_json(lpc: Command, plan: Path) -> None:
    assert set(json.loads(lpc("inspect", plan, "--cost", "--flow", "--json").out)) == {"cost", "flow"}
    assert json.loads(lpc("inspect", plan, "--json").out)["hash"] == api.load(plan).hash


def test_model_explorer_graph_is_whole(lpc: Command, plan: Path) -> None:
    [graph] = json.loads(lpc("inspect", plan, "--graph", "model-explorer").out)["graphs"]
    ids = [node["id"] for node in graph["nodes"]]
    assert len(set(ids)) == len(ids)
    sources = {edge["sourceNodeId"] for node in graph["nodes"] for edge in node["incomingEdges"]}
    assert sources < set(ids)
    assert {node["namespace"] for node in graph["nodes"]} >= {"b1/fc1", "b2/relu2"}
    [second] = [node for node in graph["nodes"] if node["namespace"] == "b2/fc2"]
    assert [edge["sourceNodeId"].split("/")[0] for edge in second["incomingEdges"]] == ["b1"]


def test_links_decide_what_overlaps() -> None:
    """Three equal blocks on three devices: three times as fast behind stops, no faster with backpropagation."""
    layers = "[fc1: linear(64, bias=false), fc2: linear(64, bias=false), out: linear(64, bias=false)]"
    text = (
        "network: {inputs: {x: [64]}, layers: " + layers + "}\nfields: {y: {shape: [64]}}\nloss: mse\n"
        "decompose: {blocks: per_layer, links: LINK}\nlearn: [{blocks: '*', head: identity, loss: mse, "
        "optimizer: sgd(lr=0.1)}]"
    )
    speeds = {}
    for link in ("stop", "gradient"):
        program = api.build(text.replace("LINK", link)).data
        one = timeline(program.program, program.kernels["native"], {"B": 32}, 3)
        speeds[link] = one.speedup
        assert one.devices == 3
        assert one.path <= one.work
    assert speeds["gradient"] == pytest.approx(1.0)
    assert speeds["stop"] > 2.4


@pytest.mark.parametrize(
    ("loads", "devices", "wanted"),
    [([1, 1, 1, 1], 2, [0, 0, 1, 1]), ([4, 1, 1, 1], 2, [0, 1, 1, 1]), ([1, 2], 5, [0, 1]), ([3, 3], 1, [0, 0])],
)
def test_loads_are_placed_evenly(loads: list[float], devices: int, wanted: list[int]) -> None:
    assert placed(loads, devices) == wanted
