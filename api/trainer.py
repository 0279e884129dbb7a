"""How is a plan executed from Python? The runtime's trainer, for the public plan."""

from __future__ import annotations

import torch

from lpc.plan import Plan
from lpc.runtime import trainer
from lpc.runtime.data import Splits


class Trainer(trainer.Trainer):
    """Executes a plan on a device: single steps, evaluation, prediction, and whole runs.

    `device` is `auto` (then the spec's `run.device`, then the best one here), `cpu`, `cuda` or `cuda:N`;
    `data` replaces the spec's own data. Raises LpcError for a device or a torch that cannot run the plan.
    """

    def __init__(self, plan: Plan, device: str | torch.device = "auto", data: Splits | None = None) -> None:
        super().__init__(plan.data, device, data)
