"""Does the schema accept every spec of the repository as plain YAML, refuse misspelt ones, and explain every key?"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from lpc.specs.examples import EXAMPLES, By, whole
from lpc.specs.json_schema import json_schema
from lpc.specs.keys import KEYS
from lpc.specs.model import Data, Decompose, Network, Phase, Readout, Rule, Run, Schedule, Spec, Tensor, Units
from lpc.specs.recipes.recipe import SHIPPED
from lpc.specs.signatures import VOCABULARIES
from lpc.specs.source import Source
from lpc.specs.tree import lower
from lpc.specs.yaml_text import read_yaml

ROOT = Path(__file__).parents[2]
EXAMPLE_FILES = sorted(ROOT.glob("examples/*/*.yaml"))
FILES = [*EXAMPLE_FILES, ROOT / "api" / "starter.yaml"]
SAMPLES = sorted(ROOT.glob("tests/specs/samples/*.yaml"))
SECTIONS = {
    "": Spec, "network": Network, "tensor": Tensor, "data": Data, "decompose": Decompose, "units": Units, "learn": Rule,
    "schedule": Schedule, "readouts": Readout, "phases": Phase, "run": Run,
}  # fmt: skip

SCHEMA = json_schema()
VALIDATOR = Draft7Validator(SCHEMA)


def plain(text: str) -> Any:
    """Read YAML as any other program does."""
    return YAML(typ="safe", pure=True).load(text)


def fits(spec: Any) -> bool:
    return VALIDATOR.is_valid(spec)


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}_{path.stem}")
def test_every_spec_fits(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(plain(path.read_text()))] == []


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_fits_as_lpc_reads_it(path: Path) -> None:
    """Samples have terms with commas that plain YAML would take apart."""
    spec = lower(read_yaml(Source(path.name, path.read_text())))
    assert [error.message for error in VALIDATOR.iter_errors(spec)] == []


# 0108 is of the DSL, which has no schema.
YAML_EXAMPLES = [code for code, example in EXAMPLES.items() if example.by is By.CHECK and code != "0108"]


@pytest.mark.parametrize("path", EXAMPLE_FILES, ids=lambda path: f"{path.parent.name}_{path.stem}")
def test_examples_name_the_schema(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).resolve() == ROOT / "docs" / "schema.json"


@pytest.mark.parametrize("code", YAML_EXAMPLES)
def test_mended_examples_fit(code: str) -> None:
    assert fits(plain(whole(EXAMPLES[code].good).replace("balanced(2, memory)", '"balanced(2, memory)"')))


def misspelt_keys(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the spec with each key of a section misspelt in turn."""
    places: list[tuple[str | int, ...]] = [(), *((key,) for key in ("network", "data", "decompose", "run"))]
    learn = spec.get("learn")
    places += [("learn", i) for i in range(len(learn))] if isinstance(learn, list) else []
    for place in places:
        here: Any = spec
        for step in place:
            here = here.get(step) if isinstance(here, dict) else here[step]
        for key in here if isinstance(here, dict) else ():
            changed = copy.deepcopy(spec)
            there: Any = changed
            for step in place:
                there = there[step]
            there[f"{key}x"] = there.pop(key)
            yield f"{place} {key}", changed


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}_{path.stem}")
def test_misspelt_keys_do_not_fit(path: Path) -> None:
    missed = [where for where, spec in misspelt_keys(plain(path.read_text())) if fits(spec)]
    assert missed == []


PLACES = {
    "loss": "loss: {}",
    "head": 'learn: {{blocks: "*", head: {}}}',
    "optimizer": 'learn: {{blocks: "*", optimizer: {}}}',
    "link": "decompose: {{blocks: per_layer, links: {}}}",
    "block rule": "decompose: {{blocks: {}}}",
    "data source": "data: {{source: {}}}",
    "transform": "data: {{transforms: [{}]}}",
    "schedule law": 'learn: {{blocks: "*", schedule: {}}}',
    "layer": "network: {{layers: [{}]}}",
    "init law": 'network: {{init: {{"*": {}}}}}',
    "period": "run: {{log: {}}}",
    "early stop": "run: {{early_stop: {}}}",
}


@pytest.mark.parametrize("place", PLACES)
def test_words_fit_and_misspelt_ones_do_not(place: str) -> None:
    for word in VOCABULARIES[place]:
        for good in (f'"{word}(1)"',) if word != "none" else ("none",):
            assert fits(plain(f"extends: x\n{PLACES[place].format(good)}")), word
        for bad in (f'"{word}zz(1)"', f"{word}zz", f"{{{word}zz: {{}}}}"):
            assert not fits(plain(f"extends: x\n{PLACES[place].format(bad)}")), bad


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('learn: {blocks: "*", optimizer: {sgd: {lr: 0.1}}}', True),
        ('learn: {blocks: "*", optimizer: {sgd: {rate: 0.1}}}', False),
        ('learn: {blocks: "*", optimizer: {sgd: {lr: fast}}}', False),
        ("network: {layers: [{fc1: {linear: {outt: 3}}}]}", False),
        ("network: {layers: [{fc1: {linear: {out: 3}}}]}", True),
        ("network: {layers: [{repeat(3): [relu, {residual: [relu]}]}]}", True),
        ("network: {layers: [{repeat(3): [rleu]}]}", False),
        ("decompose: {at: activtion}", False),
        ("run: {epochs: -1}", False),
        ("run: {epochs: ten}", False),
        ("fields: {label: {shape: [], dtype: int46}}", False),
        ("network: {zoo: lenet}", False),
        ("recipe: greedy(head=mlp)", True),
        ("recipe: {greedy: {head: mlp}}", True),
        ("recipe: greeedy", False),
        ("recipe: {greedy: {hed: mlp}}", False),
        ("recipes: {ours: ours.yaml}\nrecipe: ours", True),
    ],
)
def test_values(text: str, right: bool) -> None:
    assert fits(plain(f"extends: x\n{text}")) is right


def test_every_key_is_explained() -> None:
    before = {"": {"extends", "recipe", "recipes"}}
    for name, model in SECTIONS.items():
        keys = {field.alias or key for key, field in model.model_fields.items()} | before.get(name, set())
        assert set(KEYS[name]) == keys
        assert all(line.endswith((".", "none.")) for line in KEYS[name].values())
    assert set(KEYS) == set(SECTIONS)


def test_recipes_are_offered() -> None:
    offered = SCHEMA["then"]["properties"]["recipe"]["anyOf"]
    assert {entry["const"] for entry in offered if "const" in entry} == set(SHIPPED)
