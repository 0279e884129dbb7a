"""How is a text laid out in an editor? As `lpc fmt` would, by an edit of the lines that change."""

from __future__ import annotations

from lsprotocol import types

from lpc.lsp.analysis import Analysis
from lpc.lsp.positions import Positions
from lpc.specs.diagnostics import LpcError
from lpc.specs.formatting import format_spec


def layout(analysis: Analysis, positions: Positions) -> list[types.TextEdit]:
    """Return the edits that bring a text into canonical layout; none for a text that cannot be read."""
    try:
        after = format_spec(analysis.path, analysis.text)
    except LpcError:
        return []
    return changed(analysis.text, after, positions)


def changed(before: str, after: str, positions: Positions) -> list[types.TextEdit]:
    """Return one edit, from the first line that differs to the last; none for equal texts."""
    if before == after:
        return []
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    first = _common(old, new)
    last = _common(old[first:][::-1], new[first:][::-1])
    ends = [positions.position(sum(map(len, old[:line]))) for line in (first, len(old) - last)]
    return [types.TextEdit(types.Range(*ends), "".join(new[first : len(new) - last]))]


def _common(one: list[str], other: list[str]) -> int:
    """Return how many lines are the same from the start on."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
