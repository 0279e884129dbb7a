"""How are layers written? A list of operators and structures, each with or without a name.

- relu                               an operator; its name is its op and a counter
- fc1: linear(256)                   a named operator
- residual: [...]                    a structure around layers: residual, repeat(n)
- stack: {repeat(3): [...]}          a named structure
- branch(merge=concat): {a: [...], b: [...]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lpc.specs.problems import Problems
from lpc.specs.signatures import LAYERS, STRUCTURES
from lpc.specs.term_text import read_scalar_term
from lpc.specs.tree import Call, Node, kind

_UNREADABLE = Call("?")


def read_layers(node: Node, problems: Problems) -> Node:
    """Return a list of layers as the model's `Layer` mappings; one layer stands for a list."""
    entries = node.value if isinstance(node.value, tuple) else (replace(node, key=None),)
    return replace(node, value=tuple(_layer(entry, problems) for entry in entries), quoted=False)


def _layer(node: Node, problems: Problems) -> Node:
    """Return one entry as `{name, op, body, branches}`."""
    if not isinstance(node.value, Mapping):
        return replace(node, value={"op": _op(node, problems)})
    if len(node.value) != 1:
        problems.at(
            "0140", "a layer has one name, this entry has several keys", node, "begin each layer with `- `"
        )
        return replace(node, value={"op": replace(node, value=_UNREADABLE)})
    ((key, child),) = node.value.items()
    head = _structure(key, child, problems)
    if head is not None:
        return replace(node, value=_around(head, child, problems))
    if key in LAYERS and isinstance(child.value, Mapping):
        return replace(node, value={"op": _op(node, problems)})
    return replace(node, value={"name": Node(key, child.key, quoted=True)} | _named(child, problems))


def _named(node: Node, problems: Problems) -> dict[str, Node]:
    """Return the parts of what stands after `NAME:`."""
    if isinstance(node.value, Mapping) and len(node.value) == 1:
        ((key, child),) = node.value.items()
        head = _structure(key, child, problems)
        if head is not None:
            return _around(head, child, problems)
    return {"op": _op(node, problems)}


def _structure(key: str, child: Node, problems: Problems) -> Node | None:
    """Read a key such as `repeat(3)` as a structure's term; None if it names no structure."""
    if key.split("(")[0].strip() not in STRUCTURES:
        return None
    node = Node(key, child.key)
    return problems.reading(read_scalar_term, node, replace(node, value=_UNREADABLE))


def _around(head: Node, child: Node, problems: Problems) -> dict[str, Node]:
    """Return a structure with its inner layers."""
    assert isinstance(head.value, Call)
    if head.value.name == "branch":
        return {"op": head, "branches": _branches(child, problems)}
    return {"op": head, "body": read_layers(replace(child, key=None), problems)}


def _branches(node: Node, problems: Problems) -> Node:
    if not isinstance(node.value, Mapping):
        problems.at(
            "0140",
            f"`branch` holds {kind(node)}",
            node,
            "give every branch a name: `branch: {a: [...], b: [...]}`",
        )
        return replace(node, value={})
    return replace(node, value={name: read_layers(body, problems) for name, body in node.value.items()})


def _op(node: Node, problems: Problems) -> Node:
    """Read an operator's term."""
    value = node.value
    if isinstance(value, Call):
        return replace(node, key=None)
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, arguments),) = value.items()
        if isinstance(arguments.value, Mapping):
            return replace(node, value=Call(name, (), arguments.value), key=None)
    unreadable = replace(node, value=_UNREADABLE, key=None)
    if isinstance(value, str):
        return problems.reading(read_scalar_term, replace(node, key=None), unreadable)
    problems.at("0140", f"a layer is a term such as `linear(256)`, this is {kind(node)}", node)
    return unreadable
