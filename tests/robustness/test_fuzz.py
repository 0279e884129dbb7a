"""Does any text at all make the checker or a build fail in another way than by located diagnostics? A short run.

The long one is benchmarks/fuzz.py.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import lpc
from lpc.specs.source import Source, Span

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MUTANTS = 400
Script = Callable[[str], Any]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Import a benchmark as Python does when it is run: its folder is on the path."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module


@pytest.fixture
def texts(script: Script, tmp_path: Path) -> list[Any]:
    """The specs and recipes that mutants descend from."""
    mutants = script("mutants")
    found: list[Any] = mutants.both_spellings(mutants.seeds(tmp_path))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_mutants_are_told_what_is_wrong(script: Script, texts: list[Any], seed: int) -> None:
    tally = script("fuzz").checks(texts, MUTANTS // 4, random.Random(seed))
    assert not tally.wrong
    assert tally.total == MUTANTS // 4
    assert 5 < tally.outcomes["success"] < MUTANTS // 8
    assert len(tally.outcomes) > 10


def test_the_originals_are_right(script: Script, texts: list[Any]) -> None:
    assert {text.path.suffix for text in texts} == {".yaml", ".lpc"}
    assert sum(text.recipe for text in texts) >= 4
    for text in texts:
        script("mutants").check(text)


def test_what_is_wrong_with_an_answer_is_seen(script: Script) -> None:
    inside, outside = (Span(Source("a.yaml", "a: 1\n"), line, 1, line, 2) for line in (1, 9))
    answers = {
        "not located": lpc.Diagnostic("0110", "text", place="spec: network"),
        "outside": lpc.Diagnostic("0110", "text", outside),
        "internals": lpc.Diagnostic("0110", "Input should be a number", inside),
    }
    complaints = script("mutants").complaints
    for complaint, answer in answers.items():
        assert next(complaints([answer])).startswith(complaint)
    right = [lpc.Diagnostic("0110", "text", inside), lpc.Diagnostic("0209", "text", place="a.py:3")]
    assert not list(complaints(right))


def test_builds_are_bounded(script: Script, texts: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz = script("fuzz")
    text = next(text for text in texts if text.path.name == "starter.yaml")
    hungry = "error" + 8 * "x"

    def build(bad: Any) -> Any:
        return fuzz.outcome({"fill": lambda: hungry * 2**32, "loop": _loop, "exit": lambda: os._exit(3)}[bad])

    monkeypatch.setattr(fuzz, "build", build)
    monkeypatch.setattr(fuzz, "BUILD_SECONDS", 1)
    assert fuzz.forked("fill")[:2] == (["crash"], "MemoryError: ")
    assert fuzz.forked("loop")[:2] == (["hang"], "hang")
    assert fuzz.forked("exit")[:2] == (["crash"], "the process ended with 3")
    monkeypatch.undo()
    assert fuzz.build(text) == ([], None)


def _loop() -> None:
    while True:
        pass
