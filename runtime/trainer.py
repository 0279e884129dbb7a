"""What does a user hold to run a plan? The engine, and whole runs with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lpc.runtime.engine import Engine
from lpc.runtime.fit import fit
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
    ) -> dict[str, Any]:
        """Train as the spec's `run` says and return a summary.

        Checkpoints, `metrics.jsonl` and `summary.json` go into `folder`, if there is one. `resume` continues
        from its last checkpoint, bitwise as if there had been no interruption, or starts where there is none.
        `reporter` shows the run (`default_reporter()`; by default nothing does).
        """
        return fit(self, None if folder is None else Path(folder), resume, reporter, tensorboard)
