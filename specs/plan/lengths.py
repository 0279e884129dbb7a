"""How long is a symbolic axis? Integer expressions such as `B*197`, read without `eval`."""

from __future__ import annotations

import ast
import operator
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache

from lpc.specs.diagnostics import Diagnostic, LpcError

Length = Callable[[Mapping[str, int]], int]

OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}

# CPython 3.11 counts the depth of a tree for all threads together: two that parse at once end in a SystemError.
_PARSING = threading.Lock()


def length(axis: int | str, place: str) -> Length:
    """Return the function from named lengths to the length of an axis; other syntax is a diagnostic."""
    if isinstance(axis, int):
        return lambda symbols: axis
    try:
        return _parsed(axis)
    except (SyntaxError, ValueError, RecursionError):
        raise LpcError(Diagnostic("0644", f"`{axis:.80}` is not an axis length", place=place)) from None


@lru_cache(maxsize=4096)
def _parsed(axis: str) -> Length:
    with _PARSING:
        tree = ast.parse(axis, mode="eval")
    return _length(tree.body)


def _length(node: ast.expr) -> Length:
    match node:
        case ast.Constant(value=int() as number):
            return lambda symbols: number
        case ast.Name(id=name):
            return lambda symbols: symbols[name]
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in OPERATIONS:
            apply, first, second = OPERATIONS[type(operation)], _length(left), _length(right)
            return lambda symbols: apply(first(symbols), second(symbols))
        case _:
            raise ValueError


def sizes(axes: tuple[int | str, ...], place: str) -> Callable[[Mapping[str, int]], tuple[int, ...]]:
    """Return the function from named lengths to a whole shape."""
    lengths = [length(axis, place) for axis in axes]
    return lambda symbols: tuple(one(symbols) for one in lengths)
