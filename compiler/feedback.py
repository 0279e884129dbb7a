"""How does an error go back by other weights? Projections of the output's error, and backward weights, all fixed.

They are drawn once, by the run's seed and their name, and kept with the state.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def projection(
    options: Mapping[str, Any], name: str, seed: int, value: Sequence[int], error: int, dtype: torch.dtype
) -> Tensor:
    """Draw the matrix of a feedback link: [elements of a sample's value, or its channels; elements of its error].

    Elements have mean 0 and the standard deviation `scale / sqrt(error)`. Source: Noekland 2016, arXiv 1609.01596.
    """
    rows = math.prod(value) if options["over"] == "elements" else value[channel_axis(value)]
    drawn = _drawn((rows, error), options["law"], name, seed, dtype)
    return drawn * (float(options["scale"]) / math.sqrt(error))


def project(error: Tensor, matrix: Tensor, value: Tensor) -> Tensor:
    """Return what the error [B, ...] is for a value [B, ...]: the same at every position of channels."""
    fed = error.flatten(1) @ matrix.t()
    shape = value.shape[1:]
    if matrix.shape[0] == math.prod(shape):
        return fed.reshape(value.shape)
    axis = channel_axis(shape)
    return fed.reshape([-1] + [matrix.shape[0] if a == axis else 1 for a in range(len(shape))]).expand(value.shape)


def backward_weight(weight: Tensor, name: str, seed: int, scale: float) -> Tensor:
    """Draw fixed weights of the size of `weight`: normal, with its root mean square times `scale`."""
    return _drawn(weight.shape, "gaussian", name, seed, weight.dtype) * backward_size(weight, scale)


def backward_size(weight: Tensor, scale: float) -> float:
    """Return the root mean square of a weight times `scale`; of one that is zero, of Kaiming's law for a linear map."""
    size = float(weight.detach().double().pow(2).mean().sqrt())
    return scale * (size or 1.0 / math.sqrt(max(weight.numel() // weight.shape[0], 1)))


def channel_axis(shape: Sequence[Any]) -> int:
    """Return the axis of the channels in a per-sample shape: the last of [C] and [T, C], the first of [C, H, W]."""
    return 0 if len(shape) > 2 else len(shape) - 1


def _drawn(shape: Sequence[int], law: str, name: str, seed: int, dtype: torch.dtype) -> Tensor:
    key = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)
    empty = torch.empty(tuple(shape), dtype=dtype)
    if law == "gaussian":
        return empty.normal_(generator=generator)
    return empty.uniform_(-math.sqrt(3.0), math.sqrt(3.0), generator=generator)
