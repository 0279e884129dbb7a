"""Which part of what a network returns is its output? The key, attribute or index that the spec names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx


class NoOutputError(Exception):
    """What the network returns holds no such output; the text says what it does hold."""


def select(result: Any, output: str | int | None) -> Any:
    """Return the output within `result`: nested tensors, or graph values that stand for them."""
    if output is None:
        return _only(result)
    if isinstance(result, fx.Proxy):
        return result[output]  # type: ignore[index]
    if isinstance(output, int) and isinstance(result, tuple | list):
        return _indexed(result, output)
    if isinstance(result, Mapping) and output in result:
        return result[output]
    found = getattr(result, str(output), None) if isinstance(output, str) else None
    if found is None:
        raise NoOutputError(f"it returns {_describe(result)}, in which there is no `{output}`")
    return found


def _only(result: Any) -> Any:
    if isinstance(result, Tensor | fx.Proxy | fx.Node):
        return result
    parts = list(result.values()) if isinstance(result, Mapping) else result if isinstance(result, tuple | list) else []
    if len(parts) == 1:
        return _only(parts[0])
    raise NoOutputError(f"it returns {_describe(result)}, of which one must be chosen")


def _indexed(result: tuple[Any, ...] | list[Any], index: int) -> Any:
    if not -len(result) <= index < len(result):
        raise NoOutputError(f"it returns {_describe(result)}, in which there is no position {index}")
    return result[index]


def _describe(result: Any) -> str:
    if isinstance(result, Mapping):
        return f"a {type(result).__name__} with {', '.join(map(str, result))}"
    if isinstance(result, tuple | list):
        return f"a {type(result).__name__} of {len(result)}"
    return f"a {type(result).__name__}"
