"""How does a Python script take part in a run of several processes? It joins those that torchrun started with it."""

from __future__ import annotations

import torch

from lpc.plan import Plan
from lpc.runtime.data import Splits
from lpc.runtime.workers import join as joining
from lpc.runtime.workers.transport import PATIENCE
from lpc.runtime.workers.worker import Worker


def join(
    plan: Plan, device: str | torch.device = "auto", data: Splits | None = None, patience: float = PATIENCE
) -> Worker:
    """Return this process's worker: a trainer of the blocks that its rank holds, once all ranks are there.

    All ranks call the same methods in the same order with the same batches, and in the end `worker.transport.close()`.
    `patience` is how many seconds a silent rank is waited for. Raises LpcError: 0580 and 0581 where the plan cannot be
    divided so, 0682 where the ranks do not meet, 0684 where no launcher has started this process.
    """
    return joining.join(plan.data, device, data, patience)
