"""Is what can be written offered, and nothing else, wherever the cursor stands?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .samples import SAMPLES, without

# What the text ends with; what is offered there, among others; what is not.
YAML: list[tuple[str, str, str]] = [
    ("§", "network learn decompose run extends recipe", "epochs fc1"),
    ("le§", "learn", "linear"),
    ("run:\n  §", "epochs steps seed", "network"),
    ("run: {epochs: 1, §", "steps seed", "epochs network"),
    ("run:\n  target: §", "auto cpu cuda portable", "seed"),
    ("run:\n  metrics: [accuracy, §", "top5 perplexity", "seed"),
    ("run:\n  log: §", "every none", "cosine"),
    ("network:\n  inputs: {image: {shape: [4], dtype: §", "float32 int64", "seed"),
    ("network:\n  layers:\n    - §", "linear conv relu residual repeat branch", "adam seed"),
    ("network:\n  layers:\n    - fc1: §", "linear conv relu", "adam"),
    ("network:\n  layers:\n    - repeat(3):\n        - residual: [§", "linear relu", "adam"),
    ("network:\n  layers: [flatten, fc1: linear(§", "out bias from", "lr linear"),
    ("network:\n  layers: [flatten, fc1: linear(16, bias=§", "true false", "lr out"),
    ("network:\n  zoo: §", "mlp lenet5 resnet18", "linear"),
    ("data:\n  source: §", "digits mnist", "flip"),
    ("data:\n  transforms: [flatten, §", "normalize flip", "mnist"),
    ("loss: §", "cross_entropy mse none", "adam"),
    ("loss:\n  - cross_entropy(§", "label_smoothing weight", "lr"),
    ("decompose:\n  blocks: §", "per_layer each balanced", "stop"),
    ("decompose:\n  blocks: balanced(4, by=§", "params flops memory", "stop"),
    ("decompose:\n  links: §", "stop gradient", "adam"),
    ('decompose:\n  links:\n    "*": §', "stop gradient", "adam"),
    ("learn:\n  - §", "blocks params head optimizer", "network stop"),
    ('learn:\n  - blocks: "*"\n    §', "head loss optimizer", "blocks seed"),
    ('learn:\n  - {blocks: "*",\n     head: §', "linear mlp identity", "adam"),
    ("learn:\n  - optimizer: §", "adam sgd muon", "linear"),
    ("learn:\n  - optimizer: sgd(lr=0.1, §", "momentum nesterov", "lr betas"),
    ("learn:\n  - optimizer: {sgd: {§", "lr momentum", "betas"),
    ("learn:\n  - schedule: {warmup: 1, then: §", "cosine linear", "adam"),
    ("recipe: §", "greedy backprop deep_supervision", "adam"),
    ("recipe: greedy(§", "blocks head optimizer", "lr"),
    ("recipe: greedy(optimizer=§", "adam sgd", "mlp"),
    ("recipe: greedy(optimizer=sgd(§", "lr momentum", "blocks"),
    ("recipe: greedy(blocks=§", "per_layer balanced", "adam"),
    ("name: x  # a comment §", "", "network"),
]

DSL: list[tuple[str, str, str]] = [
    ("§", "spec network learn decompose run field extends recipe", "epochs name fields fc1"),
    ("le§", "learn", "linear"),
    ("run §", "epochs steps seed", "network"),
    ("run epochs 1, §", "steps seed", "epochs network"),
    ("run\n  target §", "auto cpu cuda portable", "seed"),
    ("run metrics [accuracy, §", "top5 perplexity", "seed"),
    ("run\n  log §", "every none", "cosine"),
    ("network\n  input image: §", "float32 int64", "seed"),
    ("network\n  §", "input init zoo module linear relu residual", "adam layers inputs"),
    ("network\n  fc1 = §", "linear conv relu", "adam zoo"),
    ("network\n  stack = repeat(3)\n    residual\n      §", "linear relu", "adam zoo"),
    ("network\n  fc1 = linear(16) >> §", "relu linear", "adam zoo"),
    ("network\n  fc1 = linear(§", "out bias from", "lr linear"),
    ("network\n  fc1 = linear(16, bias=§", "true false", "lr out"),
    ("network\n  init *.weight = §", "zeros kaiming_normal", "adam"),
    ("network zoo §", "mlp lenet5 resnet18", "linear"),
    ("network zoo mlp\n  args {§", "", "adam"),
    ("data §", "digits mnist", "flip batch"),
    ("data digits §", "batch transforms", "mnist source"),
    ("data digits transforms [flatten, §", "normalize flip", "mnist"),
    ("loss §", "cross_entropy mse none", "adam"),
    ("loss [cross_entropy(§", "label_smoothing weight", "lr"),
    ("field label: §", "int64 float32", "adam"),
    ("decompose §", "blocks at links shared", "stop"),
    ("decompose\n  §", "block link at shared", "stop"),
    ("decompose blocks §", "per_layer each balanced", "stop"),
    ("decompose blocks balanced(4, by=§", "params flops memory", "stop"),
    ("decompose\n  link b1->head = §", "stop gradient", "adam"),
    ("learn *: §", "head loss optimizer", "blocks seed"),
    ("learn *: head §", "linear mlp identity", "adam"),
    ("learn *\n  head linear\n  optimizer §", "adam sgd muon", "linear"),
    ("learn *: optimizer sgd(lr=0.1, §", "momentum nesterov", "lr betas"),
    ("learn *: schedule {warmup: 1, then: §", "cosine linear", "adam"),
    ("recipe §", "greedy backprop deep_supervision", "adam"),
    ("recipe greedy(§", "blocks head optimizer", "lr"),
    ("recipe greedy(optimizer=sgd(§", "lr momentum", "blocks"),
    ("spec x  # a comment §", "", "network"),
]

# The same where names of the spec are offered; its other sections stand before.
NAMED: list[tuple[str, str, str, str]] = [
    ("yaml", "network:\n  layers: [a: relu, b: relu, c: add(from=[§", "fc1 out image", "linear"),
    ("yaml", "decompose:\n  blocks:\n    b1: §", "fc1 out flatten1 relu1", "b1 stop"),
    ("yaml", 'decompose:\n  links: {"b1->§', "b1 head", "adam"),
    ("yaml", 'learn:\n  - blocks: "§', "b1 head", "adam fc1"),
    ("yaml", "learn:\n- blocks: [b1, §", "b1 head", "adam"),
    ("yaml", "learn:\n  blocks: §", "b1 head", "adam"),
    ("lpc", "network\n  c = add(from=[§", "fc1 out image", "linear"),
    ("lpc", "decompose\n  block b1 = §", "fc1 out flatten1 relu1", "b1 stop"),
    ("lpc", "decompose\n  link §", "b1 head", "adam"),
    ("lpc", "decompose\n  link b1->§", "b1 head", "adam"),
    ("lpc", "learn §", "b1 head", "adam fc1"),
    ("lpc", "learn b1, §", "b1 head", "adam"),
]


@pytest.mark.parametrize(
    ("spelling", "marked", "offered", "withheld"),
    [("yaml", *case) for case in YAML] + [("lpc", *case) for case in DSL],
)
def test_what_fits_is_offered(
    editor: Any, tmp_path: Path, spelling: str, marked: str, offered: str, withheld: str
) -> None:
    found = set(editor.completed(tmp_path / f"spec.{spelling}", marked))
    assert set(offered.split()) <= found
    assert not set(withheld.split()) & found


@pytest.mark.parametrize(("spelling", "marked", "offered", "withheld"), NAMED)
def test_names_are_offered(
    editor: Any, tmp_path: Path, spelling: str, marked: str, offered: str, withheld: str
) -> None:
    """The document was whole before: its names are known in a text that does not parse."""
    path = tmp_path / f"spec.{spelling}"
    assert editor.write(path, SAMPLES[spelling]) == []
    section = marked.split()[0].rstrip(":")
    found = set(editor.completed(path, f"{without(spelling, section)}{marked}"))
    assert set(offered.split()) <= found
    assert not set(withheld.split()) & found


@pytest.mark.parametrize("spelling", SAMPLES)
def test_an_argument_shows_its_type_and_default(editor: Any, tmp_path: Path, spelling: str) -> None:
    begun = {"yaml": "learn:\n  - optimizer: sgd(§", "lpc": "learn *: optimizer sgd(§"}[spelling]
    found = editor.completed(tmp_path / f"spec.{spelling}", begun)
    assert found["momentum"].detail == "a number of at least 0; default 0"
    assert found["momentum"].text_edit.new_text == "momentum="
    required = {"yaml": "network:\n  layers: [linear(§", "lpc": "network\n  linear(§"}[spelling]
    found = editor.completed(tmp_path / f"spec.{spelling}", required)
    assert found["out"].detail == "a whole number of at least 1; required"
    assert found["out"].documentation.value == "output features"


@pytest.mark.parametrize("spelling", SAMPLES)
def test_what_is_typed_is_replaced(editor: Any, tmp_path: Path, spelling: str) -> None:
    path = tmp_path / f"spec.{spelling}"
    begun = {"yaml": "learn:\n  - optimizer: ad§", "lpc": "learn *: optimizer ad§"}[spelling]
    edit = editor.completed(path, begun)["adam"].text_edit
    assert (edit.range.end.character - edit.range.start.character, edit.new_text) == (2, "adam")
    quoted = {"yaml": 'learn:\n  - blocks: "b§', "lpc": 'learn "b§'}[spelling]
    editor.write(path, SAMPLES[spelling])
    edit = editor.completed(path, quoted)["b1"].text_edit
    assert (edit.range.end.character - edit.range.start.character, edit.new_text) == (1, "b1")


def test_a_key_brings_its_colon(editor: Any, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    found = editor.completed(path, "run:\n  §")
    assert found["epochs"].text_edit.new_text == "epochs: "
    assert editor.completed(path, "§")["run"].text_edit.new_text == "run:"
    assert editor.completed(path, "run:\n  epo§: 3")["epochs"].text_edit.new_text == "epochs"


@pytest.mark.parametrize("spelling", SAMPLES)
def test_arguments_of_a_library_network(editor: Any, tmp_path: Path, spelling: str) -> None:
    path = tmp_path / f"spec.{spelling}"
    begun = {"yaml": "network: {zoo: mlp, args: {}}\n", "lpc": "network zoo mlp, args {}\n"}[spelling]
    editor.write(path, begun)
    found = editor.completed(path, begun.replace("{}", "{§}"))
    assert {"widths", "activation"} <= set(found)


@pytest.mark.parametrize("spelling", SAMPLES)
def test_recipes_of_ones_own(editor: Any, tmp_path: Path, spelling: str) -> None:
    (tmp_path / "ours.yaml").write_text(
        "recipe: ours\nabout: one of our own\nparameters: {rate: {about: how fast}}\n"
        'template: {learn: [{blocks: "*", optimizer: {sgd: {lr: $rate}}}]}\n'
    )
    path = tmp_path / f"spec.{spelling}"
    begun = {"yaml": "recipes: {ours: ours.yaml}\nrecipe: ", "lpc": 'recipes ours "ours.yaml"\nrecipe '}[spelling]
    editor.write(path, begun)
    found = editor.completed(path, f"{begun}§")
    assert found["ours"].documentation.value == "one of our own"
    assert editor.completed(path, f"{begun}ours(§")["rate"].documentation.value == "how fast"
