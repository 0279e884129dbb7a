"""Which negatives should a step make? Labels drawn from the network's wrong predictions, row by row, in eager mode."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lpc.compiler.build import Build
from lpc.compiler.negatives import NEGATIVES
from lpc.probed import predicted

Tensors = Mapping[str, Tensor]


def hardened(build: Build, state: Tensors, batch: Tensors, noise: Tensors) -> Tensors:
    """Return the batch with the labels of `negatives=hard` in its image, or as it is where the spec has none."""
    hard = build.hard
    if hard is None:
        return batch
    name, half = hard.probe.image, len(batch[hard.label]) // 2
    with torch.no_grad():
        scores = predicted(build, state, {field: value[:half] for field, value in batch.items()})
    assert scores is not None
    image = batch[name].flatten(1).clone()
    for row, drawn in enumerate(noise[NEGATIVES].flatten().tolist()):
        if batch[hard.positive][row]:
            continue
        chances = scores[row % half].softmax(0).tolist()
        chances[int(batch[hard.label][row])] = 0.0
        image[row, : hard.write.classes] = 0.0
        image[row, _drawn(chances, drawn)] = hard.write.value
    return {**batch, name: image.reshape(batch[name].shape)}


def _drawn(chances: list[float], uniform: float) -> int:
    """Return the class at which the sum of the chances so far passes a share of the whole sum."""
    height, level = 0.0, uniform * sum(chances)
    for index, chance in enumerate(chances):
        height += chance
        if height > level:
            return index
    return len(chances) - 1
