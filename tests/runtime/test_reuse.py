"""Does writing over dead values change nothing, whatever the kernel, and does it happen where it can?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lpc.runtime.link import link
from lpc.runtime.reuse import IN_PLACE
from lpc.specs.plan.kernel import Bundle, Kernel, Node, Port, TensorType
from lpc.specs.plan.overwrite import FRESH, OVERWRITES

ANY = TensorType("float32", (4, 4))
ARGUMENTS = ("x", "y", "row", "whole")
UNARY = ("relu", "tanh", "sigmoid", "t", "detach", "alias", "clone", "neg")
BINARY = ("add.Tensor", "mul.Tensor", "mm", "tanh_backward", "sub.Tensor")


def overload(op: str) -> Any:
    packet, _, variant = op.removeprefix("aten.").partition(".")
    return getattr(getattr(torch.ops.aten, packet), variant)


def ref(name: str) -> dict[str, Any]:
    return {"ref": name}


def kernel(nodes: list[Node], results: list[str]) -> Kernel:
    given, made = (tuple(Port(name, ANY, name) for name in names) for names in (ARGUMENTS, results))
    return Kernel("k.local", "k", (Bundle("in", "input", given),), tuple(nodes), (Bundle("out", "output", made),))


def arguments() -> dict[str, Tensor]:
    """Two square matrices, a row that must be broadcast, and whole numbers that must be promoted."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 4, 4, generator=generator)
    return {"x": x, "y": y, "row": torch.randn(4, generator=generator), "whole": torch.arange(16).reshape(4, 4)}


def functional(nodes: list[Node], results: list[str]) -> list[Tensor]:
    """Run the nodes one by one, each as the operator that it names."""
    env: dict[str, Any] = dict(arguments())
    for node in nodes:
        values = [env[a["ref"]] if isinstance(a, dict) else a for a in node.args]
        if node.op == "getitem":
            env[node.name] = values[0][values[1]]
        else:
            env[node.name] = overload(node.op)(*values)
    return [env[name] for name in results]


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[Node], list[str]]:
    """A random kernel over square matrices: elementwise operators, products, views, numbers and tuples."""
    nodes: list[Node] = [Node("n0", "aten.mm.default", (ref("x"), ref("y")))]
    names = ["x", "y", "n0"]
    for index in range(1, draw(st.integers(2, 14))):
        name, recent = f"n{index}", st.sampled_from(names[-4:])
        kind = draw(st.sampled_from(["unary", "binary", "threshold", "row", "whole", "number", "items"]))
        first, second = ref(draw(recent)), ref(draw(recent))
        if kind == "unary":
            nodes.append(Node(name, f"aten.{draw(st.sampled_from(UNARY))}.default", (first,)))
        elif kind == "binary":
            op = draw(st.sampled_from(BINARY))
            nodes.append(Node(name, f"aten.{op}" if "." in op else f"aten.{op}.default", (first, second)))
        elif kind == "threshold":
            nodes.append(Node(name, "aten.threshold_backward.default", (first, second, 0)))
        elif kind in ("row", "whole"):
            pair = (first, ref(kind)) if draw(st.booleans()) else (ref(kind), first)
            nodes.append(Node(name, "aten.add.Tensor", pair))
        elif kind == "number":
            nodes.append(Node(name, "aten.add.Tensor", (first, 2.0)))
        else:
            nodes.append(Node(f"p{index}", "aten.native_layer_norm.default", (first, [4], None, None, 1e-5)))
            nodes.append(Node(name, "getitem", (ref(f"p{index}"), 0)))
            if draw(st.booleans()):
                nodes.append(Node(f"q{index}", "getitem", (ref(f"p{index}"), 0)))
                names.append(f"q{index}")
        names.append(name)
    results = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4))
    return nodes, [*results, names[-1]]


@settings(deadline=None, max_examples=300)
@given(programs())
def test_results_are_bitwise_those_of_the_operators_and_arguments_stay(program: tuple[list[Node], list[str]]) -> None:
    nodes, results = program
    given_values, untouched = arguments(), arguments()
    with torch.inference_mode():
        found = link(kernel(nodes, results), "cpu")(list(given_values.values()))
        expected = functional(nodes, results)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, check_stride=True)
    assert all(torch.equal(given_values[name], untouched[name]) for name in ARGUMENTS)


def reused(*nodes: Node, results: tuple[str, ...] = ("last",)) -> bool:
    """Is the last node's result where the first node's was?"""
    places: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            places.append((found[0] if isinstance(found, tuple) else found).data_ptr())
            return found

    values = list(arguments().values())
    with torch.inference_mode(), Watch():
        link(kernel([*nodes], [*results]), "cpu")(values)
    return places[0] == places[-1]


MADE = Node("made", "aten.mm.default", (ref("x"), ref("y")))


@pytest.mark.parametrize("op", OVERWRITES)
def test_a_dead_value_is_written_over(op: str) -> None:
    count, _ = OVERWRITES[op]
    args = (ref("made"), ref("x"), 0)[:count]
    assert reused(MADE, Node("last", op, args))
    assert not reused(MADE, Node("last", op, args), results=("last", "made"))


def test_either_summand_is_written_over() -> None:
    assert reused(MADE, Node("last", "aten.add.Tensor", (ref("x"), ref("made"))))


def test_what_a_view_shares_is_never_written_over() -> None:
    view = Node("view", "aten.t.default", (ref("made"),))
    assert not reused(MADE, view, Node("last", "aten.relu.default", (ref("made"),)), results=("last", "view"))


def test_fresh_operators_return_new_memory() -> None:
    """By their schemas: no result of theirs is marked as an alias of an argument."""
    for op in FRESH:
        assert all(r.alias_info is None for r in overload(op)._schema.returns), op
    assert set(OVERWRITES) <= FRESH


def test_every_position_has_its_function() -> None:
    assert {op: set(found) for op, found in IN_PLACE.items()} == {op: set(at) for op, (_, at) in OVERWRITES.items()}
