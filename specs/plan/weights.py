"""Which tensors does a safetensors image hold? Its header, read and checked without loading a tensor."""

from __future__ import annotations

from math import prod
from typing import Any

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.plan.decode import MismatchError, parse_json
from lpc.specs.plan.image import Image
from lpc.specs.plan.kernel import TensorType

# dtype by its safetensors name, with bytes for each element
DTYPES: dict[str, tuple[str, int]] = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "C64": ("complex64", 8),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}


def tensor_types(image: Image) -> dict[str, TensorType]:
    """Return the type of every tensor in the image, by name. Raises LpcError (0558) for a malformed image."""
    return {name: kind for name, (kind, _) in tensor_places(image).items()}


def tensor_places(image: Image) -> dict[str, tuple[TensorType, int]]:
    """Return the type of every tensor in the image, and where its bytes begin; see `tensor_types`."""
    size = int.from_bytes(image[:8], "little")
    if len(image) < 8 or size > len(image) - 8:
        raise _malformed("the header is cut short")
    try:
        header = parse_json(image[8 : 8 + size])
    except MismatchError as problem:
        raise _malformed(str(problem)) from None
    if not isinstance(header, dict):
        raise _malformed("the header is no object")
    room = len(image) - 8 - size
    found = {name: _type(name, entry, room) for name, entry in header.items() if name != "__metadata__"}
    return {name: (kind, 8 + size + header[name]["data_offsets"][0]) for name, kind in found.items()}


def _type(name: str, entry: Any, room: int) -> TensorType:
    try:
        (dtype, width), shape, (start, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        sound = all(type(n) is int and n >= 0 for n in (*shape, start, end))
    except (KeyError, TypeError, ValueError):
        raise _malformed(f"the entry of `{name}` is malformed") from None
    if not sound or end > room or end - start != width * prod(shape):
        raise _malformed(f"the bytes of `{name}` are not those of its shape")
    return TensorType(dtype, tuple(shape))


def _malformed(message: str) -> LpcError:
    return LpcError(Diagnostic("0558", f"the weights are no safetensors image: {message}", place="weights"))
