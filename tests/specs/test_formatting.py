"""Is a spec laid out without losing a word or a comment, in either spelling?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from lpc.specs import LpcError, expand, load_spec
from lpc.specs.dsl_print import print_dsl
from lpc.specs.formatting import Spelling, format_spec

from .test_round_trip import SPECS

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*(ROOT / "tests" / "specs" / "samples").glob("*.yaml"), *(ROOT / "examples").rglob("*.yaml")])
NAMES: dict[Spelling, str] = {"yaml": "spec.yaml", "dsl": "spec.lpc"}

MESSY = """\
# The head.
run: {seed: 0,   epochs: 2}   # how long


learn:
    # The first entry.
    - {optimizer: "adam( lr=1e-3 )", blocks: ["*"], loss: mse}   # everything

    - params: "*.bias"
      weight_decay: 0   # no decay
# Two layers.
network:
    layers: [flatten, 'fc1': {linear: {out: 16}}, relu,
      # the last one
      out: linear(10)]   # ten classes
    inputs: {image: [1, 8, 8]}
data:
    source: npz("a # b.npz")
    root: 'x # y'
loss: [mse]
decompose: {links: stop, blocks: per_layer}
# The end.
"""

TIDY = """\
# Two layers.
network:
  inputs: {image: [1, 8, 8]}
  layers:
    - flatten
    - fc1: linear(out=16)
    - relu
    # the last one
    - out: linear(10)  # ten classes
data: {source: npz("a # b.npz"), root: "x # y"}
loss: mse
decompose: {blocks: per_layer, links: stop}

learn:
  # The first entry.
  - {blocks: "*", loss: mse, optimizer: adam(lr=0.001)}  # everything

  - params: "*.bias"
    weight_decay: 0  # no decay
# The head.
run: {epochs: 2, seed: 0}  # how long
# The end.
"""


def comments(text: str) -> list[str]:
    return sorted(
        line[line.index("# ") :]
        for line in text.splitlines()
        if "# " in line.replace("a # b", "").replace("x # y", "")
    )


def test_layout_of_yaml() -> None:
    assert format_spec(Path("spec.yaml"), MESSY) == TIDY
    assert load_spec(TIDY) == load_spec(MESSY)


def test_comments_go_into_the_other_spelling_and_back() -> None:
    dsl = format_spec(Path("spec.yaml"), MESSY, "dsl")
    assert "  # the last one\n  out = linear(10)  # ten classes\n" in dsl
    assert "learn params *.bias: weight_decay 0  # no decay\n" in dsl
    back = format_spec(Path("spec.lpc"), dsl, "yaml")
    for text in (
        "# The head.",
        "# how long",
        "# The first entry.",
        "# everything",
        "# Two layers.",
        "# The end.",
    ):
        assert text in dsl
        assert text in back


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
@pytest.mark.parametrize("to", ["yaml", "dsl"])
def test_formatting_is_idempotent_and_keeps_comments(path: Path, to: Spelling) -> None:
    text = path.read_text()
    done = format_spec(path, text, to)
    other = path.with_name(NAMES[to])
    assert format_spec(other, done) == done
    assert load_spec(other, text=done) == load_spec(path)
    for line in text.splitlines():
        assert "#" not in line or line[line.index("#") :] in done


@given(SPECS)
@settings(max_examples=20, deadline=None)
def test_any_spec_is_formatted(given_spec: dict[str, Any]) -> None:
    spec = load_spec(given_spec)
    for text, name in ((expand(spec), "spec.yaml"), (print_dsl(spec), "spec.lpc")):
        done = format_spec(Path(name), text)
        assert load_spec(Path(name), text=done) == spec
        assert format_spec(Path(name), done) == done
        for to, other in NAMES.items():
            assert load_spec(Path(other), text=format_spec(Path(name), text, to)) == spec


def test_what_a_spec_extends_stays_there(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(TIDY)
    text = 'run seed 3\nextends "base.yaml"\ndecompose links gradient\n'
    done = format_spec(tmp_path / "over.lpc", text)
    assert done == "extends base.yaml\ndecompose links gradient\nrun seed 3\n"
    assert format_spec(tmp_path / "over.lpc", text, "yaml") == (
        "extends: base.yaml\ndecompose: {links: gradient}\nrun: {seed: 3}\n"
    )


def test_recipes_are_terms(tmp_path: Path) -> None:
    text = "recipe: {greedy: {}}\nnetwork: {zoo: mlp, args: {widths: [4, 3]}}\nloss: mse\n"
    dsl = format_spec(tmp_path / "a.yaml", text, "dsl")
    assert dsl.startswith("recipe greedy")
    assert load_spec(tmp_path / "a.lpc", text=dsl) == load_spec(text)


def test_a_spec_that_cannot_be_read_is_not_formatted() -> None:
    with pytest.raises(LpcError, match="has no key `netwrok`"):
        format_spec(Path("spec.yaml"), TIDY.replace("network:", "netwrok:"))
