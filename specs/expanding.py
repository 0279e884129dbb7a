"""How is a spec printed? As canonical YAML with every default, which reads back to an equal spec."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lpc.specs.model import Data, Decompose, Layer, Model, Run, Spec, Tensor
from lpc.specs.term import Term, print_scalar, print_value, quote

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./>-]*(:[A-Za-z0-9_./>-]+)*")
# Words that YAML, older YAML or a form reads as something else than text.
_RESERVED = frozenset({"true", "false", "null", "none", "yes", "no", "on", "off", "y", "n"})
_WIDTH = 100
UNBOUNDED = frozenset({"clip", "prox"})  # numbers whose infinity is written `none`


def expand(spec: Spec) -> str:
    """Return the spec as YAML, every default written out; `load_spec` of it equals `spec`.

    Only what a `learn` entry does not say stays out, because there silence means the earlier entry.
    """
    return "".join(f"{line}\n" for line in _block(_plain(spec), 0))


def canonical(spec: Spec) -> str:
    """Return the text that stands for the spec inside a plan: equal specs in one order, one text."""
    return expand(spec)


class _Text(str):
    """YAML text that is printed as it is."""


def _plain(value: Any) -> Any:
    """Return a model's value as mappings, lists and scalars, with terms already printed."""
    if isinstance(value, Layer):
        return _layer(value)
    if isinstance(value, Tensor):
        return _Text(_flow({"shape": list(value.shape), "dtype": value.dtype}))
    if isinstance(value, Decompose) and not isinstance(value.blocks, Term):
        groups = {name: list(map(_selector, group)) for name, group in value.blocks.items()}
        return {name: _plain(item) for name, item in _fields(value)} | {"blocks": groups}
    if isinstance(value, Model):
        return {name: _plain(item) for name, item in _fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Term):
        return _Text(yaml_term(value))
    return value


def _fields(model: Model) -> Iterator[tuple[str, Any]]:
    """Yield a model's keys and values; None is written where it is a choice, left out where it is silence."""
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if (name in UNBOUNDED and value == math.inf) or (value is None and isinstance(model, Data | Run)):
            value = _Text("none")
        if name == "precision":
            value = _Text(value)
        if value is not None:
            yield info.alias or name, value


def _selector(selector: str | Term) -> Any:
    """Print a term among selectors with parentheses, because a bare word there is a module path."""
    return _Text(print_value(selector)) if isinstance(selector, Term) else selector


def yaml_term(term: Term) -> str:
    """Print a term as one YAML scalar: terms with arguments are read whole, bare reserved words are not."""
    text = str(term)
    return quote(text) if not term.args and not term.kwargs and not _safe(text) else text


def _layer(layer: Layer) -> Any:
    """Return a layer in its short form."""
    inside: Any = None
    if layer.branches or layer.op.name == "branch":
        inside = _plain(layer.branches)
    elif layer.body or layer.op.name in ("residual", "repeat"):
        inside = _plain(layer.body)
    if inside is not None:
        structure = {_Text(yaml_term(layer.op)): inside}
        return structure if layer.name is None else {layer.name: structure}
    op = _Text(yaml_term(layer.op))
    return op if layer.name is None else {layer.name: op}


def _block(value: Any, indent: int) -> Iterator[str]:
    """Yield the lines of a mapping or list in block style."""
    pad = " " * indent
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _entry(f"{pad}{yaml_scalar(key)}:", item, indent + 2)
        return
    for item in value:
        if isinstance(item, Mapping) and item:
            first, *rest = _block(item, indent + 2)
            yield f"{pad}- {first.lstrip()}"
            yield from rest
        else:
            yield f"{pad}- {_flow(item)}"


def _entry(head: str, item: Any, indent: int) -> Iterator[str]:
    if not _nested(item) or _fits(item, len(head)):
        yield f"{head} {_flow(item)}"
        return
    yield head
    yield from _block(item, indent)


def _nested(item: Any) -> bool:
    return isinstance(item, Mapping | list) and bool(item)


def _fits(item: Any, used: int) -> bool:
    """Tell whether a mapping of scalars, or a list of scalars and lists, goes on one line."""
    flat = (
        _depth(item) <= 1
        if isinstance(item, Mapping)
        else not any(isinstance(part, Mapping) for part in item)
    )
    return flat and used + len(_flow(item)) <= _WIDTH


def _depth(item: Any) -> int:
    if not isinstance(item, Mapping | list):
        return 0
    parts = item.values() if isinstance(item, Mapping) else item
    return 1 + max(map(_depth, parts), default=0)


def _flow(item: Any) -> str:
    if isinstance(item, Mapping):
        return f"{{{', '.join(f'{yaml_scalar(key)}: {_flow(value)}' for key, value in item.items())}}}"
    if isinstance(item, list):
        return f"[{', '.join(map(_flow, item))}]"
    return yaml_scalar(item)


def yaml_scalar(value: Any) -> str:
    """Print a value without parts, in quotes where YAML or a form would read it as something else."""
    if isinstance(value, _Text):
        return str(value)
    if isinstance(value, str):
        return value if _safe(value) else quote(value)
    return "null" if value is None else print_scalar(value)


def _safe(text: str) -> bool:
    return _PLAIN.fullmatch(text) is not None and text.lower() not in _RESERVED
