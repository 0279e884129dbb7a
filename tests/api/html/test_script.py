"""Does the page's script place, find and lead as it says? Its pure functions are run by node, where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from typing import Any

import pytest

from lpc.views.html.scene import Scene
from lpc.views.html.tree import Graph, Member

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed: the page's script is not run")


def run(body: str, value: Any) -> Any:
    """Run JavaScript with the script's functions as `lpc` and `given` at hand; return what it returns."""
    path = files("lpc.views.html").joinpath("places.js")
    program = (
        f"const lpc = require({json.dumps(str(path))});"
        "let text = ''; process.stdin.on('data', part => text += part).on('end', () => {"
        f"const given = JSON.parse(text); console.log(JSON.stringify((() => {{ {body} }})())); }});"
    )
    assert NODE is not None
    done = subprocess.run([NODE, "-e", program], input=json.dumps(value), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def scene(graph: Graph) -> dict[str, Any]:
    made = Scene()
    return {"root": made.inner(graph), "graphs": made.graphs}


def module(name: str, *operators: str) -> Member:
    members = [Member("op", one, "float32[B]") for one in operators]
    edges = [(i, i + 1) for i in range(len(operators) - 1)]
    return Member("layer", name, f"{len(operators)} operators", inner=Graph(members, edges))


NESTED = Graph([module("first", "mm", "relu"), module("second", "conv"), module("third", "mm")], [(0, 1), (0, 2)])


def test_room_is_made_and_order_kept() -> None:
    body = "const f = lpc.stretched(given); return [0, 10, 20, 30, 40, 50].map(f);"
    places = run(body, [[10, 30, 60], [20, 40, 20]])
    assert places == sorted(places)
    assert places[3] - places[1] >= 60
    assert places[0] == 0
    assert places[5] - places[4] == 10


def test_opened_boxes_hold_what_is_in_them_and_touch_no_other() -> None:
    body = """
      const flat = (g, dx, dy) => g.boxes.flatMap(b => [[b.key, dx + b.x - b.w / 2, dy + b.y, b.w, b.h],
        ...(b.inner ? flat(b.inner, dx + b.x - b.inner.w / 2, dy + b.y + 26) : [])]);
      return flat(lpc.placed(given, given.root, "", new Set(["0", "1", "2"])), 0, 0);"""
    boxes = {key: (x, y, x + w, y + h) for key, x, y, w, h in run(body, scene(NESTED))}
    assert set(boxes) == {"0", "0/0", "0/1", "1", "1/0", "2", "2/0"}
    for key, (left, top, right, bottom) in boxes.items():
        for other, (left2, top2, right2, bottom2) in boxes.items():
            apart = right <= left2 + 1 or right2 <= left + 1 or bottom <= top2 + 1 or bottom2 <= top + 1
            if other.startswith(f"{key}/"):
                assert left <= left2 + 1
                assert top <= top2
                assert right >= right2 - 1
                assert bottom >= bottom2
            elif not key.startswith(f"{other}/") and key != other:
                assert apart, (key, other)


def test_search_goes_through_every_level() -> None:
    body = """
      const texts = ['mm', 'FIRST relu', 'third', 'nothing', ''];
      return texts.map(text => lpc.found(given, text).map(hit => hit.key));"""
    assert run(body, scene(NESTED)) == [["0/0", "2/0"], ["0/1"], ["2", "2/0"], [], []]


def test_levels_open_one_by_one() -> None:
    body = """
      const open = new Set(), found = [];
      for (let i = 0; i < 2; i++) {
        found.push(lpc.closed(given, open));
        found[i].forEach(key => open.add(key));
      }
      return [found, lpc.around("0/1/2"), lpc.nodeAt(given, "0/1").n];"""
    levels, around, name = run(body, scene(NESTED))
    assert levels == [["0", "1", "2"], []]
    assert around == ["0", "0/1"]
    assert name == "relu"


def test_arrows_lead_to_neighbours() -> None:
    body = """
      const layout = lpc.placed(given, given.root, "", new Set());
      const asked = [["0", "down"], ["1", "up"], ["1", "right"], ["2", "left"], ["0", "up"]];
      return asked.map(([key, way]) => lpc.beside(layout, key, way));"""
    down, up, right, left, none = run(body, scene(NESTED))
    assert down in ("1", "2")
    assert up == "0"
    assert {right, left} - {None} <= {"1", "2"}
    assert right != left
    assert none is None


@pytest.mark.parametrize(("number", "text"), [(999, "999"), (1000, "1.00 k"), (2_500_000, "2.50 M")])
def test_counts_read_as_in_the_terminal(number: int, text: str) -> None:
    from lpc.views.units import count

    assert run("return lpc.count(given);", number) == text == count(number)


def test_two_thousand_boxes_are_placed() -> None:
    """A chain with a skip at every tenth box, all of it open."""
    graph = Graph([module(f"m{i}", *["mm"] * (i % 3 + 2)) for i in range(700)])
    graph.edges = [(i, i + 1) for i in range(699)] + [(i, i + 3) for i in range(0, 690, 10)]
    body = """
      const keys = new Set(given.graphs[given.root].nodes.map((_, i) => String(i)));
      const layout = lpc.placed(given, given.root, "", keys);
      const finite = layout.boxes.every((box) => Number.isFinite(box.x));
      return [finite, layout.boxes.reduce((n, box) => n + 1 + box.inner.boxes.length, 0)];"""
    finite, boxes = run(body, scene(graph))
    assert boxes > 2000
    assert finite
