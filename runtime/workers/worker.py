"""What is one of the processes that run a plan together? A trainer of its rank's part, which talks to the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lpc.runtime.batch import Batch
from lpc.runtime.data import Splits
from lpc.runtime.meter import Reading
from lpc.runtime.trainer import Trainer
from lpc.runtime.workers.transport import Transport
from lpc.specs.plan.manifest import plan_hash
from lpc.specs.plan.plan import Plan
from lpc.specs.ranks.plan import holders


class Worker(Trainer):
    """Executes one rank's plan. All ranks call the same methods in the same order, with the same batches.

    `state_dict`, `step` and `gradients` speak of what this rank holds; `evaluate`, `predict` and `fit` give the same on
    every rank. `plan` is the whole plan, of which `plans` holds a part for each rank. Of replicas the first
    one keeps: it writes their blocks, and holds the running statistics.
    """

    def __init__(
        self,
        plan: Plan,
        plans: Sequence[Plan],
        transport: Transport,
        device: str | torch.device = "auto",
        data: Splits | None = None,
    ) -> None:
        super().__init__(plans[transport.rank], device, data, transport)
        self.identity = plan_hash(plan)
        held = holders(plans)
        before = {block for own in held[: transport.rank] for block in own}
        self.keeps = before.isdisjoint(held[transport.rank])
        self.began: Callable[[], None] | None = None  # called after the first step

    def advance(self, parts: Sequence[Batch]) -> list[Reading]:
        """Run one training step on its batches and return the readings of this rank's metrics."""
        readings = super().advance(parts)
        if self.began is not None:
            self.began()
            self.began = None
        return readings
