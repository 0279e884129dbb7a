"""How is one value of a spec replaced from outside? `learn[0].optimizer.lr=0.1`, reaching into terms."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from lpc.specs.diagnostics import Diagnostic, LpcError, did_you_mean
from lpc.specs.problems import dotted
from lpc.specs.source import Source, Span
from lpc.specs.term_text import read_scalar_term
from lpc.specs.tree import Call, Node, Path, kind, raise_value

Overrides = Mapping[str, Any] | Sequence[str]
# A path with its new value.
Value = tuple[Path, Node]

# What must be set before the recipe is written out.
_FIRST = ("recipe", "recipes")

_STEP = re.compile(r'\.?(?:"(?P<quoted>[^"]*)"|(?P<word>[^.\[\]="\s]+))|\[(?P<index>\d+)\]')


def set_values(root: Node, values: Iterable[Value], between: Callable[[Node], Node]) -> Node:
    """Return the tree with values replaced, in order: those of the recipe, then `between`, then all others.

    Raises:
        LpcError: 0107, for a path that leads through a value without parts.
    """
    values = list(values)
    for path, value in (v for v in values if v[0][0] in _FIRST):
        root = _set(root, path, value, path)
    root = between(root)
    for path, value in (v for v in values if v[0][0] not in _FIRST):
        root = _set(root, path, value, path)
    return root


def read_overrides(overrides: Overrides) -> Iterator[Value]:
    """Yield every path with its new value.

    Raises:
        LpcError: 0107, for a path that cannot be read.
    """
    if isinstance(overrides, Mapping):
        for text, value in overrides.items():
            yield _given(text, value)
    else:
        for text in (overrides,) if isinstance(overrides, str) else overrides:
            yield _written(text)


def _given(text: str, value: object) -> tuple[Path, Node]:
    """Read an override that was given through Python."""
    source = Source("override", f"{text} = {value!r}", "this was given as an override")
    span = Span(source, 1, 1, 1, len(source.text) + 1)
    try:
        node = raise_value(value)
    except TypeError as error:
        raise LpcError(Diagnostic("0107", str(error), span)) from None
    path, end = _path(source)
    if source.text[end:].lstrip()[:1] != "=":
        _fail(source, end, "a path ends where `.key` or `[0]` should follow")
    return path, replace(node, span=span, key=span)


def _written(text: str) -> tuple[Path, Node]:
    """Read `path=value`; blanks in place of the path keep the value's columns."""
    from lpc.specs.yaml_text import read_yaml  # here: a spec in the DSL without overrides needs no YAML

    source = Source("--set", text, "this was given by `--set`")
    path, end = _path(source)
    if text[end : end + 1] != "=":
        _fail(source, end, f"expected `=` after the path, found {text[end : end + 1] or 'the end'!r}")
    value = " " * (end + 1) + text[end + 1 :]
    node = _moved(read_yaml(Source("--set", value)), source) if value.strip() else Node("", quoted=True)
    return path, replace(node, key=Span(source, 1, 1, 1, end + 1))


def _moved(node: Node, source: Source) -> Node:
    """Let spans name the whole override as their source."""

    def move(span: Span | None) -> Span | None:
        return None if span is None else replace(span, source=source)

    value = node.value
    if isinstance(value, tuple):
        value = tuple(_moved(child, source) for child in value)
    elif isinstance(value, Mapping):
        value = {key: _moved(child, source) for key, child in value.items()}
    return replace(node, value=value, span=move(node.span), key=move(node.key))


def _path(source: Source) -> tuple[Path, int]:
    """Return the path at the start of a text, and where it ends."""
    path: list[str | int] = []
    end = 0
    while step := _STEP.match(source.text, end):
        index = step["index"]
        path.append(int(index) if index is not None else step["quoted"] or step["word"] or "")
        end = step.end()
    if not path or isinstance(path[0], int):
        _fail(source, 0, "an override starts with a key")
    return tuple(path), end


def _fail(source: Source, offset: int, message: str) -> NoReturn:
    raise LpcError(Diagnostic("0107", message, Span(source, 1, offset + 1, 1, offset + 2)))


def _set(node: Node, path: Path, new: Node, full: Path) -> Node:
    """Return `node` with the value at `path` replaced; missing mappings on the way are made."""
    if not path:
        return replace(new, key=node.key or new.key)
    key, rest = path[0], path[1:]
    if isinstance(node.value, str) and not node.is_none():
        node = read_scalar_term(node)
    value = node.value
    if isinstance(value, Call):
        return replace(node, value=_set_argument(value, key, rest, new, full))
    if isinstance(key, int):
        return replace(node, value=_set_item(node, key, rest, new, full))
    if not isinstance(value, Mapping) and not node.is_none():
        raise _no_part(node, key, new, full)
    items = dict(value) if isinstance(value, Mapping) else {}
    items[key] = _set(items.get(key) or Node(None, new.span, new.key), rest, new, full)
    return replace(node, value=items)


def _set_item(node: Node, key: int, rest: Path, new: Node, full: Path) -> tuple[Node, ...]:
    value = node.value
    if not isinstance(value, tuple) or key >= len(value):
        raise _no_part(node, key, new, full)
    return (*value[:key], _set(value[key], rest, new, full), *value[key + 1 :])


def _set_argument(call: Call, key: str | int, rest: Path, new: Node, full: Path) -> Call:
    """Replace a term's argument, by name or by position."""
    empty = Node(None, new.span, new.key)
    if isinstance(key, str):
        return replace(call, kwargs={**call.kwargs, key: _set(call.kwargs.get(key, empty), rest, new, full)})
    if key >= len(call.args):
        raise _no_part(Node(call), key, new, full)
    return replace(
        call, args=(*call.args[:key], _set(call.args[key], rest, new, full), *call.args[key + 1 :])
    )


def _no_part(node: Node, key: str | int, new: Node, full: Path) -> LpcError:
    where = dotted(full[: full.index(key)]) or "the spec"
    size = f" of {len(node.value)}" if isinstance(node.value, tuple) else ""
    message = f"`{where}` is {kind(node)}{size} and has no part {dotted((key,))}"
    known = node.value if isinstance(node.value, Mapping) else ()
    return LpcError(Diagnostic("0107", message, new.key, help=did_you_mean(str(key), known)))
