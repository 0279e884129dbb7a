"""What of a spec is written elsewhere? The values that come from the spec it extends, or from a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lpc.lsp.analysis import Analysis
from lpc.specs.problems import dotted
from lpc.specs.term import print_value
from lpc.specs.tree import Node, Path, at, lower

_SHOWN = 12
_WIDTH = 80


def origins(path: Path, analysis: Analysis) -> Iterator[str]:
    """Yield a Markdown list of the values under a key that are not written in this text, and where they are.

    Under `extends` and `recipe` these are all of the spec's.
    """
    whole = analysis.whole
    if whole is None or any(isinstance(key, int) for key in path):
        return
    top: Path = () if path in (("extends",), ("recipe",)) else path
    node = at(whole, top)
    found = list(_foreign(node, top, str(analysis.path))) if node is not None else []
    lines = [f"- `{dotted(where)}: {_short(value)}` from {_place(value)}" for where, value in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"- and {len(found) - _SHOWN} more")
    if lines:
        yield "\n".join(lines)


def _foreign(node: Node, path: Path, own: str) -> Iterator[tuple[Path, Node]]:
    """Yield the outermost values, below the sections, that another text holds."""
    if isinstance(node.value, Mapping) and len(path) < 2 and "op" not in node.value:
        for key, child in node.value.items():
            yield from _foreign(child, (*path, key), own)
    elif path == ("learn",) and isinstance(node.value, tuple):
        for i, entry in enumerate(node.value):
            yield from _foreign(entry, (*path, i), own)
    elif node.span is not None and node.span.source.name != own:
        yield path, node


def _short(node: Node) -> str:
    text = print_value(lower(node))
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def _place(node: Node) -> str:
    return str(node.span)
