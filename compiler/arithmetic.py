"""How is arithmetic on symbolic lengths done once? Inside a build, environments remember what their lengths came to.

Every fake tensor has the lengths of its storage worked out, a dozen sums and products of symbols, and nearly all of
them have been worked out before. Torch gives them to sympy each time, which was a fifth of a build. Each result is a
node of its own, as tracing tells lengths apart by their nodes; and nothing is remembered while a graph is recorded, or
once a length is known to equal another.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.fx.experimental.sym_node import SymNode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

# Operators whose result follows from the two expressions alone, and not from the range that a symbol is known to have.
OPERATORS = ("add", "sub", "mul", "eq", "ne", "ge", "gt", "le", "lt", "and_", "or_", "sym_max", "sym_min")

CHANGED = (*OPERATORS, "expr", "maybe_as_int", "wrap_int")
PARTS = {"expr", "shape_env", "pytype", "hint", "optimized_summation"}  # of a node, from which it is made anew

Operator = Callable[[SymNode, SymNode], SymNode]
_node: Any = SymNode  # whose attributes are set below


@contextmanager
def remembering() -> Iterator[None]:
    """Remember results of operators on lengths inside the block, by environment; not for nodes of another torch."""
    before: dict[str, Any] = {name: getattr(SymNode, name, None) for name in CHANGED}
    if hasattr(before["add"], "remembers") or not _is_as_known(before):  # a build inside a build, or another torch
        yield
        return
    for name in OPERATORS:
        setattr(_node, name, _remembered(name, before[name]))
    _node.expr = _expression(before["expr"])
    _node.maybe_as_int = _number(before["maybe_as_int"])
    _node.wrap_int = _wrapped(before["wrap_int"])
    try:
        yield
    finally:
        for name, plain in before.items():
            setattr(_node, name, plain)


def _is_as_known(attributes: dict[str, Any]) -> bool:
    """Are nodes made of what this module knows? Otherwise a build takes longer, and is the same."""
    return None not in attributes.values() and inspect.signature(SymNode).parameters.keys() >= PARTS


def _remembered(name: str, operator: Operator) -> Operator:
    def remembered(one: SymNode, other: SymNode) -> SymNode:
        known = _known(one.shape_env)
        if known is None or getattr(other, "shape_env", None) is not one.shape_env or get_proxy_mode() is not None:
            return operator(one, other)
        key = name, _code(one, known), _code(other, known)
        found = known.get(key)
        if found is None:
            found = known[key] = _told(operator(one, other), known)
        return _copy(found)

    remembered.remembers = True  # type: ignore[attr-defined]
    return remembered


def _code(node: Any, known: dict[object, Any]) -> int:
    """Return the number of a node's value in its environment, which the node keeps: sympy compares slowly."""
    code: int | None = node.__dict__.get("length_code")
    if code is None:
        # Torch keeps sums in the order of their terms as long as it knows that they are sorted.
        value = node._expr, node._hint, node.pytype, node._optimized_summation
        code = known.setdefault(value, len(known))
        if node._hint is not None:  # which may be found later
            node.length_code = code
    return code


def _told(node: SymNode, known: dict[object, Any]) -> SymNode:
    """Have a node that is remembered keep what its copies will be asked for."""
    _code(node, known)
    if node.pytype is int:
        node.maybe_as_int()
    return node


def _copy(node: SymNode) -> SymNode:
    made = object.__new__(SymNode)
    made.__dict__ = node.__dict__.copy()
    return made


def _wrapped(plain: Callable[[SymNode, int], SymNode]) -> Callable[[SymNode, int], SymNode]:
    def wrapped(node: SymNode, number: int) -> SymNode:
        known = _known(node.shape_env)
        if known is None:
            return plain(node, number)
        found = known.get(("int", number))
        if found is None:
            found = known["int", number] = _told(plain(node, number), known)
        return _copy(found)

    return wrapped


def _expression(plain: Any) -> Any:
    return property(lambda node: plain.fget(node) if _known(node.shape_env) is None else node._expr)


def _number(plain: Callable[[SymNode], int | None]) -> Callable[[SymNode], int | None]:
    def number(node: Any) -> int | None:
        if _known(node.shape_env) is None:
            return plain(node)
        kept = node.__dict__
        if "length_number" not in kept:
            kept["length_number"] = plain(node)
        found: int | None = kept["length_number"]
        return found

    return number


def _known(environment: ShapeEnv | None) -> dict[object, Any] | None:
    """Return what an environment remembers; None where an expression may stand for another by now."""
    if environment is None or environment.replacements or environment._translation_validation_enabled:
        return None
    try:
        known: dict[object, Any] = environment.lengths_known  # type: ignore[attr-defined]
    except AttributeError:
        known = environment.lengths_known = {}  # type: ignore[attr-defined]
    return known
