"""Does ejected code compute the very bits that `lpc run` does, without lpc? And is what it cannot write refused?"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lpc as api
from lpc.ejecting.names import Names, identifier
from lpc.ejecting.parts import rates
from lpc.ejecting.parts.clock import Clock
from lpc.ejecting.steps import WRITERS
from lpc.runtime.schedules import lr_factor
from lpc.specs.plan.instructions import (
    KINDS,
    Gather,
    Lag,
    Later,
    Lend,
    Norms,
    Offer,
    Only,
    Receive,
    Reduce,
    ReduceScatter,
    Scale,
    Send,
)

NETWORK = """
network:
  inputs: {image: [1, 8, 8]}
  layers: [flatten, fc1: linear(6), relu, out: linear(10)]
data: {source: digits, batch: 24}
run: {steps: 20, seed: 3}
"""
MORE = {
    "greedy": """
recipe: greedy(optimizer="adamw(lr=4e-3, weight_decay=0.01)")
learn: [{blocks: "*", schedule: {warmup: 3, then: cosine(floor=0.1)}}]
run: {seed: 1, phases: [{train: [fc1], steps: 6}, {train: [out], steps: 14}]}
""",
    "backprop": """
recipe: backprop(optimizer=sgd(lr=0.1, momentum=0.9))
network:
  inputs: {image: [1, 8, 8]}
  layers: [conv: conv(3, 3), batch_norm, relu, flatten, dropout(0.3), out: linear(10)]
data: {source: digits, batch: 24, validation: 0.1, transforms: ["crop(8, padding=1)", flip, "normalize(0.3, 0.4)"]}
run: {steps: 20, seed: 3, accumulate: 2, clip: 1.0}
""",
    "locoprop": "recipe: locoprop(steps=3)\n",
    "blockprop_cached": "recipe: blockprop_cached(refresh=2)\n",
    "forward_forward": """
recipe: forward_forward(optimizer=adam(lr=1e-3))
data: {source: digits, batch: 24, contrast: label_overlay(classes=10)}
""",
    "bp_modified": "recipe: bp_modified(period=3)\n",
    "forward_gradient": "recipe: local_forward_gradient(blocks=per_layer)\n",
}
ALONE = """
import runpy, sys
class NoLpc:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "lpc":
            raise ImportError("ejected code imports lpc")
sys.meta_path.insert(0, NoLpc())
for folder in sys.argv[1:]:
    sys.argv = ["train.py", "--out", folder + "/trained.safetensors"]
    sys.path.insert(0, folder)
    runpy.run_path(folder + "/train.py", run_name="__main__")
"""


def spec_of(name: str) -> str:
    """Return a spec: the sections of `NETWORK` but for those that it replaces."""
    own = MORE[name]
    kept = [part for part in _sections(NETWORK) if part.split(":")[0] not in {p.split(":")[0] for p in _sections(own)}]
    return f"name: {name}\n" + "\n".join([*kept, *_sections(own)])


def _sections(text: str) -> list[str]:
    parts: list[str] = []
    for line in text.strip("\n").split("\n"):
        if line[:1].isalpha():
            parts.append(line)
        else:
            parts[-1] += f"\n{line}"
    return parts


@pytest.fixture(scope="module")
def plans() -> dict[str, api.Plan]:
    return {name: api.build(spec_of(name)) for name in MORE}


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, plans: dict[str, api.Plan]
) -> dict[str, tuple[dict[str, Any], dict[str, Any], Path]]:
    """Train each plan here and, as code, in a process that cannot import lpc: both weights, and the code's folder."""
    folder = tmp_path_factory.mktemp("ejected")
    weights = {}
    for name, plan in plans.items():
        api.eject(plan, folder / name)
        trainer = api.Trainer(plan, "cpu")
        before = {key: value.clone() for key, value in trainer.state_dict().items()}
        trainer.fit()
        weights[name] = trainer.state_dict()
        assert any(not torch.equal(before[key], value) for key, value in weights[name].items())
    line = [sys.executable, "-c", ALONE, *(str(folder / name) for name in MORE)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr
    return {name: (weights[name], load_file(folder / name / "trained.safetensors"), folder / name) for name in MORE}


@pytest.mark.parametrize("name", MORE)
def test_ejected_code_trains_to_the_same_bits(trained: dict[str, Any], name: str) -> None:
    ours, theirs, _ = trained[name]
    assert set(ours) == set(theirs)
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


@pytest.mark.parametrize("name", MORE)
def test_ejected_code_is_short_lines_that_import_nothing_else(trained: dict[str, Any], name: str) -> None:
    allowed = {"torch", "numpy", "safetensors", "sklearn", f"{name}_plan", "__future__"} | set(sys.stdlib_module_names)
    for path in trained[name][2].rglob("*.py"):
        text = path.read_text()
        assert max(map(len, text.splitlines())) <= 120, path
        assert ast.get_docstring(ast.parse(text)), path
        for node in ast.walk(ast.parse(text)):
            found = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert {one.split(".")[0] for one in found} <= allowed, path


def test_ejected_code_has_no_mistakes_that_a_linter_finds(trained: dict[str, Any]) -> None:
    folder = trained["greedy"][2].parent
    rules = ["--isolated", "--select", "F,B", "--ignore", "F841,B905"]
    line = [sys.executable, "-m", "ruff", "check", *rules, str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_instruction_of_one_process_is_written() -> None:
    of_ranks = {Send, Receive, Later, Only, Reduce, Offer, Lag, Lend, Gather, ReduceScatter, Norms, Scale}
    assert set(KINDS.values()) - set(WRITERS) == of_ranks


@pytest.mark.parametrize(
    ("said", "changed", "place", "says"),
    [
        ("  source: digits", "  source: curves", "data.source", "the source `curves`"),
        ("  contrast: none", "  contrast: mixed_images", "data.contrast", "the contrast `mixed_images`"),
        ("  transforms: []", "  transforms: [grayscale]", "data.transforms.0", "the transform `grayscale`"),
        ("  test: none", "  test: elsewhere", "data.test", "a split from elsewhere"),
        ("  early_stop: none", "  early_stop: patience(3)", "run.early_stop", "stopping early"),
    ],
)
def test_what_is_not_written_is_refused_before_anything_is(
    tmp_path: Path, plans: dict[str, api.Plan], said: str, changed: str, place: str, says: str
) -> None:
    data = plans["greedy"].data
    assert said in data.spec
    plan = api.Plan(replace(data, spec=data.spec.replace(said, changed)))
    with pytest.raises(api.LpcError) as caught:
        api.eject(plan, tmp_path / "code")
    (problem,) = caught.value.diagnostics
    assert (problem.code, problem.place) == ("0708", place)
    assert says in problem.message
    assert problem.span is not None
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_wrote_and_keeps_what_is_there(
    lpc: Callable[..., Any], tmp_path: Path, trained: dict[str, Any], plans: dict[str, api.Plan]
) -> None:
    plans["greedy"].save(tmp_path / "greedy.plan")
    told = lpc("eject", "greedy.plan")
    assert told.code == 0
    assert "try: python greedy-code/train.py" in told.out
    again = lpc("eject", "greedy.plan")
    assert again.code == 2
    assert "LPC0702" in again.err
    for path in trained["greedy"][2].rglob("*.py"):  # the same plan gives the same code
        assert (tmp_path / "greedy-code" / path.relative_to(trained["greedy"][2])).read_text() == path.read_text()


def test_names_are_identifiers_and_differ() -> None:
    assert identifier("b1->b2") == "b1_b2"
    assert identifier("1.class") == "_1_class"
    assert identifier("sum") == "sum_"
    names = Names(["taken"])
    assert [names.of("a.b"), names.of("a_b"), names.of("taken"), names.of("a.b")] == ["a_b", "a_b_2", "taken_2", "a_b"]


@pytest.mark.parametrize("unit", ["step", "epoch"])
@pytest.mark.parametrize(
    ("term", "law"),
    [
        ("linear(floor=0.2)", rates.linear(0.2)),
        ("cosine(floor=0.1)", rates.cosine(0.1)),
        ("step(period=3, gamma=0.5)", rates.step(3, 0.5)),
        ("exponential(gamma=0.9)", rates.exponential(0.9)),
    ],
)
def test_schedules_are_those_of_the_runtime(unit: str, term: str, law: rates.Law) -> None:
    found = rates.schedule(law, warmup=2, by_epoch=unit == "epoch")
    for step in range(30):
        ours = lr_factor({"warmup": 2, "then": term, "unit": unit}, step, 30, 4)
        assert found(Clock(step + 7, 7, 30, 4)) == ours
