"""How is a spec laid out, in either spelling? Keys in one order, terms in one spelling, comments kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lpc.specs import normalize
from lpc.specs.comments import Comments, comments_of
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.dsl_print import print_tree
from lpc.specs.loader import load_spec
from lpc.specs.model import Data, Decompose, Model, Network, Rule, Run
from lpc.specs.problems import Problems
from lpc.specs.source import Source
from lpc.specs.spelling import is_dsl, read_source
from lpc.specs.tree import Node
from lpc.specs.yaml_print import print_yaml

Spelling = Literal["dsl", "yaml"]

PRINTERS: dict[str, Callable[[Node, Comments], str]] = {"dsl": print_tree, "yaml": print_yaml}

_HEAD = ("lpc", "name", "extends")
_TAIL = ("network", "adapters", "data", "fields", "loss", "decompose", "learn", "run")
_SECTIONS: dict[str, type[Model]] = {"network": Network, "data": Data, "decompose": Decompose, "run": Run}


def format_spec(path: Path, text: str, to: Spelling | None = None) -> str:
    """Return a spec file's text in canonical layout, in its own spelling or in another.

    It says what the file says: what it extends stays there, and nothing is added. Comments are kept.
    Raises LpcError for a spec that cannot be read, or that the other spelling cannot say.
    """
    spec = load_spec(path, text=text)
    source = Source(str(path), text)
    written = read_source(source)
    spelling = to or ("dsl" if is_dsl(source.name) else "yaml")
    root = _ordered(_normal(written))
    comments = comments_of(source, written, root, is_dsl(source.name))
    printed = PRINTERS[spelling](root, comments)
    other = path.with_suffix(".lpc" if spelling == "dsl" else ".yaml")
    if load_spec(other, text=printed) != spec:
        message = "a name in this spec cannot be written as a word"
        raise LpcError(
            Diagnostic("0104", message, place=source.name, help="see what `lpc check` says about it")
        )
    return printed


def _normal(root: Node) -> Node:
    """Return the tree in the model's shape."""
    problems = Problems()
    node = normalize.normalize(root, problems)
    problems.raise_any()
    items = node.value
    assert isinstance(items, Mapping)
    network = items.get("network")
    if network and isinstance(network.value, Mapping) and "init" in network.value:
        # An empty mapping says nothing, and `init` is no key in the DSL.
        said = {key: child for key, child in network.value.items() if key != "init" or child.value}
        items = {**items, "network": replace(network, value=said)}
    if "recipe" not in items:
        return replace(node, value=items)
    recipe = normalize.unless_none(normalize.term)(items["recipe"], problems)
    return replace(node, value={**items, "recipe": recipe})


def _ordered(root: Node) -> Node:
    """Return the tree with the keys of the spec and its sections in their order; free keys stay in theirs."""
    assert isinstance(root.value, Mapping)
    middle = [key for key in root.value if key not in (*_HEAD, *_TAIL)]
    items: dict[str, Node] = {}
    for key in (*_HEAD, *middle, *_TAIL):
        if key in root.value:
            items[key] = _section(key, root.value[key])
    return replace(root, value=items)


def _section(key: str, node: Node) -> Node:
    if key == "learn" and isinstance(node.value, tuple):
        return replace(node, value=tuple(_sorted(entry, Rule) for entry in node.value))
    return _sorted(node, _SECTIONS[key]) if key in _SECTIONS else node


def _sorted(node: Node, model: type[Model]) -> Node:
    if not isinstance(node.value, Mapping):
        return node
    order = {info.alias or name: number for number, (name, info) in enumerate(model.model_fields.items())}
    pairs = sorted(node.value.items(), key=lambda pair: order.get(pair[0], len(order)))
    return replace(node, value=dict(pairs))
