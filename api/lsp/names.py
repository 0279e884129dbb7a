"""Which names does a spec give? Its blocks, layers and recipes, and where each is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path as File

from lpc.lsp.analysis import Analysis
from lpc.lsp.place import Place
from lpc.specs.diagnostics import LpcError
from lpc.specs.layer_names import layer_names
from lpc.specs.recipes.recipe import SHIPPED, Recipe, read_recipe, shipped
from lpc.specs.source import Source, Span
from lpc.specs.term import Term, print_value
from lpc.specs.texts import read_text
from lpc.specs.tree import Call, Node, at, lower


@dataclass(frozen=True)
class Name:
    """A name, what it stands for, in words, and where it is given."""

    name: str
    meaning: str
    span: Span | None


def blocks(analysis: Analysis) -> list[Name]:
    """Return the blocks that the spec names; a rule names its blocks by the layers, or by numbers."""
    node = _at(analysis, "decompose", "blocks")
    if node is None:
        return []
    if isinstance(node.value, Mapping):
        return [Name(name, f"block of {_selectors(child)}", child.key) for name, child in node.value.items()]
    if isinstance(node.value, Call) and node.value.name == "balanced":
        return list(_numbered(node))
    return [Name(layer.name, f"block by `{_selectors(node)}`", layer.span) for layer in layers(analysis)]


def layers(analysis: Analysis) -> list[Name]:
    """Return the layers of the network that is written in the spec, those inside others left out."""
    node = _at(analysis, "network", "layers")
    if node is None or not isinstance(node.value, tuple):
        return []
    entries = [entry for entry in node.value if isinstance(entry.value, Mapping) and "op" in entry.value]
    given = [_given(entry) for entry in entries]
    return [
        Name(name, f"layer `{_operator(entry)}`", entry.span)
        for name, entry in zip(layer_names(given), entries, strict=True)
    ]


def inputs(analysis: Analysis) -> list[Name]:
    """Return the inputs of the network."""
    node = _at(analysis, "network", "inputs")
    items = node.value if node is not None and isinstance(node.value, Mapping) else {}
    return [Name(name, "input of the network", child.key) for name, child in items.items()]


def recipes(analysis: Analysis) -> dict[str, Recipe]:
    """Return the recipes of the library, and those that the spec names and that can be read."""
    table = {name: shipped(name) for name in SHIPPED}
    for name, path in recipe_files(analysis).items():
        try:
            table[name] = read_recipe(Source(str(path), read_text(path)))
        except LpcError:
            continue
    return table


def recipe_files(analysis: Analysis) -> dict[str, File]:
    """Return the files of the user's recipes."""
    node = at(analysis.written, ("recipes",)) if analysis.written else None
    items = node.value if node is not None and isinstance(node.value, Mapping) else {}
    folder = analysis.path.parent
    return {name: folder / child.value for name, child in items.items() if isinstance(child.value, str)}


def referred(place: Place, analysis: Analysis) -> list[Name] | None:
    """Return the names that may stand at a place; None where no name is meant."""
    if place.calls:
        return [*layers(analysis), *inputs(analysis)] if _reads_layers(place) else None
    path = tuple(key for key in place.path if isinstance(key, str))
    value, key = place.slot in ("value", "either"), place.slot in ("key", "either")
    if (path == ("learn", "blocks") and value) or (path == ("decompose", "links") and key):
        return blocks(analysis)
    if path == ("decompose", "blocks") and key and place.typed:
        return blocks(analysis)
    return layers(analysis) if path[:2] == ("decompose", "blocks") and len(path) == 3 and value else None


def meant(place: Place, analysis: Analysis) -> list[Name]:
    """Return what the name, or the pattern, written at a place means."""
    known = referred(place, analysis) or []
    word = place.typed.rsplit("->", 1)[-1].strip()
    # A selector may lead into a layer; layers inside others are found by the outermost.
    return [name for name in known if any(fnmatchcase(name.name, part) for part in (word, word.split(".")[0]))]


def _reads_layers(place: Place) -> bool:
    return place.path[:2] == ("network", "layers") and place.calls[-1].key == "from"


def _at(analysis: Analysis, *path: str) -> Node | None:
    return at(analysis.whole, path) if analysis.whole else None


def _given(entry: Node) -> tuple[str | None, str]:
    assert isinstance(entry.value, Mapping)
    name, op = entry.value.get("name"), entry.value["op"].value
    return (str(name.value) if name else None, op.name if isinstance(op, Call) else "")


def _operator(entry: Node) -> str:
    assert isinstance(entry.value, Mapping)
    return _selectors(entry.value["op"])


def _selectors(node: Node) -> str:
    """Return a block's selectors, or one term, as they are written."""
    value = lower(node)
    if isinstance(value, list):
        return ", ".join(f"`{_text(part)}`" for part in value)
    return _text(value)


def _text(value: object) -> str:
    return str(value) if isinstance(value, str | Term) else print_value(value)  # type: ignore[arg-type]


def _numbered(node: Node) -> Iterator[Name]:
    assert isinstance(node.value, Call)
    count = node.value.args[:1] or [node.value.kwargs.get("count", Node(0))]
    number = count[0].value
    for i in range(1, min(number, 999) + 1 if isinstance(number, int) else 1):
        yield Name(f"b{i}", f"block by `{_selectors(node)}`", node.span)
