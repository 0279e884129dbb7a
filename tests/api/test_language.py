"""Do explain, fix, init with a recipe and check's JSON do what their help says?"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import lpc as api
from lpc.specs.codes import CODES
from lpc.specs.fixing import applied
from lpc.specs.recipes.recipe import SHIPPED

Command = Callable[..., Any]
STARTER = files("lpc").joinpath("starter.yaml").read_text()

MISSPELT = {
    "a key": ("learn:", "lern:"),
    "a key of a section": ("epochs:", "epchs:"),
    "a quoted key": ("name:", '"naem":'),
    "a name": ("- relu", "- rleu"),
    "a name with arguments": ("adam(lr", "adm(lr"),
    "an argument": ("adam(lr=", "adam(lrr="),
    "a quoted name": ("loss: cross_entropy\n\n", 'loss: "cross_entropi"\n\n'),
    "a link": ("links: stop", "links: stpo"),
    "a block rule": ("per_layer", "per_leyer"),
    "a choice": ("run: {epochs", "run: {target: portabel, epochs"),
}


@pytest.mark.parametrize("case", MISSPELT)
def test_fix_mends_a_misspelt_word_and_nothing_else(lpc: Command, tmp_path: Path, case: str) -> None:
    right, wrong = MISSPELT[case]
    path = tmp_path / "spec.yaml"
    path.write_text(STARTER.replace(right, wrong, 1))
    assert lpc("check", path).code == 2
    mended = lpc("fix", path)
    assert mended.code == 0, mended.err
    assert [line[:1] for line in mended.out.splitlines()[3:] if line[:1] in "+-"] == ["-", "+"]
    assert lpc("check", path).code == 0
    after = path.read_text()
    unquoted = after.replace('"name"', "name").replace('"cross_entropy"', "cross_entropy")
    assert unquoted.replace("target: portable, ", "") == STARTER
    assert lpc("fix", path).out == f"{path}: nothing to mend\n"
    assert path.read_text() == after


def test_fix_mends_in_rounds_and_tells_what_is_left(lpc: Command, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(STARTER.replace("epochs:", "epchs:").replace("adam(", "adm(").replace("seed: 0", "seed: x"))
    left = lpc("fix", path)
    assert left.code == 2
    assert left.err.count("error[") == 1
    assert "`run.seed` is the text `x`" in left.err
    assert "epochs: 20" in path.read_text()
    path.write_text(path.read_text().replace("seed: x", "seed: 0"))
    assert lpc("fix", path).code == 0
    assert "adam(" in path.read_text()


def test_fix_can_only_show(lpc: Command, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(STARTER.replace("learn:", "lern:"))
    shown = lpc("fix", path, "--dry-run")
    assert "-lern:\n+learn:\n" in shown.out
    assert "lern:" in path.read_text()


def test_fix_leaves_other_files_alone(lpc: Command, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(STARTER.replace("learn:", "lern:"))
    path = tmp_path / "spec.yaml"
    path.write_text("extends: base.yaml\nname: over\n")
    left = lpc("fix", path)
    assert left.code == 2
    assert "this file is extended at " in left.err
    assert "lern:" in (tmp_path / "base.yaml").read_text()


def test_no_fix_is_no_change() -> None:
    assert applied("a\n", []) == "a\n"


def test_check_tells_programs(lpc: Command, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(STARTER.replace("- relu", "- rleu", 1))
    refused = lpc("check", path, "--format", "json")
    assert refused.code == 2
    assert refused.err == ""
    told = json.loads(refused.out)
    assert not told["ok"]
    (problem,) = told["diagnostics"]
    assert problem["code"] == "LPC0120"
    assert problem["span"]["file"] == str(path)
    assert problem["fix"]["replacement"] == "relu"
    line = path.read_text().splitlines()[problem["fix"]["span"]["line"] - 1]
    assert line[problem["fix"]["span"]["column"] - 1 : problem["fix"]["span"]["end_column"] - 1] == "rleu"
    path.write_text(STARTER)
    assert json.loads(lpc("check", path, "--format", "json").out) == {"ok": True, "name": "starter", "diagnostics": []}


def test_where_a_value_came_from_is_told(lpc: Command, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(STARTER)
    assert "note: this was given by `--set`" in lpc("check", path, "--set", "run.epochs=x").err
    quiet = STARTER.replace("  links: stop\n", "").replace("per_layer", "{a: fc1, b: fc2, c: out}")
    path.write_text(quiet.replace("    head: linear            # a local classifier on the block's output\n", "")
                    .replace("    loss: cross_entropy\n", ""))  # fmt: skip
    assert "note: `decompose.links` is not written; by default it is `stop`" in lpc("check", path).err


def test_other_places_of_a_problem_are_shown(lpc: Command, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(STARTER.replace("fc2: linear", "fc1: linear"))
    told = lpc("check", path).err
    line = STARTER[: STARTER.index("fc1: linear")].count("\n") + 1
    assert f"::: {path}:{line}:7: the first of them" in told


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_is_explained(lpc: Command, code: str) -> None:
    explained = lpc("explain", f"LPC{code}")
    assert explained.code == 0
    assert CODES[code].title in explained.out
    assert CODES[code].help in explained.out
    assert ("wrong:" in explained.out) or not code.startswith("01") or code == "0108"


def test_a_code_that_does_not_exist(lpc: Command) -> None:
    assert lpc("explain", "120").out == lpc("explain", "lpc0120").out
    refused = lpc("explain", "LPC9999")
    assert refused.code == 2
    assert "LPC0706" in refused.err


@pytest.mark.parametrize("name", SHIPPED)
def test_init_with_a_recipe(lpc: Command, tmp_path: Path, name: str) -> None:
    assert lpc("init", "--recipe", name).code == 0
    assert lpc("check", "spec.yaml").out == f"spec.yaml: `starter_{name}` is well formed\n"
    text = (tmp_path / "spec.yaml").read_text()
    assert f"  {name}:\n" in text
    assert "# the optimizer of each block" in text
    assert "recipe" not in lpc("expand", "spec.yaml").out
    assert api.check(lpc("expand", "spec.yaml").out) == api.check(tmp_path / "spec.yaml")


def test_init_lists_recipes(lpc: Command, tmp_path: Path) -> None:
    for told in (lpc("init", "--recipes").out, lpc("init").out):
        assert all(f"  {name} " in told for name in SHIPPED)
    refused = lpc("init", "other.yaml", "--recipe", "gredy")
    assert refused.code == 2
    assert "did you mean `greedy`?" in refused.err
    assert not (tmp_path / "other.yaml").exists()


def test_schema_is_json_that_names_the_sections(lpc: Command) -> None:
    schema = json.loads(lpc("schema").out)
    assert {"network", "decompose", "learn", "recipe"} <= set(schema["properties"])
