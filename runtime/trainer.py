"""What does a user hold to run a plan? The engine, and whole runs with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpc.runtime.batch import Batch
from lpc.runtime.engine import Engine
from lpc.runtime.fit import fit
from lpc.runtime.footprint import Footprint
from lpc.runtime.report import Reporter


class Trainer(Engine):
    """Executes a plan on a device: single steps, evaluation, prediction, and whole runs."""

    def fit(
        self,
        folder: str | Path | None = None,
        *,
        resume: bool = False,
        reporter: Reporter | None = None,
        tensorboard: bool = False,
        memory: bool = False,
        trace: bool = False,
    ) -> dict[str, Any]:
        """Train as the spec's `run` says and return a summary.

        Checkpoints, `metrics.jsonl` and `summary.json` go into `folder`, if there is one. `resume` continues
        from its last checkpoint, bitwise as if there had been no interruption, or starts where there is none.
        `reporter` shows the run (`default_reporter()`; by default nothing does).
        `memory` measures the peak memory of the second step, or of a whole period, and puts it into the summary beside
        what the plan predicts, as `{"memory": {"measured": bytes, "predicted": bytes}}`; these steps are slower.
        `trace` records when each rank computes in 20 steps, writes a Chrome trace of them to `trace.json`, and puts
        `{"trace": {"overlap": ranks that compute at a time, "waiting": [share of each rank's time]}}` into the summary.
        """
        return fit(self, None if folder is None else Path(folder), resume, reporter, tensorboard, memory, trace)

    def measure(self, batch: Batch | Sequence[Batch]) -> dict[str, int]:
        """Train on one batch until every instruction was due twice; return the peak memory of a step, in bytes.

        `measured` is what tensors held (on CUDA what the allocator gave out), `predicted` what the plan says.
        """
        footprint, parts = Footprint(self), self.parts(batch)
        for _ in range(2 * footprint.period):
            footprint.advance(parts)
        found: dict[str, int] = footprint.summary()["memory"]
        return found
