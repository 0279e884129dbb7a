"""What is a split? A map-style data set in memory that gives whole batches by sample number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lpc.runtime.data.contrast import SITE, Contrast
from lpc.runtime.data.field import Field
from lpc.runtime.data.keys import uniform
from lpc.specs.plan.kernel import TensorType


@dataclass(frozen=True, eq=False)
class Split(Dataset[dict[str, Tensor]]):
    """Samples of one split.

    `stored[name]` is [N, ...] for each of `routes`; `draws[i]` [N, n] holds the random numbers of transform i
    for one epoch and is empty where nothing is random: a sample's augmentation depends on (seed, epoch,
    sample) alone. With `indexed`, batches also have the field `index`. With several `views` a batch holds every sample
    that often, all samples of one view after those of the one before; each view has n of a transform's numbers.
    """

    routes: Mapping[str, Field]
    stored: Mapping[str, Tensor]
    indexed: bool
    training: bool
    draws: Mapping[int, Tensor]
    views: int = 1
    contrast: Contrast | None = None
    chosen: Tensor | None = None  # the stored samples that these are, where they lie on disk
    numbers: Tensor = field(default_factory=lambda: torch.empty(0))  # the contrast's, [N]

    @property
    def fields(self) -> dict[str, TensorType]:
        """Dtype and shape of each field for one sample, without the batch axis."""
        own = {name: route.type for name, route in self.routes.items()}
        return own | ({"index": TensorType("int64", ())} if self.indexed else {})

    def __len__(self) -> int:
        return len(next(iter(self.stored.values())) if self.chosen is None else self.chosen)

    def __getitem__(self, indices: int | Sequence[int] | Tensor) -> dict[str, Tensor]:
        """Return a batch {field: [B, ...]}, or one sample {field: [...]} for a single number."""
        if isinstance(indices, int):
            return {name: value[0] for name, value in self[[indices]].items()}
        rows = torch.as_tensor(indices, dtype=torch.int64)
        batches = [self._view(rows, view) for view in range(self.views)]
        batch = {name: torch.cat([b[name] for b in batches]) for name in batches[0]} if self.views > 1 else batches[0]
        return batch if self.contrast is None else self.contrast(batch, self.numbers.index_select(0, rows))

    def _view(self, rows: Tensor, view: int) -> dict[str, Tensor]:
        draws = {
            site: numbers.index_select(0, rows).chunk(self.views, 1)[view] for site, numbers in self.draws.items()
        }
        places = rows if self.chosen is None else self.chosen.index_select(0, rows)
        batch = {
            name: route.deliver(self.stored[name].index_select(0, places), draws)
            for name, route in self.routes.items()
        }
        return batch | ({"index": rows} if self.indexed else {})

    def __getitems__(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """Return a batch {field: [B, ...]}."""
        return self[indices]

    def at(self, seed: int, epoch: int) -> Split:
        """Return the same samples as they appear in one epoch: in training, augmented and contrasted anew."""
        if self.contrast is not None:
            drawn = uniform((len(self),), seed, epoch if self.training else 0, SITE)
            return replace(self, numbers=torch.from_numpy(drawn))._augmented(seed, epoch)
        return self._augmented(seed, epoch)

    def _augmented(self, seed: int, epoch: int) -> Split:
        if not self.training:
            return self
        sites = {
            number: transform.draws
            for route in self.routes.values()
            for number, transform in enumerate(route.transforms) if transform.draws
        }
        return replace(self, draws={
            site: torch.from_numpy(uniform((len(self), width * self.views), seed, epoch, site + 1))
            for site, width in sites.items()
        })

    def subset(self, rows: Tensor, training: bool) -> Split:
        """Return some of the samples, numbered anew from 0."""
        if any(route.column.mapped for route in self.routes.values()):
            chosen = rows if self.chosen is None else self.chosen[rows]
            return replace(self, chosen=chosen, training=training, numbers=torch.empty(0))
        stored = {name: values[rows] for name, values in self.stored.items()}
        return replace(self, stored=stored, training=training, numbers=torch.empty(0))
