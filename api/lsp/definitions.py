"""Where is what the cursor is on written? A block, a layer, an extended file, or a recipe."""

from __future__ import annotations

from pathlib import Path as File

from lpc.lsp import names
from lpc.lsp.analysis import Analysis
from lpc.lsp.place import Place
from lpc.specs.source import Span


def definitions(place: Place, analysis: Analysis) -> list[Span | File]:
    """Return the places that a name or pattern leads to, or the file that is named."""
    file = _file(place, analysis)
    if file is not None:
        return [file] if file.is_file() else []
    return [name.span for name in names.meant(place, analysis) if name.span is not None]


def _file(place: Place, analysis: Analysis) -> File | None:
    if place.calls or place.slot not in ("value", "either", "key"):
        return None
    if place.path == ("extends",):
        return analysis.path.parent / _whole(place, analysis.text)
    if place.path == ("recipe",):
        return names.recipe_files(analysis).get(place.typed)
    if place.path[:1] == ("recipes",):
        name = place.path[1] if len(place.path) > 1 else place.typed
        return names.recipe_files(analysis).get(str(name))
    return None


def _whole(place: Place, text: str) -> str:
    """Return the name of a file that the cursor is somewhere in."""
    line = text[place.start :].partition("\n")[0]
    quote = text[place.start - 1 : place.start]
    if quote in ("'", '"'):
        return line.partition(quote)[0]
    return line.partition(" #")[0].strip()
