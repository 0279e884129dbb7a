"""How do samples become batches? In an order, and by random numbers, that depend on (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice

import torch
from torch import Tensor

from lpc.ejecting.parts.settings import DEVICE, SEED
from lpc.runtime.data.keys import ORDER, permutation, uniform

Batch = dict[str, Tensor]
CONTRAST = 1_000_000  # where contrasts draw, beyond all transforms


@dataclass(frozen=True)
class Transform:
    """A function over batches of samples; in training it gets `draws` uniform numbers for each sample, else None."""

    apply: Callable[[Tensor, Tensor | None], Tensor]
    draws: int = 0


@dataclass(frozen=True)
class Field:
    """The way of one field into a batch: its dtype, the integer that means 1 in images, transforms, its shape."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    peak: int | None = None
    transforms: tuple[Transform, ...] = ()

    def deliver(self, stored: Tensor, draws: dict[int, Tensor]) -> Tensor:
        """Return stored samples as they enter a batch."""
        x = stored.to(self.dtype)
        if self.peak is not None:
            x = x / self.peak
        for number, transform in enumerate(self.transforms):
            x = transform.apply(x, draws.get(number))
        return x.reshape(len(x), *self.shape)


@dataclass(frozen=True)
class Samples:
    """All samples of a split, with what becomes of them in a batch."""

    stored: Batch
    fields: dict[str, Field]
    training: bool
    batch: int
    views: int = 1
    indexed: bool = False
    contrast: Callable[[Batch, Tensor], Batch] | None = None
    numbers: dict[int, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.stored.values())))

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return -(-len(self) // self.batch)

    def take(self, rows: Tensor, numbers: dict[int, Tensor]) -> Batch:
        """Return some samples as a batch."""
        views = [self.view(rows, numbers, view) for view in range(self.views)]
        batch = views[0] if self.views == 1 else {name: torch.cat([one[name] for one in views]) for name in views[0]}
        return batch if self.contrast is None else self.contrast(batch, numbers[CONTRAST].index_select(0, rows)[:, 0])

    def view(self, rows: Tensor, numbers: dict[int, Tensor], view: int) -> Batch:
        """Return one view of some samples."""
        own = {site: drawn.index_select(0, rows).chunk(self.views, 1)[view] for site, drawn in numbers.items()
               if site != CONTRAST}  # fmt: skip
        found = {name: one.deliver(self.stored[name].index_select(0, rows), own) for name, one in self.fields.items()}
        return found | ({"index": rows} if self.indexed else {})

    def drawn(self, epoch: int) -> dict[int, Tensor]:
        """Return the random numbers of an epoch: of each transform, and of the contrast."""
        transforms = [pair for one in self.fields.values() for pair in enumerate(one.transforms) if self.training]
        widths = {site: one.draws * self.views for site, one in transforms if one.draws}
        found = {s: torch.from_numpy(uniform((len(self), n), SEED, epoch, s + 1)) for s, n in widths.items()}
        if self.contrast is not None:
            at = epoch if self.training else 0
            found[CONTRAST] = torch.from_numpy(uniform((len(self), 1), SEED, at, CONTRAST))
        return found

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        size, numbers = len(self), self.drawn(epoch)
        order = torch.from_numpy(permutation(size, SEED, epoch, ORDER)) if self.training else torch.arange(size)
        for rows in torch.split(order, self.batch):
            yield {name: value.to(DEVICE).contiguous() for name, value in self.take(rows, numbers).items()}


def groups(samples: Samples, size: int) -> Iterator[list[Batch]]:
    """Yield the batches of one step after the other, epoch by epoch; a group that is not full is left out."""
    for epoch in count():
        stream = samples.epoch(epoch)
        while len(group := list(islice(stream, size))) == size:
            yield group


def load(batches: Iterator[Batch], *names: str) -> tuple[Tensor, ...]:
    """Return the fields of the next batch."""
    batch = next(batches)
    return tuple(batch[name] for name in names)
