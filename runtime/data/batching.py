"""In which order do samples come? Batches of an epoch, from any batch on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lpc.runtime.data.keys import ORDER, permutation
from lpc.runtime.data.split import Split


def batches(
    split: Split,
    batch: int,
    *,
    seed: int,
    epoch: int,
    start: int = 0,
    shuffle: bool,
    drop_last: bool = False,
    device: torch.device | str,
) -> Iterator[dict[str, Tensor]]:
    """Yield the batches {field: [B, ...]} of one epoch on a device, from batch number `start` on.

    The order is a pure function of (seed, epoch); the last batch is smaller where the batch size does not
    divide the number of samples, or left out with `drop_last`.
    """
    chosen = torch.split(epoch_order(len(split), seed, epoch, shuffle), batch)
    loader = DataLoader(
        split.at(seed, epoch),
        sampler=chosen[start : num_batches(split, batch, drop_last)],
        batch_size=None,
        collate_fn=_as_it_is,
        pin_memory=torch.device(device).type == "cuda",
        generator=torch.Generator(),  # otherwise the loader takes a number from torch's global generator
    )
    for fields in loader:
        yield {name: value.to(device, non_blocking=True) for name, value in fields.items()}


def num_batches(split: Split, batch: int, drop_last: bool = False) -> int:
    """Return how many batches an epoch has."""
    return len(split) // batch if drop_last else -(-len(split) // batch)


def epoch_order(count: int, seed: int, epoch: int, shuffle: bool) -> Tensor:
    """Return the sample numbers of one epoch in their order, int64 [count]."""
    return torch.from_numpy(permutation(count, seed, epoch, ORDER)) if shuffle else torch.arange(count)


def _as_it_is(fields: Any) -> Any:
    return fields
