"""How is the order of a run with overlapping steps replayed? All of its ranks in one process, each in a thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lpc.plan import Plan
from lpc.runtime.report import Reporter
from lpc.runtime.workers.order import weights_of
from lpc.runtime.workers.recorded import Recorded, read_order
from lpc.runtime.workers.threads import Hub
from lpc.runtime.workers.transport import PATIENCE
from lpc.runtime.workers.worker import Worker
from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.ranks.plan import edges_of, rank_plans, room_of


def replay(
    plan: Plan,
    order: Path,
    folder: Path | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
    patience: float = PATIENCE,
) -> Mapping[str, Any]:
    """Train as a recorded run with `run.staleness` did, in its order, and return the summary.

    `order` is the `order.jsonl` in that run's folder; `patience` is as in `join`. The weights are the same to the bit,
    which is checked. Raises LpcError: 0674 a journal that is damaged or of a run that did not end, 0675 one of another
    plan, 0676 other weights, 0684 a `folder` that is that of the run.
    """
    recorded = read_order(order, plan.hash)
    if folder is not None and folder.resolve() == order.resolve().parent:
        message = "the replay would be written over the run that it replays"
        raise LpcError(Diagnostic("0684", message, place=str(folder)))
    threads = torch.get_num_threads()
    torch.set_num_threads(recorded.threads)
    try:
        return _Replay(plan, recorded, folder, device, reporter, patience).run(order)
    finally:
        torch.set_num_threads(threads)


class _Replay:
    def __init__(
        self, plan: Plan, recorded: Recorded, folder: Path | None, device: str, reporter: Reporter | None,
        patience: float,
    ) -> None:
        self.plan, self.recorded, self.folder, self.device = plan, recorded, folder, device
        self.reporter = reporter
        self.plans = rank_plans(plan.data, plan.spec, recorded.ranks)
        self.hub = Hub(recorded.ranks, edges_of(self.plans), room_of(self.plans), patience)
        self.errors: list[BaseException] = []
        self.weights: dict[str, str] = {}
        self.summary: Mapping[str, Any] = {}

    def run(self, order: Path) -> Mapping[str, Any]:
        threads = [threading.Thread(target=self.act, args=(rank,)) for rank in range(self.recorded.ranks)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]
        wrong = [block for block, digest in self.recorded.weights.items() if self.weights.get(block) != digest]
        if wrong:
            message = f"the weights of block `{wrong[0]}` are not those that the run came to"
            notes = (f"recorded with torch {self.recorded.torch}, replayed with {torch.__version__}",)
            raise LpcError(Diagnostic("0676", message, place=str(order), notes=notes))
        return self.summary

    def act(self, rank: int) -> None:
        try:
            recorded = self.recorded.versions[rank]
            worker = Worker(self.plan.data, self.plans, self.hub.transport(rank), self.device, recorded=recorded)
            summary = worker.fit(self.folder, reporter=None if rank else self.reporter)
            if rank == 0:
                self.summary = summary
            if worker.keeps:
                self.weights |= weights_of(worker.state)
        except BaseException as error:
            self.errors.append(error)
            self.hub.abort()
