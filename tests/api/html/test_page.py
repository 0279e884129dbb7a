"""Is the page of a plan whole, harmless, small and always the same?"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import lpc
from lpc.views.html.page import contents, page

NASTY = "</script><script>alert(1)</script><!--"
LEARN = [{"blocks": "*", "head": "linear", "loss": "cross_entropy", "optimizer": "sgd(lr=0.1, momentum=0.9)"}]


def spec(name: str = "small", links: str = "stop", **more: Any) -> dict[str, Any]:
    layers: list[Any] = ["flatten"]
    for index in range(4):
        layers += [{f"fc{index}": "linear(16)"}, {f"act{index}": "relu"}]
    return {
        "name": name,
        "network": {"inputs": {"image": [1, 8, 8]}, "layers": [*layers, {"out": "linear(10)"}]},
        "data": {"source": "digits", "batch": 16},
        "loss": "cross_entropy",
        "decompose": {"blocks": "per_layer", "links": links},
        "learn": LEARN,
        "run": {"epochs": 1},
        **more,
    }


@pytest.fixture(scope="module")
def plan() -> lpc.Plan:
    return lpc.build(spec())


class Reader(HTMLParser):
    """Collects elements, and the text inside of each script."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script":
            self.scripts[-1] += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


def test_the_page_loads_nothing(plan: lpc.Plan) -> None:
    found = read(page(plan))
    for tag, attributes in found.elements:
        assert tag not in ("link", "iframe", "img", "object")
        assert not {"src", "href"} & attributes.keys()
    [policy] = [a["content"] for t, a in found.elements if t == "meta" and "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|import)\s*\(", found.scripts[1])


def test_the_data_come_back_from_the_page(plan: lpc.Plan) -> None:
    data = json.loads(read(page(plan)).scripts[0])
    assert data["name"] == "small"
    assert data["flops"] == plan.cost().flops
    assert data["memory"]["total"] == plan.memory().total
    assert list(data["blocks"]) == sorted(plan.partition)
    assert max(moment[2] for moment in data["memory"]["moments"]) == data["memory"]["peak"]
    assert data["program"] == plan.text()


def test_the_same_plan_has_the_same_page(plan: lpc.Plan) -> None:
    assert page(plan) == page(plan) == page(lpc.build(spec()))


def test_text_of_a_plan_cannot_become_markup() -> None:
    name = NASTY.replace("/", "")  # that of a spec names a folder as well
    told = spec(name)
    told["network"]["layers"] = [{"fc": "linear(16)"}, {"out": "linear(10)"}]
    told["network"]["inputs"] = {"image": [64]}
    told["fields"] = {"label": {"shape": [], "dtype": "int64"}}
    told["decompose"] = {"blocks": {NASTY: ["fc"], "[[script]]": ["out"]}, "links": "stop"}
    del told["data"]
    found = read(page(lpc.build(told)))
    assert len(found.scripts) == 2
    assert [tag for tag, _ in found.elements].count("script") == 2
    data = json.loads(found.scripts[0])
    assert NASTY in data["blocks"]
    assert data["name"] == name
    assert "alert(1)" not in found.scripts[1]


def test_equal_blocks_are_folded(plan: lpc.Plan) -> None:
    scene = contents(plan, plan.lengths())["scene"]
    outermost = scene["graphs"][scene["root"]]
    assert [node["k"] for node in outermost["nodes"]] == ["in", "block", "fold", "block", "out"]
    inside = scene["graphs"][outermost["nodes"][2]["g"]]
    assert [node["b"] for node in inside["nodes"]] == ["fc1", "fc2", "fc3"]
    assert [(edge["a"], edge["b"]) for edge in inside["edges"]] == [(0, 1), (1, 2)]


def test_reading_a_length_is_no_edge(plan: lpc.Plan) -> None:
    """The batch's size, which views read off the input, would be an edge from there to each of them."""
    scene = contents(plan, plan.lengths())["scene"]
    first = scene["graphs"][scene["graphs"][scene["root"]]["nodes"][1]["g"]]
    assert [node["n"] for node in first["nodes"]] == ["image", "flatten1", "fc0", "act0", "act0"]
    assert [(edge["a"], edge["b"]) for edge in first["edges"]] == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_boxes_of_a_graph_do_not_overlap(plan: lpc.Plan) -> None:
    for graph in contents(plan, plan.lengths())["scene"]["graphs"]:
        boxes = [(n["x"] - n["w"] / 2, n["x"] + n["w"] / 2, n["y"], n["y"] + n["h"]) for n in graph["nodes"]]
        for index, (left, right, top, bottom) in enumerate(boxes):
            assert min(left, top) >= -1
            for left2, right2, top2, bottom2 in boxes[:index]:
                assert right <= left2 + 1 or right2 <= left + 1 or bottom <= top2 + 1 or bottom2 <= top + 1


def test_the_matrix_is_the_flow_of_gradients() -> None:
    through = contents(lpc.build(spec(links="gradient")), {"B": 16})["flow"]
    own = [row for row in through["rows"] if not row["parameters"][0].startswith("heads")]
    reached = {row["block"]: set(row["losses"]) for row in own}
    assert reached["fc0"] == set(through["losses"])
    assert reached["out"] == {"out.loss"}
    apart = contents(lpc.build(spec()), {"B": 16})["flow"]
    assert all(row["losses"] == [f"{row['block']}.loss"] for row in apart["rows"])


@pytest.mark.parametrize(
    ("learn", "formulas"),
    [
        (LEARN, ["g = ∂L/∂θ", "m ← μm + g,  θ ← θ − η m", "η = 0.1,  μ = 0.9"]),
        ([{**LEARN[0], "optimizer": "sgd(lr=0.5)"}], ["θ ← θ − η g", "η = 0.5"]),
        ([{**LEARN[0], "estimator": "feedback_alignment"}], ["g = ∂L/∂θ with B for Wᵀ on the way back"]),
        ([{**LEARN[0], "loss": "mse(target=image)", "head": "decoder"}], ["q = decoder(h; φ)"]),
    ],
)
def test_a_local_problem_is_told(learn: list[Any], formulas: list[str]) -> None:
    told = contents(lpc.build(spec(learn=[*learn, {"blocks": "out", "loss": "cross_entropy"}])), {"B": 16})
    shown = [formula for _, formula in told["blocks"]["fc1"]["math"]]
    assert "x = sg[act0]" in shown
    for formula in formulas:
        assert formula in shown


VARIABLE = "variable(penalty=squared(weight=1.0, reduction=sum), optimizer=sgd(lr=0.01), steps=3)"
SUMMED = {"blocks": "*", "loss": "squared", "reduction": "sum", "optimizer": "sgd(lr=0.01)", "steps": 3}


@pytest.mark.parametrize(
    ("links", "learn", "formula"),
    [
        (VARIABLE, {"blocks": "*", "optimizer": "sgd(lr=0.1)"}, "x = ĥ[act0]"),
        ("target(step=10, rule=gradient)", SUMMED, "3 updates on each batch from θ₀, its inputs and targets frozen"),
        ("feedback", {"blocks": "*", "optimizer": "sgd(lr=0.1)"}, "θ ← θ − η g"),
    ],
)
def test_every_link_has_a_page(links: str, learn: dict[str, Any], formula: str) -> None:
    plan = lpc.build(spec(links=links, learn=[learn]))
    told = json.loads(read(page(plan)).scripts[0])
    assert formula in [line for _, line in told["blocks"]["fc1"]["math"]]
    assert any(line.startswith("link from") for line, _ in told["blocks"]["fc1"]["math"])
    assert max(moment[2] for moment in told["memory"]["moments"]) == plan.memory().peak
    assert told["timelines"][0]["devices"] == 1


def test_lines_of_the_spec_are_those_of_the_block(plan: lpc.Plan) -> None:
    lines = plan.data.spec.splitlines()
    shown = contents(plan, plan.lengths())["blocks"]["fc1"]["spec"]
    assert all(lines[number - 1] == line for number, line in shown)
    assert any("momentum=0.9" in line for _, line in shown)
    assert any("links:" in line for _, line in shown)


def test_the_command_writes_the_page(tmp_path: Path, plan: lpc.Plan) -> None:
    from lpc.cli import main

    plan.save(tmp_path / "a.plan")
    with pytest.raises(SystemExit) as left:
        main(["inspect", str(tmp_path / "a.plan"), "--html", str(tmp_path / "out" / "a.html"), "--batch", "3"])
    assert not left.value.code
    assert json.loads(read((tmp_path / "out" / "a.html").read_text()).scripts[0])["lengths"] == {"B": 3}
