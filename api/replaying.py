"""How is the order of a run with overlapping steps replayed? All of its ranks in one process, each in a thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lpc.plan import Plan
from lpc.runtime.report import Reporter
from lpc.runtime.workers.crew import Crew
from lpc.runtime.workers.order import weights_of
from lpc.runtime.workers.recorded import read_order
from lpc.runtime.workers.transport import PATIENCE
from lpc.runtime.workers.worker import Worker
from lpc.specs.diagnostics import Diagnostic, LpcError


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
        crew = Crew[_Came](plan.data, recorded.ranks, device, patience, recorded.versions)
        found = crew.run(lambda worker: _Came.to(worker, folder, reporter))
    finally:
        torch.set_num_threads(threads)
    weights = {block: digest for one in found for block, digest in one.weights.items()}
    wrong = [block for block, digest in recorded.weights.items() if weights.get(block) != digest]
    if wrong:
        message = f"the weights of block `{wrong[0]}` are not those that the run came to"
        notes = (f"recorded with torch {recorded.torch}, replayed with {torch.__version__}",)
        raise LpcError(Diagnostic("0676", message, place=str(order), notes=notes))
    return found[0].summary


@dataclass(frozen=True)
class _Came:
    """What a rank came to: its summary, and the hash of each block that it keeps."""

    summary: Mapping[str, Any]
    weights: Mapping[str, str]

    @classmethod
    def to(cls, worker: Worker, folder: Path | None, reporter: Reporter | None) -> _Came:
        summary = worker.fit(folder, reporter=None if worker.transport.rank else reporter)
        return cls(summary, weights_of(worker.state) if worker.keeps else {})
