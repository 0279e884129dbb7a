"""What does one sample of a tensor look like? Shapes without the batch axis, lengths by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch

BATCH = "B"


@dataclass(frozen=True)
class PerSample:
    """Shape without the batch axis, and whether it had one: `[B, 64]` is [64], `[B*197, 8]` is [197, 8]."""

    shape: tuple[int | str, ...]
    batched: bool


def per_sample(tensor: torch.Tensor, symbols: Mapping[str, str]) -> PerSample:
    """Read the shape of a fake tensor. `symbols` maps sympy symbol names to names; the batch is `B`."""
    lengths: list[int | str] = []
    batched = False
    for size in tensor.shape:
        length, has_batch = _length(size, symbols)
        batched = batched or has_batch
        if not (has_batch and length == 1):
            lengths.append(length)
    return PerSample(tuple(lengths), batched)


def dtype_name(tensor: torch.Tensor) -> str:
    """Return `float32` for torch.float32."""
    return str(tensor.dtype).removeprefix("torch.")


def _length(size: Any, symbols: Mapping[str, str]) -> tuple[int | str, bool]:
    if not isinstance(size, torch.SymInt):
        return int(size), False
    expression = size.node.expr
    renamed = expression.subs({s: sympy.Symbol(symbols.get(str(s), str(s))) for s in expression.free_symbols})
    batch = sympy.Symbol(BATCH)
    has_batch = batch in renamed.free_symbols
    rest = sympy.cancel(renamed / batch) if has_batch else renamed
    return (int(rest) if rest.is_Integer else str(rest)), has_batch
