"""Do the views of a partition hold what the graph holds? GraphML, DOT, JSON and SVG, without torch."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

import networkx as nx
import pytest

from lpc.graphs import from_data, from_json, to_dot, to_graphml, to_json, to_svg
from lpc.layout import layered
from lpc.specs.term import Term


@pytest.fixture
def graph() -> nx.DiGraph[str]:
    """Three blocks, a skip over the middle one, and a name that every format must escape."""
    made: nx.DiGraph[str] = nx.DiGraph(
        rung="modules", inputs=("image",), output="fc", output_block="c", hint_batch=4
    )
    for index, name in enumerate(['a<"1">', "b", "c"]):
        made.add_node(
            name,
            index=index,
            modules=(f"layer{index}",),
            nodes={"train": (f"n{index}",), "eval": (f"n{index}",)},
            parameters=(f"layer{index}.weight",),
            borrowed=(),
            num_parameters=1000,
            buffers=(),
            reads=("image",) if index == 0 else (),
            flops=2_000_000,
            activation_bytes=4096,
        )
    tensor = {"name": "n0", "shape": [64, "T"], "dtype": "float32", "bytes": 256}
    made.add_edge('a<"1">', "b", link=Term("stop"), tensors=(tensor,))
    made.add_edge('a<"1">', "c", link=Term("gradient", (), {"reach": 2}), tensors=(tensor,) * 5)
    made.add_edge("b", "c", link=Term("gradient"), tensors=(tensor,))
    return made


def test_json_comes_back(graph: nx.DiGraph[str]) -> None:
    text = to_json(graph)
    again = from_json(text)
    assert to_json(again) == text
    assert list(again) == list(graph)
    assert again.edges['a<"1">', "c"]["link"] == "gradient(reach=2)"
    assert again.graph["inputs"] == ["image"]
    assert isinstance(from_data({"nodes": [], "edges": [], "graph": {}, "directed": True}), nx.DiGraph)


def test_graphml_is_read_by_networkx(graph: nx.DiGraph[str]) -> None:
    again = nx.parse_graphml(to_graphml(graph))
    assert set(again.edges) == set(graph.edges)
    assert again.nodes["b"]["flops"] == 2_000_000
    assert again.edges["b", "c"]["link"] == "gradient"
    assert again.graph["hint_batch"] == 4


def test_dot_quotes_names_and_dashes_stops(graph: nx.DiGraph[str]) -> None:
    lines = to_dot(graph).splitlines()
    assert lines[0] == "digraph partition {"
    [stop] = [line for line in lines if "dashed" in line]
    assert stop.startswith(r'  "a<\"1\">" -> "b" ')
    assert len([line for line in lines if "style=solid" in line]) == 2


def test_svg_shows_blocks_links_and_what_crosses(graph: nx.DiGraph[str]) -> None:
    for form in (graph, from_json(to_json(graph))):
        root = ElementTree.fromstring(to_svg(form))
        texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert {'a<"1">', "b", "c", "image", "output", "1.00 k parameters", "gradient(reach=2)"} <= set(texts)
        assert "n0 64×T · 256 B" in texts
        assert "and 2 more" in texts
        arrows = [p.get("class") for p in root.iter("{http://www.w3.org/2000/svg}path")]
        assert arrows.count("arrow stop") == 2  # one boundary and the legend
        assert arrows.count("arrow") == 3
        boxes = [r.get("class") for r in root.iter("{http://www.w3.org/2000/svg}rect")]
        assert boxes.count("block") == 3


@pytest.mark.parametrize("library", ["igraph", "none"])
def test_boxes_and_labels_do_not_overlap(
    graph: nx.DiGraph[str], library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library == "none":
        monkeypatch.setitem(sys.modules, "igraph", None)
    layout = layered(graph, dict.fromkeys(graph, (120.0, 60.0)), dict.fromkeys(graph.edges, (90.0, 14.0)))
    cells = [*layout.boxes.values(), *(c for chain in layout.chains.values() for c in chain)]
    for one in cells:
        assert one.x - one.left >= -1e-6
        assert one.x + one.right <= layout.width + 1e-6
        for other in cells:
            apart = (
                one.x + one.right <= other.x - other.left + 1e-6
                or other.x + other.right <= one.x - one.left + 1e-6
            )
            assert one is other or one.rank != other.rank or apart


def test_views_need_no_torch() -> None:
    check = "import lpc.graphs, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
