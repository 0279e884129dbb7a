"""Do the views say what they are given, in numbers that can be read at a glance?"""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from lpc.specs.codes import CODES
from lpc.specs.diagnostics import Diagnostic
from lpc.specs.signatures import VOCABULARIES
from lpc.specs.source import Source, Span
from lpc.views import building, errors, running, units, vocabulary
from lpc.views.diagnostics import diagnostic
from lpc.views.pages import PAGES, write


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (16_640, "16.6 k"),
        (1_810_000_000, "1.81 G"),
        (10**19, "10000 P"),
    ],
)
def test_count(number: int, text: str) -> None:
    assert units.count(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(1023, "1023 B"), (1024, "1.00 KiB"), (2_621_440, "2.50 MiB"), (250 * 2**20, "250 MiB")],
)
def test_size(number: int, text: str) -> None:
    assert units.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.42 s"), (12.34, "12.3 s"), (200.2, "3 min 20 s"), (119.8, "2 min 0 s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


def test_diagnostic_has_the_plain_text_and_colours() -> None:
    span = Span(Source("a.yaml", "lpc: 2"), 1, 6, 1, 7)
    problem = Diagnostic(next(iter(CODES)), "found 2", span, notes=("a note",))
    assert diagnostic(problem).plain == problem.render()
    console = Console(force_terminal=True, width=100)
    with console.capture() as captured:
        console.print(diagnostic(problem))
    assert "\x1b[1;31merror[" in captured.get()


def test_summary_names_each_split_once() -> None:
    summary = {
        "steps": 20,
        "seconds": 1.5,
        "device": "cpu",
        "stopped_early": True,
        "train": {"b1.loss": 0.5},
        "test": {"b1.loss": 0.25, "accuracy": 0.9712},
        "test_accuracy": 0.9712,
    }
    console = Console(width=80)
    with console.capture() as captured:
        console.print(running.metrics(summary))
    lines = [line.split() for line in captured.get().splitlines()]
    assert lines == [["metric", "train", "test"], ["b1.loss", "0.5", "0.25"], ["accuracy", "97.12", "%"]]
    assert running.outcome(summary) == "20 steps in 1.50 s on cpu, stopped early: test accuracy 97.12 %"


def test_errors_page_has_every_code_once() -> None:
    for code in CODES:
        assert errors.page().count(f"| {code} |") == 1


def test_vocabulary_page_has_every_word() -> None:
    page = vocabulary.page()
    for words in VOCABULARIES.values():
        assert all(f"| `{name}" in page for name in words)


def test_pages_are_written(tmp_path: Path) -> None:
    write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(PAGES)


def test_building_tells_the_rung_the_notes_and_the_warnings() -> None:
    report = {"rung": "fx", "obstacles": [], "notes": ["`a` runs as a part of `b`"], "warnings": ["`c` is not trained"]}
    assert building.trace(report).splitlines() == [
        "traced by torch.fx, module by module",
        "note: `a` runs as a part of `b`",
        "warning: `c` is not trained",
    ]
