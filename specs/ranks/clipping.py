"""How is the norm of the whole gradient known where its blocks are on several ranks? Each tells the norms of its own.

All ranks have all norms, and put them together in the order of the plan: each finds the factor of one process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from lpc.specs.plan.instructions import Clip, Instruction, Norms, Scale, Update


def spread(clip: Clip, homes: Mapping[str, int], body: Sequence[Instruction]) -> list[Instruction]:
    """Return what takes the place of a clip whose gradients are on several ranks; the clip itself where it cannot be.

    A parameter of several bundles has one norm, so that bundles of one update stay together.
    """
    runs = [tuple(run) for _, run in groupby(clip.gradients, lambda value: homes[value])]
    together = {value: run for run in runs for value in run}
    apart = any(len({together[v] for v in i.gradients if v in together}) > 1 for i in body if isinstance(i, Update))
    if len({homes[value] for value in clip.gradients}) == 1 or apart:
        return [clip]
    norms = [Norms(f"{run[0]}.norms", run) for run in runs]
    ranks = dict.fromkeys(homes[value] for value in clip.gradients)
    own = [tuple(value for value in clip.gradients if homes[value] == rank) for rank in ranks]
    every = tuple(one.value for one in norms)
    return [*norms, *(Scale(gradients, clip.norm, every) for gradients in own)]
