"""How many bytes does a tensor take?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from math import prod

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.kernel import NO_TENSOR, TensorType
from lpc.specs.plan.lengths import sizes

WIDTHS = {
    "float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "complex64": 8, "complex128": 16,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
Lengths = Mapping[str, int]


def nbytes(kind: TensorType, lengths: Lengths) -> int:
    """Return the bytes of a tensor, each symbolic length as `lengths` says.

    Errors: 0562 a dtype of unknown width, or a length that is not given.
    """
    if kind == NO_TENSOR:
        return 0
    if kind.dtype not in WIDTHS:
        raise LpcError(Diagnostic("0562", f"the width of `{kind.dtype}` is not known", place=str(kind)))
    return prod(shape_of(kind, lengths)) * WIDTHS[kind.dtype]


def shape_of(kind: TensorType, lengths: Lengths) -> tuple[int, ...]:
    """Return a tensor's shape, each symbolic length as `lengths` says. Errors: 0562 a length that is not given."""
    try:
        return _shape(kind.shape)(lengths)
    except KeyError as error:
        message = f"the length `{error.args[0]}` is not given"
        raise LpcError(Diagnostic("0562", message, place=str(kind))) from None


def wide(kind: TensorType) -> int:
    """Return the bytes of an offset of a parameter: in float32, or in the parameter's own wider type."""
    return nbytes(TensorType("float32", kind.shape) if WIDTHS[kind.dtype] < WIDTHS["float32"] else kind, {})


@cache
def _shape(axes: tuple[int | str, ...]) -> Callable[[Lengths], tuple[int, ...]]:
    return sizes(axes, "the plan's types")
