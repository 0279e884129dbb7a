"""Is the word under the cursor explained: keys, terms, arguments, names, and values that are written elsewhere?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .samples import SAMPLES, with_cursor

# The text up to the cursor and from it on; what is said, among other things.
YAML: list[tuple[str, str, tuple[str, ...]]] = [
    ("epo", "chs: 1", ("**epochs**", "Passes over the training data")),
    ("dec", "ompose:", ("**decompose**", "the link on each boundary")),
    ("data: {sou", "rce: digits}", ("**source** (default `digits`)",)),
    ("hea", "d: linear,", ("**head**", "One of `identity`, `linear`")),
    ("head: lin", "ear, loss", ("`linear(bias=true, pool=none, norm=none",
     "- `bias` (`true` or `false`; default true): add a")),
    ("optimizer: ad", "am(lr=1e-3)", ("`adam(", "- `lr` (a number of at least 0; default 0.001)")),
    ("adam(l", "r=1e-3)", ("**lr** (a number of at least 0; default 0.001)", "torch.optim.Adam")),
    ("fc1: lin", "ear(16)", ("`linear(out, bias=true", "- `out` (a whole number of at least 1; required)")),
    ("fc1: linear(1", "6)", ("**out**", "output features")),
    ('"*": st', "op}", ("`stop`: no gradient crosses the boundary",)),
    ("blocks: b", "1, optimizer", ("`b1`: block of `fc1`",)),
    ('links: {"b', "1->head", ("`b1`: block of `fc1`",)),
    ('links: {"b1->he', "ad", ("`head`: block of `out`",)),
    ("blocks: {b", "1: fc1", ("`b1`: block of `fc1`",)),
    ("b1: fc", "1, head", ("`fc1`: layer `linear(16)`",)),
    ("source: dig", "its}", ("`digits`: scikit-learn's 8x8 digits",)),
]

DSL: list[tuple[str, str, tuple[str, ...]]] = [
    ("epo", "chs 1", ("**epochs**", "Passes over the training data")),
    ("dec", "ompose\n", ("**decompose**", "the link on each boundary")),
    ("sp", "ec sample", ("**name**", "Name of the spec")),
    ("  blo", "ck b1", ("**blocks**", "names with the modules in each")),
    ("data dig", "its", ("`digits`: scikit-learn's 8x8 digits",)),
    ("hea", "d linear,", ("**head**", "One of `identity`, `linear`")),
    ("head lin", "ear, loss", ("`linear(bias=true, pool=none, norm=none",
     "- `bias` (`true` or `false`; default true): add a")),
    ("optimizer ad", "am(lr=1e-3)", ("`adam(", "- `lr` (a number of at least 0; default 0.001)")),
    ("adam(l", "r=1e-3)", ("**lr** (a number of at least 0; default 0.001)", "torch.optim.Adam")),
    ("fc1 = lin", "ear(16)", ("`linear(out, bias=true", "- `out` (a whole number of at least 1; required)")),
    ("fc1 = linear(1", "6)", ("**out**", "output features")),
    ("link * = st", "op", ("`stop`: no gradient crosses the boundary",)),
    ("learn b", "1: optimizer", ("`b1`: block of `fc1`",)),
    ("link b", "1->head", ("`b1`: block of `fc1`",)),
    ("link b1->he", "ad", ("`head`: block of `out`",)),
    ("block b", "1 = fc1", ("`b1`: block of `fc1`",)),
    ("b1 = fc", "1\n", ("`fc1`: layer `linear(16)`",)),
]


@pytest.mark.parametrize(
    ("spelling", "before", "after", "said"),
    [("yaml", *case) for case in YAML] + [("lpc", *case) for case in DSL],
)
def test_words_are_explained(
    editor: Any, tmp_path: Path, spelling: str, before: str, after: str, said: tuple[str, ...]
) -> None:
    text = editor.explained(tmp_path / f"spec.{spelling}", with_cursor(spelling, before, after))
    assert all(part in text for part in said), text


@pytest.mark.parametrize("spelling", SAMPLES)
def test_a_pattern_means_blocks_but_not_pages_of_them(editor: Any, tmp_path: Path, spelling: str) -> None:
    pattern = {"yaml": ('{blocks: "', '*", head'), "lpc": ("learn *", ": head")}[spelling]
    path, marked = tmp_path / f"spec.{spelling}", with_cursor(spelling, *pattern)
    assert editor.explained(path, marked) == "`b1`: block of `fc1`\n\n`head`: block of `out`"
    named, rule = {
        "yaml": ("{b1: fc1, head: out}", "balanced(40)"),
        "lpc": ("  block head = out\n", "  blocks balanced(40)\n"),
    }[spelling]
    text = editor.explained(path, marked.replace("  block b1 = fc1\n", "").replace(named, rule))
    assert text.count("block by `balanced(40)`") == 12
    assert text.endswith("and 28 more")


@pytest.mark.parametrize("spelling", SAMPLES)
def test_a_broken_text_is_explained_too(editor: Any, tmp_path: Path, spelling: str) -> None:
    path = tmp_path / f"spec.{spelling}"
    editor.write(path, SAMPLES[spelling])
    broken = {
        "yaml": with_cursor("yaml", "blocks: b", "1, optimizer").replace("sgd(lr=0.1)}", "sgd(lr=0.1"),
        "lpc": with_cursor("lpc", "learn b", "1: optimizer").replace("sgd(lr=0.1)", "sgd(lr=0.1"),
    }[spelling]
    assert "`b1`: block of `fc1`" in editor.explained(path, broken)


@pytest.mark.parametrize("spelling", SAMPLES)
@pytest.mark.parametrize("base", SAMPLES)
def test_values_of_the_extended_spec_say_where_they_are(
    editor: Any, tmp_path: Path, spelling: str, base: str
) -> None:
    (tmp_path / f"base.{base}").write_text(SAMPLES[base])
    path = tmp_path / f"spec.{spelling}"
    begun = {
        "yaml": f"ext§ends: base.{base}\nrun: {{seed: 3}}\nlearn: [{{blocks: b1, optimizer: adam}}]\n",
        "lpc": f'ext§ends "base.{base}"\nrun seed 3\nlearn b1: optimizer adam\n',
    }[spelling]
    text = editor.explained(path, begun)
    assert "- `data.source: digits" in text
    assert f"base.{base}:" in text
    assert "run.seed" not in text
    plain = begun.replace("§", "")
    run = editor.explained(path, plain.replace("run", "r§un"))
    assert f"- `run.epochs: 1` from {tmp_path / f'base.{base}'}:" in run
    block = editor.explained(path, plain.replace("b1", "b§1"))
    assert f"`b1`: block of `fc1`, from {tmp_path / f'base.{base}'}:" in block


@pytest.mark.parametrize("spelling", SAMPLES)
def test_values_of_a_recipe_say_so(editor: Any, tmp_path: Path, spelling: str) -> None:
    begun = {"yaml": "recipe: gre§edy(head=mlp)\n", "lpc": "recipe gre§edy(head=mlp)\n"}[spelling]
    text = editor.explained(tmp_path / f"spec.{spelling}", begun)
    assert "every block learns from its own head and loss" in text
    assert "- `head` (a value; default linear): the head on each block's output" in text
    assert "- `decompose.links: {\"*\": stop()}` from recipe greedy:" in text
