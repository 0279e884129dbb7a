"""How is a problem told to an editor? A diagnostic with its other places and its explanation; its fix is an action."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lsprotocol import types

from lpc.lsp.positions import Positions, location, uri_of
from lpc.specs.codes import CODES
from lpc.specs.diagnostics import Diagnostic
from lpc.views.explanation import explanation

SEVERITIES = {"error": types.DiagnosticSeverity.Error, "warning": types.DiagnosticSeverity.Warning}
START = types.Range(types.Position(0, 0), types.Position(0, 0))

# The file in which a code is explained.
Explained = Callable[[str], Path]


def explained_in(folder: Path) -> Explained:
    """Return a function that writes into a folder, once, what `lpc explain` says about a code, and returns the file."""

    def explained(code: str) -> Path:
        path = folder / f"LPC{code}.md"
        if not path.exists():
            path.write_text(explanation(code), "utf-8")
        return path

    return explained


def reported(
    problem: Diagnostic, uri: str, own: str, positions: Positions, explained: Explained
) -> types.Diagnostic:
    """Return a problem for the editor of the document `uri`, whose source is called `own`.

    What lies in another file is shown at the start of this one, and related to its place there.
    """
    inside = problem.span is not None and problem.span.source.name == own
    span = problem.span
    return types.Diagnostic(
        range=positions.first_line(span) if inside and span else START,
        message=_message(problem, inside),
        severity=SEVERITIES[problem.severity],
        code=f"LPC{problem.code}",
        code_description=types.CodeDescription(uri_of(explained(problem.code))),
        source="lpc",
        related_information=list(_related(problem, uri, own, positions)) or None,
    )


def _message(problem: Diagnostic, inside: bool) -> str:
    """Return what was found, the notes, and one thing to try."""
    where = problem.span or problem.place
    lines = [problem.message] if inside or where is None else [f"{problem.message} ({where})"]
    return "\n".join([*lines, *problem.all_notes(), f"help: {problem.help or CODES[problem.code].help}"])


def _related(
    problem: Diagnostic, uri: str, own: str, positions: Positions
) -> Iterator[types.DiagnosticRelatedInformation]:
    places = [(label.span, label.text) for label in problem.labels]
    if problem.span is not None and problem.span.source.name != own:
        places.insert(0, (problem.span, problem.message))
    for span, text in places:
        inside = span.source.name == own
        place = types.Location(uri, positions.range(span)) if inside else location(span, positions.codec)
        if place is not None:
            yield types.DiagnosticRelatedInformation(place, text)


def actions(
    problems: Iterable[Diagnostic], shown: Iterable[types.Diagnostic], uri: str, own: str, positions: Positions
) -> Iterator[types.CodeAction]:
    """Yield the fixes of problems as actions; `shown` are the editor's diagnostics of them, in the same order."""
    for problem, diagnostic in zip(problems, shown, strict=True):
        fix = problem.fix
        if fix is None or fix.span.source.name != own:
            continue
        edit = types.TextEdit(positions.range(fix.span), fix.replacement)
        yield types.CodeAction(
            title=f"write `{fix.replacement}`",
            kind=types.CodeActionKind.QuickFix,
            diagnostics=[diagnostic],
            is_preferred=True,
            edit=types.WorkspaceEdit(changes={uri: [edit]}),
        )

