"""Is every problem told where it is, with its other places, its explanation, and its fix as an action?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types

from lpc.specs.diagnostics import Diagnostic, Label
from lpc.specs.source import Source, Span

from .conftest import Editor, edited
from .samples import SAMPLES

MISSPELT = {"yaml": ("epochs: 1", "epohs: 1"), "lpc": ("epochs 1", "epohs 1")}
TWICE = {"yaml": ("    - relu", "    - fc1: relu"), "lpc": ("  relu", "  fc1 = relu")}
BROKEN = {"yaml": ("run: {epochs: 1}", "run: {epochs: 1"), "lpc": ("run epochs 1", "run epochs: 1")}


def changed(spelling: str, table: dict[str, tuple[str, str]]) -> str:
    right, wrong = table[spelling]
    return SAMPLES[spelling].replace(right, wrong)


@pytest.mark.parametrize("spelling", SAMPLES)
def test_a_problem_is_told_when_it_comes_and_withdrawn_when_it_goes(
    editor: Any, tmp_path: Path, spelling: str
) -> None:
    path = tmp_path / f"spec.{spelling}"
    assert editor.write(path, SAMPLES[spelling]) == []
    told = editor.write(path, changed(spelling, MISSPELT))
    assert [(d.code, d.severity, d.source) for d in told] == [
        ("LPC0110", types.DiagnosticSeverity.Error, "lpc")
    ] + [("LPC0139", types.DiagnosticSeverity.Error, "lpc")] * (len(told) - 1)
    line = SAMPLES[spelling].count("\n") - 1
    assert (told[0].range.start.line, told[0].range.end.line) == (line, line)
    assert told[0].range.end.character - told[0].range.start.character == len("epohs")
    assert "did you mean `epochs`?" in told[0].message
    assert editor.write(path, SAMPLES[spelling]) == []


@pytest.mark.parametrize("spelling", SAMPLES)
def test_a_fix_is_an_action(editor: Any, tmp_path: Path, spelling: str) -> None:
    path = tmp_path / f"spec.{spelling}"
    wrong = changed(spelling, MISSPELT)
    (action,) = editor.actions(path, wrong)
    assert action.title == "write `epochs`"
    assert action.kind == types.CodeActionKind.QuickFix
    assert [d.code for d in action.diagnostics] == ["LPC0110"]
    ((_, edits),) = action.edit.changes.items()
    assert edited(wrong, edits) == SAMPLES[spelling]
    assert editor.actions(path, SAMPLES[spelling]) == []


@pytest.mark.parametrize("spelling", SAMPLES)
def test_other_places_are_related(editor: Any, tmp_path: Path, spelling: str) -> None:
    path = tmp_path / f"spec.{spelling}"
    (told,) = editor.write(path, changed(spelling, TWICE))
    (other,) = told.related_information
    assert other.message == "the first of them"
    assert other.location.uri == path.as_uri()
    assert other.location.range.start.line == told.range.start.line - 1


@pytest.mark.parametrize("spelling", SAMPLES)
def test_a_code_leads_to_its_explanation(editor: Any, tmp_path: Path, spelling: str) -> None:
    (told, *_) = editor.write(tmp_path / f"spec.{spelling}", changed(spelling, MISSPELT))
    page = Path(told.code_description.href.removeprefix("file://")).read_text()
    assert page.startswith("LPC0110: unknown key")
    assert "right:" in page


@pytest.mark.parametrize("spelling", SAMPLES)
def test_a_text_that_does_not_parse_is_told_so(editor: Any, tmp_path: Path, spelling: str) -> None:
    (told,) = editor.write(tmp_path / f"spec.{spelling}", changed(spelling, BROKEN))
    assert told.code == {"yaml": "LPC0101", "lpc": "LPC0108"}[spelling]


@pytest.mark.parametrize("spelling", SAMPLES)
@pytest.mark.parametrize("base", SAMPLES)
def test_a_problem_of_the_extended_file_is_related_to_it(
    editor: Any, tmp_path: Path, spelling: str, base: str
) -> None:
    other = tmp_path / f"base.{base}"
    other.write_text(changed(base, MISSPELT))
    path = tmp_path / f"spec.{spelling}"
    text = {"yaml": f"extends: base.{base}\n", "lpc": f'extends "base.{base}"\n'}[spelling]
    (told, *_) = editor.write(path, text)
    assert told.range.start.line == 0
    assert told.related_information[0].location.uri == other.as_uri()
    assert f"{other}:" in told.message
    other.write_text(SAMPLES[base])
    uri = path.as_uri()
    del editor.told[uri, editor.versions[uri]]
    named = types.TextDocumentIdentifier(other.as_uri())
    editor.client.text_document_did_save(types.DidSaveTextDocumentParams(named))
    assert editor.problems(uri, editor.versions[uri]) == []


def test_columns_are_those_of_the_editor(editor: Any, tmp_path: Path) -> None:
    """UTF-16, where the editor asks for nothing else: a character beyond 16 bits is two."""
    wrong = 'run: {epochs: 1, "𝄞": 2}\nnetwork: {}\n'
    told = {d.code: d for d in editor.write(tmp_path / "spec.yaml", wrong)}
    place = told["LPC0110"].range
    assert (place.start.character, place.end.character) == (17, 21)


def test_an_editor_that_counts_otherwise(tmp_path: Path) -> None:
    editor = Editor()
    started = editor.start([types.PositionEncodingKind.Utf8])
    try:
        assert started.capabilities.position_encoding == types.PositionEncodingKind.Utf8
        wrong = 'run: {epochs: 1, "𝄞": 2}\nnetwork: {}\n'
        told = {d.code: d for d in editor.write(tmp_path / "spec.yaml", wrong)}
        assert told["LPC0110"].range.end.character == 17 + len('"𝄞"'.encode())
    finally:
        editor.stop()


@pytest.mark.parametrize("text", ["", "services: {web: {image: nginx}}\n", "a: [\n"])
def test_other_yaml_is_left_alone(editor: Any, tmp_path: Path, text: str) -> None:
    path = tmp_path / "compose.yaml"
    assert editor.write(path, text) == []
    assert bool(editor.completed(path, f"{text}§")) == (text == "")


def test_a_recipe_is_checked_as_one(editor: Any, tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    assert editor.write(path, "recipe: ours\ntemplate: {loss: mse}\n") == []
    (told,) = editor.write(path, "recipe: ours\ntemplate: {loss: $rate}\n")
    assert told.code == "LPC0160"


def test_warnings_are_told_as_such(tmp_path: Path) -> None:
    """No rule warns yet that a text can break; the way from a warning to the editor is there."""
    from pygls.workspace import PositionCodec

    from lpc.lsp.positions import Positions
    from lpc.lsp.reports import explained_in, reported

    text = "run: {epochs: 1}\n"
    source = Source("spec.yaml", text)
    problem = Diagnostic("0110", "so so", Span(source, 1, 7, 1, 13), severity="warning",
                         labels=(Label(Span(source, 1, 1, 1, 4), "here"),))  # fmt: skip
    told = reported(problem, "file:///spec.yaml", "spec.yaml", Positions(text, PositionCodec()), explained_in(tmp_path))
    assert told.severity == types.DiagnosticSeverity.Warning
    assert told.related_information is not None
    assert told.related_information[0].location.range.end.character == 3
