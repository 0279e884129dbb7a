"""Does a name lead to where it is given: blocks, layers, extended files, recipes?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .samples import SAMPLES, with_cursor

YAML: list[tuple[str, str, list[str]]] = [
    ("blocks: b", "1, optimizer", ["b1"]),
    ('- {blocks: "', '*", head', ["b1", "head"]),
    ('links: {"b', "1->head", ["b1"]),
    ('links: {"b1->he', "ad", ["head"]),
    ("b1: fc", "1, head", ["fc1: linear(16)"]),
    ("epo", "chs", []),
]
DSL: list[tuple[str, str, list[str]]] = [
    ("learn b", "1: optimizer", ["b1"]),
    ("learn *", ": head", ["b1", "head"]),
    ("link b", "1->head", ["b1"]),
    ("link b1->he", "ad", ["head"]),
    ("block b1 = fc", "1", ["fc1 = linear(16)"]),
    ("epo", "chs", []),
]


@pytest.mark.parametrize(
    ("spelling", "before", "after", "wanted"),
    [("yaml", *case) for case in YAML] + [("lpc", *case) for case in DSL],
)
def test_names_lead_to_where_they_are_given(
    editor: Any, tmp_path: Path, spelling: str, before: str, after: str, wanted: list[str]
) -> None:
    path = tmp_path / f"spec.{spelling}"
    found = editor.led(path, with_cursor(spelling, before, after))
    assert found == [(path.name, text) for text in wanted]


@pytest.mark.parametrize("spelling", SAMPLES)
def test_blocks_by_a_rule_are_layers(editor: Any, tmp_path: Path, spelling: str) -> None:
    text = {
        "yaml": SAMPLES["yaml"].replace("{b1: fc1, head: out}", "per_layer").replace("blocks: b1", "blocks: fc§1"),
        "lpc": SAMPLES["lpc"]
        .replace("  block b1 = fc1\n  block head = out\n", "  blocks per_layer\n")
        .replace("learn b1", "learn fc§1"),
    }[spelling]
    path = tmp_path / f"spec.{spelling}"
    sign = {"yaml": "fc1: linear(16)", "lpc": "fc1 = linear(16)"}[spelling]
    assert editor.led(path, text) == [(path.name, sign)]


@pytest.mark.parametrize("spelling", SAMPLES)
def test_unnamed_and_inner_layers(editor: Any, tmp_path: Path, spelling: str) -> None:
    text = {
        "yaml": SAMPLES["yaml"].replace("b1: fc1", "b1: re§lu1"),
        "lpc": SAMPLES["lpc"].replace("b1 = fc1", "b1 = re§lu1"),
    }[spelling]
    path = tmp_path / f"spec.{spelling}"
    assert editor.led(path, text) == [(path.name, "relu")]
    inner = text.replace("re§lu1", "sta§ck.0.linear1")
    inner = {
        "yaml": inner.replace("- relu", "- stack: {repeat(2): [linear(16)]}"),
        "lpc": inner.replace("  relu\n", "  stack = repeat(2)\n    linear(16)\n"),
    }[spelling]
    ((_, found),) = editor.led(path, inner)
    assert found.startswith("stack")


@pytest.mark.parametrize("spelling", SAMPLES)
@pytest.mark.parametrize("base", SAMPLES)
def test_extends_leads_to_the_file_and_blocks_into_it(
    editor: Any, tmp_path: Path, spelling: str, base: str
) -> None:
    (tmp_path / f"base.{base}").write_text(SAMPLES[base])
    path = tmp_path / f"spec.{spelling}"
    text = {
        "yaml": f"extends: base.{base}\nlearn: [{{blocks: b1, optimizer: adam}}]\n",
        "lpc": f'extends "base.{base}"\nlearn b1: optimizer adam\n',
    }[spelling]
    for marked in (text.replace("base", "ba§se"), text.replace(f".{base}", f".{base}§", 1)):
        ((file, _),) = editor.led(path, marked)
        assert file == f"base.{base}"
    assert editor.led(path, text.replace("b1", "b§1")) == [(f"base.{base}", "b1")]


@pytest.mark.parametrize("spelling", SAMPLES)
def test_recipes_of_ones_own_lead_to_their_files(editor: Any, tmp_path: Path, spelling: str) -> None:
    (tmp_path / "ours.yaml").write_text("recipe: ours\ntemplate: {}\n")
    path = tmp_path / f"spec.{spelling}"
    text = {"yaml": "recipes: {ours: ours.yaml}\nrecipe: ou§rs\n", "lpc": 'recipes ours "ours.yaml"\nrecipe ou§rs\n'}
    ((file, _),) = editor.led(path, text[spelling])
    assert file == "ours.yaml"


@pytest.mark.parametrize("spelling", SAMPLES)
def test_a_wired_layer_leads_to_the_layers_it_reads(editor: Any, tmp_path: Path, spelling: str) -> None:
    text = {
        "yaml": SAMPLES["yaml"].replace("- relu", "- both: add(from=[fc§1, image])"),
        "lpc": SAMPLES["lpc"].replace("  relu\n", "  both = add(from=[fc§1, image])\n"),
    }[spelling]
    path = tmp_path / f"spec.{spelling}"
    sign = {"yaml": "fc1: linear(16)", "lpc": "fc1 = linear(16)"}[spelling]
    assert editor.led(path, text) == [(path.name, sign)]
