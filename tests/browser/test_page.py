"""Does the page do in a real browser what it says? Loaded, searched, opened, coloured and led by keys, in silence."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

import lpc
from lpc.views.html.page import embedded, page
from lpc.views.html.scene import Scene
from lpc.views.html.tree import Graph, Member

LIMIT = 2_000_000  # bytes
SHOTS = os.environ.get("LPC_SHOTS")  # a folder for pictures
SPECS = {
    "digits": """
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(32), relu, fc2: linear(32), relu, out: linear(10)]
data: {source: digits, batch: 64}
recipe: greedy(optimizer=adam(lr=4e-3))
""",
    "resnet50": """
network:
  module: "transformers:ResNetForImageClassification"
  config: {num_labels: 10}
  inputs: {pixel_values: [3, 32, 32]}
  output: logits
fields: {label: {shape: [], dtype: int64}}
data: none
loss: cross_entropy
decompose: {blocks: "balanced(count=4, by=memory)", links: stop}
learn: [{blocks: "*", head: linear(pool=mean), loss: cross_entropy, optimizer: sgd(lr=0.1)}]
""",
    "localmixer": """
network: {zoo: localmixer, args: {image: [1, 8, 8], side: 2, blocks: 3, channels: 16, groups: 2, classes: 10}}
data: {source: digits, batch: 64}
decompose: {blocks: {"*": each("blocks.*"), readout: readout}}
recipe: local_forward_gradient(readout=readout, groups=2, head=linear(pool=patches, norm=last))
""",
}


@pytest.fixture(scope="module", params=SPECS)
def plan(request: pytest.FixtureRequest) -> lpc.Plan:
    return lpc.build(f"name: {request.param}\n{SPECS[request.param]}run: {{steps: 1}}\n")


def boxes(driver: Any, kind: str = "node") -> list[Any]:
    found: list[Any] = driver.find_elements("css selector", f".{kind} > .box")
    return found


def total(driver: Any) -> int:
    """Return how many boxes the drawing has, those out of sight included."""
    return int(driver.execute_script("return shapes.size"))


def chosen(driver: Any) -> str:
    return str(driver.execute_script("return state.chosen"))


def press(driver: Any, *keys: str) -> None:
    for key in keys:
        driver.find_element("id", "canvas").send_keys(key)


def shot(driver: Any, name: str) -> None:
    if SHOTS is not None:
        driver.get_screenshot_as_file(str(Path(SHOTS) / f"{name}.png"))


def panel(driver: Any) -> str:
    text: str = driver.find_element("id", "panel").text
    return text


def test_a_page_is_driven_from_loading_to_leaving(page: Any, plan: lpc.Plan) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver = page(plan)
    name, blocks = plan.spec.name, list(plan.partition)
    assert name in driver.title
    assert driver.find_element("id", "title").text == name
    closed = total(driver)
    first = boxes(driver, "block")[0] if boxes(driver, "block") else boxes(driver, "fold")[0]
    first.click()
    assert driver.find_elements("css selector", ".chosen")
    shot(driver, f"{name}-block")
    if boxes(driver, "block"):
        assert panel(driver).startswith(blocks[0])
        assert "LOCAL PROBLEM" in panel(driver).upper()
    ActionChains(driver).double_click(first).perform()
    opened = total(driver)
    assert opened > closed
    press(driver, "e")
    assert total(driver) > opened
    shot(driver, f"{name}-open")
    for index, told in enumerate(("", "", "peak", "", "step"), 1):
        press(driver, str(index))
        assert told in panel(driver)
        shot(driver, f"{name}-tab{index}")
    press(driver, "1", "c", "f")
    assert total(driver) == closed
    search = driver.find_element("id", "search")
    press(driver, "/")
    assert driver.switch_to.active_element == search
    search.send_keys(blocks[-1], Keys.ENTER)
    assert driver.find_elements("css selector", "#results li[aria-selected=true]")
    assert blocks[-1] in panel(driver)
    shot(driver, f"{name}-search")
    search.send_keys(Keys.ESCAPE)
    assert driver.find_element("id", "results").get_property("hidden")
    before = chosen(driver)
    press(driver, Keys.ARROW_UP)
    assert chosen(driver) != before


def test_overlays_colour_the_blocks_dark_and_light(page: Any, plan: lpc.Plan) -> None:
    from selenium.webdriver.support.select import Select

    driver = page(plan)
    overlay = Select(driver.find_element("id", "overlay"))
    names = [option.text for option in overlay.options]
    assert names == ["links", "losses", "units", "memory", "flops", "device"]
    themes = set()
    for _ in range(2):
        for name in names:
            overlay.select_by_visible_text(name)
            assert driver.find_element("id", "legend").text
            themes.add(driver.execute_script("return getComputedStyle(document.body).backgroundColor"))
        shot(driver, f"{plan.spec.name}-overlay-{len(themes)}")
        press(driver, "t")
    assert len(themes) == 2


def test_a_page_is_one_small_file(plan: lpc.Plan) -> None:
    assert len(page(plan).encode()) < LIMIT


# Draws a frame for each turn of the wheel, and tells how long each took, in milliseconds.
FRAMES = """
const done = arguments[0], canvas = document.getElementById("canvas"), times = [];
let before = null, turns = 0;
function turn(now) {
  if (before !== null) times.push(now - before);
  before = now;
  if (turns++ === 60) return done(times);
  canvas.dispatchEvent(new WheelEvent("wheel", {deltaY: turns % 20 < 10 ? -60 : 60, clientX: 400, clientY: 300,
    bubbles: true, cancelable: true}));
  requestAnimationFrame(turn);
}
requestAnimationFrame(turn);
"""


def test_two_thousand_boxes_move(driver: Any, tmp_path: Path) -> None:
    """No time is asserted here: the figures go to docs/inspect.md."""
    made = Scene()
    members = [Member("op", f"operator {index}", "float32[B, 64]") for index in range(2000)]
    root = made.inner(Graph(members, [(i, j) for i in range(1999) for j in {i + 1, min(i + 7, 1999)}]))
    text = page(lpc.build(f"name: many\n{SPECS['digits']}run: {{steps: 1}}\n"))
    found = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    data = {**json.loads(found[1]), "scene": {"root": root, "graphs": made.graphs}}
    path = tmp_path / "many.html"
    path.write_text(text[: found.start(1)] + embedded(data) + text[found.end(1) :], encoding="utf-8")
    driver.get(path.as_uri())
    driver.set_script_timeout(120)
    assert total(driver) == 2000
    assert len(boxes(driver)) < 100  # what is out of sight is not drawn
    times = sorted(driver.execute_async_script(FRAMES))
    shot(driver, "many")
    print(f"frames of 2,000 boxes: median {times[len(times) // 2]:.1f} ms, 95 % {times[int(len(times) * 0.95)]:.1f} ms")
    driver.execute_script("document.getElementById('canvas').focus()")
    press(driver, "f")
    assert driver.get_log("browser") == []
