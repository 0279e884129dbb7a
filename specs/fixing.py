"""How is a spec mended? The fixes of its diagnostics are made, until none is left to make."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lpc.specs.checking import check
from lpc.specs.diagnostics import Diagnostic, Fix, LpcError
from lpc.specs.loader import load_spec
from lpc.specs.texts import read_text

# Mending one problem can show another: names are looked at once all keys are known.
MAX_ROUNDS = 8


def fix(path: Path) -> tuple[str, str, tuple[Diagnostic, ...]]:
    """Return a spec file's text, that text mended, and the diagnostics that are left; nothing is written.

    Only what stands in this file is mended, and only where a misspelt name has a known one near to it.
    Raises LpcError for a file that cannot be read.
    """
    before = text = read_text(path)
    problems = diagnostics(path, text)
    for _ in range(MAX_ROUNDS):
        fixes = [p.fix for p in problems if p.fix is not None and p.fix.span.source.name == str(path)]
        if not fixes:
            break
        text = applied(text, fixes)
        problems = diagnostics(path, text)
    return before, text, problems


def diagnostics(path: Path, text: str) -> tuple[Diagnostic, ...]:
    """Return what is wrong with a spec file that holds `text`."""
    try:
        check(load_spec(path, text=text))
    except LpcError as error:
        return error.diagnostics
    return ()


def applied(text: str, fixes: Iterable[Fix]) -> str:
    """Return the text with the fixes made; of two that overlap only the first."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def place(fix: Fix) -> tuple[int, int, str]:
        span = fix.span
        ends = (starts[span.line - 1] + span.column - 1, starts[span.end_line - 1] + span.end_column - 1)
        return *ends, fix.replacement

    parts: list[str] = []
    done = 0
    for start, end, replacement in sorted({place(fix) for fix in fixes}):
        if start >= done:
            parts += [text[done:start], replacement]
            done = end
    return "".join([*parts, text[done:]])
