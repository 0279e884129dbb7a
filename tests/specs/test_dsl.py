"""Does the DSL say what YAML says? Every production by its example, every spec there and back."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from lpc.specs import LpcError, Spec, Term, check, expand, load_spec
from lpc.specs.dsl_parse import grammar
from lpc.specs.dsl_print import print_dsl
from lpc.specs.dsl_text import read_dsl
from lpc.specs.source import Source
from lpc.specs.tree import walk

from .test_round_trip import SPECS

ROOT = Path(__file__).resolve().parents[2]
GRAMMAR = files("lpc.specs").joinpath("grammar.lark").read_text("utf-8")
RULE = re.compile(r"^\??([a-z]\w*):", re.MULTILINE)
BLOCKS = re.findall(r"(?:^//: .*\n)+", GRAMMAR, re.MULTILINE)
EXAMPLES = ["".join(f"{line[4:]}\n" for line in block.splitlines()) for block in BLOCKS]
REST = "network zoo mlp args {widths: [4, 3]}\ndecompose blocks per_layer\nlearn []\n"


def load(text: str) -> Spec:
    return load_spec(Path("spec.lpc"), text=text)


def parts(example: str) -> set[str]:
    """Return the productions that an example uses."""
    tree = grammar().parse(f"\n{example}\n")
    return {str(part.data) for part in tree.iter_subtrees()}


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_grammar(example: str) -> None:
    given = set(re.findall(r"^\w+", example, re.MULTILINE))
    rest = "".join(f"{line}\n" for line in REST.splitlines() if line.split()[0] not in given)
    text = re.sub(r"^extends .*\n", "", example, flags=re.MULTILINE) + rest
    spec = load(text)
    assert load(print_dsl(spec)) == spec
    assert load_spec(expand(spec)) == spec


def test_every_production_has_an_example() -> None:
    used = set().union(*map(parts, EXAMPLES))
    aliases = set(re.findall(r"-> (\w+)$", GRAMMAR, re.MULTILINE))
    inlined = set(re.findall(r"^\?(\w+):", GRAMMAR, re.MULTILINE))
    assert (set(RULE.findall(GRAMMAR)) | aliases) - inlined <= used


WHOLE = """\
# A spec with everything that has a line of its own.
spec all
network
  input image: float32[1, 8, 8]
  input scale: [T]           # float32
  flatten >> dropout(0.1)
  fc1 = linear(256) >> relu
  stack = repeat(2)
    residual
      norm = layer_norm >> linear(256)
  branch(merge=add)
    path left
      a = relu
    path right
  out = linear(10, from=[a, fc1])
  init *.bias = zeros
data digits batch 64
  transforms [normalize(0.1, 0.2), flip]
field label: int64[]
loss cross_entropy
decompose at preactivation
  block low = fc1, stack.0, each("x.*")
  block * = layer[2-4], "0"
  link low->high = gradient
  link * = stop
learn *: head linear, loss [cross_entropy, mse(weight=0.5)], optimizer adam(lr=1e-3)
learn low, "two words"
  schedule {warmup: 5, then: cosine}
  clip none
learn params *.bias: weight_decay 0
learn low params *.weight: lr_factor 2
run epochs 20 seed 1 early_stop none precision none
"""

SAME = """\
name: all
network:
  inputs: {image: [1, 8, 8], scale: [T]}
  layers:
    - flatten
    - dropout(0.1)
    - fc1: linear(256)
    - relu
    - stack: {repeat(2): [{residual: [norm: layer_norm, linear(256)]}]}
    - branch(merge=add): {left: [a: relu], right: []}
    - out: linear(10, from=[a, fc1])
  init: {"*.bias": zeros}
data: {source: digits, batch: 64, transforms: [normalize(0.1, 0.2), flip]}
fields: {label: {shape: [], dtype: int64}}
loss: cross_entropy
decompose:
  at: preactivation
  blocks: {low: [fc1, stack.0, each("x.*")], "*": ["layer[2-4]", "0"]}
  links: {"low->high": gradient, "*": stop}
learn:
  - {blocks: "*", head: linear, loss: [cross_entropy, mse(weight=0.5)], optimizer: adam(lr=1e-3)}
  - {blocks: [low, two words], schedule: {warmup: 5, then: cosine}, clip: none}
  - {params: "*.bias", weight_decay: 0}
  - {blocks: low, params: "*.weight", lr_factor: 2}
run: {epochs: 20, seed: 1, early_stop: none, precision: none}
"""


def test_both_spellings_are_one_spec() -> None:
    assert load(WHOLE) == load_spec(SAME)


def test_printed_layout() -> None:
    text = print_dsl(load(WHOLE))
    for line in (
        "  flatten >> dropout(0.1)",
        "  stack = repeat(2)",
        '  block low = fc1, stack.0, each("x.*")',
        '  block * = layer[2-4], "0"',
        'learn low, "two words": schedule {warmup: 5, then: cosine}, clip none',
        "learn low params *.weight: lr_factor 2.0",
    ):
        assert line in text.splitlines()


SPEC_FILES = sorted(
    [*(ROOT / "tests" / "specs" / "samples").glob("*.yaml"), *(ROOT / "examples").rglob("*.yaml")]
)


@pytest.mark.parametrize("path", SPEC_FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_examples_and_samples_round_trip(path: Path, tmp_path: Path) -> None:
    """From YAML to the spec, to DSL in a file, to the spec, to YAML."""
    spec = load_spec(path)
    text = print_dsl(spec)
    (tmp_path / "spec.lpc").write_text(text)
    read = load_spec(tmp_path / "spec.lpc")
    check(read)
    assert read == spec
    assert expand(read) == expand(spec)
    assert print_dsl(read) == text


@given(SPECS)
@settings(max_examples=120, deadline=None)
def test_specs_round_trip(given_spec: dict[str, Any]) -> None:
    spec = load_spec(given_spec)
    text = print_dsl(spec)
    read = load(text)
    assert read == spec, text
    assert load_spec(expand(read)) == spec
    assert print_dsl(read) == text


@pytest.mark.parametrize(("base", "over"), [("yaml", "lpc"), ("lpc", "yaml"), ("lpc", "lpc")])
def test_spellings_extend_each_other(tmp_path: Path, base: str, over: str) -> None:
    bases = {"yaml": SAME, "lpc": WHOLE}
    overs = {
        "yaml": "extends: base.{}\ndecompose: {{links: gradient}}\nrun: {{seed: 7}}\n",
        "lpc": 'extends "base.{}"\ndecompose links gradient\nrun seed 7\n',
    }
    (tmp_path / f"base.{base}").write_text(bases[base])
    (tmp_path / f"over.{over}").write_text(overs[over].format(base))
    spec = load_spec(tmp_path / f"over.{over}")
    assert (spec.run.epochs, spec.run.seed) == (20, 7)
    assert spec.decompose.links == {"*": Term("gradient")}
    place = spec.origin("run", "epochs")
    assert place is not None
    assert place.source.name.endswith(f"base.{base}")


def test_overrides_reach_into_the_dsl() -> None:
    overrides = ["learn[0].optimizer.lr=0.5", "network.layers[2].fc1[0]=3"]
    spec = load_spec(Path("spec.lpc"), overrides, text=WHOLE)
    assert spec.learn[0].optimizer == Term("adam", (), {"lr": 0.5})
    assert spec.network.layers is not None
    assert spec.network.layers[2].op == Term("linear", (3,))


@pytest.mark.parametrize(
    ("path", "line", "written"),
    [
        (("name",), 2, "all"),
        (("network", "inputs", "image", "shape", 1), 4, "8"),
        (("network", "layers", 1), 6, "dropout(0.1)"),
        (("network", "layers", 4, "body", 0, "body", 0), 10, "norm = layer_norm >> linear(256)"),
        (("network", "layers", 4, "body", 0, "body", 1), 10, "linear(256)"),
        (("network", "layers", 6, "op", "from", 1), 15, "fc1"),
        (("decompose", "blocks", "low", 2), 22, 'each("x.*")'),
        (("decompose", "links", "low->high"), 24, "gradient"),
        (("learn", 0, "optimizer", "lr"), 26, "1e-3"),
        (("run", "seed"), 32, "1"),
    ],
)
def test_values_know_their_place(path: tuple[str | int, ...], line: int, written: str) -> None:
    span = load(WHOLE).origin(*path)
    assert span is not None
    assert (span.line, span.end_line) == (line, line)
    assert WHOLE.splitlines()[line - 1][span.column - 1 : span.end_column - 1] == written


def test_every_value_has_a_place() -> None:
    assert all(
        node.span for path, node in walk(read_dsl(Source("spec.lpc", WHOLE))) if path[-1:] != ("right",)
    )


def test_windows_line_ends_and_broken_brackets() -> None:
    assert load(WHOLE.replace("\n", "\r\n")) == load(WHOLE)
    assert load(WHOLE.replace("[a, fc1]", "[a, # here\nfc1\n  ]")) == load(WHOLE)


def test_an_empty_text_lacks_what_a_spec_needs() -> None:
    with pytest.raises(LpcError, match="lacks the key `network`"):
        load("# nothing\n")


@pytest.mark.parametrize("text", ["loss " + "[" * 10_000, "loss " + "[" * 40 + "]" * 40])
def test_nesting_is_bounded(text: str) -> None:
    with pytest.raises(LpcError, match="nested deeper"):
        load(text)


def test_bodies_nest_within_bounds() -> None:
    body = "".join(f"{' ' * (depth + 1)}residual\n" for depth in range(5_000))
    with pytest.raises(LpcError, match="nested deeper"):
        load(f"network\n{body}")


def test_what_was_read_before_changes_nothing() -> None:
    """The trees of unchanged statements are kept from one reading to the next; places are those of the new text."""
    longer = f"# one more line\n{WHOLE}"
    fresh = list(walk(read_dsl(Source("spec.lpc", WHOLE))))
    moved = list(walk(read_dsl(Source("spec.lpc", longer))))
    assert list(walk(read_dsl(Source("spec.lpc", WHOLE)))) == fresh
    assert [(path, node.value) for path, node in moved if isinstance(node.value, str)] == [
        (path, node.value) for path, node in fresh if isinstance(node.value, str)
    ]
    pairs = [(a.span, b.span) for (_, a), (_, b) in zip(fresh[1:], moved[1:], strict=True)]
    lines = [(a.line, b.line) for a, b in pairs if a and b]
    assert lines
    assert all(after == before + 1 for before, after in lines)
