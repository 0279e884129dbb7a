"""Do symbolic lengths come to the same whether or not their environment remembers it?"""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.sym_node import SymNode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from lpc.compiler import arithmetic
from lpc.compiler.arithmetic import remembering
from lpc.compiler.environments import is_unmarked

CALLS: tuple[Callable[..., object], ...] = (
    operator.add, operator.sub, operator.mul, operator.eq, operator.ne, operator.ge, operator.gt, operator.le,
    operator.lt, torch.sym_max,
)  # fmt: skip


def symbol(environment: ShapeEnv, name: str, hint: int) -> torch.SymInt:
    source = ConstantSource(name)
    made = environment.create_symbol(hint, source, dynamic_dim=DimDynamic.DYNAMIC, constraint_dim=None)
    size = environment.create_symintnode(made, hint=hint, source=source)
    assert isinstance(size, torch.SymInt)
    return size


def texts(first: torch.SymInt, second: torch.SymInt) -> list[tuple[str, object]]:
    """What every operator gives for two symbols, and for a symbol and numbers: expression and hint."""
    sides = (second, 2, first * 2, first + second, second + 1)
    found = [call(first + 1, side) for call in CALLS for side in sides]
    return [(str(value.node.expr), value.node.hint) for value in found]  # type: ignore[attr-defined]


def test_what_is_remembered_is_what_torch_gives() -> None:
    environment = ShapeEnv()
    first, second = symbol(environment, "B", 8), symbol(environment, "T", 5)
    plain = texts(first, second)
    with remembering():
        assert texts(first, second) == plain
        assert texts(first, second) == plain
        assert (first * 3).node is not (first * 3).node  # which tracing would take for one length
        assert first.node.wrap_int(4) is not first.node.wrap_int(4)
    assert is_unmarked(environment)
    assert texts(first, second) == plain


def test_numbers_stay_numbers() -> None:
    first = symbol(ShapeEnv(), "B", 8)
    with remembering():
        for _ in range(2):
            assert (first - first + 3).node.maybe_as_int() == 3
            assert (first + 3).node.maybe_as_int() is None
            assert first.node.wrap_int(3).maybe_as_int() == 3  # beside sums that are known to come to 3
            assert first.node.wrap_int(3).constant == 3


def test_equal_values_have_one_number_that_copies_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = ShapeEnv()
    first, second = symbol(environment, "B", 8), symbol(environment, "T", 5)
    alike, other = (first * second + 1).node, (first * second + 2).node
    with remembering():
        for _ in range(2):
            assert (first * second + 1 - first).node._expr == alike.sub(first.node)._expr
            assert (first * second + 2 - first).node._expr == other.sub(first.node)._expr
        assert (first * second + 1).node.length_code == alike.length_code != other.length_code
        asked = (first * second + 1).node  # a copy: neither its value nor its number is worked out again
        monkeypatch.setattr(type(asked._expr), "__hash__", None)
        assert asked.sub(first.node)._hint == 33
        assert asked.maybe_as_int() is None


def test_nothing_is_remembered_of_lengths_that_are_held_fast() -> None:
    environment = ShapeEnv()
    first = symbol(environment, "B", 8)
    with remembering():
        assert str((first * 3).node.expr) != "24"
        assert first == 8  # a guard: from now on the symbol stands for its value
        assert not is_unmarked(environment)
        assert str((first * 3).node.expr) == "24"
        assert (first * 3).node.maybe_as_int() == 24


def test_nodes_of_another_kind_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SymNode.add
    monkeypatch.setattr(arithmetic, "PARTS", {*arithmetic.PARTS, "colour"})
    with remembering():
        assert SymNode.add is before


@pytest.mark.parametrize("name", arithmetic.CHANGED)
def test_torch_is_left_as_it_was(name: str) -> None:
    before = getattr(SymNode, name)
    with remembering():
        inside = getattr(SymNode, name)
        with remembering():
            assert getattr(SymNode, name) is inside
    assert inside is not before
    with pytest.raises(ZeroDivisionError), remembering():
        raise ZeroDivisionError
    assert getattr(SymNode, name) is before
