"""How is a problem told? One diagnostic type from the first character of a spec to the last step of a run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lpc.specs.source import Span

if TYPE_CHECKING:
    from lpc.specs.codes import Code

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Label:
    """Another place that a problem is about, with what is there."""

    span: Span
    text: str


@dataclass(frozen=True)
class Fix:
    """A change that mends a problem and that a program can make: `replacement` instead of the span's text."""

    span: Span
    replacement: str


@dataclass(frozen=True)
class Diagnostic:
    """One problem: what was found, where, what was expected, and one thing to try.

    `code` is a key of `CODES` (four digits, shown as LPC0123); without `help` the code's own help line is shown.
    `place` names a position that is no text span: a file and byte, a plan's kernel, a data row.
    """

    code: str
    message: str
    span: Span | None = None
    place: str | None = None
    notes: tuple[str, ...] = ()
    help: str | None = None
    severity: Severity = "error"
    labels: tuple[Label, ...] = ()
    fix: Fix | None = None

    def __post_init__(self) -> None:
        if self.code not in _codes():
            raise KeyError(f"diagnostic code {self.code} is not in the table of codes")

    def all_notes(self) -> tuple[str, ...]:
        """Return the notes, whether the value is a default, and how the text came in that the problem is in."""
        if self.span is None:
            return self.notes
        more = (self.span.note, self.span.source.origin)
        return tuple(dict.fromkeys((*self.notes, *(note for note in more if note is not None))))

    def as_dict(self) -> dict[str, Any]:
        """Return the diagnostic as JSON has it; spans have a file and lines and columns from 1, ends exclusive."""
        return {
            "code": f"LPC{self.code}",
            "severity": self.severity,
            "title": _codes()[self.code].title,
            "message": self.message,
            "span": _span(self.span),
            "place": self.place,
            "labels": [{"span": _span(label.span), "text": label.text} for label in self.labels],
            "notes": list(self.all_notes()),
            "help": self.help or _codes()[self.code].help,
            "fix": self.fix and {"span": _span(self.fix.span), "replacement": self.fix.replacement},
        }

    def render(self) -> str:
        """Return the diagnostic as plain text: location, excerpt with carets, notes and help."""
        lines = [f"{self.severity}[LPC{self.code}]: {self.message}"]
        if self.span is not None:
            lines.append(f"  --> {self.span}")
            lines += [f"  {line}" for line in self.span.excerpt().splitlines()]
        elif self.place is not None:
            lines.append(f"  --> {self.place}")
        for label in self.labels:
            lines.append(f"  ::: {label.span}: {label.text}")
            lines += [f"  {line}" for line in label.span.excerpt().splitlines()]
        lines += [f"  note: {note}" for note in self.all_notes()]
        lines.append(f"  help: {self.help or _codes()[self.code].help}")
        return "\n".join(lines)


class LpcError(Exception):
    """Raised for every mistake a user can make; carries one or more diagnostics."""

    def __init__(self, diagnostics: Diagnostic | Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = (
            (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        )
        super().__init__("\n".join(d.render() for d in self.diagnostics))


def nearest(found: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt one is nearest to, whatever its case, or None when nothing is near."""
    from difflib import get_close_matches

    names = list(known)
    close = get_close_matches(found, names, n=1, cutoff=0.6)
    lowered = {name.lower(): name for name in reversed(names)}
    close = close or [lowered[name] for name in get_close_matches(found.lower(), lowered, n=1, cutoff=0.6)]
    return close[0] if close else None


def did_you_mean(found: str, known: Iterable[str]) -> str | None:
    """Return a one-line suggestion for a misspelt name, or None when nothing is near."""
    near = nearest(found, known)
    return f"did you mean `{near}`?" if near else None


def without_quotes(text: str) -> str | None:
    """Return a one-line suggestion for a number that was written as a text, or None for another text."""
    return f"write it without quotes: `{text}`" if _NUMBER.fullmatch(text) else None


def respelt(span: Span | None, found: str, wanted: str) -> Fix | None:
    """Return the fix that writes `wanted` for the name `found`, where a span's first line has it first as a word."""
    if span is None or not found:
        return None
    text = span.source.line(span.line)
    end = span.end_column - 1 if span.end_line == span.line else len(text)
    word = re.compile(rf"(?<!\w){re.escape(found)}(?!\w)").search(text, span.column - 1, end)
    if word is None:
        return None
    return Fix(Span(span.source, span.line, word.start() + 1, span.line, word.end() + 1), wanted)


def _codes() -> dict[str, Code]:
    # Imported with the first problem: where there is none, nobody waits for the table.
    from lpc.specs.codes import CODES

    return CODES


def _span(span: Span | None) -> dict[str, Any] | None:
    if span is None:
        return None
    places = {key: getattr(span, key) for key in ("line", "column", "end_line", "end_column")}
    return {"file": span.source.name, **places}


def one_of(names: Sequence[str]) -> str:
    """Return names as prose for a message: `a`, `b` or `c`."""
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + f" or {quoted[-1]}"


def listing(items: Iterable[str], limit: int = 12) -> str:
    """Return names as prose for a message, cut off after `limit`."""
    names = list(items)
    shown = ", ".join(f"`{name}`" for name in names[:limit]) or "empty"
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
