"""How many floating-point operations does an operator take? Products, convolutions and attention, by their shapes.

As in torch's own counter a multiplication and an addition are two operations, and all else counts nothing. Unlike
there, the weight gradient of a convolution in groups is not counted as if it had none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod

from lpc.specs.memory.sizes import Lengths, shape_of
from lpc.specs.plan.kernel import Json, Kernel, Node, TensorType
from lpc.specs.plan.wellformed import references

Shape = tuple[int, ...]
Shapes = Callable[[int], Shape]  # of the tensor at a position of the arguments
Formula = Callable[[Node, Shapes, Shape], int]  # the last is the shape of the first result


def kernel_flops(kernel: Kernel, lengths: Lengths) -> dict[str, int]:
    """Return the operations of each node that takes any, by its name. Errors: 0562 a length that is not given."""
    types = {port.value: port.type for bundle in kernel.arguments for port in bundle.ports}
    found: dict[str, int] = {}
    for node in kernel.nodes:
        types.update(_made(node, types))
        if (formula := FORMULAS.get(_packet(node.op))) is not None and node.types:
            shapes = partial(_argument, node.args, types, lengths)
            found[node.name] = formula(node, shapes, shape_of(node.types[0], lengths))
    return found


def _packet(op: str) -> str:
    """Return an operator without its overload: `aten.mm` of `aten.mm.default`."""
    return op.rpartition(".")[0]


def _made(node: Node, types: Mapping[str, TensorType]) -> dict[str, TensorType]:
    return {node.name: node.types[0]} if len(node.types) == 1 else {}


def _argument(args: Sequence[Json], types: Mapping[str, TensorType], lengths: Lengths, position: int) -> Shape:
    return shape_of(types[next(references(args[position]))], lengths)


def _product(node: Node, shapes: Shapes, out: Shape, first: int = 0) -> int:
    """[.., m, k] times [.., k, n], whose result has the shape of `out`."""
    return 2 * prod(out) * shapes(first)[-1]


def _convolution(node: Node, shapes: Shapes, out: Shape, first: int = 0) -> int:
    """Each place of the result (of the argument, where transposed) meets every number of the weight."""
    places = shapes(first) if node.args[first + 6] else out
    return 2 * places[0] * prod(places[2:]) * prod(shapes(first + 1))


def _convolution_backward(node: Node, shapes: Shapes, out: Shape) -> int:
    """The gradients of argument and weight take as much as the convolution itself, each where it is asked for."""
    mask = node.args[10]
    assert isinstance(mask, list)
    places = shapes(1) if node.args[7] else shapes(0)
    return 2 * places[0] * prod(places[2:]) * prod(shapes(2)) * sum(map(bool, mask[:2]))


def _attention(node: Node, shapes: Shapes, out: Shape, first: int = 0, products: tuple[int, int] = (1, 1)) -> int:
    """Scores, then values; backward has the scores again, and two gradients of each."""
    query, key, value = (shapes(first + index) for index in range(3))
    scores = 2 * prod(query[:-1]) * key[-2]
    return scores * (products[0] * query[-1] + products[1] * value[-1])


def _table() -> dict[str, Formula]:
    added = partial(_product, first=1)
    backward = partial(_attention, first=1, products=(3, 2))
    attention = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
    return {
        "aten.mm": _product,
        "aten.bmm": _product,
        "aten.addmm": added,
        "aten.baddbmm": added,
        "aten.convolution": _convolution,
        "aten.convolution_backward": _convolution_backward,
        **{f"aten._scaled_dot_product_{name}": _attention for name in attention},
        **{f"aten._scaled_dot_product_{name}_backward": backward for name in attention},
    }


FORMULAS = _table()
