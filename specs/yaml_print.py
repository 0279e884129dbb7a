"""How is a tree printed as YAML? Line by line, what it holds and no more, its comments kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lpc.specs.comments import Comments, Line, join
from lpc.specs.expanding import UNBOUNDED, yaml_scalar, yaml_term
from lpc.specs.term import Term, Value, print_value
from lpc.specs.tree import Node, Path, lower

WIDTH = 100

# Where a bare word is text, so that a term without arguments needs its parentheses.
_TEXTS = (("network", "config"), ("network", "args"), ("decompose", "blocks"))
_STRUCTURES = frozenset({"residual", "repeat", "branch"})


@dataclass(frozen=True)
class Part:
    """A value as it will be printed: a text, or parts in a list or mapping, which have keys."""

    path: Path
    value: str | tuple[Part, ...]
    key: str = ""
    mapping: bool = False

    def flow(self) -> str:
        """Return the value on one line."""
        if isinstance(self.value, str):
            return self.value
        inside = ", ".join(f"{part.key}: {part.flow()}" if part.key else part.flow() for part in self.value)
        return f"{{{inside}}}" if self.mapping else f"[{inside}]"

    def paths(self) -> tuple[Path, ...]:
        """Return the paths of the value and of what is in it."""
        inner = () if isinstance(self.value, str) else self.value
        return (self.path, *(path for part in inner for path in part.paths()))

    def flat(self) -> bool:
        """Tell whether the value reads well on one line: scalars, or lists of scalars."""
        if isinstance(self.value, str):
            return True
        if self.mapping:
            return all(isinstance(part.value, str) for part in self.value)
        return not any(part.mapping for part in self.value) and all(part.flat() for part in self.value)


def print_yaml(root: Node, comments: Comments) -> str:
    """Return a tree in the model's shape as YAML text."""
    part = _part(root, (), "")
    assert not isinstance(part.value, str)
    return join([line for inner in part.value for line in _entry(inner, 0, comments)], comments)


def _entry(part: Part, indent: int, comments: Comments) -> Iterator[Line]:
    """Yield the lines of one key of a mapping, or of one item of a list."""
    head = " " * indent + (f"{part.key}:" if part.key else "-")
    if isinstance(part.value, str) or _fits(part, len(head), comments):
        yield Line(f"{head} {part.flow()}", part.paths())
        return
    inner = [line for child in part.value for line in _entry(child, indent + 2, comments)]
    if part.key:
        yield Line(head, (part.path,))
    else:
        first = inner.pop(0)
        yield Line(f"{head} {first.text.lstrip()}", (part.path, *first.paths))
    yield from inner


def _fits(part: Part, used: int, comments: Comments) -> bool:
    alone = part.mapping and not part.key and len(part.value) == 1
    return (
        not alone and part.flat() and used + 1 + len(part.flow()) <= WIDTH and not comments.inside(part.path)
    )


def _part(node: Node, path: Path, key: str) -> Part:
    """Return a value as it is printed at its place."""
    if path[:-1] in (("network", "inputs"), ("fields",)):
        return Part(path, _tensor(node), key)
    if path[:2] == ("network", "layers") and isinstance(path[-1], int):
        return _layer(_items(node), path, key)
    if path == ("decompose", "links") and _short(node):
        return Part(path, _scalar(_items(node)["*"], path), key)
    if path[:1] == ("learn",) and path[-1] == "schedule" and set(_items(node)) == {"then"}:
        return Part(path, _scalar(_items(node)["then"], path), key)
    if isinstance(node.value, Mapping) and node.value:
        parts = (_part(child, (*path, name), yaml_scalar(name)) for name, child in node.value.items())
        return Part(path, tuple(parts), key, mapping=True)
    return _list(node, path, key) if isinstance(node.value, tuple) else Part(path, _scalar(node, path), key)


def _list(node: Node, path: Path, key: str) -> Part:
    """Return a list; one value is written alone where the language takes it for a list."""
    assert isinstance(node.value, tuple)
    if not node.value:
        return Part(path, "none" if path[-1] == "loss" and len(path) < 4 else "[]", key)
    if len(node.value) == 1 and _takes_one(path):
        return Part(path, _scalar(node.value[0], (*path, 0)), key)
    return Part(path, tuple(_part(child, (*path, i), "") for i, child in enumerate(node.value)), key)


def _takes_one(path: Path) -> bool:
    block = path[:2] == ("decompose", "blocks") and len(path) == 3
    phase = path[:2] == ("run", "phases") and len(path) == 4
    return block or phase or path == ("loss",) or (path[0] == "learn" and len(path) == 3)


def _layer(items: Mapping[str, Node], path: Path, key: str) -> Part:
    """Return a layer in its short form: `op`, `name: op`, `repeat(3): [...]` or that under a name."""
    op = lower(items["op"])
    assert isinstance(op, Term)
    text = yaml_term(op)
    name = items["name"].value if "name" in items else None
    title = None if name is None else yaml_scalar(str(name))
    inside = next((which for which in ("branches", "body") if which in items), None)
    if inside is None and op.name not in _STRUCTURES:
        leaf = Part((*path, "op"), text, title or "")
        return leaf if title is None and not key else Part(path, (leaf,), key, mapping=True)
    empty = Part((*path, "body"), "{}" if op.name == "branch" else "[]", text)
    body = empty if inside is None else _part(items[inside], (*path, inside), text)
    structure = Part(path, (body,), title or "", mapping=True)
    return structure if title is None else Part(path, (structure,), key, mapping=True)


def _items(node: Node) -> Mapping[str, Node]:
    assert isinstance(node.value, Mapping)
    return node.value


def _short(node: Node) -> bool:
    """Tell whether links were written as one term, which replaces what an extended spec says."""
    only = node.value.get("*") if isinstance(node.value, Mapping) and len(node.value) == 1 else None
    return only is not None and only.span is not None and only.key is None


def _tensor(node: Node) -> str:
    items = _items(node)
    parts = {key: _flow(lower(child)) for key, child in items.items()}
    if set(parts) == {"shape"}:
        return parts["shape"]
    return f"{{{', '.join(f'{key}: {text}' for key, text in parts.items())}}}"


def _flow(value: Value) -> str:
    return f"[{', '.join(map(_flow, value))}]" if isinstance(value, list) else yaml_scalar(value)


def _scalar(node: Node, path: Path) -> str:
    """Return a value without parts; `none` where the language has the word."""
    value = lower(node)
    if isinstance(value, Term):
        return print_value(value) if path[:2] in _TEXTS and len(path) > 2 else yaml_term(value)
    if isinstance(value, dict | list):
        return "{}" if isinstance(value, dict) else "[]"
    word = value is None or (path[-1] in UNBOUNDED and value == math.inf) or path[-2:] == ("run", "precision")
    return "none" if word and value in (None, math.inf, "none") else yaml_scalar(value)
