"""What is drawn at a random site? Numbers that depend on (seed, step, batch of the step, site) alone."""

from __future__ import annotations

import hashlib

import torch
from torch import Generator, Tensor

from lpc.ejecting.parts.clock import Clock
from lpc.ejecting.parts.settings import DEVICE, SEED

Shape = tuple[int, ...]


def generator(site: str, clock: Clock, part: int) -> Generator:
    """Return the generator of one draw; `part` counts the batches within a step."""
    text = f"{SEED}/{clock.step}/{part}/{site}".encode()
    key = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
    return Generator(DEVICE).manual_seed(key)


def bernoulli(
    site: str, clock: Clock, shape: Shape, p: float, part: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw ones with probability p, else zeros."""
    return torch.empty(shape, dtype=dtype, device=DEVICE).bernoulli_(p, generator=generator(site, clock, part))


def uniform(
    site: str, clock: Clock, shape: Shape, low: float, high: float, part: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw numbers from low to high."""
    return torch.empty(shape, dtype=dtype, device=DEVICE).uniform_(low, high, generator=generator(site, clock, part))


def normal(
    site: str, clock: Clock, shape: Shape, mean: float, std: float, part: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw normal numbers."""
    return torch.empty(shape, dtype=dtype, device=DEVICE).normal_(mean, std, generator=generator(site, clock, part))


def rademacher(site: str, clock: Clock, shape: Shape, part: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw 1 or -1, as likely."""
    return bernoulli(site, clock, shape, 0.5, part, dtype).mul_(2.0).sub_(1.0)


def rows(drawn: Tensor, axis: int, first: int, last: int, size: int) -> Tensor:
    """Return what belongs to samples from `first` up to `last` of a batch of `size`."""
    each = drawn.shape[axis] // size
    return drawn.narrow(axis, first * each, (last - first) * each).contiguous()
