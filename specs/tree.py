"""What has been written, before it is a spec? A tree in which every value and key knows its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from lpc.specs.source import Span
from lpc.specs.term import Term, Value, print_scalar

Path: TypeAlias = tuple[str | int, ...]
Scalar: TypeAlias = bool | int | float | str | None


@dataclass(frozen=True)
class Call:
    """A term whose arguments are still nodes."""

    name: str
    args: tuple[Node, ...] = ()
    kwargs: Mapping[str, Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Node:
    """A value with its span; `key` is the span of the key it stands under.

    `quoted` marks strings in quotes, which are never read as terms or as `none`.
    """

    value: Scalar | Call | tuple[Node, ...] | Mapping[str, Node]
    span: Span | None = None
    key: Span | None = None
    quoted: bool = False

    def is_none(self) -> bool:
        """Tell whether the value is null, or the bare word `none`."""
        return self.value is None or (self.value == "none" and not self.quoted)


def kind(node: Node) -> str:
    """Return what a node holds, in words for a message."""
    value = node.value
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, tuple):
        return "a list"
    if isinstance(value, Call):
        return f"the term `{lower(node)}`"
    if isinstance(value, str):
        return f"the text `{value}`" if len(value) <= 40 else "a long text"
    return "nothing" if value is None else f"`{print_scalar(value)}`"


def children(node: Node) -> Iterator[tuple[str | int, Node]]:
    """Yield the parts of a node by key, index or argument name."""
    value = node.value
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, tuple):
        yield from enumerate(value)
    elif isinstance(value, Call):
        yield from enumerate(value.args)
        yield from value.kwargs.items()


def walk(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Yield every node with its path, parents first."""
    yield path, node
    for key, child in children(node):
        yield from walk(child, (*path, key))


def at(node: Node, path: Path) -> Node | None:
    """Return the node at a path, or None."""
    for key in path:
        child = dict(children(node)).get(key)
        if child is None:
            return None
        node = child
    return node


def lower(node: Node) -> Value:
    """Return the plain value: dicts, lists, terms and scalars."""
    value = node.value
    if isinstance(value, Mapping):
        return {key: lower(child) for key, child in value.items()}
    if isinstance(value, tuple):
        return [lower(child) for child in value]
    if isinstance(value, Call):
        arguments = tuple(lower(a) for a in value.args)
        return Term(value.name, arguments, {key: lower(a) for key, a in value.kwargs.items()})
    return value


def raise_value(value: object) -> Node:
    """Return a node of a plain Python value: dicts, lists, tuples, terms and scalars; no spans.

    Raises:
        TypeError: a value of another type, or a key that is no string.
    """
    if isinstance(value, Term):
        kwargs = {key: raise_value(item) for key, item in value.kwargs.items()}
        return Node(Call(value.name, tuple(raise_value(item) for item in value.args), kwargs))
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a key is no string")
        return Node({key: raise_value(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return Node(tuple(raise_value(item) for item in value))
    if value is None or isinstance(value, bool | int | float | str):
        return Node(value)
    raise TypeError(f"{type(value).__name__} is no part of a spec")


def merge(base: Node, over: Node) -> Node:
    """Merge mappings key by key; anything else replaces."""
    if not (isinstance(base.value, Mapping) and isinstance(over.value, Mapping)):
        return over
    items = dict(base.value)
    for key, child in over.value.items():
        items[key] = merge(items[key], child) if key in items else child
    return replace(over, value=items)
