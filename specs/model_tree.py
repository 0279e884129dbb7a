"""What does a spec hold that is not a default? Its values as the tree that a text would give, for printing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lpc.specs.model import Data, Layer, Model, Spec, Tensor
from lpc.specs.tree import Node, raise_value

# Written even where they are defaults, because nothing else on the line says what they are.
_ALWAYS: dict[type[Model], frozenset[str]] = {
    Tensor: frozenset({"shape", "dtype"}),
    Data: frozenset({"source"}),
}


def model_tree(spec: Spec) -> Node:
    """Return the values of a spec in the model's shape, terms as terms, without spans and defaults."""
    return raise_value(_plain(spec))


def _plain(value: Any) -> Any:
    if isinstance(value, Model):
        return {name: _plain(item) for name, item in _said(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _said(model: Model) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values that differ from their defaults."""
    always = _ALWAYS.get(type(model), frozenset())
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        # The empty values of a layer are no body; equal numbers of other types are other values.
        same = value == info.default and type(value) is type(info.default)
        if name in always or not (same or (isinstance(model, Layer) and value in ((), {}, None))):
            yield info.alias or name, value
