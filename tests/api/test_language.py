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
from lpc.specs.formatting import format_spec
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


# The same in the DSL, which has words of its own at the start of statements.
MISSPELT_DSL = {
    "a statement": ("learn *:", "lern *:"),
    "a statement with a body": ("network\n", "netwrok\n"),
    "a section": ("\ndecompose\n", "\ndecompos\n"),
    "a section on one line": ("\nrun epochs", "\nrn epochs"),
    "the source's section": ("data digits", "dta digits"),
    "an input": ("  input image", "  inptu image"),
    "the name's key": ("\nspec starter", "\nspce starter"),
    "a key": ("\nloss cross", "\nlss cross"),
    "a key of a section": (" epochs ", " epchs "),
    "a key in a body": ("  blocks per_layer", "  blcks per_layer"),
    "a key of an entry": (" head linear", " haed linear"),
    "a name": (">> relu", ">> rleu"),
    "a name with arguments": ("adam(lr", "adm(lr"),
    "an argument": ("adam(lr=", "adam(lrr="),
    "a loss": ("loss cross_entropy\n", "loss cross_entropi\n"),
    "a link": ("links stop", "links stpo"),
    "a block rule": (" per_layer", " per_leyer"),
    "a source": ("data digits", "data digts"),
    "a choice": ("run epochs", "run target portabel epochs"),
}


@pytest.mark.parametrize("case", MISSPELT_DSL)
def test_fix_mends_the_dsl_too(lpc: Command, tmp_path: Path, case: str) -> None:
    right, wrong = MISSPELT_DSL[case]
    whole = format_spec(tmp_path / "spec.yaml", STARTER, "dsl")
    assert right in whole
    path = tmp_path / "spec.lpc"
    path.write_text(whole.replace(right, wrong, 1))
    assert lpc("check", path).code == 2
    mended = lpc("fix", path)
    assert mended.code == 0, mended.err
    assert [line[:1] for line in mended.out.splitlines()[3:] if line[:1] in "+-"] == ["-", "+"]
    assert path.read_text().replace("target portable ", "") == whole
    assert lpc("fix", path).out == f"{path}: nothing to mend\n"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("block head", "blok head"), ("link a->b", "lnik a->b"), ("link a->b", "link a->bb"), ("link a->b", "link aa->b"),
     ("add(from=[fc1, fc2])", "add(from=[fc1, fc22])"), ("field extra: int64", "feld extra: int64"),
     ("init *.bias", "int *.bias")],
)  # fmt: skip
def test_fix_mends_blocks_links_and_wires(lpc: Command, tmp_path: Path, right: str, wrong: str) -> None:
    whole = (
        "network\n  input image: [1, 8, 8]\n  init *.bias = zeros\n  flatten\n  fc1 = linear(8)\n  fc2 = linear(8)\n"
        "  both = add(from=[fc1, fc2])\n  out = linear(10)\nfield extra: int64[]\nloss cross_entropy\ndecompose\n"
        "  block a = fc1\n  block b = fc2, both\n  block head = out\n  link a->b = gradient\n  link * = stop\n"
        "learn *: loss cross_entropy, optimizer adam\ndata digits\nrun epochs 1\n"
    )
    path = tmp_path / "spec.lpc"
    path.write_text(whole)
    assert lpc("check", path).code == 0
    path.write_text(whole.replace(right, wrong, 1))
    assert path.read_text() != whole
    assert lpc("fix", path).code == 0
    assert path.read_text() == whole


def test_a_link_is_mended_in_yaml_too(lpc: Command, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    text = STARTER.replace("blocks: per_layer", "blocks: {a: fc1, b: fc2, c: out}")
    text = text.replace("links: stop", 'links: {"a->b": stop, "*": stop}')
    path.write_text(text.replace("a->b", "a->bb"))
    assert lpc("fix", path).code == 0
    assert path.read_text() == text


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


BY_FORMULAS = ("admm", "bcd")  # nothing of theirs is stepped by an optimizer


@pytest.mark.parametrize("name", SHIPPED)
def test_init_with_a_recipe(lpc: Command, tmp_path: Path, name: str) -> None:
    assert lpc("init", "--recipe", name).code == 0
    assert lpc("check", "spec.yaml").out == f"spec.yaml: `starter_{name}` is well formed\n"
    text = (tmp_path / "spec.yaml").read_text()
    assert f"  {name}:\n" in text
    assert ("# the optimizer " in text) == (name not in BY_FORMULAS)
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
