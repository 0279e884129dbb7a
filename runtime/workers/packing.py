"""How is a tensor sent so that it arrives with its layout? Its memory as bytes, its sizes and strides as numbers.

Kernels were captured for tensors laid out as their producer leaves them: a transposed one must arrive transposed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.complex128,
)  # fmt: skip


def describe(tensors: Sequence[Tensor]) -> list[int]:
    """Return what `unpack` must know of some tensors as numbers: count, then dtype, sizes and strides of each."""
    found = [len(tensors)]
    for tensor in tensors:
        found += [DTYPES.index(tensor.dtype), tensor.dim(), *tensor.shape, *tensor.stride()]
    return found


def dense(tensor: Tensor) -> Tensor:
    """Return a tensor without gaps or overlaps in its memory but for axes that are repeated (stride 0)."""
    if tensor.numel() == 0:
        return tensor.contiguous()
    base = _without_repeats(tensor)
    order = sorted((axis for axis in range(base.dim()) if base.shape[axis] > 1), key=lambda a: base.stride(a))
    strides, step = list(base.stride()), 1
    for axis in order:
        strides[axis] = step
        step *= base.shape[axis]
    if strides == list(base.stride()):
        return tensor
    copied = torch.empty_strided(base.shape, strides, dtype=base.dtype, device=base.device).copy_(base)
    repeated = [0 if tensor.stride(axis) == 0 else stride for axis, stride in enumerate(strides)]
    return copied.as_strided(tensor.shape, repeated)


def pack(tensor: Tensor) -> Tensor:
    """Return the memory of a dense tensor as bytes, uint8 [n]; a view where it is one stretch of memory."""
    base = _without_repeats(tensor)
    return base.as_strided((base.numel(),), (1,), base.storage_offset()).view(torch.uint8)


def unpack(numbers: Sequence[int], filled: Callable[[int], Tensor]) -> list[Tensor]:
    """Return the tensors that are described; `filled` gives the next n bytes of what was packed, uint8 [n]."""
    rest, found = iter(numbers), []
    for _ in range(next(rest)):
        dtype, dim = DTYPES[next(rest)], next(rest)
        shape, strides = ([next(rest) for _ in range(dim)] for _ in range(2))
        count = prod(size for size, stride in zip(shape, strides, strict=True) if stride != 0)
        memory = filled(count * dtype.itemsize) if count else torch.empty(0, dtype=torch.uint8)
        found.append(memory.view(dtype).as_strided(shape, strides))
    return found


def _without_repeats(tensor: Tensor) -> Tensor:
    shape = [1 if stride == 0 else size for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]
    return tensor.as_strided(shape, tensor.stride(), tensor.storage_offset())

